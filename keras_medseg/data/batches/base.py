"""What all kinds of batches share: a batch is a pure function of (seed, epoch, step)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, lru_cache

import numpy as np

from keras_medseg.data.store import Store, StoredCase

Targets = tuple[tuple[str, tuple[int, ...]], ...]
"""(name, label codes) pairs, one per channel of y, in this order. A name may occur twice."""

Inputs = np.ndarray | tuple[np.ndarray, np.ndarray]
"""x (N, ..., C); or (x, augmentation parameters), where the training step does the augmentation."""


@lru_cache(maxsize=4)
def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Sample indices 0 .. count - 1 in the random order of an epoch: (count,), read-only."""
    drawn = np.random.default_rng((seed, epoch)).permutation(count)
    # The array is cached: writing to it would change the result of every later call.
    drawn.flags.writeable = False
    return drawn


@dataclass(frozen=True)
class CaseBatches(ABC):
    """Batches of samples from some cases of a store; every sample comes once in an epoch.

    The same (seed, epoch, step) gives the same bytes in any order of calls and in any process, so
    an interrupted training can be resumed exactly. Subclasses are frozen dataclasses that define
    what a sample is.

    Attributes:
        store: the decoded cases.
        case_ids: the cases, in any order; they are sorted.
        targets: (name, label codes) pairs, one per channel of y. Without targets, cases need no
            labels and y has no channels.
        batch_size: samples in a batch; the last batch of an epoch may be smaller.
        seed: of the order and of every other random draw.
        shuffle: whether every epoch has its own random order; otherwise samples are sorted by case.

    Raises:
        ValueError: arguments that fit neither each other nor the store.
    """

    store: Store
    case_ids: Sequence[str]
    targets: Targets
    _: KW_ONLY
    batch_size: int
    seed: int = 0
    shuffle: bool = True

    def __post_init__(self) -> None:
        if not self.case_ids:
            raise ValueError("case_ids: found none, expected at least one.")
        unknown = sorted(set(self.case_ids) - set(self.store.cases))
        if unknown:
            raise ValueError(f"case_ids: found {unknown}, expected cases of {self.store.folder}.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size: found {self.batch_size}, expected 1 or more.")
        _check_targets(self.targets)
        if len({case.channels for case in self._cases}) > 1:
            raise ValueError("case_ids: found cases with different channels, expected the same.")
        if unlabelled := [case.id for case in self._cases if self.targets and not case.labelled]:
            raise ValueError(f"case_ids: found no labels for {unlabelled}, expected all labelled.")

    @property
    def samples(self) -> int:
        """Number of samples in an epoch: one for each case."""
        return len(self.case_ids)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch, the last of which may be smaller."""
        return math.ceil(self.samples / self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """(samples,) sample indices in the order of an epoch."""
        if self.shuffle:
            return epoch_order(self.samples, self.seed, epoch)
        return np.arange(self.samples)

    @abstractmethod
    def batch(self, epoch: int, step: int) -> tuple[Inputs, np.ndarray]:
        """Batch `step` of `epoch`.

        Returns:
            x (N, ..., C) and y (N, ..., targets), float32. If augmentation runs on the device, x is
            a tuple (crops, augmentation parameters).

        Raises:
            IndexError: the epoch does not have that step.
        """

    def _chosen(self, epoch: int, step: int) -> np.ndarray:
        """(N,) indices of the samples in batch `step` of `epoch`."""
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step: found {step}, expected 0 to {self.steps_per_epoch - 1}.")
        return self.order(epoch)[step * self.batch_size :][: self.batch_size]

    @cached_property
    def _cases(self) -> list[StoredCase]:
        return [self.store.cases[id] for id in sorted(self.case_ids)]

    @cached_property
    def _codes(self) -> list[tuple[int, ...]]:
        """The label codes of each channel of y."""
        return [codes for _, codes in self.targets]


def _check_targets(targets: Targets) -> None:
    # A mapping of two-letter names would otherwise pass for pairs.
    if isinstance(targets, Mapping) or not all(
        isinstance(pair, tuple) and len(pair) == 2 and pair[1] for pair in targets
    ):
        raise ValueError(
            f"targets: found {targets}, expected (name, label codes) pairs such as "
            "(('WT', (1, 2, 3)),)."
        )
