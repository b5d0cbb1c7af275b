"""augment_volumes.py: against DALI, SciPy and arithmetic on paper, and the same on both sides."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy import ndimage

from keras_medseg.data.transforms import augment_volumes
from keras_medseg.data.transforms.augment_volumes import (
    COLUMNS,
    DEFAULTS,
    augment_image,
    augment_targets,
)

PATCH = (12, 9, 10)
ALL = augment_volumes.with_defaults({name: {} for name in DEFAULTS})
ALWAYS = augment_volumes.with_defaults({name: {"probability": 1.0} for name in DEFAULTS})


def _parameters(patch=PATCH, **columns):
    """One sample that undergoes nothing but what is named."""
    row = augment_volumes.draw_parameters(0, 0, 1, {}, patch)
    for name, value in columns.items():
        row[0, COLUMNS.index(name)] = value
    return row


def _image(patch=PATCH, samples=1, channels=2):
    return np.random.default_rng(7).standard_normal((samples, *patch, channels), "float32")


def _labels(patch=PATCH, samples=1):
    return np.float32(np.random.default_rng(8).random((samples, *patch, 2)) > 0.5)


# What is drawn


def test_a_sample_keeps_its_numbers_when_others_are_added():
    few, many = (augment_volumes.draw_parameters(3, 5, count, ALL, PATCH) for count in (10, 1000))
    np.testing.assert_array_equal(few, many[:10])


def test_an_augmentation_keeps_its_numbers_when_others_are_added():
    both = augment_volumes.draw_parameters(3, 5, 500, ALL, PATCH)
    alone = augment_volumes.draw_parameters(3, 5, 500, {"blur": ALL["blur"]}, PATCH)
    column = COLUMNS.index("blur_sigma")
    np.testing.assert_array_equal(both[:, column], alone[:, column])
    assert len(np.unique(alone[:, :6], axis=0)) == 1


@pytest.mark.parametrize("other", [(4, 5), (3, 6), (5, 3)])
def test_another_seed_or_epoch_draws_otherwise(other):
    first = augment_volumes.draw_parameters(3, 5, 100, ALL, PATCH)
    assert not np.array_equal(first, augment_volumes.draw_parameters(*other, 100, ALL, PATCH))


def test_numbers_are_the_same_in_another_process():
    code = (
        "from keras_medseg.data.transforms import augment_volumes as a;"
        "options = a.with_defaults({name: {} for name in a.DEFAULTS});"
        "print(a.draw_parameters(3, 5, 4, options, (12, 9, 10)).tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout.strip() == augment_volumes.draw_parameters(3, 5, 4, ALL, PATCH).tobytes().hex()
    )


def test_probabilities_and_strengths_are_the_authors():
    count = 40_000
    rows = augment_volumes.draw_parameters(0, 0, count, ALL, (128, 128, 128))
    drawn = dict(zip(COLUMNS, rows.T))
    # Binomial (40,000, 0.15): standard deviation 71; (40,000, 0.5): 100.
    for name, neutral, low, high in (
        ("noise_sigma", 0, 0, 0.33),
        ("blur_sigma", 0, 0.5, 1.5),
        ("brightness", 1, 0.7, 1.3),
        ("contrast", 1, 0.65, 1.5),
    ):
        changed = drawn[name][drawn[name] != neutral]
        assert abs(len(changed) - 0.15 * count) < 5 * 71, name
        assert low <= changed.min() < changed.max() <= high, name
        # Uniform: mean (low + high) / 2, standard deviation (high - low) / sqrt(12) a sample.
        assert abs(changed.mean() - (low + high) / 2) < (high - low) / 3.46 / 77 * 5, name
    # A scale of 0.7 to 1 leaves int(0.7 * 128) = 89 to 127 voxels, 128 with probability near 0.
    enlarged = drawn["extent_x"][drawn["extent_x"] < 128]
    assert abs(len(enlarged) - 0.15 * count) < 5 * 71
    assert (enlarged.min(), enlarged.max()) == (89, 127)
    for name in ("flip_x", "flip_y", "flip_z"):
        assert abs(drawn[name].sum() - count / 2) < 5 * 100
    assert np.array_equal(drawn["extent_x"], drawn["extent_z"])


def test_decisions_are_independent_of_each_other():
    rows = augment_volumes.draw_parameters(0, 0, 40_000, ALL, PATCH)
    neutral = _parameters()
    chosen = np.float64(rows != neutral)[:, [0, 3, 4, 5, 6, 9, 10, 11]]
    correlation = np.corrcoef(chosen.T) - np.eye(8)
    # 1 / sqrt(40,000) = 0.005 is one standard deviation.
    assert np.abs(correlation).max() < 5 * 0.005


def test_extent_is_cut_to_whole_voxels():
    # 0.75 * (12, 9, 10) = (9, 6.75, 7.5) -> 9, 6, 7.
    options = augment_volumes.with_defaults({"zoom": {"probability": 1.0, "scale": (0.75, 0.75)}})
    assert augment_volumes.draw_parameters(0, 0, 1, options, PATCH)[0, :3].tolist() == [9, 6, 7]


@pytest.mark.parametrize("name", DEFAULTS)
def test_occurring_names_what_changes_a_sample(name):
    options = {name: ALWAYS[name]}
    always = augment_volumes.draw_parameters(0, 0, 1, options, PATCH)
    always[0, 3] = name == "flips"
    assert augment_volumes.occurring(ALL, always, PATCH) == {name: ALL[name]}
    assert augment_volumes.occurring(ALL, _parameters(), PATCH) == {}


# One crop in slabs


def _bits(array):
    return np.ascontiguousarray(array).view(np.uint32)


@pytest.mark.parametrize("patch", [PATCH, (5, 7, 9)])
@pytest.mark.parametrize(
    "names", [*((name,) for name in DEFAULTS), ("zoom", "flips"), (*DEFAULTS,)]
)
def test_a_crop_in_slabs_has_the_same_bits(monkeypatch, names, patch):
    """Slabs of one plane or three, one of them smaller; 5 x 7 x 9 voxels are an odd number."""
    options = {name: ALWAYS[name] for name in names}
    for slab, channels in ((1, 1), (200, 2)):
        monkeypatch.setattr(augment_volumes, "_SLAB", slab)
        parameters = augment_volumes.draw_parameters(5, 1, 1, options, patch)
        parameters[0, 3:6] = "flips" in names
        x, y = _image(patch, channels=channels), _labels(patch)
        x[:, 1], x[:, 2] = 0.0, -0.0  # as the background of a normalized case
        image = augment_image(np, x, parameters, options)
        targets = augment_targets(np, y, parameters, options)
        augment_volumes.augment_crop(x[0], y[0], parameters, options)
        np.testing.assert_array_equal(_bits(x), _bits(image))
        np.testing.assert_array_equal(_bits(y), _bits(targets))


def test_a_crop_in_slabs_may_have_no_targets():
    x, y = _image()[0], np.empty((*PATCH, 0), np.float32)
    before = x.copy()
    augment_volumes.augment_crop(x, y, _parameters(extent_x=8, flip_y=1), ALL)
    assert not np.array_equal(x, before)


# What is done, against others


def _zoomed(x, extents, order):
    """Each channel of (X, Y, Z, C) by scipy.ndimage, voxel areas aligned."""
    box = tuple(
        slice((size - extent + 1) // 2, (size - extent + 1) // 2 + extent)
        for size, extent in zip(x.shape, extents)
    )
    factors = [size / extent for size, extent in zip(x.shape, extents)]
    return np.stack(
        [
            ndimage.zoom(x[(*box, c)], factors, order=order, grid_mode=True, mode="nearest")
            for c in range(x.shape[3])
        ],
        axis=3,
    )


@pytest.mark.parametrize("extents", [(9, 7, 8), (12, 9, 10), (10, 8, 7), (1, 1, 1)])
def test_targets_are_zoomed_as_by_scipy(extents):
    y = _labels()
    row = _parameters(extent_x=extents[0], extent_y=extents[1], extent_z=extents[2])
    found = augment_targets(np, y, row, ALL)
    np.testing.assert_array_equal(found[0], _zoomed(y[0], extents, order=0))


def _keys(distance):
    """Cubic convolution, Keys 1981, equation (15)."""
    s = np.abs(distance)
    near = 1.5 * s**3 - 2.5 * s**2 + 1
    far = -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2
    return np.where(s < 1, near, np.where(s < 2, far, 0))


@pytest.mark.parametrize("extents", [(9, 7, 8), (10, 8, 7), (8, 6, 7)])
def test_image_is_zoomed_by_cubic_convolution(extents):
    """As the product with one matrix per axis, from a table of the kernel with 129 values."""
    x = _image()
    expected = np.float64(x[0])
    table = np.linspace(-2, 2, 129)
    for axis, (size, extent) in enumerate(zip(PATCH, extents)):
        source = (np.arange(size) + 0.5) * extent / size - 0.5
        matrix = np.zeros((size, size))
        first = (size - extent + 1) // 2
        for place in range(size):
            for voxel in range(int(np.floor(source[place])) - 1, int(np.floor(source[place])) + 3):
                at = first + np.clip(voxel, 0, extent - 1)
                matrix[place, at] += np.interp(source[place] - voxel, table, _keys(table))
        expected = np.moveaxis(np.tensordot(matrix, expected, (1, axis)), 0, axis)
    row = _parameters(extent_x=extents[0], extent_y=extents[1], extent_z=extents[2])
    np.testing.assert_allclose(augment_image(np, x, row, ALL)[0], expected, atol=2e-6)


@pytest.fixture(scope="module")
def dali():
    """What NVIDIA DALI 2.4 makes of a crop, channels last; goldens/README.md."""
    with np.load(Path(__file__).parents[1] / "goldens" / "dali_augmentation.npz") as stored:
        return {name: np.moveaxis(stored[name], 0, -1)[None] for name in stored.files}


def _as_dali(dali, option, **columns):
    """An augmentation of DALI's crop; depth, height and width there are x, y and z here."""
    patch = dali["image"].shape[1:4]
    row, options = _parameters(patch, **columns), {option: ALWAYS[option]}
    image = augment_image(np, dali["image"], row, options)
    return image, augment_targets(np, np.float32(dali["labels"]), row, options)


@pytest.mark.parametrize(("scale", "extents"), [(0.7, (5, 11, 11)), (0.83, (6, 13, 13))])
def test_zoom_is_dalis(scale, extents, dali):
    columns = dict(zip(("extent_x", "extent_y", "extent_z"), extents))
    image, labels = _as_dali(dali, "zoom", **columns)
    np.testing.assert_allclose(image, dali[f"zoom_{scale}"], atol=2e-5)
    np.testing.assert_array_equal(labels, dali[f"zoom_labels_{scale}"])


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_flips_are_dalis(axis, dali):
    image, _ = _as_dali(dali, "flips", **{f"flip_{axis}": 1})
    np.testing.assert_array_equal(image, dali[f"flip_{axis}"])


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_blur_is_dalis(sigma, dali):
    image, _ = _as_dali(dali, "blur", blur_sigma=sigma)
    np.testing.assert_allclose(image, dali[f"blur_{sigma}"], atol=2e-6)


def test_contrast_is_dalis(dali):
    image, _ = _as_dali(dali, "contrast", contrast=1.5)
    np.testing.assert_array_equal(image, dali["contrast_1.5"])


def test_cubic_zoom_reproduces_a_parabola():
    # Keys' kernel with a = -1/2 is exact for second degree where no voxel beyond the border counts.
    patch, extent = (16, 4, 4), 12
    line = np.arange(16.0)
    x = np.broadcast_to((line**2)[None, :, None, None, None], (1, *patch, 1)).astype(np.float32)
    found = augment_image(np, x, _parameters(patch, extent_x=extent), ALL)[0, :, 0, 0, 0]
    source = 2 + (line + 0.5) * extent / 16 - 0.5
    inside = (source >= 3) & (source <= 12)
    assert inside.sum() == 12
    np.testing.assert_allclose(found[inside], source[inside] ** 2, rtol=1e-6)


def test_zoom_comes_near_that_of_splines():
    # A smooth image: every cubic interpolation must give nearly the same.
    x = ndimage.gaussian_filter(_image(channels=1)[0, ..., 0], 2.0)[None, ..., None] * 10
    found = augment_image(np, x, _parameters(extent_x=9, extent_y=7, extent_z=8), ALL)[0]
    expected = _zoomed(x[0], (9, 7, 8), order=3)
    inner = (slice(3, -3),) * 3
    assert np.abs(found - expected)[inner].max() < 0.02 * np.ptp(expected)


def test_flips_mirror_image_and_targets_alike():
    x, y = _image(), _labels()
    for axes in ((0,), (1,), (2,), (0, 2), (0, 1, 2)):
        row = _parameters(**{f"flip_{'xyz'[axis]}": 1 for axis in axes})
        for options in (ALL, {"flips": ALL["flips"]}):
            moved = tuple(axis + 1 for axis in axes)
            np.testing.assert_array_equal(augment_image(np, x, row, options), np.flip(x, moved))
            np.testing.assert_array_equal(augment_targets(np, y, row, options), np.flip(y, moved))


def test_zoom_comes_before_the_flip():
    x = _image()
    zoom = dict(extent_x=9, extent_y=7, extent_z=8)
    straight = augment_image(np, x, _parameters(**zoom), ALL)
    mirrored = augment_image(np, x, _parameters(flip_y=1, **zoom), ALL)
    np.testing.assert_array_equal(mirrored, straight[:, :, ::-1])


@pytest.mark.parametrize("sigma", [0.5, 0.9, 1.5])
def test_blur_is_scipys(sigma):
    # SciPy's "mirror" is reflection without the border voxel; its radius is given explicitly.
    x = _image()
    found = augment_image(np, x, _parameters(blur_sigma=sigma), ALL)[0]
    radius = int(np.ceil(3 * sigma))
    for c in range(2):
        expected = ndimage.gaussian_filter(
            np.float64(x[0, ..., c]), sigma, mode="mirror", radius=radius
        )
        np.testing.assert_allclose(found[..., c], expected, atol=1e-6)


def test_blur_of_an_axis_shorter_than_its_radius():
    x = _image((8, 2, 1))
    found = augment_image(np, x, _parameters((8, 2, 1), blur_sigma=1.5), ALL)[0]
    expected = ndimage.gaussian_filter(x[0, ..., 0], 1.5, mode="mirror", radius=5)
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-6)


def test_brightness_and_contrast_by_hand():
    x = np.array([-2.0, 0.0, 1.0, 4.0], "float32").reshape(1, 4, 1, 1, 1)
    patch = (4, 1, 1)
    for columns, expected in (
        ({"brightness": 0.75}, [-1.5, 0, 0.75, 3]),
        # Contrast stays within the range of the sample, here -2 to 4.
        ({"contrast": 1.5}, [-2, 0, 1.5, 4]),
        ({"contrast": 0.5}, [-1, 0, 0.5, 2]),
        # Brightness first: -1 to 2 is the range of what contrast sees.
        ({"brightness": 0.5, "contrast": 1.5}, [-1, 0, 0.75, 2]),
    ):
        found = augment_image(np, x, _parameters(patch, **columns), ALL)
        np.testing.assert_allclose(found.reshape(-1), expected, rtol=1e-6)


def test_range_of_the_contrast_is_that_of_all_channels():
    x = np.array([[1.0, 3.0], [2.0, -5.0]], "float32").reshape(1, 2, 1, 1, 2)
    found = augment_image(np, x, _parameters((2, 1, 1), contrast=1.4), ALL)
    np.testing.assert_allclose(found.reshape(2, 2), [[1.4, 3.0], [2.8, -5.0]], rtol=1e-6)


def _noise(patch=(32, 32, 32), channels=4, **keys):
    x = np.zeros((1, *patch, channels), np.float32)
    return augment_image(np, x, _parameters(patch, noise_sigma=1.0, **keys), ALL)[0]


def test_noise_is_standard_normal():
    noise = np.float64(_noise(noise_key_a=12345, noise_key_b=678)).reshape(-1)
    count = noise.size
    assert count == 131_072
    # Mean, variance, skewness and kurtosis with their standard errors.
    assert abs(noise.mean()) < 5 / count**0.5
    assert abs(noise.var() - 1) < 5 * (2 / count) ** 0.5
    assert abs((noise**3).mean()) < 5 * (15 / count) ** 0.5
    assert abs((noise**4).mean() - 3) < 5 * (96 / count) ** 0.5
    # Kolmogorov and Smirnov: 1.95 / sqrt(n) is exceeded once in a thousand times.
    from scipy.special import ndtr

    apart = np.abs(ndtr(np.sort(noise)) - (np.arange(count) + 0.5) / count).max()
    assert apart < 1.95 / count**0.5


def test_noise_of_neighbours_channels_and_samples_is_independent():
    noise = np.float64(_noise(noise_key_a=1, noise_key_b=2))
    others = [_noise(noise_key_a=a, noise_key_b=b) for a, b in ((2, 2), (1, 3), (2, 1), (0, 0))]
    pairs = [(noise, np.float64(other)) for other in others]
    for axis in range(4):
        moved = np.moveaxis(noise, axis, 0)
        pairs += [(moved[1:], moved[:-1]), (moved[2:], moved[:-2])]
    for a, b in pairs:
        correlation = np.mean(a * b)
        assert abs(correlation) < 5 / a.size**0.5


def test_noise_has_the_drawn_strength():
    keys = dict(noise_key_a=5, noise_key_b=6)
    x = _image()
    found = augment_image(np, x, _parameters(noise_sigma=0.25, **keys), ALL) - x
    full = augment_image(np, 0 * x, _parameters(noise_sigma=1.0, **keys), ALL)
    np.testing.assert_allclose(found, 0.25 * full, atol=1e-6)


# In the authors' order.
ONE_OF_EACH = {
    "zoom": dict(extent_x=9, extent_y=6, extent_z=7),
    "flips": dict(flip_x=1, flip_z=1),
    "noise": dict(noise_sigma=0.3, noise_key_a=5, noise_key_b=6),
    "blur": dict(blur_sigma=0.8),
    "brightness": dict(brightness=1.3),
    "contrast": dict(contrast=1.4),
}


def _one_after_the_other(x, names):
    for name in names:
        x = augment_image(np, x, _parameters(**ONE_OF_EACH[name]), ALL)
    return x


def test_all_together_is_one_after_the_other_in_the_authors_order():
    """Each alone is tested above. Another order is another image, but where neighbors commute:
    brightness does with blur and with contrast."""
    x = _image()
    columns = {name: value for each in ONE_OF_EACH.values() for name, value in each.items()}
    together = augment_image(np, x, _parameters(**columns), ALL)
    np.testing.assert_allclose(together, _one_after_the_other(x, ONE_OF_EACH), atol=2e-5)
    for earlier, later in (
        *(("zoom", "flips"), ("zoom", "noise"), ("flips", "noise"), ("noise", "blur")),
        *(("noise", "brightness"), ("noise", "contrast")),
    ):
        names = [name for name in ONE_OF_EACH if name != later]
        names.insert(names.index(earlier), later)
        apart = np.abs(together - _one_after_the_other(x, names)).max()
        assert apart > 0.01, (earlier, later)


# Both sides


def test_what_does_not_happen_changes_no_bit():
    x, y = _image(samples=2), _labels(samples=2)
    rows = np.repeat(_parameters(), 2, axis=0)
    assert augment_image(np, x, rows, ALL).tobytes() == x.tobytes()
    assert augment_targets(np, y, rows, ALL).tobytes() == y.tobytes()


def test_skipping_what_does_not_occur_changes_no_bit():
    x, rows = _image(), augment_volumes.draw_parameters(1, 0, 40, ALL, PATCH)
    for row in rows:
        few = augment_volumes.occurring(ALL, row[None], PATCH)
        whole = augment_image(np, x, row[None], ALL)
        np.testing.assert_array_equal(augment_image(np, x, row[None], few), whole)


def _by_keras(x, y, rows, *, compiled):
    """Image and targets by keras.ops, as they stand or inside of a compiled model."""
    if not compiled:
        tensors = [keras.ops.convert_to_tensor(a) for a in (x, y, rows)]
        x, y, rows = tensors
        found = (
            augment_image(keras.ops, x, rows, ALWAYS),
            augment_targets(keras.ops, y, rows, ALWAYS),
        )
        return [keras.ops.convert_to_numpy(a) for a in found]

    class Augment(keras.layers.Layer):
        def call(self, x, y, rows):
            return (
                augment_image(keras.ops, x, rows, ALWAYS),
                augment_targets(keras.ops, y, rows, ALWAYS),
            )

    inputs = [keras.Input(a.shape[1:]) for a in (x, y, rows)]
    model = keras.Model(inputs, Augment()(*inputs))
    model.compile(jit_compile=True)
    return model.predict_on_batch([x, y, rows])


@pytest.mark.parametrize("compiled", [False, True])
def test_numpy_and_keras_give_the_same(compiled):
    samples = 6
    x, y = _image(samples=samples) * 3, _labels(samples=samples)
    rows = augment_volumes.draw_parameters(2, 1, samples, ALWAYS, PATCH)
    # Some undergo nothing, or one thing.
    rows[3] = _parameters()
    rows[4] = _parameters(extent_x=9, extent_y=9, extent_z=9)
    expected = augment_image(np, x, rows, ALWAYS), augment_targets(np, y, rows, ALWAYS)
    image, targets = _by_keras(x, y, rows, compiled=compiled)
    assert np.abs(expected[0] - x)[[0, 1, 2, 5]].max() > 0.5
    np.testing.assert_allclose(image, expected[0], atol=1e-5)
    np.testing.assert_array_equal(targets, expected[1])
    np.testing.assert_array_equal(image[3], x[3])


# Options


def test_options_are_completed_in_their_order():
    found = augment_volumes.with_defaults({"contrast": {}, "zoom": {"probability": 0.5}})
    assert list(found) == ["zoom", "contrast"]
    assert found["zoom"] == {"probability": 0.5, "scale": (0.7, 1.0)}
    assert found["contrast"] == {"probability": 0.15, "factor": (0.65, 1.5)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotation": {}}, "augmentation: found 'rotation', expected one of: zoom"),
        (
            {"zoom": {"factor": 2}},
            "augmentation.zoom: found 'factor', expected one of: prob",
        ),
        ({"flips": {"probability": 1.5}}, "augmentation.flips.probability: found 1.5"),
        ({"zoom": {"scale": (0.7, 1.2)}}, "augmentation.zoom.scale: found .* at most 1"),
        ({"zoom": {"scale": (0.0, 1.0)}}, "augmentation.zoom.scale"),
        ({"blur": {"sigma_voxels": (1.5, 0.5)}}, "augmentation.blur.sigma_voxels"),
        ({"noise": {"sigma": (-0.1, 0.5)}}, "augmentation.noise.sigma"),
        ({"brightness": {"factor": (0.5, 1.0, 1.5)}}, "augmentation.brightness.factor"),
    ],
)
def test_options_that_do_not_exist_or_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        augment_volumes.with_defaults(options)
