"""Scores of one picture, as the two papers on pictures have them.

iacnn (section 2.1, equations 12 to 15): Dice, IoU, precision, sensitivity of thresholded masks.
csam_knee (section 3.3, equations 3 to 7): loss rate, which is the mean cross entropy, MAE and F1.
Papers report the mean over pictures; F1 of one picture is its Dice. For F1 pooled over pictures the
counts stand beside the scores: 2 sum(common) / sum(truth + predicted). Equation 4's y' is taken for
the probability, which is what equation 3 takes the cross entropy of.

What an empty mask scores; T is the truth, P the prediction:

| T | P | Dice | IoU | precision | sensitivity | specificity | HD95 |
|---|---|---|---|---|---|---|---|
| empty | empty | 1 | 1 | 1 | 1 | 1 | 0 |
| empty | pixels | 0 | 0 | 0 | 0 (0/0) | TN/(TN + FP) | the picture's diagonal |
| pixels | empty | 0 | 0 | 0 (0/0) | 0 | 1 | the picture's diagonal |
"""

from collections.abc import Mapping, Sequence

import numpy as np

from keras_medseg.evaluation.scoring import dice, hd95, sensitivity, specificity

LOWEST_PROBABILITY = 1e-7
"""Cross entropy does not tell lower ones apart; Keras cuts there, and no network says 0."""


def iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """|P and T| / |P or T| of two boolean masks of one shape; 1 when both are empty.

    Raises: as `scoring.dice`.
    """
    overlap = dice(prediction, truth)
    return overlap / (2 - overlap)


def precision(prediction: np.ndarray, truth: np.ndarray) -> float:
    """TP / (TP + FP): the part of the prediction that is true. Empty masks: the module's table.

    Raises: as `scoring.dice`.
    """
    return sensitivity(prediction=truth, truth=prediction)


def cross_entropy(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean over pixels of -(y log p + (1 - y) log(1 - p)), natural logarithm (equation 2).

    For two classes this is the categorical cross entropy of the pair (1 - p, p).

    Args:
        probabilities: (H, W), cut to LOWEST_PROBABILITY and 1 less it.
        truth: (H, W) bool.
    """
    p = np.clip(probabilities.astype(np.float64), LOWEST_PROBABILITY, 1 - LOWEST_PROBABILITY)
    return float(-np.log(np.where(truth, p, 1 - p)).mean())


def mean_absolute_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean over pixels of |y - p| (equation 4), (H, W) each."""
    return float(np.abs(truth - probabilities.astype(np.float64)).mean())


def score_picture(
    probabilities: np.ndarray,
    truth_labels: np.ndarray,
    targets: Mapping[str, Sequence[int]],
    threshold: float = 0.5,
) -> list[dict[str, str | float | int]]:
    """Score every target of one picture.

    Args:
        probabilities: (H, W, R) from 0 to 1, one channel per target, in their order.
        truth_labels: (H, W) uint8 label codes.
        targets: name -> its label codes.
        threshold: what a probability must exceed to count as predicted.

    Returns:
        One row per target with region, dice, iou, precision, sensitivity, specificity, hd95_px,
        cross_entropy, mae, truth_pixels, predicted_pixels and common_pixels.

    Raises:
        ValueError: for shapes that do not fit each other, or probabilities outside of 0 to 1.
    """
    expected = (*truth_labels.shape, len(targets))
    if probabilities.shape != expected or truth_labels.ndim != 2:
        raise ValueError(f"probabilities: found shape {probabilities.shape}, expected {expected}.")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities: found numbers outside of 0 to 1 or NaN, expected none.")
    return [
        {
            "region": name,
            **_scores(probabilities[..., k], np.isin(truth_labels, list(codes)), threshold),
        }
        for k, (name, codes) in enumerate(targets.items())
    ]


def _scores(
    probabilities: np.ndarray, truth: np.ndarray, threshold: float
) -> dict[str, float | int]:
    prediction = probabilities > threshold
    return {
        "dice": dice(prediction, truth),
        "iou": iou(prediction, truth),
        "precision": precision(prediction, truth),
        "sensitivity": sensitivity(prediction, truth),
        "specificity": specificity(prediction, truth),
        "hd95_px": hd95(prediction, truth, (1.0, 1.0)),
        "cross_entropy": cross_entropy(probabilities, truth),
        "mae": mean_absolute_error(probabilities, truth),
        "truth_pixels": int(np.count_nonzero(truth)),
        "predicted_pixels": int(np.count_nonzero(prediction)),
        "common_pixels": int(np.count_nonzero(prediction & truth)),
    }
