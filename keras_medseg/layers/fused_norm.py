"""What `normalization.BatchNorm` asks TensorFlow itself for: its fused kernel.

With `replicas.py` the one module of layers/ that is not keras.ops alone. On other backends it says
that there is none, and TensorFlow is not imported.
"""

from typing import Any

import keras
from keras import ops


def fuses(x: Any) -> bool:
    """Whether TensorFlow's fused kernel takes this tensor."""
    if keras.backend.backend() != "tensorflow" or len(x.shape) not in (4, 5):
        return False
    return keras.backend.standardize_dtype(x.dtype) in ("float32", "bfloat16", "float16")


def fused(
    x: Any, scale: Any, shift: Any, mean: Any, variance: Any, epsilon: float
) -> tuple[Any, Any, Any]:
    """Output, mean and unbiased variance by TensorFlow's kernel; without `mean` those of x."""
    import tensorflow as tf  # noqa: PLC0415 - not installed beside other backends

    training = mean is None
    shape = ops.shape(x)
    volume = len(shape) == 5  # the kernel knows 4-D maps only
    maps = tf.reshape(x, (-1, shape[1] * shape[2], *shape[3:])) if volume else x
    # Unless the channels are a multiple of 16, a CPU's kernel is up to ten times as slow in
    # bfloat16 as in float32. The statistics are float32 in both.
    if x.dtype == tf.bfloat16 and x.shape[-1] % 16:
        maps = tf.cast(maps, tf.float32)
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=maps,
        scale=scale,
        offset=shift,
        mean=tf.zeros((0,)) if training else mean,
        variance=tf.zeros((0,)) if training else variance,
        epsilon=epsilon,
        is_training=training,
    )
    y = tf.cast(tf.reshape(y, (-1, *shape[1:])) if volume else y, x.dtype)
    return y, mean, variance
