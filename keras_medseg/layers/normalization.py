"""Instance normalisation: every channel of every sample by its own mean and variance."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_medseg.frameworks import Stack
from keras_medseg.layers.convolution import conv
from keras_medseg.layers.resampling import require_multiple


def instance_norm(
    x: keras.KerasTensor, *, stack: Stack, name: str, affine: bool = False
) -> keras.KerasTensor:
    """(x - mean) / sqrt(variance + epsilon) over all axes but batch and channels.

    In training and inference alike; the statistics are float32 under every precision policy.
    (N, H, W, C) -> (N, H, W, C), likewise (N, X, Y, Z, C).

    Args:
        affine: whether a scale and a shift per channel are learnt; PyTorch's default is not to.
    """
    # Group normalisation with a group for every channel (Wu, He 2018, section 3).
    norm = layers.GroupNormalization(
        groups=-1, epsilon=stack.norm_epsilon, center=affine, scale=affine, name=name
    )
    return norm(x)


def conv_in_leaky(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    slope: float,
    stack: Stack,
    name: str,
    affine: bool = False,
    **options,
) -> keras.KerasTensor:
    """Convolution, instance norm, leaky ReLU; `options` are those of `conv`.

    (N, H, W, C) -> (N, H, W, filters), likewise (N, X, Y, Z, C).
    """
    x = conv(x, filters, kernel_size, stack=stack, name=name, **options)
    x = instance_norm(x, stack=stack, name=f"{name}_in", affine=affine)
    return layers.LeakyReLU(slope, name=f"{name}_leaky")(x)


def require_more_than_one(
    input_shape: Sequence[int | None], stride: int, *, dimensions: int = 2
) -> None:
    """Check that maps `stride` times smaller than the input exist and have more than one voxel.

    The instance norm of a single one is 0, whatever it was; PyTorch refuses it as well.

    Args:
        input_shape: (H, W, C), or (X, Y, Z, C) where `dimensions` is 3; sizes may be None.

    Raises:
        ValueError: a size that `stride` does not divide, or one voxel; naming the next larger shape
            that fits.
    """
    *sizes, channels = input_shape
    if len(sizes) == dimensions and all(size is not None and size <= stride for size in sizes):
        fitting = (2 * stride, *[stride] * (dimensions - 1), channels)
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected sizes divisible by {stride} and "
            f"more than one voxel at 1/{stride} of them, for an instance norm makes 0 of one. The "
            f"next valid shape is {fitting}."
        )
    # One size at least is larger, so that its next multiple has two voxels or more.
    require_multiple(input_shape, stride, dimensions=dimensions)
