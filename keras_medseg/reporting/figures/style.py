"""What all figures share: colors, line styles, names, layout of panels, and saving to PNG."""

import functools
import io
import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from keras_medseg.files import write_atomic

DOTS_PER_INCH = 150
MAX_BYTES = 300_000

# Okabe and Ito (2008): readers with any color vision can tell these colors apart.
REGION_COLORS = {"WT": "#E69F00", "TC": "#D55E00", "ET": "#009E73"}
OTHER_COLORS = ("#0072B2", "#CC79A7", "#56B4E9", "#000000")

# dcabes2020, Figure 3: edema yellow, tumor core outlined in red, necrosis dark green, the
# enhancing focus green.
LABEL_COLORS = {"edema": "#FFE600", "necrotic": "#00591A", "enhancing": "#35E04C"}
OUTLINE_COLOR = "#FF2020"

# Sky blue and vermilion (Okabe and Ito); the dashes differ as well.
ANNOTATION_LINE = {"color": "#56B4E9", "linestyle": "solid", "label": "annotation"}
PREDICTION_LINE = {"color": "#D55E00", "linestyle": "dashed", "label": "prediction"}

_CHANNEL_TITLES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
_REGION_TITLES = {"WT": "whole tumor", "TC": "tumor core", "ET": "enhancing tumor"}
_STYLE: dict[Any, Any] = {
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

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a function that draws a figure, so that it uses the style of the report."""

    @functools.wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return in_style


def save(figure: Figure, path: Path | str) -> Path:
    """Write a figure as PNG at 150 dots per inch, atomically.

    A file of more than 300 KB is reduced to 256 colors.

    Returns:
        `path`.
    """
    path = Path(path)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    if buffer.tell() > MAX_BYTES:
        image = Image.open(buffer).convert("RGB")
        buffer = io.BytesIO()
        image.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    write_atomic(path, buffer.getvalue())
    return path


def region_colors(names: Iterable[str]) -> dict[str, str]:
    """Region -> color. WT, TC and ET have fixed colors, other names the remaining ones."""
    return _colors({name: name for name in names}, REGION_COLORS)


def label_colors(labels: Mapping[int, str]) -> dict[int, str]:
    """Label code -> color.

    Args:
        labels: code -> name, as in `Dataset.labels`. Edema, necrotic and enhancing have the colors
            of dcabes2020 (text after a comma is ignored); other names have the remaining colors.
    """
    return _colors({code: name.partition(",")[0] for code, name in labels.items()}, LABEL_COLORS)


def channel_title(name: str) -> str:
    """A channel's name in figures, such as "FLAIR" for "flair"; unknown names are unchanged."""
    return _CHANNEL_TITLES.get(name, name)


def region_title(name: str) -> str:
    """A region's name in words, such as "tumor core" for "TC"; unknown names are unchanged."""
    return _REGION_TITLES.get(name, name)


def image_panels(
    rows: int, columns: int, *, width: float, height: float, extra: float, gap: float = 0.0
) -> tuple[Figure, np.ndarray]:
    """Make panels without axes for images of one shape. All lengths are in inches.

    Args:
        rows: number of rows of panels.
        columns: number of panels in a row.
        width: of one panel.
        height: of one panel, without its title.
        extra: height for titles and legend.
        gap: height between two rows.

    Returns:
        The figure and its panels, (rows, columns) Axes.
    """
    figure = Figure(figsize=(width * columns, rows * height + (rows - 1) * gap + extra))
    figure.set_layout_engine("compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    return figure, axes


def _colors(names: Mapping[Any, str], known: Mapping[str, str]) -> dict[Any, str]:
    others = itertools.cycle(OTHER_COLORS)
    return {key: known.get(name) or next(others) for key, name in names.items()}
