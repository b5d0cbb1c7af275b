"""Score a folder of label maps against the annotations of its cases."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from keras_medseg.data.cases import Case
from keras_medseg.data.datasets.base import Dataset
from keras_medseg.errors import require_choice
from keras_medseg.evaluation.scores import score_labels
from keras_medseg.progress import progress_bar


def score_folder(
    predictions: Path, folder: Path, dataset: Dataset, regions: Sequence[str] = ()
) -> pd.DataFrame:
    """Score label maps, `<case>.nii.gz` or `<case>.png`, against the cases in `folder`.

    Args:
        predictions: folder of the label maps.
        folder: of the cases.
        dataset: kind of data in `folder`.
        regions: which regions to score; by default all of the data set.

    Returns:
        One row per case and region, as in scores.csv; the variant is the name of `predictions`.

    Raises:
        DataError: a case has no prediction, or a label map has another grid.
        ValueError: the data set does not have such a region.
    """
    for name in regions:
        require_choice("--regions", name, dataset.regions)
    cases = dataset.find(folder).cases
    rows = []
    with progress_bar("scoring") as progress:
        for number, case in enumerate(cases, 1):
            path = predictions / f"{case.id}{dataset.suffix}"
            for row in _score_case(dataset, path, case, regions or tuple(dataset.regions)):
                rows.append({"variant": predictions.name, "case": case.id, **row})
            progress(number, len(cases), case.id)
    return pd.DataFrame(rows)


def _score_case(dataset: Dataset, path: Path, case: Case, regions: Sequence[str]) -> list[dict]:
    truth, spacing_mm = dataset.read_annotation(case)
    return score_labels(
        dataset.read_labels(path, case),
        truth,
        {name: dataset.regions[name] for name in regions},
        metrics=dataset.metrics,
        spacing=spacing_mm,
        elements=dataset.elements,
    )
