"""The figures that both papers on pictures have."""

from pathlib import Path

import numpy as np

from keras_medseg import attention_maps, pipeline
from keras_medseg.data import raster
from keras_medseg.report import Figure


def attention_figure(
    out: Path, data: pipeline.Cohort, variant: str, *, title: str, caption: str
) -> list[Figure]:
    """What the variant's attention modules make of its median held-out picture.

    None where the run has no such variant.
    """
    from keras_medseg import figures

    scores = pipeline.read_scores(out)
    if variant not in set(scores["variant"]):
        return []
    run = pipeline.read_variant(out, variant).recipe
    picked = figures.pick_cases(scores, variant)
    name = picked.get("median") or next(iter(picked.values()))
    names = run.model.networks[0]
    prepared, _ = pipeline.batches(run, data.store, (name,), names, training=False).batch(0, 0)
    network = pipeline.load_network(out, variant, names)
    case = data.store.cases[name]
    picture, truth = case.full_image()[:, :, 0], case.full_labels()[:, :, 0] > 0
    maps = attention_maps.attention_maps(network, prepared[0])
    drawn = figures.attention_grid(picture, maps, truth)
    path = figures.save(drawn, out / "figures" / "attention.png")
    return [Figure(title, f"Median held-out picture, {name}. {caption}", path)]


def comparison_figure(out: Path, data: pipeline.Cohort) -> list[Figure]:
    """The masks of all variants for the best, the median and the worst picture of the first.

    None where there is only one variant.
    """
    from keras_medseg import figures

    scores = pipeline.read_scores(out)
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
    run = pipeline.read_variant(out, variant).recipe
    return raster.read_mask(pipeline.prediction(out, run, variant, name)).pixels[..., 0] > 0
