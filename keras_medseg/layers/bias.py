"""A bias per channel without a convolution, as some originals have it."""

from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="keras_medseg")
class ChannelBias(layers.Layer):
    """Adds one learned number, 0 at the start, to each channel; (N, ..., C) -> (N, ..., C)."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.bias = self.add_weight((input_shape[-1],), "zeros", name="bias")

    def call(self, x: Any) -> Any:
        return ops.add(x, self.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape
