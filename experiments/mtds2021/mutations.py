"""The neighboring wrong reading of every statement that the ledger calls exact or equivalent.

And of one that it does not, whose test was once blind to it.
"""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from keras_medseg import frameworks, losses, optimizers
from keras_medseg.data.transforms import volumes
from keras_medseg.evaluation import metrics
from keras_medseg.inference import outputs
from keras_medseg.layers import attention, convolution
from keras_medseg.models import mtds_r2unet as network
from keras_medseg.reporting.figures import volumes as drawings
from keras_medseg.runs.experiment import Profile
from keras_medseg.training import schedules

from ..mutations import (
    Mutation,
    clip_probabilities,
    collector,
    set_field,
    substitute,
)
from .recipe import EXPERIMENT, SE_WITHOUT_DROPOUT, WITHOUT_SUPERVISION

MUTATIONS: dict[str, Mutation] = {}
_mutation = collector(MUTATIONS)


@_mutation
def input_size(patch: pytest.MonkeyPatch) -> None:
    """Predictions are pasted into the corner and not back to where they come from."""

    def into_the_corner(values: np.ndarray, full_shape: Any) -> np.ndarray:
        size = values.shape[: len(full_shape)]
        grid = np.zeros((*full_shape, *values.shape[len(full_shape) :]), values.dtype)
        grid[tuple(slice(0, length) for length in size)] = values
        return grid

    substitute(patch, volumes.paste, into_the_corner)


@_mutation
def modalities(patch: pytest.MonkeyPatch) -> None:
    """Three modalities, without T1."""
    set_field(patch, "mtds2021", {"data.modalities": ("flair", "t1ce", "t2")})


@_mutation
def normalisation(patch: pytest.MonkeyPatch) -> None:
    """Minimum and maximum of each slice."""
    read = volumes.read_slice

    def of_the_slice(case: Any, z: int, size: Any, scaling: Any, out: Any, **options: Any) -> None:
        first = volumes.window_origin(case.full_shape, size)[2] - case.origin[2]
        channels = np.moveaxis(case.image[first + z], -1, 0)
        statistics = [{"min": float(c.min()), "max": float(c.max())} for c in channels]
        read(case, z, size, volumes.scaling(statistics, "min_max"), out, **options)

    substitute(patch, read, of_the_slice)


@_mutation
def crop_first(patch: pytest.MonkeyPatch) -> None:
    """Minimum and maximum of the whole volume."""

    def of_the_volume(case: Any, normalization: str, window: Any, channels: Any = None) -> Any:
        name = normalization.removeprefix("window_")
        return volumes.scaling(case.statistics, name, channels)

    substitute(patch, volumes.slice_scaling, of_the_volume)


@_mutation
def network_(patch: pytest.MonkeyPatch) -> None:
    """No SE at the bottom, as where only the skips are weighted."""
    excite = network.squeeze_excitation

    def on_the_skips(x: Any, *, name: str, **options: Any) -> Any:
        return x if name == "SE4" else excite(x, name=name, **options)

    patch.setattr(network, "squeeze_excitation", on_the_skips)


@_mutation
def filters(patch: pytest.MonkeyPatch) -> None:
    """The widths end at 128."""
    apr = network.apr

    def narrow(x: Any, filters: int, **options: Any) -> Any:
        return apr(x, min(filters, 128), **options)

    substitute(patch, apr, narrow)


@_mutation
def apr(patch: pytest.MonkeyPatch) -> None:
    """Convolution, norm, ReLU: the unit of 2015 and not that of 2016."""

    def post_activation(
        x: Any, filters: int, size: int, *, framework: Any, name: str, strides: int = 1
    ) -> Any:
        options = dict(framework=framework, name=name, strides=strides)
        x = convolution.conv(x, filters, size, **options)
        x = convolution.batch_norm(x, framework=framework, name=f"{name}_bn")
        return keras.layers.ReLU(name=f"{name}_relu")(x)

    substitute(patch, convolution.bn_relu_conv, post_activation)


@_mutation
def output(patch: pytest.MonkeyPatch) -> None:
    """The last of the outputs is the main one."""

    def last(model: keras.Model) -> keras.Model:
        return keras.Model(model.input, model.outputs[-1], name=model.name)

    substitute(patch, outputs.main_output, last)


@_mutation
def parameters(patch: pytest.MonkeyPatch) -> None:
    """Gates of one weight an element."""
    apr = network.apr

    def of_elements(x: Any, filters: int, *, gate: str, **options: Any) -> Any:
        return apr(x, filters, gate="element", **options)

    substitute(patch, apr, of_elements)


@_mutation
def stack(patch: pytest.MonkeyPatch) -> None:
    """PyTorch's biases beside TensorFlow's kernels."""
    defaults = frameworks.FRAMEWORKS["tensorflow_2"]
    mixed = replace(defaults, bias_initializer="fan_in_uniform")
    patch.setitem(frameworks.FRAMEWORKS, "tensorflow_2", mixed)


@_mutation
def loss(patch: pytest.MonkeyPatch) -> None:
    """The cross entropy of probabilities, clipped at 1e-7 as in Keras 2.2.4."""
    clip_probabilities(patch)


@_mutation
def dice(patch: pytest.MonkeyPatch) -> None:
    """The denominator sums the values and not their squares."""
    loss = losses.dice_loss

    def of_values(y_true: Any, y_pred: Any, *, squared: bool = False, **options: Any) -> Any:
        return loss(y_true, y_pred, squared=False, **options)

    substitute(patch, loss, of_values)


@_mutation
def optimizer(patch: pytest.MonkeyPatch) -> None:
    """PyTorch's Adam, which adds epsilon after the correction of the bias."""
    patch.setitem(optimizers.OPTIMIZERS, "adam", optimizers.AdamL2)


@_mutation
def learning_rate(patch: pytest.MonkeyPatch) -> None:
    """Adam's own default."""
    set_field(patch, "mtds2021", {"train.learning_rate": 1e-3})


@_mutation
def learning_rate_rule(patch: pytest.MonkeyPatch) -> None:
    """Epochs count from 1, so that the last one has the rate 0."""
    rule = schedules.polynomial
    substitute(patch, rule, lambda train, epoch: rule(train, epoch + 1))


@_mutation
def epochs(patch: pytest.MonkeyPatch) -> None:
    """The two numbers of the sentence changed places."""
    set_field(patch, "mtds2021", {"train.epochs": 32, "train.batch_size": 50})


@_mutation
def metrics_(patch: pytest.MonkeyPatch) -> None:
    """The percentile of both directions pooled, as medpy has it."""

    def pooled(distances: metrics.SurfaceDistances) -> float:
        both = np.concatenate(distances)
        return float(np.percentile(both, 95)) if both.size else 0.0

    substitute(patch, metrics.hd95, pooled)


@_mutation
def orders(patch: pytest.MonkeyPatch) -> None:
    """Without the second order of Table 3: Attention U-Net before the structures without gates."""
    profile = EXPERIMENT.profiles["paper"]
    kept = [pair for pair in profile.comparisons if pair[1] != "gates_on_skips"]
    _change_profile(patch, "paper", replace(profile, comparisons=tuple(kept)))


@_mutation
def single_model(patch: pytest.MonkeyPatch) -> None:
    """A network for each of two regions."""
    set_field(patch, "mtds2021", {"model.targets": (("WT",), ("TC",))})


@_mutation
def low_cost(patch: pytest.MonkeyPatch) -> None:
    """Twice the filters."""
    set_field(patch, "mtds2021", {"model.options.filters": 64})


@_mutation
def figure_5(patch: pytest.MonkeyPatch) -> None:
    """Boxes around every pixel that differs."""

    def everywhere(one: np.ndarray, other: np.ndarray) -> list:
        return [(slice(x, x + 1), slice(y, y + 1)) for x, y in np.argwhere(one != other)]

    substitute(patch, drawings.difference_boxes, everywhere)


@_mutation
def table_1_structures(patch: pytest.MonkeyPatch) -> None:
    """Without Dropout and without supervision, which Table 3 alone names."""
    without = {**WITHOUT_SUPERVISION, **SE_WITHOUT_DROPOUT}
    _change_variant(patch, "se_without_dropout", without)


@_mutation
def table_3_structures(patch: pytest.MonkeyPatch) -> None:
    """Gates on the skips of the first structure, without the shortcut."""
    _change_variant(patch, "gates_on_skips", {"model.options.encoder_block": "plain"})


@_mutation
def table_3_gates(patch: pytest.MonkeyPatch) -> None:
    """The common form: signal and skip have one resolution."""
    _change_variant(patch, "gates_on_skips", {"model.options.skip_gates": "same_scale"})
    gate = attention.grid_attention_gate

    def of_one_scale(skip: Any, signal: Any, *, upsample: Any, **options: Any) -> Any:
        raised = upsample(signal, name=f"{options['name']}_signal")
        return attention.attention_gate(skip, raised, skip.shape[-1], **options)

    substitute(patch, gate, of_one_scale)


@_mutation
def table_4_structures(patch: pytest.MonkeyPatch) -> None:
    """A single task, but not that of the main output."""
    _change_variant(patch, "single_task", {"model.auxiliary": ("ET", "ET", "ET")})


def _change_variant(patch: pytest.MonkeyPatch, name: str, changes: dict[str, Any]) -> None:
    profile = EXPERIMENT.profiles["paper"]
    variants = {**profile.variants, name: {**profile.variants[name], **changes}}
    _change_profile(patch, "paper", replace(profile, variants=variants))


def _change_profile(patch: pytest.MonkeyPatch, name: str, profile: Profile) -> None:
    patch.setitem(EXPERIMENT.profiles, name, profile)
