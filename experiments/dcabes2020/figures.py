"""The figures of dcabes2020: its Figure 3, and edge maps with and without the edge loss."""

import keras
import numpy as np

from keras_medseg import losses
from keras_medseg.data.datasets import brats
from keras_medseg.evaluation.scores import pick_cases
from keras_medseg.recipe import Recipe
from keras_medseg.reporting.figures import style, volumes
from keras_medseg.reporting.report import ReportFigure
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort
from keras_medseg.tasks.slices import SliceTask

from . import cost_claim

WHOLE_TUMOR = ("WT",)
CAPTION = (
    "Whole tumor, case {case}. Above: probabilities of the network; below: magnitude of the "
    "response of the edge loss's filters (Gaussian, then Sobel) to the map above."
)

FIGURE_3 = (
    "Case {case}, FLAIR, the annotation on the slice with the largest enhancing tumor, in the "
    "panels and colors of the paper: A edema, B tumor core, C necrosis and enhancing focus, D the "
    "whole."
)

COSTS = (
    "The methods under one recipe, at the sizes of this profile; EMMA is four of its networks, and "
    "OM-Net without its own recipe is MC. {verdicts} Seconds are those of the clock, of one "
    "training on this machine."
)


def paper_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """The paper's Figure 3 on a case of this run, its edge maps, and the costs under one recipe."""
    return [annotation_figure(run, cohort), *edge_figures(run, cohort), *cost_figures(run)]


def cost_figures(run: RunFolder) -> list[ReportFigure]:
    """What the methods cost under one recipe, with the verdicts; none if they were not trained."""
    if not {*cost_claim.IN_ONE_RECIPE.values()} <= {*run.run["variants"]}:
        return []
    table = cost_claim.one_recipe_costs(run)
    path = style.save(cost_claim.draw(table), run.figure("costs"))
    return [
        ReportFigure(
            "Fewer parameters, shortest training",
            COSTS.format(verdicts=" ".join(cost_claim.verdicts(table))),
            path,
        )
    ]


def annotation_figure(run: RunFolder, cohort: Cohort) -> ReportFigure:
    """Figure 3 of the paper, on the scored case with the most enhancing tumor."""
    scored = [cohort.store.cases[name] for name in run.scores()["case"].unique()]
    case = max(scored, key=lambda case: np.count_nonzero(case.labels == brats.ENHANCING))
    labels = case.full_labels()
    z = volumes.largest_slice(labels == brats.ENHANCING, labels)
    flair = case.full_image()[:, :, z, brats.MODALITIES.index("flair")]
    drawn = volumes.annotation_panels(flair, parts(labels[:, :, z]), spacing_mm=case.spacing_mm)
    path = style.save(drawn, run.figure("annotation"))
    return ReportFigure(
        "Annotation of the data set (Figure 3)", FIGURE_3.format(case=case.id), path
    )


def parts(labels: np.ndarray) -> dict[str, dict[str, tuple[str, np.ndarray]]]:
    """The four panels of Figure 3 for a slice: title -> {part: (color, mask)}.

    Args:
        labels: (X, Y) codes of the package.
    """
    edema = {"edema": (style.LABEL_COLORS["edema"], labels == brats.EDEMA)}
    core = {"tumor core": (style.OUTLINE_COLOR, np.isin(labels, brats.REGIONS["TC"]))}
    inner = {
        "necrosis": (style.LABEL_COLORS["necrotic"], labels == brats.NECROTIC),
        "enhancing focus": (style.LABEL_COLORS["enhancing"], labels == brats.ENHANCING),
    }
    return {
        "A: edema": edema,
        "B: tumor core": core,
        "C: necrosis, focus": inner,
        "D: whole tumor": edema | inner,
    }


def edge_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """Edge maps of annotation and prediction with and without the edge loss (section II.C).

    No figures if the whole tumor has no network of its own (another `model.targets`).
    """
    scores = run.scores()
    variants = [
        name
        for name in scores["variant"].unique()
        if WHOLE_TUMOR in run.variant(name).recipe.model.targets
    ]
    if not variants:
        return []
    picked = pick_cases(scores, variants[0])
    case = cohort.store.cases[picked.get("median") or next(iter(picked.values()))]
    truth = np.isin(case.full_labels(), brats.REGIONS["WT"])
    z = volumes.largest_slice(truth, truth)
    probabilities = {}
    for name in variants:
        network = run.network(name, WHOLE_TUMOR)
        task = SliceTask(run.variant(name).recipe)
        probabilities[name] = task.predict_slice(network, case, z)[..., 0]
    drawn = volumes.edge_maps(
        case.full_image()[:, :, z, brats.MODALITIES.index("flair")],
        truth[:, :, z],
        _edges(truth[:, :, z], run.recipe),
        {
            name.replace("_", " "): (found, _edges(found, run.recipe))
            for name, found in probabilities.items()
        },
        spacing_mm=case.spacing_mm,
    )
    path = style.save(drawn, run.figure("edge_maps"))
    title = "Edge maps with and without the edge loss"
    return [ReportFigure(title, CAPTION.format(case=case.id), path)]


def _edges(image: np.ndarray, chosen: Recipe) -> np.ndarray:
    """(X, Y) magnitude of the response of the recipe's edge filters to an (X, Y) map."""
    given = chosen.train.loss_options
    options = {name: value for name, value in given.items() if name.startswith("gaussian")}
    maps = losses.edge_maps(
        image.astype(np.float32)[None, :, :, None], response="magnitude", **options
    )
    return keras.ops.convert_to_numpy(maps)[0, :, :, 0, 0]
