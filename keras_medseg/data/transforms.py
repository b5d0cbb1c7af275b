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

    scale, shift: (width, C), one pixel's values repeated, so that NumPy's inner loop is long.
    masked: background, exactly 0 in the image, stays exactly 0.
    """

    scale: np.ndarray
    shift: np.ndarray
    masked: bool

    @property
    def background(self) -> np.ndarray | float:
        """What a row of zeros becomes."""
        return 0.0 if self.masked else self.shift


def scaling(statistics: Sequence[dict[str, float]], normalisation: str, width: int) -> Scaling:
    """How to normalise rows of `width` pixels of a case.

    z_score: zero mean and unit standard deviation over the non-zero voxels of each channel of the
    volume; background stays 0. min_max: each channel of the volume, background included, to
    [0, 1]. none: the stored numbers. A channel of one value only becomes 0.

    Raises:
        ValueError: for another name.
    """
    pairs = [_scale_and_shift(channel, normalisation) for channel in statistics]
    scale, shift = (np.tile(np.array(v, np.float32), (width, 1)) for v in zip(*pairs))
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
    """As read_window, but normalised; `out` is float32."""
    out[...] = scaling.background
    stored, inside = _overlap(case, z, size, flip, trimmed=True)
    if stored is None:
        return
    source = case.image[stored]
    raw = np.empty(source.shape, source.dtype)
    _copy_pixels(source, raw, flip)
    width = source.shape[1]
    raw = raw.reshape(len(raw), -1)
    scaled = raw.astype(np.float32)
    scaled *= scaling.scale[:width].reshape(-1)
    scaled += scaling.shift[:width].reshape(-1)
    if scaling.masked:
        scaled *= raw != 0
    out[inside] = scaled.reshape(source.shape)


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
    if stored is None or not case.labels[stored].any():
        return
    labels = case.labels[stored][_steps(flip)]
    for k, codes in enumerate(targets):
        mask = labels == codes[0]
        for code in codes[1:]:
            mask |= labels == code
        out[(*inside, k)] = mask


def _copy_pixels(source: np.ndarray, out: np.ndarray, flip: tuple[bool, bool]) -> None:
    if flip[1]:
        # All channels of a pixel as one element, or NumPy would copy a mirrored row by number.
        pixel = np.dtype((np.void, source.shape[-1] * source.itemsize))
        source, out = source.view(pixel), out.view(pixel)
    out[...] = source[_steps(flip)]


def _steps(flip: tuple[bool, bool]) -> tuple[slice, slice]:
    return slice(None, None, -1 if flip[0] else 1), slice(None, None, -1 if flip[1] else 1)


def _overlap(
    case: StoredCase,
    z: int,
    size: Sequence[int],
    flip: tuple[bool, bool],
    *,
    trimmed: bool = False,
) -> tuple[tuple | None, tuple | None]:
    """Index of the stored arrays and index of the window, where slice `z` meets the stored box.

    With `trimmed`, where it meets the box of the slice's own non-zero voxels.
    """
    origin = window_origin(case.full_shape, size)
    x, y, z = (o - b + at for o, b, at in zip(origin, case.origin, (0, 0, z)))
    depth, width, height, _ = case.image.shape
    if not 0 <= z < depth:
        return None, None
    box = case.slice_boxes[z] if trimmed else (0, width, 0, height)
    row = slice(max(x, box[0]), min(x + size[0], box[1]))
    column = slice(max(y, box[2]), min(y + size[1], box[3]))
    if row.start >= row.stop or column.start >= column.stop:
        return None, None
    sides = (_shifted(row, -x), _shifted(column, -y))
    inside = (_mirrored(s, n) if f else s for s, n, f in zip(sides, size, flip))
    return (z, row, column), tuple(inside)


def _mirrored(side: slice, length: int) -> slice:
    return slice(length - side.stop, length - side.start)


def _shifted(side: slice, by: int) -> slice:
    return slice(side.start + by, side.stop + by)
