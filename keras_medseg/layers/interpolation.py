"""Resizing to a given size: bilinear with aligned corners, and averages over bins.

keras.ops and UpSampling2D interpolate between pixel centres. With align_corners=True, PyTorch and
TensorFlow 1 map the outermost pixels onto each other, which is another result.
"""

import keras
import numpy as np
from keras import layers, ops


def resize_aligned(
    x: keras.KerasTensor, size: tuple[int, int], *, name: str, dtype: str | None = None
) -> keras.KerasTensor:
    """Bilinear interpolation with align_corners=True, (N, H, W, C) -> (N, *size, C)."""
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


def average_matrix(inputs: int, outputs: int) -> np.ndarray:
    """(outputs, inputs) weights; bin i covers floor(i * n / bins) to ceil((i + 1) * n / bins)."""
    bins, pixel = np.arange(outputs)[:, None], np.arange(inputs)
    covered = (pixel >= bins * inputs // outputs) & (pixel < -(-(bins + 1) * inputs // outputs))
    return covered / covered.sum(axis=1, keepdims=True)


MATRICES = {"aligned_bilinear": aligned_bilinear_matrix, "average": average_matrix}


@keras.saving.register_keras_serializable(package="keras_medseg")
class Resize(layers.Layer):
    """Linear resampling of H and W by one matrix each, (N, H, W, C) -> (N, *size, C).

    Args:
        size: height and width of the output.
        method: "aligned_bilinear" or "average".
    """

    def __init__(self, size: tuple[int, int], method: str, **options):
        super().__init__(**options)
        self.size, self.method = tuple(size), method

    def build(self, input_shape):
        pairs = zip(input_shape[1:3], self.size)
        self._matrices = [MATRICES[self.method](old, new) for old, new in pairs]

    def call(self, x):
        along_h, along_w = (ops.cast(matrix, self.compute_dtype) for matrix in self._matrices)
        x = ops.einsum("ah,nhwc->nawc", along_h, x)
        return ops.einsum("bw,nawc->nabc", along_w, x)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.size, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "size": self.size, "method": self.method}
