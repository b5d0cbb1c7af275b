"""How time and memory grow: with the batch, the image size, the number of cases, and the cores.

    python benchmarks/growth.py [--rounds 5] [--only batch size ...] [--one-thread] [--quick]
    python benchmarks/growth.py --draw

The first command measures and writes growth.csv, a row for each point; the second one draws it
into docs/images and prints the table of the cores. Every point is a process of its own, because the
peak of the resident memory (ru_maxrss) is that of a process; the row "start" is one that only
imports what a training imports. Training steps and inferences are those of dcabes2020's network and
of FM-Net in three dimensions with a quarter of its filters; the first calls, which compile, are not
counted. Cases are synthetic. --one-thread is for a machine that is not idle: it counts the time
that one thread computes, and leaves out the cores.
"""

import argparse
import csv
import importlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "benchmarks" / "growth.csv"
FIGURES = ROOT / "docs" / "images"
COLUMNS = ("curve", "what", "value", "seconds", "peak_gib")
GIB = 2**30 if sys.platform == "darwin" else 2**20  # of what getrusage counts in
CASE = (120, 120, 80)  # voxels of a synthetic case, an eighth of BraTS'
TWO, THREE = "residual_attention_unet", "fmnet, 3-D, 8 filters"
# Changes to the recipes whose networks are measured, beside size, batch and precision.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    TWO: ("dcabes2020", {}),
    THREE: ("fmnet2023", {"model.options.filters": 8, "data.augment_on_device": False}),
}
GRIDS = {
    "batch": {TWO: (1, 2, 4, 8, 16), THREE: ()},
    "size": {TWO: (64, 96, 128, 192, 256), THREE: (32, 48, 64, 96)},
    "cases": (4, 8, 16, 32),
    "cores": (1, 2),
}
QUICK = {
    "batch": {TWO: (1, 2)},
    "size": {TWO: (32, 64), THREE: (32,)},
    "cases": (1, 2),
    "cores": (1, 2),
}
STEPS = ("training step", "inference")
WORK = ("prepare", "an epoch of slices", "predict", "score")


# What a process measures


def network_seconds(request: dict[str, Any], clock: Callable[[], float]) -> list[float]:
    """Seconds of each step or inference of a network on random numbers."""
    import numpy as np

    from keras_medseg import recipe
    from keras_medseg.runs import papers
    from keras_medseg.training import fit

    paper, changes = NETWORKS[request["network"]]
    base = papers.find(paper).recipe
    solid = len(base.data.input_size) == 3
    place = "data.patch" if solid else "data.window"
    size = (request["size"],) * 3 if solid else (request["size"],) * 2 + (base.data.window[2],)
    chosen = recipe.override(base, {**changes, place: size, "train.precision": "float32"})
    targets = chosen.model.targets[0]
    network, model = fit.compile_network(chosen, targets, channels=4)
    shape = (request["batch"], *chosen.data.input_size)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((*shape, 4)).astype(np.float32)
    y = (rng.random((*shape, len(targets))) > 0.9).astype(np.float32)
    act: Callable[[], Any] = (
        (lambda: model.train_on_batch(x, y))
        if request["act"] == "training step"
        else (lambda: network.predict_on_batch(x))
    )
    return [timed(act, clock) for _ in range(2 + request["rounds"])][2:]


def prepare(cases: list, request: dict[str, Any]) -> Callable[[], Any]:
    from keras_medseg.data.store import prepare

    out = Path(request["folder"], "stores", str(os.getpid()))
    return lambda: prepare(cases, _dataset().read, out, workers=request.get("workers", 1))


def epoch(cases: list, request: dict[str, Any]) -> Callable[[], Any]:
    from keras_medseg.data.batches.slices import SliceBatches
    from keras_medseg.data.store import prepare

    store = prepare(cases, _dataset().read, Path(request["folder"], "store"))
    batches = SliceBatches(
        *(store, [case.id for case in cases], (("WT", (1, 2, 3)),)),
        window=(96, 96, 64),
        batch_size=32,
        normalization="z_score",
    )

    def read() -> None:
        for step in range(batches.steps_per_epoch):
            batches.batch(0, step)

    return read


def predict(cases: list, request: dict[str, Any]) -> Callable[[], Any]:
    from keras_medseg.runs.members import members
    from keras_medseg.runs.predict_folder import Options, Part, predict_with, prepared

    folder = Path(request["folder"])
    ready = prepared(members([folder / "run"]), Options())
    part = Part(1, request["all"] // request["cases"])
    out = folder / "predicted" / str(os.getpid())
    return lambda: predict_with(ready, folder / "cases", out, Options(), part=part)


def score(cases: list, request: dict[str, Any]) -> Callable[[], Any]:
    from keras_medseg.evaluation.score_folder import score_folders

    maps = {"maps": Path(request["folder"], "maps")}
    workers = request.get("workers", 1)
    return lambda: score_folders(maps, cases, _dataset(), workers=workers)


WORKERS = dict(zip(WORK, (prepare, epoch, predict, score)))


def work_seconds(request: dict[str, Any], clock: Callable[[], float]) -> list[float]:
    """Seconds of one run over the first cases of the folder."""
    cases = _dataset().find(Path(request["folder"], "cases")).cases[: request["cases"]]
    return [timed(WORKERS[request["act"]](list(cases), request), clock)]


def timed(act: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    act()
    return clock() - start


def _dataset() -> Any:
    from keras_medseg.data.datasets import brats

    return brats.Brats()


def serve(request: dict[str, Any]) -> None:
    """Measure one point and print it."""
    one_thread = request["one_thread"]
    clock = time.process_time if one_thread else time.perf_counter
    threads = 1 if one_thread else request.get("cores")
    if threads and request["act"] in (*STEPS, "start"):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    if request["act"] == "start":
        importlib.import_module("keras_medseg.training.fit")
        seconds = [0.0]
    else:
        measure = network_seconds if request["act"] in STEPS else work_seconds
        seconds = measure(request, clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB
    print(json.dumps([statistics.median(seconds), peak]))


# The points


def points(grids: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A request for each point: its curve, what is done, and the value on the axis."""
    yield {"curve": "start", "act": "start", "what": "start", "value": 1}
    for curve in ("batch", "size"):
        for network, values in grids[curve].items():
            for act in STEPS:
                for value in values:
                    shape = {"batch": 1, "size": 176} | {curve: value}
                    what = f"{act}: {network}"
                    yield {"curve": curve, "act": act, "what": what, "value": value} | {
                        "network": network,
                        **shape,
                    }
    for act in WORK:
        for value in grids["cases"]:
            yield {"curve": "cases", "act": act, "what": act, "value": value, "cases": value}
    for value in grids["cores"]:
        for act in STEPS:
            yield {"curve": "cores", "act": act, "what": f"{act}: {TWO}", "value": value} | {
                "network": TWO,
                "batch": 8,
                "size": 176,
                "cores": value,
            }
        for act in ("prepare", "score"):
            yield {"curve": "cores", "act": act, "what": act, "value": value} | {
                "cases": grids["cases"][-2],
                "workers": value,
            }


def measured(request: dict[str, Any]) -> dict[str, Any]:
    """The row of a point, from a process of its own."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--serve", json.dumps(request)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    kept = {name: request[name] for name in ("curve", "what", "value")}
    return kept | {"seconds": f"{seconds:.4g}", "peak_gib": f"{peak:.3f}"}


def make_cases(folder: Path, count: int) -> None:
    """Cases, label maps to be scored, and a run with untrained networks, in a process of its own.

    In this process the peak of what it imports would count for every process that it starts.
    """
    from predict_case import make_run

    from keras_medseg import recipe
    from keras_medseg.phantoms.brats import write_brats
    from keras_medseg.runs import papers

    write_brats(folder / "cases", cases=count, shape=CASE)
    (folder / "maps").mkdir()
    for path in (folder / "cases").rglob("*_seg.nii.gz"):
        os.link(path, folder / "maps" / path.name.replace("_seg", ""))
    small = {"data.window": (96, 96, 64), "model.options.filters": 8}
    chosen = recipe.override(papers.recipe_module("dcabes2020").RECIPE, small)
    make_run(folder / "run", chosen)


def measure(arguments: argparse.Namespace) -> None:
    """All points, as lines while they are measured, then in the file, which keeps other curves."""
    grids = GRIDS | (QUICK if arguments.quick else {})
    wanted = {*arguments.only, "start"} - ({"cores"} if arguments.one_thread else set())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        common = {"folder": folder, "all": grids["cases"][-1], "rounds": arguments.rounds}
        common["one_thread"] = arguments.one_thread
        if wanted & {"cases", "cores"}:
            command = [sys.executable, __file__, "--make", folder, "--serve", str(common["all"])]
            subprocess.run(command, check=True)
        for request in points(grids):
            if request["curve"] in wanted:
                rows.append(measured(common | request))
                print(" ".join(f"{value:>12}" for value in rows[-1].values()), flush=True)
    there = read_rows(arguments.table) if arguments.table.exists() else []
    rows += [row for row in there if row["curve"] not in wanted]
    rows.sort(key=lambda row: ["start", *GRIDS].index(row["curve"]))
    with arguments.table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(table: Path) -> list[dict[str, str]]:
    """The points of a table, as text."""
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


# The figures


def draw(table: Path, folder: Path) -> None:
    """One figure for each curve: seconds and memory, both on logarithmic axes."""
    rows = read_rows(table)
    [start] = (float(row["peak_gib"]) for row in rows if row["curve"] == "start")
    axes = {
        "batch": f"images in a batch, {TWO}, 176 x 176 pixels",
        "size": "pixels or voxels along each edge, one image",
        "cases": "cases of 120 x 120 x 80 voxels",
    }
    for curve, label in axes.items():
        chosen = [row for row in rows if row["curve"] == curve]
        if chosen:
            _draw(chosen, start, label, folder / f"growth_{curve}.png")
    print_cores([row for row in rows if row["curve"] == "cores"])


def print_cores(rows: list[dict[str, str]]) -> None:
    """Seconds with one core and with more, as a table of the page."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["what"], []).append(float(row["seconds"]))
    for what, seconds in found.items():
        cells = (*(f"{value:.2f}" for value in seconds), f"{seconds[0] / seconds[-1]:.2f}")
        print(f"| {what} | {' | '.join(cells)} |")


def _draw(rows: list[dict[str, str]], start: float, label: str, path: Path) -> None:
    from matplotlib.figure import Figure

    from keras_medseg.reporting.figures.style import OTHER_COLORS, REGION_COLORS, save, styled

    colors = (*OTHER_COLORS[:2], REGION_COLORS["TC"], REGION_COLORS["ET"])
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        numbers = (float(row[name]) for name in ("value", "seconds", "peak_gib"))
        lines.setdefault(row["what"], []).append(tuple(numbers))

    @styled
    def figure() -> Figure:
        drawn = Figure(figsize=(9, 3.8))
        time_axis, memory_axis = drawn.subplots(1, 2)
        dashes = itertools.cycle(("solid", "dashed"))
        for (what, found), color, marker, dash in zip(lines.items(), colors, "os^D", dashes):
            values, seconds, peaks = zip(*found)
            style = {"color": color, "marker": marker, "markersize": 4, "linestyle": dash}
            time_axis.plot(values, seconds, label=what, **style)
            memory_axis.plot(values, peaks, **style)
        memory_axis.axhline(start, color="black", linestyle="dotted", linewidth=1)
        note = "TensorFlow imported, nothing else"
        memory_axis.text(values[-1], start, note, va="bottom", ha="right", fontsize=8)
        ticks = sorted({value for found in lines.values() for value, *_ in found})
        for axis, unit, base in ((time_axis, "time, s", 10), (memory_axis, "peak memory, GiB", 2)):
            axis.set(xlabel=label, ylabel=unit, xscale="log")
            axis.set_yscale("log", base=base)
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.yaxis.set_major_formatter("{x:g}")
            axis.minorticks_off()
            axis.grid()
        drawn.legend(loc="outside lower center", ncols=2)
        return drawn

    save(figure(), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="steps that are measured")
    parser.add_argument("--only", nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--one-thread", action="store_true", help="for a machine that is not idle")
    parser.add_argument("--quick", action="store_true", help="two points a curve, as a trial")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--draw", action="store_true", help="the figures of a table that is there")
    parser.add_argument("--images", type=Path, default=FIGURES)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make_cases(arguments.make, int(arguments.serve))
    elif arguments.serve:
        serve(json.loads(arguments.serve))
    elif arguments.draw:
        draw(arguments.table, arguments.images)
    elif arguments.quick and arguments.table == TABLE:
        parser.error("--quick: found the table of the page, expected --table FILE for a trial.")
    else:
        measure(arguments)


if __name__ == "__main__":
    main()
