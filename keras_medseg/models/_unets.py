"""U-Net skeletons shared by several networks.

`leejunhyun_unet` is the U-Net of LeeJunHyun/Image_Segmentation with a configurable block and
optional attention gates; `residual_unet` is the residual U-Net of Zhang et al. 2018.
"""

from collections.abc import Callable
from functools import partial

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.attention import attention_gate
from keras_medseg.layers.convolution import conv, conv_bn_relu, output_conv
from keras_medseg.layers.recurrent import recurrent_residual
from keras_medseg.layers.resampling import require_multiple, up
from keras_medseg.layers.residual import pre_activation

# Our layers -> the modules of LeeJunHyun/Image_Segmentation; no network has all of them.
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
    framework: str | FrameworkDefaults,
    *,
    t: int | None = None,
    gates: bool = False,
) -> keras.Model:
    """One of the four networks of LeeJunHyun/Image_Segmentation.

    Args:
        name: of the network.
        input_shape: (H, W, C).
        classes: output channels.
        filters: channels of the first level.
        activation: of the output.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.
        t: recurrences of the R2 blocks; None for blocks of two convolutions.
        gates: whether attention gates weight the skips.

    Returns:
        (N, H, W, C) -> (N, H, W, classes).

    Raises:
        ValueError: H or W not divisible by 16; the message gives the next valid shape.
    """
    require_multiple(input_shape, 16)
    framework = frameworks.get(framework)
    block = double_conv if t is None else partial(recurrent_residual, t=t)
    block = partial(block, framework=framework)
    image = keras.Input(input_shape, name="Input")
    x = _unet_features(image, filters, block, framework=framework, gates=gates)
    x = output_conv(x, classes, activation, framework=framework)
    return keras.Model(image, x, name=name)


def _unet_features(
    x: keras.KerasTensor,
    filters: int,
    block: Callable[..., keras.KerasTensor],
    *,
    framework: FrameworkDefaults,
    gates: bool,
) -> keras.KerasTensor:
    """Encoder and decoder of LeeJunHyun's networks; (N, H, W, C) -> (N, H, W, filters).

    The five levels have 1, 2, 4, 8 and 16 times `filters` channels. Down: 2x2 max pooling. Up:
    nearest neighbor, 3x3 convolution, batch norm, ReLU. Concatenated: [skip, up]. Numbers go from 1
    to 5 in the encoder and from 5 to 2 in the decoder. `block` is called as block(x, width,
    name=...) on every level of both sides; `gates` are half as wide as their level.
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
        x = up(x, "nearest", framework=framework, name=f"Up{number}")
        x = conv_bn_relu(x, width, 3, framework=framework, name=f"Up{number}_conv")
        if gates:
            gate = f"Gate{number}"
            skip = attention_gate(skip, x, max(1, width // 2), framework=framework, name=gate)
        x = layers.Concatenate(name=f"Concat{number}")([skip, x])
        x = block(x, width, name=f"Decode{number}")
    return x


def double_conv(
    x: keras.KerasTensor, filters: int, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """3x3 convolution with bias, batch norm, ReLU, twice. (N, H, W, C) -> (N, H, W, filters)."""
    x = conv_bn_relu(x, filters, 3, framework=framework, name=f"{name}_conv1")
    return conv_bn_relu(x, filters, 3, framework=framework, name=f"{name}_conv2")


def residual_unet(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    classes: int,
    filters: int,
    activation: str,
    framework: str | FrameworkDefaults,
    *,
    shortcut_size: int = 1,
    upsampling: str | None = None,
    center: Callable[..., keras.KerasTensor] | None = None,
) -> keras.Model:
    """The residual U-Net of Zhang et al. 2018.

    Args:
        name: of the network.
        input_shape: (H, W, C).
        classes: output channels.
        filters: channels of the first level.
        activation: of the output.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.
        shortcut_size: kernel size of the shortcuts; batch norm follows those of 3x3.
        upsampling: "nearest", "bilinear" or "transposed_conv"; None is the framework's default.
        center: called as center(x, framework=...) on the bridge's output, (N, H / 8, W / 8,
            8 filters); None for nothing there.

    Returns:
        (N, H, W, C) -> (N, H, W, classes).

    Raises:
        ValueError: H or W not divisible by 8; the message gives the next valid shape.
    """
    require_multiple(input_shape, 8)
    framework = frameworks.get(framework)
    unit = partial(
        pre_activation,
        framework=framework,
        shortcut_size=shortcut_size,
        shortcut_norm=shortcut_size == 3,
    )
    image = keras.Input(input_shape, name="Input")
    x = conv_bn_relu(image, filters, 3, framework=framework, name="Stem_conv1")
    x = conv(x, filters, 3, framework=framework, name="Stem_conv2")
    skip = conv(image, filters, shortcut_size, framework=framework, name="Stem_shortcut")
    skips = [layers.Add(name="Stem_add")([x, skip])]
    for number in (1, 2):
        skips.append(unit(skips[-1], 2**number * filters, strides=2, name=f"Encode{number}"))
    x = unit(skips[-1], 8 * filters, strides=2, name="Bridge")
    if center is not None:
        x = center(x, framework=framework)
    for number in (1, 2, 3):
        skip = skips.pop()
        x = up(x, upsampling or framework.upsampling, framework=framework, name=f"Up{number}")
        x = layers.Concatenate(name=f"Concat{number}")([x, skip])
        x = unit(x, skip.shape[-1], name=f"Decode{number}")
    x = output_conv(x, classes, activation, framework=framework)
    return keras.Model(image, x, name=name)
