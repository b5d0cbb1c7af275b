"""Listeners of a training: what they are told, and that they change no bit of it."""

from collections.abc import Callable
from pathlib import Path

import keras
import pandas as pd
import pytest

from keras_medseg import recipe, registry
from keras_medseg.phantoms.brats import write_brats
from keras_medseg.runs import steps
from keras_medseg.tasks import task_of
from keras_medseg.training import checkpoint, fit
from keras_medseg.training.events import EPOCH, STARTED, Event, to_all

from ..recipes import small_recipe

TARGETS = ("WT",)
RECIPE = small_recipe(
    {
        "model.targets": (TARGETS,),
        "model.options": {},
        "data.window": (16, 16, 8),
        "train.epochs": 3,
    }
)


def _dropout(name, input_shape, classes):
    image = keras.Input(input_shape)
    x = keras.layers.Dropout(0.5, name="Dropout")(keras.layers.Conv2D(4, 1, name="Conv")(image))
    return keras.Model(image, keras.layers.Conv2D(classes, 1, activation="sigmoid", name="Out")(x))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_brats(folder / "cases", cases=3, layout="BraTS2020", shape=(32, 32, 26))
    return steps.load_cohort(folder / "cases", folder / "store", task_of(RECIPE))


@pytest.fixture
def train(monkeypatch, cohort, tmp_path) -> Callable[[str, fit.Listener], Path]:
    """Trains a convolution with Dropout; the folder of the network."""
    monkeypatch.setattr(registry, "build", _dropout)
    task = steps.fit_variants({"main": RECIPE}, cohort)["main"].task

    def run(name, listener):
        folder = tmp_path / name
        training = task.batches(cohort.store, cohort.training, TARGETS, training=True)
        validation = task.batches(cohort.store, cohort.validation, TARGETS, training=False)
        fit.fit(RECIPE, TARGETS, training, validation, folder, channels=4, listener=listener)
        return folder

    return run


def state(folder):
    arrays, _ = checkpoint.load(folder / "checkpoint", 3)
    return {name: array.tobytes() for name, array in arrays.items()}


class Killed(Exception):
    """What ends the process of a training."""


def test_a_listener_hears_the_recipe_and_every_row_of_the_log(train):
    heard: list[Event] = []
    folder = train("a", heard.append)
    begin, *epochs = heard
    assert (begin.kind, begin.folder, begin.epoch, begin.epochs) == (STARTED, folder, 0, 3)
    assert begin.parameters == recipe.fields(RECIPE)
    assert begin.parameters["train.epochs"] == 3
    assert [(event.kind, event.epoch, event.epochs) for event in epochs] == [
        (EPOCH, 1, 3), (EPOCH, 2, 3), (EPOCH, 3, 3),
    ]  # fmt: skip
    log = pd.read_csv(folder / "log.csv").set_index("epoch")
    told = pd.DataFrame([dict(event.metrics) for event in epochs], index=log.index)
    pd.testing.assert_frame_equal(told, log)
    assert {"loss", "val_loss", "dice_WT", "learning_rate"} <= {*told}
    train("a", heard.append)  # finished: nothing happens
    assert len(heard) == 4


def test_no_listener_changes_a_bit_not_even_one_that_ends_the_training(train):
    """It draws random numbers, and fails after the second epoch; the training goes on."""

    def meddle(event):
        keras.utils.set_random_seed(event.epoch)
        keras.random.normal((3,))

    def die(event):
        if event.epoch == 2:
            raise Killed

    alone = state(train("alone", to_all(())))
    with pytest.raises(Killed):
        train("killed", to_all([meddle, die]))
    heard: list[Event] = []
    assert state(train("killed", to_all([meddle, heard.append]))) == alone
    # The second epoch is on disk, and is told again: its first listener may not have heard of it.
    assert [(event.kind, event.epoch) for event in heard] == [
        (STARTED, 2), (EPOCH, 2), (EPOCH, 3),
    ]  # fmt: skip


def test_the_last_epoch_is_not_lost_if_its_process_died_in_it(train):
    def die(event):
        if event.epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        train("killed", die)
    heard: list[Event] = []
    folder = train("killed", heard.append)
    assert [(event.kind, event.epoch) for event in heard] == [(STARTED, 3), (EPOCH, 3)]
    assert (folder / "model.keras").exists()
