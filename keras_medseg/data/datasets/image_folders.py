"""Image data sets, recognized from their folders and names; strict reading of their cases.

CVC-ClinicDB (`Original/1.tif`, `Ground Truth/1.tif`, README.txt with the table of sequences), ISIC
2016 to 2018 Task 1 (`ISIC_0000000.jpg`, `ISIC_0000000_segmentation.png`), any `images/` beside
`masks/` with equal names (the mask's may end in _mask or _segmentation), and any images listed in
a `manifest.csv` with the columns image, mask and, optionally, group and split; its paths are
relative to its own folder.

The table in image_files.py says which single files are accepted. Beyond that:

| found | verdict |
|---|---|
| image without mask, mask without image | error; sets without any mask may be left out |
| two files for one case, or names that differ only in upper and lower case | error |
| image and mask of different sizes | error |
| EXIF orientation | rotated, with a warning; not if only the unrotated image fits its mask |
| gray image in CVC-ClinicDB or ISIC; gray beside color images in one folder | error |
| image with a single value | error |
| mask that is not binary | see the table in masks.py; no warning for the 138 in CVC-ClinicDB |
| mask without any object, or of the object alone | warning |
| mask with codes of other classes only | no warning |
| other files in the folders | warning; texts, tables and masks of other tasks are ignored |
| frame in no sequence of README.txt, or in two | error |
| CVC-ClinicDB without README.txt, or without its table | the original table of 612 frames is used |
| frames that README.txt lists but that are missing | warning |
| manifest with other columns, separators or encoding, or without rows | error |
| manifest row with missing fields or files, or an unknown split | error |
| one group of a manifest on both sides of its split | error |
| equal pixels under two names | warning |
"""

import os
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, pairwise, zip_longest
from pathlib import Path
from typing import ClassVar

import numpy as np

from keras_medseg.data import checks
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.checks import CheckReport, Inspection, Problem, Progress, Reading
from keras_medseg.data.datasets.base import Codes, Dataset, Listing
from keras_medseg.data.formats import foreign, image_files, masks
from keras_medseg.data.formats.manifest import read_manifest
from keras_medseg.data.store import StoredCase
from keras_medseg.errors import DataError

CVC, ISIC, IMAGES = "CVC-ClinicDB", "ISIC2018", "images"
MANIFEST = "manifest.csv"
MAX_DEPTH = 3

_ISIC_FILE = re.compile(r"(ISIC_\d{7})(_segmentation)?", re.IGNORECASE)
_ISIC_YEAR = re.compile(r"(?:ISIC|ISBI)-?(201[678])", re.IGNORECASE)
_ISIC_COMPANIONS = re.compile(r"ISIC_\d{7}_(superpixels|attribute_\w+)", re.IGNORECASE)
_TEXTS = (".txt", ".md", ".csv", ".json", ".pdf", ".ini", ".db", ".xml", ".html", ".zip")
_MASK_ENDING = re.compile(r"_(mask|segmentation)$", re.IGNORECASE)
_CVC_FOLDERS = {"original", "ground truth"}
_README_ROW = re.compile(r"\|\s*(\d+)\s+to\s+(\d+)\s*\|\s*(\d+)\s*\|")
# First frames of the 29 sequences in CVC-ClinicDB's README.txt, and the frame after the last.
_CVC_STARTS = (
    1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298, 318, 343, 364, 384, 409,
    429, 448, 467, 479, 504, 529, 547, 572, 592, 613,
)  # fmt: skip
_TREES = {
    CVC: ("README.txt", "Original/1.tif, 2.tif, ...", "Ground Truth/1.tif, 2.tif, ..."),
    ISIC: (
        "ISIC2018_Task1-2_Training_Input/",
        "  ISIC_0000000.jpg, ...",
        "ISIC2018_Task1_Training_GroundTruth/",
        "  ISIC_0000000_segmentation.png, ...",
    ),
    IMAGES: ("images/a.png, b.png, ...", "masks/a.png, b.png, ..."),
    MANIFEST: ("manifest.csv: image,mask[,group][,split]", "  the files that it lists"),
}


class ImageWarning(UserWarning):
    """An image or mask that can be used but is unusual."""


@dataclass(frozen=True, eq=False)
class ImageFolders(Dataset):
    """Two-dimensional images with masks: CVC-ClinicDB, ISIC, images beside masks, or a manifest.

    Attributes:
        classes: name -> gray codes in the masks. The first class becomes label 1, and so on; the
            codes of "background" become 0, as code 0 always does. A class without codes (only if
            it is the single one) is everything that is not background.
    """

    suffix: ClassVar[str] = ".png"
    elements: ClassVar[str] = "pixels"
    metrics: ClassVar[tuple[str, ...]] = (
        "dice",
        "iou",
        "precision",
        "sensitivity",
        "specificity",
        "hd95_px",
    )

    classes: Mapping[str, Codes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        classes = {name: tuple(codes) for name, codes in self.classes.items()}
        object.__setattr__(self, "classes", classes)
        if self._table is None and len(self.labels) > 1:
            raise ValueError(f"classes: found {classes}, expected gray codes for each of several.")

    # The order of the classes matters, but mappings compare equal in any order.

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageFolders) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[tuple[str, Codes], ...]:
        return tuple(self.classes.items())

    @property
    def _table(self) -> np.ndarray | None:
        """(256,) uint8: label of every gray code; None if the classes have no codes."""
        return masks.code_table(self.classes) if any(self.classes.values()) else None

    @property
    def labels(self) -> Mapping[int, str]:
        """The classes without the background, or "object" if none is named."""
        names = [name for name in self.classes if name != masks.BACKGROUND] or ["object"]
        return dict(enumerate(names, 1))

    @property
    def regions(self) -> Mapping[str, Codes]:
        """Each class by itself."""
        return {name: (code,) for code, name in self.labels.items()}

    @classmethod
    def recognizes(cls, folder: Path) -> bool:
        """Whether `folder` is or contains a manifest, or contains images in a known layout."""
        with checks.readable_folders():
            if _manifest_of(folder) is not None:
                return True
            return folder.is_dir() and any(map(_holds_images, _homes(folder)))

    @classmethod
    def layout_examples(cls) -> list[str]:
        """The files of each layout."""
        return _examples(_TREES)

    def find(self, folder: Path, *, labelled: bool = True) -> Listing:
        """All cases below `folder`, sorted by data set and id; numbers in ids sort as numbers.

        A case's group is its sequence in CVC-ClinicDB (29 sequences of 25 videos; which of them
        share a video is not published), the manifest's group, and otherwise the image itself.

        Args:
            folder: of the data set, or the path of a manifest.
            labelled: leave out image sets without masks, and raise an error for an image without a
                mask if other images of its folder have one.

        Returns:
            The cases, and their sides if a manifest has the column split.

        Raises:
            DataError: nothing is recognized (the message shows the expected tree beside the one
                found), more than one data set, or an error in the module's table.

        Warns:
            ImageWarning: files among the images that are not read.
        """
        scan = _scan(folder)
        errors = [*scan.errors, *chain.from_iterable(map(_file_errors, scan.found))]
        checks.raise_first(folder, errors)
        _require_images(scan)
        cases = [found.case for found in scan.found]
        if labelled:
            cases = checks.labelled_cases(folder, cases, noun="image", labels="masks")
        sides = {case.id: scan.sides[case.id] for case in cases if case.id in scan.sides}
        return Listing(cases, sides)

    def find_complete(self, folder: Path) -> tuple[Listing, list[DataError]]:
        """The images, with or without masks, and the errors of the cases without one image."""
        scan = _scan(folder)
        checks.raise_first(folder, scan.errors)
        _require_images(scan)
        for found in scan.found:
            found.mask_expected = False
        errors = [_file_errors(found) for found in scan.found]
        complete = [found.case for found, wrong in zip(scan.found, errors) if not wrong]
        return Listing(complete), [*chain.from_iterable(errors)]

    def read(self, case: Case) -> CaseArrays:
        """Read one image and its mask as a volume with one slice: x are rows, y columns.

        Returns:
            image (H, W, 1, C) uint8, C 1 or 3; labels (H, W, 1) uint8 or None.

        Raises:
            DataError: a file that image_files.py refuses, or an error in the module's table.

        Warns:
            ImageWarning: a warning in the module's table.
        """
        return _read(case, self._table).result(ImageWarning)

    def check(
        self, folder: Path, *, workers: int | None = None, progress: Progress | None = None
    ) -> CheckReport:
        """Find all problems of all cases below `folder` in one go; every file is read to its end.

        Args:
            folder: as in `find`.
            workers: images read at once; by default one per core, at most 8.
            progress: called with (done, total, case id) after each case.

        Raises:
            DataError: `folder` does not exist.
        """
        scan = _scan(folder)
        problems = [checks.error_of("-", error) for error in scan.errors]
        problems += [Problem("-", path, text, "warning") for path, text in scan.remarks]
        complete = []
        for found in scan.found:
            errors = _file_errors(found)
            problems += [checks.error_of(found.id, error) for error in errors]
            if not errors:
                complete.append(found.case)
        channels: dict[str, int] = {}
        inspect = partial(_inspect, table=self._table, channels=channels)
        problems += checks.inspect_all(
            complete, inspect, elements=self.elements, workers=workers, progress=progress
        )
        problems += _channel_problems(complete, channels)
        if not scan.found and not scan.errors:
            problems.append(checks.error_of("-", _nothing_found(scan)))
        return CheckReport(scan.folder, complete, problems, _trees(scan))

    def read_labels(self, path: Path, case: Case | StoredCase) -> np.ndarray:
        """A mask as `write_labels` writes it -> (H, W, 1) uint8 labels.

        A mask of one class is read by the rule of annotations (masks.py): 0 and one other value, or
        gray edges, which are cut at 127 with a warning. Several classes are numbered.

        Args:
            path: the mask, in PNG or another image format.
            case: gives the size that the mask must have: for a `Case` that of its files, for a
                `StoredCase` that of the decoded image.

        Raises:
            DataError: the mask is missing or damaged, has another size, or codes that are no
                labels.

        Warns:
            ImageWarning: the mask is unusual but usable.
        """
        mask = image_files.read_mask(path)
        codes = image_files.upright(mask.pixels, mask.orientation)
        size, orientation = self._frame(case)
        if codes.shape[:2] == size[::-1] != size and orientation in image_files.SIDEWAYS:
            text = (
                f"{path}: found the pixels of {case.id} turned by its EXIF orientation, expected "
            )
            warnings.warn(f"{text}them as its mask has them. Turned back.", ImageWarning, 2)
            codes = image_files.upright(codes, orientation)
        if codes.shape[:2] != size:
            name = case.id if isinstance(case, StoredCase) else case.images[0].name
            raise DataError(
                path,
                found=f"{codes.shape[0]} x {codes.shape[1]} pixels",
                expected=f"{size[0]} x {size[1]}, those of {name}",
                remedy="Predict at the image's own size.",
            )
        labels, remark = self._predicted(codes, mask)
        for text in (*mask.remarks, *([remark] if remark else [])):
            warnings.warn(text, ImageWarning, stacklevel=2)
        return labels

    def _predicted(self, codes: np.ndarray, mask: image_files.Raster) -> tuple[np.ndarray, str]:
        """Labels of a predicted mask's codes, and what is odd about them."""
        names, count = ", ".join(self.labels.values()), len(self.labels)
        if count == 1:
            try:
                return masks.labels_of_object(codes, mask.path)
            except DataError as error:
                remedy = f"Save a mask of {names} alone, 0 and 255; cut probabilities first."
                raise checks.with_remedy(error, remedy) from error
        found = f"gray code {codes.max()}" if codes.max() > count else ""
        found = "JPEG, which changes the classes' numbers" if mask.lossy else found
        if found:
            expected = f"0 to {count}" + (", unchanged" if mask.lossy else "")
            remedy = f"Number the classes in this order, as PNG: {names}."
            raise DataError(mask.path, found=found, expected=expected, remedy=remedy)
        return codes, ""

    def _frame(self, case: Case | StoredCase) -> tuple[tuple[int, int], int]:
        """(rows, columns) of a case, and the EXIF orientation that leads to it from the other way.

        That is the image's own where `read` turns the image, and its inverse where `read` leaves
        the image as it is stored.
        """
        if isinstance(case, StoredCase):
            return (case.full_shape[0], case.full_shape[1]), 1
        reading = _read(case, self._table)
        if reading.arrays is None:
            raise reading.errors[0]
        rows, columns = reading.arrays.image.shape[:2]
        image = image_files.read_image(case.images[0])
        as_stored = image.pixels.shape[:2] == (rows, columns)
        inverse = {6: 8, 8: 6}.get(image.orientation, image.orientation)
        return (rows, columns), inverse if as_stored else image.orientation

    def read_image(self, case: Case) -> CaseArrays:
        """As `read`, without the labels; a sound mask says which way up its image is."""
        reading = _read(case, self._table)
        if reading.arrays is None:  # perhaps because of its mask
            return self.read(replace(case, labels=None))
        for path, remark in reading.remarks:
            if path == case.images[0]:
                warnings.warn(remark, ImageWarning, stacklevel=2)
        return replace(reading.arrays, labels=None)

    def write_labels(self, path: Path, labels: np.ndarray, case: StoredCase) -> None:
        """Write (H, W, 1) uint8 labels as 8-bit gray: a single class as 255, several unchanged.

        Args:
            path: ends in .png, which is lossless.
            labels: on the grid of the decoded case, or of the image that it was decoded from.
            case: the case that was labelled.

        Raises:
            ValueError: the labels have another size.
        """
        # A stored image may have been resized; `own` is the size of its file.
        decoded = tuple(case.full_shape)
        own = tuple(case.source_shape)
        if labels.shape not in (decoded, own):
            sizes = f"{decoded}" if own == decoded else f"{decoded} or {own}"
            raise ValueError(
                f"labels: found shape {labels.shape}, expected {sizes}, that of {case.id}."
            )
        only_one = len(self.labels) == 1
        image_files.write(path, labels * np.uint8(255) if only_one else labels)


# What lies on disk


@dataclass
class _Found:
    """The files of a case: more than one image or mask if a file occurs twice."""

    id: str
    dataset: str
    group: str
    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    mask_expected: bool = True

    @property
    def case(self) -> Case:
        mask = self.masks[0] if self.masks else None
        return Case(self.id, self.dataset, tuple(self.images[:1]), mask, self.group)


@dataclass
class _Scan:
    """The contents of a folder.

    Attributes:
        folder: the folder, or the path of a manifest.
        layout: a key of _TREES; None if no layout was recognized.
        found: the cases.
        errors: those that do not belong to a single case.
        remarks: (file, message) of what is unusual.
        unread: files among the images and masks that are no images.
        sides: case id -> "training", "validation" or "test", if a manifest says so.
    """

    folder: Path
    layout: str | None = None
    found: list[_Found] = field(default_factory=list)
    errors: list[DataError] = field(default_factory=list)
    remarks: list[tuple[Path, str]] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    sides: dict[str, str] = field(default_factory=dict)


def _scan(folder: Path) -> _Scan:
    scan = _Scan(Path(os.path.abspath(folder)))
    with checks.readable_folders():
        manifest = _manifest_of(scan.folder)
        if manifest is not None:
            _scan_manifest(scan, manifest)
        else:
            remedy = "Give the folder that holds the images, or a manifest."
            checks.require_folder(scan.folder, expected="a folder with images", remedy=remedy)
            _scan_homes(scan, [*_homes(scan.folder)])
    scan.found.sort(key=lambda found: (found.dataset, _natural(found.id)))
    scan.errors += _id_errors(scan)
    return scan


def _manifest_of(folder: Path) -> Path | None:
    """The manifest in a folder, or the one given instead of a folder."""
    if folder.is_file() and folder.suffix.lower() == ".csv":
        return folder
    return folder / MANIFEST if (folder / MANIFEST).exists() else None


def _scan_manifest(scan: _Scan, path: Path) -> None:
    scan.layout = MANIFEST
    rows, scan.errors = read_manifest(path)
    for row in rows:
        listed = [row.mask] if row.mask else []
        found = _Found(row.id, IMAGES, row.group, [row.image], listed, mask_expected=False)
        scan.found.append(found)
        if row.side:
            scan.sides[row.id] = row.side


def _natural(id: str) -> list[tuple[bool, int, str]]:
    """Sort key that treats numbers inside names as numbers: 2 before 10."""
    parts = [part for part in re.split(r"([0-9]+)", id) if part]
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _homes(folder: Path) -> Iterator[tuple[str, Path]]:
    """(layout, folder) of the data sets at most MAX_DEPTH folders below."""
    for home, inside in checks.walk(folder, MAX_DEPTH):
        names = {path.name.casefold() for path in inside if path.is_dir()}
        if names >= _CVC_FOLDERS:
            yield CVC, home
            inside.clear()
        elif "images" in names:
            yield IMAGES, home
            inside.clear()
        elif any(_is_image(path) and _ISIC_FILE.fullmatch(path.stem) for path in inside):
            yield ISIC, home


def _holds_images(home: tuple[str, Path]) -> bool:
    """Whether there is an image where the layout expects images."""
    layout, folder = home
    names = {CVC: _CVC_FOLDERS, IMAGES: {"images"}}.get(layout, set())
    inside = [path for path in checks.entries(folder) if path.is_dir()]
    files = (checks.entries(path) for path in inside if path.name.casefold() in names)
    return layout == ISIC or any(map(_is_image, chain.from_iterable(files)))


def _scan_homes(scan: _Scan, homes: Sequence[tuple[str, Path]]) -> None:
    kinds = {kind for kind, _ in homes}
    if len(kinds) > 1 or (len(homes) > 1 and kinds != {ISIC}):
        places = ", ".join(f"{kind} in {folder}" for kind, folder in homes[:3])
        remedy = "Give the folder of one of them."
        scan.errors.append(
            DataError(scan.folder, found=places, expected="one data set", remedy=remedy)
        )
    elif kinds == {ISIC}:
        scan.layout = ISIC
        _scan_isic(scan, [folder for _, folder in homes])
    elif homes:
        scan.layout = homes[0][0]
        scan.remarks += [
            _stray(path, "files in the folders of the layout alone")
            for path in checks.entries(homes[0][1])
            if not (path.is_dir() or foreign.is_text(path) or foreign.is_archive(path))
        ]
        (_scan_cvc if scan.layout == CVC else _scan_pairs)(scan, homes[0][1])


def _scan_cvc(scan: _Scan, home: Path) -> None:
    sequences = _sequences(scan, home)
    cases: dict[str, _Found] = {}
    for role, name in (("images", "original"), ("masks", "ground truth")):
        for path in _images_in(scan, home, name):
            if not path.stem.isdecimal():
                scan.remarks.append(_stray(path, "a frame's number"))
                continue
            frame = int(path.stem)
            found = cases.setdefault(str(frame), _Found(str(frame), CVC, ""))
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


def _sequences(scan: _Scan, home: Path) -> dict[int, range]:
    """Sequence -> its frames, from README.txt or from the original data set."""
    for readme in (home / "README.txt", home.parent / "README.txt"):
        if readme.exists():
            rows = _README_ROW.findall(readme.read_text("latin-1"))
            if rows:
                return {int(n): range(int(first), int(last) + 1) for first, last, n in rows}
            text = f"{readme}: found no table of sequences, expected rows '1 to 25 | 1'. "
            scan.remarks.append((readme, f"{text}The table of the original is used."))
    return {n: range(*ends) for n, ends in enumerate(pairwise(_CVC_STARTS), 1)}


def _scan_isic(scan: _Scan, homes: Sequence[Path]) -> None:
    cases: dict[str, _Found] = {}
    for home in homes:
        for path in _image_files(scan, home):
            match = _ISIC_FILE.fullmatch(path.stem)
            if not match:
                if not _ISIC_COMPANIONS.fullmatch(path.stem):
                    scan.remarks.append(_stray(path, "a name of ISIC"))
                continue
            id = match[1].upper()
            found = cases.setdefault(id, _Found(id, ISIC, id))
            (found.masks if match[2] else found.images).append(path)
            if not match[2] and (year := _ISIC_YEAR.search(home.name)):
                found.dataset = f"ISIC{year[1]}"
    with_masks = {path.parent for found in cases.values() if found.masks for path in found.images}
    for found in cases.values():
        found.mask_expected = any(path.parent in with_masks for path in found.images)
    scan.found = [*cases.values()]


def _scan_pairs(scan: _Scan, home: Path) -> None:
    cases: dict[str, _Found] = {}
    for path in _images_in(scan, home, "images"):
        id = _composed(path.stem)
        cases.setdefault(id, _Found(id, IMAGES, id)).images.append(path)
    folded: dict[str, list[str]] = defaultdict(list)
    for id in cases:
        folded[id.casefold()].append(id)
    masks_in_folder = [*_images_in(scan, home, "masks")]
    for path in masks_in_folder:
        stem = _composed(path.stem)
        id = stem if stem.casefold() in folded else _MASK_ENDING.sub("", stem)
        alike = folded.get(id.casefold(), [])
        id = alike[0] if len(alike) == 1 else id  # IMG0.png has the mask img0.png
        cases.setdefault(id, _Found(id, IMAGES, id)).masks.append(path)
    for found in cases.values():
        found.mask_expected = bool(masks_in_folder)
    scan.found = [*cases.values()]


def _composed(name: str) -> str:
    """A name with its accents in one form: a Mac's archives have them apart from their letters."""
    return unicodedata.normalize("NFC", name)


def _images_in(scan: _Scan, home: Path, name: str) -> Iterator[Path]:
    for folder in home.iterdir():
        if folder.name.casefold() == name:
            yield from _image_files(scan, folder)
            inside = [path for path in checks.entries(folder) if path.is_dir()]
            scan.remarks += [_stray(path, "files only") for path in inside]


def _image_files(scan: _Scan, folder: Path) -> Iterator[Path]:
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


def _require_images(scan: _Scan) -> None:
    """Refuse a folder without images, and warn of files among them that are not read."""
    if not scan.found:
        raise checks.with_trees(_nothing_found(scan), _trees(scan))
    if scan.unread:
        warnings.warn(_passed_over(scan), ImageWarning, stacklevel=3)


def _passed_over(scan: _Scan) -> str:
    """One line on the files among the images that are not read."""
    found = f"{foreign.counted(scan.unread)} among the images, such as {scan.unread[0].name}"
    expected = f"names ending in {', '.join(image_files.SUFFIXES)}"
    cost = f"up to {checks.plural(len(scan.unread), 'case')} may be missing"
    listed = f"`keras-medseg check {scan.folder}` names them."
    return f"{scan.folder}: found {found}, expected {expected}; {cost}. {listed}"


def _stray(path: Path, expected: str) -> tuple[Path, str]:
    what = "a folder" if path.is_dir() else "another file"
    return path, f"{path}: found {what}, expected {expected}. It is ignored; move it away."


# Errors among the names


def _id_errors(scan: _Scan) -> Iterator[DataError]:
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


def _file_errors(found: _Found) -> list[DataError]:
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
            expected = f"one for case {found.id}"
            errors.append(DataError(other[0], found=f"no {what}", expected=expected, remedy=remedy))
    return errors


def _nothing_found(scan: _Scan) -> DataError:
    return DataError(
        scan.folder,
        found="no images in a layout that is known",
        expected=f"CVC-ClinicDB, ISIC, images/ with masks/, or {MANIFEST}, at most {MAX_DEPTH} "
        "folders below",
        remedy="Give the folder of the images, named as they were published, or list them.",
    )


# What the files hold


def _read(case: Case, table: np.ndarray | None) -> Reading:
    reading = Reading()
    image = _load(image_files.read_image, case.images[0], reading)
    mask = None if case.labels is None else _load(image_files.read_mask, case.labels, reading)
    if image is None or (mask is None and case.labels is not None):
        return reading
    try:
        _check_image(image, case.dataset)
        pixels, codes, remark = _turned(image, mask)
        if remark:
            reading.remarks.append((image.path, remark))
        if mask is not None and codes is not None:
            labels = _labels(codes[..., 0], mask.path, case.dataset, table, reading)
            reading.labels = np.ascontiguousarray(labels)[..., None]
    except DataError as error:
        reading.errors.append(error)
        return reading
    volume = np.ascontiguousarray(pixels)[:, :, None]
    reading.arrays = CaseArrays(volume, reading.labels, np.eye(4), ("L", "P", "S"))
    return reading


def _load(
    read: Callable[[Path], image_files.Raster], path: Path, reading: Reading
) -> image_files.Raster | None:
    loaded = reading.load(read, path)
    if loaded is not None:
        reading.remarks += [(path, remark) for remark in loaded.remarks]
    return loaded


def _check_image(image: image_files.Raster, dataset: str) -> None:
    pixels = image.pixels
    if dataset != IMAGES and pixels.shape[2] != 3:
        remedy = "Fetch the file again."
        raise DataError(image.path, found="gray", expected="color", remedy=remedy)
    if (pixels == pixels[0, 0]).all():
        found, remedy = f"one value only ({pixels[0, 0].tolist()})", "Leave the image out."
        raise DataError(image.path, found=found, expected="an image", remedy=remedy)


def _turned(
    image: image_files.Raster, mask: image_files.Raster | None
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Image and mask with the EXIF orientation applied, and remarks about it."""
    stored = image.pixels
    pixels = image_files.upright(stored, image.orientation)
    about = f"{image.path}: found EXIF orientation {image.orientation}, expected 1. "
    remark = f"{about}The image is turned; look whether its mask fits."
    codes = None
    if mask is not None:
        codes = image_files.upright(mask.pixels, mask.orientation)
        if codes.shape[:2] != pixels.shape[:2]:
            if codes.shape[:2] != stored.shape[:2]:
                raise DataError(
                    mask.path,
                    found=f"{codes.shape[0]} x {codes.shape[1]} pixels",
                    expected=f"{pixels.shape[0]} x {pixels.shape[1]} as in {image.path.name}",
                    remedy="Fetch or draw the mask again.",
                )
            pixels, remark = stored, f"{about}The image is not turned, as its mask is not."
    return pixels, codes, remark if image.orientation != 1 else ""


def _labels(
    codes: np.ndarray, path: Path, dataset: str, table: np.ndarray | None, reading: Reading
) -> np.ndarray:
    """Gray codes (H, W) of the mask at `path` -> labels (H, W) uint8."""
    if table is not None:
        labels, remark = masks.labels_of_classes(codes, table, path)
    elif dataset == CVC:
        labels, remark = masks.labels_of_object(codes, path, fewest_grays=3)[0], ""
    else:
        labels, remark = masks.labels_of_object(codes, path)
    if remark:
        reading.remarks.append((path, remark))
    empty = not (labels if table is None else codes).any()
    for wrong, what in ((empty, "no object"), (labels.all(), "nothing but object")):
        if wrong:
            text = f"{path}: found {what} in the mask, expected some of both."
            reading.remarks.append((path, f"{text} Leave the image out if that is not so."))
    return labels


# The report


def _inspect(case: Case, table: np.ndarray | None, channels: dict[str, int]) -> Inspection:
    reading = _read(case, table)
    digests = []
    if reading.arrays is not None:
        image = reading.arrays.image
        channels[case.id] = image.shape[-1]
        digests = [(case.images[0], checks.digest(image))]
    return reading.inspection(case.id, digests)


def _channel_problems(cases: Sequence[Case], channels: dict[str, int]) -> Iterator[Problem]:
    """One error per image whose number of channels is not that of most images."""
    counts = Counter(channels.values())
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    names = {1: "gray", 3: "color"}
    for case in cases:
        if channels.get(case.id, usual) != usual:
            found, expected = f"{names[channels[case.id]]}", f"{names[usual]} as most images are"
            remedy = "Convert all images to one of the two."
            error = DataError(case.images[0], found=found, expected=expected, remedy=remedy)
            yield checks.error_of(case.id, error)


def _examples(layouts: Iterable[str]) -> list[str]:
    return [line for name in layouts for line in (f"{name}:", *(f"  {x}" for x in _TREES[name]))]


def _trees(scan: _Scan) -> str:
    """The expected tree beside the folders found and how many files each has."""
    left = _examples([scan.layout] if scan.layout else _TREES)
    if not scan.found:
        return checks.beside_listing(left, scan.folder)
    right = []
    for role in ("images", "masks"):
        folders = Counter(path.parent for found in scan.found for path in getattr(found, role))
        for folder, count in folders.items():
            home = os.path.relpath(folder, scan.folder) if scan.folder.is_dir() else folder
            right.append(f"{home}/: {checks.plural(count, role.removesuffix('s'))}")
    return checks.side_by_side(zip_longest(left, right, fillvalue=""))
