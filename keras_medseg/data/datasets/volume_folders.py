"""Volumes of any kind: a folder of nnU-Net or the Decathlon, or NIfTI files listed in a table.

| folder | cases |
|---|---|
| `dataset.json`, imagesTr/x_0000.nii.gz, x_0001.nii.gz, labelsTr/x.nii.gz | nnU-Net 1 and 2 |
| `dataset.json` that lists imagesTr/x.nii.gz (one file, all channels) | Decathlon |
| `dataset.json` with "dataset": {"x": {"images": [...], "label": ...}} | nnU-Net 2 |
| `cases.csv`: id, a column per modality, maybe label, group, split; `labels.json` | your own |

A `cases.csv` beside a `dataset.json` has the columns `id[,group][,split]` alone: nnU-Net knows no
patients. Channels, labels and regions are described in formats/description.py. They are options of
this class; a recipe keeps them, so a run predicts with the channels and labels that it was trained
for. A folder that describes itself in another way than the recipe is refused.

| found | verdict |
|---|---|
| image or label missing, or there twice | error; a modality may be missing if labels.json says so |
| case in the list without its row in cases.csv, or the other way round | error |
| files of a case on different grids | error |
| image without any voxel but 0 | error |
| label code that is not described | error |
| group on several sides of the split | error |
| files in the folders that belong to no case | warning |
| label map without any object; other background than 0 | warning |
"""

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from keras_medseg.data import checks
from keras_medseg.data.background import background_remark
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.checks import CheckReport, Inspection, Problem, Progress, Reading
from keras_medseg.data.datasets import _volumes
from keras_medseg.data.datasets._volume_lists import Scan, scan_folder
from keras_medseg.data.datasets.base import Codes, Dataset, Listing
from keras_medseg.data.formats import description, nifti
from keras_medseg.data.formats.description import DATASET_JSON, Description
from keras_medseg.data.store import StoredCase
from keras_medseg.errors import DataError, plural

_TREE = (
    "dataset.json",
    "imagesTr/x_0000.nii.gz, x_0001.nii.gz, ...",
    "labelsTr/x.nii.gz, ...",
    "or: cases.csv: id,t1,flair,label[,group]",
    "    labels.json",
)


class VolumeWarning(UserWarning):
    """A case that can be used but is unusual."""


@dataclass(frozen=True, eq=False)
class VolumeFolders(Dataset):
    """Volumes of any kind in NIfTI: nnU-Net's or the Decathlon's folders, or a cases.csv.

    Attributes:
        channels: names of the modalities, in their order.
        label_codes: name -> code on disk, without background (0).
        region_codes: what is scored: name -> codes.
        rest_codes: `nesting` of the regions.
        may_miss: modalities that a case may lack; they are 0 then.
        spacing_mm: voxel size along x, y, z to which cases are resampled; () for none.
    """

    suffix: ClassVar[str] = ".nii.gz"
    elements: ClassVar[str] = "voxels"
    metrics: ClassVar[tuple[str, ...]] = ("dice", "sensitivity", "specificity", "hd95_mm")

    channels: tuple[str, ...] = ()
    label_codes: Mapping[str, int] = field(default_factory=dict)
    region_codes: Mapping[str, Codes] = field(default_factory=dict)
    rest_codes: Mapping[str, int] = field(default_factory=dict)
    may_miss: tuple[str, ...] = ()
    spacing_mm: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        regions = {name: tuple(codes) for name, codes in self.region_codes.items()}
        known = set(self.label_codes.values())
        for name, codes in (*regions.items(), *((n, (c,)) for n, c in self.rest_codes.items())):
            if not set(codes) <= known:
                raise ValueError(
                    f"region_codes: found {list(codes)} of {name!r}, expected some of the codes "
                    f"{sorted(known)} of label_codes."
                )
        object.__setattr__(self, "region_codes", regions)
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "may_miss", tuple(self.may_miss))
        object.__setattr__(self, "spacing_mm", _volumes.require_spacing(self.spacing_mm))

    # The order of channels and regions matters, but mappings compare equal in any order.

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VolumeFolders) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def labels(self) -> Mapping[int, str]:
        """Code -> name."""
        return {code: name for name, code in self.label_codes.items()}

    @property
    def regions(self) -> Mapping[str, Codes]:
        """The regions that the folder describes, otherwise each label by itself."""
        return self.region_codes

    @property
    def targets(self) -> Mapping[str, Codes]:
        """The regions, and the labels that are no region."""
        return {**{name: (code,) for name, code in self.label_codes.items()}, **self.region_codes}

    @property
    def nesting(self) -> Mapping[str, int]:
        """Regions with others inside, and the code of their rest."""
        return self.rest_codes

    @classmethod
    def recognizes(cls, folder: Path) -> bool:
        """Whether `folder` has a cases.csv, or a dataset.json that is not of BraTS."""
        with checks.readable_folders():
            images = folder / "imagesTr"
            if not description.describes(folder):
                return False
            if not images.is_dir():  # many other things have a dataset.json
                return (folder / description.CASES_CSV).is_file()
            names = [path.name for path in checks.entries(images)]
            # The brain tumors of the Decathlon are of the kind brats, which knows their codes.
            return not any(re.fullmatch(r"BRATS_\d+\.nii(\.gz)?", name) for name in names)

    @classmethod
    def options_of(cls, folder: Path, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Channels, labels and regions as the folder describes them."""
        if not description.describes(folder) and "channels" in chosen:
            return {}
        return _options(description.read_description(folder))

    @classmethod
    def layout_examples(cls) -> list[str]:
        """The files of nnU-Net's layout, and of a table."""
        return [*_TREE]

    def find(self, folder: Path, *, labelled: bool = True) -> Listing:
        """All cases of `folder`, sorted by id.

        Args:
            folder: with dataset.json or cases.csv.
            labelled: imagesTr (or the rows with a label) alone, each of which must have labels.

        Returns:
            The cases, and their sides if cases.csv has the column split.

        Raises:
            DataError: an error in the module's table, or another description than that of the
                recipe.
        """
        scan = self._scan(folder, labelled=labelled)
        checks.raise_first(folder, scan.errors)
        cases = scan.cases
        if labelled:
            cases = checks.labelled_cases(folder, cases, noun="case", labels="labels")
        return Listing(cases, {c.id: scan.sides[c.id] for c in cases if c.id in scan.sides})

    def find_complete(self, folder: Path) -> tuple[Listing, list[DataError]]:
        """The cases with all their images; a folder of files x_0000.nii.gz needs no description."""
        scan = self._scan(folder, labelled=False)
        if not scan.cases:
            checks.raise_first(folder, scan.errors)
        return Listing(scan.cases), scan.errors

    def read(self, case: Case) -> CaseArrays:
        """Read one case: channels in the order of `channels`, labels in the codes on disk.

        Returns:
            image (X, Y, Z, C) in LPS, int16 if that loses nothing, otherwise float32; labels
            (X, Y, Z) uint8 or None; both with the voxel size `spacing_mm`.

        Raises:
            DataError: an error in the module's table.

        Warns:
            VolumeWarning: a warning in the module's table.
        """
        return _volumes.resampled(self._read(case).result(VolumeWarning), self.spacing_mm)

    def check(
        self, folder: Path, *, workers: int | None = None, progress: Progress | None = None
    ) -> CheckReport:
        """Find all problems of all cases in one go; every file is read to its end.

        Args:
            folder: as in `find`.
            workers: cases read at once; by default one per core, at most 8.
            progress: called with (done, total, case id) after each case.

        Raises:
            DataError: `folder` does not exist.
        """
        remedy = "Give the folder that holds the cases."
        checks.require_folder(folder, expected="a folder with volumes", remedy=remedy)
        trees = checks.beside_listing(self.layout_examples(), folder)
        try:
            scan = self._scan(folder, labelled=False)
        except DataError as error:
            return CheckReport(folder, [], [checks.error_of("-", error)], trees)
        problems = [checks.error_of("-", error) for error in scan.errors]
        problems += [Problem("-", path, text, "warning") for path, text in scan.remarks]
        odd: dict[Path, str] = {}
        problems += checks.inspect_all(
            scan.cases,
            partial(self._inspect_volumes, odd=odd),
            elements=self.elements,
            workers=workers,
            progress=progress,
        )
        if odd:
            first = min(odd)
            text = f"{odd[first]} So in {len(odd)} of {plural(len(scan.cases), 'case')}."
            problems.append(Problem("-", first, text, "warning"))
        return CheckReport(folder, scan.cases, problems, trees)

    def read_labels(self, path: Path, case: Case | StoredCase) -> np.ndarray:
        """A label map on the grid of the case's own files -> (X, Y, Z) uint8, LPS.

        Raises:
            DataError: a damaged file, another grid, or a code that is not described.

        Warns:
            VolumeWarning: a header that is odd, or labels that were rounded.
        """
        _volumes.check_grid(path, case)
        volume = nifti.load(path)
        codes, remark = _volumes.whole_numbers(volume)
        for text in (*volume.header.remarks, *([remark] if remark else [])):
            warnings.warn(text, VolumeWarning, stacklevel=2)
        return nifti.reorient(self._known_codes(codes, path), volume.header.affine)

    def read_annotation(self, case: Case) -> tuple[np.ndarray, tuple[float, float, float]]:
        """The labels on their own grid, and its spacing in mm."""
        assert case.labels is not None, case.id
        return self.read_labels(case.labels, case), _volumes.spacing_of(case.labels)

    def write_labels(self, path: Path, labels: np.ndarray, case: StoredCase) -> None:
        """Write label codes as a NIfTI file that overlays the case's own files; atomically.

        Args:
            path: a new or existing .nii or .nii.gz.
            labels: (X, Y, Z) uint8 on the grid of the case's own files, LPS.
            case: the case that was labelled.

        Raises:
            ValueError: the labels are not on that grid.
            DataError: the folder cannot be written.
        """
        _volumes.write_codes(path, labels, case)

    def _scan(self, folder: Path, *, labelled: bool) -> Scan:
        """All cases of a folder; without `labelled` also those that have no labels.

        Raises:
            DataError: the folder or its description is damaged, or not that of the recipe.
        """
        folder = Path(os.path.abspath(folder))
        remedy = "Give the folder that holds the cases."
        checks.require_folder(folder, expected="a folder with volumes", remedy=remedy)
        with checks.readable_folders():
            if self.channels and not labelled and not description.describes(folder):
                described = Description(folder.name, self.channels, {}, {}, {}, self.may_miss, {})
            else:
                described = description.read_description(folder)
                _require_same(folder, described, self, labelled=labelled)
            scan = scan_folder(folder, described, labelled=labelled)
        if not scan.cases and not scan.errors:
            error = DataError(
                folder,
                found="no cases",
                expected="volumes as .nii or .nii.gz",
                remedy="Give the folder of the cases, with the files named as below.",
            )
            trees = checks.beside_listing(self.layout_examples(), folder)
            scan.errors.append(checks.with_trees(error, trees))
        return scan

    def _read(self, case: Case) -> Reading:
        reading = Reading()
        together = len(case.images) == 1 and len(self.channels) - len(case.missing) > 1
        load = partial(nifti.load, dimensions=4 if together else 3)
        volumes = [reading.load(load, path) for path in case.images]
        truth = None if case.labels is None else reading.load(nifti.load, case.labels)
        loaded = [volume for volume in (*volumes, truth) if volume is not None]
        for volume in loaded[1:]:
            reading.errors += _volumes.geometry_errors(loaded[0].header, volume.header)
        images = [volume for volume in volumes if volume is not None]
        for volume in images:
            reading.errors += self._image_errors(volume, together)
            reading.remarks += [(volume.header.path, text) for text in volume.remarks]
        if truth is not None:
            reading.labels = self._read_truth(truth, reading)
        if images and not reading.errors:
            header = images[0].header
            found = iter(volume.array for volume in images)
            present = [n not in case.missing for n in range(len(self.channels))]
            arrays = [next(found)] if together else [next(found) if p else None for p in present]
            reading.arrays = CaseArrays(
                _volumes.stack(arrays, header.affine),
                reading.labels,
                header.affine,
                nifti.axis_codes(header.affine),
                forms=header.forms,
            )
        return reading

    def _image_errors(self, volume: nifti.Volume, together: bool) -> Iterator[DataError]:
        path, array = volume.header.path, volume.array
        if together and array.shape[3] != len(self.channels):
            found = f"{array.shape[3]} channels"
            expected = f"{len(self.channels)}: {', '.join(self.channels)}"
            yield DataError(path, found=found, expected=expected, remedy="Describe all channels.")
        elif not array.any():
            found, remedy = "an image of zeros", "Fetch it again, or leave it out."
            yield DataError(path, found=found, expected="an image", remedy=remedy)

    def _read_truth(self, truth: nifti.Volume, reading: Reading) -> np.ndarray | None:
        path = truth.header.path
        codes, remark = _volumes.whole_numbers(truth)
        try:
            labels = self._known_codes(codes, path)
        except DataError as error:
            reading.errors.append(error)
            return None
        texts = [*truth.header.remarks, *([remark] if remark else [])]
        if not labels.any():
            texts.append(f"{path}: found no object, expected one. Look whether it was labelled.")
        reading.remarks += [(path, text) for text in texts]
        return nifti.reorient(labels, truth.header.affine)

    def _known_codes(self, codes: np.ndarray, path: Path) -> np.ndarray:
        known = np.zeros(256, bool)
        known[[0, *self.label_codes.values()]] = True
        with np.errstate(invalid="ignore"):
            narrow = codes.astype(np.uint8)
        wrong = ~known[narrow] | (narrow != codes)
        if wrong.any():
            found = f"label {_volumes.listed(*np.unique(codes[wrong], return_counts=True))}"
            expected = f"0 and the described {', '.join(map(str, sorted(self.labels)))}"
            remedy = f"Describe it in {DATASET_JSON} or labels.json, or mend the labels."
            raise DataError(path, found=found, expected=expected, remedy=remedy)
        return narrow

    def _inspect_volumes(self, case: Case, odd: dict[Path, str]) -> Inspection:
        reading = self._read(case)
        digests: list[tuple[Path, bytes]] = []
        if reading.arrays is not None:
            image = reading.arrays.image
            digests = [(case.images[0], checks.digest(image))]
            present = [n for n in range(image.shape[3]) if n not in case.missing]
            remark = background_remark(image[..., present[0]], case.images[0])
            if remark:
                odd[case.images[0]] = remark
        return reading.inspection(case.id, digests)


def _options(described: Description) -> dict[str, Any]:
    return {
        "channels": described.channels,
        "label_codes": described.label_codes,
        "region_codes": described.region_codes,
        "rest_codes": described.nesting,
        "may_miss": described.may_miss,
    }


def _require_same(
    folder: Path, described: Description, kind: VolumeFolders, *, labelled: bool
) -> None:
    """Refuse a folder that describes itself in another way than the recipe does."""
    there, ours = _options(described), {name: getattr(kind, name) for name in _options(described)}
    # Labels and regions do not matter to cases that are predicted.
    names = there if labelled else ("channels",)
    for name in names:
        if there[name] != ours[name]:
            raise DataError(
                folder,
                found=f"{name} {_plain(there[name])}",
                expected=f"{_plain(ours[name])}, as in the recipe (data.options.{name})",
                remedy="Give the data that the recipe was made for, or leave data.options out.",
            )


def _plain(value: Any) -> str:
    return str(dict(value)) if isinstance(value, Mapping) else str(value)
