"""The figure that only this paper has: what the edge loss looks at."""

from pathlib import Path

import numpy as np
import pandas as pd

from keras_medseg import pipeline
from keras_medseg.data import brats, transforms
from keras_medseg.recipe import Recipe
from keras_medseg.report import Picture

CAPTION = (
    "Whole tumour, median case. Above: probabilities of the network; below: magnitude of the "
    "response of the edge loss's filters (Gaussian, then Sobel) to the map above."
)


def edge_figures(out: Path, data: pipeline.Data, base: Recipe) -> list[Picture]:
    """Edge maps of annotation and prediction with and without the edge loss (section II.C)."""
    from keras_medseg import figures

    scores = pd.read_csv(out / "scores.csv")
    variants = list(dict.fromkeys(scores["variant"]))
    picked = figures.pick_cases(scores, variants[0])
    case = data.store.cases[picked.get("median") or next(iter(picked.values()))]
    truth = np.isin(pipeline.full_labels(case), brats.REGIONS["WT"])
    z = figures.largest_slice(truth, truth)
    window = transforms.window(case.full_shape, base.data.window)[:2]
    slice_truth = truth[:, :, z][window]
    drawn = figures.edge_maps(
        pipeline.full_image(case)[:, :, z, brats.MODALITIES.index("flair")][window],
        slice_truth,
        _edges(slice_truth, base),
        {name.replace("_", " "): _prediction(out, name, data, case, base, z) for name in variants},
        spacing_mm=case.spacing_mm,
    )
    path = figures.save(drawn, out / "figures" / "edge_maps.png")
    return [Picture("Edge maps with and without the edge loss", CAPTION, path)]


def _prediction(
    out: Path, variant: str, data: pipeline.Data, case, base: Recipe, z: int
) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities, edge response) of one slice, both (x, y) of the window."""
    network = pipeline.load_network(out, variant, ("WT",))
    image = np.zeros((1, *base.data.window[:2], len(brats.MODALITIES)), np.float32)
    offset = transforms.window(case.full_shape, base.data.window)[2].start
    scaling = transforms.scaling(case.statistics, base.data.normalisation)
    transforms.read_slice(case, z - offset, base.data.window, scaling, image[0])
    probabilities = np.asarray(network.predict_on_batch(image))[0, :, :, 0]
    return probabilities, _edges(probabilities, base)


def _edges(picture: np.ndarray, base: Recipe) -> np.ndarray:
    import keras

    from keras_medseg import losses

    options = {k: v for k, v in base.train.loss_options.items() if k.startswith("gaussian")}
    maps = losses.edge_maps(
        picture.astype(np.float32)[None, :, :, None], response="magnitude", **options
    )
    return keras.ops.convert_to_numpy(maps)[0, :, :, 0, 0]
