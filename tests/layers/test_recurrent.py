"""Recurrent convolutions by hand."""

import keras
import numpy as np
import pytest

from keras_medseg import frameworks
from keras_medseg.layers.recurrent import recurrent_conv, recurrent_residual


def _halve(model: keras.Model, unit: str) -> None:
    """Make f of this unit the ReLU of half its input: only the kernel's center, no shift."""
    kernel, bias = np.zeros((3, 3, 1, 1)), np.zeros(1)
    kernel[1, 1] = 0.5
    model.get_layer(f"{unit}_conv").set_weights([kernel, bias])
    norm = model.get_layer(f"{unit}_conv_bn")
    norm.set_weights([np.ones(1), np.zeros(1), np.zeros(1), np.ones(1) - norm.epsilon])


# From x = 8: 8/2 = 4; then (8 + 4)/2 = 6; (8 + 6)/2 = 7.
@pytest.mark.parametrize(("t", "expected"), [(0, 4), (1, 6), (2, 7)])
def test_one_convolution_is_applied_t_plus_one_times(t, expected):
    image = keras.Input((1, 1, 1))
    model = keras.Model(image, recurrent_conv(image, t, framework=frameworks.PYTORCH, name="unit"))
    # 9 weights, a bias, and gamma, beta, mean and variance, whatever t.
    assert model.count_params() == 9 + 1 + 4
    _halve(model, "unit")
    y = model(np.array([8, -8], "float32").reshape(2, 1, 1, 1), training=False)
    np.testing.assert_allclose(np.ravel(y), [expected, 0], rtol=1e-5)


def test_residual_block_by_hand():
    # The shortcut doubles 4 to 8; the units give (8 + 4)/2 = 6 and (6 + 3)/2 = 4.5; 8 + 4.5.
    image = keras.Input((1, 1, 1))
    block = recurrent_residual(image, 1, 1, framework=frameworks.PYTORCH, name="block")
    model = keras.Model(image, block)
    model.get_layer("block_shortcut").set_weights([np.full((1, 1, 1, 1), 2.0), np.zeros(1)])
    _halve(model, "block_unit1")
    _halve(model, "block_unit2")
    y = model(np.full((1, 1, 1, 1), 4, "float32"), training=False)
    np.testing.assert_allclose(np.ravel(y), [12.5], rtol=1e-5)


def test_negative_t_is_refused():
    with pytest.raises(ValueError, match="t: found -1, expected 0 or more"):
        recurrent_conv(keras.Input((2, 2, 1)), -1, framework=frameworks.PYTORCH, name="unit")
