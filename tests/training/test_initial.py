"""Weights from another network, layer by layer."""

import keras
import numpy as np
import pytest

from keras_medseg.training.initial import take_weights


def network(channels, *layers):
    inputs = keras.Input((4, 4, channels))
    x = inputs
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x, name="net")


def conv(filters, name):
    return keras.layers.Conv2D(filters, 1, name=name, bias_initializer="random_normal")


def norm():
    return keras.layers.BatchNormalization(
        name="Norm", moving_mean_initializer="random_normal", moving_variance_initializer="ones"
    )


@pytest.fixture
def other():
    """Convolutions of 3 and 2 filters on two channels, between them a norm."""
    return network(2, conv(3, "Conv1"), norm(), conv(2, "Output"), conv(2, "Extra"))


def bits(model, name):
    return [weight.tobytes() for weight in model.get_layer(name).get_weights()]


def test_layers_of_the_same_name_and_shape_are_taken_and_the_others_are_named(other):
    """One output where the other has two; a layer that it has not; one that is not used."""
    ours = network(2, conv(3, "Conv1"), norm(), keras.layers.ReLU(), conv(4, "New"),
                   conv(1, "Output"))  # fmt: skip
    before = {name: bits(ours, name) for name in ("New", "Output")}
    taken = take_weights(ours, other)
    assert taken.taken == ("Conv1", "Norm")
    assert taken.other_shape == {"Output": "1x1x3x2, not 1x1x4x1"}
    assert (taken.new, taken.unused) == (("New",), ("Output", "Extra"))
    for name in taken.taken:  # moving statistics are among the weights of a norm
        assert bits(ours, name) == bits(other, name)
    assert before == {name: bits(ours, name) for name in before}
    assert str(taken) == ("2 of 4 layers taken; left out because of their shape: Output; new: New")


def test_the_other_network_stays_as_it_is(other):
    before = bits(other, "Conv1")
    ours = network(2, conv(3, "Conv1"))
    take_weights(ours, other)
    ours.get_layer("Conv1").set_weights([np.zeros((1, 1, 2, 3)), np.zeros(3)])
    assert bits(other, "Conv1") == before


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (network(3, conv(3, "Conv1")), r"such as Conv1 \(1x1x2x3, not 1x1x3x3\), expected some"),
        (network(2, conv(3, "Conv_1")), "such as Conv_1, expected some"),
    ],
)
def test_a_network_that_takes_nothing_is_refused(ours, words, other):
    with pytest.raises(ValueError, match=words):
        take_weights(ours, other)
