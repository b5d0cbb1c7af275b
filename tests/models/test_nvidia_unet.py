"""The facts of NVIDIA's optimized U-Net (Futrega et al. 2021)."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_medseg import registry

NAME = "nvidia_unet"
SMALL = {"input_shape": (16, 16, 16, 5), "levels": 4, "filters": 4}


def outputs(model: keras.Model) -> list[np.ndarray]:
    x = np.random.default_rng(0).standard_normal((1, *model.input_shape[1:]), "float32")
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


@pytest.fixture(scope="module")
def model():
    return registry.build(NAME)


def test_parameters(model):
    assert model.count_params() == 50_838_665
    four = registry.build(NAME, input_shape=(128, 128, 128, 4))
    # The one-hot channel of the foreground costs 3x3x3 weights for each of the 64 filters.
    assert four.count_params() == 50_836_937 == 50_838_665 - 27 * 64


@pytest.mark.parametrize(("dimensions", "expected"), [(2, 17_470_985), (3, 50_838_665)])
def test_parameters_by_hand(dimensions, expected):
    def block(inputs, filters):
        # Two convolutions without bias; scale and shift of the norm after each.
        return 3**dimensions * (inputs + filters) * filters + 4 * filters

    widths = (64, 96, 128, 192, 256, 384, 512)
    encoder = sum(block(i, o) for i, o in zip((5, *widths), widths))
    up = sum(2**dimensions * i * o + o for i, o in zip(widths[1:], widths))
    decoder = sum(block(2 * width, width) for width in widths[:-1])
    heads = 3 * (64 + 96 + 128) + 3 * 3
    assert encoder + up + decoder + heads == expected
    model = registry.build(NAME, dimensions=dimensions)
    assert model.count_params() == expected
    assert model.input_shape == (None, *(128,) * dimensions, 5)
    assert model.output_shape == [(None, *(128,) * dimensions, 3)] * 3


def test_seven_levels_from_128_to_2(model):
    for level, width in enumerate((64, 96, 128, 192, 256, 384), 1):
        shape = model.get_layer(f"Encode{level}_conv2_leaky").output.shape
        assert shape[1:] == (*(2 ** (8 - level),) * 3, width)
    assert model.get_layer("Bottleneck_conv2_leaky").output.shape[1:] == (2, 2, 2, 512)
    strides = {
        layer.name: layer.strides[0] for layer in model.layers if isinstance(layer, layers.Conv3D)
    }
    halving = {name for name, stride in strides.items() if stride == 2}
    assert halving == {"Bottleneck_conv1"} | {f"Encode{n}_conv1" for n in range(2, 7)}


def test_heads_at_64_and_32(model):
    for number, (size, width) in enumerate([(64, 96), (32, 128)], 1):
        head = model.get_layer(f"Supervision{number}_conv")
        assert head.input.shape[1:] == (size, size, size, width)
        assert head.kernel_size == (1, 1, 1)
    assert model.output_shape == [(None, 128, 128, 128, 3)] * 3
    assert model.output_names == ["Output", "Supervision1", "Supervision2"]


def test_joined_in_the_originals_order(model):
    for stage in range(1, 7):
        raised, skip = model.get_layer(f"Concat{stage}").input
        assert raised is model.get_layer(f"Up{stage}").output
        level = 7 - stage
        assert skip is model.get_layer(f"Encode{level}_conv2_leaky").output


def test_norms_are_affine_and_convolutions_before_them_have_no_bias(model):
    norms = [layer for layer in model.layers if isinstance(layer, layers.GroupNormalization)]
    assert len(norms) == 2 * (7 + 6)
    for norm in norms:
        assert norm.epsilon == 1e-5
        assert [weight.name for weight in norm.weights] == ["gamma", "beta"]
        assert not model.get_layer(norm.name.removesuffix("_in")).use_bias


def test_kernels_are_drawn_for_a_leaky_relu_of_slope_001():
    keras.utils.set_random_seed(0)
    model = registry.build(NAME, input_shape=(16, 16, 16, 5), levels=4)
    for name, fan_in in (("Encode2_conv2", 27 * 96), ("Up3", 8 * 64)):
        kernel = keras.ops.convert_to_numpy(model.get_layer(name).kernel)
        expected = np.sqrt(2 / (1 + 0.01**2) / fan_in)
        # Of more than 49,000 draws; four standard errors of the deviation are 1.3 %.
        assert kernel.size > 49_000
        assert kernel.std() == pytest.approx(expected, rel=0.013)
    assert not keras.ops.convert_to_numpy(model.get_layer("Up3").bias).any()


def test_network_without_heads_gives_the_same_main_output():
    trained = registry.build(NAME, **SMALL)
    bare = registry.build(NAME, supervision_heads=0, **SMALL)
    for layer in bare.layers:
        layer.set_weights(trained.get_layer(layer.name).get_weights())
    np.testing.assert_array_equal(outputs(bare)[0], outputs(trained)[0])


def test_checkpointing_changes_no_output():
    plain = registry.build(NAME, **SMALL)
    twice = registry.build(NAME, checkpointing=True, **SMALL)
    assert [w.path for w in twice.weights] == [w.path for w in plain.weights]
    twice.set_weights(plain.get_weights())
    for before, after in zip(outputs(plain), outputs(twice)):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("name", "dimensions"), [(f"{NAME}_small", 3), (f"{NAME}_2d_small", 2)])
def test_golden_is_what_monai_computes(read_golden, name, dimensions):
    """The goldens were made for this package; here is how."""
    torch = pytest.importorskip("torch")
    nets = pytest.importorskip("monai.networks.nets")
    golden = read_golden(name)
    network = nets.DynUNet(
        spatial_dims=dimensions,
        in_channels=5,
        out_channels=3,
        kernel_size=[[3] * dimensions] * 4,
        strides=[[step] * dimensions for step in (1, 2, 2, 2)],
        upsample_kernel_size=[[2] * dimensions] * 3,
        filters=[16, 24, 32, 48],
        norm_name=("INSTANCE", {"affine": True}),
        act_name=("leakyrelu", {"inplace": True, "negative_slope": 0.01}),
        deep_supervision=True,
        deep_supr_num=2,
        trans_bias=True,
    ).double()
    weights = {name: torch.tensor(array) for name, array in golden.state_dict().items()}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"skip_layers"}
    x = torch.tensor(np.moveaxis(golden.image(), -1, 1)).double()
    with torch.no_grad():
        stacked = network.train()(x).numpy()
    assert max(golden.errors([np.moveaxis(y, 1, -1) for y in np.moveaxis(stacked, 1, 0)])) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (128, 160, 128, 5)}, r"divisible by 64.*\(128, 192, 128, 5\)"),
        ({"input_shape": (17, 33, 20, 5)}, r"more than one voxel.*\(128, 64, 64, 5\)"),
        ({"input_shape": (64, 64, 5), "dimensions": 2}, r"shape is \(128, 64, 5\)"),
        ({"input_shape": (128, 128, 5)}, r"expected \(x, y, z, channels\)"),
        ({"dimensions": 4}, "dimensions: found 4, expected 2 to 3"),
        ({"levels": 8}, "levels: found 8, expected 3 to 7"),
        ({"supervision_heads": 6}, "supervision_heads: found 6, expected 0 to 5"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        registry.build(NAME, **options)
