"""What only this paper has: the authors' own score, and what the supervised stages see."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from experiments.fmnet2023.crop_scores import score_crops
from keras_medseg import losses
from keras_medseg.data.batches.base import CaseBatches
from keras_medseg.recipe import Patches, Recipe
from keras_medseg.reporting.report import Figure
from keras_medseg.runs import steps

VARIANT = "fmnet"
CAPTION = (
    "The middle axial slice of a crop around the centre of the first held-out case, whole tumour. "
    "Main output, then the supervision heads, from the coarsest on."
)


def crop_scores(out: Path, data: steps.Cohort, variants: dict[str, Recipe]) -> pd.DataFrame:
    """The held-out cases by the authors' way: soft Dice of augmented random crops, and the loss.

    In two dimensions, of slices. Rows as in scores.csv, with the metrics crop_dice and dice_loss
    (1 - crop_dice) of every region, and loss.
    """
    rows = []
    for name, run in variants.items():
        (regions,) = run.model.networks
        network = steps.load_network(out, name, regions, auxiliary=True)
        feed = _held_out(data, run, regions, as_in_training=True)
        loss = losses.get(run.train.loss, **run.train.loss_options)
        found = score_crops(
            network, feed, loss=lambda y, p, loss=loss: keras.ops.convert_to_numpy(loss(y, p))
        )
        of_variant = {"variant": name, "case": "augmented crops"}
        for region, dice in zip(regions, found.values()):
            row = {**of_variant, "region": region, "crop_dice": dice, "dice_loss": 1 - dice}
            rows.append(row)
        rows.append({**of_variant, "region": "", "loss": found["loss"]})
        keras.utils.clear_session()
    table = pd.DataFrame(rows)
    table.to_csv(out / "crop_scores.csv", index=False)
    return table


def head_figures(out: Path, data: steps.Cohort, base: Recipe) -> list[Figure]:
    """Main output and supervision heads beside the annotation, on one slice of one crop."""
    from keras_medseg.reporting import figures

    if not isinstance(base.data, Patches):
        return []
    (regions,) = base.model.networks
    network = steps.load_network(out, VARIANT, regions, auxiliary=True)
    x, y = _held_out(data, base, regions, as_in_training=False).batch(0, 0)
    z = figures.largest_slice(y[0, ..., 0], y[0, ..., 0])
    outputs = network.predict_on_batch(x[:1])
    outputs = outputs if isinstance(outputs, list) else [outputs]
    titles = ["main output", *(f"head {number}" for number in range(1, len(outputs)))]
    maps = {
        title: (y[0, :, :, z, 0] > 0, np.float32(output[0, :, :, z, 0]))
        for title, output in zip(titles, outputs)
    }
    seen = base.data.modalities
    picture = x[0, :, :, z, seen.index("flair") if "flair" in seen else 0]
    drawn = figures.output_maps(picture - picture.min(), maps)  # normalised, so around 0
    path = figures.save(drawn, out / "figures" / "supervision.png")
    return [Figure("What the supervised stages see", CAPTION, path)]


def _held_out(
    data: steps.Cohort, run: Recipe, regions: tuple[str, ...], *, as_in_training: bool
) -> CaseBatches:
    """The held-out cases, cut, changed and shuffled as for training, or plain and in order."""
    if isinstance(run.data, Patches):
        run = replace(run, data=replace(run.data, augment_on_device=False))
    return steps.batches(run, data.store, data.held_out, regions, training=as_in_training)
