"""Attention gates by hand."""

import keras
import numpy as np

from keras_medseg import frameworks
from keras_medseg.layers.gates import attention_gate


def test_attention_gate_by_hand():
    skip, signal = keras.Input((1, 2, 1)), keras.Input((1, 2, 1))
    gated = attention_gate(skip, signal, 1, stack=frameworks.PYTORCH, name="gate")
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


def test_signal_of_half_the_resolution_is_doubled():
    skip, signal = keras.Input((2, 2, 4, 3)), keras.Input((1, 1, 2, 5))
    options = dict(stack=frameworks.PYTORCH, name="gate")
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
