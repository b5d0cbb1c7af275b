"""The neighboring wrong reading of every statement that the ledger calls exact or equivalent.

And of some that it does not, whose tests were once blind to it.
"""

import functools
import importlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from keras_medseg import frameworks, losses, optimizers
from keras_medseg.data import splits
from keras_medseg.data.transforms import task_transfer, volumes
from keras_medseg.layers import residual
from keras_medseg.models import residual_attention_unet as network
from keras_medseg.reporting import tables
from keras_medseg.reporting.figures import style
from keras_medseg.tasks import slices
from keras_medseg.training import schedules

from ..mutations import Mutation, collector, set_field, substitute
from . import scores

MUTATIONS: dict[str, Mutation] = {}
_mutation = collector(MUTATIONS)


@_mutation
def input_size(patch: pytest.MonkeyPatch) -> None:
    """The window begins at the grid's corner."""
    substitute(patch, volumes.window_origin, lambda full_shape, size: (0,) * len(size))


@_mutation
def data(patch: pytest.MonkeyPatch) -> None:
    """The cases of 2018, which are as many."""
    declared = importlib.import_module("experiments.dcabes2020.recipe")
    reference = replace(declared.EXPERIMENT.reference, data="BraTS2018")
    patch.setattr(declared, "EXPERIMENT", replace(declared.EXPERIMENT, reference=reference))


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
def shortcut_norm(patch: pytest.MonkeyPatch) -> None:
    """The option puts the norm before the shortcut's convolution; the count stays."""
    projection = residual.projection

    def norm_first(x: Any, filters: int, *, norm: bool = False, **options: Any) -> Any:
        if norm:
            where = {name: options[name] for name in ("framework",)}
            x = residual.batch_norm(x, name=f"{options['name']}_shortcut_bn", **where)
        return projection(x, filters, **options)

    substitute(patch, projection, norm_first)


@_mutation
def cbam(patch: pytest.MonkeyPatch) -> None:
    """The spatial gate has the batch norm of the CBAM authors' code."""

    def normed(x: Any, **options: Any) -> Any:
        return module(x, **{**options, "use_batch_norm": True})

    module = network.cbam
    patch.setattr(network, "cbam", normed)


@_mutation
def kernels(patch: pytest.MonkeyPatch) -> None:
    """The last convolution is 1x1, as the output."""
    conv_bn_relu = network.conv_bn_relu

    def small(x: Any, filters: int, size: int, *, name: str, **options: Any) -> Any:
        return conv_bn_relu(x, filters, 1 if name == "Conv2" else size, name=name, **options)

    patch.setattr(network, "conv_bn_relu", small)


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
def merging(patch: pytest.MonkeyPatch) -> None:
    """What is called a network's own map is the merged one."""

    def merged(task: Any, maps: Any, case: Any) -> slices.Scored:
        predicted = task.label_map(maps, case)
        rows = task.score(predicted, case)
        alone = [{"region": row["region"], "dice_alone": row["dice"]} for row in rows]
        return slices.Scored(predicted, rows, alone)

    patch.setattr(slices.SliceTask, "score_maps", merged)


@_mutation
def loss_parts(patch: pytest.MonkeyPatch) -> None:
    """The edge loss takes the place of the cross entropy instead of being added to it."""

    def edges_alone(y_true: Any, y_pred: Any, *, edge_weight: float, **options: Any) -> Any:
        of_edges = {name: value for name, value in options.items() if name != "from_logits"}
        return edge_weight * losses.edge_loss(y_true, y_pred, **of_edges)

    kept = functools.wraps(losses.cross_entropy_and_edge)(edges_alone)
    patch.setattr(losses.CrossEntropyAndEdge, "function", staticmethod(kept))


@_mutation
def edge_scale(patch: pytest.MonkeyPatch) -> None:
    """Sobel's kernels divided by 8, so that they estimate the slope."""
    patch.setattr(losses, "SOBEL_X", losses.SOBEL_X / 8)


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
def et_cases(patch: pytest.MonkeyPatch) -> None:
    """The column of the high-grade cases has those of low grade."""
    hook = scores.further_scores

    def low(run: Any, cohort: Any) -> pd.DataFrame:
        other = {"HGG": "LGG", "LGG": "HGG", "": ""}
        cases = {
            name: SimpleNamespace(grade=other[case.grade])
            for name, case in cohort.store.cases.items()
        }
        other_cohort: Any = SimpleNamespace(store=SimpleNamespace(cases=cases))
        return hook(run, other_cohort)

    substitute(patch, hook, low)


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


@_mutation
def ablation(patch: pytest.MonkeyPatch) -> None:
    """The variant without the edge loss loses CBAM as well."""
    declared = importlib.import_module("experiments.dcabes2020.recipe")
    paper = declared.EXPERIMENT.profiles["paper"]
    without = paper.variants["without_edge_loss"] | {"model.options.attention": False}
    changed = replace(paper, variants={**paper.variants, "without_edge_loss": without})
    profiles = {**declared.EXPERIMENT.profiles, "paper": changed}
    patch.setattr(declared, "EXPERIMENT", replace(declared.EXPERIMENT, profiles=profiles))


@_mutation
def gains(patch: pytest.MonkeyPatch) -> None:
    """Table III shows the ET of Table II."""
    read = tables.read_published

    def one_value(*arguments: Any) -> pd.DataFrame:
        published = read(*arguments)
        return published.assign(value=published["value"].replace(78.17, 77.50))

    substitute(patch, read, one_value)


@_mutation
def figure_3(patch: pytest.MonkeyPatch) -> None:
    """The two greens of panel C are exchanged."""
    colors = style.LABEL_COLORS
    other = {"necrotic": colors["enhancing"], "enhancing": colors["necrotic"]}
    patch.setattr(style, "LABEL_COLORS", {**colors, **other})


@_mutation
def mc_solver(patch: pytest.MonkeyPatch) -> None:
    """Biases and beta have the rate of the others."""
    step = optimizers.SgdCaffe.update_step

    def one_rate(self: Any, *given: Any) -> None:
        self.bias_rate = 1.0
        step(self, *given)

    patch.setattr(optimizers.SgdCaffe, "update_step", one_rate)


@_mutation
def omnet_transfer(patch: pytest.MonkeyPatch) -> None:
    """The core is what BraTS' files call 1 and 2."""
    share = task_transfer.SHARES[3][1]
    patch.setitem(task_transfer.SHARES, 3, ((1, 2), share))


@_mutation
def omnet_loss(patch: pytest.MonkeyPatch) -> None:
    """Each task's sum is divided by the voxels of the whole batch."""

    def over_all(y_true: Any, y_pred: Any, *, classes: Any = (), from_logits: bool = False) -> Any:
        ends = np.cumsum(classes or (y_pred.shape[-1],))
        parts = zip([0, *ends[:-1]], ends)
        return sum(
            keras.ops.mean(
                losses.categorical_cross_entropy(
                    y_true[..., first:end], y_pred[..., first:end], from_logits=from_logits
                )
            )
            for first, end in parts
        )

    kept = functools.wraps(losses.cross_entropy_by_task)(over_all)
    patch.setattr(losses.CrossEntropyByTask, "function", staticmethod(kept))


@_mutation
def deepmedic_optimizer(patch: pytest.MonkeyPatch) -> None:
    """The momentum is the classical one of Keras' RMSprop."""
    step = optimizers.RmsPropDeepMedic.update_step

    def classical(self: Any, gradient: Any, variable: Any, rate: Any) -> None:
        before = keras.ops.convert_to_numpy(variable)
        step(self, gradient, variable, rate)
        velocity = self._velocities[self._get_variable_index(variable)]
        self.assign(variable, before + velocity)

    patch.setattr(optimizers.RmsPropDeepMedic, "update_step", classical)


@_mutation
def deepmedic_schedule(patch: pytest.MonkeyPatch) -> None:
    """The epochs of today's configuration."""
    declared = importlib.import_module("experiments.dcabes2020.recipe")
    paper = declared.EXPERIMENT.profiles["paper-compare"]
    today = {"train.schedule_options.after": (17, 22, 27, 30, 33)}
    changed = replace(
        paper,
        variants={
            name: {**changes, **today} if "deepmedic" in name and "same" not in name else changes
            for name, changes in paper.variants.items()
        },
    )
    profiles = {**declared.EXPERIMENT.profiles, "paper-compare": changed}
    patch.setattr(declared, "EXPERIMENT", replace(declared.EXPERIMENT, profiles=profiles))
