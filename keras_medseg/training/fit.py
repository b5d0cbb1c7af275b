"""Recipe -> fitted network: precision, optimizer, learning-rate rule, exact resume.

A run that was killed and started again ends with the same bits as an unbroken one, because
nothing depends on what happened before the epoch except the checkpoint: the order of the data and
the augmentations are functions of (seed, epoch, step), and every Dropout generator is reseeded
from (seed, epoch).
"""

import importlib.util
import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from keras_medseg import losses, progress, recipe, registry
from keras_medseg.data.batches.base import CaseBatches
from keras_medseg.data.batches.feeding import py_dataset, tf_dataset
from keras_medseg.errors import DataError, require_choice
from keras_medseg.files import write_atomic
from keras_medseg.optimizers import OPTIMIZERS
from keras_medseg.training import checkpoint
from keras_medseg.training.augmented_model import AugmentedModel


def fit(
    run: recipe.Recipe,
    regions: tuple[str, ...],
    training: CaseBatches,
    validation: CaseBatches,
    folder: Path,
) -> None:
    """Train one network of the recipe for `regions`, or go on where its checkpoint ends.

    Writes into `folder`: `checkpoint/`, `best/` where the best weights are kept, `log.csv`,
    `tensorboard/` (where TensorFlow is installed) and, at the end, `model.keras`.

    Raises:
        DataError: when `folder` holds a training of another recipe or data, or only damaged
            checkpoints.
    """
    identity = {
        "recipe": json.loads(recipe.to_json(run)),
        "regions": list(regions),
        "data": training.store.fingerprint,
        "cases": [list(training.case_ids), list(validation.case_ids)],
    }
    arrays, log = _find_checkpoint(folder / "checkpoint", identity)
    path = folder / "model.keras"
    if len(log) == run.train.epochs and path.exists():
        return
    case = training.store.cases[training.case_ids[0]]
    channels = recipe.input_channels(run, case.image.shape[-1])
    network, model = compile_network(run, regions, channels=channels)
    if arrays:
        _restore(model, arrays)
    if len(log) < run.train.epochs:
        callbacks = [
            ReseedDropout(run.train.seed),
            *_schedule(run.train, log),
            Checkpoint(folder, identity, log, best=run.train.keep == "best"),
            *_tensorboard(folder),
            Progress("+".join(regions), run.train.epochs),
            RefuseDivergence(),
        ]
        with interrupted_between_steps() as interruption:
            model.fit(
                _feed(training, range(len(log), run.train.epochs)),
                steps_per_epoch=training.steps_per_epoch,
                validation_data=_feed(validation, range(1)),
                validation_steps=validation.steps_per_epoch,
                initial_epoch=len(log),
                epochs=run.train.epochs,
                callbacks=[*callbacks, interruption],
                shuffle=False,
                verbose=0,
            )
    if run.train.keep == "best":
        _restore_best(model, folder / "best", log)
    _save_model(network, path)


def compile_network(
    run: recipe.Recipe, regions: tuple[str, ...], *, channels: int
) -> tuple[keras.Model, keras.Model]:
    """The recipe's network with the weights that its seed gives, and the model to fit.

    Of a network with one output the two are the same. Those of one with auxiliary outputs share
    their layers; the model has all outputs in one, as a batch has all targets in one.

    Raises:
        ValueError: for an optimizer, loss or precision that does not exist, and for auxiliary
            outputs that the network does not have.
    """
    require_choice("train.optimizer", run.train.optimizer, OPTIMIZERS)
    require_choice("train.keep", run.train.keep, ("last", "best"))
    check_schedule(run.train)
    make_deterministic(run.train.seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(run.train.precision)
    try:
        with _naming("model"):
            network = registry.build(
                run.model.name,
                input_shape=(*run.data.input_size, channels),
                classes=len(regions),
                **run.model.overrides,
            )
        model = _join_outputs(network, (*regions, *run.model.auxiliary))
        if isinstance(run.data, recipe.Patches) and run.data.augment_on_device:
            model = AugmentedModel(model, run.data.augmentation)
        with _naming("train.optimizer_options"):
            optimizer = OPTIMIZERS[run.train.optimizer](
                run.train.learning_rate, **run.train.optimizer_options
            )
        if run.train.precision == "mixed_float16":
            # Keras would add it by the policy of the model, which is float32 for AugmentedModel.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        with _naming("train.loss"):
            loss = losses.get(run.train.loss, **run.train.loss_options)
        model.compile(optimizer=optimizer, loss=loss, metrics=[MainAccuracy(len(regions))])
        # Not within the first step: TensorFlow traces a step that makes variables twice.
        model.optimizer.build(model.trainable_variables)
    finally:
        keras.config.set_dtype_policy(policy)
    return network, model


@contextmanager
def _naming(field: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{field}: {error}") from error


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and the backend; on TensorFlow also choose deterministic kernels."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


@contextmanager
def interrupted_between_steps() -> Iterator[keras.callbacks.Callback]:
    """Hold a Ctrl-C back until the step is done; a second one is not held back.

    Python drops an exception that a signal raises inside a destructor, and of those a framework
    runs many.
    """
    heard = threading.Event()

    def hear(number: int, frame: Any) -> None:
        if heard.is_set():
            raise KeyboardInterrupt
        heard.set()

    def look(*_: Any, **__: Any) -> None:
        if heard.is_set():
            raise KeyboardInterrupt

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=look, on_test_batch_end=look)
    if threading.current_thread() is not threading.main_thread():
        yield callback  # only the main thread may set a handler, and only it is interrupted
        return
    before = signal.signal(signal.SIGINT, hear)
    try:
        yield callback
    finally:
        signal.signal(signal.SIGINT, before)
    if heard.is_set():  # after the last step
        raise KeyboardInterrupt


@keras.saving.register_keras_serializable("keras_medseg")
class MainAccuracy(keras.metrics.BinaryAccuracy):
    """Pixel accuracy of the first `channels` channels: those of the main output."""

    def __init__(self, channels: int, name: str = "accuracy", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.channels = channels

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        main = (..., slice(0, self.channels))
        super().update_state(y_true[main], y_pred[main], sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels}


class RefuseDivergence(keras.callbacks.Callback):
    """Stop at the first loss that is no number; the checkpoint before it stays."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if not np.isfinite(logs["loss"]):
            raise ValueError(
                f"loss: found {logs['loss']} in epoch {self.epoch + 1}, step {batch + 1}, expected "
                f"a number. The training diverged at the learning rate "
                f"{_learning_rate(self.model):.3g}; start a run with a lower train.learning_rate."
            )


class ReseedDropout(keras.callbacks.Callback):
    """Set every seed generator from (seed, epoch): a checkpoint need not hold their states."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        states = [v for v in self.model.variables if v.path.endswith("seed_generator_state")]
        for index, state in enumerate(states):
            words = np.random.SeedSequence([self.seed, epoch, index]).generate_state(2)
            state.assign(words.astype(state.dtype))


class ResumedPlateau(keras.callbacks.ReduceLROnPlateau):
    """Keras' rule, fed with the epochs of the log before it goes on."""

    def __init__(self, log: list[dict], learning_rate: float, **options: Any) -> None:
        super().__init__(**options)
        self.log = list(log)
        self.initial = learning_rate

    def on_train_begin(self, logs: dict | None = None) -> None:
        super().on_train_begin(logs)
        self.model.optimizer.learning_rate = self.initial
        for epoch, row in enumerate(self.log):
            self.on_epoch_end(epoch, dict(row))


class Checkpoint(keras.callbacks.Callback):
    """At each epoch's end: state and log to disk, then `log.csv`.

    best: whether weights that are better than those of all epochs before go into `best/` first. A
    kill in between leaves them there for nothing: which epoch is the best one follows from the log.
    """

    def __init__(
        self, folder: Path, identity: dict, log: list[dict], *, best: bool = False
    ) -> None:
        super().__init__()
        self.folder = folder
        self.identity = identity
        self.log = log
        self.best = best

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.monotonic()
        self.learning_rate = _learning_rate(self.model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        row = {k: float(v) for k, v in logs.items() if k != "learning_rate"}
        seconds = round(time.monotonic() - self.started, 2)
        self.log.append(
            {"epoch": epoch + 1, "learning_rate": self.learning_rate, **row, "seconds": seconds}
        )
        state = _state(self.model)
        if self.best and best_epoch(self.log) == epoch + 1:
            weights = {name: array for name, array in state.items() if name.startswith("weights/")}
            checkpoint.save(self.folder / "best", epoch + 1, weights, {})
        record = {"identity": self.identity, "log": self.log}
        checkpoint.save(self.folder / "checkpoint", epoch + 1, state, record)
        table = pd.DataFrame(self.log).to_csv(index=False)
        write_atomic(self.folder / "log.csv", table.encode())


def best_epoch(log: list[dict]) -> int:
    """The first epoch with the lowest validation loss, counted from 1."""
    return min(log, key=lambda row: np.nan_to_num(row["val_loss"], nan=np.inf))["epoch"]


class Progress(keras.callbacks.Callback):
    """Epoch, step, losses and remaining time of one network."""

    def __init__(self, name: str, epochs: int) -> None:
        super().__init__()
        self.name = name
        self.epochs = epochs
        self.line = progress.Line()

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.done = -1

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.done += 1
        if self.done == 0:  # the first step compiles, and says nothing about the others
            self.started = time.monotonic()
        elif self.line.due:
            self._show(batch + 1, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._show(self.params["steps"], logs, last=True)

    def _show(self, step: int, logs: dict, *, last: bool = False) -> None:
        steps = self.params["steps"]
        left = (self.epochs - self.epoch) * steps - step
        remaining = left * (time.monotonic() - self.started) / max(self.done, 1)
        shown = [f"{k} {v:.4g}" for k, v in logs.items() if k not in ("learning_rate", "seconds")]
        where = f"epoch {self.epoch + 1}/{self.epochs}  step {step}/{steps}"
        ending = f"{progress.duration(remaining)} left"
        self.line.show("  ".join([f"  {self.name}", where, *shown, ending]), last=last)


def _join_outputs(network: keras.Model, targets: tuple[str, ...]) -> keras.Model:
    found = sum(output.shape[-1] for output in network.outputs)
    if found % len(targets):
        raise ValueError(
            f"model.auxiliary: found the targets {', '.join(targets)}, expected {found}, or a "
            f"number that divides it: {network.name} has {found} output channels."
        )
    if len(network.outputs) == 1:
        return network
    join = keras.layers.Concatenate(dtype="float32", name="outputs")
    return keras.Model(network.input, join(network.outputs), name=network.name)


def _feed(batches: CaseBatches, epochs: range) -> Any:
    if keras.backend.backend() == "tensorflow":
        return tf_dataset(batches, epochs)
    return py_dataset(batches, epochs[0])


def check_schedule(train: recipe.Train) -> None:
    """Check that the learning-rate rule exists and has its options.

    Raises:
        ValueError: naming the field.
    """
    require_choice("train.schedule", train.schedule, SCHEDULES)
    _, needed, optional = SCHEDULES[train.schedule]
    for option in train.schedule_options:
        require_choice(f"train.schedule_options of {train.schedule}", option, needed + optional)
    for option in needed:
        if option not in train.schedule_options:
            raise ValueError(
                f"train.schedule_options: found {train.schedule_options}, expected {option!r} "
                f"among them for the schedule {train.schedule!r}."
            )


def check_loss(run: recipe.Recipe, network: keras.Model, model: keras.Model, targets: int) -> None:
    """Check that the compiled loss takes what the network gives, on small maps of zeros.

    Raises:
        ValueError: naming the field.
    """
    size = [min(length, 16) for length in run.data.input_size]
    outputs = sum(output.shape[-1] for output in network.outputs)
    y_true, y_pred = (np.zeros((1, *size, channels), np.float32) for channels in (targets, outputs))
    try:
        model.loss(y_true, y_pred)
    except Exception as error:  # each backend has its own for shapes that do not fit
        raise ValueError(f"train.loss {run.train.loss}: {error}") from error


def _schedule(train: recipe.Train, log: list[dict]) -> list[keras.callbacks.Callback]:
    return SCHEDULES[train.schedule][0](train, log)


def _constant(train: recipe.Train, log: list[dict]) -> list[keras.callbacks.Callback]:
    return []


def _plateau(train: recipe.Train, log: list[dict]) -> list[keras.callbacks.Callback]:
    mode = "max" if "accuracy" in train.schedule_options["monitor"] else "min"
    return [ResumedPlateau(log, train.learning_rate, **{"mode": mode, **train.schedule_options})]


def _by_epoch(rule: Callable[[recipe.Train, int], float]) -> Callable:
    return lambda train, log: [keras.callbacks.LearningRateScheduler(partial(rule, train))]


def _polynomial(train: recipe.Train, epoch: int) -> float:
    """Myronenko's rule: from the initial rate towards 0, changed once per epoch."""
    remaining = 1 - epoch / train.epochs
    return train.learning_rate * remaining ** train.schedule_options["power"]


def _steps(train: recipe.Train, epoch: int) -> float:
    """Times `factor` after each of the epochs in `after`, (300,): from the 301st epoch on."""
    passed = sum(epoch >= last for last in train.schedule_options["after"])
    return train.learning_rate * train.schedule_options.get("factor", 0.1) ** passed


# The rule, the options that it needs, and those that it takes besides.
SCHEDULES: dict[str, tuple[Callable, tuple[str, ...], tuple[str, ...]]] = {
    "constant": (_constant, (), ()),
    "plateau": (
        _plateau,
        ("monitor",),
        ("factor", "patience", "min_delta", "cooldown", "min_lr", "mode"),
    ),
    "polynomial": (_by_epoch(_polynomial), ("power",), ()),
    "steps": (_by_epoch(_steps), ("after",), ("factor",)),
}


def _tensorboard(folder: Path) -> list[keras.callbacks.Callback]:
    # Keras' callback writes through tf.summary, whatever the backend is.
    if not all(importlib.util.find_spec(name) for name in ("tensorflow", "tensorboard")):
        return []
    return [keras.callbacks.TensorBoard(str(folder / "tensorboard"), write_graph=False)]


def _state(model: keras.Model) -> dict[str, np.ndarray]:
    variables = {"weights": model.weights, "optimizer": model.optimizer.variables}
    return {
        f"{kind}/{index:04d}": keras.ops.convert_to_numpy(variable.value)
        for kind, group in variables.items()
        for index, variable in enumerate(group)
    }


def _find_checkpoint(folder: Path, identity: dict) -> tuple[dict[str, np.ndarray], list[dict]]:
    """Arrays and log of the newest sound checkpoint; both are empty without one."""
    found = checkpoint.load_latest(folder)
    if found is None:
        return {}, []
    arrays, record = found
    if difference := _difference(record["identity"], identity):
        raise DataError(
            folder,
            found=f"a training with {difference}",
            expected="one of the same recipe and data",
            remedy="Choose another run folder (OUT=, --out), or delete the whole run.",
        )
    return arrays, record["log"]


def _restore(model: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    _assign("weights", model.weights, arrays)
    _assign("optimizer", model.optimizer.variables, arrays)


def _restore_best(model: keras.Model, folder: Path, log: list[dict]) -> None:
    arrays, _ = checkpoint.load(folder, best_epoch(log))
    _assign("weights", model.weights, arrays)


def _assign(kind: str, variables: list, arrays: dict[str, np.ndarray]) -> None:
    for index, variable in enumerate(variables):
        variable.assign(arrays[f"{kind}/{index:04d}"])


def _difference(found: dict, expected: dict) -> str:
    # As recipes: a field that is younger than the checkpoint has its default there.
    ours, theirs = (recipe.from_json(json.dumps(r["recipe"])) for r in (expected, found))
    if changed := recipe.differences(ours, theirs):
        field, (now, then) = next(iter(changed.items()))
        return f"{field} = {then!r} (now {now!r})"
    if found["data"] != expected["data"]:
        return f"data {found['data'][:12]} (now {expected['data'][:12]})"
    same = all(found[key] == expected[key] for key in ("regions", "cases"))
    return "" if same else "other regions or another split of the cases"


def _learning_rate(model: keras.Model) -> float:
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


def _save_model(model: keras.Model, path: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        model.save(Path(scratch) / path.name)
        write_atomic(path, (Path(scratch) / path.name).read_bytes())
