"""The score of the authors of fmnet2023: soft Dice of crops, pooled over batches.

This is not the usual Dice: nothing is thresholded, a batch counts as one image, and the scored
samples are random, augmented crops that contain a tumor more often than chance. It is computed so
that a run can be compared with Table II; `evaluation/scores.py` scores whole cases.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pandas as pd

from keras_medseg import losses
from keras_medseg.data.batches.base import CaseBatches
from keras_medseg.recipe import Recipe, fields, override
from keras_medseg.runs.run_folder import RunFolder, Variant
from keras_medseg.runs.steps import Cohort

SMOOTH = 1e-5  # MONAI's DiceLoss, above and below


def crop_scores(run: RunFolder, cohort: Cohort) -> pd.DataFrame:
    """Score the scored cases as the authors do: soft Dice of augmented random crops, and loss.

    For 2-D networks, slices take the place of crops. The rows are as in scores.csv, with the
    metrics crop_dice and dice_loss (1 - crop_dice) of every region, and loss; they are also written
    to crop_scores.csv.
    """
    rows = []
    for name, variant in run.variants.items():
        (targets,) = variant.recipe.model.targets
        network = run.network(variant.trained_as, targets, auxiliary=True)
        batches = validation_batches(cohort, variant, targets, as_in_training=True)
        train = variant.recipe.train
        # Training takes logits; the network that it leaves puts out probabilities.
        options = {**train.loss_options, "from_logits": False}
        found = score_crops(network, batches, losses.get(train.loss, **options))
        of_variant = {"variant": name, "case": "augmented crops"}
        for region, dice in zip(targets, found.values()):
            row = {**of_variant, "region": region, "crop_dice": dice, "dice_loss": 1 - dice}
            rows.append(row)
        rows.append({**of_variant, "region": "", "loss": found["loss"]})
        keras.utils.clear_session()
    table = pd.DataFrame(rows)
    run.write_table("crop_scores", table)
    return table


def validation_batches(
    cohort: Cohort, variant: Variant, targets: tuple[str, ...], *, as_in_training: bool
) -> CaseBatches:
    """Batches of the scored cases: cropped, augmented and shuffled as in training, or plain."""
    chosen = variant
    if in_patches(variant.recipe):
        on_host = override(variant.recipe, {"data.augment_on_device": False})
        chosen = replace(variant, recipe=on_host)
    return chosen.task.batches(cohort.store, cohort.scored, targets, training=as_in_training)


def in_patches(recipe: Recipe) -> bool:
    """Whether a variant sees three-dimensional crops; the variants of section V-A see slices."""
    return "data.patch" in fields(recipe)


def score_crops(
    network: keras.Model,
    batches: CaseBatches,
    loss: Callable[[np.ndarray, np.ndarray], Any],
) -> dict[str, float]:
    """Soft Dice of each target: the mean over the batches of the first epoch, weighted by samples.

    The Dice of a batch is (2 sum p q + 1e-5) / (sum p + sum q + 1e-5) over all its voxels, on the
    main output alone.

    Args:
        network: its main output comes first and has one channel for each target.
        batches: the authors score PatchBatches with their augmentation, in batches of 4 (2 in
            validation), and only the training part, 80 %, of their test folder.
        loss: of the targets and all outputs side by side, such as `losses.get(...)`.

    Returns:
        Target -> Dice (the first of targets with the same name), and "loss".
    """
    sums: dict[str, float] = {}
    samples = 0
    for step in range(batches.steps_per_epoch):
        x, y = batches.batch(0, step)
        outputs = network.predict_on_batch(x)
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        predicted = np.concatenate([np.float32(output) for output in outputs], axis=-1)
        values: dict[str, float] = {}
        for (name, _), dice in zip(batches.targets, soft_dice(y, predicted[..., : y.shape[-1]])):
            # Auxiliary outputs come after the regions and may repeat their names.
            values.setdefault(name, dice)
        values["loss"] = float(keras.ops.convert_to_numpy(loss(y, predicted)))
        samples += len(y)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(y)
    return {name: total / samples for name, total in sums.items()}


def soft_dice(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N, ..., R) twice -> (R,): Dice of the probabilities over the whole batch, smoothed."""
    axes = tuple(range(truth.ndim - 1))
    both = np.asarray(np.sum(truth * probabilities, axis=axes, dtype=np.float64))
    sizes = np.asarray(np.sum(truth, axis=axes, dtype=np.float64))
    sizes = sizes + np.asarray(np.sum(probabilities, axis=axes, dtype=np.float64))
    return (2 * both + SMOOTH) / (sizes + SMOOTH)
