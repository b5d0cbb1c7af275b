"""Load the weights of the authors' PyTorch code into our networks.

The file of a network that has a PyTorch original declares, beside its builder,

    ORIGINAL_NAMES = {"Conv{n}_conv1": "Conv{n}.conv.0", ...}    our layer -> the original's module
    NEVER_CALLED = ("aux.0", ...)     modules that the original registers, but never calls

A field such as {n} stands for the same number on both sides, so that one line covers a layer on
every level. Every layer with weights needs exactly one line. A layer inside another one is named by
its path, "Block1/qkv". Names of tensors within a module follow from those of Keras (kernel and
gamma are "weight", ...); any other weight has the same name in both.
"""

import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_medseg import registry

TENSOR_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# How a batch norm of ours continues its moving averages; `settle` sets them to what was loaded.
AVERAGES = ("moving_weight", "last_means", "last_variances")
# Registered beside the weights, but they count training steps or are computed from the options.
NOT_WEIGHTS = ("num_batches_tracked", "relative_position_index", "attn_mask")


def load_state_dict(
    model: keras.Model,
    state_dict: Mapping[str, Any],
    *,
    names: Mapping[str, str] | None = None,
    never_called: tuple[str, ...] = (),
) -> None:
    """Set every weight of `model` from the tensors of its original: all of them, or none.

    NOT_WEIGHTS and the tensors of modules that are never called are ignored, as is a prefix that a
    wrapper puts before every name: "module." of DataParallel, "swin_unet." of Swin-Unet's code.

    Args:
        model: built by registry.build with the options of the original.
        state_dict: the original's names -> NumPy arrays or torch tensors, in PyTorch's layout.
        names: ORIGINAL_NAMES for a model that is not registered.
        never_called: NEVER_CALLED for a model that is not registered.

    Raises:
        ValueError: tensors are missing, left over or of another shape; the message names them. Or
            there is no original for this model or one of its layers.
    """
    if names is None:
        names, never_called = _declared(model.name)
    targets = _targets(model, names)
    unused = tuple(f"{module}." for module in never_called)
    arrays = {
        name: _array(tensor)
        for name, tensor in _unwrapped(state_dict, targets).items()
        if name.rpartition(".")[2] not in NOT_WEIGHTS and not name.startswith(unused)
    }
    problems = _problems({name: target.shape for name, target in targets.items()}, arrays)
    if problems:
        raise ValueError(
            f"state_dict: found no fit for {model.name}: {'; '.join(problems)}. Build the network "
            f"with the options of the original."
        )
    for name, target in targets.items():
        target.weight.assign(arrays[name].transpose(target.axes).reshape(target.weight.shape))
    for layer in model.layers:
        if hasattr(layer, "settle"):
            layer.settle()


def expected_shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the original's tensors that load_state_dict takes for `model`.

    Args:
        model: built by registry.build.

    Returns:
        {name: shape in PyTorch's layout}.

    Raises:
        ValueError: there is no original for this model or one of its layers.
    """
    targets = _targets(model, _declared(model.name)[0])
    return {name: target.shape for name, target in targets.items()}


@dataclass(frozen=True)
class _Target:
    weight: keras.Variable
    axes: tuple[int, ...]  # of the original tensor, in the order of ours

    @property
    def shape(self) -> tuple[int, ...]:
        sizes = self.weight.shape[-len(self.axes) :]
        return tuple(sizes[self.axes.index(axis)] for axis in range(len(self.axes)))


def _declared(name: str) -> tuple[Mapping[str, str], tuple[str, ...]]:
    registry.card(name)
    module = importlib.import_module(f"keras_medseg.models.{name}")
    if not hasattr(module, "ORIGINAL_NAMES"):
        raise ValueError(
            f"model: found {name}, expected a network with a PyTorch original. Its card names its "
            f"source."
        )
    return module.ORIGINAL_NAMES, getattr(module, "NEVER_CALLED", ())


def _targets(model: keras.Model, names: Mapping[str, str]) -> dict[str, _Target]:
    targets = {}
    for layer in model.layers:
        for weight in layer.weights:
            path, _, variable = weight.path.rpartition("/")
            if variable in AVERAGES:
                continue
            name = f"{_original(path, names, model.name)}.{TENSOR_NAMES.get(variable, variable)}"
            if name in targets:
                raise ValueError(f"ORIGINAL_NAMES of {model.name}: two layers take {name}.")
            targets[name] = _Target(weight, _axes(layer, weight, variable))
    return targets


def _axes(layer: keras.Layer, weight: keras.Variable, variable: str) -> tuple[int, ...]:
    if variable == "alpha":  # of a PReLU, (1, 1, 1, C) in Keras and (C,) elsewhere
        return (0,)
    axes = tuple(range(len(weight.shape)))
    if variable != "kernel":
        return axes
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return (2, 3, 0, 1)
    # (out, in, k...) and, of a transposed convolution, (in, out, k...).
    return (*axes[2:], 1, 0)


def _original(path: str, names: Mapping[str, str], model_name: str) -> str:
    found = []
    for ours, theirs in names.items():
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(ours))
        match = re.fullmatch(pattern, path)
        if match:
            found.append(theirs.format(**match.groupdict()))
    if len(found) != 1:
        raise ValueError(
            f"model: the layer {path} of {model_name} has {len(found)} counterparts in the "
            f"original ({', '.join(found) or 'none'}), expected one."
        )
    return found[0]


def _unwrapped(state_dict: Mapping[str, Any], expected: Iterable[str]) -> Mapping[str, Any]:
    """The tensors without a prefix that all names share, if an expected name follows it."""
    first = next(iter(expected))
    for prefix in (name.removesuffix(first) for name in state_dict if name.endswith(f".{first}")):
        if all(name.startswith(prefix) for name in state_dict):
            return {name.removeprefix(prefix): tensor for name, tensor in state_dict.items()}
    return state_dict


def _array(tensor: Any) -> np.ndarray:
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().float()
    return np.asarray(tensor)


def _problems(
    expected: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray]
) -> list[str]:
    missing = [name for name in expected if name not in arrays]
    surplus = [name for name in arrays if name not in expected]
    problems = [f"missing {', '.join(missing)}"] if missing else []
    problems += [f"surplus {', '.join(surplus)}"] if surplus else []
    for name, shape in expected.items():
        if name in arrays and arrays[name].shape != shape:
            problems.append(f"{name} has shape {arrays[name].shape}, expected {shape}")
    return problems
