"""The figure of mtds2021: the auxiliary outputs beside their targets."""

import numpy as np

from keras_medseg.data.datasets import brats
from keras_medseg.evaluation.scores import pick_cases
from keras_medseg.reporting.figures import style, volumes
from keras_medseg.reporting.report import ReportFigure
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort
from keras_medseg.tasks.slices import SliceTask

VARIANT = "mtds"
CAPTION = (
    "Median case, before post-processing. Above: annotation; below: probabilities of the main "
    "output (WT) and of the auxiliary ones, which serve in training alone."
)


def supervision_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """Main and auxiliary outputs of one slice beside their targets (section 2.2).

    No figure if the run has no network of this paper, or one without auxiliary outputs.
    """
    scores = run.scores()
    if VARIANT not in set(scores["variant"]):
        return []
    chosen = run.variant(VARIANT)
    model = chosen.recipe.model
    if not model.auxiliary:
        return []
    picked = pick_cases(scores, VARIANT)
    case = cohort.store.cases[picked.get("median") or next(iter(picked.values()))]
    labels = case.full_labels()
    z = volumes.largest_slice(labels, labels)
    targets = (*model.targets[0], *model.auxiliary)
    masks = [np.isin(labels[:, :, z], brats.TARGETS[name]) for name in targets]
    network = run.network(VARIANT, model.targets[0], auxiliary=True)
    outputs = np.moveaxis(SliceTask(chosen.recipe).predict_slice(network, case, z), -1, 0)
    drawn = volumes.output_maps(
        case.full_image()[:, :, z, brats.MODALITIES.index("flair")],
        dict(zip(targets, zip(masks, outputs))),
        spacing_mm=case.spacing_mm,
    )
    path = style.save(drawn, run.figure("supervision"))
    return [ReportFigure("Outputs of the deep supervision", CAPTION, path)]
