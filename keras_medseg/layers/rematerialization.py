"""Gradient checkpointing: activations that are computed twice and kept once."""

from collections.abc import Callable

import keras


@keras.saving.register_keras_serializable(package="keras_medseg")
class Rematerialised(keras.Model):
    """A functional network of which the gradient keeps the input alone.

    keras.RematScope does this for single layers, which saves nothing: each one's input is another
    one's output. For a network within a network it raises ValueError (Keras 3.15, TensorFlow).
    """

    def call(self, inputs, training=None, mask=None):
        # A function of its own for every call: JAX knows one that it has seen before, and would
        # differentiate it at the weights of that time.
        def network(x):
            return super(Rematerialised, self).call(x, training=training, mask=mask)

        return keras.remat(network)(inputs)


def rematerialised(
    block: Callable[..., keras.KerasTensor], x: keras.KerasTensor, *args, name: str, **options
) -> keras.KerasTensor:
    """block(x, *args, name=name, **options), whose activations are computed anew for the gradient.

    The layers are within one that is called `name`, under the names that they would have outside of
    it. No batch norm may be among them: it would count the batch twice.
    """
    entry = keras.Input(x.shape[1:], dtype=x.dtype)
    network = Rematerialised(entry, block(entry, *args, name=name, **options), name=name)
    return network(x)


def plain(
    block: Callable[..., keras.KerasTensor], x: keras.KerasTensor, *args, **options
) -> keras.KerasTensor:
    """block(x, *args, **options), to be chosen in place of `rematerialised`."""
    return block(x, *args, **options)
