"""The report on folders of label maps: CSV, JSON, and one self-contained page with a viewer."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from keras_medseg import __version__
from keras_medseg.data.datasets.base import Dataset
from keras_medseg.errors import DataError
from keras_medseg.evaluation import statistics
from keras_medseg.evaluation.comparison import Comparison, cases_to_show, direction
from keras_medseg.evaluation.metrics import metric_label
from keras_medseg.evaluation.score_folder import Scored
from keras_medseg.files import json_rows, write_atomic, write_json
from keras_medseg.reporting import pages, viewer
from keras_medseg.reporting.figures import charts, images, style, volumes

METHODS_PICTURED, ROWS_LISTED = 6, 2000
"""Most methods whose worst case is pictured, and most rows of the table of scores."""


@dataclass(frozen=True)
class ScoreReport:
    """What a report is made of.

    Attributes:
        scored: the scores.
        compared: their statistics.
        dataset: reads images and label maps of the cases that are shown.
        truth: folder of the annotations.
        folders: name of a method -> folder of its label maps.
        command: the command line.
        channel: of the images, as background of the pictures; by default the first.
    """

    scored: Scored
    compared: Comparison
    dataset: Dataset
    truth: Path
    folders: Mapping[str, Path]
    command: str
    channel: str = ""


def write_scores(path: Path, scored: Scored) -> None:
    """Write scores.csv."""
    write_atomic(path, scored.table.to_csv(index=False).encode())


def write_report(path: Path, report: ScoreReport) -> list[Path]:
    """Write the scores and what follows from them as CSV, JSON and a self-contained page.

    Args:
        path: of the scores, such as scores.csv. The other files begin with the same name:
            scores_summary.csv, scores.json, scores.html with its figures in scores_figures/ and, of
            several methods, scores_tests.csv, scores_ranking.csv and scores_permutations.csv.
        report: what they are made of.

    Returns:
        The files, without the figures.

    Raises:
        DataError: a file that could be scored can no longer be read.
    """
    write_scores(path, report.scored)
    files = [path]
    for name, table in _tables(report).items():
        file = path.with_name(f"{path.stem}_{name}.csv")
        if len(table):
            files.append(file)
            write_atomic(file, table.to_csv(index=False).encode())
        else:
            file.unlink(missing_ok=True)  # of an earlier report on other methods
    files += [path.with_suffix(".json"), path.with_suffix(".html")]
    write_json(files[-2], content(report))
    figures = path.with_name(f"{path.stem}_figures")
    for file in figures.glob("*.png"):
        file.unlink()
    view = _page_view(report, figures) | {"scores_file": path.name}
    write_atomic(files[-1], pages.render("scores.html", view))
    return files


def content(report: ScoreReport) -> dict[str, Any]:
    """All numbers of a report, as its JSON file and `keras-medseg score --json` have them."""
    return {
        **_facts(report),
        "remarks": report.scored.remarks,
        "scores": json_rows(report.scored.table),
        **{name: json_rows(table) for name, table in _tables(report).items()},
    }


def _tables(report: ScoreReport) -> dict[str, pd.DataFrame]:
    compared = report.compared
    return {
        "summary": compared.summary,
        "tests": compared.tests,
        "ranking": compared.ranking,
        "permutations": compared.permutations,
    }


# What is read again, for the pictures


def _page_view(report: ScoreReport, folder: Path) -> dict[str, Any]:
    """What the template shows; figures are written to `folder`."""
    scored, compared = report.scored, report.compared
    figures = [*_charts(report, folder)]

    def loaded() -> Iterator[viewer.ViewerCase]:
        for id, reasons in cases_to_show(scored.table, compared.rank_by[0]).items():
            case = _load(report, id, viewer.in_words(reasons))
            figures.extend(_pictures(report, case, reasons.get("worst", []), folder))
            yield case

    shown = viewer.encode(loaded(), labels=report.dataset.labels, regions=scored.regions)
    rows = _case_rows(report, {case["id"] for case in shown["cases"]})
    return {
        "facts": _facts(report),
        "remarks": scored.remarks,
        "ranked_by": " and ".join(metric_label(name) for name in compared.rank_by),
        "ranking": [_ranking_view(row) for row in _rows(compared.ranking)],
        "permutations": _rows(compared.permutations),
        "metrics": [_metric_view(name) for name in scored.metrics],
        "means": _mean_rows(compared.summary),
        "tests": [_test_view(row) for row in _rows(compared.tests)],
        "too_few": _too_few(compared.tests),
        "figures": figures,
        "viewer": shown,
        "limits": viewer.limits(shown),
        "rows": rows[:ROWS_LISTED],
        "total_rows": len(rows),
    }


def _load(report: ScoreReport, id: str, why: str) -> viewer.ViewerCase:
    """A case with its label maps and, where it has one on their grid, its image."""
    scored, dataset = report.scored, report.dataset
    case = next(case for case in scored.cases if case.id == id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were remarks when the case was scored
        truth, spacing = dataset.read_annotation(case)
        maps = {name: dataset.read_labels(paths[id], case) for name, paths in scored.paths.items()}
        image: np.ndarray | None = None
        with suppress(DataError):
            image = _background(dataset.read_image(case).image, report) if case.images else None
    if image is not None and image.shape[:3] != truth.shape:
        image = None
    texts = viewer.score_texts(scored.table, id, report.compared.rank_by)
    return viewer.ViewerCase(id, why, image, truth, maps, texts, spacing)


def _background(image: np.ndarray, report: ScoreReport) -> np.ndarray:
    """(X, Y, Z, C) -> one channel of a volume, or an image in its colors."""
    if report.dataset.elements == "pixels" and image.shape[3] == 3:
        return image
    names = report.dataset.channels
    return image[..., names.index(report.channel) if report.channel else 0].copy()


def _pictures(
    report: ScoreReport, case: viewer.ViewerCase, worst_of: Sequence[str], folder: Path
) -> Iterator[dict[str, str]]:
    """The figure of each method whose worst case this is; of the first METHODS_PICTURED methods."""
    for number, name in enumerate([*case.maps][:METHODS_PICTURED], 1):
        if name in worst_of:
            title = f"The worst case of {name}: {case.id}"
            drawn = _picture(report, case, name)
            yield _figure(title, case.scores[name], drawn, folder / f"worst_{number}.png")


def _picture(report: ScoreReport, case: viewer.ViewerCase, name: str) -> Figure:
    """Annotation and prediction, of a volume on its slice with the largest annotation."""
    image = np.zeros(case.truth.shape, np.uint8) if case.image is None else case.image
    title, found = f"{case.id}, {name}", case.maps[name]
    table, dice = report.scored.table, {}
    if "dice" in table:
        rows = table[(table["case"] == case.id) & (table["variant"] == name)]
        dice = dict(zip(rows["region"], rows["dice"]))
    if report.dataset.elements == "pixels":
        flat = image[:, :, 0] if image.ndim == 4 else image
        masks = case.truth[..., 0] > 0, found[..., 0] > 0
        return images.image_overlay(flat, *masks, title=title, dice=dice)
    channel = report.channel or next(iter(report.dataset.channels), "")
    return volumes.volume_overlay(
        {channel if case.image is not None else "": image},
        case.truth,
        found,
        labels=report.dataset.labels,
        regions=report.scored.regions,
        title=title,
        dice=dice,
        spacing_mm=case.spacing,
    )


# Figures


def _charts(report: ScoreReport, folder: Path) -> Iterator[dict[str, str]]:
    """A forest and a box plot of every metric, and the differences in those of the ranking."""
    scored, compared = report.scored, report.compared
    for name in scored.metrics:
        label, means = metric_label(name), compared.summary[compared.summary["metric"] == name]
        means = means.rename(columns={"variant": "name", "mean": "value"})
        drawn = charts.forest(means, charts.metric_axis(name))
        text = "Mean over the cases and its 95 % interval."
        yield _figure(f"{label}: means", text, drawn, folder / f"means_{name}.png")
        drawn = charts.score_boxes(scored.table, name)
        text = "One point per case; boxes from five cases on."
        yield _figure(f"{label}: every case", text, drawn, folder / f"cases_{name}.png")
        if len(compared.tests) and name in compared.rank_by:
            rows = compared.tests[compared.tests["metric"] == name]
            pairs = rows["second"] + " - " + rows["first"]
            drawn = charts.forest(
                rows.assign(name=pairs, value=rows["difference"]),
                f"difference of {charts.metric_axis(name)}",
                zero=True,
            )
            better = "Right" if direction(name) > 0 else "Left"
            text = f"Mean paired difference and its 95 % interval. {better} of 0: the first named "
            text += "is better."
            yield _figure(f"{label}: differences", text, drawn, folder / f"differences_{name}.png")


def _figure(title: str, caption: str, drawn: Figure, path: Path) -> dict[str, str]:
    return {
        "title": title,
        "caption": caption,
        "data": pages.embedded(style.save(drawn, path)),
    }


# What the template shows


def _facts(report: ScoreReport) -> dict[str, Any]:
    scored = report.scored
    groups = statistics.groups_of(scored.table).nunique()
    return {
        "command": report.command,
        "version": __version__,
        "truth": str(report.truth),
        "folders": {name: str(folder) for name, folder in report.folders.items()},
        "cases": len(scored.cases),
        "groups": int(groups),
        "regions": {
            name: [report.dataset.labels[code] for code in codes]
            for name, codes in scored.regions.items()
        },
        "metrics": list(scored.metrics),
        "rank_by": list(report.compared.rank_by),
    }


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _metric_view(name: str) -> dict[str, str]:
    words = {1: "higher is better", -1: "lower is better", 0: "the best is neither high nor low"}
    return {"label": charts.metric_axis(name), "better": words[direction(name)]}


def _mean_rows(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per method and region, with a cell for each metric."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for line in _rows(summary):
        key = line["variant"], line["region"]
        row = rows.setdefault(key, {"name": key[0], "region": key[1], "cells": []})
        name = line["metric"]
        parts = "mean", "median", "low", "high"
        numbers = {part: viewer.number(line[part], name) for part in parts}
        interval = (
            "no interval" if pd.isna(line["low"]) else f"{numbers['low']} to {numbers['high']}"
        )
        row["cells"].append({**numbers, "value": line["mean"], "interval": interval})
    return [*rows.values()]


def _ranking_view(row: Mapping[str, Any]) -> dict[str, Any]:
    alone = pd.isna(row["low"])
    ends = int(row["place_low"] if not alone else 0), int(row["place_high"] if not alone else 0)
    return {
        **row,
        "score": f"{row['score']:.3f}",
        "interval": "–" if alone else f"{row['low']:.3f} to {row['high']:.3f}",
        "places": "–" if alone else f"{ends[0]} to {ends[1]}" if ends[0] < ends[1] else ends[0],
        "first": "–" if alone else f"{100 * row['first']:.1f} %",
    }


def _test_view(row: Mapping[str, Any]) -> dict[str, Any]:
    name = row["metric"]
    low, high = (viewer.number(row[end], name, "+") for end in ("low", "high"))
    better = row["difference"] * direction(name)
    return {
        **row,
        "metric": charts.metric_axis(name),
        "first_mean": viewer.number(row["first_mean"], name),
        "second_mean": viewer.number(row["second_mean"], name),
        "difference_text": viewer.number(row["difference"], name, "+"),
        "interval": "–" if pd.isna(row["low"]) else f"{low} to {high}",
        "better": row["second"] if better > 0 else row["first"] if better < 0 else "–",
    }


def _too_few(tests: pd.DataFrame) -> str:
    """A sentence if there are too few pairs for any test."""
    if not len(tests) or tests["groups"].min() >= statistics.FEWEST_PAIRS:
        return ""
    n = int(tests["groups"].min())
    what = "groups" if n < int(tests["n"].min()) else "cases"
    return (
        f"With {n} {what} no paired test can reach p < 0.05: the smallest possible p is "
        f"{2 / 2**n:.2g}. It takes at least {statistics.FEWEST_PAIRS}."
    )


def _case_rows(report: ScoreReport, shown: set[str]) -> list[dict[str, Any]]:
    """All rows of the scores, the worst first; those of `shown` cases lead to the viewer."""
    scored, metric = report.scored, report.compared.rank_by[0]
    worst_first = scored.table.sort_values(metric, ascending=direction(metric) > 0, kind="stable")
    return [
        {
            "name": row["variant"],
            "case": row["case"],
            "group": row["group"] if row["group"] != row["case"] else "",
            "region": row["region"],
            "values": [(row[name], viewer.number(row[name], name)) for name in scored.metrics],
            "shown": row["case"] in shown,
        }
        for row in _rows(worst_first)
    ]
