"""ResUNET of DLTK, the nearest public relative of EMMA's U-Nets.

EMMA (Kamnitsas et al. 2017, arXiv 1711.01468) left the configuration of its members out on purpose.
The network is that of DLTK (arXiv 1711.06853) on 8 August 2017: the encoder of `dltk_resnetfcn`;
scale by scale, [skip, up] after fixed linear up-sampling, and residual units (`_dltk.py`).
"""

import keras
from keras import layers

from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.models._dltk import (
    DLTK_NAMES,
    check_options,
    encode,
    of_dltk,
    output,
    residual_unit,
    upsample,
)
from keras_medseg.registry import Card, register

ORIGINAL_NAMES = DLTK_NAMES


@register(
    Card(
        name="dltk_resunet",
        paper="pawlowski2017",
        title="DLTK's residual U-Net, the nearest public relative of members of EMMA",
        input_shape=(64, 64, 64, 4),
        parameters=1_268_288,
        moving_statistics=1_568,
        dimensions=3,
        output="logits",
        source="DLTK/DLTK at be50fa5 (8 August 2017), ResUNET; arXiv 1711.06853",
        parity="golden",
        compared_in=("dcabes2020",),
        notes="NOT a member of EMMA, whose configuration is not published: widths, strides and one "
        "residual unit per scale are those of the golden. The input size is that of EMMA's U-Nets "
        "as recalled, not re-checked.",
    )
)
def dltk_resunet(
    input_shape: tuple[int, int, int, int] = (64, 64, 64, 4),
    classes: int = 4,
    widths: tuple[int, ...] = (16, 32, 64, 128),
    strides: tuple[int, ...] = (1, 2, 2, 2),
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
        units: residual units per scale, on the way down and up.
        activation: of the output; "linear" for the original's logits, "softmax", or "sigmoid".
        framework: name or FrameworkDefaults; the original decides all that it would.

    Raises:
        ValueError: a size that does not fit (the message gives the next valid shape) or is not
            known, or an option out of its range.
    """
    check_options(input_shape, widths, strides, units)
    framework = of_dltk(framework)
    image = keras.Input(input_shape, name="Input")
    maps = encode(image, widths, strides, units, framework)
    x = maps.pop()
    for scale in reversed(range(len(maps))):
        x = upsample(x, strides[scale + 1], name=f"Up{scale}")
        x = layers.Concatenate(name=f"Concat{scale}")([maps[scale], x])
        for number in range(units):
            x = residual_unit(x, widths[scale], framework=framework, name=f"Up{scale}_{number}")
    x = output(x, classes, activation, framework)
    return keras.Model(image, x, name="dltk_resunet")
