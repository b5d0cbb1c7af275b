"""Images brought to the size that a network sees, and label maps brought back.

The papers say "256 x 256" and "512 x 512 in equal proportions" but not how. This module does what
is usual in PyTorch, `torchvision.transforms.Resize` on Pillow images: bilinear with antialiasing
(Pillow widens the filter when it scales down), and nearest pixel for masks.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets.base import Dataset
from keras_medseg.errors import require_choice

FITS = ("stretch", "pad", "crop", "cut")
"""stretch: rows and columns are scaled independently. pad: scaled in equal proportions until the
whole image fits, with zeros around it. crop: scaled in equal proportions until the image covers the
size, then cropped to its center. cut: the center of the image as it is, not scaled, with zeros
around it where the image is smaller."""


def read_resized(case: Case, *, dataset: Dataset, size: tuple[int, int], fit: str) -> CaseArrays:
    """Read an image and its mask, brought to `size`."""
    return resized(dataset.read(case), size, fit)


def resized(arrays: CaseArrays, size: Sequence[int], fit: str = "stretch") -> CaseArrays:
    """An image and its labels in another size.

    Args:
        arrays: with one slice: image (H, W, 1, C), labels (H, W, 1) or None, both uint8.
        size: (rows, columns).
        fit: one of FITS.

    Raises:
        ValueError: a fit that is not one of FITS.
    """
    image = resize(arrays.image[:, :, 0], size, fit)[:, :, None]
    source = arrays.source_shape or arrays.image.shape[:3]
    if arrays.labels is None:
        return replace(arrays, image=image, source_shape=source)
    labels = resize_labels(arrays.labels[..., 0], size, fit)[..., None]
    return replace(arrays, image=image, labels=labels, source_shape=source)


def resize(pixels: np.ndarray, size: Sequence[int], fit: str = "stretch") -> np.ndarray:
    """Resize an image, bilinear with antialiasing.

    Args:
        pixels: (H, W, C) uint8.
        size: (rows, columns) of the result.
        fit: one of FITS.

    Returns:
        (rows, columns, C) uint8.

    Raises:
        ValueError: unknown fit.
    """
    return _centered(_scaled(pixels, _scaled_size(pixels.shape, size, fit)), size)


def resize_labels(labels: np.ndarray, size: Sequence[int], fit: str = "stretch") -> np.ndarray:
    """Resize a label map by the nearest pixel, (H, W) uint8; otherwise as `resize`."""
    scaled = _scaled_size(labels.shape, size, fit)
    return _centered(_scaled(labels, scaled, nearest=True), size)


def restore(labels: np.ndarray, full_size: Sequence[int], fit: str = "stretch") -> np.ndarray:
    """Undo `resize_labels`: bring a label map back to the image's own grid.

    Args:
        labels: (h, w) uint8.
        full_size: (rows, columns) of the image before `resize`.
        fit: as in `resize`.

    Returns:
        (rows, columns) uint8; 0 where `resize` cropped or cut the image.

    Raises:
        ValueError: unknown fit.
    """
    scaled = _scaled_size(full_size, labels.shape, fit)
    return _scaled(_cut_out(labels, scaled), full_size, nearest=True)


def restore_map(values: np.ndarray, full_size: Sequence[int], fit: str = "stretch") -> np.ndarray:
    """Undo `resize` for probabilities, bilinear with antialiasing.

    Args:
        values: (h, w) float32.
        full_size: (rows, columns) of the image before `resize`.
        fit: as in `resize`.

    Returns:
        (rows, columns) float32; 0 where `resize` cropped or cut the image.

    Raises:
        ValueError: unknown fit.
    """
    return _scaled(_cut_out(values, _scaled_size(full_size, values.shape, fit)), full_size)


def _scaled_size(full: Sequence[int], size: Sequence[int], fit: str) -> tuple[int, int]:
    require_choice("fit", fit, FITS)
    if fit == "cut":
        return full[0], full[1]
    ratios = [wanted / side for wanted, side in zip(size, full[:2])]
    if fit == "stretch":
        return size[0], size[1]
    ratio = min(ratios) if fit == "pad" else max(ratios)
    rows, columns = (max(round(side * ratio), 1) for side in full[:2])
    return rows, columns


def _scaled(values: np.ndarray, size: Sequence[int], *, nearest: bool = False) -> np.ndarray:
    from PIL import Image

    if values.shape[:2] == tuple(size):
        return values
    if values.ndim == 3:
        return np.stack([_scaled(channel, size) for channel in np.moveaxis(values, -1, 0)], -1)
    image = Image.fromarray(values)
    if nearest:
        return np.asarray(image.resize((size[1], size[0]), Image.Resampling.NEAREST))
    # Columns first, as Pillow does until version 12; 13 chooses by the sizes, and rounds between.
    for wanted in ((size[1], image.height), (size[1], size[0])):
        image = image.resize(wanted, Image.Resampling.BILINEAR)
    return np.asarray(image)


def _centered(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The center of `values`, with zeros around it where `size` is larger."""
    if values.shape[:2] == tuple(size):
        return values
    framed = np.zeros((*size, *values.shape[2:]), values.dtype)
    inner, outer = _overlap(values.shape, size)
    framed[outer] = values[inner]
    return framed


def _cut_out(framed: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The inverse of `_centered`."""
    values = np.zeros(tuple(size), framed.dtype)
    inner, outer = _overlap(size, framed.shape)
    values[inner] = framed[outer]
    return values


def _overlap(
    inner: Sequence[int], outer: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The overlap of two grids with a common center, as indices of the first and of the second."""
    starts = [(theirs - ours) // 2 for ours, theirs in zip(inner[:2], outer[:2])]
    lengths = [min(ours, theirs) for ours, theirs in zip(inner[:2], outer[:2])]
    ours = tuple(slice(max(-s, 0), max(-s, 0) + n) for s, n in zip(starts, lengths))
    theirs = tuple(slice(max(s, 0), max(s, 0) + n) for s, n in zip(starts, lengths))
    return ours, theirs
