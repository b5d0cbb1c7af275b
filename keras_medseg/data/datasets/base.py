"""The contract that every kind of data set fulfills.

A kind of data set is one file of this folder with one subclass of `Dataset`. Everything that the
package needs to know about it is in that class; no code outside this folder asks which kind it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from keras_medseg.data import checks
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.checks import CheckReport, Inspection, Progress
from keras_medseg.data.store import StoredCase
from keras_medseg.errors import DataError, require_choice

Codes = tuple[int, ...]
"""The label codes of a region, in the package's own (canonical) numbering."""


@dataclass(frozen=True)
class Listing:
    """The cases of a folder.

    Attributes:
        cases: sorted by data set and id.
        sides: case id -> "training", "validation" or "test", if the data set defines its own split.
    """

    cases: list[Case]
    sides: Mapping[str, str] = field(default_factory=dict)


class LesionRule(NamedTuple):
    """Whose rule scores the single lesions of a case, see `evaluation.lesions`.

    Attributes:
        year: of a BraTS challenge.
        challenge: such as "GLI".
        axis_codes: orientation of the case's files. Rules from 2024 on depend on the order of the
            voxels in the file.
    """

    year: int
    challenge: str
    axis_codes: tuple[str, str, str] = ("L", "P", "S")


GLIOMAS_2023 = LesionRule(2023, "GLI")


@dataclass(frozen=True)
class Dataset(ABC):
    """One kind of data set: which files make a case, what its labels mean, how labels are written.

    Subclasses are frozen dataclasses. Their fields are the options of a kind, each with a default:
    equal options make equal objects, and an object can be sent to the decoding processes. A recipe
    names a kind by the name of its file (`data.dataset`).

    Attributes:
        suffix: of the label maps that are written, ".nii.gz" or ".png".
        elements: what a label map consists of, "voxels" or "pixels".
        aliases: names that `--dataset` takes beside that of the kind -> the options they stand for.
        channels: names of the image channels, in their order; empty if they have no names.
        may_miss: those of them that a case may lack; they are 0 then.
        spacing_mm: voxel size along x, y, z to which volumes are resampled; () for none.
        labels: canonical label code -> its name in figures and reports, without background (0).
        regions: what is scored: name -> codes. Regions may share codes (nested regions).
        targets: what a network can be trained for: the regions, and possibly single labels.
        nesting: nested regions, each before those inside it, with the label code of those of its
            voxels that are in no region inside it. Empty if regions exclude each other.
        metrics: names in `evaluation.metrics.METRICS` that single cases are scored with.
    """

    suffix: ClassVar[str]
    elements: ClassVar[str]
    aliases: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that single cases are scored with."""

    def lesion_rule(self, case: Case | StoredCase) -> LesionRule:
        """The rule that scores the single lesions of a case.

        By default that of gliomas in 2023, which needs nothing but the mask of a region.
        """
        return GLIOMAS_2023

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the image channels."""
        return ()

    @property
    def may_miss(self) -> tuple[str, ...]:
        """Channels that a case may lack."""
        return ()

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size to which volumes are resampled."""
        return ()

    @property
    def nesting(self) -> Mapping[str, int]:
        """Nested regions, each with the label code of what is in no region inside it."""
        return {}

    @property
    @abstractmethod
    def labels(self) -> Mapping[int, str]:
        """Canonical label code -> name, without background."""

    @property
    @abstractmethod
    def regions(self) -> Mapping[str, Codes]:
        """What is scored: name -> label codes."""

    @property
    def targets(self) -> Mapping[str, Codes]:
        """What a network can be trained for: name -> label codes."""
        return self.regions

    @classmethod
    @abstractmethod
    def recognizes(cls, folder: Path) -> bool:
        """Whether the file names in `folder` are those of this kind of data; no file is read."""

    @classmethod
    def options_of(cls, folder: Path, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The options that the files and names in `folder` determine; by default none.

        Args:
            folder: of the cases.
            chosen: the options that are given; they take precedence.

        Raises:
            DataError: they leave it open, or contradict each other.
        """
        return {}

    @classmethod
    @abstractmethod
    def layout_examples(cls) -> list[str]:
        """Lines of at most 46 characters that show how the files must be named."""

    @abstractmethod
    def find(self, folder: Path, *, labelled: bool = True) -> Listing:
        """All cases of `folder`; no voxel is read.

        Args:
            folder: of the data set.
            labelled: leave out sets of cases without any labels, and raise an error for a case
                without labels if other cases of its set have them. With False every case is found.

        Raises:
            DataError: nothing is recognized, or files are missing or occur twice.
        """

    def find_complete(self, folder: Path) -> tuple[Listing, list[DataError]]:
        """Cases to predict, whose annotations do not matter, and what is wrong with the others.

        As written here, an error of `find` is raised. A subclass that can tell the cases apart
        overrides this, so that one case does not keep the others back.

        Raises:
            DataError: nothing recognized.
        """
        return self.find(folder, labelled=False), []

    def find_annotations(self, folder: Path) -> Listing:
        """The labelled cases, to score their label maps: images do not matter.

        As written here, those of `find`. A subclass whose names tell the cases of annotations
        alone overrides this; such cases have no `images`.

        Raises:
            DataError: as `find`.
        """
        return self.find(folder)

    @abstractmethod
    def read(self, case: Case) -> CaseArrays:
        """Image and labels of one case, in the package's orientation and label codes.

        Raises:
            DataError: a file is damaged or does not fit the other files of the case.
        """

    def read_image(self, case: Case) -> CaseArrays:
        """As `read`, without the labels: a case to predict, whose annotation need not be sound.

        Raises:
            DataError: as `read`, for the image.
        """
        return self.read(replace(case, labels=None))

    def case_of(self, images: Path | Mapping[str, Path], dataset: str) -> Case:
        """A case to predict whose files lie anywhere, under any names.

        Args:
            images: channel -> its file, or one file with all channels.
            dataset: what `Case.dataset` is to be.

        Raises:
            ValueError: a channel is unknown, or missing and not in `may_miss`.
        """
        if not isinstance(images, Mapping):
            return Case(images.name.partition(".")[0], dataset, (images,), None, images.name)
        for name in images:
            require_choice("channel", name, self.channels)
        present = [name for name in self.channels if name in images]
        missing = [name for name in self.channels if name not in images]
        if not present or set(missing) - set(self.may_miss):
            found, expected = ", ".join(present) or "none", ", ".join(self.channels)
            raise ValueError(f"channels: found {found}, expected a file for each of {expected}.")
        return Case(
            id="case",
            dataset=dataset,
            images=tuple(Path(images[name]) for name in present),
            labels=None,
            group="case",
            missing=tuple(self.channels.index(name) for name in missing),
        )

    def of_array(self, image: np.ndarray, affine: np.ndarray) -> CaseArrays:
        """An image in memory, as `read_image` gives it for files with these voxels.

        Args:
            image: (X, Y, Z, C), the channels in the order of `channels`; (X, Y, Z) if there is one.
            affine: (4, 4) voxel -> mm, in the axis order of `image`.

        Raises:
            ValueError: another number of axes or channels, voxels that are not finite, a channel
                of zeros that no case may lack, or no affine.
        """
        from keras_medseg.data.datasets import _volumes  # of the kinds that have volumes

        arrays = _volumes.of_array(image, affine, self.channels, self.may_miss)
        return _volumes.resampled(arrays, self.spacing_mm)

    def check(
        self, folder: Path, *, workers: int | None = None, progress: Progress | None = None
    ) -> CheckReport:
        """All problems of all cases of `folder`; every file is read to its end.

        This implementation stops at an error of `find`. A subclass that can report more, such as
        the missing files of all cases, overrides it.

        Args:
            folder: of the data set.
            workers: cases read at once; by default one per core, at most 8.
            progress: called with (done, total, case id) after each case.

        Raises:
            DataError: `folder` does not exist.
        """
        remedy = "Give the folder that holds the cases."
        checks.require_folder(folder, expected="a folder with cases", remedy=remedy)
        trees = checks.beside_listing(self.layout_examples(), folder)
        try:
            cases = self.find(folder, labelled=False).cases
            if any(case.labels is not None for case in cases):
                self.find(folder)  # raises an error if some cases of a set lack labels
        except DataError as error:
            return CheckReport(folder, [], [checks.error_of("-", error)], trees)
        problems = checks.inspect_all(
            cases, self._inspect, elements=self.elements, workers=workers, progress=progress
        )
        return CheckReport(folder, cases, problems, trees)

    def _inspect(self, case: Case) -> Inspection:
        reading = checks.Reading()
        arrays = reading.load(self.read, case)
        digests = [] if arrays is None else [(case.images[0], checks.digest(arrays.image))]
        return reading.inspection(case.id, digests)

    @abstractmethod
    def read_labels(self, path: Path, case: Case | StoredCase) -> np.ndarray:
        """A label map on disk, such as a prediction for `case`: (X, Y, Z) uint8, as `read` gives.

        Args:
            path: a file as `write_labels` writes it.
            case: gives grid and codes. A decoded case may have another grid than its files.

        Raises:
            DataError: a damaged file, unknown label codes, or another grid than the case's.
        """

    def read_annotation(self, case: Case) -> tuple[np.ndarray, tuple[float, float, float]]:
        """The labels of a labelled case, as `read` gives them, and the spacing in mm of their grid.

        As written here, the whole case is read. A subclass whose labels are a file of their own
        overrides this.

        Raises:
            DataError: as `read`.
        """
        arrays = self.read(case)
        assert arrays.labels is not None, case.id
        return arrays.labels, arrays.spacing_mm

    def codes_on_disk(self, labels: np.ndarray, dataset: str) -> np.ndarray:
        """Canonical labels of any shape in the codes that `write_labels` writes.

        As written here, the codes are the same.

        Args:
            labels: uint8.
            dataset: `Case.dataset` of the case that was labelled.
        """
        return labels

    def labels_on_disk(self, dataset: str) -> dict[int, str]:
        """`labels` with the codes that `write_labels` writes for cases of `dataset`."""
        codes = self.codes_on_disk(np.array([*self.labels], np.uint8), dataset)
        return dict(zip(map(int, codes), self.labels.values()))

    @abstractmethod
    def write_labels(self, path: Path, labels: np.ndarray, case: StoredCase) -> None:
        """Write (X, Y, Z) uint8 canonical labels in the data set's own codes; atomically.

        Args:
            path: ends in `suffix`.
            labels: on the grid of the case's own files, which is that of the store unless the case
                was resized.
            case: the case that was labelled.

        Raises:
            ValueError: labels on another grid than the case's.
        """
