"""The figure that only this paper has: what the edge loss looks at."""

from pathlib import Path

import numpy as np

from keras_medseg import pipeline
from keras_medseg.data import brats, transforms
from keras_medseg.data.store import StoredCase
from keras_medseg.recipe import Recipe
from keras_medseg.report import Picture

CAPTION = (
    "Whole tumour, case {case}. Above: probabilities of the network; below: magnitude of the "
    "response of the edge loss's filters (Gaussian, then Sobel) to the map above."
)


def edge_figures(out: Path, data: pipeline.Cohort, base: Recipe) -> list[Picture]:
    """Edge maps of annotation and prediction with and without the edge loss (section II.C).

    None where the whole tumour has no network of its own (another `model.networks`).
    """
    from keras_medseg import figures

    scores = pipeline.read_scores(out)
    variants = [
        name
        for name in dict.fromkeys(scores["variant"])
        if pipeline.training_folder(out, name, ("WT",)).exists()
    ]
    if not variants:
        return []
    picked = figures.pick_cases(scores, variants[0])
    case = data.store.cases[picked.get("median") or next(iter(picked.values()))]
    truth = np.isin(pipeline.full_labels(case), brats.REGIONS["WT"])
    z = figures.largest_slice(truth, truth)
    probabilities = {name: _probabilities(out, name, case, base)[:, :, z] for name in variants}
    drawn = figures.edge_maps(
        pipeline.full_image(case)[:, :, z, brats.MODALITIES.index("flair")],
        truth[:, :, z],
        _edges(truth[:, :, z], base),
        {name.replace("_", " "): (p, _edges(p, base)) for name, p in probabilities.items()},
        spacing_mm=case.spacing_mm,
    )
    path = figures.save(drawn, out / "figures" / "edge_maps.png")
    title = "Edge maps with and without the edge loss"
    return [Picture(title, CAPTION.format(case=case.id), path)]


def _probabilities(out: Path, variant: str, case: StoredCase, base: Recipe) -> np.ndarray:
    """(X, Y, Z) of the whole tumour on the full grid."""
    from keras_medseg import inference

    predicted = inference.predict_window(
        pipeline.load_network(out, variant, ("WT",)),
        case,
        window=base.data.window,
        normalisation=base.data.normalisation,
        batch_size=base.train.batch_size,
    )
    return transforms.paste(predicted[..., 0], case.full_shape)


def _edges(picture: np.ndarray, base: Recipe) -> np.ndarray:
    """(X, Y) magnitude of the recipe's edge filters' response to an (X, Y) map."""
    import keras

    from keras_medseg import losses

    options = {k: v for k, v in base.train.loss_options.items() if k.startswith("gaussian")}
    maps = losses.edge_maps(
        picture.astype(np.float32)[None, :, :, None], response="magnitude", **options
    )
    return keras.ops.convert_to_numpy(maps)[0, :, :, 0, 0]
