"""Scores of whole cases beside MONAI's, from label maps in memory to numbers.

    python benchmarks/scoring.py [--truth FILE] [--rounds 9] [--monai-python PATH] [--one-thread]

Cases: a synthetic brain of 240 x 240 x 155 voxels and, with --truth, a segmentation of BraTS in
NIfTI; of each two predictions: the truth two voxels further on, and the same with objects that are
not there all over the head. Ours gets the uint8 label maps, MONAI the masks of WT, TC and ET, whose
making is not counted; both compute Dice and HD95, then ASSD and NSD (1 mm) as well. They take turns
within a round, in changing order. Shown are medians of milliseconds over the rounds, of the rounds'
ratios, MONAI's / ours, and the largest difference of a value. --one-thread is for a machine that is
not idle: it counts the time that one thread computes, not that it waits.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from worker import Worker, in_turns

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
METRICS = {"Dice, HD95": ("dice", "hd95_mm"),
           "Dice, HD95, ASSD, NSD": ("dice", "hd95_mm", "assd_mm", "nsd")}  # fmt: skip
SPACING = (1.0, 1.0, 1.0)


Score = Callable[[tuple[str, ...]], list[float]]


def ours(prediction: np.ndarray, truth: np.ndarray) -> Score:
    from keras_medseg.evaluation.scores import score_labels

    def score(metrics: tuple[str, ...]) -> list[float]:
        rows = score_labels(prediction, truth, REGIONS, metrics=metrics, spacing=SPACING)
        return [float(row[name]) for name in metrics for row in rows]

    return score


def monai(prediction: np.ndarray, truth: np.ndarray) -> Score:
    import torch
    from monai import metrics as of_monai

    belongs = {name: np.isin(np.arange(256), codes) for name, codes in REGIONS.items()}
    masks = [
        torch.from_numpy(np.stack([table[labels] for table in belongs.values()])[None])
        for labels in map(np.ascontiguousarray, (prediction, truth))
    ]
    options = {"include_background": True, "spacing": list(SPACING)}
    functions: dict[str, Callable] = {
        "dice": lambda: of_monai.compute_dice(*masks, include_background=True),
        "hd95_mm": lambda: of_monai.compute_hausdorff_distance(*masks, percentile=95, **options),
        "assd_mm": lambda: of_monai.compute_average_surface_distance(
            *masks, symmetric=True, **options
        ),
        "nsd": lambda: of_monai.compute_surface_dice(*masks, [1.0] * len(REGIONS), **options),
    }
    return lambda metrics: [float(x) for name in metrics for x in functions[name]()[0]]


SIDES = {"ours": ours, "monai": monai}


def serve(side: str, clock: Callable[[], float]) -> None:
    """Answer requests, one JSON object per line, until the input ends."""
    loaded: dict[str, Score] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["case"] not in loaded:
            with np.load(request["case"]) as file:
                loaded = {request["case"]: SIDES[side](file["prediction"], file["truth"])}
        start = clock()
        values = loaded[request["case"]](METRICS[request["metrics"]])
        print(json.dumps([clock() - start, values]), flush=True)


def predictions(truth: np.ndarray) -> dict[str, np.ndarray]:
    """Two predictions of a case, in the order of its axes in memory."""
    from scipy import ndimage

    moved = np.roll(truth, (2, -1, 1), (0, 1, 2))
    noise = ndimage.gaussian_filter(
        np.random.default_rng(0).standard_normal(truth.shape, np.float32), 3
    )
    scattered = np.where(noise > 3.6 * noise.std(), 2, moved)
    return {
        "moved": np.asarray(moved, np.uint8, order="F"),
        "moved, scattered": np.asarray(scattered, np.uint8, order="F"),
    }


def truths(file: Path | None, folder: Path) -> dict[str, np.ndarray]:
    """Canonical label maps as a reader of NIfTI has them in memory: x runs fastest."""
    import nibabel

    from keras_medseg import phantoms
    from keras_medseg.data.datasets.brats import to_canonical

    def read(path: Path) -> np.ndarray:
        codes = np.asarray(nibabel.load(path).dataobj)
        return np.asfortranarray(to_canonical(codes, "BraTS2021", path))

    phantoms.write(folder / "brains", layout="BraTS2021", cases=4)
    drawn = map(read, sorted((folder / "brains").rglob("*_seg.nii.gz")))
    # One with all regions: of an empty one, MONAI's distances are no numbers.
    found = {"phantom": next(labels for labels in drawn if set(np.unique(labels)) == {0, 1, 2, 3})}
    return found | ({"real": read(file)} if file else {})


def row(workers: list[Worker], case: str, metrics: str, rounds: int) -> list[str]:
    """Cells of both medians, the ratio and the largest difference of a value."""
    request = {"case": case, "metrics": metrics}
    values = np.array([worker.ask(**request)[1] for worker in workers])  # the first call imports
    seconds = []
    for number in range(rounds):
        answers = in_turns([partial(worker.ask, **request) for worker in workers], number)
        seconds.append([answer[0] for answer in answers])
    medians = [f"{1000 * statistics.median(side):.0f}" for side in zip(*seconds)]
    ratio = statistics.median(other / own for own, other in seconds)
    return [*medians, f"{ratio:.1f}", f"{np.abs(values[0] - values[1]).max():.1g}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--truth", type=Path, help="a segmentation of BraTS 2021, with codes 1 2 4")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--monai-python", default=sys.executable, help="an interpreter with MONAI")
    parser.add_argument("--one-thread", action="store_true", help="for a machine that is not idle")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, time.process_time if arguments.one_thread else time.perf_counter)
        return
    workers = [
        Worker(python, __file__, "--serve", side, one_thread=arguments.one_thread)
        for side, python in (("ours", sys.executable), ("monai", arguments.monai_python))
    ]
    print("| case | prediction | metrics | ours | MONAI | ratio | difference |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, truth in truths(arguments.truth, folder).items():
            for kind, prediction in predictions(truth).items():
                case = str(folder / f"{name}-{kind}.npz")
                np.savez(case, prediction=prediction, truth=truth)
                for metrics in METRICS:
                    cells = row(workers, case, metrics, arguments.rounds)
                    print(f"| {' | '.join([name, kind, metrics, *cells])} |", flush=True)
    for worker in workers:
        worker.close()


if __name__ == "__main__":
    sys.exit(main())
