"""Train step and inference with the package's batch norm beside Keras' own, in one process.

    python benchmarks/norms.py [--rounds 9] [--batch 8] [--only NAME ...] [--one-thread]
    python benchmarks/norms.py --kernel [--rounds 9]

Each network at its paper's size, in float32 and in mixed_bfloat16; Adam on the mean squared error.
Both networks have the same weights and take turns within a round, in changing order, so what else
the machine does falls on both. Shown are medians of milliseconds over the rounds, and of the
rounds' ratios, ours / Keras'. --one-thread is for a machine that is not idle: it counts the time
that one thread computes, not that it waits.

--kernel shows why BatchNorm computes some maps of bfloat16 in float32: one thread's time for
TensorFlow's fused kernel alone, by the number of channels.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

from worker import in_turns

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
MAP_SIZE = (1, 512, 480)
CHANNELS = (4, 8, 12, 16, 20, 24, 30, 32, 40, 48, 64)


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


def kernel_steps(channels: int, kept: str, computed: str) -> dict[str, Callable]:
    """The fused kernel on a map kept in one type and computed in another, with casts between."""
    import tensorflow as tf

    x = tf.cast(tf.random.normal((*MAP_SIZE, channels)), kept)
    ones, zeros = tf.ones(channels), tf.zeros(channels)

    def norm(x: tf.Tensor, training: bool) -> tf.Tensor:
        y, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(x, computed),
            scale=ones,
            offset=zeros,
            mean=zeros,
            variance=ones,
            epsilon=1e-3,
            is_training=training,
        )
        return tf.cast(y, kept)

    @tf.function
    def train() -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = norm(x, training=True)
        return tape.gradient(y, x, y)

    return {"train": train, "infer": tf.function(lambda: norm(x, training=False))}


def kernel_table(rounds: int) -> None:
    """Milliseconds of float32, bfloat16, and bfloat16 through float32, by channels."""
    sides = "float32 | bfloat16 | through float32"
    print(f"| channels | train: {sides} | inference: {sides} |")
    print(f"|{'--:|' * 7}", flush=True)
    types = (("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32"))
    for channels in CHANNELS:
        ways = [kernel_steps(channels, kept, computed) for kept, computed in types]
        row = [str(channels)]
        for step in STEPS:
            seconds = measure([way[step] for way in ways], rounds, time.process_time)
            row += [f"{1000 * statistics.median(side):.1f}" for side in zip(*seconds)]
        print(f"| {' | '.join(row)} |", flush=True)


def measure(steps: list[Callable], rounds: int, clock: Callable[[], float]) -> list[list[float]]:
    """Seconds of all steps in each round; the first two calls of each pay for compiling."""
    for step in steps * 2:
        step()

    def timed(step: Callable) -> float:
        start = clock()
        step()
        return clock() - start

    asked = [partial(timed, step) for step in steps]
    return [in_turns(asked, number) for number in range(rounds)]


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
    parser.add_argument("--kernel", action="store_true", help="the kernel alone, by channels")
    arguments = parser.parse_args()
    if arguments.one_thread or arguments.kernel:
        os.environ |= dict.fromkeys(THREADS, "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.kernel:
        kernel_table(arguments.rounds)
        return
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
