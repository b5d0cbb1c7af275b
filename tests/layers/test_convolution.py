"""convolution.py: what is not Keras' own."""

import keras
import numpy as np
import pytest

from keras_medseg import frameworks
from keras_medseg.layers.convolution import conv


@pytest.mark.parametrize("stack", ["keras_2_2", "pytorch"])
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_a_strided_1x1_convolution_takes_every_other_pixel(stack, size):
    image = keras.Input((*size, 3))
    model = keras.Model(image, conv(image, 5, 1, stack=frameworks.get(stack), name="a", strides=2))
    rng = np.random.default_rng(0)
    x, kernel, bias = rng.normal(size=(2, *size, 3)), rng.normal(size=(3, 5)), rng.normal(size=5)
    model.get_layer("a").set_weights([kernel[None, None], bias])
    expected = x[:, ::2, ::2] @ kernel + bias
    np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-4, atol=1e-5)


def test_a_strided_1x1_convolution_of_few_channels_can_be_trained():
    """Keras' own, 4 to 8 channels, writes beyond its memory in the gradient: TensorFlow 2.21."""
    image = keras.Input((64, 64, 4))
    out = conv(image, 8, 1, stack=frameworks.get("pytorch"), name="a", strides=2, use_bias=False)
    model = keras.Model(image, out)
    model.compile(keras.optimizers.SGD(1.0), "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 64, 64, 4)), rng.normal(size=(2, 32, 32, 8))
    [before] = model.get_weights()
    error = x[:, ::2, ::2] @ before[0, 0] - y
    gradient = 2 * np.einsum("nhwc,nhwd->cd", x[:, ::2, ::2], error) / error.size
    model.train_on_batch(np.float32(x), np.float32(y))
    [after] = model.get_weights()
    np.testing.assert_allclose(before - after, gradient[None, None], rtol=1e-3, atol=1e-6)
