import importlib
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from keras_medseg.evaluation import metrics
from keras_medseg.evaluation.metrics import METRICS, surface_distances

OF_MASKS = [
    metric.function for metric in METRICS.values() if metric.needs in ("masks", "background")
]


def mask(shape, *voxels):
    array = np.zeros(shape, bool)
    for voxel in voxels:
        array[voxel] = True
    return array


def random_blobs(seed, shape=(18, 15, 12)):
    """Two smooth overlapping shapes with ragged surfaces, some cut by the array's border."""
    noise = np.random.default_rng(seed).normal(size=(2, *shape))
    prediction, truth = (ndimage.gaussian_filter(n, 1.5) > 0.05 for n in noise)
    return prediction, truth


def hd95(prediction, truth, spacing):
    return metrics.hd95(surface_distances(prediction, truth, spacing))


def brute_force_hd95(prediction, truth, spacing_mm):
    """Every pair of surface voxels; a surface voxel has a direct neighbor outside the mask."""

    def surface_points(volume):
        padded = np.pad(volume, 1)
        points = []
        for voxel in np.argwhere(padded):
            steps = [s * unit for unit in np.eye(volume.ndim, dtype=int) for s in (-1, 1)]
            if not all(padded[tuple(voxel + step)] for step in steps):
                points.append(voxel * np.asarray(spacing_mm, float))
        return np.array(points)

    pairs = cdist(surface_points(prediction), surface_points(truth))
    return max(np.percentile(pairs.min(axis=1), 95), np.percentile(pairs.min(axis=0), 95))


def test_overlap_scores_by_hand():
    # Truth: x 0..3 of 10 voxels; prediction: x 2..7. TP = {2, 3} = 2, FP = 4, FN = 2, TN = 2.
    truth, prediction = np.zeros((10, 1, 1), bool), np.zeros((10, 1, 1), bool)
    truth[0:4], prediction[2:8] = True, True
    assert metrics.dice(prediction, truth) == 2 * 2 / (6 + 4)
    assert metrics.sensitivity(prediction, truth) == 2 / (2 + 2)
    assert metrics.specificity(prediction, truth) == 2 / (2 + 4)


def test_equal_masks_are_perfect():
    _, truth = random_blobs(0)
    assert metrics.dice(truth, truth) == 1.0
    assert metrics.sensitivity(truth, truth) == 1.0
    assert metrics.specificity(truth, truth) == 1.0
    assert hd95(truth, truth.copy(), (1, 1, 1)) == 0.0


def test_hd95_of_two_single_voxels_uses_the_spacing_of_each_axis():
    # Offsets (2, 1, 3) voxels at (1.0, 2.0, 0.5) mm: sqrt(2^2 + 2^2 + 1.5^2) = sqrt(10.25).
    prediction, truth = mask((6, 6, 6), (3, 2, 5)), mask((6, 6, 6), (1, 1, 2))
    assert hd95(prediction, truth, (1.0, 2.0, 0.5)) == pytest.approx(math.sqrt(10.25))


def test_hd95_interpolates_the_percentile():
    # Truth: a rod of x 0..20. Prediction: the voxel x = 0. Truth to prediction: distances
    # 0, 1, .., 20; the 95th percentile is at rank 0.95 * 20 = 19. Prediction to truth: 0.
    truth, prediction = np.zeros((30, 3, 3), bool), mask((30, 3, 3), (0, 1, 1))
    truth[0:21, 1, 1] = True
    assert hd95(prediction, truth, (1, 1, 1)) == pytest.approx(19.0)
    # A rod of x 0..10: rank 0.95 * 10 = 9.5, between 9 and 10 voxels of 2 mm.
    truth[11:, 1, 1] = False
    assert hd95(prediction, truth, (2, 1, 1)) == pytest.approx(19.0)


def test_hd95_is_the_larger_direction_and_not_the_pooled_percentile():
    # Truth: a rod of 100 voxels. Prediction: the same rod and a rod of 10 voxels 20 mm away.
    # Prediction to truth: 100 zeros and 10 times 20: rank 0.95 * 109 = 103.55 lies in the
    # twenties, so 20. Truth to prediction: 0. Pooled: 200 zeros and 10 times 20: rank
    # 0.95 * 209 = 198.55 lies in the zeros, so medpy's convention would say 0.
    truth = np.zeros((100, 25, 3), bool)
    truth[:, 1, 1] = True
    prediction = truth.copy()
    prediction[0:10, 21, 1] = True
    assert np.percentile([0] * 200 + [20] * 10, 95) == 0
    assert hd95(prediction, truth, (1, 1, 1)) == 20
    assert hd95(truth, prediction, (1, 1, 1)) == 20


def test_hd95_measures_surfaces_and_not_whole_masks():
    # A hollow 9^3 cube and a full one have the outer shell in common; the hollow one (walls of
    # 1 voxel) is all surface, the full one's surface is its shell: equal surfaces, 0 mm.
    full = np.zeros((13, 13, 13), bool)
    full[2:11, 2:11, 2:11] = True
    hollow = full.copy()
    hollow[3:10, 3:10, 3:10] = False
    assert hd95(hollow, full, (1, 1, 1)) == 0.0


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.9375, 0.9375, 1.2), (1, 1, 6.5)])
@pytest.mark.parametrize("seed", range(4))
def test_hd95_equals_all_pairs_of_surface_voxels(seed, spacing_mm):
    prediction, truth = random_blobs(seed)
    expected = brute_force_hd95(prediction, truth, spacing_mm)
    assert expected > 0
    assert hd95(prediction, truth, spacing_mm) == pytest.approx(expected, rel=1e-12)


def test_hd95_of_images_equals_all_pairs():
    prediction, truth = (volume[:, :, 5] for volume in random_blobs(9))
    expected = brute_force_hd95(prediction, truth, (2, 3))
    assert hd95(prediction, truth, (2, 3)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.9375, 0.7, 1.2)])
@pytest.mark.parametrize("seed", range(4))
def test_hd95_on_the_bounding_box_is_bit_equal_to_the_full_volume(seed, spacing_mm):
    small_prediction, small_truth = random_blobs(seed, shape=(12, 11, 10))
    prediction, truth = np.zeros((2, 40, 36, 30), bool)
    prediction[9:21, 14:25, 3:13] = small_prediction
    truth[9:21, 14:25, 3:13] = small_truth

    def directed(a, b):
        surfaces = [m & ~ndimage.binary_erosion(m) for m in (a, b)]
        distances = ndimage.distance_transform_edt(~surfaces[1], sampling=spacing_mm)
        return np.percentile(distances[surfaces[0]], 95)

    full = max(directed(prediction, truth), directed(truth, prediction))
    assert full > 0
    assert hd95(prediction, truth, spacing_mm) == full
    # The box touches the array's border: beyond it lies background, as in the full volume.
    assert hd95(small_prediction, small_truth, spacing_mm) == full


def test_both_masks_empty():
    empty = np.zeros((4, 5, 6), bool)
    assert metrics.dice(empty, empty) == 1.0
    assert metrics.sensitivity(empty, empty) == 1.0
    assert metrics.specificity(empty, empty) == 1.0
    assert hd95(empty, empty, (1, 1, 1)) == 0.0


def test_truth_empty():
    empty, prediction = np.zeros((4, 5, 6), bool), mask((4, 5, 6), (1, 1, 1))
    assert metrics.dice(prediction, empty) == 0.0
    assert metrics.sensitivity(prediction, empty) == 0.0
    # 120 voxels, all background; one of them predicted.
    assert metrics.specificity(prediction, empty) == 119 / 120
    # 4 x 5 x 6 voxels of (1, 2, 0.5) mm: sqrt(4^2 + 10^2 + 3^2) = sqrt(125).
    assert hd95(prediction, empty, (1, 2, 0.5)) == pytest.approx(math.sqrt(125))


def test_prediction_empty():
    empty, truth = np.zeros((4, 5, 6), bool), mask((4, 5, 6), (1, 1, 1))
    assert metrics.dice(empty, truth) == 0.0
    assert metrics.sensitivity(empty, truth) == 0.0
    assert metrics.specificity(empty, truth) == 1.0
    assert hd95(empty, truth, (1, 2, 0.5)) == pytest.approx(math.sqrt(125))


def test_diagonal_of_the_brats_grid():
    # sqrt(240^2 + 240^2 + 155^2) = sqrt(139225).
    empty, truth = np.zeros((240, 240, 155), bool), mask((240, 240, 155), (0, 0, 0))
    assert hd95(empty, truth, (1, 1, 1)) == pytest.approx(373.1287, abs=5e-5)


def test_truth_without_background():
    full = np.ones((3, 3, 3), bool)
    assert metrics.specificity(full, full) == 1.0
    assert hd95(full, full, (1, 1, 1)) == 0.0


@pytest.mark.parametrize("score", OF_MASKS)
def test_masks_must_be_boolean(score):
    good = np.zeros((2, 2, 2), bool)
    with pytest.raises(TypeError, match="truth: found dtype uint8, expected a boolean"):
        score(good, good.astype(np.uint8))
    with pytest.raises(TypeError, match="prediction: found list, expected a boolean"):
        score([True], good)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"shapes \(2, 2, 2\) and \(2, 2, 3\)"):
        metrics.dice(np.zeros((2, 2, 2), bool), np.zeros((2, 2, 3), bool))
    with pytest.raises(ValueError, match=r"shapes \(2, 2\) and \(2, 2, 3\)"):
        hd95(np.zeros((2, 2), bool), np.zeros((2, 2, 3), bool), (1, 1, 1))


@pytest.mark.parametrize("spacing_mm", [(1, 1), (1, 1, 0), (1, -1, 1), (1, 1, math.nan), 1])
def test_spacing_must_fit(spacing_mm):
    empty = np.zeros((2, 2, 2), bool)
    with pytest.raises(ValueError, match=r"spacing: found .*expected 3 positive numbers"):
        hd95(empty, empty, spacing_mm)


def test_distances_of_each_direction_by_hand():
    # Prediction: the voxels x = 0 and 1; truth: x = 4. Spacing 2 mm along x.
    prediction, truth = mask((6, 3, 3), (0, 1, 1), (1, 1, 1)), mask((6, 3, 3), (4, 1, 1))
    found = surface_distances(prediction, truth, (2, 1, 1))
    assert found.prediction_to_truth.tolist() == [8, 6]
    assert found.truth_to_prediction.tolist() == [6]


def test_distances_of_empty_masks():
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    assert [d.size for d in surface_distances(empty, empty, (1, 1))] == [0, 0]
    # 3 x 4 pixels: the diagonal is 5. The full mask's surface is its border, 10 of 12 pixels.
    found = surface_distances(full, empty, (1, 1))
    assert found.prediction_to_truth.tolist() == [5] * 10
    assert found.truth_to_prediction.size == 0
    found = surface_distances(empty, full, (1, 1))
    assert found.prediction_to_truth.size == 0
    assert found.truth_to_prediction.tolist() == [5] * 10


def test_mean_surface_distance_and_surface_dice_by_hand():
    # Prediction: the pixels x = 0 and 1; truth: x = 4 and 2. Spacing 2 mm along x: the prediction's
    # distances are 4 and 2 mm, those of the truth 6 and 2.
    prediction, truth = mask((6, 3), (0, 1), (1, 1)), mask((6, 3), (2, 1), (4, 1))
    found = surface_distances(prediction, truth, (2, 1))
    assert metrics.mean_surface_distance(found) == (4 + 2 + 6 + 2) / 4
    assert metrics.surface_dice(found, 1.9) == 0
    assert metrics.surface_dice(found, 2) == 2 / 4  # a distance equal to the tolerance counts
    assert metrics.surface_dice(found, 4) == 3 / 4


def test_surface_metrics_of_empty_masks():
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    nothing = surface_distances(empty, empty, (1, 1))
    assert metrics.mean_surface_distance(nothing) == 0
    assert metrics.surface_dice(nothing, 1) == 1
    for masks in ((empty, full), (full, empty)):
        found = surface_distances(*masks, (1, 1))
        assert metrics.mean_surface_distance(found) == 5  # the diagonal of 3 x 4
        assert metrics.surface_dice(found, 1) == 0


def test_volume_errors_are_in_milliliters():
    # 3 voxels of 10 x 10 x 5 mm are 1.5 mL, 5 voxels 2.5 mL.
    truth, prediction = np.zeros((2, 5, 5, 5), bool)
    truth[:5, 0, 0], prediction[:3, 1, 1] = True, True
    assert metrics.volume_error(prediction, truth, (10, 10, 5)) == -1.0
    assert metrics.volume_error(truth, prediction, (10, 10, 5)) == 1.0
    assert metrics.absolute_volume_error(prediction, truth, (10, 10, 5)) == 1.0
    assert metrics.volume_error(truth & False, truth & False, (1, 1, 1)) == 0
    with pytest.raises(ValueError, match="expected three axes"):
        metrics.volume_error(truth[0], truth[0], (1, 1))
    with pytest.raises(TypeError, match="expected a boolean"):
        metrics.volume_error(truth.astype(np.uint8), truth, (1, 1, 1))


def test_which_values_are_better():
    for name in ("dice", "nsd", "lesion_dice", "lesions_found", "s_measure", "mean_iou"):
        assert metrics.higher_is_better(name), name
    lower = ("hd95_mm", "assd_px", "mae", "mae_mask", "cross_entropy", "brier", "ece",
             "absolute_volume_error_ml", "lesion_hd95_mm", "lesions_missed")  # fmt: skip
    for name in lower:
        assert not metrics.higher_is_better(name), name
    with pytest.raises(ValueError, match=r"volume_error_ml.*Take its absolute value"):
        metrics.higher_is_better("volume_error_ml")


def range_in_words(bounds):
    low, high = bounds
    if low == -math.inf:
        return "any"
    return f"from {low:g}" if high is None else f"{low:g} to {high:g}"


def test_the_page_of_metrics_has_them_all_with_range_unit_and_direction():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in page.splitlines()
        if line.startswith("| `")
    ]
    listed = {cells[0].strip("` "): cells[1:] for cells in rows}
    assert list(listed) == list(METRICS)
    for name, metric in METRICS.items():
        formula, shown_range, unit, better, *others = listed[name]
        assert (shown_range, unit) == (range_in_words(metric.bounds), metric.unit or "-"), name
        assert better == metric.better, name
        assert formula
        assert len(others) == 4, name  # three empty cases and the source
        assert all(others), name
        assert metric.function.__doc__, name


def test_every_metric_has_a_label_and_values_within_its_bounds():
    volumes = random_blobs(3)
    prediction, truth = (volume[:, :, 5] for volume in volumes)
    distances = surface_distances(prediction, truth, (1, 1))
    inputs = {
        "masks": (prediction, truth),
        "background": (prediction, truth, 20),
        "volumes": (*volumes, (1, 1, 1)),
        "surfaces": (distances,),
        "tolerance": (distances, 0.5),
        "lesions": ({"lw_dice": 0.5, "lw_hd95": 9.0, "tp": 1, "fp": 2, "fn": 3},),
        "probabilities": (prediction * 0.8, truth),
    }
    for name, metric in METRICS.items():
        value = metric.function(*inputs[metric.needs])
        low, high = metric.bounds
        assert low < value < (math.inf if high is None else high), name
        assert metrics.metric_label(name) == metric.label != ""
        assert name.endswith(metric.unit.lower())
    assert metrics.metric_label("crop_dice") == "crop_dice"


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.9375, 0.9375, 1.2)])
@pytest.mark.parametrize("seed", range(4))
def test_hd95_and_dice_equal_monai(seed, spacing_mm):
    pytest.importorskip("monai")
    torch = importlib.import_module("torch")
    monai = importlib.import_module("monai.metrics")
    prediction, truth = random_blobs(seed, shape=(24, 20, 18))
    tensors = [torch.from_numpy(m[None, None]) for m in (prediction, truth)]
    distance = monai.compute_hausdorff_distance(
        *tensors, include_background=True, percentile=95, spacing=list(spacing_mm)
    )
    overlap = monai.compute_dice(*tensors, include_background=True)
    assert hd95(prediction, truth, spacing_mm) == pytest.approx(distance.item(), rel=1e-5)
    assert metrics.dice(prediction, truth) == pytest.approx(overlap.item(), rel=1e-6)
