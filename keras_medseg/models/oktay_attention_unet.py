"""Attention U-Net of Oktay et al. 2018 (MIDL, arXiv 1804.03999), as its authors' code has it.

A 3-D U-Net whose skips pass gates that look at half their resolution, equations (1) and (2):

    weights = up(sigmoid(psi(relu(theta(skip) + phi(signal)))))     theta: 2x2x2, stride 2, no bias

and whose four decoder maps are all read out, resized and joined for the output. The signal of a
gate is the map one level below: at the bottom a 1x1x1 convolution of it, above it the decoder's.
`gates="multi"` has two gates side by side on each of levels 4, 3 and 2; level 1 has none.
`attention_unet` is the 2-D form that most comparisons retrain; its gates are others.

From the code where the article is silent: kernels from N(0, 2 / fan-in), and a gated skip passes
convolution and norm in the gate, then convolution, norm and ReLU behind it. Departure: the code
draws the norms' scales from N(1, 0.02); here they start at 1.
"""

from dataclasses import replace
from functools import partial

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.errors import require_choice
from keras_medseg.layers.convolution import conv, conv_bn_relu
from keras_medseg.layers.initialization import he_normal
from keras_medseg.layers.interpolation import Resize
from keras_medseg.layers.resampling import down, require_multiple
from keras_medseg.registry import Card, register

GATES = {"multi": 2, "single": 1, "none": 0}
ORIGINAL_NAMES = {
    **{f"Encode{{n}}_conv{i}": f"conv{{n}}.conv{i}.0" for i in (1, 2)},
    **{f"Encode{{n}}_conv{i}_bn": f"conv{{n}}.conv{i}.1" for i in (1, 2)},
    **{f"Center_conv{i}": f"center.conv{i}.0" for i in (1, 2)},
    **{f"Center_conv{i}_bn": f"center.conv{i}.1" for i in (1, 2)},
    "Gating": "gating.conv1.0",
    "Gating_bn": "gating.conv1.1",
    **{
        f"Gate{{n}}_{{i}}_{part}": f"attentionblock{{n}}.gate_block_{{i}}.{part}"
        for part in ("theta", "phi", "psi")
    },
    "Gate{n}_{i}_W": "attentionblock{n}.gate_block_{i}.W.0",
    "Gate{n}_{i}_W_bn": "attentionblock{n}.gate_block_{i}.W.1",
    "Gate{n}_combine": "attentionblock{n}.combine_gates.0",
    "Gate{n}_combine_bn": "attentionblock{n}.combine_gates.1",
    **{f"Decode{{n}}_conv{i}": f"up_concat{{n}}.conv.conv{i}.0" for i in (1, 2)},
    **{f"Decode{{n}}_conv{i}_bn": f"up_concat{{n}}.conv.conv{i}.1" for i in (1, 2)},
    "Supervision1": "dsv1",
    **{f"Supervision{n}": f"dsv{n}.dsv.0" for n in (2, 3, 4)},
    "Output": "final",
}


@register(
    Card(
        name="oktay_attention_unet",
        paper="oktay2018",
        title="3-D U-Net with grid attention gates and deep supervision",
        input_shape=(160, 160, 96, 1),
        parameters=6_478_122,
        moving_statistics=4_800,
        dimensions=3,
        output="logits",
        source="ozan-oktay/Attention-Gated-Networks, unet_CT_multi_att_dsv_3D",
        parity="golden",
        notes="Follows the code where the article is silent: kernels from N(0, 2 / fan-in), and "
        "convolutions and norms in a gate and behind it. The norms' scales start at 1, though; the "
        "code draws them from N(1, 0.02). The golden was made with today's PyTorch, which does not "
        "align corners.",
    )
)
def oktay_attention_unet(
    input_shape: tuple[int, int, int, int] = (160, 160, 96, 1),
    classes: int = 4,
    gates: str = "multi",
    filters: int = 16,
    align_corners: bool = False,
    activation: str = "linear",
    stack: str | frameworks.Stack = "pytorch",
) -> keras.Model:
    """Logits (N, X, Y, Z, classes) in float32 from volumes (N, X, Y, Z, C).

    Args:
        input_shape: (X, Y, Z, C); X, Y and Z divisible by 16.
        classes: output channels, the background's included.
        gates: on each gated skip; "multi" (two), "single", or "none" for the article's U-Net.
        filters: channels of the first level; 16 grow to 256 at the bottom.
        align_corners: of the trilinear resizing. PyTorch did before version 0.4, of the month of
            the article, and the code names no version.
        activation: of the output; "linear" for the original's logits, "softmax", or "sigmoid".
        stack: name of the framework whose silent defaults apply, or a Stack.

    Raises:
        ValueError: a size not divisible by 16 (the message gives the next valid shape), or an
            unknown choice.
    """
    require_multiple(input_shape, 16, dimensions=3)
    if None in input_shape:
        raise ValueError(f"input_shape: found {input_shape}, expected a size for every axis.")
    require_choice("gates", gates, GATES)
    stack = frameworks.get(stack)
    stack = replace(he_normal(stack, "fan_in"), bias_initializer=stack.bias_initializer)
    enlarge = partial(_enlarge, method="aligned_bilinear" if align_corners else "bilinear")

    image = keras.Input(input_shape, name="Input")
    x, skips = image, []
    for level in (1, 2, 3, 4):
        x = _block(x, 2 ** (level - 1) * filters, stack=stack, name=f"Encode{level}")
        skips.append(x)
        x = down(x, "max_pool", stack=stack, name=f"Pool{level}")
    x = _block(x, 16 * filters, stack=stack, name="Center")
    signal = conv_bn_relu(x, 16 * filters, 1, stack=stack, name="Gating") if GATES[gates] else x
    heads = []
    for level in (4, 3, 2, 1):
        skip = skips[level - 1]
        if level > 1 and GATES[gates]:
            skip = _gated(skip, signal, GATES[gates], enlarge, stack=stack, name=f"Gate{level}")
        x = layers.Concatenate(name=f"Concat{level}")([skip, enlarge(x, 2, name=f"Up{level}")])
        x = signal = _block(x, skip.shape[-1], stack=stack, name=f"Decode{level}")
        head = conv(x, classes, 1, stack=stack, name=f"Supervision{level}")
        heads.insert(0, enlarge(head, 2 ** (level - 1), name=f"Supervision{level}_up"))
    x = layers.Concatenate(name="Supervision")(heads)
    x = conv(x, classes, 1, stack=stack, name="Output", activation=activation, dtype="float32")
    return keras.Model(image, x, name="oktay_attention_unet")


def _enlarge(x: keras.KerasTensor, factor: int, *, method: str, name: str) -> keras.KerasTensor:
    """Trilinear; (N, X, Y, Z, C) -> (N, factor X, factor Y, factor Z, C)."""
    size = tuple(factor * length for length in x.shape[1:-1])
    return Resize(size, method, name=name)(x) if factor > 1 else x


def _block(
    x: keras.KerasTensor, filters: int, *, stack: frameworks.Stack, name: str
) -> keras.KerasTensor:
    """Twice 3x3x3 convolution, batch norm, ReLU. (N, X, Y, Z, C) -> (N, X, Y, Z, filters)."""
    x = conv_bn_relu(x, filters, 3, stack=stack, name=f"{name}_conv1")
    return conv_bn_relu(x, filters, 3, stack=stack, name=f"{name}_conv2")


def _gated(
    skip: keras.KerasTensor,
    signal: keras.KerasTensor,
    count: int,
    enlarge: partial,
    *,
    stack: frameworks.Stack,
    name: str,
) -> keras.KerasTensor:
    """The skip through `count` gates side by side; (N, X, Y, Z, C) -> (N, X, Y, Z, C).

    `signal` is of half the resolution, as theta's output is, so phi needs no resizing.
    """
    channels = skip.shape[-1]
    gated = []
    for number in range(1, count + 1):
        gate = f"{name}_{number}"
        options = dict(stack=stack, padding="valid")
        theta = conv(skip, channels, 2, strides=2, use_bias=False, name=f"{gate}_theta", **options)
        phi = conv(signal, channels, 1, name=f"{gate}_phi", **options)
        x = layers.Add(name=f"{gate}_add")([theta, phi])
        x = layers.ReLU(name=f"{gate}_relu")(x)
        x = conv(x, 1, 1, activation="sigmoid", name=f"{gate}_psi", **options)
        weights = enlarge(x, 2, name=f"{gate}_up")
        x = layers.Multiply(name=f"{gate}_scale")([skip, weights])
        gated.append(conv_bn_relu(x, channels, 1, stack=stack, name=f"{gate}_W", activation=False))
    x = layers.Concatenate(name=f"{name}_concat")(gated) if count > 1 else gated[0]
    return conv_bn_relu(x, channels, 1, stack=stack, name=f"{name}_combine")
