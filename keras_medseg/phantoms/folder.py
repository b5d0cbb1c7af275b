"""Folders of synthetic data: the marker file, and the steps that all writers share."""

import contextlib
import json
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from keras_medseg.data.store import Progress
from keras_medseg.errors import DataError
from keras_medseg.files import write_atomic, write_json

MARKER = "PHANTOM"
"""The file that marks the folder of a phantom."""

_README = """Synthetic images. No patient was involved.

Drawn by keras_medseg.phantoms, version {version}, seed {seed}, in the layout of {layout}.
Scores measured on them say that software works, and nothing about medicine.
"""


@dataclass(frozen=True)
class Marker:
    """The contents of the marker file.

    Attributes:
        version: of the drawing; another version draws other voxels from the same seed.
        seed: of the data set.
        layout: name of the data set whose layout the folder has.
        shape: (X, Y, Z) voxels or (rows, columns) pixels of each case.
        cases: number of cases when the phantom is complete.
    """

    version: int
    seed: int
    layout: str
    shape: tuple[int, ...]
    cases: int


def prepare_folder(
    folder: Path,
    wanted: Marker,
    *,
    layouts: Collection[str],
    files: Callable[[Marker], Iterable[Path]],
    appendix: Callable[[Marker], str] = lambda marker: "",
) -> Marker:
    """Prepare the folder for a phantom; cases of another seed, size or version are removed.

    Args:
        folder: a new or empty folder, or that of an earlier phantom.
        wanted: the phantom that is about to be written.
        layouts: of the calling writer, which does not know the files of other writers.
        files: every file, relative to `folder`, that the phantom of a marker may have left.
        appendix: added to README.txt after the sentence that the data are synthetic.

    Returns:
        The marker of the folder; its number of cases includes those of earlier calls.

    Raises:
        DataError: the folder contains something else, or cannot be written.
    """
    try:
        marker = _take_over(folder, wanted, layouts, files)
        write_json(folder / MARKER, asdict(marker))
        write_text(folder / "README.txt", _README.format(**asdict(marker)) + appendix(marker))
    except OSError as error:
        found, expected = f"the error {error.strerror!r} on writing", "a folder to write to"
        remedy = "Choose another folder."
        raise DataError(folder, found=found, expected=expected, remedy=remedy) from error
    return marker


def write_cases(cases: int, write: Callable[[int], str], progress: Progress | None = None) -> None:
    """Write the cases 0, 1, ... of a phantom.

    Args:
        cases: how many.
        write: draws and writes the case of an index; returns the case's id.
        progress: called with (cases done, cases, case id).
    """
    # Threads: nearly all of the time is spent in NumPy, SciPy and the encoders, which release the
    # interpreter's lock.
    with ThreadPoolExecutor(2) as pool:
        for done, case_id in enumerate(pool.map(write, range(cases)), 1):
            if progress is not None:
                progress(done, cases, case_id)


def require_cases(cases: int) -> None:
    """Check a number of cases.

    Raises:
        ValueError: fewer than one.
    """
    if cases < 1:
        raise ValueError(f"cases: found {cases}, expected at least 1.")


def is_phantom(path: Path) -> bool:
    """Whether a file lies in the folder of a phantom; links are followed."""
    return any((parent / MARKER).exists() for parent in path.resolve().parents)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 atomically."""
    write_atomic(path, text.encode())


def _take_over(
    folder: Path,
    wanted: Marker,
    layouts: Collection[str],
    files: Callable[[Marker], Iterable[Path]],
) -> Marker:
    """Remove everything that does not fit the wanted phantom; return the folder's new marker."""
    path = folder / MARKER
    found = _read_marker(path) if path.exists() else None
    folder.mkdir(parents=True, exist_ok=True)
    # Hidden files were left by a killed run or by a file manager.
    if found is None and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise _not_ours(folder, "files that are not a phantom's")
    if found is not None and found.layout not in layouts:
        raise _not_ours(folder, f"a phantom of {found.layout}")
    if found is None:
        return wanted
    if replace(found, cases=0) != replace(wanted, cases=0):
        _remove(folder, files(found))
        return wanted
    return replace(wanted, cases=max(wanted.cases, found.cases))


def _not_ours(folder: Path, found: str) -> DataError:
    return DataError(
        folder,
        found=found,
        expected="a new or an empty folder",
        remedy="Choose another folder; nothing was written.",
    )


def _remove(folder: Path, paths: Iterable[Path]) -> None:
    for path in paths:
        (folder / path).unlink(missing_ok=True)
        for parent in list(path.parents)[:-1]:
            with contextlib.suppress(OSError):  # a folder that contains something else stays
                (folder / parent).rmdir()


def _read_marker(path: Path) -> Marker:
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
        version, seed, layout = marker["version"], marker["seed"], marker["layout"]
        return Marker(version, seed, layout, tuple(marker["shape"]), marker["cases"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            path,
            found="a text that is not a phantom's marker",
            expected="the JSON that the generator leaves",
            remedy="Delete the folder or choose another one.",
        ) from error
