"""The page of an evaluation: scores in-domain and on other data sets, with the drops."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from keras_medseg.evaluation.generalization import IN_DOMAIN
from keras_medseg.evaluation.metrics import METRICS, higher_is_better, metric_label
from keras_medseg.files import write_atomic
from keras_medseg.reporting import pages
from keras_medseg.reporting.figures import charts, style


def write(out: Path, facts: Mapping[str, Any], table: pd.DataFrame, scores: pd.DataFrame) -> Path:
    """Write evaluation.html, which needs no other file, and figures/dice.png.

    Args:
        out: folder.
        facts: run, variant, in_domain (name of the run's own data), in_domain_side, datasets (name
            -> folder), notes and command.
        table: from `evaluation.generalization.generalization`.
        scores: the scores it was made from.

    Returns:
        The path of evaluation.html.
    """
    regions = list(dict.fromkeys(table["region"]))
    boxes = charts.score_boxes(scores.rename(columns={"dataset": "variant"}))
    figure = style.save(boxes, out / "figures/dice.png")
    view = {
        **facts,
        "regions": regions,
        "tables": [_metric_view(rows, regions) for _, rows in table.groupby("metric", sort=False)],
        "sizes": _sizes(table),
        "grouped": bool((table["groups"] < table["n"]).any()),
        "figure": pages.embedded(figure),
    }
    path = out / "evaluation.html"
    write_atomic(path, pages.render(path.name, view))
    return path


def _sizes(table: pd.DataFrame) -> dict[str, str]:
    """Data set -> its number of cases, and that of their groups where a group has several."""
    sizes = {}
    for row in table.drop_duplicates("dataset").to_dict("records"):
        groups = f"{row['groups']} group{'' if row['groups'] == 1 else 's'}"
        sizes[row["dataset"]] = f"{row['n']}" + (
            "" if row["groups"] == row["n"] else f" in {groups}"
        )
    return sizes


def _metric_view(rows: pd.DataFrame, regions: list[str]) -> dict[str, Any]:
    """One table: a line per data set, two cells per region."""
    metric = rows["metric"].iloc[0]
    unit = METRICS[metric].unit
    lines = {
        name: [_cell(of_set[of_set["region"] == region].iloc[0], unit) for region in regions]
        for name, of_set in rows.groupby("dataset", sort=False)
    }
    return {
        "title": metric_label(metric) + (f" ({unit})" if unit else ""),
        "better": "higher" if higher_is_better(metric) else "lower",
        "lines": lines,
    }


def _cell(row: pd.Series, unit: str) -> dict[str, str]:
    decimals = 2 if unit else 4

    def number(name: str, sign: str = "") -> str:
        return "–" if pd.isna(row[name]) else f"{row[name]:{sign}.{decimals}f}"

    drop = "" if row["dataset"] == IN_DOMAIN else number("drop", "+")
    known = not pd.isna(row["drop_low"])
    sure = known and (row["drop_low"] > 0 or row["drop_high"] < 0)
    return {
        "mean": number("mean"),
        "interval": _interval(number("low"), number("high")),
        "drop": drop,
        "drop_interval": drop and _interval(number("drop_low"), number("drop_high")),
        "verdict": ("bad-text" if row["drop"] > 0 else "good-text") if sure else "",
    }


def _interval(low: str, high: str) -> str:
    return "no interval" if low == "–" else f"{low} to {high}"
