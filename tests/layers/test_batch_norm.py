"""Batch normalization: each framework's moving variance, on every backend and with every kernel."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_medseg import frameworks
from keras_medseg.layers import fused_norm
from keras_medseg.layers.normalization import (
    BatchNorm,
    DebiasedBatchNorm,
    WindowBatchNorm,
    batch_norm,
)

ROOT = Path(__file__).parents[2]
SHAPES = {"maps": (4, 6, 5, 3), "volumes": (2, 3, 4, 5, 3)}
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's kernel"
)


@pytest.fixture(autouse=True)
def _float32():
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")


@pytest.fixture
def without_the_kernel(monkeypatch):
    """The path of the other backends, on this one."""
    monkeypatch.setattr(fused_norm, "fuses", lambda x: False)


def batch(shape: tuple[int, ...]) -> np.ndarray:
    # Far from mean 0 and deviation 1: a statistic that is forgotten shows.
    return np.random.default_rng(0).normal(5, 3, shape).astype("float32")


def layer_of(shape: tuple[int, ...], **options) -> BatchNorm:
    layer = BatchNorm(**{"epsilon": 1e-3, "momentum": 0.9, **options})
    layer.build(shape)
    layer.gamma.assign(np.float32([1, 2, 3]))
    layer.beta.assign(np.float32([0.1, 0.2, 0.3]))
    return layer


def array(x) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))


def measured(shape: tuple[int, ...], **options) -> dict[str, np.ndarray]:
    """All that a layer computes of a batch, in training and afterwards."""
    layer, x = layer_of(shape, **options), batch(shape)
    return {
        "training": array(layer(x, training=True)),
        "moving_mean": array(layer.moving_mean),
        "moving_variance": array(layer.moving_variance),
        "inference": array(layer(x, training=False)),
    }


@pytest.mark.parametrize(
    ("kind", "factor", "of_volumes"),
    # 4 values, of which NumPy's variance is the biased one: 4/3 of it is the unbiased one.
    # Keras 2.2.4 multiplies by 4 / (4 - 1 - epsilon), here with epsilon = 1, on top of 4/3.
    [("biased", 1, 1), ("unbiased", 4 / 3, 4 / 3), ("keras_2_2", 4 / 3 * 4 / 2, 4 / 2)],
)
@pytest.mark.parametrize("rank", [4, 5])
@pytest.mark.parametrize("kernel", [True, False])
def test_moving_statistics_by_hand(kind, factor, of_volumes, rank, kernel, request):
    if not kernel:
        request.getfixturevalue("without_the_kernel")
    layer = BatchNorm(momentum=0.9, epsilon=1.0, moving_variance=kind)
    # Mean 3, biased variance (9 + 1 + 1 + 9) / 4 = 5; normalized by that one in every framework.
    x = np.float32([0, 2, 4, 6]).reshape(1, 2, 2, *(1,) * (rank - 3))
    y = array(layer(x, training=True))
    np.testing.assert_allclose(np.ravel(y), np.array([-3, -1, 1, 3]) / np.sqrt(6), rtol=1e-6)
    assert array(layer.moving_mean)[0] == pytest.approx(0.1 * 3)
    variance = 5 * (of_volumes if rank == 5 else factor)
    assert array(layer.moving_variance)[0] == pytest.approx(0.9 + 0.1 * variance, rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", frameworks.NORM_VARIANCES)
@on_tensorflow
def test_kernel_and_operations_are_equal(shape, kind, monkeypatch):
    kernel = measured(shape, moving_variance=kind)
    monkeypatch.setattr(fused_norm, "fuses", lambda x: False)
    operations = measured(shape, moving_variance=kind)
    for name, values in kernel.items():
        np.testing.assert_allclose(values, operations[name], rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@on_tensorflow
def test_gradients_of_kernel_and_operations_are_equal(shape, monkeypatch):
    import tensorflow as tf

    weights = np.random.default_rng(1).standard_normal(shape, "float32")

    def gradients() -> list[np.ndarray]:
        layer, x = layer_of(shape), tf.constant(batch(shape))
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) * weights)
        return [array(g) for g in tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])]

    kernel = gradients()
    monkeypatch.setattr(fused_norm, "fuses", lambda x: False)
    for found, expected in zip(kernel, gradients()):
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@on_tensorflow
def test_the_kernel_is_used_under_every_policy(shape):
    import tensorflow as tf

    def operations(policy: str, training: bool) -> set[str]:
        keras.config.set_dtype_policy(policy)
        model = network(shape[1:])
        step = tf.function(lambda x: model(x, training=training))
        graph = step.get_concrete_function(tf.TensorSpec((None, *shape[1:]))).graph
        return {operation.type for operation in graph.get_operations()}

    for policy in ("float32", "mixed_bfloat16", "mixed_float16"):
        for training in (True, False):
            assert "FusedBatchNormV3" in operations(policy, training)
    keras.config.set_floatx("float64")
    assert "FusedBatchNormV3" not in operations("float64", True)  # the kernel knows none


@pytest.mark.parametrize(("channels", "inside"), [(16, "bfloat16"), (24, "float32")])
@on_tensorflow
def test_the_kernel_gets_float32_where_it_is_slow_in_bfloat16(channels, inside):
    import tensorflow as tf

    keras.config.set_dtype_policy("mixed_bfloat16")
    model = network((4, 4, channels))
    step = tf.function(lambda x: model(x, training=True))
    graph = step.get_concrete_function(tf.TensorSpec((None, 4, 4, channels))).graph
    [kernel] = [found for found in graph.get_operations() if found.type == "FusedBatchNormV3"]
    assert kernel.get_attr("T").name == inside
    assert graph.outputs[0].dtype.name == "bfloat16"


def network(shape: tuple[int | None, ...], framework=frameworks.PYTORCH) -> keras.Model:
    image = keras.Input(shape)
    return keras.Model(image, batch_norm(image, framework=framework, name="norm"))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_has_statistics_in_float32(shape, policy):
    keras.config.set_dtype_policy(policy)
    model = network(shape[1:])
    half = keras.ops.cast(batch(shape), policy.removeprefix("mixed_"))
    y = model(half, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    x = array(half).reshape(-1, 3)
    norm = model.get_layer("norm")
    # Sums in bfloat16 would be off by some percent.
    np.testing.assert_allclose(array(norm.moving_mean), 0.1 * x.mean(axis=0), rtol=1e-5)
    expected = 0.9 + 0.1 * x.var(axis=0, ddof=1)
    np.testing.assert_allclose(array(norm.moving_variance), expected, rtol=1e-5)


def test_double_precision_stays_double():
    keras.config.set_floatx("float64")
    x = np.random.default_rng(0).normal(5, 3, (4, 3, 3, 2))
    layer = BatchNorm(dtype="float64")
    y = keras.ops.convert_to_numpy(layer(x, training=True))
    expected = (x - x.mean(axis=(0, 1, 2))) / np.sqrt(x.var(axis=(0, 1, 2)) + 1e-3)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_statistics_of_sizes_that_are_not_known():
    model = network((None, None, 3))
    x = batch((4, 6, 5, 3))
    model.predict_on_batch(x)
    model(x, training=True)
    expected = 0.9 + 0.1 * x.reshape(-1, 3).var(axis=0, ddof=1)
    np.testing.assert_allclose(array(model.get_layer("norm").moving_variance), expected, rtol=1e-5)


def ramps(level: float) -> np.ndarray:
    """(1, 2, 2, 1) of mean `level` and biased variance 5."""
    return np.float32([-3, -1, 1, 3]).reshape(1, 2, 2, 1) + np.float32(level)


def trained(layer: BatchNorm, levels: list[float]) -> tuple[float, float]:
    """The moving mean and variance after batches of these means."""
    for level in levels:
        layer(ramps(level), training=True)
    return float(array(layer.moving_mean)[0]), float(array(layer.moving_variance)[0])


def test_averages_of_caffe_begin_with_the_first_batch():
    layer = DebiasedBatchNorm(momentum=0.5, moving_variance="unbiased")
    assert trained(layer, [8]) == pytest.approx((8, 5 * 4 / 3))  # of 4 values, without 0 and 1
    # Caffe's sums: 0.5 * 8 + 2 = 6, and of the weights 0.5 * 1 + 1 = 1.5.
    assert trained(layer, [2])[0] == pytest.approx(6 / 1.5)
    # 0.5 * 6 + 1 = 4 and 0.5 * 1.5 + 1 = 1.75.
    assert trained(layer, [1])[0] == pytest.approx(4 / 1.75)
    assert float(array(layer.moving_weight)) == 1.75


def test_averages_of_deepmedic_are_those_of_the_last_60_batches():
    layer = WindowBatchNorm(moving_variance="biased")
    # 59 zeros and a 6; 59 ones and a 5.
    assert trained(layer, [6]) == pytest.approx((6 / 60, (59 + 5) / 60))
    assert trained(layer, [3] * 59) == pytest.approx(((6 + 59 * 3) / 60, 5))
    assert trained(layer, [12])[0] == pytest.approx((59 * 3 + 12) / 60)  # the 6 is out
    layer(ramps(99), training=False)
    assert array(layer.moving_mean)[0] == pytest.approx((59 * 3 + 12) / 60)


def test_settled_averages_go_on_from_the_moving_statistics():
    """As after many batches: with momentum 0.5 a new one counts half, of a window one in 60."""
    for layer, expected in (
        (DebiasedBatchNorm(momentum=0.5), (4 + 10) / 2),
        (WindowBatchNorm(), (59 * 4 + 10) / 60),
    ):
        layer.build((1, 2, 2, 1))
        layer.moving_mean.assign([4])
        layer.settle()
        assert trained(layer, [10])[0] == pytest.approx(expected)


AVERAGED = {"debiased": DebiasedBatchNorm, "window": WindowBatchNorm}


@pytest.mark.parametrize("average", AVERAGED)
def test_other_averages_are_compiled_saved_and_kept_in_float32(average, tmp_path):
    """And a layer that goes on after it was opened computes what one does that was not closed."""
    framework = replace(frameworks.PYTORCH, norm_average=average)
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, x = network((6, 5, 3), framework), batch((4, 6, 5, 3))
    jit = keras.backend.backend() != "torch"
    model.compile("sgd", "mse", jit_compile=jit)
    model.train_on_batch(x, x)
    norm = model.get_layer("norm")
    assert type(norm) is AVERAGED[average]
    assert {weight.dtype for weight in norm.weights} == {"float32"}
    model.save(tmp_path / "model.keras")
    opened = keras.saving.load_model(tmp_path / "model.keras")
    opened.compile("sgd", "mse", jit_compile=False)
    assert type(opened.get_layer("norm")) is AVERAGED[average]
    for each in (model, opened):
        each.train_on_batch(2 * x, x)
    for one, other in zip(model.weights, opened.weights, strict=True):
        np.testing.assert_allclose(array(one), array(other), rtol=1e-5, atol=1e-6)


def test_unknown_average_is_refused():
    with pytest.raises(ValueError, match="norm_average: found 'median'"):
        network((6, 5, 3), replace(frameworks.PYTORCH, norm_average="median"))


@pytest.mark.parametrize("kernel", [True, False])
def test_a_frozen_layer_normalizes_with_moving_statistics(kernel, request):
    if not kernel:
        request.getfixturevalue("without_the_kernel")
    layer, x = layer_of((4, 6, 5, 3)), batch((4, 6, 5, 3))
    layer.moving_mean.assign(np.float32([4, 5, 6]))
    layer.moving_variance.assign(np.float32([8, 9, 10]))
    layer.trainable = False
    before = [array(w) for w in layer.weights]
    expected = (x - [4, 5, 6]) / np.sqrt(np.array([8, 9, 10]) + 1e-3) * [1, 2, 3] + [0.1, 0.2, 0.3]
    for training in (True, False):
        np.testing.assert_allclose(array(layer(x, training=training)), expected, rtol=1e-5)
    assert all((array(w) == old).all() for w, old in zip(layer.weights, before))


def test_without_scale_and_shift():
    layer, x = BatchNorm(scale=False, center=False), batch((4, 6, 5, 3))
    y = array(layer(x, training=True))
    assert [w.name for w in layer.weights] == ["moving_mean", "moving_variance"]
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-5)


def test_weights_have_the_names_of_keras():
    names = [w.name for w in layer_of((1, 2, 2, 3)).weights]
    assert names == ["gamma", "beta", "moving_mean", "moving_variance"]


@pytest.mark.parametrize("framework", frameworks.FRAMEWORKS.values(), ids=frameworks.FRAMEWORKS)
def test_saved_and_opened(framework, tmp_path):
    model, x = network((6, 5, 3), framework), batch((4, 6, 5, 3))
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    opened = keras.saving.load_model(tmp_path / "model.keras")
    norm, first = opened.get_layer("norm"), model.get_layer("norm")
    assert norm.get_config() == first.get_config()
    assert (norm.moving_variance_kind, norm.synchronized) == (framework.norm_variance, True)
    np.testing.assert_array_equal(array(opened(x)), array(model(x)))


def test_variance_of_each_framework():
    kinds = {name: framework.norm_variance for name, framework in frameworks.FRAMEWORKS.items()}
    assert kinds == {
        "keras_2_2": "keras_2_2",
        "tensorflow_2": "unbiased",
        "pytorch": "unbiased",
    }


@pytest.mark.parametrize(
    ("option", "value"), [("moving_variance", "sample"), ("axis", 1), ("renorm", True)]
)
def test_an_option_without_effect_is_refused(option, value):
    with pytest.raises(ValueError, match=f"{option}: found {value!r}"):
        BatchNorm(**{option: value})


@on_tensorflow
def test_compiled_by_xla():
    x = batch((4, 6, 5, 3))
    plain, compiled = network((6, 5, 3)), network((6, 5, 3))
    for model, jit in ((plain, False), (compiled, True)):
        model.compile("sgd", "mse", jit_compile=jit)
        model.train_on_batch(x, np.zeros_like(x))
    for one, other in zip(plain.weights, compiled.weights):
        np.testing.assert_allclose(array(one), array(other), rtol=1e-5, atol=1e-6)


def _main(answer: str) -> None:
    """Measure on this process' backend."""
    results = {
        f"{name}/{kind}/{key}": values
        for name, shape in SHAPES.items()
        for kind in frameworks.NORM_VARIANCES
        for key, values in measured(shape, moving_variance=kind).items()
    }
    np.savez(answer, **results)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_equal_on_every_backend(backend, tmp_path):
    python = os.environ.get(f"KERAS_MEDSEG_{backend.upper()}_PYTHON", sys.executable)
    if backend == keras.backend.backend():
        pytest.skip(f"{backend} is the reference")
    installed = subprocess.run([python, "-c", f"import keras, {backend}"], capture_output=True)
    if installed.returncode:
        pytest.skip(f"{python} has no {backend}")
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    answer = tmp_path / "answer.npz"
    subprocess.run([python, __file__, str(answer)], env=environment, cwd=tmp_path, check=True)
    with np.load(answer) as found:
        for key in found.files:
            name, kind, measure = key.split("/")
            expected = measured(SHAPES[name], moving_variance=kind)[measure]
            # Outputs near 0 are differences of numbers as large as the largest ones.
            near = 1e-6 * max(1, np.abs(expected).max())
            np.testing.assert_allclose(found[key], expected, rtol=1e-6, atol=near, err_msg=key)


REPLICAS = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_medseg.layers.normalization import BatchNorm
x = np.random.default_rng(0).normal(5, 3, (4, 6, 5, 3)).astype("float32")
x[2:] += 10  # the second replica's half
weights = np.random.default_rng(1).standard_normal(x.shape).astype("float32")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
answer = {}
for synchronized in (True, False):
    with strategy.scope():
        layer = BatchNorm(momentum=0.9, synchronized=synchronized)
        layer.build(x.shape)
    def step():
        half = tf.distribute.get_replica_context().replica_id_in_sync_group
        own = tf.constant(x)[2 * half : 2 * half + 2]
        with tf.GradientTape() as tape:
            tape.watch(own)
            y = layer(own, training=True)
            loss = tf.reduce_sum(y * tf.constant(weights)[2 * half : 2 * half + 2])
        return y, tape.gradient(loss, own)
    y, gradient = strategy.run(tf.function(step))
    values = lambda parts: np.concatenate(strategy.experimental_local_results(parts))
    answer[f"{synchronized}/y"], answer[f"{synchronized}/gradient"] = values(y), values(gradient)
    answer[f"{synchronized}/variance"] = np.asarray(layer.moving_variance)
np.savez(sys.argv[1], x=x, weights=weights, **answer)
"""


@pytest.mark.slow
@on_tensorflow
def test_synchronized_replicas_are_as_one(tmp_path):
    import tensorflow as tf

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", REPLICAS, str(tmp_path / "answer.npz")]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    with np.load(tmp_path / "answer.npz") as file:
        found = dict(file)
    layer, x = BatchNorm(momentum=0.9), tf.constant(found["x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(y * found["weights"])
    alone = {"y": y, "gradient": tape.gradient(loss, x), "variance": layer.moving_variance}
    for name, value in alone.items():
        np.testing.assert_allclose(found[f"True/{name}"], array(value), rtol=1e-5, atol=1e-5)
        assert np.abs(found[f"False/{name}"] - array(value)).max() > 0.1


if __name__ == "__main__":
    _main(sys.argv[1])
