"""The figures that only the papers on pictures have: what SFA, SA and CA do, masks of all
networks."""

from pathlib import Path

from experiments.image_figures import attention_figure, comparison_figure
from keras_medseg.recipe import Recipe
from keras_medseg.reporting.report import Figure
from keras_medseg.runs import steps

CAPTION = (
    "Mean absolute values over the channels: of SFA its output (equation 4), of SA and CA what "
    "they add to the map (equations 6 and 8)."
)


def tumour_figures(out: Path, data: steps.Cohort, base: Recipe) -> list[Figure]:
    """Maps of SFA, SA and CA, and the masks of all networks of the run (Figures 5 and 6)."""
    title = "What the attention modules make of a picture"
    attention = attention_figure(out, data, "iacnn", title=title, caption=CAPTION)
    return [*comparison_figure(out, data), *attention]
