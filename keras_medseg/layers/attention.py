"""Attention on feature maps: CBAM, squeeze-and-excitation, attention gates on skips."""

from collections.abc import Callable
from functools import partial

import keras
from keras import layers, ops

from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv, conv_bn_relu
from keras_medseg.layers.dropout import Dropout
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.layers.resampling import up


def channel_gate(
    x: keras.KerasTensor, *, framework: FrameworkDefaults, name: str, ratio: int = 16
) -> keras.KerasTensor:
    """Weight each channel by sigmoid(MLP(average over H, W) + MLP(maximum over H, W)).

    Woo et al. 2018 (CBAM), equation (2). Both branches share the two-layer MLP with C / ratio
    hidden units (at least one). (N, H, W, C) -> (N, H, W, C).
    """
    channels = x.shape[-1]
    hidden = max(1, channels // ratio)

    def dense(units: int, inputs: int, activation: str | None, part: str) -> layers.Layer:
        return layers.Dense(
            units,
            activation=activation,
            kernel_initializer=framework.kernel(inputs),
            bias_initializer=framework.bias(inputs),
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
    framework: FrameworkDefaults,
    name: str,
    ratio: int,
    use_bias: bool = True,
    dropout: float = 0.0,
) -> keras.KerasTensor:
    """Weight each channel by sigmoid(W2 relu(W1 mean over H, W)).

    Hu, Shen, Sun 2018 (CVPR), equations (2) to (4).

    Args:
        x: (N, H, W, C).
        framework: gives initializers.
        name: prefix of the layers.
        ratio: C / ratio (at least one) is the number of hidden units.
        use_bias: whether the two layers have biases.
        dropout: share of the channels' weights that are 0 in a training step (mtds2021, section
            2.1).

    Returns:
        (N, H, W, C).
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
            kernel_initializer=framework.kernel(fan_in),
            bias_initializer=framework.bias(fan_in),
            name=f"{name}_{part}",
        )(weights)
    if dropout:
        weights = Dropout(dropout, name=f"{name}_dropout")(weights)
    return layers.Multiply(name=f"{name}_scale")([x, weights])


def spatial_gate(
    x: keras.KerasTensor,
    *,
    framework: FrameworkDefaults,
    name: str,
    use_batch_norm: bool = False,
) -> keras.KerasTensor:
    """Weight each pixel by sigmoid(conv([maximum over C, mean over C])).

    Woo et al. 2018 (CBAM), equation (3). The 7x7 convolution has no bias; batch norm follows it if
    `use_batch_norm`. (N, H, W, C) -> (N, H, W, C).
    """
    pooled = [ops.max(x, axis=-1, keepdims=True), ops.mean(x, axis=-1, keepdims=True)]
    pooled = layers.Concatenate(name=f"{name}_pool")(pooled)
    logits = conv(pooled, 1, 7, framework=framework, name=f"{name}_conv", use_bias=False)
    if use_batch_norm:
        logits = batch_norm(logits, framework=framework, name=f"{name}_bn")
    weights = layers.Activation("sigmoid", name=f"{name}_sigmoid")(logits)
    return layers.Multiply(name=f"{name}_scale")([x, weights])


def cbam(
    x: keras.KerasTensor,
    *,
    framework: FrameworkDefaults,
    name: str,
    ratio: int = 16,
    use_batch_norm: bool = False,
) -> keras.KerasTensor:
    """Convolutional block attention module: the channel gate, then the spatial gate.

    Woo, Park, Lee, Kweon 2018 (ECCV), equation (1). (N, H, W, C) -> (N, H, W, C).

    Args:
        x: (N, H, W, C).
        framework: gives initializers and the batch norm's constants.
        name: prefix of the layers.
        ratio: of the channel gate.
        use_batch_norm: of the spatial gate. The authors' code has it; the article does not
            mention it.

    Returns:
        (N, H, W, C).
    """
    x = channel_gate(x, framework=framework, name=f"{name}_channel", ratio=ratio)
    return spatial_gate(
        x, framework=framework, name=f"{name}_spatial", use_batch_norm=use_batch_norm
    )


def attention_gate(
    skip: keras.KerasTensor,
    signal: keras.KerasTensor,
    filters: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    coarse: bool = False,
) -> keras.KerasTensor:
    """skip * sigmoid(psi(relu(W_x skip + W_g signal))).

    Oktay et al. 2018, equations (1) and (2), in the common form with a batch norm after every 1x1
    convolution.

    Args:
        skip: (N, H, W, C) or (N, X, Y, Z, C).
        signal: the gating signal, (N, H, W, G) or (N, X, Y, Z, G).
        filters: channels of the sum.
        framework: gives initializers and the batch norm's constants.
        name: prefix of the layers.
        coarse: whether `signal` has half the resolution of the skip; W_g signal is then up-sampled.

    Returns:
        A tensor of the shape of `skip`.
    """

    def pointwise(x: keras.KerasTensor, width: int, part: str) -> keras.KerasTensor:
        part = f"{name}_{part}"
        return conv_bn_relu(x, width, 1, framework=framework, name=part, activation=False)

    gate = pointwise(signal, filters, "g")
    if coarse:
        gate = up(gate, "nearest", framework=framework, name=f"{name}_g_up")
    x = layers.Add(name=f"{name}_add")([gate, pointwise(skip, filters, "x")])
    x = pointwise(layers.ReLU(name=f"{name}_relu")(x), 1, "psi")
    weights = layers.Activation("sigmoid", name=f"{name}_sigmoid")(x)
    return layers.Multiply(name=f"{name}_scale")([skip, weights])


def grid_attention_gate(
    skip: keras.KerasTensor,
    signal: keras.KerasTensor,
    *,
    upsample: Callable[..., keras.KerasTensor],
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """W(skip * up(sigmoid(psi(relu(theta(skip) + phi(signal)))))), at half resolution inside.

    Oktay et al. 2018, equations (1) and (2), as in its authors' code (GridAttentionBlock): theta is
    a 2x2 convolution of stride 2 without bias, phi and psi are 1x1 with bias, and no norm stands in
    the gate; W, behind the product, is a 1x1 convolution with batch norm. All but psi have as many
    channels as the skip.

    Args:
        skip: (N, H, W, C) or (N, X, Y, Z, C).
        signal: the map one level below, (N, H / 2, W / 2, G), likewise in three dimensions.
        upsample: called as upsample(x, name=...); doubles the resolution of the weights.
        framework: gives initializers and the batch norm's constants.
        name: prefix of the layers.

    Returns:
        A tensor of the shape of `skip`.
    """
    channels = skip.shape[-1]
    unpadded = partial(conv, framework=framework, padding="valid")
    theta = unpadded(skip, channels, 2, strides=2, use_bias=False, name=f"{name}_theta")
    phi = unpadded(signal, channels, 1, name=f"{name}_phi")
    x = layers.Add(name=f"{name}_add")([theta, phi])
    x = layers.ReLU(name=f"{name}_relu")(x)
    x = unpadded(x, 1, 1, activation="sigmoid", name=f"{name}_psi")
    weights = upsample(x, name=f"{name}_up")
    x = layers.Multiply(name=f"{name}_scale")([skip, weights])
    return conv_bn_relu(x, channels, 1, framework=framework, name=f"{name}_W", activation=False)
