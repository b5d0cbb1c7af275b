"""The common form of all data sets: cases, and the arrays that are read from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One examination of a patient, or one image, on disk; no voxel is read yet.

    Attributes:
        id: unique, and usable as a file name.
        dataset: name of the data set, such as "BraTS2021".
        images: one path per channel in channel order, or one path of a file with all channels.
        labels: path of the label map, or None.
        group: cases of one group (patient, video sequence) must stay on one side of a split.
        missing: indices of the channels without a file, which the data set declares; they are 0.
    """

    id: str
    dataset: str
    images: tuple[Path, ...]
    labels: Path | None
    group: str
    missing: tuple[int, ...] = ()


@dataclass(frozen=True)
class CaseArrays:
    """The voxels of one case, in the package's orientation (LPS) and label codes.

    A 2-D image is a volume of one slice: x are its rows, y its columns.

    Attributes:
        image: (X, Y, Z, C) as stored on disk (integers stay integers).
        labels: (X, Y, Z) uint8 in the canonical codes of the data set, or None.
        affine: (4, 4) voxel -> mm of the file on disk.
        axis_codes: orientation of the file on disk, e.g. ("L", "P", "S"); `image` is always LPS.
        source_shape: (X, Y, Z) of the case on disk if `image` was resized; by default the shape of
            `image`.
        forms: orientation fields of the header on disk (`nifti.Header.forms`), for the label maps
            that are written; None if there are none.
        resampled_mm: voxel size along x, y, z of `image` if a volume was resampled.
        own_labels: `labels` on the case's own grid if a volume was resampled, in LPS.
    """

    image: np.ndarray
    labels: np.ndarray | None
    affine: np.ndarray
    axis_codes: tuple[str, str, str]
    source_shape: tuple[int, ...] | None = None
    forms: Mapping[str, Any] | None = None
    resampled_mm: tuple[float, float, float] | None = None
    own_labels: np.ndarray | None = None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along x, y, z of `image` (LPS), whatever the axis order on disk."""
        return self.resampled_mm or lps_spacing_mm(self.affine, self.axis_codes)


def lps_spacing_mm(
    affine: np.ndarray, axis_codes: tuple[str, str, str]
) -> tuple[float, float, float]:
    """Voxel size along x, y, z of the LPS grid of a file with this affine and these axes."""
    on_disk = dict(zip(axis_codes, np.linalg.norm(affine[:3, :3], axis=0)))
    x, y, z = (
        float(next(on_disk[code] for code in axis if code in on_disk))
        for axis in ("LR", "PA", "SI")
    )
    return x, y, z
