"""Trains small networks on one device and on several of this machine; a test starts it.

usage: run_on_devices.py FOLDER DEVICES CASE ...

Prints {case: [deviation of the log, deviation of the weights]}, relative to one device.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import run_tiny_training  # beside this script

from keras_medseg import recipe, registry
from keras_medseg.layers.normalization import BatchNorm
from keras_medseg.runs.steps import Cohort
from keras_medseg.tasks import task_of
from keras_medseg.training import checkpoint, devices, fit

RATE = {"train.learning_rate": 0.05}
ADAM = {"train.optimizer_options": {"epsilon": 1e-3}, "train.learning_rate": 0.01}
LEARNED = {"steps": 2, "filters": [4], "layer_weights": [1, 1]}
VOLUMES = recipe.Patches(
    "brats",
    (8, 8, 8),
    "z_score",
    0.5,
    0.34,
    augmentation={"flips": {}, "contrast": {"probability": 1.0}},
    augment_on_device=True,
)
BASE: dict[str, Any] = {
    "train.epochs": 3,
    "train.schedule": "constant",
    "train.schedule_options": {},
    # Three of eight slices of three cases: two batches of 4, and a last one of 1.
    "train.batch_size": 4,
    "data.slice_step": 3,
    # A bias before a norm has no gradient but rounding, of which Adam makes whole steps.
    "model.options": {"bias": False},
}
CASES: dict[str, dict[str, Any]] = {
    "cross_entropy": {"train.optimizer": "sgd", **RATE},
    "dice_of_the_batch": {
        "train.loss": "cross_entropy_and_dice",
        "train.loss_options": {"dice_weight": 3.0, "smooth": 50.0, "smooth_numerator": 50.0},
        **ADAM,
    },
    "dice_and_focal": {
        "train.loss": "dice_and_focal",
        "train.loss_options": {"from_logits": True},
        "train.optimizer": "adam_l2",
        "train.optimizer_options": {"epsilon": 1e-3, "l2": 0.01},
        "train.learning_rate": 0.01,
    },
    "edges": {"train.loss": "cross_entropy_and_edge", "train.optimizer": "nadam", **ADAM},
    "learned_edges": {
        "train.loss": "cross_entropy_and_learned_edge",
        "train.loss_options": LEARNED,
        "train.optimizer": "nadam_pytorch",
        **ADAM,
    },
    "penalty": {"model.name": "unetpp", "model.options": {"filters": 2, "l2": 0.01}, **ADAM},
    "augmented_on_device": {
        "data": VOLUMES,
        "model.name": "tiny_volumes",
        "model.options": {},
        "train.batch_size": 2,
        "train.optimizer": "sgd",
        **RATE,
    },
    "norm_of_each_device": {
        "model.options": {"bias": False, "synchronized": False},
        "train.optimizer": "sgd",
        **RATE,
    },
}


@registry.register(
    dataclasses.replace(
        registry.card("tiny_dropout"), name="tiny_volumes", input_shape=(8, 8, 8, 4), dimensions=3
    )
)
def tiny_volumes(input_shape: tuple[int, ...] = (8, 8, 8, 4), classes: int = 1) -> keras.Model:
    """One hidden layer with batch norm."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv3D(4, 3, padding="same", use_bias=False)(inputs)
    x = keras.layers.ReLU()(BatchNorm(synchronized=True)(x))
    return keras.Model(inputs, keras.layers.Conv3D(classes, 1, activation="sigmoid")(x))


def trained(
    folder: Path, chosen: recipe.Recipe, cohort: Cohort, used: devices.Devices
) -> tuple[pd.DataFrame, np.ndarray]:
    """The log and all weights, moving statistics included, after the last epoch."""
    task = task_of(chosen)
    fit.fit(
        chosen,
        ("WT",),
        task.batches(cohort.store, cohort.training, ("WT",), training=True),
        task.batches(cohort.store, cohort.validation, ("WT",), training=False),
        folder,
        channels=4,
        wrap=task.wrap,
        devices=used,
    )
    found = checkpoint.load_latest(folder / "checkpoint")
    assert found is not None
    weights = [array.ravel() for name, array in found[0].items() if name.startswith("weights")]
    return pd.DataFrame(found[1]["log"]).drop(columns="seconds"), np.concatenate(weights)


def deviations(folder: Path, changes: dict[str, Any], used: devices.Devices) -> list[float]:
    """Of the log, the largest of all numbers; of the weights, of all of them together."""
    chosen = recipe.override(run_tiny_training.RECIPE, {**BASE, **changes})
    used.check(chosen.train)
    cohort = run_tiny_training.cohort_in(folder)
    cohort = dataclasses.replace(cohort, training=tuple(cohort.store.cases))
    log, weights = trained(folder / "one", chosen, cohort, devices.ONE)
    log_of_all, weights_of_all = trained(folder / "all", chosen, cohort, used)
    assert list(log["epoch"]) == [1, 2, 3]
    assert (log["loss"].diff()[1:] != 0).all()
    of_log = (abs(log_of_all - log) / abs(log)).max().max()
    apart = np.linalg.norm(weights_of_all.astype(float) - weights)
    return [float(of_log), float(apart / np.linalg.norm(weights.astype(float)))]


def main() -> None:
    folder, count, names = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    used = devices.choose(count)
    found = {name: deviations(folder / name, CASES[name], used) for name in names or CASES}
    (folder / "deviations.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
