"""The Us that networks share: LeeJunHyun's, with blocks to be chosen, and the residual one."""

from collections.abc import Callable
from functools import partial

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.frameworks import Stack
from keras_medseg.layers.convolution import conv, conv_bn_relu
from keras_medseg.layers.gates import attention_gate
from keras_medseg.layers.recurrent import recurrent_residual
from keras_medseg.layers.resampling import require_multiple, up
from keras_medseg.layers.residual import pre_activation

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


def leejunhyun_unet(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    classes: int,
    filters: int,
    activation: str,
    stack: str | Stack,
    *,
    t: int | None = None,
    gates: bool = False,
) -> keras.Model:
    """One of the four networks of LeeJunHyun/Image_Segmentation, called `name`.

    Args:
        t: recurrences of the R2 blocks; None for blocks of two convolutions.
        gates: whether attention gates weight the skips.

    The others are options of the builders.

    Raises:
        ValueError: H or W not divisible by 16; the message gives the next valid shape.
    """
    require_multiple(input_shape, 16)
    stack = frameworks.get(stack)
    block = double_conv if t is None else partial(recurrent_residual, t=t)
    image = keras.Input(input_shape, name="Input")
    x = unet_features(image, filters, partial(block, stack=stack), stack=stack, gates=gates)
    x = conv(x, classes, 1, stack=stack, name="Output", activation=activation, dtype="float32")
    return keras.Model(image, x, name=name)


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


def residual_unet(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    classes: int,
    filters: int,
    activation: str,
    stack: str | Stack,
    *,
    shortcut_size: int = 1,
    upsampling: str | None = None,
    centre: Callable[..., keras.KerasTensor] | None = None,
) -> keras.Model:
    """The residual U-Net of Zhang et al. 2018, called `name`; options are those of the builders.

    Args:
        shortcut_size: kernel of the shortcuts; 3x3 ones are normalised.
        upsampling: "nearest", "bilinear" or "transposed_conv"; None is the stack's default.
        centre: called as centre(x, stack=...) on the bridge's output, (N, H / 8, W / 8, 8 filters).

    Raises:
        ValueError: H or W not divisible by 8; the message gives the next valid shape.
    """
    require_multiple(input_shape, 8)
    stack = frameworks.get(stack)
    unit = partial(
        pre_activation, stack=stack, shortcut_size=shortcut_size, shortcut_norm=shortcut_size == 3
    )
    image = keras.Input(input_shape, name="Input")
    x = conv_bn_relu(image, filters, 3, stack=stack, name="Stem_conv1")
    x = conv(x, filters, 3, stack=stack, name="Stem_conv2")
    skip = conv(image, filters, shortcut_size, stack=stack, name="Stem_shortcut")
    skips = [layers.Add(name="Stem_add")([x, skip])]
    for number in (1, 2):
        skips.append(unit(skips[-1], 2**number * filters, strides=2, name=f"Encode{number}"))
    x = unit(skips[-1], 8 * filters, strides=2, name="Bridge")
    if centre is not None:
        x = centre(x, stack=stack)
    for number in (1, 2, 3):
        skip = skips.pop()
        x = up(x, upsampling or stack.upsampling, stack=stack, name=f"Up{number}")
        x = layers.Concatenate(name=f"Concat{number}")([x, skip])
        x = unit(x, skip.shape[-1], name=f"Decode{number}")
    x = conv(x, classes, 1, stack=stack, name="Output", activation=activation, dtype="float32")
    return keras.Model(image, x, name=name)
