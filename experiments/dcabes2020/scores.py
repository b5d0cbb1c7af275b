"""Scores of dcabes2020 beside those of the merged label map."""

import pandas as pd

from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort, with_groups

ALONE = "Dice alone"
HIGH_GRADE = "Dice, high grade"
NAMES = ["variant", "case", "group", "region"]


def further_scores(run: RunFolder, cohort: Cohort) -> pd.DataFrame:
    """Dice of each network's own map, and of ET over the high-grade cases alone.

    Returns:
        variant, case, group, region, ALONE and HIGH_GRADE. No row has HIGH_GRADE where the data set
        does not tell the grade, as BraTS 2021.
    """
    alone = run.further_scores().rename(columns={"dice_alone": ALONE})
    scores = with_groups(run.scores(), cohort)
    high = scores["case"].map(lambda case: cohort.store.cases[case].grade == "HGG")
    of_high = scores[high & (scores["region"] == "ET")]
    graded = of_high[NAMES].assign(**{HIGH_GRADE: of_high["dice"]})
    tables = [table for table in (alone, graded) if len(table)] or [alone]
    return pd.concat(tables).reindex(columns=[*NAMES, ALONE, HIGH_GRADE])
