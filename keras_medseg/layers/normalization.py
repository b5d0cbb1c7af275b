"""Batch and instance normalization of (N, H, W, C) or (N, X, Y, Z, C) maps."""

import keras
from keras import layers

from keras_medseg.frameworks import FrameworkDefaults


def batch_norm(
    x: keras.KerasTensor, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """Batch normalization over all axes but the last."""
    return batch_norm_layer(framework=framework, name=name)(x)


def batch_norm_layer(*, framework: FrameworkDefaults, name: str) -> layers.BatchNormalization:
    """The layer of `batch_norm`, for calling it more than once."""
    return layers.BatchNormalization(
        momentum=framework.norm_momentum, epsilon=framework.norm_epsilon, name=name
    )


def instance_norm(
    x: keras.KerasTensor, *, framework: FrameworkDefaults, name: str, affine: bool = False
) -> keras.KerasTensor:
    """(x - mean) / sqrt(variance + epsilon) over all axes but batch and channels.

    Training and inference do the same. The statistics are float32 under every precision policy.

    Args:
        x: (N, H, W, C) or (N, X, Y, Z, C).
        framework: gives epsilon.
        name: of the layer.
        affine: whether a scale and a shift per channel are learned; by default not, as in PyTorch.

    Returns:
        A tensor of the shape of `x`.
    """
    # Group normalization with one group per channel (Wu, He 2018, section 3).
    norm = layers.GroupNormalization(
        groups=-1, epsilon=framework.norm_epsilon, center=affine, scale=affine, name=name
    )
    return norm(x)
