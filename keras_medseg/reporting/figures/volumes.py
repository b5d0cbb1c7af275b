"""Figures of slices of volumes.

Arrays are in LPS orientation and shown in the radiological convention: the patient's right is on
the left of the figure, anterior on top.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from scipy import ndimage
from skimage import measure

from keras_medseg.reporting.figures.style import (
    OTHER_COLORS,
    OUTLINE_COLOR,
    channel_title,
    image_panels,
    label_colors,
    region_title,
    styled,
)

Box = tuple[slice, slice]

_PANEL_WIDTH = 2.4
_CUBES = (1.0, 1.0, 1.0)


def largest_slice(truth: np.ndarray, prediction: np.ndarray) -> int:
    """Find the axial slice to show.

    Args:
        truth: (X, Y, Z) labels, 0 is background.
        prediction: as `truth`.

    Returns:
        z of the largest annotated area, else of the largest predicted one, else the middle.
    """
    for labels in (truth, prediction):
        areas = np.count_nonzero(labels, axis=(0, 1))
        if areas.any():
            return int(areas.argmax())
    return truth.shape[2] // 2


@styled
def volume_overlay(
    backgrounds: Mapping[str, np.ndarray],
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    labels: Mapping[int, str],
    regions: Mapping[str, Sequence[int]],
    title: str,
    dice: Mapping[str, float],
    spacing_mm: Sequence[float] = _CUBES,
) -> Figure:
    """Draw one axial slice of a case: plain, with annotation and with prediction, per background.

    Every label is painted in its own color. Regions that are made of several labels, but not of
    all, are outlined: of the BraTS regions, the tumor core.

    Args:
        backgrounds: channel -> (X, Y, Z) volume, such as {"flair": ...}.
        truth: (X, Y, Z) label codes; the slice is the `largest_slice`.
        prediction: (X, Y, Z) label codes.
        labels: code -> name in the legend, as in `Dataset.labels`.
        regions: name -> its codes, as in `Dataset.regions`.
        title: the first line above the panels.
        dice: region -> Dice of the whole case, the second line.
        spacing_mm: size of a voxel along x, y and z.

    Raises:
        ValueError: there are no backgrounds.
    """
    if not backgrounds:
        raise ValueError("backgrounds: found none, expected at least one volume to draw on.")
    z = largest_slice(truth, prediction)
    slices = {name: volume[:, :, z] for name, volume in backgrounds.items()}
    masks = {"": None, "annotation": truth[:, :, z], "prediction": prediction[:, :, z]}
    content = np.any([background != 0 for background in slices.values()], axis=0)
    box = _bounding_box(content | (truth[:, :, z] > 0), margin=4)
    outlines = _outlined(labels, regions)
    figure, axes = _panels(len(slices), len(masks), box, spacing_mm, extra=1.4)
    for row, (name, background) in zip(axes, slices.items()):
        for panel, (what, mask) in zip(row, masks.items()):
            _show(panel, background, box, spacing_mm, cmap="gray", vmax=_bright(background))
            if mask is not None:
                _paint_labels(panel, mask, label_colors(labels), box, spacing_mm)
                for region, color in outlines.items():
                    inside = np.isin(mask, list(regions[region]))
                    _outline(panel, inside, color, box, spacing_mm)
            panel.set_title(", ".join(filter(None, (channel_title(name), what))))
            _orientation_marks(panel)
    _scale_bar(axes[-1, 0], length_mm=50)
    of_case = "   ".join(f"{region} {value:.2f}" for region, value in dice.items())
    figure.suptitle(f"{title}\nDice: {of_case}   (axial slice z = {z})", fontsize=11)
    _label_legend(figure, labels, outlines)
    return figure


@styled
def annotation_panels(
    background: np.ndarray,
    panels: Mapping[str, Mapping[str, tuple[str, np.ndarray]]],
    *,
    spacing_mm: Sequence[float] = _CUBES,
) -> Figure:
    """Draw parts of an annotation side by side on one slice, each part in its color.

    Args:
        background: (X, Y) slice of one channel.
        panels: title -> {name of a part: (color, its mask (X, Y))}, the last one on top; one or
            more panels, and a part may be in several.
        spacing_mm: size of a voxel along x and y.
    """
    box = _bounding_box(background != 0, margin=4)
    figure, axes = _panels(1, len(panels), box, spacing_mm, extra=0.7)
    for panel, (title, parts) in zip(axes[0], panels.items()):
        _show(panel, background, box, spacing_mm, cmap="gray", vmax=_bright(background))
        for color, mask in parts.values():
            _paint_labels(panel, mask.astype(np.uint8), {1: color}, box, spacing_mm)
        panel.set_title(title)
        _orientation_marks(panel)
    _scale_bar(axes[0, 0], length_mm=50)
    colors = {name: color for parts in panels.values() for name, (color, _) in parts.items()}
    entries = [Patch(facecolor=c, ec="black", lw=0.4, label=name) for name, c in colors.items()]
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), fontsize=8)
    return figure


@styled
def edge_maps(
    background: np.ndarray,
    truth: np.ndarray,
    truth_edges: np.ndarray,
    predictions: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    spacing_mm: Sequence[float] = _CUBES,
) -> Figure:
    """Draw probability maps above their edge maps, beside annotation and its edge map.

    Args:
        background: (X, Y) slice of one channel.
        truth: (X, Y) mask of the region.
        truth_edges: (X, Y) response of the edge filter of the loss to `truth`.
        predictions: title -> (probabilities (X, Y), edge response (X, Y)).
        spacing_mm: size of a voxel along x and y.
    """
    box = _bounding_box(truth > 0, margin=12)
    figure, axes = _panels(2, 2 + len(predictions), box, spacing_mm, extra=0.2)
    _input_column(axes[0, 0], axes[1, 0], background, box, spacing_mm)
    columns = {"annotation": (truth, truth_edges), **predictions}
    strongest = max(float(edges.max()) for _, edges in columns.values()) or 1.0
    for (name, (probabilities, edges)), column in zip(columns.items(), axes.T[1:]):
        column[0].set_title(name.replace("_", " "))
        upper = _show(column[0], probabilities, box, spacing_mm, cmap="gray", vmax=1.0)
        lower = _show(column[1], edges, box, spacing_mm, cmap="magma", vmax=strongest)
    figure.colorbar(upper, ax=axes[0], label="probability", shrink=0.85)
    figure.colorbar(lower, ax=axes[1], label="edge response", shrink=0.85)
    return figure


@styled
def output_maps(
    background: np.ndarray,
    outputs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    spacing_mm: Sequence[float] = _CUBES,
) -> Figure:
    """Draw the annotation of every output above its probabilities, one column per output.

    Args:
        background: (X, Y) slice of one channel.
        outputs: title -> (mask (X, Y), probabilities (X, Y)); one or more.
        spacing_mm: size of a voxel along x and y.
    """
    everything = np.any([mask for mask, _ in outputs.values()], axis=0)
    box = _bounding_box(everything, margin=12)
    figure, axes = _panels(2, 1 + len(outputs), box, spacing_mm, extra=0.2)
    _input_column(axes[0, 0], axes[1, 0], background, box, spacing_mm)
    for (name, (mask, probabilities)), column in zip(outputs.items(), axes.T[1:]):
        maps = {"annotation": mask.astype(float), "output": probabilities}
        for panel, (what, values) in zip(column, maps.items()):
            panel.set_title(f"{name}, {what}")
            shown = _show(panel, values, box, spacing_mm, cmap="gray", vmax=1.0)
    figure.colorbar(shown, ax=axes[1], label="probability", shrink=0.85)
    return figure


@styled
def prediction_differences(
    cases: Mapping[str, tuple[np.ndarray, np.ndarray, Mapping[str, np.ndarray]]],
    *,
    color: str,
    spacing_mm: Sequence[float] = _CUBES,
) -> Figure:
    """Draw one row per slice: input, annotation and two predictions, with boxes where they differ.

    Args:
        cases: title -> (background (X, Y), annotation (X, Y), {network: mask (X, Y)}), with the
            same two networks for every case.
        color: of the masks.
        spacing_mm: size of a voxel along x and y.
    """
    content = [np.any([truth, *masks.values()], axis=0) for _, truth, masks in cases.values()]
    box = _bounding_box(np.any(content, axis=0), margin=12)
    figure, axes = _panels(len(cases), 4, box, spacing_mm, extra=0.4)
    for row, (title, (background, truth, masks)) in zip(axes, cases.items()):
        columns = {"input": np.zeros_like(truth), "annotation": truth, **masks}
        for panel, (name, mask) in zip(row, columns.items()):
            _show(panel, background, box, spacing_mm, cmap="gray", vmax=_bright(background))
            _paint_labels(panel, mask.astype(np.uint8), {1: color}, box, spacing_mm)
            panel.set_title(name)
        _orientation_marks(row[0])
        row[0].set_ylabel(title)
        for place in difference_boxes(*masks.values()):
            left, right, bottom, top = _extent(place, spacing_mm)
            for panel in row[2:]:
                size = (right - left, bottom - top)
                panel.add_patch(Rectangle((left, top), *size, ec=OUTLINE_COLOR, lw=1.5, fill=False))
    _scale_bar(axes[0, 0], length_mm=50)
    return figure


def difference_boxes(one: np.ndarray, other: np.ndarray) -> list[Box]:
    """The bounding boxes of the places where two (X, Y) masks differ, with a margin of 2 pixels.

    Places narrower than 3 pixels, as along an outline that is drawn a little tighter, do not count;
    those whose margins touch are one place.
    """
    differing = ndimage.binary_opening(one != other, np.ones((3, 3)))
    grown = ndimage.binary_dilation(differing, np.ones((5, 5)))
    return [place.slice for place in measure.regionprops(measure.label(grown))]


def _outlined(labels: Mapping[int, str], regions: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Region -> color of those that are made of several labels, but not of all."""
    chosen = [name for name, codes in regions.items() if 1 < len({*codes}) < len(labels)]
    # The color cycle of the labels in reverse order: few data sets use the same color twice.
    colors = (OUTLINE_COLOR, *reversed(OTHER_COLORS))
    return {name: colors[number % len(colors)] for number, name in enumerate(chosen)}


def _bounding_box(mask: np.ndarray, margin: int) -> Box:
    """Bounding box of an (X, Y) mask in voxels plus a margin; the whole slice if it is empty."""
    if not mask.any():
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    spans = []
    for axis, size in enumerate(mask.shape):
        filled = np.flatnonzero(mask.any(axis=1 - axis))
        spans.append(slice(max(filled[0] - margin, 0), min(filled[-1] + margin + 1, size)))
    return spans[0], spans[1]


def _panels(
    rows: int, columns: int, box: Box, spacing_mm: Sequence[float], *, extra: float
) -> tuple[Figure, np.ndarray]:
    across, down = ((span.stop - span.start) * mm for span, mm in zip(box, spacing_mm))
    height = _PANEL_WIDTH * down / across
    return image_panels(rows, columns, width=_PANEL_WIDTH, height=height, extra=extra)


def _input_column(
    upper: Axes, lower: Axes, background: np.ndarray, box: Box, spacing_mm: Sequence[float]
) -> None:
    """The input above an empty panel."""
    _show(upper, background, box, spacing_mm, cmap="gray", vmax=_bright(background))
    upper.set_title("input")
    _orientation_marks(upper)
    _scale_bar(upper, length_mm=10)
    lower.set_axis_off()


def _bright(image: np.ndarray) -> float:
    """The intensity to show as white, such that a few bright vessels do not darken the brain."""
    inside = image[image > 0]
    return float(np.percentile(inside, 99.5)) if inside.size else 1.0


def _dark(image: np.ndarray) -> float:
    """The intensity to show as black: 0, or what CT has below it."""
    below = image[image < 0]
    return float(np.percentile(below, 0.5)) if below.size else 0.0


def _extent(box: Box, spacing_mm: Sequence[float]) -> tuple[float, float, float, float]:
    """Left, right, bottom, top in mm: x grows to the patient's left, y to posterior."""
    x, y = box
    return (
        x.start * spacing_mm[0],
        x.stop * spacing_mm[0],
        y.stop * spacing_mm[1],
        y.start * spacing_mm[1],
    )


def _show(
    panel: Axes, image: np.ndarray, box: Box, spacing_mm: Sequence[float], *, cmap: str, vmax: float
) -> AxesImage:
    extent = _extent(box, spacing_mm)
    return panel.imshow(image[box].T, cmap=cmap, vmin=_dark(image), vmax=vmax, extent=extent)


def _paint_labels(
    panel: Axes,
    labels: np.ndarray,
    colors: Mapping[int, str],
    box: Box,
    spacing_mm: Sequence[float],
) -> None:
    painted = np.zeros((*labels.shape, 4))
    for code, color in colors.items():
        painted[labels == code] = to_rgba(color, alpha=0.7)
    extent = _extent(box, spacing_mm)
    panel.imshow(painted[box].transpose(1, 0, 2), extent=extent, interpolation="nearest")


def _outline(
    panel: Axes, mask: np.ndarray, color: str, box: Box, spacing_mm: Sequence[float]
) -> None:
    inside = mask[box].T
    if inside.any() and not inside.all():
        extent = _extent(box, spacing_mm)
        panel.contour(
            inside, levels=[0.5], colors=color, linewidths=1.1, extent=extent, origin="upper"
        )


def _orientation_marks(panel: Axes) -> None:
    marks = {
        "R": (0.02, 0.5, "left", "center"),
        "L": (0.98, 0.5, "right", "center"),
        "A": (0.5, 0.98, "center", "top"),
        "P": (0.5, 0.02, "center", "bottom"),
    }
    for letter, (x, y, horizontal, vertical) in marks.items():
        panel.text(
            x,
            y,
            letter,
            ha=horizontal,
            va=vertical,
            transform=panel.transAxes,
            color="white",
            fontsize=8,
            path_effects=[withStroke(linewidth=1.5, foreground="black")],
        )


def _scale_bar(panel: Axes, length_mm: float) -> None:
    left, right = panel.get_xlim()
    bottom, top = panel.get_ylim()
    x, y = left + 0.05 * (right - left), bottom + 0.05 * (top - bottom)
    panel.plot([x, x + length_mm], [y, y], color="white", lw=2.5, solid_capstyle="butt")
    panel.annotate(
        f"{length_mm} mm", (x, y), (0, 3), textcoords="offset points", color="white", fontsize=8
    )


def _label_legend(figure: Figure, labels: Mapping[int, str], outlines: Mapping[str, str]) -> None:
    colors = label_colors(labels)
    entries: list[Patch | Line2D] = [
        Patch(facecolor=colors[code], ec="black", lw=0.4, label=name)
        for code, name in labels.items()
    ]
    entries += [
        Line2D([], [], color=color, label=f"outline of the {region_title(region)}")
        for region, color in outlines.items()
    ]
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), fontsize=8)
