"""The cost of a network: its multiply-add operations, counted from the shapes of its layers.

All kinds of convolutions, dense layers, and the matrix products in attention are counted. As in the
articles that publish such numbers, biases, norms, activations, pooling, interpolation (however it
is computed) and elementwise sums or products of maps are not counted.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_medseg.layers.interpolation import Resize
from keras_medseg.layers.transformer import WindowAttention

Shape = Sequence[int]
UNCOUNTED = ("Einsum", "Dot", "Tensordot", "Inner", "Conv", "MultiHeadAttention")


def multiply_adds(model: keras.Model, input_shape: Shape | None = None) -> int:
    """Multiply-adds of one inference on one image; a layer that is used twice counts twice.

    Args:
        model: a functional model with one input, such as every network of the registry.
        input_shape: (..., C) of the image; by default the shape that the model was built for.

    Raises:
        ValueError: a layer with weights is of an unknown kind, or a size is None.
    """
    shape = tuple(input_shape or model.input_shape[1:])
    if None in shape:
        raise ValueError(f"input_shape: found {shape}, expected a size for every axis.")
    counts: list[int] = []

    def call(
        step: keras.Operation, *inputs: keras.KerasTensor, **options: Any
    ) -> keras.KerasTensor:
        outputs = step(*inputs, **options)
        counts.append(_step(step, inputs, outputs))
        return outputs

    # The graph is traversed, not copied: the layers remain those of the network.
    keras.models.clone_model(
        model,
        input_tensors=keras.Input(shape),
        clone_function=lambda layer: layer,
        call_function=call,
    )
    return sum(counts)


def costs(networks: Iterable[keras.Model]) -> dict[str, int | float]:
    """Total costs of some networks.

    Returns:
        networks (their number), parameters, largest_network (the parameters of the largest one),
        multiply_adds, and seconds_per_input: the median over ten inferences on one slice, patch or
        image, on this machine.
    """
    found = list(networks)
    return {
        "networks": len(found),
        "parameters": sum(network.count_params() for network in found),
        "largest_network": max(network.count_params() for network in found),
        "multiply_adds": sum(multiply_adds(network) for network in found),
        "seconds_per_input": sum(_seconds_per_input(network) for network in found),
    }


def _seconds_per_input(network: keras.Model) -> float:
    one = np.zeros((1, *network.input_shape[1:]), np.float32)
    network.predict_on_batch(one)  # compiles
    times = []
    for _ in range(10):
        started = time.perf_counter()
        network.predict_on_batch(one)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def _step(step: keras.Operation, inputs: tuple, outputs: keras.KerasTensor) -> int:
    if isinstance(step, keras.Model):
        return multiply_adds(step, inputs[0].shape[1:])
    for kind, count in LAYERS.items():
        if isinstance(step, kind):
            return count(step, inputs[0].shape[1:], outputs.shape[1:])
    # keras.ops in a network are operations without a public class.
    operation = type(step).__name__
    if operation == "Matmul":
        return math.prod(outputs.shape[1:]) * inputs[0].shape[-1]
    kernels = [weight for weight in getattr(step, "weights", ()) if len(weight.shape) > 1]
    if kernels or operation in UNCOUNTED:
        raise ValueError(
            f"model: found the step {step.name} of class {operation}, expected one of Matmul, "
            f"{', '.join(kind.__name__ for kind in LAYERS)}. Add it to complexity.py."
        )
    return 0


def _per_output(layer: layers.Layer, inputs: Shape, outputs: Shape) -> int:
    """Each output value is a sum over kernel size times input channels."""
    return math.prod(outputs) * math.prod(layer.kernel.shape[:-1])


def _per_input(layer: layers.Layer, inputs: Shape, outputs: Shape) -> int:
    """Each input value is multiplied by every kernel element of every filter."""
    return math.prod(inputs) * math.prod(layer.kernel.shape[:-1])


def _depthwise(layer: layers.Layer, inputs: Shape, outputs: Shape) -> int:
    return math.prod(outputs) * math.prod(layer.kernel.shape[:-2])


def _separable(layer: layers.Layer, inputs: Shape, outputs: Shape) -> int:
    """The depthwise step at the output's size, then 1x1."""
    depthwise, pointwise = layer.depthwise_kernel.shape, layer.pointwise_kernel.shape
    return math.prod(outputs[:-1]) * (math.prod(depthwise) + math.prod(pointwise))


def _windows(layer: WindowAttention, inputs: Shape, outputs: Shape) -> int:
    """q k^T, then its product with v: each pixel takes part in 2 C products per window pixel."""
    return 2 * math.prod(outputs) * layer.window**2


def _nothing(layer: layers.Layer, inputs: Shape, outputs: Shape) -> int:
    return 0


LAYERS: dict[type, Callable[[layers.Layer, Shape, Shape], int]] = {
    layers.SeparableConv2D: _separable,
    layers.DepthwiseConv2D: _depthwise,
    layers.Conv2DTranspose: _per_input,
    layers.Conv3DTranspose: _per_input,
    layers.Conv2D: _per_output,
    layers.Conv3D: _per_output,
    layers.Dense: _per_output,
    WindowAttention: _windows,
    Resize: _nothing,
    # Weights of more than one axis that are no kernels: slopes, and means of the last batches.
    layers.PReLU: _nothing,
    layers.BatchNormalization: _nothing,
}
