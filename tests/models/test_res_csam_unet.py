"""The facts of csam_knee, sections 2.2 and 2.3, in both readings."""

import keras
import numpy as np
import pytest

from keras_medseg import frameworks, registry
from keras_medseg.models.res_csam_unet import residual_pair, residual_single
from keras_medseg.porting import load_state_dict

NAME = "res_csam_unet"
WIDTHS = (64, 128, 256, 512)


def _conv(size: int, inputs: int, outputs: int) -> int:
    return size**2 * inputs * outputs + outputs


def _fit(inputs: int, outputs: int) -> int:
    return 0 if inputs == outputs else _conv(1, inputs, outputs)


def _pair(inputs: int, outputs: int) -> int:
    return _conv(3, inputs, outputs) + _conv(3, outputs, outputs) + _fit(inputs, outputs)


def _single(size: int, inputs: int, outputs: int) -> int:
    return _conv(size, inputs, outputs) + _fit(inputs, outputs)


def _csam(channels: int) -> int:
    """Two dense layers with biases; the 7x7 kernel over mean and maximum has none."""
    hidden = channels // 16
    return _conv(1, channels, hidden) + _conv(1, hidden, channels) + 7 * 7 * 2


UPS = sum(2 * 2 * 2 * width * width + width for width in WIDTHS)  # 2x2 from 2C to C channels
SKIPS = sum(map(_csam, WIDTHS))
CONSISTENT = (
    sum(map(_pair, (1, *WIDTHS), (*WIDTHS, 1024)))
    + UPS
    + sum(_pair(2 * width, width) for width in WIDTHS)
    + _conv(1, 64, 1)
)
LITERAL = (
    sum(_single(1, i, o) for i, o in zip((1, *WIDTHS, 1024), (*WIDTHS, 1024, 1024)))
    + UPS
    + sum(_single(3, 2 * width, width) for width in WIDTHS)
    + _conv(1, 64, 1)
)


# Four per channel: twice the widths on both sides and 1024 at the bottom, one in each CSAM.
NORMED = 4 * (2 * 2 * (64 + 128 + 256 + 512) + 2 * 1024 + 4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"norm": "batch"}, CONSISTENT + SKIPS + NORMED),
        ({}, CONSISTENT + SKIPS),
        ({"csam_place": "none"}, CONSISTENT),
        ({"csam_place": "decoder"}, CONSISTENT + SKIPS),
        ({"csam_place": "blocks"}, CONSISTENT + 2 * SKIPS + _csam(1024)),
        ({"variant": "literal"}, LITERAL + SKIPS),
        ({"variant": "literal", "csam_place": "none"}, LITERAL),
    ],
)
def test_parameters_by_hand(options, expected):
    assert registry.build(NAME, **options).count_params() == expected


def test_norm_follows_every_convolution_but_the_last():
    # Four per channel: twice the widths on both sides and 1024 at the bottom, one in each CSAM.
    normed = registry.build(NAME, norm="batch", filters=4)
    channels = 2 * 2 * (4 + 8 + 16 + 32) + 2 * 64 + 4
    plain = registry.build(NAME, norm="none", filters=4)
    assert normed.count_params() - plain.count_params() == 4 * channels
    convolutions = {layer.name for layer in plain.layers if "_conv" in layer.name}
    convolutions = {name for name in convolutions if not name.endswith(("relu", "convert"))}
    norms = {layer.name for layer in normed.layers if layer.name.endswith("_bn")}
    assert norms == {f"{name.removesuffix('_conv')}_bn" for name in convolutions}


def _module(model: keras.Model, name: str) -> keras.Model:
    """The part of a network that is the CSAM of this name."""
    x = model.get_layer(f"{name}_channel_scale").input[0]
    return keras.Model(x, model.get_layer(f"{name}_spatial_scale").output)


@pytest.mark.parametrize(("norm", "counts"), [("batch", (680, 2284)), ("none", (678, 2282))])
def test_parameters_of_csam(norm, counts):
    model = registry.build(NAME, norm=norm, variant="literal")
    for level, expected in zip((1, 2), counts):
        weights = _module(model, f"Skip{level}_CSAM").trainable_weights
        assert sum(int(np.prod(w.shape)) for w in weights) == expected


def test_csam_of_the_network_agrees_with_cbam_of_its_authors(read_golden):
    golden = read_golden("cbam_64")
    model = registry.build(NAME, input_shape=(None, None, 1), norm="batch", variant="literal")
    module = _module(model, "Skip1_CSAM")
    names = {
        "Skip1_CSAM_channel_reduce": "ChannelGate.mlp.1",
        "Skip1_CSAM_channel_expand": "ChannelGate.mlp.3",
        "Skip1_CSAM_spatial_conv": "SpatialGate.spatial.conv",
        "Skip1_CSAM_spatial_bn": "SpatialGate.spatial.bn",
    }
    load_state_dict(module, golden.state_dict(), names=names)
    ours = keras.ops.convert_to_numpy(module(golden.image(), training=False))
    assert max(golden.errors([ours])) <= 1


def _on_one_pixel(block, x: list[float], weights: list[tuple[str, float, float]]) -> list[float]:
    """Outputs for samples of one pixel and channel; only a kernel's center meets such an image."""
    image = keras.Input((1, 1, 1))
    model = keras.Model(image, block(image, 1, norm="none", framework=frameworks.PYTORCH, name="B"))
    for name, weight, bias in weights:
        kernel = np.zeros(model.get_layer(name).kernel.shape)
        kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = weight
        model.get_layer(name).set_weights([kernel, np.array([bias])])
    y = model(np.array(x, "float32").reshape(-1, 1, 1, 1))
    return keras.ops.convert_to_numpy(y).ravel().tolist()


def test_residual_pair_by_hand():
    # conv1 = 3x - 4, conv2 = -2h + 5:
    # x =  2: relu( 2) = 2, -4 + 5 = 1, relu(1 + 2) = 3
    # x =  3: relu( 5) = 5, -10 + 5 = -5, relu(-5 + 3) = 0
    # x = -1: relu(-7) = 0, 5, relu(5 - 1) = 4
    weights = [("B_conv1", 3.0, -4.0), ("B_conv2", -2.0, 5.0)]
    assert _on_one_pixel(residual_pair, [2, 3, -1], weights) == [3, 0, 4]


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_residual_single_by_hand(kernel_size):
    # relu(3x - 4) + x: x = 2: 2 + 2; x = -1: 0 - 1, for nothing follows the sum.
    def block(*arguments, **options):
        return residual_single(*arguments, kernel_size=kernel_size, **options)

    assert _on_one_pixel(block, [2, -1], [("B_conv1", 3.0, -4.0)]) == [4, -1]


def test_sizes_of_every_level():
    model = registry.build(NAME)
    for level, width in enumerate(WIDTHS, 1):
        shape = (None, 1024 // 2**level, 1024 // 2**level, width)
        for name in (f"Encode{level}_relu", f"Skip{level}_CSAM_spatial_scale"):
            assert model.get_layer(name).output.shape == shape
        assert model.get_layer(f"Decode{level}_relu").output.shape == shape
    assert model.get_layer("Bottleneck_relu").output.shape == (None, 32, 32, 1024)
    assert model.output_shape == (None, 512, 512, 1)


def test_layers_of_the_literal_reading_are_those_that_the_text_lists():
    model = registry.build(NAME, variant="literal")

    def listed(names):
        return [model.get_layer(f"{name}_conv1").kernel.shape[:2] for name in names], [
            model.get_layer(f"{name}_conv1").filters for name in names
        ]

    encoder = [f"Encode{level}" for level in (1, 2, 3, 4, 5)]
    assert listed([*encoder, "Bottleneck"]) == (6 * [(1, 1)], [64, 128, 256, 512, 1024, 1024])
    decoder = [f"Decode{level}" for level in (4, 3, 2, 1)]
    assert listed(decoder) == (4 * [(3, 3)], [512, 256, 128, 64])
    assert {layer.name for layer in model.layers if "conv2" in layer.name} == set()
    for level in (4, 3, 2, 1):
        up = model.get_layer(f"Up{level}")
        assert (up.kernel_size, up.strides) == ((2, 2), (2, 2))
    pools = [layer for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    assert {pool.strides for pool in pools} == {(2, 2)}
    assert len(pools) == 4


@pytest.mark.parametrize(("variant", "reached"), [("literal", 1), ("consistent", 5 * 5)])
def test_context_of_the_first_level(variant, reached):
    """A 1x1 convolution sees one pixel; two of 3x3 see five by five."""
    keras.utils.set_random_seed(0)
    model = registry.build(NAME, input_shape=(16, 16, 1), variant=variant, filters=32)
    first = keras.Model(model.input, model.get_layer("Encode1_add").output)
    x = np.random.default_rng(0).random((1, 16, 16, 1), "float32")
    other = x.copy()
    other[0, 8, 8] += 1
    change = np.abs(keras.ops.convert_to_numpy(first(other)) - first(x)).max(axis=-1)
    assert np.count_nonzero(change > 1e-6) == reached


def test_csam_weights_what_the_decoder_is_handed_and_not_what_goes_down():
    model = registry.build(NAME, input_shape=(16, 16, 1), filters=4)
    encoded = model.get_layer("Encode1_relu").output
    assert model.get_layer("Down1").input is encoded
    assert model.get_layer("Skip1_CSAM_channel_scale").input[0] is encoded
    skip, up = model.get_layer("Concat1").input
    assert skip is model.get_layer("Skip1_CSAM_spatial_scale").output
    assert up is model.get_layer("Up1").output


def test_channel_attention_comes_before_spatial_attention():
    model = registry.build(NAME, input_shape=(16, 16, 1), filters=4)
    weighted = model.get_layer("Skip1_CSAM_channel_scale").output
    assert model.get_layer("Skip1_CSAM_spatial_scale").input[0] is weighted


def test_pytorch_defaults():
    model = registry.build(NAME, filters=16)
    for name, fan_in in (("Encode2_conv1", 3 * 3 * 16), ("Up4", 2 * 2 * 128)):
        kernel, bias = model.get_layer(name).get_weights()
        for values in (kernel, bias):
            assert 0.8 / fan_in**0.5 < np.abs(values).max() <= 1 / fan_in**0.5
    normed = registry.build(NAME, filters=4, norm="batch").get_layer("Encode1_conv1_bn")
    assert (normed.momentum, normed.epsilon) == (0.9, 1e-5)


def test_softmax_over_ligament_and_background():
    model = registry.build(
        NAME, input_shape=(16, 16, 1), filters=4, classes=2, activation="softmax"
    )
    x = np.random.default_rng(0).random((1, 16, 16, 1), "float32")
    y = keras.ops.convert_to_numpy(model(x))
    assert y.shape == (1, 16, 16, 2)
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-6)


def test_wrong_size_names_the_next_valid_one():
    with pytest.raises(ValueError, match=r"divisible by 16.*\(512, 208, 1\)"):
        registry.build(NAME, input_shape=(512, 200, 1))


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ({"variant": "litteral"}, "literal"),
        ({"csam_place": "skip"}, "skips"),
        ({"norm": "batchnorm"}, "batch"),
    ],
)
def test_unknown_choice_names_the_nearest(option, near):
    with pytest.raises(ValueError, match=f"{next(iter(option))}: found .*Did you mean '{near}'"):
        registry.build(NAME, input_shape=(16, 16, 1), filters=4, **option)
