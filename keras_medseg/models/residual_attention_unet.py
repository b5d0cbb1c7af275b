"""Residual-attention U-Net of dcabes2020, to be read beside Table I and section II of the paper.

The table fixes nine stages with their sizes and channels. RB7's output is printed as 44x44x64, but
RB8 takes 160 channels, 128 of them from RB7, so RB7 has 128 here.

"The total number of parameters for the entire training process is about 570,000" leaves many
readings of the residual block (totals with four CBAMs):

    separable       one separable 3x3 convolution, 1x1 convolution on every shortcut      570,265
    separable_pair  two of them, shortcut without parameters                              565,177
    bottleneck      1x1, 3x3, 1x1 at a quarter width, 1x1 convolution on every shortcut   560,393
    plain_single    one 3x3 convolution, 1x1 convolution where the channels change      2,563,609
    plain           two of them                                                         4,716,857

    norm on the shortcuts (separable, bottleneck)                                          +4,736
    no biases in the blocks: bottleneck -2,960, the others                                 -2,368
    CBAM's ratio 8 instead of 16: +2,832; ratio 4                                          +8,496

The count is compatible with all three lean blocks and decides between none of them: of their 30
combinations, 28 lie within 2 % of 570,000 and 17 round to it (in tens of thousands), among them
He's bottleneck with a norm on its shortcuts, 565,129. Only the plain blocks are excluded. The
default is "separable": of the readings without a further choice (CBAM's own ratio, biases as Keras
has them) it lies nearest, and "by improving the residual convolution block, the amount of
parameters was greatly reduced" fits a changed block better than He's own. Against it: the paper
never says "separable", and "based on the deep residual network proposed by He et al." may mean the
bottleneck. If "for the entire training process" means three networks, one for each region, no
reading fits: three of the default have 1,710,795.

Separable and bottleneck need the 1x1 convolution on every shortcut (He et al., option C); with the
identity where the channels agree they have 503,417 and 493,545.

The following points are open too; we chose:

* Down: max pooling, as in U-Net. Up: nearest neighbor, the default of Keras 2.2.4. Neither may have
  parameters, because no reading above would fit the count.
* CBAM on each of the four skips; ratio 16, 7x7. Its dense layers have biases, as in its authors'
  code and unlike equation (2) of its article; its spatial gate has neither bias nor batch norm, as
  in equation (3) and unlike its authors' code, whose norm (`cbam_norm`) has four parameters.
* "BN and ReLU after each convolution": the ReLU of a block's last convolution follows the sum, as
  in He et al.; shortcuts (unless `shortcut_norm`) and the output have no norm.
* Kernels: 3x3 in the first and the last convolution, 1x1 in the output; the paper gives no size.
"""

import inspect
from collections.abc import Callable
from functools import partial

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.errors import require_choice
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.attention import cbam
from keras_medseg.layers.convolution import conv_bn_relu, output_conv
from keras_medseg.layers.resampling import down, require_multiple, up
from keras_medseg.layers.residual import RESIDUAL_BLOCKS
from keras_medseg.registry import Card, register


@register(
    Card(
        name="residual_attention_unet",
        paper="dcabes2020",
        title="residual-attention U-Net with CBAM on the skips",
        input_shape=(176, 176, 4),
        parameters=570_265,
        moving_statistics=2_496,
        dimensions=2,
        output="sigmoid",
        source="DCABES 2020, Table I and section II, doi 10.1109/DCABES50732.2020.00048",
        parity="count",
        compared_in=("dcabes2020",),
        notes="One network per region (WT, TC, ET). The residual block is named but not drawn; it "
        "is a separable 3x3 convolution beside a 1x1 shortcut, one of several readings that the "
        'paper\'s "about 570,000" is compatible with. Chosen where the paper is silent: max '
        "pooling, nearest neighbor, CBAM's ratio of 16.",
    )
)
def residual_attention_unet(
    input_shape: tuple[int | None, int | None, int] = (176, 176, 4),
    classes: int = 1,
    residual_block: str = "separable",
    shortcut_norm: bool = False,
    block_bias: bool = True,
    attention: bool = True,
    cbam_ratio: int = 16,
    cbam_norm: bool = False,
    filters: int = 32,
    downsampling: str = "max_pool",
    upsampling: str | None = None,
    framework: str | FrameworkDefaults = "keras_2_2",
) -> keras.Model:
    """Probabilities (N, H, W, classes) in float32 from slices (N, H, W, C); dcabes2020, Table I.

    Args:
        input_shape: (H, W, C); H and W divisible by 16, or None for any such size.
        classes: sigmoid outputs; the paper trains one network per region.
        residual_block: "bottleneck", "separable", "plain", "separable_pair" or "plain_single".
        shortcut_norm: whether batch norm follows the convolution on a shortcut, where one is.
        block_bias: whether convolutions in blocks have biases; those of the plain ones always do.
        attention: whether a CBAM weights each skip.
        cbam_ratio: channels of a skip over hidden units of its CBAM.
        cbam_norm: whether batch norm follows the convolution of CBAM's spatial gate.
        filters: channels of the first stage; the paper's 32 grow to 256 at the bottom.
        downsampling: "max_pool", "average_pool" or "strided_conv".
        upsampling: "nearest", "bilinear" or "transposed_conv"; None is the framework's default.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: H or W not divisible by 16 (the message gives the next valid shape), an unknown
            choice, or an option that the residual block does not have.
    """
    require_multiple(input_shape, 16)
    framework = frameworks.get(framework)
    upsampling = upsampling or framework.upsampling
    residual = _residual(residual_block, shortcut_norm, block_bias, framework)
    weighted = partial(cbam, framework=framework, ratio=cbam_ratio, use_batch_norm=cbam_norm)
    half = partial(down, method=downsampling, framework=framework)

    def join(x: keras.KerasTensor, skip: keras.KerasTensor, number: int) -> keras.KerasTensor:
        x = up(x, upsampling, framework=framework, name=f"Up{number}")
        if attention:
            skip = weighted(skip, name=f"CBAM{number}")
        return layers.Concatenate(name=f"Concat{number}")([x, skip])

    image = keras.Input(input_shape, name="Input")
    c = conv_bn_relu(image, filters, 3, framework=framework, name="Conv1")
    r1 = residual(half(c, name="Down1"), filters, name="ResBlock1")
    r2 = residual(half(r1, name="Down2"), 2 * filters, name="ResBlock2")
    r3 = residual(half(r2, name="Down3"), 4 * filters, name="ResBlock3")
    r4 = residual(half(r3, name="Down4"), 8 * filters, name="ResBlock4")
    x = residual(r4, 8 * filters, name="ResBlock5")
    x = residual(join(x, r3, 6), 8 * filters, name="ResBlock6")
    x = residual(join(x, r2, 7), 4 * filters, name="ResBlock7")
    x = residual(join(x, r1, 8), 2 * filters, name="ResBlock8")
    x = conv_bn_relu(join(x, c, 9), filters, 3, framework=framework, name="Conv2")
    x = output_conv(x, classes, "sigmoid", framework=framework)
    return keras.Model(image, x, name="residual_attention_unet")


def _residual(
    block: str, shortcut_norm: bool, block_bias: bool, framework: FrameworkDefaults
) -> Callable[..., keras.KerasTensor]:
    """The residual block of a name, with its options."""
    require_choice("residual_block", block, RESIDUAL_BLOCKS)
    known = inspect.signature(RESIDUAL_BLOCKS[block]).parameters
    asked = {
        "shortcut_norm": ("shortcut_norm", shortcut_norm, False),
        "block_bias": ("use_bias", block_bias, True),
    }
    for option, (argument, value, default) in asked.items():
        if value != default and argument not in known:
            raise ValueError(
                f"{option}: found {value}, expected {default} for the residual block {block!r}, "
                "which has no such option."
            )
    changed = {argument: value for argument, value, default in asked.values() if value != default}
    return partial(RESIDUAL_BLOCKS[block], framework=framework, **changed)
