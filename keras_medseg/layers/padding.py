"""Padding of (N, X, Y, Z, C) maps by values of their own, which Keras' layers do not have."""

import keras
from keras import layers, ops


def edge_padded(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """The border voxels once more on every side: a b c -> a a b c c.

    (N, X, Y, Z, C) -> (N, X + 2, Y + 2, Z + 2, C).
    """
    x = layers.Concatenate(1, name=f"{name}_x")([x[:, :1], x, x[:, -1:]])
    x = layers.Concatenate(2, name=f"{name}_y")([x[:, :, :1], x, x[:, :, -1:]])
    return layers.Concatenate(3, name=f"{name}_z")([x[:, :, :, :1], x, x[:, :, :, -1:]])


def reflected(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    """Padded by its mirror image without the border voxel: a b c -> c b a b c b a for width 2.

    Args:
        x: (N, X, Y, Z, C), every size known and larger than `width`.
        width: in voxels, on every side.

    Returns:
        (N, X + 2 width, Y + 2 width, Z + 2 width, C).
    """
    for axis in (1, 2, 3):
        last = x.shape[axis] - 1
        x = ops.take(x, [last - abs(last - abs(i)) for i in range(-width, last + width + 1)], axis)
    return x


def constant_padded(
    x: keras.KerasTensor, value: keras.KerasTensor, margins: list[tuple[int, int]]
) -> keras.KerasTensor:
    """Padded by a value of each sample and channel.

    Args:
        x: (N, X, Y, Z, C).
        value: (N, 1, 1, 1, C).
        margins: voxels before and after along x, y, z.

    Returns:
        (N, X + before + after, ..., C).
    """
    return ops.pad(x - value, [(0, 0), *margins, (0, 0)]) + value
