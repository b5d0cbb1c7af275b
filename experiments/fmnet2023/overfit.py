"""Can FM-Net at full size learn one case by heart?

    python -m experiments.fmnet2023.overfit BRATS --case ID --out RUN [--epochs 40]
        [--set FIELD=VALUE ...]

The recipe's network, loss, optimizer and learning rate on crops of 128x128x128 of one case, placed
as in the recipe but not augmented, one crop a step, in mixed_bfloat16, which two CPU cores manage.
As in the recipe, the weights of the epoch with the lowest validation loss are kept, here that of
the crop in the center of the same case. With them the crops of that epoch are scored, which the
network has seen, and the whole case, predicted by windows. A high Dice of the crops shows that
network, loss and optimizer can learn, and says nothing about other cases.

The same command goes on where an interrupted one stopped. RUN has log.csv (the mean soft Dice of
the crops of each epoch, each measured before its step, and of the center crop), overfit.png and
overfit.json.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from keras_medseg import recipe
from keras_medseg.data import store
from keras_medseg.data.batches.base import CaseBatches
from keras_medseg.files import write_json
from keras_medseg.inference.outputs import main_output
from keras_medseg.reporting.figures import style
from keras_medseg.tasks import Task, task_of
from keras_medseg.training import fit
from keras_medseg.training.callbacks import best_epoch

from .recipe import RECIPE

CROPS = 8
"""In an epoch."""
ENOUGH = 0.9
CHANGES = {
    "data.augmentation": {},
    "data.augment_on_device": False,
    "train.batch_size": 1,
    "train.precision": "mixed_bfloat16",
}


def train(task: Task, decoded: store.Store, batches: CaseBatches, folder: Path) -> None:
    """Train on crops of one case, or go on with it; the validation crop is its center."""
    (targets,) = task.recipe.model.targets
    case = batches.case_ids[0]
    fit.fit(
        task.recipe,
        targets,
        batches,
        task.batches(decoded, (case,), targets, training=False),
        folder,
        channels=task.channels(decoded.cases[case].channels),
        wrap=task.wrap,
    )


def crop_dice(network: keras.Model, batches: CaseBatches, epoch: int) -> dict[str, float]:
    """Region -> Dice of all crops of an epoch together, of probabilities above 1/2."""
    common, both = [], []
    for step in range(batches.steps_per_epoch):
        x, truth = batches.batch(epoch, step)
        axes = tuple(range(truth.ndim - 1))
        found, wanted = np.asarray(network.predict_on_batch(x)) > 1 / 2, truth > 1 / 2
        common.append(np.sum(found & wanted, axis=axes))
        both.append(np.sum(found, axis=axes) + np.sum(wanted, axis=axes))
    total = np.sum(both, axis=0)
    # A region that neither the case nor the answer has is right.
    dice = np.where(total, 2 * np.sum(common, axis=0) / np.maximum(total, 1), 1.0)
    return {name: round(float(value), 4) for (name, _), value in zip(batches.targets, dice)}


@style.styled
def curves(log: pd.DataFrame, regions: Sequence[str]) -> Figure:
    """The soft Dice of each region: thin of the crops of an epoch, thick of the center crop."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    panel = figure.subplots()
    for region, color in style.region_colors(regions).items():
        panel.plot(log["epoch"], log[f"dice_{region}"], color=color, lw=0.8, alpha=0.45)
        panel.plot(log["epoch"], log[f"val_dice_{region}"], color=color, lw=2, label=region)
    panel.plot([], color="gray", lw=2, label="center crop")
    panel.plot([], color="gray", lw=0.8, label="crops of the epoch")
    panel.set(xlabel=f"epoch ({CROPS} crops)", ylabel="soft Dice", ylim=(0, 1))
    figure.legend(loc="outside right center", frameon=False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 if the crops have a Dice above 0.9 in every region, otherwise 1."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m experiments.fmnet2023.overfit")
    parser.add_argument("data", type=Path, help="a folder of BraTS cases")
    parser.add_argument("--case", required=True, help="id of the one to learn")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    arguments = parser.parse_args(argv)
    further = recipe.parse_assignments(arguments.set)
    if odd := sorted({"train.epochs", "train.init"} & further.keys()):
        parser.error(
            f"--set: found {', '.join(odd)}, expected neither: --epochs is the number of epochs, "
            "and the first weights are random."
        )
    changes = {**CHANGES, "train.epochs": arguments.epochs, **further}
    task = task_of(recipe.override(RECIPE, changes))
    cases = [case for case in task.dataset.find(arguments.data).cases if case.id == arguments.case]
    if not cases:
        parser.error(f"--case: found {arguments.case}, expected the id of a case of the folder.")
    decoded = store.prepare(cases, task.reader, arguments.out / "store")
    (targets,) = task.recipe.model.targets
    batches = task.batches(decoded, (arguments.case,) * CROPS, targets, training=True)
    train(task, decoded, batches, arguments.out)
    log = pd.read_csv(arguments.out / "log.csv")
    style.save(curves(log, targets), arguments.out / "overfit.png")
    trained = keras.saving.load_model(arguments.out / "model.keras", compile=False)
    network, case = main_output(trained), decoded.cases[arguments.case]
    kept = best_epoch(log.to_dict("records"))
    rows = task.score(task.predict({targets: network}, case), case)
    facts = {
        "command": shlex.join(["python", "-m", "experiments.fmnet2023.overfit", *argv]),
        "case": arguments.case,
        "steps": len(log) * batches.steps_per_epoch,
        "kept_epoch": kept,
        "crops": crop_dice(network, batches, kept - 1),
        "whole_case": {row["region"]: round(float(row["dice"]), 4) for row in rows},
        "data": decoded.fingerprint,
    }
    write_json(arguments.out / "overfit.json", facts)
    sys.stdout.write(f"{json.dumps(facts, indent=1)}\n")
    return 0 if min(facts["crops"].values()) > ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
