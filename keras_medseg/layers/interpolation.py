"""Resizing to a given size: linear interpolation, and averages over bins.

The number of sizes decides between two and three dimensions. keras.ops and UpSampling2D interpolate
between pixel centers. With align_corners=True, PyTorch and TensorFlow 1 map the outermost pixels
onto each other, which gives other values.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops


def resize_aligned(
    x: keras.KerasTensor, size: tuple[int, ...], *, name: str, dtype: str | None = None
) -> keras.KerasTensor:
    """Bi- or trilinear interpolation with align_corners=True.

    (N, H, W, C) -> (N, *size, C), likewise (N, X, Y, Z, C).
    """
    return Resize(size, "aligned_bilinear", name=name, dtype=dtype)(x)


def adaptive_average_pool(
    x: keras.KerasTensor, bins: tuple[int, int], *, name: str
) -> keras.KerasTensor:
    """Averages over `bins` windows, PyTorch's AdaptiveAvgPool2d. (N, H, W, C) -> (N, *bins, C)."""
    return Resize(bins, "average", name=name)(x)


def aligned_bilinear_matrix(inputs: int, outputs: int) -> np.ndarray:
    """(outputs, inputs) weights; output i reads position i * (inputs - 1) / (outputs - 1)."""
    position = np.linspace(0, inputs - 1, outputs)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(inputs)))


def bilinear_matrix(inputs: int, outputs: int) -> np.ndarray:
    """(outputs, inputs) weights; output i reads position (i + 0.5) * inputs / outputs - 0.5."""
    position = (np.arange(outputs) + 0.5) * inputs / outputs - 0.5
    position = np.clip(position, 0, inputs - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(inputs)))


def zero_padded_bilinear_matrix(inputs: int, outputs: int) -> np.ndarray:
    """As `bilinear_matrix`, but what would be read beyond the border is 0.

    It is the matrix of a transposed convolution with a fixed kernel, such as 1/4 3/4 3/4 1/4 of
    stride 2, and TensorFlow's "SAME" padding.
    """
    position = (np.arange(outputs) + 0.5) * inputs / outputs - 0.5
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(inputs)))


def average_matrix(inputs: int, outputs: int) -> np.ndarray:
    """(outputs, inputs) weights; bin i covers floor(i * n / bins) to ceil((i + 1) * n / bins)."""
    bins, pixel = np.arange(outputs)[:, None], np.arange(inputs)
    covered = (pixel >= bins * inputs // outputs) & (pixel < -(-(bins + 1) * inputs // outputs))
    return covered / covered.sum(axis=1, keepdims=True)


MATRICES = {
    "aligned_bilinear": aligned_bilinear_matrix,
    "bilinear": bilinear_matrix,
    "zero_padded_bilinear": zero_padded_bilinear_matrix,
    "average": average_matrix,
}


@keras.saving.register_keras_serializable(package="keras_medseg")
class Resize(layers.Layer):
    """Linear resampling of each axis by its own matrix, (N, H, W, C) -> (N, *size, C).

    Likewise (N, X, Y, Z, C).

    Args:
        size: of the output, one number for each axis.
        method: one of MATRICES; "bilinear" is between pixel centers as UpSampling2D does, which
            Keras lacks in three dimensions.
        options: those of keras.layers.Layer.
    """

    def __init__(self, size: tuple[int, ...], method: str, **options: Any) -> None:
        super().__init__(**options)
        self.size, self.method = tuple(size), method

    def build(self, input_shape: tuple[int, ...]) -> None:
        pairs = zip(input_shape[1:-1], self.size, strict=True)
        self._matrices = [MATRICES[self.method](old, new) for old, new in pairs]

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        axes = "xyz"[: len(self.size)]
        for axis, matrix in zip(axes, self._matrices):
            resized = axes.replace(axis, "r")
            matrix = ops.cast(matrix, self.compute_dtype)
            x = ops.einsum(f"r{axis},n{axes}c->n{resized}c", matrix, x)
        return x

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *self.size, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "method": self.method}
