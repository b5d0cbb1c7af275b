"""The ranking of the BraTS challenge: who is better case by case, and how sure that is.

Every case, region and metric ranks the methods: 1 for the best, equal scores share the mean of
their ranks. The mean of a method's ranks in a case is its rank of that case (BraTS: cumulative
rank), the mean of these over the cases its score (BraTS: final ranking score), and the lowest score
takes the first place. So ranked BraTS from 2017 on (Bakas et al., "Identifying the best machine
learning algorithms for brain tumor segmentation", arXiv:1811.02629); the challenge's program is
PermRanker (IUCompPath).

Whether two methods differ is tested as there, by permutations: in every case the two ranks of a
pair may change places. How sure a place is says a bootstrap of the cases (Wiesenfarth et al. 2021,
"Methods and open-source toolkit for analyzing and visualizing challenge results").

In both the unit is the group of a case (patient, video sequence), where groups have several cases.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import scipy

from keras_medseg.evaluation.metrics import higher_is_better
from keras_medseg.evaluation.statistics import RESAMPLES, groups_of, holm

PERMUTATIONS = 100_000
"""Drawn at random where there are too many to count them all."""

_EXACT_GROUPS = 16
_DECIMALS = 12
_BATCH = 2_000


def case_ranks(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The rank of every method in every case.

    Args:
        scores: scores.csv: the columns variant, case, region and `metrics`.
        metrics: what is ranked by.

    Returns:
        One row per case, one column per variant, both in their first order: the mean of the
        variant's ranks over regions and metrics.

    Raises:
        ValueError: no metrics, or a score that is missing or NaN.
    """
    if not metrics:
        raise ValueError("metrics: found none, expected one or more to rank by.")
    variants = list(dict.fromkeys(scores["variant"]))
    cases = list(dict.fromkeys(scores["case"]))
    ranks = []
    for metric in metrics:
        table = scores.pivot(index=["case", "region"], columns="variant", values=metric)[variants]
        if table.isna().any(axis=None):
            case, region = table.index[table.isna().any(axis=1)][0]
            raise ValueError(
                f"scores: found no {metric} of case {case}, {region}, by every variant, expected "
                "all variants on the same cases."
            )
        values = np.round(table.to_numpy(float), _DECIMALS)
        lowest_first = -values if higher_is_better(metric) else values
        ranks.append(
            pd.DataFrame(scipy.stats.rankdata(lowest_first, axis=1), table.index, variants)
        )
    return pd.concat(ranks).groupby(level="case").mean().loc[cases]


def rank(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The ranking of all methods, with a bootstrap of the groups.

    Args:
        scores: as in `case_ranks`; with the column group, if cases have groups.
        metrics: what is ranked by.

    Returns:
        One row per variant, the best first: the columns variant, place (1 is the best; equal scores
        share the better place), score (the mean rank), low and high (its 95 % percentile interval),
        place_low and place_high (95 % of the resamples), first (the share of resamples in which it
        has the first place, shared or not), cases and groups. With one group there are no
        intervals: NaN.

    Raises:
        ValueError: as `case_ranks`.
    """
    ranks = case_ranks(scores, metrics)
    sums, counts = _group_sums(ranks, scores)
    means = np.round(sums.sum(0) / counts.sum(), _DECIMALS)
    table = pd.DataFrame({"variant": ranks.columns, "place": _places(means), "score": means})
    names = ["low", "high", "place_low", "place_high", "first"]
    if len(counts) > 1:
        drawn = _resampled_means(sums, counts)
        places = _places(drawn)
        ends = [2.5, 97.5]
        columns = [
            *np.percentile(drawn, ends, axis=0),
            *np.percentile(places, ends, axis=0, method="closest_observation"),
            (places == 1).mean(axis=0),
        ]
        table = table.assign(**dict(zip(names, columns)))
    else:
        table[names] = np.nan
    table = table.assign(cases=len(ranks), groups=len(counts))
    return table.sort_values("score", kind="stable", ignore_index=True)


def permutation_tests(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The pairwise permutation tests of the scores of `rank`.

    In every group the ranks of the two methods change places or not, with equal probability. Up to
    16 groups all 2^groups ways are counted; beyond that 100,000 are drawn, and the observed one
    counts as one of them, so that no p is 0.

    Args:
        scores: as in `rank`.
        metrics: what is ranked by.

    Returns:
        One row per pair, in the order of the ranking: the columns better, worse, difference (of
        their scores, worse - better, 0 or more), groups, p_one_sided (the share of permutations
        whose difference is at least the observed one: the p of BraTS), p (two-sided: at least as
        large in either direction) and p_holm (p by Holm's method for all pairs).

    Raises:
        ValueError: as `case_ranks`.
    """
    ranks = case_ranks(scores, metrics)
    order = ranks.mean().round(_DECIMALS).sort_values(kind="stable").index
    sums, counts = _group_sums(ranks[order], scores)
    pairs = [*combinations(range(len(order)), 2)]
    apart = np.stack([sums[:, worse] - sums[:, better] for better, worse in pairs], axis=1)
    differences = apart / counts.sum()
    observed = differences.sum(0)
    exact = len(counts) <= _EXACT_GROUPS
    total, above, beyond = 0, np.zeros(len(pairs)), np.zeros(len(pairs))
    for signs in _signs(len(counts), exact=exact):
        permuted = signs @ differences
        total += len(signs)
        above += (permuted >= observed - 1e-12).sum(0)
        beyond += (np.abs(permuted) >= np.abs(observed) - 1e-12).sum(0)
    itself = 0 if exact else 1
    p = (beyond + itself) / (total + itself)
    return pd.DataFrame(
        {
            "better": [order[better] for better, _ in pairs],
            "worse": [order[worse] for _, worse in pairs],
            "difference": observed,
            "groups": len(counts),
            "p_one_sided": (above + itself) / (total + itself),
            "p": p,
            "p_holm": holm(p),
        }
    )


def _group_sums(ranks: pd.DataFrame, scores: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(groups, variants) sums of the ranks of each group's cases, and (groups,) their number."""
    of_case = scores.assign(group=groups_of(scores)).drop_duplicates("case").set_index("case")
    codes, names = pd.factorize(of_case["group"].reindex(ranks.index))
    sums = np.zeros((len(names), ranks.shape[1]))
    np.add.at(sums, codes, ranks.to_numpy())
    return sums, np.bincount(codes).astype(float)


def _places(means: np.ndarray) -> np.ndarray:
    """Places of scores along the last axis; equal scores share the better place."""
    return scipy.stats.rankdata(means, method="min", axis=-1).astype(int)


def _resampled_means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(resamples, variants) scores of as many groups, drawn with replacement."""
    rng = np.random.default_rng(0)
    often = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES)
    return np.round((often @ sums) / (often @ counts)[:, None], _DECIMALS)


def _signs(groups: int, *, exact: bool) -> Iterator[np.ndarray]:
    """Batches (n, groups) of -1 (the two change places) and 1."""
    if exact:
        numbers = np.arange(2**groups)
        for start in range(0, len(numbers), _BATCH):
            bits = numbers[start : start + _BATCH, None] >> np.arange(groups)
            yield 1.0 - 2.0 * (bits & 1)
        return
    rng = np.random.default_rng(0)
    for _ in range(PERMUTATIONS // _BATCH):
        yield rng.choice(np.array([-1.0, 1.0]), size=(_BATCH, groups))
