"""Any network of the package as a plain PyTorch module, for benchmarks/networks.py.

`Twin` walks through the graph of a Keras network once and puts a PyTorch operation in the place of
every layer: the same weights, the same result. What a PyTorch user would write is the result:
convolutions of `torch.nn.functional` on channels_last memory, its own batch and instance norms,
autocast for bfloat16. Tensors between layers are NHWC views of channels_last memory, which cost no
copy. What is not in NATIVE (resizing, a few cheap operations of DeepMedic, and the attention
windows of Swin-UNet) is Keras' operation on PyTorch tensors.

    KERAS_BACKEND=torch python benchmarks/torch_twin.py [NAME ...]

compares each twin with its network at a small size, after moving the statistics and biases away
from 0, and prints the largest difference beside the largest output.
"""

import sys
from collections.abc import Callable
from typing import Any

import keras
import torch
from torch import nn
from torch.nn import functional as F

Call = Callable[..., torch.Tensor]


def first(x: torch.Tensor) -> torch.Tensor:
    """(N, ..., C) -> (N, C, ...), a view."""
    return x.movedim(-1, 1)


def last(x: torch.Tensor) -> torch.Tensor:
    """(N, C, ...) -> (N, ..., C), a view."""
    return x.movedim(1, -1)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Voxels before and after, as TensorFlow's "same" adds them."""
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


class Place(int):
    """Where a step finds a tensor."""


def _place(value: Any) -> Any:
    return Place(id(value)) if isinstance(value, keras.KerasTensor) else value


def _filled(arguments: Any, found: dict[int, torch.Tensor]) -> Any:
    """The arguments with tensors in their places, in plain Python that torch.compile can follow."""
    if isinstance(arguments, Place):
        return found[arguments]
    if isinstance(arguments, (list, tuple)):
        return type(arguments)(_filled(argument, found) for argument in arguments)
    return arguments


class Twin(nn.Module):
    """A Keras network in PyTorch; (N, ..., C) -> a list of (N, ..., R)."""

    def __init__(self, network: keras.Model) -> None:
        super().__init__()
        self.weights = nn.ParameterDict()
        self.statistics: dict[str, torch.Tensor] = {}
        self.inputs = [id(x) for x in network.inputs]
        self.outputs = [id(x) for x in network.outputs]
        self.steps: list[tuple[Call, Any, Any, int]] = []
        calls: dict[str, Call] = {}
        for depth in sorted(network._nodes_by_depth, reverse=True):
            for node in network._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                operation = node.operation
                if operation.name not in calls:
                    calls[operation.name] = self._call(operation)
                (target,) = [id(x) for x in node.output_tensors]
                arguments = node.arguments.args, node.arguments.kwargs
                places = keras.tree.map_structure(_place, arguments)
                self.steps.append((calls[operation.name], *places, target))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = {self.inputs[0]: x}
        for call, args, kwargs, target in self.steps:
            named = {name: _filled(kwargs[name], found) for name in kwargs if name != "training"}
            found[target] = call(*_filled(args, found), **named)
        return [found[output] for output in self.outputs]

    def _call(self, operation: Any) -> Call:
        for kind in type(operation).__mro__:
            if kind.__name__ in NATIVE:
                return NATIVE[kind.__name__](self, operation)
        for number, variable in enumerate(getattr(operation, "trainable_weights", ())):
            self.weights[f"{operation.name}_{number}".replace(".", "_")] = variable.value
        return operation

    def weight(self, layer: keras.Layer, name: str, *order: int) -> torch.Tensor | None:
        """A trainable weight of a layer, its axes in another order."""
        variable = getattr(layer, name, None)
        if variable is None:
            return None
        value = variable.value.detach().clone()
        key = f"{layer.name}_{name}".replace(".", "_")
        if order:
            value = value.permute(order)
            formats = {4: torch.channels_last, 5: torch.channels_last_3d}
            value = value.contiguous(memory_format=formats[len(order)])
        self.weights[key] = nn.Parameter(value)
        return self.weights[key]


def _activated(call: Call, layer: keras.Layer) -> Call:
    name = keras.activations.serialize(layer.activation)
    function = ACTIVATIONS[name]
    return call if function is None else lambda x: function(call(x))


def convolution(twin: Twin, layer: keras.Layer) -> Call:
    rank = layer.rank
    axes = range(rank)
    kernel = twin.weight(layer, "kernel", rank + 1, rank, *axes)
    bias = twin.weight(layer, "bias")
    function = {2: F.conv2d, 3: F.conv3d}[rank]
    strides, dilation = layer.strides, layer.dilation_rate

    def call(x: torch.Tensor) -> torch.Tensor:
        x, padding = _padded(first(x), layer.padding, layer.kernel_size, strides, dilation)
        return last(function(x, kernel, bias, strides, padding, dilation, layer.groups))

    return _activated(call, layer)


def _padded(x, mode, sizes, strides, dilation) -> tuple[torch.Tensor, list[int]]:
    """The input, and the padding that the convolution itself adds."""
    if mode == "valid":
        return x, [0] * len(sizes)
    both = [*map(same_padding, x.shape[2:], sizes, strides, dilation)]
    if all(before == after for before, after in both):
        return x, [before for before, _ in both]
    return F.pad(x, [side for pair in reversed(both) for side in pair]), [0] * len(sizes)


def depthwise(twin: Twin, layer: keras.Layer) -> Call:
    kernel = twin.weight(layer, "kernel", 2, 3, 0, 1)
    bias = twin.weight(layer, "bias")

    def call(x: torch.Tensor) -> torch.Tensor:
        return last(_depthwise(first(x), kernel, bias, layer))

    return _activated(call, layer)


def _depthwise(x, kernel, bias, layer) -> torch.Tensor:
    x, padding = _padded(x, layer.padding, layer.kernel_size, layer.strides, layer.dilation_rate)
    shape = (kernel.shape[0] * kernel.shape[1], 1, *kernel.shape[2:])
    options = (layer.strides, padding, layer.dilation_rate, kernel.shape[0])
    return F.conv2d(x, kernel.reshape(shape), bias, *options)


def separable(twin: Twin, layer: keras.Layer) -> Call:
    depth = twin.weight(layer, "depthwise_kernel", 2, 3, 0, 1)
    point = twin.weight(layer, "pointwise_kernel", 3, 2, 0, 1)
    bias = twin.weight(layer, "bias")

    def call(x: torch.Tensor) -> torch.Tensor:
        return last(F.conv2d(_depthwise(first(x), depth, None, layer), point, bias))

    return _activated(call, layer)


def transposed(twin: Twin, layer: keras.Layer) -> Call:
    rank = layer.rank
    kernel = twin.weight(layer, "kernel", rank + 1, rank, *range(rank))
    bias = twin.weight(layer, "bias")
    function = {2: F.conv_transpose2d, 3: F.conv_transpose3d}[rank]

    def call(x: torch.Tensor) -> torch.Tensor:
        wanted = [size * stride for size, stride in zip(x.shape[1:-1], layer.strides)]
        y = function(first(x), kernel, bias, layer.strides)
        if layer.padding == "same":
            for axis, size in enumerate(wanted, 2):
                y = y.narrow(axis, (y.shape[axis] - size) // 2, size)
        return last(y)

    return _activated(call, layer)


def dense(twin: Twin, layer: keras.Layer) -> Call:
    kernel = twin.weight(layer, "kernel")
    bias = twin.weight(layer, "bias")
    return _activated(lambda x: F.linear(x, kernel.T, bias), layer)


def batch_norm(twin: Twin, layer: keras.Layer) -> Call:
    scale, shift = twin.weight(layer, "gamma"), twin.weight(layer, "beta")
    mean, variance = (
        twin.statistics.setdefault(f"{layer.name}_{name}", moving.value.detach().clone())
        for name, moving in (("mean", layer.moving_mean), ("variance", layer.moving_variance))
    )
    rest = (1 - layer.momentum, layer.epsilon)

    def call(x: torch.Tensor) -> torch.Tensor:
        return last(F.batch_norm(first(x), mean, variance, scale, shift, twin.training, *rest))

    return call


def group_norm(twin: Twin, layer: keras.Layer) -> Call:
    scale, shift = twin.weight(layer, "gamma"), twin.weight(layer, "beta")

    def call(x: torch.Tensor) -> torch.Tensor:
        if layer.groups == x.shape[-1]:
            return last(F.instance_norm(first(x), weight=scale, bias=shift, eps=layer.epsilon))
        return last(F.group_norm(first(x), layer.groups, scale, shift, layer.epsilon))

    return call


def layer_norm(twin: Twin, layer: keras.Layer) -> Call:
    scale, shift = twin.weight(layer, "gamma"), twin.weight(layer, "beta")
    return lambda x: F.layer_norm(x, x.shape[-1:], scale, shift, layer.epsilon)


def max_pool(twin: Twin, layer: keras.Layer) -> Call:
    function = {2: F.max_pool2d, 3: F.max_pool3d}[len(layer.pool_size)]

    def call(x: torch.Tensor) -> torch.Tensor:
        x = first(x)
        if layer.padding == "same":
            ones = [1] * len(layer.pool_size)
            both = [*map(same_padding, x.shape[2:], layer.pool_size, layer.strides, ones)]
            x = F.pad(x, [side for pair in reversed(both) for side in pair], value=-torch.inf)
        return last(function(x, layer.pool_size, layer.strides))

    return call


def average_pool(twin: Twin, layer: keras.Layer) -> Call | keras.Layer:
    function = {2: F.avg_pool2d, 3: F.avg_pool3d}[len(layer.pool_size)]
    if layer.padding == "same":
        return layer
    return lambda x: last(function(first(x), layer.pool_size, layer.strides))


def over_space(reduce: Callable) -> Callable[[Twin, keras.Layer], Call]:
    def make(twin: Twin, layer: keras.Layer) -> Call:
        return lambda x: reduce(x, tuple(range(1, x.ndim - 1)), keepdim=layer.keepdims)

    return make


def upsampling(twin: Twin, layer: keras.Layer) -> Call:
    factors = tuple(map(float, layer.size))
    mode = getattr(layer, "interpolation", "nearest")
    return lambda x: last(F.interpolate(first(x), scale_factor=factors, mode=mode))


def dropout(twin: Twin, layer: keras.Layer) -> Call:
    return lambda x: F.dropout(x, layer.rate, twin.training)


def spatial_dropout(twin: Twin, layer: keras.Layer) -> Call:
    return lambda x: last(F.dropout2d(first(x), layer.rate, twin.training))


def activation(twin: Twin, layer: keras.Layer) -> Call:
    return _activated(lambda x: x, layer)


def leaky(twin: Twin, layer: keras.Layer) -> Call:
    return lambda x: F.leaky_relu(x, layer.negative_slope)


def padding(twin: Twin, layer: keras.Layer) -> Call:
    sides = [0, 0, *(side for pair in reversed(layer.padding) for side in pair)]
    return lambda x: F.pad(x, sides)


def added(tensors: list[torch.Tensor]) -> torch.Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def multiplied(*tensors: Any) -> torch.Tensor:
    both = tensors[0] if len(tensors) == 1 else tensors
    product = both[0]
    for tensor in both[1:]:
        product = product * tensor
    return product


ACTIVATIONS = {
    "linear": None,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: torch.softmax(x, -1),
}
NATIVE: dict[str, Callable[[Twin, Any], Call]] = {
    "DepthwiseConv2D": depthwise,
    "SeparableConv2D": separable,
    "Conv2DTranspose": transposed,
    "Conv3DTranspose": transposed,
    "Conv2D": convolution,
    "Conv3D": convolution,
    "Dense": dense,
    "BatchNormalization": batch_norm,
    "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
    "MaxPooling2D": max_pool,
    "MaxPooling3D": max_pool,
    "AveragePooling2D": average_pool,
    "GlobalAveragePooling2D": over_space(torch.mean),
    "GlobalMaxPooling2D": over_space(torch.amax),
    "UpSampling2D": upsampling,
    "UpSampling3D": upsampling,
    "Dropout": dropout,
    "SpatialDropout2D": spatial_dropout,
    "ReLU": lambda twin, layer: F.relu,
    "LeakyReLU": leaky,
    "Activation": activation,
    "ZeroPadding2D": padding,
    "ZeroPadding3D": padding,
    "Concatenate": lambda twin, operation: lambda tensors: torch.cat(tensors, operation.axis),
    "Add": lambda twin, operation: lambda *x: added(x[0] if len(x) == 1 else list(x)),
    "Multiply": lambda twin, operation: multiplied,
    "Subtract": lambda twin, operation: torch.sub,
    "TrueDivide": lambda twin, operation: torch.true_divide,
    "Matmul": lambda twin, operation: torch.matmul,
    "Erf": lambda twin, operation: torch.erf,
    "GetItem": lambda twin, operation: lambda x, key: x[key],
    "Max": lambda twin, operation: lambda x: x.amax(operation.axis, operation.keepdims),
    "Mean": lambda twin, operation: lambda x: x.mean(operation.axis, operation.keepdims),
    "Sum": lambda twin, operation: lambda x: x.sum(operation.axis, operation.keepdims),
    "Swapaxes": lambda twin, operation: lambda x: x.swapaxes(operation.axis1, operation.axis2),
    "Transpose": lambda twin, operation: lambda x: x.permute(operation.axes),
}
"""By the name of a layer's class or of a class above it, the more special ones first."""


def difference(name: str) -> tuple[float, float]:
    """The largest difference between the outputs of network and twin, and the largest output."""
    import numpy as np
    from networks import sizes

    from keras_medseg import registry

    keras.utils.set_random_seed(0)
    shape = sizes([name], quick=True)[name]
    network = registry.build(name, input_shape=shape)
    generator = np.random.default_rng(0)
    for variable in network.variables:
        if variable.path.endswith(("beta", "bias", "moving_mean")):
            variable.assign(0.1 * generator.standard_normal(variable.shape))
        if variable.path.endswith("moving_variance"):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    twin = Twin(network).eval()
    x = torch.tensor(generator.standard_normal((1, *shape), "float32"))
    with torch.inference_mode():
        expected = keras.tree.flatten(network(x, training=False))
        found = twin(x)
    apart = max(float((y - z).abs().max()) for y, z in zip(found, expected, strict=True))
    return apart, max(float(y.abs().max()) for y in expected)


if __name__ == "__main__":
    from keras_medseg import registry

    for chosen in sys.argv[1:] or registry.list_models():
        apart, largest = difference(chosen)
        print(f"{chosen:26} {apart:.1e} of {largest:.1e}", flush=True)
