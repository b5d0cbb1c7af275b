"""What every registered network must do; a network is tested because it is registered."""

import ast
import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_medseg
from keras_medseg import losses, registry
from keras_medseg.inference import export
from keras_medseg.training.logits import logits_of

NAMES = registry.list_models()
# Between them they have every layer class of ours but those of ELSEWHERE: what takes long is done
# with these in the fast tier, and with all networks in the slow one.
REPRESENTATIVES = ("pspnet", "swin_unet", "unet")
# Compiled and saved in tests/layers; as networks too deep for the fast tier.
ELSEWHERE = {"ChannelBias", "DebiasedBatchNorm", "WindowBatchNorm"}
MOSTLY_SLOW = [
    pytest.param(name, marks=[] if name in REPRESENTATIVES else [pytest.mark.slow])
    for name in NAMES
]
# In the fast tier ONNX for one network alone.
EXPORTS = [
    pytest.param(name, format, marks=[] if name in fast else [pytest.mark.slow])
    for format, fast in (("savedmodel", REPRESENTATIVES), ("onnx", ("unet",)))
    for name in NAMES
]
PACKAGE = Path(keras_medseg.__file__).parent
PORTABLE = [PACKAGE / "losses.py", *PACKAGE.glob("layers/*.py"), *PACKAGE.glob("models/*.py")]
# TensorFlow's kernel, used on that backend alone; tests/layers/test_batch_norm.py has the others.
PORTABLE.remove(PACKAGE / "layers" / "fused_norm.py")
PORTABLE.remove(PACKAGE / "layers" / "replicas.py")
# Small without a part of the structure missing: two blocks in one stage, so that a second one is
# there, and windows that fit into a small image. As far as a network has such options. Compiling
# and exporting, which take nearly all of the time, take as long as the network is deep.
SMALL = {"filters": 4, "levels": 4, "depths": (2, 1, 1, 1), "window": 2, "t": 1, "middle_units": 1}
# The same for networks whose widths are given one by one.
SMALL_OF = {
    "deepmedic": {"widths": (4, 4, 5, 5, 5, 5, 6, 6), "fc_widths": (8, 8)},
    "dltk_resnetfcn": {"widths": (4, 4, 6, 8, 9)},
    "dltk_resunet": {"widths": (4, 4, 6, 8)},
}
# For train steps. At ratio 16 a channel attention has two units, dead under most draws of signs; a
# penalty would move a kernel that no gradient reaches. Sizes at which the deepest map has more than
# one pixel: gradients explode in a norm over two values.
TRAINED = {"activation": "sigmoid", "ratio": 4, "l2": 0.0}
TRAINED_SIZE = {2: 33, 3: 17}


@pytest.fixture(autouse=True)
def _seeded_float32():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    """The small network that the tests of a name share and do not change. Biases and norms have
    values that a lost one would show. Moving statistics are those of a batch, as after training:
    with others the input fades from layer to layer, and no test would see it lost."""
    keras.utils.set_random_seed(0)
    network = _small(name)
    generator = np.random.default_rng(1)
    for weight in network.weights:
        if len(weight.shape) == 1:
            weight.assign(1 + 0.1 * generator.random(weight.shape, "float32"))
    norms = [x for x in network.layers if isinstance(x, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    network(_input(network, 32), training=True)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    return network


def _build(name: str, shape: tuple[int, ...], **wanted) -> keras.Model:
    """The network with SMALL and `wanted`, as far as it has such options."""
    options = registry.options(name)
    small = {**SMALL, **SMALL_OF.get(name, {}), **wanted}
    wanted = {option: value for option, value in small.items() if option in options}
    return registry.build(name, input_shape=shape, **wanted)


def _small(name: str, at_least: int = 16, **wanted) -> keras.Model:
    """The network at its first valid size from `at_least` on, with SMALL and `wanted`."""
    card = registry.card(name)
    for size in range(at_least, 1025):
        try:
            return _build(name, (*(size,) * card.dimensions, card.input_shape[-1]), **wanted)
        except ValueError as error:
            assert "input_shape" in str(error)  # noqa: PT017
    raise AssertionError(f"{name} builds at no size up to 1024.")


def _input(model: keras.Model, samples: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((samples, *model.input_shape[1:]), "float32")


def _outputs(model: keras.Model, x: np.ndarray) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


def _our_layers(names) -> set[str]:
    """Classes of this package among the layers of these networks."""
    layers = [layer for name in names for layer in _small(name)._flatten_layers()]
    return {type(layer).__name__ for layer in layers if "keras_medseg" in type(layer).__module__}


@pytest.mark.slow
def test_the_representatives_have_every_layer_class_of_ours():
    assert _our_layers(REPRESENTATIVES) | ELSEWHERE == _our_layers(NAMES) != set()


def test_default_build_agrees_with_card(name):
    card, model = registry.card(name), registry.build(name)
    assert model.count_params() == card.parameters
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == card.trainable
    assert model.input_shape == (None, *card.input_shape)
    assert len(card.input_shape) == card.dimensions + 1


@pytest.mark.parametrize("name", MOSTLY_SLOW)
def test_logits_are_behind_the_outputs(name):
    """What is trained on logits has the weights of the network, and its probabilities."""
    network = _small(name, activation="sigmoid")
    logits, activation = logits_of(network)
    model = keras.Model(network.input, logits)
    assert activation == "sigmoid"
    assert [id(w) for w in model.weights] == [id(w) for w in network.weights]
    x = _input(network, 1)
    for logit, probability in zip(_outputs(model, x), _outputs(network, x)):
        np.testing.assert_allclose(1 / (1 + np.exp(-logit)), probability, atol=1e-6)


def test_card_and_options_are_documented(name):
    card, options = registry.card(name), registry.options(name)
    assert all((card.paper, card.title, card.source))
    assert next(iter(options)) == "input_shape"
    assert inspect.Parameter.empty not in options.values()
    text = registry.describe(name)
    assert [option for option in options if f"\n    {option}: " not in text] == []


def test_what_is_no_shape_is_refused(name):
    *sizes, _ = registry.card(name).input_shape
    wrong = [5, (), "abc", (None,) * 5, (*sizes, 0), (*sizes, -1), (*sizes, 1.5), (2.5, 32, 1)]
    if registry.options(name)["input_shape"] is not None:
        wrong.append(None)
    for shape in wrong:
        with pytest.raises(ValueError, match=r"^input_shape: found .*expected whole numbers"):
            registry.build(name, input_shape=shape)


@pytest.mark.parametrize("name", MOSTLY_SLOW)
@pytest.mark.parametrize(
    ("sizes", "channels"),
    [((1, 1, 1), 5), pytest.param((19, 35, 21), 1, marks=pytest.mark.slow)],
)
def test_suggested_size_is_the_next_one_and_builds(name, sizes, channels):
    """Or the size is valid. With other channels and classes than the card's."""
    wrong = shape = (*sizes[: registry.card(name).dimensions], channels)
    try:
        model = _build(name, wrong, classes=3)
    except ValueError as error:
        found = re.search(r"^input_shape: .* next valid shape is (\(.*\))\.$", str(error))
        shape = ast.literal_eval(found[1])
        model = _build(name, shape, classes=3)
    for axis, (least, size) in enumerate(zip(wrong[:-1], shape)):
        for smaller in range(least, size):
            with pytest.raises(ValueError, match=r"^input_shape: "):
                _build(name, (*shape[:axis], smaller, *shape[axis + 1 :]), classes=3)
    assert model.input_shape == (None, *shape)
    assert shape[-1] == channels
    outputs = _outputs(model, _input(model, 1))
    assert outputs[0].shape[-1] == 3
    for y in outputs:
        assert y.shape[:-1] == (1, *shape[:-1])
        assert np.isfinite(y).all()
        assert y.std() > 0


def _assert_outputs_are_of_use(model: keras.Model, kind: str) -> None:
    for y in _outputs(model, _input(model, 2)):
        assert y.shape[0] == 2
        assert y.ndim == len(model.input_shape)
        assert y.dtype == np.float32
        assert np.isfinite(y).all()
        assert y.std() > 0
        if kind != "logits":
            assert y.min() >= 0
            assert y.max() <= 1
        if kind == "softmax":
            np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)


def test_outputs_are_what_the_card_says(name, model):
    _assert_outputs_are_of_use(model, registry.card(name).output)


def test_samples_of_a_batch_do_not_mix(model):
    x = _input(model, 3)
    for together, alone in zip(_outputs(model, x), _outputs(model, x[1:2]), strict=True):
        largest = np.abs(alone).max()
        np.testing.assert_allclose(together[1:2], alone, atol=1e-5 * largest)
        assert np.abs(together[0] - alone[0]).max() > 0.01 * largest  # the input matters


@pytest.mark.parametrize("name", MOSTLY_SLOW, indirect=True, scope="module")
def test_saved_model_reloads_bit_equal(model, tmp_path):
    x = _input(model, 2)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    for before, after in zip(_outputs(model, x), _outputs(reloaded, x), strict=True):
        np.testing.assert_array_equal(before, after)


# The third policy, float32, is that of all other tests. Without instructions for float16, CPUs sum
# 3-D convolutions in it: at 256 channels that has 13 times the error of rounding the result, and
# these networks have up to 0.021, where bfloat16 has up to 0.034.
@pytest.mark.parametrize(
    ("policy", "tolerances"),
    [
        ("mixed_float16", {2: 0.02, 3: 0.05}),
        pytest.param("mixed_bfloat16", {2: 0.1, 3: 0.1}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", MOSTLY_SLOW, indirect=True, scope="module")
def test_precision_policy_keeps_output_float32(name, model, policy, tolerances):
    tolerance = tolerances[registry.card(name).dimensions]
    keras.config.set_dtype_policy(policy)
    mixed = _small(name)
    mixed.set_weights(model.get_weights())
    x = _input(model, 2)
    for expected, y in zip(_outputs(model, x), _outputs(mixed, x), strict=True):
        assert y.dtype == np.float32
        # Not the largest error: a layer norm over four channels is ill-conditioned at some pixels.
        error = np.sqrt(np.mean(np.square(y - expected)))
        assert 1e-6 * expected.std() < error <= tolerance * expected.std()


def _assert_steps_reach_every_kernel(model: keras.Model, **how: bool) -> None:
    """Train step by step until every kernel has moved."""
    model.compile(keras.optimizers.SGD(0.1), losses.get("cross_entropy"), **how)
    x = _input(model, 2)
    y = [np.float32(output > output.mean()) for output in _outputs(model, x)]
    # A bias before a norm has no gradient, so only kernels must move; a narrow layer may be dead
    # under one draw of signs, but not under all.
    kernels = [weight for weight in model.trainable_weights if len(weight.shape) > 1]
    unmoved = {kernel.path for kernel in kernels}
    for seed in range(8):
        generator = np.random.default_rng(seed)
        before = {}
        for kernel in kernels:
            signs = generator.choice(np.float32([-1, 1]), kernel.shape)
            kernel.assign(signs * keras.ops.convert_to_numpy(kernel))
            before[kernel.path] = keras.ops.convert_to_numpy(kernel)
        assert np.isfinite(model.train_on_batch(x, y if len(y) > 1 else y[0])).all()
        after = {kernel.path: keras.ops.convert_to_numpy(kernel) for kernel in kernels}
        assert all(np.isfinite(kernel).all() for kernel in after.values())
        unmoved -= {path for path in after if not np.array_equal(after[path], before[path])}
        if not unmoved:
            break
    assert not unmoved


@pytest.mark.parametrize("name", MOSTLY_SLOW, indirect=True, scope="module")
def test_outputs_and_gradients_at_two_sizes(name):
    is_torch = keras.backend.backend() == "torch"  # XLA is not its compiler
    size = TRAINED_SIZE[registry.card(name).dimensions]
    model = _small(name, size, **TRAINED)
    _assert_outputs_are_of_use(model, "sigmoid")
    _assert_steps_reach_every_kernel(model, jit_compile=not is_torch)
    keras.config.set_dtype_policy("mixed_bfloat16")
    larger = _small(name, model.input_shape[1] + 1, **TRAINED)
    _assert_outputs_are_of_use(larger, "sigmoid")
    _assert_steps_reach_every_kernel(larger, jit_compile=False, run_eagerly=True)
    assert {weight.dtype for weight in larger.weights} == {"float32"}


@pytest.mark.parametrize("name", MOSTLY_SLOW)
def test_train_step_in_float16(name):
    keras.config.set_dtype_policy("mixed_float16")
    model = _small(name, TRAINED_SIZE[registry.card(name).dimensions], **TRAINED)
    assert {weight.dtype for weight in model.weights} == {"float32"}
    # At the default's first scale the step may overflow, and is then left out.
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=16.0)
    model.compile(optimizer, losses.get("cross_entropy"), jit_compile=False, run_eagerly=True)
    generator = np.random.default_rng(1)
    shapes = [output.shape for output in model.outputs]
    y = [np.float32(generator.random((1, *shape[1:])) > 0.5) for shape in shapes]
    kernels = [weight for weight in model.trainable_weights if len(weight.shape) > 1]
    before = [keras.ops.convert_to_numpy(kernel) for kernel in kernels]
    loss = model.train_on_batch(_input(model, 1), y if len(y) > 1 else y[0])
    assert np.isfinite(loss).all()
    after = [keras.ops.convert_to_numpy(kernel) for kernel in kernels]
    assert all(np.isfinite(kernel).all() for kernel in after)
    moved = sum(not np.array_equal(*pair) for pair in zip(before, after))
    assert moved > len(kernels) / 2


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModel and tf2onnx are TensorFlow's"
)
@pytest.mark.parametrize(("name", "format"), EXPORTS, indirect=["name"], scope="module")
def test_exported_network_computes_the_same(model, tmp_path, format):
    """`export_network` compares, see test_export.py; test_samples_of_a_batch_do_not_mix shows that
    these outputs depend on the input."""
    assert "largest difference" in export.export_network(model, tmp_path / "exported", format)


@pytest.mark.parametrize("path", PORTABLE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_sources_run_on_any_backend(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imported = {
        name.split(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    assert imported.isdisjoint({"tensorflow", "jax", "torch"})
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert "Lambda" not in names | {node.id for node in nodes if isinstance(node, ast.Name)}
