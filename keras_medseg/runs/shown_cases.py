"""The cases that the slice viewer of a run's report shows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from keras_medseg.data.datasets.base import Dataset
from keras_medseg.data.store import StoredCase
from keras_medseg.data.transforms.resample import resample_labels
from keras_medseg.evaluation.comparison import cases_to_show
from keras_medseg.reporting import viewer
from keras_medseg.runs.repetitions import Finished

METRIC = "dice"


def encode(done: Finished) -> dict[str, Any]:
    """The data of the viewer: of each variant the worst, best and median cases.

    Of several trainings, a case shows the first one that scored it, with its scores.

    Raises:
        DataError: a label map is damaged.
    """
    scores = _of_first_training(done)
    variants = list(dict.fromkeys(scores["variant"]))
    dataset = done.parts[0].variant(variants[0]).task.dataset

    def loaded() -> Iterator[viewer.ViewerCase]:
        for id, reasons in cases_to_show(scores, METRIC).items():
            case, part = done.cohort.store.cases[id], done.part_of(id)
            found = {
                name: dataset.read_labels(part.prediction(name, id), case) for name in variants
            }
            yield viewer.ViewerCase(
                id,
                viewer.in_words(reasons),
                _background(case, dataset),
                case.full_labels(),
                {name: resample_labels(codes, case.full_shape) for name, codes in found.items()},
                viewer.score_texts(scores, id, [METRIC]),
                case.spacing_mm,
            )

    return viewer.encode(loaded(), labels=dataset.labels, regions=dataset.regions)


def _of_first_training(done: Finished) -> pd.DataFrame:
    """The scores of every case in the first training that scored it."""
    scores = done.scores
    if "seed" not in scores:
        return scores
    first = {case: done.part_of(case).run["seed"] for case in scores["case"].unique()}
    return scores[scores["seed"] == scores["case"].map(first)]


def _background(case: StoredCase, dataset: Dataset) -> np.ndarray:
    """FLAIR or the first channel of a volume, or an image in its colors."""
    image, names = case.full_image(), dataset.channels
    if dataset.elements == "pixels" and image.shape[3] == 3:
        return image
    return image[..., names.index("flair") if "flair" in names else 0].copy()
