"""A bias per channel."""

import keras
import numpy as np

from keras_medseg.layers.bias import ChannelBias


def test_each_channel_gets_its_own(tmp_path):
    image = keras.Input((None, 2, 1, 3))
    model = keras.Model(image, ChannelBias(name="bias")(image))
    x = np.random.default_rng(0).standard_normal((2, 2, 2, 1, 3), "float32")
    np.testing.assert_array_equal(model(x), x)  # zeros at the start
    model.get_layer("bias").bias.assign([1, 2, 3])
    model.save(tmp_path / "model.keras")
    for network in (model, keras.saving.load_model(tmp_path / "model.keras")):
        assert network.output_shape == (None, None, 2, 1, 3)
        np.testing.assert_array_equal(network(x), x + np.float32([1, 2, 3]))
