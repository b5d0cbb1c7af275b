"""CU-Net, in an UNOFFICIAL reading: the article's authors published no code.

Liu, Shen, Shang, Ge, Wang 2019 (arXiv 1907.07677) cascade two U-Nets, the first for the whole
tumor, the second for what is in it, and link features of equal resolution between them. Of the
article only the abstract is known to this package. What is built here is a third person's
re-creation, JeffShun/Brain_Tumor_Segmentation, `Cascaded_Unet` with `Model_Head`:

    net 1     widths 12, 24, 48, 96; gives the whole tumor
    net 2     reads net 1's last map; widths 24, 48, 96, 192; gives the others
    block     batch norm, ReLU, 3x3x3 convolution, twice, plus a 1x1x1 convolution of the input
    skips     added
    between   to each pooled map of net 2, net 1's decoder map of that size is added
"""

from functools import partial

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv
from keras_medseg.layers.resampling import max_pool, require_multiple, transposed_conv
from keras_medseg.layers.residual import pre_activation
from keras_medseg.registry import Card, register

LEVELS = 4
_MODULES = {
    "conv1_bn": "left.0",
    "conv1": "left.2",
    "conv2_bn": "left.3",
    "conv2": "left.5",
    "shortcut": "right",
}
_NETS = {"Net1": "backbone.unet", "Net2": "backbone"}
ORIGINAL_NAMES = {
    **{
        f"{net}_{part}{{n}}_{ours}": f"{module}.layer{{n}}{suffix}.{theirs}"
        for net, module in _NETS.items()
        for part, suffix in (("Encode", ""), ("Decode", "_"))
        for ours, theirs in _MODULES.items()
    },
    # Counted from the top here, from the bottom there.
    **{
        f"{net}_Up{n}": f"{module}.upconv{LEVELS - n}"
        for net, module in _NETS.items()
        for n in range(1, LEVELS)
    },
    "Net1_score": "head.conv1",
    "Net2_score": "head.conv2",
}


@register(
    Card(
        name="cunet",
        paper="liu2019b",
        title="two cascaded 3-D U-Nets, an unofficial reading of CU-Net",
        input_shape=(128, 192, 160, 4),
        parameters=3_570_151,
        moving_statistics=2_600,
        dimensions=3,
        output="logits",
        source="JeffShun/Brain_Tumor_Segmentation, Cascaded_Unet (unofficial); arXiv 1907.07677",
        parity="golden",
        compared_in=("dcabes2020",),
        notes="UNOFFICIAL: the golden proves that this is a third person's reading, not that it is "
        "the article's network, of which no code and no full text was found. Unknown of the "
        "original: 2-D or 3-D, sizes, widths, depth, norm, how and where the nets are linked.",
    )
)
def cunet(
    input_shape: tuple[int | None, int | None, int | None, int] = (128, 192, 160, 4),
    classes: int = 3,
    filters: int = 12,
    activation: str = "linear",
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Logits (N, D, H, W, classes) in float32 from patches (N, D, H, W, C).

    Args:
        input_shape: (D, H, W, C), the re-creation's order of axes; sizes divisible by 8, or None
            for any such size.
        classes: output channels, 2 or more: the first from net 1, the others from net 2. The
            re-creation's are WT; TC, ET.
        filters: channels of net 1's first level; net 2's has twice as many.
        activation: of the output; "linear" for the logits, "sigmoid" for regions, or "softmax".
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: a size not divisible by 8 (the message gives the next valid shape), or only one
            class.
    """
    require_multiple(input_shape, 2 ** (LEVELS - 1), dimensions=3)
    if classes < 2:
        raise ValueError(f"classes: found {classes}, expected 2 or more, one of them from net 1.")
    framework = frameworks.get(framework)
    net = partial(_unet, framework=framework)
    image = keras.Input(input_shape, name="Input")
    decoded = net(image, filters, last=filters, between=[], name="Net1")
    second = net(decoded[0], 2 * filters, last=filters, between=decoded[1:], name="Net2")
    scores = [
        conv(x, count, 1, framework=frameworks.get(framework), name=name, dtype="float32")
        for x, count, name in (
            (decoded[0], 1, "Net1_score"),
            (second[0], classes - 1, "Net2_score"),
        )
    ]
    x = layers.Concatenate(dtype="float32", name="Scores")(scores)
    x = layers.Activation(activation, dtype="float32", name="Output")(x)
    return keras.Model(image, x, name="cunet")


def _unet(
    x: keras.KerasTensor,
    filters: int,
    *,
    last: int,
    between: list[keras.KerasTensor],
    framework: FrameworkDefaults,
    name: str,
) -> list[keras.KerasTensor]:
    """One U-Net of the cascade.

    Args:
        x: (N, D, H, W, C).
        filters: channels of the first level.
        last: channels of the last map.
        between: maps of the other net to add to the pooled ones, the largest first; or none.
        framework: gives initializers and the batch norm's constants.
        name: prefix of the layers.

    Returns:
        The decoder's maps, the largest first, and the bottom one.
    """
    block = partial(pre_activation, framework=framework)
    maps = [block(x, filters, name=f"{name}_Encode1")]
    for level in range(2, LEVELS + 1):
        x = max_pool(maps[-1], 2, name=f"{name}_Pool{level - 1}")
        if between:
            x = layers.Add(name=f"{name}_Between{level}")([x, between[level - 2]])
        maps.append(block(x, 2 ** (level - 1) * filters, name=f"{name}_Encode{level}"))
    decoded = [maps.pop()]
    for level in range(LEVELS - 1, 0, -1):
        skip = maps.pop()
        x = transposed_conv(
            decoded[0], skip.shape[-1], framework=framework, name=f"{name}_Up{level}"
        )
        x = layers.Add(name=f"{name}_Skip{level}")([skip, x])
        width = last if level == 1 else skip.shape[-1]
        decoded.insert(0, block(x, width, name=f"{name}_Decode{level}"))
    return decoded
