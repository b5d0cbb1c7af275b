"""DeepLabv3+ on Xception-65, in the structure of the authors' TensorFlow code.

Output stride 16: the last stage of Xception dilates instead of halving. Every 3x3 convolution but
the first two is separable, with batch norm between its halves. The low-level features are those of
the second separable convolution of entry block 2, before any ReLU, at a quarter of the size.

As in the code, batch norm has epsilon 1e-3 in Xception and 1e-5 in the rest, and convolutions of
stride 2 pad both sides. Initializers and the momentum of the moving averages are the framework's:
the code's decay of 0.9997 belongs to long schedules that start from pretrained weights.
"""

from dataclasses import replace
from typing import Any

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv
from keras_medseg.layers.dropout import Dropout
from keras_medseg.layers.interpolation import adaptive_average_pool, resize_aligned
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.registry import Card, register

RATES = (6, 12, 18)


@register(
    Card(
        name="deeplabv3plus",
        paper="chen2018",
        title="DeepLabv3+ on Xception-65",
        input_shape=(513, 513, 3),
        parameters=41_258_213,
        moving_statistics=202_800,
        dimensions=2,
        output="logits",
        source="tensorflow/models, research/deeplab (xception_65, output stride 16); "
        "arXiv 1802.02611",
        parity="count",
        compared_in=("mtds2021",),
        notes="Follows the TensorFlow code: epsilon 1e-3 in Xception and 1e-5 elsewhere, strided "
        "convolutions that pad both sides. But the momentum of batch norm is the framework's, "
        "because the code's belongs to long schedules that start from ImageNet, COCO or JFT "
        "weights, as published results do.",
    )
)
def deeplabv3plus(
    input_shape: tuple[int, int, int] = (513, 513, 3),
    classes: int = 21,
    filters: int = 32,
    middle_units: int = 16,
    activation: str = "linear",
    framework: str | FrameworkDefaults = "tensorflow_2",
) -> keras.Model:
    """Logits (N, H, W, classes) in float32 from images (N, H, W, C).

    Args:
        input_shape: (H, W, C), any size; at 16 k + 1 pixels the corners of all maps coincide.
        classes: output channels.
        filters: channels of the first convolution; all others keep their ratio to it.
        middle_units: of Xception's middle flow; the code's Xception-41 has 8.
        activation: of the output: "linear" for the original's logits, "sigmoid" or "softmax" for
            probabilities, which this package's losses and inference take.
        framework: name or FrameworkDefaults whose initializers and momentum apply.

    Raises:
        ValueError: input_shape is not three numbers, or an unknown framework.
    """
    if len(input_shape) != 3 or None in input_shape:
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected (height, width, channels), all "
            f"given, because the network interpolates to these sizes."
        )
    if min(input_shape[:2]) < 1:
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected height and width of one pixel or "
            f"more. The next valid shape is "
            f"{(*(max(1, size) for size in input_shape[:2]), input_shape[2])}."
        )
    backbone = replace(frameworks.get(framework), norm_epsilon=1e-3, symmetric_padding=True)
    head = replace(backbone, norm_epsilon=1e-5)
    image = keras.Input(input_shape, name="Input")
    x, low_level = _xception(image, filters, middle_units, backbone)
    x = _atrous_pyramid(x, _width(256, filters), head)
    x = _decode(x, low_level, filters, head)
    x = conv(x, classes, 1, framework=head, name="logits", dtype="float32")
    x = resize_aligned(x, input_shape[:2], name="resize", dtype="float32")
    x = layers.Activation(activation, name="Output", dtype="float32")(x)
    return keras.Model(image, x, name="deeplabv3plus")


def _width(channels: int, filters: int) -> int:
    """Channels in the proportions of the original, whose first convolution has 32."""
    return max(1, channels * filters // 32)


def _xception(
    x: keras.KerasTensor, filters: int, middle_units: int, framework: FrameworkDefaults
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The map at stride 16, and the low-level features at stride 4."""

    def module(
        x: keras.KerasTensor, channels: list[int], name: str, **options: Any
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        widths = [_width(width, filters) for width in channels]
        return _xception_module(x, widths, framework=framework, name=name, **options)

    x = _conv_bn_relu(x, filters, 3, framework, "entry_conv1", strides=2)
    x = _conv_bn_relu(x, 2 * filters, 3, framework, "entry_conv2")
    x, _ = module(x, [128] * 3, "entry_block1", strides=2)
    x, low_level = module(x, [256] * 3, "entry_block2", strides=2)
    x, _ = module(x, [728] * 3, "entry_block3", strides=2)
    for unit in range(1, middle_units + 1):
        x, _ = module(x, [728] * 3, f"middle_unit{unit}", shortcut="identity")
    x, _ = module(x, [728, 1024, 1024], "exit_block1")
    x, _ = module(x, [1536, 1536, 2048], "exit_block2", shortcut=None, rate=2)
    return x, low_level


def _xception_module(
    x: keras.KerasTensor,
    widths: list[int],
    *,
    framework: FrameworkDefaults,
    name: str,
    strides: int = 1,
    rate: int = 1,
    shortcut: str | None = "conv",
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Three separable convolutions beside a shortcut; also the output of the second of them.

    ReLU precedes each of them; in the module without shortcut it follows both halves of each.
    """
    y, maps = x, []
    for number, width in enumerate(widths, start=1):
        part = f"{name}_separable{number}"
        if shortcut:
            y = layers.ReLU(name=f"{part}_relu")(y)
        step = strides if number == 3 else 1
        y = _separable(y, width, framework, part, strides=step, rate=rate, relu=not shortcut)
        maps.append(y)
    if shortcut == "conv":
        options: dict[str, Any] = dict(strides=strides, padding="valid", use_bias=False)
        x = conv(x, widths[-1], 1, framework=framework, name=f"{name}_shortcut", **options)
        x = batch_norm(x, framework=framework, name=f"{name}_shortcut_bn")
    return (layers.Add(name=f"{name}_add")([x, y]) if shortcut else y), maps[1]


def _separable(
    x: keras.KerasTensor,
    filters: int,
    framework: FrameworkDefaults,
    name: str,
    *,
    strides: int = 1,
    rate: int = 1,
    relu: bool = True,
) -> keras.KerasTensor:
    """Depthwise 3x3, batch norm, 1x1, batch norm; ReLU after both norms if `relu`."""
    if strides > 1:
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    x = layers.DepthwiseConv2D(
        3,
        strides=strides,
        padding="valid" if strides > 1 else "same",
        dilation_rate=rate,
        use_bias=False,
        depthwise_initializer=framework.kernel(9),
        name=f"{name}_depthwise",
    )(x)
    x = batch_norm(x, framework=framework, name=f"{name}_depthwise_bn")
    if relu:
        x = layers.ReLU(name=f"{name}_depthwise_relu")(x)
    x = conv(x, filters, 1, framework=framework, name=f"{name}_pointwise", use_bias=False)
    x = batch_norm(x, framework=framework, name=f"{name}_pointwise_bn")
    return layers.ReLU(name=f"{name}_pointwise_relu")(x) if relu else x


def _atrous_pyramid(
    x: keras.KerasTensor, filters: int, framework: FrameworkDefaults
) -> keras.KerasTensor:
    """Image average, 1x1 and three dilated separable convolutions concatenated, then 1x1."""
    pooled = adaptive_average_pool(x, (1, 1), name="image_pooling")
    pooled = _conv_bn_relu(pooled, filters, 1, framework, "image_pooling_conv")
    maps = [
        resize_aligned(pooled, x.shape[1:3], name="image_pooling_resize"),
        _conv_bn_relu(x, filters, 1, framework, "aspp0"),
    ]
    for number, rate in enumerate(RATES, start=1):
        maps.append(_separable(x, filters, framework, f"aspp{number}", rate=rate))
    x = layers.Concatenate(name="aspp_concat")(maps)
    x = _conv_bn_relu(x, filters, 1, framework, "concat_projection")
    return Dropout(0.1, name="concat_projection_dropout")(x)


def _decode(
    x: keras.KerasTensor, low_level: keras.KerasTensor, filters: int, framework: FrameworkDefaults
) -> keras.KerasTensor:
    """Concatenated with 48 low-level features at their resolution; two separable convolutions."""
    x = resize_aligned(x, low_level.shape[1:3], name="decoder_resize")
    skip = _conv_bn_relu(low_level, _width(48, filters), 1, framework, "feature_projection0")
    x = layers.Concatenate(name="decoder_concat")([x, skip])
    for number in (0, 1):
        x = _separable(x, _width(256, filters), framework, f"decoder_conv{number}")
    return x


def _conv_bn_relu(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    framework: FrameworkDefaults,
    name: str,
    strides: int = 1,
) -> keras.KerasTensor:
    options: dict[str, Any] = dict(strides=strides, use_bias=False)
    x = conv(x, filters, kernel_size, framework=framework, name=name, **options)
    x = batch_norm(x, framework=framework, name=f"{name}_bn")
    return layers.ReLU(name=f"{name}_relu")(x)
