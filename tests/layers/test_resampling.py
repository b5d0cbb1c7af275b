"""Halving, doubling and valid sizes by hand."""

import keras
import numpy as np
import pytest

from keras_medseg import frameworks
from keras_medseg.layers.resampling import (
    DOWNSAMPLING,
    UPSAMPLING,
    down,
    max_pool,
    require_at_least,
    require_more_than_one,
    require_multiple,
    transposed_conv,
    up,
)

SQUARE = np.array([[1.0, 2.0], [3.0, 6.0]], "float32")[None, ..., None]


def _apply(block, x: np.ndarray) -> np.ndarray:
    image = keras.Input(x.shape[1:])
    return keras.ops.convert_to_numpy(keras.Model(image, block(image))(x))


@pytest.mark.parametrize(("kind", "expected"), [("max_pool", 6), ("average_pool", 3)])
def test_pools_by_hand(kind, expected):
    y = _apply(lambda x: down(x, kind, framework=frameworks.KERAS_2_2, name="down"), SQUARE)
    assert y.tolist() == [[[[expected]]]]


def test_nearest_by_hand():
    y = _apply(lambda x: up(x, "nearest", framework=frameworks.KERAS_2_2, name="up"), SQUARE)
    expected = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 6, 6], [3, 3, 6, 6]]
    assert y[0, ..., 0].tolist() == expected


def test_bilinear_by_hand():
    # Pixel centers (align_corners=False): 1, 0.75 * 1 + 0.25 * 2, 0.25 * 1 + 0.75 * 2, 2.
    row = np.array([[[[1.0], [2.0]]]], "float32")
    y = _apply(lambda x: up(x, "bilinear", framework=frameworks.KERAS_2_2, name="up"), row)
    np.testing.assert_allclose(y[0, :, :, 0], [[1, 1.25, 1.75, 2]] * 2, rtol=1e-6)


@pytest.mark.parametrize("kind", DOWNSAMPLING)
@pytest.mark.parametrize(
    "framework", frameworks.FRAMEWORKS.values(), ids=lambda framework: framework.name
)
def test_down_halves(kind, framework):
    x = np.ones((1, 6, 8, 3), "float32")
    assert _apply(lambda t: down(t, kind, framework=framework, name="down"), x).shape == (
        1,
        3,
        4,
        3,
    )


@pytest.mark.parametrize("kind", UPSAMPLING)
def test_up_doubles(kind):
    x = np.ones((1, 3, 4, 3), "float32")
    y = _apply(lambda t: up(t, kind, framework=frameworks.PYTORCH, name="up"), x)
    assert y.shape == (1, 6, 8, 3)


def test_three_dimensions_by_hand():
    x = np.arange(8, dtype="float32").reshape(1, 2, 2, 2, 1)
    for kind, expected in (("max_pool", 7), ("average_pool", 3.5)):
        y = _apply(lambda t, kind=kind: down(t, kind, framework=frameworks.PYTORCH, name="down"), x)
        assert np.ravel(y).tolist() == [expected]
    y = _apply(lambda t: up(t, "nearest", framework=frameworks.PYTORCH, name="up"), x)
    assert y.shape == (1, 4, 4, 4, 1)
    np.testing.assert_array_equal(y, x.repeat(2, 1).repeat(2, 2).repeat(2, 3))


@pytest.mark.parametrize("kind", DOWNSAMPLING)
@pytest.mark.parametrize(
    "framework", frameworks.FRAMEWORKS.values(), ids=lambda framework: framework.name
)
def test_down_halves_three_axes(kind, framework):
    x = np.ones((1, 6, 8, 4, 3), "float32")
    y = _apply(lambda t: down(t, kind, framework=framework, name="down"), x)
    assert y.shape == (1, 3, 4, 2, 3)


@pytest.mark.parametrize("kernel_size", [2, 3])
@pytest.mark.parametrize("size", [(3, 4), (3, 4, 5)])
def test_transposed_convolution_doubles(size, kernel_size):
    x = np.ones((1, *size, 3), "float32")

    def block(t):
        return transposed_conv(
            t, 7, framework=frameworks.PYTORCH, name="up", kernel_size=kernel_size
        )

    assert _apply(block, x).shape == (1, *(2 * n for n in size), 7)


def test_unknown_kinds_are_refused():
    image = keras.Input((4, 4, 1))
    with pytest.raises(ValueError, match="downsampling: found 'pool'"):
        down(image, "pool", framework=frameworks.PYTORCH, name="down")
    with pytest.raises(ValueError, match="upsampling: found 'cubic'"):
        up(image, "cubic", framework=frameworks.PYTORCH, name="up")
    with pytest.raises(ValueError, match="expected one of: nearest, transposed_conv"):
        up(keras.Input((4, 4, 4, 1)), "bilinear", framework=frameworks.PYTORCH, name="up")


@pytest.mark.parametrize("shape", [(32, 48, 1), (None, 16, 4), (None, None, 4)])
def test_multiples_and_open_sizes_pass(shape):
    require_multiple(shape, 16)


@pytest.mark.parametrize(
    ("shape", "valid"),
    [((33, 48, 1), (48, 48, 1)), ((0, 16, 4), (16, 16, 4)), ((None, 17, 4), (None, 32, 4))],
)
def test_other_sizes_name_the_next_valid_shape(shape, valid):
    with pytest.raises(ValueError, match="input_shape: found") as error:
        require_multiple(shape, 16)
    assert str(error.value).endswith(f"The next valid shape is {valid}.")


def test_sizes_of_three_axes():
    require_multiple((32, 48, 16, 4), 16, dimensions=3)
    require_multiple((None, 48, None, 4), 16, dimensions=3)
    with pytest.raises(ValueError, match="expected x, y and z divisible by 16") as error:
        require_multiple((32, 47, 1, 4), 16, dimensions=3)
    assert str(error.value).endswith("The next valid shape is (32, 48, 16, 4).")
    for shape, dimensions in (((32, 32, 4), 3), ((32, 32, 32, 4), 2)):
        with pytest.raises(ValueError, match="channels"):
            require_multiple(shape, 16, dimensions=dimensions)


def test_sizes_beyond_an_offset():
    require_multiple((188, 204, 1), 16, offset=188)
    with pytest.raises(ValueError, match="188 plus a multiple of 16") as error:
        require_multiple((187, 205, 1), 16, offset=188)
    assert str(error.value).endswith("The next valid shape is (188, 220, 1).")


@pytest.mark.parametrize("shape", [(32, 16, 16, 4), (16, 32, 4), (None, 16, 16, 4)])
def test_more_than_one_voxel_passes(shape):
    require_more_than_one(shape, 16, dimensions=len(shape) - 1)


@pytest.mark.parametrize(
    ("shape", "valid"),
    [
        ((16, 16, 4), (32, 16, 4)),
        ((1, 1, 1, 4), (32, 16, 16, 4)),
        ((16, 17, 4), (16, 32, 4)),
        ((17, 33, 20, 5), (32, 48, 32, 5)),
        ((None, 17, 4), (None, 32, 4)),
    ],
)
def test_one_voxel_is_refused_with_the_next_valid_shape(shape, valid):
    with pytest.raises(ValueError, match="next valid shape is") as error:
        require_more_than_one(shape, 16, dimensions=len(shape) - 1)
    assert str(error.value).endswith(f"next valid shape is {valid}.")
    require_more_than_one(valid, 16, dimensions=len(valid) - 1)


def test_one_voxel_of_another_rank_is_refused_for_its_rank():
    with pytest.raises(ValueError, match=r"expected \(x, y, z, channels\)"):
        require_more_than_one((16, 16, 4), 16, dimensions=3)


def test_least_sizes():
    require_at_least((9, None, 12, 4), 9, dimensions=3)
    message = r"found \(9, 8, None, 4\), expected x, y and z from 9 on.*\(9, 9, None, 4\)\.$"
    with pytest.raises(ValueError, match=message):
        require_at_least((9, 8, None, 4), 9, dimensions=3)
    with pytest.raises(ValueError, match=r"expected \(height, width, channels\)"):
        require_at_least((9, 9, 9, 4), 9)


def test_pool_of_another_stride():
    x = np.arange(6, dtype="float32").reshape(1, 6, 1, 1)
    y = _apply(lambda x: max_pool(x, (3, 1), strides=3, name="pool"), x)
    assert y.ravel().tolist() == [2, 5]
