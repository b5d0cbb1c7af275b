"""CBAM against its authors' implementation, and by hand."""

import keras
import numpy as np

from keras_medseg import frameworks
from keras_medseg.layers.attention import cbam, channel_gate, spatial_gate, squeeze_excitation
from keras_medseg.porting import load_state_dict


def test_cbam_agrees_with_the_authors_implementation(read_golden):
    golden = read_golden("cbam_64")
    image = keras.Input(golden.image().shape[1:])
    model = keras.Model(image, cbam(image, stack=frameworks.PYTORCH, name="cbam", batch_norm=True))
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == golden.parameters
    names = {
        "cbam_channel_reduce": "ChannelGate.mlp.1",
        "cbam_channel_expand": "ChannelGate.mlp.3",
        "cbam_spatial_conv": "SpatialGate.spatial.conv",
        "cbam_spatial_bn": "SpatialGate.spatial.bn",
    }
    load_state_dict(model, golden.state_dict(), names=names)
    ours = keras.ops.convert_to_numpy(model(golden.image(), training=False))
    assert max(golden.errors([ours])) <= 1


def test_channel_gate_by_hand():
    # Two channels over 1x2 pixels: averages (1, 3), maxima (2, 4). The MLP keeps the first channel
    # and hands it to both, the second negated: logits +-(1 + 2) = +-3.
    image = keras.Input((1, 2, 2))
    model = keras.Model(image, channel_gate(image, stack=frameworks.KERAS_2_2, name="gate"))
    model.get_layer("gate_reduce").set_weights([np.array([[1.0], [0.0]]), np.zeros(1)])
    model.get_layer("gate_expand").set_weights([np.array([[1.0, -1.0]]), np.zeros(2)])
    x = np.array([[[[0.0, 2.0], [2.0, 4.0]]]], "float32")
    gates = 1 / (1 + np.exp([-3.0, 3.0]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), x * gates, rtol=1e-5)


def test_spatial_gate_by_hand():
    # The kernel's centre takes the maximum once and the mean twice:
    # pixel (1, 3): 3 + 2 * 2 = 7; pixel (-2, 0): 0 + 2 * -1 = -2.
    image = keras.Input((1, 2, 2))
    model = keras.Model(image, spatial_gate(image, stack=frameworks.KERAS_2_2, name="gate"))
    kernel = np.zeros((7, 7, 2, 1))
    kernel[3, 3, :, 0] = [1, 2]
    model.get_layer("gate_conv").set_weights([kernel])
    x = np.array([[[[1.0, 3.0], [-2.0, 0.0]]]], "float32")
    gates = 1 / (1 + np.exp([[[[-7.0], [2.0]]]]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), x * gates, rtol=1e-5)


def test_squeeze_excitation_by_hand():
    # Two channels over 1x2 pixels with averages 1 and 3; hidden relu(-1 + 3) = 2, logits 2 and -4.
    image = keras.Input((1, 2, 2))
    excited = squeeze_excitation(
        image, stack=frameworks.PYTORCH, name="se", ratio=8, use_bias=False
    )
    model = keras.Model(image, excited)
    model.get_layer("se_reduce").set_weights([np.array([[-1.0], [1.0]])])
    model.get_layer("se_expand").set_weights([np.array([[1.0, -2.0]])])
    x = np.array([[[[0.0, 2.0], [2.0, 4.0]]]], "float32")
    gates = 1 / (1 + np.exp([-2.0, 4.0]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), x * gates, rtol=1e-5)


def test_dropout_falls_on_the_weights_of_whole_channels():
    # At rate 0.5 a channel is either lost in all its pixels or counts twice.
    keras.utils.set_random_seed(0)
    image = keras.Input((1, 2, 2))
    options = dict(stack=frameworks.TENSORFLOW_2, name="se", ratio=16, dropout=0.5)
    model = keras.Model(image, squeeze_excitation(image, **options))
    x = np.repeat(np.array([[[[1.0, 3.0], [1.0, 5.0]]]], "float32"), 64, axis=0)
    whole = keras.ops.convert_to_numpy(model(x, training=False))
    ratio = keras.ops.convert_to_numpy(model(x, training=True)) / whole
    np.testing.assert_allclose(ratio[:, :, 0], ratio[:, :, 1], rtol=1e-6)
    assert set(np.round(ratio[:, 0, 0], 5).ravel()) == {0.0, 2.0}
