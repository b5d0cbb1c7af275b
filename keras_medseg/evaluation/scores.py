"""Scores of single cases, one row per region, by any of the metrics in `metrics.METRICS`.

The module also chooses the cases that a report shows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd

from keras_medseg.data.datasets.base import GLIOMAS_2023, LesionRule
from keras_medseg.data.formats import nifti
from keras_medseg.errors import require_choice
from keras_medseg.evaluation.foreground import Foreground, foreground
from keras_medseg.evaluation.lesions import lesion_wise
from keras_medseg.evaluation.metrics import (
    METRICS,
    SurfaceDistances,
    check_shapes,
    check_spacing,
    distances_between,
    surface_distances,
)

PIXELS = (1.0, 1.0)
"""The spacing of the pixels of an image: its distances are in pixels."""

TOLERANCE = 1.0
"""Of the surface Dice where none is given, in the unit of the distances."""


@dataclass(frozen=True)
class Rules:
    """What some metrics need to know beside the masks.

    Attributes:
        lesions: whose rule scores single lesions, year and challenge as in `lesions.RULES`. That of
            2023 needs nothing but the mask of a region, so it scores any volume.
        tolerances: region -> tolerance of its surface Dice, in the unit of the spacing; TOLERANCE
            for other regions.
    """

    lesions: LesionRule = GLIOMAS_2023
    tolerances: Mapping[str, float] = field(default_factory=dict)


def score_labels(
    prediction: np.ndarray,
    truth: np.ndarray,
    regions: Mapping[str, Sequence[int]],
    *,
    metrics: Sequence[str],
    spacing: Sequence[float],
    elements: str = "voxels",
    rules: Rules = Rules(),
) -> list[dict[str, str | float | int]]:
    """Score every region of one label map.

    Args:
        prediction: (X, Y, Z) or (X, Y) uint8 label codes. An image may have a third axis of one
            slice, as in the store; it is scored in two dimensions.
        truth: as `prediction`, in the same orientation.
        regions: region -> its label codes, as in `Dataset.regions`.
        metrics: names in METRICS, in the order of the columns.
        spacing: size of an element along each axis, in the unit of the surface metrics.
        elements: what a label map consists of, "voxels" or "pixels".
        rules: of the metrics of lesions and of the surface Dice.

    Returns:
        One row per region with region, the metrics, nsd_tolerance beside nsd, truth_<elements>,
        predicted_<elements> and, of pixels, common_pixels: the columns of scores.csv after variant
        and case.

    Raises:
        TypeError: labels that are not uint8.
        ValueError: labels of different shapes, a spacing that does not fit them, or a metric that
            is unknown or needs probabilities.
    """
    known = [name for name, metric in METRICS.items() if metric.needs != "probabilities"]
    for name in metrics:
        require_choice("metrics of label maps", name, known)
    if elements == "pixels" and truth.shape[2:] == (1,):
        # In three dimensions, every pixel of a single slice would lie on the surface.
        prediction, truth, spacing = prediction[..., 0], truth[..., 0], spacing[:2]
    _check_labels(prediction, truth)
    seen = foreground(prediction, truth)
    rows: list[dict[str, str | float | int]] = []
    for region, codes in regions.items():
        arguments: Arguments = {
            **_arguments(*_masks(seen, codes), seen.background),
            "volumes": partial(_whole_masks, prediction, truth, codes, spacing),
            "lesions": partial(_lesions, prediction, truth, spacing, rules.lesions, region, codes),
        }
        distances = cache(partial(_distances, seen, codes, truth.shape, spacing))
        tolerance = rules.tolerances.get(region, TOLERANCE)
        values = _values(metrics, arguments, distances, tolerance)
        rows.append({"region": region, **values, **_counts(*_masks(seen, codes), elements)})
    return rows


def score_probabilities(
    probabilities: np.ndarray,
    truth_labels: np.ndarray,
    regions: Mapping[str, Sequence[int]],
    *,
    metrics: Sequence[str],
    threshold: float = 0.5,
) -> list[dict[str, str | float | int]]:
    """Score every region of one image from its probabilities.

    Papers on images report the mean over images. For a Dice pooled over images, the counts stand
    beside the scores: 2 sum(common_pixels) / sum(truth_pixels + predicted_pixels).

    Args:
        probabilities: (H, W, R) from 0 to 1, one channel per region, in their order.
        truth_labels: (H, W) uint8 label codes.
        regions: region -> its label codes.
        metrics: names in METRICS, in the order of the columns. Distances are in pixels.
        threshold: a pixel counts as predicted where its probability exceeds this value.

    Returns:
        One row per region with region, the metrics, truth_pixels, predicted_pixels and
        common_pixels: the columns of scores.csv after variant and case.

    Raises:
        ValueError: shapes that do not fit each other, probabilities outside of 0 to 1, or a metric
            that is unknown, in mm or mL, or of lesions.
    """
    known = [
        name
        for name, metric in METRICS.items()
        if metric.unit in ("", "px") and metric.needs != "lesions"
    ]
    for name in metrics:
        require_choice("metrics of images", name, known)
    expected = (*truth_labels.shape, len(regions))
    if probabilities.shape != expected or truth_labels.ndim != 2:
        raise ValueError(f"probabilities: found shape {probabilities.shape}, expected {expected}.")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities: found numbers outside of 0 to 1 or NaN, expected none.")
    rows: list[dict[str, str | float | int]] = []
    for channel, (region, codes) in enumerate(regions.items()):
        likely = probabilities[..., channel]
        true, predicted = np.isin(truth_labels, list(codes)), likely > threshold
        arguments = _arguments(predicted, true, 0, likely)
        distances = cache(partial(surface_distances, predicted, true, PIXELS))
        values = _values(metrics, arguments, distances)
        rows.append({"region": region, **values, **_counts(predicted, true, "pixels")})
    return rows


def pick_cases(scores: pd.DataFrame, variant: str) -> dict[str, str]:
    """Choose the cases to show: the best, the median and the worst by mean Dice over the regions.

    Args:
        scores: scores.csv: the columns variant, case, region, dice and truth_<elements>.
        variant: the value of the column `variant` to choose by.

    Returns:
        {"best": case, "median": case, "worst": case}. Two cases have no median, and a single one
        is {"only": case}. A case without any object, where an empty prediction has a Dice of 1, is
        neither the best nor the median as long as other cases have objects.

    Raises:
        ValueError: `variant` has no scores.
    """
    of_variant = scores[scores["variant"] == variant]
    if not len(of_variant):
        known = ", ".join(sorted(set(scores["variant"])))
        raise ValueError(f"variant: found {variant!r}, expected one of: {known}.")
    means = of_variant.groupby("case")["dice"].mean()
    ranked = sorted(means.index, key=lambda case: (-means[case], case))
    if len(ranked) == 1:
        return {"only": ranked[0]}
    sizes = of_variant.filter(regex="^truth_").sum(axis=1).groupby(of_variant["case"]).sum()
    shown = [case for case in ranked if sizes[case] > 0] or ranked
    middle = {"median": shown[len(shown) // 2]} if len(ranked) > 2 else {}
    return {"best": shown[0], **middle, "worst": ranked[-1]}


def _check_labels(prediction: np.ndarray, truth: np.ndarray) -> None:
    for name, labels in (("prediction", prediction), ("truth", truth)):
        if labels.dtype != np.uint8:
            raise TypeError(f"{name}: found dtype {labels.dtype}, expected uint8 label codes.")
    check_shapes(prediction.shape, truth.shape)


def _masks(seen: Foreground, codes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """A region in prediction and truth, without what is background in both label maps."""
    return _among(codes)[seen.prediction], _among(codes)[seen.truth]


def _counts(prediction: np.ndarray, truth: np.ndarray, elements: str) -> dict[str, int]:
    counts = {
        f"truth_{elements}": int(np.count_nonzero(truth)),
        f"predicted_{elements}": int(np.count_nonzero(prediction)),
    }
    common = int(np.count_nonzero(prediction & truth))
    return counts | ({"common_pixels": common} if elements == "pixels" else {})


Arguments = Mapping[str, Callable[[], tuple]]
"""What metrics need, see `Metric.needs` -> a function that makes it."""


def _values(
    metrics: Sequence[str],
    arguments: Arguments,
    distances: Callable[[], SurfaceDistances],
    tolerance: float = TOLERANCE,
) -> dict[str, float]:
    """Every metric of one pair of masks; what several metrics need is computed once."""
    makers = {
        **arguments,
        "surfaces": lambda: (distances(),),
        "tolerance": lambda: (distances(), tolerance),
    }
    needed = {METRICS[name].needs for name in metrics}
    made = {need: makers[need]() for need in needed}
    values = {name: METRICS[name].function(*made[METRICS[name].needs]) for name in metrics}
    return values | ({"nsd_tolerance": tolerance} if "tolerance" in needed else {})


def _arguments(
    prediction: np.ndarray,
    truth: np.ndarray,
    left_out: int,
    probabilities: np.ndarray | None = None,
) -> dict[str, Callable[[], tuple]]:
    """Of masks without `left_out` elements that are background in both."""
    return {
        "masks": lambda: (prediction, truth),
        "background": lambda: (prediction, truth, left_out),
        "probabilities": lambda: (probabilities, truth),
    }


def _distances(
    seen: Foreground, codes: Sequence[int], shape: tuple[int, ...], spacing: Sequence[float]
) -> SurfaceDistances:
    """`surface_distances` of a region."""
    check_spacing(spacing, shape)
    prediction, truth = (border.surface(_among(codes)) for border in seen.borders)
    return distances_between(prediction, truth, shape, spacing)


def _whole_masks(
    prediction: np.ndarray, truth: np.ndarray, codes: Sequence[int], spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, Sequence[float]]:
    return _among(codes)[prediction], _among(codes)[truth], spacing


def _lesions(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    rule: LesionRule,
    region: str,
    codes: Sequence[int],
) -> tuple[dict[str, Any]]:
    """`lesions.lesion_wise` on label maps in LPS, scored as they lie in the case's files."""
    if rule.axis_codes != ("L", "P", "S"):
        prediction, truth = (
            nifti.restore(labels, rule.axis_codes) for labels in (prediction, truth)
        )
        spacing_mm = [spacing_mm["LRPASI".index(code) // 2] for code in rule.axis_codes]
    found = lesion_wise(
        prediction, truth, spacing_mm, rule.year, rule.challenge, region, codes=codes
    )
    return (found,)


def _among(codes: Sequence[int]) -> np.ndarray:
    """(256,) bool: whether a code is one of these."""
    belongs = np.zeros(256, bool)
    belongs[list(codes)] = True
    return belongs
