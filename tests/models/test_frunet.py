"""FR-UNet's parts that the golden does not reach."""

import keras
import numpy as np
import pytest

from keras_medseg import registry


def test_residual_nodes_have_the_same_weights_and_another_output():
    released, described = (
        registry.build("frunet", input_shape=(16, 16, 1), filters=4, residual=residual)
        for residual in (False, True)
    )
    for layer in released.layers:
        described.get_layer(layer.name).set_weights(layer.get_weights())
    assert described.count_params() == released.count_params()
    x = np.random.default_rng(0).standard_normal((1, 16, 16, 1), "float32")
    ours, theirs = (keras.ops.convert_to_numpy(model(x)) for model in (released, described))
    assert np.abs(ours - theirs).max() > 0.1 * np.abs(ours).max()


def test_full_resolution_runs_through_all_seven_columns():
    model = registry.build("frunet", input_shape=(16, 24, 1), filters=4)
    nodes = {
        layer.name.removesuffix("_conv_conv_5"): layer.output.shape[1:]
        for layer in model.layers
        if layer.name.endswith("_conv_conv_5")
    }
    # Rows of 7, 5, 3 and 1 nodes; width doubles as the size halves.
    for row, names in enumerate(
        [
            ["block1_3", "block1_2", "block1_1", "block10", "block11", "block12", "block13"],
            ["block2_2", "block2_1", "block20", "block21", "block22"],
            ["block3_1", "block30", "block31"],
            ["block40"],
        ]
    ):
        for name in names:
            assert nodes.pop(name) == (16 // 2**row, 24 // 2**row, 4 * 2**row)
    assert not nodes


def test_wrong_size_names_the_next_valid_one():
    with pytest.raises(ValueError, match=r"next valid shape is \(56, 48, 1\)"):
        registry.build("frunet", input_shape=(50, 48, 1))
