"""Train step and inference of every network, beside the same network in plain PyTorch.

    python benchmarks/networks.py [--quick] [--one-thread] [--only NAME ...] [--without-norms]
        [--torch-python PATH] [--compile]

Each network at its paper's size or as much of it as memory holds (`SHAPES`), float32 and bfloat16
(Keras' mixed_bfloat16, PyTorch's autocast); Adam on the mean squared error of one image or of the
batch in `BATCHES`. Each engine is a process of its own; they take turns within a round, in changing
order, so what else the machine does falls on both. Shown are medians of milliseconds over the
rounds, and of the rounds' ratios, ours / PyTorch. --quick takes small sizes. --one-thread is for a
machine that is not idle: it counts the time that one thread computes, not that it waits.
--without-norms leaves batch and instance norms out of both engines, to see what they take.
--compile adds torch.compile as a third engine, with its ratio; it needs a C++ compiler.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from worker import Worker, in_turns

PRECISIONS = ("float32", "bfloat16")
STEPS = ("train", "infer")
# Networks whose own size takes more than 20 GB in a train step.
SHAPES = {
    "cunet": (64, 96, 80, 4),
    "fmnet": (64, 64, 64, 4),
    "nvidia_unet": (128, 64, 64, 5),
    "pspnet": (473, 473, 3),
}
# Of three reasons. The papers' small networks are trained on batches. PyTorch's batch norm refuses
# the one value a channel that pooling leaves of a single image (deeplabv3plus, pspnet). And for one
# small map (3x3 kernels; channels x first two sizes up to 20,480) PyTorch takes a convolution in
# float32 of its own, three times as slow as oneDNN's (deepmedic, frunet, mc_fusionnet, omnet,
# unetpp).
BATCHES = {
    "deeplabv3plus": 2,
    "deepmedic": 2,
    "frunet": 8,
    "integrated_attention_cnn": 8,
    "mc_fusionnet": 4,
    "mtds_r2unet": 8,
    "omnet": 4,
    "pspnet": 2,
    "residual_attention_unet": 8,
    "unetpp": 8,
}


def keras_steps(
    name: str, shape: list[int], batch: int, precision: str, norms: bool
) -> tuple[int, dict[str, Callable]]:
    """Trainable parameters and the steps, as functions without arguments."""
    import keras
    import numpy as np

    from keras_medseg import registry

    keras.backend.clear_session()
    keras.config.set_dtype_policy("float32" if precision == "float32" else "mixed_bfloat16")
    if not norms:
        leave_out_norms()
    model = registry.build(name, input_shape=tuple(shape))
    model.compile(keras.optimizers.Adam(1e-4), "mse")
    x = np.random.default_rng(0).standard_normal((batch, *shape), "float32")
    y = [np.zeros(y.shape, "float32") for y in keras.tree.flatten(model.predict_on_batch(x))]
    steps = {
        "train": partial(model.train_on_batch, x, y if len(y) > 1 else y[0]),
        "infer": partial(model.predict_on_batch, x),
    }
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights), steps


def leave_out_norms() -> None:
    """From now on networks are built without batch and instance norms."""
    import keras

    from keras_medseg.layers import normalization

    for norm in ("BatchNorm", "DebiasedBatchNorm", "WindowBatchNorm"):
        setattr(normalization, norm, lambda name, **_: keras.layers.Identity(name=name))
    keras.layers.GroupNormalization = lambda name, **_: keras.layers.Identity(name=name)


def torch_steps(
    name: str, shape: list[int], batch: int, precision: str, norms: bool, compiled: bool = False
) -> tuple[int, dict[str, Callable]]:
    """The same in PyTorch."""
    import keras
    import torch
    from torch_twin import Twin

    from keras_medseg import registry

    torch.set_flush_denormal(True)  # as TensorFlow does; before the threads that inherit it
    if not norms:
        leave_out_norms()
    keras.config.set_dtype_policy("float32")  # bfloat16 is autocast's affair here
    network = registry.build(name, input_shape=tuple(shape))
    model = Twin(network)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    x = torch.randn(batch, *shape)
    forward = torch.compile(model, fullgraph=True) if compiled else model
    cast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=precision == "bfloat16")

    def train() -> None:
        model.train()
        optimizer.zero_grad()
        with cast():
            y = forward(x)
        loss = sum(output.float().square().mean() for output in y)
        loss.backward()
        optimizer.step()
        loss.item()

    def infer() -> None:
        model.eval()
        with torch.inference_mode(), cast():
            forward(x)

    steps = {"train": train, "infer": infer}
    return sum(weight.numel() for weight in model.parameters()), steps


ENGINES = {
    "keras": keras_steps,
    "torch": torch_steps,
    "compiled": partial(torch_steps, compiled=True),
}


def serve(engine: str, clock: Callable[[], float]) -> None:
    """Answer requests, one JSON object per line, until the input ends."""
    steps: dict[str, Callable] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "step" in request:
            start = clock()
            steps[request["step"]]()
            answer = clock() - start
        else:
            steps.clear()
            answer, steps = ENGINES[engine](**request)
        print(json.dumps(answer), flush=True)


TITLES = {"torch": "PyTorch", "compiled": "compiled"}


def start(engine: str, arguments: argparse.Namespace) -> Worker:
    """A process with one engine."""
    ours = engine == "keras"
    return Worker(
        sys.executable if ours else arguments.torch_python,
        __file__,
        *("--serve", engine),
        one_thread=arguments.one_thread,
        backend="tensorflow" if ours else "torch",
    )


def measure(workers: list[Worker], rounds: int, **network) -> Iterator[list[list[float]]]:
    """For each step, seconds of every worker in every round; the first call pays for compiling."""
    counts = [worker.ask(**network) for worker in workers]
    if len(set(counts)) > 1:
        raise RuntimeError(f"{network}: found {counts} parameters, expected the same network.")
    for step in STEPS:
        for worker in workers:
            worker.ask(step=step)
            worker.ask(step=step)
        asked = [partial(worker.ask, step=step) for worker in workers]
        yield [in_turns(asked, number) for number in range(rounds)]


def sizes(only: list[str], quick: bool) -> dict[str, tuple[int, ...]]:
    """The networks to measure, with their input shapes."""
    from keras_medseg import registry

    shapes = {}
    for name in only or registry.list_models():
        shape = SHAPES.get(name, registry.card(name).input_shape)
        shapes[name] = small(name, shape) if quick else shape
    return shapes


def small(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The first valid shape from 64 pixels on (32 voxels in 3-D)."""
    from keras_medseg import registry

    for size in range(64 if len(shape) == 3 else 32, 513):
        candidate = (*(size,) * (len(shape) - 1), shape[-1])
        try:
            registry.build(name, input_shape=candidate)
        except ValueError:
            continue
        return candidate
    raise ValueError(f"{name}: builds at no size up to 512.")


def row(name: str, shape: tuple[int, ...], batch: int, precision: str, seconds: list) -> str:
    """One line of the table: per step ours, and of each other engine its time and our ratio."""
    cells = [name, "x".join(map(str, (batch, *shape))), precision]
    for rounds in seconds:
        cells.append(f"{1000 * statistics.median(times[0] for times in rounds):.0f}")
        for other in range(1, len(rounds[0])):
            theirs = statistics.median(times[other] for times in rounds)
            ratio = statistics.median(times[0] / times[other] for times in rounds)
            cells += [f"{1000 * theirs:.0f}", f"{ratio:.2f}"]
    return table_line(cells)


def table_line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def versions(engines: list[str], torch_python: str) -> str:
    """What was measured with, without naming the machine."""
    from importlib.metadata import version

    found = [f"{name} {version(name)}" for name in ("tensorflow", "keras")]
    if "torch" in engines:
        command = [torch_python, "-c", "import torch; print('torch', torch.__version__)"]
        found.append(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    return f"Python {platform.python_version()}, {', '.join(found)}; {os.cpu_count()} CPU cores"


def has_torch(python: str) -> bool:
    return not subprocess.run([python, "-c", "import torch, keras"], capture_output=True).returncode


def main() -> int:
    """Exit code: 1 if a network could not be measured; the others were."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--one-thread", action="store_true", help="for a machine that is not idle")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--without-norms", action="store_true", help="no batch or instance norms")
    parser.add_argument("--compile", action="store_true", help="torch.compile as a third engine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch-python", default=sys.executable, help="one with torch and keras")
    parser.add_argument("--serve", choices=ENGINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    one_thread = arguments.one_thread
    if arguments.serve:
        serve(arguments.serve, time.process_time if one_thread else time.perf_counter)
        return 0
    engines = ["keras"]
    if has_torch(arguments.torch_python):
        engines += ["torch", "compiled"] if arguments.compile else ["torch"]
    else:
        print(f"{arguments.torch_python}: found no torch, so nothing beside ours.", file=sys.stderr)
    what = "Milliseconds of one thread" if one_thread else "Milliseconds"
    print(f"{versions(engines, arguments.torch_python)}. {what}, {arguments.rounds} rounds.\n")
    others = [title for engine in engines[1:] for title in (TITLES[engine], "ratio")]
    heads = ["network", "input", "precision", "train", *others, "inference", *others]
    print(table_line(heads))
    print(table_line(["---"] * len(heads)), flush=True)
    failed = []
    for name, shape in sizes(arguments.only, arguments.quick).items():
        batch = 1 if arguments.quick else BATCHES.get(name, 1)
        for precision in PRECISIONS:
            workers = [start(engine, arguments) for engine in engines]
            network = {"name": name, "shape": shape, "batch": batch, "precision": precision}
            network["norms"] = not arguments.without_norms
            try:
                seconds = list(measure(workers, arguments.rounds, **network))
            except (RuntimeError, OSError, ValueError) as error:  # the others are still measured
                failed.append(f"{name} in {precision}: {error}")
            else:
                print(row(name, shape, batch, precision, seconds), flush=True)
            for worker in workers:
                worker.close()
    for line in failed:
        print(line, file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
