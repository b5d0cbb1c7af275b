"""Ronneberger, Fischer, Brox 2015: figure 1."""

import pytest

from keras_medseg import registry


def test_form_of_the_article():
    # The sizes are those of the figure; the count is the sum of its arrows (9 (in + 1/9) out per
    # 3x3 convolution, (4 in + 1) out per up-convolution): 31,030,658 with one channel, two classes.
    model = registry.build("unet", input_shape=(572, 572, 1), classes=2, form="valid")
    assert model.count_params() == 31_030_658
    for number, size, channels in [(1, 568, 64), (2, 280, 128), (3, 136, 256), (4, 64, 512)]:
        assert model.get_layer(f"Encode{number}_conv2").output.shape[1:] == (size, size, channels)
    for number, size in [(5, 56), (4, 104), (3, 200), (2, 392)]:
        assert model.get_layer(f"Up{number}").output.shape[1:3] == (size, size)
        assert model.get_layer(f"Crop{number}").output.shape[1:3] == (size, size)
    assert model.output_shape == (None, 388, 388, 2)


@pytest.mark.parametrize(
    ("form", "shape", "valid"),
    [
        ("same", (225, 224, 3), "(240, 224, 3)"),
        ("valid", (100, 572, 1), "(188, 572, 1)"),
        ("valid", (573, 188, 1), "(588, 188, 1)"),
    ],
)
def test_wrong_size_names_the_next_valid_one(form, shape, valid):
    with pytest.raises(ValueError, match="input_shape") as error:
        registry.build("unet", input_shape=shape, form=form)
    assert str(error.value).endswith(f"The next valid shape is {valid}.")


def test_smallest_size_leaves_four_pixels():
    model = registry.build("unet", input_shape=(188, 204, 1), form="valid", filters=1)
    assert model.output_shape == (None, 4, 20, 1)
