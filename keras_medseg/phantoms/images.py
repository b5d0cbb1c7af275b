"""Synthetic image data sets in the layouts and file formats of the real ones."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_medseg.data.formats import image_files
from keras_medseg.data.store import Progress
from keras_medseg.errors import require_choice
from keras_medseg.phantoms import dermoscopy, endoscopy, knee
from keras_medseg.phantoms.folder import (
    Marker,
    prepare_folder,
    require_cases,
    write_cases,
    write_text,
)
from keras_medseg.phantoms.geometry import Drawing

# Red, green, blue, yellow and magenta: one for each class of the knee, after black.
_COLORS = np.array(
    [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)], np.uint8
)
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


def _colored_mask(labels: np.ndarray, index: int) -> np.ndarray:
    """(H, W, 3) mask with a color for each class."""
    return _COLORS[labels]


def _numbered_mask(labels: np.ndarray, index: int) -> np.ndarray:
    """(H, W) mask with the number of each class."""
    return labels


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


def _kvasir_name(number: int) -> str:
    """25 letters and digits, as the images of Kvasir-SEG are called."""
    digits = int(hashlib.sha256(f"kvasir {number}".encode()).hexdigest(), 16)
    letters = "0123456789abcdefghijklmnopqrstuvwxyz"
    return "cju" + "".join(letters[digits // 36**place % 36] for place in range(22))


def _benchmark_names(number: int) -> dict[str, str]:
    """The folders and the name of an image of the polyp benchmark.

    Of nine images four are for training, of two data sets, and one is of each test set.
    """
    place = (number - 1) % 9
    if place < 4:
        name = _kvasir_name(number) if place < 2 else str(number)
        return {
            "home": "TrainDataset",
            "image_folder": "image",
            "mask_folder": "mask",
            "name": name,
        }
    test = ("Kvasir", "CVC-ClinicDB", "CVC-ColonDB", "ETIS-LaribPolypDB", "CVC-300")[place - 4]
    name = _kvasir_name(number) if test == "Kvasir" else str(number)
    folders = {"home": f"TestDataset/{test}", "image_folder": "images", "mask_folder": "masks"}
    return {**folders, "name": name}


def _lesion_table(cases: int) -> dict[str, str]:
    """HAM10000_metadata.csv: two images of every lesion."""
    rows = [f"HAM_{number // 2:07},ISIC_{24306 + number:07},nv\n" for number in range(cases)]
    return {"HAM10000_metadata.csv": "lesion_id,image_id,dx\n" + "".join(rows)}


def _class_file(codes: Sequence[object]) -> Callable[[int], dict[str, str]]:
    """classes.json with the classes of the knee."""
    text = json.dumps(dict(zip(knee.CLASSES, ([code] for code in codes))), indent=2) + "\n"
    return lambda cases: {"classes.json": text}


@dataclass(frozen=True)
class ImageLayout:
    """One image data set: how it is drawn, and its files.

    Attributes:
        draw: (seed, index, (rows, columns)) -> image and labels.
        version: of the drawing.
        size: (rows, columns) of the real images, or a common size among them.
        image: path of an image below the folder, with the fields `number`, which counts from 1,
            and those of `names`.
        mask: path of its mask.
        encode: (labels, index) -> pixels of the mask file, (H, W), (H, W, 3), or with alpha
            (H, W, 2) uint8.
        table: number of cases -> text about them in README.txt.
        names: number -> further fields of the paths.
        tables: number of cases -> {name: text} of further files.
    """

    draw: Callable[[int, int, tuple[int, int]], Drawing]
    version: int
    size: tuple[int, int]
    image: str
    mask: str
    encode: Callable[[np.ndarray, int], np.ndarray] = _black_and_white
    table: Callable[[int], str] = lambda cases: ""
    names: Callable[[int], dict[str, str]] = lambda number: {}
    tables: Callable[[int], dict[str, str]] = lambda cases: {}


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
    "knee-colors": ImageLayout(
        draw=knee.knee_case,
        version=knee.VERSION,
        size=(256, 256),
        image="images/{number}.png",
        mask="masks/{number}.png",
        encode=_colored_mask,
        tables=_class_file([f"#{r:02x}{g:02x}{b:02x}" for r, g, b in _COLORS[1:].tolist()]),
    ),
    "knee-numbers": ImageLayout(
        draw=knee.knee_case,
        version=knee.VERSION,
        size=(256, 256),
        image="images/{number}.png",
        mask="masks/{number}.png",
        encode=_numbered_mask,
        tables=_class_file(range(1, 6)),
    ),
    "Kvasir-SEG": ImageLayout(
        draw=endoscopy.endoscopy_case,
        version=endoscopy.VERSION,
        size=(528, 620),
        image="Kvasir-SEG/images/{name}.jpg",
        mask="Kvasir-SEG/masks/{name}.jpg",
        names=lambda number: {"name": _kvasir_name(number)},
    ),
    "ETIS-LaribPolypDB": ImageLayout(
        draw=endoscopy.endoscopy_case,
        version=endoscopy.VERSION,
        size=(966, 1225),
        image="ETIS-LaribPolypDB/{number}.tif",
        mask="Ground Truth/p{number}.tif",
    ),
    "CVC-ColonDB": ImageLayout(
        draw=endoscopy.endoscopy_case,
        version=endoscopy.VERSION,
        size=(500, 574),
        image="CVC-ColonDB/{number}.bmp",
        mask="CVC-ColonDB/p{number}.bmp",
    ),
    "CVC-300": ImageLayout(
        draw=endoscopy.endoscopy_case,
        version=endoscopy.VERSION,
        size=(500, 574),
        image="CVC-300/bbdd/{number}.bmp",
        mask="CVC-300/gtpolyp/{number}.bmp",
    ),
    "polyps": ImageLayout(
        draw=endoscopy.endoscopy_case,
        version=endoscopy.VERSION,
        size=(288, 384),
        image="{home}/{image_folder}/{name}.png",
        mask="{home}/{mask_folder}/{name}.png",
        names=_benchmark_names,
    ),
    "HAM10000": ImageLayout(
        draw=dermoscopy.dermoscopy_case,
        version=dermoscopy.VERSION,
        size=(450, 600),
        image="HAM10000_images_part_1/{name}.jpg",
        mask="HAM10000_segmentations_lesion_tschandl/{name}_segmentation.png",
        names=lambda number: {"name": f"ISIC_{24305 + number:07}"},
        tables=_lesion_table,
    ),
    "PH2": ImageLayout(
        draw=dermoscopy.dermoscopy_case,
        version=dermoscopy.VERSION,
        size=(560, 768),
        image="PH2 Dataset images/{name}/{name}_Dermoscopic_Image/{name}.bmp",
        mask="PH2 Dataset images/{name}/{name}_lesion/{name}_lesion.bmp",
        names=lambda number: {"name": f"IMD{number:03}"},
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
    for name, text in known.tables(cases).items():
        write_text(folder / name, text)
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
    known, number = LAYOUTS[layout], index + 1
    names = known.names(number)
    image, mask = (path.format(number=number, **names) for path in (known.image, known.mask))
    return Path(image), Path(mask)


def _files(marker: Marker) -> Iterator[Path]:
    """Every file of the cases of a marker."""
    for index in range(marker.cases):
        yield from _case_files(marker.layout, index)
    yield from map(Path, LAYOUTS[marker.layout].tables(marker.cases))
