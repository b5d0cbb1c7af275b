"""Attention U-Net, in the 2-D form that most comparisons retrain.

The network of the repository LeeJunHyun/Image_Segmentation: its U-Net with an attention gate on
each skip. The gating signal is the decoder's own map, already at the skip's resolution; Oktay et
al. 2018 (arXiv 1804.03999) take the map one level below and resample the weights.
"""

import keras

from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.models._unets import LEEJUNHYUN_NAMES, leejunhyun_unet
from keras_medseg.registry import Card, register

ORIGINAL_NAMES = LEEJUNHYUN_NAMES


@register(
    Card(
        name="attention_unet",
        paper="oktay2018",
        title="U-Net with attention gates on the skips",
        input_shape=(224, 224, 3),
        parameters=34_894_197,
        moving_statistics=15_624,
        dimensions=2,
        output="logits",
        source="LeeJunHyun/Image_Segmentation, AttU_Net",
        parity="golden",
        compared_in=(
            "dcabes2020",
            "iacnn",
        ),
        notes="Follows LeeJunHyun's code where it differs from the article: the gating signal is "
        "the decoder's own map at the skip's resolution; the article's is one level below. The "
        "article's network is oktay_attention_unet.",
    )
)
def attention_unet(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1,
    filters: int = 64,
    activation: str = "linear",
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Logits (N, H, W, classes) in float32 from images (N, H, W, C).

    Args:
        input_shape: (H, W, C); H and W divisible by 16, or None for any such size.
            `oktay_attention_unet` takes volumes.
        classes: output channels.
        filters: channels of the first level; 64 grow to 1024 at the bottom.
        activation: of the output; "linear" for the original's logits, "sigmoid", or "softmax".
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: H or W not divisible by 16 (the message gives the next valid shape), or the
            shape of a volume.
    """
    if len(input_shape) == 4:
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected (height, width, channels). For "
            "volumes build 'oktay_attention_unet'."
        )
    return leejunhyun_unet(
        "attention_unet", input_shape, classes, filters, activation, framework, gates=True
    )
