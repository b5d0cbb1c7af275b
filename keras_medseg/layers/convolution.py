"""Convolution, normalization and ReLU with a framework's defaults, in two or three dimensions.

The rank of the tensor decides: (N, H, W, C) or (N, X, Y, Z, C).
"""

from typing import Any

import keras
from keras import layers

from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.normalization import batch_norm, instance_norm


def layer_class(pattern: str, x: keras.KerasTensor) -> type[layers.Layer]:
    """Keras' layer class for tensors like x: "Conv{}D" is Conv3D for (N, X, Y, Z, C)."""
    return getattr(layers, pattern.format(len(x.shape) - 2))


def conv(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    strides: int = 1,
    padding: str = "same",
    **options: Any,
) -> keras.KerasTensor:
    """Convolution, padded with zeros as the framework does it.

    Args:
        x: (N, H, W, C) or (N, X, Y, Z, C).
        filters: channels of the output.
        kernel_size: of every axis, in pixels.
        framework: gives initializers and the padding of strided convolutions.
        name: of the layer.
        strides: of every axis.
        padding: "same", or "valid" for none.
        options: those of keras.layers.Conv2D.

    Returns:
        (N, H / strides, W / strides, filters), likewise in three dimensions.
    """
    if kernel_size == 1 and strides > 1:
        # Select the pixels that are read, then convolve without stride: with 8 channels or fewer,
        # the gradient of a strided 1x1 convolution writes outside its memory (TensorFlow 2.21 with
        # oneDNN on a CPU).
        pick = layer_class("AveragePooling{}D", x)
        x, strides = pick(1, strides=strides, name=f"{name}_pick")(x), 1
    if padding == "same" and strides > 1 and framework.symmetric_padding:
        x = layer_class("ZeroPadding{}D", x)(kernel_size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    options |= dict(strides=strides, padding=padding, dimensions=len(x.shape) - 2)
    channels = x.shape[-1]
    return conv_layer(channels, filters, kernel_size, framework=framework, name=name, **options)(x)


def conv_layer(
    channels: int,
    filters: int,
    kernel_size: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    dimensions: int = 2,
    **options: Any,
) -> layers.Conv2D | layers.Conv3D:
    """The convolution layer for `channels` input channels, for calling it more than once."""
    fan_in = kernel_size**dimensions * channels
    defaults = dict(
        padding="same",
        kernel_initializer=framework.kernel(fan_in),
        bias_initializer=framework.bias(fan_in),
    )
    convolution = {2: layers.Conv2D, 3: layers.Conv3D}[dimensions]
    return convolution(filters, kernel_size, name=name, **{**defaults, **options})


def output_conv(
    x: keras.KerasTensor,
    classes: int,
    activation: str,
    *,
    framework: FrameworkDefaults,
    name: str = "Output",
    **options: Any,
) -> keras.KerasTensor:
    """A network's last layer: a 1x1 convolution that stays float32 under every precision policy.

    (N, H, W, C) -> (N, H, W, classes), likewise (N, X, Y, Z, C).
    """
    options |= dict(activation=activation, dtype="float32")
    return conv(x, classes, 1, framework=framework, name=name, **options)


def separable_conv(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    use_bias: bool = True,
) -> keras.KerasTensor:
    """Depthwise, then 1x1 convolution, nothing in between (Keras' SeparableConv2D).

    The two have one bias together, unless `use_bias` is False.
    (N, H, W, C) -> (N, H, W, filters).
    """
    channels = x.shape[-1]
    return layers.SeparableConv2D(
        filters,
        kernel_size,
        padding="same",
        use_bias=use_bias,
        depthwise_initializer=framework.kernel(kernel_size**2),
        pointwise_initializer=framework.kernel(channels),
        bias_initializer=framework.bias(channels),
        name=name,
    )(x)


def conv_bn_relu(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    activation: bool = True,
    use_bias: bool = True,
) -> keras.KerasTensor:
    """Convolution, with bias unless `use_bias` is False, batch norm, ReLU unless not `activation`.

    (N, H, W, C) -> (N, H, W, filters), likewise (N, X, Y, Z, C).
    """
    x = conv(x, filters, kernel_size, framework=framework, name=name, use_bias=use_bias)
    x = batch_norm(x, framework=framework, name=f"{name}_bn")
    return layers.ReLU(name=f"{name}_relu")(x) if activation else x


def bn_relu_conv(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """Batch norm, ReLU, then convolution with bias: the order of pre-activation.

    (N, H, W, C) -> (N, H, W, filters), likewise (N, X, Y, Z, C).
    """
    x = batch_norm(x, framework=framework, name=f"{name}_bn")
    x = layers.ReLU(name=f"{name}_relu")(x)
    return conv(x, filters, kernel_size, framework=framework, name=name)


def conv_in_leaky(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    slope: float,
    framework: FrameworkDefaults,
    name: str,
    affine: bool = False,
    **options: Any,
) -> keras.KerasTensor:
    """Convolution, instance norm, leaky ReLU; `options` are those of `conv`.

    (N, H, W, C) -> (N, H, W, filters), likewise (N, X, Y, Z, C).
    """
    x = conv(x, filters, kernel_size, framework=framework, name=name, **options)
    x = instance_norm(x, framework=framework, name=f"{name}_in", affine=affine)
    return layers.LeakyReLU(slope, name=f"{name}_leaky")(x)
