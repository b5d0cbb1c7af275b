"""Which files of an image data set are its cases: the layouts, by the names of folders and files.

A *home* is the folder that a layout describes. One folder may contain several homes if together
they are one data set: the parts of ISIC or HAM10000, folders whose names say that they are for
training and for testing, or the data sets of the published polyp benchmark.
"""

import csv
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise, zip_longest
from pathlib import Path

from keras_medseg.data import checks
from keras_medseg.data.cases import Case
from keras_medseg.data.datasets import _polyps
from keras_medseg.data.formats import foreign, image_files
from keras_medseg.data.formats.manifest import TEST, TRAINING, VALIDATION, read_manifest
from keras_medseg.errors import DataError, plural
from keras_medseg.files import read_file

CVC, ISIC, IMAGES, PH2, HAM = "CVC-ClinicDB", "ISIC2018", "images", "PH2", "HAM10000"
KVASIR, ETIS, COLON, CVC300 = "Kvasir-SEG", "ETIS-LaribPolypDB", "CVC-ColonDB", "CVC-300"
BENCHMARK = "polyp benchmark"
MANIFEST = "manifest.csv"
CLASSES = "classes.json"
MAX_DEPTH = 3
_MOST_FOLDERS = 6

IN_COLOR = (CVC, ISIC, "ISIC2016", "ISIC2017", PH2, HAM, KVASIR, ETIS, COLON, CVC300)
"""Data sets whose images are all in color."""

_ISIC_FILE = re.compile(r"(ISIC_\d{7})(_segmentation)?", re.IGNORECASE)
_ISIC_YEAR = re.compile(r"(?:ISIC|ISBI)-?(201[678])", re.IGNORECASE)
_ISIC_COMPANIONS = re.compile(r"ISIC_\d{7}_(superpixels|attribute_\w+)", re.IGNORECASE)
_HAM_IDS = range(24306, 34321)  # 10,015 images, which no segmentation task of ISIC contains
_TEXTS = (".txt", ".md", ".csv", ".json", ".pdf", ".ini", ".db", ".xml", ".html", ".zip", ".tab")
_MASK_ENDING = re.compile(r"_(mask|segmentation)$", re.IGNORECASE)
_PH2_CASE = re.compile(r"IMD\d+", re.IGNORECASE)
_KVASIR_FILE = re.compile(r"cju[0-9a-z]{22}")
_FRAME_OR_MASK = re.compile(r"p?\d+")
_README_ROW = re.compile(r"\|\s*(\d+)\s+to\s+(\d+)\s*\|\s*(\d+)\s*\|")
_SIDE = re.compile(
    r"(train|val|test)(ing|id|idation)?[-_ ]?(data|dataset|set|images)?", re.IGNORECASE
)
# First frames of the 29 sequences in CVC-ClinicDB's README.txt, and the frame after the last.
_CVC_STARTS = (
    1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298, 318, 343, 364, 384, 409,
    429, 448, 467, 479, 504, 529, 547, 572, 592, 613,
)  # fmt: skip
# What a folder of images and masks may be called, and then which data set it is.
_NAMED = {"kvasir": KVASIR, "etis": ETIS, "colondb": COLON, "cvc-300": CVC300, "clinicdb": CVC}

TREES = {
    CVC: ("README.txt", "Original/1.tif, 2.tif, ...", "Ground Truth/1.tif, 2.tif, ..."),
    ISIC: (
        "ISIC2018_Task1-2_Training_Input/",
        "  ISIC_0000000.jpg, ...",
        "ISIC2018_Task1_Training_GroundTruth/",
        "  ISIC_0000000_segmentation.png, ...",
    ),
    IMAGES: ("images/a.png, b.png, ...", "masks/a.png, b.png, ..."),
    KVASIR: ("images/cju0qkwl35piu0993l0dewei2.jpg, ...", "masks/, the same names"),
    ETIS: ("ETIS-LaribPolypDB/1.tif, 2.tif, ...", "Ground Truth/p1.tif, p2.tif, ..."),
    COLON: ("1.bmp, p1.bmp, 2.bmp, p2.bmp, ...",),
    CVC300: ("bbdd/1.bmp, 2.bmp, ...", "gtpolyp/1.bmp, 2.bmp, ..."),
    PH2: ("IMD002/IMD002_Dermoscopic_Image/IMD002.bmp", "IMD002/IMD002_lesion/IMD002_lesion.bmp"),
    HAM: (
        "HAM10000_images_part_1/ISIC_0024306.jpg, ...",
        "HAM10000_segmentations_lesion_tschandl/",
        "  ISIC_0024306_segmentation.png, ...",
        "HAM10000_metadata.csv",
    ),
    BENCHMARK: (
        "TrainDataset/image/, TrainDataset/mask/",
        "TestDataset/Kvasir/images/, masks/, ...",
        "  or the folders of the data sets themselves",
    ),
    MANIFEST: ("manifest.csv: image,mask[,group][,split]", "  the files that it lists"),
}
"""Layout -> how its files are named."""


@dataclass
class Found:
    """The files of a case: more than one image or mask if a file occurs twice."""

    id: str
    dataset: str
    group: str
    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    mask_expected: bool = True

    @property
    def case(self) -> Case:
        """The case; its image must exist."""
        mask = self.masks[0] if self.masks else None
        return Case(self.id, self.dataset, tuple(self.images[:1]), mask, self.group)


@dataclass
class Scan:
    """The contents of a folder.

    Attributes:
        folder: the folder, or the path of a manifest.
        layout: a key of TREES; None if no layout was recognized.
        found: the cases.
        errors: those that do not belong to a single case.
        remarks: (file, message) of what is unusual.
        unread: files among the images and masks that are no images.
        sides: case id -> "training", "validation" or "test", if the names of folders, a manifest or
            the published benchmark say so.
    """

    folder: Path
    layout: str | None = None
    found: list[Found] = field(default_factory=list)
    errors: list[DataError] = field(default_factory=list)
    remarks: list[tuple[Path, str]] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    sides: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Home:
    """A folder in a layout.

    Attributes:
        layout: a key of _SCANS.
        folder: which it is.
    """

    layout: str
    folder: Path


def scan_folder(folder: Path) -> Scan:
    """Find the cases of a folder; no file but tables is read.

    Raises:
        DataError: `folder` does not exist or cannot be read.
    """
    scan = Scan(Path(os.path.abspath(folder)))
    with checks.readable_folders():
        manifest = _manifest_of(scan.folder)
        if manifest is not None:
            _scan_manifest(scan, manifest)
        else:
            remedy = "Give the folder that holds the images, or a manifest."
            checks.require_folder(scan.folder, expected="a folder with images", remedy=remedy)
            _scan_homes(scan, [*_homes(scan.folder)])
    scan.found.sort(key=lambda found: (found.dataset, natural(found.id)))
    scan.errors += _id_errors(scan)
    datasets = {found.dataset for found in scan.found}
    if len(datasets) == 1 and scan.layout in (IMAGES, ISIC):
        scan.layout = next((name for name in datasets if name in TREES), scan.layout)
    return scan


def recognizes(folder: Path) -> bool:
    """Whether a folder is or contains a manifest, or contains images in a known layout."""
    with checks.readable_folders():
        if _manifest_of(folder) is not None:
            return True
        return folder.is_dir() and any(map(_holds_images, _homes(folder)))


def natural(id: str) -> list[tuple[bool, int, str]]:
    """Sort key that treats numbers inside names as numbers: 2 before 10."""
    parts = [part for part in re.split(r"([0-9]+)", id) if part]
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _manifest_of(folder: Path) -> Path | None:
    """The manifest in a folder, or the one given instead of a folder."""
    if folder.is_file() and folder.suffix.lower() == ".csv":
        return folder
    return file_named(folder, MANIFEST) if folder.is_dir() else None


def file_named(folder: Path, name: str) -> Path | None:
    """The file of this name, in upper or lower case; None if there is none."""
    inside = (path for path in checks.entries(folder) if path.name.casefold() == name)
    return next((path for path in inside if not path.is_dir()), None)


def _scan_manifest(scan: Scan, path: Path) -> None:
    scan.layout = MANIFEST
    rows, scan.errors = read_manifest(path)
    for row in rows:
        listed = [row.mask] if row.mask else []
        found = Found(row.id, IMAGES, row.group, [row.image], listed, mask_expected=False)
        scan.found.append(found)
        if row.side:
            scan.sides[row.id] = row.side


# Homes


def _homes(folder: Path) -> Iterator[_Home]:
    """The homes at most MAX_DEPTH folders below."""
    for home, inside in checks.walk(folder, MAX_DEPTH):
        layout = _layout_of(inside)
        if layout is not None:
            yield _Home(layout, home)
        if layout not in (None, ISIC):
            inside.clear()


def _layout_of(inside: Sequence[Path]) -> str | None:
    """The layout of a folder with these contents."""
    folders = {path.name.casefold() for path in inside if path.is_dir()}
    for layout, needed in (
        (CVC, {"original", "ground truth"}),
        (ETIS, {"etis-laribpolypdb", "ground truth"}),
        (CVC300, {"bbdd", "gtpolyp"}),
    ):
        if folders >= needed:
            return layout
    if folders & {"images", "image"}:
        return IMAGES
    if any(_PH2_CASE.fullmatch(name) for name in folders):
        return PH2
    stems = [path.stem for path in inside if _is_image(path)]
    if any(map(_ISIC_FILE.fullmatch, stems)):
        return ISIC
    frames = {stem for stem in stems if _FRAME_OR_MASK.fullmatch(stem.casefold())}
    return COLON if any(f"p{stem}" in frames for stem in frames) else None


def _holds_images(home: _Home) -> bool:
    """Whether there is an image where the layout expects images."""
    if home.layout in (ISIC, COLON, PH2):
        return True
    names = {CVC: {"original", "ground truth"}, ETIS: {"etis-laribpolypdb"}, CVC300: {"bbdd"}}
    wanted = names.get(home.layout, {"images", "image"})
    inside = [path for path in checks.entries(home.folder) if path.is_dir()]
    files = (checks.entries(path) for path in inside if path.name.casefold() in wanted)
    return any(map(_is_image, chain.from_iterable(files)))


def _scan_homes(scan: Scan, homes: Sequence[_Home]) -> None:
    """Scan the homes, if together they are one data set."""
    sides = {home: _side(scan.folder, home.folder) for home in homes}
    datasets = [_dataset_of(home) for home in homes]
    if not homes:
        return
    if {home.layout for home in homes} == {ISIC}:
        scan.layout = ISIC
        _scan_isic(scan, homes)
    elif len(homes) == 1:
        scan.layout = homes[0].layout
        _scan_home(scan, homes[0])
    elif all(sides.values()):
        _scan_sides(scan, homes, sides)
    elif set(datasets) <= _polyps.DATASETS and len({*datasets}) == len(datasets):
        _scan_benchmark(scan, homes)
    else:
        places = ", ".join(f"{home.layout} in {home.folder}" for home in homes[:3])
        remedy = "Give the folder of one of them."
        scan.errors.append(
            DataError(scan.folder, found=places, expected="one data set", remedy=remedy)
        )


def _scan_home(scan: Scan, home: _Home) -> None:
    if home.layout not in (COLON, PH2):
        scan.remarks += [
            _stray(path, "files in the folders of the layout alone")
            for path in checks.entries(home.folder)
            if not (path.is_dir() or foreign.is_text(path) or foreign.is_archive(path))
        ]
    _SCANS[home.layout](scan, home.folder)


def _side(folder: Path, home: Path) -> str:
    """The side that the names of the folders leading to a home say: train, val, test, or ""."""
    matches = (_SIDE.fullmatch(part) for part in home.relative_to(folder).parts)
    return next((match[1].lower() for match in matches if match), "")


def _scan_sides(scan: Scan, homes: Sequence[_Home], sides: dict[_Home, str]) -> None:
    """Homes named for training, validation or testing; the side is theirs.

    A run needs a validation side, so a test set is that if there is no other.
    """
    scan.layout = BENCHMARK if any(map(_is_benchmark, homes)) else homes[0].layout
    test = TEST if "val" in sides.values() else VALIDATION
    names = {"train": TRAINING, "val": VALIDATION, "test": test}
    for home in homes:
        parts = home.folder.relative_to(scan.folder).parts
        _scan_part(scan, home, "_".join(parts), names[sides[home]])


def _is_benchmark(home: _Home) -> bool:
    return home.folder.parent.name.casefold() == "testdataset"


def _scan_part(scan: Scan, home: _Home, prefix: str, side: str = "") -> None:
    """Add the cases of a home under ids with a prefix."""
    part = Scan(home.folder)
    _scan_home(part, home)
    for found in part.found:
        found.id = f"{prefix}_{found.id}"
        found.group = f"{found.dataset}_{found.group}"
        if side:
            scan.sides[found.id] = side
    scan.found += part.found
    scan.errors += part.errors
    scan.remarks += part.remarks
    scan.unread += part.unread


def _dataset_of(home: _Home) -> str:
    """The data set of a home, by its layout, otherwise by the name of its folder."""
    if home.layout != IMAGES:
        name = home.folder.name.casefold()
        return CVC if home.layout == CVC300 and "612" in name else home.layout
    images = [path for folder in _folders(home.folder, _ROLES["images"]) for path in _files(folder)]
    known = sum(_KVASIR_FILE.fullmatch(path.stem) is not None for path in images)
    if images and known == len(images):
        return KVASIR
    name = home.folder.name.casefold()
    return next((dataset for word, dataset in _NAMED.items() if word in name), IMAGES)


def _scan_benchmark(scan: Scan, homes: Sequence[_Home]) -> None:
    """The data sets themselves, side by side: the published split says which images are tested."""
    scan.layout = BENCHMARK
    for home in homes:
        dataset = _dataset_of(home)
        before = len(scan.found)
        _scan_part(scan, home, dataset)
        for found in scan.found[before:]:
            name = found.id.removeprefix(f"{dataset}_")
            tested = _polyps.is_tested(dataset, name)
            scan.sides[found.id] = VALIDATION if tested else TRAINING
        if (count := len(scan.found) - before) != _polyps.IMAGES[dataset]:
            text = f"{home.folder}: found {count} images, expected {_polyps.IMAGES[dataset]} of "
            text += f"{dataset} as the published benchmark has. Its scores are for all of them."
            scan.remarks.append((home.folder, text))


# Layouts


def _scan_cvc(scan: Scan, home: Path) -> None:
    sequences = _sequences(scan, home)
    cases: dict[str, Found] = {}
    for role, name in (("images", "original"), ("masks", "ground truth")):
        for path in _images_in(scan, home, {name}):
            if not path.stem.isdecimal():
                scan.remarks.append(_stray(path, "a frame's number"))
                continue
            frame = int(path.stem)
            found = cases.setdefault(str(frame), Found(str(frame), CVC, ""))
            getattr(found, role).append(path)
            owners = [number for number, frames in sequences.items() if frame in frames]
            if len(owners) == 1:
                found.group = f"sequence_{owners[0]:02d}"
            elif role == "images":
                what = f"frame {frame} in {len(owners)} sequences"
                remedy = "Mend README.txt; a split without sequences leaks."
                error = DataError(path, found=what, expected="one of README.txt", remedy=remedy)
                scan.errors.append(error)
    scan.found = [*cases.values()]
    listed = {str(frame) for frames in sequences.values() for frame in frames}
    if missing := listed - set(cases):
        first = min(missing, key=int)
        text = f"{home}: found {len(cases)} frames, expected {len(listed)} (frame {first} is "
        scan.remarks.append((home, f"{text}missing). Fetch the rest if you want all."))


def _sequences(scan: Scan, home: Path) -> dict[int, range]:
    """Sequence -> its frames, from README.txt or from the original data set."""
    for readme in (file_named(home, "readme.txt"), file_named(home.parent, "readme.txt")):
        if readme is not None and readme.is_file():
            rows = _README_ROW.findall(readme.read_text("latin-1"))
            if rows:
                return {int(n): range(int(first), int(last) + 1) for first, last, n in rows}
            text = f"{readme}: found no table of sequences, expected rows '1 to 25 | 1'. "
            scan.remarks.append((readme, f"{text}The table of the original is used."))
    return _original_sequences()


def _original_sequences() -> dict[int, range]:
    return {n: range(*ends) for n, ends in enumerate(pairwise(_CVC_STARTS), 1)}


def _scan_isic(scan: Scan, homes: Sequence[_Home]) -> None:
    cases: dict[str, Found] = {}
    lesions = _lesions(scan)
    for home in homes:
        for path in _image_files(scan, home.folder):
            match = _ISIC_FILE.fullmatch(path.stem)
            if not match:
                if not _ISIC_COMPANIONS.fullmatch(path.stem):
                    scan.remarks.append(_stray(path, "a name of ISIC"))
                continue
            id = match[1].upper()
            found = cases.setdefault(id, Found(id, _isic_release(id), lesions.get(id) or id))
            (found.masks if match[2] else found.images).append(path)
            if not match[2] and (year := _ISIC_YEAR.search(home.folder.name)):
                found.dataset = f"ISIC{year[1]}"
    with_masks = {path.parent for found in cases.values() if found.masks for path in found.images}
    for found in cases.values():
        found.mask_expected = any(path.parent in with_masks for path in found.images)
    scan.found = [*cases.values()]
    _check_lesions(scan, lesions)


def _isic_release(id: str) -> str:
    """The data set that an ISIC number without a folder of a year belongs to."""
    return HAM if int(id[-7:]) in _HAM_IDS else ISIC


def _lesions(scan: Scan) -> dict[str, str]:
    """Image -> lesion, from HAM10000_metadata; empty if there is no such table."""
    for path in checks.files_below(scan.folder, MAX_DEPTH):
        if path.name.casefold().startswith("ham10000_metadata"):
            try:
                return read_file(path, _parse_lesions, "Fetch it again.")
            except DataError as error:
                scan.errors.append(error)
    return {}


def _parse_lesions(text: str) -> dict[str, str]:
    try:
        rows = csv.DictReader(text.removeprefix("\ufeff").splitlines(), strict=True)
        if not {"image_id", "lesion_id"} <= {*(rows.fieldnames or ())}:
            raise ValueError(f"the columns {rows.fieldnames}, without lesion_id and image_id")
        return {(row["image_id"] or "").upper(): row["lesion_id"] or "" for row in rows}
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _check_lesions(scan: Scan, lesions: dict[str, str]) -> None:
    ours = [found for found in scan.found if found.dataset == HAM]
    if ours and any(found.id not in lesions for found in ours):
        text = f"{scan.folder}: found images of HAM10000 without HAM10000_metadata.csv, expected "
        text += "it beside them. It says which images show one lesion; without it a split may leak."
        scan.remarks.append((scan.folder, text))


_ROLES = {"images": {"images", "image"}, "masks": {"masks", "mask"}}


def _scan_pairs(scan: Scan, home: Path) -> None:
    _pair(scan, home, _ROLES["images"], _ROLES["masks"], lambda stem: _MASK_ENDING.sub("", stem))
    dataset = _dataset_of(_Home(IMAGES, home))
    frames = {str(n): s for s, numbers in _original_sequences().items() for n in numbers}
    mixed = dataset == IMAGES and _is_mixed(scan.found)
    for found in scan.found:
        found.dataset = dataset
        if mixed:  # the benchmark's training set: frames of CVC-ClinicDB beside Kvasir-SEG
            found.dataset = CVC if found.id.isdecimal() else KVASIR
        if found.dataset == CVC and found.id in frames:
            found.group = f"sequence_{frames[found.id]:02d}"


def _is_mixed(cases: Sequence[Found]) -> bool:
    """Whether the names are those of Kvasir-SEG and of frames of CVC-ClinicDB, and no others."""
    kinds = {
        "kvasir" if _KVASIR_FILE.fullmatch(found.id) else found.id.isdecimal() for found in cases
    }
    return kinds == {"kvasir", True}


def _scan_etis(scan: Scan, home: Path) -> None:
    _pair(scan, home, {"etis-laribpolypdb"}, {"ground truth"}, lambda stem: stem.lstrip("pP"))
    _name(scan, ETIS)


def _scan_cvc300(scan: Scan, home: Path) -> None:
    _pair(scan, home, {"bbdd"}, {"gtpolyp"}, lambda stem: stem)
    _name(scan, _dataset_of(_Home(CVC300, home)))


def _scan_colon(scan: Scan, home: Path) -> None:
    cases: dict[str, Found] = {}
    for path in _image_files(scan, home):
        stem = path.stem.casefold()
        if re.fullmatch(r"[cls]\d+", stem):  # contours, lumen, and regions without information
            continue
        if not _FRAME_OR_MASK.fullmatch(stem):
            scan.remarks.append(_stray(path, "a frame's number, or its mask p1, p2, ..."))
            continue
        id = stem.lstrip("p")
        found = cases.setdefault(id, Found(id, COLON, id))
        (found.masks if stem.startswith("p") else found.images).append(path)
    scan.found = [*cases.values()]


def _scan_ph2(scan: Scan, home: Path) -> None:
    for folder in checks.entries(home):
        if not (folder.is_dir() and _PH2_CASE.fullmatch(folder.name)):
            if not (foreign.is_text(folder) or foreign.is_archive(folder)):
                scan.remarks.append(_stray(folder, "a folder of a case, such as IMD002"))
            continue
        id = folder.name.upper()
        found = Found(id, PH2, id)
        for role, ending in (("images", "dermoscopic_image"), ("masks", "lesion")):
            getattr(found, role).extend(_images_in(scan, folder, {f"{id}_{ending}".casefold()}))
        scan.found.append(found)


_SCANS: dict[str, Callable[[Scan, Path], None]] = {
    CVC: _scan_cvc,
    ETIS: _scan_etis,
    CVC300: _scan_cvc300,
    COLON: _scan_colon,
    PH2: _scan_ph2,
    IMAGES: _scan_pairs,
}


def _pair(
    scan: Scan, home: Path, images: set[str], masks: set[str], image_of: Callable[[str], str]
) -> None:
    """Pair the files of two folders by name.

    Args:
        scan: gets the cases.
        home: of both folders.
        images: names of the folder of images, in lower case.
        masks: names of the folder of masks.
        image_of: stem of a mask that no image has -> stem of its image.
    """
    cases: dict[str, Found] = {}
    for path in _images_in(scan, home, images):
        id = _composed(path.stem)
        cases.setdefault(id, Found(id, IMAGES, id)).images.append(path)
    folded: dict[str, list[str]] = defaultdict(list)
    for id in cases:
        folded[id.casefold()].append(id)
    masks_in_folder = [*_images_in(scan, home, masks)]
    for path in masks_in_folder:
        stem = _composed(path.stem)
        id = stem if stem.casefold() in folded else image_of(stem)
        alike = folded.get(id.casefold(), [])
        id = alike[0] if len(alike) == 1 else id  # IMG0.png has the mask img0.png
        cases.setdefault(id, Found(id, IMAGES, id)).masks.append(path)
    for found in cases.values():
        found.mask_expected = bool(masks_in_folder)
    scan.found = [*cases.values()]


def _name(scan: Scan, dataset: str) -> None:
    for found in scan.found:
        found.dataset = dataset


def _composed(name: str) -> str:
    """A name with its accents in one form: a Mac's archives have them apart from their letters."""
    return unicodedata.normalize("NFC", name)


# Files


def _folders(home: Path, names: set[str]) -> list[Path]:
    return [
        path for path in checks.entries(home) if path.is_dir() and path.name.casefold() in names
    ]


def _files(folder: Path) -> list[Path]:
    return [path for path in checks.entries(folder) if _is_image(path)]


def _images_in(scan: Scan, home: Path, names: set[str]) -> Iterator[Path]:
    for folder in _folders(home, names):
        yield from _image_files(scan, folder)
        inside = [path for path in checks.entries(folder) if path.is_dir()]
        scan.remarks += [_stray(path, "files only") for path in inside]


def _image_files(scan: Scan, folder: Path) -> Iterator[Path]:
    """The files with the suffix of an image; the others become remarks."""
    for path in checks.entries(folder):
        if path.is_dir():
            continue
        if _is_image(path):
            yield path
        elif path.suffix.lower() not in _TEXTS:
            scan.unread.append(path)
            scan.remarks.append(_stray(path, f"a name ending in {', '.join(image_files.SUFFIXES)}"))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in image_files.SUFFIXES and not path.is_dir()


def _stray(path: Path, expected: str) -> tuple[Path, str]:
    what = "a folder" if path.is_dir() else "another file"
    return path, f"{path}: found {what}, expected {expected}. It is ignored; move it away."


# Errors among the names


def _id_errors(scan: Scan) -> Iterator[DataError]:
    same = defaultdict(list)
    for found in scan.found:
        same[found.id.casefold()].append(found)
    for group in same.values():
        if len(group) > 1:
            paths = [path for found in group for path in (found.images + found.masks)[:1]]
            what, expected = f"the names {' and '.join(map(str, paths))}", "different names"
            remedy = "Rename one of them."
            if len(set(paths)) == 1:
                what, expected = f"{len(paths)} rows for {paths[0]}", "one"
                remedy = "Delete the others."
            yield DataError(scan.folder, found=what, expected=expected, remedy=remedy)


def file_errors(found: Found) -> list[DataError]:
    """Errors for a missing image or mask, or for a file that occurs twice."""
    errors = []
    for what, paths, other in (
        ("image", found.images, found.masks),
        ("mask", found.masks, found.images),
    ):
        if len(paths) > 1:
            two, remedy = f"also {paths[1]}", "Keep one of the two."
            expected = f"one {what} for case {found.id}"
            errors.append(DataError(paths[0], found=two, expected=expected, remedy=remedy))
        if not paths and (what == "image" or found.mask_expected):
            remedy = "Fetch the missing file, or move this one away."
            where = other[0] if other else found.id
            expected = f"one for case {found.id}"
            errors.append(DataError(where, found=f"no {what}", expected=expected, remedy=remedy))
    return errors


def nothing_found(scan: Scan) -> DataError:
    """The error of a folder without images in a known layout."""
    return DataError(
        scan.folder,
        found="no images in a layout that is known",
        expected=f"one of {', '.join(name for name in TREES if name != BENCHMARK)}, at most "
        f"{MAX_DEPTH} folders below",
        remedy="Give the folder of the images, named as they were published, or list them in a "
        f"{MANIFEST}.",
    )


def passed_over(scan: Scan) -> str:
    """One line on the files among the images that are not read."""
    found = f"{foreign.counted(scan.unread)} among the images, such as {scan.unread[0].name}"
    expected = f"names ending in {', '.join(image_files.SUFFIXES)}"
    cost = f"up to {plural(len(scan.unread), 'case')} may be missing"
    listed = f"`keras-medseg check {scan.folder}` names them."
    return f"{scan.folder}: found {found}, expected {expected}; {cost}. {listed}"


# The report


def examples(layouts: Iterable[str]) -> list[str]:
    """The files of some layouts, a line each."""
    return [line for name in layouts for line in (f"{name}:", *(f"  {x}" for x in TREES[name]))]


def trees(scan: Scan) -> str:
    """The expected tree beside the folders found and how many files each has."""
    left = examples([scan.layout] if scan.layout else TREES)
    if not scan.found:
        return checks.beside_listing(left, scan.folder)
    right = []
    for role in ("images", "masks"):
        folders = Counter(path.parent for found in scan.found for path in getattr(found, role))
        listed = [*folders.items()]
        for folder, count in listed[:_MOST_FOLDERS]:
            home = os.path.relpath(folder, scan.folder) if scan.folder.is_dir() else folder
            right.append(f"{home}/: {plural(count, role.removesuffix('s'))}")
        if len(listed) > _MOST_FOLDERS:
            right.append(f"and {len(listed) - _MOST_FOLDERS} more folders of {role}")
    return checks.side_by_side(zip_longest(left, right, fillvalue=""))
