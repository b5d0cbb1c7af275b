"""CT scans of the kidneys: one image, two labels, names of their own.

The example of CONTRIBUTING.md: this file, put into keras_medseg/data/datasets/, is all that a new
kind of data set needs. A case is a folder case_00000 with imaging.nii.gz and segmentation.nii.gz.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets.base import Codes, Dataset, Listing
from keras_medseg.data.formats import nifti
from keras_medseg.data.store import StoredCase
from keras_medseg.errors import DataError

KIDNEY, TUMOR = 1, 2


@dataclass(frozen=True)
class CtVolumes(Dataset):
    """CT scans with kidneys and the tumors in them."""

    suffix: ClassVar[str] = ".nii.gz"
    elements: ClassVar[str] = "voxels"
    channels: ClassVar[tuple[str, ...]] = ("ct",)
    nesting: ClassVar[Mapping[str, int]] = {"kidney": KIDNEY, "tumor": TUMOR}
    metrics: ClassVar[tuple[str, ...]] = ("dice", "sensitivity", "hd95_mm")

    @property
    def labels(self) -> Mapping[int, str]:
        """Kidney tissue and tumor."""
        return {KIDNEY: "kidney tissue", TUMOR: "tumor"}

    @property
    def regions(self) -> Mapping[str, Codes]:
        """The kidneys with their tumors, and the tumors."""
        return {"kidney": (KIDNEY, TUMOR), "tumor": (TUMOR,)}

    @classmethod
    def recognizes(cls, folder: Path) -> bool:
        """Whether a folder of a case lies in `folder`."""
        return any(folder.glob("case_*/imaging.nii.gz"))

    @classmethod
    def layout_examples(cls) -> list[str]:
        """One case."""
        return ["case_00000/", "  imaging.nii.gz", "  segmentation.nii.gz"]

    def find(self, folder: Path, *, labelled: bool = True) -> Listing:
        """All folders case_*, sorted.

        Raises:
            DataError: none, or one without its segmentation where `labelled`.
        """
        cases = []
        for image in sorted(folder.glob("case_*/imaging.nii.gz")):
            home = image.parent
            labels = home / "segmentation.nii.gz"
            if labelled and not labels.exists():
                remedy = "Add it, or move the case elsewhere."
                raise DataError(home, found="no segmentation", expected=labels.name, remedy=remedy)
            cases.append(
                Case(home.name, "CT", (image,), labels if labels.exists() else None, home.name)
            )
        if not cases:
            remedy = "Give the folder of the cases."
            raise DataError(folder, found="no cases", expected="case_*/", remedy=remedy)
        return Listing(cases)

    def read(self, case: Case) -> CaseArrays:
        """The scan, (X, Y, Z, 1) in LPS, and its labels."""
        volume = nifti.load(case.images[0])
        affine = volume.header.affine
        image = nifti.reorient(volume.array, affine)[..., None]
        labels = None if case.labels is None else self.read_labels(case.labels, case)
        return CaseArrays(image, labels, affine, nifti.axis_codes(affine))

    def read_labels(self, path: Path, case: Case | StoredCase) -> np.ndarray:
        """A segmentation on the grid of its scan, (X, Y, Z) uint8 in LPS."""
        if isinstance(case, Case):
            header = nifti.read_header(case.images[0])
            nifti.check_grid(path, header.shape, header.affine, of=case.images[0])
        volume = nifti.load(path)
        if not np.isin(volume.array, (0, KIDNEY, TUMOR)).all():
            remedy = "Draw it again."
            raise DataError(path, found="other labels", expected="0, 1 and 2", remedy=remedy)
        return nifti.reorient(volume.array, volume.header.affine).astype(np.uint8)

    def write_labels(self, path: Path, labels: np.ndarray, case: StoredCase) -> None:
        """The labels with the axes and the affine of the scan."""
        on_disk = nifti.restore(labels, case.axis_codes)
        nifti.write_volume(path, on_disk, case.affine, dtype=np.uint8)
