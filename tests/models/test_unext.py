"""UNeXt's published counts and sizes."""

import keras
import numpy as np
import pytest

from keras_medseg import registry


def _trainable(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_small_form_has_the_published_count():
    model = registry.build("unext", input_shape=(32, 32, 3), filters=8, growth=(1, 2, 4, 8, 16))
    assert _trainable(model) == 253_561


def test_each_class_adds_the_weights_of_one_pointwise_output():
    two, three = (registry.build("unext", input_shape=(32, 32, 3), classes=n) for n in (2, 3))
    # 16 channels and a bias.
    assert _trainable(three) - _trainable(two) == 17


def test_open_size_gives_the_same_as_a_fixed_one():
    fixed = registry.build("unext", input_shape=(32, 64, 2), filters=4)
    free = registry.build("unext", input_shape=(None, None, 2), filters=4)
    free.set_weights(fixed.get_weights())
    x = np.random.default_rng(0).standard_normal((1, 32, 64, 2), "float32")
    np.testing.assert_allclose(free(x), fixed(x), atol=1e-5)


def test_wrong_size_names_the_next_valid_one():
    with pytest.raises(ValueError, match=r"next valid shape is \(512, 544, 3\)"):
        registry.build("unext", input_shape=(512, 513, 3))
