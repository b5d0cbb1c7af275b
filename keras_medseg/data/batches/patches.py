"""Batches of three-dimensional crops of volumes, as the authors of fmnet2023 cut them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from keras_medseg.data.batches import base
from keras_medseg.data.buffers import SHARED
from keras_medseg.data.store import Store, StoredCase
from keras_medseg.data.transforms import augment_volumes, volumes

CROPS = ("random", "centre")

Box = tuple[tuple[int, int, int], tuple[int, int, int]]  # first voxel, and the one behind the last


@dataclass(frozen=True)
class PatchBatches:
    """Batches of crops of the stored boxes of some cases of a store; one per case and epoch.

    The authors send their validation and test cases through the training pipeline, crops at random
    and augmentations included: that is crops="random" with the training's augmentation. The clean
    way is crops="centre" without augmentation, which is the same in every epoch.

    Args:
        case_ids: the cases, in any order.
        targets: name -> label codes; one channel of y each, in this order.
        patch: (x, y, z) of the crops. A case that is smaller is padded with 0 on both sides.
        foreground_probability: how often a random crop is placed on a labelled object.
        augmentation: name -> options, see `augment_volumes.DEFAULTS`.
        shuffle: a new order of cases in every epoch; otherwise by case.
        crops: "random", see `place_crop`, or "centre" of the box.
        augment: False leaves the augmentation to the training step: x is then (crops, parameters),
            what `augmented.AugmentedModel` takes.
        channels: which of the image's channels are read, in this order; by default all.

    Raises:
        ValueError: for arguments that fit neither each other nor the store.
    """

    store: Store
    case_ids: Sequence[str]
    targets: Mapping[str, tuple[int, ...]]
    patch: tuple[int, int, int] = (128, 128, 128)
    batch_size: int = 4
    seed: int = 0
    foreground_probability: float = 0.4
    normalisation: str = "z_score"
    augmentation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shuffle: bool = True
    crops: str = "random"
    augment: bool = True
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.case_ids:
            raise ValueError("case_ids: found none, expected at least one.")
        unknown = sorted(set(self.case_ids) - set(self.store.cases))
        if unknown:
            raise ValueError(f"case_ids: found {unknown}, expected cases of {self.store.folder}.")
        if len(self.patch) != 3 or min(*self.patch, self.batch_size) < 1:
            raise ValueError("patch, batch_size: expected three sizes and a number of 1 or more.")
        if not 0 <= self.foreground_probability <= 1:
            raise ValueError(
                f"foreground_probability: found {self.foreground_probability}, expected 0 to 1."
            )
        if self.crops not in CROPS:
            raise ValueError(f"crops: found {self.crops!r}, expected one of {', '.join(CROPS)}.")
        if len({case.image.shape[3] for case in self._cases}) > 1:
            raise ValueError("case_ids: found cases with different channels, expected the same.")
        if unlabelled := [case.id for case in self._cases if self.targets and not case.labelled]:
            raise ValueError(f"case_ids: found no labels for {unlabelled}, expected all labelled.")
        _ = self._scalings, self._options

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch, the last of which may be smaller."""
        return math.ceil(len(self.case_ids) / self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """(cases,) indices in the order of that epoch."""
        count = len(self.case_ids)
        return base.epoch_order(count, self.seed, epoch) if self.shuffle else np.arange(count)

    def batch(self, epoch: int, step: int) -> tuple[Any, np.ndarray]:
        """Batch `step` of `epoch`.

        Returns:
            x (N, X, Y, Z, C) and y (N, X, Y, Z, targets), float32, of the LPS grid. With
            augment=False x is (crops, parameters), both as they are before the augmentation, and
            parameters (N, 12) float32, see `augment_volumes.draw_parameters`.

        Raises:
            IndexError: for a step that the epoch does not have.
        """
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step: found {step}, expected 0 to {self.steps_per_epoch - 1}.")
        chosen = self.order(epoch)[step * self.batch_size :][: self.batch_size]
        channels = len(self._scalings[0].channels)
        x = SHARED.array((len(chosen), *self.patch, channels))
        y = SHARED.array((len(chosen), *self.patch, len(self.targets)))
        for row, index in enumerate(chosen.tolist()):
            case, start = self._cases[index], self.start(epoch, index)
            volumes.read_box(case, start, self._scalings[index], x[row])
            if self.targets:
                volumes.read_box_targets(case, start, list(self.targets.values()), y[row])
        count = len(self.case_ids)
        drawn = augment_volumes.draw_parameters(self.seed, epoch, count, self._options, self.patch)
        if not self.augment:
            return (x, drawn[chosen]), y
        for row, index in enumerate(chosen.tolist()):
            self._augment(x[row : row + 1], y[row : row + 1], drawn[index : index + 1])
        return x, y

    def start(self, epoch: int, index: int) -> tuple[int, int, int]:
        """First voxel (x, y, z) of the crop of case `index`, counted from the box's first."""
        case = self._cases[index]
        depth, *plane = case.image.shape[:3]
        full = (*plane, depth)
        if self.crops == "centre":
            return volumes.window_origin(full, self.patch)
        uniform = np.random.default_rng((self.seed, epoch, 2)).random((index + 1, 6))[index]
        roi = ((0, 0, 0), full)
        if uniform[0] < self.foreground_probability and case.labelled:
            if index not in self._objects:
                self._objects[index] = find_objects(case)
            roi = _picked(self._objects[index], uniform[1:3]) or roi
        return place_crop(full, self.patch, roi, uniform[3:])

    def _augment(self, x: np.ndarray, y: np.ndarray, parameters: np.ndarray) -> None:
        """One sample, in its place."""
        options = augment_volumes.occurring(self._options, parameters, self.patch)
        if options:
            x[...] = augment_volumes.augment_image(np, x, parameters, options)
        if options and self.targets:
            y[...] = augment_volumes.augment_targets(np, y, parameters, options)

    @cached_property
    def _cases(self) -> list[StoredCase]:
        return [self.store.cases[id] for id in sorted(self.case_ids)]

    @cached_property
    def _objects(self) -> dict[int, list[list[Box]]]:
        return {}

    @cached_property
    def _options(self) -> dict[str, dict[str, Any]]:
        return augment_volumes.with_defaults(self.augmentation)

    @cached_property
    def _scalings(self) -> list[volumes.Scaling]:
        options = self.normalisation, self.channels
        return [volumes.scaling(case.statistics, *options) for case in self._cases]


def find_objects(case: StoredCase) -> list[list[Box]]:
    """The boxes (x, y, z) of the connected objects of each label that a case has.

    Voxels are connected through faces. A label's objects are counted apart from the other labels',
    as DALI's random_object_bbox does without `ignore_class`.
    """
    from scipy import ndimage

    counts = np.bincount(case.labels.reshape(-1))
    counts[0] = 0
    boxes = []
    for code in np.flatnonzero(counts):
        found = ndimage.find_objects(ndimage.label(case.labels == code)[0])
        boxes.append([_box(x, y, z) for z, x, y in found])
    return boxes


def place_crop(
    full: Sequence[int], patch: Sequence[int], roi: Box, uniform: Sequence[float]
) -> tuple[int, int, int]:
    """First voxel of a crop that holds as much of a box as it can, otherwise at random.

    As DALI's roi_random_crop, axis by axis: a box that is smaller than the crop lies in it as a
    whole, a crop that is smaller than the box lies in the box, and the crop stays within the
    image. Where the image is smaller than the crop, which DALI refuses, it lies in the middle.

    Args:
        full, patch: (x, y, z) of the image and of the crop.
        roi: the box to be held; the whole image for a crop without bias.
        uniform: three numbers in [0, 1).
    """
    start = []
    for size, wanted, first, behind, number in zip(full, patch, *roi, uniform):
        if wanted > size:
            start.append((size - wanted) // 2)
            continue
        low = max(min(first, behind - wanted), 0)
        high = min(max(first, behind - wanted), size - wanted)
        start.append(low + int(number * (high - low + 1)))
    return tuple(start)


def _box(*axes: slice) -> Box:
    return tuple(axis.start for axis in axes), tuple(axis.stop for axis in axes)


def _picked(objects: list[list[Box]], uniform: Sequence[float]) -> Box | None:
    """A label first, then one of its objects, each with equal probability."""
    if not objects:
        return None
    of_label = objects[int(uniform[0] * len(objects))]
    return of_label[int(uniform[1] * len(of_label))]
