"""The figures of csam_knee: the attention maps of CSAM, and the masks of all networks."""

from keras_medseg.reporting.report import ReportFigure
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort

from ..image_figures import attention_figure, comparison_figure

CAPTION = "The weight of every pixel on each skip (section 2.3)."


def knee_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """The spatial weights of every CSAM, and the masks of all networks of the run."""
    title = "Where CSAM looks"
    attention = attention_figure(run, cohort, "res_csam_unet", title=title, caption=CAPTION)
    return [*comparison_figure(run, cohort), *attention]
