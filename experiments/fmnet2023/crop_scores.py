"""The score of fmnet2023's authors: soft Dice of crops, pooled over batches.

Not the field's Dice: nothing is thresholded, a batch counts as one image, and what is scored are
random, augmented crops that hold a tumour more often than chance would have it. It is here so that
a run can stand beside Table II; `scoring.py` scores whole cases.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from keras_medseg.data.batches.base import CaseBatches

if TYPE_CHECKING:
    import keras

SMOOTH = 1e-5  # MONAI's DiceLoss, above and below


def score_crops(
    network: "keras.Model",
    batches: CaseBatches,
    loss: Callable[[np.ndarray, np.ndarray], float],
) -> dict[str, float]:
    """Mean over the first epoch's batches, weighted by samples, of each target's soft Dice.

    A batch's Dice is (2 sum p q + 1e-5) / (sum p + sum q + 1e-5) over all its voxels, on the main
    output alone.

    Args:
        network: its main output, of as many channels as there are targets, comes first.
        batches: what the authors score is PatchBatches with their augmentation, batches of 4 (2 in
            validation), and only the training part, 80 %, of their test folder.
        loss: of targets and all outputs side by side, such as `losses.get(...)`.

    Returns:
        Target -> Dice (the first of targets with one name), and "loss".
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
        values["loss"] = float(loss(y, predicted))
        samples += len(y)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(y)
    return {name: total / samples for name, total in sums.items()}


def soft_dice(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N, ..., R) twice -> (R,): Dice of the probabilities over the whole batch, smoothed."""
    axes = tuple(range(truth.ndim - 1))
    both = np.sum(truth * probabilities, axis=axes, dtype=np.float64)
    sizes = np.sum(truth, axis=axes, dtype=np.float64)
    sizes = sizes + np.sum(probabilities, axis=axes, dtype=np.float64)
    return (2 * both + SMOOTH) / (sizes + SMOOTH)
