"""The U of a U-Net with blocks to be chosen: five levels, concatenated skips."""

from collections.abc import Callable

import keras
from keras import layers

from keras_medseg.layers.convolution import conv_bn_relu
from keras_medseg.layers.gates import attention_gate
from keras_medseg.layers.resampling import up
from keras_medseg.stacks import Stack


def unet_features(
    x: keras.KerasTensor,
    filters: int,
    block: Callable[..., keras.KerasTensor],
    *,
    stack: Stack,
    gates: bool = False,
) -> keras.KerasTensor:
    """Encoder and decoder of LeeJunHyun's networks; (N, H, W, C) -> (N, H, W, filters).

    Widths are 1, 2, 4, 8 and 16 times `filters`. Down by 2x2 max pooling; up by nearest neighbour,
    3x3 convolution, batch norm and ReLU; concatenation [skip, up]. Numbers 1 to 5 go down the
    encoder, 5 to 2 up the decoder.

    Args:
        block: called as block(x, width, name=...) on every level of both sides.
        gates: whether attention gates, half as wide as the level, weight the skips.
    """
    skips = []
    for number in range(1, 5):
        x = block(x, 2 ** (number - 1) * filters, name=f"Encode{number}")
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"Down{number}")(x)
    x = block(x, 16 * filters, name="Encode5")
    for number in range(5, 1, -1):
        skip = skips.pop()
        width = skip.shape[-1]
        x = up(x, "nearest", stack=stack, name=f"Up{number}")
        x = conv_bn_relu(x, width, 3, stack=stack, name=f"Up{number}_conv")
        if gates:
            skip = attention_gate(skip, x, max(1, width // 2), stack=stack, name=f"Gate{number}")
        x = layers.Concatenate(name=f"Concat{number}")([skip, x])
        x = block(x, width, name=f"Decode{number}")
    return x


def double_conv(
    x: keras.KerasTensor, filters: int, *, stack: Stack, name: str
) -> keras.KerasTensor:
    """Twice 3x3 convolution with bias, batch norm, ReLU. (N, H, W, C) -> (N, H, W, filters)."""
    x = conv_bn_relu(x, filters, 3, stack=stack, name=f"{name}_conv1")
    return conv_bn_relu(x, filters, 3, stack=stack, name=f"{name}_conv2")
