"""Self-attention within windows, and the patches of Swin Transformers (Liu et al. 2021, ICCV)."""

import keras
import numpy as np
from keras import layers, ops

from keras_medseg.frameworks import Stack
from keras_medseg.layers.tokens import dense, layer_norm


@keras.saving.register_keras_serializable(package="keras_medseg")
class WindowAttention(layers.Layer):
    """softmax(q k^T / sqrt(d) + B) v among the pixels of each window; Liu et al., equation (4).

    (N, H, W, 3C), the queries, keys and values of all heads, -> (N, H, W, C). H and W are
    multiples of `window`.

    Args:
        heads: number of heads, of C / heads channels each.
        window: height and width of a window in pixels.
        offset: pixels by which the windows are shifted; windows that then hold parts of opposite
            borders keep these apart.
    """

    def __init__(self, heads: int, window: int, offset: int = 0, **options):
        super().__init__(**options)
        self.heads, self.window, self.offset = heads, window, offset

    def build(self, input_shape):
        self.relative_position_bias_table = self.add_weight(
            shape=((2 * self.window - 1) ** 2, self.heads),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="relative_position_bias_table",
        )
        self._index = relative_positions(self.window)
        self._mask = None
        if self.offset:
            self._mask = border_mask(input_shape[1:3], self.window, self.offset)

    def call(self, x):
        offset = (self.offset, self.offset)
        height, width, channels = x.shape[1:]
        if self.offset:
            x = ops.roll(x, (-self.offset, -self.offset), axis=(1, 2))
        windows = (height // self.window, width // self.window)
        x = self._attend(self._partition(x, windows), windows)
        x = ops.reshape(x, (-1, *windows, self.window, self.window, channels // 3))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        x = ops.reshape(x, (-1, height, width, channels // 3))
        return ops.roll(x, offset, axis=(1, 2)) if self.offset else x

    def _partition(self, x, windows):
        """(N, H, W, 3C) -> three maps (N, windows, heads, pixels, C / heads)."""
        side, depth = self.window, x.shape[-1] // 3 // self.heads
        x = ops.reshape(x, (-1, windows[0], side, windows[1], side, 3, self.heads, depth))
        x = ops.transpose(x, (5, 0, 1, 3, 6, 2, 4, 7))
        return ops.reshape(x, (3, -1, windows[0] * windows[1], self.heads, side**2, depth))

    def _attend(self, maps, windows):
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

    def compute_output_shape(self, input_shape):
        return (*input_shape[:3], input_shape[3] // 3)

    def get_config(self):
        shape = {"heads": self.heads, "window": self.window, "offset": self.offset}
        return {**super().get_config(), **shape}


def relative_positions(window: int) -> np.ndarray:
    """(pixels, pixels) row of the bias table for each query and key of a window.

    Offsets (query - key) along H and W count from -(window - 1); the table runs along W first.
    """
    place = np.stack(np.divmod(np.arange(window**2), window))
    difference = place[:, :, None] - place[:, None, :] + window - 1
    return difference[0] * (2 * window - 1) + difference[1]


def border_mask(size: tuple[int, int], window: int, offset: int) -> np.ndarray:
    """(windows, pixels, pixels): -100 between pixels that only the cyclic shift made neighbours."""
    regions = [
        np.digitize(np.arange(length), [length - window, length - offset]) for length in size
    ]
    region = 3 * regions[0][:, None] + regions[1]
    region = region.reshape(size[0] // window, window, size[1] // window, window)
    region = region.swapaxes(1, 2).reshape(-1, window**2)
    return np.where(region[:, :, None] == region[:, None, :], 0.0, -100.0)


def merge_patches(x: keras.KerasTensor, *, stack: Stack, name: str) -> keras.KerasTensor:
    """Four neighbours side by side, norm, linear; (N, H, W, C) -> (N, H / 2, W / 2, 2C).

    Order of the neighbours: upper left, lower left, upper right, lower right.
    """
    height, width, channels = x.shape[1:]
    x = ops.reshape(x, (-1, height // 2, 2, width // 2, 2, channels))
    x = ops.transpose(x, (0, 1, 3, 4, 2, 5))
    x = ops.reshape(x, (-1, height // 2, width // 2, 4 * channels))
    x = layer_norm(x, stack=stack, name=f"{name}_norm")
    return dense(x, 2 * channels, stack=stack, name=f"{name}_reduction", use_bias=False)


def expand_patches(
    x: keras.KerasTensor, factor: int, filters: int, *, stack: Stack, name: str
) -> keras.KerasTensor:
    """Linear, one pixel to factor x factor, norm; (N, H, W, C) -> (N, factor H, factor W, filters).

    Cao et al. 2022 (Swin-Unet), section 3.4; channels are split into (row, column, filters).
    """
    height, width = x.shape[1:3]
    x = dense(x, factor**2 * filters, stack=stack, name=f"{name}_expand", use_bias=False)
    x = ops.reshape(x, (-1, height, width, factor, factor, filters))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    x = ops.reshape(x, (-1, factor * height, factor * width, filters))
    return layer_norm(x, stack=stack, name=f"{name}_norm")
