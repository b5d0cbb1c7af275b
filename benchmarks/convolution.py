"""One 3x3 convolution with bias, no Keras: TensorFlow beside PyTorch.

    python benchmarks/convolution.py [--torch-python PATH]

How much of the ratios of benchmarks/networks.py a bare convolution explains. One image, channels
last, as many channels out as in; medians of milliseconds over 25 calls. The engines take turns,
three times; shown are medians of the turns and of their ratios.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

# Pixels along an edge, channels: levels of `unet` at 224x224, and of `fmnet` at 128x128.
SIZES = ((224, 64), (56, 256), (28, 512), (14, 1024), (128, 32), (64, 64), (8, 512))
TURNS = 3
PRECISIONS = ("float32", "bfloat16")


def milliseconds(convolve: Callable[[], object]) -> float:
    for _ in range(3):
        convolve()
    seconds = []
    for _ in range(25):
        start = time.perf_counter()
        convolve()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def in_tensorflow(size: int, channels: int, precision: str) -> float:
    import tensorflow as tf

    x = tf.cast(tf.random.normal((1, size, size, channels)), precision)
    kernel = tf.Variable(tf.cast(tf.random.normal((3, 3, channels, channels)), precision))
    bias = tf.Variable(tf.zeros(channels, precision))
    return milliseconds(tf.function(lambda: tf.nn.conv2d(x, kernel, 1, "SAME") + bias))


def in_torch(size: int, channels: int, precision: str) -> float:
    import torch

    options = {"dtype": getattr(torch, precision), "memory_format": torch.channels_last}
    x = torch.randn(1, channels, size, size).to(**options)
    convolution = torch.nn.Conv2d(channels, channels, 3, padding=1).to(**options)
    with torch.inference_mode():
        return milliseconds(lambda: convolution(x))


ENGINES = {"tensorflow": in_tensorflow, "torch": in_torch}


def measured(engine: str, python: str) -> list[float]:
    """Milliseconds of every precision and size, from a process that holds one engine."""
    command = [python, __file__, "--engine", engine]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [float(line.split()[1]) for line in done.stdout.splitlines() if line[:3] == "ms "]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter with torch")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cases = [(*size, precision) for precision in PRECISIONS for size in SIZES]
    if arguments.engine:
        for case in cases:
            print("ms", ENGINES[arguments.engine](*case))
        return
    ours, theirs = [], []
    for _ in range(TURNS):
        ours.append(measured("tensorflow", sys.executable))
        theirs.append(measured("torch", arguments.torch_python))
    print("| input | precision | TensorFlow | PyTorch | ratio |")
    print("|---|---|---|---|---|")
    for (size, channels, precision), a, b in zip(cases, zip(*ours), zip(*theirs)):
        ratio = statistics.median(x / y for x, y in zip(a, b))
        times = f"{statistics.median(a):.1f} | {statistics.median(b):.1f}"
        print(f"| {size}x{size}x{channels} | {precision} | {times} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
