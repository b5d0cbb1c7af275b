"""What SFA, SA and CA do, and what SA does as printed: seven small trainings and the gradients.

    python -m experiments.iacnn.arms                              synthetic frames
    python -m experiments.iacnn.arms --data CVC-ClinicDB          real ones
    python -m experiments.iacnn.arms --arm printed                the network and one arm

The profile short-arms of recipe.py, then two tables in the run folder. arms.csv has for every
network its Dice and what reaches the lowest level's deconvolution: its largest absolute value, and
how much it varies over the pixels. gradients.csv, of the synthetic frames, has the gradients before
the first step at the paper's size, beside the L2 term that competes with them.
"""

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from keras_medseg import recipe
from keras_medseg.runs import experiment, report, steps
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort
from keras_medseg.tasks import task_of

from ..gradients import gradients_at_start
from .recipe import ARMS, EXPERIMENTS, RECIPE

IMAGES = 4  # of the batch whose gradients are measured
EPOCHS = {"phantom": 12, "cvc": 2}  # 288 and 122 steps
ROWS = {"model.options.spatial_reading": "rows"}
GRADIENTS = {
    "printed": ARMS["printed"],
    "printed, rows": ARMS["printed"] | ROWS,
    "mean": {},
    "mean, rows": ROWS,
    "without_attention": ARMS["without_attention"],
}
LAYERS = ("Encode5_conv2", "SFA_B1_conv2", "SFA_B3_conv1", "Up5", "Decode5_conv1")


def lowest_level(run: RunFolder, cohort: Cohort, variant: str) -> dict[str, float]:
    """What a trained network hands to Up5 for the validation frames, and the weights of Up5.

    Returns:
        lowest_max: largest absolute value. lowest_spread: mean standard deviation over the pixels
        of a map, divided by the mean absolute value. up5_max: largest absolute weight.
    """
    chosen = run.variant(variant)
    targets = chosen.recipe.model.targets[0]
    network = run.network(variant, targets)
    up = network.get_layer("Up5")
    lowest = keras.Model(network.input, up.input)
    batches = chosen.task.batches(cohort.store, cohort.validation, targets, training=False)
    maps = [lowest.predict_on_batch(batches.batch(0, n)[0]) for n in range(batches.steps_per_epoch)]
    values = np.concatenate(maps).astype(np.float64)
    size = np.abs(values).mean()
    return {
        "lowest_max": float(np.abs(values).max()),
        "lowest_spread": float(values.std(axis=(1, 2)).mean() / size) if size else 0.0,
        "up5_max": float(np.abs(up.kernel).max()),
    }


def arms_table(run: RunFolder, cohort: Cohort) -> pd.DataFrame:
    """A row per arm: mean Dice over frames and over sequences, and its lowest level."""
    scores, cases = run.scores(), cohort.store.cases
    scores = scores.assign(sequence=scores["case"].map({n: c.group for n, c in cases.items()}))
    rows = []
    for arm in run.variants:
        own = scores[scores["variant"] == arm]
        by_sequence = own.groupby("sequence")["dice"].mean()
        row = {"arm": arm, "dice": own["dice"].mean(), "dice_by_sequence": by_sequence.mean()}
        row |= {"frames": len(own), "sequences": len(by_sequence), "seed": run.recipe.train.seed}
        rows.append(row | lowest_level(run, cohort, arm))
    return pd.DataFrame(rows)


def first_gradients(folder: Path, work: Path) -> pd.DataFrame:
    """Median absolute gradients before the first step, beside the median of the L2 term.

    Args:
        folder: of the frames; one batch of four is taken, at the paper's size.
        work: where decoded stores are kept.
    """
    base = recipe.override(RECIPE, {"train.batch_size": IMAGES})
    cohort = steps.load_cohort(folder, experiment.store_folder(work, folder, base), task_of(base))
    task = task_of(base).fit(cohort.store, cohort.training)
    batches = task.batches(cohort.store, cohort.training, base.model.targets[0], training=True)
    x, y = batches.batch(0, 0)
    rows = []
    for arm, changes in GRADIENTS.items():
        chosen = recipe.override(base, changes)
        l2 = chosen.train.optimizer_options["l2"]
        starts = gradients_at_start(chosen, np.array(x), np.array(y))
        for layer in LAYERS:
            start = starts[layer]
            row = {"arm": arm, "layer": layer, "median_gradient": start.median}
            row |= {"median_decay": start.median_decay(l2)}
            row |= {"share_below_decay": start.share_below(l2 * np.abs(start.weight))}
            rows.append(row)
    return pd.DataFrame(rows)


def _with_arms(declared: experiment.Experiment, arms: Iterable[str]) -> experiment.Experiment:
    profile = declared.profiles["short-arms"]
    kept = {name: changes for name, changes in ARMS.items() if name in ("iacnn", *arms)}
    pairs = tuple(pair for pair in profile.comparisons if pair[0] in kept)
    profile = replace(profile, variants=kept, comparisons=pairs)
    return replace(declared, profiles={**declared.profiles, "short-arms": profile})


def main(argv: Sequence[str] | None = None) -> int:
    """Train the arms, or go on with them, and write both tables."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m experiments.iacnn.arms")
    parser.add_argument("--data", type=Path, help="CVC-ClinicDB (default: synthetic frames)")
    parser.add_argument("--arm", action="append", choices=ARMS, help="default: all")
    parser.add_argument("--out", type=Path, help="run folder (default: WORK/iacnn-arms-DATA)")
    parser.add_argument("--work", type=Path, default=Path("runs"))
    arguments = parser.parse_args(argv)
    name = "cvc" if arguments.data else "phantom"
    chosen = _with_arms(EXPERIMENTS["cvc"], arguments.arm or ARMS)
    request = experiment.Request(
        out=arguments.out or arguments.work / f"iacnn-arms-{name}",
        folder=arguments.data,
        profile="short-arms",
        command=shlex.join(["python", "-m", "experiments.iacnn.arms", *argv]),
        work=arguments.work,
        changes={"train.epochs": EPOCHS[name]},
        experiment=("iacnn", "cvc"),
    )
    experiment.run(chosen, request)
    run = RunFolder(request.out)
    run.write_table("arms", arms_table(run, report.open_cohort(run)))
    if arguments.data is None:
        folder = experiment.make_phantom(chosen, arguments.work)
        run.write_table("gradients", first_gradients(folder, arguments.work))
    return 0


if __name__ == "__main__":
    sys.exit(main())
