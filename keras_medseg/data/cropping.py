"""Crop a case to the box outside which image and labels are exactly 0, and measure it."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from keras_medseg.data.cases import CaseArrays
from keras_medseg.errors import DataError

Box = tuple[slice, slice, slice]


class Cropped(NamedTuple):
    """One case as a store keeps it.

    Attributes:
        image: (Z', X', Y', C), slices first, in the dtype of the source.
        labels: (Z', X', Y') uint8, or None.
        own_labels: (X, Y, Z) uint8 on the grid of the source if the image was resampled, or None.
        numbers: the attributes of `StoredCase` with the same names, in the types of JSON.
    """

    image: np.ndarray
    labels: np.ndarray | None
    own_labels: np.ndarray | None
    numbers: dict[str, Any]


def crop(case_id: str, arrays: CaseArrays) -> Cropped:
    """Crop a case to the bounding box of its non-zero voxels and measure them.

    Args:
        case_id: for messages.
        arrays: as a reader returns them; they are not changed.

    Raises:
        DataError: invalid arrays from a reader, an image of zeros, or voxels that are not finite.
    """
    box = _occupied_box(case_id, arrays)
    # Copied, so that a case in memory does not change when the reader's arrays do.
    image = np.array(arrays.image[box].transpose(2, 0, 1, 3), order="C")
    statistics = [_statistics(case_id, image[..., channel]) for channel in range(image.shape[3])]
    labels = None
    if arrays.labels is not None:
        labels = np.array(arrays.labels[box].transpose(2, 0, 1), order="C")
    full_shape = arrays.image.shape[:3]
    numbers = {
        "full_shape": list(full_shape),
        "source_shape": [int(size) for size in arrays.source_shape or full_shape],
        "origin": [side.start for side in box],
        "image_boxes": [_slice_box(voxels.any(axis=2)) for voxels in image],
        "label_boxes": None if labels is None else [_slice_box(codes != 0) for codes in labels],
        "affine": arrays.affine.tolist(),
        "axis_codes": list(arrays.axis_codes),
        "forms": None if arrays.forms is None else dict(arrays.forms),
        "spacing_mm": list(arrays.spacing_mm),
        "statistics": statistics,
        "voxels_sha256": _voxels_sha256(image),
    }
    own_labels = None if arrays.own_labels is None else np.array(arrays.own_labels, order="C")
    return Cropped(image, labels, own_labels, numbers)


def _occupied_box(case_id: str, arrays: CaseArrays) -> Box:
    """The bounding box of everything that is not 0, after checking the arrays."""
    image, labels = arrays.image, arrays.labels
    if image.ndim != 4 or image.dtype.kind not in "iuf":
        raise DataError(
            case_id,
            found=f"an image of shape {image.shape} and type {image.dtype}",
            expected="(X, Y, Z, C) integers or floats",
            remedy="Mend the reader.",
        )
    if labels is not None and (labels.shape != image.shape[:3] or labels.dtype != np.uint8):
        raise DataError(
            case_id,
            found=f"labels of shape {labels.shape} and type {labels.dtype}",
            expected=f"{image.shape[:3]} uint8",
            remedy="Mend the reader.",
        )
    occupied = np.asarray(image.any(axis=3))
    if not occupied.any():
        raise DataError(
            case_id,
            found="an image of zeros",
            expected="non-zero voxels",
            remedy="Leave the case out.",
        )
    if labels is not None:
        occupied |= labels != 0
    x, y, z = (_extent(occupied, axis) for axis in range(3))
    return slice(*x), slice(*y), slice(*z)


def _extent(occupied: np.ndarray, axis: int) -> tuple[int, int]:
    """First index along `axis` at which anything is true, and the index after the last one."""
    others = tuple(other for other in range(occupied.ndim) if other != axis)
    indices = np.flatnonzero(np.any(occupied, axis=others))
    return int(indices[0]), int(indices[-1]) + 1


def _slice_box(occupied: np.ndarray) -> list[int]:
    if not occupied.any():
        return [0, 0, 0, 0]
    return [*_extent(occupied, 0), *_extent(occupied, 1)]


def _statistics(case_id: str, channel: np.ndarray) -> dict[str, float]:
    values = channel[channel != 0].astype(np.float64)
    if not values.size:
        return {"min": 0.0, "max": 0.0, "mean": 0.0, "std": 0.0}
    if not np.isfinite(values).all():
        raise DataError(
            case_id,
            found="voxels that are not finite",
            expected="finite numbers",
            remedy="Mend the file or leave the case out.",
        )
    names = ("min", "max", "mean", "std")
    return {name: float(getattr(values, name)()) for name in names}


def _voxels_sha256(image: np.ndarray) -> str:
    digest = hashlib.sha256(repr(image.shape).encode())
    for voxels in image:
        # One dtype for all, so that a case saved as int16 equals the same case saved as float32;
        # + 0 turns -0 into 0.
        digest.update(voxels.astype("<f4") + 0)
    return digest.hexdigest()
