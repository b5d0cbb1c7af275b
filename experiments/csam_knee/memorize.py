"""Does the printed recipe learn? Ten synthetic knees, learned by heart, and the first gradients.

    python -m experiments.csam_knee.memorize [--arm printed] [--steps 1200] [--out FOLDER]

The network at full width, loss, optimizer and rate are those of the paper, with its ten images a
batch; only the images are smaller. "printed" has no norm, as the text, "batch_norm" differs from it
in the norm alone. An arm ends when the mean F1 of its ten images exceeds 0.9, or after `--steps`
steps. memorize-<arm>.csv has its course, gradients.csv the gradients before the first step.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_medseg import recipe
from keras_medseg.evaluation.metrics import dice
from keras_medseg.files import write_atomic
from keras_medseg.recipe import Recipe
from keras_medseg.runs import experiment, steps
from keras_medseg.tasks import task_of
from keras_medseg.training import fit

from ..gradients import gradients_at_start
from .recipe import EXPERIMENT, RECIPE

HERE = Path(__file__).parent
IMAGES = RECIPE.train.batch_size
LEARNED = 0.9  # mean F1
EVERY = 25  # steps between two rows
GRADIENTS_PX = 128
NORMS = {"printed": "none", "batch_norm": "batch"}
READINGS = {
    **{name: {"model.options.norm": norm} for name, norm in NORMS.items()},
    "printed, literal": {"model.options.norm": "none", "model.options.variant": "literal"},
}
LAYERS = ("Encode1_conv1", "Bottleneck_conv1", "Bottleneck_conv2", "Up4", "Decode4_conv1", "Output")


def recipe_of(size: int, changes: recipe.Changes) -> Recipe:
    """The paper's recipe on the synthetic knees, with images of `size` x `size` pixels."""
    assert EXPERIMENT.phantom
    of_data = {**EXPERIMENT.phantom.changes, "data.size": (size, size)}
    return recipe.override(RECIPE, {**of_data, **changes})


def ten_images(chosen: Recipe, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first ten training images that show a ligament: (10, H, W, 1) and (10, H, W, 1)."""
    folder = experiment.make_phantom(EXPERIMENT, work)
    task = task_of(chosen)
    cohort = steps.load_cohort(folder, experiment.store_folder(work, folder, chosen), task)
    task = task.fit(cohort.store, cohort.training)
    targets = chosen.model.targets[0]
    codes = [code for name in targets for code in task.dataset.targets[name]]
    cases = cohort.store.cases
    shown = [name for name in cohort.training if np.isin(cases[name].mask, codes).any()][:IMAGES]
    x, y = task.batches(cohort.store, shown, targets, training=False).batch(0, 0)
    return np.array(x), np.array(y)


def memorize(chosen: Recipe, x: np.ndarray, y: np.ndarray, most: int) -> Iterator[dict[str, float]]:
    """Train on one batch; a row every 25 steps, until F1 exceeds 0.9 or `most` steps are done."""
    network, model = fit.compile_network(chosen, chosen.model.targets[0], channels=x.shape[-1])
    for step in range(most + 1):
        if step % EVERY == 0:
            found = np.asarray(network.predict_on_batch(x))
            f1 = float(np.mean([dice(p > 0.5, t > 0.5) for p, t in zip(found, y)]))
            yield {"step": step, "f1": f1, "highest_probability": float(found.max())}
            if f1 > LEARNED:
                return
        model.train_on_batch(x, y)
        model.reset_metrics()


def first_gradients(work: Path) -> pd.DataFrame:
    """Root-mean-square gradients before the first step, beside Adam's epsilon."""
    rows = []
    for arm, changes in READINGS.items():
        chosen = recipe_of(GRADIENTS_PX, changes)
        epsilon = chosen.train.optimizer_options["epsilon"]
        starts = gradients_at_start(chosen, *ten_images(chosen, work))
        for layer in (name for name in LAYERS if name in starts):
            below = starts[layer].share_below(epsilon)
            row = {"arm": arm, "layer": layer, "rms_gradient": starts[layer].rms}
            rows.append({**row, "share_below_epsilon": below})
    return pd.DataFrame(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the gradients, then a table per arm, row by row."""
    parser = argparse.ArgumentParser(prog="python -m experiments.csam_knee.memorize")
    parser.add_argument("--arm", action="append", choices=NORMS, help="default: both")
    parser.add_argument("--size", type=int, default=32, help="pixels of a side (default: 32)")
    parser.add_argument("--steps", type=int, default=1200, help="at most (default: 1200)")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--work", type=Path, default=Path("runs"))
    arguments = parser.parse_args(argv)
    _write(arguments.out / "gradients.csv", first_gradients(arguments.work))
    for arm in arguments.arm or NORMS:
        chosen = recipe_of(arguments.size, {"model.options.norm": NORMS[arm]})
        x, y = ten_images(chosen, arguments.work)
        about = {"arm": arm, "size_px": arguments.size, "images": len(x), "share": float(y.mean())}
        rows: list[dict[str, Any]] = []
        for row in memorize(chosen, x, y, arguments.steps):
            rows.append({**about, **row})
            _write(arguments.out / f"memorize-{arm}.csv", pd.DataFrame(rows))
    return 0


def _write(path: Path, table: pd.DataFrame) -> None:
    write_atomic(path, table.to_csv(index=False, float_format="%.6g").encode())


if __name__ == "__main__":
    sys.exit(main())
