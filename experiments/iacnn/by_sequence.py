"""The published scores on CVC-ClinicDB by sequence: `python -m experiments.iacnn.by_sequence`.

Some runs in results/ are older than the column group of scores.csv; splits/cvc.csv has the sequence
of each frame. Frames of a sequence are near-duplicates, so intervals and tests are over sequences,
not over frames: the six that were held out with their 129 frames, or, in a split by frame, all that
have a scored frame.
"""

from pathlib import Path

import pandas as pd

from keras_medseg.evaluation import statistics
from keras_medseg.files import parse_csv, read_file

FOLDER = Path(__file__).parent
OWN = "iacnn"
RUNS = (("cvc-cpu",), ("cvc-six-networks",), ("cvc-long", "cvc-long-printed", "cvc-long-unet"))
"""Networks that are compared: those of one run, or of several that trained one each."""
BY_FRAME = ("cvc-long-by-frame", "cvc-long-printed-by-frame", "cvc-long-unet-by-frame")
"""As the last of RUNS, with the split by frame."""
_FEW = 10
"""Sequences up to this number have their differences listed one by one."""
_MISSING = "It belongs to the repository."


def by_sequence(*runs: str) -> pd.DataFrame:
    """scores.csv of published runs with the column group, the sequence of the frame.

    Args:
        runs: folders of results/, such as "cvc-cpu"; of several, each has other networks.

    Raises:
        DataError: a file is missing or damaged.
    """
    files = [FOLDER / "results" / run / "scores.csv" for run in runs]
    scores = pd.concat([read_file(path, parse_csv, _MISSING) for path in files], ignore_index=True)
    frames = read_file(FOLDER / "splits" / "cvc.csv", parse_csv, _MISSING)
    sequences = frames.assign(case=frames["case"].astype(str)).set_index("case")["group"]
    return scores.assign(group=scores["case"].map(sequences))


def tables(*runs: str) -> str:
    """Markdown: each network's Dice in %, and the paper's network against each of the others."""
    scores = by_sequence(*runs)
    summary = statistics.summarize(scores, ["dice"])
    means = scores.groupby(["variant", "group"])["dice"].mean().unstack("variant")
    lines = [
        "| | over frames | over sequences | paper - row, over frames (95 %) | over sequences | p | "
        "paper - row in each sequence |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for row in summary.to_dict("records"):
        name = row["variant"]
        interval = f"({_percent(row['low'])} to {_percent(row['high'])})"
        cells = [name, f"{_percent(row['mean'])} {interval}", _percent(row["group_mean"])]
        cells += [""] * 4 if name == OWN else _against(scores, means, name)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _against(scores: pd.DataFrame, means: pd.DataFrame, rival: str) -> list[str]:
    [test] = statistics.compare(scores, rival, OWN).to_dict("records")
    interval = f"({_percent(test['low'], '+')} to {_percent(test['high'], '+')})"
    differences = means[OWN] - means[rival]
    each = ", ".join(_percent(value, "+") for value in differences)
    if len(differences) > _FEW:
        each = f"above 0 in {(differences > 0).sum()} of {len(differences)}"
    return [
        f"{_percent(test['difference'], '+')} {interval}",
        _percent(test["group_difference"], "+"),
        f"{test['p']:.2g}",
        each,
    ]


def _percent(fraction: float, sign: str = "") -> str:
    return f"{100 * fraction:{sign}.1f}"


def main() -> None:
    """Print the tables of the published runs."""
    for runs in (*RUNS, BY_FRAME):
        print(f"{', '.join(runs)}\n\n{tables(*runs)}\n")


if __name__ == "__main__":
    main()
