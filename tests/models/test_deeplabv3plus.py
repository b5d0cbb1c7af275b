"""DeepLabv3+'s count, strides and rates, by its paper and code."""

import numpy as np
import pytest

from keras_medseg import registry


def test_default_has_the_count_of_the_authors_code():
    model = registry.build("deeplabv3plus", input_shape=(33, 33, 3))
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == 41_055_413


@pytest.fixture(scope="module")
def narrow():
    return registry.build("deeplabv3plus", input_shape=(65, 50, 2), classes=3, filters=2)


def test_maps_have_strides_four_and_sixteen(narrow):
    # floor((65 - 1) / 16) + 1 = 5 and floor((50 - 1) / 16) + 1 = 4; at stride 4: 17 and 13.
    assert narrow.get_layer("exit_block2_separable3_pointwise_relu").output.shape[1:3] == (5, 4)
    assert narrow.get_layer("feature_projection0").output.shape[1:3] == (17, 13)
    assert narrow.output_shape == (None, 65, 50, 3)


def test_low_level_features_are_taken_before_a_relu(narrow):
    source = narrow.get_layer("feature_projection0").input
    assert source is narrow.get_layer("entry_block2_separable2_pointwise_bn").output


def test_rates_and_epsilons(narrow):
    def rate(name):
        return narrow.get_layer(f"{name}_depthwise").dilation_rate[0]

    assert [rate(f"aspp{number}") for number in (1, 2, 3)] == [6, 12, 18]
    assert [rate(f"exit_block{n}_separable1") for n in (1, 2)] == [1, 2]
    assert narrow.get_layer("middle_unit16_separable1_depthwise_bn").epsilon == 1e-3
    assert narrow.get_layer("aspp1_depthwise_bn").epsilon == 1e-5


def test_open_size_is_refused():
    with pytest.raises(ValueError, match="input_shape: found"):
        registry.build("deeplabv3plus", input_shape=(None, None, 3))


def test_size_of_no_pixel_names_the_next_valid_one():
    with pytest.raises(ValueError, match=r"found \(0, 16, 3\).*valid shape is \(1, 16, 3\)"):
        registry.build("deeplabv3plus", input_shape=(0, 16, 3))
