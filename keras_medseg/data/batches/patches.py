"""Batches of three-dimensional crops of volumes, placed as NVIDIA DALI places them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from keras_medseg.data.batches.base import CaseBatches, Inputs
from keras_medseg.data.buffers import SHARED
from keras_medseg.data.store import StoredCase
from keras_medseg.data.transforms import augment_volumes, volumes
from keras_medseg.errors import require_choice

CROPS = ("random", "center")

Index = tuple[int, int, int]
Box = tuple[Index, Index]
"""First voxel (x, y, z), and the voxel after the last one."""


@dataclass(frozen=True, kw_only=True)
class PatchBatches(CaseBatches):
    """Batches of crops of the stored boxes of some cases of a store; a sample is one crop.

    The authors of fmnet2023 send their validation and test cases through the training pipeline,
    with random crops and augmentation: crops="random" and the augmentation of the training.
    crops="center" without augmentation gives the same crops in every epoch.

    Attributes:
        patch: (x, y, z) voxels of the crops. A smaller case is padded with 0 on both sides.
        normalization: one of `volumes.NORMALIZATIONS`, see `volumes.scaling`.
        foreground_probability: how often a random crop is placed on a labelled object, 0 to 1.
        augmentation: name -> options, see `augment_volumes.DEFAULTS`; by default none.
        crops: "random", see `place_crop`, or "center" of the box.
        augment: False leaves the augmentation to the training step; x is then (crops, parameters),
            the input of `AugmentedModel`.
        channels: indices of the image channels to read, in this order; by default all.

    Raises:
        ValueError: arguments that fit neither each other nor the store.
    """

    patch: Index
    normalization: str
    foreground_probability: float
    augmentation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    crops: str = "random"
    augment: bool = True
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.patch) != 3 or min(self.patch) < 1:
            raise ValueError(f"patch: found {self.patch}, expected three sizes of 1 or more.")
        if not 0 <= self.foreground_probability <= 1:
            raise ValueError(
                f"foreground_probability: found {self.foreground_probability}, expected 0 to 1."
            )
        require_choice("crops", self.crops, CROPS)
        _ = self._scalings, self._options  # Raises an error for unknown names.

    def batch(self, epoch: int, step: int) -> tuple[Inputs, np.ndarray]:
        """Batch `step` of `epoch`.

        Returns:
            x (N, X, Y, Z, C) and y (N, X, Y, Z, targets), float32, in LPS orientation. With
            augment=False x is (crops, parameters): crops and y are not augmented, and parameters
            is (N, 12) float32, see `augment_volumes.draw_parameters`.

        Raises:
            IndexError: the epoch does not have that step.
        """
        chosen = self._chosen(epoch, step)
        x = SHARED.array((len(chosen), *self.patch, len(self._scalings[0].channels)))
        y = SHARED.array((len(chosen), *self.patch, len(self.targets)))
        drawn = augment_volumes.draw_parameters(
            self.seed, epoch, self.samples, self._options, self.patch
        )[chosen]
        for row, index in enumerate(chosen.tolist()):
            self._read(x[row], y[row], index, self.start(epoch, index), drawn[row : row + 1])
        return (x, y) if self.augment else ((x, drawn), y)

    def _read(
        self, x: np.ndarray, y: np.ndarray, index: int, start: Index, parameters: np.ndarray
    ) -> None:
        """Fill x (X, Y, Z, C) and y (X, Y, Z, targets) with a crop of case `index`."""
        options: dict[str, Any] = {}
        if self.augment:
            options |= augment_volumes.occurring(self._options, parameters, self.patch)
        flip = (False, False, False)
        if "flips" in options and "zoom" not in options:
            # Nothing but a zoom comes before it, so voxels are put where they will be at once.
            flip = augment_volumes.flips(parameters[0])
            del options["flips"]
        case = self._cases[index]
        volumes.read_box(case, start, self._scalings[index], x, flip=flip)
        if self.targets:
            volumes.read_box_targets(case, start, self._codes, y, flip=flip)
        augment_volumes.augment_crop(x, y, parameters, options)

    def start(self, epoch: int, index: int) -> Index:
        """First voxel (x, y, z) of the crop of case `index`, counted from that of the box."""
        case = self._cases[index]
        depth, width, height = case.image.shape[:3]
        full = (width, height, depth)
        if self.crops == "center":
            x, y, z = volumes.window_origin(full, self.patch)
            return x, y, z
        uniform = np.random.default_rng((self.seed, epoch, 2)).random((index + 1, 6))[index]
        roi: Box = ((0, 0, 0), full)
        if uniform[0] < self.foreground_probability and case.labelled:
            if index not in self._objects:
                self._objects[index] = find_objects(case)
            roi = _picked(self._objects[index], uniform[1:3]) or roi
        return place_crop(full, self.patch, roi, uniform[3:])

    @cached_property
    def _objects(self) -> dict[int, list[list[Box]]]:
        """Cache of `find_objects`: index of a case -> its objects, filled on demand."""
        return {}

    @cached_property
    def _options(self) -> dict[str, dict[str, Any]]:
        return augment_volumes.with_defaults(self.augmentation)

    @cached_property
    def _scalings(self) -> list[volumes.Scaling]:
        options = self.normalization, self.channels
        return [volumes.scaling(case.statistics, *options) for case in self._cases]


def find_objects(case: StoredCase) -> list[list[Box]]:
    """Boxes of the connected objects of each label of a case, one list for each label it has.

    Voxels are connected through faces. The objects of a label are found regardless of the other
    labels, as by DALI's random_object_bbox without `ignore_class`.

    Raises:
        ValueError: the case has no labels.
    """
    from scipy import ndimage

    labels = case.require_labels()
    counts = np.bincount(labels.reshape(-1))
    counts[0] = 0
    boxes = []
    for code in np.flatnonzero(counts):
        found = ndimage.find_objects(ndimage.label(labels == code)[0])
        boxes.append([_box(x, y, z) for z, x, y in found])
    return boxes


def place_crop(
    full: Sequence[int], patch: Sequence[int], roi: Box, uniform: Sequence[float]
) -> Index:
    """Place a crop so that it holds as much of a box as it can, otherwise at random.

    As in DALI's roi_random_crop, axis by axis: a box that is smaller than the crop lies inside it,
    a crop that is smaller than the box lies inside the box, and the crop stays within the image. An
    image that is smaller than the crop, which DALI does not accept, lies in the middle of the crop.

    Args:
        full: (x, y, z) voxels of the image.
        patch: (x, y, z) voxels of the crop.
        roi: the box that the crop should contain; the whole image for an unbiased crop.
        uniform: three numbers in [0, 1).

    Returns:
        First voxel (x, y, z) of the crop.
    """
    start = []
    for size, wanted, first, behind, number in zip(full, patch, *roi, uniform):
        if wanted > size:
            start.append((size - wanted) // 2)
            continue
        low = max(min(first, behind - wanted), 0)
        high = min(max(first, behind - wanted), size - wanted)
        start.append(low + int(number * (high - low + 1)))
    x, y, z = start
    return x, y, z


def _box(x: slice, y: slice, z: slice) -> Box:
    return (x.start, y.start, z.start), (x.stop, y.stop, z.stop)


def _picked(objects: list[list[Box]], uniform: Sequence[float]) -> Box | None:
    """A label first, then one of its objects, each with equal probability."""
    if not objects:
        return None
    of_label = objects[int(uniform[0] * len(objects))]
    return of_label[int(uniform[1] * len(of_label))]
