"""picture_scores.py: values by hand."""

import math

import numpy as np
import pytest

from keras_medseg.evaluation import image_scores
from keras_medseg.evaluation.image_scores import score_picture

# The truth has 4 pixels, the prediction 3, of which 2 are common, in 10.
TRUTH = np.array([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]], np.uint8)
PROBABILITIES = np.array([[0.9, 0.8, 0.4, 0.5, 0.6], [0.0, 0.1, 0.2, 0.3, 0.5]])


def _row(probabilities=PROBABILITIES, truth=TRUTH, **options) -> dict:
    [row] = score_picture(probabilities[..., None], truth, {"polyp": (1,)}, **options)
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
    right = [0.9, 0.8, 0.4, 0.5, 1 - 0.6, 1 - 1e-7, 0.9, 0.8, 0.7, 0.5]
    assert row["cross_entropy"] == pytest.approx(-sum(map(math.log, right)) / 10)
    wrong = [0.1, 0.2, 0.6, 0.5, 0.6, 0.0, 0.1, 0.2, 0.3, 0.5]
    assert row["mae"] == pytest.approx(sum(wrong) / 10)


def test_certain_and_wrong_is_cut_at_the_lowest_probability():
    row = _row(np.zeros((2, 5), np.float32))
    assert row["cross_entropy"] == pytest.approx(-0.4 * math.log(1e-7), rel=1e-4)
    assert row["mae"] == pytest.approx(0.4)


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
    rows = score_picture(probabilities, labels, {"outer": (1, 3), "inner": (2,)})
    assert [row["region"] for row in rows] == ["outer", "inner"]
    assert [row["dice"] for row in rows] == pytest.approx([1, 2 / 3])


def test_papers_table_cannot_be_pooled():
    """iacnn, table 2, U-Net: a pooled Dice would follow from the IoU. Here it does, per picture."""
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
        score_picture(probabilities, TRUTH, {"polyp": (1,)})


def test_masks_must_be_boolean():
    for score in (image_scores.iou, image_scores.precision):
        with pytest.raises(TypeError, match="expected a boolean"):
            score(TRUTH, TRUTH > 0)
