"""Batches of two-dimensional pictures, and what is done to their intensities."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from keras_medseg.data.batches import base
from keras_medseg.data.buffers import SHARED
from keras_medseg.data.store import Store, StoredCase
from keras_medseg.data.transforms import augment, volumes

NORMALISATIONS = ("mean_std", "mean_std_per_picture", "unit_range")


@dataclass(frozen=True)
class Preparation:
    """What is done to every picture's intensities, in training and in prediction alike.

    In this order: smoothing, equalisation, division by 255, (x - mean) / std.

    smoothing_px: standard deviation of a Gaussian filter, rounded to 8 bits afterwards; 0 for none.
    equalisation: whether each channel's histogram is equalised, as OpenCV's equalizeHist does.
    mean, std: one number per channel, of intensities from 0 to 1; None for each picture's own.
    """

    smoothing_px: float = 0.0
    equalisation: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def condition(self, pixels: np.ndarray) -> np.ndarray:
        """Smoothing and equalisation alone, (H, W, C) uint8 -> (H, W, C) uint8."""
        if self.smoothing_px:
            from scipy import ndimage

            sigmas = (self.smoothing_px, self.smoothing_px, 0)
            smooth = ndimage.gaussian_filter(pixels.astype(np.float32), sigmas, mode="nearest")
            pixels = np.rint(smooth).astype(np.uint8)
        if self.equalisation:
            pixels = np.stack([_equalised(channel) for channel in np.moveaxis(pixels, -1, 0)], -1)
        return pixels

    def apply(self, pixels: np.ndarray, brightness: float = 1.0) -> np.ndarray:
        """(H, W, C) uint8 -> (H, W, C) float32.

        brightness: factor for the intensities before they are normalised, cut off at white.
        """
        pixels = self.condition(pixels)
        rows, columns, channels = pixels.shape
        # Rows of numbers, for NumPy takes ten times as long over an innermost axis of three.
        values = pixels.reshape(rows, columns * channels).astype(np.float32)
        values *= np.float32(brightness / 255)
        if brightness > 1:
            np.minimum(values, 1, out=values)
        mean, std = (self.mean, self.std) if self.mean else _own_mean_std(values, channels)
        scale = 1 / np.where(np.array(std) > 0, std, 1)
        values -= np.tile(np.float32(mean), columns)
        values *= np.tile(np.float32(scale), columns)
        return values.reshape(rows, columns, channels)


def fit_preparation(
    store: Store,
    case_ids: Sequence[str],
    normalisation: str = "mean_std",
    *,
    smoothing_px: float = 0.0,
    equalisation: bool = False,
) -> Preparation:
    """A preparation that takes its numbers from these pictures, the training set.

    mean_std: mean and standard deviation of each channel over all pixels, black ones too, of all
    pictures after smoothing and equalisation. mean_std_per_picture: of each picture by itself.
    unit_range: 0 to 1, as PyTorch's ToTensor gives.

    Raises:
        ValueError: for another normalisation, or no pictures.
    """
    if normalisation not in NORMALISATIONS:
        names = ", ".join(NORMALISATIONS)
        raise ValueError(f"normalisation: found {normalisation!r}, expected one of {names}.")
    if not case_ids:
        raise ValueError("case_ids: found none, expected the training set.")
    conditions = Preparation(smoothing_px, equalisation)
    channels = store.cases[case_ids[0]].image.shape[3]
    if normalisation == "mean_std_per_picture":
        return conditions
    if normalisation == "unit_range":
        mean, std = (0.0,) * channels, (1.0,) * channels
    else:
        mean, std = _mean_std([store.cases[id] for id in case_ids], conditions)
    return Preparation(smoothing_px, equalisation, mean, std)


def read_picture(case: StoredCase, preparation: Preparation) -> np.ndarray:
    """(H, W, C) float32, prepared, for a network."""
    return preparation.apply(case.full_image()[:, :, 0])


@dataclass(frozen=True)
class PictureBatches:
    """Batches of pictures of a store, one sample per picture and epoch.

    Args:
        case_ids: the pictures, in any order.
        targets: name -> label codes; one channel of y each, in this order.
        preparation: what is done to the intensities; of the training set for every set.
        size: (rows, columns) that the store was prepared with.
        flips: axes, of "x" (rows, upside down) and "y" (columns, left and right), along which a
            sample is mirrored with probability 1/2.
        brightness: each sample's intensities are multiplied by a factor that is drawn uniformly
            from 1 - brightness to 1 + brightness.
        shuffle: a new order in every epoch; otherwise by name.

    Raises:
        ValueError: for arguments that fit neither each other nor the store.
    """

    store: Store
    case_ids: Sequence[str]
    targets: Mapping[str, tuple[int, ...]]
    preparation: Preparation
    size: tuple[int, int]
    batch_size: int
    seed: int = 0
    flips: tuple[str, ...] = ()
    brightness: float = 0.0
    shuffle: bool = True

    def __post_init__(self) -> None:
        if not self.case_ids:
            raise ValueError("case_ids: found none, expected at least one.")
        unknown = sorted(set(self.case_ids) - set(self.store.cases))
        if unknown:
            raise ValueError(f"case_ids: found {unknown}, expected cases of {self.store.folder}.")
        if not set(self.flips) <= {"x", "y"}:
            raise ValueError(f'flips: found {self.flips}, expected a subset of ("x", "y").')
        if self.batch_size < 1 or not 0 <= self.brightness < 1:
            raise ValueError("batch_size, brightness: expected 1 or more, and 0 to less than 1.")
        sizes = {case.full_shape for case in self._cases} - {(*self.size, 1)}
        if sizes:
            raise ValueError(f"size: found {self.size} and pictures of {sizes}, expected one size.")
        channels = {case.image.shape[3] for case in self._cases}
        wanted = {len(self.preparation.mean)} if self.preparation.mean else channels
        if channels != wanted or len(channels) > 1:
            raise ValueError(f"case_ids: found {channels} channels, expected {min(wanted)} in all.")
        if unlabelled := [case.id for case in self._cases if self.targets and not case.labelled]:
            raise ValueError(f"case_ids: found no labels for {unlabelled}, expected all labelled.")

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch, the last of which may be smaller."""
        return math.ceil(len(self._cases) / self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """(pictures,) indices in the order of that epoch."""
        count = len(self._cases)
        return base.epoch_order(count, self.seed, epoch) if self.shuffle else np.arange(count)

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `step` of `epoch`.

        Returns:
            x (N, H, W, C) and y (N, H, W, targets), float32.

        Raises:
            IndexError: for a step that the epoch does not have.
        """
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step: found {step}, expected 0 to {self.steps_per_epoch - 1}.")
        chosen = self.order(epoch)[step * self.batch_size :][: self.batch_size]
        x = SHARED.array((len(chosen), *self.size, self._cases[0].image.shape[3]))
        y = SHARED.array((len(chosen), *self.size, len(self.targets)))
        flips = augment.draw_flips(self.seed, epoch, len(self._cases))[chosen]
        flips &= ["x" in self.flips, "y" in self.flips]
        factors = augment.draw_brightness(self.seed, epoch, len(self._cases), self.brightness)[
            chosen
        ]
        for row, (index, flip, factor) in enumerate(zip(chosen, flips.tolist(), factors.tolist())):
            case = self._cases[index]
            pixels = case.full_image()[_steps(flip)][:, :, 0]
            x[row] = self.preparation.apply(pixels, factor)
            if self.targets:
                where = (case, 0, (*self.size, 1))
                volumes.read_targets(*where, list(self.targets.values()), y[row], flip=flip)
        return x, y

    @cached_property
    def _cases(self) -> list[StoredCase]:
        return [self.store.cases[id] for id in sorted(self.case_ids)]


def _steps(flip: Sequence[bool]) -> tuple[slice, ...]:
    return tuple(slice(None, None, -1 if mirrored else 1) for mirrored in flip)


def _own_mean_std(values: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    values = values.reshape(-1, channels)
    return values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)


def _equalised(channel: np.ndarray) -> np.ndarray:
    """(H, W) uint8 with a nearly flat histogram; a channel of one value stays."""
    counts = np.bincount(channel.ravel(), minlength=256)
    below = counts.cumsum()
    lowest = counts[counts.nonzero()[0][0]]
    if lowest == channel.size:
        return channel
    scaled = (below - lowest) * (255 / (channel.size - lowest))
    return np.rint(np.maximum(scaled, 0)).astype(np.uint8)[channel]


def _mean_std(
    cases: Sequence[StoredCase], preparation: Preparation
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # Counted, for whole numbers give the same mean in every order of the pictures.
    counts = np.zeros((cases[0].image.shape[3], 256), np.int64)
    for case in cases:
        pixels = preparation.condition(case.full_image()[:, :, 0])
        for channel, values in enumerate(np.moveaxis(pixels, -1, 0)):
            counts[channel] += np.bincount(values.ravel(), minlength=256)
    levels = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(axis=1)
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())
