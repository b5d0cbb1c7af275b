"""sliding.py against windows that are averaged by hand, and MONAI's numbers."""

import keras
import numpy as np
import pytest

from keras_medseg.inference import sliding_window
from keras_medseg.inference.sliding_window import importance_map, predict_volume, window_starts


class Stub:
    """A network made of a NumPy function; keeps the shapes of what it was given."""

    def __init__(self, function):
        self.function = function
        self.shapes = []

    def predict_on_batch(self, batch):
        self.shapes.append(batch.shape)
        return np.stack([self.function(window) for window in batch])


def _volume(shape, channels=2):
    return np.random.default_rng(0).standard_normal((*shape, channels), "float32")


def _network(channels=2):
    """Convolutions of random weights, so that a voxel depends on its place in the window."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((None, None, None, channels))
    hidden = keras.layers.Conv3D(4, 3, padding="same", activation="tanh")(inputs)
    outputs = keras.layers.Conv3D(3, 3, padding="same", activation="sigmoid")(hidden)
    return keras.Model(inputs, outputs)


def test_windows_by_hand():
    # Patch 8, overlap 0.5: every 4; 15 - 8 = 7 is the last start. Patch 5: int(2.5) = 2.
    assert window_starts((15,), (8,), 0.5) == [(0,), (4,), (7,)]
    assert window_starts((9,), (5,), 0.5) == [(0,), (2,), (4,)]
    assert window_starts((8,), (8,), 0.5) == [(0,)]
    assert window_starts((16,), (8,), 0.0) == [(0,), (8,)]
    assert window_starts((5,), (3,), 0.9) == [(0,), (1,), (2,)]
    assert window_starts((6, 5), (4, 4), 0.5) == [(0, 0), (0, 1), (2, 0), (2, 1)]


def test_importance_by_hand():
    # Patch 4, sigma 0.5: at 0.5 and 1.5 voxels exp(-0.5) = 0.60653 and exp(-4.5) = 0.011109.
    line = [0.011109, 0.606531, 0.606531, 0.011109]
    np.testing.assert_allclose(importance_map((4,), "gaussian"), line, rtol=1e-5)
    found = importance_map((4, 4, 4), "gaussian")
    assert found[1, 1, 1] == pytest.approx(0.606531**3, rel=1e-5)
    # 0.011109^3 = 1.4e-6 is raised to 0.001.
    assert found[0, 0, 0] == np.float32(0.001)
    np.testing.assert_array_equal(importance_map((2, 3), "constant"), np.ones((2, 3)))


@pytest.mark.parametrize("mode", sliding_window.MODES)
@pytest.mark.parametrize("shape", [(13, 9, 8), (8, 8, 8), (20, 10, 9)])
def test_what_does_not_depend_on_the_window_comes_back(mode, shape):
    volume = _volume(shape)
    model = Stub(lambda window: np.tanh(window))
    found = predict_volume(model, volume, patch=(8, 8, 8), mode=mode)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.tanh(volume), atol=1e-6)


def test_windows_are_averaged_by_their_weights():
    # One axis of 6, patch 4, overlap 0.5: windows at 0 and 2, which give 1 and 2.
    calls = iter([1.0, 2.0])
    model = Stub(lambda window: np.full((4, 1, 1, 1), next(calls)))
    found = predict_volume(model, np.zeros((6, 1, 1, 1)), patch=(4, 1, 1))[:, 0, 0, 0]
    # The middle of a patch of 1 weighs 1. Voxel 2: 0.606531 of the first, 0.011109 of the second.
    heavy, light = 0.606531, 0.011109
    at_2 = (heavy * 1 + light * 2) / (heavy + light)
    at_3 = (light * 1 + heavy * 2) / (heavy + light)
    np.testing.assert_allclose(found, [1, 1, at_2, at_3, 2, 2], rtol=1e-5)


def test_volume_smaller_than_the_patch_is_padded_on_both_sides():
    seen = []

    def keep(window):
        seen.append(window[..., 0].copy())
        return window

    volume = _volume((5, 8, 3), channels=1)
    found = predict_volume(Stub(keep), volume, patch=(8, 8, 4))
    np.testing.assert_allclose(found, volume, atol=1e-6)
    # 3 missing: 1 before, 2 after. 1 missing: after.
    expected = np.pad(volume[..., 0], [(1, 2), (0, 0), (0, 1)])
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0], expected)


def test_batch_size_does_not_change_the_result():
    volume, network = _volume((13, 11, 9)), _network()
    one = predict_volume(network, volume, patch=(8, 8, 8))
    for batch_size in (2, 5, 64):
        found = predict_volume(network, volume, patch=(8, 8, 8), batch_size=batch_size)
        # The network's own rounding, which may depend on the batch; the sums are the same.
        np.testing.assert_allclose(found, one, atol=1e-6)
    exact = Stub(lambda window: window**2)
    one = predict_volume(exact, volume, patch=(8, 8, 8))
    found = predict_volume(exact, volume, patch=(8, 8, 8), batch_size=5)
    np.testing.assert_array_equal(found, one)


def test_every_batch_has_the_same_shape():
    model = Stub(lambda window: window)
    predict_volume(model, _volume((13, 11, 9)), patch=(8, 8, 8), batch_size=5)
    # 3 x 2 x 2 windows: two batches of 5, one of 2 and 3 whose result is dropped.
    assert model.shapes == [(5, 8, 8, 8, 2)] * 3


def test_flips_average_the_mirrored_volumes():
    volume, network = _volume((10, 9, 8)), _network()
    options = dict(patch=(8, 8, 8), overlap=0.25)
    found = predict_volume(network, volume, flips=(0, 1, 2), **options)
    mirrors = [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    each = [
        np.flip(predict_volume(network, np.flip(volume, mirror), **options), mirror)
        for mirror in mirrors
    ]
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)
    assert np.abs(found - each[0]).max() > 1e-3
    # A mirrored volume gives the mirrored result.
    mirrored = predict_volume(network, volume[::-1], flips=(0, 1, 2), **options)
    np.testing.assert_allclose(mirrored[::-1], found, atol=1e-6)


def _place(window):
    """A fixed, window-dependent answer of two channels: what MONAI was given too."""
    x, y, z = np.indices(window.shape[:-1], np.float32)
    return np.stack([window[..., 0] * (1 + x), window[..., 0] + y - z], axis=-1)


MONAI = {
    # shape, patch, overlap, mode: voxels [0, 0, 0], [3, 5, 2] and the last, and the mean
    ((13, 11, 9), (8, 8, 8), 0.5, "gaussian"): (
        0.000000,
        0.000000,
        0.599509,
        1.769080,
        -4.172408,
        -0.521551,
        -0.002872,
    ),
    ((13, 11, 9), (8, 6, 5), 0.25, "constant"): (
        0.000000,
        0.000000,
        0.599509,
        0.149877,
        -4.172408,
        0.478449,
        0.242640,
    ),
    ((6, 20, 9), (8, 8, 8), 0.5, "gaussian"): (
        0.000000,
        0.000000,
        0.749386,
        2.792268,
        -5.988640,
        -0.855520,
        -0.000714,
    ),
}


def test_monai_gives_the_same():
    """sliding_window_inference of MONAI 1.6.1 on the same volumes and the same "network"."""
    for (shape, patch, overlap, mode), expected in MONAI.items():
        x, y, z = np.indices(shape, np.float32)
        volume = np.sin(x + 2 * y + 3 * z)[..., None]
        found = predict_volume(Stub(_place), volume, patch=patch, overlap=overlap, mode=mode)
        voxels = [*found[0, 0, 0], *found[3, 5, 2], *found[-1, -1, -1], found.mean()]
        np.testing.assert_allclose(voxels, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": (8, 8)}, "volume, patch: found"),
        ({"patch": (8, 0, 8)}, "three sizes of 1 or more"),
        ({"overlap": 1.0}, "overlap: found 1.0"),
        ({"mode": "gauss"}, "mode: found 'gauss', expected one of gaussian, constant"),
        ({"batch_size": 0}, "batch_size: found 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        predict_volume(Stub(lambda w: w), _volume((9, 9, 9)), **{"patch": (8, 8, 8), **options})


def test_networks_that_do_not_fit_are_refused():
    volume = _volume((9, 9, 9))
    with pytest.raises(ValueError, match=r"output of shape \(1, 4, 8, 8, 2\)"):
        predict_volume(Stub(lambda window: window[:4]), volume, patch=(8, 8, 8))
    with pytest.raises(ValueError, match="not finite"):
        predict_volume(Stub(lambda window: window * np.nan), volume, patch=(8, 8, 8))


def test_a_network_that_reads_a_margin_sees_the_volume_around_its_output():
    """The sum over five voxels along x, of which the network puts out the middle."""
    volume = _volume((11, 6, 5), channels=1)
    seen = Stub(lambda window: sum(window[2 + d : 6 + d, 2:-2, 2:-2] for d in (-2, -1, 0, 1, 2)))
    found = predict_volume(seen, volume, patch=(4, 3, 5), overlap=0.0, margin=2)
    padded = np.pad(volume, [(2, 2), (0, 0), (0, 0), (0, 0)])
    expected = sum(padded[d : d + 11] for d in range(5))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert set(seen.shapes) == {(1, 8, 7, 9, 1)}


def test_a_volume_smaller_than_the_tile_is_predicted_at_once():
    volume = _volume((5, 6, 4), channels=1)
    seen = Stub(lambda window: window[1:-1, 1:-1, 1:-1])
    found = predict_volume(seen, volume, patch=(8, 8, 8), margin=1)
    np.testing.assert_allclose(found, volume, rtol=1e-6)
    assert len(seen.shapes) == 1
