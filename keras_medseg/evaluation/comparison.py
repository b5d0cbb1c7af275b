"""What the scores of several folders of label maps say: means, paired tests, ranking."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from keras_medseg.errors import require_choice
from keras_medseg.evaluation import ranking, statistics
from keras_medseg.evaluation.metrics import higher_is_better

# BraTS ranked by the first pair from 2023 on, by the second before.
_BRATS = (("lesion_dice", "lesion_hd95_mm"), ("dice", "hd95_mm", "hd95_px"))


MOST_SHOWN = 12
"""Of the cases of `cases_to_show`."""


@dataclass(frozen=True)
class Comparison:
    """The statistics of the scores of one or more variants; tables are empty for a single one.

    Attributes:
        summary: `statistics.summarize`.
        tests: `statistics.compare` of every pair of variants in every metric, with the columns
            first and second (their names) and p_holm, corrected for all rows.
        ranking: `ranking.rank`.
        permutations: `ranking.permutation_tests`.
        rank_by: the metrics of the ranking, the first of which says what the worst case is; empty
            if there is none of which larger or smaller values are better.
    """

    summary: pd.DataFrame
    tests: pd.DataFrame
    ranking: pd.DataFrame
    permutations: pd.DataFrame
    rank_by: tuple[str, ...]


def compare_all(
    scores: pd.DataFrame, metrics: Sequence[str], rank_by: Sequence[str] = ()
) -> Comparison:
    """Means, paired tests and ranking of all variants.

    Args:
        scores: scores.csv: the columns variant, case, region and `metrics`, and group, if cases
            have groups; all variants on the same cases.
        metrics: what to summarize and to test.
        rank_by: what to rank by, some of `metrics`; by default Dice and HD95 as BraTS (those of
            single lesions if they were measured), or, where neither was measured, all.

    Raises:
        ValueError: another metric in `rank_by`, or an error of `statistics` or `ranking`.
    """
    for name in rank_by:
        require_choice("--rank-by", name, metrics)
    by = tuple(rank_by) or _usual(metrics)
    summary = statistics.summarize(scores, metrics)
    pairs = [*combinations(dict.fromkeys(scores["variant"]), 2)]
    if not pairs:
        empty = pd.DataFrame()
        return Comparison(summary, empty, empty, empty, by)
    tests = [
        statistics.compare(scores, first, second, metric).assign(first=first, second=second)
        for metric in metrics
        for first, second in pairs
    ]
    table = pd.concat(tests, ignore_index=True)
    table["p_holm"] = statistics.holm(table["p"])
    means = {"baseline": "first_mean", "variant": "second_mean"}
    table = table.rename(columns=means)
    front = ["first", "second", "region", "metric"]
    return Comparison(
        summary,
        table[[*front, *(name for name in table if name not in front)]],
        ranking.rank(scores, by) if by else pd.DataFrame(),
        ranking.permutation_tests(scores, by) if by else pd.DataFrame(),
        by,
    )


def direction(metric: str) -> int:
    """1 where larger values are better, -1 where smaller ones are, 0 where neither is."""
    try:
        return 1 if higher_is_better(metric) else -1
    except ValueError:
        return 0


def cases_to_show(scores: pd.DataFrame, metric: str) -> dict[str, dict[str, list[str]]]:
    """The cases to show, the most important first: each variant's worst, best and median ones.

    A case without any object is neither the best nor the median as long as other cases have some:
    there an empty answer has a Dice of 1.

    Args:
        scores: scores.csv: the columns variant, case, region, `metric` and truth_<elements>.
        metric: what is good or bad; the mean over the regions of a case counts.

    Returns:
        case -> {why: variants}, such as {"worst": ["A"], "best": ["B"]}; MOST_SHOWN cases at most.
    """
    means = scores.groupby(["variant", "case"], sort=False)[metric].mean().unstack("variant")
    sizes = scores.filter(regex="^truth_").sum(axis=1).groupby(scores["case"]).sum()
    reasons: dict[str, dict[str, list[str]]] = {}
    for what in ("worst", "second worst", "median", "best", "third worst"):
        for variant in means:
            ordered = (direction(metric) * means[variant]).sort_values(kind="stable").index
            if what in ("median", "best"):
                ordered = ordered[sizes[ordered] > 0] if (sizes > 0).any() else ordered
            places = {"worst": 0, "second worst": 1, "third worst": 2, "best": len(ordered) - 1}
            place = places.get(what, len(ordered) // 2)
            if place < len(ordered):
                of_case = reasons.setdefault(str(ordered[place]), {})
                of_case.setdefault(what, []).append(str(variant))
    return dict([*reasons.items()][:MOST_SHOWN])


def _usual(metrics: Sequence[str]) -> tuple[str, ...]:
    for pair in _BRATS:
        if found := tuple(name for name in metrics if name in pair):
            return found
    return tuple(name for name in metrics if direction(name))


def standings(compared: Comparison) -> str:
    """Lines with the ranking of several variants; empty for a single one."""
    if not len(compared.ranking):
        return ""
    lines = [f"ranking by {', '.join(compared.rank_by)}:"]
    for row in compared.ranking.to_dict("records"):
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        interval = "no interval" if row["groups"] == 1 else interval
        lines.append(f"{row['place']:3}. {row['variant']}  mean rank {row['score']:.3f} {interval}")
    return "\n".join([*lines, ""])
