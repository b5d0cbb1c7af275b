"""The figures that only the papers on pictures have: where CSAM looks, masks of all networks."""

from pathlib import Path

from experiments.image_figures import attention_figure, comparison_figure
from keras_medseg.recipe import Recipe
from keras_medseg.reporting.report import Figure
from keras_medseg.runs import steps

CAPTION = "The weight of every pixel on each skip (section 2.3)."


def knee_figures(out: Path, data: steps.Cohort, base: Recipe) -> list[Figure]:
    """The spatial weights of every CSAM, and the masks of all networks of the run."""
    title = "Where CSAM looks"
    attention = attention_figure(out, data, "res_csam_unet", title=title, caption=CAPTION)
    return [*comparison_figure(out, data), *attention]
