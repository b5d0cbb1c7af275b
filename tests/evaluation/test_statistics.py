import math
import warnings

import numpy as np
import pandas as pd
import pytest

from keras_medseg.evaluation import statistics


def scores_of(values_by_group, metric="dice"):
    rows = [
        {"variant": variant, "region": region, "case": f"case{i}", metric: value}
        for (variant, region), values in values_by_group.items()
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_summary_by_hand():
    # WT: mean (0.5 + 0.7 + 0.9) / 3 = 0.7, deviations -0.2, 0, 0.2: sum of squares 0.08,
    # over n - 1 = 2: sqrt(0.04) = 0.2. Median 0.7.
    # ET: mean (0 + 0.1 + 0.8) / 3 = 0.3, squares 0.09 + 0.04 + 0.25 = 0.38, sqrt(0.19).
    scores = scores_of({("edge", "WT"): [0.5, 0.7, 0.9], ("edge", "ET"): [0.8, 0.0, 0.1]})
    whole, enhancing = statistics.summarize(scores, metrics=["dice"]).to_dict("records")
    assert (whole["variant"], whole["region"], whole["metric"]) == ("edge", "WT", "dice")
    assert (whole["n"], whole["mean"], whole["median"]) == (3, pytest.approx(0.7), 0.7)
    assert whole["std"] == pytest.approx(0.2)
    assert (enhancing["region"], enhancing["median"]) == ("ET", 0.1)
    assert enhancing["mean"] == pytest.approx(0.3)
    assert enhancing["std"] == pytest.approx(math.sqrt(0.19))


def test_interval_of_three_cases_by_hand():
    # 27 equally likely resamples of (0, 0, 3): means 0 (8 of 27), 1 (12), 2 (6), 3 (1).
    # P(3) = 1/27 = 3.7 % is above 2.5 %, so the interval is 0 to 3.
    assert statistics.bootstrap_interval(np.array([0.0, 0.0, 3.0])) == (0.0, 3.0)
    # 4 cases (0, 0, 0, 4): the mean is the number of fours drawn, binomial (4, 1/4):
    # P(4) = 0.39 %, P(3 or 4) = 5.1 %, so the upper end is 3 and not 4.
    assert statistics.bootstrap_interval(np.array([0.0, 0.0, 0.0, 4.0])) == (0.0, 3.0)


def test_interval_of_many_cases_is_that_of_the_central_limit():
    # 400 scores, half 0.4 and half 0.6: the mean 0.5 has the standard error 0.1 / sqrt(400)
    # = 0.005, so 0.5 -+ 1.96 * 0.005.
    low, high = statistics.bootstrap_interval(np.tile([0.4, 0.6], 200))
    assert (low, high) == (pytest.approx(0.4902, abs=4e-4), pytest.approx(0.5098, abs=4e-4))


def test_interval_depends_on_the_seed_alone():
    values = np.random.default_rng(3).random(12)
    assert statistics.bootstrap_interval(values, seed=5) == statistics.bootstrap_interval(
        values, seed=5
    )
    assert statistics.bootstrap_interval(values, seed=5) != statistics.bootstrap_interval(
        values, seed=6
    )


def test_one_case_and_equal_cases_are_defined_without_warnings():
    scores = scores_of({("a", "WT"): [0.8], ("b", "WT"): [0.1, 0.1, 0.1], ("c", "WT"): [1, 1]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, equal, ones = statistics.summarize(scores, metrics=["dice"]).to_dict("records")
    assert (one["n"], one["mean"], one["median"]) == (1, 0.8, 0.8)
    assert math.isnan(one["std"])
    assert math.isnan(one["low"])
    assert math.isnan(one["high"])
    assert (equal["low"], equal["high"]) == (0.1, 0.1)
    assert equal["std"] == pytest.approx(0, abs=1e-15)
    assert (ones["mean"], ones["std"], ones["low"], ones["high"]) == (1, 0, 1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.drop(columns="case"), r"expected also \['case'\]"),
        (lambda s: s.iloc[:0], "no rows"),
        (lambda s: pd.concat([s, s.iloc[:1]]), "'case0', .* more than once"),
        (lambda s: s.assign(dice=[0.5, math.nan]), "dice nan for case case1"),
    ],
)
def test_bad_scores_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        statistics.summarize(change(scores_of({("edge", "WT"): [0.2, 0.4]})), metrics=["dice"])


def test_wilcoxon_by_hand():
    # Differences 1, 2, 3, 4, 5, 6, 7, -8: ranks 1..8, the negative sum is 8 and the positive
    # 28. Two-sided exact p = 2 * (subsets of 1..8 with sum <= 8) / 2^8. Partitions of 0..8
    # into distinct parts: 1 + 1 + 1 + 2 + 2 + 3 + 4 + 5 + 6 = 25, so p = 50 / 256.
    a, b = np.array([1, 2, 3, 4, 5, 6, 7, 0]), np.array([0, 0, 0, 0, 0, 0, 0, 8])
    assert statistics.paired_wilcoxon(a, b) == (8.0, pytest.approx(50 / 256), 8, "")
    assert statistics.paired_wilcoxon(b, a) == (8.0, pytest.approx(50 / 256), 8, "")


def test_wilcoxon_treats_rounding_errors_as_ties():
    # In binary 0.9 - 0.8 and 0.3 - 0.2 differ in the last digits. As ties, the ranks of six
    # equal differences are all 3.5; with one of them negative the smaller sum is 3.5.
    a = np.array([0.9, 0.3, 0.5, 0.7, 0.6, 0.1])
    b = np.array([0.8, 0.2, 0.4, 0.6, 0.5, 0.2])
    assert len({abs(x) for x in a - b}) > 1
    assert statistics.paired_wilcoxon(a, b).statistic == 3.5


def test_wilcoxon_drops_zero_differences():
    # Six positive differences: p = 2 / 2^6; the two zeros count as pairs only.
    a, b = np.array([1, 2, 3, 4, 5, 6, 7, 8]), np.array([0, 0, 0, 0, 0, 0, 7, 8])
    assert statistics.paired_wilcoxon(a, b) == (0.0, pytest.approx(2 / 64), 8, "")
    # A zero must not turn the exact test of 16 positive differences into an approximate one.
    a, b = np.arange(17.0), np.zeros(17)
    assert statistics.paired_wilcoxon(a, b) == (0.0, pytest.approx(2 / 2**16), 17, "")


def test_wilcoxon_of_equal_scores():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = statistics.paired_wilcoxon([0.5, 0.6], [0.5, 0.6])
    assert result == (0.0, 1.0, 2, "all differences are zero")


@pytest.mark.parametrize(("pairs", "smallest"), [(1, "1"), (3, "0.25"), (5, "0.0625")])
def test_wilcoxon_says_when_no_p_can_be_small(pairs, smallest):
    # All of n differences positive is the most extreme outcome: p = 2 / 2^n.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = statistics.paired_wilcoxon(np.arange(1.0, pairs + 1), np.zeros(pairs))
    assert result.p == pytest.approx(2 / 2**pairs)
    assert result.note == f"{pairs} differing pairs: p cannot be below {smallest}"


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [([1, 2], [1], "expected pairs"), ([], [], "expected pairs"), ([math.nan], [1], "not finite")],
)
def test_wilcoxon_refuses_what_is_no_pair(a, b, message):
    with pytest.raises(ValueError, match=message):
        statistics.paired_wilcoxon(a, b)


def test_holm_by_hand():
    # Sorted 0.01, 0.03, 0.04: 3 * 0.01 = 0.03, 2 * 0.03 = 0.06, 1 * 0.04 = 0.04, which may not
    # be below its predecessor: 0.06.
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert statistics.holm([0.02]) == pytest.approx([0.02])


def comparison_scores():
    rise = np.arange(1, 7) / 100
    mixed = np.array([1, -2, 3, -4, 5, -6]) / 100
    return scores_of(
        {
            ("plain", "WT"): np.full(6, 0.5),
            ("edge", "WT"): 0.5 + rise,
            ("plain", "ET"): np.full(6, 0.5),
            ("edge", "ET"): 0.5 + mixed,
        }
    )


def test_compare_by_hand():
    # WT: all six rise: difference (1 + .. + 6) / 6 = 3.5 points, p = 2 / 2^6; Holm doubles it.
    # ET: 1 - 2 + 3 - 4 + 5 - 6 = -3, over 6: -0.5 points. Positive ranks 1 + 3 + 5 = 9.
    # Subsets of 1..6 with sum <= 9: 1, 1, 1, 2, 2, 3, 4, 4, 4, 5 = 27: p = 54 / 64.
    table = statistics.compare(comparison_scores(), "plain", "edge", "dice").set_index("region")
    assert list(table["n"]) == [6, 6]
    assert list(table["baseline"]) == pytest.approx([0.5, 0.5])
    assert list(table["variant"]) == pytest.approx([0.535, 0.495])
    assert list(table["difference"]) == pytest.approx([0.035, -0.005])
    assert list(table["statistic"]) == [0, 9]
    assert list(table["p"]) == pytest.approx([2 / 64, 54 / 64])
    assert list(table["p_holm"]) == pytest.approx([4 / 64, 54 / 64])
    assert 0.01 < table.loc["WT", "low"] < 0.035 < table.loc["WT", "high"] < 0.06
    assert table.loc["ET", "low"] < 0 < table.loc["ET", "high"]


def test_compare_pairs_by_case_and_not_by_row():
    scores = comparison_scores()
    shuffled = scores.sample(frac=1, random_state=1)
    order = {"WT": 0, "ET": 1}
    expected = statistics.compare(scores, "plain", "edge", "dice")
    found = statistics.compare(shuffled, "plain", "edge", "dice")
    found = found.sort_values("region", key=lambda r: r.map(order), ignore_index=True)
    columns = ["region", "difference", "statistic", "p", "p_holm"]
    pd.testing.assert_frame_equal(found[columns], expected[columns])


def test_compare_refuses_cases_that_only_one_variant_has():
    scores = comparison_scores().iloc[1:]
    with pytest.raises(ValueError, match=r"\['case0'\] in only one of 'plain' and 'edge' for WT"):
        statistics.compare(scores, "plain", "edge", "dice")
    with pytest.raises(ValueError, match=r"found \['edge', 'plain'\], expected also \['edges'\]"):
        statistics.compare(comparison_scores(), "plain", "edges", "dice")


def test_compare_ignores_other_variants():
    scores = comparison_scores()
    other = scores_of({("third", "TC"): [0.1], ("third", "WT"): [0.2]})
    expected = statistics.compare(scores, "plain", "edge", "dice")
    pd.testing.assert_frame_equal(
        statistics.compare(pd.concat([scores, other]), "plain", "edge", "dice"), expected
    )


def grouped(values_by_group, variant="a", metric="dice"):
    """Scores of one region; the cases of group g are g0, g1, ..."""
    rows = [
        {"variant": variant, "region": "WT", "case": f"{g}{i}", "group": g, metric: value}
        for g, values in values_by_group.items()
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_cluster_interval_of_three_groups_by_hand():
    # Groups A (0, 0, 0), B (1) and C (4), drawn three at a time: 27 equally likely resamples. The
    # mean is over all cases drawn: AAA 0/9 = 0 (1 of 27); AAB 1/7 and AAC 4/7 (3 each); ABC 5/5 = 1
    # (6); ABB 2/5, ACC 8/5 (3 each); BBB 1 (1), BBC 2, BCC 3 (3 each), CCC 4 (1). The lowest and
    # the highest have 1/27 = 3.7 % each, which is above 2.5 %: the interval is 0 to 4. Resampled by
    # cases, the highest mean of these five values would be rarer than 2.5 %.
    values = np.array([0.0, 0.0, 0.0, 1.0, 4.0])
    assert statistics.bootstrap_interval(values, np.array([*"AAABC"])) == (0.0, 4.0)
    assert statistics.bootstrap_interval(values)[1] < 4.0


def test_cluster_interval_weighs_groups_by_their_cases_by_hand():
    # Two groups: A (0, 0, 0) and B (1). Resamples AA 0 (1/4), AB or BA 1/4 (1/2), BB 1 (1/4): the
    # ends are 0 and 1, and the distribution holds 1/4, the mean over four cases, not 1/2.
    values, groups = np.array([0.0, 0.0, 0.0, 1.0]), np.array([*"AAAB"])
    assert statistics.bootstrap_interval(values, groups) == (0.0, 1.0)
    drawn = statistics._ratio_of_sums(np.array([0.0, 1.0]), np.array([3, 1]))
    assert drawn == 0.25


def test_cluster_interval_agrees_with_another_implementation():
    """Drawing rows of whole groups one resample after the other, as a reader would write it."""
    rng = np.random.default_rng(11)
    groups = np.repeat(np.arange(25), rng.integers(2, 9, 25))
    values = rng.normal(0.6, 0.1, 25)[groups] + rng.normal(0, 0.05, len(groups))
    members = [values[groups == g] for g in range(25)]
    means = [
        np.concatenate([members[g] for g in rng.integers(0, 25, 25)]).mean() for _ in range(20000)
    ]
    low, high = statistics.bootstrap_interval(values, groups)
    assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=2e-3)
    # Singly counted, the same cases have an interval of less than two thirds of that width.
    narrow = np.ptp(statistics.bootstrap_interval(values))
    assert narrow < 2 / 3 * (high - low)


def test_groups_of_one_case_change_nothing():
    values = np.random.default_rng(3).random(12)
    names = np.array([f"patient{i}" for i in range(12)])
    alone = statistics.bootstrap_interval(values)
    assert statistics.bootstrap_interval(values, names) == alone
    rows = grouped({name: [value] for name, value in zip(names, values)})
    with_groups = statistics.summarize(rows, ["dice"])
    without = statistics.summarize(rows.drop(columns="group"), ["dice"])
    pd.testing.assert_frame_equal(with_groups, without)
    assert with_groups["groups"].item() == with_groups["n"].item() == 12
    assert with_groups["group_mean"].item() == with_groups["mean"].item()


def test_summary_of_groups_by_hand():
    # Cases: (0.2 + 0.4 + 0.6 + 0.8 + 1.0) / 5 = 0.6. Groups: A 0.3, B 0.8, mean 0.55.
    row = statistics.summarize(grouped({"A": [0.2, 0.4], "B": [0.6, 0.8, 1.0]}), ["dice"]).iloc[0]
    assert (row["n"], row["groups"], row["median"]) == (5, 2, 0.6)
    assert (row["mean"], row["group_mean"]) == (pytest.approx(0.6), pytest.approx(0.55))
    assert (row["low"], row["high"]) == (pytest.approx(0.3), pytest.approx(0.8))


def test_one_group_has_no_interval():
    row = statistics.summarize(grouped({"A": [0.2, 0.4, 0.5]}), ["dice"]).iloc[0]
    assert math.isnan(row["low"])
    assert math.isnan(row["high"])


def test_a_paired_test_is_of_the_means_of_groups_by_hand():
    # Six groups, each of 10 cases in which b is 0.1 above a, and one of 10 in which it is 0.2
    # below. By groups: signed ranks 1 to 6 tied (3.5 each) and -7: W = 7 of 28. With ties the exact
    # p counts the sign patterns of (3.5 six times, 7) whose sum of negative ranks is at most 7:
    # none (1); one 3.5 (6); two 3.5 (15); the 7 alone (1): 23 of 128, two-sided 46 / 128.
    differences = [0.1] * 6 + [-0.2]
    first = grouped({f"g{i}_": [0.5] * 10 for i in range(7)})
    second = grouped({f"g{i}_": [0.5 + d] * 10 for i, d in enumerate(differences)}, variant="b")
    row = statistics.compare(pd.concat([first, second]), "a", "b").iloc[0]
    assert (row["n"], row["groups"], row["statistic"]) == (70, 7, 7.0)
    assert row["p"] == pytest.approx(46 / 128)
    assert row["difference"] == pytest.approx(0.4 / 7)
    assert row["group_difference"] == pytest.approx(0.4 / 7)
    # Counted singly, the same 70 frames would pass for a significant difference.
    alone = statistics.compare(pd.concat([first, second]).drop(columns="group"), "a", "b")
    assert alone["p"].item() < 0.001


def test_differences_over_cases_and_over_groups_differ_where_groups_do_in_size():
    # a is 0 everywhere. b: A (0.1), B (0.4, 0.4, 0.4): cases 1.3 / 4 = 0.325, groups 0.25.
    first = grouped({"A": [0.0], "B": [0.0] * 3})
    second = grouped({"A": [0.1], "B": [0.4] * 3}, variant="b")
    row = statistics.compare(pd.concat([first, second]), "a", "b").iloc[0]
    assert row["difference"] == pytest.approx(0.325)
    assert row["group_difference"] == pytest.approx(0.25)
    # A twice, both, or B twice; singly counted, a mean below 0.175 would be rarer than 2.5 %.
    assert (row["low"], row["high"]) == (pytest.approx(0.1), pytest.approx(0.4))
    assert row["note"] == "2 differing pairs: p cannot be below 0.5"


def test_rows_without_a_group_are_their_own():
    scores = grouped({"A": [0.2, 0.4], "": [0.6]})
    assert statistics.groups_of(scores).tolist() == ["A", "A", "0"]
    scores.loc[2, "group"] = math.nan
    assert statistics.groups_of(scores).tolist() == ["A", "A", "0"]


def test_a_case_in_two_groups_is_refused():
    both = pd.concat([grouped({"A": [0.2, 0.4]}), grouped({"A": [0.2, 0.4]}, variant="b")])
    both["group"] = ["A", "A", "A", "B"]
    with pytest.raises(ValueError, match="found case A1 in two groups, expected one group"):
        statistics.compare(both, "a", "b")
