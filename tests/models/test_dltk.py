"""The facts of DLTK's residual FCN and U-Net, the nearest public relatives of EMMA's members."""

import math
from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_medseg import registry
from keras_medseg.models._dltk import SLOPE, of_dltk, residual_unit, upsample

SMALL = {
    "dltk_resnetfcn": {"input_shape": (8, 16, 8, 2), "widths": (2, 4, 6, 8, 9)},
    "dltk_resunet": {"input_shape": (8, 16, 8, 2), "widths": (2, 4, 6, 8)},
}


def trainable(model: keras.Model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def applied(block, x: np.ndarray, **weights) -> np.ndarray:
    image = keras.Input(x.shape[1:])
    model = keras.Model(image, block(image))
    for name, values in weights.items():
        model.get_layer(name).set_weights(values)
    return ops.convert_to_numpy(model(x, training=False))


def test_parameters_of_the_originals():
    assert trainable(registry.build("dltk_resnetfcn")) == 13_336_912
    assert trainable(registry.build("dltk_resunet")) == 1_266_720


def unit(inputs: int, filters: int, size: int = 3, shortcut: bool = False) -> int:
    # Two norms and two convolutions without bias.
    convolutions = size**3 * inputs * filters + 27 * filters * filters
    return 2 * (inputs + filters) + convolutions + (inputs * filters if shortcut else 0)


def test_parameters_with_three_units_by_hand():
    widths, strides = (16, 64, 128, 256, 512), (2, 2, 2, 3)  # the last unit has 3x3x3, stride 1
    pairs = [(i, o, size) for (i, o), size in zip(pairwise(widths), strides)]
    first = 27 * 4 * 16 + sum(unit(i, o, size) for i, o, size in pairs)
    further = sum(2 * unit(o, o) for _, o, _ in pairs)
    scores = 27 * 512 * 4 + sum(4 * width + 2 * 4 for width in widths[:-1]) + 4 * 4
    assert trainable(registry.build("dltk_resnetfcn")) == first + scores
    assert trainable(registry.build("dltk_resnetfcn", units=3)) == first + further + scores
    widths = (16, 32, 64, 128)
    pairs = list(pairwise(widths))
    encoder = 27 * 4 * 16 + sum(unit(i, o, 2) + unit(o, o) for i, o in pairs)
    decoder = sum(unit(i + o, o, 3, True) + unit(o, o) for o, i in pairs)
    model = registry.build("dltk_resunet", units=2)
    assert trainable(model) == encoder + decoder + 4 * 16


def test_identity_is_pooled_and_padded_on_both_sides():
    """With kernels of 0 the unit is its identity: 3 channels amid 8, 2 before and 3 behind."""
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 2, 3), "float32")
    zeros = {"u_conv1": [np.zeros((2, 2, 2, 3, 8))], "u_conv2": [np.zeros((3, 3, 3, 8, 8))]}
    y = applied(
        lambda x: residual_unit(x, 8, strides=2, framework=of_dltk("tensorflow_2"), name="u"),
        x,
        **zeros,
    )
    assert y.shape == (1, 2, 2, 1, 8)
    pooled = x.reshape(1, 2, 2, 2, 2, 1, 2, 3).max(axis=(2, 4, 6))
    np.testing.assert_array_equal(y[..., 2:5], pooled)
    assert not y[..., :2].any()
    assert not y[..., 5:].any()


def test_surplus_channels_go_through_a_convolution():
    x = np.random.default_rng(0).standard_normal((1, 2, 2, 2, 3), "float32")
    kernel = np.float32([[1, 0], [0, 1], [1, 1]])
    y = applied(
        lambda x: residual_unit(x, 2, framework=of_dltk("tensorflow_2"), name="u"),
        x,
        u_conv1=[np.zeros((3, 3, 3, 3, 2))],
        u_conv2=[np.zeros((3, 3, 3, 2, 2))],
        u_shortcut=[kernel[None, None, None]],
    )
    np.testing.assert_allclose(y, x @ kernel, rtol=1e-5)


def test_upsampling_is_a_transposed_convolution_with_a_fixed_kernel():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 1), "float32")
    row = np.array([0.25, 0.75, 0.75, 0.25])
    kernel = np.einsum("i,j,k->ijk", row, row, row)[..., None, None]
    transposed = layers.Conv3DTranspose(1, 4, strides=2, padding="same", use_bias=False, name="t")
    expected = applied(transposed, x, t=[kernel])
    found = applied(lambda x: upsample(x, 2, name="up"), x)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_constants_of_the_code(name):
    keras.utils.set_random_seed(0)
    model = registry.build(name, **SMALL[name])
    norms = [x for x in model.layers if isinstance(x, layers.BatchNormalization)]
    found = {(norm.momentum, norm.epsilon, norm.moving_variance_kind) for norm in norms}
    assert found == {(0.99, 1e-3, "biased")}
    slopes = {x.negative_slope for x in model.layers if isinstance(x, layers.LeakyReLU)}
    assert slopes == {SLOPE}
    assert not any(x.use_bias for x in model.layers if isinstance(x, layers.Conv3D))
    kernel = ops.convert_to_numpy(model.get_layer("Unit2_0_conv2").kernel)
    # uniform_unit_scaling_initializer: as far as sqrt(3 / fan-in), here of 27 * 6.
    bound = np.sqrt(3 / (27 * 6))
    assert 0.95 * bound < np.abs(kernel).max() <= bound


def test_the_skip_stands_before_what_comes_up():
    model = registry.build("dltk_resunet", **SMALL["dltk_resunet"])
    skip, raised = model.get_layer("Concat0").input
    assert skip is model.get_layer("Initial").output
    assert raised is model.get_layer("Up0").output


def test_the_coarsest_scale_of_the_fcn_is_not_halved():
    model = registry.build("dltk_resnetfcn", **SMALL["dltk_resnetfcn"])
    sizes = [model.get_layer(f"Unit{scale}_0_add").output.shape[1] for scale in (1, 2, 3, 4)]
    assert sizes == [4, 2, 1, 1]
    first, second = model.get_layer("Score3_add").input
    assert first is model.get_layer("Score3_coarse").output
    assert second is model.get_layer("Score3_bn").output


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dltk_resnetfcn", {"input_shape": (80, 84, 80, 4)}, r"divisible by 8.*\(80, 88, 80, 4\)"),
        ("dltk_resunet", {"input_shape": (None, 64, 64, 4)}, "a size for every axis"),
        ("dltk_resunet", {"strides": (1, 2, 2)}, "expected 4 whole numbers, the first of them 1"),
        ("dltk_resunet", {"strides": (2, 2, 2, 2)}, "the first of them 1"),
        ("dltk_resunet", {"widths": (16,)}, "expected two or more numbers of channels"),
        ("dltk_resnetfcn", {"units": 0}, "units: found 0, expected 1 or more"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        registry.build(name, **options)
