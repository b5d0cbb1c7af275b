"""PSPNet's sizes and strides."""

import pytest

from keras_medseg import registry


def test_resnet_has_stride_eight_and_dilates():
    model = registry.build("pspnet", input_shape=(33, 41, 3), filters=2)
    # (33 - 1) / 8 + 1 and (41 - 1) / 8 + 1.
    for stage, blocks in ((2, 4), (3, 6), (4, 3)):
        assert model.get_layer(f"layer{stage}_{blocks - 1}_relu").output.shape[1:3] == (5, 6)
    dilations = [model.get_layer(f"layer{n}_1_conv2").dilation_rate[0] for n in (1, 2, 3, 4)]
    assert dilations == [1, 1, 2, 4]
    pools = [model.get_layer(f"ppm_{n}_pool").output.shape[1:3] for n in range(4)]
    assert pools == [(1, 1), (2, 2), (3, 3), (6, 6)]
    assert model.output_shape == (None, 33, 41, 19)


@pytest.mark.parametrize(
    ("shape", "valid"), [((712, 713, 3), r"\(713, 713, 3\)"), ((1, 10, 1), r"\(1, 17, 1\)")]
)
def test_wrong_size_names_the_next_valid_one(shape, valid):
    with pytest.raises(ValueError, match=f"next valid shape is {valid}"):
        registry.build("pspnet", input_shape=shape)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((32, 48), r"expected \(height, width, channels\)\.$"),
        ((None, None, 3), "expected a size for every axis"),
        ((None, 33, 3), "expected a size for every axis"),
    ],
)
def test_wrong_rank_and_open_size_are_refused(shape, expected):
    with pytest.raises(ValueError, match=expected):
        registry.build("pspnet", input_shape=shape)
