"""Swin-Unet (tiny), in the structure of the authors' code.

Four encoder stages of window attention, mirrored by the decoder; patches of 4x4 pixels. A stage
whose map is not larger than a window attends to the whole map. As in the code, the bottleneck is
the encoder's fourth stage, with a norm after it, and the last expansion is by 4 in one step. The
settings of the code name other depths for the decoder, (2, 2, 2, 1), but never use them.
"""

from collections.abc import Callable
from functools import partial
from itertools import product

import keras
import numpy as np
from keras import layers

from keras_medseg import frameworks
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv, output_conv
from keras_medseg.layers.dropout import Dropout
from keras_medseg.layers.initialization import with_initializer
from keras_medseg.layers.transformer import (
    WindowAttention,
    dense,
    expand_patches,
    gelu,
    layer_norm,
    merge_patches,
)
from keras_medseg.registry import Card, register

PATCH = 4
HEAD = 32  # channels of a head, in all sizes of the original
Stage = Callable[[keras.KerasTensor, int, str], keras.KerasTensor]  # of map, level, name
ORIGINAL_NAMES = {
    "patch_embed_proj": "patch_embed.proj",
    "patch_embed_norm": "patch_embed.norm",
    **{
        f"{stage}{{n}}_{{m}}_{ours}": f"{stage}.{{n}}.blocks.{{m}}.{theirs}"
        for stage in ("layers", "layers_up")
        for ours, theirs in {
            "norm{k}": "norm{k}",
            "qkv": "attn.qkv",
            "attn": "attn",
            "proj": "attn.proj",
            "fc{k}": "mlp.fc{k}",
        }.items()
    },
    "layers{n}_downsample_norm": "layers.{n}.downsample.norm",
    "layers{n}_downsample_reduction": "layers.{n}.downsample.reduction",
    "layers_up0_expand": "layers_up.0.expand",
    "layers_up0_norm": "layers_up.0.norm",
    "layers_up{n}_upsample_expand": "layers_up.{n}.upsample.expand",
    "layers_up{n}_upsample_norm": "layers_up.{n}.upsample.norm",
    "concat_back_dim{n}": "concat_back_dim.{n}",
    "norm": "norm",
    "norm_up": "norm_up",
    "up_expand": "up.expand",
    "up_norm": "up.norm",
    "output": "output",
}


@register(
    Card(
        name="swin_unet",
        paper="cao2022",
        title="U-shaped network of shifted-window transformers",
        input_shape=(224, 224, 3),
        parameters=27_168_900,
        dimensions=2,
        output="logits",
        source="HuCaoFighting/Swin-Unet, SwinTransformerSys; arXiv 2105.05537",
        parity="golden",
        compared_in=("iacnn",),
        notes="Follows the code: the bottleneck is the encoder's fourth stage with a norm after "
        "it; the decoder mirrors the encoder, because the decoder depths of the settings, (2, 2, "
        "2, 1), are never used. Published results start from the ImageNet weights of Swin-T, in "
        "both halves.",
    )
)
def swin_unet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 9,
    filters: int = 96,
    depths: tuple[int, ...] = (2, 2, 2, 2),
    heads: tuple[int, ...] | None = None,
    window: int = 7,
    drop_path: float = 0.2,
    activation: str = "linear",
    framework: str | FrameworkDefaults = "pytorch",
) -> keras.Model:
    """Logits (N, H, W, classes) in float32 from images (N, H, W, C).

    Args:
        input_shape: (H, W, C); every stage's map (of 4, 8, 16 and 32 pixels) must consist of whole
            windows, as it does where H and W are multiples of 32 * window.
        classes: output channels.
        filters: channels of the first stage ("embed dim"); each stage doubles them.
        depths: blocks of each stage, the same number down and up.
        heads: of each stage. None gives every head 32 channels, as in the original; with fewer
            than 32 filters the first stage has one head, and each stage twice as many.
        window: height and width of a window in patches.
        drop_path: rate at which a sample skips the last encoder block. The rate grows with depth
            from 0 in the first block, and the decoder mirrors it.
        activation: of the output: "linear" for the original's logits, "sigmoid" or "softmax" for
            probabilities, which this package's losses and inference take.
        framework: name or FrameworkDefaults; used for everything that the source leaves open.

    Raises:
        ValueError: a size that does not fit (the message gives the next valid shape), more than 32
            filters that are no multiple of 32 (the message gives the next valid width), heads that
            do not divide the channels, or an unknown framework.
    """
    stage_heads = _heads(heads, filters, depths)
    _require_windows(input_shape, len(depths), window)
    framework = frameworks.get(framework)
    linear = with_initializer(framework, "RandomNormal", stddev=0.02)
    rates = np.split(np.linspace(0, drop_path, sum(depths)), np.cumsum(depths)[:-1])

    def stage(x: keras.KerasTensor, level: int, name: str) -> keras.KerasTensor:
        block = partial(_block, heads=stage_heads[level], window=window, framework=linear)
        for number, rate in enumerate(rates[level]):
            x = block(x, shifted=number % 2 == 1, rate=float(rate), name=f"{name}_{number}")
        return x

    image = keras.Input(input_shape, name="Input")
    embed = partial(conv, strides=PATCH, padding="valid", framework=framework)
    x = embed(image, filters, PATCH, name="patch_embed_proj")
    x = layer_norm(x, framework=framework, name="patch_embed_norm")
    x, skips = _encode(x, stage, len(depths), linear)
    x = layer_norm(x, framework=framework, name="norm")
    x = _decode(x, skips, stage, linear)
    x = layer_norm(x, framework=framework, name="norm_up")
    x = expand_patches(x, PATCH, filters, framework=linear, name="up")
    x = output_conv(x, classes, activation, framework=framework, name="output", use_bias=False)
    return keras.Model(image, x, name="swin_unet")


def _encode(
    x: keras.KerasTensor, stage: Stage, levels: int, framework: FrameworkDefaults
) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
    """The lowest map, and the inputs of the stages above it."""
    skips = []
    for level in range(levels - 1):
        skips.append(x)
        x = stage(x, level, f"layers{level}")
        x = merge_patches(x, framework=framework, name=f"layers{level}_downsample")
    return stage(x, levels - 1, f"layers{levels - 1}"), skips


def _decode(
    x: keras.KerasTensor, skips: list[keras.KerasTensor], stage: Stage, framework: FrameworkDefaults
) -> keras.KerasTensor:
    for number, skip in enumerate(reversed(skips), start=1):
        name = "layers_up0" if number == 1 else f"layers_up{number - 1}_upsample"
        x = expand_patches(x, 2, skip.shape[-1], framework=framework, name=name)
        x = layers.Concatenate(name=f"concat{number}")([x, skip])
        x = dense(x, skip.shape[-1], framework=framework, name=f"concat_back_dim{number}")
        x = stage(x, len(skips) - number, f"layers_up{number}")
    return x


def _block(
    x: keras.KerasTensor,
    heads: int,
    window: int,
    shifted: bool,
    rate: float,
    *,
    framework: FrameworkDefaults,
    name: str,
) -> keras.KerasTensor:
    """x + attention(norm(x)), then x + MLP(norm(x)); Liu et al. 2021, equation (3)."""
    channels, smaller = x.shape[-1], min(x.shape[1:3])
    window, offset = (window, window // 2 * shifted) if smaller > window else (smaller, 0)
    y = layer_norm(x, framework=framework, name=f"{name}_norm1")
    y = dense(y, 3 * channels, framework=framework, name=f"{name}_qkv")
    y = WindowAttention(heads, window, offset, name=f"{name}_attn")(y)
    y = dense(y, channels, framework=framework, name=f"{name}_proj")
    x = _add(x, y, rate, f"{name}_add1")
    y = layer_norm(x, framework=framework, name=f"{name}_norm2")
    y = dense(y, 4 * channels, framework=framework, name=f"{name}_fc1")
    y = dense(gelu(y), channels, framework=framework, name=f"{name}_fc2")
    return _add(x, y, rate, f"{name}_add2")


def _add(x: keras.KerasTensor, y: keras.KerasTensor, rate: float, name: str) -> keras.KerasTensor:
    """x + y, in training without y for a share `rate` of the samples (stochastic depth)."""
    if rate:
        y = Dropout(rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop_path")(y)
    return layers.Add(name=name)([x, y])


def _heads(heads: tuple[int, ...] | None, filters: int, depths: tuple[int, ...]) -> tuple[int, ...]:
    stages = range(len(depths))
    if heads is None:
        if filters > HEAD and filters % HEAD:
            raise ValueError(
                f"filters: found {filters}, expected a multiple of {HEAD}, the channels of a head, "
                f"or fewer. The next valid width is {-(-filters // HEAD) * HEAD}; for other widths "
                f"give heads."
            )
        return tuple(max(1, filters // HEAD) * 2**stage for stage in stages)
    widths = tuple(filters * 2**stage for stage in stages)
    if len(heads) != len(depths) or any(width % number for width, number in zip(widths, heads)):
        raise ValueError(
            f"heads: found {tuple(heads)}, expected one number per stage that divides its channels "
            f"{widths}."
        )
    return tuple(heads)


def _require_windows(input_shape: tuple[int, int, int], stages: int, window: int) -> None:
    if len(input_shape) != 3 or None in input_shape:
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected (height, width, channels), all "
            f"given, because the windows are laid out for one size."
        )
    step = PATCH * 2 ** (stages - 1)
    ranges = []
    for size in input_shape[:2]:
        first = max(1, -(-size // step)) * step
        ranges.append(range(first, first + step * window, step))
    fitting = [size for size in product(*ranges) if _fits(size, stages, window)]
    if tuple(input_shape[:2]) not in fitting:
        nearest = min(fitting, key=sum)
        raise ValueError(
            f"input_shape: found {tuple(input_shape)}, expected a size whose maps at {stages} "
            f"stages consist of whole windows of {window}x{window} patches. The next valid shape "
            f"is {(*nearest, input_shape[2])}."
        )


def _fits(size: tuple[int, ...], stages: int, window: int) -> bool:
    maps = [[length // (PATCH * 2**stage) for length in size] for stage in range(stages)]
    return all(length % min(window, *lengths) == 0 for lengths in maps for length in lengths)
