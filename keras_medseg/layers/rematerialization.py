"""Gradient checkpointing: activations are computed again for the gradient instead of being kept."""

from collections.abc import Callable
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="keras_medseg")
class Rematerialized(keras.Model):
    """A functional network that keeps only its input for the gradient.

    keras.RematScope does this for single layers, which saves nothing because the input of each is
    the output of another. For a network within a network it raises ValueError (Keras 3.15,
    TensorFlow).
    """

    def call(
        self, inputs: keras.KerasTensor, training: bool | None = None, mask: Any = None
    ) -> keras.KerasTensor:
        # Each call needs its own function: JAX recognizes one that it has traced before, and would
        # take the gradient at the weights of that time.
        def network(x: keras.KerasTensor) -> keras.KerasTensor:
            return super(Rematerialized, self).call(x, training=training, mask=mask)

        return keras.remat(network)(inputs)


def rematerialized(
    block: Callable[..., keras.KerasTensor],
    x: keras.KerasTensor,
    *args: Any,
    name: str,
    **options: Any,
) -> keras.KerasTensor:
    """block(x, *args, name=name, **options), whose activations are computed again for the gradient.

    The block's layers keep their names, inside one layer called `name`. The block must not contain
    batch norm, which would count the batch twice.
    """
    entry = keras.Input(x.shape[1:], dtype=x.dtype)
    network = Rematerialized(entry, block(entry, *args, name=name, **options), name=name)
    return network(x)


def not_rematerialized(
    block: Callable[..., keras.KerasTensor], x: keras.KerasTensor, *args: Any, **options: Any
) -> keras.KerasTensor:
    """block(x, *args, **options): the alternative to `rematerialized` with the same signature."""
    return block(x, *args, **options)
