"""Label maps reduced to their foreground, from which the metrics of masks follow.

Of the voxels of a scan, one in a hundred is labelled. So a label map is read once for all regions
and metrics: its labelled elements, and those of them that lie on a border between codes, with the
codes of their neighbors. The surface of any region is among the latter.
"""

import math
from typing import NamedTuple

import numpy as np

Table = np.ndarray
"""(256,) bool: whether a label code belongs to a region."""


class Border(NamedTuple):
    """The elements of a label map that have a direct neighbor of another code.

    Background lies beyond the array. The elements are in the C order of its axes.

    Attributes:
        places: (n, axes) indices.
        codes: (n,) uint8, not 0.
        around: (2 * axes, n) uint8 codes of the direct neighbors.
    """

    places: np.ndarray
    codes: np.ndarray
    around: np.ndarray

    def surface(self, belongs: Table) -> np.ndarray:
        """(m, axes) indices of a region's elements with a direct neighbor outside of it."""
        inner = belongs[self.around].all(axis=0)
        return self.places[belongs[self.codes] & ~inner]


class Foreground(NamedTuple):
    """Two label maps where at least one of them is not background.

    Attributes:
        prediction: (n,) uint8 codes.
        truth: (n,) uint8 codes of the same elements.
        background: number of the other elements.
        borders: of the prediction and of the truth.
    """

    prediction: np.ndarray
    truth: np.ndarray
    background: int
    borders: tuple[Border, Border]


def foreground(prediction: np.ndarray, truth: np.ndarray) -> Foreground:
    """Read two label maps.

    Args:
        prediction: uint8 of two or three axes.
        truth: as `prediction`, of the same shape.
    """
    maps = _one_layout(prediction, truth)
    either = maps[0].ravel(order="K") | maps[1].ravel(order="K")
    at = _nonzero(either)
    codes = [labels.ravel(order="K")[at] for labels in maps]
    borders = [_border(labels, at[own != 0]) for labels, own in zip(maps, codes)]
    return Foreground(codes[0], codes[1], either.size - at.size, (borders[0], borders[1]))


def border(labels: np.ndarray) -> Border:
    """The border of one label map.

    Args:
        labels: uint8, or bool, of two or three axes.
    """
    [labels] = _one_layout(labels.view(np.uint8))
    return _border(labels, _nonzero(labels.ravel(order="K")))


def _one_layout(*maps: np.ndarray) -> list[np.ndarray]:
    """The maps with their elements one after the other in memory, in one order of the axes."""
    if maps[-1].flags.f_contiguous:
        return [np.asfortranarray(labels) for labels in maps]
    return [np.ascontiguousarray(labels) for labels in maps]


def _nonzero(values: np.ndarray) -> np.ndarray:
    """`np.flatnonzero` of (n,) uint8; eight at a time, because most are 0."""
    whole = values.size - values.size % 8
    words = np.flatnonzero(values[:whole].view(np.uint64))
    at = (words[:, None] * 8 + np.arange(8)).ravel()
    found = at[values[at] != 0]
    return np.concatenate([found, whole + np.flatnonzero(values[whole:])])


def _border(labels: np.ndarray, at: np.ndarray) -> Border:
    """The border of a map from the places of its labelled elements in memory."""
    flat, shape = labels.ravel(order="K"), labels.shape
    in_c_order = labels.flags.c_contiguous
    own = flat[at]
    around, differs = [], np.zeros(at.size, bool)
    for axis, size in enumerate(shape):
        step = math.prod(shape[axis + 1 :] if in_c_order else shape[:axis])
        place = at // step % size
        for move, last in ((-step, 0), (step, size - 1)):
            codes = flat.take(at + move, mode="clip")
            codes[place == last] = 0
            differs |= codes != own
            around.append(codes)
    at = at[differs]
    places = np.stack(np.unravel_index(at, shape, order="C" if in_c_order else "F"), axis=1)
    codes, neighbors = own[differs], np.stack([codes[differs] for codes in around])
    if not in_c_order:
        order = np.argsort(np.ravel_multi_index(places.T, shape))
        places, codes, neighbors = places[order], codes[order], neighbors[:, order]
    return Border(places, codes, neighbors)
