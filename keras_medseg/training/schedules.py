"""Learning-rate rules by name. All resume exactly: they depend only on the log of past epochs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from keras_medseg.errors import require_choice
from keras_medseg.recipe import Train

Log = list[dict[str, float]]
"""One row per epoch, as in log.csv."""


@dataclass(frozen=True)
class Schedule:
    """A learning-rate rule.

    Attributes:
        callbacks: (settings, log of the past epochs) -> the callbacks that apply the rule.
        needed: names that `train.schedule_options` must have.
        optional: further names that it may have.
    """

    callbacks: Callable[[Train, Log], list[keras.callbacks.Callback]]
    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def schedule_callbacks(train: Train, log: Log) -> list[keras.callbacks.Callback]:
    """The callbacks that apply the rule of a recipe.

    Args:
        train: settings of the training.
        log: rows of the completed epochs.
    """
    return SCHEDULES[train.schedule].callbacks(train, log)


def check_schedule(train: Train) -> None:
    """Check that the learning-rate rule exists and has its options.

    Raises:
        ValueError: naming the field.
    """
    require_choice("train.schedule", train.schedule, SCHEDULES)
    rule = SCHEDULES[train.schedule]
    for option in train.schedule_options:
        known = rule.needed + rule.optional
        require_choice(f"train.schedule_options of {train.schedule}", option, known)
    for option in rule.needed:
        if option not in train.schedule_options:
            raise ValueError(
                f"train.schedule_options: found {train.schedule_options}, expected {option!r} "
                f"among them for the schedule {train.schedule!r}."
            )
    if "monitor" in train.schedule_options:
        monitor = train.schedule_options["monitor"]
        require_choice("train.schedule_options.monitor", monitor, MONITORS)


class ResumedPlateau(keras.callbacks.ReduceLROnPlateau):
    """Keras' ReduceLROnPlateau, which first replays the epochs of the log."""

    def __init__(self, log: Log, learning_rate: float, **options: Any) -> None:
        super().__init__(**options)
        self.log = list(log)
        self.initial = learning_rate

    def on_train_begin(self, logs: dict | None = None) -> None:
        super().on_train_begin(logs)
        self.model.optimizer.learning_rate = self.initial
        for epoch, row in enumerate(self.log):
            self.on_epoch_end(epoch, dict(row))


def polynomial(train: Train, epoch: int) -> float:
    """Learning rate of `epoch` (from 0) by Myronenko's rule: from the initial rate toward 0."""
    remaining = 1 - epoch / train.epochs
    return train.learning_rate * remaining ** train.schedule_options["power"]


def step_decay(train: Train, epoch: int) -> float:
    """Learning rate of `epoch` (from 0): multiplied by `factor` after each epoch in `after`.

    With after=(300,) the 301st epoch is the first at the lower rate.
    """
    passed = sum(epoch >= last for last in train.schedule_options["after"])
    return train.learning_rate * train.schedule_options.get("factor", 0.1) ** passed


def cosine(train: Train, epoch: int) -> float:
    """Learning rate of `epoch` (from 0): half a cosine from the initial rate to `minimum`.

    torch.optim.lr_scheduler.CosineAnnealingLR (Loshchilov and Hutter 2017, without restarts), where
    `period` is T_max, by default the number of epochs, and `minimum` is eta_min, by default 0. At
    the end of the period the rate is `minimum`; after it the cosine rises again.
    """
    lowest = train.schedule_options.get("minimum", 0.0)
    period = train.schedule_options.get("period", train.epochs)
    return lowest + (train.learning_rate - lowest) * (1 + math.cos(math.pi * epoch / period)) / 2


def _constant(train: Train, log: Log) -> list[keras.callbacks.Callback]:
    return []


def _plateau(train: Train, log: Log) -> list[keras.callbacks.Callback]:
    mode = "min" if train.schedule_options["monitor"].endswith("loss") else "max"
    return [ResumedPlateau(log, train.learning_rate, **{"mode": mode, **train.schedule_options})]


def _by_epoch(
    rule: Callable[[Train, int], float],
) -> Callable[[Train, Log], list[keras.callbacks.Callback]]:
    return lambda train, log: [keras.callbacks.LearningRateScheduler(partial(rule, train))]


_PLATEAU = ("factor", "patience", "min_delta", "cooldown", "min_lr", "mode")

MONITORS = tuple(side + name for side in ("val_", "") for name in ("loss", "accuracy", "dice"))
"""Quantities of log.csv that a rule may watch: pixel accuracy, and Dice over all pixels."""

SCHEDULES: dict[str, Schedule] = {
    "constant": Schedule(_constant),
    "cosine": Schedule(_by_epoch(cosine), optional=("period", "minimum")),
    "plateau": Schedule(_plateau, needed=("monitor",), optional=_PLATEAU),
    "polynomial": Schedule(_by_epoch(polynomial), needed=("power",)),
    "steps": Schedule(_by_epoch(step_decay), needed=("after",), optional=("factor",)),
}
