"""Batches of axial slices of volumes."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from keras_medseg.data.batches.base import CaseBatches
from keras_medseg.data.buffers import SHARED
from keras_medseg.data.transforms import augment, volumes


@dataclass(frozen=True, kw_only=True)
class SliceBatches(CaseBatches):
    """Batches of axial slices of the center windows of some cases of a store.

    A sample is one slice of one case's window, with or without brain in it.

    Attributes:
        window: (x, y, z) voxels of the center window; it may reach beyond the grid.
        normalization: see `volumes.slice_scaling`.
        flips: axes, of "x" and "y", along which a sample is mirrored with probability 1/2.
        slice_step: every `slice_step`-th slice of the window is used.
        channels: indices of the image channels to read, in this order; by default all.

    Raises:
        ValueError: arguments that fit neither each other nor the store.
    """

    window: tuple[int, int, int]
    normalization: str
    flips: tuple[str, ...] = ()
    slice_step: int = 1
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not set(self.flips) <= {"x", "y"}:
            raise ValueError(f'flips: found {self.flips}, expected a subset of ("x", "y").')
        if min(*self.window, self.slice_step) < 1:
            raise ValueError("window, slice_step: expected 1 or more.")
        _ = self._scalings  # Raises an error for an unknown normalization or channel.

    @property
    def samples(self) -> int:
        """Number of slices in an epoch."""
        return len(self.case_ids) * self._slices_per_case

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `step` of `epoch`.

        Returns:
            x (N, H, W, C) and y (N, H, W, targets), float32; H runs along x and W along y of the
            LPS grid.

        Raises:
            IndexError: the epoch does not have that step.
        """
        chosen = self._chosen(epoch, step)
        channels = len(self._scalings[0].channels)
        x = SHARED.array((len(chosen), *self.window[:2], channels))
        y = SHARED.array((len(chosen), *self.window[:2], len(self.targets)))
        flips = augment.draw_flips(self.seed, epoch, self.samples)[chosen]
        flips &= ["x" in self.flips, "y" in self.flips]
        for row, (index, flip) in enumerate(zip(chosen.tolist(), flips.tolist())):
            number, z = divmod(index, self._slices_per_case)
            where = (self._cases[number], z * self.slice_step, self.window)
            volumes.read_slice(*where, self._scalings[number], x[row], flip=flip)
            if self.targets:
                volumes.read_targets(*where, self._codes, y[row], flip=flip)
        return x, y

    @cached_property
    def _slices_per_case(self) -> int:
        return len(range(0, self.window[2], self.slice_step))

    @cached_property
    def _scalings(self) -> list[volumes.Scaling]:
        options = self.normalization, self.window, self.channels
        return [volumes.slice_scaling(case, *options) for case in self._cases]
