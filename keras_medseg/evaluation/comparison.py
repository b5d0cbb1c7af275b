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
