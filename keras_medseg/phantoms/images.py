"""Synthetic image data sets in the layouts and file formats of the real ones."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_medseg.data.formats import image_files
from keras_medseg.data.store import Progress
from keras_medseg.errors import require_choice
from keras_medseg.phantoms import dermoscopy, endoscopy, knee
from keras_medseg.phantoms.folder import Marker, prepare_folder, require_cases, write_cases
from keras_medseg.phantoms.geometry import Drawing

_SMALLEST, _NARROWEST, _WIDEST = 32, 0.75, 2.0


def _black_and_white(labels: np.ndarray, index: int) -> np.ndarray:
    """(H, W) mask of 0 and 255."""
    return labels * np.uint8(255)


def _clinic_mask(labels: np.ndarray, index: int) -> np.ndarray:
    """(H, W) mask; as in the real data set, some masks have gray edges."""
    codes = _black_and_white(labels, index)
    return _softened(codes) if index % 4 == 3 else codes


def _knee_mask(labels: np.ndarray, index: int) -> np.ndarray:
    """Gray mask, mostly with alpha; some have values between the codes of two classes."""
    table = np.array([0, *(codes[0] for codes in knee.CLASSES.values())], np.uint8)
    codes = _softened(table[labels]) if index % 8 == 3 else table[labels]
    return np.stack([codes, np.full_like(codes, 255)], -1) if index % 7 else codes


def _softened(codes: np.ndarray) -> np.ndarray:
    """The mask with the mean of both codes at every third border within a row."""
    mean = (codes[:, 1:].astype(np.uint16) + codes[:, :-1]) // 2
    border = codes[:, 1:] != codes[:, :-1]
    border[np.arange(len(codes)) % 3 > 0] = False
    softened = codes.copy()
    softened[:, 1:][border] = mean[border]
    return softened


def _sequence_table(frames: int) -> str:
    """The table of sequences, as in README.txt of CVC-ClinicDB."""
    length = endoscopy.FRAMES_PER_SEQUENCE
    rows = ["", "| Frame Number | Sequence |", "---------------------------"]
    for number, first in enumerate(range(1, frames + 1, length), 1):
        last = min(first + length - 1, frames)
        rows.append(f"| {first:4} to {last:4} | {number:8} |")
    return "\n".join(rows) + "\n"


@dataclass(frozen=True)
class ImageLayout:
    """One image data set: how it is drawn, and its files.

    Attributes:
        draw: (seed, index, (rows, columns)) -> image and labels.
        version: of the drawing.
        size: (rows, columns) of the real images, or a common size among them.
        image: path of an image below the folder; `number` counts from 1.
        mask: path of its mask.
        encode: (labels, index) -> pixels of the mask file, (H, W) or with alpha (H, W, 2) uint8.
        table: number of cases -> text about them in README.txt.
    """

    draw: Callable[[int, int, tuple[int, int]], Drawing]
    version: int
    size: tuple[int, int]
    image: str
    mask: str
    encode: Callable[[np.ndarray, int], np.ndarray] = _black_and_white
    table: Callable[[int], str] = lambda cases: ""


LAYOUTS = {
    "CVC-ClinicDB": ImageLayout(
        draw=endoscopy.endoscopy_case,
        version=endoscopy.VERSION,
        size=(288, 384),
        image="Original/{number}.tif",
        mask="Ground Truth/{number}.tif",
        encode=_clinic_mask,
        table=_sequence_table,
    ),
    "ISIC2018": ImageLayout(
        draw=dermoscopy.dermoscopy_case,
        version=dermoscopy.VERSION,
        size=(576, 768),
        image="ISIC2018_Task1-2_Training_Input/ISIC_{number:07}.jpg",
        mask="ISIC2018_Task1_Training_GroundTruth/ISIC_{number:07}_segmentation.png",
    ),
    "knee": ImageLayout(
        draw=knee.knee_case,
        version=knee.VERSION,
        size=(256, 256),
        image="images/{number}.png",
        mask="masks/{number}.png",
        encode=_knee_mask,
    ),
}


def write_images(
    folder: Path | str,
    *,
    cases: int,
    seed: int = 0,
    layout: str = "CVC-ClinicDB",
    size: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a synthetic data set of images; complete cases of the same phantom are kept.

    Files are written atomically, so the same call finishes a run that was killed. The pixels depend
    on (seed, case) and size alone.

    Args:
        folder: a new or empty folder, or an earlier phantom: cases drawn with another seed, size,
            layout or version are replaced, further cases of the same phantom stay.
        cases: number of cases.
        seed: of the data set.
        layout: one of `LAYOUTS`.
        size: (rows, columns) in pixels; by default that of the layout.
        progress: called with (cases done, cases, case id).

    Returns:
        The image files.

    Raises:
        ValueError: an unknown layout, fewer than one case, or a size under 32 pixels or far from
            those of the real data sets.
        DataError: the folder contains something else, or cannot be written.
    """
    require_choice("layout", layout, LAYOUTS)
    known = LAYOUTS[layout]
    size = known.size if size is None else size
    require_cases(cases)
    _check_size(size)
    folder = Path(folder)
    wanted = Marker(known.version, seed, layout, tuple(size), cases)
    prepare_folder(
        folder,
        wanted,
        layouts=LAYOUTS,
        files=_files,
        appendix=lambda marker: known.table(marker.cases),
    )
    paths = [[folder / path for path in _case_files(layout, index)] for index in range(cases)]

    def write(index: int) -> str:
        image, mask = paths[index]
        if not (image.exists() and mask.exists()):
            pixels, labels = known.draw(seed, index, size)
            image_files.write(mask, known.encode(labels, index))
            image_files.write(image, pixels)
        return image.stem

    write_cases(cases, write, progress)
    return [image for image, _ in paths]


def _check_size(size: Sequence[int]) -> None:
    if len(size) != 2 or min(size) < _SMALLEST or not _NARROWEST <= size[1] / size[0] <= _WIDEST:
        raise ValueError(
            f"size: found {size}, expected (rows, columns) of {_SMALLEST} or more, "
            f"{_NARROWEST} to {_WIDEST} times as wide as high."
        )


def _case_files(layout: str, index: int) -> tuple[Path, Path]:
    """(image, mask), relative to the data set's folder."""
    known = LAYOUTS[layout]
    return Path(known.image.format(number=index + 1)), Path(known.mask.format(number=index + 1))


def _files(marker: Marker) -> Iterator[Path]:
    """Every file of the cases of a marker."""
    for index in range(marker.cases):
        yield from _case_files(marker.layout, index)
