"""What the log says of each epoch beside the loss; cases are scored by `evaluation.scores`."""

from typing import Any

import keras

from keras_medseg import losses
from keras_medseg.layers import replicas


@keras.saving.register_keras_serializable("keras_medseg")
class MainAccuracy(keras.metrics.BinaryAccuracy):
    """Pixel accuracy of the first `channels` channels: those of the main output.

    Args:
        channels: of the main output.
        activation: what turns y_pred into probabilities; "linear" where it has them already.
        name: of the metric.
        options: those of keras.metrics.BinaryAccuracy.
    """

    def __init__(
        self,
        channels: int,
        activation: str = "linear",
        name: str = "accuracy",
        **options: Any,
    ) -> None:
        super().__init__(name=name, **options)
        self.channels = channels
        self.activation = activation

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        main = (..., slice(0, self.channels))
        probabilities = keras.activations.get(self.activation)(y_pred[main])
        super().update_state(y_true[main], probabilities, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels, "activation": self.activation}


@keras.saving.register_keras_serializable("keras_medseg")
class MainDice(keras.metrics.Metric):
    """Dice of the first `channels` channels where probabilities are above 1/2.

    2 |P and T| / (|P| + |T|), counted over all pixels of an epoch together; 1 if there are none.
    Scores are means over cases instead (`evaluation.metrics.dice`). The arguments are those of
    `MainAccuracy`.
    """

    def __init__(
        self, channels: int, activation: str = "linear", name: str = "dice", **options: Any
    ) -> None:
        super().__init__(name=name, **options)
        self.channels = channels
        self.activation = activation
        self.common, self.both = (
            self.add_weight(name=part, shape=(), initializer="zeros") for part in ("common", "both")
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        main = (..., slice(0, self.channels))
        truth = keras.ops.cast(y_true[main], "float32")
        probabilities = keras.activations.get(self.activation)(y_pred[main])
        found = keras.ops.cast(keras.ops.cast(probabilities, "float32") > 0.5, "float32")
        self.common.assign_add(keras.ops.sum(truth * found))
        self.both.assign_add(keras.ops.sum(truth + found))

    def result(self) -> Any:
        both = keras.ops.convert_to_tensor(self.both)  # JAX does not take variables in `where`
        none = both == 0
        return keras.ops.where(none, 1.0, 2 * self.common / keras.ops.where(none, 1.0, both))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels, "activation": self.activation}


@keras.saving.register_keras_serializable("keras_medseg")
class RegionDice(keras.metrics.Mean):
    """Soft Dice of one channel of the main output: of each batch as a whole, weighted by samples.

    Nothing is thresholded: (2 sum p q + 1e-5) / (sum p + sum q + 1e-5), the validation Dice of the
    code of fmnet2023. It shows how training goes; cases are scored by `evaluation.scores`.

    Args:
        channel: of the main output.
        channels: of the main output.
        activation: as that of MainAccuracy.
        name: of the metric.
        options: those of keras.metrics.Mean.
    """

    def __init__(
        self,
        channel: int,
        channels: int,
        activation: str = "linear",
        name: str = "dice",
        **options: Any,
    ) -> None:
        super().__init__(name=name, **options)
        self.channel = channel
        self.channels = channels
        self.activation = activation

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        part = (..., slice(self.channel, self.channel + 1))
        main = y_pred[..., : self.channels]
        truth, found = y_true[part], keras.activations.get(self.activation)(main)[part]
        # Replicas count every batch as often as there are replicas, in sum and in weight.
        truth, found = replicas.whole_batch(truth), replicas.whole_batch(found)
        loss = losses.dice_loss(truth, found, squared=False, smooth=1e-5, smooth_numerator=1e-5)
        super().update_state(1 - loss[0], keras.ops.cast(keras.ops.shape(found)[0], "float32"))

    def get_config(self) -> dict[str, Any]:
        own = {"channel": self.channel, "channels": self.channels, "activation": self.activation}
        return {**super().get_config(), **own}
