"""Pictures brought to the size that a network sees, and label maps brought back.

The papers say "256 x 256" and "512 x 512 in equal proportions" and not how. PyTorch's usual way,
`torchvision.transforms.Resize` on Pillow images, is followed: bilinear with antialiasing (Pillow
widens the filter when it scales down), masks by the nearest pixel.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from keras_medseg.data.cases import CaseArrays

FITS = ("stretch", "pad", "crop")
"""stretch: the sides are scaled apart. pad: in equal proportions until the whole picture fits,
zeros around it. crop: in equal proportions until it fills the size, the centre of it."""


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
    if arrays.labels is None:
        return replace(arrays, image=image)
    labels = resize_labels(arrays.labels[..., 0], size, fit)[..., None]
    return replace(arrays, image=image, labels=labels)


def resize(pixels: np.ndarray, size: Sequence[int], fit: str = "stretch") -> np.ndarray:
    """A picture (H, W, C) uint8 in another size, bilinear with antialiasing -> (h, w, C) uint8.

    Raises:
        ValueError: for a fit that is not one of FITS.
    """
    return _centred(_scaled(pixels, _scaled_size(pixels.shape, size, fit)), size)


def resize_labels(labels: np.ndarray, size: Sequence[int], fit: str = "stretch") -> np.ndarray:
    """A label map (H, W) uint8 in another size, by the nearest pixel -> (h, w) uint8."""
    scaled = _scaled_size(labels.shape, size, fit)
    return _centred(_scaled(labels, scaled, nearest=True), size)


def restore(labels: np.ndarray, full_size: Sequence[int], fit: str = "stretch") -> np.ndarray:
    """What `resize_labels` did undone: (h, w) uint8 -> (H, W) uint8 on the picture's own grid.

    What was cropped away is 0.
    """
    scaled = _scaled_size(full_size, labels.shape, fit)
    return _scaled(_cut_out(labels, scaled), full_size, nearest=True)


def _scaled_size(full: Sequence[int], size: Sequence[int], fit: str) -> tuple[int, int]:
    if fit not in FITS:
        raise ValueError(f"fit: found {fit!r}, expected one of {', '.join(FITS)}.")
    ratios = [wanted / side for wanted, side in zip(size, full[:2])]
    if fit == "stretch":
        return size[0], size[1]
    ratio = min(ratios) if fit == "pad" else max(ratios)
    return tuple(max(round(side * ratio), 1) for side in full[:2])


def _scaled(values: np.ndarray, size: Sequence[int], *, nearest: bool = False) -> np.ndarray:
    from PIL import Image

    if values.shape[:2] == tuple(size):
        return values
    if values.ndim == 3:
        return np.stack([_scaled(channel, size) for channel in np.moveaxis(values, -1, 0)], -1)
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), how))


def _centred(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The centre of `values`, with zeros around it where `size` is larger."""
    if values.shape[:2] == tuple(size):
        return values
    framed = np.zeros((*size, *values.shape[2:]), values.dtype)
    inner, outer = _overlap(values.shape, size)
    framed[outer] = values[inner]
    return framed


def _cut_out(framed: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The inverse of `_centred`."""
    values = np.zeros(tuple(size), framed.dtype)
    inner, outer = _overlap(size, framed.shape)
    values[inner] = framed[outer]
    return values


def _overlap(
    inner: Sequence[int], outer: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where two grids with a common centre meet, as indices of the one and of the other."""
    starts = [(theirs - ours) // 2 for ours, theirs in zip(inner[:2], outer[:2])]
    lengths = [min(ours, theirs) for ours, theirs in zip(inner[:2], outer[:2])]
    ours = tuple(slice(max(-s, 0), max(-s, 0) + n) for s, n in zip(starts, lengths))
    theirs = tuple(slice(max(s, 0), max(s, 0) + n) for s, n in zip(starts, lengths))
    return ours, theirs
