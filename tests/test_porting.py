"""What a state dict must be to be taken, and where its tensors go, by hand."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from keras_medseg import frameworks, registry
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.porting import AVERAGES, expected_shapes, load_state_dict

from .models.test_parity import GOLDENS


@pytest.fixture(scope="module")
def unet():
    return registry.build("unet", input_shape=(16, 16, 2), filters=1)


@pytest.fixture
def state_dict(unet):
    return {name: np.ones(shape) for name, shape in expected_shapes(unet).items()}


def test_expected_shapes_are_in_the_originals_layout(unet):
    shapes = expected_shapes(unet)
    # Each of 9 blocks has 2 x (convolution, norm), each of 4 ups one; the output has 2 tensors.
    assert len(shapes) == 9 * 2 * 6 + 4 * 6 + 2
    assert shapes["Conv1.conv.0.weight"] == (1, 2, 3, 3)
    assert shapes["Up_conv5.conv.0.weight"] == (8, 16, 3, 3)
    assert shapes["Up_conv5.conv.1.running_var"] == (8,)


def test_counters_and_unused_modules_are_left_out(unet, state_dict):
    state_dict["Conv1.conv.1.num_batches_tracked"] = np.array(7)
    load_state_dict(unet, state_dict)
    assert all((keras.ops.convert_to_numpy(weight) == 1).all() for weight in unet.weights)


def test_buffers_that_swin_unet_computes_are_left_out():
    model = registry.build("swin_unet", input_shape=(32, 32, 1), filters=4, window=2)
    state_dict = {name: np.ones(shape) for name, shape in expected_shapes(model).items()}
    # As SwinTransformerSys registers them; a block that does not shift has no mask.
    state_dict["layers.0.blocks.1.attn.relative_position_index"] = np.zeros((4, 4), int)
    state_dict["layers.0.blocks.1.attn_mask"] = np.zeros((16, 4, 4))
    load_state_dict(model, state_dict)
    assert all((keras.ops.convert_to_numpy(weight) == 1).all() for weight in model.weights)
    state_dict["layers.0.blocks.1.other_mask"] = np.zeros((16, 4, 4))
    with pytest.raises(ValueError, match=r"surplus layers\.0\.blocks\.1\.other_mask\. "):
        load_state_dict(model, state_dict)


def test_prefix_of_a_wrapper_is_left_out(unet, state_dict):
    wrapped = {f"module.net.{name}": 3 * array for name, array in state_dict.items()}
    load_state_dict(unet, wrapped)
    assert all((keras.ops.convert_to_numpy(weight) == 3).all() for weight in unet.weights)
    # One name without it: nothing is cut off.
    wrapped["aux"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"surplus module\.net\.Conv1.*, aux\. "):
        load_state_dict(unet, wrapped)


def test_wrong_tensors_are_named_and_nothing_is_loaded(unet, state_dict):
    before = [keras.ops.convert_to_numpy(weight) for weight in unet.weights]
    del state_dict["Up5.up.1.bias"]
    state_dict["aux.weight"] = np.zeros(3)
    state_dict["Conv_1x1.weight"] = np.zeros((1, 1, 3, 3))
    with pytest.raises(ValueError, match="state_dict: ") as error:
        load_state_dict(unet, {name: 5 * array for name, array in state_dict.items()})
    message = str(error.value)
    assert "missing Up5.up.1.bias" in message
    assert "surplus aux.weight" in message
    assert "Conv_1x1.weight has shape (1, 1, 3, 3), expected (1, 1, 1, 1)" in message
    for weight, old in zip(unet.weights, before):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), old)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if number < 2 else [pytest.mark.slow])
        for number, name in enumerate(GOLDENS)
    ],
)
def test_wrong_tensors_of_every_original_are_named(name, read_golden):
    golden, (network, options) = read_golden(name), GOLDENS[name]
    model = registry.build(network, input_shape=golden.image().shape[1:], **options)
    zeros = {key: np.broadcast_to(np.float32(0), shape) for key, shape in golden.keys}
    counters = {f"{key.rpartition('.')[0]}.num_batches_tracked": np.array(7) for key in zeros}
    unused = tuple(f"{module}." for module in golden.never_called)
    called = [key for key in zeros if not key.startswith(unused)]
    missing, misshapen = called[len(called) // 3], called[len(called) // 2]
    wrong = {**zeros, **counters, "spare.weight": np.zeros(3)}
    del wrong[missing]
    wrong[misshapen] = np.zeros((2, *zeros[misshapen].shape))
    before = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    with pytest.raises(ValueError, match=r"^state_dict: ") as error:
        load_state_dict(model, wrong)
    assert str(error.value).split("; ") == [
        f"state_dict: found no fit for {network}: missing {missing}",
        "surplus spare.weight",
        f"{misshapen} has shape {wrong[misshapen].shape}, expected {zeros[misshapen].shape}. Build "
        "the network with the options of the original.",
    ]
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), old)
    load_state_dict(model, {**zeros, **counters})
    loaded = [weight for weight in model.weights if weight.name not in AVERAGES]
    assert not any(keras.ops.convert_to_numpy(weight).any() for weight in loaded)


def test_network_without_an_original_is_refused():
    model = registry.build("residual_attention_unet", input_shape=(16, 16, 4), filters=4)
    with pytest.raises(ValueError, match="expected a network with a PyTorch original"):
        load_state_dict(model, {})
    model = registry.build("unet", input_shape=(188, 188, 1), filters=1, form="valid")
    with pytest.raises(ValueError, match="the layer Up5 of unet has 0 counterparts"):
        load_state_dict(model, {})


# (out, in, k, k) -> (k, k, in, out); (in, out, k, k) -> (k, k, out, in); (C, 1, k, k) ->
# (k, k, C, 1); (out, in) -> (in, out).
@pytest.mark.parametrize(
    ("layer", "shape", "axes"),
    [
        (layers.Conv2D(5, 3), (5, 4, 3, 3), (2, 3, 1, 0)),
        (layers.Conv2DTranspose(5, 2), (4, 5, 2, 2), (2, 3, 1, 0)),
        (layers.DepthwiseConv2D(3), (4, 1, 3, 3), (2, 3, 0, 1)),
        (layers.Dense(5), (5, 4), (1, 0)),
    ],
)
def test_layouts(layer, shape, axes):
    image = keras.Input((8, 8, 4))
    model = keras.Model(image, layer(image))
    kernel = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    bias = np.zeros(layer.bias.shape)
    state_dict = {"a.0.weight": kernel, "a.0.bias": bias, "spare.weight": bias}
    names = {layer.name: "a.0"}
    load_state_dict(model, state_dict, names=names, never_called=("spare",))
    np.testing.assert_array_equal(layer.kernel, kernel.transpose(axes))


def test_slopes_are_one_number_per_channel():
    image = keras.Input((2, 2, 2, 3))
    model = keras.Model(image, layers.PReLU(shared_axes=(1, 2, 3), name="slope")(image))
    load_state_dict(model, {"a.alpha": np.float32([1, 2, 3])}, names={"slope": "a"})
    x = -np.ones((1, 2, 2, 2, 3), "float32")
    np.testing.assert_array_equal(model(x)[0, 0, 0, 0], [-1, -2, -3])
    with pytest.raises(ValueError, match=r"a\.alpha has shape \(1, 3\), expected \(3,\)"):
        load_state_dict(model, {"a.alpha": np.ones((1, 3))}, names={"slope": "a"})


@pytest.mark.parametrize("average", ["debiased", "window"])
def test_averages_go_on_from_what_was_loaded(average):
    """They are not among the original's tensors; a first batch must not wipe out what was."""
    image = keras.Input((2, 2, 1))
    framework = replace(frameworks.PYTORCH, norm_average=average)
    model = keras.Model(image, batch_norm(image, framework=framework, name="norm"))
    tensors = dict(weight=1, bias=0, running_mean=100, running_var=1)
    state_dict = {f"a.{name}": np.float32([value]) for name, value in tensors.items()}
    load_state_dict(model, state_dict, names={"norm": "a"})
    model(np.zeros((1, 2, 2, 1), "float32"), training=True)
    # A batch of mean 0 counts 1 - 0.9 of the debiased average, and 1 / 60 of the window.
    expected = {"debiased": 100 * 0.9, "window": 100 * 59 / 60}[average]
    np.testing.assert_allclose(model.get_layer("norm").moving_mean, expected, rtol=1e-5)


def test_tensors_of_torch_are_taken():
    torch = pytest.importorskip("torch")
    image = keras.Input((4,))
    model = keras.Model(image, layers.Dense(2, name="head")(image))
    linear = torch.nn.Linear(4, 2)
    load_state_dict(model, dict(linear.named_parameters(prefix="fc")), names={"head": "fc"})
    x = np.random.default_rng(0).standard_normal((3, 4), "float32")
    expected = linear(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-6)
