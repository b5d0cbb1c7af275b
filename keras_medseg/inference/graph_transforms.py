"""What is done to intensities and label maps around a network, as TensorFlow operations.

Each function computes what its counterpart in `data/transforms/` or `inference/outputs.py` computes
with NumPy, SciPy or Pillow, for tensors (N, C, *axes) whose sizes are known only when the graph
runs. Only operations are used that ONNX has, too. Numbers that decide about a rounding are in
float64, as there, so that the results are the same bits; tests compare.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy import ndimage

from keras_medseg.data.transforms.images import Preparation
from keras_medseg.inference.outputs import THRESHOLD, merging_steps

_PILLOW_BITS = 22
"""Of the coefficients with which Pillow resizes 8-bit images: 32 - 8 - 2."""


class Placement(NamedTuple):
    """Where a grid and a frame of another size overlap if their centers meet.

    Attributes:
        full: (k,) int32, size of the grid.
        size: (k,) int32, size of the frame.
        start: (k,) first index of the overlap in the grid.
        before: (k,) first index of the overlap in the frame.
        length: (k,) size of the overlap.
    """

    full: tf.Tensor
    size: tf.Tensor
    start: tf.Tensor
    before: tf.Tensor
    length: tf.Tensor


def placement(full: tf.Tensor, size: tf.Tensor | Sequence[int], *, of_window: bool) -> Placement:
    """The overlap of a grid with a frame.

    Of an odd difference, the center window of a volume has the smaller half before it, and an image
    in a frame has the larger half cut off (`volumes.window_origin`, `resize._overlap`).

    Args:
        full: (k,) int32.
        size: (k,) whole numbers.
        of_window: whether the frame is the center window of a volume.
    """
    size = tf.convert_to_tensor(size, tf.int32)
    # Differences of one sign each: ONNX rounds the quotient of a negative number toward 0.
    larger, smaller = tf.maximum(full - size, 0), tf.maximum(size - full, 0)
    start, before = (larger, smaller + 1) if of_window else (larger + 1, smaller)
    return Placement(full, size, start // 2, before // 2, tf.minimum(full, size))


def framed(values: tf.Tensor, place: Placement) -> tf.Tensor:
    """(N, C, *full) -> (N, C, *size): cut off where the grid is larger, 0 where it is smaller."""
    return _moved(values, place.start, place.length, place.before, place.size)


def unframed(values: tf.Tensor, place: Placement) -> tf.Tensor:
    """The inverse of `framed`, (N, C, *size) -> (N, C, *full); 0 where it cut off."""
    return _moved(values, place.before, place.length, place.start, place.full)


def _moved(
    values: tf.Tensor, start: tf.Tensor, length: tf.Tensor, before: tf.Tensor, size: tf.Tensor
) -> tf.Tensor:
    none = tf.zeros(2, tf.int32)
    kept = tf.slice(
        values, tf.concat([none, start], 0), tf.concat([tf.shape(values)[:2], length], 0)
    )
    around = tf.stack([before, size - length - before], 1)
    return tf.pad(kept, tf.concat([tf.zeros((2, 2), tf.int32), around], 0))


def center_and_spread(image: tf.Tensor, normalization: str) -> tuple[tf.Tensor, tf.Tensor]:
    """The numbers by which `scaled` normalizes volumes, as `volumes.scaling` measures them.

    Args:
        image: (N, C, X, Y, Z) float32.
        normalization: "z_score": mean and standard deviation of the non-zero voxels. "min_max":
            minimum, and maximum minus minimum, with 0 among the values.

    Returns:
        Two tensors (N, C) in float64.
    """
    axes = [*range(2, image.shape.rank)]
    if normalization == "min_max":
        low = tf.minimum(tf.reduce_min(image, axes), 0.0)
        high = tf.maximum(tf.reduce_max(image, axes), 0.0)
        return tf.cast(low, tf.float64), tf.cast(high, tf.float64) - tf.cast(low, tf.float64)
    foreground, values = image != 0, tf.cast(image, tf.float64)
    count = tf.reduce_sum(tf.cast(foreground, tf.float64), axes, keepdims=True)
    count = tf.maximum(count, 1.0)
    mean = tf.reduce_sum(values, axes, keepdims=True) / count
    apart = tf.where(foreground, values - mean, tf.zeros_like(values))
    variance = tf.reduce_sum(apart * apart, axes, keepdims=True) / count
    shape = tf.shape(image)[:2]
    return tf.reshape(mean, shape), tf.reshape(tf.sqrt(variance), shape)


def scaled(image: tf.Tensor, center: tf.Tensor, spread: tf.Tensor, normalization: str) -> tf.Tensor:
    """(image - center) / spread, as `volumes.read_slice` computes it.

    Args:
        image: (N, C, *axes) float32.
        center: (N, C) float64, see `center_and_spread`.
        spread: (N, C) float64; where it is 0, the channel becomes 0.
        normalization: of "z_score", background stays 0.
    """
    some = spread > 0
    divisor = tf.where(some, spread, tf.ones_like(spread))
    scale = tf.where(some, 1 / divisor, tf.zeros_like(spread))
    shift = tf.where(some, -center / divisor, tf.zeros_like(spread))
    shape = tf.concat([tf.shape(spread), tf.ones(image.shape.rank - 2, tf.int32)], 0)
    scale, shift = (tf.reshape(tf.cast(part, tf.float32), shape) for part in (scale, shift))
    values = image * scale + shift
    if normalization != "z_score":
        return values
    return tf.where(image != 0, values, tf.zeros_like(values))


def label_map(
    maps: Mapping[str, tf.Tensor],
    regions: Mapping[str, Sequence[int]],
    nesting: Mapping[str, int],
    written: Mapping[int, int],
) -> tf.Tensor:
    """One label map from the probabilities of regions: `merge_regions`, or `most_likely`.

    Args:
        maps: region -> its probabilities, all of one shape.
        regions: region -> its label codes.
        nesting: as in `merge_regions`; if it is empty, the most likely region wins.
        written: label code -> the code that is written.

    Returns:
        uint8 in the shape of the maps.
    """
    first = next(iter(maps.values()))
    labels = tf.zeros_like(first, tf.int32)
    if not nesting:
        largest = tf.reduce_max(tf.stack([*maps.values()]), 0)
        taken = largest <= THRESHOLD
        for name, likely in maps.items():  # of equals the first one wins
            won = (likely >= largest) & ~taken
            labels = tf.where(won, written[regions[name][0]], labels)
            taken |= won
        return tf.cast(labels, tf.uint8)
    inside: dict[str, tf.Tensor] = {}
    for step in merging_steps(list(maps), regions, nesting):
        won = maps[step.name] > THRESHOLD
        for other, wins_ties in step.rivals:
            larger = tf.greater_equal if wins_ties else tf.greater
            won &= larger(maps[step.name], maps[other])
        inside[step.name] = won if step.parent is None else won & inside[step.parent]
        labels = tf.where(inside[step.name], written[step.code], labels)
    return tf.cast(labels, tf.uint8)


def prepared(pixels: tf.Tensor, size: Sequence[int], how: Preparation) -> tf.Tensor:
    """`Preparation.apply` of images of a known size.

    Args:
        pixels: (N, C, *size) float64, whole numbers from 0 to 255.
        size: (rows, columns).
        how: the preparation.

    Returns:
        (N, C, *size) float32.
    """
    if how.smoothing_px:
        pixels = _smoothed(pixels, size, how.smoothing_px)
    if how.equalization:
        pixels = _equalized(pixels, size)
    values = tf.cast(pixels, tf.float32) * np.float32(1 / 255)
    if how.mean and how.std:
        mean, std = (tf.constant([numbers], tf.float64) for numbers in (how.mean, how.std))
    else:
        exact = tf.cast(values, tf.float64)
        mean = tf.reduce_mean(exact, (2, 3))
        std = tf.sqrt(tf.reduce_mean((exact - mean[:, :, None, None]) ** 2, (2, 3)))
    scale = 1 / tf.where(std > 0, std, tf.ones_like(std))
    mean, scale = (tf.cast(part, tf.float32)[:, :, None, None] for part in (mean, scale))
    return (values - mean) * scale


def _smoothed(pixels: tf.Tensor, size: Sequence[int], sigma: float) -> tf.Tensor:
    """scipy.ndimage.gaussian_filter of 8-bit images, one axis after the other."""
    # The filter of a unit matrix is the matrix of the filter.
    rows, columns = (
        ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0, mode="nearest") for side in size
    )
    pixels = _rounded_to_float32(tf.matmul(rows, pixels))
    return tf.round(_rounded_to_float32(tf.matmul(pixels, columns, transpose_b=True)))


def _equalized(pixels: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """`images._equalized` of every channel."""
    total = float(size[0] * size[1])

    def not_above(level: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(pixels <= level, tf.float64), (2, 3))

    levels = tf.range(256, dtype=tf.float64)
    below = tf.transpose(tf.map_fn(not_above, levels, parallel_iterations=1), (1, 2, 0))
    darkest = tf.reduce_min(pixels, (2, 3), keepdims=True)
    lowest = tf.reduce_sum(tf.cast(pixels == darkest, tf.float64), (2, 3))[:, :, None]
    rest = tf.maximum(total - lowest, 1.0)
    table = tf.reshape(tf.round(tf.maximum((below - lowest) * (255 / rest), 0.0)), (-1,))
    channels = tf.shape(pixels)[0] * tf.shape(pixels)[1]
    offset = tf.reshape(tf.range(channels) * 256, tf.concat([tf.shape(pixels)[:2], [1, 1]], 0))
    found = tf.gather(table, tf.cast(pixels, tf.int32) + offset)
    return tf.where(lowest[..., None] == total, pixels, found)


def scaled_size(full: tf.Tensor, size: Sequence[int], fit: str) -> tf.Tensor:
    """`resize._scaled_size`: (rows, columns) int32 to which an image of size `full` is scaled."""
    if fit == "cut":
        return full
    if fit == "stretch":
        return tf.constant([*size], tf.int32)
    sides = tf.cast(full, tf.float64)
    ratios = tf.constant([*size], tf.float64) / sides
    ratio = tf.reduce_min(ratios) if fit == "pad" else tf.reduce_max(ratios)
    return tf.maximum(tf.cast(tf.round(sides * ratio), tf.int32), 1)


def resized_pixels(pixels: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Pillow's bilinear resizing of 8-bit images, with antialiasing, to the bit.

    Pillow rounds coefficients to 22 bits, and the image to 8 bits after each axis. In float64, sums
    of these whole numbers are exact.

    Args:
        pixels: (N, C, H, W) float64, whole numbers from 0 to 255.
        size: (rows, columns) int32.

    Returns:
        (N, C, rows, columns) float64, whole numbers from 0 to 255.
    """
    one = 2.0**_PILLOW_BITS
    rows, columns = (
        tf.floor(_coefficients(tf.shape(pixels)[2 + axis], size[axis]) * one + 0.5)
        for axis in (0, 1)
    )

    def rounded(sums: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(tf.floor((sums + one / 2) / one), 0.0, 255.0)

    return _along_axes(pixels, rows, columns, rounded)


def resized_map(values: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """As `resized_pixels`, for probabilities: (N, C, H, W) float32 -> (N, C, rows, columns)."""
    rows, columns = (_coefficients(tf.shape(values)[2 + axis], size[axis]) for axis in (0, 1))
    exact = _along_axes(tf.cast(values, tf.float64), rows, columns, _rounded_to_float32)
    return tf.cast(exact, tf.float32)


def resized_labels(labels: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Pillow's resizing by the nearest pixel, (N, C, H, W) -> (N, C, rows, columns)."""
    for axis in (0, 1):
        full, wanted = tf.shape(labels)[2 + axis], size[axis]
        step = tf.cast(full, tf.float64) / tf.cast(wanted, tf.float64)
        # Pillow adds step after step; the product would round another way where pixels tie.
        steps = tf.concat([[step * 0.5], tf.fill([wanted - 1], step)], 0)
        nearest = tf.minimum(tf.cast(tf.cumsum(steps), tf.int32), full - 1)
        labels = tf.gather(labels, nearest, axis=2 + axis)
    return labels


def _coefficients(full: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """(size, full) float64: the weights of Pillow's triangle filter, which add up to 1 in a row."""
    full, size = tf.cast(full, tf.float64), tf.cast(size, tf.float64)
    scale = full / size
    width = tf.maximum(scale, 1.0)
    center = (tf.range(size, dtype=tf.float64) + 0.5) * scale
    apart = (tf.range(full, dtype=tf.float64)[None] - center[:, None] + 0.5) * (1 / width)
    weights = tf.maximum(1 - tf.abs(apart), 0.0)
    return weights / tf.reduce_sum(weights, 1, keepdims=True)


def _rounded_to_float32(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(values, tf.float32), tf.float64)


def _along_axes(
    values: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, after: Callable
) -> tf.Tensor:
    """(N, C, H, W) times (W, n), then (m, H) times that; `after` is done to both results."""
    return after(tf.matmul(rows, after(tf.matmul(values, columns, transpose_b=True))))
