"""PSPNet on a dilated ResNet-50, in the structure of the authors' PyTorch code.

The ResNet has a stem of three 3x3 convolutions; its last two stages dilate instead of halving. The
authors' head on the third stage is left out because only training uses it: 2,364,691 parameters.
"""

from typing import Any

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv
from keras_medseg.layers.dropout import SpatialDropout2D
from keras_medseg.layers.initialization import he_normal
from keras_medseg.layers.interpolation import adaptive_average_pool, resize_aligned
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.layers.resampling import require_multiple
from keras_medseg.registry import Card, register

BINS = (1, 2, 3, 6)
ORIGINAL_NAMES = {
    "layer0_{n}": "layer0.{n}",
    "layer{n}_{m}_conv{k}": "layer{n}.{m}.conv{k}",
    "layer{n}_{m}_bn{k}": "layer{n}.{m}.bn{k}",
    "layer{n}_{m}_downsample_{k}": "layer{n}.{m}.downsample.{k}",
    "ppm_{n}_{k}": "ppm.features.{n}.{k}",
    "cls_{n}": "cls.{n}",
}
NEVER_CALLED = ("aux.0", "aux.1", "aux.4")


@register(
    Card(
        name="pspnet",
        paper="zhao2017",
        title="pyramid scene parsing network on ResNet-50",
        input_shape=(713, 713, 3),
        parameters=46_773_971,
        moving_statistics=58_624,
        dimensions=2,
        output="logits",
        source="hszhao/semseg, PSPNet(layers=50, zoom_factor=8); arXiv 1612.01105",
        parity="golden",
        compared_in=("mtds2021",),
        notes="Follows the PyTorch code: a stem of three 3x3 convolutions, sizes of 8 k + 1 "
        "pixels, resizing with aligned corners. The head that only training uses is left out. "
        "Published results start from ImageNet weights.",
    )
)
def pspnet(
    input_shape: tuple[int, int, int] = (713, 713, 3),
    classes: int = 19,
    filters: int = 64,
    depths: tuple[int, int, int, int] = (3, 4, 6, 3),
    activation: str = "linear",
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Logits (N, H, W, classes) in float32 from images (N, H, W, C).

    Args:
        input_shape: (H, W, C); H - 1 and W - 1 divisible by 8.
        classes: output channels.
        filters: channels of the first convolution; all others are multiples of it.
        depths: residual blocks of the four stages; (3, 4, 23, 3) is ResNet-101.
        activation: of the output: "linear" for the original's logits, "sigmoid" or "softmax" for
            probabilities, which this package's losses and inference take.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: a size that does not fit (the message gives the next valid shape) or is None,
            or an unknown framework.
    """
    require_multiple(input_shape, 8, offset=1)
    if None in input_shape:
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected a size for every axis, because the "
            f"network interpolates to it. Give 8 k + 1 pixels, such as 713."
        )
    framework = frameworks.get(framework)
    image = keras.Input(input_shape, name="Input")
    x = _resnet(image, filters, depths, he_normal(framework, "fan_out"))
    x = _pyramid(x, framework)
    x = _conv_bn_relu(x, 8 * filters, 3, "cls_0", "cls_1", framework)
    x = SpatialDropout2D(0.1, name="cls_dropout")(x)
    x = conv(x, classes, 1, framework=framework, name="cls_4", dtype="float32")
    x = resize_aligned(x, input_shape[:2], name="resize", dtype="float32")
    x = layers.Activation(activation, name="Output", dtype="float32")(x)
    return keras.Model(image, x, name="pspnet")


def _resnet(
    x: keras.KerasTensor, filters: int, depths: tuple[int, ...], framework: FrameworkDefaults
) -> keras.KerasTensor:
    """(N, H, W, C) -> (N, (H - 1) / 8 + 1, (W - 1) / 8 + 1, 32 * filters)."""
    for number, (width, strides) in enumerate([(1, 2), (1, 1), (2, 1)]):
        names = f"layer0_{3 * number}", f"layer0_{3 * number + 1}"
        x = _conv_bn_relu(x, width * filters, 3, *names, framework, strides=strides)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="pool")(x)
    for stage, (blocks, strides, dilation) in enumerate(zip(depths, (1, 2, 1, 1), (1, 1, 2, 4)), 1):
        width = 2 ** (stage - 1) * filters
        for block in range(blocks):
            name = f"layer{stage}_{block}"
            x = _bottleneck(x, width, strides if block == 0 else 1, dilation, framework, name)
    return x


def _bottleneck(
    x: keras.KerasTensor,
    width: int,
    strides: int,
    dilation: int,
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """He et al. 2016, figure 5 (right), with the stride in the 3x3 convolution."""
    names = [(f"{name}_conv{number}", f"{name}_bn{number}") for number in (1, 2, 3)]
    y = _conv_bn_relu(x, width, 1, *names[0], framework)
    y = _conv_bn_relu(y, width, 3, *names[1], framework, strides=strides, dilation_rate=dilation)
    y = conv(y, 4 * width, 1, framework=framework, name=names[2][0], use_bias=False)
    y = batch_norm(y, framework=framework, name=names[2][1])
    if strides > 1 or x.shape[-1] != 4 * width:
        options: dict[str, Any] = dict(strides=strides, padding="valid", use_bias=False)
        x = conv(x, 4 * width, 1, framework=framework, name=f"{name}_downsample_0", **options)
        x = batch_norm(x, framework=framework, name=f"{name}_downsample_1")
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))


def _pyramid(x: keras.KerasTensor, framework: FrameworkDefaults) -> keras.KerasTensor:
    """The map and its averages over 1, 4, 9 and 36 windows, concatenated; zhao2017, figure 3."""
    height, width, channels = x.shape[1:]
    maps = [x]
    for number, bins in enumerate(BINS):
        name = f"ppm_{number}"
        y = adaptive_average_pool(x, (bins, bins), name=f"{name}_pool")
        y = _conv_bn_relu(y, channels // len(BINS), 1, f"{name}_1", f"{name}_2", framework)
        maps.append(resize_aligned(y, (height, width), name=f"{name}_resize"))
    return layers.Concatenate(name="ppm_concat")(maps)


def _conv_bn_relu(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    name: str,
    norm_name: str,
    framework: FrameworkDefaults,
    **options: Any,
) -> keras.KerasTensor:
    x = conv(x, filters, kernel_size, framework=framework, name=name, use_bias=False, **options)
    return layers.ReLU(name=f"{name}_relu")(batch_norm(x, framework=framework, name=norm_name))
