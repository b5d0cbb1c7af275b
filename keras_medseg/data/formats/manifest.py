"""An image data set listed in a CSV file, and strict reading of such files.

A manifest has the columns image and mask, and may have group and split. Its paths are relative to
its own folder; an empty mask means an image without a mask.
"""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_medseg.errors import DataError
from keras_medseg.files import read_bytes

TRAINING, VALIDATION, TEST = "training", "validation", "test"
"""The values of the column split."""

# The name of the validation side in older manifests.
_OLD_NAMES = {"held_out": VALIDATION}
_MEND = "Mend the row."


@dataclass(frozen=True)
class ManifestRow:
    """One image.

    Attributes:
        id: path of the image without suffix and without the folders that all images share.
        image: path of the image.
        mask: path of its mask, or None.
        group: images of one group stay on one side of a split; the id if the manifest names none.
        side: TRAINING, VALIDATION, TEST, or None if the manifest has no column split.
    """

    id: str
    image: Path
    mask: Path | None
    group: str
    side: str | None


def read_manifest(path: Path) -> tuple[list[ManifestRow], list[DataError]]:
    """The valid rows of a manifest, and an error for each of the others."""
    try:
        rows = read_rows(path, ("image", "mask"), ("group", "split"))
    except DataError as error:
        return [], [error]
    errors: list[DataError] = []
    sound: list[dict[str, str]] = []
    for line, row in rows:
        try:
            _check_row(path, line, row)
            sound.append(row)
        except DataError as error:
            errors.append(error)
    images = [os.path.normpath(path.parent / row["image"]) for row in sound]
    read = [
        ManifestRow(
            id=id,
            image=Path(image),
            mask=path.parent / row["mask"] if row["mask"] else None,
            group=row.get("group") or id,
            side=_side(row["split"]) if "split" in row else None,
        )
        for id, image, row in zip(_ids(images), images, sound)
    ]
    return read, errors + _leaking_groups(path, read)


def read_rows(
    path: Path, required: Sequence[str], optional: Sequence[str], *, others: str = ""
) -> list[tuple[int, dict[str, str]]]:
    """(line, column -> value) of a CSV file in UTF-8 with exactly these columns, in any order.

    Args:
        path: the file.
        required: columns that must be there.
        optional: columns that may be there.
        others: what further columns hold, at least one; by default there are none.

    Raises:
        DataError: another encoding, other columns, no rows, or a row with more or fewer fields.
    """
    content = read_bytes(path, expected="CSV in UTF-8", remedy="Mend the path.")
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig")), strict=True)
        columns = list(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        found, remedy = f"no CSV ({error})", "Save the table as CSV in UTF-8, with commas."
        raise DataError(path, found=found, expected="CSV in UTF-8", remedy=remedy) from error
    expected = ",".join([*required, *[others] * bool(others), *(f"[{name}]" for name in optional)])
    further = set(columns) - {*required, *optional}
    wrong = bool(further) != bool(others) or set(required) - set(columns) or not all(columns)
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


def _check_row(path: Path, line: int, row: dict[str, str]) -> None:
    where = f"{path}, line {line}"
    if not row["image"]:
        raise DataError(where, found="no image", expected="a path", remedy=_MEND)
    for column in ("image", "mask"):
        if row[column]:
            _check_target(path, where, column, row[column])
    if row["image"] == row["mask"]:
        raise DataError(where, found="one file as both", expected="two files", remedy=_MEND)
    if _side(row.get("split", TRAINING)) not in (TRAINING, VALIDATION, TEST):
        found, expected = f"split {row['split']!r}", f"{TRAINING}, {VALIDATION} or {TEST}"
        raise DataError(where, found=found, expected=expected, remedy=_MEND)


def _check_target(path: Path, where: str, column: str, name: str) -> None:
    """Check that a file of a row exists, below the manifest's folder, with links followed.

    A manifest comes with a data set that others made, so it must not name other files of its user.
    """
    target = path.parent / name
    try:
        exists = target.is_file()
        inside = target.resolve().is_relative_to(path.parent.resolve())
    except (OSError, ValueError, RuntimeError):  # too long, with a zero byte, links in a circle
        exists, inside = False, True
    if os.path.isabs(name) or ".." in Path(name).parts or not inside:
        found = f"{name!r}, which leads out of the manifest's folder"
        remedy = "Put the manifest above all its files, and name them from there."
        raise DataError(where, found=found, expected="a file below it", remedy=remedy)
    if not exists:
        expected = f"the {column} {target}"
        raise DataError(where, found="no such file", expected=expected, remedy=_MEND)


def _side(name: str) -> str:
    return _OLD_NAMES.get(name, name)


def _ids(images: Sequence[str]) -> list[str]:
    if not images:
        return []
    shared = os.path.commonpath([os.path.dirname(image) for image in images])
    stems = [os.path.splitext(os.path.relpath(image, shared))[0] for image in images]
    return [stem.replace(os.sep, "_") for stem in stems]


def _leaking_groups(path: Path, rows: Sequence[ManifestRow]) -> list[DataError]:
    sides: dict[str, set[str | None]] = {}
    for row in rows:
        sides.setdefault(row.group, set()).add(row.side)
    remedy = "Split by group, or leave out the column group."
    return [
        DataError(path, found=f"group {group} on both sides", expected="one side", remedy=remedy)
        for group, names in sides.items()
        if len(names) > 1
    ]
