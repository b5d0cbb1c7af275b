"""What the validation side did in the training, and how optimistic its scores are for that."""

import numpy as np
import pandas as pd

from keras_medseg.recipe import Train
from keras_medseg.runs.repetitions import Finished
from keras_medseg.training.callbacks import best_epoch

NEIGHBORS = 2
"""Epochs before and after the kept one with which it is compared."""


def notes(done: Finished) -> list[str]:
    """A sentence for the report if the scored cases also steered the training."""
    if done.cohort.scored_side == "test":
        return []
    trained = {
        name: variant
        for name, variant in done.parts[0].variants.items()
        if variant.trained_as == name
    }
    acts = dict.fromkeys(
        act for variant in trained.values() for act in steered(variant.recipe.train)
    )
    if not acts:
        return []
    text = (
        f"One set of cases for both: the scored cases also {' and '.join(acts)}, so their scores "
        "are too good. "
    )
    gains = [
        gain(part.log(name, targets))
        for part in done.parts
        for name, variant in trained.items()
        if variant.recipe.train.keep == "best"
        for targets in variant.recipe.model.targets
    ]
    known = [value for value in gains if np.isfinite(value)]
    if known:
        text += (
            "By how much, as far as the logs show it: the validation Dice of the kept epochs is "
            f"{100 * np.mean(known):+.2f} points from the mean of the {NEIGHBORS} epochs before "
            f"and after them (mean of {len(known)} of {len(gains)} networks, whose kept epoch is "
            f"neither the first nor the last; highest: {100 * max(known):+.2f}). "
            "What is above 0 was chosen for being high on these cases, and need not return on "
            "others. "
        )
    elif gains:
        text += "By how much, the logs cannot show: the kept epochs are the first or the last. "
    else:
        text += (
            "They chose neither the weights nor the number of epochs, so the scores are hardly "
            "optimistic. "
        )
    return [text + "A side of its own for steering: --set data.test=0.2."]


def steered(train: Train) -> list[str]:
    """What a recipe lets the validation side decide, in words."""
    monitor = train.schedule_options.get("monitor", "")
    lowered = train.schedule == "plateau" and monitor.startswith("val_")
    chose = train.keep == "best"
    words = ("lowered the learning rate", lowered), ("chose the epoch that is kept", chose)
    return [act for act, done in words if done]


def gain(log: pd.DataFrame) -> float:
    """How much higher the validation Dice is in the kept epoch than in those beside it.

    If the curve is straight around the kept epoch and epochs differ by chance, this is what the
    choice of the epoch gained; NaN for the first and the last epoch, where progress and chance
    cannot be told apart.

    Args:
        log: log.csv of a network with the columns epoch, val_loss and val_dice_<region>.

    Returns:
        The difference from the mean of up to NEIGHBORS epochs on each side, as many on both sides
        as on the shorter one; the mean over the regions.
    """
    kept = best_epoch(log.to_dict("records"))
    dice = log.set_index("epoch").filter(regex="^val_dice_").mean(axis=1)
    reach = min(NEIGHBORS, kept - dice.index.min(), dice.index.max() - kept)
    distance = np.abs(dice.index.to_numpy() - kept)
    beside = dice[(distance > 0) & (distance <= reach)]
    return float(dice[kept] - beside.mean()) if len(beside) else np.nan
