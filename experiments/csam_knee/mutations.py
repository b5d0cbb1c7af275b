"""The neighboring wrong reading of every statement that the ledger calls exact or equivalent."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest

from keras_medseg import frameworks, losses, optimizers
from keras_medseg.data.transforms import images
from keras_medseg.evaluation import metrics
from keras_medseg.layers import attention
from keras_medseg.models import res_csam_unet as network
from keras_medseg.training import schedules

from ..mutations import (
    Mutation,
    clip_probabilities,
    collector,
    set_field,
    substitute,
)

MUTATIONS: dict[str, Mutation] = {}
_mutation = collector(MUTATIONS)


@_mutation
def equalisation(patch: pytest.MonkeyPatch) -> None:
    """The share of the pixels up to each value, as scikit-image has it, whose lowest is not 0."""

    def cumulative(channel: np.ndarray) -> np.ndarray:
        below = np.bincount(channel.ravel(), minlength=256).cumsum()
        return np.rint(below * (255 / channel.size)).astype(np.uint8)[channel]

    substitute(patch, images._equalized, cumulative)


@_mutation
def filters(patch: pytest.MonkeyPatch) -> None:
    """The widths end at 512."""

    def narrow(x: Any, filters: int, **options: Any) -> Any:
        return network.residual_pair(x, min(filters, 512), **options)

    patch.setitem(network.BLOCKS, "consistent", (narrow, narrow))


@_mutation
def up(patch: pytest.MonkeyPatch) -> None:
    """A kernel of 3x3, whose windows overlap."""
    wide = partial(network.transposed_conv, kernel_size=3)
    patch.setattr(network, "transposed_conv", wide)


@_mutation
def channel_attention(patch: pytest.MonkeyPatch) -> None:
    """The maximum over the whole image alone, as in "global max-pooling"."""
    gate = attention.channel_gate

    def of_the_maximum(x: Any, **options: Any) -> Any:
        patch.setattr(keras.layers, "GlobalAveragePooling2D", keras.layers.GlobalMaxPooling2D)
        return gate(x, **options)

    substitute(patch, gate, of_the_maximum)


@_mutation
def spatial_attention(patch: pytest.MonkeyPatch) -> None:
    """The spatial attention first."""
    cbam = network.cbam

    def turned(x: Any, *, framework: Any, name: str, ratio: int, use_batch_norm: bool) -> Any:
        x = attention.spatial_gate(
            x, framework=framework, name=f"{name}_spatial", use_batch_norm=use_batch_norm
        )
        return attention.channel_gate(x, framework=framework, name=f"{name}_channel", ratio=ratio)

    substitute(patch, cbam, turned)


@_mutation
def stack(patch: pytest.MonkeyPatch) -> None:
    """Keras' biases beside PyTorch's kernels."""
    mixed = replace(frameworks.FRAMEWORKS["pytorch"], bias_initializer="zeros")
    patch.setitem(frameworks.FRAMEWORKS, "pytorch", mixed)


@_mutation
def loss(patch: pytest.MonkeyPatch) -> None:
    """The cross entropy of probabilities, clipped at 1e-7 as in Keras 2.2.4."""
    clip_probabilities(patch)


@_mutation
def loss_mean(patch: pytest.MonkeyPatch) -> None:
    """The sum over the pixels of an image, and the mean over the images."""
    call = losses.CrossEntropy.call

    def of_images(self: Any, y_true: Any, y_pred: Any) -> Any:
        return keras.ops.sum(call(self, y_true, y_pred), axis=(1, 2))

    patch.setattr(losses.CrossEntropy, "call", of_images)


@_mutation
def optimizer(patch: pytest.MonkeyPatch) -> None:
    """Keras' Adam, which adds epsilon before the second moment is corrected."""

    def as_keras(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        step = keras.ops.cast(self.iterations + 1, "float32")
        corrected = keras.ops.sqrt(1 - keras.ops.power(self.beta_2, step))
        first, root = self._means(gradient + self.l2 * variable, variable, step)
        rate = learning_rate / (1 - keras.ops.power(self.beta_1, step))
        self.assign_sub(variable, rate * first / (root + self.epsilon / corrected))

    patch.setattr(optimizers.AdamL2, "update_step", as_keras)


@_mutation
def learning_rate(patch: pytest.MonkeyPatch) -> None:
    """Ten times as much."""
    set_field(patch, "csam_knee", {"train.learning_rate": 2e-4})


@_mutation
def learning_rate_rule(patch: pytest.MonkeyPatch) -> None:
    """Epochs count from 1, so that the rate falls an epoch early."""
    rule = schedules.step_decay
    substitute(patch, rule, lambda train, epoch: rule(train, epoch + 1))


@_mutation
def epochs(patch: pytest.MonkeyPatch) -> None:
    """The 300 at which the rate falls."""
    set_field(patch, "csam_knee", {"train.epochs": 300})


@_mutation
def loss_rate(patch: pytest.MonkeyPatch) -> None:
    """In bits."""
    entropy = metrics.METRICS["cross_entropy"]

    def in_bits(probabilities: np.ndarray, truth: np.ndarray) -> float:
        return metrics.cross_entropy(probabilities, truth) / math.log(2)

    patch.setitem(metrics.METRICS, "cross_entropy", replace(entropy, function=in_bits))


@_mutation
def f1(patch: pytest.MonkeyPatch) -> None:
    """The Jaccard index."""
    changed = replace(metrics.METRICS["dice"], function=metrics.iou)
    patch.setitem(metrics.METRICS, "dice", changed)
