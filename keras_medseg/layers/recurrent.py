"""Recurrent convolutions."""

import keras
from keras import layers

from keras_medseg.layers.convolution import conv_layer, norm_layer
from keras_medseg.stacks import Stack


def recurrent_conv(x: keras.KerasTensor, t: int, *, stack: Stack, name: str) -> keras.KerasTensor:
    """y = f(x), then `t` times y = f(x + y), where f is one 3x3 convolution, batch norm and ReLU.

    Alom et al. 2018 (R2U-Net), equation (2), with the recurrent weights shared with the
    feed-forward ones, and the norm with them. (N, H, W, C) -> (N, H, W, C).
    """
    channels = x.shape[-1]
    convolve = conv_layer(channels, channels, 3, stack=stack, name=f"{name}_conv")
    normalise = norm_layer(stack=stack, name=f"{name}_conv_bn")
    rectify = layers.ReLU(name=f"{name}_conv_relu")
    y = rectify(normalise(convolve(x)))
    for step in range(1, t + 1):
        y = layers.Add(name=f"{name}_add{step}")([x, y])
        y = rectify(normalise(convolve(y)))
    return y
