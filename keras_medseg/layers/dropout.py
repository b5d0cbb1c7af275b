"""Dropout: Keras' own, the same on several devices, and that before it was "inverted"."""

from typing import Any

import keras
from keras import layers, ops

from keras_medseg.layers import replicas


class _OfWholeBatch(layers.Layer):
    """Draws for the whole batch where replicas have parts of it: each takes the draw of its part.

    In Keras the replicas of a tf.distribute strategy draw from one state, so that all parts of a
    batch lose the same values. Nothing else differs: weights, seeds, and every bit on one device.
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        """(N, ..., C) -> (N, ..., C)."""
        if not training or replicas.context() is None:
            return super().call(inputs, training=training)
        first, total = replicas.place(inputs)
        factors = super().call(ops.ones((total, *ops.shape(inputs)[1:]), inputs.dtype), training)
        own = factors[first : first + replicas.count(inputs)]
        return ops.concatenate([inputs[: ops.shape(own)[0]] * own, inputs[ops.shape(own)[0] :]], 0)


@keras.saving.register_keras_serializable("keras_medseg")
class Dropout(_OfWholeBatch, layers.Dropout):
    """Keras' Dropout, drawn for the whole batch."""


@keras.saving.register_keras_serializable("keras_medseg")
class SpatialDropout2D(_OfWholeBatch, layers.SpatialDropout2D):
    """Keras' SpatialDropout2D, which drops whole channels of a map, drawn for the whole batch."""


def plain_dropout(x: keras.KerasTensor, rate: float, *, name: str) -> keras.KerasTensor:
    """In training, values are kept as they are or set to 0; at inference, all times 1 - rate.

    As in Srivastava et al. 2014 (JMLR 15, section 4).

    Keras' own is inverted: kept values are divided by 1 - rate in training. Times 1 - rate, it is
    the plain one in both modes.

    Args:
        x: (N, ..., C).
        rate: probability of 0.
        name: of Keras' layer.

    Returns:
        A tensor of the shape of `x`.
    """
    return Dropout(rate, name=name)(x) * (1 - rate)
