"""Attention on feature maps."""

import keras
from keras import layers, ops

from keras_medseg.frameworks import Stack
from keras_medseg.layers.convolution import conv, norm


def channel_gate(
    x: keras.KerasTensor, *, stack: Stack, name: str, ratio: int = 16
) -> keras.KerasTensor:
    """Weight each channel by sigmoid(MLP(average over H, W) + MLP(maximum over H, W)).

    Woo et al. 2018 (CBAM), equation (2); the two-layer MLP with C / ratio hidden units (at least
    one) is shared. (N, H, W, C) -> (N, H, W, C).
    """
    channels = x.shape[-1]
    hidden = max(1, channels // ratio)

    def dense(units: int, inputs: int, activation: str | None, part: str) -> layers.Layer:
        return layers.Dense(
            units,
            activation=activation,
            kernel_initializer=stack.kernel(inputs),
            bias_initializer=stack.bias(inputs),
            name=f"{name}_{part}",
        )

    reduce = dense(hidden, channels, "relu", "reduce")
    expand = dense(channels, hidden, None, "expand")
    average = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_average")(x)
    maximum = layers.GlobalMaxPooling2D(keepdims=True, name=f"{name}_maximum")(x)
    logits = layers.Add(name=f"{name}_add")([expand(reduce(average)), expand(reduce(maximum))])
    weights = layers.Activation("sigmoid", name=f"{name}_sigmoid")(logits)
    return layers.Multiply(name=f"{name}_scale")([x, weights])


def squeeze_excitation(
    x: keras.KerasTensor,
    *,
    stack: Stack,
    name: str,
    ratio: int,
    use_bias: bool = True,
    dropout: float = 0.0,
) -> keras.KerasTensor:
    """Weight each channel by sigmoid(W2 relu(W1 mean over H, W)), C / ratio hidden units.

    Hu, Shen, Sun 2018 (CVPR), equations (2) to (4). `dropout` is the share of the channels' weights
    that are 0 in a training step (mtds2021, section 2.1). (N, H, W, C) -> (N, H, W, C).
    """
    channels = x.shape[-1]
    hidden = max(1, channels // ratio)
    weights = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_average")(x)
    for part, units, activation in (
        ("reduce", hidden, "relu"),
        ("expand", channels, "sigmoid"),
    ):
        fan_in = weights.shape[-1]
        weights = layers.Dense(
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=stack.kernel(fan_in),
            bias_initializer=stack.bias(fan_in),
            name=f"{name}_{part}",
        )(weights)
    if dropout:
        weights = layers.Dropout(dropout, name=f"{name}_dropout")(weights)
    return layers.Multiply(name=f"{name}_scale")([x, weights])


def spatial_gate(
    x: keras.KerasTensor,
    *,
    stack: Stack,
    name: str,
    batch_norm: bool = False,
) -> keras.KerasTensor:
    """Weight each pixel by sigmoid(conv([maximum over C, mean over C])).

    Woo et al. 2018 (CBAM), equation (3); the 7x7 convolution has no bias, and its output is
    normalised if `batch_norm`. (N, H, W, C) -> (N, H, W, C).
    """
    pooled = [ops.max(x, axis=-1, keepdims=True), ops.mean(x, axis=-1, keepdims=True)]
    pooled = layers.Concatenate(name=f"{name}_pool")(pooled)
    logits = conv(pooled, 1, 7, stack=stack, name=f"{name}_conv", use_bias=False)
    if batch_norm:
        logits = norm(logits, stack=stack, name=f"{name}_bn")
    weights = layers.Activation("sigmoid", name=f"{name}_sigmoid")(logits)
    return layers.Multiply(name=f"{name}_scale")([x, weights])


def cbam(
    x: keras.KerasTensor,
    *,
    stack: Stack,
    name: str,
    ratio: int = 16,
    batch_norm: bool = False,
) -> keras.KerasTensor:
    """Convolutional block attention module: the channel gate, then the spatial gate.

    Woo, Park, Lee, Kweon 2018 (ECCV), equation (1). The authors' code normalises the spatial
    gate's map, which the article does not mention: `batch_norm`. (N, H, W, C) -> (N, H, W, C).
    """
    x = channel_gate(x, stack=stack, name=f"{name}_channel", ratio=ratio)
    return spatial_gate(x, stack=stack, name=f"{name}_spatial", batch_norm=batch_norm)
