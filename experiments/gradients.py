"""The gradients with which a training of a recipe starts, weight by weight."""

from typing import Any, NamedTuple

import keras
import numpy as np

from keras_medseg import losses
from keras_medseg.recipe import Recipe
from keras_medseg.training import fit


class Start(NamedTuple):
    """A trainable weight before the first step.

    Attributes:
        weight: its values.
        gradient: of the loss of one batch by it, of the same shape; a decay is not included.
    """

    weight: np.ndarray
    gradient: np.ndarray

    @property
    def rms(self) -> float:
        """Root of the mean square of the gradient."""
        return float(np.sqrt(np.square(self.gradient, dtype=np.float64).mean()))

    @property
    def median(self) -> float:
        """Median of the absolute gradient."""
        return float(np.median(np.abs(self.gradient)))

    def median_decay(self, l2: float) -> float:
        """Median of l2 |w|, what PyTorch's weight decay adds to the gradient."""
        return float(l2 * np.median(np.abs(self.weight)))

    def share_below(self, limit: float | np.ndarray) -> float:
        """Share of the weights whose absolute gradient is below `limit`."""
        return float((np.abs(self.gradient) < limit).mean())


class GradientsAsWeights(keras.optimizers.Optimizer):
    """Puts the gradient in the place of the weight, which all backends can do."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Overwrite the weight."""
        self.assign(variable, keras.ops.cast(gradient, variable.dtype))


def gradients_at_start(chosen: Recipe, x: np.ndarray, y: np.ndarray) -> dict[str, Start]:
    """Gradients of the recipe's loss at the weights that its seed gives, in training mode.

    Args:
        chosen: the recipe, of a network with one output.
        x: (N, H, W, C) one batch of prepared images.
        y: (N, H, W, targets) their targets.

    Returns:
        Layer -> its kernel. Biases and norms are left out.
    """
    targets = chosen.model.targets[0]
    network, model = fit.compile_network(chosen, targets, channels=x.shape[-1])
    layers = {layer.name: layer for layer in network.layers if hasattr(layer, "kernel")}
    before = {name: np.array(layer.kernel) for name, layer in layers.items()}
    loss = losses.get(chosen.train.loss, **chosen.train.loss_options)
    model.compile(optimizer=GradientsAsWeights(1.0), loss=loss)
    model.train_on_batch(x, y)
    return {name: Start(before[name], np.array(layer.kernel)) for name, layer in layers.items()}
