"""Folders that say of themselves that what lies in them is synthetic."""

import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from keras_medseg.errors import DataError
from keras_medseg.files import write_atomic

MARKER = "PHANTOM"
"""The file that makes a folder a phantom's."""

_KEYS = ("version", "seed", "layout", "shape", "cases")


def claim(
    folder: Path,
    wanted: dict[str, Any],
    *,
    layouts: Sequence[str],
    files: Callable[[dict[str, Any]], Iterable[Path]],
    readme: str,
) -> int:
    """Make the folder this phantom's, removing the cases of another seed, size or version.

    Args:
        wanted: what the marker is to say: version, seed, layout, shape, cases.
        layouts: those of the generator that asks; it knows no other generator's files.
        files: marker -> every file, relative to `folder`, that such a phantom may have left.
        readme: for README.txt.

    Returns:
        How many cases the folder is meant to hold, those of earlier calls included.

    Raises:
        DataError: the folder holds something else, or cannot be written.
    """
    try:
        return _claim(folder, wanted, layouts, files, readme)
    except OSError as error:
        found, expected = f"the error {error.strerror!r} on writing", "a folder to write to"
        remedy = "Choose another folder."
        raise DataError(folder, found=found, expected=expected, remedy=remedy) from error


def is_phantom(path: Path) -> bool:
    """Whether a file lies in a phantom's folder, links followed."""
    return any((parent / MARKER).exists() for parent in path.resolve().parents)


def write_text(path: Path, text: str) -> None:
    """Write a whole file in UTF-8 or none."""
    write_atomic(path, text.encode())


def _claim(
    folder: Path,
    wanted: dict[str, Any],
    layouts: Sequence[str],
    files: Callable[[dict[str, Any]], Iterable[Path]],
    readme: str,
) -> int:
    marker = folder / MARKER
    found = _read_marker(marker) if marker.exists() else None
    folder.mkdir(parents=True, exist_ok=True)
    # Hidden files: what a killed run leaves, or a file manager.
    foreign = found is None and any(not path.name.startswith(".") for path in folder.iterdir())
    if foreign or (found is not None and found["layout"] not in layouts):
        what = "files that are not a phantom's" if foreign else f"a phantom of {found['layout']}"
        raise DataError(
            folder,
            found=what,
            expected="a new or an empty folder",
            remedy="Choose another folder; nothing was written.",
        )
    if found is not None and {**found, "cases": 0} != {**wanted, "cases": 0}:
        _remove(folder, files(found))
        found = None
    cases = max(wanted["cases"], found["cases"] if found else 0)
    write_text(marker, json.dumps({**wanted, "cases": cases}, indent=2) + "\n")
    write_text(folder / "README.txt", readme)
    return cases


def _remove(folder: Path, paths: Iterable[Path]) -> None:
    for path in paths:
        (folder / path).unlink(missing_ok=True)
        for parent in list(path.parents)[:-1]:
            with contextlib.suppress(OSError):  # a folder that holds something else stays
                (folder / parent).rmdir()


def _read_marker(path: Path) -> dict[str, Any]:
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
        return {key: marker[key] for key in _KEYS}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            path,
            found="a text that is not a phantom's marker",
            expected="the JSON that the generator leaves",
            remedy="Delete the folder or choose another one.",
        ) from error
