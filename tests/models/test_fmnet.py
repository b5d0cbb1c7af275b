"""The facts of fmnet2023: the authors' code [C], the text, and where the two part."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_medseg import registry

NAME = "fmnet"
# Trainable parameters of the authors' code without heads: (attention, blocks) -> 3-D, 2-D.
GRID = {
    (False, 0): (25_885_507, 8_630_851),
    (False, 1): (40_042_307, 13_350_467),
    (False, 2): (54_199_107, 18_070_083),
    (True, 0): (25_974_239, 8_719_583),
    (True, 1): (40_131_039, 13_439_199),
    (True, 2): (54_287_839, 18_158_815),
}
SMALL = {"input_shape": (32, 32, 32, 4), "filters": 2}
BARE = {"attention": False, "bottleneck_blocks": 0, "supervision_heads": 0}
WIDTHS = (32, 64, 128, 256, 512)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def trainable(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, "float32")


def outputs(model: keras.Model, x: np.ndarray) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


def sources(model: keras.Model, name: str) -> set[str]:
    """Names of the layers that the one called `name` depends on."""
    return {layer.name for layer in keras.Model(model.input, model.get_layer(name).output).layers}


@pytest.mark.parametrize(("attention", "blocks"), GRID)
def test_parameters_of_the_code(attention, blocks):
    # The size of the input does not enter.
    for dimensions, expected in zip((3, 2), GRID[attention, blocks]):
        shape = (*(32,) * dimensions, 4)
        model = registry.build(
            NAME,
            input_shape=shape,
            dimensions=dimensions,
            attention=attention,
            bottleneck_blocks=blocks,
            supervision_heads=0,
        )
        assert trainable(model) == expected


@pytest.mark.parametrize(("dimensions", "expected"), [(3, 54_288_133), (2, 18_159_109)])
def test_parameters_of_the_final_network(dimensions, expected):
    model = registry.build(NAME, dimensions=dimensions)
    assert trainable(model) == expected
    # 64 to 3 and 32 to 3 with bias.
    assert expected - GRID[True, 2][3 - dimensions] == 64 * 3 + 3 + 32 * 3 + 3
    assert model.input_shape == (None, *(128,) * dimensions, 4)
    assert model.output_shape == [(None, *(128,) * dimensions, 3)] * 3


def test_each_bottleneck_block_of_the_code_is_two_convolutions():
    def count(blocks):
        return trainable(registry.build(NAME, bottleneck_blocks=blocks, **SMALL))

    # 32 channels at the bottom.
    assert {count(n + 1) - count(n) for n in range(4)} == {2 * (27 * 32 * 32 + 32)}


def conv(inputs: int, filters: int, size: int = 3) -> int:
    """Weights of a 3-D convolution with bias."""
    return size**3 * inputs * filters + filters


def rising(decoder: tuple[int, ...]) -> int:
    """Weights on the way up: transposed convolutions, gates, and the first convolution of each
    stage, which sees the gated skip and as many up-sampled maps."""
    total, below = 0, 512
    for skip, width in zip((256, 128, 64, 32), decoder):
        inner = skip // 2
        total += conv(below, skip) + conv(2 * skip, width)
        # 1x1x1 convolutions of signal and skip, and psi; scale and shift of the norm after each.
        total += conv(below, inner, 1) + conv(skip, inner, 1) + 4 * inner + conv(inner, 1, 1) + 2
        below = width
    return total


def test_parameters_of_the_text_by_hand():
    """V-E: five blocks, a "two-layered bottleneck", a decoder that mirrors the encoder."""
    encoder = sum(conv(i, o) + conv(o, o) for i, o in zip((4, *WIDTHS), WIDTHS))
    bottleneck = 2 * conv(512, 512)
    second = sum(conv(width, width) for width in (256, 128, 64, 32))
    heads = conv(128, 3) + conv(64, 3) + conv(32, 3, 1)
    expected = encoder + bottleneck + rising((256, 128, 64, 32)) + second + heads
    assert expected == 40_190_117
    model = registry.build(NAME, variant="paper", input_shape=(32, 32, 32, 4))
    assert trainable(model) == expected


def test_parameters_of_the_figure_by_hand():
    """Figure 6: the fifth level is the bottleneck, the last stage has one convolution, the decoder
    is half as wide."""
    widths = WIDTHS[:4]
    encoder = sum(conv(i, o) + conv(o, o) for i, o in zip((4, *widths), widths))
    bottleneck = conv(256, 512) + conv(512, 512)
    second = sum(conv(width, width) for width in (128, 64, 32))
    heads = conv(64, 3) + conv(32, 3) + conv(32, 3, 1)
    expected = encoder + bottleneck + rising((128, 64, 32, 32)) + second + heads
    assert expected == 21_341_797
    model = registry.build(NAME, variant="figure", input_shape=(32, 32, 32, 4))
    assert trainable(model) == expected


def test_the_figure_has_no_norm_but_those_of_the_gates():
    model = registry.build(NAME, variant="figure", **SMALL)
    assert not [x for x in model.layers if isinstance(x, layers.GroupNormalization)]
    assert not [x for x in model.layers if x.name.startswith("Encode5")]
    bottom = [f"Bottleneck{number}_conv1" for number in (1, 2)]
    assert [model.get_layer(name).filters for name in bottom] == [32, 32]
    assert model.get_layer(bottom[0]).output.shape[1:4] == (2, 2, 2)
    last = [x.name for x in model.layers if x.name.startswith("Decode4_conv")]
    assert last == ["Decode4_conv1", "Decode4_conv1_leaky"]
    assert model.get_layer("Output_conv").input is model.get_layer(last[1]).output


def test_heads_of_the_figure_hardly_say_no():
    """Convolution, leaky ReLU, sigmoid: a response of -50 becomes -1, which is 0.27."""
    model = registry.build(NAME, variant="figure", **SMALL)
    for number in (1, 2):
        head = model.get_layer(f"Supervision{number}_conv")
        head.set_weights([np.zeros_like(head.get_weights()[0]), np.full(3, -50, "float32")])
    _, *heads = outputs(model, noise((1, 32, 32, 32, 4)))
    for head in heads:
        np.testing.assert_allclose(head, 1 / (1 + np.exp(1)), rtol=1e-5)


@pytest.mark.parametrize(("filters", "levels"), [(32, 2), (8, 4)])
def test_fewer_levels_by_hand(filters, levels):
    """V-D: kernel numbers of [32, 64] and [8, 16, 32, 64], here of the plain U-Net of the code."""
    widths = [filters * 2**level for level in range(levels)]
    expected = sum(conv(i, o) + conv(o, o) for i, o in zip([4, *widths], widths))
    for below, width in zip(widths[::-1], widths[-2::-1]):
        expected += conv(below, width) + conv(2 * width, width) + conv(width, width)
    expected += conv(filters, 3, 1)
    options = {"input_shape": (32, 32, 32, 4), "filters": filters, "levels": levels}
    assert trainable(registry.build(NAME, **BARE, **options)) == expected


def test_seven_levels_halve_six_times():
    """V-D: [32, 64, 128, 256, 512, 1024, 2048], of a 64th here."""
    options = {"input_shape": (128, 64, 64, 4), "levels": 7, "filters": 1}
    model = registry.build(NAME, **options, supervision_heads=0)
    bottom = model.get_layer("Encode7_conv2").output
    assert bottom.shape[1:] == (2, 1, 1, 64)
    assert model.get_layer("Decode6_conv2").filters == 1


def close(gate: layers.Layer) -> None:
    """Let psi be the same for every voxel, whatever comes in."""
    gate.set_weights([np.zeros_like(weight) for weight in gate.get_weights()])


def change_below(model: keras.Model, seed: int) -> float:
    """By how much the main output moves when all weights below the first level are drawn anew."""
    first_level = ("Encode1", "Up4", "Gate4", "Decode4", "Output", "Supervision")
    x = noise((1, 32, 32, 32, 4))
    before = outputs(model, x)[0]
    for layer in model.layers:
        if not layer.name.startswith(first_level):
            for weight in layer.trainable_weights:
                weight.assign(noise(weight.shape, seed))
    return float(np.abs(outputs(model, x)[0] - before).max())


def test_decoder_sees_what_comes_up_through_the_gate_alone():
    """[C] concatenates [skip, gated skip]: behind a constant gate nothing is left of the rest."""
    model = registry.build(NAME, **{**SMALL, "filters": 8})
    skip = model.get_layer("Encode1_conv2_leaky").output
    joined = model.get_layer("Concat4").input
    assert joined[0] is skip
    assert joined[1] is model.get_layer("Gate4_scale").output
    assert change_below(model, seed=1) > 1e-3
    close(model.get_layer("Gate4_psi"))
    assert change_below(model, seed=2) == 0


def test_the_paper_and_a_plain_unet_see_it_directly():
    plain = registry.build(NAME, attention=False, **SMALL)
    names = ("paper", "figure", "code_with_up")
    gated = [registry.build(NAME, variant=name, **SMALL) for name in names]
    for model in gated:
        close(model.get_layer("Gate4_psi"))
    for model in (*gated, plain):
        assert change_below(model, seed=1) > 1e-3


def test_the_code_with_up_differs_in_what_is_joined_alone():
    code, with_up = (registry.build(NAME, variant=v, **SMALL) for v in ("code", "code_with_up"))
    assert [w.shape for w in with_up.weights] == [w.shape for w in code.weights]
    assert [layer.name for layer in with_up.layers] == [layer.name for layer in code.layers]
    gated, raised = with_up.get_layer("Concat4").input
    assert gated is with_up.get_layer("Gate4_scale").output
    assert raised is with_up.get_layer("Up4_conv_leaky").output
    assert with_up.get_layer("Gate4_g").input is raised


def test_heads_of_the_code_are_on_stages_3_and_4():
    model = registry.build(NAME, **SMALL)
    stages = [model.get_layer(f"Decode{stage}_conv2_leaky").output for stage in (3, 4)]
    for number, stage in enumerate(stages, 1):
        head = model.get_layer(f"Supervision{number}_conv")
        assert head.input is stage
        assert head.kernel_size == (1, 1, 1)
    # The second head hears the very tensor that the main output is made of.
    assert model.get_layer("Output_conv").input is stages[1]
    assert [stage.shape[1:] for stage in stages] == [(16, 16, 16, 4), (32, 32, 32, 2)]
    assert model.output_names == ["Output", "Supervision1", "Supervision2"]


@pytest.mark.parametrize("variant", ["paper", "figure"])
def test_heads_of_the_paper_are_at_a_quarter_and_half_of_the_size(variant):
    """Figure 6: 3x3x3 convolutions at 32^3 and 64^3, where the network takes 128^3."""
    model = registry.build(NAME, variant=variant, **SMALL)
    heads = [model.get_layer(f"Supervision{number}_conv") for number in (1, 2)]
    assert [head.input.shape[1:4] for head in heads] == [(8, 8, 8), (16, 16, 16)]
    assert [head.kernel_size for head in heads] == [(3, 3, 3)] * 2
    assert model.output_shape == [(None, 32, 32, 32, 3)] * 3


@pytest.mark.parametrize(
    ("variant", "stages"),
    [
        ("code", {1: [4], 2: [3, 4], 3: [2, 3, 4]}),
        ("paper", {1: [3], 2: [2, 3], 3: [1, 2, 3]}),
        ("figure", {1: [3], 2: [2, 3], 3: [1, 2, 3]}),
    ],
)
def test_fewer_and_more_heads(variant, stages):
    for heads, expected in stages.items():
        model = registry.build(NAME, variant=variant, supervision_heads=heads, **SMALL)
        deepest = [
            max(stage for stage in range(1, 5) if f"Decode{stage}_conv1" in names)
            for names in (sources(model, f"Supervision{n}") for n in range(1, heads + 1))
        ]
        assert deepest == expected


@pytest.mark.parametrize("variant", ["code", "paper", "figure"])
def test_network_without_heads_gives_the_same_main_output(variant):
    trained = registry.build(NAME, variant=variant, **SMALL)
    bare = registry.build(NAME, variant=variant, supervision_heads=0, **SMALL)
    for layer in bare.layers:
        layer.set_weights(trained.get_layer(layer.name).get_weights())
    x = noise((1, 32, 32, 32, 4))
    np.testing.assert_array_equal(outputs(bare, x)[0], outputs(trained, x)[0])


def test_code_has_two_norms_in_a_block_and_the_paper_one():
    for variant, norms in (("code", {1, 2}), ("paper", {1})):
        model = registry.build(NAME, variant=variant, input_shape=(32, 32, 32, 4), filters=2)
        found = {layer.name for layer in model.layers if layer.name.startswith("Encode3_conv")}
        parts = {f"Encode3_conv{n}{part}" for n in (1, 2) for part in ("", "_leaky")}
        assert found == parts | {f"Encode3_conv{n}_in" for n in norms}


def test_paper_halves_by_a_pool_of_2x2x3():
    """Of its axes D, H, W the last one runs along x."""
    model = registry.build(NAME, variant="paper", **BARE, **SMALL)
    pools = [layer for layer in model.layers if isinstance(layer, layers.MaxPooling3D)]
    assert {(pool.pool_size, pool.strides) for pool in pools} == {((3, 2, 2), (2, 2, 2))}
    assert model.get_layer("Encode5_conv1").output.shape[1:4] == (2, 2, 2)
    # Along x one voxel of the next pair takes part: of 0 1 2 3 the maxima are 2 and 3.
    row = np.arange(4, dtype="float32").reshape(1, 4, 1, 1, 1) * np.ones((1, 1, 2, 2, 1), "f4")
    assert np.ravel(pools[0](row)).tolist() == [2, 3]


def test_paper_goes_up_by_transposed_convolutions():
    model = registry.build(NAME, variant="paper", **SMALL)
    for stage, width in zip(range(1, 5), (16, 8, 4, 2)):
        rise = model.get_layer(f"Up{stage}_conv")
        assert isinstance(rise, layers.Conv3DTranspose)
        assert (rise.kernel_size, rise.filters) == ((3, 3, 3), width)
        # The signal is the level below, before it comes up.
        assert model.get_layer(f"Gate{stage}_g").input is rise.input
        gated, raised = model.get_layer(f"Concat{stage}").input
        assert gated is model.get_layer(f"Gate{stage}_scale").output
        assert raised is model.get_layer(f"Up{stage}_conv_leaky").output


def test_defaults_of_pytorch():
    model = registry.build(NAME, **SMALL)
    norms = [layer for layer in model.layers if isinstance(layer, layers.GroupNormalization)]
    # Two in each of five encoder, two bottleneck and four decoder blocks, one on each way up.
    assert len(norms) == 2 * (5 + 2 + 4) + 4
    assert {norm.epsilon for norm in norms} == {1e-5}
    assert [weight for norm in norms for weight in norm.weights] == []
    slopes = {layer.negative_slope for layer in model.layers if isinstance(layer, layers.LeakyReLU)}
    assert slopes == {0.02}
    batch_norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    # Three in each gate. PyTorch's momentum of 0.1 is the weight of the new value.
    assert len(batch_norms) == 3 * 4
    assert {(norm.momentum, norm.epsilon) for norm in batch_norms} == {(0.9, 1e-5)}
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv3D)]
    assert len(convolutions) == 2 * (5 + 2 + 4) + 4 + 3 * 4 + 3
    for layer in convolutions:
        bound = 1 / np.sqrt(np.prod(layer.kernel.shape[:-1]))
        for initializer in (layer.kernel_initializer, layer.bias_initializer):
            assert isinstance(initializer, keras.initializers.RandomUniform)
            assert (initializer.minval, initializer.maxval) == pytest.approx((-bound, bound))


@pytest.mark.parametrize("variant", ["code", pytest.param("paper", marks=pytest.mark.slow)])
def test_checkpointing_changes_nothing_but_memory(variant):
    options = {"variant": variant, "dimensions": 2, "input_shape": (32, 32, 4), "filters": 2}
    plain = registry.build(NAME, **options)
    twice = registry.build(NAME, checkpointing=True, **options)
    assert [w.path for w in twice.weights] == [w.path for w in plain.weights]
    twice.set_weights(plain.get_weights())
    x = noise((1, 32, 32, 4))
    y = [np.float32(output > output.mean()) for output in outputs(plain, x)]
    for before, after in zip(outputs(plain, x), outputs(twice, x)):
        np.testing.assert_array_equal(before, after)
    untrained = plain.get_weights()
    for model in (plain, twice):
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
        model.train_on_batch(x, y)
    for old, before, after in zip(untrained, plain.get_weights(), twice.get_weights()):
        np.testing.assert_allclose(after - old, before - old, atol=1e-6)


def test_any_size_without_heads():
    options = {"supervision_heads": 0, "filters": 2}
    anysize = registry.build(NAME, input_shape=(None, None, None, 4), **options)
    fixed = registry.build(NAME, input_shape=(32, 48, 32, 4), **options)
    anysize.set_weights(fixed.get_weights())
    x = noise((1, 32, 48, 32, 4))
    np.testing.assert_allclose(outputs(anysize, x)[0], outputs(fixed, x)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (128, 120, 100, 4)}, r"x, y and z divisible by 16.*\(128, 128, 112, 4\)"),
        ({"input_shape": (1, 1, 1, 4)}, r"more than one voxel.*\(32, 16, 16, 4\)"),
        ({"input_shape": (128, 128, 4)}, r"expected \(x, y, z, channels\)"),
        ({"input_shape": (100, 128, 4), "dimensions": 2}, r"next valid shape is \(112, 128, 4\)"),
        ({"input_shape": (None, 32, 32, 4)}, "supervision_heads=0"),
        ({"dimensions": 4}, "dimensions: found 4, expected 2 to 3"),
        ({"bottleneck_blocks": 5}, "bottleneck_blocks: found 5, expected 0 to 4"),
        ({"supervision_heads": -1}, "supervision_heads: found -1, expected 0 to 3"),
        ({"levels": 8}, "levels: found 8, expected 2 to 7"),
        ({"levels": 2}, "supervision_heads: found 2, expected 0 to 1"),
        ({"levels": 7, "input_shape": (96, 128, 128, 4)}, r"divisible by 64.*\(128, 128, 128, 4\)"),
        ({"variant": "papers"}, "Did you mean 'paper'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        registry.build(NAME, **options)
