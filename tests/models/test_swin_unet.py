"""Swin-Unet's sizes, heads and stochastic depth."""

import keras
import numpy as np
import pytest

from keras_medseg import registry
from keras_medseg.layers.transformer import WindowAttention


@pytest.fixture(scope="module")
def small():
    return registry.build("swin_unet", input_shape=(64, 64, 1), filters=32, window=4, classes=2)


def test_windows_shift_in_odd_blocks_of_maps_larger_than_a_window(small):
    attention = {
        layer.name: (layer.window, layer.offset, layer.heads)
        for layer in small.layers
        if isinstance(layer, WindowAttention)
    }
    # Maps of 16, 8, 4 and 2 patches; heads of 32 channels.
    assert [attention[f"layers{n}_0_attn"] for n in range(4)] == [
        (4, 0, 1),
        (4, 0, 2),
        (4, 0, 4),
        (2, 0, 8),
    ]
    assert [attention[f"layers{n}_1_attn"][1] for n in range(4)] == [2, 2, 0, 0]
    assert [attention[f"layers_up{n}_1_attn"][1] for n in (1, 2, 3)] == [0, 2, 2]


def test_stochastic_depth_grows_and_is_mirrored(small):
    rates = {
        layer.name.removesuffix("_add1_drop_path"): layer.rate
        for layer in small.layers
        if layer.name.endswith("_add1_drop_path")
    }
    # Eight encoder blocks from 0 to 0.2; the first has no layer.
    steps = 0.2 * np.arange(8) / 7
    names = [f"layers{stage}_{block}" for stage in range(4) for block in range(2)]
    assert [rates.get(name, 0) for name in names] == pytest.approx(steps)
    mirrored = [f"layers_up{3 - stage}_{block}" for stage in range(3) for block in range(2)]
    assert [rates.get(name, 0) for name in mirrored] == pytest.approx(steps[:6])


def test_each_class_adds_one_weight_per_channel():
    counts = [
        registry.build(
            "swin_unet", input_shape=(64, 64, 3), filters=32, window=4, classes=n
        ).count_params()
        for n in (1, 2)
    ]
    assert counts[1] - counts[0] == 32


@pytest.mark.parametrize(
    ("shape", "window", "valid"),
    [
        ((200, 224, 3), 7, (224, 224, 3)),
        ((60, 64, 1), 4, (64, 64, 1)),
        # Maps of 24 x 16, 12 x 8, 6 x 4 patches: 6 is no multiple of 4.
        ((96, 64, 1), 4, (128, 64, 1)),
    ],
)
def test_wrong_size_names_the_next_valid_one(shape, window, valid):
    with pytest.raises(ValueError, match="next valid shape is") as error:
        registry.build("swin_unet", input_shape=shape, window=window, filters=4)
    assert str(valid) in str(error.value)
    model = registry.build("swin_unet", input_shape=valid, window=window, filters=4)
    assert model.output_shape == (None, *valid[:2], 9)


def test_width_that_is_no_multiple_of_a_heads_channels_names_the_next_valid_one():
    shape = {"input_shape": (32, 32, 1), "window": 2, "depths": (1, 1, 1, 1)}
    for filters in (48, 33, 100):
        with pytest.raises(ValueError, match=f"filters: found {filters}.*width is") as error:
            registry.build("swin_unet", filters=filters, **shape)
        assert f"width is {128 if filters == 100 else 64};" in str(error.value)
    for filters, heads, expected in ((64, None, 2), (24, None, 1), (48, (3, 6, 12, 24), 3)):
        model = registry.build("swin_unet", filters=filters, heads=heads, **shape)
        assert model.get_layer("layers0_0_attn").heads == expected
        assert model.get_layer("layers3_0_attn").heads == 8 * expected


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match=r"heads: found \(3, 6, 12, 24\)"):
        registry.build("swin_unet", filters=32, heads=(3, 6, 12, 24))


def test_open_size_is_refused():
    with pytest.raises(ValueError, match="input_shape: found"):
        registry.build("swin_unet", input_shape=(None, None, 3))


def test_training_skips_blocks_and_inference_does_not(small):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).standard_normal((1, 64, 64, 1), "float32")
    trained = [np.asarray(small(x, training=True)) for _ in range(2)]
    used = [np.asarray(small(x, training=False)) for _ in range(2)]
    assert np.array_equal(*used)
    assert not np.array_equal(*trained)
