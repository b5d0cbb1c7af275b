"""Statistics over cases: mean, spread, bootstrap interval, paired test between two variants.

Means are over cases, never over slices or voxels. The unit of every interval and test is what is
independent: the group of a case (patient, video sequence), where scores have a column `group` and
a group has several cases; otherwise the case. Frames of one sequence are near-duplicates, and an
interval or test that counts them singly is too sure of itself.

Where scores have a column `seed`, every case was scored by several trainings. Cases and trainings
are then both samples: intervals resample both, and tests know both variances.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
RESAMPLES = 9999
FEWEST_PAIRS = 6
"""Fewer pairs cannot reach p < 0.05 whatever the scores are: 2 / 2^6 = 0.031, 2 / 2^5 = 0.063."""


class PairedTest(NamedTuple):
    """Result of `paired_wilcoxon` or `seeds_and_units_test`.

    Attributes:
        statistic: the smaller sum of signed ranks, or t.
        p: two-sided p value.
        n: number of pairs of units: of groups, or of cases without groups.
        note: a remark in words; empty when there is nothing to add.
    """

    statistic: float
    p: float
    n: int
    note: str


def summarize(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Statistics over the cases of each variant, region and metric.

    Args:
        scores: scores.csv: the columns variant, case, region and `metrics`, and group, if cases
            have groups, and seed, if there were several trainings.
        metrics: names of the columns to summarize.

    Returns:
        One row per variant, region and metric, in the order of their first rows: the columns
        variant, region, metric, n (cases), groups (their number), seeds (their number), mean (over
        the cases), group_mean (mean of the means of the groups), std (over the cases, ddof 1, NaN
        for one case), seed_std (of the means of the seeds, ddof 1, NaN for one seed), median (of
        the cases), low and high (`bootstrap_interval` of the mean). Where no group has two cases,
        groups is n and group_mean is the mean. With several seeds, the score of a case is its mean
        over the seeds.

    Raises:
        ValueError: columns are missing, a case is there twice or in two groups or not for every
            seed, or a score is not finite.
    """
    by, metrics = ["variant", "region"], list(metrics)
    _check_scores(scores, by, metrics)
    rows = []
    for key, members in scores.groupby(by, sort=False):
        groups = groups_of(members.drop_duplicates("case")).to_numpy()
        for metric in metrics:
            by_seed = _by_seed(members, metric)
            values = by_seed.mean(axis=0)
            low, high = bootstrap_interval(by_seed, groups)
            means = group_means(values, groups)
            rows.append(
                {
                    **dict(zip(by, key)),
                    "metric": metric,
                    "n": len(values),
                    "groups": len(means),
                    "seeds": len(by_seed),
                    "mean": values.mean(),
                    "group_mean": means.mean(),
                    "std": _std(values),
                    "seed_std": _std(by_seed.mean(axis=1)),
                    "median": np.median(values),
                    "low": low,
                    "high": high,
                }
            )
    return pd.DataFrame(rows)


def over_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores with the mean over the seeds in place of each seed's; as they are without seeds.

    Args:
        scores: scores.csv.

    Returns:
        The same columns but for seed, one row per variant, case and region.
    """
    if "seed" not in scores:
        return scores
    keys = [name for name in ("variant", "case", "group", "region") if name in scores]
    rest = scores.drop(columns="seed")
    means = rest.groupby(keys, sort=False, dropna=False).mean().reset_index()
    return means[list(rest)]


def _by_seed(members: pd.DataFrame, metric: str) -> np.ndarray:
    """(seeds, cases) scores of one variant and region, both in the order of their first rows."""
    if "seed" not in members:
        return members[metric].to_numpy(float)[None]
    table = members.pivot(index="seed", columns="case", values=metric)
    table = table.reindex(index=members["seed"].unique(), columns=members["case"].unique())
    if table.isna().any(axis=None):
        seed, case = next(iter(table.index[table.isna().any(axis=1)])), table.columns
        missing = list(case[table.loc[seed].isna()])
        raise ValueError(
            f"case: found no {metric} of {missing} for seed {seed}, expected every case for every "
            "seed."
        )
    return table.to_numpy(float)


def _std(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan


def groups_of(scores: pd.DataFrame) -> pd.Series:
    """The group of each row: the column group; the case itself where it is missing or empty."""
    if "group" not in scores:
        return scores["case"]
    named = scores["group"].notna() & (scores["group"] != "")
    return scores["group"].where(named, scores["case"])


def group_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(n,) values of cases -> (g,) the mean of each group, in the order of their first cases."""
    codes, names = pd.factorize(groups)
    if len(names) == len(values):
        return values
    return np.bincount(codes, values) / np.bincount(codes)


def bootstrap_interval(
    values: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile-bootstrap interval of the mean over cases.

    Whole cases are resampled 9999 times or, where a group has several cases, whole groups with all
    their cases (cluster bootstrap): as many groups as there are, and the mean over all cases drawn.
    The percentile interval exists for every sample and stays within the range of the scores. BCa
    needs a spread in every jackknife sample and gains little here: for scores distributed like Dice
    with some failed cases, intervals that should contain the true mean 95 times in 100 did so 90
    (percentile) and 91 times (BCa) with 43 cases, 65 and 63 times with 3 cases. With few units both
    are too narrow: read the interval as a lower bound of the uncertainty.

    With several seeds, every resample draws the cases (or groups) and, independently of them, as
    many seeds as there are, and its mean is over the drawn cases of the drawn seeds: seeds and
    cases are crossed, so both are levels of their own (the pigeonhole bootstrap: Owen, Annals of
    Applied Statistics 1, 2007, 386). With equal seeds this is the interval over cases, and with
    equal cases that over seeds. Few seeds make it too narrow as well: with three seeds it contained
    the true mean 93 times in 100 with 43 cases and 89 times with 200, where the seeds decide; the
    interval over the cases of one seed did so 79 and 52 times (benchmarks/intervals.py).

    Args:
        values: (n,) finite scores, one per case, or (s, n) of s seeds.
        groups: (n,) the group of each case; None if every case is its own.
        seed: of the resampling.

    Returns:
        (low, high). One case or group has no interval: (NaN, NaN). Equal scores give (value,
        value).

    Raises:
        ValueError: there are no values.
    """
    by_seed = np.atleast_2d(values)
    if by_seed.size == 0:
        raise ValueError("values: found no scores, expected one or more.")
    codes, names = pd.factorize(np.arange(by_seed.shape[1]) if groups is None else groups)
    if len(names) == 1:
        return np.nan, np.nan
    if np.ptp(by_seed) == 0:
        return float(by_seed[0, 0]), float(by_seed[0, 0])
    sample: tuple[np.ndarray, ...] = (by_seed[0],)
    statistic: Callable[..., np.ndarray] = np.mean
    if len(by_seed) > 1 or len(names) < by_seed.shape[1]:
        sums = [np.bincount(codes, row) for row in by_seed]
        sample, statistic = (*sums, np.bincount(codes)), _ratio_of_sums
    if len(by_seed) > 1:
        statistic = _mean_of_drawn_seeds(np.random.default_rng([seed, len(by_seed)]))
    interval = scipy.stats.bootstrap(
        sample,
        statistic,
        paired=len(sample) > 1,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        batch=1000,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _ratio_of_sums(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    """The mean over all cases of the drawn groups, from the sum and the number of each group."""
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def _mean_of_drawn_seeds(rng: np.random.Generator) -> Callable[..., np.ndarray]:
    """A statistic as `_ratio_of_sums`, of one sum per seed; every call draws the seeds by `rng`."""

    def statistic(*sums_and_counts: np.ndarray, axis: int = -1) -> np.ndarray:
        *sums, counts = sums_and_counts
        means = np.stack([_ratio_of_sums(each, counts, axis) for each in sums])
        drawn = rng.integers(0, len(means), means.shape)
        return np.take_along_axis(means, drawn, axis=0).mean(axis=0)

    return statistic


def seeds_and_units_test(differences: np.ndarray) -> PairedTest:
    """Two-sided t test of the mean difference between two variants, trained with several seeds.

    Both the seeds and the units (cases or groups) are samples. The variance of the mean is taken as
    that of the means of the units plus that of the means of the seeds, and its degrees of freedom
    are those of Satterthwaite:

        t = m / sqrt(a + b),  a = var(unit means) / g,  b = var(seed means) / s
        df = (a + b)^2 / (a^2 / (g - 1) + b^2 / (s - 1))

    t^2 is the min F' of Clark (Journal of Verbal Learning and Verbal Behavior 12, 1973, 335) for
    two crossed random effects, which counts the residual variance twice, in a and in b. With equal
    seeds it is the paired t test over units, with equal units that over seeds. Of three seeds and
    43 cases without a true difference, p was below 0.05 in 4 of 100 experiments, and of 200 cases
    in 7; Wilcoxon's test of one seed in 18 and 48 (benchmarks/intervals.py).

    Args:
        differences: (s, g) of two or more seeds and the units, rounded to 12 decimals here, as in
            `paired_wilcoxon`.

    Returns:
        The test; a single unit, of which no variance is known, has p = 1.
    """
    rounded = np.round(differences, 12)
    seeds, units = rounded.shape
    if not rounded.any():
        return PairedTest(0.0, 1.0, units, "all differences are zero")
    if units == 1:
        return PairedTest(0.0, 1.0, units, "one unit: no test")
    of_units = rounded.mean(axis=0).var(ddof=1) / units
    of_seeds = rounded.mean(axis=1).var(ddof=1) / seeds
    variance, mean = of_units + of_seeds, rounded.mean()
    if variance == 0:
        return PairedTest(np.inf, 0.0, units, "all differences are equal")
    t = abs(mean) / np.sqrt(variance)
    freedom = variance**2 / (of_units**2 / (units - 1) + of_seeds**2 / (seeds - 1))
    return PairedTest(float(t), float(2 * scipy.stats.t.sf(t, freedom)), units, "")


def paired_wilcoxon(a: ArrayLike, b: ArrayLike) -> PairedTest:
    """Two-sided Wilcoxon signed-rank test on the differences a - b of the same cases.

    Differences are rounded to 12 decimals first, so that rounding errors do not make equal ones
    differ; then zero differences are dropped (Wilcoxon's own rule). Without any difference the
    statistic is 0 and p is 1. The p value is exact for up to 50 differing pairs, and for up to 13
    if some of the differences are equal in size; beyond that it is the normal approximation.

    Args:
        a: (n,) scores, one per case, or means of groups.
        b: (n,) scores of the same cases or groups.

    Returns:
        The test, with a note when all differences are zero or too few pairs differ for any p
        below 0.05.

    Raises:
        ValueError: unequal lengths, no pairs, or scores that are not finite.
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise ValueError(
            f"a and b: found shapes {first.shape} and {second.shape}, "
            "expected pairs: (n,) and (n,)."
        )
    if not (np.isfinite(first) & np.isfinite(second)).all():
        raise ValueError("a and b: found scores that are not finite, expected numbers.")
    differences = np.round(first - second, 12)
    differing = np.count_nonzero(differences)
    if differing == 0:
        return PairedTest(0.0, 1.0, first.size, "all differences are zero")
    result = scipy.stats.wilcoxon(differences[differences != 0])
    note = ""
    if differing < FEWEST_PAIRS:
        note = f"{differing} differing pairs: p cannot be below {2 / 2**differing:.3g}"
    return PairedTest(float(result.statistic), float(result.pvalue), first.size, note)


def compare(
    scores: pd.DataFrame, baseline: str, variant: str, metric: str = "dice"
) -> pd.DataFrame:
    """Paired comparison of two variants on the same cases, one row per region.

    Args:
        scores: scores.csv: the columns variant, case, region and `metric`, group, if cases have
            groups, and seed, if there were several trainings.
        baseline: a value of the column `variant`.
        variant: another one.
        metric: the name of the column to compare.

    Returns:
        The columns region, metric, n (cases), groups (their number), seeds (their number), baseline
        and variant (means over the cases), difference (mean over the cases of variant - baseline),
        low and high (95 % interval of that mean), group_difference (mean of the means of the
        groups), seed_std (of the mean difference of each seed, ddof 1), statistic and p
        (`paired_wilcoxon` of the means of the groups, of the cases where no group has two; with
        several seeds `seeds_and_units_test`), p_holm (p corrected for the number of regions by
        Holm's step-down method) and note. A seed of one variant is paired with the same seed of the
        other: they share the order of the batches.

    Raises:
        ValueError: columns are missing, a variant has no scores, or only one of the two has some
            of the cases or seeds.
    """
    _check_scores(scores, ["variant", "region"], [metric])
    absent = sorted({baseline, variant} - set(scores["variant"]))
    if absent:
        raise ValueError(
            f"variant: found {sorted(set(scores['variant']))}, expected also {absent}."
        )
    chosen = scores[scores["variant"].isin([baseline, variant])]
    chosen = chosen.assign(group=groups_of(chosen))
    table = pd.DataFrame(
        [
            {"region": region, "metric": metric}
            | _comparison(members, baseline, variant, metric, str(region))
            for region, members in chosen.groupby("region", sort=False)
        ]
    )
    table.insert(list(table).index("note"), "p_holm", holm(table["p"]))
    return table


def _comparison(
    members: pd.DataFrame, baseline: str, variant: str, metric: str, region: str
) -> dict[str, Any]:
    """One row of `compare`, without region and metric."""
    first, second, cases = _pairs(members, baseline, variant, metric, region)
    groups = members.drop_duplicates("case").set_index("case")["group"].reindex(cases)
    keys = groups.to_numpy()
    differences = second - first
    low, high = bootstrap_interval(differences, keys)
    of_groups = [[group_means(row, keys) for row in side] for side in (first, second)]
    if len(differences) > 1:
        test = seeds_and_units_test(np.subtract(of_groups[1], of_groups[0]))
    else:
        test = paired_wilcoxon(of_groups[1][0], of_groups[0][0])
    return {
        "n": len(cases),
        "groups": test.n,
        "seeds": len(differences),
        "baseline": first.mean(),
        "variant": second.mean(),
        "difference": differences.mean(),
        "low": low,
        "high": high,
        "group_difference": group_means(differences.mean(axis=0), keys).mean(),
        "seed_std": _std(differences.mean(axis=1)),
        "statistic": test.statistic,
        "p": test.p,
        "note": test.note,
    }


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down correction: (n,) p values -> (n,) adjusted p values, same order."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    stepped = p[order] * np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted


def _pairs(
    members: pd.DataFrame, baseline: str, variant: str, metric: str, region: str
) -> tuple[np.ndarray, np.ndarray, pd.Index]:
    """The (seeds, cases) scores of both variants, and the cases in their order, sorted."""
    seeded = members if "seed" in members else members.assign(seed=0)
    table = seeded.pivot(index=["seed", "case"], columns="variant", values=metric)
    pairs = table.reindex(columns=[baseline, variant])
    cases = pd.Index(sorted(members["case"].unique()), name="case")
    seeds = pairs.index.unique("seed")
    pairs = pairs.reindex(pd.MultiIndex.from_product([seeds, cases]))
    unpaired = pairs.index[pairs.isna().any(axis=1)]
    if len(unpaired):
        found = [case if len(seeds) == 1 else f"{case} (seed {seed})" for seed, case in unpaired]
        raise ValueError(
            f"case: found {found} in only one of {baseline!r} and {variant!r} "
            f"for {region}, expected every case in both."
        )
    shape = len(seeds), len(cases)
    first, second = (pairs[name].to_numpy(float).reshape(shape) for name in (baseline, variant))
    return first, second, cases


def _check_scores(scores: pd.DataFrame, by: list[str], metrics: list[str]) -> None:
    missing = [name for name in ["case", *by, *metrics] if name not in scores]
    if missing:
        raise ValueError(f"scores: found columns {list(scores)}, expected also {missing}.")
    if scores.empty:
        raise ValueError("scores: found no rows, expected one or more cases.")
    if "group" in scores:
        several = scores.assign(group=groups_of(scores)).groupby("case")["group"].nunique()
        if (several > 1).any():
            case = several.idxmax()
            raise ValueError(f"scores: found case {case} in two groups, expected one group.")
    seed = ["seed"] if "seed" in scores else []
    twice = scores[scores.duplicated(["case", *by, *seed])]
    if len(twice):
        first = twice[["case", *by, *seed]].iloc[0].to_dict()
        raise ValueError(f"scores: found {first} more than once, expected one row per case.")
    finite = np.isfinite(scores[metrics].to_numpy(float))
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"scores: found {metrics[column]} {scores[metrics[column]].iloc[row]} for case "
            f"{scores['case'].iloc[row]}, expected a finite score. Empty masks have scores too."
        )
