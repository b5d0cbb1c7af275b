"""Convolution, batch normalisation and ReLU with a stack's defaults, in two or three dimensions.

Which of the two follows from the rank of the tensor: (N, H, W, C) or (N, X, Y, Z, C).
"""

import keras
from keras import layers

from keras_medseg.frameworks import Stack


def layer_class(kind: str, x: keras.KerasTensor) -> type[layers.Layer]:
    """Keras' class of this kind for tensors like x: "Conv{}D" is Conv3D for (N, X, Y, Z, C)."""
    return getattr(layers, kind.format(len(x.shape) - 2))


def conv(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    stack: Stack,
    name: str,
    strides: int = 1,
    padding: str = "same",
    **options,
) -> keras.KerasTensor:
    """Convolution (N, H, W, C) -> (N, H / strides, W / strides, filters), zero-padded.

    Likewise (N, X, Y, Z, C). `options` are those of keras.layers.Conv2D; padding="valid" pads
    nothing.
    """
    if kernel_size == 1 and strides > 1:
        # The pixels that it sees, and then all of these: with 8 channels or fewer, the gradient of
        # a strided 1x1 convolution writes beyond its memory (TensorFlow 2.21 with oneDNN on a CPU).
        pick = layer_class("AveragePooling{}D", x)
        x, strides = pick(1, strides=strides, name=f"{name}_pick")(x), 1
    if padding == "same" and strides > 1 and stack.symmetric_padding:
        x = layer_class("ZeroPadding{}D", x)(kernel_size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    options |= dict(strides=strides, padding=padding, dimensions=len(x.shape) - 2)
    return conv_layer(x.shape[-1], filters, kernel_size, stack=stack, name=name, **options)(x)


def conv_layer(
    channels: int,
    filters: int,
    kernel_size: int,
    *,
    stack: Stack,
    name: str,
    dimensions: int = 2,
    **options,
) -> layers.Conv2D | layers.Conv3D:
    """A convolution of `channels` input channels, zero-padded; to be called more than once."""
    fan_in = kernel_size**dimensions * channels
    defaults = dict(
        padding="same",
        kernel_initializer=stack.kernel(fan_in),
        bias_initializer=stack.bias(fan_in),
    )
    convolution = {2: layers.Conv2D, 3: layers.Conv3D}[dimensions]
    return convolution(filters, kernel_size, name=name, **{**defaults, **options})


def separable_conv(
    x: keras.KerasTensor, filters: int, kernel_size: int, *, stack: Stack, name: str
) -> keras.KerasTensor:
    """Depthwise, then 1x1 convolution with one bias, nothing in between (Keras' SeparableConv2D).

    (N, H, W, C) -> (N, H, W, filters).
    """
    channels = x.shape[-1]
    return layers.SeparableConv2D(
        filters,
        kernel_size,
        padding="same",
        depthwise_initializer=stack.kernel(kernel_size**2),
        pointwise_initializer=stack.kernel(channels),
        bias_initializer=stack.bias(channels),
        name=name,
    )(x)


def norm(x: keras.KerasTensor, *, stack: Stack, name: str) -> keras.KerasTensor:
    """Batch normalisation over all axes but the last."""
    return norm_layer(stack=stack, name=name)(x)


def norm_layer(*, stack: Stack, name: str) -> layers.BatchNormalization:
    """The layer of `norm`; to be called more than once."""
    return layers.BatchNormalization(
        momentum=stack.norm_momentum, epsilon=stack.norm_epsilon, name=name
    )


def conv_bn_relu(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    stack: Stack,
    name: str,
    activation: bool = True,
) -> keras.KerasTensor:
    """Convolution with bias, batch normalisation, and ReLU unless `activation` is False.

    (N, H, W, C) -> (N, H, W, filters), likewise (N, X, Y, Z, C).
    """
    x = conv(x, filters, kernel_size, stack=stack, name=name)
    x = norm(x, stack=stack, name=f"{name}_bn")
    return layers.ReLU(name=f"{name}_relu")(x) if activation else x


def bn_relu_conv(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    stack: Stack,
    name: str,
    strides: int = 1,
) -> keras.KerasTensor:
    """Batch normalisation, ReLU, then convolution with bias: the order of pre-activation.

    (N, H, W, C) -> (N, H / strides, W / strides, filters), likewise (N, X, Y, Z, C).
    """
    x = norm(x, stack=stack, name=f"{name}_bn")
    x = layers.ReLU(name=f"{name}_relu")(x)
    return conv(x, filters, kernel_size, stack=stack, name=name, strides=strides)
