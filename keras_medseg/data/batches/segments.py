"""Batches of segments of volumes, drawn by the class of their middle voxel."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from keras_medseg.data.batches.base import CaseBatches
from keras_medseg.data.buffers import SHARED
from keras_medseg.data.store import StoredCase
from keras_medseg.data.transforms import volumes
from keras_medseg.data.transforms.task_transfer import transferred

Index = tuple[int, int, int]
Kind = tuple[int, ...]
"""Label codes of a middle voxel; none: a voxel of the object without a label."""

INSIDE, OUTSIDE = "inside", "outside"
"""Of the object, or beyond it, where every channel of the image is 0."""


@dataclass(frozen=True, kw_only=True)
class SegmentBatches(CaseBatches):
    """Batches of segments; a sample is one segment, with a middle voxel of a kind that is drawn.

    Row r of a batch is a sample of task r modulo the number of tasks that the epoch trains. The
    channels of y that its task does not train are 0, and so are all of a task not yet trained.

    Attributes:
        segment: (x, y, z) voxels of y.
        margin: voxels on every side that x has beyond y.
        normalization: see `volumes.scaling`.
        centers: for each task (kind, weight) pairs. A kind that a case lacks is not drawn in it; a
            case that lacks all kinds of a task gives way to the next one.
        sizes: number of channels of y of each task, one after the other.
        sides: for each channel of y the side that its class is confined to, INSIDE or OUTSIDE, or
            "".
        segments_per_case: samples in an epoch, as a multiple of the cases.
        transfer: whether a sample may train the tasks after its own, see `task_transfer`.
        stages: epochs from which the second, third, ... task are trained; empty: from the start.
        flips: axes, of "x", "y" and "z", along which a sample is mirrored with probability 1/2.
        channels: indices of the image channels to read, in this order; by default all.

    Raises:
        ValueError: arguments that fit neither each other nor the store.
    """

    segment: Index
    normalization: str
    centers: Sequence[Sequence[tuple[Kind, float]]]
    sizes: tuple[int, ...]
    sides: tuple[str, ...]
    segments_per_case: int
    margin: int = 0
    transfer: bool = False
    stages: tuple[int, ...] = ()
    flips: tuple[str, ...] = ()
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.centers) != len(self.sizes) or sum(self.sizes) != len(self.targets):
            raise ValueError(
                f"centers, sizes: found {len(self.centers)} and {self.sizes}, expected one for "
                f"each task, and {len(self.targets)} channels together."
            )
        if self.batch_size % len(self.sizes):
            raise ValueError(
                f"train.batch_size: found {self.batch_size}, expected a multiple of the "
                f"{len(self.sizes)} tasks, of which a batch has as many samples each."
            )
        if self.transfer and self.sizes != (5, 5, 2):
            raise ValueError(
                f"data.transfer: found tasks of {self.sizes} classes, expected 5, 5 and 2, "
                "those of OM-Net."
            )
        _ = self._scalings  # Raises an error for unknown names.

    @property
    def samples(self) -> int:
        """Number of segments in an epoch."""
        return len(self.case_ids) * self.segments_per_case

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `step` of `epoch`.

        Returns:
            x (N, X + 2 margin, Y + 2 margin, Z + 2 margin, C) and y (N, X, Y, Z, targets), float32,
            in LPS orientation.

        Raises:
            IndexError: the epoch does not have that step.
            ValueError: no case has a voxel of a task's kinds.
        """
        chosen = self._chosen(epoch, step).tolist()
        active = 1 + sum(epoch >= first for first in self.stages)
        active = active if self.stages else len(self.sizes)
        tasks = np.arange(len(chosen)) % active
        read = tuple(size + 2 * self.margin for size in self.segment)
        x = SHARED.array((len(chosen), *read, len(self._scalings[0].channels)))
        y = SHARED.array((len(chosen), *self.segment, len(self.targets)))
        for row, (index, task) in enumerate(zip(chosen, tasks.tolist())):
            uniform = np.random.default_rng((self.seed, epoch, 3, index)).random(5).tolist()
            number, start = self.start(index % len(self._cases), task, uniform[:2])
            case = self._cases[number]
            outer = [first - self.margin for first in start]
            volumes.read_box(case, outer, self._scalings[number], x[row])
            self._read_classes(case, start, y[row])
            mirrored = [axis in self.flips and u < 0.5 for axis, u in zip("xyz", uniform[2:])]
            for image in (x[row], y[row]):
                image[...] = image[
                    tuple(slice(None, None, -1 if m else 1) for m in mirrored)
                ].copy()
        y *= self._counting(y, tasks, active)
        return x, y

    def start(self, number: int, task: int, uniform: Sequence[float]) -> tuple[int, Index]:
        """Where a segment lies: the case, and its first voxel counted from that of the box.

        Args:
            number: of the case.
            task: of the sample, from 0.
            uniform: two numbers in [0, 1), for the kind and the voxel.

        Raises:
            ValueError: no case has a voxel of the task's kinds.
        """
        kinds = [kind for kind, _ in self.centers[task]]
        for offset in range(len(self._cases)):
            found = (number + offset) % len(self._cases)
            counts = [self._counts(found, kind) for kind in kinds]
            weights = [w * line[-1].clip(0, 1) for (_, w), line in zip(self.centers[task], counts)]
            if sum(weights):
                chosen = pick(np.cumsum(weights), uniform[0])
                return found, self._start_at(found, kinds[chosen], counts[chosen], uniform[1])
        raise ValueError(
            f"data.centers: found no voxel of {kinds} in any of {len(self._cases)} cases, expected "
            "some to draw segments around."
        )

    def _start_at(self, number: int, kind: Kind, ends: np.ndarray, uniform: float) -> Index:
        """The segment around one of the voxels of a kind, in the order z, x, y."""
        rank = int(uniform * ends[-1])
        z = int(np.searchsorted(ends, rank, side="right"))
        before = int(ends[z - 1]) if z else 0
        mask = _of_kind(self._cases[number], z, kind)
        x, y = np.unravel_index(np.flatnonzero(mask)[rank - before], mask.shape)
        first = [int(at) - size // 2 for at, size in zip((x, y, z), self.segment)]
        return first[0], first[1], first[2]

    def _counts(self, number: int, kind: Kind) -> np.ndarray:
        """(Z',) voxels of a kind in the slices of a case up to each, kept for the next call."""
        if (number, kind) not in self._known:
            case = self._cases[number]
            counts = [np.count_nonzero(_of_kind(case, z, kind)) for z in range(len(case.image))]
            self._known[number, kind] = np.cumsum(counts)
        return self._known[number, kind]

    def _read_classes(self, case: StoredCase, start: Index, out: np.ndarray) -> None:
        """Which class each voxel is: (x, y, z, targets) 0 or 1."""
        volumes.read_box_targets(case, start, self._codes, out)
        if any(self.sides):
            inside = np.empty(out.shape[:3], bool)
            volumes.read_box_object(case, start, inside)
        for channel, side in enumerate(self.sides):
            if side:
                out[..., channel] *= inside if side == INSIDE else ~inside

    def _counting(self, y: np.ndarray, tasks: np.ndarray, active: int) -> np.ndarray:
        """(N, 1, 1, 1, targets): 1 for the channels that a sample trains, else 0.

        Args:
            y: (N, X, Y, Z, targets), all classes.
            tasks: (N,) of the samples, from 0.
            active: number of tasks that are trained.
        """
        numbers = np.arange(len(self.sizes))
        counts = tasks[:, None] == numbers
        if self.transfer:
            labels, enhancing = y[..., :5].argmax(axis=-1), y[..., -1].astype(np.intp)
            labels = np.where((tasks < 2)[:, None, None, None], labels, enhancing)
            found = transferred(labels, tasks + 1)
            counts = np.stack([weights > 0 for _, weights in found.values()], axis=-1)
        counts &= numbers < active
        return np.repeat(counts, self.sizes, axis=-1)[:, None, None, None, :]

    @cached_property
    def _known(self) -> dict[tuple[int, Kind], np.ndarray]:
        return {}

    @cached_property
    def _scalings(self) -> list[volumes.Scaling]:
        options = self.normalization, self.channels
        return [volumes.scaling(case.statistics, *options) for case in self._cases]


def pick(ends: np.ndarray, uniform: float) -> int:
    """The index that a number in [0, 1) picks, in proportion to weights with these partial sums."""
    return int(np.searchsorted(ends, uniform * ends[-1], side="right"))


def _of_kind(case: StoredCase, z: int, kind: Kind) -> np.ndarray:
    """(X', Y') bool: which voxels of a stored slice are of a kind."""
    labels = case.require_labels()[z]
    if kind:
        return np.isin(labels, kind)
    return (labels == 0) & case.image[z].any(axis=-1)
