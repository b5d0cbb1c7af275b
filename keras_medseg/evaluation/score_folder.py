"""Score folders of label maps, of any program, against the annotations of their cases."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from keras_medseg.cluster import Cluster
from keras_medseg.data.cases import Case
from keras_medseg.data.datasets.base import Dataset
from keras_medseg.data.decoding import decode_all
from keras_medseg.errors import DataError, as_one, listed, plural, require_choice
from keras_medseg.evaluation import matching
from keras_medseg.evaluation.metrics import METRICS
from keras_medseg.evaluation.scores import Rules, score_labels
from keras_medseg.evaluation.statistics import summarize
from keras_medseg.files import parse_csv, read_file
from keras_medseg.progress import progress_bar

_UNITS = {"voxels": ("", "mm", "mL"), "pixels": ("", "px")}
_NEEDS_VOLUMES = ("volumes", "lesions")


@dataclass(frozen=True)
class Scored:
    """The scores of folders of label maps.

    Attributes:
        table: scores.csv: one row per variant (the name of a folder), case and region.
        cases: those that were scored, in the order of the data set.
        paths: variant -> case id -> its label map.
        metrics: columns of the table, in their order.
        regions: name -> codes, those that were scored.
        remarks: what is unusual but could be scored: surplus files, cases left out, odd headers.
    """

    table: pd.DataFrame
    cases: list[Case]
    paths: dict[str, dict[str, Path]]
    metrics: tuple[str, ...]
    regions: dict[str, tuple[int, ...]]
    remarks: list[str]


def score_folders(
    folders: Mapping[str, Path],
    cases: Sequence[Case],
    dataset: Dataset,
    *,
    metrics: Sequence[str] = (),
    regions: Sequence[str] = (),
    common: bool = False,
    workers: int | Cluster = 1,
) -> Scored:
    """Score folders of label maps against the annotations of the same cases.

    The label map of a case is found by its name (`matching`). It may have another axis order than
    the annotation, if its voxels have the same positions.

    Args:
        folders: name of a method -> the folder of its label maps.
        cases: labelled cases, from `dataset.find`.
        dataset: kind of data of the cases.
        metrics: names in METRICS, by default those of the data set; "hd95" stands for "hd95_mm" or
            "hd95_px".
        regions: which regions to score; by default all of the data set.
        common: leave out the cases that a folder lacks, instead of refusing them.
        workers: processes that score at once, or a cluster.

    Raises:
        DataError: names all cases that have no label map, a damaged one, one on another grid or one
            with unknown codes, of all folders.
        ValueError: an unknown metric or region.
    """
    for name in regions:
        require_choice("--regions", name, dataset.regions)
    chosen = {name: tuple(dataset.regions[name]) for name in regions or dataset.regions}
    names = metric_names(metrics, dataset)
    matched = {
        name: matching.match(folder, cases, dataset.suffix) for name, folder in folders.items()
    }
    cases, errors, remarks = _complete(folders, matched, cases, common=common)
    paths = {name: found.paths for name, found in matched.items()}
    score = partial(
        _score_case, paths=paths, dataset=dataset, metrics=names, regions=chosen, read=bool(errors)
    )
    if errors:  # the files that are there may have further ones
        cases = [case for case in cases if any(case.id in found for found in paths.values())]
    found = _in_order(score, cases, workers, "reading" if errors else "scoring") if cases else []
    wrong = sorted((error for one in found for error in one.errors), key=str)
    _refuse(folders, [*errors, *wrong])
    rows = [row for name in folders for one in found for row in one.rows[name]]
    remarks += [remark for one in found for remark in one.remarks]
    return Scored(pd.DataFrame(rows), cases, paths, names, chosen, sorted(set(remarks)))


def with_groups(cases: Sequence[Case], path: Path) -> list[Case]:
    """The cases with the groups (patients) that a table names.

    Args:
        cases: each of which has a row.
        path: a CSV with the columns case and group.

    Raises:
        DataError: no such table, another one, or a case without a row or with several.
    """
    remedy = "Write a CSV with the columns case and group, and a row for every case."
    table = read_file(path, parse_csv, remedy)
    if not {"case", "group"} <= {*table}:
        found = f"the columns {', '.join(map(str, table))}"
        raise DataError(path, found=found, expected="case and group", remedy=remedy)
    twice = table["case"][table["case"].duplicated()].tolist()
    groups = dict(zip(table["case"], table["group"]))
    absent = [case.id for case in cases if not groups.get(case.id)]
    found = " and ".join(
        f"{what} {listed(names)}"
        for what, names in (("no group of", absent), ("several rows of", dict.fromkeys(twice)))
        if names
    )
    if found:
        raise DataError(path, found=found, expected="one for every case", remedy=remedy)
    return [replace(case, group=groups[case.id]) for case in cases]


def metric_names(
    names: Sequence[str], dataset: Dataset, option: str = "--metrics"
) -> tuple[str, ...]:
    """The metrics to score label maps of a data set with, by names with or without their unit.

    Args:
        names: of METRICS; none for those of the data set.
        dataset: kind of data of the cases.
        option: where the names come from, for the messages.

    Raises:
        ValueError: an unknown metric, one in another unit, or one that needs probabilities.
    """
    units = _UNITS[dataset.elements]
    known = [
        name
        for name, metric in METRICS.items()
        if metric.needs != "probabilities"
        and metric.unit in units
        and (dataset.elements == "voxels" or metric.needs not in _NEEDS_VOLUMES)
    ]
    spelled = {name.removesuffix(f"_{unit.lower()}"): name for name in known for unit in units}
    chosen = [name if name in known else spelled.get(name, name) for name in names]
    for name in chosen:
        if name in METRICS and METRICS[name].needs == "probabilities":
            raise ValueError(
                f"{option}: found {name!r}, which needs probabilities, expected a metric of label "
                f"maps: {', '.join(known)}."
            )
        require_choice(option, name, known)
    return tuple(dict.fromkeys(chosen)) or dataset.metrics


def summary(table: pd.DataFrame, metrics: Sequence[str]) -> str:
    """Lines with the mean of each region and metric over the cases, and its 95 % interval.

    Where a group (patient, video sequence) has several cases, the interval is over the groups, and
    the mean of the groups' means stands behind it. Several variants stand below each other, each
    under its name.
    """
    several = table["variant"].nunique() > 1
    lines, above = [], None
    for row in summarize(table, metrics).to_dict("records"):
        if several and row["variant"] != above:
            lines.append(f"{row['variant']}:")
            above = row["variant"]
        alone = row["groups"] == 1
        interval = "no interval" if alone else f"[{row['low']:.4f}, {row['high']:.4f}]"
        over = f"  over {row['groups']} groups: {row['group_mean']:.4f}"
        grouped = row["groups"] < row["n"]
        line = f"{row['region']:12} {row['metric']:12} {row['mean']:8.4f} {interval}"
        lines.append(line + (over if grouped else ""))
    return "\n".join(lines)


@dataclass(frozen=True)
class _CaseScores:
    """What was found of one case: variant -> rows, errors, remarks."""

    rows: dict[str, list[dict]]
    errors: list[DataError]
    remarks: list[str]


def _in_order(
    score: Callable[[Case], _CaseScores], cases: Sequence[Case], workers: int | Cluster, title: str
) -> list[_CaseScores]:
    """What was found of each case, in the order of the cases."""
    found: dict[str, _CaseScores] = {}
    with (
        progress_bar(title) as progress,
        closing(decode_all(score, cases, workers, fatal=MemoryError)) as results,
    ):
        for number, (case, result) in enumerate(results, 1):
            if isinstance(result, Exception):
                raise result
            found[case.id] = result
            progress(number, len(cases), case.id)
    return [found[case.id] for case in cases]


def _complete(
    folders: Mapping[str, Path],
    matched: Mapping[str, matching.Matched],
    cases: Sequence[Case],
    *,
    common: bool,
) -> tuple[list[Case], list[DataError], list[str]]:
    """The cases to score, what is wrong with the names of their label maps, and remarks."""
    errors, remarks = [], []
    lacking = {id for found in matched.values() for id in found.missing}
    if common and len(lacking) < len(cases):
        for name, found in matched.items():
            if found.missing:
                text = f"{name}: no label map of {len(found.missing)} of {len(cases)} cases, "
                remarks.append(f"{text}left out for all: {listed(found.missing)}.")
            errors += found.errors
        cases = [case for case in cases if case.id not in lacking]
    else:
        for name, found in matched.items():
            errors += matching.problems(folders[name], found, len(cases))
    for name, found in matched.items():
        if found.surplus:
            files = plural(len(found.surplus), "file")
            paths = listed(path.name for path in found.surplus)
            remarks.append(f"{name}: {files} of no case, not scored: {paths}.")
    return list(cases), errors, remarks


def _score_case(
    case: Case,
    *,
    paths: Mapping[str, Mapping[str, Path]],
    dataset: Dataset,
    metrics: Sequence[str],
    regions: Mapping[str, Sequence[int]],
    read: bool,
) -> _CaseScores:
    """Score the label maps of one case in every folder; with `read`, only look for errors."""
    found = _CaseScores({}, [], [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            truth, spacing_mm = dataset.read_annotation(case)
        except DataError as error:
            found.errors.append(error)
            return found
        for name, of_folder in paths.items():
            if case.id not in of_folder:
                continue
            try:
                prediction = dataset.read_labels(of_folder[case.id], case)
            except DataError as error:
                found.errors.append(error)
                continue
            if read:
                continue
            named = {"variant": name, "case": case.id, "group": case.group}
            found.rows[name] = [
                {**named, **row}
                for row in score_labels(
                    prediction,
                    truth,
                    regions,
                    metrics=metrics,
                    spacing=spacing_mm,
                    elements=dataset.elements,
                    rules=Rules(dataset.lesion_rule(case)),
                )
            ]
    found.remarks.extend(str(warning.message) for warning in caught)
    return found


def _refuse(folders: Mapping[str, Path], errors: Sequence[DataError]) -> None:
    """Raise all errors as one.

    Raises:
        DataError: with a line for each error.
    """
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise as_one(
            ", ".join(map(str, folders.values())),
            errors,
            found=f"{len(errors)} problems",
            expected="a label map of each case, on its grid",
            remedy="Mend these:",
        )
