"""Where the heads of the deep supervision sit: the readings side by side.

    keras-medseg phantom PATIENTS --layout BraTS2020 --cases 24 --size 120 120 77
    python -m experiments mtds2021 --profile heads --data PATIENTS --out RUN --set train.seed=0
    python -m experiments.mtds2021.heads [RUN/scores.csv ...]

The last command prints the table that stands in README.md; by default from the scores in results/,
which the two others made, with one seed of weights, order and split per file.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .recipe import HEADS

SCORES = Path(__file__).parent / "results"
NONE = "without_supervision"
TITLES = {
    NONE: "no heads",
    "encoder": "encoder (chosen)",
    "decoder": "decoder, the finest first",
    "coarse_to_fine": "decoder, coarse to fine",
    "branches": "a decoder per task",
}


def differences(paths: Sequence[Path]) -> pd.DataFrame:
    """Dice in percent, of each reading and seed.

    Args:
        paths: of scores.csv of runs of the profile heads.

    Returns:
        One row per reading and file: dice (mean over the cases), difference from no heads, better
        (number of cases with a higher Dice) and cases.
    """
    rows = []
    for path in paths:
        dice = 100 * pd.read_csv(path, dtype={"case": str}).pivot(
            index="case", columns="variant", values="dice"
        )
        for reading in HEADS.variants:
            gain = dice[reading] - dice[NONE]
            rows.append(
                {
                    "reading": reading,
                    "file": path.stem,
                    "dice": dice[reading].mean(),
                    "difference": gain.mean(),
                    "better": int((gain > 0).sum()),
                    "cases": len(gain),
                }
            )
    return pd.DataFrame(rows)


def table(paths: Sequence[Path]) -> str:
    """The readings in Markdown, one column of mean Dice per file."""
    found = differences(paths)
    seeds = [path.stem.replace("heads-seed", "seed ") for path in paths]
    lines = [
        f"| heads | {' | '.join(seeds)} | difference from no heads | cases with a higher Dice |",
        "|---|" + "--:|" * (len(seeds) + 2),
    ]
    for reading, rows in found.groupby("reading", sort=False):
        means = " | ".join(f"{value:.1f}" for value in rows["dice"])
        gain = f"{rows['difference'].mean():+.1f} | {rows['better'].sum()} of {rows['cases'].sum()}"
        shown = " | " if reading == NONE else gain
        lines.append(f"| {TITLES[str(reading)]} | {means} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    given = [Path(name) for name in sys.argv[1:]] or sorted(SCORES.glob("heads-seed*.csv"))
    sys.stdout.write(f"{table(given)}\n")
