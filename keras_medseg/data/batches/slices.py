"""Batches of axial slices of volumes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from keras_medseg.data.batches import base
from keras_medseg.data.buffers import SHARED
from keras_medseg.data.store import Store, StoredCase
from keras_medseg.data.transforms import augment, volumes


@dataclass(frozen=True)
class SliceBatches:
    """Batches of axial slices of the centre windows of some cases of a store.

    Every slice of the window is used, those without brain too.

    Args:
        case_ids: the cases, in any order.
        targets: name -> label codes; one channel of y each, in this order.
        window: (x, y, z) of the centre window; it may reach beyond the grid.
        normalisation: "z_score" or another, see `volumes.scaling`.
        flips: axes, of "x" and "y", along which a sample is mirrored with probability 1/2.
        shuffle: a new order of slices in every epoch; otherwise by case and slice.
        slice_step: take every so many-th slice of the window.
        channels: which of the image's channels are read, in this order; by default all.

    Raises:
        ValueError: for arguments that fit neither each other nor the store.
    """

    store: Store
    case_ids: Sequence[str]
    targets: Mapping[str, tuple[int, ...]]
    window: tuple[int, int, int]
    batch_size: int
    normalisation: str
    seed: int = 0
    flips: tuple[str, ...] = ()
    shuffle: bool = True
    slice_step: int = 1
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.case_ids:
            raise ValueError("case_ids: found none, expected at least one.")
        unknown = sorted(set(self.case_ids) - set(self.store.cases))
        if unknown:
            raise ValueError(f"case_ids: found {unknown}, expected cases of {self.store.folder}.")
        if not set(self.flips) <= {"x", "y"}:
            raise ValueError(f'flips: found {self.flips}, expected a subset of ("x", "y").')
        if min(*self.window, self.batch_size, self.slice_step) < 1:
            raise ValueError("window, batch_size, slice_step: expected 1 or more.")
        if len({case.image.shape[3] for case in self._cases}) > 1:
            raise ValueError("case_ids: found cases with different channels, expected the same.")
        if unlabelled := [case.id for case in self._cases if self.targets and not case.labelled]:
            raise ValueError(f"case_ids: found no labels for {unlabelled}, expected all labelled.")
        _ = self._scalings

    @property
    def slices(self) -> int:
        """Number of slices in an epoch."""
        return len(self.case_ids) * self._slices_per_case

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch, the last of which may be smaller."""
        return math.ceil(self.slices / self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """(slices,) indices in the order of that epoch."""
        return (
            base.epoch_order(self.slices, self.seed, epoch)
            if self.shuffle
            else np.arange(self.slices)
        )

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `step` of `epoch`.

        Returns:
            x (N, H, W, C) and y (N, H, W, targets), float32; H is x and W is y of the LPS grid.

        Raises:
            IndexError: for a step that the epoch does not have.
        """
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step: found {step}, expected 0 to {self.steps_per_epoch - 1}.")
        chosen = self.order(epoch)[step * self.batch_size :][: self.batch_size]
        channels = len(self._scalings[0].channels)
        x = SHARED.array((len(chosen), *self.window[:2], channels))
        y = SHARED.array((len(chosen), *self.window[:2], len(self.targets)))
        flips = augment.draw_flips(self.seed, epoch, self.slices)[chosen]
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
    def _cases(self) -> list[StoredCase]:
        return [self.store.cases[id] for id in sorted(self.case_ids)]

    @cached_property
    def _codes(self) -> list[tuple[int, ...]]:
        return list(self.targets.values())

    @cached_property
    def _scalings(self) -> list[volumes.Scaling]:
        options = self.normalisation, self.channels
        return [volumes.scaling(case.statistics, *options) for case in self._cases]
