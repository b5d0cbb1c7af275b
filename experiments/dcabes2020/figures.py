"""The figure of dcabes2020: edge maps with and without the edge loss."""

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

WHOLE_TUMOR = ("WT",)
CAPTION = (
    "Whole tumor, case {case}. Above: probabilities of the network; below: magnitude of the "
    "response of the edge loss's filters (Gaussian, then Sobel) to the map above."
)


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
