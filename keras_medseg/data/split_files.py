"""splits_final.json: the splits of a run as a file, in the form that nnU-Net reads and writes.

The file is a list with one object per fold: {"train": [case ids], "val": [case ids]}. A split with
a test side also has "test", which nnU-Net does not read.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_medseg.data.cases import Case
from keras_medseg.data.formats import foreign
from keras_medseg.data.formats.manifest import TEST, TRAINING, VALIDATION
from keras_medseg.data.splits import Split, assign
from keras_medseg.errors import DataError, listed, plural
from keras_medseg.files import read_file, write_json

NAME = "splits_final.json"
"""Of the file in a run folder."""

_SIDES = {"train": TRAINING, "val": VALIDATION, "test": TEST}
_NEEDED = ("train", "val")
_REMEDY = 'Write a list with {"train": [case ids], "val": [case ids]} for each fold.'


def write_splits(path: Path, splits: Sequence[Mapping[str, Sequence[str]]]) -> None:
    """Write splits atomically.

    Args:
        path: of the file.
        splits: from `as_tree`, one per fold.
    """
    write_json(path, list(splits))


def as_tree(
    training: Sequence[str], validation: Sequence[str], test: Sequence[str] = ()
) -> dict[str, list[str]]:
    """One split as it stands in the file, from the case ids of its sides."""
    tree = {"train": list(training), "val": list(validation)}
    return tree | ({"test": list(test)} if test else {})


def count(path: Path) -> int:
    """How many splits a file has.

    Raises:
        DataError: the file is missing or of another form.
    """
    return len(_read(path))


def check_names(path: Path, cases: Sequence[Case], ignored: Collection[str] = ()) -> None:
    """Check that a file names these cases alone; for a refusal before they are decoded.

    Args:
        path: of the file.
        cases: the cases.
        ignored: as in `read_splits`.

    Raises:
        DataError: the file is missing or of another form, or names a case that does not exist.
    """
    known = {case.id for case in cases}
    named = {id for fold in _read(path) for ids in fold.values() for id in ids}
    unknown = sorted(named - known - {*ignored})
    if not unknown:
        return
    endings = {id: foreign.without_ending(id) for id in unknown}
    remedy = "Fetch these cases, or make a split of those that are there."
    if all(id in known for id in endings.values()):
        remedy = f"Write the ids without the ending of a file: {endings[unknown[0]]}."
    found = f"{plural(len(unknown), 'case')} that only the split has ({listed(unknown, most=3)})"
    raise DataError(path, found=found, expected="the cases of the data", remedy=remedy)


def read_splits(
    path: Path, cases: Sequence[Case], ignored: Collection[str] = ()
) -> tuple[Split, ...]:
    """Read splits of these cases.

    Args:
        path: of the file.
        cases: the cases, each of which must be on one side of every split.
        ignored: ids that the file may name although they are not used, such as those of cases with
            the same voxels as another one.

    Returns:
        One split per fold, with sides in the order of `cases`.

    Raises:
        DataError: the file is missing or of another form; a split names a case twice, a case that
            does not exist, or not all; it has no training or no validation cases; or two folds
            score the same case.
    """
    check_names(path, cases, ignored)
    folds = _read(path)
    found = []
    for number, fold in enumerate(folds):
        where = path if len(folds) == 1 else f"{path}, fold {number}"
        sides = {id: _SIDES[name] for name, ids in fold.items() for id in ids}
        used = {id: side for id, side in sides.items() if id not in ignored}
        found.append(assign(where, used, cases))
    if len({bool(split.test) for split in found}) > 1:
        what = 'the key "test" in some folds only'
        raise DataError(path, found=what, expected="it in all or none", remedy=_REMEDY)
    scored = Counter(case.id for split in found for case in split.test or split.validation)
    if twice := sorted(id for id, count in scored.items() if count > 1):
        raise DataError(
            path,
            found=f"{twice[0]} on the scored side of {scored[twice[0]]} folds",
            expected="every case in at most one",
            remedy='Name it in "train" of the others. Repeated splits are runs of their own.',
        )
    return tuple(found)


def _read(path: Path) -> list[dict[str, list[str]]]:
    return read_file(path, _parse, _REMEDY, expected="splits as nnU-Net writes them")


def _parse(text: str) -> list[dict[str, list[str]]]:
    folds = json.loads(text)
    if not isinstance(folds, list) or not folds:
        raise ValueError("no list of folds")
    for number, fold in enumerate(folds):
        _check_fold(number, fold)
    return folds


def _check_fold(number: int, fold: Any) -> None:
    named = isinstance(fold, dict) and set(_NEEDED) <= set(fold) <= set(_SIDES)
    if not named:
        what = f"the keys {sorted(fold)}" if isinstance(fold, dict) else type(fold).__name__
        raise ValueError(f"fold {number} with {what}, not train and val")
    for name, ids in fold.items():
        if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
            raise ValueError(f"fold {number} with {name} that is no list of case ids")
        if not ids:
            raise ValueError(f"fold {number} with no case in {name}")
    counts = Counter(id for ids in fold.values() for id in ids)
    if twice := sorted(id for id, count in counts.items() if count > 1):
        raise ValueError(f"fold {number} with {twice[0]} twice")
