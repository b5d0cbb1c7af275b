"""Deep residual U-Net of Zhang, Liu, Wang 2018 (IEEE GRSL, arXiv 1711.10684), figure 2 and table I.

The authors published no code; the default is rebuilt from the article. Its 7.8 M parameters are the
7,780,096 weights of the main path. The shortcuts of all seven units change the width, so each has a
1x1 convolution (the article speaks of "identity mapping" without saying how); with these, biases
and norms there are 8,220,993. The article does not say how it up-samples; here as in Keras, which
the authors used. The order within concatenations is open too; here [up, skip].

Many comparisons use an unofficial form, rishikksh20/ResUnet: 3x3 convolutions with batch norm as
shortcuts, transposed convolutions, PyTorch. It is

    build("resunet", shortcut="3x3", upsampling="transposed_conv", framework="pytorch")
"""

import keras

from keras_medseg.errors import require_choice
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.models._unets import residual_unet
from keras_medseg.registry import Card, register

_UNITS = {
    "Encode{n}": "residual_conv_{n}",
    "Bridge": "bridge",
    "Decode{n}": "up_residual_conv{n}",
}
_PARTS = {
    "conv1_bn": "conv_block.0",
    "conv1": "conv_block.2",
    "conv2_bn": "conv_block.3",
    "conv2": "conv_block.5",
    "shortcut": "conv_skip.0",
    "shortcut_bn": "conv_skip.1",
}
ORIGINAL_NAMES = {
    "Stem_conv1": "input_layer.0",
    "Stem_conv1_bn": "input_layer.1",
    "Stem_conv2": "input_layer.3",
    "Stem_shortcut": "input_skip.0",
    "Up{n}": "upsample_{n}.upsample",
    "Output": "output_layer.0",
} | {
    f"{ours}_{part}": f"{theirs}.{module}"
    for ours, theirs in _UNITS.items()
    for part, module in _PARTS.items()
}


@register(
    Card(
        name="resunet",
        paper="zhang2018",
        title="deep residual U-Net, pre-activation units",
        input_shape=(224, 224, 3),
        parameters=8_227_393,
        moving_statistics=6_400,
        dimensions=2,
        output="sigmoid",
        source="arXiv 1711.10684, figure 2 and table I; no public code of the authors",
        parity="rebuilt",
        compared_in=("dcabes2020", "csam_knee", "iacnn"),
        notes="Chosen where the article is silent: a 1x1 convolution as every shortcut, the "
        "up-sampling of Keras (nearest neighbor), concatenation [up, skip]. There is a golden, "
        "but of an unofficial implementation, rishikksh20/ResUnet: shortcut='3x3', "
        "upsampling='transposed_conv', framework='pytorch'.",
    )
)
def resunet(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1,
    shortcut: str = "1x1",
    upsampling: str | None = None,
    filters: int = 64,
    activation: str = "sigmoid",
    framework: str | FrameworkDefaults = "keras_2_2",
) -> keras.Model:
    """Probabilities (N, H, W, classes) in float32 from images (N, H, W, C).

    Args:
        input_shape: (H, W, C); H and W divisible by 8, or None for any such size.
        classes: output channels.
        shortcut: "1x1" for projections without norm, "3x3" for those of the unofficial form.
        upsampling: "nearest", "bilinear" or "transposed_conv"; None is the framework's default.
        filters: channels of the first level; 64 grow to 512 in the bridge.
        activation: of the output; "sigmoid", "softmax", or "linear" for logits.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: H or W not divisible by 8 (the message gives the next valid shape), or an
            unknown choice.
    """
    require_choice("shortcut", shortcut, ("1x1", "3x3"))
    return residual_unet(
        "resunet",
        input_shape,
        classes,
        filters,
        activation,
        framework,
        shortcut_size=int(shortcut[0]),
        upsampling=upsampling,
    )
