"""The neighboring wrong reading of every statement that the ledger calls exact or equivalent."""

from dataclasses import replace
from functools import wraps
from typing import Any

import keras
import numpy as np
import pytest

from keras_medseg import frameworks, losses, optimizers
from keras_medseg.data import cropping
from keras_medseg.data.batches import crop_slices, patches
from keras_medseg.data.transforms import augment_volumes as augment
from keras_medseg.data.transforms import volumes
from keras_medseg.layers import interpolation
from keras_medseg.models import fmnet
from keras_medseg.training import fit

from ..mutations import Mutation, collector, set_field, substitute

MUTATIONS: dict[str, Mutation] = {}
_mutation = collector(MUTATIONS)


@_mutation
def regions(patch: pytest.MonkeyPatch) -> None:
    """The channels in the order in which they are painted over each other, the smallest first."""
    read = volumes.read_box_targets

    def reversed_order(case: Any, start: Any, codes: Any, out: Any, **options: Any) -> None:
        read(case, start, list(codes)[::-1], out, **options)

    substitute(patch, read, reversed_order)


@_mutation
def patch_(patch: pytest.MonkeyPatch) -> None:
    """One crop for good, as the text can be read."""
    start = patches.PatchBatches.start
    patch.setattr(patches.PatchBatches, "start", lambda self, epoch, index: start(self, 0, index))


@_mutation
def empty_slices(patch: pytest.MonkeyPatch) -> None:
    """Only the first and last slices are dropped, and nothing along x and y."""
    box = cropping._occupied_box

    def along_z(case_id: str, arrays: Any) -> Any:
        width, height = arrays.image.shape[:2]
        return slice(0, width), slice(0, height), box(case_id, arrays)[2]

    substitute(patch, box, along_z)


@_mutation
def foreground_crops(patch: pytest.MonkeyPatch) -> None:
    """All objects are equal, whichever label they have."""
    find = patches.find_objects

    def of_any_label(case: Any) -> Any:
        return [[box for of_label in find(case) for box in of_label]]

    substitute(patch, find, of_any_label)


@_mutation
def normalisation(patch: pytest.MonkeyPatch) -> None:
    """Statistics of all voxels of the box, zeros among them."""

    def of_all(case_id: str, channel: np.ndarray) -> dict[str, float]:
        values = channel.astype(np.float64)
        return {name: float(getattr(values, name)()) for name in ("min", "max", "mean", "std")}

    substitute(patch, cropping._statistics, of_all)


@_mutation
def augmentation(patch: pytest.MonkeyPatch) -> None:
    """Blur before noise."""
    original = augment.augment_image

    def swapped(ops: Any, x: Any, parameters: Any, options: Any) -> Any:
        for names in (("zoom", "flips"), ("blur",), ("noise",), ("brightness", "contrast")):
            chosen = {name: options[name] for name in names if name in options}
            x = original(ops, x, parameters, chosen)
        return x

    substitute(patch, original, swapped)


@_mutation
def zoom(patch: pytest.MonkeyPatch) -> None:
    """Linear interpolation of the image."""
    substitute(patch, augment._keys_weights, lambda t: (0 * t, 1 - t, t, 0 * t))


@_mutation
def noise_and_blur(patch: pytest.MonkeyPatch) -> None:
    """The drawn strength of the noise is its variance."""
    per_sample = augment._per_sample

    def variance(ops: Any, parameters: Any, name: str) -> Any:
        value = per_sample(ops, parameters, name)
        return ops.sqrt(value) if name == "noise_sigma" else value

    substitute(patch, per_sample, variance)


@_mutation
def brightness_and_contrast(patch: pytest.MonkeyPatch) -> None:
    """The range to which contrast is cut is that of each channel."""
    original = augment.augment_image

    def per_channel(ops: Any, x: Any, parameters: Any, options: Any) -> Any:
        rest = {name: given for name, given in options.items() if name != "contrast"}
        x = original(ops, x, parameters, rest)
        if "contrast" not in options:
            return x
        low, high = (f(x, axis=(1, 2, 3), keepdims=True) for f in (ops.min, ops.max))
        x = x * augment._per_sample(ops, parameters, "contrast")
        return ops.minimum(ops.maximum(x, low), high)

    substitute(patch, original, per_channel)


@_mutation
def filters(patch: pytest.MonkeyPatch) -> None:
    """The widths end at 320, as nnU-Net's do."""
    convolutions = fmnet._convolutions

    def narrow(x: Any, filters: int, **options: Any) -> Any:
        return convolutions(x, min(filters, 320), **options)

    substitute(patch, convolutions, narrow)


@_mutation
def dimensions(patch: pytest.MonkeyPatch) -> None:
    """The network of the 2-D comparison."""
    set_field(patch, "fmnet2023", {"model.options.dimensions": 2})


@_mutation
def two_dimensions(patch: pytest.MonkeyPatch) -> None:
    """Slices across x, the first axis of a crop here, as D is the first one in the code."""

    def sagittal(self: Any, epoch: int, step: int) -> Any:
        number, x = divmod(step, self.patch[2])
        return tuple(np.ascontiguousarray(part[:, x]) for part in self._crops(epoch, number))

    patch.setattr(crop_slices.CropSliceBatches, "batch", sagittal)


@_mutation
def slope(patch: pytest.MonkeyPatch) -> None:
    """The default of the code's modules."""
    patch.setattr(fmnet, "SLOPE", 0.2)


@_mutation
def supervision(patch: pytest.MonkeyPatch) -> None:
    """Stages count from 0."""
    chosen = replace(fmnet.VARIANTS["code"], heads_end=1)
    patch.setitem(fmnet.VARIANTS, "code", chosen)


@_mutation
def interpolation_(patch: pytest.MonkeyPatch) -> None:
    """Voxel centers on each other and not the corners."""
    substitute(patch, interpolation.aligned_bilinear_matrix, interpolation.bilinear_matrix)


@_mutation
def stack(patch: pytest.MonkeyPatch) -> None:
    """Keras' biases beside PyTorch's kernels."""
    mixed = replace(frameworks.FRAMEWORKS["pytorch"], bias_initializer="zeros")
    patch.setitem(frameworks.FRAMEWORKS, "pytorch", mixed)


@_mutation
def output_weights(patch: pytest.MonkeyPatch) -> None:
    """The weights fall with the depth of the head, so that the coarsest has the least."""
    original = losses.dice_and_focal

    @wraps(original)
    def coarsest_least(y_true: Any, y_pred: Any, *, output_weights: Any, **options: Any) -> Any:
        first, *rest = output_weights
        return original(y_true, y_pred, output_weights=(first, *rest[::-1]), **options)

    patch.setattr(losses.DiceAndFocal, "function", staticmethod(coarsest_least))


@_mutation
def optimizer(patch: pytest.MonkeyPatch) -> None:
    """The momentum of Keras' Nadam."""

    def mu(self: Any, step: Any) -> Any:
        return self.beta_1 * (1 - 0.5 * keras.ops.power(0.96, step))

    patch.setattr(optimizers.NadamPyTorch, "_mu", mu)


@_mutation
def epochs(patch: pytest.MonkeyPatch) -> None:
    """Those of the code's 2-D baseline."""
    set_field(patch, "fmnet2023", {"train.epochs": 40})


@_mutation
def precision(patch: pytest.MonkeyPatch) -> None:
    """Mixed precision without a loss scale."""
    original = fit.compile_network

    def unscaled(*arguments: Any, **options: Any) -> Any:
        network, model = original(*arguments, **options)
        if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
            model.optimizer = model.optimizer.inner_optimizer
        return network, model

    substitute(patch, original, unscaled)


@_mutation
def loading(patch: pytest.MonkeyPatch) -> None:
    """On the accelerator crops are augmented in half precision."""
    original = augment.augment_image

    def rounded(ops: Any, x: Any, parameters: Any, options: Any) -> Any:
        if ops is not np:
            x = ops.cast(ops.cast(x, "float16"), "float32")
        return original(ops, x, parameters, options)

    substitute(patch, original, rounded)


@_mutation
def modalities(patch: pytest.MonkeyPatch) -> None:
    """The one modality that shows the whole tumor best."""
    set_field(patch, "fmnet2023", {"data.modalities": ("flair",)})
