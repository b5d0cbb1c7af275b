"""Verdicts on the orders that a paper states, by hand."""

import numpy as np
import pandas as pd
import pytest

from keras_medseg.evaluation.metrics import higher_is_better
from keras_medseg.runs.expectations import ExpectedOrder, judge_orders


def scores_of(rise, *, metric="dice", regions=("WT",), groups=None):
    """Variant b is `rise` (one number per case) above a, which is 0.5 everywhere."""
    rows = [
        {
            "variant": variant,
            "case": f"c{i}",
            "region": region,
            metric: 0.5 + step * (variant == "b"),
        }
        for variant in "ab"
        for region in regions
        for i, step in enumerate(rise)
    ]
    table = pd.DataFrame(rows)
    return table if groups is None else table.assign(group=table["case"].map(groups))


def order(better="b", worse="a", metric="dice", region="WT"):
    return ExpectedOrder(better, worse, metric, region, "Table 3", "b is better.")


def verdicts(scores, *orders, binding=False):
    found = judge_orders(orders or (order(),), scores, binding=binding)
    return [row["verdict"] for row in found]


RISING = np.arange(1, 9) / 100


def test_confirmed_reversed_and_undecided():
    # Eight differences of one sign: p = 2 / 2^8 = 0.0078.
    scores = scores_of(RISING)
    assert verdicts(scores) == ["confirmed"]
    assert verdicts(scores, order("a", "b")) == ["reversed"]
    # Four above and four below 0.
    assert verdicts(scores_of(RISING * ([1, -1] * 4))) == ["undecided"]


def test_of_a_distance_or_an_error_the_smaller_is_better():
    for metric in ("hd95_mm", "hd95_px", "cross_entropy", "mae"):
        scores = scores_of(RISING, metric=metric)
        assert verdicts(scores, order(metric=metric)) == ["reversed"]
        assert verdicts(scores, order("a", "b", metric)) == ["confirmed"]
    assert not higher_is_better("loss")
    assert not higher_is_better("dice_loss")
    assert higher_is_better("crop_dice")


def test_five_cases_confirm_nothing():
    # 2 / 2^5 = 0.0625, although the interval lies above 0.
    [row] = judge_orders((order(),), scores_of(RISING[:5]), binding=True)
    assert row["low"] > 0
    assert (row["p"], row["verdict"]) == (pytest.approx(0.0625), "undecided")


def test_groups_are_the_units():
    # 60 frames in 5 sequences, all better by the same sign.
    names = {f"c{i}": f"s{i % 5}" for i in range(60)}
    rise = np.linspace(0.01, 0.05, 60)
    assert verdicts(scores_of(rise)) == ["confirmed"]
    [row] = judge_orders((order(),), scores_of(rise, groups=names), binding=True)
    assert (row["n"], row["groups"], row["verdict"]) == (60, 5, "undecided")


def test_p_is_corrected_for_the_orders_of_the_run():
    # 0.0078 times 7 orders is 0.055; the six others have p = 1.
    scores = scores_of(RISING, regions=("WT", "TC"))
    scores.loc[scores["region"] == "TC", "dice"] = 0.5
    others = [order(region="TC")] * 6
    found = judge_orders((order(), *others), scores, binding=False)
    assert found[0]["p"] == pytest.approx(2 / 2**8)
    assert found[0]["p_holm"] == pytest.approx(7 * 2 / 2**8)
    assert found[0]["verdict"] == "undecided"


def test_all_regions_are_averaged_case_by_case():
    # WT rises by 2 r, TC falls by r: the mean of the two rises by r / 2.
    scores = scores_of(2 * RISING, regions=("WT", "TC"))
    falls = (scores["region"] == "TC") & (scores["variant"] == "b")
    scores.loc[falls, "dice"] = 0.5 - RISING
    [row] = judge_orders((order(region=None),), scores, binding=False)
    assert (row["region"], row["n"]) == ("mean of the regions", 8)
    assert row["difference"] == pytest.approx(RISING.mean() / 2)
    assert row["verdict"] == "confirmed"
    # A region that only one of the two was trained for is left out.
    only = scores[~((scores["variant"] == "a") & (scores["region"] == "TC"))]
    [row] = judge_orders((order(region=None),), only, binding=False)
    assert row["difference"] == pytest.approx(2 * RISING.mean())


def test_an_order_without_both_sides_is_not_judged():
    scores = scores_of(RISING)
    assert verdicts(scores, order("b", "c")) == []
    assert verdicts(scores, order(region="ET")) == []
    assert verdicts(scores[scores["variant"] == "a"]) == []


def test_only_a_reversed_order_that_binds_fails_a_run():
    scores = scores_of(RISING)
    for binding, stated, passed in (
        (True, order("a", "b"), False),
        (False, order("a", "b"), True),
        (True, order("b", "a"), True),
    ):
        [row] = judge_orders((stated,), scores, binding=binding)
        assert row["passed"] is passed
    [row] = judge_orders((order(),), scores_of([0.1, -0.1]), binding=True)
    assert row["passed"]


def seeded(rises):
    """One training for each of `rises`, the mean rise of variant b."""
    tables = [
        scores_of(RISING - RISING.mean() + rise, regions=("WT", "TC")).assign(seed=seed)
        for seed, rise in enumerate(rises)
    ]
    return pd.concat(tables)


def test_an_order_that_the_next_training_turns_round_is_undecided():
    first = seeded([0.06])
    assert verdicts(first) == verdicts(first, order(region=None)) == ["confirmed"]
    assert verdicts(seeded([0.06, -0.05, 0.01])) == ["undecided"]
    assert verdicts(seeded([0.06, 0.06, 0.06])) == ["confirmed"]
    assert verdicts(seeded([-0.06, -0.05, -0.07])) == ["reversed"]


def test_three_trainings_of_one_sign_are_not_enough_if_they_differ():
    # Three of three have one sign in one of four experiments of equal variants.
    [row] = judge_orders((order(),), seeded([0.04, 0.08, 0.16]), binding=False)
    assert row["low"] > 0
    assert (row["p"] > 0.05, row["verdict"]) == (True, "undecided")


def test_means_of_the_regions_are_taken_in_every_training():
    scores = seeded([0.06, 0.02])
    scores.loc[(scores["region"] == "TC") & (scores["variant"] == "b"), "dice"] -= 0.02
    [row] = judge_orders((order(region=None),), scores, binding=False)
    assert (row["n"], row["seeds"]) == (8, 2)
    assert row["difference"] == pytest.approx(0.03)
    assert row["seed_std"] == pytest.approx(0.04 / 2**0.5)
