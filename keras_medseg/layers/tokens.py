"""What transformers and their relatives do to each pixel by itself, on (N, H, W, C) maps."""

import keras
from keras import layers

from keras_medseg.stacks import Stack


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
