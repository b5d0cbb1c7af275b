"""Aligned corners and averages over bins, by hand."""

import keras
import numpy as np
import pytest
from scipy.ndimage import zoom

from keras_medseg.layers.interpolation import (
    adaptive_average_pool,
    aligned_bilinear_matrix,
    average_matrix,
    bilinear_matrix,
    resize_aligned,
    zero_padded_bilinear_matrix,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], [1, 1.5, 2]),
        ([0, 2, 6], [0, 1, 2, 4, 6]),
        ([0, 3, 6, 12], [0, 12]),
        ([5], [5, 5, 5]),
        # A single output reads the first pixel, as in PyTorch.
        ([4, 8], [4]),
    ],
)
def test_corners_stay_where_they_are(values, expected):
    matrix = aligned_bilinear_matrix(len(values), len(expected))
    np.testing.assert_allclose(matrix @ values, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # Read at -1/4, 1/4, 3/4, 5/4 from the first center; outside, the border's value goes on.
        ([0, 4], [0, 1, 3, 4]),
        # At -1/6, 1/2, 7/6.
        ([0, 6], [0, 3, 6]),
        ([5], [5, 5, 5]),
    ],
)
def test_pixel_centers_stay_where_they_are(values, expected):
    matrix = bilinear_matrix(len(values), len(expected))
    np.testing.assert_allclose(matrix @ values, expected, rtol=1e-12)


def test_zeros_beyond_the_border():
    # Read at -1/4, 1/4, 3/4, 5/4 from the first center; a quarter of the first and last is outside.
    np.testing.assert_allclose(zero_padded_bilinear_matrix(2, 4) @ [4, 8], [3, 5, 7, 6])
    # By three: 1 - 1/3, 1, and 2/3 of 3 with 1/3 of the next, 6.
    np.testing.assert_allclose(zero_padded_bilinear_matrix(2, 6) @ [3, 6], [2, 3, 4, 5, 6, 4])


def test_bins_overlap_where_they_do_not_divide_the_size():
    # Three pixels, two bins: floor(0) to ceil(1.5), floor(1.5) to ceil(3).
    assert average_matrix(3, 2).tolist() == [[0.5, 0.5, 0], [0, 0.5, 0.5]]
    # Three pixels, six bins: each pixel twice.
    assert average_matrix(3, 6).argmax(axis=1).tolist() == [0, 0, 1, 1, 2, 2]
    assert average_matrix(4, 1).tolist() == [[0.25] * 4]


def test_three_axes_agree_with_scipy():
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 5, 2), "float32")
    image = keras.Input((3, 4, 5, 2))
    model = keras.Model(image, resize_aligned(image, (6, 9, 4), name="resize"))
    # Order 1 with the corners on each other.
    expected = zoom(x, (1, 2, 9 / 4, 4 / 5, 1), order=1)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), expected, atol=1e-6)


def test_as_many_sizes_as_axes():
    with pytest.raises(ValueError, match="shorter"):
        resize_aligned(keras.Input((3, 4, 5, 2)), (6, 9), name="resize")


def test_both_axes():
    x = np.array([[1.0, 3.0], [5.0, 11.0]], "float32")[None, ..., None]
    image = keras.Input((2, 2, 1))
    outputs = [
        resize_aligned(image, (3, 2), name="resize"),
        adaptive_average_pool(image, (1, 2), name="pool"),
    ]
    resized, pooled = (
        keras.ops.convert_to_numpy(y)[0, ..., 0] for y in keras.Model(image, outputs)(x)
    )
    assert resized.tolist() == [[1, 3], [3, 7], [5, 11]]
    assert pooled.tolist() == [[3, 7]]
