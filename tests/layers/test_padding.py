"""Padding against NumPy."""

import keras
import numpy as np
import pytest

from keras_medseg.layers.padding import constant_padded, edge_padded, reflected

X = np.random.default_rng(0).standard_normal((2, 5, 3, 4, 2)).astype("float32")


def _apply(block, *x: np.ndarray) -> np.ndarray:
    inputs = [keras.Input(value.shape[1:]) for value in x]
    return keras.ops.convert_to_numpy(keras.Model(inputs, block(*inputs))(list(x)))


def _around(width: int) -> list[tuple[int, int]]:
    return [(0, 0), *[(width, width)] * 3, (0, 0)]


def test_border_voxels_are_repeated():
    found = _apply(lambda x: edge_padded(x, name="pad"), X)
    np.testing.assert_array_equal(found, np.pad(X, _around(1), mode="edge"))


@pytest.mark.parametrize("width", [1, 2])
def test_reflection_leaves_the_border_voxel_out(width):
    found = _apply(lambda x: reflected(x, width), X)
    np.testing.assert_array_equal(found, np.pad(X, _around(width), mode="reflect"))


def test_value_of_each_sample_and_channel():
    value = X[:, :1, :1, :1] + 1
    found = _apply(lambda x, v: constant_padded(x, v, [(1, 2), (0, 1), (3, 0)]), X, value)
    assert found.shape == (2, 8, 4, 7, 2)
    np.testing.assert_allclose(found[:, 1:6, :3, 3:], X, atol=1e-6)
    outside = np.ones(found.shape, bool)
    outside[:, 1:6, :3, 3:] = False
    expected = np.broadcast_to(value, found.shape)
    np.testing.assert_allclose(found[outside], expected[outside], atol=1e-6)
