"""Initializers that an author names, instead of the defaults of the framework."""

from dataclasses import replace
from typing import Any

from keras_medseg.frameworks import FrameworkDefaults


def with_initializer(
    framework: FrameworkDefaults, initializer: str, **options: Any
) -> FrameworkDefaults:
    """`framework` with kernels from keras.initializers.<initializer>(**options) and zero biases."""
    kernel = {"class_name": initializer, "config": options}
    return replace(framework, kernel_initializer=kernel, bias_initializer="zeros")


def he_normal(framework: FrameworkDefaults, mode: str, slope: float = 0.0) -> FrameworkDefaults:
    """`framework` with kernels from N(0, 2 / (1 + slope^2) / fan), PyTorch's kaiming_normal_.

    Biases are zero. Keras' own HeNormal truncates the distribution.

    Args:
        framework: the defaults to start from.
        mode: "fan_in" or "fan_out".
        slope: of the leaky ReLU for which the variance is meant.

    Returns:
        New defaults.
    """
    scale = 2 / (1 + slope**2)
    options = dict(scale=scale, mode=mode, distribution="untruncated_normal")
    return with_initializer(framework, "VarianceScaling", **options)
