"""UNeXt, in the structure of the authors' code.

Three convolutional stages, two stages of shifted MLPs ("tokenized MLP"), and the same on the way
back. Skips are added. Unlike in figure 2 of the paper, the ReLU of a stage follows the pooling or
the up-sampling, and a fifth up-sampling returns to the size of the image.
"""

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv, output_conv
from keras_medseg.layers.initialization import he_normal
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.layers.resampling import down, require_multiple, up
from keras_medseg.layers.shift import shifted_block
from keras_medseg.layers.transformer import layer_norm
from keras_medseg.registry import Card, register

ORIGINAL_NAMES = {
    "encoder{n}": "encoder{n}",
    "ebn{n}": "ebn{n}",
    "patch_embed{n}_proj": "patch_embed{n}.proj",
    "patch_embed{n}_norm": "patch_embed{n}.norm",
    "block{n}_norm2": "block{n}.0.norm2",
    "block{n}_mlp_fc{m}": "block{n}.0.mlp.fc{m}",
    "block{n}_mlp_dwconv": "block{n}.0.mlp.dwconv.dwconv",
    "norm{n}": "norm{n}",
    "decoder{n}": "decoder{n}",
    "dbn{n}": "dbn{n}",
    "dblock{n}_norm2": "dblock{n}.0.norm2",
    "dblock{n}_mlp_fc{m}": "dblock{n}.0.mlp.fc{m}",
    "dblock{n}_mlp_dwconv": "dblock{n}.0.mlp.dwconv.dwconv",
    "dnorm{n}": "dnorm{n}",
    "final": "final",
}


@register(
    Card(
        name="unext",
        paper="valanarasu2022",
        title="U-shaped network of convolutions and shifted MLPs",
        input_shape=(512, 512, 3),
        parameters=1_472_945,
        moving_statistics=1_024,
        dimensions=2,
        output="logits",
        source="jeya-maria-jose/UNeXt-pytorch, UNext; arXiv 2203.04967",
        parity="golden",
        compared_in=("iacnn",),
        notes="Follows the code where it differs from the paper's figure 2: ReLU comes after the "
        "pooling or the up-sampling, and a fifth up-sampling returns to the size of the image. "
        "UNeXt-S: filters=8, growth=(1, 2, 4, 8, 16).",
    )
)
def unext(
    input_shape: tuple[int | None, int | None, int] = (512, 512, 3),
    classes: int = 1,
    filters: int = 16,
    growth: tuple[int, int, int, int, int] = (1, 2, 8, 10, 16),
    activation: str = "linear",
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Logits (N, H, W, classes) in float32 from images (N, H, W, C).

    Args:
        input_shape: (H, W, C); H and W divisible by 32, or None for any such size.
        classes: output channels.
        filters: channels of the first stage.
        growth: channels of the five stages in units of `filters`.
        activation: of the output: "linear" for the original's logits, "sigmoid" or "softmax" for
            probabilities, which this package's losses and inference take.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: H or W not divisible by 32 (the message gives the next valid shape), or an
            unknown framework.
    """
    require_multiple(input_shape, 32)
    framework = frameworks.get(framework)
    image = keras.Input(input_shape, name="Input")
    x, skips = _encode(image, [filters * factor for factor in growth], framework)
    for number, skip in enumerate(reversed(skips), start=1):
        x = conv(x, skip.shape[-1], 3, framework=framework, name=f"decoder{number}")
        x = batch_norm(x, framework=framework, name=f"dbn{number}")
        x = _up_relu(x, framework, number)
        x = layers.Add(name=f"skip{number}")([x, skip])
        if number <= 2:
            x = shifted_block(x, framework=framework, name=f"dblock{number}")
            x = layer_norm(x, framework=framework, name=f"dnorm{number + 2}")
    x = conv(x, x.shape[-1], 3, framework=framework, name="decoder5")
    x = _up_relu(x, framework, 5)
    x = output_conv(x, classes, activation, framework=framework, name="final")
    return keras.Model(image, x, name="unext")


def _encode(
    x: keras.KerasTensor, widths: list[int], framework: FrameworkDefaults
) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
    skips = []
    for number, width in enumerate(widths[:3], start=1):
        x = conv(x, width, 3, framework=framework, name=f"encoder{number}")
        x = batch_norm(x, framework=framework, name=f"ebn{number}")
        x = down(x, "max_pool", framework=framework, name=f"pool{number}")
        x = layers.ReLU(name=f"encoder{number}_relu")(x)
        skips.append(x)
    patches = he_normal(framework, "fan_out")
    for number, width in enumerate(widths[3:], start=3):
        x = conv(x, width, 3, strides=2, framework=patches, name=f"patch_embed{number}_proj")
        x = layer_norm(x, framework=framework, name=f"patch_embed{number}_norm")
        x = shifted_block(x, framework=framework, name=f"block{number - 2}")
        x = layer_norm(x, framework=framework, name=f"norm{number}")
        skips.append(x)
    return x, skips[:-1]


def _up_relu(x: keras.KerasTensor, framework: FrameworkDefaults, number: int) -> keras.KerasTensor:
    x = up(x, "bilinear", framework=framework, name=f"up{number}")
    return layers.ReLU(name=f"decoder{number}_relu")(x)
