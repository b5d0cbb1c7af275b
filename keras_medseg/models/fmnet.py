"""FM-Net of fmnet2023: as in the authors' code, as in the text, or as in Figure 6.

All three are a U-Net of five levels (32 to 512 channels, 3x3x3 convolutions, leaky ReLU with a
slope of 0.02) with a bottleneck, gates on the skips and supervised decoder stages:

                  variant="code"              variant="paper" (V-E)      variant="figure" (Figure 6)
    block         (convolution, norm, leaky)  a norm "between" two       two convolutions, no norm
                  twice                       convolutions
    pooling       2x2x2                       "2x2x3", "by half"         as the text
    fifth level   a block, then the           a block, then the          is the bottleneck
                  bottleneck                  bottleneck
    bottleneck    blocks of two convolutions  "two-layered": two         two convolutions
                                              convolutions
    up            nearest, convolution,       transposed convolution,    as the text
                  norm, leaky                 leaky
    gating        the map below, after up     the map below, before up   as the text
    concatenated  [skip, gated skip]          [gated skip, up]           as the text
    decoder       256, 128, 64, 32            256, 128, 64, 32           128, 64, 32, 32
    last stage    two convolutions            two convolutions           one convolution
    heads         1x1x1 at 64^3 and 128^3     3x3x3 at 32^3 and 64^3     the same, then leaky ReLU

In the code, the decoder therefore sees the lower levels only through the weights of the gates: if
the last gate is constant, the deeper levels do not influence the output. Its second head reads the
same features as the main output. Without gates it concatenates [skip, up]. variant="code_with_up"
is not in the paper: the code's network with as many parameters, but [gated skip, up], which shows
what this does.

Text and figure contradict each other in four points:

* Convolutions of 512 channels: the text has five encoder blocks, the last of 512, and a
  two-layered bottleneck, four in all; in the figure the bracket "BottleNeck" is the fifth level,
  two in all. (The figure also prints 16^3 at the bottom of a crop of 128^3, which is 8^3.)
* The decoder: the text has it mirror the encoder; the figure prints 128, 64, 32, 32.
* The last stage: a block of two convolutions, or one before the 1x1x1.
* Heads: "a convolutional layer", or convolution and leaky ReLU. A sigmoid after a leaky ReLU of
  slope 0.02 hardly falls below 1/2, so these heads can hardly say no.

Where the paper is silent, both take:

* A norm between two convolutions as convolution, norm, leaky, convolution, leaky; none in the
  bottleneck, which is not called a block, and none anywhere where the figure draws none.
* "2x2x3" in the paper's own order of axes, D, H, W, of which W runs along x: 3 along x, with a
  stride of 2; the voxel missing beyond the last one is padded.
* The "previous layer's output" as the level below, before up-sampling (Figure 6). The gate is the
  code's, and nearest neighbor doubles W_g of its signal.
* As many channels after up-sampling as the skip has.
* Heads of 3x3x3, the size of all "convolution layers", at 32^3 and 64^3: the text's "third layer
  and another in the fourth layer of the decoder", if the decoder mirrors the five layers of the
  encoder and so begins with the one at 8^3. Aligned corners, as in the code.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
    norms: str,
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """`count` times 3x3x3 convolution, instance norm where `norms` has one, leaky ReLU.

    (N, X, Y, Z, C) -> (N, X, Y, Z, filters), likewise (N, H, W, C).
    """
    normalized = {"all": count, "between": count - 1, "none": 0}[norms]
    for number in range(1, count + 1):
        part = f"{name}_conv{number}"
        if number <= normalized:
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
    """Up-sampling of text and figure: transposed 3x3x3 convolution, leaky ReLU.

    (N, X, Y, Z, C) -> (N, 2X, 2Y, 2Z, filters), likewise (N, H, W, C).
    """
    name = f"{name}_conv"
    x = resampling.transposed_conv(x, filters, framework=framework, name=name, kernel_size=3)
    return layers.LeakyReLU(SLOPE, name=f"{name}_leaky")(x)


@dataclass(frozen=True)
class _Variant:
    """Where code, text and figure differ.

    Attributes:
        norms: after which convolutions of a block a norm stands: "all", "between" (all but the
            last), "none".
        pool: size of the max pooling along x, y, z.
        bottleneck_is_last_level: whether the bottleneck takes the place of the last level's block.
        bottleneck_convs: convolutions of one bottleneck block.
        up: doubles the resolution.
        coarse_gate: whether the gating signal is the input of `up` rather than its output.
        joins_up: whether the gated skip takes the place of the skip, beside the up-sampled map,
            rather than that of the up-sampled map, beside the skip.
        narrow_decoder: whether a stage is half as wide as the level that it mirrors, but not
            narrower than the first.
        last_convs: convolutions of the last decoder stage.
        head_size: kernel size of the supervision heads.
        head_leaky: whether a leaky ReLU follows it.
        heads_end: how many stages before the last one the last head sits.
    """

    norms: str
    pool: tuple[int, int, int]
    bottleneck_is_last_level: bool
    bottleneck_convs: int
    up: Callable[..., keras.KerasTensor]
    coarse_gate: bool
    joins_up: bool
    narrow_decoder: bool
    last_convs: int
    head_size: int
    head_leaky: bool
    heads_end: int


_TEXT = _Variant(
    norms="between",
    pool=(3, 2, 2),
    bottleneck_is_last_level=False,
    bottleneck_convs=1,
    up=_up_transposed,
    coarse_gate=True,
    joins_up=True,
    narrow_decoder=False,
    last_convs=2,
    head_size=3,
    head_leaky=False,
    heads_end=1,
)

_CODE = _Variant(
    norms="all",
    pool=(2, 2, 2),
    bottleneck_is_last_level=False,
    bottleneck_convs=2,
    up=_up_conv,
    coarse_gate=False,
    joins_up=False,
    narrow_decoder=False,
    last_convs=2,
    head_size=1,
    head_leaky=False,
    heads_end=0,
)

VARIANTS = {
    "code": _CODE,
    "code_with_up": replace(_CODE, joins_up=True),
    "paper": _TEXT,
    "figure": replace(
        _TEXT,
        norms="none",
        bottleneck_is_last_level=True,
        narrow_decoder=True,
        last_convs=1,
        head_leaky=True,
    ),
}


def _encode(
    x: keras.KerasTensor,
    filters: int,
    levels: int,
    bottleneck_blocks: int,
    variant: _Variant,
    block: Callable[..., keras.KerasTensor],
) -> list[keras.KerasTensor]:
    """The maps of all levels; the last one is the output of the bottleneck.

    (N, X, Y, Z, C) -> (N, X, Y, Z, filters), (N, X / 2, Y / 2, Z / 2, 2 * filters) and so on.
    """
    maps = []
    for level in range(1, levels + 1):
        if level > 1:
            size = variant.pool[: len(x.shape) - 2]
            x = resampling.max_pool(x, size, padding="same", name=f"Pool{level - 1}")
        if level < levels or not variant.bottleneck_is_last_level:
            x = block(x, 2 ** (level - 1) * filters, count=2, name=f"Encode{level}")
        maps.append(x)
    width = 2 ** (levels - 1) * filters
    for number in range(1, bottleneck_blocks + 1):
        name = f"Bottleneck{number}"
        maps[-1] = block(maps[-1], width, count=variant.bottleneck_convs, name=name)
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
        pair = [gated, upsampled] if variant.joins_up else [skip, gated]
    return layers.Concatenate(name=f"Concat{stage}")(pair)


def _decode(
    x: keras.KerasTensor,
    skips: list[keras.KerasTensor],
    filters: int,
    variant: _Variant,
    join: Callable[..., keras.KerasTensor],
    block: Callable[..., keras.KerasTensor],
) -> list[keras.KerasTensor]:
    """The maps of all decoder stages, the coarsest first.

    (N, X, Y, Z, C) and the skips from the first level on -> (N, 2X, 2Y, 2Z, D) and so on.
    """
    stages = []
    last = len(skips)
    for stage, skip in enumerate(reversed(skips), 1):
        width = 2 ** (last - stage) * filters
        if variant.narrow_decoder:
            width = max(width // 2, filters)
        x = join(x, skip, stage)
        count = variant.last_convs if stage == last else 2
        x = block(x, width, count=count, name=f"Decode{stage}")
        stages.append(x)
    return stages


def _output(
    x: keras.KerasTensor,
    classes: int,
    kernel_size: int,
    size: tuple[int | None, ...],
    activation: str,
    *,
    leaky: bool = False,
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """Convolution, resized to `size` where the map is smaller, activation; (N, *size, classes)."""
    x = conv(x, classes, kernel_size, framework=framework, name=f"{name}_conv")
    if leaky:
        x = layers.LeakyReLU(SLOPE, name=f"{name}_leaky")(x)
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
        source="fuat-arslan/MRI-Segmentation, AttU_Net, U_Net; the text; Figure 6",
        parity="golden",
        compared_in=("fmnet2023",),
        notes="Outputs: main, then the heads from the coarsest on; supervision_heads=0: only main. "
        "Follows the code, whose loss fits the paper's Table II; variant='paper' follows the text, "
        "variant='figure' Figure 6. They differ in blocks, pooling, bottleneck, gates, decoder and "
        "heads.",
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
    levels: int = 5,
    activation: str = "sigmoid",
    checkpointing: bool = False,
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Probabilities in float32 from patches (N, X, Y, Z, C) or slices (N, H, W, C).

    The outputs are a list of (N, X, Y, Z, classes): the main one, then those of the heads, the
    coarsest first. Without heads the output is the main one alone; the other layers are the same.

    Args:
        input_shape: (X, Y, Z, C) or (H, W, C), sizes divisible by 2^(levels - 1), which is 16;
            without heads None for any such size. By default 128 along every axis, four channels.
        classes: output channels; the paper's three are the regions WT, TC, ET.
        variant: "code", "paper" (the text), "figure" (Figure 6), or "code_with_up".
        dimensions: 3 for patches, 2 for slices.
        attention: whether gates weight the skips.
        bottleneck_blocks: 0 to 4, below the encoder's last level; of variant "figure" in its place.
        supervision_heads: 0 to 3.
        filters: channels of the first level; the paper's 32 grow to 512 at the bottom.
        levels: 2 to 7, each with twice the channels of the one above.
        activation: of the outputs; "linear" for the original's logits.
        checkpointing: whether a training step computes each block twice to save memory.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: a size that does not fit (the message gives the next valid shape), or an option
            out of its range.
    """
    require_choice("variant", variant, VARIANTS)
    chosen, framework = VARIANTS[variant], frameworks.get(framework)
    _check_options(chosen, dimensions, levels, bottleneck_blocks, supervision_heads)
    shape = _checked_shape(input_shape, dimensions, levels, supervision_heads)
    wrap = rematerialized if checkpointing else not_rematerialized
    block = partial(wrap, _convolutions, norms=chosen.norms, framework=framework)
    up = partial(wrap, chosen.up, framework=framework)
    join = partial(_join, attention=attention, variant=chosen, up=up, framework=framework)
    output = partial(
        _output, classes=classes, size=shape[:-1], activation=activation, framework=framework
    )
    head = partial(output, kernel_size=chosen.head_size, leaky=chosen.head_leaky)

    image = keras.Input(shape, name="Input")
    *skips, x = _encode(image, filters, levels, bottleneck_blocks, chosen, block)
    stages = _decode(x, skips, filters, chosen, join, block)
    outputs = [output(stages[-1], kernel_size=1, name="Output")]
    last = len(stages) - chosen.heads_end
    for number, x in enumerate(stages[last - supervision_heads : last], 1):
        outputs.append(head(x, name=f"Supervision{number}"))
    return keras.Model(image, outputs if supervision_heads else outputs[0], name="fmnet")


def _check_options(
    variant: _Variant, dimensions: int, levels: int, blocks: int, heads: int
) -> None:
    for what, value, least, most in (
        ("dimensions", dimensions, 2, 3),
        ("levels", levels, 2, 7),
        ("bottleneck_blocks", blocks, 0, 4),
        ("supervision_heads", heads, 0, min(3, levels - 1 - variant.heads_end)),
    ):
        if value not in range(least, most + 1):
            raise ValueError(f"{what}: found {value!r}, expected {least} to {most}.")


def _checked_shape(
    input_shape: tuple[int | None, ...] | None, dimensions: int, levels: int, heads: int
) -> tuple[int | None, ...]:
    shape = tuple(input_shape or (*(128,) * dimensions, 4))
    resampling.require_more_than_one(shape, 2 ** (levels - 1), dimensions=dimensions)
    if heads and None in shape:
        raise ValueError(
            f"input_shape: found {shape}, expected a size for every axis, to which the heads are "
            f"resized. Give the sizes, or supervision_heads=0."
        )
    return shape
