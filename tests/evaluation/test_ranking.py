"""The ranking of BraTS, by an example that is calculated by hand and by SciPy's permutations."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from keras_medseg.evaluation import ranking

# Ranks of A, B, C:      Dice               HD95 (lower is better)   mean of the two
#   case 1   .9 .8 .8 -> 1  2.5 2.5   3 1 2 -> 3   1   2             2     1.75  2.25
#   case 2   .5 .7 .6 -> 3  1   2     4 4 9 -> 1.5 1.5 3             2.25  1.25  2.5
# mean of the cases                                                  2.125 1.5   2.375
EXAMPLE = pd.DataFrame(
    [
        ("A", "1", 0.9, 3.0),
        ("A", "2", 0.5, 4.0),
        ("B", "1", 0.8, 1.0),
        ("B", "2", 0.7, 4.0),
        ("C", "1", 0.8, 2.0),
        ("C", "2", 0.6, 9.0),
    ],
    columns=["variant", "case", "dice", "hd95_mm"],
).assign(region="WT")
METRICS = ("dice", "hd95_mm")


def scores_of(values, groups=None):
    """Dice of one region: method -> a value for each case."""
    rows = [
        {"variant": name, "case": f"c{i}", "region": "WT", "dice": value}
        | ({"group": groups[i]} if groups else {})
        for name, listed in values.items()
        for i, value in enumerate(listed)
    ]
    return pd.DataFrame(rows)


def test_ranks_of_the_example():
    ranks = ranking.case_ranks(EXAMPLE, METRICS)
    assert ranks.loc["1"].to_dict() == {"A": 2, "B": 1.75, "C": 2.25}
    assert ranks.loc["2"].to_dict() == {"A": 2.25, "B": 1.25, "C": 2.5}
    table = ranking.rank(EXAMPLE, METRICS)
    assert table["variant"].tolist() == ["B", "A", "C"]
    assert table["place"].tolist() == [1, 2, 3]
    assert table["score"].tolist() == [1.5, 2.125, 2.375]
    # B is the best of either case, so of every resample; A the second.
    assert table["first"].tolist() == [1, 0, 0]
    assert table[["place_low", "place_high"]].to_numpy().tolist() == [[1, 1], [2, 2], [3, 3]]
    # Either case twice: 1.25 and 1.75, each in a quarter of the resamples.
    assert table.loc[0, ["low", "high"]].tolist() == [1.25, 1.75]


def test_a_case_counts_with_the_mean_over_regions():
    """A is the best in two of three regions: (1 + 1 + 2) / 3."""
    values = {"WT": (0.9, 0.8), "TC": (0.9, 0.8), "ET": (0.1, 0.8)}
    rows = [
        {"variant": name, "case": "1", "region": region, "dice": dice}
        for region, pair in values.items()
        for name, dice in zip("AB", pair)
    ]
    ranks = ranking.case_ranks(pd.DataFrame(rows), ["dice"])
    assert ranks.loc["1"].tolist() == pytest.approx([4 / 3, 5 / 3])


def test_permutations_of_the_example():
    """B and A differ by 0.25 and 1, mean 0.625: of the four signs one gives as much, two as |.|."""
    table = ranking.permutation_tests(EXAMPLE, METRICS)
    assert table[["better", "worse"]].to_numpy().tolist() == [["B", "A"], ["B", "C"], ["A", "C"]]
    assert table["difference"].tolist() == [0.625, 0.875, 0.25]
    assert table["p_one_sided"].tolist() == [0.25] * 3
    assert table["p"].tolist() == [0.5] * 3
    assert table["p_holm"].tolist() == [1] * 3


def test_equal_scores_share_rank_and_place():
    equal = scores_of({"A": [0.5, 0.6], "B": [0.5, 0.6], "C": [0.1 + 0.2, 0.3]})
    assert ranking.case_ranks(equal, ["dice"]).to_numpy().tolist() == [[1.5, 1.5, 3]] * 2
    table = ranking.rank(equal, ["dice"])
    assert table["place"].tolist() == [1, 1, 3]
    assert table["first"].tolist() == [1, 1, 0]
    tests = ranking.permutation_tests(equal, ["dice"])
    assert tests["p"].tolist()[0] == 1
    rounding = scores_of({"A": [0.3], "B": [0.1 + 0.2]})
    assert ranking.case_ranks(rounding, ["dice"]).to_numpy().tolist() == [[1.5, 1.5]]


def test_a_place_that_depends_on_the_cases():
    """Each method wins one of two cases: of four resamples, one has A alone first, two both."""
    table = ranking.rank(scores_of({"A": [0.9, 0.1], "B": [0.1, 0.9]}), ["dice"])
    assert table["place"].tolist() == [1, 1]
    assert table["first"].to_numpy() == pytest.approx([0.75, 0.75], abs=0.02)
    assert table[["place_low", "place_high"]].to_numpy().tolist() == [[1, 2], [1, 2]]


def test_cases_of_a_group_stay_together():
    values = {"A": [0.9, 0.9, 0.1], "B": [0.1, 0.1, 0.9]}
    table = ranking.rank(scores_of(values, groups=["p", "p", "q"]), ["dice"])
    assert table[["cases", "groups"]].to_numpy().tolist() == [[3, 2]] * 2
    assert table["score"].to_numpy() == pytest.approx([4 / 3, 5 / 3])  # over cases
    tests = ranking.permutation_tests(scores_of(values, groups=["p", "p", "q"]), ["dice"])
    # Sums of the groups 2 and -1: of the signs (+ +), (+ -), (- +), (- -) the first and the second
    # give 1 or more, all give 1 or more in size.
    assert tests.loc[0, ["p_one_sided", "p"]].tolist() == [0.5, 1]
    # Drawn: p twice, 2 x 2 ranks of 1 over 4 cases; q twice, 2 over 2; both, (1 + 1 + 2) / 3.
    assert table.loc[0, ["low", "high"]].tolist() == [1, 2]
    alone = ranking.rank(scores_of(values, groups=["p"] * 3), ["dice"])
    assert alone[["low", "high", "place_low", "first"]].isna().all(axis=None)


@pytest.mark.parametrize("cases", [12, 40])
def test_p_is_that_of_scipy(cases):
    rng = np.random.default_rng(cases)
    values = {"A": rng.random(cases) + 0.1, "B": rng.random(cases)}
    scores = scores_of(values)
    ours = ranking.permutation_tests(scores, ["dice"]).iloc[0]
    ranks = ranking.case_ranks(scores, ["dice"])
    found = stats.permutation_test(
        (ranks[ours["worse"]], ranks[ours["better"]]),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        alternative="greater",
        rng=np.random.default_rng(1),
    )
    tolerance = 1e-12 if cases == 12 else 0.01
    assert ours["p_one_sided"] == pytest.approx(found.pvalue, abs=tolerance)
    assert ours["p"] > ours["p_one_sided"]


def test_no_p_is_0():
    scores = scores_of({"A": np.linspace(0.5, 0.9, 30), "B": np.linspace(0.1, 0.4, 30)})
    assert ranking.permutation_tests(scores, ["dice"])["p"][0] == pytest.approx(1 / 100_001)


def test_methods_on_other_cases_are_refused():
    with pytest.raises(ValueError, match="found no dice of case 2, WT, by every variant"):
        ranking.rank(EXAMPLE.drop(index=3), ["dice"])
    with pytest.raises(ValueError, match="metrics: found none"):
        ranking.rank(EXAMPLE, [])
