"""Same forward, loss and gradient on every backend, with the same weights and input.

Each other backend runs this file as a script in an interpreter of its own, which
KERAS_MEDSEG_TENSORFLOW_PYTHON, KERAS_MEDSEG_JAX_PYTHON or KERAS_MEDSEG_TORCH_PYTHON names (default:
the one that runs the tests). A backend that is not installed there is skipped.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
# Options of the network, and of its loss. Between them every kind of layer and operation. The
# deeper bottleneck would add only chances that a ReLU's input is so near 0 that rounding flips it.
CASES = {
    "default": ({}, {"response": "magnitude"}),
    "other": (
        {"framework": "pytorch", "downsampling": "strided_conv", "upsampling": "bilinear"},
        {},
    ),
}


def _build(case: str):
    from keras_medseg import registry

    options = {"input_shape": (32, 48, 4), "filters": 4, **CASES[case][0]}
    return registry.build("residual_attention_unet", **options)


def _by_tape(model, loss, x, y):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss(y, model(x, training=True))
    return value, tape.gradient(value, [w.value for w in model.trainable_variables])


def _by_grad(model, loss, x, y):
    import jax

    fixed = [w.value for w in model.non_trainable_variables]

    def value(weights):
        return loss(y, model.stateless_call(weights, fixed, x, training=True)[0])

    return jax.jit(jax.value_and_grad(value))([w.value for w in model.trainable_variables])


def _by_backward(model, loss, x, y):
    model.zero_grad()
    value = loss(y, model(x, training=True))
    value.backward()
    return value.detach(), [w.value.grad for w in model.trainable_variables]


GRADIENTS = {"tensorflow": _by_tape, "jax": _by_grad, "torch": _by_backward}


def _measure(weights: dict[str, list[np.ndarray]], x: np.ndarray, y: np.ndarray) -> dict:
    """Forward (inference), loss and gradients (training) of all cases on this backend."""
    import keras

    from keras_medseg import losses

    results = {}
    for case, values in weights.items():
        model = _build(case)
        model.set_weights(values)
        loss = losses.get("cross_entropy_and_edge", **CASES[case][1])
        results[f"{case}/forward"] = keras.ops.convert_to_numpy(model(x, training=False))
        by_backend = GRADIENTS[keras.backend.backend()]
        value, gradients = by_backend(model, loss, x, y)
        results[f"{case}/loss"] = float(value)
        for weight, gradient in zip(model.trainable_variables, gradients):
            results[f"{case}/gradient/{weight.path}"] = keras.ops.convert_to_numpy(gradient)
    return results


def _main(given: str, answer: str) -> None:
    arrays = np.load(given)
    weights = {case: [] for case in CASES}
    for name in arrays.files[2:]:
        weights[name.split("/")[0]].append(arrays[name])
    np.savez(answer, **_measure(weights, arrays["x"], arrays["y"]))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Weights and input in a file, and what this process' backend makes of them."""
    import keras

    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 32, 48, 4), "float32")
    y = np.float32(generator.random((2, 32, 48, 1)) > 0.7)
    # Norms and biases away from 0 and 1, so that none is without effect.
    weights = {
        case: [_disturbed(w, generator) for w in _build(case).get_weights()] for case in CASES
    }
    path = tmp_path_factory.mktemp("backends") / "given.npz"
    arrays = {f"{case}/{i}": w for case, values in weights.items() for i, w in enumerate(values)}
    np.savez(path, x=x, y=y, **arrays)
    return path, _measure(weights, x, y)


def _disturbed(weight: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return weight + 0.1 * generator.random(weight.shape, "float32") * (weight.ndim == 1)


def _interpreter(backend: str) -> str:
    """Python of another backend; skips the test where it cannot run."""
    import keras

    if backend == keras.backend.backend():
        pytest.skip(f"{backend} is the reference")
    python = os.environ.get(f"KERAS_MEDSEG_{backend.upper()}_PYTHON", sys.executable)
    probe = (
        "import sys; from importlib.util import find_spec; "
        "sys.exit(not all(map(find_spec, sys.argv[1:])))"
    )
    if subprocess.run([python, "-c", probe, "keras", backend]).returncode:
        pytest.skip(f"{backend} is not installed in {python}")
    return python


@pytest.mark.slow
@pytest.mark.parametrize("backend", GRADIENTS)
def test_backend_agrees(backend, reference, tmp_path):
    given, expected = reference
    python = _interpreter(backend)
    answer = tmp_path / "answer.npz"
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    subprocess.run([python, __file__, given, answer], env=environment, check=True, timeout=600)
    found = np.load(answer)
    assert set(found) == set(expected)

    # The same sums in another order: float32 roundings, grown by the norms of ten blocks.
    for case in CASES:
        key = f"{case}/forward"
        np.testing.assert_allclose(found[key], expected[key], atol=1e-5, err_msg=key)
        key = f"{case}/loss"
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-5, err_msg=key)
        keys = [key for key in expected if key.startswith(f"{case}/gradient/")]
        # Relative to the largest gradient: that of a bias before a norm is rounding alone.
        scale = max(np.abs(expected[key]).max() for key in keys)
        for key in keys:
            np.testing.assert_allclose(found[key], expected[key], atol=1e-4 * scale, err_msg=key)


if __name__ == "__main__":
    _main(*sys.argv[1:])
