"""The facts of DeepMedic, and how an image becomes the segments of its pathways."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_medseg import registry
from keras_medseg.layers.normalization import WindowBatchNorm
from keras_medseg.porting import load_state_dict

NAME = "deepmedic"
SLOW = pytest.mark.slow
SMALL = {"widths": (2, 2, 3, 3, 3, 3, 4, 4), "fc_widths": (5, 6), "classes": 2}
DOUBLED = (60, 60, 80, 80, 80, 80, 100, 100)
TODAY = {"factors": (3, 5), "fc_widths": (250, 250)}
WIDE = {"factors": (3, 5), "widths": (30, 40, 50, 60, 70, 80, 90, 100), "fc_widths": (300, 300)}


def outputs(model: keras.Model, x) -> np.ndarray:
    return ops.convert_to_numpy(model(x, training=False))


def small(form: str, shape: tuple[int, ...], **options) -> keras.Model:
    """With every weight off its start, so that none is lost unseen."""
    keras.utils.set_random_seed(0)
    model = registry.build(NAME, form=form, input_shape=shape, **{**SMALL, **options})
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(1 + 0.1 * generator.random(weight.shape, "float32"))
    return model


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 1_053_012),
        ({"classes": 5}, 1_053_163),
        ({"widths": DOUBLED}, 3_313_212),
        ({**TODAY, "classes": 5}, 2_013_767),
        pytest.param(TODAY, 2_013_516, marks=SLOW),
        pytest.param({"widths": DOUBLED, "fc_widths": (300, 300)}, 4_192_212, marks=SLOW),
        pytest.param(WIDE, 5_145_616, marks=SLOW),
        pytest.param({**WIDE, "classes": 5}, 5_145_917, marks=SLOW),
    ],
)
def test_parameters_of_the_configurations(options, parameters):
    model = registry.build(NAME, form="segments", **options)
    assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == parameters


@pytest.mark.parametrize(
    ("factors", "size", "lower", "center"),
    [
        ((3,), 25, [19], 9),  # v0.6
        ((3,), 34, [22], 18),  # EMMA's wider network
        pytest.param((3, 5), 37, [23, 21], 21, marks=SLOW),  # today
        pytest.param((3,), 45, [26], 29, marks=SLOW),  # at inference: ceil(29 / 3) = 10
    ],
)
def test_sizes_of_the_configurations(factors, size, lower, center):
    options = {**SMALL, "factors": factors}
    model = registry.build(NAME, form="segments", input_shape=(size, size, size, 4), **options)
    assert [x.shape[1] for x in model.inputs] == [size, *lower]
    assert model.output_shape == (None, center, center, center, 2)
    around = size + 16 * (max(factors) - 1)
    model = registry.build(NAME, form="valid", input_shape=(around,) * 3 + (4,), **options)
    assert model.output_shape == (None, center, center, center, 2)
    model = registry.build(NAME, input_shape=(center,) * 3 + (4,), **options)
    assert model.output_shape == (None, center, center, center, 2)


def test_three_pathways_from_an_image_are_the_originals(read_golden):
    """The golden's image is larger than what is read: 5 times the size of the coarsest segment."""
    golden = read_golden("deepmedic_3path_image")
    image = golden.image()[:, :87, :86, :84]  # 23, 22, 20 and twice 32 around them
    model = registry.build(NAME, form="valid", input_shape=image.shape[1:], **TODAY)
    load_state_dict(model, golden.state_dict())
    assert max(golden.errors([outputs(model, image)])) <= 1


@pytest.mark.parametrize(
    "factors", [(3, 5), *(pytest.param(x, marks=SLOW) for x in ((3,), (5, 3)))]
)
def test_valid_reads_what_its_segments_do(factors):
    sizes = (18, 17, 21)
    margin = 8 * (max(factors) - 1)
    shape = tuple(size + 2 * margin for size in sizes)
    image = np.random.default_rng(1).standard_normal((2, *shape, 3), "float32")
    # From the first voxel s of the segment on, the original starts at s + 8 - 8 * factor.
    parts = [image[:, *(slice(margin, margin + size) for size in sizes)]]
    for factor in factors:
        first = margin + 8 - 8 * factor
        counts = [math.ceil((size - 16) / factor) + 16 for size in sizes]
        parts.append(image[:, *(slice(first, first + factor * n, factor) for n in counts)])
    one = small("valid", (*shape, 3), factors=factors)
    other = small("segments", (*sizes, 3), factors=factors)
    assert [x.shape[1:] for x in other.inputs] == [part.shape[1:] for part in parts]
    y = outputs(one, image)
    np.testing.assert_allclose(y, outputs(other, parts), atol=1e-5)
    assert y.std() > 0.1


def coarse(image: np.ndarray, factor: int) -> np.ndarray:
    """What the original's get_subsampl_segment gives for a segment that is the padded image."""
    *sizes, channels = image.shape
    padded = np.pad(image, [(8, 8)] * 3 + [(0, 0)], mode="reflect")
    corners = [padded[x, y, z] for x in (0, -1) for y in (0, -1) for z in (0, -1)]
    shape = [math.ceil(size / factor) + 16 for size in sizes]
    found = np.empty((*shape, channels), "float32")
    # It would start at 8 - 8 * factor, which is outside; whole samples before the image are
    # filled, and the first voxel comes next.
    empty = abs(8 - 8 * factor) // factor
    for index in np.ndindex(*shape):
        place = [(i - empty) * factor for i in index]
        inside = all(0 <= p < n for p, n in zip(place, padded.shape))
        found[index] = padded[tuple(place)] if inside else np.mean(corners, axis=0)
    return found


@pytest.mark.parametrize(
    ("factors", "sizes"), [((3, 5), (11, 9, 13)), pytest.param((3,), (9, 10, 13), marks=SLOW)]
)
def test_a_whole_image_is_one_segment(factors, sizes):
    image = np.random.default_rng(1).standard_normal((*sizes, 3)).astype("float32")
    padded = np.pad(image, [(8, 8)] * 3 + [(0, 0)], mode="reflect")
    parts = [padded, *(coarse(image, factor) for factor in factors)]
    one = small("same", (*sizes, 3), factors=factors)
    other = small("segments", padded.shape, factors=factors)
    y = outputs(one, image[None])
    assert y.shape == (1, *sizes, 2)
    np.testing.assert_allclose(y, outputs(other, [part[None] for part in parts]), atol=1e-5)


def test_a_coarse_map_is_repeated_and_cut_at_the_far_end():
    model = registry.build(NAME, form="segments", input_shape=(20, 17, 22, 4), **SMALL)
    assert model.get_layer("Subsampled1_repeat").output.shape[1:4] == (6, 3, 6)
    normal, lower = model.get_layer("Join").input
    assert normal.shape[1:4] == lower.shape[1:4] == (4, 1, 6)
    repeat = keras.Model(model.get_layer("Subsampled1_repeat").input, lower)
    x = np.float32([1, 2]).reshape(1, 2, 1, 1, 1) * np.ones((1, 2, 1, 2, 4), "float32")
    assert outputs(repeat, x)[0, :, 0, 0, 0].tolist() == [1, 1, 1, 2]


@pytest.mark.slow
def test_segments_are_trained_and_saved(tmp_path):
    model = small("segments", (18, 17, 19, 3), factors=(3, 5))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    parts = [np.random.default_rng(1).random((2, *x.shape[1:]), "float32") for x in model.inputs]
    assert np.isfinite(model.train_on_batch(parts, np.ones((2, 2, 1, 3, 2), "float32")))
    model.save(tmp_path / "model.keras")
    opened = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(opened, parts), outputs(model, parts))


def test_order_of_a_block():
    model = registry.build(NAME, form="segments", **SMALL)
    names = [layer.name for layer in model.layers]
    assert [n for n in names if n.startswith("Normal_1_")] == ["Normal_1_bias", "Normal_1_conv"]
    parts = ["Normal_4_bn", "Normal_4_prelu", "Normal_4_conv", "Normal_4_crop", "Normal_4_add"]
    assert sorted(n for n in names if n.startswith("Normal_4_")) == sorted(parts)
    assert model.get_layer("Normal_4_conv").input is model.get_layer("Normal_4_prelu").output
    # Blocks 4, 6 and 8 add the input of the block before.
    sums = {n for n in names if n.startswith("Normal") and n.endswith("_add")}
    assert sums == {"Normal_4_add", "Normal_6_add", "Normal_8_add"}
    for block, earlier in ((4, "2_conv"), (6, "4_add"), (8, "6_add")):
        crop = model.get_layer(f"Normal_{block}_crop")
        assert crop.input is model.get_layer(f"Normal_{earlier}").output
    convolutions = [x for x in model.layers if isinstance(x, layers.Conv3D)]
    assert not any(x.use_bias for x in convolutions)
    dropouts = {x.name: x.rate for x in model.layers if isinstance(x, layers.Dropout)}
    assert dropouts == {"Classify_2_dropout": 0.5, "Classify_3_dropout": 0.5}
    norms = [x for x in model.layers if isinstance(x, layers.BatchNormalization)]
    assert {type(norm) for norm in norms} == {WindowBatchNorm}
    assert len(norms) == 2 * 7 + 3
    assert {norm.moving_variance_kind for norm in norms} == {"biased"}
    assert max(norm.epsilon for norm in norms) < 1e-37
    slopes = {float(ops.max(x.alpha)) for x in model.layers if isinstance(x, layers.PReLU)}
    assert slopes == {float(np.float32(0.01))}


def test_kernels_are_drawn_for_a_relu():
    keras.utils.set_random_seed(0)
    model = registry.build(NAME, form="segments", input_shape=(17, 17, 17, 4))
    kernel = ops.convert_to_numpy(model.get_layer("Classify_1_conv").kernel)
    # Of 405,000 draws; four standard errors of the deviation are 0.45 %.
    assert kernel.std() == pytest.approx(np.sqrt(2 / (27 * 100)), rel=0.0045)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "full"}, "form: found 'full'"),
        ({"input_shape": (9, 8, 9, 4)}, r"from 9 on.*\(9, 9, 9, 4\)"),
        ({"input_shape": (17, 16, 17, 4), "form": "segments"}, r"from 17 on.*\(17, 17, 17, 4\)"),
        ({"input_shape": (49, 49, 40, 4), "form": "valid"}, r"from 49 on.*\(49, 49, 49, 4\)"),
        ({"input_shape": (80, 81, 81, 4), "form": "valid", "factors": (3, 5)}, "from 81 on"),
        ({"input_shape": (None, 25, 25, 4)}, "a size for every axis"),
        ({"input_shape": (25, 25, 4)}, r"expected \(x, y, z, channels\)"),
        ({"factors": (4,)}, r"factors: found \(4,\), expected one or two odd numbers"),
        ({"factors": ()}, "factors: found"),
        ({"factors": (3, 5, 7)}, "factors: found"),
        ({"widths": (30, 30)}, "expected 8 numbers of channels"),
        ({"fc_widths": (0, 150)}, "expected 2 numbers of channels"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        registry.build(NAME, **options)
