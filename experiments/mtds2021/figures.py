"""The figures of mtds2021: the auxiliary outputs beside their targets, and Figure 5."""

import numpy as np

from keras_medseg.data.datasets import brats
from keras_medseg.data.store import StoredCase
from keras_medseg.evaluation.scores import pick_cases
from keras_medseg.reporting.figures import style, volumes
from keras_medseg.reporting.report import ReportFigure
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort
from keras_medseg.tasks.slices import SliceTask

VARIANT, RIVAL = "mtds", "deeplabv3plus"
NAMES = {VARIANT: "ours", RIVAL: "DeepLabV3+"}
FIGURE_5 = (
    "As the paper's Figure 5: the whole tumor by this network and by DeepLabV3+, after "
    "post-processing, on the slice where they differ most. Red boxes mark where they differ by "
    "more than an outline."
)
CAPTION = (
    "Median case, before post-processing. Above: annotation; below: probabilities of the main "
    "output (WT) and of the auxiliary ones, which serve in training alone."
)


def paper_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """Those of the following figures whose networks the run has."""
    return supervision_figures(run, cohort) + comparison_figures(run, cohort)


def comparison_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """This network beside DeepLabV3+, their differences in red boxes (Figure 5).

    The best, the median and the worst case of this network, on the slice on which the two differ
    most. No figure if the run lacks one of the two networks.
    """
    scores = run.scores()
    if not {VARIANT, RIVAL} <= set(scores["variant"]):
        return []
    cases = {}
    for which, name in pick_cases(scores, VARIANT).items():
        case = cohort.store.cases[name]
        truth = np.isin(case.full_labels(), brats.REGIONS["WT"])
        found = {title: _whole_tumor(run, variant, case) for variant, title in NAMES.items()}
        differing = np.logical_xor(*found.values())
        z = volumes.largest_slice(differing, truth)
        flair = case.full_image()[:, :, z, brats.MODALITIES.index("flair")]
        masks = {title: mask[:, :, z] for title, mask in found.items()}
        cases[f"{which} case"] = (flair, truth[:, :, z], masks)
    drawn = volumes.prediction_differences(
        cases, color=style.REGION_COLORS["WT"], spacing_mm=case.spacing_mm
    )
    path = style.save(drawn, run.figure("comparison"))
    return [ReportFigure("Our method and DeepLabV3+", FIGURE_5, path)]


def _whole_tumor(run: RunFolder, variant: str, case: StoredCase) -> np.ndarray:
    """(X, Y, Z) boolean mask of a variant's label map."""
    dataset = run.variant(variant).task.dataset
    labels = dataset.read_labels(run.prediction(variant, case.id), case)
    return np.isin(labels, brats.REGIONS["WT"])


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
