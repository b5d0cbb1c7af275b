"""Surfaces as DeepMind's surface-distance measures them: elements at the corners of voxels.

The challenges of BraTS take their HD95 from it, and it is the reference of the surface Dice. A
corner has eight voxels around it; where some of them belong to the mask and some do not, a piece of
the surface passes, whose area follows from which ones do. `metrics.surface_distances` has the other
definition in use: the voxels of the border, all of one weight.

Source: S. Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and
neck anatomy for radiotherapy, arXiv 1809.04430, and github google-deepmind/surface-distance.
"""

import itertools
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy

_BITS = np.array([[[128, 64], [32, 16]], [[8, 4], [2, 1]]], np.uint8)
"""Bit of each voxel around a corner, by its place along x, y, z."""

# Normals of the triangles of a surface element, |(x, y, z)|, in eighths of a face of a voxel. All
# other codes are one of these turned, mirrored or inverted.
_TRIANGLES = {
    1: ("111",),
    3: ("220", "220"),
    6: ("111", "111"),
    7: ("111", "222", "400"),
    15: ("400", "400"),
    22: ("111", "111", "111"),
    23: ("111", "111", "222", "222"),
    24: ("111", "111"),
    25: ("022", "022", "111"),
    27: ("022", "111", "202", "333"),
    30: ("111", "111", "222", "400"),
    60: ("220", "220", "220", "220"),
    105: ("111", "111", "111", "111"),
}


class SurfaceElements(NamedTuple):
    """The surfaces of two masks, see `surface_elements`.

    Attributes:
        prediction_to_truth: (n,) distance of every element of the prediction's surface to the
            nearest one of the truth's, in mm.
        prediction_areas: (n,) their areas in mm^2.
        truth_to_prediction: (m,) the other direction.
        truth_areas: (m,) areas.
    """

    prediction_to_truth: np.ndarray
    prediction_areas: np.ndarray
    truth_to_prediction: np.ndarray
    truth_areas: np.ndarray


def surface_elements(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]
) -> SurfaceElements:
    """Distances between the surface elements of two masks, and the areas of the elements.

    Args:
        prediction: (X, Y, Z) boolean mask, or uint8: see `lesions.lesion_wise`, `as_published`.
        truth: as `prediction`.
        spacing_mm: voxel size along x, y, z.

    Returns:
        The elements of each mask. All distances from or to an empty mask are infinite.
    """
    codes = [_corner_codes(mask) for mask in (prediction, truth)]
    areas = _areas(tuple(float(size) for size in spacing_mm))
    surfaces = [(code != 0) & (code != 255) for code in codes]
    distances = [
        to_nearest(surfaces[own], surfaces[other], spacing_mm) for own, other in ((0, 1), (1, 0))
    ]
    own_areas = [areas[code[surface]] for code, surface in zip(codes, surfaces)]
    return SurfaceElements(distances[0], own_areas[0], distances[1], own_areas[1])


def to_nearest(elements: np.ndarray, others: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Distance of every element to the nearest one of the others.

    From the elements alone: a distance transform would fill the whole box around both surfaces,
    which is large where a prediction has scattered false positives. The values are the same.

    Args:
        elements: boolean mask of any number of axes.
        others: boolean mask of the same shape.
        spacing: size along each axis.

    Returns:
        (n,) distances in the unit of the spacing, in C order of the elements. Infinite if there are
        no others.
    """
    return nearest_distances(np.argwhere(elements), np.argwhere(others), spacing)


def nearest_distances(
    points: np.ndarray, targets: np.ndarray, spacing: Sequence[float]
) -> np.ndarray:
    """As `to_nearest`, of elements that are given by their indices.

    Args:
        points: (n, axes) indices.
        targets: (m, axes) indices of the others.
        spacing: size along each axis.

    Returns:
        (n,) distances in the unit of the spacing. Infinite if there are no others.
    """
    sizes = np.asarray(spacing, float)
    if not (len(points) and len(targets)):
        return np.full(len(points), np.inf)
    _, nearest = scipy.spatial.cKDTree(targets * sizes).query(points * sizes)
    # Differences of whole steps, so that equal distances are equal numbers wherever they lie.
    steps = (points - targets[nearest]) * sizes
    return np.sqrt(np.add.reduce(steps.T**2, axis=0))


def robust_hausdorff(elements: SurfaceElements, percent: float = 95) -> float:
    """The larger of the two directed percentiles, weighted by area; in mm.

    Of the elements in order of their distance, it is the distance of the first one up to which
    `percent` of the area lies. Infinite if one mask is empty or both are.

    Args:
        elements: from `surface_elements`.
        percent: 95 for HD95.
    """
    directed = (elements[:2], elements[2:])
    return max(_weighted_percentile(*of_mask, percent) for of_mask in directed)


def surface_dice(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float
) -> float:
    """Share of the area of both surfaces that lies within a tolerance of the other surface.

    `(A_P(d <= t) + A_T(d <= t)) / (A_P + A_T)`, with the areas of the surface elements (Nikolov et
    al., 2018). No unit, from 0 to 1. 1 if both masks are empty, 0 if one is.

    Args:
        prediction: (X, Y, Z) boolean mask.
        truth: (X, Y, Z) boolean mask.
        spacing_mm: voxel size along x, y, z.
        tolerance_mm: the largest distance that counts as equal.
    """
    found = surface_elements(prediction, truth, spacing_mm)
    whole = found.prediction_areas.sum() + found.truth_areas.sum()
    if not whole:
        return 1.0
    near = found.prediction_areas[found.prediction_to_truth <= tolerance_mm].sum()
    near += found.truth_areas[found.truth_to_prediction <= tolerance_mm].sum()
    return float(near / whole)


def _corner_codes(mask: np.ndarray) -> np.ndarray:
    """(X + 1, Y + 1, Z + 1) uint8: which of the eight voxels around a corner belong to the mask.

    In eight bits, as in the original: numbers above 1 overflow.
    """
    padded = np.pad(mask.astype(np.uint8), 1)
    codes = np.zeros(tuple(size - 1 for size in padded.shape), np.uint8)
    for place in np.ndindex(2, 2, 2):
        part = tuple(slice(first, first + size) for first, size in zip(place, codes.shape))
        codes += padded[part] * _BITS[place]
    return codes


def _weighted_percentile(distances: np.ndarray, areas: np.ndarray, percent: float) -> float:
    if not distances.size:
        return np.inf
    order = np.lexsort((areas, distances))  # equal distances by area: sums round as the original's
    shares = np.cumsum(areas[order]) / np.sum(areas[order])
    position = int(np.searchsorted(shares, percent / 100))
    return float(distances[order][min(position, len(order) - 1)])


@cache
def _areas(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """(256,) area in mm^2 of the surface element of each code."""
    x, y, z = spacing_mm
    faces = np.array([y * z, x * z, x * y])
    return np.array(
        [sum(np.linalg.norm(np.divide(n, 8) * faces) for n in normals) for normals in _normals()]
    )


@cache
def _normals() -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The normals of every code: those of _TRIANGLES under the 48 symmetries of the cube."""
    found: dict[int, tuple[tuple[int, ...], ...]] = {0: (), 255: ()}
    for code, texts in _TRIANGLES.items():
        inside = (_BITS & code) > 0
        for axes in itertools.permutations(range(3)):
            normals = tuple(sorted(tuple(int(text[axis]) for axis in axes) for text in texts))
            for steps in itertools.product((1, -1), repeat=3):
                turned = inside.transpose(axes)[tuple(slice(None, None, step) for step in steps)]
                symmetric = int(_BITS[turned].sum())
                found[symmetric] = found[255 - symmetric] = normals
    return tuple(found[code] for code in range(256))
