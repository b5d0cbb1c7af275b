"""Augmentation inside the training step against the same in the input pipeline."""

import keras
import numpy as np
import pytest

from keras_medseg import losses
from keras_medseg.data.transforms import augment_volumes
from keras_medseg.training.augmented_model import AugmentedModel

PATCH = (8, 6, 7)
OPTIONS = augment_volumes.with_defaults(
    {name: {"probability": 0.5} for name in augment_volumes.DEFAULTS}
)


def _samples(count=8):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((count, *PATCH, 2), "float32")
    y = np.float32(generator.random((count, *PATCH, 2)) > 0.6)
    return x, y, augment_volumes.draw_parameters(5, 0, count, OPTIONS, PATCH)


def _network():
    inputs = keras.Input((*PATCH, 2))
    hidden = keras.layers.Conv3D(3, 3, padding="same", activation="relu")(inputs)
    outputs = keras.layers.Conv3D(4, 1, activation="sigmoid", dtype="float32")(hidden)
    return keras.Model(inputs, outputs, name="tiny")


def _compiled(model, **options):
    model.compile(
        keras.optimizers.SGD(0.1),
        losses.get("dice_and_focal", output_weights=(1.0, 0.5)),
        metrics=[keras.metrics.MeanMetricWrapper(_accuracy, "accuracy")],
        **options,
    )
    return model


def _accuracy(y_true, y_pred):
    return keras.metrics.binary_accuracy(y_true, y_pred[..., :2])


def _fitted(model, x, y, **options):
    model = _compiled(model, **options)
    log = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    return {**log, **model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)}


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_fit_gives_the_weights_of_the_pipelines_augmentation(jit_compile):
    x, y, parameters = _samples()
    augmented = (
        augment_volumes.augment_image(np, x, parameters, OPTIONS),
        augment_volumes.augment_targets(np, y, parameters, OPTIONS),
    )
    assert np.abs(augmented[1] - y).max() == 1
    on_host, in_step = _network(), _network()
    in_step.set_weights(on_host.get_weights())
    before = on_host.get_weights()
    expected = _fitted(on_host, *augmented, jit_compile=False)
    model = AugmentedModel(in_step, OPTIONS)
    found = _fitted(model, (x, parameters), y, jit_compile=jit_compile)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, err_msg=name)
    for ours, theirs, old in zip(in_step.get_weights(), on_host.get_weights(), before):
        assert np.abs(theirs - old).max() > 1e-3
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_weights_are_the_networks():
    x, _, parameters = _samples(2)
    network = _network()
    model = AugmentedModel(network, {})
    model((x, parameters))
    assert [w is v for w, v in zip(model.weights, network.weights, strict=True)] == [True] * 4


def test_parameters_survive_half_precision():
    x, y, parameters = _samples(4)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = _network()
        model = _compiled(AugmentedModel(network, OPTIONS))
    finally:
        keras.config.set_dtype_policy(policy)
    image = augment_volumes.augment_image(np, x, parameters, OPTIONS)
    expected = keras.ops.convert_to_numpy(network(image))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model((x, parameters))), expected, atol=1e-2
    )
    targets = augment_volumes.augment_targets(np, y, parameters, OPTIONS)
    loss = losses.get("dice_and_focal", output_weights=(1.0, 0.5))(targets, expected)
    found = model.evaluate((x, parameters), y, batch_size=4, verbose=0)[0]
    assert found == pytest.approx(float(loss), abs=1e-3)


def test_unknown_augmentations_are_refused():
    with pytest.raises(ValueError, match="augmentation: found"):
        AugmentedModel(_network(), {"rotate": {}})
