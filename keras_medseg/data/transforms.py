"""Windows of the full grid, and intensities brought to one scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_medseg.data.store import StoredCase

NORMALISATIONS = ("z_score", "min_max", "none")


def window_origin(full_shape: Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
    """First voxel of the centre window; negative where the window is larger than the grid."""
    return tuple((full - wanted) // 2 for full, wanted in zip(full_shape, size))


def window(full_shape: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """The part of the grid that lies in its centre window, (240, 240, 155) -> 32:208, 13:141."""
    origin = window_origin(full_shape, size)
    return tuple(
        slice(max(start, 0), min(start + wanted, full))
        for start, wanted, full in zip(origin, size, full_shape)
    )


def paste(values: np.ndarray, full_shape: Sequence[int]) -> np.ndarray:
    """Put a centre window, (x, y, z) or (x, y, z, R), back into its grid; 0 outside.

    Returns (X, Y, Z) or (X, Y, Z, R) in the dtype of `values`.
    """
    size = values.shape[: len(full_shape)]
    origin = window_origin(full_shape, size)
    inside = window(full_shape, size)
    grid = np.zeros((*full_shape, *values.shape[len(full_shape) :]), values.dtype)
    grid[inside] = values[tuple(_shifted(side, -start) for side, start in zip(inside, origin))]
    return grid


@dataclass(frozen=True)
class Scaling:
    """Intensities as image * scale + shift, in float32, for a row of pixels at a time.

    scale, shift: (W * C,), one pixel's values repeated, so that NumPy's inner loop is long.
    masked: background, exactly 0 in the image, stays exactly 0.
    """

    scale: np.ndarray
    shift: np.ndarray
    masked: bool


def scaling(statistics: Sequence[dict[str, float]], normalisation: str, width: int) -> Scaling:
    """How to normalise rows of `width` pixels of a case.

    z_score: zero mean and unit standard deviation over the non-zero voxels of each channel of the
    volume; background stays 0. min_max: each channel of the volume, background included, to
    [0, 1]. none: the stored numbers. A channel of one value only becomes 0.

    Raises:
        ValueError: for another name.
    """
    pairs = [_scale_and_shift(channel, normalisation) for channel in statistics]
    scale, shift = np.tile(np.array(pairs, np.float32).T, width)
    return Scaling(scale, shift, masked=normalisation == "z_score")


def _scale_and_shift(channel: dict[str, float], normalisation: str) -> tuple[float, float]:
    if normalisation == "none":
        return 1.0, 0.0
    if normalisation == "z_score":
        centre, spread = channel["mean"], channel["std"]
    elif normalisation == "min_max":
        centre = min(channel["min"], 0.0)
        spread = max(channel["max"], 0.0) - centre
    else:
        names = ", ".join(NORMALISATIONS)
        raise ValueError(f"normalisation: found {normalisation!r}, expected one of {names}.")
    return (1 / spread, -centre / spread) if spread else (0.0, 0.0)


def read_window(
    case: StoredCase,
    z: int,
    size: Sequence[int],
    out: np.ndarray,
    *,
    flip: tuple[bool, bool] = (False, False),
) -> None:
    """Copy slice `z` of the centre window into `out`, 0 where the store holds nothing.

    Args:
        z: index along the window's third axis, 0 .. size[2] - 1.
        size: (x, y, z) of the window.
        out: (x, y, C) in the dtype of the stored image, its last axis contiguous.
        flip: whether to mirror the window along x and along y.
    """
    out.fill(0)
    stored, inside = _overlap(case, z, size, flip)
    if stored is not None:
        _copy_pixels(case.image[stored], out[inside], flip)


def read_slice(
    case: StoredCase,
    z: int,
    size: Sequence[int],
    scaling: Scaling,
    out: np.ndarray,
    *,
    flip: tuple[bool, bool] = (False, False),
) -> None:
    """As read_window, normalised, into the float32 array `out` (x, y, C)."""
    raw = np.empty(out.shape, case.image.dtype)
    read_window(case, z, size, raw, flip=flip)
    rows = raw.reshape(out.shape[0], -1)
    scaled = rows.astype(np.float32)
    scaled *= scaling.scale
    scaled += scaling.shift
    if scaling.masked:
        scaled *= rows != 0
    out[...] = scaled.reshape(out.shape)


def read_targets(
    case: StoredCase,
    z: int,
    size: Sequence[int],
    targets: Sequence[Sequence[int]],
    out: np.ndarray,
    *,
    flip: tuple[bool, bool] = (False, False),
) -> None:
    """Slice `z` of the window's labels as masks: out[..., k] is 1 where the label is in targets[k].

    Args:
        out: (x, y, len(targets)) float32.
    """
    out.fill(0)
    stored, inside = _overlap(case, z, size, flip)
    if stored is None:
        return
    labels = case.labels[stored][:: -1 if flip[0] else 1, :: -1 if flip[1] else 1]
    for k, codes in enumerate(targets):
        mask = np.zeros(labels.shape, bool)
        for code in codes:
            mask |= labels == code
        out[(*inside, k)] = mask


def _copy_pixels(source: np.ndarray, out: np.ndarray, flip: tuple[bool, bool]) -> None:
    # All channels of a pixel as one element: mirrored rows are then copied 8 bytes at a time.
    pixel = np.dtype((np.void, source.shape[-1] * source.itemsize))
    mirrored = source.view(pixel)[:: -1 if flip[0] else 1, :: -1 if flip[1] else 1]
    out.view(pixel)[...] = mirrored


def _overlap(
    case: StoredCase, z: int, size: Sequence[int], flip: tuple[bool, bool]
) -> tuple[tuple | None, tuple | None]:
    """Index of the stored arrays and index of the window, where slice `z` meets the stored box."""
    shape = case.image.shape
    start = [o - b for o, b in zip(window_origin(case.full_shape, size), case.origin)]
    if not 0 <= start[2] + z < shape[0]:
        return None, None
    stored, inside = [], []
    for axis in (0, 1):
        low, high = max(start[axis], 0), min(start[axis] + size[axis], shape[axis + 1])
        if low >= high:
            return None, None
        side = slice(low - start[axis], high - start[axis])
        stored.append(slice(low, high))
        inside.append(_mirrored(side, size[axis]) if flip[axis] else side)
    return (start[2] + z, *stored), tuple(inside)


def _mirrored(side: slice, length: int) -> slice:
    return slice(length - side.stop, length - side.start)


def _shifted(side: slice, by: int) -> slice:
    return slice(side.start + by, side.stop + by)
