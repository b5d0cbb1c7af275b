"""What transformers and their relatives do to each pixel by itself, on (N, H, W, C) maps."""

from math import sqrt

import keras
from keras import layers, ops

from keras_medseg.frameworks import Stack


def dense(
    x: keras.KerasTensor, units: int, *, stack: Stack, name: str, use_bias: bool = True
) -> keras.KerasTensor:
    """Linear map of the channels, (..., C) -> (..., units)."""
    return layers.Dense(
        units,
        use_bias=use_bias,
        kernel_initializer=stack.kernel(x.shape[-1]),
        bias_initializer=stack.bias(x.shape[-1]),
        name=name,
    )(x)


def layer_norm(x: keras.KerasTensor, *, stack: Stack, name: str) -> keras.KerasTensor:
    """Layer normalisation over the channels, with the stack's epsilon."""
    return layers.LayerNormalization(epsilon=stack.norm_epsilon, name=name)(x)


def gelu(x: keras.KerasTensor) -> keras.KerasTensor:
    """x times the normal distribution's cumulative function; exact, by the error function.

    Keras' own becomes 1 - erfc in TensorFlow, which ONNX does not know.
    """
    return x * (0.5 + 0.5 * ops.erf(x * sqrt(0.5)))
