"""FR-UNet, in the structure of the authors' code.

Four rows of full, half, quarter and eighth resolution have seven, five, three and one columns. The
input of a node is the maps of the column before it: that of its own row and, resampled, those of
the two neighboring rows.

The paper (section III.B) describes residual blocks. The weights and figures were released with code
that has none; a later version of the code has them: `residual`.
"""

from functools import partial
from typing import Any

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv, output_conv
from keras_medseg.layers.dropout import SpatialDropout2D
from keras_medseg.layers.initialization import he_normal
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.layers.resampling import require_multiple, transposed_conv
from keras_medseg.registry import Card, register

ROWS = 4
_MODULES = {
    "fuse_{k}": "fuse.{k}",
    "conv_conv_{k}": "conv.conv.{k}",
    "up_up_{k}": "up.up.{k}",
    "down_down_{k}": "down.down.{k}",
    "fuse_conv{k}": "fuse.conv{k}",
    "fuse_conv33_di": "fuse.conv33_di",
    "fuse_norm": "fuse.norm",
}
ORIGINAL_NAMES = {
    f"{block}_{ours}": f"{block}.{theirs}"
    for block in ("block{n}", "block{n}_{m}")
    for ours, theirs in _MODULES.items()
} | {"final{n}": "final{n}"}
NEVER_CALLED = ("block1_2.fuse", "block2_2.fuse", "block3_1.fuse", "block40.fuse", "fuse")


@register(
    Card(
        name="frunet",
        paper="liu2022",
        title="full-resolution U-Net for vessels",
        input_shape=(48, 48, 1),
        parameters=5_728_645,
        moving_statistics=9_024,
        dimensions=2,
        output="logits",
        source="lseventeen/FR-UNet, FR_UNet; doi 10.1109/JBHI.2022.3188710",
        parity="golden",
        compared_in=("csam_knee",),
        notes="Follows the released code, which has no residual blocks, though the paper's section "
        "III.B describes them; residual=True has them, as a later version of the code. 1,654,726 "
        "parameters that the original registers but never calls are left out.",
    )
)
def frunet(
    input_shape: tuple[int | None, int | None, int] = (48, 48, 1),
    classes: int = 1,
    filters: int = 32,
    residual: bool = False,
    activation: str = "linear",
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Logits (N, H, W, classes) in float32 from images (N, H, W, C).

    Args:
        input_shape: (H, W, C); H and W divisible by 8, or None for any such size.
        classes: output channels.
        filters: channels of the full-resolution row; each row below has twice as many.
        residual: whether a node's input is added before its last activation.
        activation: of the output: "linear" for the original's logits, "sigmoid" or "softmax" for
            probabilities, which this package's losses and inference take.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: H or W not divisible by 8 (the message gives the next valid shape), or an
            unknown framework.
    """
    require_multiple(input_shape, 2 ** (ROWS - 1))
    framework = he_normal(frameworks.get(framework), "fan_in", slope=0.01)
    image = keras.Input(input_shape, name="Input")
    nodes = {(1, 1 - ROWS): _block(image, filters, residual, framework, _name(1, 1 - ROWS))}
    for column in range(2 - ROWS, ROWS):
        for row in range(1, ROWS + 1 - abs(column)):
            x = _inputs(nodes, row, column, filters, framework)
            name = _name(row, column)
            nodes[row, column] = _block(x, 2 ** (row - 1) * filters, residual, framework, name)
    heads = [
        output_conv(nodes[1, column], classes, "linear", framework=framework, name=f"final{number}")
        for number, column in enumerate(range(-1, ROWS), start=1)
    ]
    x = layers.Average(name="final", dtype="float32")(heads)
    x = layers.Activation(activation, name="Output", dtype="float32")(x)
    return keras.Model(image, x, name="frunet")


def _name(row: int, column: int) -> str:
    """The authors' name: block2_1 is on row 2, one column left of the middle; block21 one right."""
    return f"block{row}_{-column}" if column < 0 else f"block{row}{column}"


def _inputs(
    nodes: dict[tuple[int, int], keras.KerasTensor],
    row: int,
    column: int,
    filters: int,
    framework: FrameworkDefaults,
) -> keras.KerasTensor:
    """Maps of the column before: row above (halved), own row, row below (doubled)."""
    width = 2 ** (row - 1) * filters
    maps = []
    for source in (row - 1, row, row + 1):
        if (source, column - 1) not in nodes:
            continue
        x, name = nodes[source, column - 1], _name(source, column - 1)
        if source < row:
            options: dict[str, Any] = dict(strides=2, padding="valid", use_bias=False)
            x = conv(x, width, 2, framework=framework, name=f"{name}_down_down_0", **options)
            x = _norm_leaky(x, framework, f"{name}_down_down_1")
        elif source > row:
            x = transposed_conv(
                x, width, framework=framework, name=f"{name}_up_up_0", use_bias=False
            )
            x = _norm_leaky(x, framework, f"{name}_up_up_1")
        maps.append(x)
    return layers.Concatenate(name=f"{_name(row, column)}_concat")(maps) if maps[1:] else maps[0]


def _block(
    x: keras.KerasTensor, filters: int, residual: bool, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """Feature aggregation where the width changes, then two convolutions with batch norm."""
    if x.shape[-1] != filters:
        x = _fuse(x, filters, framework, f"{name}_fuse")
    shortcut = x
    for number in (0, 4):
        part = f"{name}_conv_conv_{number}"
        x = conv(x, filters, 3, framework=framework, name=part, use_bias=False)
        x = batch_norm(x, framework=framework, name=f"{name}_conv_conv_{number + 1}")
        x = SpatialDropout2D(0.2, name=f"{part}_dropout")(x)
        if residual and number == 4:
            x = layers.Add(name=f"{name}_residual")([x, shortcut])
        x = layers.LeakyReLU(0.1, name=f"{part}_relu")(x)
    return x


def _fuse(
    x: keras.KerasTensor, filters: int, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """Sum of 1x1, 3x3 and dilated 3x3 convolutions, then batch norm without activation."""
    branch = partial(conv, x, filters, framework=framework, use_bias=False)
    branches = [
        branch(1, name=f"{name}_conv11"),
        branch(3, name=f"{name}_conv33"),
        branch(3, name=f"{name}_conv33_di", dilation_rate=2),
    ]
    x = layers.Add(name=f"{name}_add")(branches)
    return batch_norm(x, framework=framework, name=f"{name}_norm")


def _norm_leaky(x: keras.KerasTensor, framework: FrameworkDefaults, name: str) -> keras.KerasTensor:
    return layers.LeakyReLU(0.1, name=f"{name}_relu")(batch_norm(x, framework=framework, name=name))
