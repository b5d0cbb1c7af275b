"""D-ResUNet of Liu, Feng, Wang, Zhong, Cao 2019 (IGARSS, doi 10.1109/IGARSS.2019.8898392).

"The network is built with ResUnet architecture and has dilated convolution layers in its center
part": the ResUNet of Zhang et al. (`resunet`) with dilated convolutions between bridge and decoder.
There is no public code. Only the abstract could be read; it names no rates. Its sentences on
dilation are word for word those of D-LinkNet (Zhou, Zhang, Wu 2018, CVPR workshops). The center
built here is therefore D-LinkNet's: a cascade of 3x3 convolutions, whose outputs are all added to
the input.

Chosen:

* `rates`: 1, 2, 4, 8, D-LinkNet's for a center of 32x32 pixels, where the last one sees 31. Images
  of 224 pixels (ResUNet's) give 28x28, those of mtds2021 18x22. An unofficial re-creation has 1, 2,
  4. Without rates the network is `resunet`.
* Batch norm and ReLU come before each convolution, as everywhere in ResUNet, whose sums are not
  activated; D-LinkNet has a ReLU after it and no norm.
* The bridge's own two convolutions stay, as the last stage of D-LinkNet's encoder does.
* Everything else is as in `resunet`, including the defaults of Keras.
"""

from functools import partial

import keras
from keras import layers

from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.models._unets import residual_unet
from keras_medseg.registry import Card, register


def dilated_center(
    x: keras.KerasTensor, rates: tuple[int, ...], *, framework: FrameworkDefaults
) -> keras.KerasTensor:
    """x + f1(x) + f2(f1(x)) + ..., (N, H, W, C) -> (N, H, W, C).

    Each f is batch norm, ReLU and a 3x3 convolution with one of the dilation `rates`.
    """
    # The layers keep the names that saved networks have.
    outputs = [x]
    for number, rate in enumerate(rates, 1):
        name = f"Centre{number}"
        x = batch_norm(x, framework=framework, name=f"{name}_bn")
        x = layers.ReLU(name=f"{name}_relu")(x)
        x = conv(x, x.shape[-1], 3, framework=framework, name=name, dilation_rate=rate)
        outputs.append(x)
    return layers.Add(name="Centre_add")(outputs) if rates else x


@register(
    Card(
        name="dresunet",
        paper="liu2019",
        title="deep residual U-Net with dilated convolutions in its center",
        input_shape=(224, 224, 3),
        parameters=17_674_817,
        moving_statistics=10_496,
        dimensions=2,
        output="sigmoid",
        source="abstract, doi 10.1109/IGARSS.2019.8898392, and D-LinkNet; no public code",
        parity="rebuilt",
        compared_in=("mtds2021",),
        notes="Only the abstract could be read; it gives neither form nor rates of the center. "
        "Here it is D-LinkNet's cascade with rates 1, 2, 4, 8, but with batch norm and ReLU before "
        "each convolution; the rest is as in resunet.",
    )
)
def dresunet(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1,
    rates: tuple[int, ...] = (1, 2, 4, 8),
    upsampling: str | None = None,
    filters: int = 64,
    activation: str = "sigmoid",
    framework: str | FrameworkDefaults = "keras_2_2",
) -> keras.Model:
    """Probabilities (N, H, W, classes) in float32 from images (N, H, W, C).

    Args:
        input_shape: (H, W, C); H and W divisible by 8, or None for any such size.
        classes: output channels.
        rates: dilations of the center's convolutions, in their order.
        upsampling: "nearest", "bilinear" or "transposed_conv"; None is the framework's default.
        filters: channels of the first level; 64 grow to 512 in bridge and center.
        activation: of the output; "sigmoid", "softmax", or "linear" for logits.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: H or W not divisible by 8 (the message gives the next valid shape), an unknown
            choice, or a rate below 1.
    """
    if any(rate < 1 for rate in rates):
        raise ValueError(f"rates: found {tuple(rates)}, expected dilations of 1 or more.")
    return residual_unet(
        "dresunet",
        input_shape,
        classes,
        filters,
        activation,
        framework,
        upsampling=upsampling,
        center=partial(dilated_center, rates=rates),
    )
