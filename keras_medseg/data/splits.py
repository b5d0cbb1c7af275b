"""Splitting of cases into a training and a validation set, and a test set if there is one.

Or into folds, each of which is scored once (`split_in_folds`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_medseg.data.cases import Case
from keras_medseg.data.formats.manifest import TEST, TRAINING, VALIDATION
from keras_medseg.errors import DataError, listed, plural, require_choice

WAYS = ("group", "random")


class Sides(NamedTuple):
    """The two sides of a split."""

    training: tuple[Case, ...]
    validation: tuple[Case, ...]


class Split(NamedTuple):
    """The sides of a run.

    Attributes:
        training: what the networks learn from.
        validation: what steers the training: the learning rate and the epoch that is kept.
        test: what is scored; empty if the validation cases are scored.
    """

    training: tuple[Case, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...] = ()


def split_cases(cases: Sequence[Case], validation: float, seed: int) -> Sides:
    """Split by group (patient, video sequence), so that no group is on both sides.

    The result depends on the names of the groups and the seed alone, not on the order of `cases`.
    Each side gets at least one group.

    Args:
        cases: what to split.
        validation: fraction of the groups that goes to the validation side.
        seed: of the random choice of groups.

    Returns:
        Both sides, sorted by id.

    Raises:
        ValueError: fewer than two groups, or `validation` outside (0, 1).
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation: found {validation}, expected a fraction between 0 and 1.")
    groups = sorted({case.group for case in cases})
    if len(groups) < 2:
        raise ValueError(
            f"cases: found {len(groups)} group(s), expected at least 2. "
            "A split needs one group for training and one for validation."
        )
    count = min(max(round(validation * len(groups)), 1), len(groups) - 1)
    chosen = set(np.random.default_rng(seed).permutation(groups)[:count])
    ordered = sorted(cases, key=lambda case: case.id)
    return Sides(
        tuple(case for case in ordered if case.group not in chosen),
        tuple(case for case in ordered if case.group in chosen),
    )


def split_by(cases: Sequence[Case], validation: float, seed: int, way: str = "group") -> Sides:
    """Split by group, or at random.

    Args:
        cases: what to split.
        validation: fraction of the groups (or cases) that goes to the validation side.
        seed: of the random choice.
        way: "group" keeps a patient or a video sequence on one side. "random" does not: frames of
            one sequence are near-duplicates, so the network is scored on images very similar to
            those it was trained on. Many published numbers were obtained in this way.

    Returns:
        Both sides, sorted by id.

    Raises:
        ValueError: as `split_cases`, or an unknown way.
    """
    require_choice("way", way, WAYS)
    if way == "group":
        return split_cases(cases, validation, seed)
    groups = {case.id: case.group for case in cases}
    sides = split_cases([replace(case, group=case.id) for case in cases], validation, seed)
    return Sides(*(tuple(replace(c, group=groups[c.id]) for c in side) for side in sides))


def split_in_three(
    cases: Sequence[Case], validation: float, test: float, seed: int, way: str = "group"
) -> Split:
    """Split into training, validation and test cases; without a test side, as `split_by`.

    The validation and test sides together are what `split_by` puts on the validation side for
    `validation + test`, so the training cases do not depend on how that part is divided. Each side
    gets at least one group.

    Args:
        cases: what to split.
        validation: fraction of the groups (or cases) that goes to the validation side.
        test: fraction that goes to the test side; 0 for none.
        seed: of the random choice.
        way: as in `split_by`; it holds for both divisions.

    Returns:
        The sides, sorted by id.

    Raises:
        ValueError: as `split_by`, or too few groups for three sides.
    """
    if test == 0:
        return Split(*split_by(cases, validation, seed, way))
    units = {_unit(case, way) for case in cases}
    if len(units) < 3:
        raise ValueError(
            f"cases: found {len(units)} group(s), expected at least 3, one for each side. "
            "Use more cases, or data.test=0."
        )
    held_out = validation + test
    training, rest = split_by(cases, max(held_out, 2 / len(units)), seed, way)
    return Split(training, *split_by(rest, test / held_out, seed, way))


def split_in_folds(
    cases: Sequence[Case],
    folds: int,
    validation: float,
    test: bool,
    seed: int,
    way: str = "group",
) -> tuple[Split, ...]:
    """Split for a cross-validation: every case is on the scored side of exactly one split.

    The groups are shuffled and divided into parts whose numbers of groups differ by at most one.
    The result depends on the names of the groups and the seed alone, not on the order of `cases`.

    Args:
        cases: what to split.
        folds: number of splits.
        validation: fraction of the groups (or cases) on the validation side, if there is a test
            side.
        test: whether the scored part is a test side, and the validation side is drawn from the
            other parts. Otherwise the scored part is the validation side, as in nnU-Net.
        seed: of the random choice.
        way: as in `split_by`.

    Returns:
        One split per fold, with sides sorted by id.

    Raises:
        ValueError: fewer groups than folds, an unknown way, or too many validation cases.
    """
    require_choice("way", way, WAYS)
    names = {case.id: _unit(case, way) for case in cases}
    units = sorted(set(names.values()))
    if len(units) < folds:
        raise ValueError(
            f"cases: found {len(units)} group(s), expected at least {folds}, one for each fold. "
            "Use more cases, or a smaller data.folds."
        )
    ordered = sorted(cases, key=lambda case: case.id)
    found = []
    for part in np.array_split(np.random.default_rng(seed).permutation(units), folds):
        chosen = set(part)
        rest = tuple(case for case in ordered if names[case.id] not in chosen)
        scored = tuple(case for case in ordered if names[case.id] in chosen)
        split = Split(rest, scored)
        found.append(steered(split, validation, seed, way) if test else split)
    return tuple(found)


def steered(split: Split, validation: float, seed: int, way: str = "group") -> Split:
    """Make the validation side a test side, and draw a new validation side from the training side.

    Args:
        split: without a test side.
        validation: fraction of all groups (or cases) that goes to the new validation side.
        seed: of the random choice.
        way: as in `split_by`.

    Returns:
        Three sides; that of `split.validation` is the test side.

    Raises:
        ValueError: there are fewer training groups than that.
    """
    training, scored = ({_unit(case, way) for case in side} for side in split[:2])
    share = validation * len(training | scored) / len(training)
    if share >= 1:
        highest = len(training) / len(training | scored)
        raise ValueError(
            f"data.validation: found {validation:g}, expected less than {highest:.2g}, the share "
            "of the cases that are not in the scored fold."
        )
    return Split(*split_by(split.training, share, seed, way), split.validation)


def _unit(case: Case, way: str) -> str:
    """What stays on one side: the group of a case, or the case alone."""
    return case.group if way == "group" else case.id


def leaking_groups(*sides: Sequence[Case]) -> list[str]:
    """Groups with cases on more than one side, sorted; if there are any, the split leaks."""
    found = Counter(group for side in sides for group in {case.group for case in side})
    return sorted(group for group, count in found.items() if count > 1)


def assign(where: Path | str, sides: Mapping[str, str], cases: Sequence[Case]) -> Split:
    """Apply a given split, for example that of a manifest.

    Args:
        where: file or folder that holds the split, for messages.
        sides: case id -> side.
        cases: what to split.

    Returns:
        The sides, in the order of `cases`.

    Raises:
        DataError: `sides` and `cases` do not have the same ids, or there are no training or no
            validation cases.
    """
    ids = [case.id for case in cases]
    for found, missing in (
        ("split", sorted(set(sides) - set(ids))),
        ("data", sorted(set(ids) - set(sides))),
    ):
        if missing:
            names = listed(missing, most=3)
            text = f"{plural(len(missing), 'case')} that only the {found} has ({names})"
            remedy = "Fetch the missing cases, or make a split of those that are there."
            raise DataError(where, found=text, expected="the same cases", remedy=remedy)
    training = tuple(case for case in cases if sides[case.id] == TRAINING)
    validation = tuple(case for case in cases if sides[case.id] == VALIDATION)
    for side, there in ((TRAINING, training), (VALIDATION, validation)):
        if not there:
            raise DataError(
                where,
                found=f"no case on the side {side}",
                expected=f"cases on the sides {TRAINING} and {VALIDATION}",
                remedy="Name both.",
            )
    return Split(training, validation, tuple(case for case in cases if sides[case.id] == TEST))
