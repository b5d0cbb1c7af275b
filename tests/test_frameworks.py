"""The silent defaults, against the frameworks' documents and distributions."""

from math import sqrt

import keras
import numpy as np
import pytest

from keras_medseg import frameworks
from keras_medseg.layers.convolution import conv, separable_conv
from keras_medseg.layers.normalization import batch_norm


def _values(initializer: keras.Initializer, shape: tuple[int, ...]) -> np.ndarray:
    return keras.ops.convert_to_numpy(initializer(shape))


def test_pytorch_kernel_is_kaiming_uniform_of_root_five():
    # gain = sqrt(2 / (1 + 5)) = sqrt(1/3); bound = gain * sqrt(3 / fan_in) = 1 / sqrt(fan_in).
    # 3x3 over 16 channels: fan-in 144, bound 1/12. A uniform's deviation is bound / sqrt(3).
    shape = (3, 3, 16, 64)
    kernel = _values(frameworks.PYTORCH.kernel(3 * 3 * 16), shape)
    assert np.abs(kernel).max() <= 1 / 12
    assert np.abs(kernel).max() > 0.99 / 12
    assert kernel.std() == pytest.approx(1 / 12 / sqrt(3), rel=0.02)
    scaling = keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")
    assert _values(scaling, shape).std() == pytest.approx(kernel.std(), rel=0.03)


def test_pytorch_bias_has_the_bound_of_its_kernel():
    bias = _values(frameworks.PYTORCH.bias(144), (5000,))
    assert np.abs(bias).max() <= 1 / 12
    assert bias.std() == pytest.approx(1 / 12 / sqrt(3), rel=0.05)


@pytest.mark.parametrize("framework", [frameworks.KERAS_2_2, frameworks.TENSORFLOW_2])
def test_keras_kernel_is_glorot_uniform(framework):
    # Bound sqrt(6 / (fan_in + fan_out)) = sqrt(6 / (9 * 16 + 9 * 32)) = 0.11785.
    kernel = _values(framework.kernel(144), (3, 3, 16, 32))
    assert np.abs(kernel).max() == pytest.approx(0.11785, rel=0.02)
    assert not _values(framework.bias(144), (8,)).any()


def test_depthwise_kernel_counts_its_own_inputs():
    # PyTorch: every output of a depthwise 3x3 sums 9 inputs, whatever the channels: bound 1/3.
    layer = _layer(lambda x: separable_conv(x, 8, 3, framework=frameworks.PYTORCH, name="conv"), 64)
    depthwise = keras.ops.convert_to_numpy(layer.depthwise_kernel)
    assert np.abs(depthwise).max() == pytest.approx(1 / 3, rel=0.05)


def test_norm_takes_momentum_and_epsilon():
    # PyTorch's momentum 0.1 is the weight of the new statistics; Keras' is that of the old.
    layer = _layer(lambda x: batch_norm(x, framework=frameworks.PYTORCH, name="norm"), 4)
    assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


@pytest.mark.parametrize(
    ("framework", "first"), [(frameworks.PYTORCH, 0), (frameworks.KERAS_2_2, 1)]
)
def test_strided_convolution_pads_as_its_framework(framework, first):
    # Kernel of ones with only the top-left entry used: output (0, 0) reads the pixel that lies
    # under that entry: the padding (0) when symmetric, pixel (0, 0) with (0, 1) padding.
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, conv(image, 1, 3, framework=framework, name="conv", strides=2))
    kernel = np.zeros((3, 3, 1, 1), "float32")
    kernel[0, 0] = 1
    model.get_layer("conv").set_weights([kernel, np.zeros(1)])
    output = keras.ops.convert_to_numpy(model(np.ones((1, 4, 4, 1), "float32")))
    assert output.shape == (1, 2, 2, 1)
    assert output[0, 0, 0, 0] == first
    assert output[0, 1, 1, 0] == 1


def test_framework_by_name_or_itself():
    assert frameworks.get("pytorch") is frameworks.PYTORCH
    assert frameworks.get(frameworks.KERAS_2_2) is frameworks.KERAS_2_2
    assert all(name == framework.name for name, framework in frameworks.FRAMEWORKS.items())
    with pytest.raises(ValueError, match=r"framework: found 'torch'.*Did you mean 'pytorch'"):
        frameworks.get("torch")


def _layer(block, channels: int) -> keras.Layer:
    image = keras.Input((8, 8, channels))
    return keras.Model(image, block(image)).layers[-1]
