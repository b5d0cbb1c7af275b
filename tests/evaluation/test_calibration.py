"""Calibration by hand."""

import numpy as np
import pytest

from keras_medseg.evaluation import calibration

# Two bins: 0.1, 0.2, 0.4 with one of three true, and 0.5, 0.9, 1.0 with two of three.
LIKELY = np.array([[0.1, 0.2, 0.4], [0.5, 0.9, 1.0]])
TRUTH = np.array([[False, False, True], [False, True, True]])


def test_bins_by_hand():
    found = calibration.reliability(LIKELY, TRUTH, bins=2)
    assert found.elements.tolist() == [3, 3]
    assert found.confidence.tolist() == pytest.approx([0.7, 2.4])
    assert found.positives.tolist() == [1, 2]
    # (3 |1/3 - 0.7/3| + 3 |2/3 - 2.4/3|) / 6
    assert calibration.calibration_error(found) == pytest.approx((0.3 + 0.4) / 6)


def test_the_ends_belong_to_the_first_and_the_last_of_fifteen_bins():
    found = calibration.reliability(np.array([0.0, 1 / 15, 1.0]), np.array([True, True, True]))
    assert np.flatnonzero(found.elements).tolist() == [0, 1, 14]
    error = calibration.expected_calibration_error(np.array([0.0, 1.0]), np.array([True, True]))
    assert error == 0.5


def test_bins_of_several_cases_are_pooled_before_the_error():
    # Half as often as said in one case and twice as often in the other: right together.
    first = calibration.reliability(np.full(4, 0.5), np.array([True, False, False, False]))
    second = calibration.reliability(np.full(4, 0.5), np.array([True, True, True, False]))
    assert calibration.calibration_error(first) == calibration.calibration_error(second) == 0.25
    assert calibration.calibration_error(calibration.pooled([first, second])) == 0


def test_brier_score_by_hand():
    squares = (0.01 + 0.04 + 0.36) + (0.25 + 0.01 + 0.0)
    assert calibration.brier_score(LIKELY, TRUTH) == pytest.approx(squares / 6)
    assert calibration.brier_score(np.zeros(3), np.zeros(3, bool)) == 0


def test_a_sure_and_right_map_is_calibrated():
    truth = np.random.default_rng(0).random((5, 6, 7)) < 0.3
    assert calibration.expected_calibration_error(truth.astype(np.float32), truth) == 0
    assert calibration.expected_calibration_error(1.0 - truth, truth) == 1


@pytest.mark.parametrize(
    ("likely", "words"),
    [
        (np.zeros((2, 2)), "found shape"),
        (np.full((2, 3), 1.1), "outside of 0 to 1"),
        (np.full((2, 3), np.nan), "outside of 0 to 1 or NaN"),
    ],
)
def test_what_is_no_probability_is_refused(likely, words):
    with pytest.raises(ValueError, match=words):
        calibration.reliability(likely, TRUTH)
