"""Scores of dcabes2020 beside those of the merged label map."""

import pandas as pd

from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort, with_groups

from .rivals import IN_ONE_RECIPE

ALONE = "Dice alone"
HIGH_GRADE = "Dice, high grade"
SAME_RECIPE = "Dice, one recipe for all"
NAMES = ["variant", "case", "group", "region"]


def further_scores(run: RunFolder, cohort: Cohort) -> pd.DataFrame:
    """Dice of each network's own map, of ET over the high-grade cases alone, and under one recipe.

    Returns:
        variant, case, group, region, ALONE, HIGH_GRADE and SAME_RECIPE. No row has HIGH_GRADE where
        the data set does not tell the grade, as BraTS 2021. SAME_RECIPE stands in the rows of the
        variants under their own recipes.
    """
    alone = run.further_scores().rename(columns={"dice_alone": ALONE})
    scores = with_groups(run.scores(), cohort)
    high = scores["case"].map(lambda case: cohort.store.cases[case].grade == "HGG")
    of_high = scores[high & (scores["region"] == "ET")]
    graded = of_high[NAMES].assign(**{HIGH_GRADE: of_high["dice"]})
    own = {other: name for name, other in IN_ONE_RECIPE.items()}
    same = scores.assign(variant=scores["variant"].map(own)).dropna(subset=["variant"])
    same = same[NAMES].assign(**{SAME_RECIPE: same["dice"]})
    tables = [table for table in (alone, graded, same) if len(table)] or [alone]
    return pd.concat(tables).reindex(columns=[*NAMES, ALONE, HIGH_GRADE, SAME_RECIPE])
