"""DeepMedic, two or three pathways at different resolutions, as in its authors' code.

Kamnitsas et al. 2017 (Medical Image Analysis 36), with the residual connections of BRATS 2016. The
defaults are the configuration of release v0.6 (March 2017), the one of EMMA's time.

    pathway     eight 3x3x3 convolutions without padding: 17 voxels. "Normal" reads the segment,
                "Subsampled" the image around it at every 3rd (5th) voxel
    joined      the maps of a subsampled pathway are repeated 3 (5) times along each axis and cut
                to the size of the normal ones
    classifier  a 3x3x3 convolution, padded by repeating the border voxels, then two of 1x1x1
    block       batch norm, PReLU, dropout (only before the last two), convolution without bias.
                The first of a pathway has a bias for each input channel in place of the first two
    residual    the output of blocks 4, 6 and 8 plus the input of the block before, cut to the
                center; the second of the classifier plus its input. Where there are fewer channels,
                zeros follow them

Batch norm has no epsilon and averages over the last 60 batches; dropout is not inverted.

The image is read in one of three forms:

    "same"      an image of any size -> as many voxels. Padded as the original does it, by
                reflection; what a subsampled pathway reads further outside is the mean of the eight
                corners. The original cuts an image into segments, whose borders the classifier
                pads; here the image is one segment.
    "valid"     a segment with all that the subsampled pathways read around it -> its center
    "segments"  the segment, and one sampled around it for each further pathway -> its center

A subsampled pathway starts 8 * (factor - 1) voxels before the segment. At the border of an image,
the original starts at the first voxel instead and fills up whole samples before it, which moves its
samples by up to factor - 1 voxels: so does "same".
"""

from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_medseg import frameworks
from keras_medseg.errors import require_choice
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.bias import ChannelBias
from keras_medseg.layers.convolution import conv
from keras_medseg.layers.dropout import plain_dropout
from keras_medseg.layers.initialization import he_normal
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.layers.padding import constant_padded, edge_padded, reflected
from keras_medseg.layers.resampling import require_at_least
from keras_medseg.layers.residual import fitted_identity
from keras_medseg.registry import Card, register

FORMS = ("same", "valid", "segments")
DEPTH = 8  # blocks of a pathway
RESIDUAL = (4, 6, 8)
REACH = DEPTH  # voxels that a pathway reads beyond its output, on every side
_PARTS = {"bn": "bn", "prelu": "prelu", "bias": "input_bias", "conv": "conv"}
# The original's names are by position, from 0.
ORIGINAL_NAMES = {
    **{
        f"{ours}{n}_{part}": f"{theirs}.{n - 1}.{module}"
        for ours, theirs, depth in (
            ("Normal_", "normal", DEPTH),
            ("Subsampled{k}_", "subsampled{k}", DEPTH),
            ("Classify_", "fc", 3),
        )
        for n in range(1, depth + 1)
        for part, module in _PARTS.items()
    },
    "Scores": "softmax",
}


@register(
    Card(
        name="deepmedic",
        paper="kamnitsas2017",
        title="DeepMedic with residual connections, two or three resolutions",
        input_shape=(25, 25, 25, 4),
        parameters=1_167_692,
        moving_statistics=114_680,
        dimensions=3,
        output="logits",
        source="deepmedic/deepmedic, Cnn3d, modelConfig.cfg of v0.6; 10.1016/j.media.2016.10.004",
        parity="golden",
        compared_in=("dcabes2020",),
        notes="The goldens are of today's code, also in v0.6's configuration: that one, for Theano "
        "and Python 2, was read, not run. They prove forms 'segments' and 'valid'; the padding of "
        "'same' follows the code and has none. Inferred: that EMMA used v0.6. Today's: "
        "factors=(3, 5), fc_widths=(250, 250). The parameters include what each batch norm keeps "
        "of the last 60 batches.",
    )
)
def deepmedic(
    input_shape: tuple[int, int, int, int] = (25, 25, 25, 4),
    classes: int = 4,
    form: str = "same",
    factors: tuple[int, ...] = (3,),
    widths: tuple[int, ...] = (30, 30, 40, 40, 40, 40, 50, 50),
    fc_widths: tuple[int, int] = (150, 150),
    activation: str = "linear",
    framework: str | FrameworkDefaults = "tensorflow_2",
) -> keras.Model:
    """Logits in float32 from images or segments (N, X, Y, Z, C).

    With form="same" (N, X, Y, Z, classes); else smaller, by 16 with "segments", by 16 times the
    largest factor with "valid".

    Args:
        input_shape: (X, Y, Z, C) of the image, or of the segment of the normal pathway with
            form="segments"; 25 are v0.6's segments in training, 45 at inference.
        classes: output channels, including the background's.
        form: "same", "valid" or "segments", as above. With "segments" the inputs are a list, the
            further ones with ceil((size - 16) / factor) + 16 voxels along each axis.
        factors: of the subsampled pathways, odd numbers: (3,), or (3, 5) as today.
        widths: channels of the eight blocks, the same in every pathway.
        fc_widths: channels of the classifier's first two blocks.
        activation: of the output; "linear" for the logits, "softmax", or "sigmoid".
        framework: name or FrameworkDefaults; the original decides all that it would.

    Raises:
        ValueError: a size that is too small (the message gives the next valid shape) or not known,
            or an option out of its range.
    """
    _check_options(form, factors, widths, fc_widths)
    _check_shape(input_shape, form, factors)
    framework = _of_deepmedic(frameworks.get(framework))
    inputs, segments = _INPUTS[form](tuple(input_shape), factors)
    pathway = partial(_pathway, widths=widths, framework=framework)
    normal = pathway(segments[0], name="Normal")
    maps = [normal]
    for number, (segment, factor) in enumerate(zip(segments[1:], factors), 1):
        x = pathway(segment, name=f"Subsampled{number}")
        x = layers.UpSampling3D(factor, name=f"Subsampled{number}_repeat")(x)
        maps.append(x[:, : normal.shape[1], : normal.shape[2], : normal.shape[3]])
    x = layers.Concatenate(name="Join")(maps)
    x = _classifier(x, fc_widths, classes, framework)
    x = layers.Activation(activation, dtype="float32", name="Output")(x)
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], x, name="deepmedic")


def _of_deepmedic(framework: FrameworkDefaults) -> FrameworkDefaults:
    """Kernels from N(0, 2 / fan-in); the batch norm of neuralnet/layers.py."""
    return replace(
        he_normal(framework, "fan_in"),
        norm_epsilon=float(np.finfo("float32").tiny),
        norm_variance="biased",
        norm_average="window",
    )


def _block(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    framework: FrameworkDefaults,
    name: str,
    first: bool = False,
    dropout: float = 0.0,
    padded: bool = False,
    dtype: str | None = None,
) -> keras.KerasTensor:
    """Batch norm, PReLU, dropout, convolution; as the `first` of a pathway, bias, convolution.

    Args:
        x: (N, X, Y, Z, C).
        filters: channels of the output.
        kernel_size: of the convolution.
        framework: gives initializers and the batch norm's constants.
        name: prefix of the layers.
        first: whether it reads an image.
        dropout: rate.
        padded: whether border voxels are repeated so that the size remains.
        dtype: of the convolution.

    Returns:
        (N, X - kernel_size + 1, ..., filters), or (N, X, ..., filters) if padded.
    """
    if first:
        x = ChannelBias(name=f"{name}_bias")(x)
    else:
        x = batch_norm(x, framework=framework, name=f"{name}_bn")
        slope = keras.initializers.Constant(0.01)
        x = layers.PReLU(slope, shared_axes=(1, 2, 3), name=f"{name}_prelu")(x)
    if dropout:
        x = plain_dropout(x, dropout, name=f"{name}_dropout")
    if padded:
        x = edge_padded(x, name=f"{name}_pad")
    options: dict[str, Any] = dict(padding="valid", use_bias=False, dtype=dtype)
    return conv(x, filters, kernel_size, framework=framework, name=f"{name}_conv", **options)


def _pathway(
    x: keras.KerasTensor, widths: tuple[int, ...], *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """(N, X, Y, Z, C) -> (N, X - 16, Y - 16, Z - 16, widths[-1])."""
    maps = [x]
    for number, width in enumerate(widths, 1):
        x = _block(
            maps[-1], width, 3, framework=framework, name=f"{name}_{number}", first=number == 1
        )
        if number in RESIDUAL:
            earlier = layers.Cropping3D(2, name=f"{name}_{number}_crop")(maps[-2])
            x = layers.Add(name=f"{name}_{number}_add")([x, fitted_identity(earlier, width)])
        maps.append(x)
    return x


def _classifier(
    x: keras.KerasTensor, widths: tuple[int, int], classes: int, framework: FrameworkDefaults
) -> keras.KerasTensor:
    """(N, X, Y, Z, C) -> logits (N, X, Y, Z, classes)."""
    block = partial(_block, framework=framework)
    y = block(x, widths[0], 3, name="Classify_1", padded=True)
    y = block(y, widths[1], 1, name="Classify_2", dropout=0.5)
    y = layers.Add(name="Classify_2_add")([y, fitted_identity(x, widths[1])])
    y = block(y, classes, 1, name="Classify_3", dropout=0.5, dtype="float32")
    return ChannelBias(dtype="float32", name="Scores")(y)


def _from_segments(
    shape: tuple[int, ...], factors: tuple[int, ...]
) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
    """An input for each pathway."""
    *sizes, channels = shape
    inputs = [keras.Input(shape, name="Input")]
    for number, factor in enumerate(factors, 1):
        lower = [-(-(size - 2 * REACH) // factor) + 2 * REACH for size in sizes]
        inputs.append(keras.Input((*lower, channels), name=f"Subsampled{number}_input"))
    return inputs, inputs


def _from_context(
    shape: tuple[int, ...], factors: tuple[int, ...]
) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
    """One image; the segment is its center, the others begin further outside."""
    image = keras.Input(shape, name="Input")
    segments = []
    for factor in (1, *factors):
        start = REACH * (max(factors) - factor)
        inner = slice(start, -start or None, factor)
        segments.append(image[:, inner, inner, inner])
    return [image], segments


def _from_image(
    shape: tuple[int, ...], factors: tuple[int, ...]
) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
    """One image, padded by the original's rules."""
    image = keras.Input(shape, name="Input")
    padded = reflected(image, REACH)
    # The first and the last voxel of each axis.
    corners = padded[:, :: shape[0] + 2 * REACH - 1, :: shape[1] + 2 * REACH - 1]
    corners = corners[:, :, :, :: shape[2] + 2 * REACH - 1]
    outside = ops.mean(corners, axis=(1, 2, 3), keepdims=True)
    segments = [padded]
    for factor in factors:
        samples = padded[:, ::factor, ::factor, ::factor]
        before = REACH * (factor - 1) // factor
        margins = []
        for size, found in zip(shape[:-1], samples.shape[1:-1]):
            margins.append((before, -(-size // factor) + 2 * REACH - found - before))
        segments.append(constant_padded(samples, outside, margins))
    return [image], segments


_INPUTS = {"same": _from_image, "valid": _from_context, "segments": _from_segments}


def _check_options(
    form: str, factors: tuple[int, ...], widths: tuple[int, ...], fc_widths: tuple[int, ...]
) -> None:
    require_choice("form", form, FORMS)
    if not 1 <= len(factors) <= 2 or any(factor < 3 or factor % 2 == 0 for factor in factors):
        raise ValueError(f"factors: found {factors}, expected one or two odd numbers from 3 on.")
    for option, found, count in (("widths", widths, DEPTH), ("fc_widths", fc_widths, 2)):
        if len(found) != count or min(found) < 1:
            raise ValueError(f"{option}: found {found}, expected {count} numbers of channels.")


def _check_shape(shape: tuple[int | None, ...], form: str, factors: tuple[int, ...]) -> None:
    # Reflection needs a voxel more than its width; the other forms leave one voxel at least.
    least = {
        "same": REACH + 1,
        "valid": 2 * REACH * max(factors) + 1,
        "segments": 2 * REACH + 1,
    }[form]
    require_at_least(shape, least, dimensions=3)
    if None in shape:
        raise ValueError(f"input_shape: found {shape}, expected a size for every axis.")
