"""The facts of the unofficial re-creation of CU-Net."""

import math

import numpy as np
import pytest
from keras import ops

from keras_medseg import registry

NAME = "cunet"
SMALL = {"input_shape": (8, 16, 8, 2), "filters": 2}


@pytest.fixture(scope="module")
def model():
    return registry.build(NAME, **SMALL)


def test_parameters_of_the_code():
    model = registry.build(NAME)
    assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == 3_567_551


def test_the_card_says_that_it_is_unofficial():
    card = registry.card(NAME)
    assert "unofficial" in card.title
    assert card.notes.startswith("UNOFFICIAL")


def test_the_first_output_is_the_first_net_alone(model):
    x = np.random.default_rng(0).standard_normal((1, *SMALL["input_shape"]), "float32")
    before = ops.convert_to_numpy(model(x, training=False))
    changed = registry.build(NAME, **SMALL)
    changed.set_weights(model.get_weights())
    for layer in changed.layers:
        if layer.name.startswith("Net2"):
            layer.set_weights([2 * weight for weight in layer.get_weights()])
    after = ops.convert_to_numpy(changed(x, training=False))
    np.testing.assert_array_equal(after[..., 0], before[..., 0])
    assert np.abs(after[..., 1:] - before[..., 1:]).min(axis=(0, 1, 2, 3)).max() > 0


def test_the_nets_are_linked_where_their_maps_are_equally_large(model):
    assert (
        model.get_layer("Net2_Encode1_conv1_bn").input is model.get_layer("Net1_Decode1_add").output
    )
    sources = {2: "Net1_Decode2_add", 3: "Net1_Decode3_add", 4: "Net1_Encode4_add"}
    for level, source in sources.items():
        pooled, linked = model.get_layer(f"Net2_Between{level}").input
        assert pooled is model.get_layer(f"Net2_Pool{level - 1}").output
        assert linked is model.get_layer(source).output
    names = {layer.name for layer in model.layers}
    assert not [name for name in names if name.startswith("Net1_Between")]


def test_widths():
    model = registry.build(NAME, input_shape=(8, 8, 8, 4))
    for net, widths in (("Net1", (12, 24, 48, 96)), ("Net2", (24, 48, 96, 192))):
        found = [model.get_layer(f"{net}_Encode{n}_add").output.shape[-1] for n in (1, 2, 3, 4)]
        assert tuple(found) == widths
    # The last block of the second net goes back to the width of the first.
    assert model.get_layer("Net2_Decode1_add").output.shape[-1] == 12


def test_any_size(model):
    anysize = registry.build(NAME, input_shape=(None, None, None, 2), filters=2)
    anysize.set_weights(model.get_weights())
    x = np.random.default_rng(0).standard_normal((1, *SMALL["input_shape"]), "float32")
    expected = ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(
        ops.convert_to_numpy(anysize(x, training=False)), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "classes: found 1, expected 2 or more"),
        ({"input_shape": (128, 190, 160, 4)}, r"divisible by 8.*\(128, 192, 160, 4\)"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        registry.build(NAME, **options)
