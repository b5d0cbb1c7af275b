"""Synthetic picture data sets in the layouts and file formats of the real ones.

What is drawn is phantom_drawings.py's.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_medseg.data.formats import image_files
from keras_medseg.phantoms.drawings import (
    FRAMES_PER_SEQUENCE,
    KNEE_CLASSES,
    LAYOUTS,
    VERSION,
    Drawing,
)
from keras_medseg.phantoms.folder import claim, write_text

_README = """Synthetic images. No patient was involved.

Drawn by keras_medseg.phantoms.images, version {version}, seed {seed}, in the layout of
{layout}. Scores measured on them say that software works, and nothing about medicine.
"""
_SMALLEST, _NARROWEST, _WIDEST = 32, 0.75, 2.0


def write_pictures(
    folder: Path | str,
    *,
    cases: int,
    seed: int = 0,
    layout: str = "CVC-ClinicDB",
    size: tuple[int, int] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Path]:
    """Write a synthetic data set of pictures; complete cases of the same phantom are kept.

    Files appear complete or not at all, so a run that was killed is finished by the same call. The
    pixels depend on (seed, case) and size alone. As in the real sets, some masks of CVC-ClinicDB
    have grey edges; those of the knee are grey with alpha but for some, and have values between
    the classes' codes in some; one knee in four has no ligament.

    Args:
        folder: a new or empty folder, or an earlier phantom: cases drawn with another seed, size,
            layout or version are replaced, further cases of the same phantom stay.
        layout: one of LAYOUTS.
        size: (rows, columns); by default that of LAYOUTS.
        progress: called with (cases done, cases, case id).

    Returns:
        The pictures' files.

    Raises:
        ValueError: an unknown layout, fewer than one case, or a size under 32 pixels or far from
            those of the real sets.
        DataError: the folder holds something else, or cannot be written.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: found {layout!r}, expected one of {', '.join(LAYOUTS)}.")
    draw, usual = LAYOUTS[layout]
    size = usual if size is None else tuple(size)
    _check(cases, size)
    folder = Path(folder)
    keys = {"version": VERSION, "seed": seed, "layout": layout, "shape": list(size)}
    wanted = {**keys, "cases": cases}
    held = claim(folder, wanted, layouts=[*LAYOUTS], files=_files, readme=_README.format(**keys))
    if layout == "CVC-ClinicDB":
        write_text(folder / "README.txt", _README.format(**keys) + _sequence_table(held))

    def write(index: int) -> Path:
        picture, mask = (folder / path for path in _case_files(layout, index))
        if not (picture.exists() and mask.exists()):
            _write_case(picture, mask, layout, index, draw(seed, index, size))
        return picture

    # Nearly all of the time is spent in NumPy, SciPy and the encoders, which let go of the
    # interpreter.
    written: list[Path] = []
    with ThreadPoolExecutor(2) as pool:
        for path in pool.map(write, range(cases)):
            written.append(path)
            if progress is not None:
                progress(len(written), cases, path.stem)
    return written


def _check(cases: int, size: tuple[int, ...]) -> None:
    if cases < 1:
        raise ValueError(f"cases: found {cases}, expected at least 1.")
    if len(size) != 2 or min(size) < _SMALLEST or not _NARROWEST <= size[1] / size[0] <= _WIDEST:
        raise ValueError(
            f"size: found {size}, expected (rows, columns) of {_SMALLEST} or more, "
            f"{_NARROWEST} to {_WIDEST} times as wide as high."
        )


def _case_files(layout: str, index: int) -> tuple[Path, Path]:
    """(picture, mask), relative to the data set's folder."""
    number = index + 1
    if layout == "CVC-ClinicDB":
        return Path("Original", f"{number}.tif"), Path("Ground Truth", f"{number}.tif")
    if layout == "knee":
        return Path("images", f"{number}.png"), Path("masks", f"{number}.png")
    picture = Path("ISIC2018_Task1-2_Training_Input", f"ISIC_{number:07}.jpg")
    return picture, Path(
        "ISIC2018_Task1_Training_GroundTruth", f"ISIC_{number:07}_segmentation.png"
    )


def _files(marker: dict) -> Iterator[Path]:
    """Every file of the cases that a marker speaks of."""
    for index in range(marker["cases"]):
        yield from _case_files(marker["layout"], index)


def _sequence_table(frames: int) -> str:
    """The table of sequences as CVC-ClinicDB's README.txt has it."""
    rows = ["", "| Frame Number | Sequence |", "---------------------------"]
    for number, first in enumerate(range(1, frames + 1, FRAMES_PER_SEQUENCE), 1):
        last = min(first + FRAMES_PER_SEQUENCE - 1, frames)
        rows.append(f"| {first:4} to {last:4} | {number:8} |")
    return "\n".join(rows) + "\n"


def _write_case(picture: Path, mask: Path, layout: str, index: int, drawing: Drawing) -> None:
    pixels, labels = drawing
    codes = labels * np.uint8(255)
    if layout == "knee":
        table = np.array([0, *(codes[0] for codes in KNEE_CLASSES.values())], np.uint8)
        codes = _soft(table[labels]) if index % 8 == 3 else table[labels]
        if index % 7:
            codes = np.stack([codes, np.full_like(codes, 255)], -1)
    elif layout == "CVC-ClinicDB" and index % 4 == 3:
        codes = _soft(codes)
    image_files.write(mask, codes)
    image_files.write(picture, pixels)


def _soft(codes: np.ndarray) -> np.ndarray:
    """Every third border between neighbours of a row drawn as their mean."""
    mean = (codes[:, 1:].astype(np.uint16) + codes[:, :-1]) // 2
    border = codes[:, 1:] != codes[:, :-1]
    border[np.arange(len(codes)) % 3 > 0] = False
    softened = codes.copy()
    softened[:, 1:][border] = mean[border]
    return softened
