"""What every registered network must do; a network is tested because it is registered."""

import ast
import inspect
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_medseg
from keras_medseg import losses, registry

NAMES = registry.list_models()
PACKAGE = Path(keras_medseg.__file__).parent
PORTABLE = [PACKAGE / "losses.py", *PACKAGE.glob("layers/*.py"), *PACKAGE.glob("models/*.py")]


@pytest.fixture(autouse=True)
def _seeded_float32():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


def _small(name: str, at_least: int = 16, **wanted) -> keras.Model:
    """The network at its first valid size from `at_least` on, narrow, and as wanted; as far as it
    has such options."""
    card = registry.card(name)
    wanted = {"filters": 4, "levels": 4, **wanted}
    options = {option: wanted[option] for option in registry.options(name) if option in wanted}
    for size in range(at_least, 1025):
        shape = (*(size,) * card.dimensions, card.input_shape[-1])
        try:
            return registry.build(name, input_shape=shape, **options)
        except ValueError as error:
            assert "input_shape" in str(error)  # noqa: PT017
    raise AssertionError(f"{name} builds at no size up to 1024.")


def _input(model: keras.Model, samples: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((samples, *model.input_shape[1:]), "float32")


def _outputs(model: keras.Model, x: np.ndarray) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


def _randomise_vectors(model: keras.Model) -> None:
    """Give fresh biases, norms and moving statistics values that a lost one would show."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(1 + 0.1 * generator.random(weight.shape, "float32"))


@pytest.mark.parametrize("name", NAMES)
def test_default_build_agrees_with_card(name):
    card, model = registry.card(name), registry.build(name)
    assert model.count_params() == card.parameters
    assert model.input_shape == (None, *card.input_shape)
    assert len(card.input_shape) == card.dimensions + 1


@pytest.mark.parametrize("name", NAMES)
def test_builder_documents_its_options(name):
    options = registry.options(name)
    assert next(iter(options)) == "input_shape"
    assert inspect.Parameter.empty not in options.values()
    text = registry.describe(name)
    assert [option for option in options if f"\n    {option}: " not in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_forward_at_two_sizes(name):
    first = _small(name)
    for model in (first, _small(name, first.input_shape[1] + 1)):
        for y in _outputs(model, _input(model, 2)):
            assert y.shape[0] == 2
            assert y.ndim == len(model.input_shape)
            assert np.isfinite(y).all()
            assert y.std() > 0
            if registry.card(name).output != "logits":
                assert y.min() >= 0
                assert y.max() <= 1
            if registry.card(name).output == "softmax":
                np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_a_batch_do_not_mix(name):
    model = _small(name)
    x = _input(model, 3)
    for together, alone in zip(_outputs(model, x), _outputs(model, x[1:2])):
        np.testing.assert_allclose(together[1:2], alone, atol=1e-5 * np.abs(alone).max())


@pytest.mark.parametrize("name", NAMES)
def test_saved_model_reloads_bit_equal(name, tmp_path):
    model = _small(name)
    _randomise_vectors(model)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    x = _input(model, 2)
    for before, after in zip(_outputs(model, x), _outputs(reloaded, x)):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_precision_policy_keeps_output_float32(name, policy):
    reference = _small(name)
    keras.config.set_dtype_policy(policy)
    model = _small(name)
    model.set_weights(reference.get_weights())
    x = _input(model, 2)
    tolerance = {"float32": 0, "mixed_float16": 0.02, "mixed_bfloat16": 0.1}[policy]
    for expected, y in zip(_outputs(reference, x), _outputs(model, x)):
        assert y.dtype == np.float32
        # Not the largest error: a layer norm over four channels is ill-conditioned at some pixels.
        error = np.sqrt(np.mean(np.square(y - expected)))
        assert error <= tolerance * expected.std()


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="XLA is not torch's compiler")
@pytest.mark.parametrize("name", NAMES)
def test_compiled_steps_reach_every_kernel(name):
    # From 17 on, maps of stride 16 have more than one pixel: gradients explode in a norm over two.
    # At ratio 16 a channel attention has two units, which are dead under most draws of signs.
    model = _small(name, at_least=17, activation="sigmoid", ratio=4)
    model.compile(keras.optimizers.SGD(0.1), losses.get("cross_entropy"), jit_compile=True)
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
        unmoved -= {
            kernel.path
            for kernel in kernels
            if not np.array_equal(keras.ops.convert_to_numpy(kernel), before[kernel.path])
        }
        if not unmoved:
            break
    assert not unmoved


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
