"""Recurrent convolutions, and the residual block made of them."""

import keras
from keras import layers

from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv, conv_layer
from keras_medseg.layers.normalization import batch_norm_layer


def recurrent_conv(
    x: keras.KerasTensor, t: int, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """y = f(x), then `t` times y = f(x + y), where f is 3x3 convolution, batch norm and ReLU.

    Alom et al. 2018 (R2U-Net), equation (2), but with the same weights and the same norm for the
    feed-forward and the recurrent part. (N, H, W, C) -> (N, H, W, C).

    Raises:
        ValueError: `t` is negative.
    """
    if t < 0:
        raise ValueError(f"t: found {t}, expected 0 or more.")
    channels = x.shape[-1]
    convolve = conv_layer(channels, channels, 3, framework=framework, name=f"{name}_conv")
    normalize = batch_norm_layer(framework=framework, name=f"{name}_conv_bn")
    rectify = layers.ReLU(name=f"{name}_conv_relu")
    y = rectify(normalize(convolve(x)))
    for step in range(1, t + 1):
        y = layers.Add(name=f"{name}_add{step}")([x, y])
        y = rectify(normalize(convolve(y)))
    return y


def recurrent_residual(
    x: keras.KerasTensor, filters: int, t: int, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """s + two recurrent convolutions of s, where s is a 1x1 convolution of the input.

    Alom et al. 2018 (R2U-Net), figure 4 (d); no activation after the sum.
    (N, H, W, C) -> (N, H, W, filters).
    """
    shortcut = conv(x, filters, 1, framework=framework, name=f"{name}_shortcut")
    y = recurrent_conv(shortcut, t, framework=framework, name=f"{name}_unit1")
    y = recurrent_conv(y, t, framework=framework, name=f"{name}_unit2")
    return layers.Add(name=f"{name}_add")([shortcut, y])
