"""Liu et al. 2019: ResUNet with a dilated center."""

import keras
import numpy as np
import pytest

from keras_medseg import frameworks, registry
from keras_medseg.models.dresunet import dilated_center


def test_parameters_are_those_of_resunet_and_of_the_center():
    # Four times a norm (4 per channel) and a 3x3 convolution of 512 channels.
    center = 4 * (4 * 512 + 9 * 512**2 + 512)
    model = registry.build("dresunet")
    assert model.count_params() == registry.card("resunet").parameters + center
    layers = [model.get_layer(f"Centre{number}") for number in (1, 2, 3, 4)]
    assert [layer.dilation_rate[0] for layer in layers] == [1, 2, 4, 8]
    assert model.get_layer("Centre_add").output.shape[1:] == (28, 28, 512)


def test_without_a_center_it_is_resunet():
    options = {"input_shape": (16, 24, 3), "filters": 4}
    plain = registry.build("resunet", **options)
    model = registry.build("dresunet", rates=(), **options)
    model.set_weights(plain.get_weights())
    x = np.random.default_rng(0).standard_normal((2, 16, 24, 3), "float32")
    np.testing.assert_array_equal(model(x, training=False), plain(x, training=False))


def test_center_by_hand():
    """All weights 1, fresh norms: from 1 at one of 41 pixels, rates 1, 2, 4, 8 reach 1 + 2 + 4 + 8
    = 15 to each side. Each 3-fold sum along a row triples the total: 1 + 3 + 9 + 27 + 81."""
    image = keras.Input((1, 41, 1))
    model = keras.Model(image, dilated_center(image, (1, 2, 4, 8), framework=frameworks.KERAS_2_2))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([np.ones((3, 3, 1, 1)), np.zeros(1)])
    x = np.zeros((1, 1, 41, 1), "float32")
    x[0, 0, 20, 0] = 1
    y = keras.ops.convert_to_numpy(model(x, training=False)).ravel()
    assert np.flatnonzero(y).tolist() == list(range(20 - 15, 20 + 15 + 1))
    assert y.sum() == pytest.approx(1 + 3 + 9 + 27 + 81, rel=3e-3)  # a fresh norm: 1 / sqrt(1.001)


def test_a_rate_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"rates: found \(1, 0\)"):
        registry.build("dresunet", rates=(1, 0))
