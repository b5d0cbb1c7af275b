"""NVIDIA's optimized U-Net, first of BraTS 2021's validation phase and benchmark of fmnet2023.

Futrega, Milesi, Marcinkiewicz, Ribalta 2021 (arXiv 2110.03352), as their repository builds it from
MONAI's DynUNet: seven levels, down by convolutions of stride 2, affine instance norms, up by 2x2x2
transposed convolutions, concatenation [up, skip]. The fifth input channel is 1 inside the brain.

The repository builds it in two dimensions as well (`--dim 2`), for data other than BraTS, with
strides and kernels that follow from the spacing. Here they are those of BraTS in both cases.
"""

from functools import partial

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv, conv_in_leaky, layer_class
from keras_medseg.layers.initialization import he_normal
from keras_medseg.layers.rematerialization import not_rematerialized, rematerialized
from keras_medseg.layers.resampling import require_more_than_one, transposed_conv
from keras_medseg.registry import Card, register

SLOPE = 0.01
# Widths 64, 96, 128, 192, 256, 384, 512 in units of the first.
WIDTHS = (1, 1.5, 2, 3, 4, 6, 8)

# Our block -> DynUNet's; each has two convolutions and two norms.
_BLOCKS = {
    "Encode1": "input_block",
    **{f"Encode{level}": f"downsamples.{level - 2}" for level in range(2, 7)},
    "Bottleneck": "bottleneck",
    **{f"Decode{stage}": f"upsamples.{stage - 1}.conv_block" for stage in range(1, 7)},
}
ORIGINAL_NAMES = {
    **{f"{ours}_conv{{n}}": f"{theirs}.conv{{n}}.conv" for ours, theirs in _BLOCKS.items()},
    **{f"{ours}_conv{{n}}_in": f"{theirs}.norm{{n}}" for ours, theirs in _BLOCKS.items()},
    **{f"Up{stage}": f"upsamples.{stage - 1}.transp_conv.conv" for stage in range(1, 7)},
    **{f"Supervision{n}_conv": f"deep_supervision_heads.{n - 1}.conv.conv" for n in range(1, 6)},
    "Output_conv": "output_block.conv.conv",
}
# DynUNet registers its blocks a second time under this name.
NEVER_CALLED = ("skip_layers",)


@register(
    Card(
        name="nvidia_unet",
        paper="futrega2021",
        title="NVIDIA's optimized U-Net of BraTS 2021, in 3-D or 2-D",
        input_shape=(128, 128, 128, 5),
        parameters=50_838_665,
        dimensions=3,
        output="logits",
        source="NVIDIA/DeepLearningExamples, PyTorch/Segmentation/nnUNet; MONAI, DynUNet",
        parity="golden",
        compared_in=("fmnet2023",),
        notes="Outputs: main, then the heads from the finest on; supervision_heads=0: only main. "
        "Follows the code. In 2-D, where the code takes strides from spacings, they are those of "
        "BraTS.",
    )
)
def nvidia_unet(
    input_shape: tuple[int | None, ...] | None = None,
    classes: int = 3,
    dimensions: int = 3,
    levels: int = 7,
    supervision_heads: int = 2,
    filters: int = 64,
    activation: str = "linear",
    checkpointing: bool = False,
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Logits in float32 from patches (N, X, Y, Z, C) or slices (N, H, W, C).

    The outputs are a list of (N, X, Y, Z, classes): the main one, then those of the heads, the
    finest first. Without heads the output is the main one alone; the other layers are the same.

    Args:
        input_shape: (X, Y, Z, C) or (H, W, C); sizes divisible by 2 ** (levels - 1), or None
            for any such size. By default 128 along every axis and five channels.
        classes: output channels; the original's three are the regions WT, TC, ET.
        dimensions: 3 for patches, 2 for slices.
        levels: of resolution, 3 to 7.
        supervision_heads: on the decoder's second, third, ... finest stage, 0 to levels - 2.
        filters: channels of the first level; 64 grow to 512 at the bottom.
        activation: of the outputs: "linear" for the original's logits, "sigmoid" for probabilities,
            which this package's losses and inference take.
        checkpointing: whether a training step computes each block twice to save memory.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: a size that does not fit (the message gives the next valid shape), or an option
            out of its range.
    """
    _check_options(dimensions, levels, supervision_heads)
    shape = tuple(input_shape or (*(128,) * dimensions, 5))
    require_more_than_one(shape, 2 ** (levels - 1), dimensions=dimensions)
    framework = he_normal(frameworks.get(framework), "fan_in", SLOPE)
    wrap = rematerialized if checkpointing else not_rematerialized
    block = partial(wrap, _double_conv, framework=framework)
    head = partial(_output, classes=classes, activation=activation, framework=framework)
    image = keras.Input(shape, name="Input")
    x, skips = image, []
    for level, width in enumerate(WIDTHS[:levels], 1):
        name = f"Encode{level}" if level < levels else "Bottleneck"
        x = block(x, int(width * filters), strides=min(level, 2), name=name)
        skips.append(x)
    stages = []
    for stage, skip in enumerate(reversed(skips[:-1]), 1):
        x = transposed_conv(x, skip.shape[-1], framework=framework, name=f"Up{stage}")
        x = layers.Concatenate(name=f"Concat{stage}")([x, skip])
        x = block(x, skip.shape[-1], name=f"Decode{stage}")
        stages.append(x)
    outputs = [head(x, scale=1, name="Output")]
    for number in range(1, supervision_heads + 1):
        outputs.append(head(stages[-1 - number], scale=2**number, name=f"Supervision{number}"))
    return keras.Model(image, outputs if supervision_heads else outputs[0], name="nvidia_unet")


def _double_conv(
    x: keras.KerasTensor,
    filters: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    strides: int = 1,
) -> keras.KerasTensor:
    """3x3x3 convolution, affine instance norm, leaky ReLU, twice; `strides` of the first.

    (N, X, Y, Z, C) -> (N, X / strides, Y / strides, Z / strides, filters), likewise (N, H, W, C).
    """
    unit = partial(conv_in_leaky, slope=SLOPE, framework=framework, affine=True, use_bias=False)
    x = unit(x, filters, 3, name=f"{name}_conv1", strides=strides)
    return unit(x, filters, 3, name=f"{name}_conv2")


def _output(
    x: keras.KerasTensor,
    classes: int,
    scale: int,
    activation: str,
    *,
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """1x1x1 convolution, up-sampling by nearest neighbor, activation.

    (N, X, Y, Z, C) -> (N, scale * X, scale * Y, scale * Z, classes), likewise (N, H, W, C).
    """
    x = conv(x, classes, 1, framework=framework, name=f"{name}_conv")
    if scale > 1:
        x = layer_class("UpSampling{}D", x)(scale, name=f"{name}_up")(x)
    return layers.Activation(activation, dtype="float32", name=name)(x)


def _check_options(dimensions: int, levels: int, heads: int) -> None:
    for what, value, least, most in (
        ("dimensions", dimensions, 2, 3),
        ("levels", levels, 3, len(WIDTHS)),
        ("supervision_heads", heads, 0, levels - 2),
    ):
        if value not in range(least, most + 1):
            raise ValueError(f"{what}: found {value!r}, expected {least} to {most}.")
