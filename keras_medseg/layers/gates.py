"""Gates on the skips of a decoder."""

import keras
from keras import layers

from keras_medseg.frameworks import Stack
from keras_medseg.layers.convolution import conv_bn_relu
from keras_medseg.layers.resampling import up


def attention_gate(
    skip: keras.KerasTensor,
    gate: keras.KerasTensor,
    filters: int,
    *,
    stack: Stack,
    name: str,
    coarse: bool = False,
) -> keras.KerasTensor:
    """skip * sigmoid(psi(relu(W_x skip + W_g gate))).

    Oktay et al. 2018, equations (1) and (2), in the common form that normalises every 1x1
    convolution. (N, H, W, C) and (N, H, W, G) -> (N, H, W, C), likewise (N, X, Y, Z, C).

    Args:
        filters: channels of the sum.
        coarse: whether `gate` is of half the skip's resolution; W_g gate is then doubled.
    """

    def pointwise(x, width, part):
        return conv_bn_relu(x, width, 1, stack=stack, name=f"{name}_{part}", activation=False)

    signal = pointwise(gate, filters, "g")
    if coarse:
        signal = up(signal, "nearest", stack=stack, name=f"{name}_g_up")
    x = layers.Add(name=f"{name}_add")([signal, pointwise(skip, filters, "x")])
    x = pointwise(layers.ReLU(name=f"{name}_relu")(x), 1, "psi")
    weights = layers.Activation("sigmoid", name=f"{name}_sigmoid")(x)
    return layers.Multiply(name=f"{name}_scale")([skip, weights])
