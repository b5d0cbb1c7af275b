"""BraTS from 2015 to 2023 and the brain tumors of the Decathlon, recognized by their file names.

A case is recognized by its file names, up to MAX_DEPTH folders below the given one, which may be a
case, HGG or LGG, one year, or a mixture of years. The label codes follow from the year and never
from the labels found: 27 of the 368 cases of 2020 have no enhancing tumor.

BraTS2015 are the files VSD.Brain... after conversion from .mha to NIfTI. BraTS2023 stands for all
names like BraTS-GLI-00000-000 (also MEN, MET, SSA). Later years have the same names; labels that
2023 lacks are refused, and so are the cases of BraTS-PED.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import ClassVar

import numpy as np

from keras_medseg.data import checks
from keras_medseg.data.background import background_remark
from keras_medseg.data.cases import Case, CaseArrays, lps_spacing_mm
from keras_medseg.data.checks import CheckReport, Inspection, Problem, Progress, Reading
from keras_medseg.data.datasets.base import Codes, Dataset, Listing
from keras_medseg.data.formats import foreign, name_mapping, nifti
from keras_medseg.data.store import MANIFEST, StoredCase
from keras_medseg.errors import DataError

MODALITIES = ("flair", "t1", "t1ce", "t2")
BACKGROUND, NECROTIC, EDEMA, ENHANCING = 0, 1, 2, 3
"""The package's label codes; NECROTIC is necrotic and non-enhancing tumor."""

REGIONS: dict[str, Codes] = {
    "WT": (NECROTIC, EDEMA, ENHANCING),
    "TC": (NECROTIC, ENHANCING),
    "ET": (ENHANCING,),
}
"""The nested regions that the challenge scores."""
TARGETS: dict[str, Codes] = {**REGIONS, "NCR": (NECROTIC,), "ED": (EDEMA,)}
"""What a network can be trained for: the regions, and the labels that are no region."""
MAX_DEPTH = 6

_ROUNDING = 0.02
"""How far a header with 8 bits for all codes moves them: half of 4 / 255, and a little more."""

_LABEL_NAMES = {EDEMA: "edema", NECROTIC: "necrotic, non-enhancing", ENHANCING: "enhancing"}
_SEG = "seg"
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

    Attributes:
        dataset: name of the year's data set.
        case: regular expression of the case ids. Its group `patient` is equal for all examinations
            of a patient, also across years if the names show it.
        names: role -> file name without suffix.
        codes: label on disk -> canonical label.
        example: id of a case.
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
        """Case id and role of a file name without suffix; None if it is not of this year."""
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
# The name of this one segmentation in a widespread copy of the 2020 training data.
_MISNAMED = ("BraTS20_Training_355", "W39_1998.09.19_Segm")


class BratsWarning(UserWarning):
    """A case that can be used but is unusual."""


@dataclass(frozen=True)
class Brats(Dataset):
    """BraTS and the Decathlon's brain tumors: four modalities, nested regions, NIfTI."""

    suffix: ClassVar[str] = ".nii.gz"
    elements: ClassVar[str] = "voxels"
    channels: ClassVar[tuple[str, ...]] = MODALITIES
    nesting: ClassVar[Mapping[str, int]] = {"WT": EDEMA, "TC": NECROTIC, "ET": ENHANCING}
    metrics: ClassVar[tuple[str, ...]] = ("dice", "sensitivity", "specificity", "hd95_mm")

    @property
    def labels(self) -> Mapping[int, str]:
        """Edema, necrotic (and non-enhancing) and enhancing tumor, from the outermost inward."""
        return _LABEL_NAMES

    @property
    def regions(self) -> Mapping[str, Codes]:
        """The challenge's nested regions."""
        return REGIONS

    @property
    def targets(self) -> Mapping[str, Codes]:
        """The regions, necrosis and edema."""
        return TARGETS

    @classmethod
    def recognizes(cls, folder: Path) -> bool:
        """Whether a NIfTI file in or below `folder` has a name of BraTS or the Decathlon."""
        if not folder.is_dir():
            return False
        with checks.readable_folders():
            files = _nifti_files(Path(os.path.abspath(folder)))
            return any(_classify(parent, stem) is not None for parent, stem, _ in files)

    @classmethod
    def layout_examples(cls) -> list[str]:
        """The files of one case of every year; years with the same names appear once."""
        return [*_examples()]

    def find(self, folder: Path, *, labelled: bool = True) -> Listing:
        """All cases below `folder`, sorted by data set and id; no voxel is read.

        Args:
            folder: the case itself, or any folder above it.
            labelled: leave out validation sets, which have no segmentation, and insist on a
                segmentation where other cases of the same folder have one. With False every case
                with all its images is found, and `labels` is None where there is no segmentation.

        Raises:
            DataError: nothing is recognized (the message shows the expected tree beside the one
                found), or a case lacks a file or has one twice.

        Warns:
            BratsWarning: cases in a format that is not read.
        """
        scan = _scan(folder)
        checks.raise_first(folder, [*chain.from_iterable(_file_errors(scan, labelled=labelled))])
        _require_cases(scan)
        cases = [_case(found) for found in scan.cases]
        if labelled:
            cases = checks.labelled_cases(folder, cases, noun="case", labels="segmentations")
        return Listing(cases)

    def find_complete(self, folder: Path) -> tuple[Listing, list[DataError]]:
        """The cases with all their images, and the errors of the others."""
        scan = _scan(folder)
        _require_cases(scan)
        errors = _file_errors(scan, labelled=False)
        complete = [_case(found) for found, wrong in zip(scan.cases, errors) if not wrong]
        return Listing(complete), [*chain.from_iterable(errors)]

    def read(self, case: Case) -> CaseArrays:
        """Read one case: modalities in the order of MODALITIES, labels in canonical codes.

        Returns:
            image (X, Y, Z, 4) in LPS, int16 if that loses nothing, otherwise float32; labels
            (X, Y, Z) uint8 or None. In memory x runs fastest and the channel slowest, as on disk.

        Raises:
            DataError: a file that is damaged, or does not fit the other files of the case; a
                modality without brain voxels; a label that the data set's code does not have.

        Warns:
            BratsWarning: no tumor in the segmentation, or an unusual file (see nifti.py).
        """
        return _read(case).result(BratsWarning)

    def check(
        self, folder: Path, *, workers: int | None = None, progress: Progress | None = None
    ) -> CheckReport:
        """Find all problems of all cases below `folder` in one go; every file is read to its end.

        Args:
            folder: as in `find`.
            workers: cases read at once; by default one per core, at most 8 (0.3 GB each).
            progress: called with (done, total, case id) after each case.

        Raises:
            DataError: `folder` does not exist.
        """
        scan = _scan(folder)
        file_errors = _file_errors(scan, labelled=True)
        problems = [_unknown_file(path) for path in scan.unknown]
        problems += [_unread_problem(unread) for unread in scan.unread]
        if scan.cases and (text := _passed_over(scan)):
            problems.append(Problem("-", scan.folder, text, "warning"))
        for found, errors in zip(scan.cases, file_errors):
            problems += [checks.error_of(found.id, error) for error in errors]
        cases = [_case(found) for found in scan.cases]
        problems += checks.inspect_all(
            cases, _inspect, elements=self.elements, workers=workers, progress=progress
        )
        if not cases:
            problems.append(checks.error_of("-", _nothing_found(scan)))
        complete = [case for case, errors in zip(cases, file_errors) if not errors]
        return CheckReport(scan.folder, complete, problems, _trees(scan, problems))

    def read_labels(self, path: Path, case: Case | StoredCase) -> np.ndarray:
        """A label map in the codes of the case's year -> (X, Y, Z) uint8 canonical, LPS.

        Raises:
            DataError: a damaged file, another grid than the case's, or a label that the data set's
                code does not have.

        Warns:
            BratsWarning: a header that is odd, or labels that were rounded.
        """
        if isinstance(case, StoredCase):
            grid = np.broadcast_to(np.uint8(0), case.full_shape)
            shape = nifti.restore(grid, case.axis_codes).shape
            nifti.check_grid(path, shape, case.affine, of=case.id)
        else:
            reference = case.labels or case.images[0]
            header = nifti.read_header(reference)
            nifti.check_grid(path, header.shape, header.affine, of=reference)
        volume = nifti.load(path)
        codes, remark = _whole_numbers(volume)
        for text in (*volume.header.remarks, *([remark] if remark else [])):
            warnings.warn(text, BratsWarning, stacklevel=2)
        try:
            labels = to_canonical(codes, case.dataset, path)
        except DataError as error:
            remedy = f"Number the labels as {case.dataset} does."
            raise checks.with_remedy(error, remedy) from error
        return nifti.reorient(labels, volume.header.affine)

    def read_annotation(self, case: Case) -> tuple[np.ndarray, tuple[float, float, float]]:
        """The segmentation alone, and its spacing in mm."""
        assert case.labels is not None, case.id
        affine = nifti.read_header(case.labels).affine
        spacing_mm = lps_spacing_mm(affine, nifti.axis_codes(affine))
        return self.read_labels(case.labels, case), spacing_mm

    def write_labels(self, path: Path, labels: np.ndarray, case: StoredCase) -> None:
        """Write canonical labels as a NIfTI file that overlays the case's own files.

        It has the label codes of the case's year, the axis order and affine of its files, and the
        type uint8. The file is written completely or not at all.

        Args:
            path: a new or existing .nii or .nii.gz.
            labels: (X, Y, Z) uint8 canonical codes on the case's full grid, LPS.
            case: the case that was labelled.

        Raises:
            ValueError: the labels are not on the full grid.
            DataError: the folder cannot be written.
        """
        if labels.shape != tuple(case.full_shape):
            raise ValueError(
                f"labels: found shape {labels.shape}, expected {tuple(case.full_shape)}, "
                f"the full grid of {case.id}."
            )
        codes = to_dataset_labels(labels, case.dataset)
        on_disk = nifti.restore(codes, case.axis_codes)
        nifti.write_volume(path, on_disk, case.affine, dtype=np.uint8)


def to_canonical(labels: np.ndarray, dataset: str, where: Path | str) -> np.ndarray:
    """Convert labels from the codes of a data set, of any shape and type, to canonical uint8.

    Args:
        labels: the codes on disk.
        dataset: the data set that defines the codes, such as "BraTS2021".
        where: the file that holds the labels, for the message.

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


def to_dataset_labels(labels: np.ndarray, dataset: str) -> np.ndarray:
    """Convert canonical labels of any shape to uint8 in the codes of a data set, for writing.

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


# What lies on disk


@dataclass
class _Found:
    """The files of a case: role -> paths; more than one path if a file occurs twice."""

    layout: _Layout
    id: str
    folder: Path
    files: dict[str, list[Path]]

    @property
    def wanted(self) -> dict[str, str]:
        """Role -> file name without suffix."""
        return {role: name.format(id=self.id) for role, name in self.layout.names.items()}


@dataclass(frozen=True)
class _Unread:
    """What lies in a folder and is not read.

    Attributes:
        folder: where it lies.
        files: in other formats than NIfTI; empty where a case's folder has none at all.
        cases: ids of the cases that were not found because of it.
    """

    folder: Path
    files: list[Path]
    cases: set[str]


@dataclass(frozen=True)
class _Scan:
    folder: Path
    cases: list[_Found]
    unknown: list[Path]
    unread: list[_Unread]


def _scan(folder: Path) -> _Scan:
    folder = Path(os.path.abspath(folder))
    remedy = "Give the folder that holds the cases."
    checks.require_folder(folder, expected="a folder with BraTS cases", remedy=remedy)
    cases: dict[tuple[str, str, Path], _Found] = {}
    unknown: list[Path] = []
    with checks.readable_folders():
        files = sorted(_nifti_files(folder), key=itemgetter(2))
    for parent, stem, path in files:
        known = _classify(parent, stem)
        if known is None:
            unknown.append(path)
            continue
        layout, case_id, role, home = known
        key = (layout.dataset, case_id, home)
        found = cases.setdefault(key, _Found(layout, case_id, home, {}))
        found.files.setdefault(role, []).append(path)
    known_cases = [cases[key] for key in sorted(cases)]
    with checks.readable_folders():
        unread = [*_unread(folder, {found.id.casefold() for found in known_cases})]
    return _Scan(folder, known_cases, unknown, unread)


def _require_cases(scan: _Scan) -> None:
    """Refuse a folder without cases, and warn of cases that are passed over."""
    if not scan.cases:
        raise checks.with_trees(_nothing_found(scan), _trees(scan, []))
    if text := _passed_over(scan):
        listed = f"`keras-medseg check {scan.folder}` names the folders."
        warnings.warn(f"{text} {listed}", BratsWarning, stacklevel=3)


def _unread(folder: Path, known: set[str]) -> Iterator[_Unread]:
    """Files in other formats, and folders with the name of a case of which nothing was found.

    Args:
        folder: and those below it.
        known: ids of the cases that were found, in lower case.
    """
    for parent, inside in checks.walk(folder, MAX_DEPTH):
        inside[:] = [path for path in inside if _stem(path.name) is None]
        if any(path.name == MANIFEST for path in inside):
            continue  # a store
        files = [path for path in inside if not (path.is_dir() or foreign.is_text(path))]
        stems = [foreign.stem(path.name) for path in files]
        named = [_classify(parent, stem) for stem in stems]
        ids = {found[1] for found in named if found is not None}
        ids |= {stem for stem in (parent.name, *stems) if _is_case_id(stem)}
        lost = {id for id in ids if id.casefold() not in known}
        # An archive that lies beside the cases was unpacked.
        at_home = _is_case_id(parent.name)
        kept = [
            path
            for path, stem in zip(files, stems)
            if stem in lost or foreign.is_volume(path) or (at_home and not foreign.is_archive(path))
        ]
        if lost or kept:
            yield _Unread(parent, kept, lost)


def _is_case_id(name: str) -> bool:
    return any(re.fullmatch(layout.case, name, re.IGNORECASE) for layout in _BY_NAME)


def _passed_over(scan: _Scan) -> str:
    """One line on the cases that are not read, or nothing."""
    lost = sorted(set().union(*(unread.cases for unread in scan.unread)))
    if not lost:
        return ""
    names = ", ".join(lost[:4]) + (", ..." if len(lost) > 4 else "")
    files = [path for unread in scan.unread if unread.cases for path in unread.files]
    found = f"{checks.plural(len(lost), 'case')} without NIfTI files ({names})"
    if files:
        found += f": {foreign.counted(files)}"
    return (
        f"{scan.folder}: found {found}, expected .nii or .nii.gz. They are passed over beside "
        f"{checks.plural(len(scan.cases), 'case')} that are read."
    )


def _unread_problem(unread: _Unread) -> Problem:
    """A warning that says what lies in a folder and is not read."""
    found = foreign.counted(unread.files) or "no NIfTI file"
    cost = f"; {', '.join(sorted(unread.cases))} is passed over" if unread.cases else ""
    remedy = foreign.remedies(unread.files) if unread.files else "Fetch the case again."
    text = f"{unread.folder}: found {found}, expected .nii or .nii.gz{cost}. {remedy}"
    return Problem("-", unread.folder, text, "warning")


def _nifti_files(folder: Path) -> Iterator[tuple[Path, str, Path]]:
    """(folder, name without suffix, path) of all NIfTI files at most MAX_DEPTH folders below."""
    for parent, inside in checks.walk(folder, MAX_DEPTH):
        named = [(path, stem) for path in inside if (stem := _stem(path.name)) is not None]
        inside[:] = [path for path in inside if _stem(path.name) is None]
        for path, stem in named:
            # Some unpackers turn x_flair.nii.gz into a folder x_flair.nii with one file inside.
            unpacked = checks.entries(path) if path.is_dir() else []
            files = [file for file in unpacked if _stem(file.name)]
            yield parent, stem, files[0] if len(files) == 1 else path


def _stem(name: str) -> str | None:
    for suffix in foreign.NIFTI:
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
    tumor = name_mapping.grade(found.id, found.folder)
    return Case(found.id, found.layout.dataset, images, labels, _group(found), tumor)


def _group(found: _Found) -> str:
    match = re.fullmatch(found.layout.case, found.id, re.IGNORECASE)
    patient = match["patient"] if match else found.id
    if found.layout.dataset == "BraTS2021":
        return f"GLI-{patient}"
    # 2018 numbered the collections of 2017: TCIA_101 became TCIA02_101.
    return re.sub(r"^TCIA\d+_", "TCIA_", patient)


def _file_errors(scan: _Scan, *, labelled: bool) -> list[list[DataError]]:
    """For each case, errors for files that are missing or occur twice.

    With `labelled`, a missing segmentation is an error if another case of the same collection has
    one; validation sets have none at all.
    """
    crowded = Counter(found.folder for found in scan.cases)
    collections = [_collection(found, crowded) for found in scan.cases]
    with_labels = {c for c, found in zip(collections, scan.cases) if _SEG in found.files}
    homes: dict[tuple[str, str], Path] = {}
    errors: list[list[DataError]] = []
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
    """The folder whose cases must either all have segmentations or all have none."""
    if found.layout is _DECATHLON:
        return found.files["image"][0].parent if "image" in found.files else found.folder
    return found.folder if crowded[found.folder] > 1 else found.folder.parent


def _case_file_errors(found: _Found, wanted: Sequence[str]) -> Iterator[DataError]:
    missing = [found.wanted[role] for role in wanted if role not in found.files]
    if missing:
        names = ", ".join(f"no {name}.nii.gz" for name in missing)
        expected = f"{len(wanted)} files (.nii or .nii.gz): {', '.join(wanted)}"
        remedy = f"Add what is missing, or move case {found.id} elsewhere."
        yield DataError(found.folder, found=names, expected=expected, remedy=remedy)
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
    others = checks.files_below(scan.folder, MAX_DEPTH)
    others = [path for path in others if not foreign.is_text(path) and _stem(path.name) is None]
    return DataError(
        scan.folder,
        found=checks.plural(len(scan.unknown), "NIfTI file")
        + (f", {foreign.counted(others)}" if others else "")
        + " and no case with a name of BraTS",
        expected=f"cases of {', '.join(_LAYOUTS)} as .nii or .nii.gz, at most {MAX_DEPTH} folders "
        "below",
        remedy="Give the folder of the cases, with the files named as they were published."
        + (f" {foreign.remedies(others)}" if others else ""),
    )


# What the files hold


def _read(case: Case) -> Reading:
    reading = Reading()
    dimensions = 4 if case.dataset == _DECATHLON.dataset else 3
    load = partial(nifti.load, dimensions=dimensions)
    volumes = [reading.load(load, path) for path in case.images]
    truth = None if case.labels is None else reading.load(nifti.load, case.labels)
    loaded = [volume for volume in (*volumes, truth) if volume is not None]
    for volume in loaded[1:]:
        reading.errors += _geometry_errors(loaded[0].header, volume.header)
    images = [volume for volume in volumes if volume is not None]
    for volume in images:
        errors = [*_brain_errors(volume)]
        reading.errors += errors
        remarks = volume.header.remarks if errors else _image_remarks(volume)
        reading.remarks += [(volume.header.path, remark) for remark in remarks]
    if truth is not None:
        reading.labels = _read_labels(truth, case.dataset, reading)
    if images and not reading.errors:
        affine = images[0].header.affine
        image = _stack([volume.array for volume in images], affine)
        codes = nifti.axis_codes(affine)
        reading.arrays = CaseArrays(image, reading.labels, affine, codes)
    return reading


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
        channels = [*np.moveaxis(array, 3, 0)]
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


def _image_remarks(volume: nifti.Volume) -> tuple[str, ...]:
    """What is odd about a sound image: its header, its voxels, its background."""
    path, array = volume.header.path, volume.array
    channels = {"": array} if array.ndim == 3 else dict(zip("0123", np.moveaxis(array, 3, 0)))
    constant = len(volume.remarks) > len(volume.header.remarks)
    if constant:
        return volume.remarks
    remarks = (background_remark(values, path, name) for name, values in channels.items())
    return (*volume.remarks, *filter(None, remarks))


def _whole_numbers(volume: nifti.Volume) -> tuple[np.ndarray, str]:
    """Label codes, rounded where a header's scaling has moved them, and what is to be said of it.

    What lies between two codes, as interpolation leaves it, stays as it is and is refused later.
    """
    array = volume.array
    if array.dtype.kind != "f":
        return array, ""
    rounded = np.rint(array)
    apart = float(np.abs(array - rounded).max())
    if not 0 < apart <= _ROUNDING:
        return array, ""
    found = f"found labels up to {apart:.2g} beside whole numbers, expected whole ones"
    return rounded, f"{volume.header.path}: {found}. They are rounded; save them as integers."


def _read_labels(truth: nifti.Volume, dataset: str, reading: Reading) -> np.ndarray | None:
    path = truth.header.path
    codes, remark = _whole_numbers(truth)
    try:
        labels = to_canonical(codes, dataset, path)
    except DataError as error:
        reading.errors.append(error)
        return None
    remarks = truth.remarks
    if not labels.any():
        found = "found no tumor voxel, expected a segmentation"
        remarks = (
            *truth.header.remarks,
            f"{path}: {found}. Leave the case out if its tumor was not drawn.",
        )
    reading.remarks += [(path, text) for text in (*remarks, remark) if text]
    return nifti.reorient(labels, truth.header.affine)


def _stack(arrays: Sequence[np.ndarray], affine: np.ndarray) -> np.ndarray:
    """Modalities (X, Y, Z), or one (X, Y, Z, C), in file order -> (X, Y, Z, C) in LPS."""
    channels = [*np.moveaxis(arrays[0], 3, 0)] if arrays[0].ndim == 4 else arrays
    lossless = all(_fits_int16(channel) for channel in channels)
    views = [nifti.reorient(channel, affine) for channel in channels]
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
    digests: list[tuple[Path, bytes]] = []
    if reading.arrays is not None:
        channels = np.moveaxis(reading.arrays.image, 3, 0)
        paths = case.images if len(case.images) == len(channels) else case.images * len(channels)
        digests = [(path, checks.digest(channel)) for path, channel in zip(paths, channels)]
    if case.labels is not None and reading.labels is not None and reading.labels.any():
        digests.append((case.labels, checks.digest(reading.labels)))
    return reading.inspection(case.id, digests)


def _unknown_file(path: Path) -> Problem:
    text = f"{path}: found a NIfTI file, expected a name of BraTS. It is ignored; rename it."
    return Problem("-", path, text, "warning")


_SHOWN = 12


def _trees(scan: _Scan, problems: Sequence[Problem]) -> str:
    """The expected tree beside the one found, in two columns, less than 100 characters wide.

    It shows the cases with errors or, without errors, the first case of each data set.
    """
    if not scan.cases:
        return checks.beside_listing([*_examples()], scan.folder)
    rows: list[tuple[str, str]] = []
    errors = [problem for problem in problems if problem.severity == "error"]
    ids, paths = {error.case_id for error in errors}, {error.path for error in errors}
    broken = [found for found in scan.cases if found.id in ids]
    firsts = {found.layout.dataset: found for found in reversed(scan.cases)}
    for found in broken[:_SHOWN] or [*reversed(firsts.values())]:
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
    """The files of an example case of every year; years with the same names appear once."""
    for _, layouts in groupby(_LAYOUTS.values(), key=lambda layout: layout.names):
        for layout in layouts:
            folder = "Task01_BrainTumour" if layout is _DECATHLON else layout.example
            yield f"{layout.dataset + ':':11}{folder}/"
        for name in layout.names.values():
            yield f"{'':12}{name.format(id=layout.example)}.nii.gz"
