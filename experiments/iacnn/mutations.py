"""The neighboring wrong reading of every statement that the ledger calls exact or equivalent."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from keras_medseg import frameworks, optimizers
from keras_medseg.data.datasets import _image_layouts
from keras_medseg.data.formats import masks
from keras_medseg.data.transforms import augment
from keras_medseg.evaluation import metrics
from keras_medseg.layers import attention
from keras_medseg.models import integrated_attention_cnn as network

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
def data(patch: pytest.MonkeyPatch) -> None:
    """Frames are ordered as words: 1, 10, 11, 2."""
    substitute(patch, _image_layouts.natural, lambda id: id)


@_mutation
def classes(patch: pytest.MonkeyPatch) -> None:
    """Whatever is not 0 is tumor, the gray edges of the masks as well."""
    read = masks.labels_of_object

    def all_that_is_not_black(codes: np.ndarray, *arguments: Any) -> Any:
        return (codes > 0).astype(np.uint8), read(codes, *arguments)[1]

    substitute(patch, read, all_that_is_not_black)


@_mutation
def flips(patch: pytest.MonkeyPatch) -> None:
    """One draw decides both: turned by 180 degrees or not at all."""
    draw = augment.draw_flips

    def turned(seed: int, epoch: int, count: int) -> np.ndarray:
        return draw(seed, epoch, count)[:, [0, 0]]

    substitute(patch, draw, turned)


@_mutation
def network_(patch: pytest.MonkeyPatch) -> None:
    """SA and CA as the sentence has them: CA is the spatial one."""
    spatial, channel = network.spatial_attention, network.channel_attention

    def sa(x: Any, *, reading: str, scale: str, name: str) -> Any:
        return channel(x, ratio=16, framework=frameworks.PYTORCH, name=name)

    def ca(x: Any, *, ratio: int, framework: Any, name: str) -> Any:
        return spatial(x, reading="positions", scale="mean", name=name)

    substitute(patch, spatial, sa)
    substitute(patch, channel, ca)


@_mutation
def sfa(patch: pytest.MonkeyPatch) -> None:
    """A ReLU behind each convolution."""
    conv = network.conv

    def activated(x: Any, *arguments: Any, **options: Any) -> Any:
        return keras.layers.ReLU()(conv(x, *arguments, **options))

    patch.setattr(network, "conv", activated)


@_mutation
def sa(patch: pytest.MonkeyPatch) -> None:
    """The products are divided by the root of the number of channels, as in transformers."""
    positions = network._positions

    def divided(x: Any, weights: Any) -> Any:
        return positions(x, lambda products: weights(products / (2 * x.shape[-1]) ** 0.5))

    substitute(patch, positions, divided)


@_mutation
def ca(patch: pytest.MonkeyPatch) -> None:
    """The MLP sees the sum of both pools."""
    gate = attention.channel_gate

    def pooled_together(x: Any, *, framework: Any, name: str, ratio: int = 16) -> Any:
        whole = keras.Model(
            entry := keras.Input(x.shape[1:]),
            gate(entry, framework=framework, name=name, ratio=ratio),
        )
        reduce, expand = (whole.get_layer(f"{name}_{part}") for part in ("reduce", "expand"))
        average = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
        maximum = keras.layers.GlobalMaxPooling2D(keepdims=True)(x)
        return x * keras.ops.sigmoid(expand(reduce(average + maximum)))

    substitute(patch, gate, pooled_together)


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
def optimizer(patch: pytest.MonkeyPatch) -> None:
    """AdamW: the weights decay beside the moments."""
    step = optimizers.AdamL2.update_step

    def decoupled(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        decay, self.l2 = self.l2, 0.0
        self.assign_sub(variable, learning_rate * decay * variable)
        step(self, gradient, variable, learning_rate)
        self.l2 = decay

    patch.setattr(optimizers.AdamL2, "update_step", decoupled)


@_mutation
def batch_size(patch: pytest.MonkeyPatch) -> None:
    """Half of it."""
    set_field(patch, "iacnn", {"train.batch_size": 8})


@_mutation
def metrics_(patch: pytest.MonkeyPatch) -> None:
    """Precision and sensitivity changed places."""
    for name, other in (("precision", metrics.sensitivity), ("sensitivity", metrics.precision)):
        patch.setitem(metrics.METRICS, name, replace(metrics.METRICS[name], function=other))
