"""Can FM-Net at full size learn one case by heart?

    python -m experiments.fmnet2023.overfit BRATS --case ID --out RUN [--epochs 40]

The recipe's network, loss and optimizer on crops of 128x128x128 of one case, placed as in the
recipe but not augmented, one crop a step, in mixed_bfloat16, which two CPU cores can bear. The
learning rate stays that of the recipe. A network that cannot get above a Dice of 0.9 on the crops
that it has seen has a fault; one that can says nothing about other cases.

The same command goes on where an interrupted one stopped. At the end the whole case is predicted by
windows, and scored. RUN has log.csv (Dice of the training crops by epoch), overfit.png and
overfit.json.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import pandas as pd
from matplotlib.figure import Figure

from keras_medseg import recipe
from keras_medseg.data import store
from keras_medseg.files import write_json
from keras_medseg.inference.outputs import main_output
from keras_medseg.reporting.figures import style
from keras_medseg.tasks import Task, task_of
from keras_medseg.training import fit

from .recipe import RECIPE

STEPS = 8
"""Crops in an epoch."""
ENOUGH = 0.9
CHANGES = {
    "data.augmentation": {},
    "data.augment_on_device": False,
    "train.batch_size": 1,
    "train.precision": "mixed_bfloat16",
    "train.keep": "last",
}


def train(task: Task, decoded: store.Store, case: str, folder: Path) -> None:
    """Train on crops of one case, or go on with it; the validation crop is its center."""
    (targets,) = task.recipe.model.targets
    fit.fit(
        task.recipe,
        targets,
        task.batches(decoded, (case,) * STEPS, targets, training=True),
        task.batches(decoded, (case,), targets, training=False),
        folder,
        channels=task.channels(decoded.cases[case].channels),
        wrap=task.wrap,
    )


def scored(task: Task, decoded: store.Store, case: str, folder: Path) -> dict[str, float]:
    """Region -> Dice of the whole case, predicted by windows."""
    network = keras.saving.load_model(folder / "model.keras", compile=False)
    stored = decoded.cases[case]
    labels = task.predict({task.recipe.model.targets[0]: main_output(network)}, stored)
    return {row["region"]: float(row["dice"]) for row in task.score(labels, stored)}


@style.styled
def curves(log: pd.DataFrame, regions: Sequence[str]) -> Figure:
    """The soft Dice of the training crops by epoch, one line for each region."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    panel = figure.subplots()
    for region, color in style.region_colors(regions).items():
        panel.plot(log["epoch"], log[f"dice_{region}"], color=color, lw=1.6, label=region)
    panel.axhline(ENOUGH, color="0.5", lw=0.8, ls=":")
    panel.set(
        xlabel=f"epoch ({STEPS} crops)", ylabel="soft Dice of the training crops", ylim=(0, 1)
    )
    panel.legend(loc="lower right")
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 if the last epoch is above a Dice of 0.9 in every region, otherwise 1."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m experiments.fmnet2023.overfit")
    parser.add_argument("data", type=Path, help="a folder of BraTS cases")
    parser.add_argument("--case", required=True, help="id of the one to learn")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    arguments = parser.parse_args(argv)
    changes = {
        **CHANGES,
        "train.epochs": arguments.epochs,
        **recipe.parse_assignments(arguments.set),
    }
    task = task_of(recipe.override(RECIPE, changes))
    cases = [case for case in task.dataset.find(arguments.data).cases if case.id == arguments.case]
    if not cases:
        parser.error(f"--case: found {arguments.case}, expected the id of a case of the folder.")
    decoded = store.prepare(cases, task.reader, arguments.out / "store")
    train(task, decoded, arguments.case, arguments.out)
    (targets,) = task.recipe.model.targets
    log = pd.read_csv(arguments.out / "log.csv")
    style.save(curves(log, targets), arguments.out / "overfit.png")
    last = log.iloc[-1]
    facts = {
        "command": shlex.join(["python", "-m", "experiments.fmnet2023.overfit", *argv]),
        "case": arguments.case,
        "steps": int(len(log) * STEPS),
        "crops": {region: round(float(last[f"dice_{region}"]), 4) for region in targets},
        "whole_case": scored(task, decoded, arguments.case, arguments.out),
        "data": decoded.fingerprint,
    }
    write_json(arguments.out / "overfit.json", facts)
    sys.stdout.write(f"{json.dumps(facts, indent=1)}\n")
    return 0 if min(facts["crops"].values()) > ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
