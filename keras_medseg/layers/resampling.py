"""Halving and doubling the resolution, and the sizes that survive it."""

from collections.abc import Sequence

import keras
from keras import layers

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
    if kind == "max_pool":
        return layers.MaxPooling2D(2, name=name)(x)
    if kind == "average_pool":
        return layers.AveragePooling2D(2, name=name)(x)
    if kind == "strided_conv":
        return conv(x, x.shape[-1], 3, stack=stack, name=name, strides=2)
    raise ValueError(f"downsampling: found {kind!r}, expected one of {', '.join(DOWNSAMPLING)}.")


def up(x: keras.KerasTensor, kind: str, *, stack: Stack, name: str) -> keras.KerasTensor:
    """Double H and W by interpolation or a 2x2 transposed convolution; the channels stay.

    (N, H, W, C) -> (N, 2H, 2W, C).

    Raises:
        ValueError: `kind` is not one of UPSAMPLING.
    """
    if kind in ("nearest", "bilinear"):
        return layers.UpSampling2D(2, interpolation=kind, name=name)(x)
    if kind == "transposed_conv":
        # PyTorch counts the fan-in of a transposed kernel over its output channels.
        fan_in = 4 * x.shape[-1]
        return layers.Conv2DTranspose(
            x.shape[-1],
            2,
            strides=2,
            kernel_initializer=stack.kernel(fan_in),
            bias_initializer=stack.bias(fan_in),
            name=name,
        )(x)
    raise ValueError(f"upsampling: found {kind!r}, expected one of {', '.join(UPSAMPLING)}.")


def require_multiple(input_shape: Sequence[int | None], multiple: int) -> None:
    """Check that every spatial size of (..., C) is a multiple, or None for "any".

    Raises:
        ValueError: naming the next larger shape that fits.
    """
    *sizes, channels = input_shape
    if all(size is None or (size > 0 and size % multiple == 0) for size in sizes):
        return
    fitting = tuple(s and max(multiple, -(-s // multiple) * multiple) for s in sizes)
    raise ValueError(
        f"input_shape: found {tuple(input_shape)}, expected spatial sizes divisible by {multiple}. "
        f"The next valid shape is {(*fitting, channels)}."
    )
