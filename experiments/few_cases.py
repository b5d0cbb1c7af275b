"""The cases of a run with few of them, one by one: `python -m experiments.few_cases RUN ...`.

For leave-one-out on a handful of cases: the Dice of each, their mean, and an interval by Student's
t. The percentile bootstrap of the reports is too narrow for so few (docs/protocol.md); t is right
for normal scores, which a Dice near 0 or 1 is not, and it ends at 0 and 100 here.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from keras_medseg.errors import DataError
from keras_medseg.evaluation import statistics
from keras_medseg.files import parse_csv, read_file


def t_interval(values: ArrayLike) -> tuple[float, float]:
    """The 95 % interval of the mean of (n,) values, n > 1, by Student's t."""
    values = np.asarray(values, float)
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    return stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))


def table(scores: pd.DataFrame) -> str:
    """Markdown: the Dice in % of every case, variant and region, and what variants differ by.

    Args:
        scores: scores.csv, of one seed.
    """
    cases = sorted(scores["case"].unique())
    lines = [
        f"| | region | {' | '.join(cases)} | mean (95 % by t) |",
        f"|---|---|{'--:|' * len(cases)}--:|",
    ]
    for region, rows in scores.groupby("region", sort=False):
        dice = 100 * rows.pivot(index="variant", columns="case", values="dice")
        dice = dice.loc[rows["variant"].unique(), cases]
        for name, values in dice.iterrows():
            low, high = np.clip(t_interval(values), 0, 100)
            numbers = " | ".join(f"{value:.1f}" for value in values)
            mean = f"{values.mean():.1f} ({low:.1f} to {high:.1f})"
            lines.append(f"| {name} | {region} | {numbers} | {mean} |")
        for one, other in combinations(dice.index, 2):
            values = dice.loc[one] - dice.loc[other]
            low, high = t_interval(values)
            test = statistics.paired_wilcoxon(dice.loc[one], dice.loc[other])
            numbers = " | ".join(f"{value:+.1f}" for value in values)
            mean = f"{values.mean():+.1f} ({low:+.1f} to {high:+.1f}), p = {test.p:.2g}"
            lines.append(f"| {one} - {other} | {region} | {numbers} | {mean} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of each run folder. Exit code: 0."""
    parser = argparse.ArgumentParser(prog="python -m experiments.few_cases")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="with scores.csv")
    for run in parser.parse_args(argv).runs:
        scores = read_file(run / "scores.csv", parse_csv, "Give the folder of a finished run.")
        if "seed" in scores or scores["case"].nunique() < 2:
            raise DataError(
                run / "scores.csv",
                found="several seeds" if "seed" in scores else "one case",
                expected="one training of each network, and two cases or more",
                remedy="Give the folder of one seed, or more cases.",
            )
        sys.stdout.write(f"{table(scores)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
