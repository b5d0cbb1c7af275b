"""Initialisers that an author names, in place of the stack's silent ones."""

from dataclasses import replace

from keras_medseg.frameworks import Stack


def initialised(stack: Stack, initializer: str, **options) -> Stack:
    """`stack` with all kernels drawn by keras.initializers.<initializer>(**options), biases 0."""
    kernel = {"class_name": initializer, "config": options}
    return replace(stack, kernel_initializer=kernel, bias_initializer="zeros")


def he_normal(stack: Stack, mode: str, slope: float = 0.0) -> Stack:
    """`stack` with kernels from N(0, 2 / (1 + slope^2) / fan), PyTorch's kaiming_normal_.

    Keras' own HeNormal is truncated.

    Args:
        mode: "fan_in" or "fan_out".
        slope: of the leaky ReLU that the variance is made for.
    """
    scale = 2 / (1 + slope**2)
    options = dict(scale=scale, mode=mode, distribution="untruncated_normal")
    return initialised(stack, "VarianceScaling", **options)
