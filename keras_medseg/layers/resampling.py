"""Halving and doubling the resolution, and the sizes that survive it."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_medseg.choices import require_choice
from keras_medseg.layers.convolution import conv
from keras_medseg.stacks import Stack

DOWNSAMPLING = ("max_pool", "average_pool", "strided_conv")
UPSAMPLING = ("nearest", "bilinear", "transposed_conv")


def down(x: keras.KerasTensor, kind: str, *, stack: Stack, name: str) -> keras.KerasTensor:
    """Halve H and W by a 2x2 pool or a 3x3 convolution of stride 2; the channels stay.

    (N, H, W, C) -> (N, H / 2, W / 2, C).

    Raises:
        ValueError: `kind` is not one of DOWNSAMPLING.
    """
    require_choice("downsampling", kind, DOWNSAMPLING)
    if kind == "max_pool":
        return layers.MaxPooling2D(2, name=name)(x)
    if kind == "average_pool":
        return layers.AveragePooling2D(2, name=name)(x)
    return conv(x, x.shape[-1], 3, stack=stack, name=name, strides=2)


def up(x: keras.KerasTensor, kind: str, *, stack: Stack, name: str) -> keras.KerasTensor:
    """Double H and W by interpolation or a 2x2 transposed convolution; the channels stay.

    (N, H, W, C) -> (N, 2H, 2W, C).

    Raises:
        ValueError: `kind` is not one of UPSAMPLING.
    """
    require_choice("upsampling", kind, UPSAMPLING)
    if kind != "transposed_conv":
        return layers.UpSampling2D(2, interpolation=kind, name=name)(x)
    return transposed_conv(x, x.shape[-1], stack=stack, name=name)


def transposed_conv(
    x: keras.KerasTensor, filters: int, *, stack: Stack, name: str, **options
) -> keras.KerasTensor:
    """2x2 transposed convolution of stride 2, (N, H, W, C) -> (N, 2H, 2W, filters).

    `options` are those of keras.layers.Conv2DTranspose.
    """
    # PyTorch counts the fan-in of a transposed kernel over its output channels.
    fan_in = 4 * filters
    return layers.Conv2DTranspose(
        filters,
        2,
        strides=2,
        kernel_initializer=stack.kernel(fan_in),
        bias_initializer=stack.bias(fan_in),
        name=name,
        **options,
    )(x)


def require_multiple(input_shape: Sequence[int | None], multiple: int, *, offset: int = 0) -> None:
    """Check that H and W are `offset` plus a multiple of `multiple`, or None for any such size.

    Raises:
        ValueError: naming the next larger shape that fits.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected (height, width, channels)."
        )
    height, width, channels = input_shape
    fitting = (*(_next_fitting(size, multiple, offset) for size in (height, width)), channels)
    if fitting != tuple(input_shape):
        rule = f"{offset} plus a multiple of {multiple}" if offset else f"divisible by {multiple}"
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected height and width {rule}. "
            f"The next valid shape is {fitting}."
        )


def _next_fitting(size: int | None, multiple: int, offset: int) -> int | None:
    if size is None:
        return None
    fewest = 0 if offset else 1
    return offset + max(fewest, -(-(size - offset) // multiple)) * multiple
