"""Variances of authors' initializers, and that the framework's other defaults stay."""

from math import sqrt

import keras
import numpy as np
import pytest

from keras_medseg import frameworks
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv
from keras_medseg.layers.initialization import he_normal, with_initializer


def _kernel_and_bias(framework: FrameworkDefaults) -> list[np.ndarray]:
    image = keras.Input((4, 4, 16))
    return keras.Model(image, conv(image, 64, 3, framework=framework, name="conv")).get_weights()


# A 3x3 kernel from 16 to 64 channels: fans of 9 * 16 = 144 and 9 * 64 = 576.
@pytest.mark.parametrize(
    ("framework", "deviation"),
    [
        (he_normal(frameworks.PYTORCH, "fan_in"), sqrt(2 / 144)),
        (he_normal(frameworks.PYTORCH, "fan_out"), sqrt(2 / 576)),
        (he_normal(frameworks.PYTORCH, "fan_in", slope=1), sqrt(1 / 144)),
        (with_initializer(frameworks.PYTORCH, "RandomNormal", stddev=0.02), 0.02),
    ],
)
def test_kernels_have_the_authors_variance(framework, deviation):
    keras.utils.set_random_seed(0)
    kernel, bias = _kernel_and_bias(framework)
    # 9216 draws: the deviation is known to 1 / sqrt(2 * 9216) = 0.7 %; 5 of these.
    assert kernel.std() == pytest.approx(deviation, rel=0.04)
    # Not truncated: 4.6 % of a normal distribution lie beyond two deviations.
    assert 0.03 < (np.abs(kernel) > 2 * deviation).mean() < 0.06
    assert not bias.any()


def test_only_initializers_change():
    framework = he_normal(frameworks.PYTORCH, "fan_in")
    assert framework.norm_epsilon == frameworks.PYTORCH.norm_epsilon
    assert framework.symmetric_padding
    assert not np.array_equal(_kernel_and_bias(framework)[0], _kernel_and_bias(framework)[0])
