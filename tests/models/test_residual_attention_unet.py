"""Table I of dcabes2020 and the parameter counts that decide between its readings."""

import keras
import numpy as np
import pytest

from keras_medseg import registry

NAME = "residual_attention_unet"


@pytest.fixture(scope="module")
def model():
    return registry.build(NAME)


@pytest.mark.parametrize(
    ("block", "parameters"),
    [
        ("bottleneck", 560_393),
        ("separable", 570_265),
        ("separable_pair", 565_177),
        ("plain_single", 2_563_609),
        ("plain", 4_716_857),
    ],
)
def test_parameters_of_every_reading(block, parameters):
    assert registry.build(NAME, residual_block=block).count_params() == parameters


@pytest.mark.parametrize(
    ("option", "parameters"),
    [
        ({"downsampling": "average_pool"}, 570_265),
        ({"downsampling": "strided_conv"}, 773_273),
        ({"upsampling": "bilinear"}, 570_265),
        ({"upsampling": "transposed_conv"}, 1_177_177),
    ],
)
def test_parameters_of_resampling(option, parameters):
    assert registry.build(NAME, **option).count_params() == parameters


def test_default_is_within_two_percent_of_the_paper(model):
    assert abs(model.count_params() - 570_000) <= 0.02 * 570_000


def test_parameters_without_attention(model):
    # Per skip of C channels: MLP 2 * C * C/16 + C/16 + C, and 7 * 7 * 2 for the spatial gate.
    # C = 32: 128 + 2 + 32 + 98 = 260; 64: 512 + 4 + 64 + 98 = 678;
    # 128: 2048 + 8 + 128 + 98 = 2282. Skips of 32, 32, 64, 128: 260 + 260 + 678 + 2282 = 3480.
    without = registry.build(NAME, attention=False)
    assert model.count_params() - without.count_params() == 3480


def test_cbam_weights_the_skips_and_not_the_way_down(model):
    for number, source, place in (
        (9, "Conv1_relu", "Down1"),
        (8, "ResBlock1_relu", "Down2"),
        (7, "ResBlock2_relu", "Down3"),
        (6, "ResBlock3_relu", "Down4"),
    ):
        unweighted = model.get_layer(source).output
        assert model.get_layer(place).input is unweighted
        assert model.get_layer(f"CBAM{number}_channel_scale").input[0] is unweighted
        spatial = model.get_layer(f"CBAM{number}_spatial_scale")
        assert spatial.input[0] is model.get_layer(f"CBAM{number}_channel_scale").output
        upper, skip = model.get_layer(f"Concat{number}").input
        assert upper is model.get_layer(f"Up{number}").output
        assert skip is spatial.output


def test_norm_and_relu_follow_the_convolutions(model):
    """All that has weights, in their order, but CBAM; the shortcuts are the exception."""
    for name in ("Conv1", "Conv2"):
        norm, relu = model.get_layer(f"{name}_bn"), model.get_layer(f"{name}_relu")
        assert norm.input is model.get_layer(name).output
        assert relu.input is norm.output
    for number in range(1, 9):
        block = f"ResBlock{number}"
        norm, shortcut = (model.get_layer(f"{block}_{part}") for part in ("conv1_bn", "shortcut"))
        assert norm.input is model.get_layer(f"{block}_conv1").output
        assert shortcut.input is model.get_layer(f"{block}_conv1").input
        total = model.get_layer(f"{block}_add")
        assert total.input[0] is norm.output
        assert total.input[1] is shortcut.output
        assert model.get_layer(f"{block}_relu").input is total.output
    assert model.get_layer("Output").input is model.get_layer("Conv2_relu").output


def test_the_output_is_a_sigmoid_of_one_channel(model):
    output = model.get_layer("Output")
    assert output.kernel.shape == (1, 1, 32, 1)
    assert output.activation is keras.activations.sigmoid
    assert model.output is output.output


# Input and output of each row of Table I; ResBlock7's 64 output channels are a misprint for 128.
@pytest.mark.parametrize(
    ("row", "first_layer", "last_layer", "before", "after"),
    [
        ("Conv", "Conv1", "Conv1_relu", (176, 176, 4), (176, 176, 32)),
        ("ResBlock1", "ResBlock1_conv1", "ResBlock1_relu", (88, 88, 32), (88, 88, 32)),
        ("ResBlock2", "ResBlock2_conv1", "ResBlock2_relu", (44, 44, 32), (44, 44, 64)),
        ("ResBlock3", "ResBlock3_conv1", "ResBlock3_relu", (22, 22, 64), (22, 22, 128)),
        ("ResBlock4", "ResBlock4_conv1", "ResBlock4_relu", (11, 11, 128), (11, 11, 256)),
        ("ResBlock5", "ResBlock5_conv1", "ResBlock5_relu", (11, 11, 256), (11, 11, 256)),
        ("ResBlock6", "ResBlock6_conv1", "ResBlock6_relu", (22, 22, 384), (22, 22, 256)),
        ("ResBlock7", "ResBlock7_conv1", "ResBlock7_relu", (44, 44, 320), (44, 44, 128)),
        ("ResBlock8", "ResBlock8_conv1", "ResBlock8_relu", (88, 88, 160), (88, 88, 64)),
        ("Conv", "Conv2", "Conv2_relu", (176, 176, 96), (176, 176, 32)),
        ("Output", "Output", "Output", (176, 176, 32), (176, 176, 1)),
    ],
)
def test_shapes_of_table_one(model, row, first_layer, last_layer, before, after):
    assert model.get_layer(first_layer).input.shape[1:] == before
    assert model.get_layer(last_layer).output.shape[1:] == after


def test_keras_2_2_defaults(model):
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    # Two convolutions and eight blocks of one.
    assert len(norms) == 10
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.99, 1e-3)}
    assert model.get_layer("Up6").interpolation == "nearest"
    # Convolutions, their depthwise and pointwise parts, and CBAM's dense layers.
    initializers = {
        (part, type(getattr(layer, part)))
        for layer in model.layers
        for part in vars(layer)
        if part.endswith("_initializer") and layer not in norms
    }
    glorot, zeros = keras.initializers.GlorotUniform, keras.initializers.Zeros
    assert initializers == {
        ("kernel_initializer", glorot),
        ("depthwise_initializer", glorot),
        ("pointwise_initializer", glorot),
        ("bias_initializer", zeros),
    }


@pytest.mark.parametrize(
    ("shape", "valid"), [((170, 176, 4), "(176, 176, 4)"), ((1, 240, 1), "(16, 240, 1)")]
)
def test_wrong_size_names_the_next_valid_one(shape, valid):
    with pytest.raises(ValueError, match="input_shape") as error:
        registry.build(NAME, input_shape=shape)
    assert valid in str(error.value)
    assert registry.build(NAME, input_shape=_shape(valid), filters=4) is not None


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.strip("()").split(","))


def test_shape_without_channels_is_refused():
    with pytest.raises(ValueError, match=r"\(height, width, channels\)"):
        registry.build(NAME, input_shape=(176, 176))


def test_open_size_gives_the_same_as_a_fixed_one():
    fixed = registry.build(NAME, input_shape=(32, 48, 4), filters=4)
    free = registry.build(NAME, input_shape=(None, None, 4), filters=4)
    free.set_weights(fixed.get_weights())
    x = np.random.default_rng(0).standard_normal((1, 32, 48, 4), "float32")
    np.testing.assert_allclose(free(x), fixed(x), atol=1e-6)


@pytest.mark.parametrize(
    "option",
    [
        {"downsampling": "average_pool"},
        {"downsampling": "strided_conv"},
        {"upsampling": "bilinear"},
        {"upsampling": "transposed_conv"},
        {"classes": 3},
        {"framework": "pytorch", "downsampling": "strided_conv"},
        {"residual_block": "separable_pair"},
    ],
)
def test_options_build_and_reload(option, tmp_path):
    model = registry.build(NAME, input_shape=(16, 32, 2), filters=4, **option)
    assert model.output_shape == (None, 16, 32, option.get("classes", 1))
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).standard_normal((1, 16, 32, 2), "float32")
    np.testing.assert_array_equal(model(x), reloaded(x))


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ({"residual_block": "bottelneck"}, "bottleneck"),
        ({"downsampling": "maxpool"}, "max_pool"),
        ({"upsampling": "billinear"}, "bilinear"),
        ({"framework": "keras_2"}, "keras_2_2"),
    ],
)
def test_unknown_choice_names_the_nearest(option, near):
    with pytest.raises(ValueError, match=f"{next(iter(option))}: found .*Did you mean '{near}'"):
        registry.build(NAME, input_shape=(16, 16, 4), filters=4, **option)
