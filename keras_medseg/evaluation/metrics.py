"""All metrics, and the table `METRICS` that scores, tables and figures read.

A new metric is one function and one entry in `METRICS`; docs/metrics.md lists them all.

Empty masks follow the official BraTS rules up to 2022, those of CBICA CaPTk's
`GetBraTSLabelStatistics` (cbicaITKUtilities.h). T is the truth, P the prediction:

| T        | P        | Dice | IoU | precision | sensitivity | specificity  | HD95, ASSD | NSD |
|----------|----------|------|-----|-----------|-------------|--------------|------------|-----|
| empty    | empty    | 1    | 1   | 1         | 1           | 1            | 0          | 1   |
| empty    | elements | 0    | 0   | 0         | 0 (0/0)     | TN/(TN + FP) | diagonal   | 0   |
| elements | empty    | 0    | 0   | 0 (0/0)   | 0           | 1            | diagonal   | 0   |

An element is a voxel or a pixel; the diagonal is that of the whole array.

Equations: csam_knee (section 3.3) defines the loss rate (the mean cross entropy, equations 2 and
3), the MAE (equation 4) and F1; iacnn (section 2.1, equations 12 to 15) Dice, IoU, precision and
sensitivity of thresholded masks. F1 of one image is its Dice. Equation 4's y' may be the
probability, as in the cross entropy of equation 3, or the mask, as in F1: "mae" and "mae_mask".
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from keras_medseg.evaluation import calibration, object_measures
from keras_medseg.evaluation.foreground import border
from keras_medseg.evaluation.surface_elements import nearest_distances

LOWEST, HIGHEST = 1e-37, 1 - 2**-24
"""Probabilities are clipped to these, so that log(0) cannot occur: about the ends of what a sigmoid
in float32 can say."""
MM3_PER_ML = 1000
_FOREGROUND = np.arange(256) > 0


@dataclass(frozen=True)
class Metric:
    """One metric of one mask or probability map.

    Attributes:
        function: computes the metric from what it `needs`:
            "masks": function(prediction, truth), boolean arrays of one shape; elements that are
            background in both may be left out;
            "background": function(prediction, truth, left_out), as "masks", with their number;
            "volumes": function(prediction, truth, spacing_mm);
            "surfaces": function(distances), a `SurfaceDistances`;
            "tolerance": function(distances, tolerance), in one unit;
            "lesions": function(scores), from `lesions.lesion_wise`;
            "probabilities": function(probabilities, truth), float and boolean arrays of one shape.
        label: name in tables and figures.
        unit: "" for fractions and counts, "mm" or "px" for distances, "mL" for volumes.
        bounds: smallest and largest possible value; None if there is no largest one.
        needs: see `function`.
        better: which values are better; "neither" if the best one lies in the middle.
    """

    function: Callable[..., float]
    label: str
    unit: Literal["", "mm", "px", "mL"] = ""
    bounds: tuple[float, float | None] = (0.0, 1.0)
    needs: Literal[
        "masks", "background", "volumes", "surfaces", "tolerance", "lesions", "probabilities"
    ] = "masks"
    better: Literal["higher", "lower", "neither"] = "higher"


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
    """`2 |P and T| / (|P| + |T|)` of two masks (L. R. Dice, Ecology 26, 1945).

    From 0 to 1, no unit. 1 if both masks are empty.

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
    """`|P and T| / |P or T|` of two masks (P. Jaccard, 1901), which is `Dice / (2 - Dice)`.

    From 0 to 1, no unit. 1 if both masks are empty. Arguments and errors: `dice`.
    """
    overlap = dice(prediction, truth)
    return overlap / (2 - overlap)


def precision(prediction: np.ndarray, truth: np.ndarray) -> float:
    """`TP / (TP + FP)`: the correct share of the prediction (positive predictive value).

    From 0 to 1, no unit. If the prediction is empty, 1 for an empty truth and otherwise 0.
    Arguments and errors: `dice`.
    """
    _check_masks(prediction, truth)  # here, so that an error names the right argument
    return sensitivity(prediction=truth, truth=prediction)


def sensitivity(prediction: np.ndarray, truth: np.ndarray) -> float:
    """`TP / (TP + FN)`: the share of the truth that was found (recall, true positive rate).

    From 0 to 1, no unit. If the truth is empty, 1 for an empty prediction and otherwise 0.
    Arguments and errors: `dice`.
    """
    _check_masks(prediction, truth)
    positives = np.count_nonzero(truth)
    if positives == 0:
        return 0.0 if prediction.any() else 1.0
    return float(np.count_nonzero(prediction & truth) / positives)


def specificity(prediction: np.ndarray, truth: np.ndarray, left_out: int = 0) -> float:
    """`TN / (TN + FP)`: the share of the background that was predicted as such.

    Every element outside the truth counts, as in the BraTS challenge, so small regions have values
    close to 1. From 0 to 1, no unit. 1 without background. Errors: `dice`.

    Args:
        prediction: as of `dice`.
        truth: as of `dice`.
        left_out: number of further elements, which are background in both.
    """
    _check_masks(prediction, truth)
    size = truth.size + left_out
    negatives = size - np.count_nonzero(truth)
    true_negatives = size - np.count_nonzero(prediction | truth)
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
    check_spacing(spacing, prediction.shape)
    surfaces = [border(mask).surface(_FOREGROUND) for mask in (prediction, truth)]
    return distances_between(surfaces[0], surfaces[1], prediction.shape, spacing)


def distances_between(
    prediction: np.ndarray, truth: np.ndarray, shape: Sequence[int], spacing: Sequence[float]
) -> SurfaceDistances:
    """As `surface_distances`, of surfaces that are given by the indices of their elements.

    Args:
        prediction: (n, axes) indices.
        truth: (m, axes) indices.
        shape: of the array.
        spacing: size of an element along each axis.
    """
    surfaces = prediction, truth
    if not (len(prediction) and len(truth)):
        diagonal = float(np.linalg.norm(np.multiply(shape, spacing)))
        return SurfaceDistances(*(np.full(len(places), diagonal) for places in surfaces))
    # Counted from the box around both, so that distances round alike wherever it lies.
    first = np.minimum(*(places.min(axis=0) for places in surfaces))
    prediction, truth = prediction - first, truth - first
    return SurfaceDistances(
        nearest_distances(prediction, truth, spacing),
        nearest_distances(truth, prediction, spacing),
    )


def hd95(distances: SurfaceDistances) -> float:
    """The larger of the two directed 95th percentiles of the surface distances.

    `max(P95 of d(P to T), P95 of d(T to P))`; percentiles interpolate linearly, as in MONAI. From
    B. H. Menze et al., IEEE TMI 34, 2015. medpy pools both directions before the percentile, which
    gives other values for surfaces of unequal size. That of BraTS from 2023 on is
    `surface_elements.robust_hausdorff`.

    Args:
        distances: from `surface_distances`.

    Returns:
        HD95 in the unit of the distances. 0 when both masks are empty; the diagonal of the array
        when exactly one is.
    """
    found = [directed for directed in distances if directed.size]
    return max((float(np.percentile(directed, 95)) for directed in found), default=0.0)


def mean_surface_distance(distances: SurfaceDistances) -> float:
    """Average symmetric surface distance (ASSD): the mean over all elements of both surfaces.

    `(sum of d(P to T) + sum of d(T to P)) / (n + m)`: T. Heimann et al., IEEE TMI 28, 2009.

    Args:
        distances: from `surface_distances`.

    Returns:
        ASSD in the unit of the distances. 0 when both masks are empty; the diagonal of the array
        when exactly one is.
    """
    every = np.concatenate(distances)
    return float(every.mean()) if every.size else 0.0


def surface_dice(distances: SurfaceDistances, tolerance: float) -> float:
    """Normalized surface distance (NSD): the share of both surfaces within a tolerance.

    `(|d(P to T) <= t| + |d(T to P) <= t|) / (n + m)`: S. Nikolov et al., arXiv 1809.04430,
    with the number of elements in the place of areas, as in MONAI. With areas it is
    `surface_elements.surface_dice`; nnU-Net and BraTS 2025 take the mean of both shares.

    Args:
        distances: from `surface_distances`.
        tolerance: the largest distance that counts as none, in the unit of the distances.

    Returns:
        From 0 to 1, no unit. 1 when both masks are empty; 0 when exactly one is, as long as the
        tolerance is below the diagonal of the array.
    """
    every = np.concatenate(distances)
    return float((every <= tolerance).mean()) if every.size else 1.0


def volume_error(prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Volume of the prediction minus that of the truth, in mL (1000 mm^3).

    Positive where the prediction is too large. An empty mask has a volume of 0.

    Args:
        prediction: (X, Y, Z) boolean mask.
        truth: as `prediction`.
        spacing_mm: voxel size along x, y, z.

    Raises:
        TypeError: a mask is not a boolean array.
        ValueError: the shapes differ or have not three axes, or the spacing does not fit.
    """
    _check_masks(prediction, truth)
    check_label_volumes(prediction, truth, spacing_mm)
    voxels = int(np.count_nonzero(prediction)) - int(np.count_nonzero(truth))
    return float(voxels * np.prod(spacing_mm) / MM3_PER_ML)


def absolute_volume_error(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]
) -> float:
    """The size of `volume_error` without its sign, in mL. Arguments and errors: `volume_error`."""
    return abs(volume_error(prediction, truth, spacing_mm))


def cross_entropy(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean over pixels of `-(y log p + (1 - y) log(1 - p))`, natural logarithm.

    For two classes this is the categorical cross entropy of the pair (1 - p, p): csam_knee,
    equation 3. From 0, no unit (nats). An empty truth is no special case.

    Args:
        probabilities: (H, W) from 0 to 1, clipped to LOWEST and HIGHEST.
        truth: (H, W) boolean mask.
    """
    p = np.clip(probabilities.astype(np.float64), LOWEST, HIGHEST)
    return float(-np.log(np.where(truth, p, 1 - p)).mean())


def mean_absolute_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean over pixels of `|y - p|` (csam_knee, equation 4; MAE of papers on polyps).

    From 0 to 1, no unit. An empty truth is no special case.

    Args:
        probabilities: (H, W) from 0 to 1.
        truth: (H, W) boolean mask.
    """
    return float(np.abs(truth - probabilities.astype(np.float64)).mean())


def mask_error(prediction: np.ndarray, truth: np.ndarray, left_out: int = 0) -> float:
    """`(FP + FN) / N`: the share of wrong pixels, which is the mean absolute error of a mask.

    From 0 to 1, no unit; 0 if both masks are empty. Source: csam_knee, equation 4 with the mask for
    y'. Arguments and errors: `specificity`.
    """
    _check_masks(prediction, truth)
    return float(np.count_nonzero(prediction ^ truth) / (truth.size + left_out))


def lesion_dice(scores: Mapping[str, Any]) -> float:
    """Mean Dice of the lesions, by the rule of a BraTS challenge: 0 for missed and made-up ones.

    From 0 to 1, no unit. Rules, empty cases and sources: `lesions`.

    Args:
        scores: from `lesions.lesion_wise`.
    """
    return float(scores["lw_dice"])


def lesion_hd95(scores: Mapping[str, Any]) -> float:
    """Mean HD95 of the lesions in mm, with the challenge's penalty for missed and made-up ones.

    Arguments, empty cases and sources: `lesion_dice`.
    """
    return float(scores["lw_hd95"])


def lesions_found(scores: Mapping[str, Any]) -> float:
    """Truth lesions that count and are matched. Arguments and sources: `lesion_dice`."""
    return float(scores["tp"])


def lesions_missed(scores: Mapping[str, Any]) -> float:
    """Truth lesions that count and are not matched. Arguments and sources: `lesion_dice`."""
    return float(scores["fn"])


def lesions_made_up(scores: Mapping[str, Any]) -> float:
    """Predicted lesions that no truth lesion is matched with. Arguments: `lesion_dice`."""
    return float(scores["fp"])


_FROM_0: dict[str, Any] = {"bounds": (0.0, None), "better": "lower"}
_OF_MAPS: dict[str, Any] = {"needs": "probabilities"}

METRICS: dict[str, Metric] = {
    "dice": Metric(dice, "Dice"),
    "iou": Metric(iou, "IoU"),
    "precision": Metric(precision, "precision"),
    "sensitivity": Metric(sensitivity, "sensitivity"),
    "specificity": Metric(specificity, "specificity", needs="background"),
    "hd95_mm": Metric(hd95, "HD95", unit="mm", needs="surfaces", **_FROM_0),
    "hd95_px": Metric(hd95, "HD95", unit="px", needs="surfaces", **_FROM_0),
    "assd_mm": Metric(mean_surface_distance, "ASSD", unit="mm", needs="surfaces", **_FROM_0),
    "assd_px": Metric(mean_surface_distance, "ASSD", unit="px", needs="surfaces", **_FROM_0),
    "nsd": Metric(surface_dice, "NSD", needs="tolerance"),
    "volume_error_ml": Metric(
        volume_error, "volume error", "mL", (-math.inf, None), "volumes", "neither"
    ),
    "absolute_volume_error_ml": Metric(
        absolute_volume_error, "absolute volume error", "mL", needs="volumes", **_FROM_0
    ),
    "lesion_dice": Metric(lesion_dice, "lesion-wise Dice", needs="lesions"),
    "lesion_hd95_mm": Metric(
        lesion_hd95, "lesion-wise HD95", unit="mm", needs="lesions", **_FROM_0
    ),
    "lesions_found": Metric(lesions_found, "lesions found", bounds=(0.0, None), needs="lesions"),
    "lesions_missed": Metric(lesions_missed, "lesions missed", needs="lesions", **_FROM_0),
    "lesions_made_up": Metric(lesions_made_up, "lesions made up", needs="lesions", **_FROM_0),
    "cross_entropy": Metric(cross_entropy, "loss rate", needs="probabilities", **_FROM_0),
    "mae": Metric(mean_absolute_error, "MAE", needs="probabilities", better="lower"),
    "mae_mask": Metric(mask_error, "MAE of the mask", needs="background", better="lower"),
    "brier": Metric(calibration.brier_score, "Brier score", better="lower", **_OF_MAPS),
    "ece": Metric(calibration.expected_calibration_error, "ECE", better="lower", **_OF_MAPS),
    "mean_dice": Metric(object_measures.mean_dice, "mean Dice", **_OF_MAPS),
    "mean_iou": Metric(object_measures.mean_iou, "mean IoU", **_OF_MAPS),
    "weighted_f": Metric(object_measures.weighted_f_measure, "weighted F-measure", **_OF_MAPS),
    "s_measure": Metric(object_measures.s_measure, "S-measure", **_OF_MAPS),
    "e_measure": Metric(object_measures.e_measure, "E-measure", **_OF_MAPS),
}
"""Name of a metric's column in scores.csv -> the metric."""


def higher_is_better(name: str) -> bool:
    """Whether a larger value of this metric is better; distances, errors and losses are smaller.

    A metric that is not in METRICS is a loss if its name ends so, such as that of a validation set.

    Raises:
        ValueError: neither is, as of a signed error.
    """
    if name not in METRICS:
        return not name.endswith("loss")
    if METRICS[name].better == "neither":
        raise ValueError(
            f"metric: found {name}, expected one of which larger or smaller values are better. "
            "Take its absolute value."
        )
    return METRICS[name].better == "higher"


def metric_label(name: str) -> str:
    """A metric's name in tables and figures; a metric that is not in METRICS keeps its own."""
    return METRICS[name].label if name in METRICS else name


def _check_masks(prediction: np.ndarray, truth: np.ndarray) -> None:
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if getattr(mask, "dtype", None) != np.bool_:
            raise TypeError(f"{name}: found {_kind(mask)}, expected a boolean NumPy array.")
    check_shapes(prediction.shape, truth.shape)


def _kind(array: object) -> str:
    return f"dtype {array.dtype}" if hasattr(array, "dtype") else type(array).__name__


def check_shapes(prediction: tuple[int, ...], truth: tuple[int, ...]) -> None:
    """Raise a ValueError for two shapes that differ."""
    if prediction != truth:
        raise ValueError(
            f"prediction and truth: found shapes {prediction} and {truth}, "
            "expected one shape. Paste the prediction into the full grid before scoring."
        )


def check_label_volumes(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]
) -> None:
    """Check what the scores of single lesions are computed from.

    Args:
        prediction: (X, Y, Z) whole numbers.
        truth: as `prediction`.
        spacing_mm: voxel size along x, y, z.

    Raises:
        TypeError: labels that are not whole numbers.
        ValueError: arrays that are not of one shape of three axes, or a spacing that does not fit.
    """
    for name, labels in (("prediction", prediction), ("truth", truth)):
        if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "biu":
            raise TypeError(f"{name}: found {_kind(labels)}, expected an array of whole numbers.")
    check_shapes(prediction.shape, truth.shape)
    if prediction.ndim != 3:
        raise ValueError(f"prediction: found shape {prediction.shape}, expected three axes.")
    check_spacing(spacing_mm, prediction.shape)


def check_spacing(spacing: Sequence[float], shape: tuple[int, ...]) -> None:
    """Raise a ValueError for a spacing that does not fit arrays of this shape."""
    sizes = np.asarray(spacing, float)
    if sizes.shape != (len(shape),) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(
            f"spacing: found {spacing}, expected {len(shape)} positive numbers, "
            f"one for each axis of masks of shape {shape}."
        )
