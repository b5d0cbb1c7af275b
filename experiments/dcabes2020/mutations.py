"""The neighboring wrong reading of every statement that the ledger calls exact or equivalent.

And of three that it does not, whose tests were once blind to it.
"""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from experiments.mutations import Mutation, collector, set_field, substitute
from keras_medseg import frameworks, losses
from keras_medseg.data import splits
from keras_medseg.data.transforms import volumes
from keras_medseg.layers import residual
from keras_medseg.models import residual_attention_unet as network
from keras_medseg.reporting import tables
from keras_medseg.training import schedules

MUTATIONS: dict[str, Mutation] = {}
_mutation = collector(MUTATIONS)


@_mutation
def input_size(patch: pytest.MonkeyPatch) -> None:
    """The window begins at the grid's corner."""
    substitute(patch, volumes.window_origin, lambda full_shape, size: (0,) * len(size))


@_mutation
def modalities(patch: pytest.MonkeyPatch) -> None:
    """Three modalities, without T1."""
    set_field(patch, "dcabes2020", {"data.modalities": ("flair", "t1ce", "t2")})


@_mutation
def held_out(patch: pytest.MonkeyPatch) -> None:
    """The share is that of the cases to train on."""
    split = splits.split_cases

    def other_way(cases: Any, validation: float, seed: int) -> splits.Sides:
        return split(cases, 1 - validation, seed)

    substitute(patch, split, other_way)


@_mutation
def network_(patch: pytest.MonkeyPatch) -> None:
    """A block is halved behind it and not before it."""
    separable = residual.separable

    def halved_behind(x: Any, filters: int, *, name: str, **options: Any) -> Any:
        y = separable(x, filters, name=name, **options)
        on_the_way_down = name in {f"ResBlock{number}" for number in (1, 2, 3, 4)}
        return keras.layers.MaxPooling2D(2)(y) if on_the_way_down else y

    substitute(patch, separable, halved_behind)
    patch.setattr(network, "down", lambda x, method, **options: x)


@_mutation
def filters(patch: pytest.MonkeyPatch) -> None:
    """The widths end at 128."""
    separable = residual.separable

    def narrow(x: Any, filters: int, **options: Any) -> Any:
        return separable(x, min(filters, 128), **options)

    substitute(patch, separable, narrow)


@_mutation
def parameters(patch: pytest.MonkeyPatch) -> None:
    """The bottleneck, whose 560,393 are about 570,000 as well."""
    substitute(patch, residual.separable, residual.bottleneck)


@_mutation
def bn_relu(patch: pytest.MonkeyPatch) -> None:
    """The norm of a block stands before its convolution; all layers keep their names."""

    def norm_first(x: Any, filters: int, *, framework: Any, name: str) -> Any:
        y = residual.batch_norm(x, framework=framework, name=f"{name}_conv1_bn")
        y = residual.separable_conv(y, filters, 3, framework=framework, name=f"{name}_conv1")
        shortcut = residual.projection(x, filters, framework=framework, name=name)
        total = keras.layers.Add(name=f"{name}_add")([y, shortcut])
        return keras.layers.ReLU(name=f"{name}_relu")(total)

    substitute(patch, residual.separable, norm_first)


@_mutation
def cbam_place(patch: pytest.MonkeyPatch) -> None:
    """CBAM on the way down, before both skip and pooling."""
    cbam, conv_bn_relu, separable = network.cbam, network.conv_bn_relu, residual.separable

    def first(x: Any, *arguments: Any, name: str, **options: Any) -> Any:
        y = conv_bn_relu(x, *arguments, name=name, **options)
        return cbam(y, name="CBAM9", framework=options["framework"]) if name == "Conv1" else y

    def block(x: Any, filters: int, *, name: str, **options: Any) -> Any:
        y = separable(x, filters, name=name, **options)
        place = {"ResBlock1": "CBAM8", "ResBlock2": "CBAM7", "ResBlock3": "CBAM6"}.get(name)
        return cbam(y, name=place, framework=options["framework"]) if place else y

    patch.setattr(network, "conv_bn_relu", first)
    substitute(patch, separable, block)
    patch.setattr(network, "cbam", lambda skip, **options: skip)


@_mutation
def output(patch: pytest.MonkeyPatch) -> None:
    """A linear output, as for a loss that takes logits."""
    conv = network.output_conv

    def linear(x: Any, classes: int, activation: str, **options: Any) -> Any:
        return conv(x, classes, "linear", **options)

    patch.setattr(network, "output_conv", linear)


@_mutation
def edge_network(patch: pytest.MonkeyPatch) -> None:
    """Sobel without the smoothing."""

    def unsmoothed(size: int, sigma: float) -> np.ndarray:
        kernel = np.zeros((size, size), np.float32)
        kernel[size // 2, size // 2] = 1
        return kernel

    substitute(patch, losses.gaussian_kernel, unsmoothed)


@_mutation
def learning_rate(patch: pytest.MonkeyPatch) -> None:
    """A tenth of it."""
    set_field(patch, "dcabes2020", {"train.learning_rate": 0.0005})


@_mutation
def learning_rate_rule(patch: pytest.MonkeyPatch) -> None:
    """The accuracy stagnates when it does not fall."""

    def falling(train: Any, log: Any) -> list[keras.callbacks.Callback]:
        options = {**train.schedule_options, "mode": "min"}
        return [schedules.ResumedPlateau(log, train.learning_rate, **options)]

    rule = replace(schedules.SCHEDULES["plateau"], callbacks=falling)
    patch.setitem(schedules.SCHEDULES, "plateau", rule)


@_mutation
def epochs(patch: pytest.MonkeyPatch) -> None:
    """Ten times as many."""
    set_field(patch, "dcabes2020", {"train.epochs": 200})


@_mutation
def batch_size(patch: pytest.MonkeyPatch) -> None:
    """Half of it."""
    set_field(patch, "dcabes2020", {"train.batch_size": 16})


@_mutation
def stack(patch: pytest.MonkeyPatch) -> None:
    """PyTorch's biases beside Keras' kernels."""
    defaults = frameworks.FRAMEWORKS["keras_2_2"]
    mixed = replace(defaults, bias_initializer="fan_in_uniform")
    patch.setitem(frameworks.FRAMEWORKS, "keras_2_2", mixed)


@_mutation
def table_contradiction(patch: pytest.MonkeyPatch) -> None:
    """Both tables show the value that fits the text's gain."""
    read = tables.read_published

    def corrected(*arguments: Any) -> pd.DataFrame:
        published = read(*arguments)
        return published.assign(value=published["value"].replace(77.50, 78.17))

    substitute(patch, read, corrected)
