"""Tables of published numbers beside measured ones, or of measured ones alone.

No value is filled in: a cell that is lost in the text of the paper, a method that was not retrained
and a variant that this run left out are marked as such.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from keras_medseg.errors import DataError
from keras_medseg.evaluation import statistics
from keras_medseg.evaluation.metrics import METRICS
from keras_medseg.files import parse_csv, read_file
from keras_medseg.recipe import Recipe

PUBLISHED_COLUMNS = (
    "table", "row", "variant", "region", "metric", "value", "unit", "source", "note",
)  # fmt: skip
TABLE_COLUMNS = (
    "table", "row", "variant", "region", "metric", "unit", "published", "measured", "ci_low",
    "ci_high", "std", "n", "groups", "group_mean", "seeds", "seed_std", "status", "comparable",
    "note",
)  # fmt: skip
FILLED_IN = "filled_in.csv"
"""Beside published.csv: values that a reader took from the paper, where our text lost them."""

MEASURED = "measured"
NOT_RETRAINED = "not retrained"
NOT_RUN = "not run in this profile"
NOT_MEASURED = "not measured"
LOST = "lost in the source text"
NOT_PUBLISHED = "not in the paper"

SCALES = {"%": 100.0, "mm": 1.0, "px": 1.0, "mL": 1.0, "": 1.0}
"""Unit of a table cell -> factor of the score; scores are fractions, some tables give percent."""

_COLUMN = ["region", "metric"]


@dataclass(frozen=True)
class Reference:
    """The experiment whose published numbers are shown beside the measured ones.

    Attributes:
        title: heading of the report.
        recipe: of the paper.
        data: name of the data set, as in `Case.dataset`, such as "BraTS2017".
        cases: number of cases that the paper had for training and validation together.
        citation: of the paper.
        split_known: whether the paper names the cases that it trained on and scored, so that the
            recipe scores the same ones.
    """

    title: str
    recipe: Recipe
    data: str
    cases: int
    citation: str = ""
    split_known: bool = False


@dataclass(frozen=True)
class Column:
    """One printed column.

    Attributes:
        region: name of the region; empty for a metric without a region, such as the loss.
        metric: a column of the scores.
        unit: of the cells, a key of SCALES; None for the unit of published.csv.
    """

    region: str
    metric: str = "dice"
    unit: str | None = None


@dataclass(frozen=True)
class Row:
    """One printed row.

    Attributes:
        label: the method, as in published.csv.
        variant: of the method, as in published.csv.
        measured: variant of scores.csv shown in this row; None if there is none.
        otherwise: why there is no such variant.
    """

    label: str
    variant: str = ""
    measured: str | None = None
    otherwise: str = NOT_RETRAINED


@dataclass(frozen=True)
class TableSpec:
    """One table of a report.

    Attributes:
        id: as in published.csv, such as "Table II".
        title: what the table shows.
        columns: from left to right.
        rows: from top to bottom.
    """

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def own_tables(scores: pd.DataFrame) -> tuple[TableSpec, ...]:
    """Declare the tables of a run that does not reproduce a paper.

    Args:
        scores: scores.csv.

    Returns:
        One table with a row per variant and, for every region, the Dice in percent, the distances
        and scores of surfaces, and the means over lesions. All other metrics, and the numbers of
        lesions, are in scores.csv.
    """
    shown = {"dice": "%"}
    shown |= {
        name: "%" if metric.bounds == (0.0, 1.0) else metric.unit
        for name, metric in METRICS.items()
        if metric.needs in ("surfaces", "tolerance", "lesions")
        and (metric.unit or metric.bounds == (0.0, 1.0))  # not the counts
    }
    columns = tuple(
        Column(region, metric, unit)
        for region in dict.fromkeys(scores["region"])
        for metric, unit in shown.items()
        if metric in scores
    )
    variants = dict.fromkeys(scores["variant"])
    rows = tuple(Row(spaced(variant), measured=variant) for variant in variants)
    return (TableSpec("Scores", "means over the scored cases", columns, rows),)


def read_published(path: Path | str) -> pd.DataFrame:
    """Read a published.csv, with the values of a FILLED_IN beside it where its own are lost.

    Returns:
        The columns PUBLISHED_COLUMNS. A value that is lost in the source text is NaN.

    Raises:
        DataError: the file is missing or has other columns, a value is not a number, a cell occurs
            twice, or a value is filled in for a cell that has one or does not exist.
    """
    path = Path(path)
    table = _read_cells(path)
    filled_in = path.with_name(FILLED_IN)
    return _fill_in(table, filled_in) if filled_in.exists() else table


def _read_cells(path: Path) -> pd.DataFrame:
    table = read_file(path, parse_csv, "It belongs in the experiment's folder.")
    if tuple(table.columns) != PUBLISHED_COLUMNS:
        raise DataError(
            path,
            found=f"columns {','.join(table.columns)}",
            expected=",".join(PUBLISHED_COLUMNS),
            remedy="Rename the columns.",
        )
    values = pd.to_numeric(table["value"].replace("", None), errors="coerce")
    wrong = {
        "a value that is not a number": values.isna() & (table["value"] != ""),
        f"a unit other than {sorted(SCALES)}": ~table["unit"].isin(list(SCALES)),
        "a cell for a second time": table.duplicated(["table", "row", "variant", *_COLUMN]),
        "a second unit for one metric": _unit_changes(table),
    }
    for what, lines in wrong.items():
        if lines.any():
            number = int(lines.to_numpy().argmax())
            raise DataError(
                path,
                found=f"{what} in line {number + 2}: {','.join(table.iloc[number])}",
                expected="one number for each cell (nothing where it is lost), one unit a metric",
                remedy="Correct this line.",
            )
    return table.assign(value=values)


def _fill_in(published: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The cells of `published`, with the values of the file where they are lost."""
    cells = published.to_dict("records")
    lost = {_cell(cell): cell for cell in cells if pd.isna(cell["value"])}
    for row in _read_cells(path).dropna(subset=["value"]).to_dict("records"):
        if _cell(row) not in lost:
            raise DataError(
                path,
                found=f"a value for {', '.join(filter(None, _cell(row)))}",
                expected=f"cells (and units) of {path.with_name('published.csv').name} without one",
                remedy="Copy the lines whose value is lost, and change value, source and note.",
            )
        cell = lost[_cell(row)]
        own_note = row["note"] != cell["note"]
        note = row["note"] if own_note else "Filled in from the article by the reader."
        cell.update(value=row["value"], source=row["source"], note=note)
    return pd.DataFrame(cells, columns=list(PUBLISHED_COLUMNS))


def _cell(row: Mapping[Any, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("table", "row", "variant", *_COLUMN, "unit"))


def build_table(
    spec: TableSpec,
    published: pd.DataFrame | None,
    scores: pd.DataFrame,
    further_scores: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Build one line per cell of a table.

    Args:
        spec: the table.
        published: from `read_published`; None for a table of measured numbers alone.
        scores: scores.csv. A cell without scores is empty, and its status says why.
        further_scores: rows with metrics that `scores` lacks; a row may lack some of them.

    Returns:
        The columns TABLE_COLUMNS, with numbers in the unit of their cell.
    """
    measured: dict[tuple, dict[Any, Any]] = {}
    for metric in distinct(column.metric for column in spec.columns):
        rows = scores
        if metric not in scores and further_scores is not None:
            # None has a loss at an epoch to which no training came.
            rows = further_scores.reindex(columns=distinct([*further_scores, metric]))
            rows = rows.dropna(subset=[metric])
            if rows.empty:
                continue
        summary = statistics.summarize(rows, metrics=[metric])
        measured |= _by_key(summary, ["variant", *_COLUMN])
    units, printed = {}, {}
    no_value, not_run = "", NOT_MEASURED
    if published is not None:
        no_value, not_run = NOT_PUBLISHED, NOT_RUN
        of_table = published[published["table"] == spec.id]
        units = dict(zip(of_table["metric"], of_table["unit"]))
        printed = _by_key(of_table, ["row", "variant", *_COLUMN])
    lines = []
    for row in spec.rows:
        for column in spec.columns:
            key = column.region, column.metric
            unit = units.get(column.metric, "") if column.unit is None else column.unit
            line = {"table": spec.id, "row": row.label, "variant": row.variant}
            line |= dict(zip(_COLUMN, key)) | {"unit": unit, "comparable": ""}
            line |= _published_cell(printed.get((row.label, row.variant, *key)), no_value)
            found = measured.get((row.measured, *key))
            empty = row.otherwise if row.measured is None else not_run
            lines.append(line | _measured_cell(found, empty, unit))
    return pd.DataFrame(lines, columns=list(TABLE_COLUMNS))


def distinct(texts: Iterable[str]) -> list[str]:
    """The non-empty texts without duplicates, in the order of their first occurrence."""
    return [text for text in dict.fromkeys(texts) if text]


def spaced(variant: str) -> str:
    """A variant's name in words: "with_edge_loss" is "with edge loss"."""
    return variant.replace("_", " ")


def _unit_changes(published: pd.DataFrame) -> pd.Series:
    first = published.groupby(["table", "metric"])["unit"].transform("first")
    return published["unit"] != first


def _by_key(table: pd.DataFrame, key: Sequence[str]) -> dict[tuple, dict[Any, Any]]:
    return {tuple(line[name] for name in key): line for line in table.to_dict("records")}


def _published_cell(cell: Mapping[str, Any] | None, otherwise: str) -> dict[str, Any]:
    if cell is None:
        return {"published": float("nan"), "note": otherwise}
    note = cell["note"] or (LOST if pd.isna(cell["value"]) else "")
    return {"published": cell["value"], "note": note}


def _measured_cell(found: Mapping[str, Any] | None, otherwise: str, unit: str) -> dict[str, Any]:
    if found is None:
        return {"status": otherwise}
    names = {"measured": "mean", "ci_low": "low", "ci_high": "high", "std": "std"}
    names |= {"group_mean": "group_mean", "seed_std": "seed_std"}
    scaled = {name: SCALES[unit] * found[source] for name, source in names.items()}
    counts = {name: int(found[name]) for name in ("n", "groups", "seeds")}
    return {"status": MEASURED, **counts, **scaled}
