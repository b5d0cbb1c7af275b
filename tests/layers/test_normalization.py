"""Instance normalization by hand."""

import keras
import numpy as np
import pytest

from keras_medseg import frameworks
from keras_medseg.layers.normalization import instance_norm


@pytest.fixture(autouse=True)
def _float32():
    yield
    keras.config.set_dtype_policy("float32")


def model_of(block, shape: tuple[int | None, ...]) -> keras.Model:
    image = keras.Input(shape)
    return keras.Model(image, block(image))


def norm(x, **options):
    return instance_norm(x, framework=frameworks.PYTORCH, name="norm", **options)


def apply(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x, training=True))


@pytest.mark.parametrize("shape", [(2, 2, 1), (2, 1, 2, 1), (4, 1, 1, 1)])
def test_over_all_axes_of_one_channel(shape):
    # Mean 2, variance (4 + 0 + 0 + 4) / 4 = 2.
    x = np.float32([0, 2, 2, 4]).reshape(1, *shape)
    expected = np.array([-2, 0, 0, 2]) / np.sqrt(2 + 1e-5)
    np.testing.assert_allclose(np.ravel(apply(model_of(norm, shape), x)), expected, rtol=1e-6)


def test_samples_and_channels_do_not_mix():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 2), "float32")
    x *= np.float32([[1, 10], [100, 1000]])[:, None, None, None]
    y = apply(model_of(norm, (3, 4, 5, 2)), x)
    np.testing.assert_allclose(y.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=(1, 2, 3)), 1, rtol=1e-4)


def test_inference_is_the_same_as_training():
    model = model_of(norm, (4, 4, 2))
    x = np.random.default_rng(0).standard_normal((3, 4, 4, 2), "float32")
    alone = keras.ops.convert_to_numpy(model(x[1:2], training=False))
    np.testing.assert_allclose(alone, apply(model, x)[1:2], atol=1e-6)
    assert model.weights == []


def test_scale_and_shift_of_each_channel():
    model = model_of(lambda x: norm(x, affine=True), (2, 1, 2))
    model.get_layer("norm").set_weights([np.array([1.0, 3.0]), np.array([0.0, 5.0])])
    # Both channels become -1 and 1.
    x = np.float32([[1000, 2], [3000, 6]]).reshape(1, 2, 1, 2)
    np.testing.assert_allclose(
        apply(model, x)[0, :, 0], [[-1, -1 * 3 + 5], [1, 1 * 3 + 5]], rtol=1e-5
    )


def test_statistics_are_float32_where_the_rest_is_not():
    keras.config.set_dtype_policy("mixed_float16")
    model = model_of(norm, (64, 64, 64, 1))
    # In float16 neither the sum, 26 million, nor the squares, 40,000 each, can be held exactly.
    x = np.full((1, 64, 64, 64, 1), 100, "float16")
    x[:, ::2] += 200
    y = apply(model, x)
    assert y.dtype == np.float16
    assert set(np.unique(y)) == {-1.0, 1.0}


def test_sizes_may_be_open():
    model = model_of(norm, (None, None, None, 1))
    x = np.float32([0, 2, 2, 4]).reshape(1, 1, 2, 2, 1)
    assert np.ravel(apply(model, x))[0] == pytest.approx(-2 / np.sqrt(2), rel=1e-5)
