"""Attention gates by hand."""

import keras
import numpy as np

from keras_medseg import stacks
from keras_medseg.layers.gates import attention_gate


def test_attention_gate_by_hand():
    skip, signal = keras.Input((1, 2, 1)), keras.Input((1, 2, 1))
    gated = attention_gate(skip, signal, 1, stack=stacks.PYTORCH, name="gate")
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
