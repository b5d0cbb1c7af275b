"""Batch and instance normalization of (N, H, W, C) or (N, X, Y, Z, C) maps."""

from typing import Any

import keras
from keras import layers, ops

from keras_medseg.errors import require_choice
from keras_medseg.frameworks import NORM_AVERAGES, NORM_VARIANCES, FrameworkDefaults
from keras_medseg.layers import fused_norm, replicas


def batch_norm(
    x: keras.KerasTensor, *, framework: FrameworkDefaults, name: str
) -> keras.KerasTensor:
    """Batch normalization over all axes but the last."""
    return batch_norm_layer(framework=framework, name=name)(x)


def batch_norm_layer(*, framework: FrameworkDefaults, name: str) -> "BatchNorm":
    """The layer of `batch_norm`, for calling it more than once.

    The moving mean and variance average those of the batches by `framework.norm_average`:
    "exponential" (BatchNorm), "debiased" (DebiasedBatchNorm) or "window" (WindowBatchNorm).
    """
    kinds: dict[str, type[BatchNorm]] = {
        "exponential": BatchNorm,
        "debiased": DebiasedBatchNorm,
        "window": WindowBatchNorm,
    }
    require_choice("norm_average", framework.norm_average, NORM_AVERAGES)
    return kinds[framework.norm_average](
        momentum=framework.norm_momentum,
        epsilon=framework.norm_epsilon,
        moving_variance=framework.norm_variance,
        synchronized=True,  # several devices then train as one does; one device is not affected
        name=name,
    )


@keras.saving.register_keras_serializable("keras_medseg")
class BatchNorm(layers.BatchNormalization):
    """Keras' batch normalization of the last axis, with the moving variance of a framework.

    A batch is normalized by its biased variance, the sum of squares / n, in every framework, where
    n counts the values of a channel in the batch. The moving variance is an average of it times a
    factor that differs:

    * "biased": 1, Keras 3;
    * "unbiased": n / (n - 1), PyTorch (nn/modules/batchnorm.py), and TensorFlow 2, whose fused
      kernel returns it;
    * "keras_2_2": n / (n - 1) * n / (n - 1 - epsilon), Keras 2.2.4, which corrects once more what
      the fused kernel of 4-D inputs has corrected (layers/normalization.py); of 5-D inputs the
      second factor only.

    TensorFlow's fused kernel does the work where it can: of float32 and half-precision maps in two
    and three dimensions, with float32 statistics. Elsewhere the same is computed in keras.ops. The
    weights are those of Keras' layer: gamma, beta, moving_mean, moving_variance. A frozen layer
    (trainable=False) normalizes with its moving statistics in training too, as in Keras.

    Args:
        momentum: weight of the old moving average.
        epsilon: added to the variance.
        moving_variance: as above.
        synchronized: whether the statistics are those of all replicas of a tf.distribute strategy,
            not of each replica for itself. Without such a strategy it changes nothing; arrays of
            JAX that are spread over devices have global statistics in any case.
        options: those of keras.layers.BatchNormalization but `axis`, which is the last, and
            `renorm`.

    Raises:
        ValueError: an option that is unknown or has no effect here.
    """

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        *,
        moving_variance: str = "unbiased",
        synchronized: bool = False,
        **options: Any,
    ) -> None:
        require_choice("moving_variance", moving_variance, NORM_VARIANCES)
        for option, only in {"axis": -1, "renorm": False}.items():
            if options.get(option, only) != only:
                raise ValueError(f"{option}: found {options[option]}, expected {only}.")
        super().__init__(momentum=momentum, epsilon=epsilon, **options)
        self.supports_masking = False
        self.moving_variance_kind = moving_variance
        # Not given to Keras' layer, which refuses it on other backends: a network that is trained
        # on one backend opens on another.
        self.synchronized = synchronized

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """(N, ..., C) -> (N, ..., C)."""
        frozen = training and not self.trainable
        if not training or frozen:
            # On a GPU the gradient of the fused kernel with moving statistics is not deterministic,
            # and TensorFlow refuses it: only a frozen layer in training asks for it.
            if fused_norm.fuses(inputs) and not frozen:
                return fused_norm.fused(
                    inputs, *self._scale_and_shift(), *self._moving(), self.epsilon
                )[0]
            return self._normalized(inputs, *self._moving())
        together = replicas.context() if self.synchronized else None
        if fused_norm.fuses(inputs) and together is None:
            n = _count(inputs)
            outputs, mean, variance = fused_norm.fused(
                inputs, *self._scale_and_shift(), None, None, self.epsilon
            )
            # The kernel's variance is the unbiased one.
            if self.moving_variance_kind != "unbiased":
                variance = variance * (ops.maximum(n - 1, 1) / n) * self._factor(inputs, n)
        else:
            mean, biased, n = _moments(_wide(inputs), together)
            variance = biased * self._factor(inputs, n)
            outputs = self._normalized(inputs, mean, biased)
        self._average(mean, variance)
        return outputs

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for option in ("axis", "renorm", "renorm_clipping", "renorm_momentum"):
            config.pop(option, None)
        return {**config, "moving_variance": self.moving_variance_kind}

    def _scale_and_shift(self) -> tuple[Any, Any]:
        """Scale and shift, in float32 or float64."""
        scale = self.gamma if self.scale else ops.ones_like(self.moving_mean)
        shift = self.beta if self.center else ops.zeros_like(self.moving_mean)
        return _wide(scale), _wide(shift)

    def _moving(self) -> tuple[Any, Any]:
        return _wide(self.moving_mean), _wide(self.moving_variance)

    def _normalized(self, inputs: Any, mean: Any, variance: Any) -> Any:
        scale, shift = self._scale_and_shift()
        slope = ops.rsqrt(variance + self.epsilon) * scale
        return ops.cast((_wide(inputs) - mean) * slope + shift, inputs.dtype)

    def _factor(self, inputs: Any, n: Any) -> Any:
        """What turns the biased variance into the one that is averaged."""
        bessel = n / ops.maximum(n - 1, 1)
        if self.moving_variance_kind == "unbiased":
            return bessel
        if self.moving_variance_kind == "keras_2_2":
            again = n / (ops.maximum(n - 1, 1) - self.epsilon)
            return bessel * again if len(inputs.shape) == 4 else again
        return ops.ones_like(n)

    def _average(self, mean: Any, variance: Any) -> None:
        """Take the statistics of a batch into the moving ones."""
        for moving, statistic in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old, new = _wide(moving), ops.cast(statistic, _wide(moving).dtype)
            moving.assign(old * self.momentum + new * (1 - self.momentum))


@keras.saving.register_keras_serializable("keras_medseg")
class DebiasedBatchNorm(BatchNorm):
    """Batch normalization with the moving averages of Caffe (layers/batch_norm_layer.cpp).

    Caffe adds up the statistics of the batches, each sum decaying by `momentum`, and divides by the
    sum of their weights: the average of the first batches is theirs alone, not one with the values
    at the start. `moving_weight` is that sum, 0 at the start; it tends to 1 / (1 - momentum).
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.moving_weight = self.add_weight(
            shape=(), initializer="zeros", trainable=False, autocast=False, name="moving_weight"
        )

    def settle(self) -> None:
        """Go on from the moving statistics as if many batches had led to them."""
        self.moving_weight.assign(1 / (1 - self.momentum))

    def _average(self, mean: Any, variance: Any) -> None:
        decayed = _wide(self.moving_weight) * self.momentum
        for moving, statistic in ((self.moving_mean, mean), (self.moving_variance, variance)):
            new = ops.cast(statistic, decayed.dtype)
            moving.assign((_wide(moving) * decayed + new) / (decayed + 1))
        self.moving_weight.assign(decayed + 1)


@keras.saving.register_keras_serializable("keras_medseg")
class WindowBatchNorm(BatchNorm):
    """Batch normalization with the moving averages of DeepMedic (neuralnet/layers.py).

    The moving mean and variance are the plain means over the last 60 batches, which are kept:
    zeros and ones at the start. `momentum` has no effect.
    """

    window = 60  # movingAvForBnOverXBatches of its configurations

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        options = dict(trainable=False, autocast=False)
        shape = (self.window, input_shape[-1])
        self.last_means = self.add_weight(shape, "zeros", name="last_means", **options)
        self.last_variances = self.add_weight(shape, "ones", name="last_variances", **options)

    def settle(self) -> None:
        """Go on from the moving statistics as if each of the last batches had had them."""
        for last, moving in self._windows():
            last.assign(ops.broadcast_to(_wide(moving), last.shape))

    def _windows(self) -> tuple[tuple[keras.Variable, keras.Variable], ...]:
        return (self.last_means, self.moving_mean), (self.last_variances, self.moving_variance)

    def _average(self, mean: Any, variance: Any) -> None:
        for (last, moving), statistic in zip(self._windows(), (mean, variance)):
            kept = _wide(last)[1:]
            values = ops.concatenate([kept, ops.cast(statistic, kept.dtype)[None]], axis=0)
            last.assign(values)
            moving.assign(ops.mean(values, axis=0))


def _wide(x: Any) -> Any:
    """In float32, or in float64 where it is so: sums of half precision lose their last addends."""
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))


def _count(x: Any) -> Any:
    """Values of a channel, as a number that may depend on the size of the batch."""
    dtype = keras.backend.result_type(x.dtype, "float32")
    return ops.prod(ops.stack([ops.cast(size, dtype) for size in ops.shape(x)[:-1]]))


def _moments(x: Any, together: Any) -> tuple[Any, Any, Any]:
    """Mean and biased variance of each channel, and the number of values that each is of.

    The mean first: the mean of squares minus the square of the mean cancels in float32.
    """
    axes = tuple(range(len(x.shape) - 1))
    if together is None:
        mean = ops.mean(x, axis=axes)
        return mean, ops.mean(ops.square(x - mean), axis=axes), _count(x)
    x = x[: replicas.count(x)]
    total, n = together.all_reduce("SUM", [ops.sum(x, axis=axes), _count(x)])
    mean = total / n
    squares = together.all_reduce("SUM", ops.sum(ops.square(x - mean), axis=axes))
    return mean, squares / n, n


def instance_norm(
    x: keras.KerasTensor, *, framework: FrameworkDefaults, name: str, affine: bool = False
) -> keras.KerasTensor:
    """(x - mean) / sqrt(variance + epsilon) over all axes but batch and channels.

    Training and inference do the same. The statistics are float32 under every precision policy.

    Args:
        x: (N, H, W, C) or (N, X, Y, Z, C).
        framework: gives epsilon.
        name: of the layer.
        affine: whether a scale and a shift per channel are learned; by default not, as in PyTorch.

    Returns:
        A tensor of the shape of `x`.
    """
    # Group normalization with one group per channel (Wu, He 2018, section 3).
    norm = layers.GroupNormalization(
        groups=-1, epsilon=framework.norm_epsilon, center=affine, scale=affine, name=name
    )
    return norm(x)
