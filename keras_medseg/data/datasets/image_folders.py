"""Picture data sets, recognised from their folders and names; strict reading of their cases.

CVC-ClinicDB (`Original/1.tif`, `Ground Truth/1.tif`, README.txt with the table of sequences), ISIC
2016 to 2018 Task 1 (`ISIC_0000000.jpg`, `ISIC_0000000_segmentation.png`), any `images/` beside
`masks/` with equal names (the mask's may end in _mask or _segmentation), and any pictures listed in
a `manifest.csv` with the columns image, mask and perhaps group and split; its paths start from its
own folder.

What a single file may be is the table of raster.py. Beyond that:

| found | verdict |
|---|---|
| picture without mask, mask without picture | error; sets without any mask may be left out |
| two files for one case, or names that differ in upper and lower case only | error |
| picture and mask of different sizes | error |
| EXIF orientation | turned, with a warning; not where only the unturned picture fits its mask |
| grey picture in CVC-ClinicDB or ISIC; grey beside colour pictures in one folder | error |
| picture of one value only | error |
| mask that is not binary | table of masks.py; no warning for the 138 in CVC-ClinicDB |
| mask without any object, or nothing but object | warning |
| mask with codes of other classes alone | no warning |
| other files in the folders | warning; texts, tables and masks of other tasks are passed over |
| frame that no sequence of README.txt has, or two | error |
| CVC-ClinicDB without README.txt, or without its table | the table of the original's 612 frames |
| frames that README.txt lists and that are not there | warning |
| manifest with other columns, separators or encoding, or without rows | error |
| manifest row with missing fields or files, or an unknown split | error |
| one group of a manifest on both sides of its split | error |
| equal pixels under two names | warning |
"""

import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise, zip_longest
from pathlib import Path

import numpy as np

from keras_medseg.data import checks, splits
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.checks import CheckReport, Inspection, Problem
from keras_medseg.data.formats import image_files, masks
from keras_medseg.data.formats.manifest import read_manifest
from keras_medseg.data.transforms.resize import resize, resize_labels
from keras_medseg.errors import DataError

CVC, ISIC, PICTURES = "CVC-ClinicDB", "ISIC2018", "pictures"
MANIFEST = "manifest.csv"
MAX_DEPTH = 3

_ISIC_FILE = re.compile(r"(ISIC_\d{7})(_segmentation)?", re.IGNORECASE)
_ISIC_YEAR = re.compile(r"(?:ISIC|ISBI)-?(201[678])", re.IGNORECASE)
_ISIC_COMPANIONS = re.compile(r"ISIC_\d{7}_(superpixels|attribute_\w+)", re.IGNORECASE)
_TEXTS = (".txt", ".md", ".csv", ".json", ".pdf", ".ini", ".db", ".xml", ".html", ".zip")
_MASK_ENDING = re.compile(r"_(mask|segmentation)$", re.IGNORECASE)
_README_ROW = re.compile(r"\|\s*(\d+)\s+to\s+(\d+)\s*\|\s*(\d+)\s*\|")
# First frames of the 29 sequences in CVC-ClinicDB's README.txt, and the frame after the last.
_CVC_STARTS = (
    1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298, 318, 343, 364, 384, 409,
    429, 448, 467, 479, 504, 529, 547, 572, 592, 613,
)  # fmt: skip
_REST = "`keras-medseg check {}` lists all problems of all cases."
_TREES = {
    CVC: ("README.txt", "Original/1.tif, 2.tif, ...", "Ground Truth/1.tif, 2.tif, ..."),
    ISIC: (
        "ISIC2018_Task1-2_Training_Input/",
        "  ISIC_0000000.jpg, ...",
        "ISIC2018_Task1_Training_GroundTruth/",
        "  ISIC_0000000_segmentation.png, ...",
    ),
    PICTURES: ("images/a.png, b.png, ...", "masks/a.png, b.png, ..."),
    MANIFEST: ("manifest.csv: image,mask[,group][,split]", "  the files that it lists"),
}


class PictureWarning(UserWarning):
    """A picture or mask that can be used but is odd."""


def find_cases(folder: Path | str, *, labelled: bool = True) -> list[Case]:
    """All cases below `folder`, sorted by data set and id, numbers as numbers; no pixel is read.

    Args:
        folder: also the path of a manifest.
        labelled: leave out pictures that come without masks, and insist on a mask where other
            pictures of the same folder have one.

    A case's group is its sequence in CVC-ClinicDB (29 sequences of 25 videos; which of them share
    a video is not published), the manifest's group, and otherwise the picture itself.

    Raises:
        DataError: nothing recognised (with the expected tree beside the one found), more than one
            data set, or a folder or manifest that the module's table calls an error.
    """
    cases = [found.case for found in _sound_scan(folder).found]
    chosen = [case for case in cases if case.labels is not None or not labelled]
    if not chosen:
        raise DataError(
            folder,
            found=f"{checks.plural(len(cases), 'picture')} without masks",
            expected="pictures with masks",
            remedy="Give the folder of the training data, or ask for unlabelled cases.",
        )
    return chosen


def find_split(folder: Path | str, cases: Sequence[Case]) -> splits.Sides | None:
    """(training, held-out) of `cases` by the column split of their manifest; None without one.

    Raises:
        DataError: as `find_cases`, or when all `cases` are on one side.
    """
    ids = {case.id for case in cases}
    sides = {id: side for id, side in _sound_scan(folder).split.items() if id in ids}
    return splits.assign(folder, sides, cases) if sides else None


def read_case(
    case: Case,
    *,
    size: Sequence[int] | None = None,
    fit: str = "stretch",
    classes: Mapping[str, Sequence[int]] | None = None,
) -> CaseArrays:
    """Read one picture and its mask, as a volume with one slice: x are rows, y columns.

    Args:
        size: (rows, columns) to bring both to, see resize.py; None keeps their own.
        fit: one of resize.FITS.
        classes: name -> grey codes in the mask. The first name becomes label 1, and so on;
            "background" names codes that become 0, as code 0 does anyway. None: one object.

    Returns:
        image (H, W, 1, C) uint8, C 1 or 3; labels (H, W, 1) uint8 or None.

    Raises:
        DataError: a file that raster.py refuses, or what the module's table calls an error.
        ValueError: for classes without a code, or with one code twice.

    Warns:
        PictureWarning: for what the table calls a warning.
    """
    reading = _read(case, _table(classes))
    if reading.errors:
        raise reading.errors[0]
    for _, remark in reading.remarks:
        warnings.warn(remark, PictureWarning, stacklevel=2)
    image, labels = reading.pixels, reading.labels
    if size is not None:
        image = resize(image, size, fit)
        labels = None if labels is None else resize_labels(labels, size, fit)
    labels = None if labels is None else np.ascontiguousarray(labels)[..., None]
    return CaseArrays(np.ascontiguousarray(image)[:, :, None], labels, np.eye(4), ("L", "P", "S"))


def check(
    folder: Path | str,
    *,
    classes: Mapping[str, Sequence[int]] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> CheckReport:
    """Find all problems of all cases below `folder` in one go; every file is read to its end.

    Args:
        classes: as in `read_case`.
        workers: pictures read at once; by default one per core, at most 8.
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
    inspect = partial(_inspect, table=_table(classes), channels=channels)
    problems += checks.inspect_all(
        complete, inspect, elements="pixels", workers=workers, progress=progress
    )
    problems += _channel_problems(complete, channels)
    if not scan.found:
        problems.append(checks.error_of("-", _nothing_found(scan)))
    return CheckReport(scan.folder, complete, problems, _trees(scan))


# What lies on disk


@dataclass
class _Found:
    """A case's files: more than one image or mask when a file is there twice."""

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
    """errors: of no single case; split: case id -> side, where a manifest says so."""

    folder: Path
    layout: str | None = None
    found: list[_Found] = field(default_factory=list)
    errors: list[DataError] = field(default_factory=list)
    remarks: list[tuple[Path, str]] = field(default_factory=list)
    split: dict[str, str] = field(default_factory=dict)


def _scan(folder: Path | str) -> _Scan:
    folder = Path(os.path.abspath(folder))
    scan = _Scan(folder)
    try:
        if folder.is_file() and folder.suffix.lower() == ".csv":
            scan.layout = MANIFEST
            _scan_manifest(scan, folder)
        elif not folder.is_dir():
            found = "a file" if folder.exists() else "no such folder"
            remedy = "Give the folder that holds the pictures, or a manifest."
            raise DataError(folder, found=found, expected="a folder with pictures", remedy=remedy)
        elif (folder / MANIFEST).exists():
            scan.layout = MANIFEST
            _scan_manifest(scan, folder / MANIFEST)
        else:
            _scan_homes(scan, [*_homes(folder, MAX_DEPTH)])
    except OSError as error:
        found, expected = f"the error {error.strerror!r}", "folders that can be read"
        remedy = "Give yourself the right to read it (chmod u+rx)."
        raise DataError(error.filename, found=found, expected=expected, remedy=remedy) from error
    scan.found.sort(key=lambda found: (found.dataset, _natural(found.id)))
    scan.errors += _id_errors(scan)
    return scan


def _sound_scan(folder: Path | str) -> _Scan:
    scan = _scan(folder)
    errors = [*scan.errors, *chain.from_iterable(map(_file_errors, scan.found))]
    if errors:
        raise checks.with_remedy(errors[0], f"{errors[0].remedy} {_REST.format(folder)}")
    if not scan.found:
        error = _nothing_found(scan)
        raise checks.with_remedy(error, f"{error.remedy}\n{_trees(scan)}")
    return scan


def _scan_manifest(scan: _Scan, path: Path) -> None:
    rows, scan.errors = read_manifest(path)
    for row in rows:
        listed = [row.mask] if row.mask else []
        found = _Found(row.id, PICTURES, row.group, [row.image], listed, mask_expected=False)
        scan.found.append(found)
        if row.split:
            scan.split[row.id] = row.split


def _natural(id: str) -> list[tuple[bool, int, str]]:
    """Sorts numbers inside of names as numbers: 2 before 10."""
    parts = [part for part in re.split(r"([0-9]+)", id) if part]
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _homes(folder: Path, depth: int) -> Iterator[tuple[str, Path]]:
    """(layout, folder) of the data sets at or below a folder."""
    entries = checks.entries(folder)
    names = {path.name.casefold() for path in entries if path.is_dir()}
    if {"original", "ground truth"} <= names:
        yield CVC, folder
    elif "images" in names:
        yield PICTURES, folder
    else:
        if any(_is_picture(path) and _ISIC_FILE.fullmatch(path.stem) for path in entries):
            yield ISIC, folder
        if depth:
            for path in entries:
                if path.is_dir():
                    yield from _homes(path, depth - 1)


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
        (_scan_cvc if scan.layout == CVC else _scan_pairs)(scan, homes[0][1])


def _scan_cvc(scan: _Scan, home: Path) -> None:
    sequences = _sequences(scan, home)
    cases: dict[str, _Found] = {}
    for role, name in (("images", "original"), ("masks", "ground truth")):
        for path in _pictures_in(scan, home, name):
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
    """Sequence -> its frames, of README.txt or of the original data set."""
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
        for path in _picture_files(scan, home):
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
    for path in _pictures_in(scan, home, "images"):
        cases.setdefault(path.stem, _Found(path.stem, PICTURES, path.stem)).images.append(path)
    masks_in_folder = [*_pictures_in(scan, home, "masks")]
    for path in masks_in_folder:
        id = path.stem if path.stem in cases else _MASK_ENDING.sub("", path.stem)
        cases.setdefault(id, _Found(id, PICTURES, id)).masks.append(path)
    for found in cases.values():
        found.mask_expected = bool(masks_in_folder)
    scan.found = [*cases.values()]


def _pictures_in(scan: _Scan, home: Path, name: str) -> Iterator[Path]:
    for folder in home.iterdir():
        if folder.name.casefold() == name:
            yield from _picture_files(scan, folder)
            inside = [path for path in checks.entries(folder) if path.is_dir()]
            scan.remarks += [_stray(path, "files only") for path in inside]


def _picture_files(scan: _Scan, folder: Path) -> Iterator[Path]:
    """The files that promise to be pictures; the others are noted."""
    for path in checks.entries(folder):
        if path.is_dir():
            continue
        if _is_picture(path):
            yield path
        elif path.suffix.lower() not in _TEXTS:
            scan.remarks.append(_stray(path, f"a name ending in {', '.join(image_files.SUFFIXES)}"))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in image_files.SUFFIXES and not path.is_dir()


def _stray(path: Path, expected: str) -> tuple[Path, str]:
    what = "a folder" if path.is_dir() else "another file"
    return path, f"{path}: found {what}, expected {expected}. It is ignored; move it away."


# What must not be


def _id_errors(scan: _Scan) -> Iterator[DataError]:
    same = defaultdict(list)
    for found in scan.found:
        same[found.id.casefold()].append(found)
    for group in same.values():
        if len(group) > 1:
            paths = [path for found in group for path in (found.images + found.masks)[:1]]
            names, remedy = " and ".join(map(str, paths)), "Rename one of them."
            yield DataError(
                scan.folder, found=f"the names {names}", expected="different names", remedy=remedy
            )


def _file_errors(found: _Found) -> list[DataError]:
    """A partner that is missing, or a file that is there twice."""
    errors = []
    for what, paths, other in (
        ("picture", found.images, found.masks),
        ("mask", found.masks, found.images),
    ):
        if len(paths) > 1:
            two, remedy = f"also {paths[1]}", "Keep one of the two."
            expected = f"one {what} for case {found.id}"
            errors.append(DataError(paths[0], found=two, expected=expected, remedy=remedy))
        if not paths and (what == "picture" or found.mask_expected):
            remedy = "Fetch the missing file, or move this one away."
            expected = f"one for case {found.id}"
            errors.append(DataError(other[0], found=f"no {what}", expected=expected, remedy=remedy))
    return errors


def _nothing_found(scan: _Scan) -> DataError:
    return DataError(
        scan.folder,
        found="no pictures in a layout that is known",
        expected=f"CVC-ClinicDB, ISIC, images/ with masks/, or {MANIFEST}, at most {MAX_DEPTH} "
        "folders below",
        remedy="Give the folder of the pictures, named as they were published, or list them.",
    )


# What the files hold


@dataclass
class _Reading:
    """What could be read of a case, and what stood against it. pixels: (H, W, C)."""

    pixels: np.ndarray | None = None
    labels: np.ndarray | None = None
    errors: list[DataError] = field(default_factory=list)
    remarks: list[tuple[Path, str]] = field(default_factory=list)


def _read(case: Case, table: np.ndarray | None) -> _Reading:
    reading = _Reading()
    picture = _load(image_files.read_picture, case.images[0], reading)
    mask = None if case.labels is None else _load(image_files.read_mask, case.labels, reading)
    if picture is None or (mask is None and case.labels is not None):
        return reading
    try:
        _check_picture(picture, case.dataset)
        pixels, codes, remark = _turned(picture, mask)
        if remark:
            reading.remarks.append((picture.path, remark))
        if codes is not None:
            reading.labels = _labels(codes[..., 0], case, table, reading.remarks)
        reading.pixels = pixels
    except DataError as error:
        reading.errors.append(error)
    return reading


def _load(
    read: Callable[[Path], image_files.Raster], path: Path, reading: _Reading
) -> image_files.Raster | None:
    try:
        loaded = read(path)
    except DataError as error:
        reading.errors.append(error)
        return None
    reading.remarks += [(path, remark) for remark in loaded.remarks]
    return loaded


def _check_picture(picture: image_files.Raster, dataset: str) -> None:
    pixels = picture.pixels
    if dataset != PICTURES and pixels.shape[2] != 3:
        remedy = "Fetch the file again."
        raise DataError(picture.path, found="grey", expected="colour", remedy=remedy)
    if (pixels == pixels[0, 0]).all():
        found, remedy = f"one value only ({pixels[0, 0].tolist()})", "Leave the picture out."
        raise DataError(picture.path, found=found, expected="a picture", remedy=remedy)


def _turned(
    picture: image_files.Raster, mask: image_files.Raster | None
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Picture and mask with EXIF's orientation applied, and what is to be said about it."""
    stored = picture.pixels
    pixels = image_files.upright(stored, picture.orientation)
    codes = None if mask is None else image_files.upright(mask.pixels, mask.orientation)
    about = f"{picture.path}: found EXIF orientation {picture.orientation}, expected 1. "
    remark = f"{about}The picture is turned; look whether its mask fits."
    if codes is not None and codes.shape[:2] != pixels.shape[:2]:
        if codes.shape[:2] != stored.shape[:2]:
            raise DataError(
                mask.path,
                found=f"{codes.shape[0]} x {codes.shape[1]} pixels",
                expected=f"{pixels.shape[0]} x {pixels.shape[1]} as in {picture.path.name}",
                remedy="Fetch or draw the mask again.",
            )
        pixels, remark = stored, f"{about}The picture is not turned, for its mask is not."
    return pixels, codes, remark if picture.orientation != 1 else ""


def _labels(
    codes: np.ndarray,
    case: Case,
    table: np.ndarray | None,
    remarks: list[tuple[Path, str]],
) -> np.ndarray:
    """Grey codes (H, W) -> labels (H, W) uint8."""
    path = case.labels
    if table is not None:
        labels, remark = masks.labels_of_classes(codes, table, path)
    elif case.dataset == CVC:
        labels, remark = masks.labels_of_object(codes, path, fewest_greys=3)[0], ""
    else:
        labels, remark = masks.labels_of_object(codes, path)
    if remark:
        remarks.append((path, remark))
    empty = not (labels if table is None else codes).any()
    for wrong, what in ((empty, "no object"), (labels.all(), "nothing but object")):
        if wrong:
            text = f"{path}: found {what} in the mask, expected some of both."
            remarks.append((path, f"{text} Leave the picture out if that is not so."))
    return labels


def _table(classes: Mapping[str, Sequence[int]] | None) -> np.ndarray | None:
    return None if classes is None else masks.code_table(classes)


# The report


def _inspect(case: Case, table: np.ndarray | None, channels: dict[str, int]) -> Inspection:
    reading = _read(case, table)
    problems = [checks.error_of(case.id, error) for error in reading.errors]
    problems += [Problem(case.id, path, text, "warning") for path, text in reading.remarks]
    if reading.pixels is None:
        return Inspection(problems, [])
    channels[case.id] = reading.pixels.shape[2]
    return Inspection(problems, [(case.images[0], checks.digest(reading.pixels))])


def _channel_problems(cases: Sequence[Case], channels: dict[str, int]) -> Iterator[Problem]:
    """One error per picture that has not the channels of most."""
    counts = Counter(channels.values())
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    names = {1: "grey", 3: "colour"}
    for case in cases:
        if channels.get(case.id, usual) != usual:
            found, expected = f"{names[channels[case.id]]}", f"{names[usual]} as most pictures are"
            remedy = "Convert all pictures to one of the two."
            error = DataError(case.images[0], found=found, expected=expected, remedy=remedy)
            yield checks.error_of(case.id, error)


def _trees(scan: _Scan) -> str:
    """The expected tree beside the folders found and how many files each has."""
    names = [scan.layout] if scan.layout else [*_TREES]
    left = [line for name in names for line in (f"{name}:", *(f"  {row}" for row in _TREES[name]))]
    if not scan.found:
        right = checks.listing(scan.folder, len(left)) if scan.folder.is_dir() else []
        return checks.side_by_side(zip_longest(left, right, fillvalue=""))
    right = []
    for role in ("images", "masks"):
        folders = Counter(path.parent for found in scan.found for path in getattr(found, role))
        for folder, count in folders.items():
            home = os.path.relpath(folder, scan.folder) if scan.folder.is_dir() else folder
            right.append(f"{home}/: {checks.plural(count, role.removesuffix('s'))}")
    return checks.side_by_side(zip_longest(left, right, fillvalue=""))
