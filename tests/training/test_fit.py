"""Exact resume, as a user meets it: processes that are killed and started again."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from keras_medseg import registry
from keras_medseg.layers.rematerialization import rematerialized
from keras_medseg.training import callbacks, fit, metrics

from ..recipes import small_recipe

SCRIPT = Path(__file__).with_name("run_tiny_training.py")
STEPS_PER_EPOCH = 2  # 2 cases x 8 slices / batch 8


def start(folder: Path, *arguments: str, backend: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *arguments],
        env={**os.environ, **({"KERAS_BACKEND": backend} if backend else {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def outcome(folder: Path) -> tuple[dict[str, np.ndarray], pd.DataFrame, str]:
    run = folder / "training" / "main-WT"
    with np.load(run / "checkpoint" / "epoch_0004.npz") as archive:
        arrays = {name: archive[name] for name in archive.files if name != "record"}
    log = pd.read_csv(run / "log.csv").drop(columns="seconds")
    return arrays, log, (folder / "scores.csv").read_text()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    done = start(folder)
    assert done.returncode == 0, done.stderr
    return folder


def assert_same_bits(one: Path, other: Path) -> None:
    (arrays, log, scores), (arrays2, log2, scores2) = outcome(one), outcome(other)
    assert arrays.keys() == arrays2.keys()
    for name, array in arrays.items():
        assert array.tobytes() == arrays2[name].tobytes(), name
    pd.testing.assert_frame_equal(log, log2, check_exact=True)
    assert scores == scores2


def test_a_run_killed_in_the_middle_of_an_epoch_ends_with_the_same_bits(unbroken, tmp_path):
    killed = start(tmp_path, "--die-at-step", str(2 * STEPS_PER_EPOCH + 1))
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "training" / "main-WT" / "model.keras").exists()
    assert len(pd.read_csv(tmp_path / "training" / "main-WT" / "log.csv")) == 2
    resumed = start(tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 3/4" in resumed.stdout
    assert "epoch 2/4" not in resumed.stdout
    assert_same_bits(unbroken, tmp_path)


def assert_resume_is_exact(folder: Path, *settings: str, backend: str = "") -> None:
    """Leaves the unbroken run in folder / "whole"."""
    whole = start(folder / "whole", *settings, backend=backend)
    assert whole.returncode == 0, whole.stderr
    step = str(STEPS_PER_EPOCH + 1)
    killed = start(folder / "killed", *settings, "--die-at-step", step, backend=backend)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(pd.read_csv(folder / "killed" / "training" / "main-WT" / "log.csv")) == 1
    resumed = start(folder / "killed", *settings, backend=backend)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_bits(folder / "whole", folder / "killed")


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")
def test_resume_is_exact_with_jax(tmp_path):
    """Its trainer keeps the state outside of the variables while an epoch runs."""
    assert_resume_is_exact(tmp_path, backend="jax")


@pytest.mark.slow
def test_resume_is_exact_under_mixed_precision_too(tmp_path):
    """The loss scale of mixed_float16 is part of the optimizer's state."""
    assert_resume_is_exact(tmp_path, "--set", "train.precision=mixed_float16")


@pytest.mark.slow
def test_resume_is_exact_from_given_weights_that_are_gone_by_then(unbroken, tmp_path):
    """The first weights count once: a checkpoint contains all that is needed."""
    source = tmp_path / "source"
    shutil.copytree(unbroken, source)
    settings = ("--set", f"train.init={source}")
    assert start(tmp_path / "whole", *settings).returncode == 0
    step = str(STEPS_PER_EPOCH + 1)
    assert start(tmp_path / "killed", *settings, "--die-at-step", step).returncode != 0
    shutil.rmtree(source)
    resumed = start(tmp_path / "killed", *settings)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_bits(tmp_path / "whole", tmp_path / "killed")
    first, given = (outcome(folder)[1]["loss"][0] for folder in (unbroken, tmp_path / "whole"))
    assert given < first / 2


SUPERVISED = (
    "model.name=tiny_supervised",
    "model.auxiliary=('ET','ED')",
    "train.loss=cross_entropy_and_dice",
    "train.loss_options={'output_weights': (1.0, 0.5, 0.5), 'from_logits': True}",
    "train.schedule=polynomial",
    "train.schedule_options={'power': 0.9}",
)


@pytest.mark.slow
def test_resume_is_exact_with_auxiliary_outputs_and_a_rule_of_the_epoch(tmp_path):
    settings = [part for field in SUPERVISED for part in ("--set", field)]
    assert_resume_is_exact(tmp_path, *settings)
    # The network on disk has its outputs apart, the main one first.
    network = keras.saving.load_model(tmp_path / "whole/training/main-WT/model.keras")
    assert network.output_shape == [(None, 16, 16, 1)] * 3


# At this rate the validation loss is 1.95, 0.47, 0.49, 0.59.
KEEP_BEST = (
    "train.keep=best",
    "train.learning_rate=1.0",
    "train.schedule=constant",
    "train.schedule_options={}",
)


@pytest.fixture(scope="module")
def best_kept(tmp_path_factory):
    """An unbroken run that keeps the weights of its second epoch of four."""
    folder = tmp_path_factory.mktemp("best")
    done = start(folder, *(part for field in KEEP_BEST for part in ("--set", field)))
    assert done.returncode == 0, done.stderr
    assert outcome(folder)[1]["val_loss"].idxmin() == 1
    return folder


def kept(folder: Path) -> list[np.ndarray]:
    return keras.saving.load_model(folder / "training/main-WT/model.keras").get_weights()


@pytest.mark.slow
def test_the_network_is_that_of_the_best_epoch(best_kept):
    """Another run that ends with the second epoch has these weights as its last ones."""
    short = best_kept / "short"
    settings = (*KEEP_BEST[1:], "train.epochs=2")
    done = start(short, *(part for field in settings for part in ("--set", field)))
    assert done.returncode == 0, done.stderr
    for ours, theirs in zip(kept(best_kept), kept(short), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    last = outcome(best_kept)[0]
    assert any(w.tobytes() != last[f"weights/{i:04d}"].tobytes() for i, w in enumerate(kept(short)))


@pytest.mark.slow
def test_a_log_that_lacks_the_last_epoch_is_completed(unbroken, tmp_path):
    """Killed between the last checkpoint and log.csv, there is nothing left to train."""
    assert start(tmp_path, "--die-after-checkpoint", "4").returncode == -signal.SIGKILL
    assert len(pd.read_csv(tmp_path / "training/main-WT/log.csv")) == 3
    resumed = start(tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert len(pd.read_csv(tmp_path / "training/main-WT/log.csv")) == 4
    assert_same_bits(unbroken, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("death", [("--die-at-step", "7"), ("--die-after-best", "2")])
def test_resume_is_exact_where_the_best_weights_are_kept(best_kept, tmp_path, death):
    """Killed long after the best epoch, and in it: between the best weights and the checkpoint."""
    settings = [part for field in KEEP_BEST for part in ("--set", field)]
    assert start(tmp_path, *settings, *death).returncode == -signal.SIGKILL
    resumed = start(tmp_path, *settings)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_bits(best_kept, tmp_path)
    for ours, theirs in zip(kept(best_kept), kept(tmp_path), strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_the_best_epoch_is_the_first_of_the_lowest_validation_losses():
    losses = (np.nan, 0.5, 0.25, 0.25, np.inf)
    log = [{"epoch": epoch, "val_loss": loss} for epoch, loss in enumerate(losses, 1)]
    assert [callbacks.best_epoch(log[:n]) for n in range(1, 6)] == [1, 2, 3, 3, 3]


@pytest.mark.slow
def test_two_runs_with_one_seed_are_equal_and_another_seed_is_not(unbroken, tmp_path):
    for name, seed in (("same", 3), ("other", 4)):
        done = start(tmp_path / name, "--set", f"train.seed={seed}")
        assert done.returncode == 0, done.stderr
    assert_same_bits(unbroken, tmp_path / "same")
    one, other = outcome(unbroken)[0], outcome(tmp_path / "other")[0]
    assert one.keys() == other.keys()
    assert any(array.tobytes() != other[name].tobytes() for name, array in one.items())


def test_the_learning_rate_rule_was_at_work(unbroken):
    """The bit-exact test means nothing for the rule unless the rate really changed."""
    log = outcome(unbroken)[1]
    # After the first epoch none is better by 0.5, and patience is 1.
    np.testing.assert_allclose(log["learning_rate"], [0.01, 0.01, 0.005, 0.0025], rtol=1e-6)


@pytest.mark.slow
def test_the_polynomial_rule_by_hand(tmp_path):
    """Myronenko's rule with power 0.9 over 4 epochs: 0.01 * (1 - e / 4) ** 0.9."""
    fields = ("train.schedule=polynomial", "train.schedule_options={'power': 0.9}")
    done = start(tmp_path, *(part for field in fields for part in ("--set", field)))
    assert done.returncode == 0, done.stderr
    expected = [0.01, 0.01 * 0.75**0.9, 0.01 * 0.5**0.9, 0.01 * 0.25**0.9]
    np.testing.assert_allclose(outcome(tmp_path)[1]["learning_rate"], expected, rtol=1e-6)


def _one_convolution(name, input_shape, classes):
    image = keras.Input(input_shape)
    return keras.Model(image, keras.layers.Conv2D(classes, 1, activation="sigmoid")(image))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow traces")
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "nadam"])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_training_step_is_traced_once(monkeypatch, optimizer, precision):
    """Tracing is most of what a short training takes; variables made in it would double it."""
    monkeypatch.setattr(registry, "build", _one_convolution)
    train = {"train.precision": precision, "train.optimizer": optimizer}
    chosen = small_recipe({"model.options": {}, "data.window": (4, 3, 2), **train})
    model = fit.compile_network(chosen, ("WT",), channels=2)[1]
    traced = []
    step = type(model).train_step
    monkeypatch.setattr(model, "train_step", lambda data: traced.append(1) or step(model, data))
    model.fit(np.zeros((4, 4, 3, 2)), np.zeros((4, 4, 3, 1)), batch_size=2, epochs=2, verbose=0)
    assert traced == [1]


def test_one_step_of_gradient_descent_by_hand(monkeypatch):
    """w - 0.005 * gradient, twice, and nothing else: no momentum, no decay. The network is one
    number per channel, so the gradient of the cross entropy is the mean of (p - q) x."""
    monkeypatch.setattr(registry, "build", _one_convolution)
    small = {"model.options": {}, "data.window": (4, 3, 2)}
    train = {"train.optimizer": "sgd", "train.learning_rate": 0.005}
    model = fit.compile_network(small_recipe(small | train), ("WT",), channels=2)[1]
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 4, 3, 2)), rng.random((2, 4, 3)) > 0.5
    weights, bias = model.get_weights()
    weights = weights[0, 0, :, 0]
    for _ in range(2):
        model.train_on_batch(np.float32(x), np.float32(y[..., None]))
        error = 1 / (1 + np.exp(-(x @ weights + bias))) - y
        weights = weights - 0.005 * (error[..., None] * x).mean((0, 1, 2))
        bias = bias - 0.005 * error.mean()
    found_weights, found_bias = model.get_weights()
    np.testing.assert_allclose(found_weights[0, 0, :, 0], weights, atol=1e-7)
    np.testing.assert_allclose(found_bias, bias, atol=1e-7)


def _two_outputs(name, input_shape, classes):
    image = keras.Input(input_shape)
    x = keras.layers.Conv2D(classes, 1, name="Output_conv")(image)
    main = keras.layers.Activation("sigmoid", dtype="float32", name="Output")(x)
    head = keras.layers.Conv2D(classes, 1, activation="sigmoid", name="Head")(image)
    return keras.Model(image, [main, head])


FROM_LOGITS = {
    "model.options": {},
    "model.auxiliary": ("ET",),
    "data.window": (4, 3, 2),
    "train.loss": "cross_entropy_and_dice",
    "train.loss_options": {"output_weights": (1.0, 1.0), "from_logits": True},
    "train.optimizer": "sgd",
    "train.learning_rate": 1.0,
}


def test_training_from_logits_leaves_a_network_of_probabilities(monkeypatch):
    """The model that is fitted puts out logits, on the network's weights. Both outputs are sure and
    wrong, 0 where all is object, so that probabilities would have no gradient."""
    monkeypatch.setattr(registry, "build", _two_outputs)
    network, model = fit.compile_network(small_recipe(FROM_LOGITS), ("WT",), channels=2)
    zeros = np.zeros((1, 1, 2, 1))
    network.set_weights([zeros, np.array([-100.0]), zeros, np.array([-120.0])])
    assert [w.path for w in model.weights] == [w.path for w in network.weights]
    x, y = np.ones((2, 4, 3, 2), "float32"), np.ones((2, 4, 3, 2), "float32")
    logits = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(logits[0, 0, 0], [-100, -120])
    assert all(not keras.ops.convert_to_numpy(p).any() for p in network(x))
    logs = model.train_on_batch(x, y, return_dict=True)
    # 100 + 1 and 120 + 1, cross entropy and Dice; no pixel is right.
    assert logs == {
        "loss": pytest.approx(222),
        "accuracy": 0,
        "dice_WT": pytest.approx(0, abs=1e-6),
    }
    for bias, before in zip((network.get_weights()[i] for i in (1, 3)), (-100, -120)):
        assert bias == pytest.approx(before + 1, abs=1e-4)


@pytest.mark.parametrize("from_logits", [True, False])
def test_accuracy_is_that_of_probabilities(monkeypatch, from_logits):
    """p > 1/2 from the logit 0 on; logits above 1/2 would be another pixel."""
    monkeypatch.setattr(registry, "build", _two_outputs)
    options = {**FROM_LOGITS, "train.loss_options.from_logits": from_logits}
    network, model = fit.compile_network(small_recipe(options), ("WT",), channels=2)
    kernel = np.array([1.0, 0.0]).reshape(1, 1, 2, 1)
    network.set_weights([kernel, np.zeros(1), kernel, np.zeros(1)])
    x = np.zeros((1, 4, 3, 2), "float32")
    x[0, 0, :, 0] = [0.3, -0.3, 0.7]  # of twelve pixels two are above 0
    logs = model.evaluate(x, np.ones((1, 4, 3, 2), "float32"), verbose=0, return_dict=True)
    assert logs["accuracy"] == pytest.approx(2 / 12)


def test_a_network_without_probabilities_is_refused(monkeypatch):
    def linear(name, input_shape, classes):
        image = keras.Input(input_shape)
        return keras.Model(image, keras.layers.Conv2D(classes, 1)(image), name="linear")

    monkeypatch.setattr(registry, "build", linear)
    one = {**FROM_LOGITS, "model.auxiliary": (), "train.loss_options.output_weights": (1.0,)}
    with pytest.raises(ValueError, match=r"from_logits: .*ends in linear, expected one of sigmoid"):
        fit.compile_network(small_recipe(one), ("WT",), channels=2)


def _compile_in_3d(
    monkeypatch, policy: str, depth: int, dilation: int = 1, block: bool = False
) -> None:
    """A 3x3x3 convolution on maps of depth x 3 x 3, by itself or in a block that is recomputed."""

    def network(name, input_shape, classes):
        image = keras.Input((depth, 3, 3, 2))
        options = {"padding": "same", "dilation_rate": dilation, "activation": "sigmoid"}
        convolution = keras.layers.Conv3D(classes, 3, **options, name="deepest")
        maps = (
            rematerialized(lambda x, name: convolution(x), image, name="block")
            if block
            else convolution(image)
        )
        return keras.Model(image, keras.layers.Activation("linear", dtype="float32")(maps))

    monkeypatch.setattr(registry, "build", network)
    recipe = small_recipe({"model.options": {}, "train.precision": policy})
    fit.compile_network(recipe, ("WT",), channels=2)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="oneDNN of TensorFlow")
def test_maps_whose_gradients_a_cpu_leaves_undefined_in_bfloat16_are_refused(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind="": [])
    message = (
        "train.precision: found mixed_bfloat16 and maps of 2x3x3 voxels under the 3x3x3 kernel of "
        "deepest, expected maps as large as the kernel: on some CPUs its gradient would be "
        "undefined. Use float32, or larger patches."
    )
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        _compile_in_3d(monkeypatch, "mixed_bfloat16", depth=2)
    with pytest.raises(ValueError, match="kernel of deepest"):
        _compile_in_3d(monkeypatch, "mixed_bfloat16", depth=2, block=True)
    _compile_in_3d(monkeypatch, "mixed_bfloat16", depth=3)
    _compile_in_3d(monkeypatch, "mixed_bfloat16", depth=2, dilation=2)
    _compile_in_3d(monkeypatch, "float32", depth=2)
    _compile_in_3d(monkeypatch, "mixed_float16", depth=2)
    gpus = {"GPU": ["the first"]}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind="": gpus.get(kind, []))
    _compile_in_3d(monkeypatch, "mixed_bfloat16", depth=2)


def test_the_dice_of_an_epoch_is_pooled_over_its_pixels_and_main_channels():
    """Two batches: 1 of 2 and 2 objects' pixels found, then 3 of 3 and 4: 2 (1 + 3) / (4 + 7)."""
    dice = metrics.MainDice(1)
    assert float(dice.result()) == 1.0
    first = np.array([[1, 1, 0, 0]]), np.array([[0.9, 0.5, 0.6, 0.2]])  # 0.5 is not above 1/2
    second = np.array([[1, 1, 1, 0]]), np.array([[0.9, 0.9, 0.9, 0.9]])
    for truth, found in (first, second):
        maps = [np.stack([x, 1 - x], axis=-1)[..., None, :] for x in (truth, found)]
        dice.update_state(*map(np.float32, maps))
    assert float(dice.result()) == pytest.approx(8 / 11)
    of_logits = metrics.MainDice(1, "sigmoid")
    of_logits.update_state(np.ones((1, 1, 4, 1)), np.array([-0.3, 0.3, 0.7, 0]).reshape(1, 1, 4, 1))
    assert float(of_logits.result()) == pytest.approx(2 * 2 / (4 + 2))
    again = metrics.MainDice.from_config(of_logits.get_config())
    assert (again.channels, again.activation) == (1, "sigmoid")


@pytest.mark.slow
def test_resume_is_exact_with_a_learned_edge_network_and_a_rule_on_the_dice(tmp_path):
    rule = "{'monitor': 'val_dice', 'factor': 0.5, 'patience': 1, 'min_delta': 0.5}"
    fields = (
        "train.loss=cross_entropy_and_learned_edge",
        "train.loss_options={'steps': 3}",
        f"train.schedule_options={rule}",
    )
    assert_resume_is_exact(tmp_path, *(part for field in fields for part in ("--set", field)))
    log = outcome(tmp_path / "whole")[1]
    np.testing.assert_allclose(log["learning_rate"], [0.01, 0.01, 0.005, 0.0025], rtol=1e-6)
    assert log["val_dice"].between(0, 1).all()


def test_an_interrupt_that_is_heard_after_the_last_step_is_not_lost():
    with pytest.raises(KeyboardInterrupt), callbacks.interrupted_between_steps():
        signal.raise_signal(signal.SIGINT)


def test_a_loss_that_is_no_number_stops_the_training():
    callback = callbacks.RefuseDivergence()
    callback.set_model(fit.compile_network(small_recipe(), ("WT",), channels=4)[1])
    callback.on_epoch_begin(2)
    callback.on_train_batch_end(6, {"loss": 0.5})
    words = r"loss: found nan in epoch 3, step 8.*learning rate 0.01; start a run with a lower"
    with pytest.raises(ValueError, match=words):
        callback.on_train_batch_end(7, {"loss": np.nan})


@pytest.mark.slow
def test_a_training_that_diverges_stops_at_once(tmp_path):
    failed = start(tmp_path, "--set", "train.learning_rate=3e38")
    assert failed.returncode != 0
    assert "diverged at the learning rate" in failed.stderr
    assert not (tmp_path / "training" / "main-WT" / "model.keras").exists()


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_costs_an_epoch_and_no_bit(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "run")
    (tmp_path / "run" / "scores.csv").unlink()
    newest = tmp_path / "run" / "training" / "main-WT" / "checkpoint" / "epoch_0004.npz"
    newest.write_bytes(newest.read_bytes()[:-100])
    again = start(tmp_path / "run")
    assert again.returncode == 0, again.stderr
    assert "epoch_0004.npz" in again.stderr
    assert_same_bits(unbroken, tmp_path / "run")


def test_another_recipe_in_the_same_folder_is_refused(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "run")
    refused = start(tmp_path / "run", "--set", "train.learning_rate=0.5")
    assert refused.returncode != 0
    assert "train.learning_rate = 0.01 (now 0.5)" in refused.stderr


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(unbroken):
    again = start(unbroken)
    assert again.returncode == 0, again.stderr
    assert "epoch" not in again.stdout
