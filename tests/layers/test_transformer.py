"""Window attention pixel by pixel; patches by hand; GELU by the standard library."""

from itertools import product
from statistics import NormalDist

import keras
import numpy as np
import pytest

from keras_medseg import frameworks
from keras_medseg.layers.transformer import (
    WindowAttention,
    border_mask,
    expand_patches,
    gelu,
    merge_patches,
    relative_positions,
)


def test_relative_positions_of_two_by_two_pixels():
    # (dy + 1) * 3 + dx + 1 for pixels (0, 0), (0, 1), (1, 0), (1, 1).
    assert relative_positions(2).tolist() == [
        [4, 3, 1, 0],
        [5, 4, 2, 1],
        [7, 6, 4, 3],
        [8, 7, 5, 4],
    ]


def test_mask_parts_what_the_shift_brought_together():
    # 4x4 pixels moved by 1: row 3 was row 0, so the lower windows mix rows 3 and 0.
    upper_left, upper_right, lower_left, lower_right = border_mask((4, 4), 2, 1) < 0
    assert not upper_left.any()
    columns = [[False, True, False, True], [True, False, True, False]] * 2
    assert upper_right.tolist() == columns
    assert (
        lower_left.tolist() == [[False, False, True, True]] * 2 + [[True, True, False, False]] * 2
    )
    assert (lower_right == ~np.eye(4, dtype=bool)).all()


def _by_pixel(x: np.ndarray, table: np.ndarray, window: int, offset: int) -> np.ndarray:
    """Attention of each pixel (H, W, 3, heads, d) to those of its window, without wrapping."""
    height, width, _, heads, depth = x.shape
    y = np.zeros((height, width, heads, depth))
    pixels = list(product(range(height), range(width)))

    def place(pixel):
        return [((p - offset) // window, (p - offset) % window) for p in pixel]

    for query, head in product(pixels, range(heads)):
        weights, values = [], []
        for key in pixels:
            (row, dy), (column, dx) = place(query)
            (key_row, key_dy), (key_column, key_dx) = place(key)
            if (row, column) == (key_row, key_column):
                index = (dy - key_dy + window - 1) * (2 * window - 1) + dx - key_dx + window - 1
                logit = x[query][0, head] @ x[key][1, head] / np.sqrt(depth) + table[index, head]
                weights.append(np.exp(logit))
                values.append(x[key][2, head])
        y[query][head] = np.array(weights) @ values / np.sum(weights)
    return y


@pytest.mark.parametrize(
    ("window", "offset", "size"), [(2, 0, (4, 2)), (2, 1, (4, 6)), (3, 1, (6, 3))]
)
def test_attention_is_that_of_each_pixel_to_its_window(window, offset, size):
    generator = np.random.default_rng(0)
    heads, depth = 2, 3
    x = generator.standard_normal((2, *size, 3, heads, depth))
    layer = WindowAttention(heads, window, offset)
    flat = np.float32(x.reshape(2, *size, -1))
    layer.build(flat.shape)
    table = generator.standard_normal(((2 * window - 1) ** 2, heads))
    layer.set_weights([table])
    y = keras.ops.convert_to_numpy(layer(flat)).reshape(2, *size, heads, depth)
    for ours, image in zip(y, x):
        np.testing.assert_allclose(ours, _by_pixel(image, table, window, offset), atol=1e-5)


def test_merged_neighbors_are_in_the_authors_order():
    # Upper left 1, lower left 2, upper right 3, lower right 4: (-3, -1, 1, 3) / sqrt(5) normalized.
    image = keras.Input((2, 2, 1))
    merged = merge_patches(image, framework=frameworks.PYTORCH, name="merge")
    model = keras.Model(image, merged)
    model.get_layer("merge_reduction").set_weights([np.eye(4)[:, 1:3]])
    y = keras.ops.convert_to_numpy(model(np.float32([[[[1], [3]], [[2], [4]]]])))
    np.testing.assert_allclose(y, np.array([[[[-1, 1]]]]) / np.sqrt(5), atol=1e-5)


def test_expanded_pixel_is_filled_row_by_row():
    # Two channels per pixel, (1, 0) or (0, 1); normalized to (1, -1) or (-1, 1).
    image = keras.Input((1, 1, 1))
    model = keras.Model(
        image, expand_patches(image, 2, 2, framework=frameworks.PYTORCH, name="expand")
    )
    model.get_layer("expand_expand").set_weights([np.array([[1, 0, 0, 1, 0, 1, 0, 1]])])
    y = keras.ops.convert_to_numpy(model(np.ones((1, 1, 1, 1), "float32")))
    np.testing.assert_allclose(y[0, ..., 0], [[1, -1], [-1, -1]], atol=1e-4)


def test_gelu_is_the_exact_one():
    x = np.linspace(-6, 6, 49, dtype="float32")
    expected = [value * NormalDist().cdf(value) for value in x.tolist()]
    # The approximation by tanh is off by up to 5e-4.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(gelu(x)), expected, atol=2e-6)
