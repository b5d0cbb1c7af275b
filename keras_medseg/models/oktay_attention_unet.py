"""Attention U-Net of Oktay et al. 2018 (MIDL, arXiv 1804.03999), as in its authors' code.

A 3-D U-Net whose skips pass through gates that work at half resolution, equations (1) and (2):

    weights = up(sigmoid(psi(relu(theta(skip) + phi(signal)))))     theta: 2x2x2, stride 2, no bias

Each of the four decoder maps has a head; the heads are resized and combined for the output. The
gating signal is the map one level below: for the lowest gates a 1x1x1 convolution of the bottom
map, for the others the decoder's map. `gates="multi"` has two parallel gates on each of levels 4, 3
and 2; level 1 has none. `attention_unet` is the 2-D form that most comparisons retrain; it has
other gates.

From the code where the article is silent: kernels from N(0, 2 / fan-in); convolution and batch norm
in a gate, then convolution, batch norm and ReLU after it. Departure: the code draws the scales of
batch norm from N(1, 0.02); here they start at 1.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.errors import require_choice
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.attention import grid_attention_gate
from keras_medseg.layers.convolution import conv, conv_bn_relu, output_conv
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
        "convolutions and batch norm in and after a gate. But the scales of batch norm start at 1; "
        "the code draws them from N(1, 0.02). The golden was made with today's PyTorch, which does "
        "not align corners.",
    )
)
def oktay_attention_unet(
    input_shape: tuple[int, int, int, int] = (160, 160, 96, 1),
    classes: int = 4,
    gates: str = "multi",
    filters: int = 16,
    align_corners: bool = False,
    activation: str = "linear",
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Logits (N, X, Y, Z, classes) in float32 from volumes (N, X, Y, Z, C).

    Args:
        input_shape: (X, Y, Z, C); X, Y and Z divisible by 16.
        classes: output channels, including the background's.
        gates: on each gated skip; "multi" (two), "single", or "none" for the article's U-Net.
        filters: channels of the first level; 16 grow to 256 at the bottom.
        align_corners: of the trilinear resizing. PyTorch aligned them before version 0.4, which
            appeared in the month of the article; the code names no version.
        activation: of the output; "linear" for the original's logits, "softmax", or "sigmoid".
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: a size not divisible by 16 (the message gives the next valid shape), or an
            unknown choice.
    """
    require_multiple(input_shape, 16, dimensions=3)
    if None in input_shape:
        raise ValueError(f"input_shape: found {input_shape}, expected a size for every axis.")
    require_choice("gates", gates, GATES)
    framework = frameworks.get(framework)
    framework = replace(he_normal(framework, "fan_in"), bias_initializer=framework.bias_initializer)
    upsample = partial(_upsample, method="aligned_bilinear" if align_corners else "bilinear")
    block = partial(_block, framework=framework)

    image = keras.Input(input_shape, name="Input")
    x, skips = image, []
    for level in (1, 2, 3, 4):
        x = block(x, 2 ** (level - 1) * filters, name=f"Encode{level}")
        skips.append(x)
        x = down(x, "max_pool", framework=framework, name=f"Pool{level}")
    x = signal = block(x, 16 * filters, name="Center")
    if GATES[gates]:
        signal = conv_bn_relu(x, 16 * filters, 1, framework=framework, name="Gating")
    heads: list[keras.KerasTensor] = []
    for level in (4, 3, 2, 1):
        skip = skips[level - 1]
        if level > 1 and GATES[gates]:
            skip = _gated(skip, signal, GATES[gates], upsample, framework, f"Gate{level}")
        x = layers.Concatenate(name=f"Concat{level}")([skip, upsample(x, 2, name=f"Up{level}")])
        x = signal = block(x, skip.shape[-1], name=f"Decode{level}")
        head = conv(x, classes, 1, framework=framework, name=f"Supervision{level}")
        heads.insert(0, upsample(head, 2 ** (level - 1), name=f"Supervision{level}_up"))
    x = layers.Concatenate(name="Supervision")(heads)
    x = output_conv(x, classes, activation, framework=framework)
    return keras.Model(image, x, name="oktay_attention_unet")


def _upsample(x: keras.KerasTensor, factor: int, *, method: str, name: str) -> keras.KerasTensor:
    """Trilinear; (N, X, Y, Z, C) -> (N, factor X, factor Y, factor Z, C)."""
    size = tuple(factor * length for length in x.shape[1:-1])
    return Resize(size, method, name=name)(x) if factor > 1 else x


def _block(
    x: keras.KerasTensor, filters: int, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """3x3x3 convolution, batch norm, ReLU, twice. (N, X, Y, Z, C) -> (N, X, Y, Z, filters)."""
    x = conv_bn_relu(x, filters, 3, framework=framework, name=f"{name}_conv1")
    return conv_bn_relu(x, filters, 3, framework=framework, name=f"{name}_conv2")


def _gated(
    skip: keras.KerasTensor,
    signal: keras.KerasTensor,
    count: int,
    upsample: Callable[..., keras.KerasTensor],
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """The skip through `count` parallel gates; (N, X, Y, Z, C) -> (N, X, Y, Z, C).

    `signal` has half the resolution, as the output of theta has, so phi needs no resizing.
    """
    gate = partial(
        grid_attention_gate, skip, signal, upsample=partial(upsample, factor=2), framework=framework
    )
    gated = [gate(name=f"{name}_{number}") for number in range(1, count + 1)]
    x = layers.Concatenate(name=f"{name}_concat")(gated) if count > 1 else gated[0]
    return conv_bn_relu(x, skip.shape[-1], 1, framework=framework, name=f"{name}_combine")
