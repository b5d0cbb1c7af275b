"""A run folder -> table.csv, table.md and report.html: published numbers beside measured ones.

Nothing is filled in: a cell that the paper's text lost, a rival that was not retrained and a
variant that this run left out are shown as just that.
"""

import base64
import io
import json
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from keras_medseg import recipe, stats
from keras_medseg.checkpoint import write_atomic
from keras_medseg.errors import DataError
from keras_medseg.figures import METRIC_NAMES

PUBLISHED_COLUMNS = (
    "table", "row", "variant", "region", "metric", "value", "unit", "source", "note",
)  # fmt: skip
TABLE_COLUMNS = (
    "table", "row", "variant", "region", "metric", "unit", "published", "measured", "ci_low",
    "ci_high", "std", "n", "status", "comparable", "note",
)  # fmt: skip
MEASURED = "measured"
NOT_RETRAINED = "not retrained"
NOT_RUN = "not run in this profile"
LOST = "lost in the source text"
NOT_PUBLISHED = "not in the paper"

_CASES_LISTED = 20


@dataclass(frozen=True)
class Paper:
    """What the published numbers were measured on.

    data: the data set's name as `Case.dataset` has it, e.g. "BraTS2017". cases: how many of it
    the paper trained on and held out together.
    """

    title: str
    citation: str
    recipe: recipe.Recipe
    data: str
    cases: int


@dataclass(frozen=True)
class Column:
    """One printed column of a paper's table. Scores are fractions; unit "%" prints hundredfold.

    region: empty where the paper knows none (one class, whole pictures).
    """

    region: str
    metric: str = "dice"
    unit: str = "%"
    label: str = ""

    @property
    def title(self) -> str:
        """The heading: the label, else the region, else the metric."""
        return self.label or self.region or METRIC_NAMES.get(self.metric, self.metric)

    @property
    def scale(self) -> float:
        """Factor from the scores table to the printed unit."""
        return 100.0 if self.unit == "%" else 1.0


@dataclass(frozen=True)
class Row:
    """One printed row: `label` and `variant` as in published.csv.

    measured: the variant of scores.csv that answers it; None for a rival that is not retrained.
    """

    label: str
    variant: str = ""
    measured: str | None = None


@dataclass(frozen=True)
class TableSpec:
    """One table of the paper, declared by its experiment. `id` as in published.csv."""

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Picture:
    """A PNG for the report."""

    title: str
    caption: str
    path: Path


@dataclass(frozen=True)
class Run:
    """What lies in a run folder. logs: {"<variant>-<network>": log.csv}."""

    folder: Path
    recipe: recipe.Recipe
    provenance: dict[str, Any]
    scores: pd.DataFrame
    logs: dict[str, pd.DataFrame]

    @property
    def held_out(self) -> int:
        """Number of scored cases."""
        return self.scores["case"].nunique()


def load_run(folder: Path | str) -> Run:
    """Read recipe.json, provenance.json, scores.csv and training/*/log.csv.

    provenance.json needs `data_name`, `training_cases` (a number) and `profile`; whatever else it
    holds is listed in the report as it is.

    Raises:
        DataError: for a missing or unreadable file, or one without the fields above.
    """
    folder = Path(folder)
    provenance = json.loads(_text(folder / "provenance.json"))
    absent = {"data_name", "training_cases", "profile"} - provenance.keys()
    if absent:
        raise DataError(
            folder / "provenance.json",
            found=f"no {', '.join(sorted(absent))}",
            expected="the fields that a finished run writes",
            remedy="Run the experiment again.",
        )
    logs = sorted((folder / "training").glob("*/log.csv"))
    return Run(
        folder=folder,
        recipe=recipe.from_json(_text(folder / "recipe.json")),
        provenance=provenance,
        scores=pd.read_csv(io.StringIO(_text(folder / "scores.csv"))),
        logs={path.parent.name: pd.read_csv(path) for path in logs},
    )


def read_published(path: Path | str) -> pd.DataFrame:
    """Read a published.csv; an empty value stands for one that the source text lost.

    Raises:
        DataError: for a missing file, other columns, a value that is no number, or a cell twice.
    """
    text = io.StringIO(_text(Path(path)))
    table = pd.read_csv(text, dtype=str, keep_default_na=False)
    if tuple(table.columns) != PUBLISHED_COLUMNS:
        raise DataError(
            path,
            found=f"columns {','.join(table.columns)}",
            expected=",".join(PUBLISHED_COLUMNS),
            remedy="Name the columns so.",
        )
    values = pd.to_numeric(table["value"].replace("", None), errors="coerce")
    wrong = table.index[values.isna() & (table["value"] != "")]
    twice = table.index[table.duplicated(["table", "row", "variant", "region", "metric"])]
    for lines, what in ((wrong, "a value that is no number"), (twice, "a cell for a second time")):
        if len(lines):
            raise DataError(
                path,
                found=f"{what} in line {lines[0] + 2}: {','.join(table.loc[lines[0]])}",
                expected="one number (or nothing, where it is lost) for each cell",
                remedy="Correct this line.",
            )
    return table.assign(value=values)


def build_table(spec: TableSpec, published: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """One line per cell of the paper's table, in the paper's unit (columns `TABLE_COLUMNS`).

    published: from `read_published`. scores: the scores table.

    Raises:
        ValueError: when published.csv gives a cell in another unit than the column's.
    """
    metrics = list(dict.fromkeys(column.metric for column in spec.columns))
    measured = stats.summarise(scores, metrics=metrics) if len(scores) else pd.DataFrame()
    keys = ["table", "row", "variant", "region", "metric"]
    printed = {tuple(cell[k] for k in keys): cell for cell in published.to_dict("records")}
    lines = []
    for row in spec.rows:
        for column in spec.columns:
            key = (spec.id, row.label, row.variant, column.region, column.metric)
            line = dict(zip(keys, key)) | {"unit": column.unit, "comparable": ""}
            line |= _published_cell(printed.get(key), column)
            line |= _measured_cell(measured, row, column)
            lines.append(line)
    return pd.DataFrame(lines, columns=list(TABLE_COLUMNS))


def why_not_comparable(run: Run, paper: Paper) -> list[str]:
    """Plain sentences, one per reason why the measured numbers are not the paper's experiment."""
    name, reasons = run.provenance["data_name"], []
    cases = run.provenance["training_cases"] + run.held_out
    if "phantom" in name:
        reasons.append(
            "The data are synthetic (the built-in phantom), not patients: the numbers show that "
            "the method runs from end to end, not how well it segments tumours."
        )
    elif name != paper.data:
        reasons.append(f"The data are {name}; the paper's numbers were measured on {paper.data}.")
    if cases != paper.cases:
        reasons.append(
            f"{run.provenance['training_cases']} cases to train on and {run.held_out} held out; "
            f"the paper had {paper.cases} together."
        )
    changed = recipe.differences(run.recipe, paper.recipe)
    epochs, their_epochs = changed.get("train.epochs", (0, 0))
    if epochs < their_epochs:
        reasons.append(f"Training was shortened to {epochs} of the paper's {their_epochs} epochs.")
    for log_name, log in run.logs.items():
        if len(log) < run.recipe.train.epochs:
            reasons.append(
                f"Training {log_name} ended after {len(log)} of {run.recipe.train.epochs} epochs."
            )
    if changed:
        reasons.append(f"{len(changed)} recipe fields depart from the paper's (listed below).")
    return reasons


def write_report(
    folder: Path | str,
    *,
    paper: Paper,
    tables: Sequence[TableSpec],
    published: Path | str,
    expected: Sequence[Mapping[str, Any]] = (),
    comparisons: Sequence[tuple[str, str]] = (),
    figures: Sequence[Picture] = (),
    ledger: Path | str | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write table.csv, table.md and the self-contained report.html into the run folder.

    published: the paper's published.csv.
    expected: {metric, region, variant, minimum or (expected, tolerance), measured, passed}.
    comparisons: (baseline, variant) pairs of scores.csv for the paired test on Dice.
    notes: what a reader of the tables must know besides, e.g. contradictions in the paper.

    Returns:
        The path of report.html.

    Raises:
        DataError: for a file of the run or the paper that is not as it should be.
    """
    run = load_run(folder)
    cells = read_published(published)
    reasons = why_not_comparable(run, paper)
    built = [build_table(spec, cells, run.scores) for spec in tables]
    for table in built:
        table.loc[table["status"] == MEASURED, "comparable"] = "no" if reasons else "yes"
    view = {
        "paper": paper,
        "run": run,
        "tables": [_table_view(spec, table) for spec, table in zip(tables, built)],
        "reasons": reasons,
        "left_out": _left_out(built),
        "changed": recipe.differences(run.recipe, paper.recipe),
        "expected": [_expected_view(entry) for entry in expected],
        "tests": [_test_view(run.scores, *pair) for pair in comparisons],
        "figures": [_picture_view(picture) for picture in figures],
        "cases": _cases_view(run.scores),
        "ledger": _ledger_view(Path(ledger)) if ledger else None,
        "notes": list(notes),
        "provenance": _flat(run.provenance),
    }
    csv = pd.concat(built).to_csv(index=False) if built else ",".join(TABLE_COLUMNS) + "\n"
    write_atomic(run.folder / "table.csv", csv.encode())
    write_atomic(run.folder / "table.md", _render("table.md", view))
    write_atomic(run.folder / "report.html", _render("report.html", view))
    return run.folder / "report.html"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            path, found="no file", expected="a file", remedy="Run the experiment to its end."
        ) from None


def _published_cell(cell: Mapping[str, Any] | None, column: Column) -> dict[str, Any]:
    if cell is None:
        return {"published": float("nan"), "note": NOT_PUBLISHED}
    if cell["unit"] != column.unit:
        raise ValueError(
            f"{cell['table']}, {cell['row']}, {column.title}: published.csv gives the unit "
            f"{cell['unit']!r}, the column {column.unit!r}. Declare the same."
        )
    lost = pd.isna(cell["value"]) and not cell["note"]
    return {"published": cell["value"], "note": LOST if lost else cell["note"]}


def _measured_cell(measured: pd.DataFrame, row: Row, column: Column) -> dict[str, Any]:
    if row.measured is None:
        return {"status": NOT_RETRAINED}
    wanted = {"variant": row.measured, "region": column.region, "metric": column.metric}
    for name, value in wanted.items():
        measured = measured[measured[name] == value] if len(measured) else measured
    if not len(measured):
        return {"status": NOT_RUN}
    figures = measured.iloc[0]
    names = {"measured": "mean", "ci_low": "low", "ci_high": "high", "std": "std"}
    scaled = {name: figures[source] * column.scale for name, source in names.items()}
    return {"status": MEASURED, "n": int(figures["n"]), **scaled}


def _left_out(tables: Sequence[pd.DataFrame]) -> list[str]:
    missing = [
        f"{line['table']}, {_row_title(line['row'], line['variant'])}"
        for table in tables
        for _, line in table[table["status"] == NOT_RUN].iterrows()
    ]
    return list(dict.fromkeys(missing))


def _row_title(label: str, variant: str) -> str:
    return f"{label}, {variant}" if variant else label


def _table_view(spec: TableSpec, table: pd.DataFrame) -> dict[str, Any]:
    marks = {note: str(number) for number, note in enumerate(_distinct(table["note"]), 1)}
    rows = []
    for (label, variant), lines in table.groupby(["row", "variant"], sort=False):
        cells = [_cell_view(line, marks) for _, line in lines.iterrows()]
        own = any(cell["measured"] for cell in cells)
        rows.append({"title": _row_title(label, variant), "cells": cells, "own": own})
    headings = [f"{column.title} ({column.unit})" for column in spec.columns]
    return {"spec": spec, "headings": headings, "rows": rows, "footnotes": marks}


def _distinct(notes: pd.Series) -> list[str]:
    return [note for note in dict.fromkeys(notes) if note]


def _cell_view(line: pd.Series, marks: Mapping[str, str]) -> dict[str, Any]:
    view = {
        "published": "–" if pd.isna(line["published"]) else f"{line['published']:.2f}",
        "mark": marks.get(line["note"], ""),
        "status": line["status"],
        "measured": "",
        "detail": "",
    }
    if line["status"] == MEASURED:
        one = line["n"] == 1
        view["measured"] = f"{line['measured']:.2f}" + ("" if one else f" ± {line['std']:.2f}")
        interval = f"{line['ci_low']:.2f} to {line['ci_high']:.2f}, n = {line['n']:.0f}"
        view["detail"] = "one case, no interval" if one else interval
    return view


def _expected_view(entry: Mapping[str, Any]) -> dict[str, str | bool]:
    if "minimum" in entry:
        wanted = f"at least {entry['minimum']:g}"
    else:
        wanted = f"{entry['expected']:g} ± {entry['tolerance']:g}"
    measured = entry.get("measured")
    return {
        "what": ", ".join(
            str(part)
            for part in (
                METRIC_NAMES.get(entry["metric"], entry["metric"]),
                entry.get("region"),
                entry.get("variant"),
            )
            if part
        ),
        "wanted": wanted,
        "measured": "not measured" if measured is None else f"{measured:.4f}",
        "passed": bool(entry["passed"]),
    }


def _test_view(scores: pd.DataFrame, baseline: str, variant: str) -> dict[str, Any]:
    view = {"baseline": baseline, "variant": variant, "rows": [], "remark": ""}
    if {baseline, variant} - set(scores["variant"]):
        return view | {"remark": f"No paired test: one of the two was {NOT_RUN}."}
    table = stats.compare(scores, baseline, variant)
    fewest = int(table["n"].min())
    if fewest < stats.FEWEST_PAIRS:
        view["remark"] = (
            f"With n = {fewest} no paired test can reach p < 0.05: the smallest possible p of the "
            f"two-sided Wilcoxon test is {2 / 2**fewest:.2g}. At least {stats.FEWEST_PAIRS} cases "
            "are needed."
        )
    for line in table.to_dict("records"):
        points = {k: 100 * line[k] for k in ("baseline", "variant", "difference", "low", "high")}
        interval = "–" if pd.isna(line["low"]) else "{low:+.2f} to {high:+.2f}".format(**points)
        view["rows"].append(line | points | {"interval": interval})
    return view


def _picture_view(picture: Picture) -> dict[str, str]:
    content = base64.b64encode(picture.path.read_bytes()).decode()
    return {"title": picture.title, "caption": picture.caption, "data": content}


def _cases_view(scores: pd.DataFrame) -> dict[str, Any]:
    table = scores.pivot(index="case", columns=["variant", "region"], values="dice")
    order = table.mean(axis=1).sort_values(kind="stable").index[:_CASES_LISTED]
    return {
        "columns": [f"{region}, {variant}" for variant, region in table.columns],
        "rows": [(case, [f"{100 * v:.2f}" for v in table.loc[case]]) for case in order],
        "total": len(table),
    }


def _ledger_view(path: Path) -> dict[str, Any]:
    """Counts by status; entries stand in the file's one array of tables."""
    content = tomllib.loads(_text(path))
    entries = next((value for value in content.values() if isinstance(value, list)), [])
    counts = Counter(entry["status"] for entry in entries)
    departing = [entry for entry in entries if entry["status"] == "departs"]
    return {"counts": dict(counts.most_common()), "departing": departing}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _render(template: str, view: Mapping[str, Any]) -> bytes:
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=template.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template(template).render(view).encode()
