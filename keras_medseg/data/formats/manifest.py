"""A picture data set listed in a CSV file, and strict reading of such files.

A manifest has the columns image, mask and perhaps group and split; its paths start from its own
folder, and an empty mask means a picture without one.
"""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_medseg.errors import DataError

TRAINING, HELD_OUT = "training", "held_out"
"""What the column split may say."""

_MEND = "Mend the row."


@dataclass(frozen=True)
class ManifestRow:
    """One picture. id: its path without suffix and without the folders that all share."""

    id: str
    image: Path
    mask: Path | None
    group: str
    split: str | None


def read_manifest(path: Path) -> tuple[list[ManifestRow], list[DataError]]:
    """The sound rows of a manifest, and what is wrong with the others."""
    try:
        rows = read_rows(path, ("image", "mask"), ("group", "split"))
    except DataError as error:
        return [], [error]
    errors, sound = [], []
    for line, row in rows:
        error = _row_error(path, line, row)
        if error is None:
            sound.append(row)
        else:
            errors.append(error)
    images = [os.path.normpath(path.parent / row["image"]) for row in sound]
    read = [
        ManifestRow(
            id=id,
            image=Path(image),
            mask=path.parent / row["mask"] if row["mask"] else None,
            group=row.get("group") or id,
            split=row.get("split"),
        )
        for id, image, row in zip(_ids(images), images, sound)
    ]
    return read, errors + _torn_groups(path, read)


def read_rows(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """(line, column -> value) of a CSV file in UTF-8 with exactly these columns, in any order.

    Raises:
        DataError: another text, other columns, no rows, or a row with more or fewer fields.
    """
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig")), strict=True)
        columns = list(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        found, remedy = f"no CSV ({error})", "Save the table as CSV in UTF-8, with commas."
        raise DataError(path, found=found, expected="CSV in UTF-8", remedy=remedy) from error
    expected = ",".join([*required, *(f"[{name}]" for name in optional)])
    wrong = set(columns) - {*required, *optional} or set(required) - set(columns)
    if wrong or len(set(columns)) < len(columns):
        found = f"the columns {','.join(columns) or 'none'}"
        remedy = "Name the columns in the first line, separated by commas."
        raise DataError(path, found=found, expected=expected, remedy=remedy)
    if not rows:
        raise DataError(path, found="no rows", expected="one per case", remedy="List the cases.")
    for line, row in rows:
        if None in row or None in row.values():
            found = "more" if None in row else "fewer"
            where, found = f"{path}, line {line}", f"{found} fields than columns"
            raise DataError(where, found=found, expected=expected, remedy=_MEND)
    return rows


def _row_error(path: Path, line: int, row: dict[str, str]) -> DataError | None:
    where = f"{path}, line {line}"
    if not row["image"]:
        return DataError(where, found="no image", expected="a path", remedy=_MEND)
    for column in ("image", "mask"):
        target = path.parent / row[column]
        if row[column] and not target.is_file():
            expected = f"the {column} {target}"
            return DataError(where, found="no such file", expected=expected, remedy=_MEND)
    if row["image"] == row["mask"]:
        return DataError(where, found="one file as both", expected="two files", remedy=_MEND)
    try:
        check_side(where, row.get("split", TRAINING))
    except DataError as error:
        return error
    return None


def check_side(where: str, side: str) -> None:
    """Raise a DataError for a side of the split that is none."""
    if side not in (TRAINING, HELD_OUT):
        expected = f"{TRAINING} or {HELD_OUT}"
        raise DataError(where, found=f"split {side!r}", expected=expected, remedy=_MEND)


def _ids(images: Sequence[str]) -> list[str]:
    if not images:
        return []
    shared = os.path.commonpath([os.path.dirname(image) for image in images])
    stems = [os.path.splitext(os.path.relpath(image, shared))[0] for image in images]
    return [stem.replace(os.sep, "_") for stem in stems]


def _torn_groups(path: Path, rows: Sequence[ManifestRow]) -> list[DataError]:
    sides: dict[str, set] = {}
    for row in rows:
        sides.setdefault(row.group, set()).add(row.split)
    remedy = "Split by group, or leave out the column group."
    return [
        DataError(path, found=f"group {group} on both sides", expected="one side", remedy=remedy)
        for group, names in sides.items()
        if len(names) > 1
    ]
