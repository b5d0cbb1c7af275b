"""statistics.py with several trainings of one network: seeds and cases are both samples."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from keras_medseg.evaluation import statistics


def table(values, variant="a", region="WT", groups=None):
    """Scores of a (seeds, cases) array, as the report of a run gathers them."""
    rows = [
        {"variant": variant, "case": f"c{n}", "seed": 7 + s, "region": region, "dice": value}
        for s, row in enumerate(values)
        for n, value in enumerate(row)
    ]
    found = pd.DataFrame(rows)
    if groups is not None:
        found["group"] = found["case"].map({f"c{n}": name for n, name in enumerate(groups)})
    return found


def test_equal_seeds_have_the_interval_over_cases():
    values = np.random.default_rng(3).random(12)
    groups = np.repeat([*"ABCDEF"], [1, 2, 3, 1, 2, 3])
    for names in (None, groups):
        alone = statistics.bootstrap_interval(values, names)
        thrice = statistics.bootstrap_interval(np.tile(values, (3, 1)), names)
        assert thrice == pytest.approx(alone, abs=1e-12)
        assert statistics.bootstrap_interval(values[None], names) == alone


def test_equal_cases_have_the_interval_over_seeds_by_hand():
    # 27 resamples of three seeds; the lowest and the highest mean have 1/27 = 3.7 % each.
    three = np.tile([[0.5], [0.6], [0.8]], (1, 9))
    assert statistics.bootstrap_interval(three) == pytest.approx((0.5, 0.8))
    # Four seeds (0, 0, 0, 4): the mean is the number of fours, binomial (4, 1/4): P(4) = 0.39 %,
    # P(3 or 4) = 5.1 %.
    four = np.tile([[0.0], [0.0], [0.0], [4.0]], (1, 9))
    assert statistics.bootstrap_interval(four) == (0.0, 3.0)


def test_seeds_and_cases_are_resampled_independently_by_hand():
    # Four cases (0, 0, 0, 4), and 10 more for the second of two seeds. The cases' part is k fours
    # drawn, P(4) = 1/256, P(3) = 12/256, P(2) = 54/256, P(0) = 81/256; the seeds' part is 0, 5 or
    # 10, P(0) = P(10) = 1/4. From above: 14 has 1/1024, 13 has 12/1024 (together 1.3 %), 12 has
    # 54/1024 (together 6.5 %). The lowest, 0, has 81/1024 = 7.9 %.
    cases = np.array([0.0, 0.0, 0.0, 4.0])
    assert statistics.bootstrap_interval(np.stack([cases, cases + 10])) == (0.0, 12.0)


def test_the_interval_agrees_with_another_implementation():
    """Drawing rows and columns of the table one resample after the other."""
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(15), rng.integers(1, 5, 15))
    cases = rng.normal(0.6, 0.1, 15)[groups] + rng.normal(0, 0.05, len(groups))
    values = cases + rng.normal(0, 0.08, (4, 1)) + rng.normal(0, 0.02, (4, len(groups)))
    members = [values[:, groups == g] for g in range(15)]
    means = []
    for _ in range(20000):
        drawn = np.concatenate([members[g] for g in rng.integers(0, 15, 15)], axis=1)
        means.append(drawn[rng.integers(0, 4, 4)].mean())
    low, high = statistics.bootstrap_interval(values, groups)
    assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=2e-3)
    assert high - low > 1.2 * np.ptp(statistics.bootstrap_interval(values.mean(axis=0), groups))


def test_summary_of_seeds_by_hand():
    # Seeds: means (0.2 + 0.4) / 2 = 0.3, 0.5 and 0.7: mean 0.5, deviations -0.2, 0, 0.2: 0.2.
    # Cases: means (0.2 + 0.3 + 0.4) / 3 = 0.3 and 0.7: median 0.5, deviation 0.4 / sqrt(2).
    [row] = statistics.summarize(table([[0.2, 0.4], [0.3, 0.7], [0.4, 1.0]]), ["dice"]).to_dict(
        "records"
    )
    assert (row["n"], row["groups"], row["seeds"]) == (2, 2, 3)
    assert row["mean"] == row["group_mean"] == row["median"] == pytest.approx(0.5)
    assert row["seed_std"] == pytest.approx(0.2)
    assert row["std"] == pytest.approx(0.4 / math.sqrt(2))


def test_one_seed_changes_nothing_but_the_column():
    values = np.random.default_rng(1).random((1, 9))
    seeded = table(values, groups=[*"AABBCDEFF"])
    plain = seeded.drop(columns="seed")
    found = statistics.summarize(seeded, ["dice"])
    pd.testing.assert_frame_equal(found, statistics.summarize(plain, ["dice"]), check_exact=True)
    assert (found["seeds"].item(), math.isnan(found["seed_std"].item())) == (1, True)
    both = [pd.concat([each, each.assign(variant="b", dice=each["dice"] ** 2)]) for each in
            (seeded, plain)]  # fmt: skip
    first, second = (statistics.compare(each, "a", "b") for each in both)
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_the_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(2)
    scores = pd.concat([table(rng.random((3, 8))), table(rng.random((3, 8)), "b")])
    shuffled = scores.sample(frac=1, random_state=1)
    columns = ["difference", "seed_std", "statistic", "p"]
    found, again = (statistics.compare(each, "a", "b")[columns] for each in (scores, shuffled))
    pd.testing.assert_frame_equal(found, again)
    means = ["mean", "std", "seed_std"]
    found, again = (
        statistics.summarize(each, ["dice"]).set_index("variant").loc[["a", "b"], means]
        for each in (scores, shuffled)
    )
    pd.testing.assert_frame_equal(found, again)


def test_a_test_that_knows_seeds_and_units_by_hand():
    # 1 + (-0.3, 0, 0.3) of the units + (-0.1, 0.1) of the seeds. Variances 0.09 / 3 = 0.03 and
    # 0.02 / 2 = 0.01: t = 1 / sqrt(0.04) = 5, df = 0.0016 / (0.0009 / 2 + 0.0001 / 1) = 2.909.
    # As min F': F1 = 1 / 0.03, F2 = 1 / 0.01, F1 F2 / (F1 + F2) = 25 = t^2.
    differences = 1 + np.array([[-0.3, 0.0, 0.3]]) + np.array([[-0.1], [0.1]])
    found = statistics.seeds_and_units_test(differences)
    assert found.statistic == pytest.approx(5)
    assert found.p == pytest.approx(2 * stats.t.sf(5, 0.0016 / 0.00055))
    assert (found.n, found.note) == (3, "")
    assert statistics.seeds_and_units_test(-differences).p == pytest.approx(found.p)


def test_without_a_spread_of_seeds_or_of_units_it_is_the_paired_t_test_over_the_other():
    values = np.array([0.02, 0.05, -0.01, 0.04, 0.03])
    expected = stats.ttest_1samp(values, 0)
    over_units = statistics.seeds_and_units_test(np.tile(values, (3, 1)))
    over_seeds = statistics.seeds_and_units_test(np.tile(values[:, None], (1, 7)))
    for found in (over_units, over_seeds):
        assert found.statistic == pytest.approx(expected.statistic)
        assert found.p == pytest.approx(expected.pvalue)


def test_what_has_no_variance():
    test = statistics.seeds_and_units_test
    assert test(np.zeros((3, 4))) == (0.0, 1.0, 4, "all differences are zero")
    assert test(np.full((3, 4), 1e-15)).note == "all differences are zero"
    assert test(np.full((2, 4), 0.5)) == (math.inf, 0.0, 4, "all differences are equal")
    assert test(np.array([[0.1], [0.2]])) == (0.0, 1.0, 1, "one unit: no test")


def test_a_difference_smaller_than_the_spread_of_seeds_is_none():
    """b is better in each of 20 cases of one training; the next trainings turn it round."""
    rng = np.random.default_rng(4)
    rise = np.array([[0.06], [-0.05], [0.01]]) + rng.normal(0, 0.01, (3, 20))
    plain = table(np.full((3, 20), 0.5))
    better = table(0.5 + rise, "b")
    scores = pd.concat([plain, better])
    first = statistics.compare(scores[scores["seed"] == 7], "a", "b").iloc[0]
    assert first["p"] < 1e-4
    assert first["low"] > 0
    row = statistics.compare(scores, "a", "b").iloc[0]
    assert (row["n"], row["groups"], row["seeds"]) == (20, 20, 3)
    assert row["p"] > 0.5
    assert row["low"] < -0.04
    assert row["high"] > 0.05
    assert row["difference"] == pytest.approx(rise.mean())
    assert row["seed_std"] == pytest.approx(rise.mean(axis=1).std(ddof=1))


def test_groups_are_the_units_of_a_test_with_seeds():
    # Means of the groups A (0.1, 0.3) and B (0.4): 0.2 and 0.4; the next seed has 0.1 more of each.
    rise = np.array([[0.1, 0.3, 0.4], [0.2, 0.4, 0.5]])
    names = [*"AAB"]
    scores = pd.concat([table(np.zeros((2, 3)), groups=names), table(rise, "b", groups=names)])
    row = statistics.compare(scores, "a", "b").iloc[0]
    expected = statistics.seeds_and_units_test(np.array([[0.2, 0.4], [0.3, 0.5]]))
    assert (row["groups"], row["p"]) == (2, pytest.approx(expected.p))
    assert row["group_difference"] == pytest.approx(0.35)
    assert row["difference"] == pytest.approx(1.9 / 6)


def test_every_seed_needs_every_case():
    scores = table([[0.1, 0.2], [0.3, 0.4]])
    with pytest.raises(ValueError, match=r"no dice of \['c1'\] for seed 8, expected every case"):
        statistics.summarize(scores.iloc[:-1], ["dice"])
    other = table([[0.1, 0.2]], "b")
    with pytest.raises(ValueError, match=r"\['c0 \(seed 8\)', 'c1 \(seed 8\)'\] in only one of"):
        statistics.compare(pd.concat([scores, other]), "a", "b")
    with pytest.raises(ValueError, match="'seed': 7} more than once"):
        statistics.summarize(pd.concat([scores, scores]), ["dice"])


def test_means_over_seeds():
    scores = table([[0.1, 0.2], [0.3, 0.4]], groups=["A", "B"])
    found = statistics.over_seeds(scores)
    assert list(found) == ["variant", "case", "region", "dice", "group"]
    assert found["dice"].tolist() == pytest.approx([0.2, 0.3])
    plain = scores.drop(columns="seed").iloc[:2]
    assert statistics.over_seeds(plain) is plain
