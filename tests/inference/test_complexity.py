"""Multiply-adds by hand, and against figures that authors published."""

import keras
import pytest
from keras import layers, ops

from keras_medseg import frameworks, registry
from keras_medseg.inference.complexity import multiply_adds
from keras_medseg.layers.interpolation import resize_aligned
from keras_medseg.layers.normalization import WindowBatchNorm
from keras_medseg.layers.transformer import WindowAttention


def count(shape, *steps, **options):
    image = x = keras.Input(shape)
    for step in steps:
        x = step(x)
    return multiply_adds(keras.Model(image, x), **options)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        # Output size x filters x kernel x input channels.
        (layers.Conv2D(5, 3, padding="same"), (8, 6, 4), 8 * 6 * 5 * 9 * 4),
        (layers.Conv2D(5, 3, strides=2, padding="same"), (8, 6, 4), 4 * 3 * 5 * 9 * 4),
        (layers.Conv2D(5, 3, padding="valid", dilation_rate=2), (8, 6, 4), 4 * 2 * 5 * 9 * 4),
        (layers.Conv2D(6, 3, padding="same", groups=2), (8, 6, 4), 8 * 6 * 6 * 9 * 2),
        (layers.Conv2D(5, (1, 3), padding="same"), (8, 6, 4), 8 * 6 * 5 * 3 * 4),
        (layers.Conv3D(5, 3, padding="same"), (4, 6, 2, 3), 4 * 6 * 2 * 5 * 27 * 3),
        # Each of the 4 x 3 x 2 inputs goes to 2 x 2 places (2 x 2 x 2 in 3-D) of 7 filters.
        (layers.Conv2DTranspose(7, 2, strides=2), (4, 3, 2), 4 * 3 * 2 * 4 * 7),
        (layers.Conv3DTranspose(7, 2, strides=2), (4, 3, 5, 2), 4 * 3 * 5 * 2 * 8 * 7),
        (layers.DepthwiseConv2D(3, padding="same"), (8, 6, 4), 8 * 6 * 9 * 4),
        (
            layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
            (8, 6, 4),
            8 * 6 * 9 * 8,
        ),
        (layers.SeparableConv2D(5, 3, padding="same"), (8, 6, 4), 8 * 6 * (9 * 4 + 4 * 5)),
        (layers.Dense(5), (8, 6, 4), 8 * 6 * 4 * 5),
        # 16 pixels of 6 / 3 = 2 channels meet the 4 of their window, for logits and for values.
        (WindowAttention(heads=1, window=2), (4, 4, 6), 2 * 16 * 4 * 2),
        (layers.BatchNormalization(), (8, 6, 4), 0),
        (WindowBatchNorm(), (8, 6, 4), 0),
        (layers.PReLU(shared_axes=(1, 2)), (8, 6, 4), 0),
        (layers.UpSampling2D(2, interpolation="bilinear"), (8, 6, 4), 0),
    ],
)
def test_layers_by_hand(layer, shape, expected):
    assert count(shape, layer) == expected


def test_product_of_two_maps_by_hand():
    def attend(x):
        x = ops.reshape(x, (-1, 12, 5))
        return ops.matmul(x, ops.swapaxes(x, -1, -2))

    assert count((4, 3, 5), attend) == 12 * 12 * 5


def test_resizing_counts_nothing():
    assert count((4, 3, 5), lambda x: resize_aligned(x, (8, 6), name="up")) == 0


def test_a_layer_that_is_used_twice_counts_twice():
    shared = layers.Conv2D(4, 3, padding="same")
    assert count((8, 6, 4), shared, shared) == 2 * 8 * 6 * 4 * 9 * 4


def test_a_model_inside_of_a_model():
    image = keras.Input((8, 6, 4))
    inner = keras.Model(image, layers.Conv2D(2, 1)(layers.Conv2D(4, 1)(image)))
    assert count((8, 6, 4), inner, layers.Conv2D(3, 1)) == 8 * 6 * (4 * 4 + 4 * 2 + 2 * 3)


def test_size_is_named_where_the_network_leaves_it_open():
    assert count((None, None, 4), layers.Conv2D(5, 1), input_shape=(8, 6, 4)) == 8 * 6 * 4 * 5
    with pytest.raises(ValueError, match=r"input_shape: found \(None, None, 4\)"):
        count((None, None, 4), layers.Conv2D(5, 1))


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (layers.LSTM(3), "LSTM"),
        (lambda x: ops.einsum("nij,nkj->nik", x, x), "Einsum"),
    ],
)
def test_what_is_not_known_is_named(step, named):
    with pytest.raises(ValueError, match=f"class {named}"):
        count((8, 4), step)


def test_the_network_itself_is_left_as_it_was():
    model = registry.build("unet", input_shape=(16, 16, 1), filters=2)
    before = [weight.path for weight in model.weights]
    multiply_adds(model, (32, 32, 1))
    assert [weight.path for weight in model.weights] == before
    assert model.input_shape == (None, 16, 16, 1)
    assert model.get_layer("Encode1_conv1").output.shape == (None, 16, 16, 2)


def test_unet_by_hand():
    """Two 3x3 convolutions per block and one per up-sampling; each level is a quarter of the one
    above and twice as wide, so all of its products of two widths cost the same."""
    size, width = 32 * 32, 2
    product = size * 9 * width**2
    encoder = size * 9 * width * (3 + width) + 4 * (product // 2 + product)
    # Up-sampled: 2w -> w at the upper level's size; then 2w -> w and w -> w.
    decoder = 4 * (2 * product + 2 * product + product)
    model = registry.build("unet", input_shape=(32, 32, 3), filters=width)
    assert multiply_adds(model) == encoder + decoder + size * width


@pytest.mark.parametrize(
    ("name", "shape", "published"),
    [
        # Chen et al. 2018 (arXiv 1802.02611), table 5: Xception, stride 16, decoder, separable.
        ("deeplabv3plus", (513, 513, 3), 54.17e9),
        # Valanarasu and Patel 2022 (arXiv 2203.04967), table 1.
        ("unext", (256, 256, 3), 0.57e9),
    ],
)
def test_published_counts(name, shape, published):
    model = registry.build(name, input_shape=shape)
    assert multiply_adds(model) == pytest.approx(published, rel=0.02)


def test_framework_does_not_matter():
    counts = {
        multiply_adds(registry.build("resunetpp", framework=framework))
        for framework in frameworks.FRAMEWORKS
    }
    assert len(counts) == 1
