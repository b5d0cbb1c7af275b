"""Recipe -> fitted network: precision, optimizer, learning-rate rule, exact resume.

A run that was killed and started again ends with the same bits as an unbroken one, because
nothing depends on what happened before the epoch except the checkpoint: the order of the data and
the augmentations are functions of (seed, epoch, step), and every Dropout generator is reseeded
from (seed, epoch).
"""

import importlib.util
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from keras_medseg import checkpoint, losses, progress, recipe, registry
from keras_medseg.data import batches as b
from keras_medseg.errors import DataError
from keras_medseg.files import write_atomic

OPTIMIZERS = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "nadam": keras.optimizers.Nadam,
}


def fit(
    run: recipe.Recipe,
    regions: tuple[str, ...],
    training: b.SliceBatches,
    validation: b.SliceBatches,
    folder: Path,
) -> keras.Model:
    """Train one network of the recipe for `regions`, or go on where its checkpoint ends.

    Writes into `folder`: `checkpoint/`, `log.csv`, `tensorboard/` (where TensorFlow is installed)
    and, at the end, `model.keras`.

    Raises:
        DataError: when `folder` holds a training of another recipe or data, or only damaged
            checkpoints.
    """
    network, model = build(run, regions, channels=training.batch(0, 0)[0].shape[-1])
    identity = {
        "recipe": json.loads(recipe.to_json(run)),
        "regions": list(regions),
        "data": training.store.fingerprint,
        "cases": [list(training.case_ids), list(validation.case_ids)],
    }
    log = _restore(model, folder / "checkpoint", identity)
    if len(log) < run.train.epochs:
        callbacks = [
            ReseedDropout(run.train.seed),
            *_schedule(run.train, log),
            Checkpoint(folder, identity, log),
            *_tensorboard(folder),
            Progress("+".join(regions), run.train.epochs),
            RefuseDivergence(),
        ]
        model.fit(
            _feed(training, range(len(log), run.train.epochs)),
            steps_per_epoch=training.steps_per_epoch,
            validation_data=_feed(validation, range(1)),
            validation_steps=validation.steps_per_epoch,
            initial_epoch=len(log),
            epochs=run.train.epochs,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )
        (folder / "model.keras").unlink(missing_ok=True)
    if not (folder / "model.keras").exists():
        _save_model(network, folder / "model.keras")
    return network


def build(
    run: recipe.Recipe, regions: tuple[str, ...], *, channels: int
) -> tuple[keras.Model, keras.Model]:
    """The recipe's network with the weights that its seed gives, and the model to fit.

    Of a network with one output the two are the same. Those of one with auxiliary outputs share
    their layers; the model has all outputs in one, as a batch has all targets in one.

    Raises:
        ValueError: for an optimizer, loss or precision that does not exist, and for auxiliary
            outputs that the network does not have.
    """
    if run.train.optimizer not in OPTIMIZERS:
        raise ValueError(
            f"train.optimizer: found {run.train.optimizer!r}, expected one of {list(OPTIMIZERS)}."
        )
    _schedule(run.train, [])
    make_deterministic(run.train.seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(run.train.precision)
    try:
        network = registry.build(
            run.model.name,
            input_shape=(*run.data.window[:2], channels),
            classes=len(regions),
            **run.model.overrides,
        )
        model = _join_outputs(network, (*regions, *run.model.auxiliary))
        optimizer = OPTIMIZERS[run.train.optimizer](
            run.train.learning_rate, **run.train.optimizer_options
        )
        model.compile(
            optimizer=optimizer,
            loss=losses.get(run.train.loss, **run.train.loss_options),
            metrics=[keras.metrics.BinaryAccuracy(name="accuracy")],
        )
    finally:
        keras.config.set_dtype_policy(policy)
    return network, model


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and the backend; on TensorFlow also choose deterministic kernels."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


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
    """At each epoch's end: state and log to disk, then `log.csv`."""

    def __init__(self, folder: Path, identity: dict, log: list[dict]) -> None:
        super().__init__()
        self.folder = folder
        self.identity = identity
        self.log = log

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.monotonic()
        self.learning_rate = _learning_rate(self.model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        row = {k: float(v) for k, v in logs.items() if k != "learning_rate"}
        seconds = round(time.monotonic() - self.started, 2)
        self.log.append(
            {"epoch": epoch + 1, "learning_rate": self.learning_rate, **row, "seconds": seconds}
        )
        record = {"identity": self.identity, "log": self.log}
        checkpoint.save(self.folder / "checkpoint", epoch + 1, _state(self.model), record)
        table = pd.DataFrame(self.log).to_csv(index=False)
        write_atomic(self.folder / "log.csv", table.encode())


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
    if found != len(targets):
        raise ValueError(
            f"model.auxiliary: found the targets {', '.join(targets)}, expected {found}: "
            f"as many as {network.name} has outputs."
        )
    if len(network.outputs) == 1:
        return network
    join = keras.layers.Concatenate(dtype="float32", name="outputs")
    return keras.Model(network.input, join(network.outputs), name=network.name)


def _feed(batches: b.SliceBatches, epochs: range) -> Any:
    if keras.backend.backend() == "tensorflow":
        return b.tf_dataset(batches, epochs)
    return b.py_dataset(batches, epochs[0])


def _schedule(train: recipe.Train, log: list[dict]) -> list[keras.callbacks.Callback]:
    if train.schedule == "constant":
        return []
    needed = {"plateau": "monitor", "polynomial": "power"}.get(train.schedule)
    if needed and needed not in train.schedule_options:
        raise ValueError(
            f"train.schedule_options: found {train.schedule_options}, expected {needed!r} among "
            f"them for the schedule {train.schedule!r}."
        )
    if train.schedule == "plateau":
        options = {"mode": "max" if "accuracy" in train.schedule_options["monitor"] else "min"}
        return [ResumedPlateau(log, train.learning_rate, **options, **train.schedule_options)]
    if train.schedule == "polynomial":
        return [keras.callbacks.LearningRateScheduler(partial(_polynomial, train))]
    raise ValueError(
        f"train.schedule: found {train.schedule!r}, expected 'constant', 'plateau' or 'polynomial'."
    )


def _polynomial(train: recipe.Train, epoch: int) -> float:
    """Myronenko's rule: from the initial rate towards 0, changed once per epoch."""
    remaining = 1 - epoch / train.epochs
    return train.learning_rate * remaining ** train.schedule_options["power"]


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


def _restore(model: keras.Model, folder: Path, identity: dict) -> list[dict]:
    found = checkpoint.load_latest(folder)
    if found is None:
        return []
    arrays, record = found
    if difference := _difference(record["identity"], identity):
        raise DataError(
            folder,
            found=f"a training with {difference}",
            expected="one of the same recipe and data",
            remedy="Choose another run folder (OUT=, --out), or delete the whole run.",
        )
    model.optimizer.build(model.trainable_variables)
    for kind, group in {"weights": model.weights, "optimizer": model.optimizer.variables}.items():
        for index, variable in enumerate(group):
            variable.assign(arrays[f"{kind}/{index:04d}"])
    return record["log"]


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
    temporary = path.with_name(f"{path.stem}.partial.keras")
    model.save(temporary)
    temporary.replace(path)
