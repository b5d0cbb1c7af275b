"""Losses in keras.ops: the same value and gradient on every backend.

The functions take label and prediction as (N, ..., C) maps of two or three dimensions, and compute
in float32 whatever the precision policy (in float64 where that is Keras' float). `get` wraps them
for `model.compile`.

Predictions are probabilities, or logits with `from_logits=True`. From logits the cross entropy
clips nothing: a pixel that is sure and wrong has a gradient of 1 at any logit. So compute PyTorch's
BCEWithLogitsLoss and MONAI's losses, and TensorFlow 2, which finds the logits behind a sigmoid.
Keras 2.2.4 on TensorFlow 1 (backend/tensorflow_backend.py, binary_crossentropy) clips probabilities
at its epsilon, so that there such a pixel has no gradient; so do the defaults here.

The k outputs of a network with deep supervision, of R regions each, are concatenated in y_pred, (N,
..., k * R), the main output first; y_true stays (N, ..., R).
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_medseg.errors import require_choice
from keras_medseg.layers import replicas

RESPONSES = ("xy", "magnitude")
DICE_SUMS = ("batch", "sample")
EPSILON = 1e-7
"""Keras' backend epsilon; Keras clips probabilities to [epsilon, 1 - epsilon]."""
SOBEL_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype="float32")


def cross_entropy(
    y_true: keras.KerasTensor,
    y_pred: keras.KerasTensor,
    *,
    epsilon: float = EPSILON,
    from_logits: bool = False,
) -> keras.KerasTensor:
    """Binary cross entropy of sigmoid outputs; dcabes2020, equation (7).

    Args:
        y_true: (N, ..., C).
        y_pred: (N, ..., C) probabilities, or logits.
        epsilon: probabilities are clipped to [epsilon, 1 - epsilon]; the default is that of Keras
            2.2.4. Once all probabilities fall below `epsilon` the gradient is zero and training
            cannot recover.
        from_logits: whether y_pred are logits, of which none is clipped.

    Returns:
        (N, ...), the mean over the channels of each pixel.
    """
    return -ops.mean(_log_likelihood(y_true, y_pred, epsilon, from_logits), axis=-1)


def categorical_cross_entropy(
    y_true: keras.KerasTensor, y_pred: keras.KerasTensor, *, from_logits: bool = False
) -> keras.KerasTensor:
    """Cross entropy of softmax outputs, -sum over classes of y log p; csam_knee, equation (1).

    Background is a class of its own. With two classes it equals the binary cross entropy of the
    second, because a softmax of two logits is the sigmoid of their difference.
    (N, ..., C) twice -> (N, ...).
    """
    q, p = _alike(y_true, y_pred)
    log_p = ops.log_softmax(p, axis=-1) if from_logits else ops.log(_clipped(p))
    return -ops.sum(q * log_p, axis=-1)


def cross_entropy_by_task(
    y_true: keras.KerasTensor,
    y_pred: keras.KerasTensor,
    *,
    classes: Sequence[int] = (),
    from_logits: bool = False,
) -> keras.KerasTensor:
    """The sum of the cross entropies of some tasks, each over the voxels that train it; zhou2020.

    L1 + L2 + L3 of OM-Net with weights of 1, where the voxels that a task learns from are those
    that have one of its classes (`data.batches.segments`). A task without any adds 0.

    Args:
        y_true: (N, ..., C), the classes of the tasks one after the other.
        y_pred: (N, ..., C) probabilities, or logits.
        classes: number of classes of each task, (5, 5, 2) of OM-Net; empty: one task.
        from_logits: whether y_pred are logits, of which the softmax of each task is taken.

    Returns:
        A scalar.

    Raises:
        ValueError: the classes are not as many as the channels.
    """
    classes = classes or (y_pred.shape[-1],)
    if sum(classes) != y_pred.shape[-1]:
        raise ValueError(
            f"classes: found {classes}, expected {y_pred.shape[-1]} together, one for each channel."
        )
    total, first = 0.0, 0
    for count in classes:
        q, p = _alike(y_true[..., first : first + count], y_pred[..., first : first + count])
        voxels = categorical_cross_entropy(q, p, from_logits=from_logits)
        total += ops.sum(voxels) / ops.maximum(ops.sum(q), 1.0)
        first += count
    return total


def soft_iou_loss(
    y_true: keras.KerasTensor,
    y_pred: keras.KerasTensor,
    *,
    smooth: float = 1e-7,
    from_logits: bool = False,
) -> keras.KerasTensor:
    """1 - sum(p q) / (sum(p + q - p q) + smooth) of every channel over the whole batch.

    (N, ..., C) twice -> (C,). With `from_logits`, p is the softmax of y_pred.
    """
    q, p = _alike(y_true, y_pred)
    p = ops.softmax(p, axis=-1) if from_logits else p
    common = ops.sum(p * q, axis=_all_but_channels(y_pred))
    either = ops.sum(p + q, axis=_all_but_channels(y_pred)) - common
    return 1 - common / (either + smooth)


def focal_loss(
    y_true: keras.KerasTensor,
    y_pred: keras.KerasTensor,
    *,
    gamma: float = 2.0,
    from_logits: bool = False,
) -> keras.KerasTensor:
    """Mean of -(1 - p_t)^gamma log p_t, where p_t is the probability given to the true class.

    Lin et al. 2017, without alpha, as MONAI's FocalLoss, which takes logits. (N, ..., C) twice ->
    (C,), the mean over batch and pixels of each channel.
    """
    q, p = _alike(y_true, y_pred)
    if from_logits:
        # 1 - p_t is the sigmoid of -logit for an object's pixel, of the logit for others. A power
        # of 0 would have no gradient.
        weight = ops.exp(gamma * ops.log_sigmoid(p * (1 - 2 * q)))
    else:
        p = _clipped(p)
        weight = ops.power(q * (1 - p) + (1 - q) * p, gamma)
    per_pixel = -weight * _log_likelihood(y_true, y_pred, from_logits=from_logits)
    return ops.mean(per_pixel, axis=_all_but_channels(y_pred))


def dice_loss(
    y_true: keras.KerasTensor,
    y_pred: keras.KerasTensor,
    *,
    squared: bool = True,
    per: str = "batch",
    smooth: float = 1e-7,
    smooth_numerator: float = 0.0,
    from_logits: bool = False,
) -> keras.KerasTensor:
    """1 - 2 sum(p q) / (sum(p^2) + sum(q^2)) of every channel; mtds2021, equation (9).

    Where nothing is annotated the loss is 1 for every prediction, an empty one included, and has no
    gradient, unless the numerator is smoothed.

    Args:
        y_true: (N, ..., C).
        y_pred: (N, ..., C) probabilities, or logits.
        squared: whether the denominator sums squares (Milletari et al. 2016) or the values.
        per: "batch" sums over all pixels of the batch; "sample" over each map, then averages.
        smooth: added to the denominator, the lambda of iacnn's equation (9). The default is Keras'
            epsilon, so that two empty maps do not give 0 / 0.
        smooth_numerator: added to the numerator.
        from_logits: whether y_pred are logits, of which the sigmoid is taken.

    Returns:
        (C,).

    Raises:
        ValueError: unknown `per`.
    """
    require_choice("per", per, DICE_SUMS)
    q, p = _alike(y_true, y_pred)
    p = ops.sigmoid(p) if from_logits else p
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

    Both convolutions pad with zeros: pixels outside the window count as background. The Gaussian
    sums to 1. The Sobel kernels are -1 0 1, -2 0 2, -1 0 1 and its transpose, as printed in
    textbooks and not divided by 8, so a straight edge of a label has a response of up to 4 before
    smoothing. Divided by 8, the edge loss would weigh 64 times less.

    Args:
        maps: (N, H, W, C).
        gaussian_size: odd width of the Gaussian kernel in pixels.
        gaussian_sigma: its standard deviation in pixels.
        response: "xy" or "magnitude".

    Returns:
        (N, H, W, C, 2) with the responses along H and W, or (N, H, W, C, 1) with their magnitude.

    Raises:
        ValueError: an option out of its range.
    """
    _check_edge_options(gaussian_size, gaussian_sigma, response)
    smooth = _filter(_wide(maps), gaussian_kernel(gaussian_size, gaussian_sigma))
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

    (N, H, W, C) twice -> (N, H, W), the mean over channels and responses: with two responses half
    of the squared norm that equation (11) sums over the channels of the edge network. The options
    are those of `edge_maps`.
    """
    edges = partial(
        edge_maps, gaussian_size=gaussian_size, gaussian_sigma=gaussian_sigma, response=response
    )
    # The filters are linear: the difference of responses is the response to the difference.
    if response == "xy":
        q, p = _alike(y_true, y_pred)
        difference = edges(q - p)
    else:
        difference = edges(y_true) - edges(y_pred)
    return ops.mean(ops.square(difference), axis=(-2, -1))


def edge_network(filters: Sequence[int] = (8, 16)) -> keras.Model:
    """A small network that is trained to find the edges of label maps.

    The other reading of dcabes2020, equations (6), (8) and (9): "Get the proper network parameters
    of edge detection through back propagation training". The paper gives no layers; these are 3x3
    convolutions with ReLU and a 1x1 convolution with sigmoid. The same seeds give the same weights.

    Args:
        filters: channels of the 3x3 convolutions, from first to last.

    Returns:
        (N, H, W, 1) -> a list with the map of every layer, (N, H, W, filters), and last the
        probability of an edge, (N, H, W, 1).
    """

    def conv(x: keras.KerasTensor, width: int, size: int, activation: str) -> keras.KerasTensor:
        initializer = keras.initializers.GlorotUniform(seed=len(maps))
        return keras.layers.Conv2D(
            width,
            size,
            padding="same",
            activation=activation,
            kernel_initializer=initializer,
            dtype="float32",
        )(x)

    labels = keras.Input((None, None, 1), dtype="float32")
    maps: list[keras.KerasTensor] = []
    for width in filters:
        maps.append(conv(maps[-1] if maps else labels, width, 3, "relu"))
    maps.append(conv(maps[-1], 1, 1, "sigmoid"))
    return keras.Model(labels, maps, name="edge_network")


def label_edges(labels: keras.KerasTensor) -> keras.KerasTensor:
    """1 where the 3x3 pixels around hold both 0 and 1, else 0; of (N, H, W, C) masks of 0 and 1.

    Pixels outside the map hold nothing: an object that ends at the border has no edge there.
    """
    labels = ops.cast(labels, "float32")
    widest = partial(ops.max_pool, pool_size=3, strides=1, padding="same")
    return widest(labels) + widest(-labels)


def gaussian_kernel(size: int, sigma: float) -> np.ndarray:
    """(size, size) float32 samples of a Gaussian at pixel centers, scaled to the sum 1."""
    offsets = np.arange(size) - size // 2
    line = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel = np.outer(line, line)
    return (kernel / kernel.sum()).astype("float32")


def cross_entropy_and_edge(
    y_true: keras.KerasTensor,
    y_pred: keras.KerasTensor,
    *,
    edge_weight: float = 1.0,
    gaussian_size: int = 5,
    gaussian_sigma: float = 1.0,
    response: str = "xy",
    from_logits: bool = False,
) -> keras.KerasTensor:
    """`cross_entropy` + edge_weight * `edge_loss`; dcabes2020, equation (12).

    The paper gives none of the first four options.

    Args:
        y_true: (N, H, W, C).
        y_pred: (N, H, W, C) probabilities, or logits.
        edge_weight: 1, the sum of equation (12) as printed. With the other defaults neither term
            dominates: from a constant prediction to a sharp one that is two pixels off, the norms
            of their gradients with respect to the logits differ by less than a factor of 8 (a test
            measures it).
        gaussian_size: 5 pixels, common before Sobel since Canny; the kernel reaches two standard
            deviations.
        gaussian_sigma: 1 pixel.
        response: "xy". The magnitude does not distinguish the two sides of an edge, and its
            gradient is discontinuous at zero.
        from_logits: False, because Keras 2.2.4 clips probabilities; see `cross_entropy`.

    Returns:
        (N, H, W).
    """
    edge = edge_loss(
        y_true,
        ops.sigmoid(_wide(y_pred)) if from_logits else y_pred,
        gaussian_size=gaussian_size,
        gaussian_sigma=gaussian_sigma,
        response=response,
    )
    return cross_entropy(y_true, y_pred, from_logits=from_logits) + edge_weight * edge


def learned_edge_loss(
    y_true: keras.KerasTensor,
    y_pred: keras.KerasTensor,
    network: keras.Model,
    layer_weights: Sequence[float],
) -> keras.KerasTensor:
    """Weighted mean squared difference of the maps of an edge network; dcabes2020, equation (11).

    Args:
        y_true: (N, H, W, C) masks; each channel goes through the network by itself.
        y_pred: (N, H, W, C) probabilities.
        network: as `edge_network`.
        layer_weights: the lambda of every map of the network.

    Returns:
        (N, H, W), the mean over the channels of a map, summed over the maps, and the mean over C.
    """
    channels, shape = y_pred.shape[-1], ops.shape(y_pred)

    def features(maps: keras.KerasTensor) -> list[keras.KerasTensor]:
        apart = ops.moveaxis(ops.cast(maps, "float32"), -1, 1)
        return network(ops.reshape(apart, (-1, *shape[1:3], 1)), training=False)

    pairs = zip(layer_weights, features(y_true), features(y_pred))
    terms = [weight * ops.mean(ops.square(a - b), axis=-1) for weight, a, b in pairs]
    return ops.mean(ops.reshape(sum(terms), (-1, channels, *shape[1:3])), axis=1)


def cross_entropy_and_dice(
    y_true: keras.KerasTensor,
    y_pred: keras.KerasTensor,
    *,
    output_weights: Sequence[float] = (1.0,),
    dice_weight: float = 1.0,
    squared: bool = True,
    per: str = "batch",
    smooth: float = 1e-7,
    smooth_numerator: float = 0.0,
    epsilon: float = EPSILON,
    from_logits: bool = False,
) -> keras.KerasTensor:
    """Sum over channels of weight (mean `cross_entropy` + dice_weight * `dice_loss`).

    mtds2021, equations (1) and (9); fmnet2023, equations (1) and (2) of each of its outputs; iacnn,
    equations (9) to (11), with squared=False.

    Args:
        y_true: (N, ..., R).
        y_pred: (N, ..., R) probabilities or logits, or (N, ..., k * R) of k outputs.
        output_weights: one for each channel; with several outputs one for each output, which
            applies to all its regions.
        dice_weight: 1, as in equation (9) of mtds2021.
        squared: see `dice_loss`.
        per: see `dice_loss`.
        smooth: see `dice_loss`.
        smooth_numerator: see `dice_loss`.
        epsilon: see `cross_entropy`.
        from_logits: see `cross_entropy`.

    Returns:
        A scalar.

    Raises:
        ValueError: the number of weights is not that of the outputs.
    """
    dice = partial(
        dice_loss,
        squared=squared,
        per=per,
        smooth=smooth,
        smooth_numerator=smooth_numerator,
        from_logits=from_logits,
    )

    def terms(output: keras.KerasTensor) -> keras.KerasTensor:
        """(C,)."""
        per_pixel = _log_likelihood(y_true, output, epsilon, from_logits)
        entropy = -ops.mean(per_pixel, axis=_all_but_channels(output))
        return entropy + dice_weight * dice(y_true, output)

    if y_true.shape[-1] < y_pred.shape[-1]:
        outputs = _outputs(y_true, y_pred, output_weights)
        return sum(weight * ops.sum(terms(output)) for weight, output in outputs)
    _require_weights(output_weights, y_pred.shape[-1])
    losses = terms(y_pred)
    return ops.sum(ops.convert_to_tensor(output_weights, losses.dtype) * losses)


def dice_and_focal(
    y_true: keras.KerasTensor,
    y_pred: keras.KerasTensor,
    *,
    output_weights: Sequence[float] = (1.0,),
    gamma: float = 2.0,
    smooth: float = 1e-5,
    from_logits: bool = False,
) -> keras.KerasTensor:
    """Weighted mean over outputs of the sum over regions of `dice_loss` and `focal_loss`.

    The authors' code of fmnet2023: Dice over the whole batch, without squares, smoothed above and
    below. Their code works on logits; probabilities are clipped to [1e-7, 1 - 1e-7] for the
    logarithm.

    Args:
        y_true: (N, ..., R).
        y_pred: (N, ..., k * R) probabilities or logits of k outputs.
        output_weights: one for each output, the main one first; divided by their sum. 1, 1/2, 1/4
            for the three of FM-Net.
        gamma: of the focal term; 0 makes it the cross entropy.
        smooth: added to numerator and denominator of the Dice.
        from_logits: whether y_pred are logits, as in their code.

    Returns:
        A scalar.

    Raises:
        ValueError: the number of weights is not that of the outputs.
    """
    focal = partial(focal_loss, gamma=gamma, from_logits=from_logits)
    dice = partial(
        dice_loss, squared=False, smooth=smooth, smooth_numerator=smooth, from_logits=from_logits
    )
    total = 0.0
    for weight, output in _outputs(y_true, y_pred, output_weights):
        total += weight * ops.sum(dice(y_true, output) + focal(y_true, output))
    return total / sum(output_weights)


class _Loss(keras.losses.Loss):
    """A function of this module with its options, for model.compile.

    Args:
        name: by default that of the function.
        reduction: as in keras.losses.Loss.
        dtype: as in keras.losses.Loss.
        options: of the function; options that are not given have its defaults.

    Raises:
        ValueError: an option out of its range.
    """

    function: Callable[..., keras.KerasTensor]
    check: Callable[..., None]

    def __init__(
        self,
        *,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(name=name or self.function.__name__, reduction=reduction, dtype=dtype)
        given = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
        self.options = {**_defaults(self.function), **given}
        self.check(**self.options)

    def __call__(
        self,
        y_true: keras.KerasTensor,
        y_pred: keras.KerasTensor,
        sample_weight: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        """The loss of a batch; where replicas have parts of it (`replicas`), of all together.

        The mean of the replicas' losses is another number where the loss is no mean over samples
        (a Dice over the batch), or the parts differ in size. So each replica has the loss of the
        whole batch, divided by their number, since tf.distribute adds up their gradients.
        """
        if replicas.context() is None:
            return super().__call__(y_true, y_pred, sample_weight)
        if self.reduction != "sum_over_batch_size":
            raise ValueError(
                f"{self.name}: found reduction={self.reduction!r} on several devices, expected "
                "'sum_over_batch_size'."
            )
        y_true, y_pred = replicas.whole_batch(y_true), replicas.whole_batch(y_pred)
        if sample_weight is not None:
            sample_weight = replicas.whole_batch(sample_weight)
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        y_true = _fitted(y_true, y_pred, len(self.options.get("output_weights", ())))
        loss = self.function(y_true, y_pred, **self.options)
        if len(loss.shape) or replicas.context() is None:
            return loss
        return ops.reshape(loss, (1,))  # Keras divides what it reduces, and a scalar it does not

    def get_config(self) -> dict[str, Any]:
        own = {key: list(v) if isinstance(v, tuple) else v for key, v in self.options.items()}
        return {**super().get_config(), **own}


def _fitted(
    y_true: keras.KerasTensor, y_pred: keras.KerasTensor, weights: int
) -> keras.KerasTensor:
    """y_true with the axes of y_pred, or a refusal: broadcast, they would give another number.

    As Keras' own losses do, a missing last axis of one channel is added and a needless one dropped;
    class numbers do not stand for channels.

    Args:
        y_true: (N, ..., R), or without its channel axis; a size may be unknown.
        y_pred: (N, ..., C).
        weights: number of outputs that y_pred may have, or of channels; 0 where it has one output.

    Raises:
        ValueError: other shapes, or labels outside of 0 to 1.
    """
    wanted = tuple(y_pred.shape)
    unknown = wanted[-1] // weights if weights and weights < wanted[-1] else wanted[-1]
    try:
        found = tuple(y_true.shape)
    except ValueError:  # TensorFlow's, where not even the number of axes is known
        return ops.reshape(y_true, (*ops.shape(y_pred)[:-1], unknown))
    if len(found) == len(wanted) - 1 and wanted[-1] == 1:
        y_true, found = ops.expand_dims(y_true, -1), (*found, 1)
    elif len(found) == len(wanted) + 1 and found[-1] == 1:
        y_true, found = ops.squeeze(y_true, -1), found[:-1]
    if len(found) == len(wanted) and found[-1] is None:
        y_true = ops.reshape(y_true, (*ops.shape(y_pred)[:-1], unknown))
        found = (*found[:-1], unknown)
    sizes = zip(found[:-1], wanted[:-1])
    same = all(size == other or None in (size, other) for size, other in sizes)
    fits = found[-1:] == wanted[-1:] or (weights > 0 and found[-1:] < wanted[-1:])
    if len(found) != len(wanted) or not same or not fits:
        raise ValueError(
            f"y_true: found shape {tuple(y_true.shape)}, expected {wanted}, that of y_pred, with "
            "one channel for each class. Turn class numbers into channels (keras.ops.one_hot)."
        )
    _require_shares(y_true)
    return y_true


def _require_shares(y_true: keras.KerasTensor) -> None:
    """Refuse class numbers and gray codes, where values are at hand: not while a step is traced."""
    if hasattr(y_true, "graph"):  # TensorFlow's, while it traces
        return
    try:
        values = ops.convert_to_numpy(y_true)
    except Exception:  # each backend has its own for a tensor without values
        return
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"y_true: found {values.min():g} to {values.max():g}, expected 0 to 1 in a channel for "
            "each class. Turn class numbers into channels (keras.ops.one_hot)."
        )


def _defaults(function: Callable) -> dict[str, Any]:
    """The options of a loss function, its keyword-only parameters, with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _check_nothing(*, from_logits: bool) -> None:
    pass


def _check_epsilon(*, epsilon: float, from_logits: bool) -> None:
    if not 1e-37 <= epsilon < 0.5:
        raise ValueError(f"epsilon: found {epsilon}, expected a probability from 1e-37 to 0.5.")
    if from_logits and epsilon != EPSILON:
        raise ValueError(
            f"epsilon: found {epsilon} with from_logits, which clips nothing. Give one of the two."
        )


def _check_edge(*, edge_weight: float, from_logits: bool, **edge_options: Any) -> None:
    _check_edge_options(**edge_options)
    if edge_weight < 0:
        raise ValueError(f"edge_weight: found {edge_weight}, expected 0 or more.")


def _check_entropy_and_dice(
    *,
    output_weights: Sequence[float],
    dice_weight: float,
    squared: bool,
    per: str,
    smooth: float,
    smooth_numerator: float,
    epsilon: float,
    from_logits: bool,
) -> None:
    require_choice("per", per, DICE_SUMS)
    _check_epsilon(epsilon=epsilon, from_logits=from_logits)
    if min(dice_weight, smooth, smooth_numerator, *output_weights) < 0:
        found = f"{dice_weight}, {smooth}, {smooth_numerator} and {tuple(output_weights)}"
        raise ValueError(
            f"dice_weight, smooth, smooth_numerator, output_weights: found {found}, expected 0 or "
            "more."
        )


def _check_dice_and_focal(
    *, output_weights: Sequence[float], gamma: float, smooth: float, from_logits: bool
) -> None:
    if min(gamma, smooth, *output_weights) < 0 or not sum(output_weights):
        found = f"{gamma}, {smooth} and {tuple(output_weights)}"
        raise ValueError(
            f"gamma, smooth, output_weights: found {found}, expected 0 or more, and a weight."
        )


@keras.saving.register_keras_serializable("keras_medseg")
class CrossEntropy(_Loss):
    """`cross_entropy` for model.compile."""

    function = staticmethod(cross_entropy)
    check = staticmethod(_check_epsilon)


@keras.saving.register_keras_serializable("keras_medseg")
class CategoricalCrossEntropy(_Loss):
    """`categorical_cross_entropy` for model.compile; csam_knee, equation (2)."""

    function = staticmethod(categorical_cross_entropy)
    check = staticmethod(_check_nothing)


def _check_task_classes(*, classes: Sequence[int], from_logits: bool) -> None:
    if min(classes, default=2) < 2:
        raise ValueError(f"classes: found {classes}, expected 2 or more for each task.")


def _check_smooth(*, smooth: float, from_logits: bool) -> None:
    if smooth < 0:
        raise ValueError(f"smooth: found {smooth}, expected 0 or more.")


@keras.saving.register_keras_serializable("keras_medseg")
class CrossEntropyByTask(_Loss):
    """`cross_entropy_by_task` for model.compile; the total loss of zhou2020."""

    function = staticmethod(cross_entropy_by_task)
    check = staticmethod(_check_task_classes)


@keras.saving.register_keras_serializable("keras_medseg")
class SoftIouLoss(_Loss):
    """`soft_iou_loss` for model.compile."""

    function = staticmethod(soft_iou_loss)
    check = staticmethod(_check_smooth)


@keras.saving.register_keras_serializable("keras_medseg")
class CrossEntropyAndEdge(_Loss):
    """`cross_entropy_and_edge` for model.compile."""

    function = staticmethod(cross_entropy_and_edge)
    check = staticmethod(_check_edge)


def cross_entropy_and_learned_edge(
    y_true: keras.KerasTensor,
    y_pred: keras.KerasTensor,
    *,
    edge_weight: float = 1.0,
    filters: Sequence[int] = (8, 16),
    layer_weights: Sequence[float] = (1.0, 1.0, 1.0),
    steps: int = 300,
    learning_rate: float = 0.01,
) -> keras.KerasTensor:
    """As `CrossEntropyAndLearnedEdge`, which holds the network; by itself it has none.

    Args:
        y_true: (N, H, W, C).
        y_pred: (N, H, W, C) probabilities.
        edge_weight: of the edge loss beside the cross entropy.
        filters: see `edge_network`.
        layer_weights: one for each of `filters`, and one for the map of edges.
        steps: batches of label maps that the edge network learns from, by Adam.
        learning_rate: of that Adam.

    Raises:
        ValueError: always: an edge network must have learned from labels.
    """
    raise ValueError(_UNLEARNED)


_UNLEARNED = (
    "loss: found an edge network that has learned nothing, expected one trained on label maps. "
    "Call loss.learn(batches of label maps) first, as keras_medseg's own training does."
)


def _check_learned_edge(
    *,
    edge_weight: float,
    filters: Sequence[int],
    layer_weights: Sequence[float],
    steps: int,
    learning_rate: float,
) -> None:
    if len(layer_weights) != len(filters) + 1:
        raise ValueError(
            f"layer_weights: found {tuple(layer_weights)}, expected {len(filters) + 1} weights: "
            "one for each of the filters and one for the map of edges."
        )
    if min(edge_weight, *layer_weights) < 0 or min(steps, learning_rate, *filters) <= 0:
        raise ValueError(
            f"edge_weight, layer_weights, filters, steps, learning_rate: found {edge_weight}, "
            f"{tuple(layer_weights)}, {tuple(filters)}, {steps} and {learning_rate}, expected "
            "weights of 0 or more, and the others above 0."
        )


@keras.saving.register_keras_serializable("keras_medseg")
class CrossEntropyAndLearnedEdge(_Loss):
    """`cross_entropy` + edge_weight * `learned_edge_loss` with a network trained on label maps.

    The network learns once, before the first step of a training, and is frozen then ("losses that
    contain fixed pre-trained networks"). Its weights are not saved with a model: they follow from
    the options and the label maps. The options are those of `cross_entropy_and_learned_edge`.

    Attributes:
        network: the `edge_network`.
        learned: whether `learn` was called.
    """

    function = staticmethod(cross_entropy_and_learned_edge)
    check = staticmethod(_check_learned_edge)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.network = edge_network(self.options["filters"])
        self.learned = False

    def learn(self, batches: Iterable[np.ndarray]) -> float:
        """Train the edge network to find the edges of label maps, then freeze it.

        Args:
            batches: (N, H, W, C) masks of 0 and 1; `steps` of those with an edge are used.

        Returns:
            Dice of the edges in the last batch, where the probability is above 1/2.

        Raises:
            ValueError: fewer than `steps` batches have an edge.
        """
        if self.learned:
            raise ValueError("loss: found an edge network that has learned, expected a new one.")
        trained = keras.Model(self.network.input, self.network.outputs[-1])
        trained.compile(keras.optimizers.Adam(self.options["learning_rate"]), "binary_crossentropy")
        done = 0
        for batch in batches:
            maps = np.moveaxis(np.asarray(batch, np.float32), -1, 1).reshape(-1, *batch.shape[1:3])
            maps = maps[..., None]
            edges = ops.convert_to_numpy(label_edges(maps))
            if not edges.any():
                continue
            trained.train_on_batch(maps, edges)
            done += 1
            if done == self.options["steps"]:
                break
        if done < self.options["steps"]:
            raise ValueError(
                f"labels: found {done} batches with an edge, expected {self.options['steps']}. "
                "Lower train.loss_options.steps, or give more cases with objects."
            )
        self.network.trainable, self.learned = False, True
        found = ops.convert_to_numpy(trained(maps, training=False)) > 0.5
        return float(2 * (found * edges).sum() / (found.sum() + edges.sum()))

    def trial(self) -> "CrossEntropyAndLearnedEdge":
        """A copy that computes with its initial weights, to see whether shapes fit."""
        copy = type(self)(**self.options)
        copy.learned = True
        return copy

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """(N, H, W) from (N, H, W, C) twice, once the edge network has learned."""
        if not self.learned:
            raise ValueError(_UNLEARNED)
        y_true = _fitted(y_true, y_pred, 0)
        weights = self.options["layer_weights"]
        edge = learned_edge_loss(y_true, y_pred, self.network, weights)
        return cross_entropy(y_true, y_pred) + self.options["edge_weight"] * edge


@keras.saving.register_keras_serializable("keras_medseg")
class CrossEntropyAndDice(_Loss):
    """`cross_entropy_and_dice` for model.compile."""

    function = staticmethod(cross_entropy_and_dice)
    check = staticmethod(_check_entropy_and_dice)


@keras.saving.register_keras_serializable("keras_medseg")
class DiceAndFocal(_Loss):
    """`dice_and_focal` for model.compile."""

    function = staticmethod(dice_and_focal)
    check = staticmethod(_check_dice_and_focal)


# Each loss has the name of its function.
LOSSES: dict[str, type[_Loss]] = {
    loss.function.__name__: loss
    for loss in (
        CategoricalCrossEntropy,
        CrossEntropy,
        CrossEntropyAndDice,
        CrossEntropyAndEdge,
        CrossEntropyByTask,
        DiceAndFocal,
        SoftIouLoss,
    )
}

LEARNED_LOSSES: dict[str, type[_Loss]] = {
    "cross_entropy_and_learned_edge": CrossEntropyAndLearnedEdge
}
"""Losses that must learn from label maps before they are used."""


def get(name: str, **options: Any) -> keras.losses.Loss:
    """A loss for model.compile, e.g. get("cross_entropy_and_edge", edge_weight=0.5).

    Args:
        name: one of LOSSES, or of LEARNED_LOSSES.
        options: keyword-only parameters of the function of that name.

    Returns:
        The loss.

    Raises:
        ValueError: unknown name or option, or an option out of its range.
    """
    known = LOSSES | LEARNED_LOSSES
    require_choice("loss", name, known)
    for option in options:
        require_choice(f"option of {name}", option, sorted(_defaults(known[name].function)))
    return known[name](**options)


def takes_logits(loss: keras.losses.Loss) -> bool:
    """Whether a loss of `get` is computed from logits."""
    return bool(getattr(loss, "options", {}).get("from_logits", False))


def _check_edge_options(gaussian_size: int, gaussian_sigma: float, response: str) -> None:
    if gaussian_size < 1 or gaussian_size % 2 == 0:
        raise ValueError(f"gaussian_size: found {gaussian_size}, expected an odd width such as 5.")
    if gaussian_sigma <= 0:
        raise ValueError(f"gaussian_sigma: found {gaussian_sigma}, expected more than 0 pixels.")
    require_choice("response", response, RESPONSES)


def _outputs(
    y_true: keras.KerasTensor, y_pred: keras.KerasTensor, weights: Sequence[float]
) -> Iterator[tuple[float, keras.KerasTensor]]:
    """The outputs of a network, which are concatenated in y_pred, each with its weight."""
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


def _wide(maps: keras.KerasTensor) -> keras.KerasTensor:
    return ops.cast(maps, keras.backend.result_type(maps.dtype, "float32"))


def _alike(
    y_true: keras.KerasTensor, y_pred: keras.KerasTensor
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Both in float32, or in float64 where y_pred is so."""
    y_pred = _wide(y_pred)
    return ops.cast(y_true, y_pred.dtype), y_pred


def _clipped(y_pred: keras.KerasTensor, epsilon: float = EPSILON) -> keras.KerasTensor:
    # The largest float32 below 1 is 1 - 2^-24.
    return ops.clip(_wide(y_pred), epsilon, 1 - max(epsilon, 2**-24))


def _log_likelihood(
    y_true: keras.KerasTensor,
    y_pred: keras.KerasTensor,
    epsilon: float = EPSILON,
    from_logits: bool = False,
) -> keras.KerasTensor:
    y_true, y_pred = _alike(y_true, y_pred)
    if from_logits:
        return -ops.binary_crossentropy(y_true, y_pred, from_logits=True)
    y_pred = _clipped(y_pred, epsilon)
    return y_true * ops.log(y_pred) + (1 - y_true) * ops.log(1 - y_pred)


def _filter(maps: keras.KerasTensor, kernel: np.ndarray) -> keras.KerasTensor:
    """Each channel of (N, H, W, C) correlated with a 2-D kernel, zero-padded."""
    channels = maps.shape[-1]
    kernel = np.repeat(kernel[:, :, None, None], channels, axis=2)
    return ops.depthwise_conv(
        maps, ops.convert_to_tensor(kernel, maps.dtype), padding="same", data_format="channels_last"
    )


def _magnitude(a: keras.KerasTensor, b: keras.KerasTensor) -> keras.KerasTensor:
    # The gradient of the root at 0 is infinite, and 0 * inf is NaN even on the branch not taken.
    square = ops.square(a) + ops.square(b)
    positive = square > 0
    return ops.where(positive, ops.sqrt(ops.where(positive, square, 1.0)), 0.0)
