"""The figure that only this paper has: what the auxiliary outputs see."""

from pathlib import Path

import numpy as np
import pandas as pd

from keras_medseg import pipeline
from keras_medseg.data import brats, transforms
from keras_medseg.recipe import Recipe
from keras_medseg.report import Picture

VARIANT = "mtds"
CAPTION = (
    "Median case, before post-processing. Above: annotation; below: probabilities of the main "
    "output (WT) and of the auxiliary ones, which serve in training alone."
)


def supervision_figures(out: Path, data: pipeline.Cohort, base: Recipe) -> list[Picture]:
    """Main and auxiliary outputs of one slice beside what they were trained for (section 2.2)."""
    from keras_medseg import figures

    picked = figures.pick_cases(pd.read_csv(out / "scores.csv"), VARIANT)
    case = data.store.cases[picked.get("median") or next(iter(picked.values()))]
    labels = pipeline.full_labels(case)
    z = figures.largest_slice(labels, labels)
    targets = (*base.model.networks[0], *base.model.auxiliary)
    masks = [np.isin(labels[:, :, z], brats.TARGETS[name]) for name in targets]
    drawn = figures.output_maps(
        pipeline.full_image(case)[:, :, z, brats.MODALITIES.index("flair")],
        dict(zip(targets, zip(masks, _outputs(out, case, base, z)))),
        spacing_mm=case.spacing_mm,
    )
    path = figures.save(drawn, out / "figures" / "supervision.png")
    return [Picture("Outputs of the deep supervision", CAPTION, path)]


def _outputs(out: Path, case, base: Recipe, z: int) -> list[np.ndarray]:
    """(X, Y) probabilities of every output for slice z of the full grid."""
    network = pipeline.load_network(out, VARIANT, base.model.networks[0], auxiliary=True)
    image = np.zeros((1, *base.data.window[:2], len(brats.MODALITIES)), np.float32)
    first = transforms.window_origin(case.full_shape, base.data.window)[2]
    scaling = transforms.scaling(case.statistics, base.data.normalisation)
    transforms.read_slice(case, z - first, base.data.window, scaling, image[0])
    predicted = network.predict_on_batch(image)
    return [transforms.paste(maps[0, :, :, 0], case.full_shape[:2]) for maps in predicted]
