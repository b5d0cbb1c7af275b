"""R2 Attention U-Net: recurrent residual blocks and attention gates.

A network of the repository LeeJunHyun/Image_Segmentation without its own article: the R2U-Net with
the gates of the Attention U-Net.
"""

import keras

from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.models._unets import LEEJUNHYUN_NAMES, leejunhyun_unet
from keras_medseg.registry import Card, register

ORIGINAL_NAMES = LEEJUNHYUN_NAMES


@register(
    Card(
        name="r2attention_unet",
        paper="LeeJunHyun",
        title="recurrent residual U-Net with attention gates on the skips",
        input_shape=(224, 224, 3),
        parameters=39_458_549,
        moving_statistics=15_624,
        dimensions=2,
        output="logits",
        source="LeeJunHyun/Image_Segmentation, R2AttU_Net",
        parity="golden",
        notes="Has no article of its own; follows LeeJunHyun's code: recurrent weights shared with "
        "the feed-forward ones as in r2unet, gates as in attention_unet.",
    )
)
def r2attention_unet(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1,
    t: int = 2,
    filters: int = 64,
    activation: str = "linear",
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Logits (N, H, W, classes) in float32 from images (N, H, W, C).

    Args:
        input_shape: (H, W, C); H and W divisible by 16, or None for any such size.
        classes: output channels.
        t: how often each unit feeds its output back; its convolution is applied t + 1 times.
            The article's 2; the script of the repository sets 3.
        filters: channels of the first level; 64 grow to 1024 at the bottom.
        activation: of the output; "linear" for the original's logits, "sigmoid", or "softmax".
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: H or W not divisible by 16; the message gives the next valid shape.
    """
    return leejunhyun_unet(
        "r2attention_unet", input_shape, classes, filters, activation, framework, t=t, gates=True
    )
