"""The report of a run: tables (CSV and Markdown), and report.html, which is self-contained."""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from keras_medseg.errors import DataError
from keras_medseg.evaluation import statistics
from keras_medseg.evaluation.metrics import metric_label
from keras_medseg.files import read_file, write_atomic
from keras_medseg.recipe import Recipe, differences
from keras_medseg.reporting import pages, viewer
from keras_medseg.reporting.tables import (
    MEASURED,
    NOT_RUN,
    SCALES,
    TABLE_COLUMNS,
    Column,
    Reference,
    TableSpec,
    build_table,
    distinct,
    own_tables,
    read_published,
    spaced,
)

NOT_COMPARABLE = "Not comparable with the paper"
OWN_RECIPE = "Recipe of your own"
SAME_RECIPE = "Same recipe as ours"
COMPARABLE = "Comparable with the paper"

ORDER_RULE = (
    "Confirmed or reversed: the 95 % interval of the mean difference lies on one side of 0, and "
    "the paired test has p < 0.05 after Holm's correction for all orders here; otherwise "
    "undecided. "
)
ONE_TRAINING = (
    "One training per variant: how much two trainings of one recipe differ is not in these numbers."
)

_COSTS = ["sizes", "multiply_adds", "milliseconds", "minutes"]
_CASES_LISTED = 20


@dataclass(frozen=True)
class RunData:
    """What a run did and measured.

    Attributes:
        recipe: of the run, without the changes of its variants.
        provenance: `data_name`, `training_cases` (a number), `profile` (if there is one), and
            anything else that the report lists.
        scores: scores.csv, one row per variant, case and region.
        logs: "<variant>-<network>" -> log of the training, one row per epoch.

    Raises:
        DataError: the provenance lacks a field.
    """

    recipe: Recipe
    provenance: dict[str, Any]
    scores: pd.DataFrame
    logs: dict[str, pd.DataFrame]

    def __post_init__(self) -> None:
        absent = {"data_name", "training_cases"} - self.provenance.keys()
        if absent:
            raise DataError(
                "provenance",
                found=f"no {', '.join(sorted(absent))}",
                expected="the fields that a finished run writes",
                remedy="Run the experiment again, to its end.",
            )

    @property
    def scored_cases(self) -> int:
        """Number of scored cases."""
        return self.scores["case"].nunique()

    @property
    def steering_cases(self) -> int:
        """Number of validation cases that are not scored, because there is a test side."""
        return len(self.provenance["validation_cases"]) if self.scored_side == "test" else 0

    @property
    def folds(self) -> int:
        """Number of folds; 0 for a single split."""
        return self.provenance.get("folds", 0)

    @property
    def seeds(self) -> int:
        """Number of trainings of each network on a split."""
        return self.scores["seed"].nunique() if "seed" in self.scores else 1

    @property
    def all_cases(self) -> int:
        """Number of cases on all sides together."""
        rest = self.provenance["training_cases"] + self.steering_cases
        return self.scored_cases + (0 if self.folds else rest)

    @property
    def scored_side(self) -> str:
        """What the scored cases are called: "test" or "validation"."""
        return "test" if self.provenance.get("test_cases") else "validation"


@dataclass(frozen=True)
class Declaration:
    """What a report shows beside the run's own numbers.

    Attributes:
        reference: the published experiment; None for a user's own data.
        tables: in the order of the report; by default `own_tables` if there is no reference.
        published: path of published.csv; without it, tables have only measured numbers.
        ledger: path of ledger.toml.
        comparisons: (baseline, variant) pairs for the paired tests, on every metric of the tables
            that single cases have.
        notes: what a reader of the tables must know in addition, such as contradictions in the
            paper.
    """

    reference: Reference | None = None
    tables: tuple[TableSpec, ...] = ()
    published: Path | None = None
    ledger: Path | None = None
    comparisons: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportFigure:
    """A PNG for the report."""

    title: str
    caption: str
    path: Path


def write_report(
    folder: Path | str,
    run: RunData,
    declared: Declaration,
    *,
    expected: Sequence[Mapping[str, Any]] = (),
    orders: Sequence[Mapping[str, Any]] = (),
    costs: pd.DataFrame | None = None,
    further_scores: pd.DataFrame | None = None,
    figures: Sequence[ReportFigure] = (),
    shown: Mapping[str, Any] | None = None,
) -> Path:
    """Write table.csv, tests.csv, orders.csv, table.md and report.html into a folder.

    Args:
        folder: of the run.
        run: what the run did and measured.
        declared: what the report shows beside the run's own numbers.
        expected: for every expectation {metric, region, variant, minimum, maximum (None: no limit),
            measured (None: not measured), passed}.
        orders: the paper's orders, from `runs.expectations.judge_orders`.
        costs: the columns variant, networks, parameters, largest_network, multiply_adds,
            seconds_per_input, training_epochs and training_seconds.
        further_scores: rows for the tables with scores that do not belong to single cases.
        figures: in the order of the report.
        shown: the cases of the slice viewer, from `viewer.encode`.

    Returns:
        The path of report.html.

    Raises:
        DataError: published.csv or ledger.toml is missing or damaged.
    """
    folder = Path(folder)
    specs = declared.tables or (() if declared.reference else own_tables(run.scores))
    published = None if declared.published is None else read_published(declared.published)
    tables = [build_table(spec, published, run.scores, further_scores) for spec in specs]
    standing = _standing(run, declared)
    for table in tables if declared.reference else ():
        table.loc[table["status"] == MEASURED, "comparable"] = standing["comparable"]
    cells = pd.concat(tables) if tables else pd.DataFrame(columns=list(TABLE_COLUMNS))
    units = dict(zip(cells["metric"], cells["unit"]))
    metrics = [name for name in units if name in run.scores]
    tests = {pair: _paired_tests(run.scores, metrics, *pair) for pair in declared.comparisons}
    prices = _cost_views(costs)
    beside = prices if declared.published else {}
    view = _declared_view(run, declared) | {
        "tables": [_table_view(*pair, beside) for pair in zip(specs, tables)],
        **standing,
        "left_out": _left_out(tables),
        **_orders_view(orders, units, run.seeds),
        "expected": [_expected_view(entry) for entry in expected],
        "tests": [_test_view(table, units, *pair) for pair, table in tests.items()],
        "costs": list(prices.values()),
        "figures": [_figure_view(figure) for figure in figures],
        **_shown_view(shown),
    }
    _write_tables(folder, cells, tests, orders)
    return _write_pages(folder, view)


def why_not_comparable(run: RunData, reference: Reference) -> list[str]:
    """Explain what a run does not share with the reproduction of the published experiment.

    Returns:
        One or two sentences for each reason; empty if data, number of cases and recipe are those of
        `reference`. What that recipe does not share with the paper is in the ledger.
    """
    name, reasons = run.provenance["data_name"], []
    if "phantom" in name:
        reasons.append(
            "The data are synthetic (the built-in phantom), not patients: the numbers show that "
            "the method runs from end to end, not how well it segments."
        )
    elif name != reference.data:
        reasons.append(
            f"The data are {name}; the paper's numbers were measured on {reference.data}."
        )
    if run.all_cases != reference.cases:
        reasons.append(f"{_sides(run)}; the paper had {_count(reference.cases, 'case')} together.")
    changed = differences(run.recipe, reference.recipe)
    epochs, their_epochs = changed.get("train.epochs", (0, 0))
    if epochs < their_epochs:
        reasons.append(f"Training was shortened to {epochs} of the paper's {their_epochs} epochs.")
    for log_name, log in run.logs.items():
        if len(log) < run.recipe.train.epochs:
            done = f"{len(log)} of {run.recipe.train.epochs} epochs"
            reasons.append(f"Training {spaced(log_name)} ended after {done}.")
    if changed:
        reasons.append(f"Recipe fields that depart from the paper's, listed below: {len(changed)}.")
    return reasons


def _sides(run: RunData) -> str:
    """The numbers of cases, such as "2 training cases and 3 validation cases"."""
    parts = [_count(run.provenance["training_cases"], "training case")]
    if run.steering_cases:
        parts.append(_count(run.steering_cases, "validation case"))
    sides = ", ".join(parts) + f" and {_count(run.scored_cases, f'{run.scored_side} case')}"
    return f"{sides} of {run.folds} folds" if run.folds else sides


def _standing(run: RunData, declared: Declaration) -> dict[str, Any]:
    """How far the numbers of a run can be compared with published ones.

    "Comparable" is kept for a run without a reason against it (`why_not_comparable`) of a recipe
    whose ledger has neither departures nor choices, on a split that the paper names.

    Returns:
        comparable (as in table.csv), heading, open_points (a phrase that counts them) and reasons
        (sentences).
    """
    if declared.reference is None:
        return {"comparable": "", "heading": OWN_RECIPE, "open_points": "", "reasons": []}
    reasons = why_not_comparable(run, declared.reference)
    counts = _ledger_view(declared.ledger)["counts"] if declared.ledger else None
    phrases, sentences = _open_points(counts, declared.reference.split_known)
    if reasons:
        comparable, heading = "no", NOT_COMPARABLE
    elif counts is None:
        comparable, heading = "no", OWN_RECIPE
    elif phrases:
        comparable, heading = "same recipe as ours", SAME_RECIPE
    else:
        comparable, heading = "yes", COMPARABLE
    return {
        "comparable": comparable,
        "heading": heading,
        "open_points": ", ".join(phrases),
        "reasons": reasons + sentences,
    }


def _open_points(
    counts: Mapping[str, int] | None, split_known: bool
) -> tuple[list[str], list[str]]:
    """Phrases and sentences on what stands between a reproduction's recipe and the paper.

    Args:
        counts: ledger entries by status; None without a ledger.
        split_known: see `Reference`.
    """
    phrases, sentences = [], []
    if counts is None:
        sentences.append("No ledger says in which points this recipe is that of the paper.")
    elif departures := counts.get("departs", 0):
        phrases.append(f"{_count(departures, 'departure')} from the paper")
        sentences.append(f"By the ledger, the recipe departs from the paper {_times(departures)}.")
    if counts and (choices := counts.get("chosen", 0)):
        phrases.append(_count(choices, "choice"))
        sentences.append(
            f"By the ledger, it makes a choice {_times(choices)}, where the paper is silent or "
            "contradicts itself."
        )
    if not split_known:
        phrases.append("unknown split")
        sentences.append("The paper does not name its cases of each side; here others are scored.")
    return phrases, sentences


def _times(number: int) -> str:
    return f"in {_count(number, 'point')}"


def _declared_view(run: RunData, declared: Declaration) -> dict[str, Any]:
    """What the templates show of the run and the declaration without computing anything."""
    reference = declared.reference
    own_title = f"{run.recipe.model.name} on {run.provenance['data_name']}"
    return {
        "kind": "Training report" if reference is None else "Reproduction report",
        "name": run.recipe.name,
        "title": own_title if reference is None else reference.title,
        "reference": reference,
        "published": declared.published is not None,
        "profile": run.provenance.get("profile", ""),
        "training": _count(run.provenance["training_cases"], "training case"),
        "scored": _count(run.scored_cases, f"{run.scored_side} case"),
        "steering": _count(run.steering_cases, "validation case") if run.steering_cases else "",
        "scored_side": run.scored_side,
        "grouped": _grouped(run.scores),
        "seeds": run.seeds,
        "in_folds": f"{_count(run.folds, 'fold')}, the first with " if run.folds else "",
        "run": run,
        "changed": {} if reference is None else differences(run.recipe, reference.recipe),
        "cases": _cases_view(run.scores),
        "ledger": _ledger_view(declared.ledger) if declared.ledger else None,
        "ledger_file": "/".join(declared.ledger.parts[-3:]) if declared.ledger else "",
        "notes": list(declared.notes),
        "provenance": _flat(run.provenance),
    }


def _write_pages(folder: Path, view: Mapping[str, Any]) -> Path:
    """Write table.md and report.html; the path of the latter."""
    for name in ("table.md", "report.html"):
        write_atomic(folder / name, pages.render(name, view))
    return folder / "report.html"


def _write_tables(
    folder: Path,
    cells: pd.DataFrame,
    tests: Mapping[tuple[str, str], pd.DataFrame],
    orders: Sequence[Mapping[str, Any]],
) -> None:
    write_atomic(folder / "table.csv", cells.to_csv(index=False).encode())
    if tests:
        csv = pd.concat(tests, names=["baseline_variant", "compared_variant"]).droplevel(2)
        write_atomic(folder / "tests.csv", csv.to_csv().encode())
    if orders:
        write_atomic(folder / "orders.csv", pd.DataFrame(orders).to_csv(index=False).encode())


def _left_out(tables: Sequence[pd.DataFrame]) -> list[str]:
    """Rows with cells that this profile does not measure, as "<table>, <row>: <regions>".

    Where another metric of the region was measured in the row, its own metric is named too.
    """
    rows: dict[str, list[str]] = {}
    for table in tables:
        done = table[table["status"] == MEASURED]
        measured = {*zip(done["row"], done["variant"], done["region"])}
        for line in table[table["status"] == NOT_RUN].to_dict("records"):
            title = f"{line['table']}, {_row_title(line['row'], line['variant'])}"
            if (line["row"], line["variant"], line["region"]) in measured:
                title += f", {line['metric']}"
            rows.setdefault(title, []).append(line["region"])
    found = {title: ", ".join(distinct(regions)) for title, regions in rows.items()}
    return [f"{title}: {regions}" if regions else title for title, regions in found.items()]


def _row_title(label: str, variant: str) -> str:
    return f"{label}, {variant}" if variant else label


def _table_view(
    spec: TableSpec, table: pd.DataFrame, prices: Mapping[str | None, dict[str, str]]
) -> dict[str, Any]:
    """What the templates show of one table.

    Args:
        spec: the table's declaration.
        table: its cells, from `build_table`.
        prices: variant -> `_cost_view`, shown beside its scores.
    """
    marks = {note: str(number) for number, note in enumerate(distinct(table["note"]), 1)}
    rows, priced = [], False
    for row in spec.rows:
        lines = table[(table["row"] == row.label) & (table["variant"] == row.variant)]
        cells = [_cell_view(line, marks) for line in lines.to_dict("records")]
        own = any(cell["measured"] for cell in cells)
        price = prices.get(row.measured) if own else None
        priced = priced or price is not None
        cost = [price[name] if price else "" for name in _COSTS]
        title = _row_title(row.label, row.variant)
        rows.append({"title": title, "cells": cells, "own": own, "cost": cost})
    units = table["unit"].iloc[: len(spec.columns)]  # units of the first row
    headings = [_heading(column, spec, unit) for column, unit in zip(spec.columns, units)]
    return {
        "spec": spec, "headings": headings, "rows": rows, "footnotes": marks, "priced": priced,
    }  # fmt: skip


def _heading(column: Column, spec: TableSpec, unit: str) -> str:
    metrics = {column.metric for column in spec.columns}
    metric = metric_label(column.metric)
    name = column.region if len(metrics) == 1 else f"{column.region} {metric}".strip()
    name = name or metric
    return f"{name} ({unit})" if unit else name


def _cell_view(line: Mapping[Any, Any], marks: Mapping[str, str]) -> dict[str, Any]:
    names = ("published", "measured", "std", "ci_low", "ci_high", "group_mean", "seed_std")
    shown = {name: _number(line[name], line["unit"]) for name in names}
    view = {
        "published": shown["published"],
        "mark": marks.get(line["note"], ""),
        "status": line["status"],
        "measured": "",
        "detail": "",
        "over_groups": "",
        "over_seeds": "",
    }
    if line["status"] == MEASURED:
        one = line["n"] == 1
        view["measured"] = shown["measured"] + ("" if one else f" ± {shown['std']}")
        interval = f"{shown['ci_low']} to {shown['ci_high']}"
        if pd.isna(line["ci_low"]):
            interval = f"one {'case' if one else 'group'}, no interval"
        counted = "" if one else f", n = {line['n']:.0f}"
        view["detail"] = interval + counted
        if 1 < line["groups"] < line["n"]:
            view["over_groups"] = f"{line['groups']:.0f} groups: {shown['group_mean']}"
        if line["seeds"] > 1:
            view["over_seeds"] = f"{line['seeds']:.0f} seeds ± {shown['seed_std']}"
    return view


def _grouped(scores: pd.DataFrame) -> bool:
    """Whether a group has several cases, so that intervals and tests are over groups."""
    return statistics.groups_of(scores).nunique() < scores["case"].nunique()


def _units(line: Mapping[Any, Any]) -> str:
    """The number of cases, and that of their groups where a group has several."""
    cases, groups = int(line["n"]), int(line["groups"])
    return f"{cases}" if groups == cases else f"{cases} in {_count(groups, 'group')}"


def _number(value: float, unit: str, sign: str = "") -> str:
    # Cells without a unit are fractions such as an MAE of 0.003, which two decimals would round
    # to 0.
    decimals = 2 if unit or abs(value) >= 10 else 4
    return "–" if pd.isna(value) else f"{value:{sign}.{decimals}f}"


def _expected_view(entry: Mapping[str, Any]) -> dict[str, str | bool]:
    wanted = f"at least {entry['minimum']:g}"
    if entry.get("maximum") is not None:
        wanted = f"{entry['minimum']:g} to {entry['maximum']:g}"
    name, measured = metric_label(entry["metric"]), entry["measured"]
    return {
        "what": f"{name} {entry['region']}, {spaced(entry['variant'])}",
        "wanted": wanted,
        "measured": "not measured" if measured is None else f"{measured:.4f}",
        "passed": bool(entry["passed"]),
    }


def _paired_tests(
    scores: pd.DataFrame, metrics: Sequence[str], baseline: str, variant: str
) -> pd.DataFrame:
    """`statistics.compare` for each metric, p_holm over all rows; empty if a variant is missing."""
    first, second = (
        set(scores.loc[scores["variant"] == name, "region"]) for name in (baseline, variant)
    )
    both = scores[scores["region"].isin(list(first & second))]
    if both.empty or not metrics:
        return pd.DataFrame()
    table = pd.concat([statistics.compare(both, baseline, variant, metric) for metric in metrics])
    return table.assign(p_holm=statistics.holm(table["p"]))


def _test_view(
    table: pd.DataFrame, units: Mapping[str, str], baseline: str, variant: str
) -> dict[str, Any]:
    view: dict[str, Any] = {"baseline": spaced(baseline), "variant": spaced(variant)}
    view |= {"rows": [], "remark": ""}
    if table.empty:
        return view | {"remark": f"No paired test: one of the two was {NOT_RUN}."}
    for line in table.to_dict("records"):
        unit = units[line["metric"]]
        signs = {"baseline": "", "variant": "", "difference": "+", "low": "+", "high": "+"}
        points = {k: _number(SCALES[unit] * line[k], unit, sign) for k, sign in signs.items()}
        metric = metric_label(line["metric"]) + (f" ({unit})" if unit else "")
        view["rows"].append(line | points | _pair_view(line, unit) | {"metric": metric})
    fewest = int(table["groups"].min())
    what = "groups" if (table["groups"] < table["n"]).any() else "cases"
    if fewest < statistics.FEWEST_PAIRS and (table["seeds"] == 1).all():
        view["remark"] = (
            f"With {fewest} {what} no paired test can reach p < 0.05: the smallest possible p of "
            f"the two-sided Wilcoxon test is {2 / 2**fewest:.2g}. It takes at least "
            f"{statistics.FEWEST_PAIRS} {what}."
        )
    return view


def _pair_view(line: Mapping[Any, Any], unit: str) -> dict[str, str]:
    """Interval, number of units and mean difference over groups of one paired comparison."""
    low, high, over = (
        _number(SCALES[unit] * line[name], unit, "+")
        for name in ("low", "high", "group_difference")
    )
    spread = f"{line['seeds']} seeds ± {_number(SCALES[unit] * line['seed_std'], unit)}"
    return {
        "interval": "–" if pd.isna(line["low"]) else f"{low} to {high}",
        "units": _units(line),
        "over_groups": over if line["groups"] < line["n"] else "",
        "over_seeds": spread if line["seeds"] > 1 else "",
    }


def _orders_view(
    orders: Sequence[Mapping[str, Any]], units: Mapping[str, str], seeds: int
) -> dict[str, Any]:
    """The orders under the sentence that they test, and the number of each verdict."""
    sentences: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for order in orders:
        key = order["where"], order["says"]
        sentences.setdefault(key, []).append(_order_view(order, units))
    counts = Counter(order["verdict"] for order in orders)
    spread = f"Interval and test include the spread between {seeds} trainings of each variant."
    return {
        "sentences": [
            {"where": where, "says": says, "rows": rows}
            for (where, says), rows in sentences.items()
        ],
        "order_counts": {name: counts[name] for name in ("confirmed", "reversed", "undecided")},
        "order_rule": ORDER_RULE + (spread if seeds > 1 else ONE_TRAINING),
    }


def _order_view(order: Mapping[str, Any], units: Mapping[str, str]) -> dict[str, Any]:
    """What the templates show of one order of the paper."""
    unit = units.get(order["metric"], "")
    metric = metric_label(order["metric"]) + (f" in {unit}" if unit else "")
    return {
        **order,
        **_pair_view(order, unit),
        "what": f"{spaced(order['better'])} better than {spaced(order['worse'])}",
        "measure": f"{metric}, {order['region']}",
        "difference": _number(SCALES[unit] * order["difference"], unit, "+"),
    }


def _cost_views(costs: pd.DataFrame | None) -> dict[str | None, dict[str, str]]:
    """Variant -> what the templates say of its costs."""
    rows = [] if costs is None else costs.to_dict("records")
    return {row["variant"]: _cost_view(row) for row in rows}


def _cost_view(row: Mapping[Any, Any]) -> dict[str, str]:
    epochs, seconds = row["training_epochs"], row["training_seconds"]
    return {
        "variant": spaced(row["variant"]),
        "networks": str(row["networks"]),
        "parameters": _parameters(row, total=True),
        "sizes": _parameters(row, total=False),
        "multiply_adds": f"{row['multiply_adds'] / 1e9:,.2f}",
        "milliseconds": f"{row['seconds_per_input'] * 1e3:,.0f}",
        "minutes": f"{seconds / 60:,.1f}",
        "epoch": f"{seconds / epochs:,.1f}" if epochs else "–",
    }


def _parameters(row: Mapping[Any, Any], *, total: bool) -> str:
    """Of one network, or of several such as "3 x 570,265", and = 1,710,795 if `total`."""
    networks, together, one = row["networks"], row["parameters"], row["largest_network"]
    if networks == 1 or networks * one != together:
        return f"{together:,}"
    return f"{networks} x {one:,}" + (f" = {together:,}" if total else "")


def _figure_view(figure: ReportFigure) -> dict[str, str]:
    data = pages.embedded(figure.path)
    return {"title": figure.title, "caption": figure.caption, "data": data}


def _shown_view(shown: Mapping[str, Any] | None) -> dict[str, Any]:
    """The viewer, what it leaves out, and the cases that a link opens in it."""
    if shown is None:
        return {"viewer": None, "limits": "", "shown": set()}
    cases = {case["id"] for case in shown["cases"]}
    return {"viewer": shown, "limits": viewer.limits(shown), "shown": cases}


def _cases_view(scores: pd.DataFrame) -> dict[str, Any]:
    scores = statistics.over_seeds(scores)
    table = scores.pivot(index="case", columns=["variant", "region"], values="dice")
    order = table.mean(axis=1).sort_values(kind="stable").index[:_CASES_LISTED]
    pairs: list[Any] = table.columns.to_list()
    return {
        "columns": [f"{region} {spaced(variant)}" for variant, region in pairs],
        "rows": [(case, [_percent(value) for value in table.loc[case]]) for case in order],
        "total": len(table),
    }


def _percent(fraction: float) -> str:
    return "–" if pd.isna(fraction) else f"{100 * fraction:.2f}"


def _ledger_view(path: Path) -> dict[str, Any]:
    """Number of ledger entries by status, and the entries that depart or are choices."""
    content = read_file(path, tomllib.loads, "It belongs in the experiment's folder.")
    entries = next((value for value in content.values() if isinstance(value, list)), [])
    counts = Counter(entry["status"] for entry in entries)
    listed = {
        status: [entry for entry in entries if entry["status"] == status]
        for status in ("departs", "chosen")
    }
    return {"counts": dict(counts.most_common()), **listed}


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = dict(enumerate(value, 1))
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
