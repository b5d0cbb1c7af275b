"""Whether probabilities mean what they say: the reliability plot."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from keras_medseg.evaluation.calibration import Reliability, calibration_error
from keras_medseg.reporting.figures.style import region_colors, styled

_MARKERS = "osD^v<>P"


@styled
def reliability_curves(bins: Mapping[str, Reliability]) -> Figure:
    """Draw how often elements of each predicted probability are in the truth.

    Above, the share of true elements in each bin over their mean probability; calibrated
    probabilities lie on the diagonal, sure ones that are wrong too often below it. Underneath, the
    share of all elements in each bin, on a logarithmic axis, since most are sure background. Empty
    bins are left out. The legend has the expected calibration error.

    Args:
        bins: name of a region or method -> its bins, of one case or pooled over several.

    Raises:
        ValueError: there are none, or all bins of a name are empty.
    """
    empty = [name for name, found in bins.items() if not found.elements.any()]
    if empty or not bins:
        what = f"no elements of {', '.join(empty)}" if empty else "none"
        raise ValueError(f"bins: found {what}, expected probabilities of each name.")
    figure = Figure(figsize=(4.6, 5.4))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="#666666", lw=0.9, ls="--", label="calibrated")
    colors = region_colors(bins)
    for number, (name, found) in enumerate(bins.items()):
        _curve(above, below, name, found, color=colors[name], marker=_MARKERS[number % 8])
    above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="share that is true")
    above.legend(loc="best")
    below.set(xlabel="mean predicted probability", ylabel="elements", yscale="log")
    below.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    for panel in (above, below):
        panel.grid(True)
    return figure


def _curve(
    above: Axes, below: Axes, name: str, bins: Reliability, *, color: str, marker: str
) -> None:
    used = bins.elements > 0
    counts = bins.elements[used]
    likely, true = bins.confidence[used] / counts, bins.positives[used] / counts
    label = f"{name.replace('_', ' ')}, ECE {calibration_error(bins):.4f}"
    line: dict[str, Any] = {"color": color, "marker": marker, "ms": 4.5, "lw": 1.4}
    above.plot(likely, true, label=label, **line)
    below.plot(likely, counts / counts.sum(), **line)
