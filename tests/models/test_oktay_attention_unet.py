"""Oktay et al. 2018: the counts of the authors' code, and where its gates look."""

import math

import keras
import numpy as np
import pytest

from keras_medseg import registry

NAME = "oktay_attention_unet"


@pytest.mark.parametrize(
    ("gates", "parameters"), [("multi", 6_473_322), ("single", 6_214_151), ("none", 5_888_004)]
)
def test_parameters_of_the_code(gates, parameters):
    model = registry.build(NAME, gates=gates)
    assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == parameters
    assert model.output_shape == (None, 160, 160, 96, 4)


def test_each_gate_sees_the_level_below():
    model = registry.build(NAME, filters=2, input_shape=(32, 16, 48, 1))
    signals = {4: "Gating_relu", 3: "Decode4_conv2_relu", 2: "Decode3_conv2_relu"}
    for level, source in signals.items():
        for number in (1, 2):
            phi = model.get_layer(f"Gate{level}_{number}_phi")
            theta = model.get_layer(f"Gate{level}_{number}_theta")
            assert phi.input is model.get_layer(source).output
            assert theta.input is model.get_layer(f"Encode{level}_conv2_relu").output
            assert phi.output.shape == theta.output.shape
    names = {layer.name for layer in model.layers}
    assert not [name for name in names if name.startswith("Gate1")]
    # The ungated bottom, not its signal, goes up; the skip stands first.
    assert model.get_layer("Up4").input is model.get_layer("Center_conv2_relu").output
    skip, raised = model.get_layer("Concat4").input
    assert skip is model.get_layer("Gate4_combine_relu").output
    assert raised is model.get_layer("Up4").output


def test_corners_are_aligned_on_request():
    options = {"filters": 2, "input_shape": (16, 16, 32, 1)}
    one, other = (registry.build(NAME, align_corners=value, **options) for value in (False, True))
    other.set_weights(one.get_weights())
    assert one.get_layer("Up2").method == "bilinear"
    assert other.get_layer("Up2").method == "aligned_bilinear"
    x = np.random.default_rng(0).standard_normal((1, 16, 16, 32, 1), "float32")
    outputs = [keras.ops.convert_to_numpy(model(x, training=False)) for model in (one, other)]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


def test_the_network_for_pictures_points_at_it():
    words = r"found \(160, 160, 96, 1\), .* For volumes build 'oktay_attention_unet'\."
    with pytest.raises(ValueError, match=words):
        registry.build("attention_unet", input_shape=(160, 160, 96, 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_shape": (160, 160, 90, 1)}, r"The next valid shape is \(160, 160, 96, 1\)"),
        ({"input_shape": (160, None, 96, 1)}, "expected a size for every axis"),
        ({"gates": "double"}, "gates: found 'double', expected one of: multi, single, none"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        registry.build(NAME, **options)
