"""The 3-D FusionNet under MC and OM-Net, as in the prototxts of chenhong-zhou/OM-Net.

Four levels of 32, 64, 128, 256 channels, max pooling, 2x2x2 transposed convolutions; a skip is
added, and no ReLU follows. A unit is a 3x3x3 convolution, batch norm, ReLU; a residual block

    x = unit(input);  output = relu(x + norm(conv(unit(unit(x)))))

Each level has one block and one unit, but for the last of the decoder, whose unit belongs to the
head. Batch norm and initializers are those of Caffe and the prototxts.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import keras
from keras import layers

from keras_medseg import frameworks
from keras_medseg.frameworks import FrameworkDefaults
from keras_medseg.layers.convolution import conv, conv_bn_relu
from keras_medseg.layers.dropout import Dropout
from keras_medseg.layers.initialization import he_normal
from keras_medseg.layers.normalization import batch_norm
from keras_medseg.layers.resampling import max_pool, transposed_conv

LEVELS = 4
# The original counts levels from 0; "d" is down, "u" is up. Caffe's BatchNorm and Scale layers
# are one module.
_BLOCKS = {
    **{f"Encode{n}": f"d{n - 1}a-b" for n in (1, 2, 3, 4)},
    **{f"Decode{n}": f"u{n - 1}b-c" for n in (1, 2, 3)},
}
_UNITS = {
    **{f"Encode{n}_out": f"d{n - 1}b-c" for n in (1, 2, 3, 4)},
    **{f"Decode{n}_out": f"u{n - 1}c-d" for n in (2, 3)},
}
FUSIONNET_NAMES = {
    **{f"{ours}_in": f"conv_{theirs}" for ours, theirs in _BLOCKS.items()},
    **{f"{ours}_in_bn": f"conv_{theirs}_bn" for ours, theirs in _BLOCKS.items()},
    **{f"{ours}_res{{n}}": f"conv_{theirs}_res_{{n}}" for ours, theirs in _BLOCKS.items()},
    **{f"{ours}_res{{n}}_bn": f"conv_{theirs}_bn_res{{n}}" for ours, theirs in _BLOCKS.items()},
    **{ours: f"conv_{theirs}" for ours, theirs in _UNITS.items()},
    **{f"{ours}_bn": f"conv_{theirs}_bn" for ours, theirs in _UNITS.items()},
    **{f"Up{n}": f"upconv_u{n}d_u{n - 1}a" for n in (1, 2, 3)},
    **{f"Up{n}_bn": f"upconv_u{n}d_u{n - 1}a_bn" for n in (1, 2, 3)},
    "Task{n}_conv": "conv_u0c-d_{n}",
    "Task{n}_conv_bn": "conv_u0c-d_bn_{n}",
    "Task{n}_score": "score_task{n}",
}


def of_caffe(framework: str | FrameworkDefaults) -> FrameworkDefaults:
    """`framework` with Caffe's batch norm and the initializers of the prototxts.

    Kernels from N(0, 2 / fan-in) ("msra"), biases 0.1.
    """
    return replace(
        he_normal(frameworks.get(framework), "fan_in"),
        bias_initializer={"class_name": "Constant", "config": {"value": 0.1}},
        norm_momentum=0.999,
        norm_epsilon=1e-5,
        norm_variance="unbiased",
        norm_average="debiased",
    )


def fusionnet(
    image: keras.KerasTensor, filters: int, framework: FrameworkDefaults
) -> keras.KerasTensor:
    """(N, D, H, W, C) -> (N, D, H, W, filters), the features that the heads see."""
    unit = partial(conv_bn_relu, kernel_size=3, framework=framework)
    block = partial(_residual_block, framework=framework)
    x, skips = image, []
    for level in range(1, LEVELS + 1):
        # The first convolution's bias is the only one that starts at 0.
        first: dict[str, Any] = {"bias_initializer": "zeros"} if level == 1 else {}
        x = block(x, 2 ** (level - 1) * filters, name=f"Encode{level}", **first)
        x = unit(x, x.shape[-1], name=f"Encode{level}_out")
        if level < LEVELS:
            skips.append(x)
            x = max_pool(x, 2, name=f"Pool{level}")
    x = Dropout(0.5, name="Dropout")(x)
    for level in range(LEVELS - 1, 0, -1):
        skip = skips.pop()
        x = transposed_conv(x, skip.shape[-1], framework=framework, name=f"Up{level}")
        x = batch_norm(x, framework=framework, name=f"Up{level}_bn")
        x = layers.ReLU(name=f"Up{level}_relu")(x)
        x = layers.Add(name=f"Fuse{level}")([x, skip])
        x = block(x, skip.shape[-1], name=f"Decode{level}")
        if level > 1:
            x = unit(x, skip.shape[-1], name=f"Decode{level}_out")
    return x


def head(
    x: keras.KerasTensor, classes: int, *, framework: FrameworkDefaults, name: str, score: str
) -> keras.KerasTensor:
    """A unit and a 1x1x1 convolution with bias; (N, D, H, W, C) -> logits (N, D, H, W, classes)."""
    x = conv_bn_relu(x, x.shape[-1], 3, framework=framework, name=f"{name}_conv")
    return conv(x, classes, 1, framework=framework, name=f"{name}_{score}", dtype="float32")


def _residual_block(
    x: keras.KerasTensor, filters: int, *, framework: FrameworkDefaults, name: str, **options: Any
) -> keras.KerasTensor:
    """As above; `options` are of the first convolution. (N, D, H, W, C) -> (..., filters)."""
    x = conv(x, filters, 3, framework=framework, name=f"{name}_in", **options)
    x = batch_norm(x, framework=framework, name=f"{name}_in_bn")
    x = layers.ReLU(name=f"{name}_in_relu")(x)
    unit = partial(conv_bn_relu, filters=filters, kernel_size=3, framework=framework)
    y = unit(x, name=f"{name}_res1")
    y = unit(y, name=f"{name}_res2")
    y = unit(y, name=f"{name}_res3", activation=False)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))
