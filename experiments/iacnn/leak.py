"""How much a split by frame flatters a network: the same training on both splits of CVC-ClinicDB.

    python -m experiments.iacnn.leak BY_SEQUENCE BY_FRAME [--variant iacnn]

The arguments are two run folders, with data.split=group and data.split=random. In the second,
nearly every scored frame has neighbors of its own video sequence among the training frames. Two
estimates: the difference of the means, whose cases differ between the runs, and that on the frames
that both runs scored, which is about the same images. Sequences are resampled with all frames.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from keras_medseg.evaluation import statistics
from keras_medseg.runs.run_folder import RunFolder

OWN = "iacnn"
METRIC = "dice"


def leak(by_sequence: pd.DataFrame, by_frame: pd.DataFrame) -> pd.DataFrame:
    """The Dice of one variant in two runs, and what the split by frame adds.

    Args:
        by_sequence: scores.csv of one variant and one region: columns case, group (the sequence)
            and dice.
        by_frame: the same of the other run.

    Returns:
        Two rows, of all frames that a run scored and of the frames that both did: frames, the
        columns by_sequence and by_frame (means over frames), difference (by_frame - by_sequence),
        low and high (its 95 % interval).

    Raises:
        ValueError: no frame was scored by both.
    """
    first, second = (scores.set_index("case")[METRIC] for scores in (by_sequence, by_frame))
    common = first.index.intersection(second.index)
    if common.empty:
        raise ValueError("by_frame: found no frame that the other run scored, expected some.")
    pairs = (second[common] - first[common]).to_numpy()
    groups = by_sequence.set_index("case")["group"][common].to_numpy()
    drawn = _drawn_means(by_frame, seed=1) - _drawn_means(by_sequence, seed=0)
    tail = 50 * (1 - statistics.CONFIDENCE)
    rows = [
        ("all", f"{len(first)} and {len(second)}", first.mean(), second.mean()),
        ("in both", str(len(common)), first[common].mean(), second[common].mean()),
    ]
    table = pd.DataFrame(rows, columns=["scored", "frames", "by_sequence", "by_frame"])
    intervals = [
        np.percentile(drawn, [tail, 100 - tail]),
        statistics.bootstrap_interval(pairs, groups),
    ]
    table["difference"] = table["by_frame"] - table["by_sequence"]
    return table.assign(low=[low for low, _ in intervals], high=[high for _, high in intervals])


def _drawn_means(scores: pd.DataFrame, seed: int) -> np.ndarray:
    """(resamples,) the mean over the frames of as many sequences as there are, drawn anew."""
    of_groups = scores.groupby("group")[METRIC].agg(["sum", "count"]).to_numpy()
    size = (statistics.RESAMPLES, len(of_groups))
    drawn = of_groups[np.random.default_rng(seed).integers(0, len(of_groups), size)].sum(axis=1)
    return drawn[:, 0] / drawn[:, 1]


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


def main() -> None:
    """Print the table of two runs."""
    parser = argparse.ArgumentParser(prog="python -m experiments.iacnn.leak")
    parser.add_argument("by_sequence", type=Path, help="a run with data.split=group")
    parser.add_argument("by_frame", type=Path, help="the same with data.split=random")
    parser.add_argument("--variant", default=OWN)
    arguments = parser.parse_args()
    runs = (RunFolder(arguments.by_sequence), RunFolder(arguments.by_frame))
    scores = [run.scores().query("variant == @arguments.variant") for run in runs]
    sys.stdout.write(f"{table_text(leak(*scores))}\n")


if __name__ == "__main__":
    main()
