"""What a paper's recipe expects of a run: values that it must reach, and orders of its variants."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from keras_medseg.evaluation import statistics
from keras_medseg.evaluation.metrics import higher_is_better
from keras_medseg.runs.steps import Cohort

CONFIRMED, REVERSED, UNDECIDED = "confirmed", "reversed", "undecided"
"""The verdicts on an order."""

SIGNIFICANT = 0.05
ALL_REGIONS = "mean of the regions"


@dataclass(frozen=True)
class Expected:
    """The mean of a metric over the scored cases that a run must reach, or it exits with 1.

    Attributes:
        data: "phantom", the name of the data set, e.g. "BraTS2017", or the names of several that
            are used together, sorted.
        profile, variant, region, metric: what is measured.
        minimum: of the mean.
        maximum: of the mean, if the paper gives a range.
    """

    data: str | tuple[str, ...]
    profile: str
    variant: str
    region: str
    metric: str
    minimum: float
    maximum: float | None = None


@dataclass(frozen=True)
class ExpectedOrder:
    """A sentence of the paper by which one variant is better than another.

    It is tested in every run that has scores of both. Whatever the verdict, it only fails a run
    (exit code 1) if it is reversed with confidence on the paper's own data under the profile
    "paper" or "paper-compare" without --set: elsewhere, data or training are not those that the
    sentence speaks of.

    Attributes:
        better, worse: the variants.
        metric: a column of scores.csv.
        region: one region; None for the mean of the regions of each case.
        where: the place of the sentence in the paper.
        says: the sentence.
    """

    better: str
    worse: str
    metric: str
    region: str | None
    where: str
    says: str


def judge(
    expected: Sequence[Expected], scores: pd.DataFrame, cohort: Cohort, profile: str
) -> list[dict[str, Any]]:
    """The expectations for these data and this profile, with the measured values."""
    verdicts = []
    for entry in expected:
        names = ("phantom",) if cohort.phantom else cohort.datasets
        wanted = (entry.data,) if isinstance(entry.data, str) else entry.data
        if entry.profile != profile or names != wanted:
            continue
        rows = scores[(scores.variant == entry.variant) & (scores.region == entry.region)]
        measured = float(rows[entry.metric].mean()) if len(rows) else None
        highest = math.inf if entry.maximum is None else entry.maximum
        passed = measured is not None and entry.minimum <= measured <= highest
        verdicts.append({**asdict(entry), "measured": measured, "passed": passed})
    return verdicts


def judge_orders(
    orders: Sequence[ExpectedOrder], scores: pd.DataFrame, *, binding: bool
) -> list[dict[str, Any]]:
    """Test the orders whose two variants were both scored.

    An order is confirmed if the 95 % interval of the mean difference lies on the stated side of 0
    and the paired test has p < 0.05, corrected by Holm's method for the orders of the run; reversed
    if the same holds on the other side; otherwise undecided. Units are groups where cases have
    groups. With several seeds, interval and test include their spread, see `statistics.compare`.

    Args:
        orders: in the order of the report.
        scores: scores.csv.
        binding: whether a reversed order fails the run.

    Returns:
        The fields of each order (`region` in words) with baseline (mean of `worse`), variant (mean
        of `better`), difference (better - worse), low, high, n, groups, p, p_holm, note, verdict
        and passed.
    """
    tested = [(order, _comparison(order, scores)) for order in orders]
    found = [(order, row) for order, row in tested if row is not None]
    if not found:
        return []
    corrected = statistics.holm([row["p"] for _, row in found])
    verdicts = []
    for (order, row), p_holm in zip(found, corrected):
        verdict = _verdict(order.metric, row, float(p_holm))
        passed = not (binding and verdict == REVERSED)
        fields = asdict(order) | row | {"p_holm": float(p_holm)}
        verdicts.append({**fields, "verdict": verdict, "passed": passed})
    return verdicts


def _comparison(order: ExpectedOrder, scores: pd.DataFrame) -> dict[str, Any] | None:
    """The row of `statistics.compare` for an order; None if the run has not scored both sides."""
    rows = scores[scores["variant"].isin([order.better, order.worse])]
    if order.region is None:
        shared = rows.groupby("region")["variant"].nunique() == 2
        rows = rows[rows["region"].isin(shared.index[shared])]
        rows = rows.assign(group=statistics.groups_of(rows), region=ALL_REGIONS)
        keys = ["variant", "case", "group", "region", *(["seed"] if "seed" in rows else [])]
        rows = rows.groupby(keys, sort=False)[order.metric].mean().reset_index()
    else:
        rows = rows[rows["region"] == order.region]
    if rows["variant"].nunique() < 2:
        return None
    table = statistics.compare(rows, order.worse, order.better, order.metric)
    return {str(name): value for name, value in table.iloc[0].to_dict().items()}


def _verdict(metric: str, row: dict[str, Any], p_holm: float) -> str:
    ends = (row["low"], row["high"])
    low, high = ends if higher_is_better(metric) else (-ends[1], -ends[0])
    if p_holm < SIGNIFICANT and low > 0:
        return CONFIRMED
    if p_holm < SIGNIFICANT and high < 0:
        return REVERSED
    return UNDECIDED
