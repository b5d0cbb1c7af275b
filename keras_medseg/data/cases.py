"""What every data set is turned into: cases, and the arrays read from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Case:
    """One patient's examination (or one picture) on disk; nothing is read yet.

    `images` holds one path per channel in channel order, or a single path for a file that holds
    all channels. `group` names what must not be torn apart by a split (patient, video sequence).
    """

    id: str
    dataset: str
    images: tuple[Path, ...]
    labels: Path | None
    group: str


@dataclass(frozen=True)
class CaseArrays:
    """The voxels of one case, in the package's orientation (LPS) and label convention.

    image: (X, Y, Z, C) as stored on disk (integers stay integers).
    labels: (X, Y, Z) uint8 in the canonical codes of the data set's module, or None.
    affine: (4, 4) voxel -> mm of the file on disk.
    axis_codes: orientation of the file on disk, e.g. ("L", "P", "S"); `image` is always LPS.
    """

    image: np.ndarray
    labels: np.ndarray | None
    affine: np.ndarray
    axis_codes: tuple[str, str, str]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along x, y, z of `image` (LPS), whatever the axis order on disk."""
        return lps_spacing_mm(self.affine, self.axis_codes)


def lps_spacing_mm(
    affine: np.ndarray, axis_codes: tuple[str, str, str]
) -> tuple[float, float, float]:
    """Voxel size along x, y, z of the LPS grid of a file with this affine and these axes."""
    on_disk = dict(zip(axis_codes, np.linalg.norm(affine[:3, :3], axis=0)))
    return tuple(
        float(next(on_disk[code] for code in axis if code in on_disk))
        for axis in ("LR", "PA", "SI")
    )


def split_cases(
    cases: Sequence[Case], held_out: float, seed: int
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Split by group into (training, held-out) cases.

    Depends on the groups' names and the seed alone, not on the order of `cases`. At least one
    group lands on either side.

    Raises:
        ValueError: with fewer than two groups, or `held_out` outside (0, 1).
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out: found {held_out}, expected a fraction between 0 and 1.")
    groups = sorted({case.group for case in cases})
    if len(groups) < 2:
        raise ValueError(
            f"cases: found {len(groups)} group(s), expected at least 2. "
            "A split needs one group to train on and one to hold out."
        )
    count = min(max(round(held_out * len(groups)), 1), len(groups) - 1)
    chosen = set(np.random.default_rng(seed).permutation(groups)[:count])
    ordered = sorted(cases, key=lambda case: case.id)
    training = tuple(case for case in ordered if case.group not in chosen)
    return training, tuple(case for case in ordered if case.group in chosen)
