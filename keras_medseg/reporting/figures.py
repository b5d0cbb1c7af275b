"""The report's pictures: each function takes data and returns a matplotlib Figure.

Arrays are in the package's LPS orientation and shown as radiologists look at them: the patient's
right on the left of the picture, anterior on top.
"""

import functools
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_medseg.data.datasets.brats import EDEMA, ENHANCING, MODALITIES, NECROTIC
from keras_medseg.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150
MAX_BYTES = 300_000

# Okabe and Ito (2008): told apart by readers with any colour vision.
REGION_COLOURS = {"WT": "#E69F00", "TC": "#D55E00", "ET": "#009E73"}
OTHER_COLOURS = ("#0072B2", "#CC79A7", "#56B4E9", "#000000")

# dcabes2020, Figure 3: edema yellow, tumour core red, necrosis dark green, focus green.
LABEL_COLOURS = {EDEMA: "#FFE600", NECROTIC: "#00591A", ENHANCING: "#35E04C"}
LABEL_NAMES = {EDEMA: "edema", NECROTIC: "necrotic, non-enhancing", ENHANCING: "enhancing"}
CORE_COLOUR = "#FF2020"

# Sky blue and vermilion (Okabe and Ito), and apart by their dashes as well.
ANNOTATION_LINE = {"color": "#56B4E9", "linestyle": "solid", "label": "annotation"}
PREDICTION_LINE = {"color": "#D55E00", "linestyle": "dashed", "label": "prediction"}

MODALITY_NAMES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
METRIC_NAMES = {
    "dice": "Dice",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "hd95_mm": "HD95",
    "iou": "IoU",
    "precision": "precision",
    "cross_entropy": "loss rate",
    "mae": "MAE",
}
# Fewer points make no box: its quartiles would be interpolated between two cases.
_LEAST_FOR_A_BOX = 5
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def _styled(draw: Callable) -> Callable:
    @functools.wraps(draw)
    def styled(*args, **kwargs):
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


def save(figure: "Figure", path: Path | str) -> Path:
    """Write `figure` as PNG at 150 dpi, atomically; over 300 KB it is cut down to 256 colours."""
    from PIL import Image

    path = Path(path)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    if buffer.tell() > MAX_BYTES:
        picture = Image.open(buffer).convert("RGB")
        buffer = io.BytesIO()
        picture.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    write_atomic(path, buffer.getvalue())
    return path


def region_colours(names: Iterable[str]) -> dict[str, str]:
    """One colour per name: a region has the same one in every figure, other names the rest."""
    others = itertools.cycle(OTHER_COLOURS)
    return {name: REGION_COLOURS.get(name) or next(others) for name in names}


@_styled
def learning_curves(logs: Mapping[str, "pd.DataFrame"]) -> "Figure":
    """Loss, accuracy and learning rate over the epochs, one column of panels per variant.

    logs: name "<variant>-<network>" -> log with the columns epoch, learning_rate, loss, val_loss,
        accuracy, val_accuracy (missing ones are left out).

    Raises:
        ValueError: without any log.
    """
    if not logs:
        raise ValueError("logs: found none, expected at least one training log.")
    names = {name: _variant_and_network(name) for name in logs}
    variants = list(dict.fromkeys(variant for variant, _ in names.values()))
    networks = {network for _, network in names.values()}
    known = [region for region in REGION_COLOURS if region in networks]
    colours = region_colours([*known, *sorted(networks - set(known))])
    quantities = {"loss": "loss", "accuracy": "pixel accuracy", "learning_rate": "learning rate"}
    figure, axes = _panels(3, len(variants), width=4.4, height=2.0, share="row")
    for name, log in logs.items():
        variant, network = names[name]
        column = axes[:, variants.index(variant)]
        for panel, quantity in zip(column, quantities):
            _curve(panel, log, quantity, colours[network])
    for row, label in zip(axes, quantities.values()):
        row[0].set_ylabel(label)
        if label != "pixel accuracy":
            _logarithmic(row[0])
    last = max(log["epoch"].max() for log in logs.values())
    for variant, column in zip(variants, axes.T):
        column[0].set_title(variant.replace("_", " "), fontweight="bold")
        column[-1].set_xlabel("epoch")
        _epoch_ticks(column, last)
    _curve_legend(figure, colours)
    return figure


@_styled
def score_boxes(scores: "pd.DataFrame", metric: str = "dice") -> "Figure":
    """Box and every case as a point, per region and variant of the scores table.

    Under five cases there is no box, only the points and their median.

    Raises:
        ValueError: without any row.
    """
    if not len(scores):
        raise ValueError("scores: found no rows, expected one per case, region and variant.")
    regions = list(dict.fromkeys(scores["region"]))
    variants = list(dict.fromkeys(scores["variant"]))
    colours = region_colours(regions)
    width = max(4.2 / len(regions), 0.4 + 1.0 * len(variants))
    figure, axes = _panels(1, len(regions), width=width, height=3.6, share="all")
    for panel, region in zip(axes[0], regions):
        panel.set_title(region, fontweight="bold")
        labels = []
        for position, variant in enumerate(variants):
            chosen = (scores["region"] == region) & (scores["variant"] == variant)
            points = scores.loc[chosen, metric].dropna().to_numpy(float)
            _box(panel, position, points, colours[region])
            labels.append("\n".join([*variant.replace("_", " ").split(), f"n = {len(points)}"]))
        panel.set_xticks(range(len(variants)), labels)
        panel.set_xlim(-0.6, len(variants) - 0.4)
    name = METRIC_NAMES.get(metric, metric)
    axes[0, 0].set_ylabel(f"{name} (mm)" if metric.endswith("_mm") else name)
    if metric != "hd95_mm":
        axes[0, 0].set_ylim(-0.03, 1.03)
    return figure


def pick_cases(scores: "pd.DataFrame", variant: str) -> dict[str, str]:
    """{"best": case, "median": case, "worst": case} by the mean Dice over the regions.

    Two cases have no median, and a single one is {"only": case}. A case without any object, whose
    Dice is 1 for an empty answer, is neither the best nor the median where others have one.

    Raises:
        ValueError: when `variant` has no scores.
    """
    of_variant = scores[scores["variant"] == variant]
    if not len(of_variant):
        known = ", ".join(sorted(set(scores["variant"])))
        raise ValueError(f"variant: found {variant!r}, expected one of: {known}.")
    means = of_variant.groupby("case")["dice"].mean()
    ranked = sorted(means.index, key=lambda case: (-means[case], case))
    if len(ranked) == 1:
        return {"only": ranked[0]}
    sizes = of_variant.filter(regex="^truth_").sum(axis=1).groupby(of_variant["case"]).sum()
    shown = [case for case in ranked if sizes[case] > 0] or ranked
    middle = {"median": shown[len(shown) // 2]} if len(ranked) > 2 else {}
    return {"best": shown[0], **middle, "worst": ranked[-1]}


def largest_slice(truth: np.ndarray, prediction: np.ndarray) -> int:
    """z of the largest annotated tumour area, else of the largest predicted one, else the middle.

    truth, prediction: (X, Y, Z) labels, 0 is background.
    """
    for labels in (truth, prediction):
        areas = np.count_nonzero(labels, axis=(0, 1))
        if areas.any():
            return int(areas.argmax())
    return truth.shape[2] // 2


@_styled
def case_overlay(
    image: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    title: str,
    dice: Mapping[str, float],
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    backgrounds: Sequence[str] = ("flair", "t1ce"),
) -> "Figure":
    """One axial slice of a case, bare, annotated and predicted, on each background.

    image: (X, Y, Z, 4) in the order of `brats.MODALITIES`, LPS.
    truth, prediction: (X, Y, Z) canonical labels; the slice is their `largest_slice`.
    dice: {region: Dice of the whole case}, written above the pictures.
    """
    z = largest_slice(truth, prediction)
    masks = {"": None, "annotation": truth[:, :, z], "prediction": prediction[:, :, z]}
    box = _bounding_box(image[:, :, z].any(axis=-1) | (truth[:, :, z] > 0), margin=4)
    figure, axes = _pictures(len(backgrounds), len(masks), box, spacing_mm, extra=1.4)
    for row, name in zip(axes, backgrounds):
        background = image[:, :, z, MODALITIES.index(name)]
        for panel, (what, mask) in zip(row, masks.items()):
            _show(panel, background, box, spacing_mm, cmap="gray", vmax=_bright(background))
            if mask is not None:
                _draw_labels(panel, mask, box, spacing_mm)
            panel.set_title(", ".join(filter(None, (MODALITY_NAMES[name], what))))
            _orientation_marks(panel)
    _scale_bar(axes[-1, 0], length_mm=50)
    of_case = "   ".join(f"{region} {value:.2f}" for region, value in dice.items())
    figure.suptitle(f"{title}\nDice: {of_case}   (axial slice z = {z})", fontsize=11)
    _label_legend(figure)
    return figure


@_styled
def edge_maps(
    background: np.ndarray,
    truth: np.ndarray,
    truth_edges: np.ndarray,
    predictions: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> "Figure":
    """Probability maps above their edge maps, beside the annotation's.

    background: (X, Y) slice of one modality, LPS. truth: (X, Y) mask of the region.
    truth_edges: (X, Y) response of the loss's edge filter to `truth`.
    predictions: {"with edge loss": ((X, Y) probabilities, (X, Y) edge response), ...}.
    """
    box = _bounding_box(truth > 0, margin=12)
    figure, axes = _pictures(2, 2 + len(predictions), box, spacing_mm, extra=0.2)
    _show(axes[0, 0], background, box, spacing_mm, cmap="gray", vmax=_bright(background))
    axes[0, 0].set_title("input")
    _orientation_marks(axes[0, 0])
    _scale_bar(axes[0, 0], length_mm=10)
    axes[1, 0].set_axis_off()
    columns = {"annotation": (truth, truth_edges), **predictions}
    strongest = max(float(edges.max()) for _, edges in columns.values()) or 1.0
    for (name, (probabilities, edges)), column in zip(columns.items(), axes.T[1:]):
        column[0].set_title(name.replace("_", " "))
        upper = _show(column[0], probabilities, box, spacing_mm, cmap="gray", vmax=1.0)
        lower = _show(column[1], edges, box, spacing_mm, cmap="magma", vmax=strongest)
    figure.colorbar(upper, ax=axes[0], label="probability", shrink=0.85)
    figure.colorbar(lower, ax=axes[1], label="edge response", shrink=0.85)
    return figure


@_styled
def output_maps(
    background: np.ndarray,
    outputs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> "Figure":
    """Every output's annotation above its probabilities, one column per output.

    background: (X, Y) slice of one modality, LPS.
    outputs: {"ET": ((X, Y) mask, (X, Y) probabilities), ...}.
    """
    everything = np.any([mask for mask, _ in outputs.values()], axis=0)
    box = _bounding_box(everything, margin=12)
    figure, axes = _pictures(2, 1 + len(outputs), box, spacing_mm, extra=0.2)
    _show(axes[0, 0], background, box, spacing_mm, cmap="gray", vmax=_bright(background))
    axes[0, 0].set_title("input")
    _orientation_marks(axes[0, 0])
    _scale_bar(axes[0, 0], length_mm=10)
    axes[1, 0].set_axis_off()
    for (name, (mask, probabilities)), column in zip(outputs.items(), axes.T[1:]):
        pictures = {"annotation": mask.astype(float), "output": probabilities}
        for panel, (what, picture) in zip(column, pictures.items()):
            panel.set_title(f"{name}, {what}")
            shown = _show(panel, picture, box, spacing_mm, cmap="gray", vmax=1.0)
    figure.colorbar(shown, ax=axes[1], label="probability", shrink=0.85)
    return figure


@_styled
def picture_overlay(
    picture: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    title: str,
    dice: Mapping[str, float],
) -> "Figure":
    """A picture, bare, and with the outlines of its annotation and of the prediction.

    picture: (H, W, C) uint8, C 1 or 3. truth, prediction: (H, W) masks.
    dice: {class: Dice}, written above the pictures.
    """
    from matplotlib.figure import Figure

    rows, columns = picture.shape[:2]
    figure = Figure(figsize=(3.2 * 2, 3.2 * rows / columns + 0.9))
    figure.set_layout_engine("compressed")
    axes = figure.subplots(1, 2)
    for panel, what in zip(axes, ("picture", "annotation and prediction")):
        _draw_picture(panel, picture)
        panel.set_title(what)
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    for mask, style in ((truth, ANNOTATION_LINE), (prediction, PREDICTION_LINE)):
        axes[1].plot([], [], **style)  # the legend's line, also where the mask is empty
        _outline(axes[1], mask, style)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    scores = "   ".join(f"{name} {value:.2f}" for name, value in dice.items())
    figure.suptitle(f"{title}\nDice: {scores}", fontsize=11)
    return figure


@_styled
def attention_grid(
    picture: np.ndarray, maps: Mapping[str, np.ndarray], truth: np.ndarray
) -> "Figure":
    """A picture and what the attention modules make of it, one panel per module.

    Each map has a scale of its own, whose ends stand above it: modules differ by powers of ten.

    picture: (H, W, C) uint8, C 1 or 3. maps: {module: (H, W)}, see `attention_maps`.
    truth: (H, W) annotation, outlined in the picture.
    """
    panels = 1 + len(maps)
    columns = panels if panels <= 5 else 4
    figure, axes = _grid(-(-panels // columns), columns, picture.shape, extra=0.5, gap=0.45)
    _draw_picture(axes.flat[0], picture)
    _outline(axes.flat[0], truth, ANNOTATION_LINE)
    axes.flat[0].set_title("picture\nand annotation")
    for panel, (name, values) in zip(axes.flat[1:], maps.items()):
        low, high = values.min(), values.max()
        ends = f"{low:.3g} to {high:.3g}"
        if high - low < 1e-3 * high:  # rounding is not to be drawn as if it were a pattern
            low, high, ends = 0, 2 * high, f"{high:.3g} everywhere"
        panel.imshow(values, cmap="viridis", vmin=low, vmax=high)
        panel.set_title(f"{name.replace('_', ' ')}\n{ends}")
    for panel in axes.flat[1 + len(maps) :]:
        panel.set_axis_off()
    return figure


@_styled
def mask_grid(
    cases: Mapping[str, tuple[np.ndarray, np.ndarray, Mapping[str, np.ndarray]]],
) -> "Figure":
    """Pictures below each other, each beside its annotation and the masks of all networks.

    The annotation's outline is drawn on the networks' masks (iacnn, Figures 5 and 6, has bare
    ones).

    cases: {case: ((H, W, C) uint8, (H, W) annotation, {network: (H, W) mask})}, the same networks
        for every case.
    """
    shown = [{"picture": p, "annotation": a, **masks} for p, a, masks in cases.values()]
    first = shown[0]
    figure, axes = _grid(len(shown), len(first), first["picture"].shape, extra=0.6, gap=0.05)
    for line, name, case in zip(axes, cases, shown):
        _draw_picture(line[0], case["picture"])
        line[0].set_ylabel(name)
        for panel, (what, mask) in zip(line[1:], [*case.items()][1:]):
            panel.imshow(mask > 0, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if what != "annotation":
                _outline(panel, case["annotation"], ANNOTATION_LINE)
    for panel, name in zip(axes[0], first):
        panel.set_title(name.replace("_", " "))
    axes[0, 0].plot([], [], **ANNOTATION_LINE)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center")
    return figure


def _grid(
    rows: int, columns: int, shape: Sequence[int], extra: float, gap: float
) -> tuple["Figure", np.ndarray]:
    """Panels without axes for pictures of one shape.

    extra, gap: inches for titles and legend, and between rows.
    """
    from matplotlib.figure import Figure

    width = max(1.4, min(2.4, 11 / columns))
    height = rows * width * shape[0] / shape[1] + (rows - 1) * gap
    figure = Figure(figsize=(width * columns, height + extra))
    figure.set_layout_engine("compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    return figure, axes


def _draw_picture(panel: "Axes", picture: np.ndarray) -> None:
    panel.imshow(picture if picture.shape[2] == 3 else picture[..., 0], cmap="gray", vmin=0)


def _outline(panel: "Axes", mask: np.ndarray, style: Mapping[str, str]) -> None:
    if mask.any() and not mask.all():
        colour, line = style["color"], style["linestyle"]
        panel.contour(mask, levels=[0.5], colors=colour, linestyles=line, linewidths=1.4)


def _panels(
    rows: int, columns: int, *, width: float, height: float, share: str
) -> tuple["Figure", np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns + 0.6, height * rows + 0.6))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share)
    for panel in axes.flat:
        panel.grid(True, axis="y")
    return figure, axes


def _variant_and_network(name: str) -> tuple[str, str]:
    variant, _, network = name.rpartition("-")
    return variant, network


def _curve(panel: "Axes", log: "pd.DataFrame", quantity: str, colour: str) -> None:
    marker = "o" if len(log) <= 30 else None
    for column, style, fill in ((quantity, "-", colour), (f"val_{quantity}", "--", "white")):
        if column in log:
            panel.plot(
                log["epoch"],
                log[column],
                style,
                color=colour,
                lw=1.4,
                marker=marker,
                ms=3.5,
                mfc=fill,
            )


def _epoch_ticks(panels: Iterable["Axes"], last: int) -> None:
    for panel in panels:
        panel.set_xlim(0.5, last + 0.5)
        panel.set_xticks(range(1, last + 1, -(-last // 10)))


def _logarithmic(panel: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())


def _curve_legend(figure: "Figure", colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    entries = [Line2D([], [], color=colour, lw=3, label=name) for name, colour in colours.items()]
    entries.append(Line2D([], [], color="black", ls="-", marker="o", ms=4, label="training"))
    entries.append(
        Line2D([], [], color="black", ls="--", marker="o", mfc="white", ms=4, label="validation")
    )
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries))


def _box(panel: "Axes", position: int, points: np.ndarray, colour: str) -> None:
    if not len(points):
        middle = panel.get_xaxis_transform()
        panel.text(position, 0.5, "not run", transform=middle, ha="center", color="#666666")
        return
    if len(points) >= _LEAST_FOR_A_BOX:
        boxes = panel.boxplot(
            [points], positions=[position], widths=0.55, showfliers=False, patch_artist=True
        )
        boxes["boxes"][0].set(facecolor=colour, alpha=0.35)
        boxes["medians"][0].set(color="black", linewidth=1.6)
    elif len(points) > 1:
        panel.hlines(np.median(points), position - 0.27, position + 0.27, color="black", lw=1.6)
    spread = 0.16 if len(points) > 1 else 0.0
    offsets = np.random.default_rng(0).uniform(-spread, spread, len(points))
    panel.scatter(position + offsets, points, s=16, color=colour, ec="black", lw=0.4, zorder=3)


def _bounding_box(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    if not mask.any():
        return tuple(slice(0, size) for size in mask.shape)
    spans = []
    for axis, size in enumerate(mask.shape):
        filled = np.flatnonzero(mask.any(axis=1 - axis))
        spans.append(slice(max(filled[0] - margin, 0), min(filled[-1] + margin + 1, size)))
    return tuple(spans)


def _bright(picture: np.ndarray) -> float:
    """A few bright vessels must not darken the brain."""
    inside = picture[picture > 0]
    return float(np.percentile(inside, 99.5)) if inside.size else 1.0


def _pictures(
    rows: int, columns: int, box: tuple[slice, slice], spacing_mm: Sequence[float], extra: float
) -> tuple["Figure", np.ndarray]:
    from matplotlib.figure import Figure

    across, down = ((span.stop - span.start) * mm for span, mm in zip(box, spacing_mm))
    width = 2.4
    figure = Figure(figsize=(width * columns, width * rows * down / across + extra))
    figure.set_layout_engine("compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    return figure, axes


def _extent(box: tuple[slice, slice], spacing_mm: Sequence[float]) -> tuple[float, ...]:
    """Left, right, bottom, top in mm: x grows to the patient's left, y to posterior."""
    x, y = box
    return (
        x.start * spacing_mm[0],
        x.stop * spacing_mm[0],
        y.stop * spacing_mm[1],
        y.start * spacing_mm[1],
    )


def _show(panel: "Axes", picture: np.ndarray, box, spacing_mm, *, cmap: str, vmax: float):
    extent = _extent(box, spacing_mm)
    return panel.imshow(picture[box].T, cmap=cmap, vmin=0, vmax=vmax, extent=extent)


def _draw_labels(panel: "Axes", labels: np.ndarray, box, spacing_mm) -> None:
    from matplotlib.colors import to_rgba

    painted = np.zeros((*labels.shape, 4))
    for code, colour in LABEL_COLOURS.items():
        painted[labels == code] = to_rgba(colour, alpha=0.7)
    extent = _extent(box, spacing_mm)
    panel.imshow(painted[box].transpose(1, 0, 2), extent=extent, interpolation="nearest")
    core = np.isin(labels, (NECROTIC, ENHANCING))[box].T
    if core.any() and not core.all():
        panel.contour(
            core, levels=[0.5], colors=CORE_COLOUR, linewidths=1.1, extent=extent, origin="upper"
        )


def _orientation_marks(panel: "Axes") -> None:
    from matplotlib.patheffects import withStroke

    outline = [withStroke(linewidth=1.5, foreground="black")]
    style = {"transform": panel.transAxes, "color": "white", "fontsize": 8, "path_effects": outline}
    panel.text(0.02, 0.5, "R", ha="left", va="center", **style)
    panel.text(0.98, 0.5, "L", ha="right", va="center", **style)
    panel.text(0.5, 0.98, "A", ha="center", va="top", **style)
    panel.text(0.5, 0.02, "P", ha="center", va="bottom", **style)


def _scale_bar(panel: "Axes", length_mm: float) -> None:
    left, right = panel.get_xlim()
    bottom, top = panel.get_ylim()
    x, y = left + 0.05 * (right - left), bottom + 0.05 * (top - bottom)
    panel.plot([x, x + length_mm], [y, y], color="white", lw=2.5, solid_capstyle="butt")
    panel.annotate(
        f"{length_mm} mm", (x, y), (0, 3), textcoords="offset points", color="white", fontsize=8
    )


def _label_legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries = [
        Patch(facecolor=LABEL_COLOURS[code], ec="black", lw=0.4, label=name)
        for code, name in LABEL_NAMES.items()
    ]
    entries.append(Line2D([], [], color=CORE_COLOUR, label="outline of the tumour core"))
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), fontsize=8)
