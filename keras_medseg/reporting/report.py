"""A run folder -> table.csv, table.md and report.html: published numbers beside measured ones.

Nothing is filled in: a cell that the paper's text lost, a rival that was not retrained and a
variant that this run left out are shown as just that.
"""

import base64
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from keras_medseg import recipe
from keras_medseg.errors import DataError
from keras_medseg.evaluation import statistics
from keras_medseg.evaluation.metrics import metric_label
from keras_medseg.files import parse_csv, read_file, write_atomic
from keras_medseg.runs import run_folder

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

# Scores are fractions; what a table gives in percent is printed hundredfold.
SCALES = {"%": 100.0, "mm": 1.0, "": 1.0}

_COLUMN = ["region", "metric"]
_COSTS = ["parameters", "multiply_adds", "milliseconds"]
_CASES_LISTED = 20


@dataclass(frozen=True)
class Paper:
    """What the published numbers were measured on.

    data: the data set's name as `Case.dataset` has it, e.g. "BraTS2017". cases: how many of it
    the paper trained on and held out together.
    """

    title: str
    recipe: recipe.Recipe
    data: str
    cases: int
    citation: str = ""


@dataclass(frozen=True)
class Column:
    """One printed column: `metric` of `region` (empty: one class, or whole pictures)."""

    region: str
    metric: str = "dice"


@dataclass(frozen=True)
class Row:
    """One printed row: `label` and `variant` as in published.csv.

    measured: the variant of scores.csv that answers it. otherwise: without one, why there is none.
    """

    label: str
    variant: str = ""
    measured: str | None = None
    otherwise: str = NOT_RETRAINED


@dataclass(frozen=True)
class TableSpec:
    """One table of the paper, declared by its experiment. `id` as in published.csv."""

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Figure:
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
    provenance = run_folder.read_provenance(folder)
    absent = {"data_name", "training_cases", "profile"} - provenance.keys()
    if absent:
        raise DataError(
            folder / run_folder.PROVENANCE,
            found=f"no {', '.join(sorted(absent))}",
            expected="the fields that a finished run writes",
            remedy="Run the experiment again, to its end.",
        )
    return Run(
        folder=folder,
        recipe=run_folder.read_recipe(folder / run_folder.RECIPE),
        provenance=provenance,
        scores=run_folder.read_scores(folder),
        logs=run_folder.read_logs(folder),
    )


def read_published(path: Path | str) -> pd.DataFrame:
    """Read a published.csv; an empty value stands for one that the source text lost.

    Raises:
        DataError: for a missing file, other columns, a value that is no number, or a cell twice.
    """
    table = read_file(Path(path), parse_csv, "It belongs into the experiment's folder.")
    if tuple(table.columns) != PUBLISHED_COLUMNS:
        raise DataError(
            path,
            found=f"columns {','.join(table.columns)}",
            expected=",".join(PUBLISHED_COLUMNS),
            remedy="Name the columns so.",
        )
    values = pd.to_numeric(table["value"].replace("", None), errors="coerce")
    wrong = {
        "a value that is no number": values.isna() & (table["value"] != ""),
        f"a unit other than {sorted(SCALES)}": ~table["unit"].isin(SCALES),
        "a cell for a second time": table.duplicated(["table", "row", "variant", *_COLUMN]),
        "a second unit for one metric": _unit_changes(table),
    }
    for what, lines in wrong.items():
        if lines.any():
            line = lines.idxmax()
            raise DataError(
                path,
                found=f"{what} in line {line + 2}: {','.join(table.loc[line])}",
                expected="one number for each cell (nothing where it is lost), one unit a metric",
                remedy="Correct this line.",
            )
    return table.assign(value=values)


def build_table(
    spec: TableSpec,
    published: pd.DataFrame,
    scores: pd.DataFrame,
    further_scores: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One line per cell of the paper's table, in the paper's unit (columns `TABLE_COLUMNS`).

    published: from `read_published`. scores: the scores table; a cell without scores stays empty
    and its status says why. further_scores: rows of other metrics, each of which may leave some
    out.
    """
    metrics = _distinct(column.metric for column in spec.columns)
    measured = {}
    for metric in metrics:
        of_cases = metric in scores or further_scores is None
        rows = scores if of_cases else further_scores.dropna(subset=[metric])
        measured |= _by_key(statistics.summarize(rows, metrics=[metric]), ["variant", *_COLUMN])
    ours = published[published["table"] == spec.id]
    printed = _by_key(ours, ["row", "variant", *_COLUMN])
    units = dict(zip(ours["metric"], ours["unit"]))
    lines = []
    for row in spec.rows:
        for column in spec.columns:
            unit = units.get(column.metric, "")
            line = {"table": spec.id, "row": row.label, "variant": row.variant}
            line |= asdict(column) | {"unit": unit, "comparable": ""}
            key = column.region, column.metric
            line |= _published_cell(printed.get((row.label, row.variant, *key)))
            found = measured.get((row.measured, *key))
            lines.append(line | _measured_cell(row, found, SCALES[unit]))
    return pd.DataFrame(lines, columns=list(TABLE_COLUMNS))


def why_not_comparable(run: Run, paper: Paper) -> list[str]:
    """Plain sentences, one per reason why the measured numbers are not the paper's experiment."""
    name, reasons = run.provenance["data_name"], []
    cases = run.provenance["training_cases"] + run.held_out
    if "phantom" in name:
        reasons.append(
            "The data are synthetic (the built-in phantom), not patients: the numbers show that "
            "the method runs from end to end, not how well it segments."
        )
    elif name != paper.data:
        reasons.append(f"The data are {name}; the paper's numbers were measured on {paper.data}.")
    if cases != paper.cases:
        reasons.append(
            f"{run.provenance['training_cases']} cases to train on and {run.held_out} held out; "
            f"the paper had {paper.cases} together."
        )
    changed = departures(run, paper)
    epochs, their_epochs = changed.get("train.epochs", (0, 0))
    if epochs < their_epochs:
        reasons.append(f"Training was shortened to {epochs} of the paper's {their_epochs} epochs.")
    for log_name, log in run.logs.items():
        if len(log) < run.recipe.train.epochs:
            done = f"{len(log)} of {run.recipe.train.epochs} epochs"
            reasons.append(f"Training {_spaced(log_name)} ended after {done}.")
    if changed:
        reasons.append(f"Recipe fields that depart from the paper's, listed below: {len(changed)}.")
    return reasons


def departures(run: Run, paper: Paper) -> dict[str, tuple[Any, Any]]:
    """Recipe fields that are not the paper's: {field: (this run's, paper's)}.

    Not those that the paper's recipe leaves to the data (None).
    """
    changed = recipe.differences(run.recipe, paper.recipe)
    left_open = {k for k, v in recipe.fields(paper.recipe).items() if v is None}
    return {name: values for name, values in changed.items() if name not in left_open}


def write_report(
    folder: Path | str,
    *,
    paper: Paper,
    tables: Sequence[TableSpec],
    published: Path | str,
    expected: Sequence[Mapping[str, Any]] = (),
    comparisons: Sequence[tuple[str, str]] = (),
    costs: pd.DataFrame | None = None,
    further_scores: pd.DataFrame | None = None,
    figures: Sequence[Figure] = (),
    ledger: Path | str | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write table.csv, tests.csv, table.md and the self-contained report.html into the run folder.

    published: the paper's published.csv.
    expected: {metric, region, variant, minimum, maximum (None: no limit) or (expected, tolerance),
        measured, passed}.
    comparisons: (baseline, variant) pairs of scores.csv for the paired tests, on every metric of
        the tables that single cases have.
    costs: from `pipeline.network_costs`.
    further_scores: rows for the tables that are no single case's.
    notes: what a reader of the tables must know besides, e.g. contradictions in the paper.

    Returns:
        The path of report.html.

    Raises:
        DataError: for a file of the run or the paper that is not as it should be.
    """
    run = load_run(folder)
    cells = read_published(published)
    reasons = why_not_comparable(run, paper)
    built = [build_table(spec, cells, run.scores, further_scores) for spec in tables]
    for table in built:
        table.loc[table["status"] == MEASURED, "comparable"] = "no" if reasons else "yes"
    columns = pd.concat(built) if built else pd.DataFrame(columns=list(TABLE_COLUMNS))
    units = dict(zip(columns["metric"], columns["unit"]))
    metrics = [name for name in units if name in run.scores]
    tests = {pair: _paired_tests(run.scores, metrics, *pair) for pair in comparisons}
    lines = [] if costs is None else costs.to_dict("records")
    prices = {line["variant"]: _cost_view(line) for line in lines}
    view = {
        "paper": paper,
        "run": run,
        "tables": [_table_view(spec, table, prices) for spec, table in zip(tables, built)],
        "reasons": reasons,
        "left_out": _left_out(built),
        "changed": departures(run, paper),
        "expected": [_expected_view(entry) for entry in expected],
        "tests": [_test_view(table, units, *pair) for pair, table in tests.items()],
        "costs": list(prices.values()),
        "figures": [_figure_view(figure) for figure in figures],
        "cases": _cases_view(run.scores),
        "ledger": _ledger_view(Path(ledger)) if ledger else None,
        "notes": list(notes),
        "provenance": _flat(run.provenance),
    }
    _write_tables(run.folder, columns, tests)
    for name in ("table.md", "report.html"):
        write_atomic(run.folder / name, _render(name, view))
    return run.folder / "report.html"


def _write_tables(
    folder: Path, cells: pd.DataFrame, tests: Mapping[tuple[str, str], pd.DataFrame]
) -> None:
    write_atomic(folder / "table.csv", cells.to_csv(index=False).encode())
    if tests:
        csv = pd.concat(tests, names=["baseline_variant", "compared_variant"]).droplevel(2)
        write_atomic(folder / "tests.csv", csv.to_csv().encode())


def _unit_changes(published: pd.DataFrame) -> pd.Series:
    first = published.groupby(["table", "metric"])["unit"].transform("first")
    return published["unit"] != first


def _by_key(table: pd.DataFrame, key: list[str]) -> dict[tuple, dict[str, Any]]:
    return {tuple(line[k] for k in key): line for line in table.to_dict("records")}


def _published_cell(cell: Mapping[str, Any] | None) -> dict[str, Any]:
    if cell is None:
        return {"published": float("nan"), "note": NOT_PUBLISHED}
    note = cell["note"] or (LOST if pd.isna(cell["value"]) else "")
    return {"published": cell["value"], "note": note}


def _measured_cell(row: Row, found: Mapping[str, Any] | None, scale: float) -> dict[str, Any]:
    if found is None:
        return {"status": NOT_RUN if row.measured else row.otherwise}
    names = {"measured": "mean", "ci_low": "low", "ci_high": "high", "std": "std"}
    scaled = {name: scale * found[source] for name, source in names.items()}
    return {"status": MEASURED, "n": int(found["n"]), **scaled}


def _left_out(tables: Sequence[pd.DataFrame]) -> list[str]:
    missing = pd.concat(tables).query("status == @NOT_RUN") if tables else pd.DataFrame()
    if not len(missing):
        return []
    rows = missing.groupby(["table", "row", "variant"], sort=False)["region"].agg(_distinct)
    return [
        ": ".join(filter(None, (f"{table}, {_row_title(label, variant)}", ", ".join(regions))))
        for (table, label, variant), regions in rows.items()
    ]


def _row_title(label: str, variant: str) -> str:
    return f"{label}, {variant}" if variant else label


def _table_view(
    spec: TableSpec, table: pd.DataFrame, prices: Mapping[str, dict[str, str]]
) -> dict[str, Any]:
    """prices: of a variant, as `_cost_view` has them."""
    measured = {(row.label, row.variant): row.measured for row in spec.rows}
    marks = {note: str(number) for number, note in enumerate(_distinct(table["note"]), 1)}
    rows = []
    for (label, variant), lines in table.groupby(["row", "variant"], sort=False):
        cells = [_cell_view(line, marks) for _, line in lines.iterrows()]
        own = any(cell["measured"] for cell in cells)
        price = prices.get(measured[label, variant]) if own else None
        cost = [price[name] if price else "" for name in _COSTS]
        title = _row_title(label, variant)
        rows.append({"title": title, "cells": cells, "own": own, "cost": cost})
    units = dict(zip(table["metric"], table["unit"]))
    headings = [_heading(column, spec, units[column.metric]) for column in spec.columns]
    priced = any(any(row["cost"]) for row in rows)
    return {
        "spec": spec, "headings": headings, "rows": rows, "footnotes": marks, "priced": priced,
    }  # fmt: skip


def _heading(column: Column, spec: TableSpec, unit: str) -> str:
    metrics = {column.metric for column in spec.columns}
    metric = metric_label(column.metric)
    name = column.region if len(metrics) == 1 else f"{column.region} {metric}".strip()
    name = name or metric
    return f"{name} ({unit})" if unit else name


def _distinct(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _cell_view(line: pd.Series, marks: Mapping[str, str]) -> dict[str, Any]:
    names = ("published", "measured", "std", "ci_low", "ci_high")
    shown = {name: _number(line[name], line["unit"]) for name in names}
    view = {
        "published": shown["published"],
        "mark": marks.get(line["note"], ""),
        "status": line["status"],
        "measured": "",
        "detail": "",
    }
    if line["status"] == MEASURED:
        one = line["n"] == 1
        view["measured"] = shown["measured"] + ("" if one else f" ± {shown['std']}")
        interval = f"{shown['ci_low']} to {shown['ci_high']}, n = {line['n']:.0f}"
        view["detail"] = "one case, no interval" if one else interval
    return view


def _number(value: float, unit: str, sign: str = "") -> str:
    # Without a unit: fractions such as an MAE of 0.003, of which two decimals would leave nothing.
    decimals = 2 if unit or abs(value) >= 10 else 4
    return "–" if pd.isna(value) else f"{value:{sign}.{decimals}f}"


def _expected_view(entry: Mapping[str, Any]) -> dict[str, str | bool]:
    if entry.get("maximum") is not None:
        wanted = f"{entry['minimum']:g} to {entry['maximum']:g}"
    elif "minimum" in entry:
        wanted = f"at least {entry['minimum']:g}"
    else:
        wanted = f"{entry['expected']:g} ± {entry['tolerance']:g}"
    name, measured = metric_label(entry["metric"]), entry["measured"]
    return {
        "what": f"{name} {entry['region']}, {_spaced(entry['variant'])}",
        "wanted": wanted,
        "measured": "not measured" if measured is None else f"{measured:.4f}",
        "passed": bool(entry["passed"]),
    }


def _spaced(variant: str) -> str:
    return variant.replace("_", " ")


def _paired_tests(
    scores: pd.DataFrame, metrics: Sequence[str], baseline: str, variant: str
) -> pd.DataFrame:
    """`statistics.compare` for each metric, p_holm over all rows; empty where one was not run."""
    of = {
        name: set(scores.loc[scores["variant"] == name, "region"]) for name in (baseline, variant)
    }
    both = scores[scores["region"].isin(of[baseline] & of[variant])]
    if both.empty or not metrics:
        return pd.DataFrame()
    table = pd.concat([statistics.compare(both, baseline, variant, metric) for metric in metrics])
    return table.assign(p_holm=statistics.holm(table["p"]))


def _test_view(
    table: pd.DataFrame, units: Mapping[str, str], baseline: str, variant: str
) -> dict[str, Any]:
    view = {"baseline": _spaced(baseline), "variant": _spaced(variant), "rows": [], "remark": ""}
    if table.empty:
        return view | {"remark": f"No paired test: one of the two was {NOT_RUN}."}
    for line in table.to_dict("records"):
        unit = units[line["metric"]]
        signs = {"baseline": "", "variant": "", "difference": "+", "low": "+", "high": "+"}
        points = {k: _number(SCALES[unit] * line[k], unit, sign) for k, sign in signs.items()}
        interval = "–" if pd.isna(line["low"]) else "{low} to {high}".format(**points)
        metric = metric_label(line["metric"]) + (f" ({unit})" if unit else "")
        view["rows"].append(line | points | {"interval": interval, "metric": metric})
    fewest = int(table["n"].min())
    if fewest < statistics.FEWEST_PAIRS:
        view["remark"] = (
            f"With n = {fewest} no paired test can reach p < 0.05: the smallest possible p of the "
            f"two-sided Wilcoxon test is {2 / 2**fewest:.2g}. It takes at least "
            f"{statistics.FEWEST_PAIRS} cases."
        )
    return view


def _cost_view(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "variant": _spaced(row["variant"]),
        "networks": str(row["networks"]),
        "parameters": f"{row['parameters']:,}",
        "multiply_adds": f"{row['multiply_adds'] / 1e9:,.2f}",
        "milliseconds": f"{row['seconds_per_input'] * 1e3:,.0f}",
    }


def _figure_view(figure: Figure) -> dict[str, str]:
    content = base64.b64encode(figure.path.read_bytes()).decode()
    return {"title": figure.title, "caption": figure.caption, "data": content}


def _cases_view(scores: pd.DataFrame) -> dict[str, Any]:
    table = scores.pivot(index="case", columns=["variant", "region"], values="dice")
    order = table.mean(axis=1).sort_values(kind="stable").index[:_CASES_LISTED]
    return {
        "columns": [f"{region} {_spaced(variant)}" for variant, region in table.columns],
        "rows": [(case, [_percent(value) for value in table.loc[case]]) for case in order],
        "total": len(table),
    }


def _percent(fraction: float) -> str:
    return "–" if pd.isna(fraction) else f"{100 * fraction:.2f}"


def _ledger_view(path: Path) -> dict[str, Any]:
    """Counts by status; entries stand in the file's one array of tables."""
    content = read_file(path, tomllib.loads, "It belongs into the experiment's folder.")
    entries = next((value for value in content.values() if isinstance(value, list)), [])
    counts = Counter(entry["status"] for entry in entries)
    departing = [entry for entry in entries if entry["status"] == "departs"]
    return {"counts": dict(counts.most_common()), "departing": departing}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = dict(enumerate(value, 1))
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
