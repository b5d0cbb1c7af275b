"""Residual units and encoder of DLTK, the toolkit that EMMA's FCNs were made with.

As the code stood on 8 August 2017 (DLTK/DLTK at be50fa5). A residual unit has the order of
pre-activation, batch norm, leaky ReLU, convolution, twice; a strided one convolves without overlap
and pools the identity. No convolution has a bias.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import keras
from keras import layers, ops

from keras_medseg import frameworks
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv
from keras_medseg.layers.initialization import with_initializer
from keras_medseg.layers.interpolation import Resize
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.layers.resampling import max_pool, require_multiple

SLOPE = 0.01
DLTK_NAMES = {
    "Initial": "conv",
    **{
        f"{ours}{{s}}_{{u}}_{part}": f"{theirs}_{{s}}_{{u}}.res_unit.{module}"
        for ours, theirs in (("Unit", "unit"), ("Up", "up_unit"))
        for part, module in {
            "conv1_bn": "sub1.bn",
            "conv1": "sub1.conv",
            "conv2_bn": "sub2.bn",
            "conv2": "sub2.conv",
            "shortcut": "sub_add.conv",
        }.items()
    },
    "Output_conv": "last.conv",
}


def of_dltk(framework: str | FrameworkDefaults) -> FrameworkDefaults:
    """`framework` with DLTK's batch norm and TensorFlow 1's uniform_unit_scaling_initializer."""
    uniform = dict(scale=1.0, mode="fan_in", distribution="uniform")
    return replace(
        with_initializer(frameworks.get(framework), "VarianceScaling", **uniform),
        norm_momentum=0.99,
        norm_epsilon=1e-3,
        norm_variance="biased",
    )


def check_options(
    input_shape: Sequence[int | None], widths: Sequence[int], strides: Sequence[int], units: int
) -> None:
    """Check what the two networks have in common.

    Raises:
        ValueError: an option out of its range, or a size that does not fit.
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths: found {widths}, expected two or more numbers of channels.")
    if len(strides) != len(widths) or min(strides) < 1 or strides[0] != 1:
        raise ValueError(
            f"strides: found {strides}, expected {len(widths)} whole numbers, the first of them 1."
        )
    if units < 1:
        raise ValueError(f"units: found {units}, expected 1 or more.")
    require_multiple(input_shape, prod(strides), dimensions=3)
    if None in input_shape:
        raise ValueError(f"input_shape: found {input_shape}, expected a size for every axis.")


def encode(
    x: keras.KerasTensor,
    widths: Sequence[int],
    strides: Sequence[int],
    units: int,
    framework: FrameworkDefaults,
) -> list[keras.KerasTensor]:
    """The maps of all scales, the largest first. (N, X, Y, Z, C) -> (N, X, Y, Z, widths[0]) ..."""
    unit = partial(residual_unit, framework=framework)
    maps = [conv(x, widths[0], 3, framework=framework, name="Initial", use_bias=False)]
    for scale in range(1, len(widths)):
        x = unit(maps[-1], widths[scale], strides=strides[scale], name=f"Unit{scale}_0")
        for number in range(1, units):
            x = unit(x, widths[scale], name=f"Unit{scale}_{number}")
        maps.append(x)
    return maps


def residual_unit(
    x: keras.KerasTensor, filters: int, *, framework: FrameworkDefaults, name: str, strides: int = 1
) -> keras.KerasTensor:
    """Two convolutions of 3x3x3 plus the identity; if strided, the first is as large as its step.

    The identity is max-pooled by the stride; missing channels are zeros, half of them (rounded
    down) before and the others behind; surplus ones go through a 1x1x1 convolution.
    (N, X, Y, Z, C) -> (N, X / strides, Y / strides, Z / strides, filters).
    """
    part = partial(_activated_conv, filters=filters, framework=framework)
    size = strides if strides > 1 else 3
    y = part(x, kernel_size=size, strides=strides, name=f"{name}_conv1")
    y = part(y, kernel_size=3, name=f"{name}_conv2")
    if strides > 1:
        x = max_pool(x, strides, strides=strides, name=f"{name}_pool")
    missing = filters - x.shape[-1]
    if missing > 0:
        x = ops.pad(x, [(0, 0)] * 4 + [(missing // 2, missing - missing // 2)])
    elif missing < 0:
        x = conv(x, filters, 1, framework=framework, name=f"{name}_shortcut", use_bias=False)
    return layers.Add(name=f"{name}_add")([y, x])


def upsample(x: keras.KerasTensor, factor: int, *, name: str) -> keras.KerasTensor:
    """Fixed linear up-sampling by a transposed convolution, zeros beyond the border.

    (N, X, Y, Z, C) -> (N, factor X, factor Y, factor Z, C).
    """
    size = tuple(factor * length for length in x.shape[1:-1])
    return Resize(size, "zero_padded_bilinear", name=name)(x) if factor > 1 else x


def output(
    x: keras.KerasTensor, classes: int, activation: str, framework: FrameworkDefaults
) -> keras.KerasTensor:
    """1x1x1 convolution without bias, activation. (N, X, Y, Z, C) -> (N, X, Y, Z, classes)."""
    options: dict[str, Any] = dict(use_bias=False, dtype="float32")
    x = conv(x, classes, 1, framework=framework, name="Output_conv", **options)
    return layers.Activation(activation, dtype="float32", name="Output")(x)


def _activated_conv(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    strides: int = 1,
) -> keras.KerasTensor:
    x = batch_norm(x, framework=framework, name=f"{name}_bn")
    x = layers.LeakyReLU(SLOPE, name=f"{name}_leaky")(x)
    # Where it is strided there is nothing to pad: kernel and step are equal.
    padding = "same" if strides == 1 else "valid"
    options: dict[str, Any] = dict(strides=strides, padding=padding, use_bias=False)
    return conv(x, filters, kernel_size, framework=framework, name=name, **options)
