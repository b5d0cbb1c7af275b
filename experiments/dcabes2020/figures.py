"""The figure that only this paper has: what the edge loss looks at."""

from pathlib import Path

import numpy as np

from keras_medseg.data.datasets import brats
from keras_medseg.data.store import StoredCase
from keras_medseg.recipe import Recipe
from keras_medseg.reporting.report import Figure
from keras_medseg.runs import steps
from keras_medseg.tasks import volumes

WHOLE_TUMOUR = ("WT",)
CAPTION = (
    "Whole tumour, case {case}. Above: probabilities of the network; below: magnitude of the "
    "response of the edge loss's filters (Gaussian, then Sobel) to the map above."
)


def edge_figures(out: Path, data: steps.Cohort, base: Recipe) -> list[Figure]:
    """Edge maps of annotation and prediction with and without the edge loss (section II.C).

    None where the whole tumour has no network of its own (another `model.networks`).
    """
    from keras_medseg.reporting import figures

    scores = steps.read_scores(out)
    recipes = {name: steps.read_variant(out, name).recipe for name in scores["variant"].unique()}
    recipes = {name: run for name, run in recipes.items() if WHOLE_TUMOUR in run.model.networks}
    if not recipes:
        return []
    picked = figures.pick_cases(scores, next(iter(recipes)))
    case = data.store.cases[picked.get("median") or next(iter(picked.values()))]
    truth = np.isin(case.full_labels(), brats.REGIONS["WT"])
    z = figures.largest_slice(truth, truth)
    probabilities = {name: _probabilities(out, name, run, case, z) for name, run in recipes.items()}
    drawn = figures.edge_maps(
        case.full_image()[:, :, z, brats.MODALITIES.index("flair")],
        truth[:, :, z],
        _edges(truth[:, :, z], base),
        {name.replace("_", " "): (p, _edges(p, base)) for name, p in probabilities.items()},
        spacing_mm=case.spacing_mm,
    )
    path = figures.save(drawn, out / "figures" / "edge_maps.png")
    title = "Edge maps with and without the edge loss"
    return [Figure(title, CAPTION.format(case=case.id), path)]


def _probabilities(out: Path, variant: str, run: Recipe, case: StoredCase, z: int) -> np.ndarray:
    """(X, Y) of the whole tumour in slice z of the full grid."""
    from keras_medseg.inference import predict

    network = steps.load_network(out, variant, WHOLE_TUMOUR)
    maps = predict.predict_slice(
        network,
        case,
        z,
        window=run.data.window,
        normalisation=run.data.normalisation,
        channels=volumes.channels(run),
    )
    return maps[..., 0]


def _edges(picture: np.ndarray, base: Recipe) -> np.ndarray:
    """(X, Y) magnitude of the recipe's edge filters' response to an (X, Y) map."""
    import keras

    from keras_medseg import losses

    options = {k: v for k, v in base.train.loss_options.items() if k.startswith("gaussian")}
    maps = losses.edge_maps(
        picture.astype(np.float32)[None, :, :, None], response="magnitude", **options
    )
    return keras.ops.convert_to_numpy(maps)[0, :, :, 0, 0]
