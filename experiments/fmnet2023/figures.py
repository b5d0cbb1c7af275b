"""What only this paper has: the authors' own score, and what the supervised stages see."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd

from keras_medseg import crop_scoring, losses, pipeline
from keras_medseg.data.brats import MODALITIES
from keras_medseg.data.patches import PatchBatches
from keras_medseg.recipe import Recipe
from keras_medseg.report import Figure

VARIANT = "fmnet"
CAPTION = (
    "The middle axial slice of a crop around the centre of the first held-out case, whole tumour. "
    "Main output, then the supervision heads, from the coarsest on."
)


def crop_scores(out: Path, data: pipeline.Cohort, variants: dict[str, Recipe]) -> pd.DataFrame:
    """The held-out cases by the authors' way: soft Dice of augmented random crops, and the loss.

    Rows as in scores.csv, with the metrics crop_dice (per region) and loss.
    """
    rows = []
    for name, run in variants.items():
        (regions,) = run.model.networks
        network = pipeline.load_network(out, name, regions, auxiliary=True)
        feed = _crops(data, run, regions, random=True)
        loss = losses.get(run.train.loss, **run.train.loss_options)
        found = crop_scoring.score_crops(
            network, feed, loss=lambda y, p, loss=loss: keras.ops.convert_to_numpy(loss(y, p))
        )
        of_variant = {"variant": name, "case": "augmented crops"}
        rows += [{**of_variant, "region": r, "crop_dice": found[r]} for r in regions]
        rows.append({**of_variant, "region": "", "loss": found["loss"]})
        keras.utils.clear_session()
    table = pd.DataFrame(rows)
    table.to_csv(out / "crop_scores.csv", index=False)
    return table


def head_figures(out: Path, data: pipeline.Cohort, base: Recipe) -> list[Figure]:
    """Main output and supervision heads beside the annotation, on one slice of one crop."""
    from keras_medseg import figures

    (regions,) = base.model.networks
    network = pipeline.load_network(out, VARIANT, regions, auxiliary=True)
    x, y = _crops(data, base, regions, random=False).batch(0, 0)
    z = figures.largest_slice(y[0, ..., 0], y[0, ..., 0])
    outputs = network.predict_on_batch(x[:1])
    outputs = outputs if isinstance(outputs, list) else [outputs]
    titles = ["main output", *(f"head {number}" for number in range(1, len(outputs)))]
    maps = {
        title: (y[0, :, :, z, 0] > 0, np.float32(output[0, :, :, z, 0]))
        for title, output in zip(titles, outputs)
    }
    drawn = figures.output_maps(x[0, :, :, z, MODALITIES.index("flair")], maps)
    path = figures.save(drawn, out / "figures" / "supervision.png")
    return [Figure("What the supervised stages see", CAPTION, path)]


def _crops(
    data: pipeline.Cohort, run: Recipe, regions: tuple[str, ...], *, random: bool
) -> PatchBatches:
    """Crops of the held-out cases, as the authors cut and change them or around the centre."""
    codes = pipeline.family(run).regions(run)
    return PatchBatches(
        data.store,
        data.held_out,
        targets={name: codes[name] for name in regions},
        patch=run.data.patch,
        batch_size=run.train.batch_size,
        seed=run.train.seed,
        foreground_probability=run.data.foreground_probability,
        normalisation=run.data.normalisation,
        augmentation=run.data.augmentation if random else {},
        shuffle=False,
        crops="random" if random else "centre",
    )
