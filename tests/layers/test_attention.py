"""CBAM against its authors' implementation, and by hand."""

import json
import zlib
from pathlib import Path

import keras
import numpy as np

from keras_medseg import stacks
from keras_medseg.layers.attention import cbam, channel_gate, spatial_gate

GOLDENS = Path(__file__).parents[1] / "goldens"


def _golden_weight(key: str, shape: list[int]) -> np.ndarray:
    """The weight that the golden output was made with, in PyTorch's layout."""
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        return 1 + 0.1 * np.abs(normal)
    if len(shape) == 1 and key.endswith(".weight"):
        return 1 + 0.1 * normal
    return 0.1 * normal if len(shape) == 1 else normal / np.sqrt(np.prod(shape[1:]))


def test_cbam_agrees_with_the_authors_implementation():
    golden = json.loads((GOLDENS / "cbam_64.json").read_text())
    weights = {key: _golden_weight(key, shape) for key, shape in golden["keys"]}
    channels, height, width = golden["input_shape"][1:]

    image = keras.Input((height, width, channels))
    gated = cbam(image, stack=stacks.PYTORCH, name="cbam", batch_norm=True)
    model = keras.Model(image, gated)
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == golden["parameters"]

    def load(layer: str, *keys: str) -> None:
        model.get_layer(layer).set_weights([weights.pop(key) for key in keys])

    mlp, spatial = "ChannelGate.mlp", "SpatialGate.spatial"
    for key in (f"{mlp}.1.weight", f"{mlp}.3.weight"):
        weights[key] = weights[key].T
    weights[f"{spatial}.conv.weight"] = weights[f"{spatial}.conv.weight"].transpose(2, 3, 1, 0)
    load("cbam_channel_reduce", f"{mlp}.1.weight", f"{mlp}.1.bias")
    load("cbam_channel_expand", f"{mlp}.3.weight", f"{mlp}.3.bias")
    load("cbam_spatial_conv", f"{spatial}.conv.weight")
    statistics = (f"{spatial}.bn.{part}" for part in ("running_mean", "running_var"))
    load("cbam_spatial_bn", f"{spatial}.bn.weight", f"{spatial}.bn.bias", *statistics)
    assert not weights

    x = np.random.RandomState(0).standard_normal(golden["input_shape"])
    ours = model(np.float32(x.transpose(0, 2, 3, 1)), training=False)
    expected = np.load(GOLDENS / "cbam_64.npz")["output0"].transpose(0, 2, 3, 1)
    tolerance = 1e-5 * max(1, golden["max_abs"][0]) + 10 * golden["float32_error"][0]
    assert np.abs(keras.ops.convert_to_numpy(ours) - expected).max() <= tolerance


def test_channel_gate_by_hand():
    # Two channels over 1x2 pixels: averages (1, 3), maxima (2, 4). The MLP keeps the first channel
    # and hands it to both, the second negated: logits +-(1 + 2) = +-3.
    image = keras.Input((1, 2, 2))
    model = keras.Model(image, channel_gate(image, stack=stacks.KERAS_2_2, name="gate"))
    model.get_layer("gate_reduce").set_weights([np.array([[1.0], [0.0]]), np.zeros(1)])
    model.get_layer("gate_expand").set_weights([np.array([[1.0, -1.0]]), np.zeros(2)])
    x = np.array([[[[0.0, 2.0], [2.0, 4.0]]]], "float32")
    gates = 1 / (1 + np.exp([-3.0, 3.0]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), x * gates, rtol=1e-5)


def test_spatial_gate_by_hand():
    # The kernel's centre takes the maximum once and the mean twice:
    # pixel (1, 3): 3 + 2 * 2 = 7; pixel (-2, 0): 0 + 2 * -1 = -2.
    image = keras.Input((1, 2, 2))
    model = keras.Model(image, spatial_gate(image, stack=stacks.KERAS_2_2, name="gate"))
    kernel = np.zeros((7, 7, 2, 1))
    kernel[3, 3, :, 0] = [1, 2]
    model.get_layer("gate_conv").set_weights([kernel])
    x = np.array([[[[1.0, 3.0], [-2.0, 0.0]]]], "float32")
    gates = 1 / (1 + np.exp([[[[-7.0], [2.0]]]]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), x * gates, rtol=1e-5)
