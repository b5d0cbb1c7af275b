"""convolution.py: what is not Keras' own."""

import keras
import numpy as np
import pytest

from keras_medseg import frameworks
from keras_medseg.layers.convolution import conv, conv_in_leaky


@pytest.mark.parametrize("framework", ["keras_2_2", "pytorch"])
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_a_strided_1x1_convolution_takes_every_other_pixel(framework, size):
    image = keras.Input((*size, 3))
    model = keras.Model(
        image, conv(image, 5, 1, framework=frameworks.get(framework), name="a", strides=2)
    )
    rng = np.random.default_rng(0)
    x, kernel, bias = rng.normal(size=(2, *size, 3)), rng.normal(size=(3, 5)), rng.normal(size=5)
    model.get_layer("a").set_weights([kernel[None, None], bias])
    expected = x[:, ::2, ::2] @ kernel + bias
    np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-4, atol=1e-5)


def test_a_strided_1x1_convolution_of_few_channels_can_be_trained():
    """Keras' own, 4 to 8 channels, writes beyond its memory in the gradient: TensorFlow 2.21."""
    image = keras.Input((64, 64, 4))
    out = conv(
        image, 8, 1, framework=frameworks.get("pytorch"), name="a", strides=2, use_bias=False
    )
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


def test_convolution_norm_and_slope():
    image = keras.Input((2, 1, 1))
    framework = frameworks.PYTORCH
    model = keras.Model(
        image, conv_in_leaky(image, 1, 1, slope=0.5, framework=framework, name="conv")
    )
    model.get_layer("conv").set_weights([np.full((1, 1, 1, 1), 7.0), np.array([3.0])])
    # -1 and 1 come out of the norm, whatever a positive factor and a shift do.
    y = model(np.float32([1, 2]).reshape(1, 2, 1, 1), training=True)
    np.testing.assert_allclose(np.ravel(keras.ops.convert_to_numpy(y)), [-0.5, 1], rtol=1e-5)
