"""Figures that several papers on images share."""

import numpy as np

from keras_medseg.data.formats import image_files
from keras_medseg.evaluation.scores import pick_cases
from keras_medseg.inference import attention_maps
from keras_medseg.reporting.figures import images, style
from keras_medseg.reporting.report import ReportFigure
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort


def attention_figure(
    run: RunFolder, cohort: Cohort, variant: str, *, title: str, caption: str
) -> list[ReportFigure]:
    """The maps of a variant's attention modules for its median validation image.

    No figure if the run has no such variant.
    """
    scores = run.scores()
    if variant not in set(scores["variant"]):
        return []
    picked = pick_cases(scores, variant)
    name = picked.get("median") or next(iter(picked.values()))
    chosen = run.variant(variant)
    targets = chosen.recipe.model.targets[0]
    batches = chosen.task.batches(cohort.store, (name,), targets, training=False)
    prepared, _ = batches.batch(0, 0)
    case = cohort.store.cases[name]
    maps = attention_maps.attention_maps(run.network(variant, targets), prepared[0])
    drawn = images.attention_grid(case.pixels, maps, case.mask > 0)
    path = style.save(drawn, run.figure("attention"))
    return [ReportFigure(title, f"Median {cohort.scored_side} image, {name}. {caption}", path)]


def comparison_figure(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """The masks of all variants for the best, median and worst image of the first variant.

    No figure if there is only one variant.
    """
    scores = run.scores()
    variants = list(dict.fromkeys(scores["variant"]))
    if len(variants) < 2:
        return []
    cases = {}
    for which, name in pick_cases(scores, variants[0]).items():
        case = cohort.store.cases[name]
        masks = {variant: _mask(run, variant, name) for variant in variants}
        cases[f"{which}: {name}"] = (case.pixels, case.mask > 0, masks)
    path = style.save(images.mask_grid(cases), run.figure("networks"))
    caption = f"Best, median and worst {cohort.scored_side} image of the variant {variants[0]}."
    return [ReportFigure("Masks of all networks", caption, path)]


def _mask(run: RunFolder, variant: str, name: str) -> np.ndarray:
    return image_files.read_mask(run.prediction(variant, name)).pixels[..., 0] > 0
