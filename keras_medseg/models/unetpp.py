"""U-Net++ of Zhou, Siddiquee, Tajbakhsh, Liang 2018 (DLMIA, arXiv 1807.10165), figure 1.

The network of the authors' Keras code. The inputs of node X(i, j) on level i are the node below it,
through a transposed convolution, and all earlier nodes of its level. No norms; Dropout and an L2
penalty instead. The article prints 9.04 M parameters, which is the count with one input channel and
one head.

A comparison under one training method leaves out what belongs to that of the authors:

    build("unetpp", dropout=0.0, l2=0.0, norm="batch", initializer="framework", framework="pytorch")
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.errors import require_choice
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv
from keras_medseg.layers.dropout import Dropout
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.layers.resampling import require_multiple, transposed_conv
from keras_medseg.registry import Card, register

LEVELS = 5
NORMS = ("none", "batch")
INITIALIZERS = ("he_normal", "framework")


@register(
    Card(
        name="unetpp",
        paper="zhou2018",
        title="U-Net++, nested U-Nets with dense skips",
        input_shape=(96, 96, 1),
        parameters=9_041_601,
        dimensions=2,
        output="sigmoid",
        source="MrGiovanni/UNetPlusPlus, keras/segmentation_models, Nest_Net",
        parity="count",
        compared_in=("csam_knee",),
        notes="Follows the authors' Keras code: no norms; Dropout and an L2 penalty instead. With "
        "one input channel and one head it has the 9.04 M parameters of the article.",
    )
)
def unetpp(
    input_shape: tuple[int | None, int | None, int] = (96, 96, 1),
    classes: int = 1,
    deep_supervision: bool = False,
    filters: int = 32,
    dropout: float = 0.5,
    l2: float = 1e-4,
    norm: str = "none",
    initializer: str = "he_normal",
    activation: str = "sigmoid",
    framework: str | FrameworkDefaults = "keras_2_2",
) -> keras.Model:
    """Probabilities (N, H, W, classes) in float32 from images (N, H, W, C).

    Args:
        input_shape: (H, W, C); H and W divisible by 16, or None for any such size.
        classes: output channels.
        deep_supervision: whether X(0, 1) to X(0, 4) have a head each; then there are four outputs.
        filters: channels of the first level; 32 grow to 512 at the bottom.
        dropout: share of the values set to zero after every convolution of a node.
        l2: weight of the penalty on the kernels of nodes and heads; 0 for none.
        norm: "none", or "batch" for a batch norm between each convolution of a node and its ReLU.
        initializer: of the kernels of nodes and heads: "he_normal" as the authors' code has it, or
            that of the "framework".
        activation: of the outputs; "sigmoid", "softmax", or "linear" for logits.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: H or W not divisible by 16 (the message gives the next valid shape), or an
            unknown choice.
    """
    require_multiple(input_shape, 2 ** (LEVELS - 1))
    require_choice("norm", norm, NORMS)
    require_choice("initializer", initializer, INITIALIZERS)
    framework = frameworks.get(framework)
    kernels: dict[str, Any] = (
        {} if initializer == "framework" else {"kernel_initializer": initializer}
    )
    if l2:
        kernels["kernel_regularizer"] = keras.regularizers.L2(l2)
    regularized = partial(conv, framework=framework, **kernels)
    normed = partial(batch_norm, framework=framework) if norm == "batch" else None
    node = partial(_node, convolve=regularized, normed=normed, dropout=dropout)
    image = keras.Input(input_shape, name="Input")
    nodes: dict[tuple[int, int], keras.KerasTensor] = {}
    for level in range(LEVELS):
        above = layers.MaxPooling2D(2, name=f"Down{level}")(nodes[level - 1, 0]) if level else image
        nodes[level, 0] = node(above, 2**level * filters, name=f"X{level}0")
    for column in range(1, LEVELS):
        for level in range(LEVELS - column):
            name, width = f"X{level}{column}", 2**level * filters
            below = nodes[level + 1, column - 1]
            below = transposed_conv(below, width, framework=framework, name=f"{name}_up")
            earlier = [nodes[level, before] for before in range(column)]
            joined = layers.Concatenate(name=f"{name}_concat")([below, *earlier])
            nodes[level, column] = node(joined, width, name=name)
    columns = range(1 if deep_supervision else LEVELS - 1, LEVELS)
    head = partial(regularized, filters=classes, kernel_size=1, activation=activation)
    outputs = [head(nodes[0, j], name=f"Output{j}", dtype="float32") for j in columns]
    return keras.Model(image, outputs if deep_supervision else outputs[0], name="unetpp")


def _node(
    x: keras.KerasTensor,
    filters: int,
    *,
    convolve: Callable[..., keras.KerasTensor],
    normed: Callable[..., keras.KerasTensor] | None,
    dropout: float,
    name: str,
) -> keras.KerasTensor:
    """3x3 convolution, norm if any, ReLU, Dropout, twice; (N, H, W, C) -> (N, H, W, filters)."""
    for part in ("conv1", "conv2"):
        if normed is None:
            x = convolve(x, filters, 3, name=f"{name}_{part}", activation="relu")
        else:
            x = normed(convolve(x, filters, 3, name=f"{name}_{part}"), name=f"{name}_{part}_bn")
            x = layers.ReLU(name=f"{name}_{part}_relu")(x)
        x = Dropout(dropout, name=f"{name}_{part}_dropout")(x)
    return x
