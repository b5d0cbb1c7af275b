"""Charts: the learning curves of trainings, and the scores of all cases."""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from keras_medseg.evaluation.metrics import METRICS
from keras_medseg.reporting.figures.style import REGION_COLORS, region_colors, styled

_VARIANTS_IN_A_ROW = 5
# The quartiles of fewer points would be interpolated between two cases.
_FEWEST_FOR_A_BOX = 5
_QUANTITIES = {"loss": "loss", "accuracy": "pixel accuracy", "learning_rate": "learning rate"}


@styled
def learning_curves(logs: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw loss, accuracy and learning rate over the epochs, one column of panels per variant.

    More than five variants go into several blocks, one below the other, with the same axes.

    Args:
        logs: "<variant>-<network>" -> log with the columns epoch, learning_rate, loss, val_loss,
            accuracy and val_accuracy. Columns that are missing are left out.

    Raises:
        ValueError: there is no log.
    """
    if not logs:
        raise ValueError("logs: found none, expected at least one training log.")
    names = {name: _variant_and_network(name) for name in logs}
    variants = list(dict.fromkeys(variant for variant, _ in names.values()))
    networks = {network for _, network in names.values()}
    known = [region for region in REGION_COLORS if region in networks]
    colors = region_colors([*known, *sorted(networks - set(known))])
    figure, columns = _columns(len(variants))
    for name, log in logs.items():
        variant, network = names[name]
        for panel, quantity in zip(columns[variants.index(variant)], _QUANTITIES):
            _curve(panel, log, quantity, colors[network])
    for panel, label in zip(columns[0], _QUANTITIES.values()):
        if label != "pixel accuracy":
            _logarithmic(panel)
    last = max(log["epoch"].max() for log in logs.values())
    for number, (variant, column) in enumerate(zip(variants, columns)):
        if number % _VARIANTS_IN_A_ROW == 0:
            for panel, label in zip(column, _QUANTITIES.values()):
                panel.set_ylabel(label)
        column[0].set_title(variant.replace("_", " "), fontweight="bold")
        column[-1].set_xlabel("epoch")
        _epoch_ticks(column, last)
    _curve_legend(figure, colors)
    return figure


@styled
def score_boxes(scores: pd.DataFrame, metric: str = "dice") -> Figure:
    """Draw a box and every case as a point, per region and variant.

    With fewer than five cases there is no box, only the points and their median.

    Args:
        scores: scores.csv: the columns variant, case, region and `metric`.
        metric: a column of `scores`; `METRICS` gives its label, its unit and the axis limits.

    Raises:
        ValueError: there are no rows.
    """
    if not len(scores):
        raise ValueError("scores: found no rows, expected one per case, region and variant.")
    regions = list(dict.fromkeys(scores["region"]))
    variants = list(dict.fromkeys(scores["variant"]))
    colors = region_colors(regions)
    width = max(4.2 / len(regions), 0.4 + 1.0 * len(variants))
    below = len(variants) > 2 * _VARIANTS_IN_A_ROW  # side by side they would be unreadable
    shape = (len(regions), 1) if below else (1, len(regions))
    figure, axes = _panels(*shape, width=width, height=3.6, share="all")
    for panel, region in zip(axes.flat, regions):
        panel.set_title(region, fontweight="bold")
        labels = []
        for position, variant in enumerate(variants):
            chosen = (scores["region"] == region) & (scores["variant"] == variant)
            points = scores.loc[chosen, metric].dropna().to_numpy(float)
            _box(panel, position, points, colors[region])
            labels.append("\n".join([*variant.replace("_", " ").split(), f"n = {len(points)}"]))
        panel.set_xticks(range(len(variants)), labels)
        panel.set_xlim(-0.6, len(variants) - 0.4)
    _score_axis(axes[0, 0], metric)
    return figure


@styled
def forest(table: pd.DataFrame, label: str, *, zero: bool = False) -> Figure:
    """Draw values with their intervals, one panel per region and one row per name.

    Args:
        table: the columns region, name, value, low and high; rows without an interval (NaN) are
            points.
        label: of the axis of the values.
        zero: mark 0, the value of no difference.

    Raises:
        ValueError: there are no rows.
    """
    if not len(table):
        raise ValueError("table: found no rows, expected one per region and name.")
    regions = list(dict.fromkeys(table["region"]))
    names = list(dict.fromkeys(table["name"]))
    colors = region_colors(regions)
    width, height = max(9.0 / len(regions), 2.6), 0.6 + 0.32 * len(names)
    figure = Figure(figsize=(width * len(regions) + 0.6, height + 0.6))
    axes = figure.subplots(1, len(regions), squeeze=False, sharey="all")
    for panel, region in zip(axes.flat, regions):
        rows = table[table["region"] == region].set_index("name").reindex(names)
        panel.grid(True, axis="x")
        panel.set_title(region, fontweight="bold")
        if zero:
            panel.axvline(0, color="#666666", lw=0.8)
        places = np.arange(len(names))
        panel.hlines(places, rows["low"], rows["high"], color=colors[region], lw=2.2)
        panel.plot(rows["value"], places, "o", color=colors[region], mec="black", mew=0.5, ms=6)
        panel.set_yticks(places, [name.replace("_", " ") for name in names])
        panel.set_ylim(len(names) - 0.4, -0.6)  # the first on top
        panel.set_xlabel(label)
        panel.locator_params(axis="x", nbins=4)
    return figure


def metric_axis(metric: str) -> str:
    """The label of the axis of a metric, with its unit; a metric outside METRICS keeps its name."""
    if metric not in METRICS:
        return metric
    label, unit = METRICS[metric].label, METRICS[metric].unit
    return f"{label} ({unit})" if unit else label


def _score_axis(panel: Axes, metric: str) -> None:
    """Label the axis of a metric and set its limits."""
    panel.set_ylabel(metric_axis(metric))
    if metric not in METRICS:
        return
    low, high = METRICS[metric].bounds
    if high is not None:
        margin = 0.03 * (high - low)
        panel.set_ylim(low - margin, high + margin)


def _panels(
    rows: int, columns: int, *, width: float, height: float, share: Literal["none", "all"]
) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width * columns + 0.6, height * rows + 0.6))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share)
    for panel in axes.flat:
        panel.grid(True, axis="y")
    return figure, axes


def _columns(count: int) -> tuple[Figure, np.ndarray]:
    """(count, 3) panels for the quantities of each variant, side by side and in blocks.

    The panels of a quantity share their axis.
    """
    quantities, wide = len(_QUANTITIES), min(count, _VARIANTS_IN_A_ROW)
    blocks = -(-count // wide)
    figure, axes = _panels(quantities * blocks, wide, width=4.4, height=2.0, share="none")
    columns = axes.reshape(blocks, quantities, wide).transpose(0, 2, 1).reshape(-1, quantities)
    for number, column in enumerate(columns):
        for panel, first in zip(column, columns[0]):
            if number:
                panel.sharey(first)
            panel.tick_params(labelleft=number % wide == 0)
    for panel in columns[count:].flat:
        panel.set_axis_off()
    return figure, columns[:count]


def _variant_and_network(name: str) -> tuple[str, str]:
    variant, _, network = name.rpartition("-")
    return variant, network


def _curve(panel: Axes, log: pd.DataFrame, quantity: str, color: str) -> None:
    """Draw training solid with filled markers, validation dashed with white markers."""
    marker = "o" if len(log) <= 30 else None
    for column, style, fill in ((quantity, "-", color), (f"val_{quantity}", "--", "white")):
        if column in log:
            panel.plot(
                log["epoch"],
                log[column],
                style,
                color=color,
                lw=1.4,
                marker=marker,
                ms=3.5,
                mfc=fill,
            )


def _epoch_ticks(panels: Iterable[Axes], last: int) -> None:
    for panel in panels:
        panel.set_xlim(0.5, last + 0.5)
        panel.set_xticks(range(1, last + 1, -(-last // 10)))


def _logarithmic(panel: Axes) -> None:
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())


def _curve_legend(figure: Figure, colors: Mapping[str, str]) -> None:
    entries = [Line2D([], [], color=color, lw=3, label=name) for name, color in colors.items()]
    entries.append(Line2D([], [], color="black", ls="-", marker="o", ms=4, label="training"))
    entries.append(
        Line2D([], [], color="black", ls="--", marker="o", mfc="white", ms=4, label="validation")
    )
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries))


def _box(panel: Axes, position: int, points: np.ndarray, color: str) -> None:
    if not len(points):
        middle = panel.get_xaxis_transform()
        panel.text(position, 0.5, "not run", transform=middle, ha="center", color="#666666")
        return
    if len(points) >= _FEWEST_FOR_A_BOX:
        boxes = panel.boxplot(
            [points], positions=[position], widths=0.55, showfliers=False, patch_artist=True
        )
        boxes["boxes"][0].set(facecolor=color, alpha=0.35)
        boxes["medians"][0].set(color="black", linewidth=1.6)
    elif len(points) > 1:
        panel.hlines(np.median(points), position - 0.27, position + 0.27, color="black", lw=1.6)
    spread = 0.16 if len(points) > 1 else 0.0
    offsets = np.random.default_rng(0).uniform(-spread, spread, len(points))
    panel.scatter(position + offsets, points, s=16, color=color, ec="black", lw=0.4, zorder=3)
