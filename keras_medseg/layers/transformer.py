"""Building blocks of vision transformers on (N, H, W, C) maps.

Linear maps, layer norm and GELU act on each pixel; attention acts within windows; patches of a Swin
transformer (Liu et al. 2021, ICCV) are merged and expanded.
"""

from math import sqrt
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_medseg.frameworks import FrameworkDefaults


def dense(
    x: keras.KerasTensor,
    units: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    use_bias: bool = True,
) -> keras.KerasTensor:
    """Linear map of the channels, (..., C) -> (..., units)."""
    return layers.Dense(
        units,
        use_bias=use_bias,
        kernel_initializer=framework.kernel(x.shape[-1]),
        bias_initializer=framework.bias(x.shape[-1]),
        name=name,
    )(x)


def layer_norm(
    x: keras.KerasTensor, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """Layer normalization over the channels, with the framework's epsilon."""
    return layers.LayerNormalization(epsilon=framework.norm_epsilon, name=name)(x)


def gelu(x: keras.KerasTensor) -> keras.KerasTensor:
    """x times the cumulative distribution function of the normal distribution; exact.

    Keras' own GELU becomes 1 - erfc in TensorFlow, which ONNX does not have.
    """
    return x * (0.5 + 0.5 * ops.erf(x * sqrt(0.5)))


@keras.saving.register_keras_serializable(package="keras_medseg")
class WindowAttention(layers.Layer):
    """softmax(q k^T / sqrt(d) + B) v among the pixels of each window; Liu et al., equation (4).

    (N, H, W, 3C), the queries, keys and values of all heads, -> (N, H, W, C). H and W are
    multiples of `window`.

    Args:
        heads: number of heads, of C / heads channels each.
        window: height and width of a window in pixels.
        offset: pixels by which the windows are shifted. Windows that then combine parts of
            opposite borders keep these parts separate.
        options: those of keras.layers.Layer.
    """

    def __init__(self, heads: int, window: int, offset: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.heads, self.window, self.offset = heads, window, offset

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.relative_position_bias_table = self.add_weight(
            shape=((2 * self.window - 1) ** 2, self.heads),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="relative_position_bias_table",
        )
        self._index = relative_positions(self.window)
        self._mask = None
        if self.offset:
            self._mask = border_mask(input_shape[1:3], self.window, self.offset)

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        offset = (self.offset, self.offset)
        height, width, channels = x.shape[1:]
        if self.offset:
            x = ops.roll(x, (-self.offset, -self.offset), axis=(1, 2))
        windows = (height // self.window, width // self.window)
        x = self._attend(self._partition(x, windows))
        x = ops.reshape(x, (-1, *windows, self.window, self.window, channels // 3))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        x = ops.reshape(x, (-1, height, width, channels // 3))
        return ops.roll(x, offset, axis=(1, 2)) if self.offset else x

    def _partition(self, x: keras.KerasTensor, windows: tuple[int, int]) -> keras.KerasTensor:
        """(N, H, W, 3C) -> three maps (N, windows, heads, pixels, C / heads)."""
        side, depth = self.window, x.shape[-1] // 3 // self.heads
        x = ops.reshape(x, (-1, windows[0], side, windows[1], side, 3, self.heads, depth))
        x = ops.transpose(x, (5, 0, 1, 3, 6, 2, 4, 7))
        return ops.reshape(x, (3, -1, windows[0] * windows[1], self.heads, side**2, depth))

    def _attend(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        """(3, N, windows, heads, pixels, d) -> (N * windows, pixels, heads * d)."""
        pixels, depth = maps.shape[-2:]
        queries, keys, values = maps[0] * depth**-0.5, maps[1], maps[2]
        logits = ops.matmul(queries, ops.swapaxes(keys, -1, -2))
        bias = ops.take(self.relative_position_bias_table, self._index.ravel(), axis=0)
        bias = ops.transpose(ops.reshape(bias, (pixels, pixels, self.heads)), (2, 0, 1))
        logits = logits + ops.cast(bias, logits.dtype)
        if self._mask is not None:
            logits = logits + ops.cast(self._mask[:, None], logits.dtype)
        x = ops.matmul(ops.softmax(logits, axis=-1), values)
        return ops.reshape(ops.swapaxes(x, -2, -3), (-1, pixels, self.heads * depth))

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*input_shape[:3], input_shape[3] // 3)

    def get_config(self) -> dict[str, Any]:
        own = {"heads": self.heads, "window": self.window, "offset": self.offset}
        return {**super().get_config(), **own}


def relative_positions(window: int) -> np.ndarray:
    """(pixels, pixels) row of the bias table for each query and key of a window.

    Offsets (query - key) along H and W count from -(window - 1); the table runs along W first.
    """
    place = np.stack(np.divmod(np.arange(window**2), window))
    difference = place[:, :, None] - place[:, None, :] + window - 1
    return difference[0] * (2 * window - 1) + difference[1]


def border_mask(size: tuple[int, ...], window: int, offset: int) -> np.ndarray:
    """(windows, pixels, pixels): -100 between pixels that are neighbors only by the cyclic shift.

    Args:
        size: (H, W) of the map.
        window: height and width of a window in pixels.
        offset: of the cyclic shift in pixels.
    """
    regions = [
        np.digitize(np.arange(length), [length - window, length - offset]) for length in size
    ]
    region = 3 * regions[0][:, None] + regions[1]
    region = region.reshape(size[0] // window, window, size[1] // window, window)
    region = region.swapaxes(1, 2).reshape(-1, window**2)
    return np.where(region[:, :, None] == region[:, None, :], 0.0, -100.0)


def merge_patches(
    x: keras.KerasTensor, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """Four neighbors concatenated, norm, linear; (N, H, W, C) -> (N, H / 2, W / 2, 2C).

    Order of the neighbors: upper left, lower left, upper right, lower right.
    """
    height, width, channels = x.shape[1:]
    x = ops.reshape(x, (-1, height // 2, 2, width // 2, 2, channels))
    x = ops.transpose(x, (0, 1, 3, 4, 2, 5))
    x = ops.reshape(x, (-1, height // 2, width // 2, 4 * channels))
    x = layer_norm(x, framework=framework, name=f"{name}_norm")
    return dense(x, 2 * channels, framework=framework, name=f"{name}_reduction", use_bias=False)


def expand_patches(
    x: keras.KerasTensor, factor: int, filters: int, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """Linear, one pixel to factor x factor, norm; (N, H, W, C) -> (N, factor H, factor W, filters).

    Cao et al. 2022 (Swin-Unet), section 3.4; channels are split into (row, column, filters).
    """
    height, width = x.shape[1:3]
    x = dense(x, factor**2 * filters, framework=framework, name=f"{name}_expand", use_bias=False)
    x = ops.reshape(x, (-1, height, width, factor, factor, filters))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    x = ops.reshape(x, (-1, factor * height, factor * width, filters))
    return layer_norm(x, framework=framework, name=f"{name}_norm")
