"""Residual units by hand."""

import keras
import numpy as np
import pytest

from keras_medseg import frameworks
from keras_medseg.layers.residual import RESIDUAL_BLOCKS, fitted_identity, pre_activation

# In -> 8 channels, Keras 2.2.4; norm: 4 per channel. Shortcut 1x1 with bias: 8 * (in + 1).
COUNTS = {
    # 1x1 to 2: 2 * (in + 1) + 8; 3x3: 2 * 19 + 8 = 46; 1x1 to 8: 8 * 3 + 32 = 56; shortcut.
    ("bottleneck", 4): 10 + 8 + 46 + 56 + 40,
    ("bottleneck", 8): 18 + 8 + 46 + 56 + 72,
    # Depthwise 9 * in, pointwise 8 * in + 8, norm 32; shortcut.
    ("separable", 4): 36 + 40 + 32 + 40,
    ("separable", 8): 72 + 72 + 32 + 72,
    # The second of the pair has 8 channels in: 72 + 72 + 32.
    ("separable_pair", 4): 36 + 40 + 32 + 176,
    ("separable_pair", 8): 176 + 176,
    # 3x3: 72 * in + 8, norm 32; the shortcut only from 4 channels.
    ("plain_single", 4): 296 + 32 + 40,
    ("plain_single", 8): 584 + 32,
    ("plain", 4): 296 + 32 + 584 + 32 + 40,
    ("plain", 8): 2 * (584 + 32),
}


def _model(block: str, channels: int) -> keras.Model:
    image = keras.Input((6, 6, channels))
    return keras.Model(
        image, RESIDUAL_BLOCKS[block](image, 8, framework=frameworks.KERAS_2_2, name="b")
    )


@pytest.mark.parametrize(("block", "channels"), COUNTS)
def test_parameters_by_hand(block, channels):
    assert _model(block, channels).count_params() == COUNTS[block, channels]


@pytest.mark.parametrize("block", RESIDUAL_BLOCKS)
def test_zero_branch_leaves_the_shortcut(block):
    # Every convolution zero, every norm's offset zero: relu(shortcut(x)). Where there is a shortcut
    # convolution, the identity matrix is put into it.
    model = _model(block, 8)
    names = {layer.name for layer in model.layers}
    for layer in model.layers:
        if "conv" in layer.name and layer.weights and not layer.name.endswith("_bn"):
            layer.set_weights([np.zeros(w.shape) for w in layer.weights])
    if "b_shortcut" in names:
        model.get_layer("b_shortcut").set_weights([np.eye(8)[None, None], np.zeros(8)])
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 8), "float32")
    output = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(output, np.maximum(x, 0), atol=1e-6)


@pytest.mark.parametrize("block", RESIDUAL_BLOCKS)
def test_every_convolution_is_followed_by_a_norm_except_the_shortcut(block):
    model = _model(block, 4)
    names = [layer.name for layer in model.layers if layer.weights]
    convolutions = [name for name in names if not name.endswith("_bn") and name != "b_shortcut"]
    assert convolutions
    for name in convolutions:
        assert model.get_layer(f"{name}_bn").input is model.get_layer(name).output
    assert "b_shortcut_bn" not in names


@pytest.mark.parametrize(("filters", "expected"), [(3, [1, 2, 0]), (2, [1, 2]), (1, [1])])
def test_fitted_identity_adds_zeros_or_leaves_out(filters, expected):
    x = np.array([[[[1.0, 2.0]]]], "float32")
    output = keras.ops.convert_to_numpy(fitted_identity(keras.ops.convert_to_tensor(x), filters))
    assert output.tolist() == [[[expected]]]
    volume = fitted_identity(keras.ops.convert_to_tensor(x[None]), filters)
    assert keras.ops.convert_to_numpy(volume).tolist() == [[[[expected]]]]


@pytest.mark.parametrize(("size", "norm"), [(1, False), (1, True), (3, True)])
def test_pre_activation_by_hand(size, norm):
    image = keras.Input((4, 4, 2))
    options = dict(strides=2, shortcut_size=size, shortcut_norm=norm)
    model = keras.Model(
        image, pre_activation(image, 3, framework=frameworks.PYTORCH, name="b", **options)
    )
    # Norms of 2 and 3 channels: 20; 3x3 from 2 and 3 channels: 57 + 84; shortcut; its norm: 12.
    assert model.count_params() == 20 + 57 + 84 + 3 * (2 * size**2 + 1) + 12 * norm
    # Nothing but the shortcut's center and the last bias: every second pixel, no ReLU after it.
    for weight in model.weights:
        if weight.path.endswith(("kernel", "bias")):
            weight.assign(np.zeros(weight.shape))
    model.get_layer("b_conv2").bias.assign([-1, -1, -1])
    kernel = np.zeros((size, size, 2, 3))
    kernel[size // 2, size // 2, 0] = 1
    model.get_layer("b_shortcut").kernel.assign(kernel)
    x = np.arange(32, dtype="float32").reshape(1, 4, 4, 2)
    y = model(x, training=False)
    np.testing.assert_allclose(y[..., 2], x[:, ::2, ::2, 0] - 1, rtol=1e-4)
