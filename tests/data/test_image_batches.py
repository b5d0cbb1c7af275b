"""Images: intensities by hand, and batches as a pure function of (seed, epoch, step)."""

import numpy as np
import pytest

from keras_medseg.data.batches.images import ImageBatches
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.store import prepare
from keras_medseg.data.transforms import augment
from keras_medseg.data.transforms.images import Preparation, fit_preparation, read_image

SIZE = (8, 6)
UNIT = Preparation(mean=(0.0,) * 3, std=(1.0,) * 3)
TARGETS = (("one", (1,)), ("both", (1, 2)))


def _arrays(index: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """An image with a black border, which the store cuts off, and its labels."""
    rng = np.random.default_rng(index)
    image = np.zeros((*SIZE, 1, channels), np.uint8)
    image[1:7, 1:5] = rng.integers(1, 256, (6, 4, 1, channels))
    labels = np.zeros((*SIZE, 1), np.uint8)
    labels[2:5, 2:4] = rng.integers(0, 3, (3, 2, 1))
    return image, labels


def _read(case: Case) -> CaseArrays:
    image, labels = _arrays(int(case.id), 1 if case.group == "gray" else 3)
    if case.group == "large":
        image, labels = image.repeat(2, 0), labels.repeat(2, 0)
    labels = None if case.group == "unlabelled" else labels
    return CaseArrays(image, labels, np.eye(4), ("L", "P", "S"))


@pytest.fixture
def store(tmp_path):
    groups = {"7": "gray", "8": "large", "9": "unlabelled"}
    cases = [Case(str(n), "toy", (), None, groups.get(str(n), "")) for n in range(10)]
    return prepare(cases, _read, tmp_path / "store", workers=1)


IDS = [str(n) for n in range(7)]


def _batches(store, **options) -> ImageBatches:
    shape = {"size": SIZE, "batch_size": 3}
    defaults = {"case_ids": IDS, "targets": TARGETS, "preparation": UNIT, **shape}
    return ImageBatches(store, **{**defaults, **options})


class TestPreparation:
    def test_division_by_255_and_normalization(self):
        pixels = np.array([[[0, 51, 255], [102, 51, 0]]], np.uint8)
        preparation = Preparation(mean=(0.2, 0.2, 0.5), std=(0.1, 0.4, 0.5))
        # 51 / 255 = 0.2 and 102 / 255 = 0.4: (0 - 0.2) / 0.1, (0.2 - 0.2) / 0.4, (1 - 0.5) / 0.5
        expected = [[[-2, 0, 1], [2, 0, -1]]]
        np.testing.assert_allclose(preparation.apply(pixels), expected, atol=1e-6)
        assert preparation.apply(pixels).dtype == np.float32

    def test_each_images_own_mean_and_deviation(self):
        pixels = np.array([[[10], [30]], [[10], [30]]], np.uint8)
        expected = [[[-1], [1]], [[-1], [1]]]
        np.testing.assert_allclose(Preparation().apply(pixels), expected, rtol=1e-6)
        assert not Preparation().apply(np.full((2, 2, 1), 9, np.uint8)).any()

    def test_brightness_comes_before_normalization_and_ends_at_white(self):
        pixels = np.array([[[51], [204]]], np.uint8)
        brighter = Preparation(mean=(0.5,), std=(0.25,)).apply(pixels, brightness=1.5)
        # 0.2 * 1.5 = 0.3; 0.8 * 1.5 = 1.2, which is white: (0.3 - 0.5) / 0.25, (1 - 0.5) / 0.25
        np.testing.assert_allclose(brighter, [[[-0.8], [2.0]]], rtol=1e-5)
        darker = Preparation(mean=(0.0,), std=(1.0,)).apply(pixels, brightness=0.5)
        np.testing.assert_allclose(darker, [[[0.1], [0.4]]], rtol=1e-6)

    def test_smoothing_is_a_gaussian_of_the_plane_alone(self):
        pixels = np.zeros((15, 15, 2), np.uint8)
        pixels[7, 7, 0] = 250
        smooth = Preparation(smoothing_px=1.0).condition(pixels)
        weights = np.exp(-0.5 * np.arange(-4, 5) ** 2)
        weights /= weights.sum()
        expected = np.rint(250 * np.outer(weights, weights))
        np.testing.assert_array_equal(smooth[3:12, 3:12, 0], expected)
        assert not smooth[..., 1].any()
        assert (
            Preparation(smoothing_px=2.0).condition(np.full((9, 9, 1), 77, np.uint8)) == 77
        ).all()

    def test_equalization_is_that_of_opencv(self):
        # Values 10, 10, 20, 40: 2, 3, 4 pixels up to each; (below - 2) / (4 - 2) * 255.
        pixels = np.array([[[10], [10]], [[20], [40]]], np.uint8)
        equal = Preparation(equalization=True).condition(pixels)
        assert equal.ravel().tolist() == [0, 0, 128, 255]
        same = np.full((3, 3, 1), 7, np.uint8)
        np.testing.assert_array_equal(Preparation(equalization=True).condition(same), same)

    def test_equalized_histogram_is_flat(self):
        faint = np.random.default_rng(0).normal(80, 20, (64, 64, 1)).astype(np.uint8)
        equal = Preparation(equalization=True).condition(faint)
        assert abs(equal.mean() - 127.5) < 8
        assert abs(equal.std() - 255 / 12**0.5) < 8

    @pytest.mark.parametrize(
        "given", [{"mean": (0.5,)}, {"std": (0.5,)}, {"mean": (0,), "std": (1, 1)}]
    )
    def test_mean_and_deviation_come_together(self, given):
        with pytest.raises(ValueError, match="mean, std: found"):
            Preparation(**given)

    def test_smoothing_comes_before_equalization(self):
        pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 1), np.uint8)
        both = Preparation(smoothing_px=1.0, equalization=True).condition(pixels)
        smooth = Preparation(smoothing_px=1.0).condition(pixels)
        np.testing.assert_array_equal(both, Preparation(equalization=True).condition(smooth))


class TestFitPreparation:
    def test_mean_and_deviation_of_the_training_set(self, store):
        fitted = fit_preparation(store, ["0", "1", "2"])
        pixels = np.concatenate([_arrays(n)[0].reshape(-1, 3) for n in range(3)]) / 255
        np.testing.assert_allclose(fitted.mean, pixels.mean(0), rtol=1e-12)
        np.testing.assert_allclose(fitted.std, pixels.std(0), rtol=1e-12)
        assert fit_preparation(store, ["2", "0", "1"]) == fitted

    def test_of_images_as_they_are_conditioned(self, store):
        options = {"smoothing_px": 1.0, "equalization": True}
        fitted = fit_preparation(store, ["0"], **options)
        conditioned = Preparation(**options).condition(_arrays(0)[0][:, :, 0]) / 255
        np.testing.assert_allclose(fitted.mean, conditioned.mean((0, 1)), rtol=1e-12)
        assert (fitted.smoothing_px, fitted.equalization) == (1.0, True)

    def test_prepared_training_set_has_mean_0_and_deviation_1(self, store):
        fitted = fit_preparation(store, IDS)
        prepared = np.stack([read_image(store.cases[id], fitted) for id in IDS])
        np.testing.assert_allclose(prepared.mean((0, 1, 2)), 0, atol=1e-6)
        np.testing.assert_allclose(prepared.std((0, 1, 2)), 1, rtol=1e-5)

    def test_the_other_normalizations(self, store):
        assert fit_preparation(store, ["0"], "unit_range") == UNIT
        assert fit_preparation(store, ["7"], "unit_range").mean == (0.0,)
        assert fit_preparation(store, ["0"], "mean_std_per_image") == Preparation()

    def test_mistakes(self, store):
        with pytest.raises(ValueError, match="normalization: found 'z_score', expected"):
            fit_preparation(store, ["0"], "z_score")
        with pytest.raises(ValueError, match="found none, expected the training set"):
            fit_preparation(store, [])


class TestImageBatches:
    def test_pixels_and_targets_of_the_full_image(self, store):
        x, y = _batches(store, shuffle=False).batch(0, 1)
        assert (x.dtype, y.dtype) == (np.float32, np.float32)
        for row, index in enumerate((3, 4, 5)):
            image, labels = _arrays(index)
            np.testing.assert_allclose(x[row], image[:, :, 0] / 255, rtol=1e-6)
            np.testing.assert_array_equal(y[row, ..., 0], labels[..., 0] == 1)
            np.testing.assert_array_equal(y[row, ..., 1], labels[..., 0] > 0)

    def test_an_epoch_has_every_image_once_and_epochs_differ(self, store):
        batches = _batches(store)
        assert batches.steps_per_epoch == 3  # 3 + 3 + 1
        orders = []
        for epoch in (0, 1):
            images = [x for step in range(3) for x in batches.batch(epoch, step)[0].copy()]
            sums = [float(image.sum()) for image in images]
            expected = [float(_arrays(n)[0].sum() / 255) for n in range(7)]
            np.testing.assert_allclose(sorted(sums), sorted(expected), rtol=1e-5)
            orders.append(sums)
        assert orders[0] != orders[1]

    def test_a_pure_function_of_its_arguments(self, store):
        options = {"flips": ("x", "y"), "brightness": 0.3, "seed": 5}
        first, again = _batches(store, **options), _batches(store, **options)
        again.batch(0, 0)
        for x, y in zip(first.batch(3, 1), again.batch(3, 1)):
            np.testing.assert_array_equal(x, y)
        other = _batches(store, **{**options, "seed": 6}).batch(3, 1)[0]
        assert not np.array_equal(first.batch(3, 1)[0], other)

    @pytest.mark.parametrize("axes", [("x",), ("y",), ("x", "y")])
    def test_image_and_targets_are_mirrored_together(self, axes, store):
        plain, mirrored = _batches(store, batch_size=7), _batches(store, batch_size=7, flips=axes)
        flips = augment.draw_flips(0, 2, 7)[plain.order(2)]
        for array, flipped in zip(plain.batch(2, 0), mirrored.batch(2, 0)):
            for row in range(7):
                expected = array[row]
                if "x" in axes and flips[row, 0]:
                    expected = expected[::-1]
                if "y" in axes and flips[row, 1]:
                    expected = expected[:, ::-1]
                np.testing.assert_array_equal(flipped[row], expected)
        assert flips.any(axis=0).all()

    def test_brightness_factors_change_the_image_and_not_the_targets(self, store):
        plain, bright = _batches(store, batch_size=7), _batches(store, batch_size=7, brightness=0.4)
        factors = augment.draw_brightness(0, 1, 7, 0.4)[plain.order(1)]
        (x, y), (brighter, same) = plain.batch(1, 0), bright.batch(1, 0)
        np.testing.assert_allclose(
            brighter, np.minimum(x * factors[:, None, None, None], 1), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_array_equal(y, same)

    def test_no_targets_for_unlabelled_images(self, store):
        batches = ImageBatches(store, ["9"], (), preparation=UNIT, size=SIZE, batch_size=1)
        assert batches.batch(0, 0)[1].shape == (1, *SIZE, 0)

    @pytest.mark.parametrize("step", [-1, 3])
    def test_step_outside_of_the_epoch(self, step, store):
        with pytest.raises(IndexError, match="expected 0 to 2"):
            _batches(store).batch(0, step)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"case_ids": []}, "case_ids: found none"),
            ({"case_ids": ["0", "x"]}, r"case_ids: found \['x'\]"),
            ({"flips": ("z",)}, "flips: found"),
            ({"batch_size": 0}, "batch_size: found 0"),
            ({"brightness": 1.0}, "brightness: found 1.0"),
            ({"size": (6, 8)}, r"size: found \(6, 8\) and images of \{\(8, 6, 1\)\}"),
            ({"case_ids": ["0", "8"]}, r"images of \{\(16, 6, 1\)\}, expected one size"),
            ({"case_ids": ["7"]}, "found 1 channels, expected 3"),
            ({"case_ids": ["0", "7"]}, "different channels, expected"),
            ({"case_ids": ["0", "9"]}, r"no labels for \['9'\]"),
        ],
    )
    def test_mistakes(self, options, message, store):
        with pytest.raises(ValueError, match=message):
            _batches(store, **options)


def test_brightness_is_uniform_and_depends_on_the_index_alone():
    factors = augment.draw_brightness(1, 2, 20_000, 0.2)
    assert factors.min() > 0.8
    assert factors.max() < 1.2
    # A uniform distribution 0.4 wide: mean 1, deviation 0.4 / sqrt(12).
    np.testing.assert_allclose([factors.mean(), factors.std()], [1, 0.4 / 12**0.5], atol=0.003)
    np.testing.assert_array_equal(augment.draw_brightness(1, 2, 10, 0.2), factors[:10])
    assert not np.array_equal(augment.draw_brightness(1, 3, 10, 0.2), factors[:10])
    assert (augment.draw_brightness(1, 2, 10, 0.0) == 1).all()
