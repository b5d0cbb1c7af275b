"""Losses on probabilities, in keras.ops: the same value and gradient on every backend.

Functions take (N, ..., C) maps, of two or three dimensions, and give one value per pixel, (N, ...),
or one per channel, (C,). `get` wraps them for `model.compile`. All compute in float32 whatever the
precision policy.

A network with k outputs of R regions each (deep supervision) has them side by side in y_pred,
(N, ..., k * R), the main output first; y_true stays (N, ..., R).
"""

import inspect
from collections.abc import Iterator, Sequence

import keras
import numpy as np
from keras import ops

from keras_medseg.errors import require_choice

RESPONSES = ("xy", "magnitude")
DICE_SUMS = ("batch", "sample")
LOWEST_PROBABILITY = 1e-7
"""Where Keras cuts probabilities (backend epsilon)."""
SOBEL_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype="float32")


def cross_entropy(
    y_true: keras.KerasTensor, y_pred: keras.KerasTensor, lowest: float = LOWEST_PROBABILITY
) -> keras.KerasTensor:
    """Per-pixel binary cross entropy of sigmoid outputs; dcabes2020, equation (7).

    Probabilities are clipped to [lowest, 1 - lowest] and the channels averaged, with 1e-7 as in
    Keras 2.2.4 (backend epsilon). A clipped pixel has no gradient: a network that has come to say
    less than that of every pixel never learns again. PyTorch takes logits and clips nothing, nor
    does TensorFlow 2 where a sigmoid comes before (`binary_crossentropy` of its Keras). 1e-37, the
    lowest that float32 holds, is the like of it, down to logits of -85. (N, ..., C) twice ->
    (N, ...).
    """
    return -ops.mean(_log_likelihood(y_true, y_pred, lowest), axis=-1)


def categorical_cross_entropy(
    y_true: keras.KerasTensor, y_pred: keras.KerasTensor
) -> keras.KerasTensor:
    """Per-pixel cross entropy of softmax outputs, -sum over classes of y log p; csam_knee, eq. (1).

    Background is a class of its own. Of two classes it is the binary cross entropy of the second,
    whose softmax is the sigmoid of the logits' difference. (N, ..., C) twice -> (N, ...).
    """
    y_true = ops.cast(y_true, "float32")
    return -ops.sum(y_true * ops.log(_clipped(y_pred)), axis=-1)


def focal_loss(
    y_true: keras.KerasTensor, y_pred: keras.KerasTensor, *, gamma: float = 2.0
) -> keras.KerasTensor:
    """Mean of -(1 - p_t)^gamma log p_t of every channel, p_t the probability of what is there.

    Lin et al. 2017, without alpha, as MONAI's FocalLoss on sigmoid outputs. (N, ..., C) twice ->
    (C,), the mean over batch and pixels.
    """
    q, p = ops.cast(y_true, "float32"), _clipped(y_pred)
    missed = q * (1 - p) + (1 - q) * p
    per_pixel = -ops.power(missed, gamma) * _log_likelihood(y_true, y_pred)
    return ops.mean(per_pixel, axis=_all_but_channels(y_pred))


def dice_loss(
    y_true: keras.KerasTensor,
    y_pred: keras.KerasTensor,
    *,
    squared: bool = True,
    per: str = "batch",
    smooth: float = 1e-7,
    smooth_numerator: float = 0.0,
) -> keras.KerasTensor:
    """1 - 2 sum(p q) / (sum(p^2) + sum(q^2)) of every channel; mtds2021, equation (9).

    (N, ..., C) twice -> (C,). Where nothing is annotated the loss is 1 whatever is predicted, and
    so without gradient, and of two empty maps it is 1 as well, unless the numerator is smoothed.

    Args:
        squared: whether the denominator sums squares (Milletari et al. 2016) or the values.
        per: "batch" sums over all pixels of the batch; "sample" over each map, then averages.
        smooth: added to the denominator, the lambda of iacnn's equation (9). The default is Keras'
            epsilon: 0 / 0 is no number.
        smooth_numerator: added to the numerator.

    Raises:
        ValueError: `per` is neither.
    """
    require_choice("per", per, DICE_SUMS)
    q, p = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    axes = _all_but_channels(y_pred)[per == "sample" :]
    sizes = ops.square(p) + ops.square(q) if squared else p + q
    overlap = 2 * ops.sum(p * q, axis=axes) + smooth_numerator
    overlap = overlap / (ops.sum(sizes, axis=axes) + smooth)
    return 1 - (overlap if per == "batch" else ops.mean(overlap, axis=0))


def edge_maps(
    maps: keras.KerasTensor,
    *,
    gaussian_size: int = 5,
    gaussian_sigma: float = 1.0,
    response: str = "xy",
) -> keras.KerasTensor:
    """The fixed edge detection network: Gaussian smoothing, then Sobel; dcabes2020, section II.C.

    (N, H, W, C) -> (N, H, W, C, 2) with the responses along H and W, or (N, H, W, C, 1) with their
    magnitude. Both convolutions pad with zeros: what lies outside the window counts as background.

    Args:
        gaussian_size: odd width of the Gaussian kernel in pixels.
        gaussian_sigma: its standard deviation in pixels.
        response: "xy" or "magnitude".

    Raises:
        ValueError: an option out of its range.
    """
    _check_edge_options(gaussian_size, gaussian_sigma, response)
    smooth = _filter(ops.cast(maps, "float32"), gaussian_kernel(gaussian_size, gaussian_sigma))
    along_h, along_w = _filter(smooth, SOBEL_X.T), _filter(smooth, SOBEL_X)
    if response == "xy":
        return ops.stack([along_h, along_w], axis=-1)
    return ops.expand_dims(_magnitude(along_h, along_w), -1)


def edge_loss(
    y_true: keras.KerasTensor,
    y_pred: keras.KerasTensor,
    *,
    gaussian_size: int = 5,
    gaussian_sigma: float = 1.0,
    response: str = "xy",
) -> keras.KerasTensor:
    """Mean squared difference of the edge maps of label and prediction; dcabes2020, equation (11).

    (N, H, W, C) twice -> (N, H, W), the mean over channels and responses. Options as in
    `edge_maps`.
    """
    options = dict(gaussian_size=gaussian_size, gaussian_sigma=gaussian_sigma, response=response)
    # The filters are linear: the difference of responses is the response to the difference.
    if response == "xy":
        difference = ops.cast(y_true, "float32") - ops.cast(y_pred, "float32")
        return ops.mean(ops.square(edge_maps(difference, **options)), axis=(-2, -1))
    difference = edge_maps(y_true, **options) - edge_maps(y_pred, **options)
    return ops.mean(ops.square(difference), axis=(-2, -1))


def gaussian_kernel(size: int, sigma: float) -> np.ndarray:
    """(size, size) float32 samples of a Gaussian at pixel centres, scaled to the sum 1."""
    offsets = np.arange(size) - size // 2
    line = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel = np.outer(line, line)
    return (kernel / kernel.sum()).astype("float32")


@keras.saving.register_keras_serializable("keras_medseg")
class CrossEntropy(keras.losses.Loss):
    """`cross_entropy` for model.compile.

    Raises:
        ValueError: `lowest` out of its range.
    """

    def __init__(
        self, *, lowest: float = LOWEST_PROBABILITY, name: str = "cross_entropy", **options
    ) -> None:
        super().__init__(name=name, **options)
        _require_lowest(lowest)
        self.lowest = lowest

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        return cross_entropy(y_true, y_pred, self.lowest)

    def get_config(self) -> dict:
        return {**super().get_config(), "lowest": self.lowest}


@keras.saving.register_keras_serializable("keras_medseg")
class CategoricalCrossEntropy(keras.losses.Loss):
    """`categorical_cross_entropy` for model.compile; csam_knee, equation (2)."""

    def __init__(self, *, name: str = "categorical_cross_entropy", **options) -> None:
        super().__init__(name=name, **options)

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        return categorical_cross_entropy(y_true, y_pred)


@keras.saving.register_keras_serializable("keras_medseg")
class CrossEntropyAndEdge(keras.losses.Loss):
    """`cross_entropy` + edge_weight * `edge_loss` for model.compile; dcabes2020, equation (12).

    The paper gives none of the four options:

    edge_weight: 1, the sum of equation (12) as it stands. With the other defaults neither term
        drowns the other: from a constant prediction to a sharp one that is two pixels off, the
        norms of their gradients with respect to the logits differ by less than a factor of 8 (a
        test measures it).
    gaussian_size, gaussian_sigma: 5 and 1, common before Sobel since Canny; the kernel reaches two
        standard deviations.
    response: "xy"; the magnitude forgets on which side of an edge the lesion lies, and its
        gradient jumps at zero.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        *,
        edge_weight: float = 1.0,
        gaussian_size: int = 5,
        gaussian_sigma: float = 1.0,
        response: str = "xy",
        name: str = "cross_entropy_and_edge",
        **options,
    ) -> None:
        super().__init__(name=name, **options)
        _check_edge_options(gaussian_size, gaussian_sigma, response)
        if edge_weight < 0:
            raise ValueError(f"edge_weight: found {edge_weight}, expected 0 or more.")
        self.edge_weight = edge_weight
        self.edge_options = dict(
            gaussian_size=gaussian_size, gaussian_sigma=gaussian_sigma, response=response
        )

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        edge = edge_loss(y_true, y_pred, **self.edge_options)
        return cross_entropy(y_true, y_pred) + self.edge_weight * edge

    def get_config(self) -> dict:
        return {**super().get_config(), "edge_weight": self.edge_weight, **self.edge_options}


@keras.saving.register_keras_serializable("keras_medseg")
class CrossEntropyAndDice(keras.losses.Loss):
    """Sum over channels of weight (mean `cross_entropy` + dice_weight * `dice_loss`).

    mtds2021, equations (1) and (9); fmnet2023, equations (1) and (2) of each of its outputs; iacnn,
    equations (9) to (11), with squared=False.

    output_weights: one for each channel. With more channels in y_pred than in y_true: one for each
        output, which counts for all its regions.
    dice_weight, squared, per: 1, squares and sums over the batch, equation (9) of mtds2021 as it
        stands.
    smooth: see `dice_loss`.
    lowest: see `cross_entropy`.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        *,
        output_weights: Sequence[float] = (1.0,),
        dice_weight: float = 1.0,
        squared: bool = True,
        per: str = "batch",
        smooth: float = 1e-7,
        lowest: float = LOWEST_PROBABILITY,
        name: str = "cross_entropy_and_dice",
        **options,
    ) -> None:
        super().__init__(name=name, **options)
        require_choice("per", per, DICE_SUMS)
        _require_lowest(lowest)
        if min(dice_weight, smooth, *output_weights) < 0:
            found = f"{dice_weight}, {smooth} and {tuple(output_weights)}"
            raise ValueError(
                f"dice_weight, smooth, output_weights: found {found}, expected 0 or more."
            )
        self.output_weights = tuple(output_weights)
        self.dice_weight = dice_weight
        self.dice_options = dict(squared=squared, per=per, smooth=smooth)
        self.lowest = lowest

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        if y_true.shape[-1] < y_pred.shape[-1]:
            outputs = _outputs(y_true, y_pred, self.output_weights)
            return sum(weight * ops.sum(self._terms(y_true, one)) for weight, one in outputs)
        _require_weights(self.output_weights, y_pred.shape[-1])
        weights = ops.convert_to_tensor(self.output_weights, "float32")
        return ops.sum(weights * self._terms(y_true, y_pred))

    def _terms(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """(C,)"""
        per_pixel = _log_likelihood(y_true, y_pred, self.lowest)
        entropy = -ops.mean(per_pixel, axis=_all_but_channels(y_pred))
        return entropy + self.dice_weight * dice_loss(y_true, y_pred, **self.dice_options)

    def get_config(self) -> dict:
        own = {"output_weights": list(self.output_weights), "dice_weight": self.dice_weight}
        return {**super().get_config(), **own, **self.dice_options, "lowest": self.lowest}


@keras.saving.register_keras_serializable("keras_medseg")
class DiceAndFocal(keras.losses.Loss):
    """Weighted mean over outputs of the sum over regions of `dice_loss` and `focal_loss`.

    The authors' code of fmnet2023: Dice over the whole batch, without squares, smoothed above and
    below. Their code works on logits; here probabilities are clipped to [1e-7, 1 - 1e-7] for the
    logarithm.

    output_weights: one for each output, the main one first; divided by their sum. 1, 1/2, 1/4
        for the three of FM-Net.
    gamma: of the focal term; 0 makes it the cross entropy.
    smooth: added to numerator and denominator of the Dice.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        *,
        output_weights: Sequence[float] = (1.0,),
        gamma: float = 2.0,
        smooth: float = 1e-5,
        name: str = "dice_and_focal",
        **options,
    ) -> None:
        super().__init__(name=name, **options)
        if min(gamma, smooth, *output_weights) < 0 or not sum(output_weights):
            found = f"{gamma}, {smooth} and {tuple(output_weights)}"
            raise ValueError(
                f"gamma, smooth, output_weights: found {found}, expected 0 or more, and a weight."
            )
        self.output_weights = tuple(output_weights)
        self.gamma = gamma
        self.smooth = smooth

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        smooth = dict(smooth=self.smooth, smooth_numerator=self.smooth)
        total = 0.0
        for weight, output in _outputs(y_true, y_pred, self.output_weights):
            dice = dice_loss(y_true, output, squared=False, **smooth)
            total += weight * ops.sum(dice + focal_loss(y_true, output, gamma=self.gamma))
        return total / sum(self.output_weights)

    def get_config(self) -> dict:
        own = {"output_weights": list(self.output_weights), "gamma": self.gamma}
        return {**super().get_config(), **own, "smooth": self.smooth}


LOSSES = {
    "categorical_cross_entropy": CategoricalCrossEntropy,
    "cross_entropy": CrossEntropy,
    "cross_entropy_and_dice": CrossEntropyAndDice,
    "cross_entropy_and_edge": CrossEntropyAndEdge,
    "dice_and_focal": DiceAndFocal,
}


def get(name: str, **options) -> keras.losses.Loss:
    """A loss for model.compile, e.g. get("cross_entropy_and_edge", edge_weight=0.5).

    Raises:
        ValueError: unknown name or option, or an option out of its range.
    """
    require_choice("loss", name, LOSSES)
    accepted = set(inspect.signature(LOSSES[name]).parameters) - {"name", "options"}
    for option in options:
        require_choice(f"option of {name}", option, sorted(accepted))
    return LOSSES[name](**options)


def _check_edge_options(gaussian_size: int, gaussian_sigma: float, response: str) -> None:
    if gaussian_size < 1 or gaussian_size % 2 == 0:
        raise ValueError(f"gaussian_size: found {gaussian_size}, expected an odd width such as 5.")
    if gaussian_sigma <= 0:
        raise ValueError(f"gaussian_sigma: found {gaussian_sigma}, expected more than 0 pixels.")
    require_choice("response", response, RESPONSES)


def _outputs(
    y_true: keras.KerasTensor, y_pred: keras.KerasTensor, weights: Sequence[float]
) -> Iterator[tuple[float, keras.KerasTensor]]:
    """The outputs of a network that lie side by side in y_pred, each with its weight."""
    regions = y_true.shape[-1]
    _require_weights(weights, y_pred.shape[-1] / regions)
    for number, weight in enumerate(weights):
        yield weight, y_pred[..., number * regions : (number + 1) * regions]


def _require_weights(weights: Sequence[float], outputs: float) -> None:
    if len(weights) != outputs:
        raise ValueError(
            f"output_weights: found {weights}, expected {outputs:g}: one for each output."
        )


def _all_but_channels(maps: keras.KerasTensor) -> tuple[int, ...]:
    return tuple(range(len(maps.shape) - 1))


def _require_lowest(lowest: float) -> None:
    if not 1e-37 <= lowest < 0.5:
        raise ValueError(f"lowest: found {lowest}, expected a probability from 1e-37 to 0.5.")


def _clipped(y_pred: keras.KerasTensor, lowest: float = LOWEST_PROBABILITY) -> keras.KerasTensor:
    # The largest float32 below 1 is 1 - 2^-24.
    return ops.clip(ops.cast(y_pred, "float32"), lowest, 1 - max(lowest, 2**-24))


def _log_likelihood(
    y_true: keras.KerasTensor, y_pred: keras.KerasTensor, lowest: float = LOWEST_PROBABILITY
) -> keras.KerasTensor:
    y_true, y_pred = ops.cast(y_true, "float32"), _clipped(y_pred, lowest)
    return y_true * ops.log(y_pred) + (1 - y_true) * ops.log(1 - y_pred)


def _filter(maps: keras.KerasTensor, kernel: np.ndarray) -> keras.KerasTensor:
    """Each channel of (N, H, W, C) correlated with a 2-D kernel, zero-padded."""
    channels = maps.shape[-1]
    kernel = np.repeat(kernel[:, :, None, None], channels, axis=2)
    return ops.depthwise_conv(
        maps, ops.convert_to_tensor(kernel), padding="same", data_format="channels_last"
    )


def _magnitude(a: keras.KerasTensor, b: keras.KerasTensor) -> keras.KerasTensor:
    # The root's gradient at 0 is infinite, and 0 * inf is nan even on the branch not taken.
    square = ops.square(a) + ops.square(b)
    positive = square > 0
    return ops.where(positive, ops.sqrt(ops.where(positive, square, 1.0)), 0.0)
