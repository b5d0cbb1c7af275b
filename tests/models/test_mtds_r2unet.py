"""The facts of mtds2021, sections 2.1 to 2.3, and the ablations of its Tables 1, 3 and 4."""

import keras
import numpy as np
import pytest

from keras_medseg import frameworks, registry
from keras_medseg.models.mtds_r2unet import apr

NAME = "mtds_r2unet"
# Networks that the paper retrains for Table 6, by their names here.
BASELINES = ("unet", "dresunet", "resunetpp", "deeplabv3plus", "pspnet")


# The third structure of Table 3 has the shortcut and no APR.
GATED = {"supervision": "none", "encoder_block": "residual"}


@pytest.fixture(scope="module")
def model():
    return registry.build(NAME)


def _names(model: keras.Model) -> set[str]:
    return {layer.name for layer in model.layers}


def _conv(size: int, inputs: int, outputs: int) -> int:
    return size**2 * inputs * outputs + outputs


def _unit(inputs: int, outputs: int) -> int:
    """Twice norm (4 per channel) and 3x3 convolution."""
    return 4 * inputs + _conv(3, inputs, outputs) + 4 * outputs + _conv(3, outputs, outputs)


def _excite(channels: int) -> int:
    return _conv(1, channels, channels // 16) + _conv(1, channels // 16, channels)


def test_parameters_by_hand(model):
    widths, inputs = (32, 64, 128, 256), (4, 32, 64, 128)
    units = sum(_unit(i, o) for i, o in zip(inputs, widths))
    shortcuts = sum(_conv(1, i, o) for i, o in zip(inputs, widths))
    gates = sum(width + 1 for width in widths)
    decoder = sum(_unit(3 * width, width) for width in widths[:3])  # skip and what comes up
    excite = sum(map(_excite, (*widths, *widths[:3])))
    heads = sum(width + 1 for width in widths[:3])
    main = units + decoder + excite + _conv(1, 32, 1)
    assert model.count_params() == main + shortcuts + gates + heads
    for overrides, expected in {
        ("none", "apr"): main + shortcuts + gates,
        ("none", "residual"): main + shortcuts,
        ("none", "plain"): main,
    }.items():
        options = dict(zip(("supervision", "encoder_block"), overrides))
        assert registry.build(NAME, **options).count_params() == expected, overrides


def test_gates_of_one_scale_by_hand():
    # Per skip of C channels, up of 2C: 1x1 convolutions 2C -> C/2, C -> C/2 and C/2 -> 1, a norm
    # after each.
    gates = sum(
        _conv(1, 2 * c, c // 2) + _conv(1, c, c // 2) + 2 * 4 * (c // 2) + _conv(1, c // 2, 1) + 4
        for c in (32, 64, 128)
    )
    gated = registry.build(NAME, skip_gates="same_scale", **GATED)
    assert gated.count_params() - registry.build(NAME, **GATED).count_params() == gates
    # What is gated is the skip, and the gate sees the decoder.
    assert {f"Gate{level}_scale" for level in (1, 2, 3)} <= _names(gated)
    assert gated.get_layer("Gate1_x").input is gated.get_layer("SE1_scale").output
    assert gated.get_layer("Gate1_g").input is gated.get_layer("Up1").output


def test_oktays_gates_by_hand():
    # Per gated skip of C channels: theta 2x2 without bias, phi 2C -> C, psi C -> 1, and W with its
    # norm; no norm in the gate. Once: the bottom's own 1x1 convolution with its norm.
    gates = sum(
        4 * c**2 + _conv(1, 2 * c, c) + _conv(1, c, 1) + _conv(1, c, c) + 4 * c for c in (64, 128)
    )
    gates += _conv(1, 256, 256) + 4 * 256
    gated = registry.build(NAME, skip_gates="oktay", **GATED)
    assert gated.count_params() - registry.build(NAME, **GATED).count_params() == gates


def test_oktays_gates_see_the_level_below_and_spare_the_finest_skip():
    """The scale difference that section 3.6.1 speaks of: the signal has half the resolution."""
    gated = registry.build(NAME, skip_gates="oktay", **GATED)

    def layer(name):
        return gated.get_layer(name)

    assert layer("Gating").input is layer("SE4_scale").output
    signals = {3: layer("Gating_relu").output, 2: layer("SE5_scale").output}
    for level, signal in signals.items():
        skip = layer(f"SE{level}_scale").output
        assert layer(f"Gate{level}_theta").input is skip
        assert layer(f"Gate{level}_phi").input is signal
        assert layer(f"Gate{level}_theta").output.shape[1] == skip.shape[1] // 2 == signal.shape[1]
        assert layer(f"Gate{level}_scale").input[0] is skip
        assert layer(f"Gate{level}_scale").input[1] is layer(f"Gate{level}_up").output
        assert layer(f"Concat{level}").input[0] is layer(f"Gate{level}_W_bn").output
        # What goes up is the ungated map.
        assert layer(f"Up{level}").input is layer(f"SE{7 - level}_scale").output
    norms = [name for name in _names(gated) if name.startswith("Gat") and name.endswith("_bn")]
    assert sorted(norms) == ["Gate2_W_bn", "Gate3_W_bn", "Gating_bn"]
    assert not [name for name in _names(gated) if name.startswith("Gate1")]
    assert layer("Concat1").input[0] is layer("SE1_scale").output


def test_added_skips_of_linknet_by_hand():
    # Joined, a block of level C reads C instead of 3C channels; 2C -> C by a 1x1 convolution.
    added = registry.build(NAME, supervision="none", skips="add")
    saved = sum(_unit(3 * c, c) - _unit(c, c) - _conv(1, 2 * c, c) for c in (32, 64, 128))
    assert registry.build(NAME, supervision="none").count_params() - added.count_params() == saved
    skip, upper = added.get_layer("Sum2").input
    assert skip is added.get_layer("SE2_scale").output
    assert upper is added.get_layer("Up2").output


def test_modules_that_the_text_counts(model):
    """Section 2.1: 4 APR, 7 SE, 3 down- and 3 up-samplings, 3 blocks, one 1x1 convolution."""
    kinds = {
        "APR{}_gate": 4,
        "SE{}_scale": 7,
        "Down{}": 3,
        "Up{}": 3,
        "PreActivation{}_conv2": 3,
        "Output{}": 3,
    }
    for pattern, count in kinds.items():
        found = {number for number in range(10) if pattern.format(number) in _names(model)}
        assert found == set(range(1, count + 1)), pattern
    assert model.get_layer("Output_conv").kernel.shape == (1, 1, 32, 1)


def test_se_stands_behind_each_block_and_before_skip_and_pooling(model):
    assert model.get_layer("APR1_conv1_bn").input is model.input
    for level in (1, 2, 3, 4):
        excited = model.get_layer(f"SE{level}_scale")
        assert excited.input[0] is model.get_layer(f"APR{level}_gate").output
        if level < 4:
            assert model.get_layer(f"Down{level}").input is excited.output
            skip, upper = model.get_layer(f"Concat{level}").input
            assert skip is excited.output
            assert upper is model.get_layer(f"Up{level}").output
            decoded = model.get_layer(f"PreActivation{level}_conv2").output
            assert model.get_layer(f"SE{8 - level}_scale").input[0] is decoded


def test_no_layer_is_called_twice(model):
    """A recurrent convolution shares its weights between calls, so that counts do not show it."""
    assert {len(layer._inbound_nodes) for layer in model.layers} == {1}


def test_the_main_output_is_that_of_the_whole_decoder(model):
    assert model.outputs[0] is model.get_layer("Output").output
    assert model.get_layer("Output").input is model.get_layer("Output_conv").output
    assert model.get_layer("Output_conv").input is model.get_layer("SE7_scale").output
    assert model.get_layer("Output").activation is keras.activations.sigmoid


def test_sizes_of_every_level(model):
    for level, (size, width) in enumerate(
        [((144, 176), 32), ((72, 88), 64), ((36, 44), 128), ((18, 22), 256)], 1
    ):
        assert model.get_layer(f"APR{level}_gate").output.shape[1:] == (*size, width)
        if level < 4:
            shape = model.get_layer(f"PreActivation{level}_conv2").output.shape
            assert shape[1:] == (*size, width)
    assert model.output_names == ["Output", "Output1", "Output2", "Output3"]
    assert model.output_shape == [(None, 144, 176, 1)] * 4


# Reading -> what the heads of enhancing tumor, necrosis and edema are put on, and its level.
HEADS = {
    "encoder": [("SE1_scale", 1), ("SE2_scale", 2), ("SE3_scale", 3)],
    "decoder": [("SE7_scale", 1), ("SE6_scale", 2), ("SE5_scale", 3)],
    "coarse_to_fine": [("SE5_scale", 3), ("SE6_scale", 2), ("SE7_scale", 1)],
    "branches": [(f"Branch{task}_SE7_scale", 1) for task in (1, 2, 3)],
}


@pytest.mark.parametrize("reading", HEADS)
def test_what_each_head_sees(reading):
    model = registry.build(NAME, supervision=reading, filters=4)
    for number, (source, level) in enumerate(HEADS[reading], 1):
        convolution = model.get_layer(f"Output{number}_conv")
        assert convolution.input is model.get_layer(source).output
        assert convolution.output.shape[1:] == (144 // 2 ** (level - 1), 176 // 2 ** (level - 1), 1)
        head = keras.Model(model.input, model.get_layer(f"Output{number}").output)
        # A head on the encoder hears nothing from a decoder.
        assert any("Up3" in name for name in _names(head)) == (reading != "encoder")
    assert model.output_shape == [(None, 144, 176, 1)] * 4


def test_each_branch_is_a_decoder_of_its_own(model):
    """Decoders share the encoder and no weight: two thirds more parameters than the other readings,
    and more than ResUNet++ has."""
    branched = registry.build(NAME, supervision="branches")
    decoder = sum(_unit(3 * c, c) + _excite(c) for c in (32, 64, 128))
    bare = registry.build(NAME, supervision="none").count_params()
    assert branched.count_params() == bare + 3 * (decoder + _conv(1, 32, 1))
    assert branched.count_params() > registry.card("resunetpp").parameters > model.count_params()
    one = keras.Model(branched.input, branched.get_layer("Output2").output)
    assert not {"Up3", "PreActivation3_conv1", "Branch1_Up3"} & _names(one)
    for level in (3, 2, 1):
        skip, raised = branched.get_layer(f"Branch2_Concat{level}").input
        assert skip is branched.get_layer(f"SE{level}_scale").output
        assert raised is branched.get_layer(f"Branch2_Up{level}").output


def test_the_network_without_heads_gives_the_same_whole_tumor():
    trained = registry.build(NAME, input_shape=(16, 24, 4), filters=4)
    bare = registry.build(NAME, input_shape=(16, 24, 4), filters=4, supervision="none")
    for layer in bare.layers:
        layer.set_weights(trained.get_layer(layer.name).get_weights())
    x = np.random.default_rng(0).standard_normal((2, 16, 24, 4), "float32")
    np.testing.assert_array_equal(bare(x), trained(x)[0])


@pytest.mark.parametrize("gate", ["pixel", "element"])
def test_apr_by_hand(gate):
    # F is 0 and the shortcut the identity, so x1 = x = (2, -3). All gate weights 1 and biases -1:
    # sigmoid(relu(2) + relu(-3) - 1), for the pixel or for each of its elements.
    image = keras.Input((1, 1, 2))
    model = keras.Model(
        image, apr(image, 2, gate=gate, framework=frameworks.TENSORFLOW_2, name="APR")
    )
    model.get_layer("APR_conv2").set_weights([np.zeros((3, 3, 2, 2)), np.zeros(2)])
    model.get_layer("APR_shortcut").set_weights([np.eye(2)[None, None], np.zeros(2)])
    channels = {"pixel": 1, "element": 2}[gate]
    kernel = np.ones((1, 1, 2, channels))
    model.get_layer("APR_gate_conv").set_weights([kernel, np.full(channels, -1.0)])
    x = np.array([2.0, -3.0], "float32").reshape(1, 1, 1, 2)
    weight = 1 / (1 + np.exp(-(2 + 0 - 1)))
    y = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(y, weight * x, rtol=1e-6)


def test_apr_weights_the_sum_of_a_pre_activation_unit(model):
    """Norm, ReLU, convolution, twice; x itself through the shortcut; the gate sees the sum."""
    for level in (1, 2, 3, 4):

        def layer(part, level=level):
            return model.get_layer(f"APR{level}_{part}")

        x = model.input if level == 1 else model.get_layer(f"Down{level - 1}").output
        assert layer("shortcut").input is x
        for conv, before in (("conv1", x), ("conv2", layer("conv1").output)):
            assert layer(f"{conv}_bn").input is before
            assert layer(f"{conv}_relu").input is layer(f"{conv}_bn").output
            assert layer(conv).input is layer(f"{conv}_relu").output
            assert layer(conv).kernel.shape[:2] == (3, 3)
        total = layer("add")
        assert total.input[0] is layer("conv2").output
        assert total.input[1] is layer("shortcut").output
        assert layer("gate_relu").input is total.output
        assert layer("gate_conv").input is layer("gate_relu").output
        assert layer("gate_sigmoid").input is layer("gate_conv").output
        assert layer("gate").input[0] is total.output
        assert layer("gate").input[1] is layer("gate_sigmoid").output


def test_an_activated_shortcut_shares_the_first_norm_and_relu(model):
    """As in the code of He et al.; the same parameters, and the image passes the ReLU as well."""
    activated = registry.build(NAME, shortcut="activated")
    assert activated.count_params() == model.count_params()
    for level in (1, 2, 3, 4):
        branches = [activated.get_layer(f"APR{level}_{part}") for part in ("conv1", "shortcut")]
        relu = activated.get_layer(f"APR{level}_conv1_relu")
        assert all(branch.input is relu.output for branch in branches)


def test_dropout_of_se_is_an_option(model):
    assert model.get_layer("SE7_dropout").rate == 0.2
    without = registry.build(NAME, se_dropout=0.0, filters=4)
    assert [name for name in _names(without) if "dropout" in name] == []


def test_tensorflow_2_defaults(model):
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 2 * 4 + 2 * 3
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.99, 1e-3)}
    assert model.get_layer("Up1").interpolation == "nearest"
    # Convolutions and SE's dense layers.
    initializers = {
        (part, type(getattr(layer, part)))
        for layer in model.layers
        for part in ("kernel_initializer", "bias_initializer")
        if hasattr(layer, part)
    }
    assert initializers == {
        ("kernel_initializer", keras.initializers.GlorotUniform),
        ("bias_initializer", keras.initializers.Zeros),
    }


@pytest.mark.parametrize("baseline", BASELINES)
def test_fewer_parameters_than_the_retrained_baselines(baseline, model):
    """Table 6: "our method has the least number of parameters".

    The cards count with three channels; the paper's four only add.
    """
    assert registry.card(baseline).input_shape[-1] <= 4
    assert model.count_params() < registry.card(baseline).parameters


def test_wrong_size_names_the_next_valid_one():
    with pytest.raises(ValueError, match=r"divisible by 8.*\(144, 176, 4\)"):
        registry.build(NAME, input_shape=(140, 170, 4))


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ({"encoder_block": "arp"}, "apr"),
        ({"gate": "pixels"}, "pixel"),
        ({"supervision": "decode"}, "decoder"),
        ({"skip_gates": "oktai"}, "oktay"),
        ({"skips": "added"}, "add"),
        ({"shortcut": "activate"}, "activated"),
    ],
)
def test_unknown_choice_names_the_nearest(option, near):
    with pytest.raises(ValueError, match=f"{next(iter(option))}: found .*Did you mean '{near}'"):
        registry.build(NAME, input_shape=(16, 16, 4), filters=4, **option)
