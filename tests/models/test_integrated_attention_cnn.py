"""The facts of iacnn, section 1.1: its three modules by hand, their places, the sizes."""

import keras
import numpy as np
import pytest

from keras_medseg import frameworks, registry
from keras_medseg.models.integrated_attention_cnn import (
    channel_attention,
    scale_features,
    spatial_attention,
)

NAME = "integrated_attention_cnn"
WIDTHS = (16, 32, 64, 128, 256)
ATTENDED = WIDTHS[2:]


def _conv(size: int, inputs: int, outputs: int) -> int:
    return size**2 * inputs * outputs + outputs


def _stage(inputs: int, outputs: int) -> int:
    """Twice 3x3 convolution and norm (4 per channel)."""
    return _conv(3, inputs, outputs) + _conv(3, outputs, outputs) + 2 * 4 * outputs


def _sfa(channels: int) -> int:
    """Equations (1) to (3): three 1x1 and three 3x3 convolutions."""
    return 3 * _conv(1, channels, channels) + 3 * _conv(3, channels, channels)


def _ca(channels: int) -> int:
    return _conv(1, channels, channels // 16) + _conv(1, channels // 16, channels)


BARE = (
    sum(map(_stage, (3, *WIDTHS), WIDTHS))
    + sum(_conv(2, i, o) for i, o in zip((32, 64, 128, 256, 256), WIDTHS))
    + sum(_stage(2 * width, width) for width in WIDTHS)
    + _conv(1, 16, 1)
)
CA = sum(map(_ca, ATTENDED))
CA_ON_CONCATENATIONS = sum(_ca(2 * width) for width in ATTENDED)
WITHOUT_SFA = {"sfa_place": "none"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, BARE + _sfa(256) + CA),
        ({"spatial_reading": "rows"}, BARE + _sfa(256) + CA),
        ({"spatial_scale": "none"}, BARE + _sfa(256) + CA),
        ({"attention_place": "sa"}, BARE + _sfa(256)),
        ({"attention_place": "ca"}, BARE + _sfa(256) + CA),
        ({"sfa_place": "skip"}, BARE + _sfa(32) + CA),
        ({"sfa_place": "stages", "attention_place": "none"}, BARE + sum(map(_sfa, WIDTHS))),
        (WITHOUT_SFA | {"attention_place": "none"}, BARE),
        (WITHOUT_SFA | {"attention_place": "skips"}, BARE + CA),
        (WITHOUT_SFA | {"attention_place": "split"}, BARE + CA_ON_CONCATENATIONS),
        (WITHOUT_SFA | {"attention_place": "joined"}, BARE + CA_ON_CONCATENATIONS),
    ],
)
def test_parameters_by_hand(options, expected):
    # SA has no weights.
    assert registry.build(NAME, **options).count_params() == expected


def test_sizes_of_every_stage():
    """Five halvings of 256 leave 8; five deconvolutions bring it back."""
    model = registry.build(NAME)
    for stage, width in enumerate(WIDTHS, 1):
        size = 512 // 2**stage
        for name in (f"Encode{stage}_conv2_relu", f"Up{stage}", f"Decode{stage}_conv2_relu"):
            assert model.get_layer(name).output.shape == (None, size, size, width)
    assert model.get_layer("SFA").output.shape == (None, 8, 8, 256)
    assert model.output_shape == (None, 256, 256, 1)


def _run(module, x: np.ndarray, weights: dict[str, list[np.ndarray]], **options) -> np.ndarray:
    image = keras.Input(x.shape[1:])
    model = keras.Model(image, module(image, name="M", **options))
    for name, values in weights.items():
        model.get_layer(name).set_weights(values)
    return keras.ops.convert_to_numpy(model(np.float32(x)))


def _correlate(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Zero-padded convolution of (H, W, C), pixel by pixel."""
    margin = kernel.shape[0] // 2
    padded = np.pad(x, ((margin, margin), (margin, margin), (0, 0)))
    size = kernel.shape[0]
    return np.array(
        [
            [
                np.einsum("ijc,ijcf->f", padded[i : i + size, j : j + size], kernel) + bias
                for j in range(x.shape[1])
            ]
            for i in range(x.shape[0])
        ]
    )


def test_sfa_agrees_with_equations_1_to_4():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 4, 5, 2))
    sizes = {"B1": (1, 3, 3), "B2": (1, 3), "B3": (1,)}
    weights, expected = {}, 0
    for branch, kernel_sizes in sizes.items():
        y = x[0]
        for place, size in enumerate(kernel_sizes, 1):
            pair = [rng.standard_normal((size, size, 2, 2)), rng.standard_normal(2)]
            weights[f"M_{branch}_conv{place}"] = pair
            y = _correlate(y, *pair)
        expected = expected + y
    found = _run(scale_features, x, weights, framework=frameworks.PYTORCH)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def _sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z)))


# One image of 2x2 pixels and one channel, x = [[1, 2], [0, -1]].
BY_HAND = {
    # Pixels a, b, c, d = 1, 2, 0, -1 with each other: a adds s(1) 1 + s(2) 2 + s(0) 0 + s(-1) (-1),
    # b adds s(2) 1 + s(4) 2 - s(-2), c adds half of 1 + 2 - 1, d adds s(-1) 1 + s(-2) 2 - s(1).
    "positions": [
        [
            _sigmoid(1) + 2 * _sigmoid(2) - _sigmoid(-1),
            _sigmoid(2) + 2 * _sigmoid(4) - _sigmoid(-2),
        ],
        [1.0, _sigmoid(-1) + 2 * _sigmoid(-2) - _sigmoid(1)],
    ],
    # The one channel with itself: 1 + 4 + 0 + 1 = 6.
    "channels": _sigmoid(6) * np.array([[1, 2], [0, -1]]),
    # Rows (1, 2) and (0, -1) with each other: [[5, -2], [-2, 1]].
    "rows": [
        [_sigmoid(5) * 1 + _sigmoid(-2) * 0, _sigmoid(5) * 2 - _sigmoid(-2)],
        [_sigmoid(-2) * 1 + _sigmoid(1) * 0, _sigmoid(-2) * 2 - _sigmoid(1)],
    ],
}


# Four pixels, one channel, two rows.
TERMS = {"positions": 4, "channels": 1, "rows": 2}


@pytest.mark.parametrize("reading", BY_HAND)
def test_sa_by_hand(reading):
    x = np.array([[1.0, 2.0], [0.0, -1.0]]).reshape(1, 2, 2, 1)
    for scale, divisor in (("none", 1), ("mean", TERMS[reading])):
        found = _run(spatial_attention, x, {}, reading=reading, scale=scale)
        expected = x[0, ..., 0] + np.array(BY_HAND[reading]) / divisor
        np.testing.assert_allclose(found[0, ..., 0], expected, rtol=1e-5)


def _matrices(x: np.ndarray, reading: str) -> np.ndarray:
    """The matrix x of equation (5), or one per channel, from (H, W, C)."""
    if reading == "positions":
        return x.reshape(-1, x.shape[-1])
    if reading == "channels":
        return x.reshape(-1, x.shape[-1]).T
    return np.moveaxis(x, -1, 0)


@pytest.mark.parametrize("reading", BY_HAND)
@pytest.mark.parametrize("scale", ["none", "mean"])
def test_sa_agrees_with_equations_5_and_6(reading, scale):
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 5))
    found = _run(spatial_attention, x, {}, reading=reading, scale=scale)
    for sample, y in zip(x, found):
        rows = _matrices(sample, reading)
        alpha = _sigmoid(rows @ np.swapaxes(rows, -1, -2))
        if scale == "mean":
            alpha = alpha / rows.shape[-2]  # 8 pixels, 5 channels or 2 rows
        np.testing.assert_allclose(_matrices(y, reading), rows + alpha @ rows, rtol=1e-4, atol=1e-5)


def test_ca_by_hand():
    # Two channels over 1x2 pixels: maxima (2, 4), means (1, 3). The MLP keeps the first channel and
    # hands it to both, the second negated: logits +-(2 + 1), and x + beta x = (1 + beta) x.
    x = np.array([[[[0.0, 2.0], [2.0, 4.0]]]])
    weights = {
        "M_reduce": [np.array([[1.0], [0.0]]), np.zeros(1)],
        "M_expand": [np.array([[1.0, -1.0]]), np.zeros(2)],
    }
    found = _run(channel_attention, x, weights, ratio=16, framework=frameworks.PYTORCH)
    np.testing.assert_allclose(found, (1 + _sigmoid([3.0, -3.0])) * x, rtol=1e-5)


def _built(**options) -> keras.Model:
    return registry.build(NAME, input_shape=(32, 32, 3), filters=4, **options)


@pytest.mark.parametrize(
    ("place", "sources", "concatenated"),
    [
        ("skips", {"SA3": "Encode3_conv2_relu", "CA3": "SA3"}, "CA3"),
        ("split", {"SA3": "Encode3_conv2_relu", "CA3": "Concat3"}, "SA3"),
        ("joined", {"SA3": "Concat3", "CA3": "SA3"}, "Encode3_conv2_relu"),
    ],
)
def test_places_of_attention(place, sources, concatenated):
    model = _built(attention_place=place)
    for module, source in sources.items():
        assert model.get_layer(module).input[0] is model.get_layer(source).output
    skip, up = model.get_layer("Concat3").input
    assert skip is model.get_layer(concatenated).output
    assert up is model.get_layer("Up3").output
    names = {layer.name for layer in model.layers}
    assert names & {f"SA{n}" for n in range(9)} == {"SA3", "SA4", "SA5"}
    assert names & {f"CA{n}" for n in range(9)} == {"CA3", "CA4", "CA5"}


@pytest.mark.parametrize(("place", "left"), [("sa", "SA"), ("ca", "CA")])
def test_one_of_the_two_attentions(place, left):
    model = _built(attention_place=place)
    modules = {layer.name for layer in model.layers} & {
        f"{m}{n}" for m in ("SA", "CA") for n in range(9)
    }
    assert modules == {f"{left}{n}" for n in (3, 4, 5)}
    assert model.get_layer(f"{left}3").input[0] is model.get_layer("Encode3_conv2_relu").output


def test_places_of_sfa():
    assert _built().get_layer("SFA_B1_conv1").input.shape == (None, 1, 1, 64)
    stages = _built(sfa_place="stages")
    for stage in range(1, 6):
        features = stages.get_layer(f"SFA{stage}")
        encoded = stages.get_layer(f"Encode{stage}_conv2_relu").output
        assert stages.get_layer(f"SFA{stage}_B3_conv1").input is encoded
        assert stages.get_layer(f"Down{stage}").input is features.output
    skip = _built(sfa_place="skip")
    assert skip.get_layer("SFA_B3_conv1").input is skip.get_layer("Encode2_conv2_relu").output
    assert skip.get_layer("Concat2").input[0] is skip.get_layer("SFA").output
    assert skip.get_layer("Up5").input is skip.get_layer("Down5").output
    assert [layer.name for layer in _built(sfa_place="none").layers if "SFA" in layer.name] == []


def test_positions_are_compared_on_maps_of_64_by_64_pixels_at_most():
    # At 256 pixels the third stage has 64; at 288 it has 72.
    options = dict(filters=2, spatial_reading="positions")
    registry.build(NAME, input_shape=(256, 256, 3), **options)
    found = "'positions' on a map of 72x72 pixels, expected at most 4096"
    with pytest.raises(ValueError, match=found):
        registry.build(NAME, input_shape=(288, 288, 3), **options)


@pytest.mark.parametrize("reading", ["positions", "by_stage"])
def test_positions_need_a_size(reading):
    with pytest.raises(ValueError, match="map of NonexNone pixels"):
        registry.build(NAME, input_shape=(None, None, 3), filters=2, spatial_reading=reading)


@pytest.mark.parametrize("side", [64, 256])
def test_the_reading_follows_the_stage_and_not_the_size(side):
    """alpha is C x C on the third stage, N x N on the fourth and fifth, at any size."""
    model = registry.build(NAME, input_shape=(side, side, 3))
    assert model.get_layer("SA3_sigmoid").output.shape == (None, 1, 64, 64)
    for stage in (4, 5):
        pixels = (side // 2 ** (stage - 1)) ** 2
        assert model.get_layer(f"SA{stage}_sigmoid").output.shape == (None, pixels, pixels)


@pytest.mark.parametrize("scale", ["none", "mean"])
@pytest.mark.parametrize("reading", ["channels", "rows"])
def test_other_readings_take_any_size(reading, scale):
    options = dict(filters=2, spatial_reading=reading, spatial_scale=scale)
    model = registry.build(NAME, input_shape=(None, None, 3), **options)
    fixed = registry.build(NAME, input_shape=(32, 64, 3), **options)
    fixed.set_weights(model.get_weights())
    x = np.random.default_rng(0).random((2, 32, 64, 3), "float32")
    np.testing.assert_allclose(model(x), fixed(x), rtol=1e-5)


def test_pytorch_defaults():
    model = _built()
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 2 * 5 + 2 * 5
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-5)}
    # Of 4 channels and more; a transposed kernel counts its fan-in over the output channels.
    for name, fan_in in (
        *(("Encode1_conv1", 3 * 3 * 3), ("SFA_B1_conv2", 3 * 3 * 64), ("CA5_reduce", 64)),
        *(("Up5", 2 * 2 * 64), ("Output", 4)),
    ):
        layer = model.get_layer(name)
        for initializer in (layer.kernel_initializer, layer.bias_initializer):
            assert isinstance(initializer, keras.initializers.RandomUniform), name
            assert initializer.maxval == -initializer.minval == pytest.approx(fan_in**-0.5), name


def test_wrong_size_names_the_next_valid_one():
    with pytest.raises(ValueError, match=r"divisible by 32.*\(256, 224, 3\)"):
        registry.build(NAME, input_shape=(256, 200, 3))


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ({"sfa_place": "stage"}, "stages"),
        ({"attention_place": "skip"}, "skips"),
        ({"spatial_reading": "position"}, "positions"),
        ({"spatial_scale": "means"}, "mean"),
    ],
)
def test_unknown_choice_names_the_nearest(option, near):
    with pytest.raises(ValueError, match=f"{next(iter(option))}: found .*Did you mean '{near}'"):
        _built(**option)
