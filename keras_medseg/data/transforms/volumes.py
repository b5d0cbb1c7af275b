"""Windows of the full grid, crops of the stored box, and normalization of their intensities."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_medseg.data.store import StoredCase
from keras_medseg.errors import require_choice

NORMALIZATIONS = ("z_score", "min_max", "none")
SLICE_NORMALIZATIONS = (*NORMALIZATIONS, "window_min_max")

_AT_ONCE = 2**16
"""Values that are computed at once: 256 KB, so that intermediate results stay in the cache."""
_WIDTH = 2048
"""Pixels for which scale and shift are repeated."""

Index = tuple[int | slice, ...]


def window_origin(full_shape: Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
    """First voxel of the center window; negative where the window is larger than the grid."""
    return tuple((full - wanted) // 2 for full, wanted in zip(full_shape, size))


def window(full_shape: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """The part of a grid inside its center window, e.g. 32:208 of 240 voxels, 13:141 of 155."""
    origin = window_origin(full_shape, size)
    return tuple(
        slice(max(start, 0), min(start + wanted, full))
        for start, wanted, full in zip(origin, size, full_shape)
    )


def paste(values: np.ndarray, full_shape: Sequence[int]) -> np.ndarray:
    """Put a center window back into its grid; 0 outside.

    Args:
        values: (x, y, z), (x, y, z, R) or the same in two dimensions.
        full_shape: of the grid, (X, Y, Z) or (X, Y).

    Returns:
        (X, Y, Z), (X, Y, Z, R) or the same in two dimensions, in the dtype of `values`.
    """
    size = values.shape[: len(full_shape)]
    origin = window_origin(full_shape, size)
    inside = window(full_shape, size)
    grid = np.zeros((*full_shape, *values.shape[len(full_shape) :]), values.dtype)
    part = tuple(slice(i.start - start, i.stop - start) for i, start in zip(inside, origin))
    grid[inside] = values[part]
    return grid


@dataclass(frozen=True)
class Scaling:
    """Intensities as image * scale + shift, in float32.

    Attributes:
        scale: (_WIDTH * C,), the C values of a pixel, repeated.
        shift: (_WIDTH * C,), like `scale`.
        masked: whether background, exactly 0 in the image, stays exactly 0.
        channels: indices of these C channels in the image, in this order.
    """

    scale: np.ndarray
    shift: np.ndarray
    masked: bool
    channels: tuple[int, ...]


def scaling(
    statistics: Sequence[dict[str, float]],
    normalization: str,
    channels: tuple[int, ...] | None = None,
) -> Scaling:
    """How to normalize a case with these statistics, `_WIDTH` pixels at a time.

    Args:
        statistics: of a `StoredCase`.
        normalization: "z_score": zero mean and unit standard deviation over the non-zero voxels of
            each channel of the volume; background stays 0. "min_max": each channel of the volume,
            background included, to [0, 1]. "none": the stored numbers. A channel with a single
            value becomes 0.
        channels: indices of the image channels to read, in this order; by default all.

    Raises:
        ValueError: unknown normalization, or channels that the image does not have.
    """
    require_choice("normalization", normalization, NORMALIZATIONS)
    everything = tuple(range(len(statistics)))
    channels = everything if channels is None else tuple(channels)
    if not channels or not set(channels) <= set(everything):
        raise ValueError(f"channels: found {channels}, expected some of {everything}.")
    pairs = [_scale_and_shift(statistics[channel], normalization) for channel in channels]
    scale, shift = (np.tile(np.array(values, np.float32), _WIDTH) for values in zip(*pairs))
    return Scaling(scale, shift, normalization == "z_score", channels)


def slice_scaling(
    case: StoredCase,
    normalization: str,
    window: Sequence[int],
    channels: tuple[int, ...] | None = None,
) -> Scaling:
    """How to normalize the slices of a case's center window.

    Args:
        case: the case to read.
        normalization: as in `scaling`, or "window_min_max": "min_max" by the extremes of the
            window instead of the volume, as where images are cropped first.
        window: (x, y, z) voxels of the window.
        channels: as in `scaling`.

    Raises:
        ValueError: as `scaling`.
    """
    require_choice("normalization", normalization, SLICE_NORMALIZATIONS)
    if normalization != "window_min_max":
        return scaling(case.statistics, normalization, channels)
    first = [start - at for start, at in zip(window_origin(case.full_shape, window), case.origin)]
    inside = case.image[_meeting(case.image.shape, first, window)[0]].reshape(-1, case.channels)
    # Background counts, here as in `scaling`, so that 0 is always among the values.
    low, high = inside.min(axis=0, initial=0), inside.max(axis=0, initial=0)
    extremes = [{"min": float(one), "max": float(other)} for one, other in zip(low, high)]
    return scaling(extremes, "min_max", channels)


def _scale_and_shift(channel: dict[str, float], normalization: str) -> tuple[float, float]:
    if normalization == "none":
        return 1.0, 0.0
    if normalization == "z_score":
        center, spread = channel["mean"], channel["std"]
    else:
        center = min(channel["min"], 0.0)
        spread = max(channel["max"], 0.0) - center
    return (1 / spread, -center / spread) if spread else (0.0, 0.0)


def read_slice(
    case: StoredCase,
    z: int,
    size: Sequence[int],
    scaling: Scaling,
    out: np.ndarray,
    *,
    flip: tuple[bool, bool] = (False, False),
) -> None:
    """Fill `out` with one slice of the center window, zero-padded and then normalized.

    Args:
        case: the case to read.
        z: index along the window's third axis, 0 .. size[2] - 1.
        size: (x, y, z) voxels of the window.
        scaling: of the case.
        out: (x, y, C) float32.
        flip: whether to mirror the window along x and along y.
    """
    _clear(out)
    if not scaling.masked and scaling.shift.any():
        out[...] = scaling.shift[: out.shape[2]]
    meeting = _overlap(case, case.image_boxes, z, size, flip)
    if meeting is None:
        return
    stored, inside = meeting
    values = _scaled(case.image[stored], scaling)
    # All channels of a pixel as one element: NumPy mirrors a row of single numbers more slowly.
    pixel = np.dtype((np.void, values.shape[2] * values.itemsize))
    out[inside].view(pixel)[...] = values.view(pixel)[_steps(flip)]


def read_targets(
    case: StoredCase,
    z: int,
    size: Sequence[int],
    targets: Sequence[Sequence[int]],
    out: np.ndarray,
    *,
    flip: tuple[bool, bool] = (False, False),
) -> None:
    """Like `read_slice`, for labels: out[..., k] is 1 where the label is one of targets[k], else 0.

    Args:
        case: the case to read.
        z: as in `read_slice`.
        size: as in `read_slice`.
        targets: label codes of each channel.
        out: (x, y, len(targets)) float32.
        flip: as in `read_slice`.

    Raises:
        ValueError: the case has no labels.
    """
    _clear(out)
    everything = case.require_labels()
    meeting = _overlap(case, case.label_boxes or (), z, size, flip)
    if meeting is None:
        return
    stored, inside = meeting
    labels = everything[stored][_steps(flip)]
    for k, codes in enumerate(targets):
        mask = labels == codes[0]
        for code in codes[1:]:
            mask |= labels == code
        out[(*inside, k)] = mask


def read_box(
    case: StoredCase,
    start: Sequence[int],
    scaling: Scaling,
    out: np.ndarray,
    *,
    flip: tuple[bool, ...] = (False, False, False),
) -> None:
    """Fill `out` with a crop of the stored box of a case, zero-padded and then normalized.

    Args:
        case: the case to read.
        start: (x, y, z) of the first voxel of the crop, counted from that of the box; it may lie
            outside.
        scaling: of the case.
        out: (x, y, z, C) float32.
        flip: whether to mirror the crop along x, y and z.
    """
    stored, inside = _meeting(case.image.shape, start, out.shape)
    image = case.image[stored]
    if image.shape[:3] != (out.shape[2], *out.shape[:2]):
        _clear(out)
        if not scaling.masked and scaling.shift.any():
            out[...] = scaling.shift[: out.shape[3]]
    out = out[_steps(flip)][inside]
    if not image.size:
        return
    # A few planes at a time, so that all that is computed of them stays in the processor's cache.
    planes = max(1, _AT_ONCE * len(out) // out.size)
    for first in range(0, len(out), planes):
        part = slice(first, first + planes)
        out[part] = _scaled(_transposed(image[:, part]), scaling)


def read_box_targets(
    case: StoredCase,
    start: Sequence[int],
    targets: Sequence[Sequence[int]],
    out: np.ndarray,
    *,
    flip: tuple[bool, ...] = (False, False, False),
) -> None:
    """Like `read_box`, for labels: out[..., k] is 1 where the label is one of targets[k], else 0.

    Args:
        case: the case to read.
        start: as in `read_box`.
        targets: label codes of each channel.
        out: (x, y, z, len(targets)) float32.
        flip: as in `read_box`.

    Raises:
        ValueError: the case has no labels.
    """
    labels = case.require_labels()
    belongs = np.zeros((256, len(targets)), np.float32)
    for k, codes in enumerate(targets):
        belongs[list(codes), k] = 1
    _clear(out)
    if belongs[0].any():
        out[...] = belongs[0]
    stored, inside = _meeting(labels.shape, start, out.shape)
    # Most voxels have no label, and those are found faster than a channel is filled.
    z, x, y = np.nonzero(labels[stored])
    out[_steps(flip)][inside][x, y, z] = belongs[labels[stored][z, x, y]]


def read_box_object(case: StoredCase, start: Sequence[int], out: np.ndarray) -> None:
    """Like `read_box`: fill `out` (x, y, z) bool with whether any channel of a voxel is not 0."""
    out[...] = False
    stored, inside = _meeting(case.image.shape, start, out.shape)
    out[inside] = np.moveaxis(np.any(case.image[stored] != 0, axis=-1), 0, 2)


def read_volume(
    case: StoredCase, normalization: str, channels: tuple[int, ...] | None = None
) -> np.ndarray:
    """The whole stored box of a case, normalized.

    Args:
        case: the case to read.
        normalization: as in `scaling`.
        channels: as in `scaling`.

    Returns:
        (X', Y', Z', C) float32.

    Raises:
        ValueError: as `scaling`.
    """
    depth, width, height = case.image.shape[:3]
    how = scaling(case.statistics, normalization, channels)
    out = np.empty((width, height, depth, len(how.channels)), np.float32)
    read_box(case, (0, 0, 0), how, out)
    return out


def uncrop(values: np.ndarray, case: StoredCase) -> np.ndarray:
    """Put a stored box, (X', Y', Z') or (X', Y', Z', R), back into the case's grid; 0 outside."""
    grid = np.zeros((*case.full_shape, *values.shape[3:]), values.dtype)
    box = tuple(slice(first, first + size) for first, size in zip(case.origin, values.shape))
    grid[box] = values
    return grid


def _meeting(
    stored: Sequence[int], start: Sequence[int], size: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The overlap of a crop (x, y, z) with a box stored as (z, x, y): indices of box and crop."""
    ours, theirs = [], []
    for first, wanted, full in zip(start, size, (stored[1], stored[2], stored[0])):
        low, high = max(first, 0), max(min(first + wanted, full), 0)
        ours.append(slice(low, high))
        theirs.append(slice(low - first, max(high, low) - first))
    return (ours[2], ours[0], ours[1]), tuple(theirs)


def _transposed(image: np.ndarray) -> np.ndarray:
    """(z, x, y, C) as stored to (x, y, z, C), without gaps in memory."""
    # All channels of a voxel as one element: transposing the axes takes a fraction of the time.
    voxel = np.dtype((np.void, image.shape[3] * image.itemsize))
    voxels = np.ascontiguousarray(np.moveaxis(image.view(voxel)[..., 0], 0, 2))
    return voxels[..., None].view(image.dtype)


def _scaled(image: np.ndarray, scaling: Scaling) -> np.ndarray:
    if scaling.channels != tuple(range(image.shape[-1])):
        image = image[..., scaling.channels]
    # As one long row per block: NumPy's inner loop over the rows of an image takes twice the time.
    count, length = image.size, scaling.scale.size
    flat = np.empty(-(-count // length) * length, np.float32)
    flat[count:] = 0
    values = flat[:count].reshape(image.shape)
    values[...] = image
    foreground = flat != 0
    blocks = flat.reshape(-1, length)
    blocks *= scaling.scale
    blocks += scaling.shift
    if scaling.masked:
        flat *= foreground
    return values


def _clear(out: np.ndarray) -> None:
    # Filling bytes is a memset, which takes half the time of filling floats.
    out.view(np.uint8)[...] = 0


def _steps(flip: Sequence[bool]) -> tuple[slice, ...]:
    return tuple(slice(None, None, -1 if mirrored else 1) for mirrored in flip)


def _overlap(
    case: StoredCase,
    boxes: Sequence[tuple[int, int, int, int]],
    z: int,
    size: Sequence[int],
    flip: tuple[bool, bool],
) -> tuple[Index, Index] | None:
    """The overlap of slice `z` with its box in `boxes`: indices of the stored arrays and window."""
    origin = window_origin(case.full_shape, size)
    x, y, first = origin[0] - case.origin[0], origin[1] - case.origin[1], origin[2] - case.origin[2]
    if not 0 <= first + z < len(boxes):
        return None
    left, right, top, bottom = boxes[first + z]
    left, right = max(x, left), min(x + size[0], right)
    top, bottom = max(y, top), min(y + size[1], bottom)
    if left >= right or top >= bottom:
        return None
    row = slice(size[0] + x - right, size[0] + x - left) if flip[0] else slice(left - x, right - x)
    column = (
        slice(size[1] + y - bottom, size[1] + y - top) if flip[1] else slice(top - y, bottom - y)
    )
    return (first + z, slice(left, right), slice(top, bottom)), (row, column)
