"""Statistics over cases: mean, spread, bootstrap interval, paired test between two variants.

Means are over cases, never over slices or voxels. The unit of every interval and test is what is
independent: the group of a case (patient, video sequence), where scores have a column `group` and
a group has several cases; otherwise the case. Frames of one sequence are near-duplicates, and an
interval or test that counts them singly is too sure of itself.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999
FEWEST_PAIRS = 6
"""Fewer pairs cannot reach p < 0.05 whatever the scores are: 2 / 2^6 = 0.031, 2 / 2^5 = 0.063."""


class PairedTest(NamedTuple):
    """Result of `paired_wilcoxon`.

    Attributes:
        statistic: the smaller sum of signed ranks.
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
            have groups.
        metrics: names of the columns to summarize.

    Returns:
        One row per variant, region and metric, in the order of their first rows: the columns
        variant, region, metric, n (cases), groups (their number), mean (over the cases),
        group_mean (mean of the means of the groups), std (over the cases, ddof 1, NaN for one
        case), median (of the cases), low and high (`bootstrap_interval` of the mean). Where no
        group has two cases, groups is n and group_mean is the mean.

    Raises:
        ValueError: columns are missing, a case is there twice or in two groups, or a score is not
            finite.
    """
    by, metrics = ["variant", "region"], list(metrics)
    _check_scores(scores, by, metrics)
    rows = []
    for key, members in scores.groupby(by, sort=False):
        groups = groups_of(members).to_numpy()
        for metric in metrics:
            values = members[metric].to_numpy(float)
            low, high = bootstrap_interval(values, groups)
            means = group_means(values, groups)
            rows.append(
                {
                    **dict(zip(by, key)),
                    "metric": metric,
                    "n": len(values),
                    "groups": len(means),
                    "mean": values.mean(),
                    "group_mean": means.mean(),
                    "std": values.std(ddof=1) if len(values) > 1 else np.nan,
                    "median": np.median(values),
                    "low": low,
                    "high": high,
                }
            )
    return pd.DataFrame(rows)


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

    Args:
        values: (n,) finite scores, one per case.
        groups: (n,) the group of each case; None if every case is its own.
        seed: of the resampling.

    Returns:
        (low, high). One case or group has no interval: (NaN, NaN). Equal scores give (value,
        value).

    Raises:
        ValueError: there are no values.
    """
    if len(values) == 0:
        raise ValueError("values: found no scores, expected one or more.")
    codes, names = pd.factorize(np.arange(len(values)) if groups is None else groups)
    if len(names) == 1:
        return np.nan, np.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    sample: tuple[np.ndarray, ...] = (values,)
    statistic: Callable[..., np.ndarray] = np.mean
    if len(names) < len(values):
        sample, statistic = (np.bincount(codes, values), np.bincount(codes)), _ratio_of_sums
    interval = stats.bootstrap(
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
    result = stats.wilcoxon(differences[differences != 0])
    note = ""
    if differing < FEWEST_PAIRS:
        note = f"{differing} differing pairs: p cannot be below {2 / 2**differing:.3g}"
    return PairedTest(float(result.statistic), float(result.pvalue), first.size, note)


def compare(
    scores: pd.DataFrame, baseline: str, variant: str, metric: str = "dice"
) -> pd.DataFrame:
    """Paired comparison of two variants on the same cases, one row per region.

    Args:
        scores: scores.csv: the columns variant, case, region and `metric`, and group, if cases have
            groups.
        baseline: a value of the column `variant`.
        variant: another one.
        metric: the name of the column to compare.

    Returns:
        The columns region, metric, n (cases), groups (their number), baseline and variant (means
        over the cases), difference (mean over the cases of variant - baseline), low and high (95 %
        interval of that mean), group_difference (mean of the means of the groups), statistic and p
        (`paired_wilcoxon` of the means of the groups; of the cases where no group has two), p_holm
        (p corrected for the number of regions by Holm's step-down method) and note.

    Raises:
        ValueError: columns are missing, a variant has no scores, or only one of the two has some
            of the cases.
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
    pairs = _pairs(members, baseline, variant, metric, region)
    groups = members.drop_duplicates("case").set_index("case")["group"].reindex(pairs.index)
    keys = groups.to_numpy()
    first, second = pairs[baseline].to_numpy(), pairs[variant].to_numpy()
    differences = second - first
    low, high = bootstrap_interval(differences, keys)
    test = paired_wilcoxon(group_means(second, keys), group_means(first, keys))
    return {
        "n": len(pairs),
        "groups": test.n,
        "baseline": first.mean(),
        "variant": second.mean(),
        "difference": differences.mean(),
        "low": low,
        "high": high,
        "group_difference": group_means(differences, keys).mean(),
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
) -> pd.DataFrame:
    table = members.pivot(index="case", columns="variant", values=metric)
    pairs = table.reindex(columns=[baseline, variant])
    unpaired = pairs.index[pairs.isna().any(axis=1)]
    if len(unpaired):
        raise ValueError(
            f"case: found {list(unpaired)} in only one of {baseline!r} and {variant!r} "
            f"for {region}, expected every case in both."
        )
    return pairs


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
    twice = scores[scores.duplicated(["case", *by])]
    if len(twice):
        first = twice[["case", *by]].iloc[0].to_dict()
        raise ValueError(f"scores: found {first} more than once, expected one row per case.")
    finite = np.isfinite(scores[metrics].to_numpy(float))
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"scores: found {metrics[column]} {scores[metrics[column]].iloc[row]} for case "
            f"{scores['case'].iloc[row]}, expected a finite score. Empty masks have scores too."
        )
