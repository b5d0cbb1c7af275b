"""The figure of fmnet2023: the outputs of the supervised decoder stages."""

import numpy as np

from experiments.fmnet2023.crop_scores import in_patches, validation_batches
from keras_medseg.reporting.figures import style, volumes
from keras_medseg.reporting.report import ReportFigure
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort
from keras_medseg.tasks.patches import PatchTask

VARIANT = "fmnet"
CAPTION = (
    "The middle axial slice of a crop around the center of the first scored case, whole tumor. "
    "Main output, then the supervision heads, from the coarsest on."
)


def head_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """Main output and supervision heads beside the annotation, on one slice of one crop.

    No figure for a network in two dimensions.
    """
    chosen = run.variant(VARIANT)
    if not in_patches(chosen.recipe):
        return []
    (targets,) = chosen.recipe.model.targets
    network = run.network(VARIANT, targets, auxiliary=True)
    batches = validation_batches(cohort, chosen, targets, as_in_training=False)
    x, y = (np.asarray(array) for array in batches.batch(0, 0))
    z = volumes.largest_slice(y[0, ..., 0], y[0, ..., 0])
    outputs = network.predict_on_batch(x[:1])
    outputs = outputs if isinstance(outputs, list) else [outputs]
    titles = ["main output", *(f"head {number}" for number in range(1, len(outputs)))]
    maps = {
        title: (y[0, :, :, z, 0] > 0, np.asarray(output[0, :, :, z, 0], np.float32))
        for title, output in zip(titles, outputs)
    }
    seen = PatchTask(chosen.recipe).modalities
    image = x[0, :, :, z, seen.index("flair") if "flair" in seen else 0]
    drawn = volumes.output_maps(image - image.min(), maps)  # normalized intensities lie around 0
    path = style.save(drawn, run.figure("supervision"))
    return [ReportFigure("What the supervised stages see", CAPTION, path)]
