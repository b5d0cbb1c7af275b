"""Start a network from the weights of another one, layer by layer."""

import math
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class Taken:
    """What a network took from another one. Layers without weights do not count.

    Attributes:
        taken: layers whose weights are those of the other network.
        other_shape: layer -> what differs, of layers of the same name with other weights.
        new: layers that the other network does not have.
        unused: layers of the other network of which nothing was taken.
    """

    taken: tuple[str, ...]
    other_shape: dict[str, str]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.taken) + len(self.other_shape) + len(self.new)
        parts = [f"{len(self.taken)} of {total} layers taken"]
        if self.other_shape:
            parts.append(f"left out because of their shape: {', '.join(self.other_shape)}")
        if self.new:
            parts.append(f"new: {', '.join(self.new)}")
        return "; ".join(parts)


def take_weights(network: keras.Model, other: keras.Model) -> Taken:
    """Give every layer of a network the weights of the layer of the same name in another one.

    A layer takes all its weights, moving statistics included, or none.

    Args:
        network: whose weights are set, in place.
        other: of any architecture.

    Raises:
        ValueError: no layer fits.
    """
    there = {layer.name: layer for layer in other.layers if layer.weights}
    taken, new = [], []
    other_shape: dict[str, str] = {}
    for layer in (layer for layer in network.layers if layer.weights):
        found = there.get(layer.name)
        if found is None:
            new.append(layer.name)
        elif _shapes(found) != _shapes(layer):
            other_shape[layer.name] = f"{_words(found)}, not {_words(layer)}"
        else:
            layer.set_weights(found.get_weights())
            taken.append(layer.name)
    unused = tuple(name for name in there if name not in {*taken})
    if not taken:
        examples = [f"{name} ({text})" for name, text in other_shape.items()] or new
        raise ValueError(
            f"found no layer of {network.name} whose name and shape a layer of these weights "
            f"({other.name}) has, such as {examples[0]}, expected some."
        )
    return Taken(tuple(taken), other_shape, tuple(new), unused)


def _shapes(layer: Any) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]


def _words(layer: Any) -> str:
    """The shape of its largest weights, such as 3x3x4x16."""
    largest = max(_shapes(layer), key=math.prod)
    return "x".join(map(str, largest))
