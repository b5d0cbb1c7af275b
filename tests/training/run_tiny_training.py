"""Trains and scores a tiny network with Dropout and flips; the tests start it as a process.

usage: run_tiny_training.py FOLDER [--devices N]
           [--die-at-step N | --die-after-best N | --die-after-checkpoint N]

SIGKILL at the N-th training step, between the best weights and the checkpoint of epoch N, or
between its checkpoint and the row of log.csv.
"""

import argparse
import os
import signal
from pathlib import Path

import keras
import numpy as np

from keras_medseg import recipe, registry
from keras_medseg.data import cases, store
from keras_medseg.files import write_json
from keras_medseg.layers.dropout import Dropout
from keras_medseg.layers.normalization import BatchNorm
from keras_medseg.runs import steps
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort
from keras_medseg.training import callbacks, checkpoint, devices


def read(case: cases.Case) -> cases.CaseArrays:
    """A bright cube in noise: learnable, and another one in every case."""
    rng = np.random.default_rng(int(case.id[-1]))
    image = rng.integers(1, 60, (20, 20, 8, 4)).astype(np.int16)
    x, y = rng.integers(4, 10, 2)
    labels = np.zeros((20, 20, 8), np.uint8)
    labels[x : x + 6, y : y + 6, 2:7] = 2
    image[labels > 0] += 50
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    return cases.CaseArrays(image, labels, affine, ("L", "P", "S"))


@registry.register(
    registry.Card(
        name="tiny_dropout",
        paper="test",
        title="one hidden layer with Dropout",
        input_shape=(16, 16, 4),
        parameters=673,
        dimensions=2,
        output="sigmoid",
        source="this test",
        parity="rebuilt",
    )
)
def tiny_dropout(
    input_shape: tuple[int, int, int] = (16, 16, 4),
    classes: int = 1,
    *,
    synchronized: bool = True,
    bias: bool = True,
):
    """One hidden layer, batch norm and Dropout."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(16, 3, padding="same", use_bias=bias)(inputs)
    x = BatchNorm(synchronized=synchronized)(x)
    x = keras.layers.ReLU()(x)
    x = Dropout(0.3)(x)
    return keras.Model(inputs, keras.layers.Conv2D(classes, 1, activation="sigmoid")(x))


@registry.register(
    registry.Card(
        name="tiny_supervised",
        paper="test",
        title="tiny_dropout with two auxiliary outputs",
        input_shape=(16, 16, 4),
        parameters=707,
        dimensions=2,
        output="sigmoid",
        source="this test",
        parity="rebuilt",
    )
)
def tiny_supervised(input_shape: tuple[int, int, int] = (16, 16, 4), classes: int = 1):
    """The hidden layer feeds two more outputs of one channel each."""
    network = tiny_dropout(input_shape, classes)
    hidden = network.layers[-1].input
    heads = [keras.layers.Conv2D(1, 1, activation="sigmoid")(hidden) for _ in range(2)]
    return keras.Model(network.input, [network.output, *heads])


RECIPE = recipe.Recipe(
    name="test",
    data=recipe.Slices("brats", (16, 16, 8), "z_score", ("x", "y"), 0.34),
    model=recipe.Model("tiny_dropout", (("WT",),)),
    train=recipe.Train(
        epochs=4,
        batch_size=8,
        optimizer="adam",
        learning_rate=0.01,
        loss="cross_entropy",
        schedule="plateau",
        schedule_options={
            "monitor": "val_accuracy",
            "factor": 0.5,
            "patience": 1,
            "min_delta": 0.5,
        },
        precision="float32",
        seed=3,
    ),
)


def cohort_in(folder: Path) -> Cohort:
    """Two cases to train on and one to score, decoded in `folder`."""
    found = [cases.Case(f"case{i}", "BraTS2021", (), None, f"case{i}") for i in range(3)]
    decoded = store.prepare(found, read, folder / "store", workers=1)
    return Cohort("test", decoded, ("case0", "case1"), ("case2",), {})


def train(folder: Path, assignments: list[str], asked: str = "1") -> None:
    """Train and score in `folder`, with these changes of RECIPE, on so many devices."""
    chosen_devices = devices.choose(asked)
    chosen = recipe.override(RECIPE, recipe.parse_assignments(assignments))
    cohort = cohort_in(folder)
    run = RunFolder(folder)
    if not run.exists:
        run.create(chosen, steps.fit_variants({"main": chosen}, cohort), {})
    elif recipe.differences(chosen, run.recipe):
        write_variant(folder, chosen)  # past the run folder's own refusal, to the checkpoint's
    chosen_devices.check(chosen.train)
    steps.train_variant(run, "main", cohort, devices=chosen_devices)
    steps.score_variant(run, "main", cohort)


def write_variant(folder: Path, chosen: recipe.Recipe) -> None:
    tree = {"recipe": recipe.to_tree(chosen), "trained_as": "main", "fitted": {}}
    write_json(folder / "variants" / "main.json", tree)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--devices", default="1")
    parser.add_argument("--die-at-step", type=int)
    parser.add_argument("--die-after-best", type=int)
    parser.add_argument("--die-after-checkpoint", type=int)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    if arguments.die_at_step:
        left = iter(range(1, arguments.die_at_step))
        shown = callbacks.Progress.on_train_batch_end

        def die(self, batch, logs=None):
            shown(self, batch, logs)
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        callbacks.Progress.on_train_batch_end = die
    deadly = {("best", arguments.die_after_best), ("checkpoint", arguments.die_after_checkpoint)}
    if arguments.die_after_best or arguments.die_after_checkpoint:
        save = checkpoint.save

        def save_and_die(folder, epoch, *rest):
            save(folder, epoch, *rest)
            if (folder.name, epoch) in deadly:
                os.kill(os.getpid(), signal.SIGKILL)

        checkpoint.save = save_and_die
    train(arguments.folder, arguments.set, arguments.devices)


if __name__ == "__main__":
    main()
