"""Residual units: relu(F(x) + shortcut(x)), He et al. 2016 (CVPR), equations (1) and (2).

In `pre_activation` nothing follows the sum.
"""

from collections.abc import Callable
from functools import partial

import keras
from keras import layers, ops

from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import bn_relu_conv, conv, conv_bn_relu, separable_conv
from keras_medseg.layers.normalization import batch_norm


def bottleneck(
    x: keras.KerasTensor,
    filters: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    shortcut_norm: bool = False,
    use_bias: bool = True,
) -> keras.KerasTensor:
    """1x1 to a quarter of the filters, 3x3, 1x1 back; He et al., figure 5 (right).

    The shortcut is always a 1x1 convolution, even where the shapes agree.

    Args:
        x: (N, H, W, C).
        filters: channels of the output.
        framework: gives initializers and the batch norm's constants.
        name: prefix of the layers.
        shortcut_norm: whether batch norm follows the shortcut's convolution, as in He et al. 2016,
            section 3.4, and in Keras' own ResNet50.
        use_bias: whether the block's convolutions have biases.

    Returns:
        (N, H, W, filters).
    """
    width = max(1, filters // 4)
    part = partial(conv_bn_relu, framework=framework, use_bias=use_bias)
    y = part(x, width, 1, name=f"{name}_conv1")
    y = part(y, width, 3, name=f"{name}_conv2")
    y = part(y, filters, 1, name=f"{name}_conv3", activation=False)
    shortcut = projection(
        x, filters, framework=framework, name=name, norm=shortcut_norm, use_bias=use_bias
    )
    return _add_relu(y, shortcut, name)


def separable(
    x: keras.KerasTensor,
    filters: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    shortcut_norm: bool = False,
    use_bias: bool = True,
) -> keras.KerasTensor:
    """One depthwise-separable 3x3 convolution; the shortcut is always a 1x1 convolution.

    (N, H, W, C) -> (N, H, W, filters). The options are those of `bottleneck`.
    """
    y = separable_conv(x, filters, 3, framework=framework, name=f"{name}_conv1", use_bias=use_bias)
    y = batch_norm(y, framework=framework, name=f"{name}_conv1_bn")
    shortcut = projection(
        x, filters, framework=framework, name=name, norm=shortcut_norm, use_bias=use_bias
    )
    return _add_relu(y, shortcut, name)


def separable_pair(
    x: keras.KerasTensor,
    filters: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    use_bias: bool = True,
) -> keras.KerasTensor:
    """Two depthwise-separable 3x3 convolutions and a shortcut without parameters.

    (N, H, W, C) -> (N, H, W, filters). `use_bias` is that of `bottleneck`.
    """
    part = partial(separable_conv, framework=framework, use_bias=use_bias)
    y = part(x, filters, 3, name=f"{name}_conv1")
    y = batch_norm(y, framework=framework, name=f"{name}_conv1_bn")
    y = layers.ReLU(name=f"{name}_conv1_relu")(y)
    y = part(y, filters, 3, name=f"{name}_conv2")
    y = batch_norm(y, framework=framework, name=f"{name}_conv2_bn")
    return _add_relu(y, fitted_identity(x, filters), name)


def plain_block(
    x: keras.KerasTensor, filters: int, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """Two 3x3 convolutions; He et al., figure 5 (left).

    The shortcut is a 1x1 convolution only where the number of channels changes (their option B).
    (N, H, W, C) -> (N, H, W, filters).
    """
    y = conv_bn_relu(x, filters, 3, framework=framework, name=f"{name}_conv1")
    y = conv_bn_relu(y, filters, 3, framework=framework, name=f"{name}_conv2", activation=False)
    return _add_relu(y, projection_if_needed(x, filters, framework=framework, name=name), name)


def plain_single(
    x: keras.KerasTensor, filters: int, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """One 3x3 convolution; shortcut as in `plain_block`. (N, H, W, C) -> (N, H, W, filters)."""
    y = conv_bn_relu(x, filters, 3, framework=framework, name=f"{name}_conv1", activation=False)
    return _add_relu(y, projection_if_needed(x, filters, framework=framework, name=name), name)


def pre_activation(
    x: keras.KerasTensor,
    filters: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    strides: int = 1,
    shortcut_size: int = 1,
    shortcut_norm: bool = False,
    activated_shortcut: bool = False,
) -> keras.KerasTensor:
    """Batch norm, ReLU, 3x3 convolution, twice, plus a convolution as the shortcut.

    He et al. 2016 (ECCV), figure 4 (e). Where the width changes, their code convolves the activated
    input on both branches (`activated_shortcut`), the one of ResUNet the input itself.

    Args:
        x: (N, H, W, C).
        filters: channels of the output.
        framework: gives initializers, padding and the batch norm's constants.
        name: prefix of the layers.
        strides: of the first convolution and of the shortcut.
        shortcut_size: kernel size of the shortcut.
        shortcut_norm: whether batch norm follows the shortcut's convolution.
        activated_shortcut: whether the shortcut, too, comes behind the first batch norm and ReLU.

    Returns:
        (N, H / strides, W / strides, filters).
    """
    y = batch_norm(x, framework=framework, name=f"{name}_conv1_bn")
    y = layers.ReLU(name=f"{name}_conv1_relu")(y)
    x = y if activated_shortcut else x
    y = conv(y, filters, 3, framework=framework, name=f"{name}_conv1", strides=strides)
    y = bn_relu_conv(y, filters, 3, framework=framework, name=f"{name}_conv2")
    shortcut = f"{name}_shortcut"
    x = conv(x, filters, shortcut_size, framework=framework, name=shortcut, strides=strides)
    if shortcut_norm:
        x = batch_norm(x, framework=framework, name=f"{shortcut}_bn")
    return layers.Add(name=f"{name}_add")([y, x])


# Names of the readings of a paper's "residual block", as options give them.
RESIDUAL_BLOCKS: dict[str, Callable[..., keras.KerasTensor]] = {
    "bottleneck": bottleneck,
    "separable": separable,
    "plain": plain_block,
    "separable_pair": separable_pair,
    "plain_single": plain_single,
}


def projection(
    x: keras.KerasTensor,
    filters: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    norm: bool = False,
    use_bias: bool = True,
) -> keras.KerasTensor:
    """Shortcut by a 1x1 convolution, without ReLU; batch norm follows it if `norm`."""
    x = conv(x, filters, 1, framework=framework, name=f"{name}_shortcut", use_bias=use_bias)
    return batch_norm(x, framework=framework, name=f"{name}_shortcut_bn") if norm else x


def projection_if_needed(
    x: keras.KerasTensor, filters: int, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """`projection` where the number of channels changes, else the input itself."""
    return x if x.shape[-1] == filters else projection(x, filters, framework=framework, name=name)


def fitted_identity(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """The input, padded with zero channels (He et al., option A) or cut to the first `filters`."""
    channels = x.shape[-1]
    if channels >= filters:
        return x[..., :filters]
    return ops.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(0, filters - channels)])


def _add_relu(y: keras.KerasTensor, shortcut: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([y, shortcut]))
