"""Scores of fmnet2023 that are not those of whole cases: crops, learning curves, empty slices."""

import numpy as np
import pandas as pd

from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort
from keras_medseg.training.callbacks import best_epoch

from .crop_scores import crop_scores

EPOCHS = (5, 30, 40)
"""At which the curves of Figures 3 and 4 were read off."""


def further_scores(run: RunFolder, cohort: Cohort) -> pd.DataFrame:
    """All rows for the tables of the report that scores.csv does not have."""
    return pd.concat([crop_scores(run, cohort), curve_scores(run), absence_scores(run, cohort)])


def curve_scores(run: RunFolder) -> pd.DataFrame:
    """What Figures 3, 4 and 5 show of each variant, from its log; also written to curves.csv.

    The validation losses are those of center crops without augmentation. The region "" has
    val_loss_at_5, _30 and _40 (if the training came so far), val_loss_lowest and lowest_epoch; each
    region has val_dice, its soft Dice in the epoch with the lowest loss.
    """
    logs, rows = run.logs(), []
    for name, variant in run.variants.items():
        (targets,) = variant.recipe.model.targets
        log = logs[run.training(variant.trained_as, targets).name]
        best = best_epoch(log.to_dict("records"))
        log = log.set_index("epoch")
        row = {f"val_loss_at_{n}": log["val_loss"].get(n, np.nan) for n in EPOCHS}
        row |= {"val_loss_lowest": log["val_loss"][best], "lowest_epoch": best}
        of_log = {"variant": name, "case": "log of the training"}
        rows.append({**of_log, "region": "", **row})
        for region in targets:
            rows.append({**of_log, "region": region, "val_dice": log[f"val_dice_{region}"][best]})
    table = pd.DataFrame(rows)
    run.write_table("curves", table)
    return table


def absence_scores(run: RunFolder, cohort: Cohort) -> pd.DataFrame:
    """How the networks do where there is no tumor (Figure 7); also written to absence.csv.

    Only axial slices of the box around the brain count: an empty image is easily left empty.

    Returns:
        One row per variant, scored case and region: left_empty, the share of the slices without
        the region in which none is predicted, and false_voxels, the mean number of voxels predicted
        in such a slice. Both are NaN where every slice has the region.
    """
    rows = []
    for name, variant in run.variants.items():
        dataset = variant.task.dataset
        for case_id in cohort.scored:
            case = cohort.store.cases[case_id]
            found = dataset.read_labels(run.prediction(name, case_id), case)
            first = case.origin[2]
            box = (..., slice(first, first + case.image.shape[0]))
            for region in (region for names in variant.recipe.model.targets for region in names):
                codes = dataset.regions[region]
                values = absence(case.full_labels()[box], found[box], codes)
                rows.append({"variant": name, "case": case_id, "region": region, **values})
    table = pd.DataFrame(rows)
    run.write_table("absence", table)
    return table


def absence(truth: np.ndarray, found: np.ndarray, codes: tuple[int, ...]) -> dict[str, float]:
    """left_empty and false_voxels of one region; both are (X, Y, Z) label codes."""
    annotated, predicted = (
        np.isin(labels, codes).sum(axis=(0, 1)) for labels in (truth, found)
    )  # voxels per slice
    false = predicted[annotated == 0]
    if not len(false):
        return {"left_empty": np.nan, "false_voxels": np.nan}
    return {"left_empty": float(np.mean(false == 0)), "false_voxels": float(false.mean())}
