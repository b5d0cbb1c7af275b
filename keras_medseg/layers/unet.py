"""The U of a U-Net with blocks to be chosen: five levels, concatenated skips."""

from collections.abc import Callable

import keras
from keras import layers

from keras_medseg.layers.convolution import conv_bn_relu
from keras_medseg.layers.gates import attention_gate
from keras_medseg.layers.resampling import up
from keras_medseg.stacks import Stack

# Our layers -> the modules of LeeJunHyun/Image_Segmentation; each of its networks has some of them.
LEEJUNHYUN_NAMES = {
    "Up{n}_conv": "Up{n}.up.1",
    "Up{n}_conv_bn": "Up{n}.up.2",
    "Gate{n}_g": "Att{n}.W_g.0",
    "Gate{n}_g_bn": "Att{n}.W_g.1",
    "Gate{n}_x": "Att{n}.W_x.0",
    "Gate{n}_x_bn": "Att{n}.W_x.1",
    "Gate{n}_psi": "Att{n}.psi.0",
    "Gate{n}_psi_bn": "Att{n}.psi.1",
    "Encode{n}_conv1": "Conv{n}.conv.0",
    "Encode{n}_conv1_bn": "Conv{n}.conv.1",
    "Encode{n}_conv2": "Conv{n}.conv.3",
    "Encode{n}_conv2_bn": "Conv{n}.conv.4",
    "Decode{n}_conv1": "Up_conv{n}.conv.0",
    "Decode{n}_conv1_bn": "Up_conv{n}.conv.1",
    "Decode{n}_conv2": "Up_conv{n}.conv.3",
    "Decode{n}_conv2_bn": "Up_conv{n}.conv.4",
    "Encode{n}_shortcut": "RRCNN{n}.Conv_1x1",
    "Encode{n}_unit1_conv": "RRCNN{n}.RCNN.0.conv.0",
    "Encode{n}_unit1_conv_bn": "RRCNN{n}.RCNN.0.conv.1",
    "Encode{n}_unit2_conv": "RRCNN{n}.RCNN.1.conv.0",
    "Encode{n}_unit2_conv_bn": "RRCNN{n}.RCNN.1.conv.1",
    "Decode{n}_shortcut": "Up_RRCNN{n}.Conv_1x1",
    "Decode{n}_unit1_conv": "Up_RRCNN{n}.RCNN.0.conv.0",
    "Decode{n}_unit1_conv_bn": "Up_RRCNN{n}.RCNN.0.conv.1",
    "Decode{n}_unit2_conv": "Up_RRCNN{n}.RCNN.1.conv.0",
    "Decode{n}_unit2_conv_bn": "Up_RRCNN{n}.RCNN.1.conv.1",
    "Output": "Conv_1x1",
}


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
