"""The figure that only this paper has: what the auxiliary outputs see."""

from pathlib import Path

import numpy as np

from keras_medseg.data.datasets import brats
from keras_medseg.data.store import StoredCase
from keras_medseg.recipe import Recipe
from keras_medseg.reporting.report import Figure
from keras_medseg.runs import steps
from keras_medseg.tasks import volumes

VARIANT = "mtds"
CAPTION = (
    "Median case, before post-processing. Above: annotation; below: probabilities of the main "
    "output (WT) and of the auxiliary ones, which serve in training alone."
)


def supervision_figures(out: Path, data: steps.Cohort, base: Recipe) -> list[Figure]:
    """Main and auxiliary outputs of one slice beside what they were trained for (section 2.2).

    None where the run has no network of this paper, or one without auxiliary outputs.
    """
    from keras_medseg.reporting import figures

    scores = steps.read_scores(out)
    if VARIANT not in set(scores["variant"]):
        return []
    run = steps.read_variant(out, VARIANT).recipe
    if not run.model.auxiliary:
        return []
    picked = figures.pick_cases(scores, VARIANT)
    case = data.store.cases[picked.get("median") or next(iter(picked.values()))]
    labels = case.full_labels()
    z = figures.largest_slice(labels, labels)
    targets = (*run.model.networks[0], *run.model.auxiliary)
    masks = [np.isin(labels[:, :, z], brats.TARGETS[name]) for name in targets]
    drawn = figures.output_maps(
        case.full_image()[:, :, z, brats.MODALITIES.index("flair")],
        dict(zip(targets, zip(masks, _outputs(out, case, run, z)))),
        spacing_mm=case.spacing_mm,
    )
    path = figures.save(drawn, out / "figures" / "supervision.png")
    return [Figure("Outputs of the deep supervision", CAPTION, path)]


def _outputs(out: Path, case: StoredCase, run: Recipe, z: int) -> list[np.ndarray]:
    """(X, Y) probabilities of every output for slice z of the full grid."""
    from keras_medseg.inference import predict

    network = steps.load_network(out, VARIANT, run.model.networks[0], auxiliary=True)
    maps = predict.predict_slice(
        network,
        case,
        z,
        window=run.data.window,
        normalisation=run.data.normalisation,
        channels=volumes.channels(run),
    )
    return list(np.moveaxis(maps, -1, 0))
