"""Halving and doubling the resolution, and the sizes that survive it.

In two or three dimensions, by the rank of the tensor: (N, H, W, C) or (N, X, Y, Z, C).
"""

from collections.abc import Sequence

import keras

from keras_medseg.errors import require_choice
from keras_medseg.frameworks import Stack
from keras_medseg.layers.convolution import conv, layer_class

DOWNSAMPLING = ("max_pool", "average_pool", "strided_conv")
UPSAMPLING = ("nearest", "bilinear", "transposed_conv")
UPSAMPLING_3D = ("nearest", "transposed_conv")
AXES = {2: ("height", "width"), 3: ("x", "y", "z")}


def down(x: keras.KerasTensor, kind: str, *, stack: Stack, name: str) -> keras.KerasTensor:
    """Halve every axis by a pool of size 2 or a 3x3 convolution of stride 2; the channels stay.

    (N, H, W, C) -> (N, H / 2, W / 2, C), likewise (N, X, Y, Z, C).

    Raises:
        ValueError: `kind` is not one of DOWNSAMPLING.
    """
    require_choice("downsampling", kind, DOWNSAMPLING)
    if kind == "max_pool":
        return max_pool(x, 2, name=name)
    if kind == "average_pool":
        return layer_class("AveragePooling{}D", x)(2, name=name)(x)
    return conv(x, x.shape[-1], 3, stack=stack, name=name, strides=2)


def max_pool(
    x: keras.KerasTensor, size: int | tuple[int, ...], *, name: str, padding: str = "valid"
) -> keras.KerasTensor:
    """Max pooling of stride 2, (N, H, W, C) -> (N, H / 2, W / 2, C), likewise (N, X, Y, Z, C)."""
    # TensorFlow cannot pool half precision in 3-D on a CPU; the maximum is the same number.
    half = len(x.shape) == 5 and x.dtype == "float16"
    options = dict(strides=2, padding=padding, dtype="float32" if half else None)
    return layer_class("MaxPooling{}D", x)(size, name=name, **options)(x)


def up(x: keras.KerasTensor, kind: str, *, stack: Stack, name: str) -> keras.KerasTensor:
    """Double every axis by interpolation or a 2x2 transposed convolution; the channels stay.

    (N, H, W, C) -> (N, 2H, 2W, C), likewise (N, X, Y, Z, C).

    Raises:
        ValueError: `kind` is not one of UPSAMPLING, or in three dimensions of UPSAMPLING_3D.
    """
    flat = len(x.shape) == 4
    require_choice("upsampling", kind, UPSAMPLING if flat else UPSAMPLING_3D)
    if kind == "transposed_conv":
        return transposed_conv(x, x.shape[-1], stack=stack, name=name)
    options = {"interpolation": kind} if flat else {}
    return layer_class("UpSampling{}D", x)(2, name=name, **options)(x)


def transposed_conv(
    x: keras.KerasTensor,
    filters: int,
    *,
    stack: Stack,
    name: str,
    kernel_size: int = 2,
    **options,
) -> keras.KerasTensor:
    """Transposed convolution of stride 2, (N, H, W, C) -> (N, 2H, 2W, filters).

    Likewise (N, X, Y, Z, C). `options` are those of keras.layers.Conv2DTranspose.
    """
    # PyTorch counts the fan-in of a transposed kernel over its output channels.
    fan_in = kernel_size ** (len(x.shape) - 2) * filters
    defaults = dict(
        strides=2,
        padding="same",
        kernel_initializer=stack.kernel(fan_in),
        bias_initializer=stack.bias(fan_in),
    )
    transpose = layer_class("Conv{}DTranspose", x)
    return transpose(filters, kernel_size, name=name, **{**defaults, **options})(x)


def require_multiple(
    input_shape: Sequence[int | None], multiple: int, *, offset: int = 0, dimensions: int = 2
) -> None:
    """Check that every size is `offset` plus a multiple of `multiple`, or None for any such size.

    Args:
        input_shape: (H, W, C), or (X, Y, Z, C) where `dimensions` is 3.

    Raises:
        ValueError: naming the next larger shape that fits.
    """
    axes = AXES[dimensions]
    if len(input_shape) != dimensions + 1:
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected ({', '.join(axes)}, channels)."
        )
    *sizes, channels = input_shape
    fitting = (*(_next_fitting(size, multiple, offset) for size in sizes), channels)
    if fitting != tuple(input_shape):
        rule = f"{offset} plus a multiple of {multiple}" if offset else f"divisible by {multiple}"
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected {', '.join(axes[:-1])} and "
            f"{axes[-1]} {rule}. The next valid shape is {fitting}."
        )


def _next_fitting(size: int | None, multiple: int, offset: int) -> int | None:
    if size is None:
        return None
    fewest = 0 if offset else 1
    return offset + max(fewest, -(-(size - offset) // multiple)) * multiple
