"""Integrated attention CNN of iacnn, to be read beside its Figures 1 to 4 and equations (1) to (8).

The text fixes five convolution stages that halve the size, five deconvolution stages that restore
it, skips, one SFA, three times SA + CA (the labels of Figure 1), and formulas for the three
modules. The drawings are lost. The following points are open; we chose:

* Five halvings, not a U-Net's four, because five deconvolutions are to restore the size.
* `filters`: 16 to 256 channels, as in CA-Net (Gu et al. 2021), the most similar network, which also
  consists of attention to positions, channels and scales. 64 to 1024 channels would have 95 million
  parameters, almost three times those of the U-Net that it is compared with.
* A stage is that of the U-Net that it is compared with: 3x3 convolution, batch norm, ReLU, twice.
  The deconvolution is 2x2; concatenation [skip, up].
* `sfa_place`: "in the encoder" (section 1.1), and in Figure 1 once, between the encoder and the
  first SA + CA: at the bottom of the encoder. "stages" puts one on each of the five stages; "skip"
  on the second skip, so that SFA and the three SA + CA are on the four deeper skips.
* `attention_place`: SA, then CA, on the three deeper skips. The text justifies CA by the content of
  the encoder's and the decoder's channels: "split" leaves SA on the skip and lets CA weight the
  concatenation of skip and up-sampled map; "joined" puts both there; "sa" and "ca" leave the other
  one out.
* `spatial_reading`: of x x^T, which the text calls spatial attention "in a global view", with a
  weight for "every feature map". "positions" compares all pixels of a map with each other; for a
  batch of 16 one such matrix takes 0.07 GB on a map of 32x32 pixels, 1.1 on 64x64, 17 on 128x128.
  "channels" compares maps with each other, "rows" the rows of one map; both fit everywhere.
  "by_stage" is "channels" on the third stage and "positions" on the fourth and the fifth, whatever
  the size of the image, so that runs on smaller images train the same network.
* `spatial_scale`: "none" is equation (6) as printed, "mean" divides alpha x by the number of summed
  terms, as the non-local block of Wang et al. 2018 does. We depart from the equation, because the
  printed module starves everything below it: SA gets maps behind a ReLU, so no product is negative,
  alpha is at least 1/2 and soon 1, and the same sum over all pixels is added to every pixel (256
  times the mean of a map of 16x16). The batch norm after the concatenation divides by that sum, and
  what comes up from below is divided with it, once per attended stage. At initialization, 256x256
  pixels, the gradients of SFA and of the deconvolution above it are four to five orders below the
  1e-5 w of the paper's L2 term; Adam then moves these weights towards 0 at the full learning rate,
  whatever the images show. So as printed the network cannot use its lowest level under the printed
  optimizer. experiments/iacnn/results/arms has the runs.
* `ratio`: 16, as in CBAM; equation (7) is CBAM's channel gate except for a printed comma. Both
  pooled vectors pass the same MLP, as there.
* SFA as printed: convolutions with nothing between them.
"""

from collections.abc import Callable
from functools import partial

import keras
from keras import layers, ops

from keras_medseg import frameworks
from keras_medseg.errors import require_choice
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.attention import channel_gate
from keras_medseg.layers.convolution import conv, output_conv
from keras_medseg.layers.resampling import require_multiple, transposed_conv
from keras_medseg.models._unets import double_conv
from keras_medseg.registry import Card, register

STAGES = 5
ATTENDED = (3, 4, 5)
MAX_POSITIONS = 64 * 64
SFA_PLACES = ("bottom", "stages", "skip", "none")
SFA_SKIP = 2
BY_STAGE = {3: "channels", 4: "positions", 5: "positions"}
SPATIAL_READINGS = ("by_stage", "positions", "channels", "rows")
SCALES = ("none", "mean")
Weights = Callable[[keras.KerasTensor], keras.KerasTensor]
# Input of each module: the skip, or the concatenation of skip and up-sampled map.
ATTENTION_PLACES = {
    "skips": {"SA": "skip", "CA": "skip"},
    "split": {"SA": "skip", "CA": "joined"},
    "joined": {"SA": "joined", "CA": "joined"},
    "sa": {"SA": "skip"},
    "ca": {"CA": "skip"},
    "none": {},
}


def scale_features(
    x: keras.KerasTensor, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """SFA, equations (1) to (4): conv3(conv3(conv1(x))) + conv3(conv1(x)) + conv1(x).

    Despite its name it has no attention weights. (N, H, W, C) -> (N, H, W, C).
    """
    branches = []
    for number, kernel_sizes in enumerate([(1, 3, 3), (1, 3), (1,)], 1):
        branch = x
        for place, size in enumerate(kernel_sizes, 1):
            part = f"{name}_B{number}_conv{place}"
            branch = conv(branch, x.shape[-1], size, framework=framework, name=part)
        branches.append(branch)
    return layers.Add(name=name)(branches)


def spatial_attention(
    x: keras.KerasTensor, *, reading: str, scale: str, name: str
) -> keras.KerasTensor:
    """SA, equations (5) and (6): x + alpha x with alpha = sigmoid(x x^T).

    The matrix x has one row per pixel ("positions"), one per channel ("channels"), or, in each
    channel, one per row of the map ("rows"). (N, H, W, C) -> (N, H, W, C).

    Args:
        x: the map.
        reading: one of READINGS.
        scale: "none", as printed, adds sums over up to 4096 pixels, so mixed_float16 may overflow;
            "mean" divides alpha by the number of summed terms.
        name: of the sum; the weights before any division are <name>_sigmoid.

    Raises:
        ValueError: unknown reading or scale, or "positions" on a map of unknown size or of more
            than 64x64 pixels.
    """
    require_choice("spatial_reading", reading, READINGS)
    require_choice("spatial_scale", scale, SCALES)
    sigmoid = layers.Activation("sigmoid", name=f"{name}_sigmoid")
    weights = _mean_of(sigmoid) if scale == "mean" else sigmoid
    return layers.Add(name=name)([x, READINGS[reading](x, weights)])


def _mean_of(sigmoid: Weights) -> Weights:
    def weights(products: keras.KerasTensor) -> keras.KerasTensor:
        # Counted at run time where the number of rows is unknown.
        terms = products.shape[-1] or ops.sum(ops.ones_like(products), axis=-1, keepdims=True)
        return sigmoid(products) / terms

    return weights


def _positions(x: keras.KerasTensor, weights: Weights) -> keras.KerasTensor:
    height, width, channels = x.shape[1:]
    if None in (height, width) or height * width > MAX_POSITIONS:
        raise ValueError(
            f"spatial_reading: found 'positions' on a map of {height}x{width} pixels, expected at "
            f"most {MAX_POSITIONS}, because it compares all pairs. Take a smaller input_shape, or "
            "'channels' or 'rows'."
        )
    pixels = ops.reshape(x, (-1, height * width, channels))
    alpha = weights(ops.matmul(pixels, ops.swapaxes(pixels, 1, 2)))
    return ops.reshape(ops.matmul(alpha, pixels), (-1, height, width, channels))


def _channels(x: keras.KerasTensor, weights: Weights) -> keras.KerasTensor:
    # One product per row of pixels, then their sum, so that H and W may be unknown.
    products = ops.matmul(ops.swapaxes(x, 2, 3), x)
    alpha = weights(ops.sum(products, axis=1, keepdims=True))
    return ops.matmul(x, alpha)


def _rows(x: keras.KerasTensor, weights: Weights) -> keras.KerasTensor:
    maps = ops.transpose(x, (0, 3, 1, 2))
    alpha = weights(ops.matmul(maps, ops.swapaxes(maps, 2, 3)))
    return ops.transpose(ops.matmul(alpha, maps), (0, 2, 3, 1))


READINGS = {"positions": _positions, "channels": _channels, "rows": _rows}


def channel_attention(
    x: keras.KerasTensor, *, ratio: int, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """CA, equations (7) and (8): x + beta x with beta = sigmoid(MLP(max pool) + MLP(mean pool)).

    (N, H, W, C) -> (N, H, W, C).
    """
    return layers.Add(name=name)([x, channel_gate(x, framework=framework, name=name, ratio=ratio)])


@register(
    Card(
        name="integrated_attention_cnn",
        paper="iacnn",
        title="CNN with scale features, spatial and channel attention",
        input_shape=(256, 256, 3),
        parameters=5_960_269,
        moving_statistics=3_968,
        dimensions=2,
        output="sigmoid",
        source="iacnn, section 1.1, Figures 1 to 4, equations (1) to (8)",
        parity="rebuilt",
        compared_in=("iacnn",),
        notes="The drawings are lost. Chosen where the text is silent: widths of 16 to 256, twice "
        "3x3 convolution, batch norm and ReLU per stage, SFA at the bottom of the encoder, SA and "
        "CA on the three deeper skips, and the meaning of SA's x x^T (spatial_reading). SA's sums "
        "are divided by the number of terms, which the paper does not do: spatial_scale='none' is "
        "as printed, and starves the lowest level.",
    )
)
def integrated_attention_cnn(
    input_shape: tuple[int | None, int | None, int] = (256, 256, 3),
    classes: int = 1,
    sfa_place: str = "bottom",
    attention_place: str = "skips",
    spatial_reading: str = "by_stage",
    spatial_scale: str = "mean",
    ratio: int = 16,
    filters: int = 16,
    activation: str = "sigmoid",
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Probabilities (N, H, W, classes) in float32 from images (N, H, W, C); iacnn, section 1.1.

    Args:
        input_shape: (H, W, C); H and W divisible by 32. None, for any such size, goes with the
            spatial readings "channels" and "rows", not with the default.
        classes: output channels.
        sfa_place: SFA at the "bottom", on all "stages", on the second "skip", or "none".
        attention_place: SA and CA on the three deeper "skips"; "split" for CA after the
            concatenation, "joined" for both there; "sa" or "ca" for one on the skips; "none".
        spatial_reading: of SA's x x^T: "positions", "channels", "rows", or "by_stage".
        spatial_scale: of SA's alpha x: "none" as printed, or "mean" over the summed terms.
        ratio: of the channels to the hidden units of CA.
        filters: channels of the first stage; 16 grow to 256 in the fifth.
        activation: of the output; "sigmoid", "softmax", or "linear" for logits.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: H or W not divisible by 32 (the message gives the next valid shape), too large
            for "positions" or unknown to it, or an unknown choice.
    """
    require_multiple(input_shape, 2**STAGES)
    require_choice("sfa_place", sfa_place, SFA_PLACES)
    require_choice("attention_place", attention_place, ATTENTION_PLACES)
    require_choice("spatial_reading", spatial_reading, SPATIAL_READINGS)
    require_choice("spatial_scale", spatial_scale, SCALES)
    framework = frameworks.get(framework)

    spatial = partial(_spatial_attention_of, reading=spatial_reading, scale=spatial_scale)
    channel = partial(channel_attention, ratio=ratio, framework=framework)

    def attend(x: keras.KerasTensor, place: str, stage: int) -> keras.KerasTensor:
        places = ATTENTION_PLACES[attention_place] if stage in ATTENDED else {}
        x = spatial(x, stage) if places.get("SA") == place else x
        x = channel(x, name=f"CA{stage}") if places.get("CA") == place else x
        if (sfa_place, place, stage) == ("skip", "skip", SFA_SKIP):
            x = scale_features(x, framework=framework, name="SFA")
        return x

    image = keras.Input(input_shape, name="Input")
    x, skips = _encoder(image, filters, sfa_place, framework)
    for stage in range(STAGES, 0, -1):
        skip = attend(skips.pop(), "skip", stage)
        x = transposed_conv(x, skip.shape[-1], framework=framework, name=f"Up{stage}")
        x = layers.Concatenate(name=f"Concat{stage}")([skip, x])
        x = attend(x, "joined", stage)
        x = double_conv(x, skip.shape[-1], framework=framework, name=f"Decode{stage}")
    x = output_conv(x, classes, activation, framework=framework)
    return keras.Model(image, x, name="integrated_attention_cnn")


def _spatial_attention_of(
    x: keras.KerasTensor, stage: int, *, reading: str, scale: str
) -> keras.KerasTensor:
    reading = BY_STAGE[stage] if reading == "by_stage" else reading
    return spatial_attention(x, reading=reading, scale=scale, name=f"SA{stage}")


def _encoder(
    x: keras.KerasTensor, filters: int, sfa_place: str, framework: FrameworkDefaults
) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
    """(N, H, W, C) -> (N, H / 32, W / 32, 16 * filters), and the map of each stage."""
    skips = []
    for stage in range(1, STAGES + 1):
        x = double_conv(x, 2 ** (stage - 1) * filters, framework=framework, name=f"Encode{stage}")
        if sfa_place == "stages":
            x = scale_features(x, framework=framework, name=f"SFA{stage}")
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"Down{stage}")(x)
    if sfa_place == "bottom":
        x = scale_features(x, framework=framework, name="SFA")
    return x, skips
