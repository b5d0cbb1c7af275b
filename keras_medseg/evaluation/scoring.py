"""Scores of one case: Dice, sensitivity, specificity and HD95, by the official BraTS rules.

Empty masks follow the challenge's own evaluation code, CBICA CaPTk's `GetBraTSLabelStatistics`
(cbicaITKUtilities.h); T is the truth, P the prediction:

| T     | P     | Dice | sensitivity | specificity  | HD95           |
|-------|-------|------|-------------|--------------|----------------|
| empty | empty | 1    | 1           | 1            | 0              |
| empty | voxels| 0    | 0 (0/0)     | TN/(TN + FP) | image diagonal |
| voxels| empty | 0    | 0           | 1            | image diagonal |
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """2 |P and T| / (|P| + |T|) of two boolean masks of one shape; 1 when both are empty.

    Raises:
        TypeError: for a mask that is not boolean.
        ValueError: for masks of different shapes.
    """
    _check_masks(prediction, truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return float(2 * np.count_nonzero(prediction & truth) / total) if total else 1.0


def sensitivity(prediction: np.ndarray, truth: np.ndarray) -> float:
    """TP / (TP + FN): the part of the truth that was found. Empty masks: the module's table.

    Raises: as `dice`.
    """
    _check_masks(prediction, truth)
    positives = np.count_nonzero(truth)
    if positives == 0:
        return 0.0 if prediction.any() else 1.0
    return float(np.count_nonzero(prediction & truth) / positives)


def specificity(prediction: np.ndarray, truth: np.ndarray) -> float:
    """TN / (TN + FP): the part of the background that was left alone. 1 without background.

    Every voxel outside the truth counts, as in the challenge: close to 1 for small regions.

    Raises: as `dice`.
    """
    _check_masks(prediction, truth)
    negatives = truth.size - np.count_nonzero(truth)
    true_negatives = truth.size - np.count_nonzero(prediction | truth)
    return float(true_negatives / negatives) if negatives else 1.0


def hd95(prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """The larger of the two directed 95th percentiles of the surface distances, in mm.

    A mask's surface is the mask minus its erosion by the cross of direct neighbours, beyond the
    array counting as background; percentiles interpolate linearly. MONAI does the same. medpy
    pools both directions before the percentile, which gives other values for unequal surfaces.

    Both masks empty: 0. Exactly one empty: the diagonal of the array in mm, 373.1287 for
    240 x 240 x 155 at 1 mm.

    Args:
        prediction, truth: boolean masks of one shape, of two or three dimensions.
        spacing_mm: the voxel size along the masks' axes.

    Raises:
        TypeError: for a mask that is not boolean.
        ValueError: for masks of different shapes, or a spacing that does not fit them.
    """
    _check_masks(prediction, truth)
    _check_spacing(spacing_mm, prediction.shape)
    either = prediction | truth
    if not either.any():
        return 0.0
    if not (prediction.any() and truth.any()):
        return float(np.linalg.norm(np.multiply(prediction.shape, spacing_mm)))
    # Both masks are background outside the box, which is what the erosion assumes beyond an
    # array's border: the tight box gives the same surfaces as the full volume.
    box = _bounding_box(either)
    prediction_surface, truth_surface = _surface(prediction[box]), _surface(truth[box])
    return max(
        _directed_percentile_mm(prediction_surface, truth_surface, spacing_mm),
        _directed_percentile_mm(truth_surface, prediction_surface, spacing_mm),
    )


def score_case(
    prediction_labels: np.ndarray,
    truth_labels: np.ndarray,
    regions: Mapping[str, Sequence[int]],
    spacing_mm: Sequence[float],
) -> list[dict[str, str | float | int]]:
    """Score every region of one case.

    Args:
        prediction_labels, truth_labels: (X, Y, Z) or (X, Y) label codes, unsigned integers of
            at most 8 bits, in one orientation.
        regions: region -> its label codes, such as `brats.REGIONS`.
        spacing_mm: the voxel size along the labels' axes.

    Returns:
        One row per region with region, dice, sensitivity, specificity, hd95_mm, truth_voxels
        and predicted_voxels: the columns of scores.csv after variant and case.

    Raises:
        TypeError: for labels that are not uint8.
        ValueError: for labels of different shapes, or a spacing that does not fit them.
    """
    rows = []
    for region, codes in regions.items():
        prediction = _region_mask("prediction_labels", prediction_labels, codes)
        truth = _region_mask("truth_labels", truth_labels, codes)
        rows.append(
            {
                "region": region,
                "dice": dice(prediction, truth),
                "sensitivity": sensitivity(prediction, truth),
                "specificity": specificity(prediction, truth),
                "hd95_mm": hd95(prediction, truth, spacing_mm),
                "truth_voxels": int(np.count_nonzero(truth)),
                "predicted_voxels": int(np.count_nonzero(prediction)),
            }
        )
    return rows


def _region_mask(name: str, labels: np.ndarray, codes: Sequence[int]) -> np.ndarray:
    if labels.dtype != np.uint8:
        raise TypeError(f"{name}: found dtype {labels.dtype}, expected uint8 label codes.")
    belongs = np.zeros(256, bool)
    belongs[list(codes)] = True
    return belongs[labels]


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


def _check_spacing(spacing_mm: Sequence[float], shape: tuple[int, ...]) -> None:
    spacing = np.asarray(spacing_mm, float)
    if spacing.shape != (len(shape),) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(
            f"spacing_mm: found {spacing_mm}, expected {len(shape)} positive numbers, "
            f"one for each axis of masks of shape {shape}."
        )


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    return ndimage.find_objects(mask.view(np.uint8))[0]


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask, border_value=0)


def _directed_percentile_mm(
    from_surface: np.ndarray, to_surface: np.ndarray, spacing_mm: Sequence[float]
) -> float:
    distances_mm = ndimage.distance_transform_edt(~to_surface, sampling=spacing_mm)
    return float(np.percentile(distances_mm[from_surface], 95))
