"""Blocks that are computed twice: same values, same gradients, fewer of them kept."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_medseg.layers.rematerialization import not_rematerialized, rematerialized


def block(x, filters, *, name):
    x = layers.Conv3D(filters, 3, padding="same", name=f"{name}_conv1")(x)
    x = layers.LeakyReLU(name=f"{name}_leaky")(x)
    return layers.Conv3D(filters, 3, padding="same", name=f"{name}_conv2")(x)


def network(wrap) -> keras.Model:
    image = keras.Input((4, 4, 4, 2))
    x = wrap(block, image, 3, name="first")
    return keras.Model(image, wrap(block, x, 1, name="second"))


@pytest.fixture
def pair():
    keras.utils.set_random_seed(0)
    models = network(not_rematerialized), network(rematerialized)
    models[1].set_weights(models[0].get_weights())
    return models


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((2, 4, 4, 4, 2), "float32")


def predict(model, x):
    return keras.ops.convert_to_numpy(model(x))


def test_weights_have_the_same_paths(pair):
    assert [w.path for w in pair[0].weights] == [w.path for w in pair[1].weights]
    assert pair[0].count_params() == pair[1].count_params()


def test_two_steps_are_the_same(pair, x):
    # Two, because the second one would show gradients at the weights of the first.
    y = x[..., :1]
    for model in pair:
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
        for _ in range(2):
            model.train_on_batch(x, y)
    for before, after in zip(pair[0].get_weights(), pair[1].get_weights()):
        np.testing.assert_allclose(after, before, atol=1e-6)


def test_saved_model_reloads_bit_equal(pair, x, tmp_path):
    pair[1].save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(predict(reloaded, x), predict(pair[1], x))
    assert type(reloaded.get_layer("first")) is type(pair[1].get_layer("first"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="counts TensorFlow's graph")
def test_gradient_computes_the_block_again(pair, x):
    import tensorflow as tf

    def convolutions(model):
        @tf.function
        def gradients(x):
            with tf.GradientTape() as tape:
                y = tf.reduce_sum(model(x, training=True) ** 2)
            return tape.gradient(y, [w.value for w in model.trainable_weights])

        graph = gradients.get_concrete_function(x).graph
        kinds = [node.op for node in graph.as_graph_def().node]
        for function in graph.as_graph_def().library.function:
            kinds += [node.op for node in function.node_def]
        return kinds.count("Conv3D")

    assert convolutions(pair[0]) == 4
    assert convolutions(pair[1]) >= 8


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_precision_of_what_comes_in_is_kept(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = network(rematerialized)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.output.dtype == policy.removeprefix("mixed_")
    assert model.get_layer("second").input.dtype == policy.removeprefix("mixed_")
