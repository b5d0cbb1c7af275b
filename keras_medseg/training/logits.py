"""Training on logits: a network without the activations of its outputs, on the same weights.

PyTorch's losses take logits, and TensorFlow 2 finds those behind a sigmoid or softmax by itself, so
that a pixel that is sure and wrong still has a gradient of 1; a probability that has rounded to 0
or 1 has none. The networks here put out probabilities, in which all else counts.
"""

from typing import Any

import keras

ACTIVATIONS = ("sigmoid", "softmax")


class BeforeActivation(keras.layers.Layer):
    """The layer that it is given, on the same weights, without its activation.

    Args:
        layer: a layer with an activation, called once.
    """

    def __init__(self, layer: keras.layers.Layer) -> None:
        # float32: a half-precision policy would round what comes as float32.
        super().__init__(name=f"{layer.name}_logits", dtype="float32")
        self.layer = layer
        self.built = True

    def call(self, inputs: Any) -> Any:
        activation = self.layer.activation
        self.layer.activation = keras.activations.linear
        try:
            return self.layer(inputs)
        finally:
            self.layer.activation = activation


def logits_of(network: keras.Model) -> tuple[list[keras.KerasTensor], str]:
    """What the activations of a network's outputs are applied to, and their name.

    Args:
        network: whose outputs all come from a sigmoid, or all from a softmax.

    Returns:
        One (N, ..., C) tensor for each output, for a model on `network.input`; "sigmoid" or
        "softmax".

    Raises:
        ValueError: another activation, or none.
    """
    final = [network.get_layer(name) for name in network.output_names]
    names = {keras.activations.serialize(getattr(x, "activation", None)) for x in final}
    if len(names) > 1 or not names <= set(ACTIVATIONS):
        found = ", ".join(sorted(str(name) for name in names))
        raise ValueError(
            f"train.loss_options.from_logits: {network.name} ends in {found}, expected one of "
            f"{', '.join(ACTIVATIONS)} for all its outputs, such as model.options.activation = "
            f"'sigmoid'."
        )
    return [BeforeActivation(layer)(layer.input) for layer in final], names.pop()
