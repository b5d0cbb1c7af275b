"""GELU against the normal distribution of the standard library."""

from statistics import NormalDist

import keras
import numpy as np

from keras_medseg.layers.tokens import gelu


def test_gelu_is_the_exact_one():
    x = np.linspace(-6, 6, 49, dtype="float32")
    expected = [value * NormalDist().cdf(value) for value in x.tolist()]
    # The approximation by tanh is off by up to 5e-4.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(gelu(x)), expected, atol=2e-6)
