"""The facts of OM-Net and of MC's networks, from the prototxts of their authors."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_medseg import registry
from keras_medseg.inference import export
from keras_medseg.layers.normalization import DebiasedBatchNorm
from keras_medseg.models._fusionnet import of_caffe
from keras_medseg.models.omnet import ORIGINAL_NAMES, _guided_heads, _importance
from keras_medseg.porting import load_state_dict

SMALL = {"input_shape": (8, 16, 8, 4), "filters": 4}


def trainable(model: keras.Model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def arrays(model: keras.Model, *x) -> list[np.ndarray]:
    return [ops.convert_to_numpy(y) for y in keras.tree.flatten(model(*x, training=False))]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, "float32")


@pytest.fixture(scope="module")
def default_builds():
    return {
        "mc": registry.build("mc_fusionnet"),
        "mc_2": registry.build("mc_fusionnet", classes=2, task=3),
        "omnet": registry.build("omnet"),
        "cga": registry.build("omnet", attention="cga"),
    }


def test_parameters_of_the_prototxts(default_builds):
    counts = {name: trainable(model) for name, model in default_builds.items()}
    assert counts == {
        "mc": 13_823_493,
        "mc_2": 13_823_394,
        "omnet": 13_879_212,
        "cga": 13_823_991,
    }
    # The second of the cascade's three networks has five classes as well.
    assert 2 * counts["mc"] + counts["mc_2"] == 41_470_380


def test_parameters_by_hand(default_builds):
    def convolution(inputs, filters, size=3):
        return size**3 * inputs * filters + filters

    def block(inputs, filters):
        # Four convolutions with bias, each with scale and shift of a norm.
        return convolution(inputs, filters) + 3 * convolution(filters, filters) + 4 * 2 * filters

    def unit(filters):
        return convolution(filters, filters) + 2 * filters

    widths = (32, 64, 128, 256)
    encoder = sum(block(i, o) + unit(o) for i, o in zip((4, *widths), widths))
    up = sum(convolution(i, o, 2) + 2 * o for i, o in zip(widths[1:], widths))
    decoder = sum(block(o, o) for o in widths[:3]) + unit(64) + unit(128)
    body = encoder + up + decoder
    scores = [convolution(32, classes, 1) for classes in (5, 5, 2)]
    assert trainable(default_builds["mc"]) == body + unit(32) + scores[0]
    assert trainable(default_builds["omnet"]) == body + 3 * unit(32) + sum(scores)
    # One unit; 32 -> 5, 32 -> 5, 5 -> 5, and the same with 2.
    guided = 2 * convolution(32, 5, 1) + convolution(5, 5, 1)
    guided += 2 * convolution(32, 2, 1) + convolution(2, 2, 1)
    assert trainable(default_builds["cga"]) == body + unit(32) + scores[0] + guided


def test_kernels_alone(default_builds):
    """The figures that the article's table is nearest to, and the number of convolutions."""
    expected = {"mc": (13_812_256, 39), "omnet": (13_867_776, 43)}
    for name, (values, count) in expected.items():
        model = default_builds[name]
        kernels = [w for w in model.trainable_weights if len(w.shape) > 1]
        assert (sum(math.prod(kernel.shape) for kernel in kernels), len(kernels)) == (values, count)
        assert sum(isinstance(x, layers.Conv3DTranspose) for x in model.layers) == 3


def test_skips_are_added_and_nothing_follows():
    model = registry.build("mc_fusionnet", **SMALL)
    for level in (1, 2, 3):
        raised, skip = model.get_layer(f"Fuse{level}").input
        assert raised is model.get_layer(f"Up{level}_relu").output
        assert skip is model.get_layer(f"Encode{level}_out_relu").output
        assert model.get_layer(f"Decode{level}_in").input is model.get_layer(f"Fuse{level}").output
    first, last = model.get_layer("Decode1_add").input
    assert first is model.get_layer("Decode1_in_relu").output
    assert last is model.get_layer("Decode1_res3_bn").output  # no ReLU before the sum
    assert model.get_layer("Task1_conv").input is model.get_layer("Decode1_relu").output
    assert model.get_layer("Up3").input is model.get_layer("Dropout").output
    assert model.get_layer("Dropout").rate == 0.5


def test_constants_of_caffe_and_initializers_of_the_prototxt():
    keras.utils.set_random_seed(0)
    model = registry.build("mc_fusionnet", input_shape=(8, 8, 8, 4))
    norms = [x for x in model.layers if isinstance(x, layers.BatchNormalization)]
    assert {type(norm) for norm in norms} == {DebiasedBatchNorm}
    found = {(norm.momentum, norm.epsilon, norm.moving_variance_kind) for norm in norms}
    assert found == {(0.999, 1e-5, "unbiased")}
    convolutions = [x for x in model.layers if isinstance(x, layers.Conv3D)]
    biases = {x.name: ops.convert_to_numpy(x.bias) for x in convolutions}
    assert not biases.pop("Encode1_in").any()
    assert all((bias == np.float32(0.1)).all() for bias in biases.values())
    for name, fan_in in (("Encode2_res1", 27 * 64), ("Up3", 8 * 128)):
        kernel = ops.convert_to_numpy(model.get_layer(name).kernel)
        # Of more than 110,000 draws; four standard errors of the deviation are below 0.9 %.
        assert kernel.size > 110_000
        assert kernel.std() == pytest.approx(np.sqrt(2 / fan_in), rel=0.009)


@pytest.mark.parametrize("name", [pytest.param("mc_fusionnet", marks=pytest.mark.slow), "omnet"])
def test_any_size(name):
    open_, fixed = (
        registry.build(name, **{**SMALL, "input_shape": shape})
        for shape in ((None, None, None, 4), SMALL["input_shape"])
    )
    open_.set_weights(fixed.get_weights())
    x = noise(1, 8, 16, 8, 4)
    for one, other in zip(arrays(open_, x), arrays(fixed, x), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_task_is_a_name():
    networks = [registry.build("mc_fusionnet", task=task, **SMALL) for task in (1, 3)]
    networks[1].set_weights(networks[0].get_weights())
    x = noise(1, 8, 16, 8, 4)
    np.testing.assert_array_equal(*(arrays(network, x)[0] for network in networks))
    networks[1].get_layer("Task3_score")


# ------------------------------------------------------------------ cross-task guided attention


def test_guided_heads_are_the_prototxts(read_golden):
    """From the last ReLU of the backbone on, which is applied to the golden's input first."""
    golden = read_golden("cga_heads")
    image = keras.Input(golden.image().shape[1:])
    scores = _guided_heads(layers.ReLU()(image), 5, of_caffe("pytorch"))
    model = keras.Model(image, scores, name="heads")
    load_state_dict(model, golden.state_dict(), names=ORIGINAL_NAMES)
    assert max(golden.errors(arrays(model, golden.image()))) <= 1
    assert trainable(model) == golden.parameters


def importance(features: np.ndarray, probability: np.ndarray) -> np.ndarray:
    inputs = [keras.Input(x.shape[1:]) for x in (features, probability)]
    return arrays(keras.Model(inputs, _importance(*inputs, name="m")), [features, probability])[0]


def test_importance_by_hand():
    # Two voxels with channels (1, 3) and (2, 4), probabilities 1/2 and 1: sums 2.5 and 5.5.
    features = np.float32([[1, 3], [2, 4]]).reshape(1, 2, 1, 1, 2)
    probability = np.float32([0.5, 1]).reshape(1, 2, 1, 1, 1)
    found = importance(features, probability)
    np.testing.assert_allclose(found.ravel(), [2.5 / 8, 5.5 / 8], rtol=1e-6)
    assert not importance(0 * features, probability).any()


def test_importance_does_not_overflow_in_float16():
    # 32 x 32 x 32 voxels of 3 are a sum of 98,304; float16 ends at 65,504.
    keras.config.set_dtype_policy("mixed_float16")
    try:
        found = importance(np.full((1, 32, 32, 32, 2), 3, "float32"), np.ones((1, 32, 32, 32, 1)))
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(found.ravel(), [0.5, 0.5])


def test_no_gradient_through_the_guiding_probabilities():
    """Task 3's loss alone reaches its own head and the features, not the scores of task 2 or 1."""
    model = registry.build("omnet", attention="cga", **SMALL)
    weights = [0.0, 0.0, 1.0]
    model.compile(keras.optimizers.SGD(1.0), ["mse"] * 3, weights, run_eagerly=True)
    names = [layer.name for layer in model.layers if isinstance(layer, layers.Conv3D)]
    before = {name: model.get_layer(name).get_weights()[0] for name in names}
    x = noise(2, 8, 16, 8, 4)
    model.train_on_batch(x, [np.ones_like(y) for y in arrays(model, x)])
    moved = {
        name for name in names if (model.get_layer(name).get_weights()[0] != before[name]).any()
    }
    assert {"Task3_outside", "Task3_inside", "Task3_final", "Decode1_in", "Encode1_in"} <= moved
    assert not {name for name in moved if name.startswith(("Task1", "Task2"))}


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModel is TensorFlow's")
def test_guided_network_is_trained_saved_and_exported(tmp_path):
    """tests/models/test_all_models.py does the same with the default, which has no attention."""
    keras.utils.set_random_seed(0)
    model = registry.build("omnet", attention="cga", activation="softmax", **SMALL)
    model.compile(keras.optimizers.SGD(0.01), ["mse"] * 3, jit_compile=True)
    x = noise(2, 8, 16, 8, 4)
    assert np.isfinite(model.train_on_batch(x, [np.ones_like(y) for y in arrays(model, x)])).all()
    model.save(tmp_path / "model.keras")
    for one, other in zip(
        arrays(model, x), arrays(keras.saving.load_model(tmp_path / "model.keras"), x)
    ):
        np.testing.assert_array_equal(one, other)
    for format in export.FORMATS:
        exported = keras.Model(model.input, model.outputs[2])
        assert "largest difference" in export.export_network(exported, tmp_path / format, format)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("omnet", {"attention": "CGA"}, "attention: found 'CGA', expected one of: cga"),
        (
            "omnet",
            {"attention": "cga", "classes": 4},
            "classes: found 4, expected 5 with attention",
        ),
        ("omnet", {"input_shape": (16, 30, 32, 4)}, r"divisible by 8.*\(16, 32, 32, 4\)"),
        ("mc_fusionnet", {"task": 4}, "task: found 4, expected 1, 2 or 3"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        registry.build(name, **options)
