"""Optimizers as PyTorch, Caffe and DeepMedic compute them."""

from typing import Any

import keras
from keras import ops


class _TwoMoments(keras.optimizers.Optimizer):
    """The common part of Adam and NAdam: running means of the gradients and of their squares."""

    def __init__(
        self, learning_rate: float, beta_1: float, beta_2: float, epsilon: float, **options: Any
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def build(self, variables: list[keras.Variable]) -> None:
        """Add both means of every weight."""
        if self.built:
            return
        super().build(variables)
        self._first, self._second = self.add_optimizer_variables(variables, ["first", "second"])

    def get_config(self) -> dict[str, Any]:
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return {**super().get_config(), **own}

    def _means(
        self, gradient: keras.KerasTensor, variable: keras.Variable, step: keras.KerasTensor
    ) -> tuple[keras.Variable, keras.KerasTensor]:
        """Update both means; return the first, and the root of the bias-corrected second."""
        index = self._get_variable_index(variable)
        first, second = self._first[index], self._second[index]
        self.assign_add(first, (gradient - first) * (1 - self.beta_1))
        self.assign_add(second, (ops.square(gradient) - second) * (1 - self.beta_2))
        return first, ops.sqrt(second / (1 - ops.power(self.beta_2, step)))


@keras.saving.register_keras_serializable("keras_medseg")
class AdamL2(_TwoMoments):
    """torch.optim.Adam with weight_decay: l2 * w is added to the gradient of every weight w.

    This includes biases and norms, and the means include the added term; AdamW and Keras' own
    weight_decay shrink the weights separately from the means. Epsilon is added to the root of the
    bias-corrected second mean; Keras' Adam adds it before the correction, so that its epsilon has
    up to 32 times the weight in the first steps.

    Args:
        learning_rate: step size, or a Keras schedule.
        beta_1: decay of the mean of the gradients.
        beta_2: decay of the mean of their squares.
        epsilon: added to the denominator.
        l2: PyTorch's weight_decay; l2 / 2 is the factor of the sum of squares in the loss.
        name: of the optimizer.
        options: those of keras.optimizers.Optimizer.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        l2: float = 0.0,
        name: str = "adam_l2",
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name, **options)
        self.l2 = l2

    def update_step(
        self, gradient: keras.KerasTensor, variable: keras.Variable, learning_rate: keras.Variable
    ) -> None:
        dtype = variable.dtype
        step = ops.cast(self.iterations + 1, dtype)
        gradient = ops.cast(gradient, dtype) + self.l2 * variable
        first, root = self._means(gradient, variable, step)
        rate = ops.cast(learning_rate, dtype) / (1 - ops.power(self.beta_1, step))
        self.assign_sub(variable, rate * first / (root + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "l2": self.l2}


@keras.saving.register_keras_serializable("keras_medseg")
class NadamPyTorch(_TwoMoments):
    """torch.optim.NAdam (Dozat 2016), without weight decay.

    The momentum of step t is mu_t = beta_1 (1 - 0.96^(t momentum_decay) / 2). Keras' Nadam has
    0.96^t instead: its momentum rises from 0.47 to 0.89 within a hundred steps, while PyTorch's is
    0.45 at first and 0.60 after 2,500. Epsilon is 1e-8 in PyTorch and 1e-7 in Keras.

    Args:
        learning_rate: step size, or a Keras schedule.
        beta_1: limit of the momentum.
        beta_2: decay of the mean of the squared gradients.
        epsilon: added to the denominator.
        momentum_decay: rate at which the momentum approaches its limit.
        name: of the optimizer.
        options: those of keras.optimizers.Optimizer.
    """

    def __init__(
        self,
        learning_rate: float = 2e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        momentum_decay: float = 4e-3,
        name: str = "nadam_pytorch",
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name, **options)
        self.momentum_decay = momentum_decay

    def build(self, variables: list[keras.Variable]) -> None:
        """Add both means of every weight, and the product of mu over all steps so far."""
        if self.built:
            return
        super().build(variables)
        self._mu_product = self.add_variable((), "ones", "float32", name="mu_product")

    def update_step(
        self, gradient: keras.KerasTensor, variable: keras.Variable, learning_rate: keras.Variable
    ) -> None:
        dtype = variable.dtype
        step = ops.cast(self.iterations + 1, dtype)
        gradient = ops.cast(gradient, dtype)
        first, root = self._means(gradient, variable, step)
        mu, mu_next = self._mu(step), self._mu(step + 1)
        product = ops.cast(self._mu_product, dtype)
        now, ahead = (1 - mu) / (1 - product), mu_next / (1 - product * mu_next)
        rate = ops.cast(learning_rate, dtype)
        self.assign_sub(variable, rate * (now * gradient + ahead * first) / (root + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum_decay": self.momentum_decay}

    def _mu(self, step: keras.KerasTensor) -> keras.KerasTensor:
        return self.beta_1 * (1 - 0.5 * ops.power(0.96, step * self.momentum_decay))

    def _backend_update_step(self, gradients: list, variables: list, learning_rate: float) -> None:
        # Keras has no other hook that runs once per step, before the weights change.
        mu = self._mu(ops.cast(self.iterations + 1, self._mu_product.dtype))
        self.assign(self._mu_product, self._mu_product * mu)
        super()._backend_update_step(gradients, variables, learning_rate)


@keras.saving.register_keras_serializable("keras_medseg")
class SgdCaffe(keras.optimizers.Optimizer):
    """Caffe's SGD with the multipliers of OM-Net's prototxts.

    v = momentum v + rate (gradient + l2 w), w = w - v. The rate is within v, so that a change of
    it does not act on earlier steps, as in Keras. Kernels and a norm's gamma and beta decay,
    biases do not; biases and beta have `bias_rate` times the rate.

    Args:
        learning_rate: step size, or a Keras schedule.
        momentum: share of the last step.
        l2: Caffe's weight_decay.
        bias_rate: factor of the rate of biases and beta.
        name: of the optimizer.
        options: those of keras.optimizers.Optimizer.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        momentum: float = 0.99,
        l2: float = 0.0,
        bias_rate: float = 2.0,
        name: str = "sgd_caffe",
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **options)
        self.momentum = momentum
        self.l2 = l2
        self.bias_rate = bias_rate

    def build(self, variables: list[keras.Variable]) -> None:
        """Add the last step of every weight."""
        if self.built:
            return
        super().build(variables)
        [self._steps] = self.add_optimizer_variables(variables, ["step"])
        self._kinds = _kinds(variables)

    def update_step(
        self, gradient: keras.KerasTensor, variable: keras.Variable, learning_rate: keras.Variable
    ) -> None:
        index = self._get_variable_index(variable)
        kind = self._kinds[index]
        rate = ops.cast(learning_rate, variable.dtype)
        rate = rate * (self.bias_rate if kind in ("bias", "beta") else 1.0)
        decay = 0.0 if kind == "bias" else self.l2
        last = self._steps[index]
        gradient = ops.cast(gradient, variable.dtype) + decay * variable
        self.assign(last, self.momentum * last + rate * gradient)
        self.assign_sub(variable, last)

    def get_config(self) -> dict[str, Any]:
        own = {"momentum": self.momentum, "l2": self.l2, "bias_rate": self.bias_rate}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("keras_medseg")
class RmsPropDeepMedic(keras.optimizers.Optimizer):
    """RMSProp with Nesterov's momentum as in DeepMedic (neuralnet/optimizers.py).

    s = rho s + (1 - rho) g^2, d = rate g / sqrt(s + epsilon), v = momentum v - d, w = w + momentum
    v - d. Keras adds epsilon to the root, and its momentum is the classical one. Kernels add l1
    sum |w| + l2 sum w^2 to the loss.

    Args:
        learning_rate: step size, or a Keras schedule.
        rho: decay of the mean of the squared gradients.
        epsilon: added to that mean.
        momentum: share of the last step.
        normalized: whether d is multiplied by 1 - momentum.
        l1: factor of the sum of the absolute values of kernels.
        l2: factor of the sum of their squares.
        name: of the optimizer.
        options: those of keras.optimizers.Optimizer.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        rho: float = 0.9,
        epsilon: float = 1e-4,
        momentum: float = 0.6,
        normalized: bool = True,
        l1: float = 0.0,
        l2: float = 0.0,
        name: str = "rmsprop_deepmedic",
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **options)
        self.constants: dict[str, Any] = {
            "rho": rho,
            "epsilon": epsilon,
            "momentum": momentum,
            "normalized": normalized,
            "l1": l1,
            "l2": l2,
        }

    def build(self, variables: list[keras.Variable]) -> None:
        """Add the mean square and the velocity of every weight."""
        if self.built:
            return
        super().build(variables)
        names = ["square", "velocity"]
        self._squares, self._velocities = self.add_optimizer_variables(variables, names)
        self._kinds = _kinds(variables)

    def update_step(
        self, gradient: keras.KerasTensor, variable: keras.Variable, learning_rate: keras.Variable
    ) -> None:
        of = self.constants
        index = self._get_variable_index(variable)
        square, velocity = self._squares[index], self._velocities[index]
        gradient = ops.cast(gradient, variable.dtype)
        if self._kinds[index] == "kernel":
            gradient = gradient + of["l1"] * ops.sign(variable) + 2 * of["l2"] * variable
        self.assign(square, of["rho"] * square + (1 - of["rho"]) * ops.square(gradient))
        rate = ops.cast(learning_rate, variable.dtype)
        rate = rate * (1 - of["momentum"] if of["normalized"] else 1.0)
        step = rate * gradient / ops.sqrt(square + of["epsilon"])
        self.assign(velocity, of["momentum"] * velocity - step)
        self.assign_add(variable, of["momentum"] * velocity - step)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.constants}


def _kinds(variables: list[keras.Variable]) -> list[str]:
    """What each weight is in its layer: "kernel", "bias", "gamma" and so on.

    Taken by `build`, because `update_step` is given TensorFlow's variable, which has no path.
    """
    return [variable.path.rpartition("/")[2] for variable in variables]


OPTIMIZERS = {
    "adadelta": keras.optimizers.Adadelta,
    "adam": keras.optimizers.Adam,
    "adam_l2": AdamL2,
    "nadam": keras.optimizers.Nadam,
    "nadam_pytorch": NadamPyTorch,
    "rmsprop_deepmedic": RmsPropDeepMedic,
    "sgd": keras.optimizers.SGD,
    "sgd_caffe": SgdCaffe,
}
