"""Train step and inference with the package's batch norm beside Keras' own, in one process.

    python benchmarks/norms.py [--rounds 9] [--batch 8] [--only NAME ...] [--one-thread]

Each network at its paper's size, in float32 and in mixed_bfloat16; Adam on the mean squared error.
Both networks have the same weights and take turns within a round, in changing order, so what else
the machine does falls on both. Shown are medians of milliseconds over the rounds, and of the
rounds' ratios, ours / Keras'. --one-thread is for a machine that is not idle: it counts the time
that one thread computes, not that it waits.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
PRECISIONS = ("float32", "mixed_bfloat16")
# Batch sizes; None is that of the command line.
NETWORKS = {
    "residual_attention_unet": None,
    "mtds_r2unet": None,
    "integrated_attention_cnn": None,
    "unet": 1,
}
STEPS = ("train", "infer")


def steps_of(name: str, batch: int, precision: str, *, ours: bool) -> dict[str, Callable]:
    """A train step and an inference, as functions without arguments."""
    import keras
    import numpy as np

    from keras_medseg import registry
    from keras_medseg.layers import normalization

    def of_keras(moving_variance: str, **options) -> keras.Layer:
        return keras.layers.BatchNormalization(**{**options, "synchronized": False})

    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(0)
    layer = normalization.BatchNorm
    if not ours:
        normalization.BatchNorm = of_keras
    try:
        model = registry.build(name)
    finally:
        normalization.BatchNorm = layer
        keras.config.set_dtype_policy("float32")
    model.compile(keras.optimizers.Adam(1e-4), "mse")
    x = np.random.default_rng(0).standard_normal((batch, *model.input_shape[1:]), "float32")
    y = [np.zeros(y.shape, "float32") for y in keras.tree.flatten(model.predict_on_batch(x))]
    return {
        "train": partial(model.train_on_batch, x, y if len(y) > 1 else y[0]),
        "infer": partial(model.predict_on_batch, x),
    }


def measure(pair: list[Callable], rounds: int, clock: Callable[[], float]) -> list[list[float]]:
    """Seconds of both in each round; the first two calls of each pay for compiling."""
    for step in pair * 2:
        step()
    seconds = []
    for number in range(rounds):
        times = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            start = clock()
            pair[which]()
            times[which] = clock() - start
        seconds.append(times)
    return seconds


def cells(seconds: list[list[float]]) -> list[str]:
    """Both medians in milliseconds, and the median ratio."""
    ours, keras = (1000 * statistics.median(side) for side in zip(*seconds))
    ratio = statistics.median(first / second for first, second in seconds)
    return [f"{ours:.0f}", f"{keras:.0f}", f"{ratio:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--only", nargs="+", default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--one-thread", action="store_true", help="for a machine that is not idle")
    arguments = parser.parse_args()
    if arguments.one_thread:
        os.environ |= dict.fromkeys(THREADS, "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    clock = time.process_time if arguments.one_thread else time.perf_counter
    print("| network | batch | precision | train | Keras' | ratio | inference | Keras' | ratio |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.only:
        for precision in PRECISIONS:
            batch = NETWORKS.get(name) or arguments.batch
            both = [steps_of(name, batch, precision, ours=ours) for ours in (True, False)]
            row = [name, str(batch), precision]
            for step in STEPS:
                row += cells(measure([side[step] for side in both], arguments.rounds, clock))
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
