"""Batches of two-dimensional images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_medseg.data.batches.base import CaseBatches
from keras_medseg.data.buffers import SHARED
from keras_medseg.data.transforms import augment, volumes
from keras_medseg.data.transforms.images import Preparation


@dataclass(frozen=True, kw_only=True)
class ImageBatches(CaseBatches):
    """Batches of images of a store. A sample is one image.

    Attributes:
        preparation: of the intensities; fitted to the training set, also for validation batches.
        size: (rows, columns) that the images of the store were resized to.
        flips: axes, of "x" (rows, upside down) and "y" (columns, left and right), along which a
            sample is mirrored with probability 1/2.
        brightness: the intensities of each sample are multiplied by a factor that is drawn
            uniformly from 1 - brightness to 1 + brightness.

    Raises:
        ValueError: arguments that fit neither each other nor the store.
    """

    preparation: Preparation
    size: tuple[int, int]
    flips: tuple[str, ...] = ()
    brightness: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not set(self.flips) <= {"x", "y"}:
            raise ValueError(f'flips: found {self.flips}, expected a subset of ("x", "y").')
        if not 0 <= self.brightness < 1:
            raise ValueError(f"brightness: found {self.brightness}, expected 0 to less than 1.")
        sizes = {case.full_shape for case in self._cases} - {(*self.size, 1)}
        if sizes:
            raise ValueError(f"size: found {self.size} and images of {sizes}, expected one size.")
        channels, mean = self._cases[0].channels, self.preparation.mean
        if mean and len(mean) != channels:
            raise ValueError(f"case_ids: found {channels} channels, expected {len(mean)}.")

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `step` of `epoch`.

        Returns:
            x (N, H, W, C) and y (N, H, W, targets), float32.

        Raises:
            IndexError: the epoch does not have that step.
        """
        chosen = self._chosen(epoch, step)
        x = SHARED.array((len(chosen), *self.size, self._cases[0].channels))
        y = SHARED.array((len(chosen), *self.size, len(self.targets)))
        flips = augment.draw_flips(self.seed, epoch, self.samples)[chosen]
        flips &= ["x" in self.flips, "y" in self.flips]
        factors = augment.draw_brightness(self.seed, epoch, self.samples, self.brightness)[chosen]
        for row, (index, flip, factor) in enumerate(zip(chosen, flips.tolist(), factors.tolist())):
            case = self._cases[index]
            x[row] = self.preparation.apply(case.pixels[_steps(flip)], factor)
            if self.targets:
                where = (case, 0, (*self.size, 1))
                volumes.read_targets(*where, self._codes, y[row], flip=flip)
        return x, y


def _steps(flip: Sequence[bool]) -> tuple[slice, ...]:
    return tuple(slice(None, None, -1 if mirrored else 1) for mirrored in flip)
