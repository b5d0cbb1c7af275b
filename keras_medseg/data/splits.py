"""Who is trained on and who is held out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from keras_medseg.data.cases import Case, split_cases
from keras_medseg.data.formats.manifest import TRAINING, VALIDATION
from keras_medseg.errors import DataError

WAYS = ("group", "random")

Sides = tuple[tuple[Case, ...], tuple[Case, ...]]


def split_by(cases: Sequence[Case], held_out: float, seed: int, way: str = "group") -> Sides:
    """Split into (training, held-out) cases.

    Args:
        held_out: the part that is held out, of the groups or of the cases.
        way: "group" keeps a patient or a video sequence on one side. "random" does not: frames of
            one sequence are near-duplicates, so that the scores are those of pictures half known.
            Many published figures are of that kind.

    Raises:
        ValueError: as `split_cases`, and for another way.
    """
    if way not in WAYS:
        raise ValueError(f"way: found {way!r}, expected one of {', '.join(WAYS)}.")
    if way == "group":
        return split_cases(cases, held_out, seed)
    groups = {case.id: case.group for case in cases}
    sides = split_cases([replace(case, group=case.id) for case in cases], held_out, seed)
    return tuple(tuple(replace(case, group=groups[case.id]) for case in side) for side in sides)


def torn_groups(training: Sequence[Case], held_out: Sequence[Case]) -> list[str]:
    """Groups on both sides, sorted: where a split leaks."""
    return sorted({case.group for case in training} & {case.group for case in held_out})


def assign(where: Path | str, sides: Mapping[str, str], cases: Sequence[Case]) -> Sides:
    """(training, held-out) of `cases`, in their order, by case id -> side.

    Raises:
        DataError: naming `where`, when `sides` and `cases` are not about the same cases, or when
            one side is empty.
    """
    ids = [case.id for case in cases]
    for found, missing in (
        ("split", sorted(set(sides) - set(ids))),
        ("data", sorted(set(ids) - set(sides))),
    ):
        if missing:
            text = f"{len(missing)} cases that only the {found} has ({', '.join(missing[:3])}, ...)"
            remedy = "Fetch the missing cases, or make a split of those that are there."
            raise DataError(where, found=text, expected="the same cases", remedy=remedy)
    training = tuple(case for case in cases if sides[case.id] == TRAINING)
    held_out = tuple(case for case in cases if sides[case.id] == VALIDATION)
    if not training or not held_out:
        found, remedy = "all cases on one side", f"Name both {TRAINING} and {VALIDATION}."
        raise DataError(where, found=found, expected="cases on both", remedy=remedy)
    return training, held_out
