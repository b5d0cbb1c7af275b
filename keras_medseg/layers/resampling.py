"""Halving and doubling the resolution, and the input sizes that allow it.

The rank of the tensor decides between two and three dimensions: (N, H, W, C) or (N, X, Y, Z, C).
"""

from collections.abc import Sequence
from typing import Any

import keras

from keras_medseg.errors import require_choice
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv, layer_class

DOWNSAMPLING = ("max_pool", "average_pool", "strided_conv")
UPSAMPLING = ("nearest", "bilinear", "transposed_conv")
UPSAMPLING_3D = ("nearest", "transposed_conv")
AXES = {2: ("height", "width"), 3: ("x", "y", "z")}


def down(
    x: keras.KerasTensor, method: str, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """Halve every axis by a pool of size 2 or a 3x3 convolution of stride 2; the channels stay.

    (N, H, W, C) -> (N, H / 2, W / 2, C), likewise (N, X, Y, Z, C).

    Raises:
        ValueError: `method` is not one of DOWNSAMPLING.
    """
    require_choice("downsampling", method, DOWNSAMPLING)
    if method == "max_pool":
        return max_pool(x, 2, name=name)
    if method == "average_pool":
        return layer_class("AveragePooling{}D", x)(2, name=name)(x)
    return conv(x, x.shape[-1], 3, framework=framework, name=name, strides=2)


def max_pool(
    x: keras.KerasTensor,
    size: int | tuple[int, ...],
    *,
    name: str,
    padding: str = "valid",
    strides: int = 2,
) -> keras.KerasTensor:
    """Max pooling, (N, H, W, C) -> (N, H / strides, W / strides, C), likewise (N, X, Y, Z, C)."""
    # TensorFlow cannot pool half precision in 3-D on a CPU; the maximum is the same number.
    half = len(x.shape) == 5 and x.dtype == "float16"
    options = dict(strides=strides, padding=padding, dtype="float32" if half else None)
    return layer_class("MaxPooling{}D", x)(size, name=name, **options)(x)


def up(
    x: keras.KerasTensor, method: str, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """Double every axis by interpolation or a 2x2 transposed convolution; the channels stay.

    (N, H, W, C) -> (N, 2H, 2W, C), likewise (N, X, Y, Z, C).

    Raises:
        ValueError: `method` is not one of UPSAMPLING, or in three dimensions of UPSAMPLING_3D.
    """
    two_dimensions = len(x.shape) == 4
    require_choice("upsampling", method, UPSAMPLING if two_dimensions else UPSAMPLING_3D)
    if method == "transposed_conv":
        return transposed_conv(x, x.shape[-1], framework=framework, name=name)
    options = {"interpolation": method} if two_dimensions else {}
    return layer_class("UpSampling{}D", x)(2, name=name, **options)(x)


def transposed_conv(
    x: keras.KerasTensor,
    filters: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    kernel_size: int = 2,
    **options: Any,
) -> keras.KerasTensor:
    """Transposed convolution of stride 2, (N, H, W, C) -> (N, 2H, 2W, filters).

    Likewise (N, X, Y, Z, C). `options` are those of keras.layers.Conv2DTranspose.
    """
    # PyTorch counts the fan-in of a transposed kernel over its output channels.
    fan_in = kernel_size ** (len(x.shape) - 2) * filters
    defaults = dict(
        strides=2,
        padding="same",
        kernel_initializer=framework.kernel(fan_in),
        bias_initializer=framework.bias(fan_in),
    )
    transpose = layer_class("Conv{}DTranspose", x)
    return transpose(filters, kernel_size, name=name, **{**defaults, **options})(x)


def require_multiple(
    input_shape: Sequence[int | None], multiple: int, *, offset: int = 0, dimensions: int = 2
) -> None:
    """Check that every size is `offset` plus a multiple of `multiple`, or None (any such size).

    Args:
        input_shape: (H, W, C), or (X, Y, Z, C) where `dimensions` is 3.
        multiple: in pixels.
        offset: in pixels.
        dimensions: number of spatial axes, 2 or 3.

    Raises:
        ValueError: a size that does not fit; the message names the next larger shape that does.
    """
    axes = _require_rank(input_shape, dimensions)
    *sizes, channels = input_shape
    fitting = (*(_next_fitting(size, multiple, offset) for size in sizes), channels)
    if fitting != tuple(input_shape):
        rule = f"{offset} plus a multiple of {multiple}" if offset else f"divisible by {multiple}"
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected {', '.join(axes[:-1])} and "
            f"{axes[-1]} {rule}. The next valid shape is {fitting}."
        )


def require_more_than_one(
    input_shape: Sequence[int | None], stride: int, *, dimensions: int = 2
) -> None:
    """Check that maps `stride` times smaller than the input exist and have more than one voxel.

    The instance norm of a single voxel is 0, whatever its value; PyTorch refuses it as well.

    Args:
        input_shape: (H, W, C), or (X, Y, Z, C) where `dimensions` is 3; sizes may be None.
        stride: of the smallest map with an instance norm, in pixels.
        dimensions: number of spatial axes, 2 or 3.

    Raises:
        ValueError: `stride` does not divide a size, or only one voxel would be left; the message
            names the next larger shape that fits.
    """
    *sizes, channels = input_shape
    if len(sizes) == dimensions and all(size is not None and size <= stride for size in sizes):
        fitting = (2 * stride, *[stride] * (dimensions - 1), channels)
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected sizes divisible by {stride} and "
            f"more than one voxel at 1/{stride} of them, because the instance norm of a single one "
            f"is 0. The next valid shape is {fitting}."
        )
    # One size at least is larger, so that its next multiple has two voxels or more.
    require_multiple(input_shape, stride, dimensions=dimensions)


def require_at_least(input_shape: Sequence[int | None], least: int, *, dimensions: int = 2) -> None:
    """Check that every size is `least` or more, or None.

    Args:
        input_shape: (H, W, C), or (X, Y, Z, C) where `dimensions` is 3.
        least: in pixels.
        dimensions: number of spatial axes, 2 or 3.

    Raises:
        ValueError: a size that is too small; the message names the next larger shape that fits.
    """
    axes = _require_rank(input_shape, dimensions)
    *sizes, channels = input_shape
    fitting = (*(size if size is None else max(size, least) for size in sizes), channels)
    if fitting != tuple(input_shape):
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected {', '.join(axes[:-1])} and "
            f"{axes[-1]} from {least} on. The next valid shape is {fitting}."
        )


def _require_rank(input_shape: Sequence[int | None], dimensions: int) -> tuple[str, ...]:
    """The names of the axes, whose number must be that of `input_shape` without channels."""
    axes = AXES[dimensions]
    if len(input_shape) != dimensions + 1:
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected ({', '.join(axes)}, channels)."
        )
    return axes


def _next_fitting(size: int | None, multiple: int, offset: int) -> int | None:
    if size is None:
        return None
    fewest = 0 if offset else 1
    return offset + max(fewest, -(-(size - offset) // multiple)) * multiple
