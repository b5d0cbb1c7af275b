"""FM-Net of fmnet2023: as in the authors' code, or as in the text and Figure 6.

Both are a U-Net of five levels (32 to 512 channels, 3x3x3 convolutions, instance norm, leaky ReLU
with a slope of 0.02) with a bottleneck, gates on the skips and supervised decoder stages:

                       variant="code"                      variant="paper" (V-E, Figure 6)
    block              (convolution, norm, leaky) twice    a norm "between" two convolutions
    pooling            2x2x2                               2x2x3, "by half"
    bottleneck block   two convolutions                    one: "two-layered" is two blocks
    up                 nearest, convolution, norm, leaky   transposed convolution, leaky
    gating signal      the map below, after up             the map below, before up
    concatenated       [skip, gated skip]                  [gated skip, up]
    decoder            256, 128, 64, 32                    128, 64, 32, 32
    heads              1x1x1 at 64^3 and 128^3             3x3x3 at 32^3 and 64^3

In the code, the decoder therefore sees the lower levels only through the weights of the gates: if
the last gate is constant, the deeper levels do not influence the output. Its second head reads the
same features as the main output. Without gates it concatenates [skip, up].

Where the paper is silent or contradicts itself, variant="paper" takes:

* A norm between two convolutions as convolution, norm, leaky, convolution, leaky; none in the
  bottleneck, which is not called a block.
* 2x2x3 along x, y, z, with a stride of 2; the voxel missing beyond the last one is padded.
* The "previous layer's output" as the level below, before up-sampling (Figure 6). The gate is the
  code's, and nearest neighbor doubles W_g of its signal.
* As many channels after up-sampling as the skip has. In the decoder 128, 64, 32, 32 (Figure 6),
  although the text has it mirror the encoder, as the code's does.
* Heads where Figure 6 has them. They are on "the third layer and another in the fourth layer of the
  decoder" if its five layers begin with the one at 8^3. Aligned corners, as in the code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.errors import require_choice
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers import resampling
from keras_medseg.layers.attention import attention_gate
from keras_medseg.layers.convolution import conv, conv_in_leaky
from keras_medseg.layers.interpolation import resize_aligned
from keras_medseg.layers.rematerialization import not_rematerialized, rematerialized
from keras_medseg.registry import Card, register

SLOPE = 0.02

# The original counts levels and stages from 0, and gates from the top.
ORIGINAL_NAMES = {
    **{f"Encode{n}_conv1": f"encoder_convs.{n - 1}.conv.0" for n in range(1, 6)},
    **{f"Encode{n}_conv2": f"encoder_convs.{n - 1}.conv.3" for n in range(1, 6)},
    **{f"Bottleneck{n}_conv1": f"bottleneck_convs.{n - 1}.conv.0" for n in range(1, 5)},
    **{f"Bottleneck{n}_conv2": f"bottleneck_convs.{n - 1}.conv.3" for n in range(1, 5)},
    **{f"Up{n}_conv": f"up_layers.{n - 1}.up.1" for n in range(1, 5)},
    **{f"Decode{n}_conv1": f"decoder_convs.{n - 1}.conv.0" for n in range(1, 5)},
    **{f"Decode{n}_conv2": f"decoder_convs.{n - 1}.conv.3" for n in range(1, 5)},
    **{
        f"Gate{n}_{ours}{suffix}": f"attention_blocks.{4 - n}.{theirs}.{index}"
        for n in range(1, 5)
        for ours, theirs in (("g", "W_g"), ("x", "W_x"), ("psi", "psi"))
        for index, suffix in enumerate(("", "_bn"))
    },
    **{f"Supervision{n}_conv": f"dsv_layers.{n - 1}" for n in range(1, 4)},
    "Output_conv": "Conv_1x1",
}


def _convolutions(
    x: keras.KerasTensor,
    filters: int,
    *,
    count: int,
    last_norm: bool,
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """`count` times 3x3x3 convolution, instance norm (the last one if `last_norm`), leaky ReLU.

    (N, X, Y, Z, C) -> (N, X, Y, Z, filters), likewise (N, H, W, C).
    """
    for number in range(1, count + 1):
        part = f"{name}_conv{number}"
        if last_norm or number < count:
            x = conv_in_leaky(x, filters, 3, slope=SLOPE, framework=framework, name=part)
        else:
            x = conv(x, filters, 3, framework=framework, name=part)
            x = layers.LeakyReLU(SLOPE, name=f"{part}_leaky")(x)
    return x


def _up_conv(
    x: keras.KerasTensor, filters: int, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """Up-sampling of the code: nearest neighbor, then convolution, instance norm, leaky ReLU.

    (N, X, Y, Z, C) -> (N, 2X, 2Y, 2Z, filters), likewise (N, H, W, C).
    """
    x = resampling.up(x, "nearest", framework=framework, name=name)
    return conv_in_leaky(x, filters, 3, slope=SLOPE, framework=framework, name=f"{name}_conv")


def _up_transposed(
    x: keras.KerasTensor, filters: int, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """Up-sampling of the paper: transposed 3x3x3 convolution, leaky ReLU.

    (N, X, Y, Z, C) -> (N, 2X, 2Y, 2Z, filters), likewise (N, H, W, C).
    """
    name = f"{name}_conv"
    x = resampling.transposed_conv(x, filters, framework=framework, name=name, kernel_size=3)
    return layers.LeakyReLU(SLOPE, name=f"{name}_leaky")(x)


@dataclass(frozen=True)
class _Variant:
    """Where code and paper differ.

    Attributes:
        last_norm: whether a norm follows the last convolution of a block.
        pool: size of the max pooling along x, y, z.
        bottleneck_convs: convolutions of one bottleneck block.
        up: doubles the resolution.
        coarse_gate: whether the gating signal is the input of `up` rather than its output. The
            gated skip then takes the place of the skip, otherwise that of the up-sampled map.
        decoder: width of each stage, in units of the first level's.
        head_size: kernel size of the supervision heads.
        head_stages: decoder stages of three heads; two heads sit on the last two of them.
    """

    last_norm: bool
    pool: tuple[int, int, int]
    bottleneck_convs: int
    up: Callable[..., keras.KerasTensor]
    coarse_gate: bool
    decoder: tuple[int, int, int, int]
    head_size: int
    head_stages: tuple[int, int, int]


VARIANTS = {
    "code": _Variant(
        last_norm=True,
        pool=(2, 2, 2),
        bottleneck_convs=2,
        up=_up_conv,
        coarse_gate=False,
        decoder=(8, 4, 2, 1),
        head_size=1,
        head_stages=(2, 3, 4),
    ),
    "paper": _Variant(
        last_norm=False,
        pool=(2, 2, 3),
        bottleneck_convs=1,
        up=_up_transposed,
        coarse_gate=True,
        decoder=(4, 2, 1, 1),
        head_size=3,
        head_stages=(1, 2, 3),
    ),
}


def _encode(
    x: keras.KerasTensor,
    filters: int,
    bottleneck_blocks: int,
    variant: _Variant,
    block: Callable[..., keras.KerasTensor],
) -> list[keras.KerasTensor]:
    """The maps of all five levels; the last one is the output of the bottleneck.

    (N, X, Y, Z, C) -> (N, X, Y, Z, filters) ... (N, X / 16, Y / 16, Z / 16, 16 * filters).
    """
    maps = []
    for level in range(1, 6):
        if level > 1:
            size = variant.pool[: len(x.shape) - 2]
            x = resampling.max_pool(x, size, padding="same", name=f"Pool{level - 1}")
        x = block(x, 2 ** (level - 1) * filters, count=2, name=f"Encode{level}")
        maps.append(x)
    for number in range(1, bottleneck_blocks + 1):
        name = f"Bottleneck{number}"
        maps[-1] = block(maps[-1], 16 * filters, count=variant.bottleneck_convs, name=name)
    return maps


def _join(
    x: keras.KerasTensor,
    skip: keras.KerasTensor,
    stage: int,
    *,
    attention: bool,
    variant: _Variant,
    up: Callable[..., keras.KerasTensor],
    framework: FrameworkDefaults,
) -> keras.KerasTensor:
    """Input of a decoder stage: two of the skip, the gated skip and the up-sampled map.

    (N, X, Y, Z, C) and a skip (N, 2X, 2Y, 2Z, D) -> (N, 2X, 2Y, 2Z, 2D).
    """
    width = skip.shape[-1]
    upsampled = up(x, width, name=f"Up{stage}")
    pair = [skip, upsampled]
    if attention:
        gated = attention_gate(
            skip,
            x if variant.coarse_gate else upsampled,
            max(1, width // 2),
            framework=framework,
            name=f"Gate{stage}",
            coarse=variant.coarse_gate,
        )
        pair = [gated, upsampled] if variant.coarse_gate else [skip, gated]
    return layers.Concatenate(name=f"Concat{stage}")(pair)


def _output(
    x: keras.KerasTensor,
    classes: int,
    kernel_size: int,
    size: tuple[int | None, ...],
    activation: str,
    *,
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """Convolution, resized to `size` where the map is smaller, activation; (N, *size, classes)."""
    x = conv(x, classes, kernel_size, framework=framework, name=f"{name}_conv")
    if x.shape[1:-1] != size:
        # `_checked_shape` has refused open sizes for heads.
        known = cast(tuple[int, ...], size)
        x = resize_aligned(x, known, name=f"{name}_resize", dtype="float32")
    return layers.Activation(activation, dtype="float32", name=name)(x)


@register(
    Card(
        name="fmnet",
        paper="fmnet2023",
        title="attention U-Net with bottleneck and deep supervision, in 3-D or 2-D",
        input_shape=(128, 128, 128, 4),
        parameters=54_289_101,
        moving_statistics=968,
        dimensions=3,
        output="sigmoid",
        source="fuat-arslan/MRI-Segmentation, AttU_Net, U_Net; variant='paper': text and Figure 6",
        parity="golden",
        compared_in=("fmnet2023",),
        notes="Outputs: main, then the heads from the coarsest on; supervision_heads=0: only main. "
        "Follows the code, which gave the paper's numbers; variant='paper' follows V-E and "
        "Figure 6, which differ from it in blocks, pooling, gates and heads, and fills their "
        "gaps.",
    )
)
def fmnet(
    input_shape: tuple[int | None, ...] | None = None,
    classes: int = 3,
    variant: str = "code",
    dimensions: int = 3,
    attention: bool = True,
    bottleneck_blocks: int = 2,
    supervision_heads: int = 2,
    filters: int = 32,
    activation: str = "sigmoid",
    checkpointing: bool = False,
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Probabilities in float32 from patches (N, X, Y, Z, C) or slices (N, H, W, C).

    The outputs are a list of (N, X, Y, Z, classes): the main one, then those of the heads, the
    coarsest first. Without heads the output is the main one alone; the other layers are the same.

    Args:
        input_shape: (X, Y, Z, C) or (H, W, C), sizes divisible by 16; without heads a size may be
            None for any such size. By default 128 along every axis and four channels.
        classes: output channels; the paper's three are the regions WT, TC, ET.
        variant: "code", which gave the paper's numbers, or "paper", as its text says.
        dimensions: 3 for patches, 2 for slices.
        attention: whether gates weight the skips.
        bottleneck_blocks: 0 to 4, below the encoder's fifth level.
        supervision_heads: 0 to 3.
        filters: channels of the first level; the paper's 32 grow to 512 at the bottom.
        activation: of the outputs; "linear" for the original's logits.
        checkpointing: whether a training step computes each block twice to save memory.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: a size that does not fit (the message gives the next valid shape), or an option
            out of its range.
    """
    _check_options(variant, dimensions, bottleneck_blocks, supervision_heads)
    shape = _checked_shape(input_shape, dimensions, supervision_heads)
    chosen, framework = VARIANTS[variant], frameworks.get(framework)
    wrap = rematerialized if checkpointing else not_rematerialized
    block = partial(wrap, _convolutions, last_norm=chosen.last_norm, framework=framework)
    up = partial(wrap, chosen.up, framework=framework)
    join = partial(_join, attention=attention, variant=chosen, up=up, framework=framework)
    head = partial(
        _output, classes=classes, size=shape[:-1], activation=activation, framework=framework
    )

    image = keras.Input(shape, name="Input")
    *skips, x = _encode(image, filters, bottleneck_blocks, chosen, block)
    stages = []
    for stage, width in enumerate(chosen.decoder, 1):
        x = join(x, skips.pop(), stage)
        x = block(x, width * filters, count=2, name=f"Decode{stage}")
        stages.append(x)
    outputs = [head(x, kernel_size=1, name="Output")]
    for number, stage in enumerate(chosen.head_stages[3 - supervision_heads :], 1):
        name = f"Supervision{number}"
        outputs.append(head(stages[stage - 1], kernel_size=chosen.head_size, name=name))
    return keras.Model(image, outputs if supervision_heads else outputs[0], name="fmnet")


def _check_options(variant: str, dimensions: int, blocks: int, heads: int) -> None:
    require_choice("variant", variant, VARIANTS)
    for what, value, least, most in (
        ("dimensions", dimensions, 2, 3),
        ("bottleneck_blocks", blocks, 0, 4),
        ("supervision_heads", heads, 0, 3),
    ):
        if value not in range(least, most + 1):
            raise ValueError(f"{what}: found {value!r}, expected {least} to {most}.")


def _checked_shape(
    input_shape: tuple[int | None, ...] | None, dimensions: int, heads: int
) -> tuple[int | None, ...]:
    shape = tuple(input_shape or (*(128,) * dimensions, 4))
    resampling.require_more_than_one(shape, 16, dimensions=dimensions)
    if heads and None in shape:
        raise ValueError(
            f"input_shape: found {shape}, expected a size for every axis, to which the heads are "
            f"resized. Give the sizes, or supervision_heads=0."
        )
    return shape
