"""Score a folder of label maps against the annotations of its cases."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from keras_medseg.data.cases import Case
from keras_medseg.data.datasets.base import Dataset
from keras_medseg.data.formats import foreign, image_files
from keras_medseg.errors import DataError, require_choice
from keras_medseg.evaluation.scores import Rules, score_labels
from keras_medseg.evaluation.statistics import summarize
from keras_medseg.progress import progress_bar

_READABLE = (foreign.NIFTI, tuple(image_files.SUFFIXES))


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
        DataError: names all cases that have no prediction, a damaged one, or one on another grid.
        ValueError: the data set does not have such a region.
    """
    for name in regions:
        require_choice("--regions", name, dataset.regions)
    cases = dataset.find(folder).cases
    rows = []
    errors: list[DataError] = []
    with progress_bar("scoring") as progress:
        for number, case in enumerate(cases, 1):
            try:
                path = _label_map(predictions, case, dataset.suffix)
                for row in _score_case(dataset, path, case, regions or tuple(dataset.regions)):
                    named = {"variant": predictions.name, "case": case.id, "group": case.group}
                    rows.append({**named, **row})
            except DataError as error:
                errors.append(error)
            progress(number, len(cases), case.id)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        listed = "\n  ".join(map(str, errors))
        raise DataError(
            predictions,
            found=f"{len(errors)} of {len(cases)} cases that cannot be scored",
            expected="a label map of each, on its grid",
            remedy=f"Mend these:\n  {listed}",
        )
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, metrics: Sequence[str]) -> str:
    """Lines with the mean of each region and metric over the cases, and its 95 % interval.

    Where a group (patient, video sequence) has several cases, the interval is over the groups, and
    the mean of the groups' means stands behind it.
    """
    lines = []
    for row in summarize(table, metrics).to_dict("records"):
        interval = f"[{row['low']:.4f}, {row['high']:.4f}]"
        over = f"  over {row['groups']} groups: {row['group_mean']:.4f}"
        grouped = row["groups"] < row["n"]
        line = f"{row['region']:12} {row['metric']:12} {row['mean']:8.4f} {interval}"
        lines.append(line + (over if grouped else ""))
    return "\n".join(lines)


def _label_map(predictions: Path, case: Case, suffix: str) -> Path:
    """The label map of a case: its id, and an ending of the same kind of files in any case.

    Raises:
        DataError: none, or several.
    """
    path = predictions / f"{case.id}{suffix}"
    if path.exists() or not predictions.is_dir():
        return path
    endings: tuple[str, ...] = next((kind for kind in _READABLE if suffix in kind), (suffix,))
    names = {f"{case.id}{ending}".casefold() for ending in endings}
    inside = sorted(predictions.iterdir())
    found = [other for other in inside if other.name.casefold() in names]
    if len(found) == 1:
        return found[0]
    near = found or [other for other in inside if other.name.startswith(case.id)]
    raise DataError(
        path,
        found="no such file" + (f", but {', '.join(other.name for other in near)}" if near else ""),
        expected=f"the label map of case {case.id}",
        remedy="Rename it." if len(near) == 1 else "Predict the case, or move it elsewhere.",
    )


def _score_case(dataset: Dataset, path: Path, case: Case, regions: Sequence[str]) -> list[dict]:
    truth, spacing_mm = dataset.read_annotation(case)
    return score_labels(
        dataset.read_labels(path, case),
        truth,
        {name: dataset.regions[name] for name in regions},
        metrics=dataset.metrics,
        spacing=spacing_mm,
        elements=dataset.elements,
        rules=Rules(dataset.lesion_rule(case)),
    )
