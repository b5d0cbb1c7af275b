"""Defaults of the frameworks that papers used, for all that a paper does not specify.

A paper that names no initializer and no momentum of batch norm used those of its framework. Keras 3
has other defaults, so every builder has an option for the framework of its paper.
"""

from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import keras

from keras_medseg.errors import require_choice

NORM_VARIANCES = ("biased", "unbiased", "keras_2_2")
"""What a batch norm keeps of a batch's variance; see layers.normalization.BatchNorm."""
NORM_AVERAGES = ("exponential", "debiased", "window")
"""How a batch norm averages over batches; see layers.normalization.batch_norm_layer."""


@dataclass(frozen=True)
class FrameworkDefaults:
    """Defaults of one framework, expressed as the arguments that Keras has for them.

    Attributes:
        name: key in FRAMEWORKS.
        kernel_initializer: "fan_in_uniform" for U(-b, b) with b = 1 / sqrt(fan_in), or any argument
            of keras.initializers.get.
        bias_initializer: likewise.
        norm_momentum: weight of the old moving average (a momentum m in PyTorch is 1 - m here).
        norm_epsilon: added to the variance.
        norm_variance: one of NORM_VARIANCES, what is averaged in the moving variance.
        upsampling: interpolation of a 2x up-sampling layer without arguments.
        symmetric_padding: whether a 3x3 convolution of stride 2 pads both sides of an even size;
            if not, it pads (0, 1) as "same" does.
        plateau_factor: factor of the learning rate on a plateau.
        norm_average: one of NORM_AVERAGES, how the moving mean and variance are averaged.
    """

    name: str
    kernel_initializer: str | dict[str, Any]
    bias_initializer: str | dict[str, Any]
    norm_momentum: float
    norm_epsilon: float
    norm_variance: str
    upsampling: str
    symmetric_padding: bool
    plateau_factor: float
    norm_average: str = "exponential"

    def kernel(self, fan_in: int) -> keras.Initializer:
        """Initializer of a kernel whose outputs each sum over `fan_in` inputs."""
        return _initializer(self.kernel_initializer, fan_in)

    def bias(self, fan_in: int) -> keras.Initializer:
        """Initializer of the bias beside a kernel with this `fan_in`."""
        return _initializer(self.bias_initializer, fan_in)


# Keras 2.2.4: layers/convolutional.py (_Conv, UpSampling2D), layers/normalization.py
# (BatchNormalization, which corrects the moving variance after the fused kernel of
# backend/tensorflow_backend.py has done so), optimizers.py (Adam: K.epsilon()), callbacks.py
# (ReduceLROnPlateau).
KERAS_2_2 = FrameworkDefaults(
    name="keras_2_2",
    kernel_initializer="glorot_uniform",
    bias_initializer="zeros",
    norm_momentum=0.99,
    norm_epsilon=1e-3,
    norm_variance="keras_2_2",
    upsampling="nearest",
    symmetric_padding=False,
    plateau_factor=0.1,
)

# TensorFlow 2: tf.keras.layers.Conv2D, BatchNormalization (fused: the unbiased variance),
# UpSampling2D; optimizers.Adam and AdamW; callbacks.ReduceLROnPlateau. Otherwise equal to Keras
# 2.2.4 in everything that is listed here.
TENSORFLOW_2 = replace(KERAS_2_2, name="tensorflow_2", norm_variance="unbiased")

# PyTorch 2: nn/modules/conv.py (_ConvNd.reset_parameters: kaiming_uniform_(a=sqrt(5)), bias
# U(+-1/sqrt(fan_in))), nn/modules/batchnorm.py (momentum 0.1, eps 1e-5, the running variance
# unbiased), nn.Upsample (nearest), optim.Adam (eps 1e-8, L2 weight_decay),
# optim.lr_scheduler.ReduceLROnPlateau.
PYTORCH = FrameworkDefaults(
    name="pytorch",
    kernel_initializer="fan_in_uniform",
    bias_initializer="fan_in_uniform",
    norm_momentum=0.9,
    norm_epsilon=1e-5,
    norm_variance="unbiased",
    upsampling="nearest",
    symmetric_padding=True,
    plateau_factor=0.1,
)

FRAMEWORKS = {defaults.name: defaults for defaults in (KERAS_2_2, TENSORFLOW_2, PYTORCH)}


def get(framework: str | FrameworkDefaults) -> FrameworkDefaults:
    """The defaults of the framework of this name; FrameworkDefaults are returned as they are.

    Args:
        framework: a key of FRAMEWORKS, or your own defaults.

    Returns:
        The defaults.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    if isinstance(framework, FrameworkDefaults):
        return framework
    require_choice("framework", framework, FRAMEWORKS)
    return FRAMEWORKS[framework]


def _initializer(kind: str | dict[str, Any], fan_in: int) -> keras.Initializer:
    if kind == "fan_in_uniform":
        # kaiming_uniform(a=sqrt(5)): gain sqrt(2 / (1 + 5)), bound gain * sqrt(3 / fan_in). Keras'
        # VarianceScaling(1/3, "fan_in", "uniform") is the same for kernels, but sees no fan-in in
        # the shape of a bias and a wrong one in that of a depthwise kernel.
        bound = 1 / sqrt(fan_in)
        return keras.initializers.RandomUniform(-bound, bound)
    return keras.initializers.get(kind)
