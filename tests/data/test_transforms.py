"""transforms.py by windows and intensities small enough to work out by hand."""

import numpy as np
import pytest

from keras_medseg.data.cases import CaseArrays
from keras_medseg.data.store import prepare
from keras_medseg.data.transforms import volumes


@pytest.fixture
def stored(tmp_path):
    """A function (image, labels) -> StoredCase."""
    from keras_medseg.data.cases import Case

    def store(image, labels=None):
        arrays = CaseArrays(np.asarray(image), labels, np.eye(4), ("L", "P", "S"))
        file = tmp_path / "source"
        file.touch()
        case = Case("a", "toy", (file,), file if labels is not None else None, "a")
        return prepare([case], lambda case: arrays, tmp_path / "store").cases["a"]

    return store


def _slice(case, z, size, normalization="none", flip=(False, False)):
    out = np.full((*size[:2], case.image.shape[3]), np.nan, np.float32)
    scaling = volumes.scaling(case.statistics, normalization)
    volumes.read_slice(case, z, size, scaling, out, flip=flip)
    return out


def _targets(case, z, size, targets, flip=(False, False)):
    out = np.full((*size[:2], len(targets)), np.nan, np.float32)
    volumes.read_targets(case, z, size, targets, out, flip=flip)
    return out


def test_chosen_channels_are_read_in_their_order(stored):
    image = np.arange(1, 4 * 3 * 2 * 4 + 1).reshape(4, 3, 2, 4)
    case = stored(image)
    everything = volumes.read_volume(case, "z_score")
    for channels in ((2,), (3, 0), (0, 1, 3), (0, 1, 2, 3)):
        chosen = volumes.read_volume(case, "z_score", channels)
        np.testing.assert_array_equal(chosen, everything[..., channels])
        scaling = volumes.scaling(case.statistics, "none", channels)
        out = np.full((4, 3, len(channels)), np.nan, np.float32)
        volumes.read_slice(case, 1, (4, 3, 2), scaling, out)
        np.testing.assert_array_equal(out, image[:, :, 1, channels])


@pytest.mark.parametrize("channels", [(), (4,), (-1,)])
def test_channels_that_are_not_there_are_refused(stored, channels):
    case = stored(np.ones((2, 2, 2, 4)))
    with pytest.raises(ValueError, match="channels: found"):
        volumes.scaling(case.statistics, "none", channels)


def test_windows_of_the_papers():
    # (240 - 176) // 2 = 32, (155 - 128) // 2 = 13.
    assert volumes.window_origin((240, 240, 155), (176, 176, 128)) == (32, 32, 13)
    expected = (slice(32, 208), slice(32, 208), slice(13, 141))
    assert volumes.window((240, 240, 155), (176, 176, 128)) == expected
    # mtds2021: (240 - 144) // 2 = 48; all slices.
    expected = (slice(48, 192), slice(32, 208), slice(0, 155))
    assert volumes.window((240, 240, 155), (144, 176, 155)) == expected


def test_window_larger_than_the_grid_begins_before_it():
    # (3 - 6) // 2 = -2: two before, one after.
    assert volumes.window_origin((3, 8), (6, 4)) == (-2, 2)
    assert volumes.window((3, 8), (6, 4)) == (slice(0, 3), slice(2, 6))


@pytest.mark.parametrize("size", [(4, 2, 3), (8, 9, 5), (3, 12, 1)])
def test_paste_puts_the_window_back(size):
    full = np.arange(1, 6 * 7 * 3 + 1).reshape(6, 7, 3)
    inside = volumes.window(full.shape, size)
    window = np.zeros(size, full.dtype)
    for index in np.ndindex(*size):
        at = np.add(index, volumes.window_origin(full.shape, size))
        if all(0 <= a < f for a, f in zip(at, full.shape)):
            window[index] = full[tuple(at)]
    expected = np.zeros_like(full)
    expected[inside] = full[inside]
    assert np.array_equal(volumes.paste(window, full.shape), expected)
    regions = np.stack([window, -window], axis=-1)
    pasted = volumes.paste(regions, full.shape)
    assert pasted.shape == (6, 7, 3, 2)
    assert np.array_equal(pasted, np.stack([expected, -expected], axis=-1))


def _grid(shape=(6, 7, 5), channels=2):
    """Every voxel its own number, with a margin of zeros of one voxel."""
    image = np.zeros((*shape, channels), np.int16)
    inner = tuple(slice(1, -1) for _ in shape)
    image[inner] = np.arange(1, image[inner].size + 1).reshape(image[inner].shape)
    return image


@pytest.mark.parametrize("size", [(6, 7, 5), (4, 3, 3), (2, 7, 1), (9, 12, 8), (3, 20, 5)])
def test_any_window_of_the_grid_comes_back_without_loss(stored, size):
    image = _grid()
    labels = (image[..., 0] % 4).astype(np.uint8)
    case = stored(image, labels)
    for z in range(size[2]):
        expected, truth = np.zeros((*size[:2], 2)), np.zeros(size[:2])
        start = volumes.window_origin(image.shape[:3], size)
        for x, y in np.ndindex(*size[:2]):
            at = (x + start[0], y + start[1], z + start[2])
            if all(0 <= a < f for a, f in zip(at, image.shape)):
                expected[x, y], truth[x, y] = image[at], labels[at]
        for flip in ((False, False), (True, False), (False, True), (True, True)):
            turn = (
                slice(None, None, -1 if flip[0] else 1),
                slice(None, None, -1 if flip[1] else 1),
            )
            assert np.array_equal(_slice(case, z, size, flip=flip), expected[turn])
            masks = _targets(case, z, size, [(1, 2, 3), (2,)], flip)
            assert np.array_equal(masks[..., 0], (truth > 0)[turn])
            assert np.array_equal(masks[..., 1], (truth == 2)[turn])


def test_flips_are_along_x_and_y(stored):
    case = stored(np.array([[[[1]], [[2]]], [[[3]], [[4]]]], np.int16).reshape(2, 2, 1, 1))
    size = (2, 2, 1)
    assert _slice(case, 0, size)[..., 0].tolist() == [[1, 2], [3, 4]]
    assert _slice(case, 0, size, flip=(True, False))[..., 0].tolist() == [[3, 4], [1, 2]]
    assert _slice(case, 0, size, flip=(False, True))[..., 0].tolist() == [[2, 1], [4, 3]]


def test_z_score_over_non_zero_voxels_keeps_background_zero(stored):
    image = np.zeros((3, 3, 2, 2), np.int16)
    # Channel 0: 10, 10, 30, 30 in two slices: mean 20, standard deviation 10.
    image[0, 0, 0, 0] = image[0, 1, 0, 0] = 10
    image[2, 2, 1, 0] = image[1, 2, 1, 0] = 30
    # Channel 1: 4, 8: mean 6, standard deviation 2.
    image[0, 0, 0, 1], image[2, 0, 1, 1] = 4, 8
    case = stored(image)
    first, second = (_slice(case, z, (5, 5, 2), "z_score") for z in (0, 1))
    expected = np.zeros((5, 5, 2))
    expected[1, 1] = -1, -1
    expected[1, 2] = -1, 0
    assert np.allclose(first, expected, atol=1e-6)
    assert np.array_equal(first == 0, expected == 0)
    expected = np.zeros((5, 5, 2))
    expected[3, 3] = expected[2, 3] = 1, 0
    expected[3, 1] = 0, 1
    assert np.allclose(second, expected, atol=1e-6)
    assert np.array_equal(second == 0, expected == 0)


def test_z_score_equals_float64_arithmetic_in_a_volume_of_many_blocks(stored):
    rng = np.random.default_rng(0)
    image = rng.integers(-5, 3000, (90, 80, 2, 4)).astype(np.int16)
    image[rng.random(image.shape) < 0.3] = 0
    case = stored(image)
    values = image.astype(np.float64)
    values[image == 0] = np.nan
    mean, std = np.nanmean(values, axis=(0, 1, 2)), np.nanstd(values, axis=(0, 1, 2))
    expected = np.nan_to_num((values - mean) / std)
    for z in (0, 1):
        found = _slice(case, z, (90, 80, 2), "z_score")
        assert np.allclose(found, expected[:, :, z], atol=2e-6)
        assert not found[image[:, :, z] == 0].any()


def test_min_max_maps_each_channel_of_the_volume_to_one(stored):
    image = np.zeros((1, 4, 1, 3), np.int16)
    image[0, :, 0, 0] = 0, 5, 10, 20
    image[0, :, 0, 1] = -30, 0, 10, 30
    image[0, :, 0, 2] = -40, -30, -20, -10
    found = _slice(stored(image), 0, (1, 6, 1), "min_max")
    assert np.allclose(found[0, :, 0], [0, 0, 0.25, 0.5, 1, 0])
    # -30 .. 30: background is in the middle, in the padding as well.
    assert np.allclose(found[0, :, 1], [0.5, 0, 0.5, 40 / 60, 1, 0.5])
    # -40 .. 0: background is the maximum.
    assert np.allclose(found[0, :, 2], [1, 0, 0.25, 0.5, 0.75, 1])


def test_min_max_is_of_the_volume_and_not_of_the_slice(stored):
    # 10 and 40 are the maxima of the two slices, 0 the minimum of both.
    image = np.array([[10, 40], [5, 0]], np.int16).reshape(1, 2, 2, 1)
    case = stored(image)
    first, second = (_slice(case, z, (1, 2, 2), "min_max")[0, :, 0] for z in (0, 1))
    assert np.allclose(first, [0.25, 0.125])
    assert np.allclose(second, [1, 0])


def _windowed(case, z, window, **options):
    scaling = volumes.slice_scaling(case, "window_min_max", window, **options)
    out = np.full((*window[:2], len(scaling.channels)), np.nan, np.float32)
    volumes.read_slice(case, z, window, scaling, out)
    return out


def test_extremes_of_the_window_are_neither_of_the_volume_nor_of_the_slice(stored):
    # Along x of two slices; the window is the middle two. The brightest voxel of the volume, 100,
    # lies outside of it; 10 and 40 are the maxima of its slices, 0 and -10 the minima.
    image = np.array([[100, 10, 0, -50], [0, 40, -10, 7]], np.int16).T.reshape(4, 1, 2, 1)
    case = stored(image)
    first, second = (_windowed(case, z, (2, 1, 2))[:, 0, 0] for z in (0, 1))
    assert np.allclose(first, [20 / 50, 10 / 50])
    assert np.allclose(second, [1, 0], atol=1e-6)
    # A window as large as the volume, or larger, has the extremes of the volume.
    for window in ((4, 1, 2), (6, 3, 4)):
        whole = volumes.slice_scaling(case, "window_min_max", window)
        assert np.array_equal(whole.scale, volumes.scaling(case.statistics, "min_max").scale)


def test_extremes_of_the_window_are_those_of_each_channel(stored):
    image = np.zeros((4, 2, 1, 2), np.int16)
    image[:, 0, 0, 0] = 9, 2, 4, 9
    image[:, 1, 0, 1] = 1, 8, 2, 5
    case = stored(image)
    found = _windowed(case, 0, (2, 2, 1))
    assert np.allclose(found[:, 0, 0], [0.5, 1])
    assert np.allclose(found[:, 1, 1], [1, 0.25])
    assert np.allclose(_windowed(case, 0, (2, 2, 1), channels=(1, 0)), found[..., ::-1])


def test_a_window_beside_the_brain_is_background(stored):
    image = np.zeros((6, 4, 3, 1), np.int16)
    image[0] = 5
    assert not _windowed(stored(image), 1, (2, 2, 1)).any()


@pytest.mark.parametrize("normalization", ["z_score", "min_max"])
def test_a_channel_without_contrast_stays_finite(stored, normalization):
    image = np.zeros((2, 2, 1, 2), np.float32)
    image[..., 0] = 7
    found = _slice(stored(image), 0, (2, 2, 1), normalization)
    # min_max counts the background 0 in, so 7 is the maximum.
    assert np.array_equal(found[..., 0], np.full((2, 2), 0 if normalization == "z_score" else 1))
    assert not found[..., 1].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_every_stored_type_is_read(stored, dtype):
    image = np.array([3, 0, 200, 7], dtype).reshape(2, 2, 1, 1)
    assert _slice(stored(image), 0, (2, 2, 1))[..., 0].tolist() == [[3, 0], [200, 7]]


def test_only_the_named_normalizations_exist():
    with pytest.raises(ValueError, match="found 'zscore', expected one of: z_score, min_max, none"):
        volumes.scaling([{"min": 0, "max": 1, "mean": 0, "std": 1}], "zscore")


# Parts of the stored box, for crops in three dimensions


def _box(case, start, size, normalization="none", flip=(False, False, False)):
    out = np.full((*size, case.image.shape[3]), np.nan, np.float32)
    scaling = volumes.scaling(case.statistics, normalization)
    volumes.read_box(case, start, scaling, out, flip=flip)
    return out


def _box_targets(case, start, size, targets, flip=(False, False, False)):
    out = np.full((*size, len(targets)), np.nan, np.float32)
    volumes.read_box_targets(case, start, targets, out, flip=flip)
    return out


def _boxed(stored):
    """A case whose box is (4, 3, 5) voxels at (1, 2, 0), and its image and labels there."""
    image, labels = np.zeros((6, 7, 5, 2), np.int16), np.zeros((6, 7, 5), np.uint8)
    box = (slice(1, 5), slice(2, 5))
    image[box] = np.arange(1, 4 * 3 * 5 * 2 + 1).reshape(4, 3, 5, 2)
    labels[box] = np.arange(60).reshape(4, 3, 5) % 4
    return stored(image, labels), image[box], labels[box]


@pytest.mark.parametrize(
    ("start", "size"),
    [
        ((0, 0, 0), (4, 3, 5)),
        ((1, 0, 2), (2, 3, 1)),
        ((-2, -1, -3), (8, 5, 11)),
        ((2, -1, 3), (4, 2, 4)),
        ((4, 0, 0), (2, 2, 2)),
        ((-3, 0, 0), (2, 2, 2)),
    ],
)
def test_part_of_the_box_lies_in_zeros(stored, start, size):
    case, image, labels = _boxed(stored)
    expected, codes = np.zeros((*size, 2), np.float32), np.zeros(size, np.uint8)
    for index in np.ndindex(*size):
        at = tuple(np.add(index, start))
        if all(0 <= a < full for a, full in zip(at, image.shape)):
            expected[index], codes[index] = image[at], labels[at]
    np.testing.assert_array_equal(_box(case, start, size), expected)
    found = _box_targets(case, start, size, [(1, 3), (2,), (0,)])
    np.testing.assert_array_equal(found[..., 0], (codes == 1) | (codes == 3))
    np.testing.assert_array_equal(found[..., 1], codes == 2)
    np.testing.assert_array_equal(found[..., 2], codes == 0)


@pytest.mark.parametrize("flip", [(True, False, False), (False, True, True), (True, True, True)])
@pytest.mark.parametrize("at_once", [1, 2**16])
def test_part_of_the_box_is_mirrored_with_its_padding(stored, monkeypatch, flip, at_once):
    """Whatever the number of planes that are read at once."""
    case, start, size = _boxed(stored)[0], (-2, 1, -3), (5, 3, 6)
    straight = _box(case, start, size, "min_max")
    targets = _box_targets(case, start, size, [(1, 3), (0,)])
    monkeypatch.setattr(volumes, "_AT_ONCE", at_once)
    axes = [axis for axis in range(3) if flip[axis]]
    found = _box(case, start, size, "min_max", flip)
    np.testing.assert_array_equal(found, np.flip(straight, axes))
    found = _box_targets(case, start, size, [(1, 3), (0,)], flip)
    np.testing.assert_array_equal(found, np.flip(targets, axes))


def test_part_of_the_box_is_normalized_before_it_is_padded(stored):
    case, image, _ = _boxed(stored)
    # Each channel: 1, 3, ... 119 or 2, 4, ... 120, deviation 2 sqrt((60^2 - 1) / 12) = 34.636.
    expected = (image - [60, 61]) / 34.6362
    found = _box(case, (-1, 0, 0), (6, 3, 5), "z_score")
    np.testing.assert_allclose(found[1:5], expected, rtol=1e-5)
    assert not found[0].any()
    assert not found[5].any()
    # Of the whole volume, zeros included: 0 to 119 and 0 to 120.
    found = _box(case, (-1, 0, 0), (6, 3, 5), "min_max")
    np.testing.assert_allclose(found[1:5], image / [119, 120], rtol=1e-6)


def test_volume_goes_to_its_box_and_back(stored):
    case, image, _ = _boxed(stored)
    volume = volumes.read_volume(case, "none")
    np.testing.assert_array_equal(volume, image)
    np.testing.assert_array_equal(volumes.uncrop(volume, case), case.full_image())
    one = volumes.uncrop(np.ones((4, 3, 5), np.uint8), case)
    assert one.shape == (6, 7, 5)
    assert one.dtype == np.uint8
    assert one.sum() == 60
