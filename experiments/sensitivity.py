"""How far the open readings of a paper move its result: each alternative alone, on synthetic cases.

    python -m experiments.sensitivity PAPER --out RUN      train, or go on; print the table
    python -m experiments.sensitivity PAPER --publish RUN  keep the scores of a run, make the page
    python -m experiments.sensitivity PAPER                make the page of the kept scores again

A run is an ordinary one of the profile "sensitivity", which the paper's readings.py declares, with
three seeds on one split. The page, its table and its figure are in results/sensitivity of the
paper's folder. What is found chooses no reading: synthetic cases are not the paper's.
"""

import argparse
import importlib
import json
import shlex
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from keras_medseg import recipe
from keras_medseg.errors import DataError
from keras_medseg.evaluation import statistics
from keras_medseg.files import parse_csv, read_file, write_atomic, write_json
from keras_medseg.reporting.figures import charts, style
from keras_medseg.runs import experiment, papers
from keras_medseg.runs.run_folder import RunFolder, read_recipe

from .publish import without_folders
from .readings import Readings

HOME = Path(__file__).parent
PROFILE = "sensitivity"
METRIC = "dice"
SEEDS = 3
POINTS = 100
"""Of a Dice of 1: tables are in percent, differences in percentage points."""
LEVEL = 1 - statistics.CONFIDENCE
KEPT = ["variant", "case", "seed", "group", "region", METRIC]
"""Columns of the scores that are kept."""
SCORES, TABLE, FIGURE = "scores.csv", "sensitivity.csv", "sensitivity.png"
RECIPE, PROVENANCE = "recipe.json", "provenance.json"
NOTHING = "found nothing in so few steps"
REMEDY = "Give --publish RUN with a finished run of --out RUN."


class Kept(NamedTuple):
    """What results/sensitivity of a paper keeps of a run.

    Attributes:
        scores: rows of scores.csv of the scored region.
        recipe: of the run.
        command: that made it.
        cases: numbers of cases to train on, to steer by and to score.
    """

    scores: pd.DataFrame
    recipe: recipe.Recipe
    command: str
    cases: tuple[int, int, int]


def differences(readings: Readings, scores: pd.DataFrame) -> pd.DataFrame:
    """What each alternative does to the Dice, in percentage points, over seeds and cases.

    Args:
        readings: of the paper.
        scores: scores.csv of a run of its alternatives.

    Returns:
        One row per alternative, the largest gain first: variant, entries, ours, other, dice_ours
        and dice_other (means over cases and seeds), difference (other - ours), low and high (its
        95 % interval, by bootstrap of seeds and of cases or their groups), spread_ours and
        spread_other (standard deviation between the means of the seeds), found_nothing (whether the
        alternative's Dice is 0, or 1 where nothing is to be found, in every case and seed), p (see
        `statistics.compare`), p_holm (for the number of alternatives) and verdict.

    Raises:
        ValueError: scores of a variant are missing, as in `statistics.compare`.
    """
    scores = scores[scores["region"] == readings.region]
    spread = statistics.summarize(scores, [METRIC]).set_index("variant")["seed_std"]
    rows = []
    for name, one in readings.alternatives.items():
        found = statistics.compare(scores, readings.own, name, METRIC).iloc[0]
        rows.append(
            {
                "variant": name,
                "entries": " ".join(one.entries),
                "ours": one.ours,
                "other": one.other,
                "dice_ours": POINTS * found["baseline"],
                "dice_other": POINTS * found["variant"],
                "difference": POINTS * found["difference"],
                "low": POINTS * found["low"],
                "high": POINTS * found["high"],
                "spread_ours": POINTS * spread[readings.own],
                "spread_other": POINTS * spread[name],
                "found_nothing": _found_nothing(scores.loc[scores["variant"] == name, METRIC]),
                "p": found["p"],
            }
        )
    table = pd.DataFrame(rows)
    table["p_holm"] = statistics.holm(table["p"])
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    return table.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def _found_nothing(dice: pd.Series) -> bool:
    """Whether no case with the region has a pixel right; a case without it has a Dice of 0 or 1."""
    return bool(dice.isin((0, 1)).all() and (dice == 0).any())


def _verdict(row: dict) -> str:
    if row["found_nothing"]:
        return NOTHING
    if row["low"] == row["high"] == 0:
        return "the same scores"
    if row["p_holm"] < LEVEL:
        return f"moves the result by {row['difference']:+.1f}"
    if row["low"] > 0 or row["high"] < 0:
        return "undecided"
    return "no difference seen"


def table_text(table: pd.DataFrame) -> str:
    """The table of `differences` in Markdown, with links into the ledger."""
    lines = [
        "| entry: variant | recipe's reading | alternative | Dice % | difference (95 %) "
        "| p, by Holm | verdict |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    for row in table.to_dict("records"):
        entries = ", ".join(f"[`{name}`](../../ledger.toml)" for name in row["entries"].split())
        cells = (
            f"{entries}: {row['variant'].replace('_', ' ')}",
            row["ours"],
            row["other"],
            f"{row['dice_other']:.1f} ± {row['spread_other']:.1f}",
            f"{row['difference']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})",
            f"{row['p_holm']:.3g}",
            row["verdict"],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(paper: str, readings: Readings, kept: Kept, table: pd.DataFrame) -> str:
    """The page of a paper's sensitivity in Markdown."""
    training, validation, scored = kept.cases
    seeds = kept.scores["seed"].nunique()
    reasons = "\n".join(
        f"| [`{name}`](../../ledger.toml) | {why} |" for name, why in readings.not_varied.items()
    )
    own = table.iloc[0]
    intro = (
        "Each reading that the [ledger](../../ledger.toml) calls chosen and that the code can "
        "change, changed alone. "
        f"Synthetic cases: {training} for training, {validation} for validation, "
        f"{scored} scored, by the Dice of {readings.region}; {seeds} seeds on one split. "
        f"{readings.why_small} The recipe's readings have a Dice of {own['dice_ours']:.1f} ± "
        f"{own['spread_ours']:.1f} %."
    )
    return f"""# {paper}: how far the open readings move the result

    {kept.command}

{textwrap.fill(intro, 110)}

{table_text(table)}

{textwrap.fill(_legend(readings, table), 110)}

![Differences in Dice]({FIGURE})

What this does not say: which reading is the paper's, or which is better on real images at the
paper's size and length. Every default stays that of the ledger, which follows the text.

## Settings

| field | paper's recipe | here |
|---|---|---|
{_settings(paper, kept.recipe)}

Files: [every score]({SCORES}), [the table]({TABLE}), [all settings]({RECIPE}), [cases and
commands]({PROVENANCE}).

## Not varied

| entry | why |
|---|---|
{reasons}
"""


def _legend(readings: Readings, table: pd.DataFrame) -> str:
    nothing = table["found_nothing"]
    differences = table.loc[~nothing, "difference"]
    legend = (
        "The Dice is the mean over the cases and seeds, ± the standard deviation between the means "
        "of the seeds. The interval of a difference is of a bootstrap of seeds and cases (video "
        "sequences or patients, where several cases share one); p is of a t test that knows both "
        f"variances, corrected for the {len(table)} alternatives. 'No difference seen' is no proof "
        "of equality: the interval says what is still possible. 'Undecided': the interval leaves "
        "out 0, the corrected p does not. "
    )
    which = "differences"
    if nothing.any():
        which = "other differences"
        legend += (
            "'Found nothing' says how fast a network learns here, and nothing else: no map of any "
            f"seed has a pixel of {readings.region} right. "
        )
    if differences.empty:
        return legend.rstrip()
    least, most = differences.min(), differences.max()
    return f"{legend}The {which} go from {least:+.1f} to {most:+.1f} points."


def _settings(paper: str, small: recipe.Recipe) -> str:
    """The fields in which a run differs from the paper's recipe, as rows of a table."""
    found = recipe.differences(papers.find(paper).recipe, small)
    return "\n".join(f"| `{name}` | {ours} | {here} |" for name, (ours, here) in found.items())


def read_kept(folder: Path) -> Kept:
    """What results/sensitivity of a paper keeps of a run.

    Raises:
        DataError: a file is missing or damaged.
    """
    facts = read_file(folder / PROVENANCE, json.loads, REMEDY)
    return Kept(
        read_file(folder / SCORES, parse_csv, REMEDY),
        read_recipe(folder / RECIPE),
        facts["commands"][-1]["command"],
        (
            facts["training_cases"],
            len(facts["validation_cases"]),
            len(facts.get("test_cases", facts["validation_cases"])),
        ),
    )


def keep(run: RunFolder, readings: Readings, folder: Path) -> None:
    """Copy from a finished run what the page is made of.

    Raises:
        DataError: the run is not finished, has one seed alone, or is none of these readings.
    """
    scores = run.scores()
    if "seed" not in scores:
        raise DataError(
            run.scores_file,
            found="one training of each network",
            expected="several seeds, which are the sample",
            remedy=REMEDY,
        )
    expected, found = sorted(readings.profile.variants), sorted(set(scores["variant"]))
    if found != expected:
        raise DataError(
            run.scores_file,
            found=f"the variants {', '.join(found)}",
            expected=", ".join(expected),
            remedy=REMEDY,
        )
    scores = scores[scores["region"] == readings.region]
    write_atomic(folder / SCORES, scores[KEPT].to_csv(index=False).encode())
    write_atomic(folder / RECIPE, recipe.to_json(run.recipe).encode())
    write_json(folder / PROVENANCE, without_folders(run.provenance()))


def write_page(paper: str, readings: Readings, folder: Path) -> None:
    """Write table, figure and page of the scores that `folder` keeps."""
    kept = read_kept(folder)
    table = differences(readings, kept.scores)
    write_atomic(folder / TABLE, table.round(4).to_csv(index=False).encode())
    drawn = table.rename(columns={"variant": "name", "difference": "value"})
    drawn["name"] += np.where(drawn["found_nothing"], " (found nothing)", "")
    label = "difference in Dice from the recipe's reading (percentage points)"
    figure = charts.forest(drawn.assign(region=readings.region), label, zero=True)
    style.save(figure, folder / FIGURE)
    write_atomic(folder / "README.md", page(paper, readings, kept, table).encode())


def train(paper: str, readings: Readings, request: experiment.Request) -> None:
    """Train every alternative with every seed, or go on with it, and print the table."""
    declared = papers.find(paper)
    assert declared.phantom
    small = replace(
        declared,
        profiles={PROFILE: readings.profile},
        phantom=replace(declared.phantom, cases=readings.cases, size=readings.size),
        # The paper's own tables and figures are about its variants.
        tables=(),
        figures=experiment.no_figures,
        further_scores=None,
    )
    experiment.run(small, request)
    table = differences(readings, RunFolder(request.out).scores())
    sys.stdout.write(f"{table_text(table)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0; errors are raised."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m experiments.sensitivity")
    parser.add_argument("paper", choices=papers.names())
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--out", type=Path, help="run folder: train, or go on")
    source.add_argument("--publish", type=Path, metavar="RUN", help="a finished run to keep")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of --out")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="of --out")
    arguments = parser.parse_args(argv)
    if arguments.seeds < 2:
        parser.error(f"--seeds: found {arguments.seeds}, expected 2 or more: they are the sample.")
    readings = importlib.import_module(f"experiments.{arguments.paper}.readings").OPEN_READINGS
    if arguments.out:
        request = experiment.Request(
            out=arguments.out,
            folder=None,
            profile=PROFILE,
            command=shlex.join(["python", "-m", "experiments.sensitivity", *argv]),
            work=arguments.work,
            experiment=(arguments.paper, None),
            seeds=arguments.seeds,
        )
        train(arguments.paper, readings, request)
        return 0
    folder = HOME / arguments.paper / "results" / PROFILE
    if arguments.publish:
        keep(RunFolder(arguments.publish), readings, folder)
    write_page(arguments.paper, readings, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
