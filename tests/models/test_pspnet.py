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
    ("shape", "valid"), [((712, 713, 3), r"\(713, 713, 3\)"), ((1, 10, 1), r"\(9, 17, 1\)")]
)
def test_wrong_size_names_the_next_valid_one(shape, valid):
    with pytest.raises(ValueError, match=f"next valid shape is {valid}"):
        registry.build("pspnet", input_shape=shape)


def test_open_size_is_refused():
    with pytest.raises(ValueError, match="input_shape: found"):
        registry.build("pspnet", input_shape=(None, None, 3))
