"""Augmentation inside the training step, on the accelerator, as with DALI in fmnet2023.

The input pipeline then sends unchanged crops, and for each sample the parameters of its
augmentation: `PatchBatches(..., augment=False)`.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_medseg.data.transforms import augment_volumes


class AugmentedModel(keras.Model):
    """A model that augments its crops, then calls a network; it shares the network's weights.

    Fit and evaluate it on x = (crops (N, X, Y, Z, C), parameters (N, 12)) and y (N, X, Y, Z, R) of
    `PatchBatches(augment=False)`; loss and metrics see the augmented targets. Up to rounding in
    float32 this equals fitting `network` on the batches with augment=True. The model is for
    training only; save and use `network` afterwards.

    Args:
        network: crops -> probabilities, its outputs concatenated along the channels.
        augmentation: as in `PatchBatches`.

    The dtype policy of the model is float32, so `compile` adds no loss scale for a float16 network:
    pass a `keras.optimizers.LossScaleOptimizer`, as `training.fit.compile_network` does.

    Raises:
        ValueError: as `augment_volumes.with_defaults`.
    """

    def __init__(self, network: keras.Model, augmentation: Mapping[str, Mapping]) -> None:
        # float32: a half-precision policy would round crops and parameters.
        super().__init__(name=f"augmented_{network.name}", dtype="float32")
        self.network = network
        self.augmentation = augment_volumes.with_defaults(augmentation)

    def call(self, inputs: tuple[Any, Any], training: bool | None = None) -> Any:
        crops, parameters = inputs
        crops = augment_volumes.augment_image(ops, crops, parameters, self.augmentation)
        return self.network(crops, training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The compiled loss on the augmented targets."""
        return super().compute_loss(x, self._targets(x, y), y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict:
        """The compiled metrics on the augmented targets."""
        return super().compute_metrics(x, self._targets(x, y), y_pred, sample_weight)

    def _targets(self, x: tuple[Any, Any], y: Any) -> Any:
        return augment_volumes.augment_targets(ops, y, x[1], self.augmentation)
