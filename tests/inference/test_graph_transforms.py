"""The operations around a network in an exported graph compute what the package computes."""

import numpy as np
import pytest
import tensorflow as tf

from keras_medseg.data.transforms import images, resize, volumes
from keras_medseg.inference import graph_transforms as graph
from keras_medseg.inference.outputs import merge_regions, most_likely

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,), "cyst": (1,), "RC": (4,)}
NESTING = {"WT": 2, "TC": 1, "ET": 3, "cyst": 1, "RC": 4}
WRITTEN = {1: 1, 2: 2, 3: 4, 4: 3}


def sizes(shape):
    return tf.constant(shape, tf.int32)


def channels_first(pixels):
    return np.moveaxis(pixels, -1, 0)[None]


@pytest.mark.parametrize("full", [(9, 8), (8, 9), (4, 3), (3, 4), (6, 6)])
def test_center_windows_are_those_of_volumes_and_frames_those_of_images(full):
    """Larger and smaller grids with odd and even differences."""
    grid, window = np.arange(1.0, 1 + np.prod(full)).reshape(full), (6, 6)
    place = graph.placement(sizes(full), window, of_window=True)
    inside = graph.framed(grid[None, None], place).numpy()[0, 0]
    np.testing.assert_array_equal(
        graph.unframed(inside[None, None], place).numpy()[0, 0], volumes.paste(inside, full)
    )
    origin = volumes.window_origin(full, window)
    for at in np.ndindex(*window):
        there = tuple(first + step for first, step in zip(origin, at))
        within = all(0 <= index < size for index, size in zip(there, full))
        assert inside[at] == (grid[there] if within else 0)
    place = graph.placement(sizes(full), window, of_window=False)
    inside = graph.framed(grid[None, None], place).numpy()[0, 0]
    np.testing.assert_array_equal(inside, resize._centered(grid, window))
    back = graph.unframed(inside[None, None], place).numpy()[0, 0]
    np.testing.assert_array_equal(back, resize._cut_out(inside, full))


def test_nested_regions_and_those_beside_each_other_are_merged_alike():
    """Steps of 1/8, so that many probabilities are equal, and equal to 1/2."""
    generator = np.random.default_rng(0)
    for names in (["WT", "TC", "ET", "RC"], ["ET", "cyst", "WT", "TC"], ["RC", "WT"], ["TC"]):
        maps = {name: generator.integers(0, 9, (6, 7), "i4").astype("f4") / 8 for name in names}
        merged = merge_regions(maps, REGIONS, NESTING)
        expected = np.array([0, *(WRITTEN[code] for code in (1, 2, 3, 4))], np.uint8)[merged]
        found = graph.label_map(maps, REGIONS, NESTING, WRITTEN)
        np.testing.assert_array_equal(found.numpy(), expected, strict=True)
    apart = {"a": (2,), "b": (1,), "c": (3,)}
    maps = {name: generator.integers(0, 9, (9, 9)).astype("f4") / 8 for name in apart}
    found = graph.label_map(maps, apart, {}, {1: 1, 2: 2, 3: 3})
    np.testing.assert_array_equal(found.numpy(), most_likely(maps, apart), strict=True)


@pytest.mark.parametrize(
    ("full", "size"),
    [((31, 43), (16, 21)), ((16, 21), (31, 43)), ((40, 9), (12, 30)), ((9, 40), (30, 12)),
     ((30, 20), (45, 20)), ((7, 7), (7, 7)), ((50, 3), (1, 2))],
)  # fmt: skip
def test_resizing_has_the_bits_of_pillow(full, size):
    """Scaled up and down, each axis by itself; (16, 21) -> (31, 43) and (30 -> 45) have ties."""
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 256, (*full, 2), dtype=np.uint8)
    found = graph.resized_pixels(channels_first(pixels).astype("f8"), sizes(size)).numpy()
    np.testing.assert_array_equal(found, channels_first(resize._scaled(pixels, size)))
    values = generator.random(full, "f4")
    found = graph.resized_map(values[None, None], sizes(size)).numpy()[0, 0]
    np.testing.assert_allclose(found, resize._scaled(values, size), rtol=3e-7)
    labels = pixels[..., 0]
    found = graph.resized_labels(labels[None, None], sizes(size)).numpy()[0, 0]
    np.testing.assert_array_equal(found, resize._scaled(labels, size, nearest=True))


@pytest.mark.parametrize("fit", resize.FITS)
@pytest.mark.parametrize("full", [(25, 40), (13, 5)])
def test_sizes_to_which_images_are_scaled(fit, full):
    found = graph.scaled_size(sizes(full), (16, 24), fit).numpy()
    assert tuple(found) == resize._scaled_size(full, (16, 24), fit)


@pytest.mark.parametrize(
    "how",
    [
        images.Preparation(1.0, True, (0.0, 0.0), (1.0, 1.0)),
        images.Preparation(0.7, False, (0.3, 0.4), (0.2, 0.0)),
        images.Preparation(0.0, True),
    ],
)
def test_intensities_of_images(how):
    pixels = np.random.default_rng(2).integers(20, 200, (10, 14, 2), dtype=np.uint8)
    pixels[..., 1] = 7  # one value alone: nothing to equalize, no deviation
    found = graph.prepared(channels_first(pixels).astype("f8"), (10, 14), how).numpy()
    np.testing.assert_array_equal(found, channels_first(how.apply(pixels)), strict=True)
