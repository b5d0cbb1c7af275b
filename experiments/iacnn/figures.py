"""The figures of iacnn: the maps of SFA, SA and CA, and the masks of all networks."""

from keras_medseg.reporting.report import ReportFigure
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort

from ..image_figures import attention_figure, comparison_figure

CAPTION = (
    "Mean absolute values over the channels: of SFA its output (equation 4), of SA and CA what "
    "they add to the map (equations 6 and 8)."
)


def tumor_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """Maps of SFA, SA and CA, and the masks of all networks of the run (Figures 5 and 6)."""
    title = "What the attention modules make of an image"
    attention = attention_figure(run, cohort, "iacnn", title=title, caption=CAPTION)
    return [*comparison_figure(run, cohort), *attention]
