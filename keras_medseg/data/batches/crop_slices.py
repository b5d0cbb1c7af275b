"""Batches of the axial slices of three-dimensional crops, for 2-D networks."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from keras_medseg.data.batches.patches import PatchBatches


@dataclass(frozen=True, kw_only=True)
class CropSliceBatches(PatchBatches):
    """The crops of `PatchBatches` with their augmentation, one batch for every axial slice of them.

    As the code of fmnet2023 trains its 2-D networks: a batch of crops is drawn and augmented in
    three dimensions; then comes a step for each z, with the slice z of every crop of the batch.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.augment:
            raise ValueError("augment: found False, expected True: crops are augmented whole.")

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch: one for each slice of each batch of crops."""
        return super().steps_per_epoch * self.patch[2]

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `step` of `epoch`.

        Returns:
            x (N, H, W, C) and y (N, H, W, targets), float32, with H = x and W = y of the LPS grid.

        Raises:
            IndexError: the epoch does not have that step.
        """
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step: found {step}, expected 0 to {self.steps_per_epoch - 1}.")
        number, z = divmod(step, self.patch[2])
        x, y = self._crops(epoch, number)
        return np.ascontiguousarray(x[:, :, :, z]), np.ascontiguousarray(y[:, :, :, z])

    def _crops(self, epoch: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """A batch of crops; the last one is kept, because all its slices follow each other."""
        if (epoch, number) not in self._last:
            self._last.clear()
            x, y = super().batch(epoch, number)
            assert isinstance(x, np.ndarray)  # `augment` is True
            self._last[epoch, number] = x, y
        return self._last[epoch, number]

    @cached_property
    def _last(self) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
        return {}
