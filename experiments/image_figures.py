"""The figures that both papers on pictures have."""

from pathlib import Path

import numpy as np

from keras_medseg.data.formats import image_files
from keras_medseg.inference import attention_maps
from keras_medseg.reporting.report import Figure
from keras_medseg.runs import steps


def attention_figure(
    out: Path, data: steps.Cohort, variant: str, *, title: str, caption: str
) -> list[Figure]:
    """What the variant's attention modules make of its median held-out picture.

    None where the run has no such variant.
    """
    from keras_medseg.reporting import figures

    scores = steps.read_scores(out)
    if variant not in set(scores["variant"]):
        return []
    run = steps.read_variant(out, variant).recipe
    picked = figures.pick_cases(scores, variant)
    name = picked.get("median") or next(iter(picked.values()))
    names = run.model.networks[0]
    prepared, _ = steps.batches(run, data.store, (name,), names, training=False).batch(0, 0)
    network = steps.load_network(out, variant, names)
    case = data.store.cases[name]
    picture, truth = case.full_image()[:, :, 0], case.full_labels()[:, :, 0] > 0
    maps = attention_maps.attention_maps(network, prepared[0])
    drawn = figures.attention_grid(picture, maps, truth)
    path = figures.save(drawn, out / "figures" / "attention.png")
    return [Figure(title, f"Median held-out picture, {name}. {caption}", path)]


def comparison_figure(out: Path, data: steps.Cohort) -> list[Figure]:
    """The masks of all variants for the best, the median and the worst picture of the first.

    None where there is only one variant.
    """
    from keras_medseg.reporting import figures

    scores = steps.read_scores(out)
    variants = list(dict.fromkeys(scores["variant"]))
    if len(variants) < 2:
        return []
    cases = {}
    for which, name in figures.pick_cases(scores, variants[0]).items():
        case = data.store.cases[name]
        masks = {variant: _mask(out, variant, name) for variant in variants}
        truth = case.full_labels()[:, :, 0] > 0
        cases[f"{which}: {name}"] = (case.full_image()[:, :, 0], truth, masks)
    path = figures.save(figures.mask_grid(cases), out / "figures" / "networks.png")
    caption = f"Best, median and worst held-out picture of the variant {variants[0]}."
    return [Figure("Masks of all networks", caption, path)]


def _mask(out: Path, variant: str, name: str) -> np.ndarray:
    run = steps.read_variant(out, variant).recipe
    return image_files.read_mask(steps.prediction(out, run, variant, name)).pixels[..., 0] > 0
