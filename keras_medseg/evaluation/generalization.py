"""How much worse a network is on other data than on those that it was trained for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from keras_medseg.evaluation.metrics import METRICS, higher_is_better
from keras_medseg.evaluation.statistics import CONFIDENCE, RESAMPLES, groups_of, summarize

IN_DOMAIN = "in-domain"
"""The name of the data set that a run was trained on, among those that it is evaluated on."""

COLUMNS = (
    "dataset", "region", "metric", "n", "groups", "mean", "group_mean", "std", "median", "low",
    "high", "drop", "drop_low", "drop_high",
)  # fmt: skip


def comparable_metrics(scores: pd.DataFrame) -> list[str]:
    """The metrics that every case has and that can be better or worse; a signed error cannot."""
    return [
        name
        for name in METRICS
        if name in scores and _directed(name) and scores[name].notna().all()
    ]


def _directed(name: str) -> bool:
    try:
        higher_is_better(name)
    except ValueError:
        return False
    return True


def generalization(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Means on each data set, and how much worse they are than in-domain.

    Args:
        scores: the columns dataset, case, region and `metrics`, and group, if cases have groups.
            One data set is IN_DOMAIN.
        metrics: names of the columns to compare.

    Returns:
        The COLUMNS, one row per data set, region and metric, IN_DOMAIN first. Beside those of
        `statistics.summarize`: drop, how much worse the mean is than that in-domain, positive where
        it is worse, whatever the direction of the metric; drop_low and drop_high, see
        `difference_interval`. In-domain rows have no drop (NaN).

    Raises:
        ValueError: as `statistics.summarize`, or there are no scores in-domain.
    """
    names = list(dict.fromkeys(scores["dataset"]))
    if IN_DOMAIN not in names:
        raise ValueError(f"scores: found the data sets {names}, expected {IN_DOMAIN!r} among them.")
    parts = {name: scores[scores["dataset"] == name] for name in names}
    means = {
        name: summarize(part.rename(columns={"dataset": "variant"}), metrics)
        for name, part in parts.items()
    }
    rows: list[dict[Any, Any]] = []
    for name in (IN_DOMAIN, *(name for name in names if name != IN_DOMAIN)):
        for row in means[name].rename(columns={"variant": "dataset"}).to_dict("records"):
            rows.append(row | _drop(parts[IN_DOMAIN], parts[name], row))
    return pd.DataFrame(rows)[list(COLUMNS)]


def _drop(inside: pd.DataFrame, outside: pd.DataFrame, row: Mapping[Any, Any]) -> dict[str, float]:
    """drop, drop_low and drop_high of one row."""
    if row["dataset"] == IN_DOMAIN:
        return {"drop": np.nan, "drop_low": np.nan, "drop_high": np.nan}
    sides = [part[part["region"] == row["region"]] for part in (inside, outside)]
    values = [side[row["metric"]].to_numpy(float) for side in sides]
    groups = [groups_of(side).to_numpy() for side in sides]
    if not higher_is_better(row["metric"]):
        values, groups = values[::-1], groups[::-1]
    low, high = difference_interval(values[0], values[1], groups[0], groups[1])
    return {"drop": values[0].mean() - values[1].mean(), "drop_low": low, "drop_high": high}


def difference_interval(
    first: np.ndarray,
    second: np.ndarray,
    first_groups: np.ndarray,
    second_groups: np.ndarray,
) -> tuple[float, float]:
    """The 95 % percentile-bootstrap interval of the difference of two means over other cases.

    The two samples are independent, so each is resampled by itself, whole groups with all their
    cases, as in `statistics.bootstrap_interval`; 9999 times, and the difference of the two means is
    taken each time (Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 8.3).

    Args:
        first: (n,) finite scores, one per case.
        second: (m,) scores of other cases.
        first_groups: (n,) the group of each case.
        second_groups: (m,) likewise.

    Returns:
        (low, high) of mean(first) - mean(second). If one of the two has a single group, there is no
        interval: (NaN, NaN).
    """
    rng = np.random.default_rng(0)
    drawn = []
    for values, groups in ((first, first_groups), (second, second_groups)):
        codes, names = pd.factorize(groups)
        if len(names) == 1:
            return np.nan, np.nan
        drawn.append(_drawn_means(np.bincount(codes, values), np.bincount(codes), rng))
    ends = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
    low, high = np.percentile(drawn[0] - drawn[1], ends)
    return float(low), float(high)


def _drawn_means(sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(RESAMPLES,) means over all cases of the drawn groups, from the sum and number of each."""
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, 1000):  # in parts, because groups may be many
        part = means[start : start + 1000]
        picked = rng.integers(len(sums), size=(len(part), len(sums)))
        part[:] = sums[picked].sum(axis=1) / counts[picked].sum(axis=1)
    return means
