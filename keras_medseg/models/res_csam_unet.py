"""U-Net with residual connections and CSAM of csam_knee, beside its sections 2.2 and 2.3.

The text contradicts itself. Its encoder has "multiple 1x1 convolutional layers with 64, 128, 256,
512, and 1024 channels", each pooled with stride 2, then a bottleneck with another of 1024; its
decoder has four up-samplings and 3x3 convolutions of 512, 256, 128 and 64 channels. A 1x1 encoder
has no spatial context, and five halvings do not match four doublings. Two readings:

consistent  The U-Net that the text wants to improve: four halvings, twice 3x3 at every level, the
            encoder's and the bottleneck's 1024 channels together at the lowest one. A residual
            connection spans the two convolutions, as in He et al. 2016: around a single one, before
            its ReLU, it would be a linear map like the convolution alone.
literal     Every layer that is listed and no other: five 1x1 convolutions down, one in the
            bottleneck, one 3x3 after each of the four up-samplings; a residual connection "between
            each convolutional layer", around convolution and ReLU. Bent: the fifth pooling is left
            out, or the output would have half the image's size.

Both: 1x1 convolutions fit a connection where the number of channels changes, skips are concatenated
[skip, up], a 1x1 convolution and its activation end the network; the text has none of the three.

Open in the text, and chosen here:

* `csam_place`: on the four skips; "a jump connection is used [...], combining the channel attention
  and spatial attention mechanisms" (section 2.2).
* `ratio`: 16, CBAM's, whose two gates section 2.3 describes; it pools [mean, maximum] where
  layers/attention.py has [maximum, mean], which only numbers the kernel's input channels.
* `norm`: none, for the text follows every convolution by ReLU and names no norm. "batch" puts one
  after every convolution, in CSAM too, where CBAM's authors have it: 680 parameters at 64 channels
  and 2,284 at 128, without it 678 and 2,282.
* `classes`: one, the patellar ligament; its sigmoid is the softmax over ligament and background.
"""

from functools import partial

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.errors import require_choice
from keras_medseg.layers.attention import cbam
from keras_medseg.layers.convolution import conv
from keras_medseg.layers.convolution import norm as batch_norm
from keras_medseg.layers.resampling import require_multiple, transposed_conv
from keras_medseg.layers.residual import projection_if_needed
from keras_medseg.registry import Card, register

# What a CSAM follows; Skip1 is what Encode1 hands to Decode1.
CSAM_PLACES = {
    "skips": ("Skip",),
    "blocks": ("Encode", "Bottleneck", "Decode"),
    "decoder": ("Decode",),
    "none": (),
}
NORMS = ("none", "batch")


def residual_pair(
    x: keras.KerasTensor, filters: int, *, norm: str, stack: frameworks.Stack, name: str
) -> keras.KerasTensor:
    """relu(conv(relu(conv(x))) + x), both 3x3. (N, H, W, C) -> (N, H, W, filters)."""
    y = convolution(x, filters, 3, norm=norm, stack=stack, name=f"{name}_conv1")
    y = layers.ReLU(name=f"{name}_conv1_relu")(y)
    y = convolution(y, filters, 3, norm=norm, stack=stack, name=f"{name}_conv2")
    x = projection_if_needed(x, filters, stack=stack, name=name)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([y, x]))


def residual_single(
    x: keras.KerasTensor,
    filters: int,
    *,
    kernel_size: int,
    norm: str,
    stack: frameworks.Stack,
    name: str,
) -> keras.KerasTensor:
    """relu(conv(x)) + x. (N, H, W, C) -> (N, H, W, filters)."""
    y = convolution(x, filters, kernel_size, norm=norm, stack=stack, name=f"{name}_conv1")
    y = layers.ReLU(name=f"{name}_conv1_relu")(y)
    x = projection_if_needed(x, filters, stack=stack, name=name)
    return layers.Add(name=f"{name}_add")([y, x])


def convolution(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    norm: str,
    stack: frameworks.Stack,
    name: str,
) -> keras.KerasTensor:
    """Convolution with bias, and batch normalisation if `norm` is "batch"."""
    x = conv(x, filters, kernel_size, stack=stack, name=name)
    return batch_norm(x, stack=stack, name=f"{name}_bn") if norm == "batch" else x


# Of encoder and decoder.
BLOCKS = {
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
        "improve, 'literal' has the layers that it lists and no other. Silent, and chosen: CSAM on "
        "the skips, ratio 16, no norm.",
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
    stack: str | frameworks.Stack = "pytorch",
) -> keras.Model:
    """Probabilities (N, H, W, classes) in float32 from images (N, H, W, C); csam_knee, section 2.2.

    Args:
        input_shape: (H, W, C); H and W divisible by 16, or None for any such size.
        classes: output channels.
        variant: "consistent" or "literal", the two readings of section 2.2.
        csam_place: on the "skips", after all "blocks", after those of the "decoder", or "none".
        ratio: by which the channel attention narrows.
        norm: "none", or "batch" for a batch norm after every convolution but the last.
        filters: channels of the first level; the paper's 64 grow to 1024 at the bottom.
        activation: of the output; "sigmoid", "softmax", or "linear" for logits.
        stack: name of the framework whose silent defaults apply, or a Stack.

    Raises:
        ValueError: H or W not divisible by 16 (the message gives the next valid shape), or an
            unknown choice.
    """
    require_multiple(input_shape, 16)
    require_choice("variant", variant, BLOCKS)
    require_choice("csam_place", csam_place, CSAM_PLACES)
    require_choice("norm", norm, NORMS)
    stack = frameworks.get(stack)
    encode, decode = BLOCKS[variant]
    gate = partial(cbam, stack=stack, ratio=ratio, batch_norm=norm == "batch")

    def attend(x, place, level=""):
        name = f"{place}{level}_CSAM"
        return gate(x, name=name) if place in CSAM_PLACES[csam_place] else x

    def block(kind, x, width, place, level=""):
        x = kind(x, width, norm=norm, stack=stack, name=f"{place}{level}")
        return attend(x, place, level)

    image = keras.Input(input_shape, name="Input")
    x, skips = image, []
    for level in (1, 2, 3, 4):
        x = block(encode, x, 2 ** (level - 1) * filters, "Encode", level)
        skips.append(attend(x, "Skip", level))
        x = layers.MaxPooling2D(2, name=f"Down{level}")(x)
    if variant == "literal":
        x = block(encode, x, 16 * filters, "Encode", 5)
    x = block(encode, x, 16 * filters, "Bottleneck")
    for level in (4, 3, 2, 1):
        skip = skips.pop()
        x = transposed_conv(x, skip.shape[-1], stack=stack, name=f"Up{level}")
        x = layers.Concatenate(name=f"Concat{level}")([skip, x])
        x = block(decode, x, skip.shape[-1], "Decode", level)
    x = conv(x, classes, 1, stack=stack, name="Output", activation=activation, dtype="float32")
    return keras.Model(image, x, name="res_csam_unet")
