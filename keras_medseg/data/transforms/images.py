"""Intensities of two-dimensional images: smoothing, equalization, normalization."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from keras_medseg.data.store import Store, StoredCase
from keras_medseg.errors import require_choice

NORMALIZATIONS = ("mean_std", "mean_std_per_image", "unit_range")


@dataclass(frozen=True)
class Preparation:
    """How the intensities of every image are prepared, both in training and in prediction.

    In this order: smoothing, equalization, division by 255, (x - mean) / std.

    Attributes:
        smoothing_px: standard deviation of a Gaussian filter, rounded to 8 bits afterwards; 0 for
            none.
        equalization: whether the histogram of each channel is equalized, as OpenCV's equalizeHist
            does.
        mean: one number per channel, of intensities from 0 to 1; None: that of each image.
        std: standard deviation, like `mean`.

    Raises:
        ValueError: a mean without a standard deviation, or the other way round.
    """

    smoothing_px: float = 0.0
    equalization: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.mean or ()) != len(self.std or ()):
            raise ValueError(
                f"mean, std: found {self.mean} and {self.std}, expected one of each per channel."
            )

    def condition(self, pixels: np.ndarray) -> np.ndarray:
        """Only smoothing and equalization, (H, W, C) uint8 -> (H, W, C) uint8."""
        if self.smoothing_px:
            from scipy import ndimage

            sigmas = (self.smoothing_px, self.smoothing_px, 0)
            smooth = ndimage.gaussian_filter(pixels.astype(np.float32), sigmas, mode="nearest")
            pixels = np.rint(smooth).astype(np.uint8)
        if self.equalization:
            pixels = np.stack([_equalized(channel) for channel in np.moveaxis(pixels, -1, 0)], -1)
        return pixels

    def apply(self, pixels: np.ndarray, brightness: float = 1.0) -> np.ndarray:
        """Prepare an image.

        Args:
            pixels: (H, W, C) uint8.
            brightness: factor of the intensities before normalization; the product is clipped at
                white.

        Returns:
            (H, W, C) float32.
        """
        pixels = self.condition(pixels)
        rows, columns, channels = pixels.shape
        # As rows of numbers: over an innermost axis of length 3, NumPy takes ten times as long.
        values = pixels.reshape(rows, columns * channels).astype(np.float32)
        values *= np.float32(brightness / 255)
        if brightness > 1:
            np.minimum(values, 1, out=values)
        if self.mean and self.std:
            mean, std = np.array(self.mean), np.array(self.std)
        else:
            mean, std = _own_mean_std(values, channels)
        scale = 1 / np.where(std > 0, std, 1)
        values -= np.tile(mean.astype(np.float32), columns)
        values *= np.tile(scale.astype(np.float32), columns)
        return values.reshape(rows, columns, channels)


def fit_preparation(
    store: Store,
    case_ids: Sequence[str],
    normalization: str = "mean_std",
    *,
    smoothing_px: float = 0.0,
    equalization: bool = False,
) -> Preparation:
    """Measure on the training set the numbers that the preparation of images needs.

    Args:
        store: holds the images.
        case_ids: the training set.
        normalization: "mean_std": mean and standard deviation of each channel over all pixels,
            black ones included, of all images after smoothing and equalization.
            "mean_std_per_image": mean and standard deviation of each single image. "unit_range": 0
            to 1, as with PyTorch's ToTensor.
        smoothing_px: see `Preparation`.
        equalization: see `Preparation`.

    Raises:
        ValueError: unknown normalization, or no images.
    """
    require_choice("normalization", normalization, NORMALIZATIONS)
    if not case_ids:
        raise ValueError("case_ids: found none, expected the training set.")
    conditions = Preparation(smoothing_px, equalization)
    cases = [store.cases[id] for id in case_ids]
    if normalization == "mean_std_per_image":
        return conditions
    if normalization == "unit_range":
        channels = cases[0].channels
        return replace(conditions, mean=(0.0,) * channels, std=(1.0,) * channels)
    mean, std = _mean_std(cases, conditions)
    return replace(conditions, mean=mean, std=std)


def read_image(case: StoredCase, preparation: Preparation) -> np.ndarray:
    """(H, W, C) float32: the prepared image of a case, as a network sees it."""
    return preparation.apply(case.pixels)


def _own_mean_std(values: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    values = values.reshape(-1, channels)
    return values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)


def _equalized(channel: np.ndarray) -> np.ndarray:
    """(H, W) uint8 with a nearly flat histogram; a channel of one value stays as it is."""
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
    # Pixels are counted, because sums of whole numbers do not depend on the order of the images.
    counts = np.zeros((cases[0].channels, 256), np.int64)
    for case in cases:
        pixels = preparation.condition(case.pixels)
        for channel, values in enumerate(np.moveaxis(pixels, -1, 0)):
            counts[channel] += np.bincount(values.ravel(), minlength=256)
    levels = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(axis=1)
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())
