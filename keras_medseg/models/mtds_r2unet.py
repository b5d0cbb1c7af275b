"""Attention R2U-Net with multi-task deep supervision of mtds2021, beside its sections 2.1 to 2.3.

The figures of the paper are lost; what its text fixes is built, in its order:

    encoder      4 APR modules and 4 SE modules, 3 down-samplings; 32, 64, 128, 256 channels
    decoder      3 up-samplings, 3 pre-activation convolution blocks, 3 SE modules, 1x1 convolution
    supervision  three auxiliary outputs: enhancing tumour, necrosis, edema

Open in the text, and chosen here:

* `supervision`: the heads sit on the encoder's first three levels. "The shallow layers of network
  can better capture the boundary details of the enhancing tumor" with "low-level boundary
  information", and only the encoder's shallow layers hold nothing else; what vanishes on the way
  back through the decoder is their gradient. Against it: Figure 1's caption lists the outputs in
  another order, and a head in the front "forces the network to change the normal learning process"
  (said of one task on all branches). "decoder" puts them on its three stages, the finest one first.
* `gate`: one weight per pixel, "to control the importance of features in different spatial
  regions"; the shortcut-only gating that the paper likens it to has one per channel as well.
* SE: ratio 16 as in Hu et al.; Dropout on the channel weights ("the random change of channel
  weight"), at the rate of 0.2 that Myronenko, whose learning rate the paper takes, uses.
* Skips are concatenated, as in Attention U-Net, after SE. Max pooling; nearest neighbour.
* The first APR module sees the image itself, so its norm and ReLU come before any convolution.
* No recurrent convolution appears in the text, whatever the title's R2U-Net says.
"""

from collections.abc import Callable
from functools import partial

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.errors import require_choice
from keras_medseg.layers.attention import squeeze_excitation
from keras_medseg.layers.convolution import bn_relu_conv, conv
from keras_medseg.layers.gates import attention_gate
from keras_medseg.layers.resampling import down, require_multiple, up
from keras_medseg.layers.residual import pre_activation
from keras_medseg.registry import Card, register

GATES = ("pixel", "element")
SUPERVISION = ("encoder", "decoder", "none")


def apr(
    x: keras.KerasTensor, filters: int, *, gate: str, stack: frameworks.Stack, name: str
) -> keras.KerasTensor:
    """Attention pre-activation residual module, section 2.3: x1 = x + F(x), then x1 * gate(x1).

    The gate sigmoid(conv1x1(relu(x1))) sees nothing but the unit's own output.
    (N, H, W, C) -> (N, H, W, filters).
    """
    x = pre_activation(x, filters, stack=stack, name=name)
    channels = 1 if gate == "pixel" else filters
    logits = layers.ReLU(name=f"{name}_gate_relu")(x)
    logits = conv(logits, channels, 1, stack=stack, name=f"{name}_gate_conv")
    weights = layers.Activation("sigmoid", name=f"{name}_gate_sigmoid")(logits)
    return layers.Multiply(name=f"{name}_gate")([x, weights])


def residual(
    x: keras.KerasTensor, filters: int, *, gate: str, stack: frameworks.Stack, name: str
) -> keras.KerasTensor:
    """APR without its gate."""
    return pre_activation(x, filters, stack=stack, name=name)


def plain(
    x: keras.KerasTensor, filters: int, *, gate: str, stack: frameworks.Stack, name: str
) -> keras.KerasTensor:
    """APR without gate and shortcut."""
    return pre_activation_convolutions(x, filters, stack=stack, name=name)


def pre_activation_convolutions(
    x: keras.KerasTensor, filters: int, *, stack: frameworks.Stack, name: str
) -> keras.KerasTensor:
    """The decoder's block: norm, ReLU, 3x3 convolution, twice.

    (N, H, W, C) -> (N, H, W, filters).
    """
    x = bn_relu_conv(x, filters, 3, stack=stack, name=f"{name}_conv1")
    return bn_relu_conv(x, filters, 3, stack=stack, name=f"{name}_conv2")


ENCODER_BLOCKS = {block.__name__: block for block in (apr, residual, plain)}


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
        notes="Outputs: whole tumour, then enhancing, necrotic, edema; supervision='none': only "
        "it. Silent, and chosen: heads on the encoder's first three levels, gates of one weight "
        "per pixel, SE's ratio of 16. No recurrent convolution appears in the text, whatever its "
        "title says.",
    )
)
def mtds_r2unet(
    input_shape: tuple[int | None, int | None, int] = (144, 176, 4),
    classes: int = 1,
    encoder_block: str = "apr",
    gate: str = "pixel",
    skip_gates: bool = False,
    se_ratio: int = 16,
    se_dropout: float = 0.2,
    supervision: str = "encoder",
    filters: int = 32,
    downsampling: str = "max_pool",
    upsampling: str | None = None,
    stack: str | frameworks.Stack = "tensorflow_2",
) -> keras.Model:
    """Probabilities in float32 from slices (N, H, W, C); mtds2021, sections 2.1 to 2.3.

    Outputs are a list: the whole tumour (N, H, W, classes), then the auxiliary outputs
    (N, H, W, 1) of the first, second and third head. Without heads it is the one tensor alone;
    the layers that remain have the same names and shapes.

    Args:
        input_shape: (H, W, C); H and W divisible by 8, or None for any such size.
        classes: sigmoid channels of the main output.
        encoder_block: "apr", or for Table 3 "residual" (without gate), "plain" (without shortcut).
        gate: whether APR weights every "pixel" or every "element" (pixel and channel).
        skip_gates: whether attention gates weight the skips, as in Attention U-Net (Table 3).
        se_ratio: by which SE narrows.
        se_dropout: rate of the Dropout on SE's channel weights; 0 for Table 1.
        supervision: heads on the "encoder", on the "decoder", or "none" (Table 4; inference).
        filters: channels of the first level; the paper's 32 grow to 256 at the bottom.
        downsampling: "max_pool", "average_pool" or "strided_conv".
        upsampling: "nearest", "bilinear" or "transposed_conv"; None is the stack's default.
        stack: name of the framework whose silent defaults apply, or a Stack.

    Raises:
        ValueError: H or W not divisible by 8 (the message gives the next valid shape), or an
            unknown choice.
    """
    require_multiple(input_shape, 8)
    require_choice("encoder_block", encoder_block, ENCODER_BLOCKS)
    require_choice("gate", gate, GATES)
    require_choice("supervision", supervision, SUPERVISION)
    stack = frameworks.get(stack)
    up_by = partial(up, kind=upsampling or stack.upsampling, stack=stack)
    down_by = partial(down, kind=downsampling, stack=stack)
    block = partial(ENCODER_BLOCKS[encoder_block], gate=gate, stack=stack)
    excite = partial(squeeze_excitation, stack=stack, ratio=se_ratio, dropout=se_dropout)

    image = keras.Input(input_shape, name="Input")
    encoded = encoder(image, filters, block, excite, down_by)
    decoded = decoder(encoded, excite, up_by, skip_gates, stack=stack)
    supervised = {"encoder": encoded[:3], "decoder": decoded, "none": ()}[supervision]
    outputs = [output(decoded[0], classes, 0, up_by, stack=stack, name="Output")]
    for number, x in enumerate(supervised, 1):
        outputs.append(output(x, 1, number - 1, up_by, stack=stack, name=f"Output{number}"))
    return keras.Model(image, outputs if supervised else outputs[0], name="mtds_r2unet")


def encoder(
    x: keras.KerasTensor,
    filters: int,
    block: Callable[..., keras.KerasTensor],
    excite: Callable[..., keras.KerasTensor],
    down_by: Callable[..., keras.KerasTensor],
) -> list[keras.KerasTensor]:
    """Four blocks with SE, halved in between: maps of 1, 2, 4, 8 times `filters`, finest first."""
    levels = []
    for level in (1, 2, 3, 4):
        if levels:
            x = down_by(x, name=f"Down{level - 1}")
        x = block(x, 2 ** (level - 1) * filters, name=f"APR{level}")
        x = excite(x, name=f"SE{level}")
        levels.append(x)
    return levels


def decoder(
    encoded: list[keras.KerasTensor],
    excite: Callable[..., keras.KerasTensor],
    up_by: Callable[..., keras.KerasTensor],
    skip_gates: bool,
    *,
    stack: frameworks.Stack,
) -> list[keras.KerasTensor]:
    """From the bottom up: doubled, joined with the skip, block, SE; three maps, finest first."""
    x, levels = encoded[3], []
    for level in (3, 2, 1):
        skip = encoded[level - 1]
        width = skip.shape[-1]
        x = up_by(x, name=f"Up{level}")
        if skip_gates:
            skip = attention_gate(skip, x, max(1, width // 2), stack=stack, name=f"Gate{level}")
        x = layers.Concatenate(name=f"Concat{level}")([skip, x])
        x = pre_activation_convolutions(x, width, stack=stack, name=f"PreActivation{level}")
        x = excite(x, name=f"SE{8 - level}")
        levels.insert(0, x)
    return levels


def output(
    x: keras.KerasTensor,
    classes: int,
    doublings: int,
    up_by: Callable[..., keras.KerasTensor],
    *,
    stack: frameworks.Stack,
    name: str,
) -> keras.KerasTensor:
    """1x1 convolution, up to full resolution, sigmoid: (N, h, w, C) -> (N, H, W, classes)."""
    x = conv(x, classes, 1, stack=stack, name=f"{name}_conv")
    for doubling in range(doublings):
        x = up_by(x, name=f"{name}_up{doubling + 1}")
    return layers.Activation("sigmoid", dtype="float32", name=name)(x)
