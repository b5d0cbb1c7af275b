"""Volumes with other voxel sizes: images by cubic splines, label maps without new codes.

The resampled grid covers the same box as the original one (the outer faces of the outermost voxels
stay where they are), so its voxels may differ a little from the size that was asked for.
"""

from collections.abc import Sequence

import numpy as np

_ORDER = 3
"""Of the splines, as in nnU-Net (Isensee et al. 2021, Supplementary Note 2)."""


def new_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], wanted_mm: Sequence[float]
) -> tuple[int, int, int]:
    """The grid with voxels of the wanted size that covers the same box, at least one voxel wide.

    Args:
        shape: (X, Y, Z) of the grid.
        spacing_mm: size of its voxels.
        wanted_mm: size of the voxels wanted.
    """
    x, y, z = (
        max(round(count * own / wanted), 1)
        for count, own, wanted in zip(shape, spacing_mm, wanted_mm)
    )
    return x, y, z


def new_spacing_mm(
    shape: Sequence[int], spacing_mm: Sequence[float], other: Sequence[int]
) -> tuple[float, float, float]:
    """Voxel sizes of the grid of shape `other` that covers the same box as a grid."""
    x, y, z = (
        own if count == new else own * count / new
        for count, own, new in zip(shape, spacing_mm, other)
    )
    return x, y, z


def resample_image(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """An image on another grid over the same box, by cubic splines.

    As in nnU-Net, what overshoots the range of the image is clipped. What is exactly 0 is
    background to this package; a voxel of which more than half is background stays 0, because
    splines ring at its edge.

    Args:
        image: (X, Y, Z, C), integers or floats.
        shape: (X', Y', Z').

    Returns:
        (X', Y', Z', C) float32.
    """
    resampled = np.zeros((*shape, image.shape[3]), np.float32, order="F")
    for channel in range(image.shape[3]):
        values = image[..., channel].astype(np.float32)
        foreground = values != 0
        if foreground.any():
            low, high = values[foreground].min(), values[foreground].max()
            inside = _zoom(foreground.astype(np.float32), shape, order=1) >= 0.5
            values = np.clip(_zoom(values, shape, order=_ORDER), low, high)
            resampled[..., channel][inside] = values[inside]
    return resampled


def resample_labels(labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A label map on another grid over the same box.

    Each code is interpolated linearly by itself, and a voxel gets the code with the largest share
    (of equal shares the smallest code), so no code appears that was not there.

    Args:
        labels: (X, Y, Z) uint8.
        shape: (X', Y', Z').

    Returns:
        (X', Y', Z') uint8.
    """
    if labels.shape == tuple(shape):
        return labels
    result, largest = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
    for code in np.unique(labels):
        share = _zoom((labels == code).astype(np.float32), shape, order=1)
        larger = share > largest + 1e-6
        result[larger], largest[larger] = code, share[larger]
    return result


def resample_map(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Probabilities on another grid over the same box, interpolated linearly.

    Args:
        values: (X, Y, Z) float32.
        shape: (X', Y', Z').

    Returns:
        (X', Y', Z') float32; `values` itself if it has that shape.
    """
    return values if values.shape == tuple(shape) else _zoom(values, shape, order=1)


def _zoom(array: np.ndarray, shape: Sequence[int], *, order: int) -> np.ndarray:
    from skimage.transform import resize

    # nnU-Net resamples by the same function, also without antialiasing.
    return resize(
        array,
        shape,
        order=order,
        mode="edge",
        clip=False,
        preserve_range=True,
        anti_aliasing=False,
    )
