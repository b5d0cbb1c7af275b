"""Dropout as in Srivastava et al. 2014 (JMLR 15, section 4), before it was "inverted"."""

import keras
from keras import layers


def plain_dropout(x: keras.KerasTensor, rate: float, *, name: str) -> keras.KerasTensor:
    """In training, values are kept as they are or set to 0; at inference, all times 1 - rate.

    Keras' own is inverted: kept values are divided by 1 - rate in training. Times 1 - rate, it is
    the plain one in both modes.

    Args:
        x: (N, ..., C).
        rate: probability of 0.
        name: of Keras' layer.

    Returns:
        A tensor of the shape of `x`.
    """
    return layers.Dropout(rate, name=name)(x) * (1 - rate)
