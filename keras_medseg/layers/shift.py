"""Shifted multilayer perceptrons (UNeXt, Valanarasu and Patel 2022)."""

import keras
from keras import layers

from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.initialization import he_normal, with_initializer
from keras_medseg.layers.transformer import dense, gelu, layer_norm

GROUPS = 5


def shift(x: keras.KerasTensor, axis: int, *, name: str) -> keras.KerasTensor:
    """Five groups of channels moved by -2, -1, 0, 1, 2 pixels along H (axis 1) or W (axis 2).

    Zeros move in. The groups are those of torch.chunk: of equal size except the last, and fewer
    than five if there are few channels. (N, H, W, C) -> (N, H, W, C).
    """
    reach = GROUPS // 2
    channels = x.shape[-1]
    width = -(-channels // GROUPS)
    margins = [(0, 0), (0, 0)]
    margins[axis - 1] = (reach, reach)
    x = layers.ZeroPadding2D(margins, name=f"{name}_pad")(x)
    groups = []
    for number, start in enumerate(range(0, channels, width)):
        window = [slice(None), slice(None)]
        window[axis - 1] = slice(2 * reach - number, -number or None)
        groups.append(x[:, window[0], window[1], start : start + width])
    return layers.Concatenate(name=f"{name}_concat")(groups)


def shifted_block(
    x: keras.KerasTensor, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """x + MLP(norm(x)), whose shifts and depthwise 3x3 convolution mix neighboring pixels.

    The MLP is: shift along H, linear, depthwise convolution, GELU, shift along W, linear; all have
    C channels. Initialized as in the authors' code. (N, H, W, C) -> (N, H, W, C).
    """
    channels = x.shape[-1]
    linear = with_initializer(framework, "RandomNormal", stddev=0.02)
    y = layer_norm(x, framework=framework, name=f"{name}_norm2")
    y = shift(y, 1, name=f"{name}_shift_h")
    y = dense(y, channels, framework=linear, name=f"{name}_mlp_fc1")
    y = layers.DepthwiseConv2D(
        3,
        padding="same",
        depthwise_initializer=he_normal(framework, "fan_out").kernel(9),
        name=f"{name}_mlp_dwconv",
    )(y)
    y = shift(gelu(y), 2, name=f"{name}_shift_w")
    y = dense(y, channels, framework=linear, name=f"{name}_mlp_fc2")
    return layers.Add(name=f"{name}_add")([x, y])
