"""resize.py: sizes, places and values by hand, and there and back again."""

import numpy as np
import pytest

from keras_medseg.data.cases import CaseArrays
from keras_medseg.data.transforms.resize import (
    FITS,
    resize,
    resize_labels,
    resized,
    restore,
    restore_map,
)


def test_same_size_changes_nothing():
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    for fit in FITS:
        np.testing.assert_array_equal(resize(pixels, (4, 2), fit), pixels)


def test_shrinking_averages_the_image_and_picks_the_labels():
    # Scaled down by 2, the triangle filter of Pillow weighs four pixels 1, 3, 3, 1 in eight.
    row = np.array([0, 0, 0, 80, 80, 80, 80, 80], np.uint8)
    pixels = np.tile(row, (8, 1))[..., None]
    # Pixel 1 sees columns 1 to 4, so 0, 0, 80, 80: (3 + 1) / 8 of 80.
    assert resize(pixels, (8, 4))[0, :, 0].tolist() == [0, 40, 80, 80]
    labels = resize_labels(np.tile(row // 80, (8, 1)), (8, 4))
    assert labels[0].tolist() == [0, 1, 1, 1]


def test_antialiasing_keeps_the_mean_of_fine_stripes():
    stripes = np.tile(np.array([0, 200], np.uint8), (64, 32))[..., None]
    np.testing.assert_allclose(resize(stripes, (16, 16))[2:-2, 2:-2], 100, atol=2)


def test_pad_keeps_proportions_and_frames_with_zeros():
    pixels = np.full((10, 20, 1), 9, np.uint8)
    framed = resize(pixels, (12, 12), "pad")
    # 20 columns become 12, 10 rows 6: three rows of zeros above and below.
    assert framed[..., 0].any(axis=1).tolist() == [False] * 3 + [True] * 6 + [False] * 3
    assert (framed[3:9] == 9).all()


def test_crop_keeps_proportions_and_fills():
    labels = np.zeros((10, 20), np.uint8)
    labels[:, 5:15] = 1
    assert resize_labels(labels, (10, 10), "crop").all()


def test_cut_scales_nothing():
    pixels = np.random.default_rng(0).integers(1, 256, (6, 9, 3), np.uint8)
    # Of 9 columns the middle three, before them three; of 6 rows all, in the middle of 8.
    found = resize(pixels, (8, 3), "cut")
    np.testing.assert_array_equal(found[1:7], pixels[:, 3:6])
    assert not found[[0, 7]].any()
    labels = pixels[..., 0]
    back = restore(resize_labels(labels, (8, 3), "cut"), (6, 9), "cut")
    np.testing.assert_array_equal(back[:, 3:6], labels[:, 3:6])
    assert not back[:, :3].any()
    assert not back[:, 6:].any()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(16, 16), (15, 22), (40, 31), (7, 50)])
def test_channels_and_labels_land_in_the_same_place(fit, size):
    labels = np.zeros((20, 30), np.uint8)
    labels[4:12, 10:27] = 1
    placed = resize_labels(labels, size, fit)
    image = resize(np.stack([labels * 200, 200 - labels * 200], -1), size, fit)
    assert image.shape == (*size, 2)
    np.testing.assert_array_less(np.abs((image[..., 0] > 100) ^ (placed > 0)).mean(), 0.12)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(40, 60), (41, 67), (60, 61), (81, 50)])
def test_restore_undoes_an_enlargement(fit, size):
    labels = np.random.default_rng(0).integers(0, 4, (20, 30), np.uint8)
    back = restore(resize_labels(labels, size, fit), (20, 30), fit)
    kept = np.ones((20, 30), bool)
    if fit == "crop":
        # What is left of each side, rounded inwards, around the center.
        ratio = max(size[0] / 20, size[1] / 30)
        rows, columns = int(size[0] / ratio) // 2 - 1, int(size[1] / ratio) // 2 - 1
        kept[:] = False
        kept[10 - rows : 10 + rows, 15 - columns : 15 + columns] = True
    np.testing.assert_array_equal(back[kept], labels[kept])


def test_what_was_cropped_away_comes_back_as_zeros():
    labels = np.ones((10, 30), np.uint8)
    back = restore(resize_labels(labels, (10, 10), "crop"), (10, 30), "crop")
    assert back.any(axis=0).tolist() == [False] * 10 + [True] * 10 + [False] * 10


def test_image_and_labels_are_resized_together():
    pixels = np.random.default_rng(0).integers(1, 256, (40, 30, 1, 3), np.uint8)
    labels = (pixels[..., 0] > 100).astype(np.uint8)
    arrays = resized(CaseArrays(pixels, labels, np.eye(4), ("L", "P", "S")), (20, 20), "pad")
    assert arrays.image.shape == (20, 20, 1, 3)
    assert arrays.labels.shape == (20, 20, 1)
    # 40 x 30 at one half is 20 x 15: two columns of zeros before it and three after.
    assert not arrays.image[:, :2].any()
    assert not arrays.image[:, 17:].any()
    assert arrays.image[:, 2:17].any(axis=(0, 2, 3)).all()
    np.testing.assert_array_equal(arrays.image[:, :, 0], resize(pixels[:, :, 0], (20, 20), "pad"))
    alone = resized(CaseArrays(pixels, None, np.eye(4), ("L", "P", "S")), (20, 20), "pad")
    np.testing.assert_array_equal(alone.image, arrays.image)
    assert alone.labels is None


def test_unknown_fit():
    with pytest.raises(ValueError, match="fit: found 'squeeze', expected one of: stretch"):
        resize(np.zeros((4, 4, 1), np.uint8), (2, 2), "squeeze")


def test_probabilities_come_back_between_the_centers_of_pixels():
    # Centers of 4 pixels, in pixels of 2: -1/4, 1/4, 3/4, 5/4; beyond a center its value stays.
    found = restore_map(np.float32([[0, 1]]), (1, 4))
    np.testing.assert_allclose(found, [[0, 0.25, 0.75, 1]], atol=1e-7)
    assert found.dtype == np.float32


def test_probabilities_of_padding_are_cut_off_and_what_was_not_seen_is_0():
    values = np.float32([[9, 9, 9, 9], [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], [9, 9, 9, 9]])
    np.testing.assert_array_equal(restore_map(values, (2, 4), "pad"), values[1:3])
    seen = restore_map(values[1:3], (4, 6), "cut")
    np.testing.assert_array_equal(seen, np.pad(values[1:3], [(1, 1), (1, 1)]))
