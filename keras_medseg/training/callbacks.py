"""Callbacks of a training: checkpoints, seeds, progress, divergence, Ctrl-C."""

import importlib.util
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from keras_medseg import progress
from keras_medseg.files import write_atomic
from keras_medseg.training import checkpoint
from keras_medseg.training.events import Listener, epoch_of, nobody


@contextmanager
def interrupted_between_steps() -> Iterator[keras.callbacks.Callback]:
    """Delay a Ctrl-C until the current step is done; a second Ctrl-C acts immediately.

    Python drops an exception that a signal raises inside a destructor, and frameworks run many
    destructors.
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


class RefuseDivergence(keras.callbacks.Callback):
    """Stop at the first loss that is not finite; the last checkpoint stays."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        loss = (logs or {})["loss"]
        if not np.isfinite(loss):
            raise ValueError(
                f"loss: found {loss} in epoch {self.epoch + 1}, step {batch + 1}, expected "
                f"a number. The training diverged at the learning rate "
                f"{learning_rate_of(self.model):.3g}; start a run with a lower train.learning_rate."
            )


class ReseedDropout(keras.callbacks.Callback):
    """Set every seed generator from (seed, epoch), so that checkpoints need not contain them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        states = [v for v in self.model.variables if v.path.endswith("seed_generator_state")]
        for index, state in enumerate(states):
            words = np.random.SeedSequence([self.seed, epoch, index]).generate_state(2)
            state.assign(words.astype(state.dtype))


class Checkpoint(keras.callbacks.Callback):
    """At the end of each epoch, write state and log to disk, then `log.csv`.

    Args:
        folder: of this network.
        identity: everything that the training depends on; a checkpoint with another identity is
            refused.
        log: rows of the earlier epochs; new rows are added to it.
        best: whether weights that are better than those of all earlier epochs are first written
            into `best/`. A kill between the two does no harm, because the log determines which
            epoch is the best.
        listener: is told of the epoch when all is written.
        writes: whether anything is written, which one of several processes does.
    """

    def __init__(
        self,
        folder: Path,
        identity: dict,
        log: list[dict],
        *,
        best: bool = False,
        listener: Listener = nobody,
        writes: bool = True,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.identity = identity
        self.log = log
        self.best = best
        self.listener = listener
        self.writes = writes

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.monotonic()
        self.learning_rate = learning_rate_of(self.model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        row = {k: float(v) for k, v in (logs or {}).items() if k != "learning_rate"}
        seconds = round(time.monotonic() - self.started, 2)
        self.log.append(
            {"epoch": epoch + 1, "learning_rate": self.learning_rate, **row, "seconds": seconds}
        )
        if not self.writes:
            return
        state = state_of(self.model)
        if self.best and best_epoch(self.log) == epoch + 1:
            weights = {name: array for name, array in state.items() if name.startswith("weights/")}
            checkpoint.save(self.folder / "best", epoch + 1, weights, {})
        record = {"identity": self.identity, "log": self.log}
        checkpoint.save(self.folder / "checkpoint", epoch + 1, state, record)
        write_log(self.folder, self.log)
        self.listener(epoch_of(self.folder, self.log, self.params["epochs"]))


def write_log(folder: Path, log: list[dict]) -> None:
    """Write `log.csv`, one row per finished epoch."""
    write_atomic(folder / "log.csv", pd.DataFrame(log).to_csv(index=False).encode())


def best_epoch(log: list[dict]) -> int:
    """The first epoch with the lowest validation loss, counted from 1."""
    return min(log, key=lambda row: np.nan_to_num(row["val_loss"], nan=np.inf))["epoch"]


class Progress(keras.callbacks.Callback):
    """Show epoch, step, losses and remaining time of one network, within its `display`."""

    def __init__(self, name: str, epochs: int) -> None:
        super().__init__()
        self.name = name
        self.epochs = epochs
        self.display = progress.Display()

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.done = -1

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch = epoch
        if self.done < 0 and self.display.in_place:
            self.started = time.monotonic()
            self.display.show(self._status(0, {})._replace(time="", detail="compiling"))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.done += 1
        if self.done == 0:  # the first step includes compilation, so it is not timed
            self.started = time.monotonic()
        elif self.display.due:
            self.display.show(self._status(batch + 1, logs or {}))

    def on_test_begin(self, logs: dict | None = None) -> None:
        if self.display.status is not None:  # on a terminal, where the bar stands still now
            self.display.show(self.display.status._replace(detail="validating"))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.display.keep(self._status(self.params["steps"], logs or {}))

    def _status(self, step: int, logs: dict) -> progress.Status:
        steps = self.params["steps"]
        left = (self.epochs - self.epoch) * steps - step
        remaining = left * (time.monotonic() - self.started) / max(self.done, 1)
        hidden = ("learning_rate", "seconds", "dice", "val_dice")  # Dice has a column a region
        shown = [f"{k} {v:.4g}" for k, v in logs.items() if not k.startswith(hidden)]
        return progress.Status(
            self.name,
            f"epoch {self.epoch + 1}/{self.epochs}  step {step}/{steps}",
            "  ".join(shown),
            f"{progress.duration(remaining)} left",
            1 - left / (self.epochs * steps),
        )


def tensorboard(folder: Path) -> list[keras.callbacks.Callback]:
    """Keras' TensorBoard callback if TensorFlow is installed, otherwise nothing."""
    # The callback writes through tf.summary, whatever the backend.
    if not all(importlib.util.find_spec(name) for name in ("tensorflow", "tensorboard")):
        return []
    return [keras.callbacks.TensorBoard(str(folder / "tensorboard"), write_graph=False)]


def state_of(model: keras.Model) -> dict[str, np.ndarray]:
    """All weights, moving statistics included, and the state of the optimizer."""
    variables = {"weights": model.weights, "optimizer": model.optimizer.variables}
    return {
        f"{kind}/{index:04d}": keras.ops.convert_to_numpy(variable)
        for kind, group in variables.items()
        for index, variable in enumerate(group)
    }


def learning_rate_of(model: keras.Model) -> float:
    """The current learning rate of the optimizer."""
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
