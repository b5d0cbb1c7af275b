"""Does TensorFlow compute weight gradients of 3-D convolutions in bfloat16 on this processor?

    python benchmarks/bfloat16_gradients.py

For kernels and strides, on maps of 8x8x8 voxels of which one length, or all, are smaller: the
lengths at which the gradient is further from that of float32 than rounding allows. With 16 and with
32 channels, each tried three times after memory was filled with NaN.
"""

import platform

import numpy as np
import tensorflow as tf

SIZE = 8
AXES = {"depth": (0,), "height": (1,), "width": (2,), "all": (0, 1, 2)}
ROUNDING = 0.05
"""Of the largest value; bfloat16 has eight bits, and right gradients are within 0.005."""


def gradient(x: np.ndarray, upstream: np.ndarray, kernel: int, stride: int, dtype: str):
    """Of the weights of a convolution of x, in float32."""

    @tf.function
    def compute(x, upstream):
        return tf.raw_ops.Conv3DBackpropFilterV2(
            input=x,
            filter_sizes=[kernel, kernel, kernel, x.shape[-1], x.shape[-1]],
            out_backprop=upstream,
            strides=[1, stride, stride, stride, 1],
            padding="SAME",
        )

    return tf.cast(compute(tf.cast(x, dtype), tf.cast(upstream, dtype)), "float32").numpy()


def error(axes: tuple[int, ...], length: int, kernel: int, stride: int, channels: int) -> float:
    """The largest, relative to the largest value of the gradient in float32."""
    shape = [2, SIZE, SIZE, SIZE, channels]
    for axis in axes:
        shape[1 + axis] = length
    generator = np.random.default_rng(0)
    x = generator.standard_normal(shape, np.float32)
    shape[1:4] = [-(-size // stride) for size in shape[1:4]]
    upstream = generator.standard_normal(shape, np.float32)
    exact = gradient(x, upstream, kernel, stride, "float32")
    worst = 0.0
    for _ in range(3):
        junk = [tf.fill([2**power], np.nan) for power in range(4, 20)]
        del junk  # the memory is given out again, as it is
        found = gradient(x, upstream, kernel, stride, "bfloat16")
        difference = np.abs(found - exact).max() / np.abs(exact).max()
        worst = max(worst, difference if np.isfinite(difference) else np.inf)
    return worst


def main() -> None:
    """Print the table."""
    print(f"tensorflow {tf.__version__}, {platform.machine()}; lengths with a wrong gradient:\n")
    print("| kernel | stride |", " | ".join(AXES), "|")
    print("|---|---|---|---|---|---|")
    for kernel in (2, 3, 5):
        for stride in (1, 2):
            cells = []
            for axes in AXES.values():
                wrong = [
                    str(length)
                    for length in range(1, SIZE)
                    if max(error(axes, length, kernel, stride, c) for c in (16, 32)) > ROUNDING
                ]
                cells.append(", ".join(wrong) or "none")
            print(f"| {kernel} | {stride} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
