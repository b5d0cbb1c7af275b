"""U-Net, in the form that most comparisons retrain and in that of the article.

"same" is the network of the repository LeeJunHyun/Image_Segmentation: zero-padded convolutions with
batch norm, up by nearest neighbor and a 3x3 convolution. "valid" is that of Ronneberger, Fischer,
Brox 2015 (MICCAI), figure 1: no padding, no norm, 2x2 up-convolutions, skips cropped to the center.
There, 572x572 pixels give 388x388, and the logits of two classes are `classes=2`.
"""

from functools import partial

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.errors import require_choice
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv, output_conv
from keras_medseg.layers.resampling import require_multiple, transposed_conv
from keras_medseg.models._unets import LEEJUNHYUN_NAMES, leejunhyun_unet
from keras_medseg.registry import Card, register

ORIGINAL_NAMES = LEEJUNHYUN_NAMES


@register(
    Card(
        name="unet",
        paper="ronneberger2015",
        title="U-Net, zero-padded with batch norm, or as in 2015",
        input_shape=(224, 224, 3),
        parameters=34_540_737,
        moving_statistics=13_696,
        dimensions=2,
        output="logits",
        source="LeeJunHyun/Image_Segmentation, U_Net; form='valid': arXiv 1505.04597, figure 1",
        parity="golden",
        compared_in=("dcabes2020", "mtds2021", "csam_knee", "iacnn"),
        notes="The default follows LeeJunHyun's code, not the article: zero-padded, batch norm, up "
        "by nearest neighbor and a 3x3 convolution. form='valid' is the article's figure 1.",
    )
)
def unet(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1,
    form: str = "same",
    filters: int = 64,
    activation: str = "linear",
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Logits (N, H, W, classes) in float32 from images (N, H, W, C).

    Args:
        input_shape: (H, W, C); H and W divisible by 16, or None for any such size. With
            form="valid", sizes such as 572 that halve four times on the way.
        classes: output channels.
        form: "same", or "valid" for the article's, whose output is smaller by 184.
        filters: channels of the first level; 64 grow to 1024 at the bottom.
        activation: of the output; "linear" for the original's logits, "sigmoid", or "softmax".
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: a size that does not fit (the message gives the next valid shape), or an unknown
            choice.
    """
    require_choice("form", form, ("same", "valid"))
    if form == "same":
        return leejunhyun_unet("unet", input_shape, classes, filters, activation, framework)
    # The smallest size, 188 pixels, gives 4; each of the four halvings doubles the step.
    require_multiple(input_shape, 16, offset=188)
    framework = frameworks.get(framework)
    image = keras.Input(input_shape, name="Input")
    x = _features_without_padding(image, filters, framework)
    x = output_conv(x, classes, activation, framework=framework)
    return keras.Model(image, x, name="unet")


def _features_without_padding(
    x: keras.KerasTensor, filters: int, framework: FrameworkDefaults
) -> keras.KerasTensor:
    """Figure 1 of the article without its last layer.

    (N, H, W, C) -> (N, H - 184, W - 184, filters). Weights as in its section 3: Gaussian, variance
    2 / fan-in.
    """
    gaussian = keras.initializers.VarianceScaling(2, "fan_in", "untruncated_normal")
    unpadded = partial(
        conv, framework=framework, padding="valid", activation="relu", kernel_initializer=gaussian
    )

    def block(x: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
        x = unpadded(x, width, 3, name=f"{name}_conv1")
        return unpadded(x, width, 3, name=f"{name}_conv2")

    skips = []
    for number in range(1, 5):
        x = block(x, 2 ** (number - 1) * filters, f"Encode{number}")
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"Down{number}")(x)
    x = block(x, 16 * filters, "Encode5")
    for number in range(5, 1, -1):
        skip = skips.pop()
        # In the figure (64 - 56) / 2, (136 - 104) / 2, (280 - 200) / 2, (568 - 392) / 2.
        margin = 12 * 2 ** (5 - number) - 8
        skip = layers.Cropping2D(margin, name=f"Crop{number}")(skip)
        x = transposed_conv(x, skip.shape[-1], framework=framework, name=f"Up{number}")
        x = layers.Concatenate(name=f"Concat{number}")([skip, x])
        x = block(x, skip.shape[-1], f"Decode{number}")
    return x
