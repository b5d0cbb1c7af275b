"""U-Net with residual connections and CSAM of csam_knee, to be read beside sections 2.2 and 2.3.

The text contradicts itself. Its encoder has "multiple 1x1 convolutional layers with 64, 128, 256,
512, and 1024 channels", each pooled with stride 2, then a bottleneck with another of 1024; its
decoder has four up-samplings and 3x3 convolutions of 512, 256, 128 and 64 channels. A 1x1 encoder
has no spatial context, and five halvings do not match four doublings. Two readings:

consistent  The U-Net that the text wants to improve: four halvings, two 3x3 convolutions at every
            level; the 1024 channels of the encoder and those of the bottleneck are the two
            convolutions of the lowest level. A residual connection spans the two convolutions, as
            in He et al. 2016; around a single convolution, before its ReLU, it would be a linear
            map like the convolution itself.
literal     Every layer that the text lists and no other: five 1x1 convolutions down, one in the
            bottleneck, one 3x3 after each of the four up-samplings; a residual connection "between
            each convolutional layer", around convolution and ReLU. One change: the fifth pooling is
            left out, because the output would have half the size of the image.

In both, 1x1 convolutions adapt a residual connection where the number of channels changes, skips
are concatenated [skip, up], and a 1x1 convolution with its activation ends the network; the text
mentions none of the three.

The following points are open; we chose:

* `csam_place`: on the four skips; "a jump connection is used [...], combining the channel attention
  and spatial attention mechanisms" (section 2.2).
* `ratio`: 16, as in CBAM, whose two gates section 2.3 describes. The section pools [mean, maximum]
  where layers/attention.py has [maximum, mean]; this only changes the order of the kernel's input
  channels.
* `norm`: none, because the text has a ReLU after every convolution and names no norm. "batch" puts
  batch norm after every convolution, also in CSAM, where CBAM's authors have it. CSAM then has 680
  parameters at 64 channels and 2,284 at 128, otherwise 678 and 2,282. Without a norm PyTorch's
  initialization shrinks the signal by about the root of 6 per convolution and ReLU, and the lowest
  levels start with gradients below Adam's epsilon. The network learns all the same, after hundreds
  of steps in which it finds nothing (experiments/csam_knee/results).
* `classes`: one, the patellar ligament; its sigmoid is the softmax over ligament and background.
"""

from collections.abc import Callable
from functools import partial

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.errors import require_choice
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.attention import cbam
from keras_medseg.layers.convolution import conv, output_conv
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.layers.resampling import require_multiple, transposed_conv
from keras_medseg.layers.residual import projection_if_needed
from keras_medseg.registry import Card, register

# Layers that a CSAM follows; Skip1 is the map that Encode1 passes to Decode1.
CSAM_PLACES = {
    "skips": ("Skip",),
    "blocks": ("Encode", "Bottleneck", "Decode"),
    "decoder": ("Decode",),
    "none": (),
}
NORMS = ("none", "batch")


def residual_pair(
    x: keras.KerasTensor, filters: int, *, norm: str, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """relu(conv(relu(conv(x))) + x), both 3x3. (N, H, W, C) -> (N, H, W, filters)."""
    y = _convolution(x, filters, 3, norm=norm, framework=framework, name=f"{name}_conv1")
    y = layers.ReLU(name=f"{name}_conv1_relu")(y)
    y = _convolution(y, filters, 3, norm=norm, framework=framework, name=f"{name}_conv2")
    x = projection_if_needed(x, filters, framework=framework, name=name)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([y, x]))


def residual_single(
    x: keras.KerasTensor,
    filters: int,
    *,
    kernel_size: int,
    norm: str,
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """relu(conv(x)) + x. (N, H, W, C) -> (N, H, W, filters)."""
    y = _convolution(x, filters, kernel_size, norm=norm, framework=framework, name=f"{name}_conv1")
    y = layers.ReLU(name=f"{name}_conv1_relu")(y)
    x = projection_if_needed(x, filters, framework=framework, name=name)
    return layers.Add(name=f"{name}_add")([y, x])


def _convolution(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    norm: str,
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """Convolution with bias, and batch norm if `norm` is "batch"."""
    x = conv(x, filters, kernel_size, framework=framework, name=name)
    return batch_norm(x, framework=framework, name=f"{name}_bn") if norm == "batch" else x


# Blocks of the encoder and of the decoder.
BLOCKS: dict[str, tuple[Callable[..., keras.KerasTensor], ...]] = {
    "consistent": (residual_pair, residual_pair),
    "literal": tuple(partial(residual_single, kernel_size=size) for size in (1, 3)),
}


@register(
    Card(
        name="res_csam_unet",
        paper="csam_knee",
        title="U-Net with residual connections, channel and spatial attention (CSAM)",
        input_shape=(512, 512, 1),
        parameters=32_471_173,
        dimensions=2,
        output="sigmoid",
        source="csam_knee, sections 2.2 and 2.3",
        parity="rebuilt",
        compared_in=("csam_knee",),
        notes="The text contradicts itself: variant='consistent' is the U-Net that it wants to "
        "improve, 'literal' has the layers that it lists and no other. Chosen where the text is "
        "silent: CSAM on the skips, ratio 16, no norm.",
    )
)
def res_csam_unet(
    input_shape: tuple[int | None, int | None, int] = (512, 512, 1),
    classes: int = 1,
    variant: str = "consistent",
    csam_place: str = "skips",
    ratio: int = 16,
    norm: str = "none",
    filters: int = 64,
    activation: str = "sigmoid",
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Probabilities (N, H, W, classes) in float32 from images (N, H, W, C); csam_knee, section 2.2.

    Args:
        input_shape: (H, W, C); H and W divisible by 16, or None for any such size.
        classes: output channels.
        variant: "consistent" or "literal", the two readings of section 2.2.
        csam_place: on the "skips", after all "blocks", after those of the "decoder", or "none".
        ratio: of the channels to the hidden units of the channel attention.
        norm: "none", or "batch" for a batch norm after every convolution but the last.
        filters: channels of the first level; the paper's 64 grow to 1024 at the bottom.
        activation: of the output; "sigmoid", "softmax", or "linear" for logits.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: H or W not divisible by 16 (the message gives the next valid shape), or an
            unknown choice.
    """
    require_multiple(input_shape, 16)
    require_choice("variant", variant, BLOCKS)
    require_choice("csam_place", csam_place, CSAM_PLACES)
    require_choice("norm", norm, NORMS)
    framework = frameworks.get(framework)
    encode, decode = (partial(block, norm=norm, framework=framework) for block in BLOCKS[variant])
    gate = partial(cbam, framework=framework, ratio=ratio, use_batch_norm=norm == "batch")

    def attend(x: keras.KerasTensor, place: str, level: int | str = "") -> keras.KerasTensor:
        name = f"{place}{level}_CSAM"
        return gate(x, name=name) if place in CSAM_PLACES[csam_place] else x

    image = keras.Input(input_shape, name="Input")
    x, skips = image, []
    for level in (1, 2, 3, 4):
        x = attend(encode(x, 2 ** (level - 1) * filters, name=f"Encode{level}"), "Encode", level)
        skips.append(attend(x, "Skip", level))
        x = layers.MaxPooling2D(2, name=f"Down{level}")(x)
    if variant == "literal":
        x = attend(encode(x, 16 * filters, name="Encode5"), "Encode", 5)
    x = attend(encode(x, 16 * filters, name="Bottleneck"), "Bottleneck")
    for level in (4, 3, 2, 1):
        skip = skips.pop()
        x = transposed_conv(x, skip.shape[-1], framework=framework, name=f"Up{level}")
        x = layers.Concatenate(name=f"Concat{level}")([skip, x])
        x = attend(decode(x, skip.shape[-1], name=f"Decode{level}"), "Decode", level)
    x = output_conv(x, classes, activation, framework=framework)
    return keras.Model(image, x, name="res_csam_unet")
