"""ResNetFCN of DLTK, the nearest public relative of EMMA's residual FCNs.

EMMA (Kamnitsas et al. 2017, arXiv 1711.01468) made its FCNs with DLTK (arXiv 1711.06853); their
configuration was left out of the paper on purpose. The network is that of DLTK on 8 August 2017:

    encoder   a convolution, then residual units (`_dltk.py`) at each scale
    decoder   on as many channels as classes: the coarsest map through a convolution, then, scale
              by scale, fixed linear up-sampling plus batch norm of a 1x1x1 convolution of the
              encoder's map
"""

from functools import partial

import keras
from keras import layers

from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.models._dltk import (
    DLTK_NAMES,
    check_options,
    encode,
    of_dltk,
    output,
    upsample,
)
from keras_medseg.registry import Card, register

ORIGINAL_NAMES = DLTK_NAMES | {
    "Score{n}_coarse": "upscore_{n}.upscore.up_score_filter_conv",
    "Score{n}": "upscore_{n}.upscore.conv",
    "Score{n}_bn": "upscore_{n}.upscore.bn",
}


@register(
    Card(
        name="dltk_resnetfcn",
        paper="pawlowski2017",
        title="DLTK's residual FCN, the nearest public relative of members of EMMA",
        input_shape=(80, 80, 80, 4),
        parameters=13_339_792,
        moving_statistics=2_880,
        dimensions=3,
        output="logits",
        source="DLTK/DLTK at be50fa5 (8 August 2017), ResNetFCN; arXiv 1711.06853",
        parity="golden",
        compared_in=("dcabes2020",),
        notes="NOT a member of EMMA, whose configuration is not published: widths, strides and one "
        "residual unit per scale are those of the golden, DLTK's own default is three units. The "
        "input size is that of EMMA's residual FCNs as recalled, not re-checked.",
    )
)
def dltk_resnetfcn(
    input_shape: tuple[int, int, int, int] = (80, 80, 80, 4),
    classes: int = 4,
    widths: tuple[int, ...] = (16, 64, 128, 256, 512),
    strides: tuple[int, ...] = (1, 2, 2, 2, 1),
    units: int = 1,
    activation: str = "linear",
    framework: str | FrameworkDefaults = "tensorflow_2",
) -> keras.Model:
    """Logits (N, X, Y, Z, classes) in float32 from patches (N, X, Y, Z, C).

    Args:
        input_shape: (X, Y, Z, C); sizes divisible by the product of the strides.
        classes: output channels, including the background's.
        widths: channels of the scales, the largest scale first.
        strides: of the first convolution (1) and of each scale's first unit.
        units: residual units per scale.
        activation: of the output; "linear" for the original's logits, "softmax", or "sigmoid".
        framework: name or FrameworkDefaults; the original decides all that it would.

    Raises:
        ValueError: a size that does not fit (the message gives the next valid shape) or is not
            known, or an option out of its range.
    """
    check_options(input_shape, widths, strides, units)
    framework = of_dltk(framework)
    score = partial(conv, filters=classes, framework=framework, use_bias=False)
    image = keras.Input(input_shape, name="Input")
    maps = encode(image, widths, strides, units, framework)
    x = score(maps.pop(), kernel_size=3, name=f"Score{len(maps) - 1}_coarse")
    for scale in reversed(range(len(maps))):
        x = upsample(x, strides[scale + 1], name=f"Score{scale}_up")
        skip = score(maps[scale], kernel_size=1, name=f"Score{scale}")
        skip = batch_norm(skip, framework=framework, name=f"Score{scale}_bn")
        x = layers.Add(name=f"Score{scale}_add")([x, skip])
    x = output(x, classes, activation, framework)
    return keras.Model(image, x, name="dltk_resnetfcn")
