"""The trainings of a run with folds or seeds: their plan, and what they found together.

Each training has a run folder of its own inside that of the run, `fold0`, `seed0` or `fold0-seed0`,
which is killed, resumed, predicted with and reported as any other. The run is the sum of them.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from keras_medseg.data import split_files
from keras_medseg.data.store import Store
from keras_medseg.errors import DataError, listed
from keras_medseg.recipe import Changes
from keras_medseg.runs import steps
from keras_medseg.runs.run_folder import FURTHER, RunFolder
from keras_medseg.runs.steps import Cohort

FurtherScores = Callable[[RunFolder, Cohort], pd.DataFrame]


@dataclass(frozen=True)
class Part:
    """One training of all variants.

    Attributes:
        name: of its folder in the run folder; empty if it is the only training.
        fold: its number, from 0; None without folds.
        seed: `train.seed`.
        cohort: its sides.
        changes: to the recipe of the run.
    """

    name: str
    fold: int | None
    seed: int
    cohort: Cohort
    changes: Changes

    def folder(self, run: RunFolder) -> RunFolder:
        """The folder of this training in that of its run."""
        return RunFolder(run.path / self.name) if self.name else run

    @property
    def facts(self) -> dict[str, int]:
        """What run.json of the training says besides its sides; nothing of the only one."""
        if not self.name:
            return {}
        return {"seed": self.seed} | ({} if self.fold is None else {"fold": self.fold})


def plan(cohorts: Sequence[Cohort], first_seed: int, seeds: int, split_seed: int) -> list[Part]:
    """The trainings of a run, fold by fold.

    Args:
        cohorts: one per fold, or a single one.
        first_seed: `train.seed` of the recipe; the other seeds follow it.
        seeds: number of trainings of each fold.
        split_seed: of the split, which all trainings share.

    Raises:
        ValueError: less than one seed.
    """
    if seeds < 1:
        raise ValueError(f"--seeds: found {seeds}, expected 1 or more.")
    parts = []
    for fold, cohort in enumerate(cohorts):
        for seed in range(first_seed, first_seed + seeds):
            names = [f"fold{fold}"] * (len(cohorts) > 1) + [f"seed{seed}"] * (seeds > 1)
            # The first seed's recipe stays that of the run.
            other = {"train.seed": seed, "data.split_seed": split_seed}
            changes = other if seed != first_seed else {}
            number = fold if len(cohorts) > 1 else None
            parts.append(Part("-".join(names), number, seed, cohort, changes))
    return parts


def of_fold(parts: Sequence[Part], fold: str) -> list[Part]:
    """The trainings that a command asks for.

    Args:
        parts: from `plan`.
        fold: "all", or the number of a fold.

    Raises:
        ValueError: there is no such fold.
    """
    if fold == "all":
        return list(parts)
    numbers = [str(part.fold) for part in parts if part.fold is not None]
    require_fold(fold, list(dict.fromkeys(numbers)))
    return [part for part in parts if str(part.fold) == fold]


def require_fold(fold: str, known: Sequence[str]) -> None:
    """Check the number of a fold.

    Args:
        fold: as in `of_fold`.
        known: the numbers of all folds.

    Raises:
        ValueError: there is no such fold.
    """
    if fold in ("all", *known):
        return
    expected = f"all or one of: {', '.join(known)}" if known else "a run with folds"
    remedy = "" if known else " Give --set data.folds=5 or --splits FILE."
    raise ValueError(f"--fold: found {fold!r}, expected {expected}.{remedy}")


def split_trees(parts: Sequence[Part]) -> list[dict[str, list[str]]]:
    """The splits of these trainings for `splits_final.json`, one per fold."""
    cohorts = {part.fold: part.cohort for part in parts}
    return [
        split_files.as_tree(cohort.training, cohort.validation, cohort.test)
        for cohort in cohorts.values()
    ]


def facts(parts: Sequence[Part]) -> dict[str, Any]:
    """What run.json of a run with several trainings says of them."""
    text = json.dumps(split_trees(parts))
    splits = hashlib.sha256(text.encode()).hexdigest()
    return {"parts": [part.name for part in parts], "splits": splits}


@dataclass(frozen=True)
class Finished:
    """The trainings that the report of a run is about, and what they found.

    Attributes:
        parts: their run folders; that of the run, if it is a single training.
        cohorts: the cases of each.
        cohort: those of all folds together.
        scores: scores.csv of all trainings, with the columns seed and fold if there are several.
        further: scores that do not belong to single cases, see `Experiment.further_scores`.
        missing: folds of the run that are not finished.
    """

    parts: tuple[RunFolder, ...]
    cohorts: tuple[Cohort, ...]
    cohort: Cohort
    scores: pd.DataFrame
    further: pd.DataFrame | None
    missing: tuple[int, ...] = ()

    @property
    def folds(self) -> int:
        """Number of finished folds; 0 without folds."""
        return len({part.run["fold"] for part in self.parts if "fold" in part.run})

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the trainings; empty if there is a single training."""
        return tuple(sorted({part.run["seed"] for part in self.parts if "seed" in part.run}))

    def part_of(self, case: str) -> RunFolder:
        """The first training that scored a case."""
        pairs = zip(self.parts, self.cohorts)
        return next(part for part, cohort in pairs if case in cohort.scored)


def finished(run: RunFolder, decoded: Store, further: FurtherScores | None) -> Finished:
    """What is finished of a run: its training, or the folds that all seeds have finished.

    The scores of several trainings are also written into the folder of the run.

    Args:
        run: the folder of the run.
        decoded: the store of its cases.
        further: as `Experiment.further_scores`.

    Raises:
        DataError: nothing is finished.
    """
    parts = _finished_parts(run)
    cohorts = tuple(steps.cohort_of(part, decoded) for part in parts)
    scores = [steps.with_groups(part.scores(), cohort) for part, cohort in zip(parts, cohorts)]
    more = [further(part, cohort) for part, cohort in zip(parts, cohorts)] if further else []
    if parts == (run,):
        return Finished(parts, cohorts, cohorts[0], scores[0], more[0] if more else None)
    table = _together(parts, cohorts, scores)
    run.write_scores(table)
    files = [part.further_scores() for part in parts]
    if any(len(file) for file in files):
        run.write_table(FURTHER, _together(parts, cohorts, files))
    of_folds = {part.run.get("fold"): cohort for part, cohort in zip(parts, cohorts)}
    planned = {_fold(part.path.name) for part in run.parts}
    return Finished(
        parts,
        cohorts,
        steps.together(list(of_folds.values())),
        table,
        _together(parts, cohorts, more) if more else None,
        tuple(sorted(fold for fold in planned - set(of_folds) if fold is not None)),
    )


def _fold(name: str) -> int | None:
    """The fold in the name of a training."""
    found = re.match(r"fold(\d+)", name)
    return int(found[1]) if found else None


def _finished_parts(run: RunFolder) -> tuple[RunFolder, ...]:
    parts = run.parts
    if parts == (run,):
        return parts
    of_folds: dict[int | None, list[RunFolder]] = {}
    for part in parts:
        of_folds.setdefault(_fold(part.path.name), []).append(part)
    missing = [part.path.name for part in parts if not _is_scored(part)]
    done = [
        folder
        for of in of_folds.values()
        if not any(part.path.name in missing for part in of)
        for folder in of
    ]
    if not done:
        raise DataError(
            run.path,
            found=f"{len(parts) - len(missing)} of {len(parts)} trainings finished",
            expected="one fold with all its seeds, or all seeds without folds",
            remedy="Give the command of the run again, to its end; it does what is missing: "
            f"{listed(missing, most=12)}.",
        )
    return tuple(done)


def _is_scored(part: RunFolder) -> bool:
    """Whether all variants of a training have the scores of all cases."""
    if not part.scores_file.exists():
        return False
    known, scores = part.run, part.scores()
    wanted = set(known.get("test") or known["validation"])
    found = {name: set(rows["case"]) for name, rows in scores.groupby("variant")}
    return all(wanted <= found.get(name, set()) for name in known["variants"])


def _together(
    parts: Sequence[RunFolder], cohorts: Sequence[Cohort], tables: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """One table of those of all trainings; a row of no scored case names the fold it is of."""
    seeds = {part.run["seed"] for part in parts}
    labelled = []
    for part, cohort, table in zip(parts, cohorts, tables):
        table = table.copy()
        fold, at = part.run.get("fold"), list(table).index("case") + 1
        if fold is not None:
            of_case = table["case"].isin(cohort.scored)
            table["case"] = table["case"].where(of_case, table["case"] + f", fold {fold}")
            table.insert(at, "fold", fold)
        if len(seeds) > 1:
            table.insert(at, "seed", part.run["seed"])
        labelled.append(table)
    return pd.concat(labelled, ignore_index=True)
