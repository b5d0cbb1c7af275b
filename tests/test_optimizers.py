"""Optimizers against the formulas of PyTorch, Caffe and DeepMedic, written out in NumPy."""

import keras
import numpy as np
import pytest

from keras_medseg import losses
from keras_medseg.optimizers import (
    OPTIMIZERS,
    AdamL2,
    NadamPyTorch,
    RmsPropDeepMedic,
    SgdCaffe,
)

WEIGHTS = np.array([0.5, -2.0, 0.0, 3e-4])
GRADIENTS = np.array([[0.1, -3.0, 0.0, 1e-6], [0.2, 2.0, 1e-3, -1e-6], [-0.4, 0.5, 0.0, 2e-6]])


def _steps(optimizer: keras.optimizers.Optimizer, count: int) -> list[np.ndarray]:
    """The weights after each of the first steps."""
    variable = keras.Variable(WEIGHTS, dtype="float32")
    after = []
    for gradient in GRADIENTS[:count]:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [variable])
        after.append(keras.ops.convert_to_numpy(variable.value))
    return after


def _torch_nadam(count: int, rate: float, decay: float) -> list[np.ndarray]:
    """torch.optim.NAdam, "Algorithm" in its documentation, in float64."""
    w, m, v, product, after = WEIGHTS.copy(), 0.0, 0.0, 1.0, []
    for t, g in enumerate(GRADIENTS[:count], 1):
        mu = 0.9 * (1 - 0.5 * 0.96 ** (t * decay))
        mu_next = 0.9 * (1 - 0.5 * 0.96 ** ((t + 1) * decay))
        product *= mu
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        m_hat = mu_next * m / (1 - product * mu_next) + (1 - mu) * g / (1 - product)
        w = w - rate * m_hat / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        after.append(w)
    return after


def _torch_adam(count: int, rate: float, weight_decay: float) -> list[np.ndarray]:
    """torch.optim.Adam, "Algorithm" in its documentation, in float64."""
    w, m, v, after = WEIGHTS.copy(), 0.0, 0.0, []
    for t, g in enumerate(GRADIENTS[:count], 1):
        g = g + weight_decay * w
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        after.append(w)
    return after


def test_first_step_of_nadam_by_hand():
    # One weight, gradient 1: m = 0.1, unbiased v = 1. mu_1 = 0.9 (1 - 0.96^0.004 / 2) = 0.450073,
    # mu_2 = 0.450147. m_hat = 0.450147 * 0.1 / (1 - 0.450073 * 0.450147) + 1 = 0.056452 + 1.
    variable = keras.Variable([0.0])
    NadamPyTorch(0.1).apply([keras.ops.ones((1,))], [variable])
    assert float(variable[0]) == pytest.approx(-0.1056452, rel=1e-5)


def test_the_formulas_are_those_of_torch():
    # torch 2.15, float64, the third step: optim.NAdam and optim.Adam(weight_decay=0.1).
    nadam = [-0.010804495237, 0.003879989647, -0.011181648766, -0.012706423822]
    adam = [-0.019741951770, 0.013349939020, -0.008240349593, 0.004205796834]
    np.testing.assert_allclose(_torch_nadam(3, 1e-2, 4e-3)[-1] - WEIGHTS, nadam, rtol=1e-7)
    np.testing.assert_allclose(_torch_adam(3, 1e-2, 0.1)[-1] - WEIGHTS, adam, rtol=1e-7)


@pytest.mark.parametrize("decay", [4e-3, 0.5])
def test_nadam_is_pytorchs(decay):
    found = _steps(NadamPyTorch(1e-2, momentum_decay=decay), 3)
    for ours, expected in zip(found, _torch_nadam(3, 1e-2, decay)):
        np.testing.assert_allclose(ours - WEIGHTS, expected - WEIGHTS, rtol=2e-5, atol=2e-7)


def test_keras_nadam_has_another_momentum():
    ours, theirs = _steps(NadamPyTorch(1e-2), 3)[-1], _steps(OPTIMIZERS["nadam"](1e-2), 3)[-1]
    assert abs(ours[0] - theirs[0]) > 1e-4
    # With 0.96^t in the place of 0.96^(0.004 t) they are the same.
    same = _steps(NadamPyTorch(1e-2, momentum_decay=1.0, epsilon=1e-7), 3)[-1]
    np.testing.assert_allclose(same, theirs, atol=1e-6)


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_adam_l2_is_pytorchs(l2):
    found = _steps(AdamL2(1e-2, l2=l2), 3)
    for ours, expected in zip(found, _torch_adam(3, 1e-2, l2)):
        np.testing.assert_allclose(ours - WEIGHTS, expected - WEIGHTS, rtol=2e-5, atol=2e-7)


def test_l2_reaches_biases_and_norms():
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(3), keras.layers.BatchNormalization()]
    )
    model.set_weights([np.ones(w.shape) for w in model.weights])
    model.compile(AdamL2(1e-2, l2=0.1), loss=lambda y_true, y_pred: 0 * keras.ops.sum(y_pred))
    model.train_on_batch(np.ones((4, 2)), np.ones((4, 3)))
    # Adam's first step has the length of the rate, whatever the gradient.
    for weight in model.trainable_variables:
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), 0.99, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_and_config_bring_it_back(name):
    first = OPTIMIZERS[name](1e-2)
    variable = keras.Variable(WEIGHTS, dtype="float32")
    gradients = [keras.ops.convert_to_tensor(g, "float32") for g in GRADIENTS]
    for gradient in gradients[:2]:
        first.apply([gradient], [variable])
    again = keras.optimizers.deserialize(keras.optimizers.serialize(first))
    assert type(again) is type(first)
    copy = keras.Variable(variable.value)
    again.build([copy])
    assert [v.shape for v in again.variables] == [v.shape for v in first.variables]
    for old, new in zip(first.variables, again.variables):
        new.assign(old.value)
    first.apply([gradients[2]], [variable])
    again.apply([gradients[2]], [copy])
    assert np.array_equal(*(keras.ops.convert_to_numpy(v.value) for v in (variable, copy)))


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_works_inside_fit(jit_compile):
    x = np.random.default_rng(0).standard_normal((400, 3), "float32")
    found = []
    for name in ("nadam_pytorch", "adam_l2"):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
        model.set_weights([np.ones((3, 1))])
        model.compile(OPTIMIZERS[name](0.1), "mse", jit_compile=jit_compile)
        model.fit(x, x @ [[1.0], [-2.0], [0.5]], batch_size=16, epochs=8, shuffle=False, verbose=0)
        found.append(model.get_weights()[0][:, 0])
    np.testing.assert_allclose(found, [[1, -2, 0.5]] * 2, atol=0.02)


# One step of a network in three dimensions


def _convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """(N, X, Y, Z, C) with a 3x3x3 kernel (3, 3, 3, C, R), zero-padded, tap by tap."""
    padded = np.pad(x, [(0, 0), *[(1, 1)] * 3, (0, 0)])
    out = np.zeros((*x.shape[:4], kernel.shape[-1]))
    for i, j, k in np.ndindex(3, 3, 3):
        out += padded[:, i:, j:, k:][:, : x.shape[1], : x.shape[2], : x.shape[3]] @ kernel[i, j, k]
    return out


def _kernel_gradient(x: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    padded = np.pad(x, [(0, 0), *[(1, 1)] * 3, (0, 0)])
    gradient = np.empty((3, 3, 3, x.shape[-1], upstream.shape[-1]))
    for i, j, k in np.ndindex(3, 3, 3):
        part = padded[:, i:, j:, k:][:, : x.shape[1], : x.shape[2], : x.shape[3]]
        gradient[i, j, k] = np.einsum("nxyzc,nxyzr->cr", part, upstream)
    return gradient


def _loss_and_slope(q: np.ndarray, p: np.ndarray, weights: tuple) -> tuple[float, np.ndarray]:
    """Dice (no squares, whole batch, 1e-5) + focal (gamma 2) of each region and output.

    With S = sum p + sum q and I = sum p q: d/dp (1 - (2 I + s) / (S + s)) =
    -2 q / (S + s) + (2 I + s) / (S + s)^2. The focal term is -(1 - t)^2 log t with t = p where
    q = 1 and 1 - p elsewhere: d/dt = 2 (1 - t) log t - (1 - t)^2 / t.
    """
    total, slope, regions = 0.0, np.zeros_like(p), q.shape[-1]
    for c in range(p.shape[-1]):
        y, one, weight = q[..., c % regions], p[..., c], weights[c // regions] / sum(weights)
        above, below = 2 * (y * one).sum() + 1e-5, y.sum() + one.sum() + 1e-5
        t = np.where(y == 1, one, 1 - one)
        total += weight * (1 - above / below - np.mean((1 - t) ** 2 * np.log(t)))
        of_focal = (2 * (1 - t) * np.log(t) - (1 - t) ** 2 / t) * np.where(y == 1, 1, -1)
        slope[..., c] = weight * (-2 * y / below + above / below**2 + of_focal / one.size)
    return total, slope


def test_one_step_of_the_code_of_fmnet_agrees_with_numpy():
    """Loss, gradient and two steps: two outputs of two regions from one convolution."""
    generator = np.random.default_rng(1)
    x = generator.standard_normal((2, 6, 5, 4, 2))
    y = np.float64(generator.random((2, 6, 5, 4, 2)) > 0.7)
    kernel, bias = generator.standard_normal((3, 3, 3, 2, 4)) / 7, np.zeros(4)
    layer = keras.layers.Conv3D(4, 3, padding="same", activation="sigmoid")
    model = keras.Sequential([keras.Input((6, 5, 4, 2)), layer])
    model.set_weights([kernel, bias])
    loss = losses.get("dice_and_focal", output_weights=(1.0, 0.5))
    model.compile(NadamPyTorch(3e-4), loss)
    momenta, product = [[0.0, 0.0], [0.0, 0.0]], 1.0
    for t in (1, 2):
        p = 1 / (1 + np.exp(-(_convolved(x, kernel) + bias)))
        expected, slope = _loss_and_slope(y, p, (1.0, 0.5))
        slope *= p * (1 - p)
        gradients = [_kernel_gradient(x, slope), slope.sum(axis=(0, 1, 2, 3))]
        assert model.train_on_batch(x, y, return_dict=True)["loss"] == pytest.approx(
            expected, rel=1e-6
        )
        mu, mu_next = (0.9 * (1 - 0.5 * 0.96 ** (0.004 * s)) for s in (t, t + 1))
        product *= mu
        for weight, gradient, moment in zip((kernel, bias), gradients, momenta):
            moment[0] = 0.9 * moment[0] + 0.1 * gradient
            moment[1] = 0.999 * moment[1] + 0.001 * gradient**2
            ahead = mu_next * moment[0] / (1 - product * mu_next)
            ahead = ahead + (1 - mu) * gradient / (1 - product)
            weight -= 3e-4 * ahead / (np.sqrt(moment[1] / (1 - 0.999**t)) + 1e-8)
        for found, weight in zip(model.get_weights(), (kernel, bias)):
            # A step is 3e-4; weights are of the order of 0.1.
            np.testing.assert_allclose(found, weight, atol=1e-7)
        model.reset_metrics()


def test_gradient_of_the_code_of_fmnet_agrees_with_numpy():
    generator = np.random.default_rng(2)
    x = generator.standard_normal((2, 4, 4, 4, 1))
    y = np.float64(generator.random((2, 4, 4, 4, 1)) > 0.5)
    kernel = generator.standard_normal((3, 3, 3, 1, 1)) / 3
    layer = keras.layers.Conv3D(1, 3, padding="same", use_bias=False, activation="sigmoid")
    model = keras.Sequential([keras.Input((4, 4, 4, 1)), layer])
    model.set_weights([kernel])
    model.compile(keras.optimizers.SGD(1.0), losses.get("dice_and_focal"))
    model.train_on_batch(x, y)
    p = 1 / (1 + np.exp(-_convolved(x, kernel)))
    slope = _loss_and_slope(y, p, (1.0,))[1] * p * (1 - p)
    found = kernel - model.get_weights()[0]
    assert np.abs(found).max() > 1e-3
    np.testing.assert_allclose(found, _kernel_gradient(x, slope), atol=1e-6)


def _named_steps(optimizer, kind, count=3):
    """As `_steps`, for a weight of a layer that is called `kind`."""
    layer = keras.layers.Layer(name="layer")
    initial = keras.initializers.Constant(WEIGHTS)
    variable = layer.add_weight(shape=WEIGHTS.shape, initializer=initial, name=kind)
    after = []
    for number, gradient in enumerate(GRADIENTS[:count]):
        optimizer.learning_rate = 0.01 / (number + 1)
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [variable])
        after.append(keras.ops.convert_to_numpy(variable.value))
    return after


@pytest.mark.parametrize(
    ("kind", "rate", "decay"),
    [("kernel", 1, 0.1), ("gamma", 1, 0.1), ("beta", 2, 0.1), ("bias", 2, 0)],
)
def test_caffes_steps_have_their_rate_within(kind, rate, decay):
    """SGDSolver::ComputeUpdateValue: history = momentum history + local rate * (diff + decay w)."""
    w, history, expected = WEIGHTS.copy(), 0.0, []
    for number, g in enumerate(GRADIENTS):
        history = 0.99 * history + rate * 0.01 / (number + 1) * (g + decay * w)
        w = w - history
        expected.append(w)
    found = _named_steps(SgdCaffe(0.01, momentum=0.99, l2=0.1), kind)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("kind", "penalized"), [("kernel", 1), ("alpha", 0)])
@pytest.mark.parametrize("normalized", [True, False])
def test_rmsprop_is_that_of_deepmedic(kind, penalized, normalized):
    """Its cost is that of the data + l1 sum |w| + l2 sum w^2, over kernels."""
    w, square, velocity, expected = WEIGHTS.copy(), 0.0, 0.0, []
    for number, g in enumerate(GRADIENTS):
        g = g + penalized * (0.03 * np.sign(w) + 2 * 0.05 * w)
        square = 0.9 * square + 0.1 * g**2
        step = 0.01 / (number + 1) * g / np.sqrt(square + 1e-4) * (0.4 if normalized else 1)
        velocity = 0.6 * velocity - step
        w = w + 0.6 * velocity - step
        expected.append(w)
    optimizer = RmsPropDeepMedic(0.01, normalized=normalized, l1=0.03, l2=0.05)
    found = _named_steps(optimizer, kind)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "optimizer", [SgdCaffe(l2=0.1, momentum=0.9, bias_rate=3.0), RmsPropDeepMedic(l1=0.1, rho=0.8)]
)
def test_the_configuration_makes_the_same_optimizer(optimizer):
    config = optimizer.get_config()
    assert type(optimizer).from_config(config).get_config() == config
