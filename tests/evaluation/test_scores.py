"""Rows of scores by hand, and the choice of cases."""

import math

import numpy as np
import pandas as pd
import pytest

from keras_medseg.data.cases import Case
from keras_medseg.data.datasets._brats_releases import LESION_RULES
from keras_medseg.data.datasets.base import LesionRule
from keras_medseg.data.datasets.brats import Brats
from keras_medseg.data.formats import nifti
from keras_medseg.evaluation import lesions, metrics, scores
from keras_medseg.evaluation.scores import pick_cases, score_labels, score_probabilities

from .lesion_goldens import cases, label_maps

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
OF_VOLUMES = ("dice", "sensitivity", "specificity", "hd95_mm")
OF_IMAGES = (
    "dice", "iou", "precision", "sensitivity", "specificity", "hd95_px", "cross_entropy", "mae",
    "mae_mask",
)  # fmt: skip

# The truth has 4 pixels, the prediction 3, of which 2 are common, in 10.
TRUTH = np.array([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]], np.uint8)
PROBABILITIES = np.array([[0.9, 0.8, 0.4, 0.5, 0.6], [0.0, 0.1, 0.2, 0.3, 0.5]])


def _row(probabilities=PROBABILITIES, truth=TRUTH, **options) -> dict:
    options = {"metrics": OF_IMAGES, **options}
    [row] = score_probabilities(probabilities[..., None], truth, {"polyp": (1,)}, **options)
    return row


def test_scores_of_masks():
    row = _row()
    counts = [row[f"{name}_pixels"] for name in ("truth", "predicted", "common")]
    assert counts == [4, 3, 2]
    assert row["region"] == "polyp"
    assert row["dice"] == pytest.approx(2 * 2 / (4 + 3))
    assert row["iou"] == pytest.approx(2 / (4 + 3 - 2))
    assert row["precision"] == pytest.approx(2 / 3)
    assert row["sensitivity"] == pytest.approx(2 / 4)
    assert row["specificity"] == pytest.approx(5 / 6)
    # Column 4 is 1 px from the truth; columns 2 and 3 are 1 px from the prediction (columns 0, 1,
    # 4). Sorted distances 0, 0, 1 and 0, 0, 1, 1: both 95th percentiles lie beyond 0.85.
    assert row["hd95_px"] == pytest.approx(max(np.percentile([0, 0, 1], 95), 1.0))


def test_cross_entropy_and_mean_absolute_error():
    row = _row()
    right = [0.9, 0.8, 0.4, 0.5, 1 - 0.6, 1 - 1e-37, 0.9, 0.8, 0.7, 0.5]
    assert row["cross_entropy"] == pytest.approx(-sum(map(math.log, right)) / 10)
    wrong = [0.1, 0.2, 0.6, 0.5, 0.6, 0.0, 0.1, 0.2, 0.3, 0.5]
    assert row["mae"] == pytest.approx(sum(wrong) / 10)


def test_mean_absolute_error_of_the_mask():
    # Of 4 true and 3 predicted pixels 2 are common: 2 are missed and 1 is wrong, of 10.
    assert _row()["mae_mask"] == pytest.approx(3 / 10)


def test_certain_and_wrong_is_clipped_at_the_ends_of_float32():
    row = _row(np.zeros((2, 5), np.float32))
    assert row["cross_entropy"] == pytest.approx(-0.4 * math.log(1e-37), rel=1e-4)
    assert row["mae"] == pytest.approx(0.4)
    ones = _row(np.ones((2, 5), np.float32))
    assert ones["cross_entropy"] == pytest.approx(0.6 * 24 * math.log(2), rel=1e-4)


def test_f1_of_the_paper_is_dice():
    row = _row()
    p, r = row["precision"], row["sensitivity"]
    assert 2 * p * r / (p + r) == pytest.approx(row["dice"])


def test_threshold():
    assert _row(threshold=0.45)["predicted_pixels"] == 5
    assert _row(threshold=0.85)["predicted_pixels"] == 1


EMPTY, SOME = np.zeros((3, 4)), np.eye(3, 4)


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        # dice, iou, precision, sensitivity, specificity, hd95_px
        (EMPTY, EMPTY, (1, 1, 1, 1, 1, 0)),
        (EMPTY, SOME, (0, 0, 0, 0, 9 / 12, 5)),
        (SOME, EMPTY, (0, 0, 0, 0, 1, 5)),
        (SOME, SOME, (1, 1, 1, 1, 1, 0)),
    ],
)
def test_empty_masks_by_the_table(truth, prediction, expected):
    row = _row(prediction, truth.astype(np.uint8))
    names = ("dice", "iou", "precision", "sensitivity", "specificity", "hd95_px")
    assert [row[name] for name in names] == pytest.approx(list(expected))


def test_one_row_per_target_in_order():
    labels = np.array([[1, 2, 3, 0]], np.uint8)
    probabilities = np.array([[[1, 0], [0, 1], [1, 1], [0, 0]]], np.float32)
    rows = score_probabilities(
        probabilities, labels, {"outer": (1, 3), "inner": (2,)}, metrics=OF_IMAGES
    )
    assert [row["region"] for row in rows] == ["outer", "inner"]
    assert [row["dice"] for row in rows] == pytest.approx([1, 2 / 3])


def test_papers_table_cannot_be_pooled():
    """iacnn, table 2, U-Net: a pooled Dice would follow from the IoU. Here it does, per image."""
    assert abs(2 * 0.8025 / (1 + 0.8025) - 0.8761) > 0.01
    row = _row()
    assert 2 * row["iou"] / (1 + row["iou"]) == pytest.approx(row["dice"])


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.zeros((2, 5, 2)), r"shape \(2, 5, 2\), expected \(2, 5, 1\)"),
        (np.full((2, 5, 1), 1.5), "outside of 0 to 1 or NaN"),
        (np.full((2, 5, 1), np.nan), "outside of 0 to 1 or NaN"),
    ],
)
def test_mistakes(probabilities, message):
    with pytest.raises(ValueError, match=message):
        score_probabilities(probabilities, TRUTH, {"polyp": (1,)}, metrics=OF_IMAGES)


def test_scores_of_a_volume_by_hand():
    # A row of 8 voxels. WT: truth 0..5, prediction 0..3: Dice 2 * 4 / 10, sensitivity 4 / 6,
    # distances truth to prediction 0 0 0 0 1 2, rank 0.95 * 5 = 4.75: 1 + 0.75 = 1.75.
    # TC: truth {2, 3}, prediction {3}: Dice 2 / 3, distances 0 1, rank 0.95: 0.95.
    # ET: truth {3}, nothing predicted: the diagonal sqrt(8^2 + 1 + 1) = sqrt(66).
    truth = np.array([2, 2, 1, 3, 2, 2, 0, 0], np.uint8).reshape(8, 1, 1)
    prediction = np.array([2, 2, 2, 1, 0, 0, 0, 0], np.uint8).reshape(8, 1, 1)
    whole, core, enhancing = score_labels(
        prediction, truth, REGIONS, metrics=OF_VOLUMES, spacing=(1, 1, 1)
    )
    assert whole == {
        "region": "WT",
        "dice": pytest.approx(0.8),
        "sensitivity": pytest.approx(4 / 6),
        "specificity": 1.0,
        "hd95_mm": pytest.approx(1.75),
        "truth_voxels": 6,
        "predicted_voxels": 4,
    }
    assert core["dice"] == pytest.approx(2 / 3)
    assert core["hd95_mm"] == pytest.approx(0.95)
    assert enhancing["dice"] == 0.0
    assert enhancing["hd95_mm"] == pytest.approx(math.sqrt(66))
    assert (enhancing["truth_voxels"], enhancing["predicted_voxels"]) == (1, 0)


def test_labels_must_be_uint8():
    labels = np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(TypeError, match="truth: found dtype float64, expected uint8"):
        score_labels(labels, labels.astype(float), REGIONS, metrics=OF_VOLUMES, spacing=(1, 1, 1))


def test_columns_of_scores():
    """The columns of scores.csv after variant and case, in their order."""
    labels = np.array([[0, 1, 3]], np.uint8)
    [*_, row] = score_labels(
        labels, labels, REGIONS, metrics=OF_VOLUMES, spacing=(1, 1), elements="pixels"
    )
    assert list(row) == ["region", *OF_VOLUMES, "truth_pixels", "predicted_pixels", "common_pixels"]
    counts = ["truth_pixels", "predicted_pixels", "common_pixels"]
    assert list(_row()) == ["region", *OF_IMAGES, *counts]
    assert list(_row(metrics=("mae", "dice"))) == ["region", "mae", "dice", *counts]


def test_lesions_are_scored_by_the_rule_of_the_challenge():
    labels = np.zeros((40, 20, 20), np.uint8)
    labels[2:7, 2:7, 2:7], labels[20:25, 2:7, 2:7] = 3, 3
    prediction = labels.copy()
    prediction[20:25] = 0
    prediction[39, 19, 19] = 1  # one voxel: made up in 2023, deleted before scoring in 2024
    wanted = ("lesion_dice", "lesion_hd95_mm", "lesions_found", "lesions_missed", "lesions_made_up")
    rows = {}
    for year in (2023, 2024):
        rows[year] = score_labels(
            prediction, labels, {"WT": (1, 2, 3), "ET": (3,)},
            metrics=wanted, spacing=(1, 1, 1), rules=scores.Rules(LesionRule(year, "GLI")),
        )  # fmt: skip
    whole, enhancing = ([row[name] for name in wanted] for row in rows[2023])
    assert whole == pytest.approx([1 / 3, 2 * 374 / 3, 1, 1, 1])
    assert enhancing == pytest.approx([1 / 2, 374 / 2, 1, 1, 0])
    whole, _ = ([row[name] for name in wanted] for row in rows[2024])
    assert whole == pytest.approx([1 / 2, 337 / 2, 1, 1, 0])


@pytest.mark.parametrize("release", LESION_RULES)
def test_every_release_from_2023_on_has_a_rule_for_all_its_regions(release, tmp_path):
    path = tmp_path / "seg.nii.gz"
    nifti.write_volume(path, np.zeros((2, 2, 2), np.uint8), np.diag([-1.0, 1, 1, 1]))
    dataset = Brats(release=release)
    rule = dataset.lesion_rule(Case("a", release, (), path, "a"))
    assert (rule.year, rule.challenge) in lesions.RULES
    assert rule.axis_codes == ("L", "A", "S")
    assert {"lesion_dice", "lesion_hd95_mm"} <= set(dataset.metrics)
    for region, codes in dataset.regions.items():
        # A label map in the package's codes, which are not those of the files for children.
        labels = np.zeros((12, 9, 9), np.uint8)
        labels[2:8, 2:7, 2:7] = codes[0]
        options = {"metrics": ("lesion_dice",), "spacing": (1, 1, 1), "rules": scores.Rules(rule)}
        [perfect] = score_labels(labels, labels, {region: codes}, **options)
        [missed] = score_labels(labels * 0, labels, {region: codes}, **options)
        assert (perfect["lesion_dice"], missed["lesion_dice"]) == (1, 0), region


def test_earlier_cases_have_the_rule_of_gliomas_in_2023():
    for release in ("BraTS2017", "BraTS2021", "BraTS2024-GoAT", "Decathlon"):
        assert Brats().lesion_rule(Case("a", release, (), None, "a")) == LesionRule(2023, "GLI")
        assert "lesion_dice" not in Brats(release=release).metrics


def test_lesions_are_scored_in_the_orientation_of_the_files():
    """In the case "numbering", the order of the voxels decides which lesions are joined."""
    axes, spacing = ("I", "R", "P"), (3, 2, 1)
    golden = cases()["numbering"]["2025"]["GLI"]["ET"]
    in_lps = [nifti.reorient(labels, affine(axes)) for labels in label_maps("numbering")]
    truth, prediction = in_lps
    of_file = scores.Rules(LesionRule(2025, "GLI", axes))
    options = {"metrics": ("lesion_dice", "lesion_hd95_mm"), "spacing": (1, 1, 1)}
    [row] = score_labels(prediction, truth, {"ET": (3,)}, rules=of_file, **options)
    assert row["lesion_dice"] == pytest.approx(golden["lw_dice"], abs=1e-9)
    assert row["lesion_hd95_mm"] == pytest.approx(golden["lw_hd95"], abs=1e-9)
    flipped = scores.Rules(LesionRule(2025, "GLI"))
    [row] = score_labels(prediction, truth, {"ET": (3,)}, rules=flipped, **options)
    assert row["lesion_dice"] != pytest.approx(golden["lw_dice"])
    # Sizes along x, y, z; in the files they stand in the order z, x, y.
    options["spacing"] = spacing
    [row] = score_labels(prediction, truth, {"ET": (3,)}, rules=of_file, **options)
    on_disk = [nifti.restore(labels, axes) for labels in (prediction, truth)]
    expected = lesions.lesion_wise(*on_disk, (1, 3, 2), 2025, "GLI", "ET")
    assert row["lesion_hd95_mm"] == expected["lw_hd95"]


def affine(axis_codes):
    """Voxel -> mm (RAS) of an array with these axes, 1 mm each."""
    matrix = np.zeros((4, 4))
    for axis, code in enumerate(axis_codes):
        matrix["RLAPSI".index(code) // 2, axis] = 1 if code in "RAS" else -1
    matrix[3, 3] = 1
    return matrix


def test_a_region_of_ones_own_has_lesions_too():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:7, 2:7, 2:7] = 7
    options = {"metrics": ("lesion_dice",), "spacing": (1, 1, 1)}
    [row] = score_labels(labels, labels, {"liver": (7,)}, **options)
    assert row["lesion_dice"] == 1
    [row] = score_labels(labels * 0, labels, {"liver": (7,)}, **options)
    assert row["lesion_dice"] == 0


def test_the_surface_dice_has_a_tolerance_for_each_region():
    truth, prediction = np.zeros((2, 12, 12, 12), np.uint8)
    truth[2:7, 2:7, 2:7], prediction[4:9, 2:7, 2:7] = 3, 3
    found = score_labels(
        prediction, truth, {"WT": (1, 2, 3), "ET": (3,)}, metrics=("nsd", "hd95_mm"),
        spacing=(1, 1, 1), rules=scores.Rules(tolerances={"ET": 2.0}),
    )  # fmt: skip
    assert [row["nsd_tolerance"] for row in found] == [1.0, 2.0]
    # Of the 98 border voxels of each cube of 5, the 25 of the face outside of the other cube are
    # 2 mm from it. The face on the other side is inside the other cube, its middle voxel 2 mm from
    # the border, the others at most 1.
    assert found[0]["nsd"] == pytest.approx(1 - 26 / 98)
    assert found[1]["nsd"] == 1
    assert found[0]["hd95_mm"] == found[1]["hd95_mm"] == 2


def test_an_image_that_is_stored_as_one_slice_is_scored_in_two_dimensions():
    truth, prediction = np.zeros((2, 9, 9), np.uint8)
    truth[2:7, 2:7], prediction[2:7, 2:7] = 1, 1
    prediction[4, 4] = 0  # a hole: 4 pixels of the surface, 1 to 2 pixels from the truth's
    options = {"metrics": ("dice", "hd95_px"), "elements": "pixels"}
    flat = score_labels(prediction, truth, {"a": (1,)}, spacing=(1, 1), **options)
    stored = score_labels(
        prediction[..., None], truth[..., None], {"a": (1,)}, spacing=(1, 1, 1), **options
    )
    assert stored == flat
    assert flat[0]["hd95_px"] > 0


def test_surface_distances_are_computed_once_for_all_metrics_and_only_where_needed(monkeypatch):
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return metrics.distances_between(*arguments)

    second = metrics.Metric(lambda d: float(d[0].mean()), "mean", unit="mm", needs="surfaces")
    monkeypatch.setitem(metrics.METRICS, "mean_distance_mm", second)
    monkeypatch.setattr(scores, "distances_between", counted)
    truth, prediction = np.zeros((2, 1, 9), np.uint8)
    truth[0, 2], prediction[0, 5:7] = 1, 1
    [row] = score_labels(
        prediction,
        truth,
        {"a": (1,)},
        metrics=("hd95_mm", "mean_distance_mm", "dice"),
        spacing=(1, 2),
    )
    # Pixels 5 and 6 are 3 and 4 steps of 2 mm from pixel 2.
    assert (row["hd95_mm"], row["mean_distance_mm"]) == (pytest.approx(7.9), 7)
    assert len(calls) == 1
    score_labels(prediction, truth, {"a": (1,)}, metrics=("dice",), spacing=(1, 2))
    assert len(calls) == 1
    own = ("hd95_mm", "assd_mm", "nsd")
    [row] = score_labels(prediction, truth, {"a": (1,)}, metrics=own, spacing=(1, 2))
    # The distances 6, 8 of the prediction and 6 of the truth.
    assert (row["assd_mm"], row["nsd"]) == (pytest.approx(20 / 3), 0)
    assert len(calls) == 2


def test_lesions_are_scored_once_for_all_their_metrics_and_only_where_needed(monkeypatch):
    calls = []

    def counted(*arguments, **options):
        calls.append(arguments)
        return lesions.lesion_wise(*arguments, **options)

    monkeypatch.setattr(scores, "lesion_wise", counted)
    labels = np.ones((4, 4, 4), np.uint8)
    for wanted in (("dice",), ("lesion_dice", "lesion_hd95_mm", "lesions_found")):
        score_labels(labels, labels, {"WT": (1,)}, metrics=wanted, spacing=(1, 1, 1))
    assert len(calls) == 1


def test_a_metric_that_the_data_cannot_have_is_refused():
    labels = np.zeros((2, 2), np.uint8)
    for name in ("mae", "e_measure", "nothing"):
        with pytest.raises(ValueError, match=f"metrics of label maps: found '{name}'"):
            score_labels(labels, labels, REGIONS, metrics=(name,), spacing=(1, 1))
    for name in ("hd95_mm", "lesion_dice", "volume_error_ml", "nothing"):
        with pytest.raises(ValueError, match=f"metrics of images: found '{name}'"):
            _row(metrics=(name,))
    with pytest.raises(ValueError, match="expected three axes"):
        score_labels(labels, labels, REGIONS, metrics=("lesion_dice",), spacing=(1, 1))


def test_pick_cases_by_mean_dice_over_the_regions():
    dice = {"a": (0.9, 0.7), "b": (0.2, 0.4), "c": (0.6, 0.6), "d": (1.0, 0.8)}  # .8 .3 .6 .9
    table = pd.DataFrame(
        [
            {"variant": "v", "case": case, "region": region, "dice": value}
            for case, values in dice.items()
            for region, value in zip(("WT", "TC"), values)
        ]
    )
    assert pick_cases(table, "v") == {"best": "d", "median": "c", "worst": "b"}
    two, one = table[table["case"].isin(["a", "b"])], table[table["case"] == "a"]
    assert pick_cases(two, "v") == {"best": "a", "worst": "b"}
    assert pick_cases(one, "v") == {"only": "a"}
    with pytest.raises(ValueError, match="variant: found 'w', expected one of: v"):
        pick_cases(table, "w")


def test_empty_cases_are_shown_where_the_answer_is_wrong_and_not_where_it_is_trivial():
    dice, truth = (1.0, 1.0, 0.9, 0.7, 0.2, 0.0), (0, 0, 50, 60, 70, 0)
    cases = {"case": [*"abcdef"], "dice": dice, "truth_pixels": truth}
    table = pd.DataFrame({"variant": "v", "region": "polyp", **cases})
    assert pick_cases(table, "v") == {"best": "c", "median": "d", "worst": "f"}
    empty = table[table["truth_pixels"] == 0]
    assert pick_cases(empty, "v") == {"best": "a", "median": "b", "worst": "f"}
