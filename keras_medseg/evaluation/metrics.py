"""All metrics, and the table `METRICS` that scores, tables and figures read.

A new metric is one function and one entry in `METRICS`.

Empty masks follow the official BraTS rules, those of CBICA CaPTk's `GetBraTSLabelStatistics`
(cbicaITKUtilities.h). T is the truth, P the prediction:

| T        | P        | Dice | IoU | precision | sensitivity | specificity  | HD95     |
|----------|----------|------|-----|-----------|-------------|--------------|----------|
| empty    | empty    | 1    | 1   | 1         | 1           | 1            | 0        |
| empty    | elements | 0    | 0   | 0         | 0 (0/0)     | TN/(TN + FP) | diagonal |
| elements | empty    | 0    | 0   | 0 (0/0)   | 0           | 1            | diagonal |

An element is a voxel or a pixel; the diagonal is that of the whole array.

Equations: csam_knee (section 3.3) defines the loss rate (the mean cross entropy, equations 2 and
3), the MAE (equation 4) and F1; iacnn (section 2.1, equations 12 to 15) Dice, IoU, precision and
sensitivity of thresholded masks. F1 of one image is its Dice. Equation 4's y' may be the
probability, as in the cross entropy of equation 3, or the mask, as in F1: "mae" and "mae_mask".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage

LOWEST, HIGHEST = 1e-37, 1 - 2**-24
"""Probabilities are clipped to these, so that log(0) cannot occur: about the ends of what a sigmoid
in float32 can say."""


@dataclass(frozen=True)
class Metric:
    """One metric of one mask or probability map.

    Attributes:
        function: computes the metric from what it `needs`:
            "masks": function(prediction, truth), boolean arrays of one shape;
            "surfaces": function(distances), a `SurfaceDistances`;
            "probabilities": function(probabilities, truth), float and boolean arrays of one shape.
        label: name in tables and figures.
        unit: "" for fractions, "mm" or "px" for distances.
        bounds: smallest and largest possible value; None if there is no largest one.
        needs: see `function`.
    """

    function: Callable[..., float]
    label: str
    unit: Literal["", "mm", "px"] = ""
    bounds: tuple[float, float | None] = (0.0, 1.0)
    needs: Literal["masks", "surfaces", "probabilities"] = "masks"


class SurfaceDistances(NamedTuple):
    """Distances between the surfaces of two masks, see `surface_distances`.

    Attributes:
        prediction_to_truth: (n,) distance of every surface element of the prediction to the
            nearest one of the truth.
        truth_to_prediction: (m,) the other direction.
    """

    prediction_to_truth: np.ndarray
    truth_to_prediction: np.ndarray


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """2 |P and T| / (|P| + |T|) of two masks; 1 if both are empty.

    Args:
        prediction: boolean mask of any shape.
        truth: boolean mask of the same shape.

    Raises:
        TypeError: a mask is not a boolean array.
        ValueError: the shapes differ.
    """
    _check_masks(prediction, truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return float(2 * np.count_nonzero(prediction & truth) / total) if total else 1.0


def iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """|P and T| / |P or T| of two masks; 1 if both are empty. Arguments and errors: `dice`."""
    overlap = dice(prediction, truth)
    return overlap / (2 - overlap)


def precision(prediction: np.ndarray, truth: np.ndarray) -> float:
    """TP / (TP + FP): the correct share of the prediction. Arguments and errors: `dice`."""
    _check_masks(prediction, truth)  # here, so that an error names the right argument
    return sensitivity(prediction=truth, truth=prediction)


def sensitivity(prediction: np.ndarray, truth: np.ndarray) -> float:
    """TP / (TP + FN): the share of the truth that was found. Arguments and errors: `dice`."""
    _check_masks(prediction, truth)
    positives = np.count_nonzero(truth)
    if positives == 0:
        return 0.0 if prediction.any() else 1.0
    return float(np.count_nonzero(prediction & truth) / positives)


def specificity(prediction: np.ndarray, truth: np.ndarray) -> float:
    """TN / (TN + FP): the share of the background that was predicted as such; 1 without background.

    Every element outside the truth counts, as in the BraTS challenge, so small regions have values
    close to 1. Arguments and errors: `dice`.
    """
    _check_masks(prediction, truth)
    negatives = truth.size - np.count_nonzero(truth)
    true_negatives = truth.size - np.count_nonzero(prediction | truth)
    return float(true_negatives / negatives) if negatives else 1.0


def surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]
) -> SurfaceDistances:
    """Distances from each mask's surface to the other's, in the unit of `spacing`.

    A mask's surface is the mask minus its erosion by the cross of direct neighbors; beyond the
    array lies background. An empty mask has no surface, so the distances from it are an empty
    array, and those to it are the diagonal of the array: 373.1287 for 240 x 240 x 155 at 1 mm.

    Args:
        prediction: boolean mask of two or three dimensions.
        truth: boolean mask of the same shape.
        spacing: size of an element along each axis of the masks.

    Raises:
        TypeError: a mask is not a boolean array.
        ValueError: the shapes differ, or the spacing does not fit them.
    """
    _check_masks(prediction, truth)
    _check_spacing(spacing, prediction.shape)
    either = prediction | truth
    if not either.any():
        return SurfaceDistances(np.empty(0), np.empty(0))
    # Both masks are background outside the box, and the erosion assumes background beyond the
    # border of an array: so the tight box gives the same surfaces as the full volume.
    box = _bounding_box(either)
    surfaces = _surface(prediction[box]), _surface(truth[box])
    if not (prediction.any() and truth.any()):
        diagonal = float(np.linalg.norm(np.multiply(prediction.shape, spacing)))
        return SurfaceDistances(*(np.full(np.count_nonzero(s), diagonal) for s in surfaces))
    return SurfaceDistances(
        _directed_distances(surfaces[0], surfaces[1], spacing),
        _directed_distances(surfaces[1], surfaces[0], spacing),
    )


def hd95(distances: SurfaceDistances) -> float:
    """The larger of the two directed 95th percentiles of the surface distances.

    Percentiles interpolate linearly. MONAI does the same. medpy pools both directions before the
    percentile, which gives other values for surfaces of unequal size.

    Args:
        distances: from `surface_distances`.

    Returns:
        HD95 in the unit of the distances. 0 when both masks are empty; the diagonal of the array
        when exactly one is.
    """
    found = [directed for directed in distances if directed.size]
    return max((float(np.percentile(directed, 95)) for directed in found), default=0.0)


def cross_entropy(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean over pixels of -(y log p + (1 - y) log(1 - p)), natural logarithm.

    For two classes this is the categorical cross entropy of the pair (1 - p, p).

    Args:
        probabilities: (H, W) from 0 to 1, clipped to LOWEST and HIGHEST.
        truth: (H, W) boolean mask.
    """
    p = np.clip(probabilities.astype(np.float64), LOWEST, HIGHEST)
    return float(-np.log(np.where(truth, p, 1 - p)).mean())


def mean_absolute_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean over pixels of |y - p|.

    Args:
        probabilities: (H, W) from 0 to 1.
        truth: (H, W) boolean mask.
    """
    return float(np.abs(truth - probabilities.astype(np.float64)).mean())


def mask_error(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Share of wrong pixels: the mean absolute error of a mask. Arguments and errors: `dice`."""
    _check_masks(prediction, truth)
    return float(np.count_nonzero(prediction ^ truth) / truth.size)


METRICS: dict[str, Metric] = {
    "dice": Metric(dice, "Dice"),
    "iou": Metric(iou, "IoU"),
    "precision": Metric(precision, "precision"),
    "sensitivity": Metric(sensitivity, "sensitivity"),
    "specificity": Metric(specificity, "specificity"),
    "hd95_mm": Metric(hd95, "HD95", unit="mm", bounds=(0.0, None), needs="surfaces"),
    "hd95_px": Metric(hd95, "HD95", unit="px", bounds=(0.0, None), needs="surfaces"),
    "cross_entropy": Metric(cross_entropy, "loss rate", bounds=(0.0, None), needs="probabilities"),
    "mae": Metric(mean_absolute_error, "MAE", needs="probabilities"),
    "mae_mask": Metric(mask_error, "MAE of the mask"),
}
"""Name of a metric's column in scores.csv -> the metric."""


def higher_is_better(name: str) -> bool:
    """Whether a larger value of this metric is better; distances, errors and losses are smaller.

    A metric that is not in METRICS is a loss if its name ends so, such as that of a validation set.
    """
    if name in METRICS:
        return METRICS[name].unit == "" and name not in ("cross_entropy", "mae")
    return not name.endswith("loss")


def metric_label(name: str) -> str:
    """A metric's name in tables and figures; a metric that is not in METRICS keeps its own."""
    return METRICS[name].label if name in METRICS else name


def _check_masks(prediction: np.ndarray, truth: np.ndarray) -> None:
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if getattr(mask, "dtype", None) != np.bool_:
            found = f"dtype {mask.dtype}" if hasattr(mask, "dtype") else type(mask).__name__
            raise TypeError(f"{name}: found {found}, expected a boolean NumPy array.")
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction and truth: found shapes {prediction.shape} and {truth.shape}, "
            "expected one shape. Paste the prediction into the full grid before scoring."
        )


def _check_spacing(spacing: Sequence[float], shape: tuple[int, ...]) -> None:
    sizes = np.asarray(spacing, float)
    if sizes.shape != (len(shape),) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(
            f"spacing: found {spacing}, expected {len(shape)} positive numbers, "
            f"one for each axis of masks of shape {shape}."
        )


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    return ndimage.find_objects(mask.view(np.uint8))[0]


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask, border_value=0)


def _directed_distances(
    from_surface: np.ndarray, to_surface: np.ndarray, spacing: Sequence[float]
) -> np.ndarray:
    return ndimage.distance_transform_edt(~to_surface, sampling=spacing)[from_surface]
