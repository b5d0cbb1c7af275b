"""BraTS from 2015 to 2025 and the brain tumors of the Decathlon, recognized by their file names.

A case is recognized by its file names, up to MAX_DEPTH folders below the given one, which may be a
case, HGG or LGG, one year, or a mixture of years. The label codes follow from the release and never
from the labels found: 27 of the 368 cases of 2020 have no enhancing tumor. _brats_releases.py has
the releases; a folder with cases of several that differ in their labels, or of one that its names
leave open, is refused with the choice to make.

BraTS2015 are the files VSD.Brain... after conversion from .mha to NIfTI. BraTS2023 are the gliomas
of 2023, and those before treatment of 2025.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from keras_medseg.data import checks, patients
from keras_medseg.data.background import background_remark
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.checks import CheckReport, Inspection, Problem, Progress, Reading
from keras_medseg.data.datasets import _brats_releases as releases
from keras_medseg.data.datasets import _volumes
from keras_medseg.data.datasets._brats_releases import (
    BACKGROUND,
    CYST,
    EDEMA,
    ENHANCING,
    GROSS_TUMOR,
    MODALITIES,
    NECROTIC,
    REGIONS,
    RESECTION,
    TARGETS,
)
from keras_medseg.data.datasets.base import GLIOMAS_2023, Codes, Dataset, LesionRule, Listing
from keras_medseg.data.formats import foreign, nifti
from keras_medseg.data.formats.foreign import nifti_stem
from keras_medseg.data.store import MANIFEST, StoredCase
from keras_medseg.errors import DataError, plural, require_choice

__all__ = (
    "BACKGROUND", "CYST", "EDEMA", "ENHANCING", "GROSS_TUMOR", "MODALITIES", "NECROTIC",
    "REGIONS", "RESECTION", "TARGETS", "Brats", "BratsWarning", "to_canonical",
    "to_dataset_labels",
)  # fmt: skip

MAX_DEPTH = 6

_OF_MASKS = ("dice", "sensitivity", "specificity", "hd95_mm")
_SEG = releases.SEG
_BY_NAME = (*releases.DECIDED, *releases.OPEN)
_LAYOUTS = releases.LAYOUTS
_DECATHLON = releases.DECATHLON
_DECATHLON_ROLES = {"imagesTr": "image", "imagesTs": "image", "labelsTr": _SEG}
_2015_FILE = re.compile(r"VSD\.Brain\w*\.XX\.O\.(MR_Flair|MR_T1c?|MR_T2|OT)\b.*", re.IGNORECASE)
_2015_ROLES = dict(zip(("mr_flair", "mr_t1", "mr_t1c", "mr_t2", "ot"), (*MODALITIES, _SEG)))
# The name of this one segmentation in a widespread copy of the 2020 training data.
_MISNAMED = ("BraTS20_Training_355", "W39_1998.09.19_Segm")


class BratsWarning(UserWarning):
    """A case that can be used but is unusual."""


@dataclass(frozen=True)
class Brats(Dataset):
    """BraTS and the Decathlon's brain tumors: nested regions, NIfTI.

    Attributes:
        release: reads this release alone, one of `aliases`, with its labels and regions. By default
            all releases with the three usual labels are read.
        spacing_mm: voxel size along x, y, z to which cases are resampled; () for none.
    """

    suffix: ClassVar[str] = ".nii.gz"
    elements: ClassVar[str] = "voxels"
    aliases: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"release": name} for name in _LAYOUTS
    }

    release: str = ""
    spacing_mm: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.release:
            require_choice("release", self.release, _LAYOUTS)
        object.__setattr__(self, "spacing_mm", _volumes.require_spacing(self.spacing_mm))

    @property
    def _labels(self) -> releases.Labels:
        return _LAYOUTS[self.release].labels if self.release else releases.USUAL

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of the challenge until 2022; of a chosen release from 2023 on, of lesions, too."""
        if self.release in releases.LESION_RULES:
            return (*_OF_MASKS, "lesion_dice", "lesion_hd95_mm")
        return _OF_MASKS

    def lesion_rule(self, case: Case | StoredCase) -> LesionRule:
        """The rule of the challenge that the case is of; of an earlier case, that of 2023."""
        if case.dataset not in releases.LESION_RULES:
            return GLIOMAS_2023
        return LesionRule(*releases.LESION_RULES[case.dataset], _volumes.axis_codes_of(case))

    @property
    def channels(self) -> tuple[str, ...]:
        """The four modalities, or T1ce alone in MEN-RT."""
        return self._labels.channels

    @property
    def nesting(self) -> Mapping[str, int]:
        """WT, TC and ET, one inside the other."""
        return self._labels.nesting

    @property
    def labels(self) -> Mapping[int, str]:
        """Edema, necrotic (and non-enhancing) and enhancing tumor, and what a release has more."""
        return self._labels.names

    @property
    def regions(self) -> Mapping[str, Codes]:
        """The challenge's regions."""
        return self._labels.regions

    @property
    def targets(self) -> Mapping[str, Codes]:
        """The regions, necrosis and edema."""
        return self._labels.targets

    @classmethod
    def recognizes(cls, folder: Path) -> bool:
        """Whether a NIfTI file in or below `folder` has a name of BraTS or the Decathlon."""
        if not folder.is_dir():
            return False
        with checks.readable_folders():
            files = _nifti_files(Path(os.path.abspath(folder)))
            return any(_classify(parent, stem) is not None for parent, stem, _ in files)

    @classmethod
    def options_of(cls, folder: Path, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The release, if its labels are other than the usual ones."""
        if "release" in chosen:
            return {}
        layouts = {found.layout.dataset: found.layout for found in _scan(folder).cases}
        unusual = [layout for layout in layouts.values() if layout.labels is not releases.USUAL]
        if len(layouts) == 1 and unusual and not unusual[0].choices:
            return {"release": unusual[0].dataset}
        for error in _release_errors(folder, layouts.values(), ""):
            raise error
        return {}

    @classmethod
    def layout_examples(cls) -> list[str]:
        """The files of one case of every year; years with the same names appear once."""
        return [*releases.examples()]

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
        scan = _scan(folder, self.release)
        layouts = {found.layout.dataset: found.layout for found in scan.cases}
        checks.raise_first(folder, _release_errors(folder, layouts.values(), self.release))
        checks.raise_first(folder, [*chain.from_iterable(_file_errors(scan, labelled=labelled))])
        _require_cases(scan)
        cases = [_case(found) for found in scan.cases]
        if labelled:
            cases = checks.labelled_cases(folder, cases, noun="case", labels="segmentations")
        return Listing(_by_patient(folder, cases))

    def find_complete(self, folder: Path) -> tuple[Listing, list[DataError]]:
        """The cases with all their images, and the errors of the others.

        Any release with the modalities of this one is taken: annotations do not matter here. Label
        maps of a chosen `release` are written in its codes, other ones in those of the case.
        """
        scan = _scan(folder, self.release)
        _require_cases(scan)
        errors = _file_errors(scan, labelled=False)
        for found, wrong in zip(scan.cases, errors):
            if found.layout.labels.channels != self.channels:
                expected = f"the modalities {', '.join(self.channels)}"
                remedy = "Move the case elsewhere."
                text = f"case {found.id} of {found.layout.dataset}"
                wrong.append(DataError(found.folder, found=text, expected=expected, remedy=remedy))
            elif found.layout.choices and not self.release:
                wrong += _release_errors(found.folder, [found.layout], "")
        complete = [_case(found) for found, wrong in zip(scan.cases, errors) if not wrong]
        if self.release:
            complete = [replace(case, dataset=self.release) for case in complete]
        complete = _by_patient(folder, complete)
        return Listing(complete), [*chain.from_iterable(errors)]

    def find_annotations(self, folder: Path) -> Listing:
        """As `find`; a folder of segmentations alone will do, too.

        Raises:
            DataError: as `find`.
        """
        scan = _scan(folder, self.release)
        if not scan.cases or any({*found.files} != {_SEG} for found in scan.cases):
            return self.find(folder)
        layouts = {found.layout.dataset: found.layout for found in scan.cases}
        checks.raise_first(folder, _release_errors(folder, layouts.values(), self.release))
        twice = chain.from_iterable(_case_file_errors(found, [_SEG]) for found in scan.cases)
        checks.raise_first(folder, [*twice])
        return Listing(_by_patient(folder, [_case(found) for found in scan.cases]))

    def read(self, case: Case) -> CaseArrays:
        """Read one case: modalities in the order of `channels`, labels in canonical codes.

        Returns:
            image (X, Y, Z, C) in LPS, int16 if that loses nothing, otherwise float32; labels
            (X, Y, Z) uint8 or None. In memory x runs fastest and the channel slowest, as on disk.
            Both have the voxel size `spacing_mm`, if one is given.

        Raises:
            DataError: a file that is damaged, or does not fit the other files of the case; a
                modality without brain voxels; a label that the data set's code does not have.

        Warns:
            BratsWarning: no tumor in the segmentation, or an unusual file (see nifti.py).
        """
        return _volumes.resampled(_read(case).result(BratsWarning), self.spacing_mm)

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
        scan = _scan(folder, self.release)
        file_errors = _file_errors(scan, labelled=True)
        layouts = {found.layout.dataset: found.layout for found in scan.cases}
        of_release = _release_errors(scan.folder, layouts.values(), self.release)
        problems = [checks.error_of("-", error) for error in of_release]
        problems += [_unknown_file(path) for path in scan.unknown]
        problems += [_unread_problem(unread) for unread in scan.unread]
        if scan.cases and (text := _passed_over(scan)):
            problems.append(Problem("-", scan.folder, text, "warning"))
        for found, errors in zip(scan.cases, file_errors):
            problems += [checks.error_of(found.id, error) for error in errors]
        cases = [_case(found) for found in scan.cases]
        if of_release:  # what the labels mean is open
            cases = [replace(case, labels=None) for case in cases]
        problems += checks.inspect_all(
            cases, _inspect, elements=self.elements, workers=workers, progress=progress
        )
        if not cases:
            problems.append(checks.error_of("-", _nothing_found(scan)))
        complete = [case for case, errors in zip(cases, file_errors) if not errors]
        complete = _by_patient(scan.folder, complete)
        return CheckReport(scan.folder, complete, problems, _trees(scan, problems))

    def read_labels(self, path: Path, case: Case | StoredCase) -> np.ndarray:
        """A label map in the codes of the case's year -> (X, Y, Z) uint8 canonical, LPS.

        Raises:
            DataError: a damaged file, another grid than the case's, or a label that the data set's
                code does not have.

        Warns:
            BratsWarning: a header that is odd, or labels that were rounded.
        """
        _volumes.check_grid(path, case)
        volume = nifti.load(path)
        codes, remark = _volumes.whole_numbers(volume)
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
        return self.read_labels(case.labels, case), _volumes.spacing_of(case.labels)

    def codes_on_disk(self, labels: np.ndarray, dataset: str) -> np.ndarray:
        """Canonical labels in the codes of a release, such as 4 for the enhancing tumor of 2021."""
        return to_dataset_labels(labels, dataset)

    def write_labels(self, path: Path, labels: np.ndarray, case: StoredCase) -> None:
        """Write canonical labels as a NIfTI file that overlays the case's own files.

        It has the label codes of the case's release; everything else is as in
        `_volumes.write_codes`.

        Args:
            path: a new or existing .nii or .nii.gz.
            labels: (X, Y, Z) uint8 canonical codes on the grid of the case's own files, LPS.
            case: the case that was labelled.

        Raises:
            ValueError: the labels are not on the full grid.
            DataError: the folder cannot be written.
        """
        _volumes.write_codes(path, self.codes_on_disk(labels, case.dataset), case)


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
        raise DataError(
            where,
            found=f"label {_volumes.listed(*np.unique(labels[wrong], return_counts=True))}",
            expected=f"the labels {', '.join(map(str, sorted(codes)))} of {dataset}",
            remedy="Check that the file is a segmentation of that year (later ones may have other "
            "labels), and fetch it again.",
        )
    return canonical


def to_dataset_labels(labels: np.ndarray, dataset: str) -> np.ndarray:
    """Convert canonical labels of any shape to uint8 in the codes of a data set, for writing.

    Raises:
        ValueError: an unknown data set, or a label that it does not have.
    """
    if dataset not in _LAYOUTS:
        raise ValueError(f"dataset: found {dataset!r}, expected one of {', '.join(_LAYOUTS)}.")
    highest = max(_LAYOUTS[dataset].codes.values())
    if labels.size and not (labels.min() >= BACKGROUND and labels.max() <= highest):
        raise ValueError(
            f"labels: found {labels.min()} to {labels.max()}, expected {BACKGROUND} to "
            f"{highest}. Pass canonical labels of {dataset}."
        )
    table = np.zeros(highest + 1, np.uint8)
    for code, label in reversed(_LAYOUTS[dataset].codes.items()):
        table[label] = code
    return table[labels.astype(np.uint8)]


# What lies on disk


@dataclass
class _Found:
    """The files of a case: role -> paths; more than one path if a file occurs twice."""

    layout: releases.Layout
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


def _scan(folder: Path, release: str = "") -> _Scan:
    folder = Path(os.path.abspath(folder))
    remedy = "Give the folder that holds the cases."
    checks.require_folder(folder, expected="a folder with BraTS cases", remedy=remedy)
    cases: dict[tuple[str, str, Path], _Found] = {}
    unknown: list[Path] = []
    with checks.readable_folders():
        files = sorted(_nifti_files(folder), key=itemgetter(2))
    for parent, stem, path in files:
        known = _classify(parent, stem, release)
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
        inside[:] = [path for path in inside if nifti_stem(path.name) is None]
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
    found = f"{plural(len(lost), 'case')} without NIfTI files ({names})"
    if files:
        found += f": {foreign.counted(files)}"
    return (
        f"{scan.folder}: found {found}, expected .nii or .nii.gz. Passed over; "
        f"{plural(len(scan.cases), 'case')} can be read."
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
        named = [(path, stem) for path in inside if (stem := nifti_stem(path.name)) is not None]
        inside[:] = [path for path in inside if nifti_stem(path.name) is None]
        for path, stem in named:
            # Some unpackers turn x_flair.nii.gz into a folder x_flair.nii with one file inside.
            unpacked = checks.entries(path) if path.is_dir() else []
            files = [file for file in unpacked if nifti_stem(file.name)]
            yield parent, stem, files[0] if len(files) == 1 else path


def _classify(
    folder: Path, stem: str, release: str = ""
) -> tuple[releases.Layout, str, str, Path] | None:
    """Layout, case id, role and case folder of a NIfTI file, or None."""
    if folder.name in _DECATHLON_ROLES and re.fullmatch(_DECATHLON.case, stem):
        return _DECATHLON, stem, _DECATHLON_ROLES[folder.name], folder.parent
    if match := _2015_FILE.fullmatch(stem):
        home = folder.parent if folder.name.startswith("VSD.") else folder
        return releases.OF_2015, home.name, _2015_ROLES[match[1].casefold()], home
    if (folder.name, stem) == _MISNAMED:
        return _LAYOUTS["BraTS2020"], folder.name, _SEG, folder
    known = releases.named(folder, stem, release)
    return None if known is None else (*known, folder)


def _case(found: _Found) -> Case:
    """The case with the files that are there."""
    images = tuple(found.files[role][0] for role in found.layout.images if role in found.files)
    labels = found.files.get(_SEG, [None])[0]
    # The releases until 2019 have a folder for each grade.
    above = [folder.name.upper() for folder in (found.folder, *found.folder.parents)[:4]]
    grade = next((name for name in above if name in patients.GRADES), "")
    return Case(found.id, found.layout.dataset, images, labels, _group(found), grade)


def _group(found: _Found) -> str:
    match = re.fullmatch(found.layout.case, found.id, re.IGNORECASE)
    patient = match["patient"] if match else found.id
    if found.layout.dataset == "BraTS2021":
        return f"GLI-{patient}"
    # 2018 numbered the collections of 2017: TCIA_101 became TCIA02_101.
    return re.sub(r"^TCIA\d+_", "TCIA_", patient)


def _by_patient(folder: Path, cases: Sequence[Case]) -> list[Case]:
    """The cases, with what the organizers' tables say of their patients and grades."""
    return patients.by_patient(cases, patients.tables(folder, MAX_DEPTH), _patient)


def _patient(case_id: str) -> str:
    for layout in _BY_NAME:
        if re.fullmatch(layout.case, case_id, re.IGNORECASE):
            return _group(_Found(layout, case_id, Path(), {}))
    return case_id


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
        errors.append([*_case_file_errors(found, wanted)])
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


def _release_errors(
    folder: Path, layouts: Iterable[releases.Layout], release: str
) -> list[DataError]:
    """Why the releases in a folder cannot be read together, or with the chosen release's labels."""
    there = {layout.dataset: layout for layout in layouts}
    names = sorted(there)
    others = [there[name] for name in names if name != release]
    still_open = [layout for layout in others if layout.choices]
    usual = all(layout.labels is releases.USUAL for layout in others)
    if not others or (usual and not release and not still_open):
        return []
    if still_open and not release:
        return [_open_error(folder, still_open[0])]
    found, expected = f"cases of {' and '.join(names)}", "one release with its labels"
    if release:
        expected = f"those of {release} alone"
    elif len(names) == 1:
        expected = f"its labels to be asked for ({_meaning(names[0])})"
    remedy = "Give the folder of one of them, or --dataset with its name."
    if len(names) == 1:
        remedy = f"Give `--dataset {names[0]}` (in a recipe data.options.release)."
    elif {"BraTS2023", "BraTS2024-GLI"} >= set(names):
        remedy = (
            "Give the folder of one of the two, or `--dataset BraTS2025-GLI` to read both with "
        )
        remedy += "the cavity as a label (in a recipe data.options.release)."
    return [DataError(folder, found=found, expected=expected, remedy=remedy)]


def _open_error(folder: Path, layout: releases.Layout) -> DataError:
    first, second = layout.choices
    return DataError(
        folder,
        found=f"cases of {layout.dataset}, whose names do not tell {first} from {second}",
        expected=f"to know, because labels differ: {_meaning(first)}; {_meaning(second)}",
        remedy=f"Give `--dataset {first}` or `--dataset {second}` (in a recipe "
        "data.options.release), or name the folder as it was published.",
    )


def _meaning(release: str) -> str:
    """The labels of a release in a few words."""
    layout = _LAYOUTS[release]
    names = {code: layout.labels.names.get(label) for code, label in layout.codes.items()}
    listed = ", ".join(f"{code} {name}" for code, name in sorted(names.items()) if name)
    return f"{release} has {listed}"


def _nothing_found(scan: _Scan) -> DataError:
    others = checks.files_below(scan.folder, MAX_DEPTH)
    others = [
        path for path in others if not foreign.is_text(path) and nifti_stem(path.name) is None
    ]
    return DataError(
        scan.folder,
        found=plural(len(scan.unknown), "NIfTI file")
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
        reading.errors += _volumes.geometry_errors(loaded[0].header, volume.header)
    images = [volume for volume in volumes if volume is not None]
    for volume in images:
        errors = [*_brain_errors(volume)]
        reading.errors += errors
        remarks = volume.header.remarks if errors else _image_remarks(volume)
        reading.remarks += [(volume.header.path, remark) for remark in remarks]
    if truth is not None:
        reading.labels = _read_labels(truth, case.dataset, reading)
    if images and not reading.errors:
        header = images[0].header
        affine = header.affine
        image = _volumes.stack([volume.array for volume in images], affine)
        codes = nifti.axis_codes(affine)
        reading.arrays = CaseArrays(image, reading.labels, affine, codes, forms=header.forms)
    return reading


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


def _read_labels(truth: nifti.Volume, dataset: str, reading: Reading) -> np.ndarray | None:
    path = truth.header.path
    codes, remark = _volumes.whole_numbers(truth)
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
        return checks.beside_listing([*releases.examples()], scan.folder)
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
