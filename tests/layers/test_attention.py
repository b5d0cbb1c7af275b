"""CBAM against its authors' implementation; every kind of attention by hand."""

from functools import partial

import keras
import numpy as np

from keras_medseg import frameworks
from keras_medseg.layers.attention import (
    attention_gate,
    cbam,
    channel_gate,
    grid_attention_gate,
    spatial_gate,
    squeeze_excitation,
)
from keras_medseg.layers.resampling import up
from keras_medseg.porting import load_state_dict


def test_cbam_agrees_with_the_authors_implementation(read_golden):
    golden = read_golden("cbam_64")
    image = keras.Input(golden.image().shape[1:])
    model = keras.Model(
        image, cbam(image, framework=frameworks.PYTORCH, name="cbam", use_batch_norm=True)
    )
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
    model = keras.Model(image, channel_gate(image, framework=frameworks.KERAS_2_2, name="gate"))
    model.get_layer("gate_reduce").set_weights([np.array([[1.0], [0.0]]), np.zeros(1)])
    model.get_layer("gate_expand").set_weights([np.array([[1.0, -1.0]]), np.zeros(2)])
    x = np.array([[[[0.0, 2.0], [2.0, 4.0]]]], "float32")
    gates = 1 / (1 + np.exp([-3.0, 3.0]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), x * gates, rtol=1e-5)


def test_the_mlp_sees_each_pool_by_itself():
    # One channel over 1x2 pixels, 1 and 3: average 2, maximum 3, and a hidden relu(p - 2.5):
    # 0 and 0.5, so a logit of 0.5. Their sum of 5 would give relu(5 - 2.5) = 2.5.
    image = keras.Input((1, 2, 1))
    model = keras.Model(image, channel_gate(image, framework=frameworks.PYTORCH, name="gate"))
    model.get_layer("gate_reduce").set_weights([np.array([[1.0]]), np.array([-2.5])])
    model.get_layer("gate_expand").set_weights([np.array([[1.0]]), np.zeros(1)])
    x = np.array([[[[1.0], [3.0]]]], "float32")
    expected = x / (1 + np.exp(-0.5))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), expected, rtol=1e-5)


def test_spatial_gate_by_hand():
    # The kernel's center takes the maximum once and the mean twice:
    # pixel (1, 3): 3 + 2 * 2 = 7; pixel (-2, 0): 0 + 2 * -1 = -2.
    image = keras.Input((1, 2, 2))
    model = keras.Model(image, spatial_gate(image, framework=frameworks.KERAS_2_2, name="gate"))
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
        image, framework=frameworks.PYTORCH, name="se", ratio=8, use_bias=False
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
    options = dict(framework=frameworks.TENSORFLOW_2, name="se", ratio=16, dropout=0.5)
    model = keras.Model(image, squeeze_excitation(image, **options))
    x = np.repeat(np.array([[[[1.0, 3.0], [1.0, 5.0]]]], "float32"), 64, axis=0)
    whole = keras.ops.convert_to_numpy(model(x, training=False))
    ratio = keras.ops.convert_to_numpy(model(x, training=True)) / whole
    np.testing.assert_allclose(ratio[:, :, 0], ratio[:, :, 1], rtol=1e-6)
    assert set(np.round(ratio[:, 0, 0], 5).ravel()) == {0.0, 2.0}


def test_attention_gate_by_hand():
    skip, signal = keras.Input((1, 2, 1)), keras.Input((1, 2, 1))
    gated = attention_gate(skip, signal, 1, framework=frameworks.PYTORCH, name="gate")
    model = keras.Model([skip, signal], gated)
    for part, weight in (("g", 1), ("x", 2), ("psi", 3)):
        kernel, bias = np.full((1, 1, 1, 1), weight), np.zeros(1)
        model.get_layer(f"gate_{part}").set_weights([kernel, bias])
        norm = model.get_layer(f"gate_{part}_bn")
        norm.set_weights([np.ones(1), np.zeros(1), np.zeros(1), np.ones(1) - norm.epsilon])
    skips, signals = (np.float32(pair).reshape(1, 1, 2, 1) for pair in ([5, 5], [-9, -11]))
    # -9 + 2 * 5 = 1, and 3 * 1 through the sigmoid; -11 + 2 * 5 < 0 leaves sigmoid(0) = 1/2.
    expected = [5 / (1 + np.exp(-3)), 2.5]
    y = model([skips, signals], training=False)
    np.testing.assert_allclose(np.ravel(y), expected, rtol=1e-5)


class NumpyGridGate:
    """Oktay's grid gate in float64 and without Keras, on one image (H, W, C)."""

    def __init__(self, model):
        self.of = {
            part: [np.float64(weight) for weight in model.get_layer(f"gate_{part}").get_weights()]
            for part in ("theta", "phi", "psi", "W", "W_bn")
        }
        self.epsilon = model.get_layer("gate_W_bn").epsilon

    def __call__(self, skip, signal):
        [theta], (phi, phi_bias), (psi, psi_bias) = (self.of[k] for k in ("theta", "phi", "psi"))
        corners = [(i, j) for i in (0, 1) for j in (0, 1)]
        x = sum(skip[i::2, j::2] @ theta[i, j] for i, j in corners) + signal @ phi[0, 0] + phi_bias
        weights = 1 / (1 + np.exp(-(np.maximum(x, 0) @ psi[0, 0] + psi_bias)))[..., 0]
        weights = self.doubled(self.doubled(weights).T).T
        x = (skip * weights[..., None]) @ self.of["W"][0][0, 0] + self.of["W"][1]
        gamma, beta, mean, variance = self.of["W_bn"]
        return gamma * (x - mean) / np.sqrt(variance + self.epsilon) + beta

    def doubled(self, rows):
        """Each row gives two, a quarter of a row before and behind it; the edges are repeated."""
        before, after = np.vstack([rows[:1], rows[:-1]]), np.vstack([rows[1:], rows[-1:]])
        pairs = [0.75 * rows + 0.25 * before, 0.75 * rows + 0.25 * after]
        return np.stack(pairs, axis=1).reshape(-1, rows.shape[1])


def test_grid_gate_agrees_with_numpy():
    skip, signal = keras.Input((6, 4, 3)), keras.Input((3, 2, 5))
    upsample = partial(up, method="bilinear", framework=frameworks.TENSORFLOW_2)
    options = dict(upsample=upsample, framework=frameworks.TENSORFLOW_2, name="gate")
    model = keras.Model([skip, signal], grid_attention_gate(skip, signal, **options))
    generator = np.random.default_rng(0)
    model.set_weights([0.5 + generator.random(weight.shape) for weight in model.get_weights()])
    x, g = (generator.standard_normal((1, *size)) for size in ((6, 4, 3), (3, 2, 5)))
    y = keras.ops.convert_to_numpy(model([np.float32(x), np.float32(g)], training=False))
    np.testing.assert_allclose(y[0], NumpyGridGate(model)(x[0], g[0]), rtol=1e-5, atol=1e-5)


def test_signal_of_half_the_resolution_is_doubled():
    skip, signal = keras.Input((2, 2, 4, 3)), keras.Input((1, 1, 2, 5))
    options = dict(framework=frameworks.PYTORCH, name="gate")
    coarse = keras.Model([skip, signal], attention_gate(skip, signal, 2, coarse=True, **options))
    fine_signal = keras.Input((2, 2, 4, 5))
    fine = keras.Model([skip, fine_signal], attention_gate(skip, fine_signal, 2, **options))
    for layer in fine.layers:
        if layer.weights:
            layer.set_weights(coarse.get_layer(layer.name).get_weights())
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1, 2, 2, 4, 3), "float32")
    g = generator.standard_normal((1, 1, 1, 2, 5), "float32")
    doubled = g.repeat(2, 1).repeat(2, 2).repeat(2, 3)
    # A 1x1x1 convolution and a norm by moving statistics commute with the doubling.
    expected, y = (
        keras.ops.convert_to_numpy(model([x, s], training=False))
        for model, s in ((fine, doubled), (coarse, g))
    )
    np.testing.assert_allclose(y, expected, atol=1e-6)
