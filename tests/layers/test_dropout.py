"""Dropout that is not inverted."""

import keras
import numpy as np

from keras_medseg.layers.dropout import plain_dropout


def test_kept_values_stay_in_training_and_all_shrink_at_inference():
    keras.utils.set_random_seed(0)
    image = keras.Input((1000, 4))
    model = keras.Model(image, plain_dropout(image, 0.25, name="dropout"))
    x = np.random.default_rng(0).uniform(1, 2, (1, 1000, 4)).astype("float32")
    y = keras.ops.convert_to_numpy(model(x, training=True))
    kept = y != 0
    np.testing.assert_allclose(y[kept], x[kept], rtol=1e-6)
    # Of 4,000 draws; four standard errors are 4 sqrt(0.25 * 0.75 / 4000) = 0.027.
    assert abs(kept.mean() - 0.75) < 0.027
    np.testing.assert_allclose(model(x, training=False), 0.75 * x, rtol=1e-6)
