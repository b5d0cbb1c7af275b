"""BraTS from 2015 to 2023 and the Decathlon's brain tumours, recognised from the files' names.

A case is known by its file names, wherever it lies up to MAX_DEPTH folders below the one given:
the case folder itself, HGG and LGG, one year, or a mixture of years. The label codes follow from
the data set and never from the labels found, for 27 of the 368 cases of 2020 have no enhancing
tumour. BraTS2023 stands for all names of the kind BraTS-GLI-00000-000 (also MEN, MET, SSA). Later
years have the same names; labels that 2023 lacks are refused, and so are the children of BraTS-PED.
BraTS2015 are the files VSD.Brain... after conversion from .mha to NIfTI.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, zip_longest
from pathlib import Path

import numpy as np

from keras_medseg.data import checks
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.checks import CheckReport, Inspection, Problem
from keras_medseg.data.formats import nifti
from keras_medseg.errors import DataError

MODALITIES = ("flair", "t1", "t1ce", "t2")
BACKGROUND, NECROTIC, EDEMA, ENHANCING = 0, 1, 2, 3
"""The package's label codes; NECROTIC is necrotic and non-enhancing tumour."""

REGIONS: dict[str, tuple[int, ...]] = {
    "WT": (NECROTIC, EDEMA, ENHANCING),
    "TC": (NECROTIC, ENHANCING),
    "ET": (ENHANCING,),
}
"""The nested regions that the challenge scores."""
TARGETS: dict[str, tuple[int, ...]] = {**REGIONS, "NCR": (NECROTIC,), "ED": (EDEMA,)}
"""Whatever a network can be trained for: the regions, and the labels that none of them is."""
MAX_DEPTH = 6

_SEG = "seg"
_SUFFIXES = (".nii.gz", ".nii")
_CODES_TO_2021 = {0: BACKGROUND, 1: NECROTIC, 2: EDEMA, 4: ENHANCING}
_CODES_2023 = {0: BACKGROUND, 1: NECROTIC, 2: EDEMA, 3: ENHANCING}
_CODES_DECATHLON = {0: BACKGROUND, 1: EDEMA, 2: NECROTIC, 3: ENHANCING}
_CODES_2015 = {0: BACKGROUND, 1: NECROTIC, 2: EDEMA, 4: ENHANCING, 3: NECROTIC}
_NAMES_TO_2021 = {role: "{id}_" + role for role in (*MODALITIES, _SEG)}
_NAMES_2023 = {
    "flair": "{id}-t2f",
    "t1": "{id}-t1n",
    "t1ce": "{id}-t1c",
    "t2": "{id}-t2w",
    _SEG: "{id}-seg",
}
_NAMES_2015 = {
    "flair": "VSD.Brain.XX.O.MR_Flair.<n>",
    "t1": "VSD.Brain.XX.O.MR_T1.<n>",
    "t1ce": "VSD.Brain.XX.O.MR_T1c.<n>",
    "t2": "VSD.Brain.XX.O.MR_T2.<n>",
    _SEG: "VSD.Brain.XX.O.OT.<n>",
}


@dataclass(frozen=True)
class _Layout:
    """How one year names its files.

    case: what a case's id looks like; its group `patient` is equal for one patient's examinations,
    also across years where the names tell. names: role -> file name without suffix. codes: label
    on disk -> canonical label. example: a case's id.
    """

    dataset: str
    case: str
    names: dict[str, str]
    codes: dict[int, int]
    example: str

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(role for role in self.names if role != _SEG)

    def match(self, stem: str) -> tuple[str, str] | None:
        """Case id and role of a file name without suffix."""
        for role, name in self.names.items():
            ending = name.removeprefix("{id}")
            if stem.casefold().endswith(ending.casefold()):
                case_id = stem[: len(stem) - len(ending)]
                if re.fullmatch(self.case, case_id, re.IGNORECASE):
                    return case_id, role
        return None


def _to_2021(dataset: str, case: str, example: str) -> _Layout:
    return _Layout(dataset, case, _NAMES_TO_2021, _CODES_TO_2021, example)


# The last number of brats_tcia_pat101_0181 is one of several examinations of the patient.
_CASE_2015 = r"(?P<patient>.*pat\d+(?=_\d+$)|.+)(_\d+)?"
_2015 = _Layout("BraTS2015", _CASE_2015, _NAMES_2015, _CODES_2015, "brats_2013_pat0001_1")
_DECATHLON = _Layout(
    "Decathlon",
    r"(?P<patient>BRATS_\d+)",
    {"image": "imagesTr/{id}", _SEG: "labelsTr/{id}"},
    _CODES_DECATHLON,
    "BRATS_001",
)
_BY_NAME = (
    _to_2021("BraTS2017", r"Brats17_(?P<patient>\w+)_\d+", "Brats17_CBICA_AAB_1"),
    _to_2021("BraTS2018", r"Brats18_(?P<patient>\w+)_\d+", "Brats18_CBICA_AAB_1"),
    _to_2021("BraTS2019", r"BraTS19_(?P<patient>\w+)_\d+", "BraTS19_CBICA_AAB_1"),
    _to_2021("BraTS2020", r"(?P<patient>BraTS20_[a-z]+_\d+)", "BraTS20_Training_001"),
    _to_2021("BraTS2021", r"BraTS2021_(?P<patient>\d+)", "BraTS2021_00000"),
    _Layout(
        "BraTS2023",
        r"BraTS-(?P<patient>[a-z]+(-[a-z]+)?-\d+)(-\d+)?",
        _NAMES_2023,
        _CODES_2023,
        "BraTS-GLI-00000-000",
    ),
)
_LAYOUTS = {layout.dataset: layout for layout in (_2015, *_BY_NAME, _DECATHLON)}
_DECATHLON_ROLES = {"imagesTr": "image", "imagesTs": "image", "labelsTr": _SEG}
_2015_FILE = re.compile(r"VSD\.Brain\w*\.XX\.O\.(MR_Flair|MR_T1c?|MR_T2|OT)\b.*", re.IGNORECASE)
_2015_ROLES = dict(zip(("mr_flair", "mr_t1", "mr_t1c", "mr_t2", "ot"), (*MODALITIES, _SEG)))
# The name that this one segmentation carries in a common copy of the 2020 training data.
_MISNAMED = ("BraTS20_Training_355", "W39_1998.09.19_Segm")


class BratsWarning(UserWarning):
    """A case that can be used but is odd."""


def find_cases(folder: Path | str, *, labelled: bool = True) -> list[Case]:
    """All cases below `folder`, sorted by data set and id; no voxel is read.

    Args:
        labelled: leave out validation sets, which have no segmentation, and insist on a
            segmentation where other cases of the same folder have one. With False every case with
            all its images is found, and `labels` is None where there is no segmentation.

    Raises:
        DataError: nothing recognised (with the expected tree beside the one found), a case
            without all its files, or with a file twice.
    """
    scan = _scan(folder)
    errors = [*chain.from_iterable(_file_errors(scan, labelled=labelled))]
    if errors:
        rest = f"`keras-medseg check {folder}` lists all problems of all cases."
        raise checks.with_remedy(errors[0], f"{errors[0].remedy} {rest}")
    cases = [_case(found) for found in scan.cases]
    if not cases:
        error = _nothing_found(scan)
        raise checks.with_remedy(error, f"{error.remedy}\n{_trees(scan, [])}")
    chosen = [case for case in cases if case.labels is not None or not labelled]
    if not chosen:
        raise DataError(
            folder,
            found=f"{checks.plural(len(cases), 'case')} without segmentations",
            expected="cases with segmentations",
            remedy="Give the folder of the training data, or ask for unlabelled cases.",
        )
    return chosen


def read_case(case: Case) -> CaseArrays:
    """Read one case: modalities stacked in the order of MODALITIES, labels in canonical codes.

    Returns:
        image (X, Y, Z, 4) in LPS, int16 where that loses nothing and else float32; labels
        (X, Y, Z) uint8 or None. In memory x runs fastest and the channel slowest, as on disk.

    Raises:
        DataError: a file that is damaged, or does not fit the other files of the case; a modality
            without brain voxels; a label that the data set's code does not have.

    Warns:
        BratsWarning: no tumour in the segmentation, or a file that is odd (see nifti.py).
    """
    reading = _read(case)
    if reading.errors:
        raise reading.errors[0]
    for _, remark in reading.remarks:
        warnings.warn(remark, BratsWarning, stacklevel=2)
    return reading.arrays


def to_canonical(labels: np.ndarray, dataset: str, where: Path | str) -> np.ndarray:
    """Labels in the codes of a data set, of any shape and type -> canonical uint8.

    Args:
        where: the file that holds them, for the message.

    Raises:
        DataError: a label that the data set's code does not have.
    """
    codes = _LAYOUTS[dataset].codes
    unknown = 255
    table = np.full(256, unknown, np.uint8)
    table[list(codes)] = list(codes.values())
    with np.errstate(invalid="ignore"):
        narrow = labels.astype(np.uint8)
    canonical = table[narrow]
    wrong = (canonical == unknown) | (narrow != labels)
    if wrong.any():
        values, counts = np.unique(labels[wrong], return_counts=True)
        listed = ", ".join(f"{value} ({n} voxels)" for value, n in zip(values[:5], counts))
        raise DataError(
            where,
            found=f"label {listed}" + (", ..." if len(values) > 5 else ""),
            expected=f"the labels {', '.join(map(str, sorted(codes)))} of {dataset}",
            remedy="Check that the file is a segmentation of that year (later ones may have other "
            "labels), and fetch it again.",
        )
    return canonical


def read_labels(path: Path | str, dataset: str) -> np.ndarray:
    """A label map in the codes of `dataset`, e.g. a prediction -> (X, Y, Z) canonical, LPS.

    Raises:
        DataError: a damaged file, or a label that the data set's code does not have.
    """
    volume = nifti.load(path)
    return nifti.reorient(to_canonical(volume.array, dataset, path), volume.header.affine)


def to_dataset_labels(labels: np.ndarray, dataset: str) -> np.ndarray:
    """Canonical labels of any shape -> uint8 in the codes of a data set, to write predictions.

    Raises:
        ValueError: an unknown data set, or a label outside 0..3.
    """
    if dataset not in _LAYOUTS:
        raise ValueError(f"dataset: found {dataset!r}, expected one of {', '.join(_LAYOUTS)}.")
    if labels.size and not (labels.min() >= BACKGROUND and labels.max() <= ENHANCING):
        raise ValueError(
            f"labels: found {labels.min()} to {labels.max()}, expected {BACKGROUND} to "
            f"{ENHANCING}. Pass canonical labels."
        )
    table = np.zeros(4, np.uint8)
    for code, label in reversed(_LAYOUTS[dataset].codes.items()):
        table[label] = code
    return table[labels.astype(np.uint8)]


def check(
    folder: Path | str,
    *,
    workers: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> CheckReport:
    """Find all problems of all cases below `folder` in one go; every file is read to its end.

    Args:
        workers: cases read at once; by default one per core, at most 8 (0.3 GB each).
        progress: called with (done, total, case id) after each case.

    Raises:
        DataError: `folder` does not exist.
    """
    scan = _scan(folder)
    file_errors = _file_errors(scan, labelled=True)
    problems = [_unknown_file(path) for path in scan.unknown]
    for found, errors in zip(scan.cases, file_errors):
        problems += [checks.error_of(found.id, error) for error in errors]
    cases = [_case(found) for found in scan.cases]
    problems += checks.inspect_all(
        cases, _inspect, elements="voxels", workers=workers, progress=progress
    )
    if not cases:
        problems.append(checks.error_of("-", _nothing_found(scan)))
    complete = [case for case, errors in zip(cases, file_errors) if not errors]
    return CheckReport(scan.folder, complete, problems, _trees(scan, problems))


# What lies on disk


@dataclass
class _Found:
    """A case's files: role -> paths, more than one when a file is there twice."""

    layout: _Layout
    id: str
    folder: Path
    files: dict[str, list[Path]]

    @property
    def wanted(self) -> dict[str, str]:
        """Role -> file name without suffix."""
        return {role: name.format(id=self.id) for role, name in self.layout.names.items()}


@dataclass(frozen=True)
class _Scan:
    folder: Path
    cases: list[_Found]
    unknown: list[Path]


def _scan(folder: Path | str) -> _Scan:
    folder = Path(os.path.abspath(folder))
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        remedy = "Give the folder that holds the cases."
        raise DataError(folder, found=found, expected="a folder with BraTS cases", remedy=remedy)
    cases, unknown = {}, []
    try:
        files = [*_walk(folder, MAX_DEPTH, set())]
    except OSError as error:
        found, expected = f"the error {error.strerror!r}", "folders that can be read"
        remedy = "Give yourself the right to read it (chmod u+rx)."
        raise DataError(error.filename, found=found, expected=expected, remedy=remedy) from error
    for parent, stem, path in files:
        known = _classify(parent, stem)
        if known is None:
            unknown.append(path)
            continue
        layout, case_id, role, home = known
        key = (layout.dataset, case_id, home)
        found = cases.setdefault(key, _Found(layout, case_id, home, {}))
        found.files.setdefault(role, []).append(path)
    return _Scan(folder, [cases[key] for key in sorted(cases)], unknown)


def _walk(folder: Path, depth: int, seen: set[str]) -> Iterator[tuple[Path, str, Path]]:
    """(folder, name without suffix, path) of all NIfTI files; links are followed once."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for path in checks.entries(folder):
        stem = _stem(path.name)
        if stem is None:
            if depth and path.is_dir():
                yield from _walk(path, depth - 1, seen)
            continue
        # Some unpackers turn x_flair.nii.gz into a folder x_flair.nii with one file inside.
        inside = [p for p in checks.entries(path) if _stem(p.name)] if path.is_dir() else []
        yield folder, stem, inside[0] if len(inside) == 1 else path


def _stem(name: str) -> str | None:
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return None


def _classify(folder: Path, stem: str) -> tuple[_Layout, str, str, Path] | None:
    """Layout, case id, role and case folder of a NIfTI file, or None."""
    if folder.name in _DECATHLON_ROLES and re.fullmatch(_DECATHLON.case, stem):
        return _DECATHLON, stem, _DECATHLON_ROLES[folder.name], folder.parent
    if match := _2015_FILE.fullmatch(stem):
        home = folder.parent if folder.name.startswith("VSD.") else folder
        return _2015, home.name, _2015_ROLES[match[1].casefold()], home
    if (folder.name, stem) == _MISNAMED:
        return _LAYOUTS["BraTS2020"], folder.name, _SEG, folder
    for layout in _BY_NAME:
        if known := layout.match(stem):
            return layout, *known, folder
    return None


def _case(found: _Found) -> Case:
    """The case with the files that are there."""
    images = tuple(found.files[role][0] for role in found.layout.images if role in found.files)
    labels = found.files.get(_SEG, [None])[0]
    return Case(found.id, found.layout.dataset, images, labels, _group(found))


def _group(found: _Found) -> str:
    patient = re.fullmatch(found.layout.case, found.id, re.IGNORECASE)["patient"]
    if found.layout.dataset == "BraTS2021":
        return f"GLI-{patient}"
    # 2018 numbered the collections of 2017: TCIA_101 became TCIA02_101.
    return re.sub(r"^TCIA\d+_", "TCIA_", patient)


def _file_errors(scan: _Scan, *, labelled: bool) -> list[list[DataError]]:
    """Per case, the files that are missing or there twice.

    With `labelled`, a segmentation is missed where another case of the same collection has one;
    validation sets have none at all.
    """
    crowded = Counter(found.folder for found in scan.cases)
    collections = [_collection(found, crowded) for found in scan.cases]
    with_labels = {c for c, found in zip(collections, scan.cases) if _SEG in found.files}
    homes = {}
    errors = []
    for found, collection in zip(scan.cases, collections):
        wanted = [*found.layout.images]
        if labelled and collection in with_labels:
            wanted.append(_SEG)
        errors.append([*_case_file_errors(found, wanted), *_unknown_codes(found)])
        home = homes.setdefault((found.layout.dataset, found.id), found.folder)
        if home != found.folder:
            what, remedy = f"case {found.id} also in {home}", "Keep one of the two."
            errors[-1].append(
                DataError(found.folder, found=what, expected="each case once", remedy=remedy)
            )
    return errors


def _collection(found: _Found, crowded: Counter) -> Path:
    """The folder whose cases have segmentations all or none."""
    if found.layout is _DECATHLON:
        return found.files["image"][0].parent if "image" in found.files else found.folder
    return found.folder if crowded[found.folder] > 1 else found.folder.parent


def _case_file_errors(found: _Found, wanted: Sequence[str]) -> Iterator[DataError]:
    missing = [found.wanted[role] for role in wanted if role not in found.files]
    if missing:
        names = [f"no {name}.nii.gz" for name in missing]
        expected = f"{len(wanted)} files (.nii or .nii.gz): {', '.join(wanted)}"
        remedy = f"Add what is missing, or move case {found.id} elsewhere."
        yield DataError(found.folder, found=", ".join(names), expected=expected, remedy=remedy)
    for paths in found.files.values():
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            remedy = "Keep one of them."
            yield DataError(found.folder, found=names, expected="each file once", remedy=remedy)


def _unknown_codes(found: _Found) -> Iterator[DataError]:
    if found.id.casefold().startswith("brats-ped-"):
        yield DataError(
            found.folder,
            found=f"case {found.id} of BraTS-PED, whose label codes are not known here",
            expected=f"cases of {', '.join(_LAYOUTS)}",
            remedy="Move the cases of BraTS-PED elsewhere.",
        )


def _nothing_found(scan: _Scan) -> DataError:
    return DataError(
        scan.folder,
        found=checks.plural(len(scan.unknown), "NIfTI file") + " and no case with a name of BraTS",
        expected=f"cases of {', '.join(_LAYOUTS)} at most {MAX_DEPTH} folders below",
        remedy="Give the folder of the cases, with the files named as they were published.",
    )


# What the files hold


@dataclass
class _Reading:
    """What could be read of a case, and what stood against it."""

    arrays: CaseArrays | None = None
    labels: np.ndarray | None = None
    errors: list[DataError] = field(default_factory=list)
    remarks: list[tuple[Path, str]] = field(default_factory=list)


def _read(case: Case) -> _Reading:
    reading = _Reading()
    dimensions = 4 if case.dataset == _DECATHLON.dataset else 3
    volumes = [_load(path, dimensions, reading) for path in case.images]
    truth = None if case.labels is None else _load(case.labels, 3, reading)
    loaded = [volume for volume in (*volumes, truth) if volume is not None]
    for volume in loaded[1:]:
        reading.errors += _geometry_errors(loaded[0].header, volume.header)
    for volume in volumes:
        if volume is not None:
            errors = [*_brain_errors(volume)]
            reading.errors += errors
            remarks = volume.header.remarks if errors else volume.remarks
            reading.remarks += [(volume.header.path, remark) for remark in remarks]
    if truth is not None:
        reading.labels = _read_labels(truth, case.dataset, reading)
    if volumes and not reading.errors:
        affine = volumes[0].header.affine
        image = _stack([volume.array for volume in volumes], affine)
        codes = nifti.axis_codes(affine)
        reading.arrays = CaseArrays(image, reading.labels, affine, codes)
    return reading


def _load(path: Path, dimensions: int, reading: _Reading) -> nifti.Volume | None:
    try:
        return nifti.load(path, dimensions=dimensions)
    except DataError as error:
        reading.errors.append(error)
        return None


def _geometry_errors(first: nifti.Header, other: nifti.Header) -> Iterator[DataError]:
    shape, name = first.shape[:3], first.path.name
    remedy = "Fetch the case again; all its files lie on one grid."
    if other.shape[:3] != shape:
        expected = f"dim {shape} as in {name}"
        yield DataError(other.path, found=f"dim {other.shape}", expected=expected, remedy=remedy)
        return
    apart = nifti.corner_distance_mm(first.affine, other.affine, shape)
    if not apart <= nifti.TOLERANCE_MM:
        found = f"an affine {apart:.3g} mm away from that of {name} at a corner"
        expected = f"{nifti.TOLERANCE_MM} mm at most"
        yield DataError(other.path, found=found, expected=expected, remedy=remedy)


def _brain_errors(volume: nifti.Volume) -> Iterator[DataError]:
    path, array = volume.header.path, volume.array
    if array.ndim == 3:
        channels = [array]
    elif array.shape[3] == len(MODALITIES):
        channels = np.moveaxis(array, 3, 0)
    else:
        found, expected = f"dim {array.shape}", f"{len(MODALITIES)} channels"
        remedy = "Fetch the file again; Task01 has FLAIR, T1w, T1gd, T2w in one file."
        yield DataError(path, found=found, expected=expected, remedy=remedy)
        return
    empty = [str(index) for index, channel in enumerate(channels) if not channel.any()]
    if empty:
        which = "" if array.ndim == 3 else f" in channel {', '.join(empty)}"
        found, expected = f"no brain voxels{which} (all are 0)", "a skull-stripped image"
        yield DataError(path, found=found, expected=expected, remedy="Fetch the file again.")


def _read_labels(truth: nifti.Volume, dataset: str, reading: _Reading) -> np.ndarray | None:
    path = truth.header.path
    try:
        labels = to_canonical(truth.array, dataset, path)
    except DataError as error:
        reading.errors.append(error)
        return None
    remarks = truth.remarks
    if not labels.any():
        found = "found no tumour voxel, expected a segmentation"
        remarks = (
            *truth.header.remarks,
            f"{path}: {found}. Leave the case out if its tumour was not drawn.",
        )
    reading.remarks += [(path, remark) for remark in remarks]
    return nifti.reorient(labels, truth.header.affine)


def _stack(arrays: list[np.ndarray], affine: np.ndarray) -> np.ndarray:
    """Modalities (X, Y, Z) or one (X, Y, Z, C) in the file's order -> (X, Y, Z, C) in LPS."""
    if arrays[0].ndim == 4:
        arrays = list(np.moveaxis(arrays[0], 3, 0))
    lossless = all(_fits_int16(array) for array in arrays)
    views = [nifti.reorient(array, affine) for array in arrays]
    shape = (*views[0].shape, len(views))
    image = np.empty(shape, np.int16 if lossless else np.float32, order="F")
    for channel, view in enumerate(views):
        image[..., channel] = view
    return image


def _fits_int16(array: np.ndarray) -> bool:
    if np.can_cast(array.dtype, np.int16):
        return True
    limits = np.iinfo(np.int16)
    if array.min() < limits.min or array.max() > limits.max:
        return False
    return array.dtype.kind in "iu" or np.array_equal(array.astype(np.int16), array)


# The report


def _inspect(case: Case) -> Inspection:
    reading = _read(case)
    problems = [checks.error_of(case.id, error) for error in reading.errors]
    problems += [Problem(case.id, path, text, "warning") for path, text in reading.remarks]
    digests = []
    if reading.arrays is not None:
        channels = np.moveaxis(reading.arrays.image, 3, 0)
        paths = case.images if len(case.images) == len(channels) else case.images * len(channels)
        digests = [(path, checks.digest(channel)) for path, channel in zip(paths, channels)]
    if reading.labels is not None and reading.labels.any():
        digests.append((case.labels, checks.digest(reading.labels)))
    return Inspection(problems, digests)


def _unknown_file(path: Path) -> Problem:
    text = f"{path}: found a NIfTI file, expected a name of BraTS. It is ignored; rename it."
    return Problem("-", path, text, "warning")


_SHOWN = 12


def _trees(scan: _Scan, problems: Sequence[Problem]) -> str:
    """The expected tree beside the one found, in two columns of less than 100 characters.

    Shown are cases with errors, or the first one of each data set when there is no error.
    """
    rows = []
    if not scan.cases:
        examples = [*_examples()]
        rows += zip_longest(examples, checks.listing(scan.folder, len(examples)), fillvalue="")
    errors = [problem for problem in problems if problem.severity == "error"]
    ids, paths = {error.case_id for error in errors}, {error.path for error in errors}
    broken = [found for found in scan.cases if found.id in ids]
    firsts = {found.layout.dataset: found for found in reversed(scan.cases)}
    for found in broken[:_SHOWN] or reversed(firsts.values()):
        rows += _case_rows(found, scan, paths)
    more_broken = max(len(broken) - _SHOWN, 0)
    more_good = len(scan.cases) - (len(broken) or len(firsts))
    for count, kind in ((more_broken, "with errors"), (more_good, "without errors")):
        if count:
            rows.append(("", f"... and {count} more {kind}"))
    return checks.side_by_side(rows)


def _case_rows(found: _Found, scan: _Scan, errors: set[Path]) -> Iterator[tuple[str, str]]:
    home = "" if found.folder == scan.folder else f"{found.folder.relative_to(scan.folder)}/"
    expected = "Task01_BrainTumour/" if found.layout is _DECATHLON else f"{found.id}/"
    yield expected, home or f"{found.folder.name}/"
    for role, name in found.wanted.items():
        paths = found.files.get(role, [])
        marks = [" (see below)" if path in errors else "" for path in paths]
        marks[1:] = [" (a second time)"] * len(marks[1:])
        names = [f"  {path.relative_to(found.folder)}{mark}" for path, mark in zip(paths, marks)]
        yield f"  {name}.nii.gz", names[0] if names else "  (missing)"
        yield from (("", name) for name in names[1:])
    for path in scan.unknown:
        if path.parent == found.folder:
            yield "", f"  {path.name} (not known)"


def _examples() -> Iterator[str]:
    """What cases look like; the files once for all years that name them alike."""
    for _, layouts in groupby(_LAYOUTS.values(), key=lambda layout: layout.names):
        for layout in layouts:
            folder = "Task01_BrainTumour" if layout is _DECATHLON else layout.example
            yield f"{layout.dataset + ':':11}{folder}/"
        for name in layout.names.values():
            yield f"{'':13}{name.format(id=layout.example)}.nii.gz"
