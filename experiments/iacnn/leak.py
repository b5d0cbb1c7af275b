"""How much a split by frame flatters a network: the same training on both splits of CVC-ClinicDB.

    python -m experiments.iacnn.leak BY_SEQUENCE BY_FRAME [--variant iacnn] [--figure PNG]

The arguments are two run folders that differ in data.split: group and random. In the second, nearly
every scored frame has neighbors of its own video sequence among the training frames. Two estimates:
the difference of the means, whose cases differ between the runs, and that on the frames that both
runs scored, which is about the same images. Sequences are resampled with all frames.

One training and one draw of each split: how much others would differ is not in the intervals, and
those over six sequences are too narrow (see `statistics.bootstrap_interval`).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from keras_medseg import recipe
from keras_medseg.errors import DataError, require_choice
from keras_medseg.evaluation import statistics
from keras_medseg.files import parse_csv, read_file
from keras_medseg.reporting.figures import charts, style
from keras_medseg.runs.run_folder import RunFolder

OWN = "iacnn"
METRIC = "dice"
SPLITS = ("group", "random")


def leak(by_sequence: pd.DataFrame, by_frame: pd.DataFrame) -> pd.DataFrame:
    """The Dice of one variant in two runs, and what the split by frame adds.

    Args:
        by_sequence: scores.csv of one variant, one region and one seed, each case once: columns
            case, group (the sequence; without it a case is its own) and dice.
        by_frame: the same of the other run.

    Returns:
        Two rows, of all frames that a run scored and of those that both did: scored (which of
        them), frames (their number, in words), by_sequence and by_frame (means over frames),
        difference (by_frame - by_sequence), low and high (its 95 % interval; NaN for one sequence).

    Raises:
        ValueError: a case occurs twice, or no frame was scored by both.
    """
    first, second = (_by_case(scores) for scores in (by_sequence, by_frame))
    common = first.index.intersection(second.index)
    if common.empty:
        raise ValueError("by_frame: found no frame that the other run scored, expected some.")
    both = first.loc[common], second.loc[common]
    pairs = (both[1][METRIC] - both[0][METRIC]).to_numpy()
    rows = []
    for name, frames, sides, (low, high) in (
        ("all", f"{len(first)} and {len(second)}", (first, second), _interval(first, second)),
        (
            "in both",
            str(len(common)),
            both,
            statistics.bootstrap_interval(pairs, both[0]["group"].to_numpy()),
        ),
    ):
        ours, theirs = (side[METRIC].mean() for side in sides)
        row = {"scored": name, "frames": frames, "by_sequence": ours, "by_frame": theirs}
        rows.append({**row, "difference": theirs - ours, "low": low, "high": high})
    return pd.DataFrame(rows)


def _by_case(scores: pd.DataFrame) -> pd.DataFrame:
    """case -> group and Dice."""
    named = scores.assign(group=statistics.groups_of(scores))
    if named["case"].duplicated().any():
        raise ValueError("scores: found a case several times, expected each once.")
    return named.set_index("case")[["group", METRIC]]


def _interval(first: pd.DataFrame, second: pd.DataFrame) -> tuple[float, float]:
    """Of the difference of the means, second - first; sequences of both are drawn for both at once.

    As many sequences are drawn from those that `first` scored, and from the others, as there are.
    """
    sums = [side.groupby("group")[METRIC].agg(["sum", "count"]) for side in (first, second)]
    held_out = sums[0].index
    others = sums[1].index.difference(held_out)
    if len(held_out) < 2:
        return np.nan, np.nan
    rng = np.random.default_rng(0)
    drawn = _drawn(rng, len(held_out))
    ours = sums[0].to_numpy()[drawn].sum(axis=1)
    theirs = sums[1].reindex(held_out, fill_value=0).to_numpy()[drawn].sum(axis=1)
    if len(others):
        theirs = theirs + sums[1].loc[others].to_numpy()[_drawn(rng, len(others))].sum(axis=1)
    differences = theirs[:, 0] / theirs[:, 1] - ours[:, 0] / ours[:, 1]
    tail = 50 * (1 - statistics.CONFIDENCE)
    low, high = np.nanpercentile(differences, [tail, 100 - tail])
    return float(low), float(high)


def _drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, count, (statistics.RESAMPLES, count))


def table_text(table: pd.DataFrame) -> str:
    """The table of `leak` in Markdown, in percent."""
    lines = [
        "| scored frames | number | split by sequence | split by frame | difference (95 %) |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in table.to_dict("records"):
        means = f"{100 * row['by_sequence']:.1f} | {100 * row['by_frame']:.1f}"
        low, high = (f"{100 * row[side]:+.1f}" for side in ("low", "high"))
        difference = f"{100 * row['difference']:+.1f} ({low} to {high})"
        lines.append(f"| {row['scored']} | {row['frames']} | {means} | {difference} |")
    return "\n".join(lines)


def scores_of(folder: Path, variant: str, split: str) -> tuple[pd.DataFrame, recipe.Recipe]:
    """Scores and recipe of a variant of a run.

    Raises:
        DataError: the run has another split, or several seeds.
        ValueError: it has no such variant.
    """
    run = RunFolder(folder)
    require_choice("--variant", variant, sorted(run.variants))
    chosen = run.variant(variant).recipe
    found = recipe.fields(chosen).get("data.split")
    if found != split:
        raise DataError(
            folder,
            found=f"a run with data.split={found}",
            expected=f"data.split={split}",
            remedy="Give the run by sequence first, then that by frame.",
        )
    scores = run.scores()
    scores = scores[scores["variant"] == variant]
    if scores["case"].duplicated().any():
        raise DataError(
            folder,
            found="several trainings of a variant, each with its own seed",
            expected="one",
            remedy=f"Give the folder of one of them, such as {folder / 'seed0'}.",
        )
    return scores, chosen


def curves(folders: Sequence[Path], variant: str) -> Figure:
    """The learning curves of a variant in both runs, side by side."""
    logs = {}
    for title, folder in zip(("split by sequence", "split by frame"), folders):
        path = folder / "log.csv"
        log = read_file(path, parse_csv, "The run is not finished; give its command again.")
        for network, rows in log.groupby("network"):
            trained, _, targets = str(network).rpartition("-")
            if trained == variant:
                logs[f"{title}-{targets}"] = rows
    return charts.learning_curves(logs)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of two runs."""
    parser = argparse.ArgumentParser(prog="python -m experiments.iacnn.leak")
    parser.add_argument("by_sequence", type=Path, help="a run with data.split=group")
    parser.add_argument("by_frame", type=Path, help="the same with data.split=random")
    parser.add_argument("--variant", default=OWN)
    parser.add_argument("--figure", type=Path, help="file for the learning curves of both")
    arguments = parser.parse_args(argv)
    folders = (arguments.by_sequence, arguments.by_frame)
    (first, ours), (second, theirs) = (
        scores_of(folder, arguments.variant, split) for folder, split in zip(folders, SPLITS)
    )
    if others := sorted(set(recipe.differences(ours, theirs)) - {"data.split"}):
        raise DataError(
            arguments.by_frame,
            found=f"a run that also differs in {', '.join(others)}",
            expected="the same recipe but for data.split",
            remedy="Train both with the same profile and --set.",
        )
    sys.stdout.write(f"{table_text(leak(first, second))}\n")
    if arguments.figure:
        style.save(curves(folders, arguments.variant), arguments.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
