"""Zhou et al. 2018: figure 1 and the counts of the authors' code."""

import keras
import numpy as np
import pytest

from keras_medseg import registry


@pytest.fixture(scope="module")
def supervised():
    return registry.build("unetpp", input_shape=(32, 32, 3), deep_supervision=True)


def test_three_channels_and_four_heads(supervised):
    # The card's 9,041,601 have one channel and one head. Two more channels: 2 * 9 * 32 = 576.
    # Three more heads: 3 * (32 + 1) = 99.
    assert supervised.count_params() == 9_041_601 + 576 + 99 == 9_042_276
    assert supervised.output_shape == [(None, 32, 32, 1)] * 4


@pytest.mark.parametrize(
    ("node", "joined"),
    [
        ("X04", ["X04_up", "X00", "X01", "X02", "X03"]),
        ("X12", ["X12_up", "X10", "X11"]),
        ("X31", ["X31_up", "X30"]),
    ],
)
def test_nodes_take_the_level_below_then_their_own(supervised, node, joined):
    sources = [
        tensor._keras_history.operation.name.removesuffix("_conv2_dropout")
        for tensor in supervised.get_layer(f"{node}_concat").input
    ]
    assert sources == joined


def test_what_belongs_to_the_authors_training_can_be_left_out():
    options = dict(l2=0.0, dropout=0.0, norm="batch", initializer="framework", framework="pytorch")
    model = registry.build("unetpp", input_shape=(16, 16, 1), filters=1, **options)
    assert model.losses == []
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert {layer.rate for layer in dropouts} == {0}
    # Nodes X(i, 0) to X(i, 4 - i) have 2^i channels, twice a norm of four numbers per channel.
    channels = sum(2**level * (5 - level) for level in range(5))
    plain = registry.build("unetpp", input_shape=(16, 16, 1), filters=1)
    assert model.count_params() - plain.count_params() == 2 * 4 * channels
    assert model.get_layer("X00_conv1_bn").input is model.get_layer("X00_conv1").output
    assert model.get_layer("X00_conv1_relu").input is model.get_layer("X00_conv1_bn").output
    # Within 1 / sqrt(fan-in) of 3x3 pixels and one channel, as PyTorch; He's has no bound.
    initializer = model.get_layer("X00_conv2").kernel_initializer
    assert initializer.maxval == pytest.approx(1 / 3)
    assert isinstance(plain.get_layer("X00_conv2").kernel_initializer, keras.initializers.HeNormal)


@pytest.mark.parametrize("option", [{"norm": "bach"}, {"initializer": "frame"}])
def test_unknown_choice(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))}: found"):
        registry.build("unetpp", input_shape=(16, 16, 1), **option)


def test_nodes_and_heads_are_penalized():
    model = registry.build("unetpp", input_shape=(16, 16, 1), filters=1, l2=0.5)
    # 15 nodes of two convolutions, one head; not the 10 transposed convolutions.
    assert len(model.losses) == 15 * 2 + 1
    kernels = [layer.kernel for layer in model.layers if type(layer) is keras.layers.Conv2D]
    expected = 0.5 * sum(np.square(kernel).sum() for kernel in kernels)
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), expected, rtol=1e-5)
