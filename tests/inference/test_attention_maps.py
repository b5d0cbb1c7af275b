"""Attention maps of networks whose weights are known."""

import keras
import numpy as np
import pytest

from keras_medseg import registry
from keras_medseg.inference.attention_maps import attention_maps

SIZE = (32, 64)


def _build(name: str, **options) -> keras.Model:
    keras.utils.set_random_seed(0)
    channels = registry.card(name).input_shape[-1]
    return registry.build(name, input_shape=(*SIZE, channels), filters=4, **options)


def _image(model: keras.Model) -> np.ndarray:
    return np.random.default_rng(0).random(model.input_shape[1:], "float32")


@pytest.mark.parametrize(
    ("name", "options", "places"),
    [
        ("res_csam_unet", {}, ["Skip1_CSAM", "Skip2_CSAM", "Skip3_CSAM", "Skip4_CSAM"]),
        (
            "res_csam_unet",
            {"csam_place": "decoder", "variant": "literal"},
            ["Decode4_CSAM", "Decode3_CSAM", "Decode2_CSAM", "Decode1_CSAM"],
        ),
        ("integrated_attention_cnn", {}, ["SFA", "SA5", "CA5", "SA4", "CA4", "SA3", "CA3"]),
        (
            "integrated_attention_cnn",
            {"sfa_place": "stages", "attention_place": "none"},
            ["SFA1", "SFA2", "SFA3", "SFA4", "SFA5"],
        ),
        ("residual_attention_unet", {}, ["CBAM6", "CBAM7", "CBAM8", "CBAM9"]),
        ("attention_unet", {}, ["Gate5", "Gate4", "Gate3", "Gate2"]),
        ("mtds_r2unet", {}, ["APR1", "APR2", "APR3", "APR4"]),
    ],
)
def test_every_module_has_a_map_of_the_images_size(name, options, places):
    model = _build(name, **options)
    maps = attention_maps(model, _image(model))
    assert sorted(maps) == sorted(places)
    for values in maps.values():
        assert values.shape == SIZE
        assert np.isfinite(values).all()
        assert values.min() >= 0


def test_weights_of_csam_by_hand():
    # A kernel of zeros leaves sigmoid(0) everywhere; one whose centre takes the mean over the
    # channels ten times leaves sigmoid(10 mean).
    model = _build("res_csam_unet")
    kernels = {level: np.zeros((7, 7, 2, 1)) for level in (1, 2)}
    kernels[2][3, 3, 1] = 10
    for level, kernel in kernels.items():
        model.get_layer(f"Skip{level}_CSAM_spatial_conv").set_weights([kernel])
    maps = attention_maps(model, _image(model))
    np.testing.assert_allclose(maps["Skip1_CSAM"], np.full(SIZE, 0.5))
    pooled = keras.Model(model.input, model.get_layer("Skip2_CSAM_spatial_pool").output)
    mean = keras.ops.convert_to_numpy(pooled(_image(model)[None]))[0, ..., 1]
    expected = 1 / (1 + np.exp(-10 * mean))
    np.testing.assert_allclose(maps["Skip2_CSAM"][::2, ::2], expected, rtol=1e-5)


def test_values_of_a_small_map_are_repeated():
    model = _build("res_csam_unet")
    values = attention_maps(model, _image(model))["Skip4_CSAM"]
    small = values[::8, ::8]
    assert len(np.unique(small)) > 1
    np.testing.assert_array_equal(values, np.kron(small, np.ones((8, 8))))


def test_the_finest_maps_come_first():
    model = _build("res_csam_unet")
    assert [*attention_maps(model, _image(model))] == [f"Skip{n}_CSAM" for n in (1, 2, 3, 4)]


def test_ca_shows_what_it_adds():
    # Without its second layer the MLP gives 0, so beta is 1/2: half of every channel is added.
    model = _build("integrated_attention_cnn")
    expand = model.get_layer("CA3_expand")
    expand.set_weights([np.zeros_like(values) for values in expand.get_weights()])
    maps = attention_maps(model, _image(model))
    added = keras.Model(model.input, model.get_layer("SA3").output)
    x = keras.ops.convert_to_numpy(added(_image(model)[None], training=False))[0]
    np.testing.assert_allclose(maps["CA3"][::4, ::4], np.abs(x / 2).mean(-1), rtol=1e-5)


@pytest.mark.parametrize("reading", ["positions", "channels", "rows"])
def test_sa_shows_output_minus_input(reading):
    model = _build("integrated_attention_cnn", spatial_reading=reading)
    tensors = [model.get_layer(name).output for name in ("Encode4_conv2_relu", "SA4")]
    before, after = keras.Model(model.input, tensors)(_image(model)[None], training=False)
    added = keras.ops.convert_to_numpy(after - before)[0]
    found = attention_maps(model, _image(model))["SA4"][::8, ::8]
    np.testing.assert_allclose(found, np.abs(added).mean(-1), rtol=1e-4, atol=1e-6)


def test_sfa_shows_its_output():
    model = _build("integrated_attention_cnn")
    inner = keras.Model(model.input, model.get_layer("SFA").output)
    y = keras.ops.convert_to_numpy(inner(_image(model)[None], training=False))[0]
    found = attention_maps(model, _image(model))["SFA"][::32, ::32]
    np.testing.assert_allclose(found, np.abs(y).mean(-1), rtol=1e-5)


def test_a_network_without_attention_is_refused():
    model = _build("unet")
    with pytest.raises(ValueError, match="found no attention module in unet, expected"):
        attention_maps(model, _image(model))
