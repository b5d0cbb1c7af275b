"""Evaluate a run on other data sets than its own: the same scores, in one table with the drops."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from keras_medseg.data.cases import Case
from keras_medseg.data.store import StoredCase, reader_name
from keras_medseg.errors import DataError, as_one, plural
from keras_medseg.evaluation.generalization import IN_DOMAIN, comparable_metrics, generalization
from keras_medseg.files import is_file_name, parse_csv, read_file, write_atomic, write_json
from keras_medseg.phantoms.folder import is_phantom
from keras_medseg.progress import progress_bar
from keras_medseg.reporting import evaluation_page
from keras_medseg.runs import report
from keras_medseg.runs.members import Member, members, run_and_variant
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.tasks.base import Task

RECORD = "record.json"
"""In the folder of an evaluation: whose scores of which folders it holds."""

_REMEDY = "Choose another folder (--out)."
_KEYS = ["dataset", "case", "group", "region"]


def parse_sets(assignments: Sequence[str]) -> dict[str, Path]:
    """{"NAME": DIR} of ["NAME=DIR"].

    Raises:
        ValueError: something else, a name twice, or one that cannot name a folder.
    """
    sets: dict[str, Path] = {}
    for assignment in assignments:
        name, _, folder = assignment.partition("=")
        if not folder or not is_file_name(name) or name in (*sets, IN_DOMAIN):
            raise ValueError(
                f"{assignment}: found no new NAME=DIR, expected one for each data set, such as "
                f"Kvasir=data/Kvasir-SEG; the name {IN_DOMAIN!r} is taken."
            )
        sets[name] = Path(folder)
    return sets


def _cases_of(sets: Mapping[str, Path], task: Task) -> dict[str, list[Case]]:
    """The cases of all data sets, before any of them is predicted.

    Raises:
        DataError: of all folders that hold none.
    """
    cases, errors = {}, []
    for name, folder in sets.items():
        try:
            cases[name] = task.dataset.find(folder).cases
        except DataError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        places = ", ".join(map(str, sets.values()))
        found = f"{len(errors)} folders without cases"
        raise as_one(places, errors, found=found, expected="cases", remedy="Give others:")
    return cases


@dataclass
class _Evaluation:
    """What is known so far, and the folder that keeps it.

    Attributes:
        out: the folder.
        all_members: the trainings of one variant of a run; the score of a case is the mean of
            theirs.
        scores: one row per data set, case and region, IN_DOMAIN included.
        known: voxels_sha256 -> id, of all cases of the run.
        notes: for the page.
    """

    out: Path
    all_members: tuple[Member, ...]
    scores: pd.DataFrame
    known: Mapping[str, str]
    notes: list[str] = field(default_factory=list)


def evaluate(text: str, sets: Mapping[str, Path], out: Path, command: str = "") -> Path:
    """Score a run on other data sets as it scored its own held-out cases, and write the page.

    A case with the same voxels as one of the run's own is left out. Scores are kept case by case,
    so an interrupted command can be repeated, and one with further data sets does those alone. The
    page shows the data sets of the last command.

    Args:
        text: RUN or RUN:VARIANT, as in `members`.
        sets: name -> folder of annotated cases.
        out: folder of scores.csv, table.csv, evaluation.json, evaluation.html and predictions/.
        command: the command line, for the page.

    Returns:
        The path of evaluation.html.

    Raises:
        DataError: the run is incomplete, `out` holds another evaluation, or, after all other cases,
            some cases cannot be read.
        ValueError: the run has no such variant, or it is an ensemble.
    """
    run, variant = run_and_variant(text)
    for part in run.parts:
        part.trained_variant(variant)
    all_members = members([text])
    cases = _cases_of(sets, all_members[0].task)
    found = _begin(run, variant, all_members, sets, out)
    errors: list[DataError] = []
    for name, folder in sets.items():
        errors += _score_set(found, name, folder, cases[name])
    if errors:
        what = plural(len(errors), "case") + " that cannot be read"
        remedy = "Mend and give the same command again; it does what is left:"
        raise as_one(out, errors, found=what, expected="none", remedy=remedy)
    scores = found.scores[found.scores["dataset"].isin([IN_DOMAIN, *sets])]
    table = generalization(scores, comparable_metrics(scores))
    write_atomic(out / "table.csv", table.to_csv(index=False).encode())
    facts = {
        "run": str(run.path),
        "variant": variant,
        "in_domain": run.run["data"],
        "in_domain_side": "test" if run.run.get("test") else "validation",
        "datasets": {name: str(folder) for name, folder in sets.items()},
        "notes": [*_run_notes(run, len(found.all_members)), *found.notes, *_empty_notes(scores)],
        "command": command,
    }
    cells = json.loads(table.to_json(orient="records"))
    write_json(out / "evaluation.json", {**facts, "table": cells})
    return evaluation_page.write(out, facts, table, scores)


def _begin(
    run: RunFolder,
    variant: str,
    all_members: tuple[Member, ...],
    sets: Mapping[str, Path],
    out: Path,
) -> _Evaluation:
    """The evaluation as far as an earlier command has come.

    Raises:
        DataError: `out` holds another evaluation, or a run is incomplete.
    """
    identity = {
        "members": [member.identity() for member in all_members],
        "datasets": {name: str(folder.resolve()) for name, folder in sets.items()},
    }
    identity = json.loads(json.dumps(identity))
    path = out / RECORD
    scores = _in_domain(run, variant)
    if path.exists():
        earlier = read_file(path, _parse_record, "Delete the folder.")
        if earlier["members"] != identity["members"]:
            found, expected = "the evaluation of another run, variant or training", str(run.path)
            raise DataError(out, found=found, expected=expected, remedy=_REMEDY)
        for name, folder in earlier["datasets"].items():
            if identity["datasets"].setdefault(name, folder) != folder:
                found, expected = f"scores of {folder} as {name}", f"those of {sets[name]}"
                raise DataError(out, found=found, expected=expected, remedy=_REMEDY)
        if (out / "scores.csv").exists():
            known = read_file(out / "scores.csv", _parse_scores, "Delete it; it is made again.")
            others = known[known["dataset"] != IN_DOMAIN]
            scores = pd.concat([scores, others], ignore_index=True)
    write_json(path, identity)
    known_cases, notes = _known_cases(run)
    return _Evaluation(out, all_members, scores, known_cases, notes)


def _in_domain(run: RunFolder, variant: str) -> pd.DataFrame:
    """The scores of the run's own held-out cases; of several trainings, their mean."""
    scores = run.scores()
    scores = scores[scores["variant"] == variant].assign(variant=IN_DOMAIN)
    if scores.empty:
        found, expected = f"no scores of {variant}", "those of its held-out cases"
        raise DataError(run.scores_file, found=found, expected=expected, remedy="Finish the run.")
    scores = scores.rename(columns={"variant": "dataset"})
    if "group" not in scores:
        scores["group"] = scores["case"]
    return _mean_over_trainings(scores)


def _mean_over_trainings(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per case and region, with the mean of every number that all rows have."""
    names = [name for name in scores if name not in (*_KEYS, "seed", "fold")]
    numbers = scores[names].apply(pd.to_numeric, errors="coerce").dropna(axis="columns")
    keys = [scores[name] for name in _KEYS]
    return numbers.groupby(keys, sort=False, dropna=False).mean().reset_index()


def _known_cases(run: RunFolder) -> tuple[dict[str, str], list[str]]:
    """The voxels of the run's own cases, if its store is still there, and a note if it is not."""
    try:
        cases = report.open_cohort(run).store.cases
    except DataError as error:
        return {}, [f"Not checked whether cases are among those of the run: {error}"]
    return {case.voxels_sha256: name for name, case in cases.items()}, []


def _score_set(
    found: _Evaluation, name: str, folder: Path, cases: Sequence[Case]
) -> list[DataError]:
    """Add the scores of all cases of a data set; the errors of those that cannot be read."""
    if any(is_phantom(case.images[0]) for case in cases):
        found.notes.append(f"{name} is synthetic, not of patients.")
    done = set(found.scores.loc[found.scores["dataset"] == name, "case"])
    errors, same = [], []
    with progress_bar(f"predicting {name}") as progress:
        for number, case in enumerate(cases, 1):
            try:
                known = None if case.id in done else _score_case(found, name, case)
            except DataError as error:
                errors.append(error)
                known = None
            if known:
                same.append(f"{case.id} = {known}")
            progress(number, len(cases), case.id)
    if same:
        found.notes.append(
            f"{len(same)} of {len(cases)} cases of {name} left out, because a case of the run has "
            f"the same voxels: {', '.join(same[:10])}{', ...' if len(same) > 10 else ''}."
        )
    if not errors and len(same) == len(cases):
        raise DataError(
            folder,
            found="cases of the run alone",
            expected="others",
            remedy="Give data that the run has not seen.",
        )
    return errors


def _score_case(found: _Evaluation, name: str, case: Case) -> str | None:
    """Add the rows of a case; if the run has the same voxels, the id of its case, and no rows."""
    rows = []
    decoded: dict[str, StoredCase] = {}  # a case is read once in each way
    for number, member in enumerate(found.all_members, 1):
        task = member.task
        reader = reader_name(task.reader)
        if reader not in decoded:
            decoded[reader] = StoredCase.from_arrays(case, task.reader(case))
        stored = decoded[reader]
        if stored.voxels_sha256 in found.known:
            return found.known[stored.voxels_sha256]
        scored = task.score_maps(task.probabilities(member.networks, stored), stored)
        place = found.out / "predictions" / name
        place = place if len(found.all_members) == 1 else place / str(number)
        task.write(place / f"{case.id}{task.dataset.suffix}", scored.prediction, stored)
        keys = {"dataset": name, "case": case.id, "group": case.group}
        rows += [{**keys, **row} for row in scored.rows]
    new = _mean_over_trainings(pd.DataFrame(rows))
    found.scores = pd.concat([found.scores, new], ignore_index=True)
    write_atomic(found.out / "scores.csv", found.scores.to_csv(index=False).encode())
    return None


def _run_notes(run: RunFolder, trainings: int) -> list[str]:
    notes = []
    if trainings > 1:
        notes.append(
            f"{trainings} trainings: the score of a case is the mean over those that scored it. "
            "The intervals are over cases; the spread between trainings is not in them."
        )
    if run.run.get("phantom"):
        notes.append("The run's own data are synthetic, not of patients.")
    if not run.run.get("test"):
        notes.append(
            "The in-domain cases are the validation cases of the training. Where they chose the "
            "epoch or the learning rate, their scores are too good, and the drop is too large."
        )
    return notes


def _empty_notes(scores: pd.DataFrame) -> list[str]:
    """Data sets with cases without any object, where an empty answer has a Dice of 1."""
    sizes = scores.filter(regex="^truth_").sum(axis=1)
    by_case = sizes.groupby([scores["dataset"], scores["case"]], sort=False).sum()
    notes = []
    for name, of_set in by_case.groupby("dataset", sort=False):
        if empty := int((of_set == 0).sum()):
            notes.append(
                f"{name}: {empty} of {len(of_set)} cases have no object; there an empty answer has "
                "a Dice of 1, and any other 0."
            )
    return notes


def _parse_record(text: str) -> dict[str, Any]:
    record = json.loads(text)
    if not isinstance(record, dict) or not {"members", "datasets"} <= record.keys():
        raise ValueError("no members or no datasets")
    folders = record["datasets"]
    if not isinstance(folders, dict) or not all(isinstance(x, str) for x in folders.values()):
        raise ValueError(f"datasets = {folders!r}")
    return record


def _parse_scores(text: str) -> pd.DataFrame:
    table = parse_csv(text)
    if missing := [name for name in _KEYS if name not in table]:
        raise ValueError(f"no column {', '.join(missing)}")
    return table
