"""Drops between data sets, by hand and beside SciPy's bootstrap of independent samples."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from keras_medseg.evaluation import generalization as module
from keras_medseg.evaluation.generalization import (
    COLUMNS,
    IN_DOMAIN,
    comparable_metrics,
    difference_interval,
    generalization,
)


def table(**sets):
    """Scores by data set: {case: (group, dice, hd95)}; "inside" is in-domain."""
    rows = [
        {"dataset": IN_DOMAIN if name == "inside" else name, "case": case, "group": group}
        | {"region": "WT", "dice": dice, "hd95_mm": distance}
        for name, cases in sets.items()
        for case, (group, dice, distance) in cases.items()
    ]
    return pd.DataFrame(rows)


def test_drops_are_positive_where_the_other_data_set_is_worse():
    scores = table(
        other={"a": ("a", 0.5, 9.0), "b": ("b", 0.7, 3.0)},
        inside={"c": ("c", 0.8, 2.0), "d": ("d", 1.0, 2.0)},
        better={"e": ("e", 1.0, 1.0), "f": ("f", 1.0, 1.0)},
    )
    found = generalization(scores, ["dice", "hd95_mm"])
    assert tuple(found) == COLUMNS
    assert list(found["dataset"]) == [IN_DOMAIN] * 2 + ["other"] * 2 + ["better"] * 2
    # Dice: 0.9 - 0.6, 0.9 - 1.0. HD95: 6 - 2, 1 - 2.
    assert found["drop"].tolist()[2:] == pytest.approx([0.3, 4.0, -0.1, -1.0])
    assert found["drop"].isna().tolist() == [True, True, False, False, False, False]
    assert found["mean"].tolist() == pytest.approx([0.9, 2, 0.6, 6, 1, 1])
    # Of two cases the extremes come in 1/4 of the resamples, of both sets together in 1/16.
    dice = found.iloc[2]
    assert (dice["drop_low"], dice["drop_high"]) == pytest.approx((0.8 - 0.7, 1.0 - 0.5))
    distance = found.iloc[3]
    assert (distance["drop_low"], distance["drop_high"]) == pytest.approx((3 - 2, 9 - 2))


def test_what_some_cases_lack_and_what_has_no_direction_is_not_compared(monkeypatch):
    scores = table(inside={"c": ("c", 0.8, 2.0)}).assign(iou=np.nan, hd95_px=1.0, case_number=3)
    assert comparable_metrics(scores) == ["dice", "hd95_mm", "hd95_px"]

    def signed(name):
        if name == "hd95_px":
            raise ValueError(name)
        return True

    monkeypatch.setattr(module, "higher_is_better", signed)
    assert comparable_metrics(scores) == ["dice", "hd95_mm"]


def test_whole_groups_are_drawn_with_all_their_cases():
    # Groups of two cases (0, 0) and of one (1): means 0, 1/3, 1 in 1/4, 1/2, 1/4 of the draws. The
    # other two cases: 0.2, 0.3, 0.4. So the difference is 1 - 0.2 in 1/16 of them, more than 1/40.
    # Of single cases it would be in 1/27 * 1/4, and the upper end would be 1 - 0.3.
    first, second = np.array([0.0, 0, 1]), np.array([0.2, 0.4])
    grouped = difference_interval(first, second, np.array([*"aab"]), np.array([*"cd"]))
    assert grouped == pytest.approx((-0.4, 0.8))
    single = difference_interval(first, second, np.array([*"abc"]), np.array([*"cd"]))
    assert single == pytest.approx((-0.4, 0.7))


def test_single_cases_are_resampled_as_scipy_does():
    rng = np.random.default_rng(3)
    first, second = rng.beta(8, 2, 40), rng.beta(4, 3, 25)
    found = difference_interval(first, second, np.arange(40), np.arange(25))
    theirs = stats.bootstrap(
        (first, second),
        lambda x, y, axis=-1: x.mean(axis) - y.mean(axis),
        method="percentile",
        n_resamples=9999,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_one_patient_has_no_interval():
    scores = table(
        inside={"c": ("c", 0.8, 2.0), "d": ("d", 1.0, 2.0)},
        other={"a": ("one", 0.5, 9.0), "b": ("one", 0.7, 3.0)},
    )
    row = generalization(scores, ["dice"]).iloc[1]
    assert row["drop"] == pytest.approx(0.3)
    assert np.isnan([row["drop_low"], row["drop_high"]]).all()
    assert (row["n"], row["groups"]) == (2, 1)


def test_the_runs_own_cases_must_be_among_the_scores():
    scores = table(other={"a": ("a", 0.5, 9.0)})
    with pytest.raises(ValueError, match="expected 'in-domain' among them"):
        generalization(scores, ["dice"])
