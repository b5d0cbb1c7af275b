"""Figures of two-dimensional images: outlines, attention maps, masks of several networks."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_medseg.reporting.figures.style import (
    ANNOTATION_LINE,
    PREDICTION_LINE,
    image_panels,
    styled,
)


@styled
def image_overlay(
    image: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    title: str,
    dice: Mapping[str, float],
) -> Figure:
    """Draw an image twice: unchanged, and with the outlines of annotation and prediction.

    Args:
        image: (H, W, C) uint8, C 1 or 3.
        truth: (H, W) boolean mask.
        prediction: (H, W) boolean mask.
        title: the first line above the image.
        dice: region -> Dice, the second line.
    """
    height, width = image.shape[:2]
    figure, axes = image_panels(1, 2, width=3.2, height=3.2 * height / width, extra=0.9)
    for panel, what in zip(axes[0], ("image", "annotation and prediction")):
        _draw_image(panel, image)
        panel.set_title(what)
    outlined = axes[0, 1]
    for mask, style in ((truth, ANNOTATION_LINE), (prediction, PREDICTION_LINE)):
        outlined.plot([], [], **style)  # a line for the legend, even if the mask is empty
        _outline(outlined, mask, style)
    figure.legend(*outlined.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    scores = "   ".join(f"{name} {value:.2f}" for name, value in dice.items())
    figure.suptitle(f"{title}\nDice: {scores}", fontsize=11)
    return figure


@styled
def attention_grid(image: np.ndarray, maps: Mapping[str, np.ndarray], truth: np.ndarray) -> Figure:
    """Draw an image and the map of each attention module, one panel per module.

    Each map has its own scale, whose ends are printed above it, because the values of different
    modules differ by powers of ten.

    Args:
        image: (H, W, C) uint8, C 1 or 3.
        maps: module -> (H, W) map, from `inference.attention_maps`.
        truth: (H, W) boolean annotation, outlined in the image.
    """
    panels = 1 + len(maps)
    columns = panels if panels <= 5 else 4
    rows = -(-panels // columns)
    figure, axes = _grid(rows, columns, image.shape, extra=0.5, gap=0.45)
    _draw_image(axes.flat[0], image)
    _outline(axes.flat[0], truth, ANNOTATION_LINE)
    axes.flat[0].set_title("image\nand annotation")
    for panel, (name, values) in zip(axes.flat[1:], maps.items()):
        low, high = values.min(), values.max()
        ends = f"{low:.3g} to {high:.3g}"
        if high - low < 1e-3 * high:  # rounding errors must not look like a pattern
            low, high, ends = 0, 2 * high, f"{high:.3g} everywhere"
        panel.imshow(values, cmap="viridis", vmin=low, vmax=high)
        panel.set_title(f"{name.replace('_', ' ')}\n{ends}")
    for panel in axes.flat[panels:]:
        panel.set_axis_off()
    return figure


@styled
def mask_grid(
    cases: Mapping[str, tuple[np.ndarray, np.ndarray, Mapping[str, np.ndarray]]],
) -> Figure:
    """Draw one row per image: the image, its annotation and the masks of all networks.

    Unlike in iacnn, Figures 5 and 6, the outline of the annotation is drawn on the masks.

    Args:
        cases: case -> (image (H, W, C) uint8, annotation (H, W), {network: mask (H, W)}), with the
            same networks for every case.
    """
    shown = [
        {"image": image, "annotation": truth, **masks} for image, truth, masks in cases.values()
    ]
    first = shown[0]
    figure, axes = _grid(len(shown), len(first), first["image"].shape, extra=0.6, gap=0.05)
    for row, name, case in zip(axes, cases, shown):
        _draw_image(row[0], case["image"])
        row[0].set_ylabel(name)
        for panel, (what, mask) in zip(row[1:], [*case.items()][1:]):
            panel.imshow(mask > 0, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if what != "annotation":
                _outline(panel, case["annotation"], ANNOTATION_LINE)
    for panel, name in zip(axes[0], first):
        panel.set_title(name.replace("_", " "))
    axes[0, 0].plot([], [], **ANNOTATION_LINE)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center")
    return figure


def _grid(
    rows: int, columns: int, shape: Sequence[int], *, extra: float, gap: float
) -> tuple[Figure, np.ndarray]:
    """Panels for images of one (H, W, C) shape, together at most 11 inches wide."""
    width = max(1.4, min(2.4, 11 / columns))
    height = width * shape[0] / shape[1]
    return image_panels(rows, columns, width=width, height=height, extra=extra, gap=gap)


def _draw_image(panel: Axes, image: np.ndarray) -> None:
    panel.imshow(image if image.shape[2] == 3 else image[..., 0], cmap="gray", vmin=0)


def _outline(panel: Axes, mask: np.ndarray, style: Mapping[str, str]) -> None:
    if mask.any() and not mask.all():
        color, line = style["color"], style["linestyle"]
        panel.contour(mask, levels=[0.5], colors=color, linestyles=line, linewidths=1.4)
