"""Attention R2U-Net with multi-task deep supervision of mtds2021, beside its sections 2.1 to 2.3.

The figures of the paper are lost. The text fixes, in this order:

    encoder      4 APR modules and 4 SE modules, 3 down-samplings; 32, 64, 128, 256 channels
    decoder      3 up-samplings, 3 pre-activation convolution blocks, 3 SE modules, 1x1 convolution
    supervision  three auxiliary outputs: enhancing tumor, necrosis, edema

The following points are open; we chose:

* `supervision`: heads on the encoder's first three levels. "The shallow layers of network can
  better capture the boundary details of the enhancing tumor" with "low-level boundary information",
  and only the encoder's shallow layers contain nothing else. Against it: a head in the front
  "forces the network to change the normal learning process" (said of one task on all branches).
  "decoder" puts the heads on its three stages, the finest first; "coarse_to_fine" puts enhancing
  tumor on the coarsest, as the "progressive relationships" of "each stage" (Figure 1) may mean;
  "branches" gives each task a decoder of its own ("each branch is used to complete a specific
  task"), with which the network in training has more parameters than ResUNet++, although it should
  have the fewest. experiments/mtds2021/README.md compares all four.
* `gate`: one weight per pixel, "to control the importance of features in different spatial
  regions"; the shortcut-only gating that the paper compares it to has one per channel as well.
* SE: ratio 16 as in Hu et al.; Dropout on the channel weights ("the random change of channel
  weight"), at the rate of 0.2 of Myronenko, whose learning rate the paper takes.
* `skips`: concatenated, as in Attention U-Net, after SE. Max pooling; nearest neighbor.
* `skip_gates`, for the third structure of Table 3: Oktay's, which its reference names.
* `shortcut`: a 1x1 convolution of the unit's input itself, as the text adds x and F(x).
* The first APR module sees the image itself, so its norm and ReLU come before any convolution.
* No recurrent convolution: the text has none, although the title says R2U-Net.
"""

from collections.abc import Callable
from functools import partial

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.errors import require_choice
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.attention import (
    attention_gate,
    grid_attention_gate,
    squeeze_excitation,
)
from keras_medseg.layers.convolution import bn_relu_conv, conv, conv_bn_relu
from keras_medseg.layers.resampling import down, require_multiple, up
from keras_medseg.layers.residual import pre_activation
from keras_medseg.registry import Card, register

CHOICES = {
    "encoder_block": ("apr", "residual", "plain"),
    "gate": ("pixel", "element"),
    "shortcut": ("raw", "activated"),
    "skips": ("concatenate", "add"),
    "skip_gates": ("none", "oktay", "same_scale"),
    "supervision": ("encoder", "decoder", "coarse_to_fine", "branches", "none"),
}


def apr(
    x: keras.KerasTensor,
    filters: int,
    *,
    gate: str,
    framework: FrameworkDefaults,
    name: str,
    shortcut: str = "raw",
) -> keras.KerasTensor:
    """Attention pre-activation residual module, section 2.3: x1 = x + F(x), then x1 * gate(x1).

    The only input of the gate sigmoid(conv1x1(relu(x1))) is the unit's own output.
    (N, H, W, C) -> (N, H, W, filters).
    """
    x = _residual_block(x, filters, framework=framework, name=name, shortcut=shortcut)
    channels = 1 if gate == "pixel" else filters
    logits = layers.ReLU(name=f"{name}_gate_relu")(x)
    logits = conv(logits, channels, 1, framework=framework, name=f"{name}_gate_conv")
    weights = layers.Activation("sigmoid", name=f"{name}_gate_sigmoid")(logits)
    return layers.Multiply(name=f"{name}_gate")([x, weights])


def _residual_block(
    x: keras.KerasTensor,
    filters: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    shortcut: str,
    gate: str = "",
) -> keras.KerasTensor:
    """APR without its gate; `gate` has no effect."""
    activated = shortcut == "activated"
    return pre_activation(x, filters, framework=framework, name=name, activated_shortcut=activated)


def _plain_block(
    x: keras.KerasTensor,
    filters: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    shortcut: str,
    gate: str,
) -> keras.KerasTensor:
    """APR without gate and shortcut; `gate` and `shortcut` have no effect."""
    return _pre_activation_pair(x, filters, framework=framework, name=name)


def _pre_activation_pair(
    x: keras.KerasTensor, filters: int, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """The decoder's block: batch norm, ReLU, 3x3 convolution, twice.

    (N, H, W, C) -> (N, H, W, filters).
    """
    x = bn_relu_conv(x, filters, 3, framework=framework, name=f"{name}_conv1")
    return bn_relu_conv(x, filters, 3, framework=framework, name=f"{name}_conv2")


ENCODER_BLOCKS: dict[str, Callable[..., keras.KerasTensor]] = {
    "apr": apr,
    "residual": _residual_block,
    "plain": _plain_block,
}


@register(
    Card(
        name="mtds_r2unet",
        paper="mtds2021",
        title="attention R2U-Net with multi-task deep supervision",
        input_shape=(144, 176, 4),
        parameters=2_012_228,
        moving_statistics=3_208,
        dimensions=2,
        output="sigmoid",
        source="Front. Oncol. 11:704850 (2021), sections 2.1 to 2.3, doi 10.3389/fonc.2021.704850",
        parity="rebuilt",
        compared_in=("mtds2021",),
        notes="Outputs: whole tumor, then enhancing, necrotic, edema; supervision='none': only the "
        "first. Chosen where the text is silent: heads on the encoder's first three levels, gates "
        "of one weight per pixel, SE's ratio of 16. No recurrent convolution: the text has none, "
        "although its title says R2U-Net.",
    )
)
def mtds_r2unet(
    input_shape: tuple[int | None, int | None, int] = (144, 176, 4),
    classes: int = 1,
    encoder_block: str = "apr",
    gate: str = "pixel",
    shortcut: str = "raw",
    skips: str = "concatenate",
    skip_gates: str = "none",
    se_ratio: int = 16,
    se_dropout: float = 0.2,
    supervision: str = "encoder",
    filters: int = 32,
    downsampling: str = "max_pool",
    upsampling: str | None = None,
    framework: str | FrameworkDefaults = "tensorflow_2",
) -> keras.Model:
    """Probabilities in float32 from slices (N, H, W, C); mtds2021, sections 2.1 to 2.3.

    The outputs are a list: the whole tumor (N, H, W, classes), then those of three heads
    (N, H, W, 1). Without heads it is the first alone; other layers keep their names and shapes.

    Args:
        input_shape: (H, W, C); H and W divisible by 8, or None for any such size.
        classes: sigmoid channels of the main output.
        encoder_block: "apr"; for Table 3 "residual" (no gate) or "plain" (no gate, no shortcut).
        gate: whether APR weights every "pixel" or every "element" (pixel and channel).
        shortcut: of a unit: sees its "raw" input or, as in the code of He et al., "activated".
        skips: "concatenate", or "add" as in LinkNet, after a 1x1 convolution to equal widths.
        skip_gates: "none"; for Table 3 "oktay", the gates of Attention U-Net's authors (signal
            from the level below, none on the finest skip), or the common "same_scale" on all.
        se_ratio: of the channels to the hidden units of SE.
        se_dropout: rate of the Dropout on SE's channel weights; 0 for Table 1.
        supervision: heads on "encoder" or "decoder", the finest level first, on the decoder
            "coarse_to_fine", on "branches" (a decoder per task), or "none" (Table 4; inference).
        filters: channels of the first level; the paper's 32 grow to 256 at the bottom.
        downsampling: "max_pool", "average_pool" or "strided_conv".
        upsampling: "nearest", "bilinear" or "transposed_conv"; None is the framework's default.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: an unknown choice, or H or W not divisible by 8; it gives the next valid shape.
    """
    require_multiple(input_shape, 8)
    _check_choices(encoder_block=encoder_block, gate=gate, shortcut=shortcut)
    _check_choices(skips=skips, skip_gates=skip_gates, supervision=supervision)
    framework = frameworks.get(framework)
    upsample = partial(up, method=upsampling or framework.upsampling, framework=framework)
    downsample = partial(down, method=downsampling, framework=framework)
    block = partial(ENCODER_BLOCKS[encoder_block], gate=gate, shortcut=shortcut)
    excite = partial(squeeze_excitation, framework=framework, ratio=se_ratio, dropout=se_dropout)
    join = partial(_join, skips=skips, gates=skip_gates, upsample=upsample, framework=framework)
    image = keras.Input(input_shape, name="Input")
    encoded = _encoder(image, filters, partial(block, framework=framework), excite, downsample)
    decode = partial(_decoder, encoded, excite, join, framework)
    decoded = decode()
    head = partial(_output, upsample=upsample, framework=framework)
    main = head(decoded[0], classes, 0, name="Output")
    supervised = _supervised(supervision, encoded, decoded, decode)
    heads = [head(x, 1, n - 1, name=f"Output{i}") for i, (x, n) in enumerate(supervised, 1)]
    return keras.Model(image, [main, *heads] if heads else main, name="mtds_r2unet")


def _check_choices(**given: str) -> None:
    for name, choice in given.items():
        require_choice(name, choice, CHOICES[name])


def _supervised(
    supervision: str,
    encoded: list[keras.KerasTensor],
    decoded: list[keras.KerasTensor],
    decode: Callable[..., list[keras.KerasTensor]],
) -> list[tuple[keras.KerasTensor, int]]:
    """The maps that get a head, in the order of the tasks, and their levels (1 is the finest)."""
    if supervision == "encoder":
        return list(zip(encoded, (1, 2, 3)))
    if supervision == "decoder":
        return list(zip(decoded, (1, 2, 3)))
    if supervision == "coarse_to_fine":
        return list(zip(reversed(decoded), (3, 2, 1)))
    if supervision == "branches":
        return [(decode(prefix=f"Branch{task}_")[0], 1) for task in (1, 2, 3)]
    return []


def _encoder(
    x: keras.KerasTensor,
    filters: int,
    block: Callable[..., keras.KerasTensor],
    excite: Callable[..., keras.KerasTensor],
    downsample: Callable[..., keras.KerasTensor],
) -> list[keras.KerasTensor]:
    """Four blocks with SE, halved in between: maps of 1, 2, 4, 8 times `filters`, finest first."""
    levels: list[keras.KerasTensor] = []
    for level in (1, 2, 3, 4):
        if levels:
            x = downsample(x, name=f"Down{level - 1}")
        x = block(x, 2 ** (level - 1) * filters, name=f"APR{level}")
        x = excite(x, name=f"SE{level}")
        levels.append(x)
    return levels


def _decoder(
    encoded: list[keras.KerasTensor],
    excite: Callable[..., keras.KerasTensor],
    join: Callable[..., keras.KerasTensor],
    framework: FrameworkDefaults,
    prefix: str = "",
) -> list[keras.KerasTensor]:
    """From the bottom up: joined with the skip, block, SE; three maps, finest first.

    `prefix` tells the layers of several decoders apart.
    """
    x = encoded[3]
    levels: list[keras.KerasTensor] = []
    for level in (3, 2, 1):
        skip = encoded[level - 1]
        x = join(skip, x, level, prefix=prefix)
        name = f"{prefix}PreActivation{level}"
        x = _pre_activation_pair(x, skip.shape[-1], framework=framework, name=name)
        x = excite(x, name=f"{prefix}SE{8 - level}")
        levels.insert(0, x)
    return levels


def _join(
    skip: keras.KerasTensor,
    x: keras.KerasTensor,
    level: int,
    *,
    skips: str,
    gates: str,
    upsample: Callable[..., keras.KerasTensor],
    framework: FrameworkDefaults,
    prefix: str,
) -> keras.KerasTensor:
    """The skip, gated or not, with the doubled map of the level below.

    (N, H, W, C) and (N, H / 2, W / 2, 2 C) -> (N, H, W, 3 C), or (N, H, W, C) for added skips.
    """
    width, gate = skip.shape[-1], f"{prefix}Gate{level}"
    if gates == "oktay" and level > 1:
        signal = x
        if level == 3:  # the bottom, which has not been decoded, passes a convolution of its own
            signal = conv_bn_relu(x, x.shape[-1], 1, framework=framework, name=f"{prefix}Gating")
        raise_weights = partial(up, method="bilinear", framework=framework)
        skip = grid_attention_gate(
            skip, signal, upsample=raise_weights, framework=framework, name=gate
        )
    if skips == "add":
        x = conv(x, width, 1, framework=framework, name=f"{prefix}Reduce{level}")
    x = upsample(x, name=f"{prefix}Up{level}")
    if gates == "same_scale":
        skip = attention_gate(skip, x, max(1, width // 2), framework=framework, name=gate)
    if skips == "add":
        return layers.Add(name=f"{prefix}Sum{level}")([skip, x])
    return layers.Concatenate(name=f"{prefix}Concat{level}")([skip, x])


def _output(
    x: keras.KerasTensor,
    classes: int,
    doublings: int,
    *,
    upsample: Callable[..., keras.KerasTensor],
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """1x1 convolution, up to full resolution, sigmoid: (N, h, w, C) -> (N, H, W, classes)."""
    x = conv(x, classes, 1, framework=framework, name=f"{name}_conv")
    for doubling in range(doublings):
        x = upsample(x, name=f"{name}_up{doubling + 1}")
    return layers.Activation("sigmoid", dtype="float32", name=name)(x)
