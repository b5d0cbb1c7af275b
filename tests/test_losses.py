"""Losses against arithmetic on paper and finite differences."""

import keras
import numpy as np
import pytest
from scipy import ndimage

from keras_medseg import losses


def _maps(image) -> np.ndarray:
    return np.asarray(image, "float32")[None, ..., None]


def _numpy(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def test_cross_entropy_by_hand():
    # -log(0.8), -log(1 - 0.1), -log(0.5), -log(1 - 0.75)
    loss = losses.cross_entropy(_maps([[1, 0], [1, 0]]), _maps([[0.8, 0.1], [0.5, 0.75]]))
    assert loss.shape == (1, 2, 2)
    expected = [[0.22314355, 0.10536052], [0.69314718, 1.38629436]]
    np.testing.assert_allclose(_numpy(loss)[0], expected, rtol=1e-6)


def test_cross_entropy_clips_at_the_epsilon_of_keras_2_2():
    # -log(1e-7) = 16.118; 1 - 1e-7 is 1 - 2^-23 in float32, and -log(2^-23) = 23 * 0.693 = 15.942.
    loss = _numpy(losses.cross_entropy(_maps([[1, 0, 1, 0]]), _maps([[0, 1, 1, 0]])))[0, 0]
    np.testing.assert_allclose(loss[:2], [16.118096, 15.942385], rtol=1e-6)
    np.testing.assert_allclose(loss[2:], 1.19e-7, atol=3e-8)


@pytest.mark.parametrize(("name", "dice"), [("cross_entropy", 0), ("cross_entropy_and_dice", 1)])
def test_a_network_that_is_sure_and_wrong_learns_only_without_the_clip(name, dice):
    """With logits of -20, 2e-9 as a probability, the slope of an object's pixel is p - 1 = -1. The
    Dice loss, 1 here, has a slope of 2e-9."""
    slopes = {}
    for epsilon in (1e-7, 1e-37):
        layer = keras.layers.Dense(1, activation="sigmoid", bias_initializer="zeros")
        model = keras.Sequential([keras.Input((1, 1, 1)), layer])
        model.compile(keras.optimizers.SGD(1.0), losses.get(name, epsilon=epsilon))
        layer.set_weights([np.zeros((1, 1)), np.array([-20.0])])
        ones = np.ones((4, 1, 1, 1), "float32")
        expected = min(-np.log(epsilon), 20.0) + dice
        assert model.train_on_batch(ones, ones) == pytest.approx(expected, rel=1e-5)
        slopes[epsilon] = -20.0 - float(layer.get_weights()[1][0])
    assert slopes == {1e-7: 0.0, 1e-37: pytest.approx(-1.0)}


def test_cross_entropy_without_the_clip_is_finite_at_both_ends():
    """-log(1e-37) = 37 * 2.302585 = 85.2; -log(2^-24) = 24 * 0.693147 = 16.6."""
    both = _maps([[1, 0, 1, 0]]), _maps([[0, 1, 1, 0]])
    loss = _numpy(losses.cross_entropy(*both, epsilon=1e-37))[0, 0]
    np.testing.assert_allclose(loss, [85.19565, 16.635532, 6e-8, 0], rtol=1e-6, atol=1e-8)
    for name in ("cross_entropy", "cross_entropy_and_dice"):
        with pytest.raises(ValueError, match="epsilon: found 0"):
            losses.get(name, epsilon=0.0)


# The cross entropy's slope at the logit z of a pixel with label q is sigmoid(z) - q, its value
# log(1 + exp(z)) - q z. Beside it the Dice of one pixel, 1 - 2 p q / (p + q), is 1 where the pixel
# is wrong, and flat; the focal loss has the weight 1 there.
FROM_LOGITS = {
    "cross_entropy": 0,
    "cross_entropy_and_edge": 0,
    "cross_entropy_and_dice": 1,
    "dice_and_focal": 1,
}


@pytest.mark.parametrize(("name", "dice"), FROM_LOGITS.items())
@pytest.mark.parametrize("logit", [-100.0, -20.0, 20.0, 100.0])
def test_no_gradient_vanishes_from_logits(name, dice, logit):
    """Of a pixel that is sure and wrong, of either sign, up to any logit."""
    label = float(logit < 0)
    options = {"edge_weight": 0.0} if name == "cross_entropy_and_edge" else {}
    value, slope = _value_and_slope(losses.get(name, from_logits=True, **options), logit, label)
    assert value == pytest.approx(abs(logit) + dice, rel=1e-6)
    assert slope == pytest.approx(np.sign(logit), rel=1e-5)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("logit", [-100.0, -20.0, -1.0, 0.0, 3.0, 20.0, 100.0])
def test_cross_entropy_from_logits_is_that_of_keras(logit, label):
    def of_keras(y_true, y_pred):
        return keras.ops.mean(keras.ops.binary_crossentropy(y_true, y_pred, from_logits=True))

    found = _value_and_slope(losses.get("cross_entropy", from_logits=True), logit, label)
    assert found == pytest.approx(_value_and_slope(of_keras, logit, label), rel=1e-5, abs=1e-6)
    expected = np.logaddexp(0, logit) - label * logit, 1 / (1 + np.exp(-logit)) - label
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def _value_and_slope(loss, logit: float, label: float) -> tuple[float, float]:
    """Of one pixel: a step of gradient descent at rate 1 is the gradient."""
    layer = keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((1, 1, 1)), layer])
    model.compile(keras.optimizers.SGD(1.0), loss)
    layer.set_weights([np.zeros((1, 1)), np.array([logit])])
    maps = np.ones((1, 1, 1, 1), "float32")
    value = float(model.train_on_batch(maps, label * maps))
    return value, logit - float(layer.get_weights()[1][0])


@pytest.mark.parametrize("name", losses.LOSSES)
def test_from_logits_is_from_probabilities(name):
    """Where nothing is clipped, of soft labels as well, but for the focal loss: there MONAI weighs
    by the sigmoid of (1 - 2 q) z."""
    rng = np.random.default_rng(0)
    z, q = rng.normal(0, 2, (2, 4, 5, 3)), rng.random((2, 4, 5, 3))
    q = np.round(q) if name == "dice_and_focal" else q
    many = {"output_weights": (1.0, 2.0, 0.5)} if name == "cross_entropy_and_dice" else {}
    p = 1 / (1 + np.exp(-z))
    if name in ("categorical_cross_entropy", "cross_entropy_by_task", "soft_iou_loss"):
        p, q = (np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True) for x in (z, q))
    ours = losses.get(name, from_logits=True, **many)(q, z)
    assert float(ours) == pytest.approx(float(losses.get(name, **many)(q, p)), rel=1e-5)


def test_softmax_from_logits_has_a_gradient_where_the_probability_is_zero():
    """-log softmax of logits 0 and 100 for the first class is 100."""
    loss = losses.categorical_cross_entropy(
        np.float32([[1, 0]]), np.float32([[0, 100]]), from_logits=True
    )
    assert float(loss[0]) == pytest.approx(100)


def test_clipping_logits_is_refused():
    for name in ("cross_entropy", "cross_entropy_and_dice"):
        with pytest.raises(ValueError, match=r"epsilon: found 1e-37 with from_logits"):
            losses.get(name, epsilon=1e-37, from_logits=True)


def test_computes_in_double_precision_where_keras_does():
    z, q = np.array([[[[3.0]]]]), np.array([[[[1.0]]]])
    loss = losses.cross_entropy(q, keras.ops.convert_to_tensor(z, "float64"), from_logits=True)
    assert float(loss[0, 0, 0]) == pytest.approx(np.log1p(np.exp(-3.0)), rel=1e-12)


def test_cross_entropy_averages_channels():
    y_true = np.array([[[[1.0, 0.0]]]])
    y_pred = np.array([[[[0.5, 0.75]]]])
    expected = (0.69314718 + 1.38629436) / 2
    assert float(losses.cross_entropy(y_true, y_pred)[0, 0, 0]) == pytest.approx(expected)


def test_cross_entropy_agrees_with_keras():
    generator = np.random.default_rng(0)
    y_true = np.float32(generator.random((2, 4, 4, 1)) > 0.5)
    y_pred = generator.random((2, 4, 4, 1), "float32")
    expected = _numpy(keras.losses.binary_crossentropy(y_true, y_pred))
    np.testing.assert_allclose(_numpy(losses.cross_entropy(y_true, y_pred)), expected, rtol=1e-5)


def test_gaussian_kernel_by_hand():
    # exp(-1 / (2 * 1)) = 0.60653; 1 + 2 * 0.60653 = 2.21306; center 1 / 2.21306^2 = 0.20418,
    # side 0.60653 * 0.20418 = 0.12384, corner 0.60653^2 * 0.20418 = 0.07511.
    expected = [[0.07511, 0.12384, 0.07511], [0.12384, 0.20418, 0.12384]]
    np.testing.assert_allclose(losses.gaussian_kernel(3, 1.0)[:2], expected, atol=1e-5)
    assert losses.gaussian_kernel(7, 2.0).sum() == pytest.approx(1)


def test_sobel_of_one_pixel_by_hand():
    # A Gaussian of width 1 leaves the image as it is. Around the single 1 the responses are the
    # Sobel kernel, mirrored: left of it the right neighbor counts +2, right of it the left -2.
    image = np.zeros((5, 5))
    image[2, 2] = 1
    maps = _numpy(losses.edge_maps(_maps(image), gaussian_size=1))
    assert maps.shape == (1, 5, 5, 1, 2)
    along_w = np.zeros((5, 5))
    along_w[1:4, 1:4] = [[1, 0, -1], [2, 0, -2], [1, 0, -1]]
    np.testing.assert_array_equal(maps[0, ..., 0, 1], along_w)
    np.testing.assert_array_equal(maps[0, ..., 0, 0], along_w.T)


def test_the_gaussian_comes_before_sobel():
    """The response of the two filters is that of SciPy's to the same pixels, smoothed."""
    image = np.random.default_rng(3).random((12, 10))
    for size, sigma in ((5, 1.0), (3, 2.0)):
        offsets = np.arange(size) - size // 2
        kernel = np.exp(-np.add.outer(offsets**2, offsets**2) / (2 * sigma**2))
        smooth = ndimage.correlate(image, kernel / kernel.sum(), mode="constant")
        maps = _numpy(losses.edge_maps(_maps(image), gaussian_size=size, gaussian_sigma=sigma))
        for axis in (0, 1):
            expected = ndimage.sobel(smooth, axis=axis, mode="constant")
            np.testing.assert_allclose(maps[0, ..., 0, axis], expected, atol=1e-5)
        sharp = ndimage.sobel(image, axis=0, mode="constant")
        assert np.abs(maps[0, ..., 0, 0] - sharp).max() > 0.5


def test_magnitude_of_one_pixel_by_hand():
    image = np.zeros((5, 5))
    image[2, 2] = 1
    maps = losses.edge_maps(_maps(image), gaussian_size=1, response="magnitude")
    # Corners: both responses 1 -> sqrt(2). Sides: one response 2. Center: 0.
    root = 2**0.5
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = [[root, 2, root], [2, 0, 2], [root, 2, root]]
    assert maps.shape == (1, 5, 5, 1, 1)
    np.testing.assert_allclose(_numpy(maps)[0, ..., 0, 0], expected, atol=1e-6)


def test_edge_loss_of_one_pixel_by_hand():
    # Label: one pixel. Prediction: nothing. Squared responses: per direction four 1s and two 4s,
    # 12; mean over x and y per pixel, summed over all pixels: (12 + 12) / 2 = 12.
    image = np.zeros((5, 5))
    image[2, 2] = 1
    blank = np.zeros((5, 5))
    for response in ("xy", "magnitude"):
        loss = losses.edge_loss(_maps(image), _maps(blank), gaussian_size=1, response=response)
        assert loss.shape == (1, 5, 5)
        # The magnitude's squares are the sums of both directions: 24, a single response per pixel.
        expected = 12 if response == "xy" else 24
        assert float(keras.ops.sum(loss)) == pytest.approx(expected)


def test_borders_count_as_background():
    # All ones: on the left column the Sobel kernel's left side falls on zeros, and misses
    # -(1 + 2 + 1), so 4 (3 in the corners, where one row is missing as well).
    maps = _numpy(losses.edge_maps(_maps(np.ones((4, 4))), gaussian_size=1))[0, ..., 0, 1]
    np.testing.assert_array_equal(maps[:, 0], [3, 4, 4, 3])
    np.testing.assert_array_equal(maps[:, 1:3], 0)
    np.testing.assert_array_equal(maps[:, 3], [-3, -4, -4, -3])


def _edges_by_scipy(maps: np.ndarray, response: str) -> np.ndarray:
    """Edge maps of (N, H, W) in float64: Gaussian of width 5 and sigma 1, then scipy's Sobel."""
    offsets = np.arange(-2, 3)
    gaussian = np.exp(-(offsets[:, None] ** 2 + offsets**2) / 2)
    smooth = ndimage.correlate(maps, (gaussian / gaussian.sum())[None], mode="constant")
    xy = np.stack([ndimage.sobel(smooth, axis, mode="constant") for axis in (1, 2)], -1)
    # scipy smooths across N as well with a third [1, 2, 1]; the callers pass N = 1 and halve it.
    return xy / 2 if response == "xy" else np.hypot(xy[..., :1], xy[..., 1:]) / 2


def _loss_by_scipy(logits: np.ndarray, y_true: np.ndarray, response: str) -> float:
    """Cross entropy plus edge loss of one (1, H, W) map, in float64."""
    p = 1 / (1 + np.exp(-logits))
    entropy = -np.mean(y_true * np.log(p) + (1 - y_true) * np.log(1 - p))
    difference = _edges_by_scipy(y_true, response) - _edges_by_scipy(p, response)
    return entropy + np.mean(np.square(difference))


def _as_model(logits: np.ndarray) -> keras.Model:
    """sigmoid(logits) as the output of a model whose weights are the logits (1, H, W, C)."""
    dense = keras.layers.Dense(logits.size, use_bias=False, activation="sigmoid")
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Reshape(logits.shape[1:])(dense(inputs)))
    model.set_weights([logits.reshape(1, -1)])
    return model


def _gradient(loss: keras.losses.Loss, y_true: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """With respect to the logits: what one step of gradient descent subtracts from them."""
    rate = 100.0
    model = _as_model(logits)
    model.compile(keras.optimizers.SGD(rate), loss)
    model.train_on_batch(np.ones((1, 1)), y_true)
    return (logits - model.get_weights()[0].reshape(logits.shape)) / rate


@pytest.mark.parametrize("response", ["xy", "magnitude"])
def test_loss_and_gradient_by_finite_differences(response):
    generator = np.random.default_rng(2)
    y_true = np.float64(generator.random((1, 7, 6)) > 0.5)
    logits = generator.standard_normal((1, 7, 6))
    loss = losses.get("cross_entropy_and_edge", response=response)
    p = 1 / (1 + np.exp(-logits))
    value = float(loss(y_true[..., None], p[..., None]))
    assert value == pytest.approx(_loss_by_scipy(logits, y_true, response), rel=1e-5)

    expected = np.zeros_like(logits)
    for index in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[index] = 1e-5
        above, below = (_loss_by_scipy(logits + s, y_true, response) for s in (step, -step))
        expected[index] = (above - below) / 2e-5
    gradient = _gradient(loss, y_true[..., None], np.float32(logits[..., None]))
    np.testing.assert_allclose(gradient[..., 0], expected, atol=1e-5)


def test_magnitude_has_a_finite_gradient_where_nothing_is():
    blank = np.zeros((1, 6, 6, 1), "float32")
    # Far below zero the sigmoid is flat and exactly zero: magnitude 0 everywhere.
    for logits in (blank - 200, blank):
        loss = losses.get("cross_entropy_and_edge", response="magnitude")
        assert np.isfinite(_gradient(loss, blank, logits)).all()


def test_default_weight_lets_neither_term_drown_the_other():
    # A disc of radius 16 in 80 x 80, and its signed distance in pixels (inside positive).
    rows, columns = np.mgrid[:80, :80] - 40
    distance = np.float32(16 - np.hypot(rows, columns))[None, ..., None]
    y_true = np.float32(distance > 0)
    entropy, edge = losses.get("cross_entropy"), losses.get("cross_entropy_and_edge")
    states = {
        "undecided": np.zeros_like(distance),
        "all background": np.full_like(distance, -3),
        "soft": distance / 3,
        "sharp": distance,
        "two pixels off": np.clip(3 * np.roll(distance, 2, axis=1), -8, 8),
    }
    for state, logits in states.items():
        of_entropy = _gradient(entropy, y_true, logits)
        of_edge = _gradient(edge, y_true, logits) - of_entropy
        ratio = np.linalg.norm(of_edge) / np.linalg.norm(of_entropy)
        assert 1 / 8 < ratio < 8, state


def test_computes_in_float32_under_any_policy():
    generator = np.random.default_rng(3)
    y_true = np.float32(generator.random((2, 8, 8, 1)) > 0.5)
    y_pred = np.float16(generator.random((2, 8, 8, 1)))
    for response in losses.RESPONSES:
        half = losses.edge_loss(y_true, y_pred, response=response)
        full = losses.edge_loss(y_true, np.float32(y_pred), response=response)
        assert keras.backend.standardize_dtype(half.dtype) == "float32"
        np.testing.assert_array_equal(_numpy(half), _numpy(full))


def test_total_is_entropy_plus_weighted_edge():
    generator = np.random.default_rng(4)
    y_true = np.float32(generator.random((2, 8, 8, 1)) > 0.5)
    y_pred = generator.random((2, 8, 8, 1), "float32")
    loss = losses.get("cross_entropy_and_edge", edge_weight=0.25, gaussian_size=3)
    edge = keras.ops.mean(losses.edge_loss(y_true, y_pred, gaussian_size=3))
    expected = float(keras.ops.mean(losses.cross_entropy(y_true, y_pred))) + 0.25 * float(edge)
    assert float(loss(y_true, y_pred)) == pytest.approx(expected, rel=1e-6)
    plain = losses.get("cross_entropy_and_edge", edge_weight=0)
    assert float(plain(y_true, y_pred)) == float(losses.get("cross_entropy")(y_true, y_pred))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_losses_survive_serialization(name):
    loss = losses.get(name)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


def test_compiled_model_reloads_with_its_loss(tmp_path):
    model = _as_model(np.zeros((1, 4, 4, 1), "float32"))
    loss = losses.get("cross_entropy_and_edge", edge_weight=0.5, response="magnitude")
    model.compile("sgd", loss)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras").loss
    assert reloaded.options["edge_weight"] == 0.5
    assert reloaded.options["response"] == "magnitude"


def test_unknown_loss_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'cross_entropy'"):
        losses.get("crossentropy")


def test_unknown_option_names_the_accepted():
    with pytest.raises(ValueError, match="option of cross_entropy_and_edge: found 'edge_wieght'"):
        losses.get("cross_entropy_and_edge", edge_wieght=1)
    with pytest.raises(ValueError, match="expected one of: epsilon"):
        losses.get("cross_entropy", edge_weight=1)


@pytest.mark.parametrize(
    "option",
    [
        {"edge_weight": -1},
        {"gaussian_size": 4},
        {"gaussian_size": 0},
        {"gaussian_sigma": 0},
        {"response": "diagonal"},
    ],
)
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))}: found"):
        losses.get("cross_entropy_and_edge", **option)


def test_dice_loss_by_hand():
    # Two samples of two pixels, one channel. Batch: overlap 0.5 + 0.2, squares of p
    # 0.25 + 0.09 + 0.04 + 0, of q 1 + 1.
    y_true = np.array([[[[1.0], [0.0]]], [[[1.0], [0.0]]]])
    y_pred = np.array([[[[0.5], [0.3]]], [[[0.2], [0.0]]]])
    expected = {
        (True, "batch"): 1 - 2 * 0.7 / (0.38 + 2),
        (False, "batch"): 1 - 2 * 0.7 / (1.0 + 2),
        (True, "sample"): 1 - (2 * 0.5 / (0.34 + 1) + 2 * 0.2 / (0.04 + 1)) / 2,
        (False, "sample"): 1 - (2 * 0.5 / (0.8 + 1) + 2 * 0.2 / (0.2 + 1)) / 2,
    }
    for (squared, per), value in expected.items():
        found = losses.dice_loss(y_true, y_pred, squared=squared, per=per)
        assert found.shape == (1,)
        assert float(found[0]) == pytest.approx(value, rel=1e-6)


def test_dice_loss_of_empty_and_perfect_maps():
    empty, full = np.zeros((1, 2, 2, 1)), np.ones((1, 2, 2, 1))
    for truth, prediction, expected in ((empty, empty, 1), (empty, full, 1), (full, full, 0)):
        assert float(losses.dice_loss(truth, prediction)[0]) == pytest.approx(expected, abs=1e-6)


def test_entropy_and_dice_of_two_outputs_by_hand():
    # One pixel. Output 1: q = 1, p = 0.5: -log 0.5 + 1 - 2 * 0.5 / (0.25 + 1) = 0.6931 + 0.2.
    # Output 2: q = 0, p = 0.75: -log 0.25 + 1.
    y_true, y_pred = np.array([[[[1.0, 0.0]]]]), np.array([[[[0.5, 0.75]]]])
    first, second = 0.69314718 + 0.2, 1.38629436 + 1
    loss = losses.get("cross_entropy_and_dice", output_weights=(1.0, 0.25))
    assert float(loss(y_true, y_pred)) == pytest.approx(first + 0.25 * second, rel=1e-6)
    loss = losses.get("cross_entropy_and_dice", output_weights=(1.0, 0.0), dice_weight=0.5)
    assert float(loss(y_true, y_pred)) == pytest.approx(0.69314718 + 0.1, rel=1e-6)


def test_entropy_and_dice_refuses_what_does_not_fit():
    y = np.zeros((1, 2, 2, 3))
    with pytest.raises(ValueError, match=r"output_weights: found \(1.0,\), expected 3"):
        losses.get("cross_entropy_and_dice")(y, y)
    with pytest.raises(ValueError, match="expected 0 or more"):
        losses.get("cross_entropy_and_dice", output_weights=(1.0, -1.0))
    with pytest.raises(ValueError, match="per: found 'slice'"):
        losses.get("cross_entropy_and_dice", per="slice")


def test_entropy_and_dice_comes_back_from_its_config():
    loss = losses.get("cross_entropy_and_dice", output_weights=(1.0, 0.5), per="sample")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()


# Three dimensions, several outputs


def test_dice_loss_is_smoothed_where_it_is_told():
    # p q = 0.5, p + q = 1.5; two empty maps give 0 / lambda or s / s.
    truth, prediction, empty = np.ones((1, 1, 1, 1, 1)), np.full((1, 1, 1, 1, 1), 0.5), 0.0
    loss = losses.dice_loss(truth, prediction, squared=False, smooth=1.0)
    assert float(loss[0]) == pytest.approx(1 - 2 * 0.5 / (1.5 + 1))
    loss = losses.dice_loss(truth, prediction, squared=False, smooth=1.0, smooth_numerator=1.0)
    assert float(loss[0]) == pytest.approx(1 - (2 * 0.5 + 1) / (1.5 + 1))
    for smooth_numerator, expected in ((0.0, 1), (1.0, 0)):
        options = dict(smooth=1.0, smooth_numerator=smooth_numerator)
        assert float(losses.dice_loss(truth * empty, truth * empty, **options)[0]) == expected


def test_dice_loss_sums_over_three_dimensions():
    generator = np.random.default_rng(5)
    q = np.float64(generator.random((2, 3, 4, 5, 2)) > 0.5)
    p = generator.random((2, 3, 4, 5, 2))
    found = _numpy(losses.dice_loss(q, p))
    expected = 1 - 2 * (p * q).sum((0, 1, 2, 3)) / (p**2 + q**2).sum((0, 1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    found = _numpy(losses.dice_loss(q, p, per="sample"))
    expected = 1 - np.mean(2 * (p * q).sum((1, 2, 3)) / (p**2 + q**2).sum((1, 2, 3)), axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_focal_loss_by_hand():
    # q = 1, p = 0.8: 0.2^2 * -log 0.8 = 0.04 * 0.22314; q = 0, p = 0.5: 0.25 * 0.69315.
    found = losses.focal_loss(_maps([[1, 0]]), _maps([[0.8, 0.5]]))
    assert found.shape == (1,)
    expected = (0.04 * 0.22314355 + 0.25 * 0.69314718) / 2
    assert float(found[0]) == pytest.approx(expected, rel=1e-6)
    plain = losses.focal_loss(_maps([[1, 0]]), _maps([[0.8, 0.5]]), gamma=0.0)
    assert float(plain[0]) == pytest.approx((0.22314355 + 0.69314718) / 2, rel=1e-6)


def test_categorical_cross_entropy_by_hand():
    y_true = np.array([[[[1.0, 0, 0], [0, 0, 1.0]]]])
    y_pred = np.array([[[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]]])
    found = _numpy(losses.categorical_cross_entropy(y_true, y_pred))
    np.testing.assert_allclose(found[0, 0], [0.69314718, 0.22314355], rtol=1e-6)
    assert float(losses.get("categorical_cross_entropy")(y_true, y_pred)) == pytest.approx(
        (0.69314718 + 0.22314355) / 2, rel=1e-6
    )


def test_softmax_of_two_classes_is_a_sigmoid():
    generator = np.random.default_rng(6)
    logits, label = generator.standard_normal((2, 4, 4, 2)), generator.random((2, 4, 4)) > 0.5
    two = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    one = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))
    found = losses.categorical_cross_entropy(np.stack([~label, label], -1), two)
    expected = losses.cross_entropy(label[..., None], one[..., None])
    np.testing.assert_allclose(_numpy(found), _numpy(expected), rtol=1e-5)


def test_one_output_of_the_code_of_fmnet_by_hand():
    # Two voxels of one region: q = 1, 0 and p = 0.8, 0.5. Dice 1 - (2 * 0.8 + s) / (2.3 + s).
    y_true, y_pred = (np.reshape(v, (1, 2, 1, 1, 1)) for v in ([1.0, 0.0], [0.8, 0.5]))
    dice = 1 - (2 * 0.8 + 1e-5) / (0.8 + 0.5 + 1 + 1e-5)
    focal = (0.04 * 0.22314355 + 0.25 * 0.69314718) / 2
    loss = losses.get("dice_and_focal")
    assert float(loss(y_true, y_pred)) == pytest.approx(dice + focal, rel=1e-6)


def _outputs_of_three_regions():
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((2, 4, 5, 6, 9)) * 3
    y_true = np.float64(generator.random((2, 4, 5, 6, 3)) > 0.6)
    return y_true, 1 / (1 + np.exp(-logits))


def test_code_of_fmnet_gives_what_monai_gives():
    # MONAI 1.6.1 in float64 on the same numbers: for each output and region
    # DiceLoss(sigmoid=True, batch=True) + FocalLoss(gamma=2.0), times 0.5^k, over 1.75.
    loss = losses.get("dice_and_focal", output_weights=(1.0, 0.5, 0.25))
    found = float(loss(*_outputs_of_three_regions()))
    assert found == pytest.approx(4.985774903022144, rel=1e-6)


def test_deep_supervision_compares_each_output_with_the_same_labels():
    y_true, y_pred = _outputs_of_three_regions()
    parts = [y_pred[..., k : k + 3] for k in (0, 3, 6)]
    single = losses.get("dice_and_focal")
    expected = sum(w * float(single(y_true, part)) for w, part in zip((4, 2, 1), parts)) / 7
    loss = losses.get("dice_and_focal", output_weights=(1.0, 0.5, 0.25))
    assert float(loss(y_true, y_pred)) == pytest.approx(expected, rel=1e-6)
    single = losses.get("cross_entropy_and_dice", output_weights=(1.0, 1.0, 1.0))
    expected = sum(w * float(single(y_true, part)) for w, part in zip((1, 1, 0.5), parts))
    loss = losses.get("cross_entropy_and_dice", output_weights=(1.0, 1.0, 0.5))
    assert float(loss(y_true, y_pred)) == pytest.approx(expected, rel=1e-6)


def test_loss_of_iacnn_by_hand():
    # Two pixels: q = 1, 0 and p = 0.8, 0.5; lambda = 1 below alone, and an empty mask costs 1.
    y_true, y_pred = _maps([[1, 0]]), _maps([[0.8, 0.5]])
    loss = losses.get("cross_entropy_and_dice", squared=False, smooth=1.0)
    expected = (0.22314355 + 0.69314718) / 2 + 1 - 2 * 0.8 / (2.3 + 1)
    assert float(loss(y_true, y_pred)) == pytest.approx(expected, rel=1e-6)
    empty = _maps([[0, 0]])
    assert float(loss(empty, empty)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["dice_and_focal", "cross_entropy_and_dice"])
def test_outputs_without_a_weight_are_refused(name):
    y_true, y_pred = _outputs_of_three_regions()
    with pytest.raises(ValueError, match=r"output_weights: found \(1.0, 0.5\), expected 3"):
        losses.get(name, output_weights=(1.0, 0.5))(y_true, y_pred)
    with pytest.raises(ValueError, match=r"expected 4.5: one for each output"):
        losses.get(name, output_weights=(1.0,) * 4)(y_true[..., :2], y_pred)


def test_weights_that_are_all_zero_or_negative_are_refused():
    for weights in ((0.0,), (1.0, -1.0), ()):
        with pytest.raises(ValueError, match="output_weights: found"):
            losses.get("dice_and_focal", output_weights=weights)
    with pytest.raises(ValueError, match="gamma, smooth"):
        losses.get("dice_and_focal", gamma=-1.0)


def test_dice_and_focal_computes_in_float32():
    y_true, y_pred = _outputs_of_three_regions()
    loss = losses.get("dice_and_focal", output_weights=(1.0, 0.5, 0.25))
    half = np.float16(y_pred)
    # 240 voxels and more of 1 each: float16 would lose the sums' last digits.
    assert float(loss(y_true, half)) == pytest.approx(
        float(loss(y_true, np.float32(half))), rel=1e-6
    )


def _options(name, channels):
    return {"output_weights": (1.0,) * channels} if name == "cross_entropy_and_dice" else {}


def _probabilities(channels, batch=1):
    rng = np.random.default_rng(channels)
    y_pred = rng.uniform(0.05, 0.95, (batch, 16, 16, channels)).astype("float32")
    return (rng.uniform(size=y_pred.shape) > 0.7).astype("float32"), y_pred


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("name", losses.LOSSES)
def test_labels_without_their_channel_axis_are_expanded_as_keras_does(name, batch):
    y_true, y_pred = _probabilities(1, batch)
    value = _numpy(losses.get(name)(y_true, y_pred))
    assert _numpy(losses.get(name)(y_true[..., 0], y_pred)) == value
    assert _numpy(losses.get(name)(y_true[..., None], y_pred)) == value
    keras_own = keras.losses.BinaryCrossentropy()
    own = _numpy(keras_own(y_true[..., 0], y_pred))
    np.testing.assert_allclose(own, _numpy(keras_own(y_true, y_pred)), rtol=1e-6)


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.argmax(-1)[..., None],  # class numbers
        lambda y: y.argmax(-1),
        lambda y: y[:1],  # would be broadcast
        lambda y: y[:, :1],
        lambda y: y * 255,
    ],
)
def test_labels_that_would_be_broadcast_are_refused(change, name):
    y_true, y_pred = _probabilities(4, batch=2)
    loss = losses.get(name, **_options(name, 4))
    loss(y_true, y_pred)
    with pytest.raises(ValueError, match=r"y_true: found .*expected"):
        loss(change(y_true).astype("float32"), y_pred)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data")
@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("shape", [(None, 16, 16, None), (None, 16, 16), None])
def test_labels_of_unknown_shape_are_trained_on(name, shape):
    import tensorflow as tf

    y_true, y_pred = _probabilities(1, batch=2)
    loss = losses.get(name)
    spec = [tf.TensorSpec(shape), tf.TensorSpec((None, 16, 16, 1))]
    traced = tf.function(lambda y, p: loss(y, p), input_signature=spec)
    labels = y_true[..., 0] if shape is not None and len(shape) == 3 else y_true
    np.testing.assert_allclose(traced(labels, y_pred), loss(y_true, y_pred), rtol=1e-6)


LEARNED = "cross_entropy_and_learned_edge"


def _disks(seed, count=4, size=24):
    """(count, size, size, 1) masks of one disk each."""
    rng = np.random.default_rng(seed)
    across, down = np.mgrid[:size, :size]
    masks = []
    for _ in range(count):
        (x, y), radius = rng.uniform(7, size - 7, 2), rng.uniform(3, 6)
        masks.append(np.hypot(across - x, down - y) < radius)
    return np.array(masks, "float32")[..., None]


@pytest.fixture(scope="module")
def learned():
    loss = losses.get(LEARNED, steps=150)
    assert loss.learn(_disks(seed) for seed in range(150)) > 0.95
    return loss


def test_label_edges_by_hand():
    """A pixel inside a row of three is one of both values only in its 3x3 neighborhood."""
    label = np.zeros((5, 6))
    label[2, 1:4] = 1
    edges = _numpy(losses.label_edges(_maps(label)))[0, ..., 0]
    expected = np.zeros((5, 6))
    expected[1:4, 0:5] = 1
    np.testing.assert_array_equal(edges, expected)
    # An object that ends at the border has no edge there.
    assert not _numpy(losses.label_edges(_maps(np.ones((4, 4))))).any()


def test_an_edge_network_finds_the_edges_of_label_maps_that_it_has_not_seen(learned):
    unseen = _disks(1000)
    found = _numpy(learned.network(unseen)[-1]) > 0.5
    edges = _numpy(losses.label_edges(unseen)) > 0
    assert 2 * (found & edges).sum() / (found.sum() + edges.sum()) > 0.95


def test_the_learned_edge_loss_is_the_difference_of_all_maps_by_numpy(learned):
    y_true, y_pred = _disks(1), np.random.default_rng(0).random((4, 24, 24, 1), "float32")
    weighted = losses.learned_edge_loss(y_true, y_pred, learned.network, (2.0, 0.5, 1.0))
    expected = sum(
        weight * ((_numpy(a) - _numpy(b)) ** 2).mean(-1)
        for weight, a, b in zip((2.0, 0.5, 1.0), learned.network(y_true), learned.network(y_pred))
    )
    np.testing.assert_allclose(_numpy(weighted), expected, rtol=1e-5, atol=1e-7)
    both = [np.concatenate([y, y], axis=-1) for y in (y_true, y_pred)]
    twice = losses.learned_edge_loss(*both, learned.network, (2.0, 0.5, 1.0))
    np.testing.assert_allclose(_numpy(twice), expected, rtol=1e-5, atol=1e-7)
    assert not _numpy(losses.learned_edge_loss(y_true, y_true, learned.network, (1, 1, 1))).any()
    total = float(learned(y_true, y_pred))
    edge = losses.learned_edge_loss(y_true, y_pred, learned.network, (1, 1, 1))
    entropy = losses.cross_entropy(y_true, y_pred)
    assert total == pytest.approx(float(keras.ops.mean(entropy + edge)), rel=1e-5)


def test_an_edge_network_is_frozen_while_a_network_trains_with_it(learned):
    before = [weight.copy() for weight in learned.network.get_weights()]
    layer = keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")
    model = keras.Sequential([keras.Input((24, 24, 1)), layer])
    model.compile(keras.optimizers.SGD(0.5), learned)
    kernel = layer.get_weights()[0]
    assert len(model.trainable_variables) == 2
    x = _disks(2)
    first = model.train_on_batch(x, x)
    for _ in range(20):
        last = model.train_on_batch(x, x)
    assert last < first
    assert np.abs(layer.get_weights()[0] - kernel).max() > 0.01
    for weight, after in zip(before, learned.network.get_weights()):
        np.testing.assert_array_equal(weight, after)


def test_an_edge_network_learns_the_same_from_the_same_labels_and_must_learn_first():
    one, two = (losses.get(LEARNED, steps=3) for _ in range(2))
    with pytest.raises(ValueError, match="found an edge network that has learned nothing"):
        one(_disks(0), _disks(0))
    assert float(one.trial()(_disks(0), _disks(1))) > 0
    for loss in (one, two):
        loss.learn([np.zeros((2, 24, 24, 1)), *(_disks(seed) for seed in range(3))])
    for weight, other in zip(one.network.get_weights(), two.network.get_weights()):
        np.testing.assert_array_equal(weight, other)
    assert any(
        (a != b).any()
        for a, b in zip(one.network.get_weights(), losses.edge_network().get_weights())
    )
    with pytest.raises(ValueError, match="has learned, expected a new one"):
        one.learn([_disks(0)])
    with pytest.raises(ValueError, match="found 2 batches with an edge, expected 3"):
        losses.get(LEARNED, steps=3).learn([_disks(0), np.zeros((1, 8, 8, 1)), _disks(1)])
    again = keras.losses.deserialize(keras.losses.serialize(one))
    assert again.options == one.options
    assert not again.learned


@pytest.mark.parametrize(
    "options", [{"filters": (4,)}, {"edge_weight": -1}, {"steps": 0}, {"layer_weights": (1, -1, 1)}]
)
def test_wrong_options_of_a_learned_edge_loss_are_named(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}|layer_weights"):
        losses.get(LEARNED, **options)


def test_the_loss_by_task_by_hand():
    """Task 1 learns from both voxels, task 2 from the second one alone, task 3 from none."""
    y_true = np.float32([[1, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0]])
    y_pred = np.float32([[0.5, 0.5, 0.1, 0.9, 0.3, 0.7], [0.2, 0.8, 0.4, 0.6, 0.6, 0.4]])
    expected = -(np.log(0.5) + np.log(0.8)) / 2 - np.log(0.6)
    loss = losses.get("cross_entropy_by_task", classes=(2, 2, 2))
    assert float(loss(y_true, y_pred)) == pytest.approx(expected, rel=1e-6)


def test_a_task_of_one_class_or_of_other_channels_is_refused():
    with pytest.raises(ValueError, match=r"classes: found \(1, 2\), expected 2 or more"):
        losses.get("cross_entropy_by_task", classes=(1, 2))
    loss = losses.get("cross_entropy_by_task", classes=(2, 2))
    with pytest.raises(ValueError, match=r"classes: found \(2, 2\), expected 5 together"):
        loss(np.zeros((1, 5), "float32"), np.zeros((1, 5), "float32"))


def test_the_soft_iou_by_hand():
    q, p = np.float32([[1, 0], [0, 1]]), np.float32([[0.5, 0.5], [0.25, 0.75]])
    # Channel 0: common 0.5, together 0.75 + 1 - 0.5. Channel 1: 0.75, 1.25 + 1 - 0.75.
    expected = [1 - 0.5 / 1.25, 1 - 0.75 / 1.5]
    np.testing.assert_allclose(_numpy(losses.soft_iou_loss(q, p)), expected, rtol=1e-6)
    assert float(losses.get("soft_iou_loss")(q, q)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="smooth: found -1"):
        losses.get("soft_iou_loss", smooth=-1)
