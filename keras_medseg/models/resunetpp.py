"""ResUNet++ of Jha et al. 2019 (ISM, arXiv 1911.07067), figure 2, in the structure of their code.

The default follows the authors' Keras code, whose results the article prints: "same" padding, norm
epsilon 1e-3, sigmoid. Their later PyTorch code has the same structure and parameters, pads strided
convolutions on both sides, has epsilon 1e-5 and gives logits. It is

    build("resunetpp", framework="pytorch", activation="linear")

An output to compare with exists for that one only. Both codes differ from the figure: the attention
map passes no sigmoid, the branches of the ASPP are added rather than concatenated and one of them
has dilation 1, and squeeze-and-excitation ends every unit.
"""

from functools import partial

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.attention import squeeze_excitation
from keras_medseg.layers.convolution import bn_relu_conv, conv, conv_bn_relu, output_conv
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.layers.resampling import require_multiple, up
from keras_medseg.layers.residual import pre_activation
from keras_medseg.registry import Card, register

_UNITS = {"Encode{n}": "c{n}", "Decode{n}": "d{n}.r1"}
_UNIT_PARTS = {
    "conv1_bn": "c1.0",
    "conv1": "c1.2",
    "conv2_bn": "c1.3",
    "conv2": "c1.5",
    "shortcut": "c2.0",
    "shortcut_bn": "c2.1",
    "se_reduce": "attn.net.0",
    "se_expand": "attn.net.2",
}
_ATTENTION_PARTS = {
    "skip_bn": "g_conv.0",
    "skip": "g_conv.2",
    "decoder_bn": "x_conv.0",
    "decoder": "x_conv.2",
    "sum_bn": "gc_conv.0",
    "sum": "gc_conv.2",
}
_ASPP_PARTS = {
    "dilation1": "c1.0",
    "dilation1_bn": "c1.1",
    "dilation6": "c2.0",
    "dilation6_bn": "c2.1",
    "dilation12": "c3.0",
    "dilation12_bn": "c3.1",
    "dilation18": "c4.0",
    "dilation18_bn": "c4.1",
    "output": "c5",
}
ORIGINAL_NAMES = (
    {
        "Stem_conv1": "c1.c1.0",
        "Stem_conv1_bn": "c1.c1.1",
        "Stem_conv2": "c1.c1.3",
        "Stem_shortcut": "c1.c2.0",
        "Stem_shortcut_bn": "c1.c2.1",
        "Stem_se_reduce": "c1.attn.net.0",
        "Stem_se_expand": "c1.attn.net.2",
        "Output": "output",
    }
    | {
        f"{ours}_{part}": f"{theirs}.{module}"
        for ours, theirs in _UNITS.items()
        for part, module in _UNIT_PARTS.items()
    }
    | {f"Attention{{n}}_{ours}": f"d{{n}}.a1.{its}" for ours, its in _ATTENTION_PARTS.items()}
    | {
        f"{ours}_{part}": f"{theirs}.{module}"
        for ours, theirs in {"Bridge": "b1", "ASPP": "aspp"}.items()
        for part, module in _ASPP_PARTS.items()
    }
)


@register(
    Card(
        name="resunetpp",
        paper="jha2019",
        title="residual U-Net with squeeze-and-excitation, ASPP and attention",
        input_shape=(256, 256, 3),
        parameters=4_070_385,
        moving_statistics=7_392,
        dimensions=2,
        output="sigmoid",
        source="DebeshJha/ResUNetPlusPlus, m_resunet.py, and the authors' PyTorch file",
        parity="golden",
        compared_in=("mtds2021",),
        notes="Follows the authors' two codes where they differ from figure 2: the attention map "
        "passes no sigmoid, the ASPP's branches are added and one has dilation 1, "
        "squeeze-and-excitation ends every unit. The default is their Keras code; the golden is "
        "of their PyTorch code.",
    )
)
def resunetpp(
    input_shape: tuple[int | None, int | None, int] = (256, 256, 3),
    classes: int = 1,
    filters: int = 16,
    activation: str = "sigmoid",
    framework: str | FrameworkDefaults = "tensorflow_2",
) -> keras.Model:
    """Probabilities (N, H, W, classes) in float32 from images (N, H, W, C).

    Args:
        input_shape: (H, W, C); H and W divisible by 8, or None for any such size.
        classes: output channels.
        filters: channels of the first level; 16 grow to 256 in the bridge.
        activation: of the output; "sigmoid", "softmax", or "linear" for logits.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: H or W not divisible by 8; the message gives the next valid shape.
    """
    require_multiple(input_shape, 8)
    framework = frameworks.get(framework)
    excite = partial(squeeze_excitation, framework=framework, ratio=8, use_bias=False)

    def unit(x: keras.KerasTensor, width: int, name: str, strides: int = 1) -> keras.KerasTensor:
        x = pre_activation(
            x, width, framework=framework, name=name, strides=strides, shortcut_norm=True
        )
        return excite(x, name=f"{name}_se")

    image = keras.Input(input_shape, name="Input")
    x = conv_bn_relu(image, filters, 3, framework=framework, name="Stem_conv1")
    x = conv(x, filters, 3, framework=framework, name="Stem_conv2")
    skip = conv_bn_relu(
        image, filters, 1, framework=framework, name="Stem_shortcut", activation=False
    )
    x = excite(layers.Add(name="Stem_add")([x, skip]), name="Stem_se")
    skips = [x]
    for number in (2, 3, 4):
        skips.append(unit(skips[-1], 2 ** (number - 1) * filters, f"Encode{number}", strides=2))
    x = _aspp(skips.pop(), 16 * filters, framework=framework, name="Bridge")
    for number, width in ((1, 8 * filters), (2, 4 * filters), (3, 2 * filters)):
        skip = skips.pop()
        x = _attend(skip, x, framework=framework, name=f"Attention{number}")
        x = up(x, "nearest", framework=framework, name=f"Up{number}")
        x = layers.Concatenate(name=f"Concat{number}")([x, skip])
        x = unit(x, width, f"Decode{number}")
    x = _aspp(x, filters, framework=framework, name="ASPP")
    x = output_conv(x, classes, activation, framework=framework)
    return keras.Model(image, x, name="resunetpp")


def _aspp(
    x: keras.KerasTensor, filters: int, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """Sum of 3x3 convolutions of four dilations, each with batch norm, then 1x1."""
    branches = []
    for rate in (6, 12, 18, 1):
        part = f"{name}_dilation{rate}"
        y = conv(x, filters, 3, framework=framework, name=part, dilation_rate=rate)
        branches.append(batch_norm(y, framework=framework, name=f"{part}_bn"))
    x = layers.Add(name=f"{name}_add")(branches)
    return conv(x, filters, 1, framework=framework, name=f"{name}_output")


def _attend(
    skip: keras.KerasTensor, x: keras.KerasTensor, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """The decoder's map x, weighted by a map computed from x and the skip of twice its size."""
    channels = x.shape[-1]
    pre_activated = partial(bn_relu_conv, filters=channels, kernel_size=3, framework=framework)
    g = pre_activated(skip, name=f"{name}_skip")
    g = layers.MaxPooling2D(2, name=f"{name}_pool")(g)
    y = layers.Add(name=f"{name}_add")([g, pre_activated(x, name=f"{name}_decoder")])
    return layers.Multiply(name=f"{name}_scale")([pre_activated(y, name=f"{name}_sum"), x])
