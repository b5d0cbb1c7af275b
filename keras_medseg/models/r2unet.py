"""R2U-Net: the U-Net with recurrent residual blocks of Alom et al. 2018 (arXiv 1802.06955).

The network of the repository LeeJunHyun/Image_Segmentation. The article has separate feed-forward
and recurrent weights; in the repository, as here, one convolution serves as both.
"""

import keras

from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.models._unets import LEEJUNHYUN_NAMES, leejunhyun_unet
from keras_medseg.registry import Card, register

ORIGINAL_NAMES = LEEJUNHYUN_NAMES


@register(
    Card(
        name="r2unet",
        paper="alom2018",
        title="recurrent residual U-Net",
        input_shape=(224, 224, 3),
        parameters=39_105_089,
        moving_statistics=13_696,
        dimensions=2,
        output="logits",
        source="LeeJunHyun/Image_Segmentation, R2U_Net",
        parity="golden",
        notes="Follows LeeJunHyun's code where it differs from the article: one convolution serves "
        "as feed-forward and as recurrent weights, which the article keeps separate. t=2 is the "
        "article's; the code's script sets 3.",
    )
)
def r2unet(
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
    return leejunhyun_unet("r2unet", input_shape, classes, filters, activation, framework, t=t)
