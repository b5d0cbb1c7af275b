"""A whole folder of label maps, scored against the annotations of its cases."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from keras_medseg.data import datasets
from keras_medseg.data.cases import Case
from keras_medseg.data.datasets.base import Dataset
from keras_medseg.errors import require_choice
from keras_medseg.evaluation.scores import score_labels
from keras_medseg.progress import progress_bar


def score_folder(
    predictions: Path, folder: Path, regions: Sequence[str] = (), dataset: str | None = None
) -> pd.DataFrame:
    """Score label maps, `<case>.nii.gz` or `<case>.png`, against those of the cases in `folder`.

    Args:
        predictions: folder of the label maps.
        folder: of the cases.
        regions: which regions the label maps tell apart; by default all of the data set's.
        dataset: kind of data; by default the one that `folder` is recognized as.

    Returns:
        One row a case and region, as in scores.csv; the variant is the name of `predictions`.

    Raises:
        DataError: for a case without prediction, or a label map on another grid.
        ValueError: for a region that the data set does not have.
    """
    kind = datasets.get(dataset or datasets.recognize(folder))
    for name in regions:
        require_choice("--regions", name, kind.regions)
    cases = kind.find(folder).cases
    rows = []
    with progress_bar("scoring") as progress:
        for number, case in enumerate(cases, 1):
            path = predictions / f"{case.id}{kind.suffix}"
            for row in _score_case(kind, path, case, regions or tuple(kind.regions)):
                rows.append({"variant": predictions.name, "case": case.id, **row})
            progress(number, len(cases), case.id)
    return pd.DataFrame(rows)


def _score_case(kind: Dataset, path: Path, case: Case, regions: Sequence[str]) -> list[dict]:
    labels = kind.read_labels(path, case)
    truth = kind.read(case)
    assert truth.labels is not None  # `find` gave labelled cases alone
    return score_labels(
        labels,
        truth.labels,
        {name: kind.regions[name] for name in regions},
        metrics=kind.metrics,
        spacing=truth.spacing_mm,
        elements=kind.elements,
    )
