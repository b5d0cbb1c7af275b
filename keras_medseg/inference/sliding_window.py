"""Predict whole volumes with a network for patches: overlapping windows are averaged."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_medseg.inference.flips import mirrored_mean

if TYPE_CHECKING:
    import keras

MODES = ("gaussian", "constant")


def predict_volume(
    model: "keras.Model",
    volume: np.ndarray,
    *,
    patch: Sequence[int],
    overlap: float = 0.5,
    mode: str = "gaussian",
    batch_size: int = 1,
    flips: Sequence[int] = (),
    margin: int = 0,
) -> np.ndarray:
    """Probabilities of a whole volume; windows and weights as in MONAI's sliding_window_inference.

    Besides the volume and the result, this needs as much memory again as the result, and what the
    network needs for one batch. Windows are added in a fixed order, so another `batch_size` changes
    the result only as far as it changes the network's output for a window.

    Args:
        model: (N, *patch, C) -> (N, *patch, R), one output.
        volume: (X, Y, Z, C) float32, normalized as in training. If it is smaller than the patch, it
            is padded with 0 on both sides.
        patch: (x, y, z) voxels of the windows.
        overlap: share of a window that its neighbor also covers, 0 to below 1.
        mode: how windows are averaged; "gaussian" gives their middle more weight, see
            `importance_map`.
        batch_size: windows per call of the network.
        flips: axes of the volume, 0 to 2; the result is the mean over the volume mirrored along
            every set of them, see `flips.mirrored_mean`. Three axes are 8 times the work.
        margin: voxels that the model reads beyond its output on every side; those outside of the
            volume are 0. The model takes (N, *(patch + 2 margin), C) then.

    Returns:
        (X, Y, Z, R) float32.

    Raises:
        ValueError: arguments are out of range or do not fit each other, or the output of the
            network has another shape or is not finite.
    """
    _check(volume, patch, overlap, mode, batch_size)

    def predict(values: np.ndarray) -> np.ndarray:
        return _predict(model, values, tuple(patch), overlap, mode, batch_size, margin)

    return mirrored_mean(predict, volume, flips)


def window_starts(
    size: Sequence[int], patch: Sequence[int], overlap: float
) -> list[tuple[int, ...]]:
    """First voxels of the windows that cover a volume; the last axis runs fastest.

    Neighbors are int(patch * (1 - overlap)) voxels apart, at least one; the last window of an axis
    ends where the volume ends. A volume must not be smaller than the patch.
    """
    lines = []
    for full, wanted in zip(size, patch):
        step = max(int(wanted * (1 - overlap)), 1)
        count = math.ceil((full - wanted) / step) + 1
        lines.append([min(i * step, full - wanted) for i in range(count)])
    return list(itertools.product(*lines))


def importance_map(patch: Sequence[int], mode: str) -> np.ndarray:
    """Weight of each voxel of a window: (x, y, z) float32 of the patch.

    "constant": 1. "gaussian": 1 in the middle, standard deviation patch / 8 along each axis, and
    nowhere below 0.001.
    """
    weights = np.ones((), np.float32)
    for size in patch if mode == "gaussian" else ():
        offsets = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
        line = np.exp(offsets**2 / np.float32(-2 * (0.125 * size) ** 2))
        weights = weights[..., None] * line
    # MONAI takes the smallest weight where that is above 0.001, which changes nothing.
    return np.maximum(np.broadcast_to(weights, tuple(patch)), np.float32(1e-3))


def _predict(
    model: "keras.Model",
    volume: np.ndarray,
    patch: tuple[int, ...],
    overlap: float,
    mode: str,
    batch_size: int,
    margin: int,
) -> np.ndarray:
    full = volume.shape[:-1]
    missing = [max(wanted - size, 0) for wanted, size in zip(patch, full)]
    before = [number // 2 for number in missing]
    padding = [(first, number - first) for first, number in zip(before, missing)]
    if any(missing):
        volume = np.pad(volume, [*padding, (0, 0)])
    weights = importance_map(patch, mode)
    total: np.ndarray | None = None
    weight = np.zeros(volume.shape[:-1], np.float32)
    volume = np.pad(volume, [*[(margin, margin)] * len(full), (0, 0)]) if margin else volume
    for start, predicted in _windows(model, volume, patch, overlap, batch_size, margin):
        if total is None:
            total = np.zeros((*weight.shape, predicted.shape[-1]), np.float32)
        window = tuple(slice(first, first + size) for first, size in zip(start, patch))
        total[window] += weights[..., None] * predicted
        weight[window] += weights
    assert total is not None
    total /= weight[..., None]
    return total[tuple(slice(first, first + size) for first, size in zip(before, full))]


def _windows(
    model: "keras.Model",
    volume: np.ndarray,
    patch: tuple[int, ...],
    overlap: float,
    batch_size: int,
    margin: int,
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """The first voxel of each window, and the network's output for it, (*patch, R)."""
    starts = window_starts([size - 2 * margin for size in volume.shape[:-1]], patch, overlap)
    batch_size = min(batch_size, len(starts))
    read = [size + 2 * margin for size in patch]
    batch = np.zeros((batch_size, *read, volume.shape[-1]), np.float32)
    for done in range(0, len(starts), batch_size):
        now = starts[done : done + batch_size]
        # The last batch is filled up with rows of the one before; another size would be compiled.
        for row, start in enumerate(now):
            batch[row] = volume[tuple(slice(f, f + size) for f, size in zip(start, read))]
        predicted = np.asarray(model.predict_on_batch(batch))
        _check_output(predicted, (batch_size, *patch))
        yield from zip(now, predicted)


def _check(
    volume: np.ndarray, patch: Sequence[int], overlap: float, mode: str, batch_size: int
) -> None:
    if volume.ndim != len(patch) + 1 or min(patch) < 1:
        raise ValueError(
            f"volume, patch: found {volume.shape} and {tuple(patch)}, expected (X, Y, Z, C) and "
            "three sizes of 1 or more."
        )
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: found {overlap}, expected 0 to below 1, such as 0.5.")
    if mode not in MODES:
        raise ValueError(f"mode: found {mode!r}, expected one of {', '.join(MODES)}.")
    if batch_size < 1:
        raise ValueError(f"batch_size: found {batch_size}, expected 1 or more.")


def _check_output(predicted: np.ndarray, expected: tuple[int, ...]) -> None:
    if predicted.shape[:-1] != expected:
        raise ValueError(
            f"model: found an output of shape {predicted.shape}, expected {(*expected, 'regions')} "
            "for windows of this patch."
        )
    if not np.isfinite(predicted).all():
        raise ValueError(
            "model: found probabilities that are not finite, expected numbers. Training has "
            "diverged; use an earlier checkpoint."
        )
