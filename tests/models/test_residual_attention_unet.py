"""Table I of dcabes2020 and the parameter counts of its readings."""

import itertools

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


# Channels of the eight blocks: 32 + 64 + 128 + 256 + 256 + 256 + 128 + 64.
WIDTHS = 1184
# A norm has four numbers a channel.
SHORTCUT_NORM = {"separable": 4 * WIDTHS, "bottleneck": 4 * WIDTHS}
# One bias a channel in the shortcut and one in each (last) convolution; the bottleneck has two more
# of a quarter width each, the pair has two convolutions and no shortcut.
BIASES = {"separable": 2 * WIDTHS, "separable_pair": 2 * WIDTHS, "bottleneck": 5 * WIDTHS // 2}


def _cbam_mlps(ratio):
    """Skips of 32, 32, 64 and 128 channels: 2 C h weights, h + C biases."""
    hidden = {channels: channels // ratio for channels in (32, 64, 128)}
    return sum(2 * c * hidden[c] + hidden[c] + c for c in (32, 32, 64, 128))


@pytest.mark.parametrize(
    ("block", "options", "difference"),
    [
        ("separable", {"shortcut_norm": True}, SHORTCUT_NORM["separable"]),
        ("bottleneck", {"shortcut_norm": True}, SHORTCUT_NORM["bottleneck"]),
        ("separable", {"block_bias": False}, -BIASES["separable"]),
        ("separable_pair", {"block_bias": False}, -BIASES["separable_pair"]),
        ("bottleneck", {"block_bias": False}, -BIASES["bottleneck"]),
        ("separable", {"cbam_ratio": 8}, _cbam_mlps(8) - _cbam_mlps(16)),
        ("separable", {"cbam_ratio": 4}, _cbam_mlps(4) - _cbam_mlps(16)),
        ("separable", {"cbam_norm": True}, 4 * 4),
    ],
)
def test_parameters_of_every_option(block, options, difference):
    build = {"residual_block": block, "input_shape": (16, 16, 4)}
    without = registry.build(NAME, **build).count_params()
    assert registry.build(NAME, **build, **options).count_params() - without == difference


def test_the_count_is_compatible_with_many_readings_and_decides_none():
    """All combinations of a lean block, a norm on its shortcut, biases, and CBAM's ratio."""
    blocks = {"separable": 570_265, "separable_pair": 565_177, "bottleneck": 560_393}
    counts = {}
    for block, norm, bias, ratio in itertools.product(blocks, (0, 1), (0, 1), (16, 8, 4)):
        if norm and block not in SHORTCUT_NORM:
            continue
        count = blocks[block] + norm * SHORTCUT_NORM.get(block, 0)
        count += _cbam_mlps(ratio) - _cbam_mlps(16) - (not bias) * BIASES[block]
        counts[block, norm, bias, ratio] = count
    assert len(counts) == 30
    assert (min(counts.values()), max(counts.values())) == (557_433, 583_497)
    assert sum(abs(count - 570_000) <= 0.02 * 570_000 for count in counts.values()) == 28
    rounded = {reading for reading, count in counts.items() if round(count, -4) == 570_000}
    assert len(rounded) == 17
    assert {reading[0] for reading in rounded} == {*blocks}
    assert counts["bottleneck", 1, 1, 16] == 565_129  # He's own, as Keras' ResNet50 has it
    assert counts["bottleneck", 1, 1, 8] == 567_961
    assert counts["bottleneck", 0, 1, 4] == 568_889
    assert counts["separable", 1, 1, 16] == 575_001
    assert counts["bottleneck", 1, 0, 16] == 562_169


@pytest.mark.parametrize(
    ("block", "option"),
    [
        ("separable_pair", {"shortcut_norm": True}),
        ("plain", {"shortcut_norm": True}),
        ("plain_single", {"block_bias": False}),
    ],
)
def test_an_option_that_the_block_lacks_is_refused(block, option):
    with pytest.raises(ValueError, match=f"{next(iter(option))}: found .*{block}"):
        registry.build(NAME, input_shape=(16, 16, 4), filters=4, residual_block=block, **option)


def test_a_norm_on_the_shortcut_follows_its_convolution_and_no_relu_follows_it():
    for block in ("bottleneck", "separable"):
        network = registry.build(
            NAME, input_shape=(16, 16, 4), filters=4, residual_block=block, shortcut_norm=True
        )
        for number in range(1, 9):
            norm = network.get_layer(f"ResBlock{number}_shortcut_bn")
            assert norm.input is network.get_layer(f"ResBlock{number}_shortcut").output
            assert network.get_layer(f"ResBlock{number}_add").input[1] is norm.output


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


def test_cbam_has_biases_in_its_dense_layers_and_no_norm(model):
    """Its convolution has no bias either; the norms of the options follow it."""
    normed = registry.build(NAME, input_shape=(16, 16, 4), filters=16, cbam_norm=True)
    for number, channels in ((9, 32), (8, 32), (7, 64), (6, 128)):
        own = [layer for layer in model.layers if layer.name.startswith(f"CBAM{number}_")]
        weighted = {layer.name.removeprefix(f"CBAM{number}_"): layer for layer in own}
        assert {name for name, layer in weighted.items() if layer.weights} == {
            *("channel_reduce", "channel_expand", "spatial_conv")
        }
        assert weighted["channel_reduce"].bias.shape == (channels // 16,)
        assert weighted["channel_expand"].bias.shape == (channels,)
        assert weighted["channel_reduce"].activation is keras.activations.relu
        convolution = weighted["spatial_conv"]
        assert convolution.bias is None
        assert convolution.kernel.shape == (7, 7, 2, 1)
        assert weighted["spatial_sigmoid"].input is convolution.output
        norm = normed.get_layer(f"CBAM{number}_spatial_bn")
        assert norm.input is normed.get_layer(f"CBAM{number}_spatial_conv").output
        assert normed.get_layer(f"CBAM{number}_spatial_sigmoid").input is norm.output


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


def test_kernels(model):
    sizes = {"Conv1": (3, 3), "Conv2": (3, 3), "Output": (1, 1)}
    for number in range(1, 9):
        sizes |= {f"ResBlock{number}_conv1": (3, 3), f"ResBlock{number}_shortcut": (1, 1)}
    assert {name: model.get_layer(name).kernel_size for name in sizes} == sizes


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
        {"residual_block": "bottleneck", "shortcut_norm": True, "block_bias": False},
        {"cbam_ratio": 8, "cbam_norm": True},
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
