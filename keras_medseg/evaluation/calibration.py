"""Whether probabilities mean what they say: Brier score, calibration error, reliability."""

from typing import NamedTuple

import numpy as np

BINS = 15
"""Of equal width, as in C. Guo et al., On calibration of modern neural networks, ICML 2017."""


class Reliability(NamedTuple):
    """Probabilities in bins of equal width; those of several cases add up field by field.

    A probability on the border of two bins belongs to the upper one, 1 to the last.

    Attributes:
        elements: (B,) number of elements whose probability lies in the bin.
        confidence: (B,) sum of their probabilities.
        positives: (B,) how many of them are in the truth.
    """

    elements: np.ndarray
    confidence: np.ndarray
    positives: np.ndarray


def reliability(probabilities: np.ndarray, truth: np.ndarray, bins: int = BINS) -> Reliability:
    """Sort the probabilities of one region into bins.

    Args:
        probabilities: of the region, from 0 to 1, of any shape.
        truth: boolean mask of the same shape.
        bins: how many.

    Raises:
        ValueError: the shapes differ, or a probability is not from 0 to 1.
    """
    if probabilities.shape != truth.shape:
        raise ValueError(
            f"probabilities: found shape {probabilities.shape}, expected that of the truth, "
            f"{truth.shape}."
        )
    likely = probabilities.ravel().astype(np.float64)
    if not ((likely >= 0) & (likely <= 1)).all():
        raise ValueError("probabilities: found numbers outside of 0 to 1 or NaN, expected none.")
    places = np.minimum((likely * bins).astype(int), bins - 1)
    return Reliability(
        np.bincount(places, minlength=bins),
        np.bincount(places, weights=likely, minlength=bins),
        np.bincount(places[truth.ravel()], minlength=bins),
    )


def pooled(several: list[Reliability]) -> Reliability:
    """The bins of several cases together."""
    return Reliability(*(np.sum(field, axis=0) for field in zip(*several)))


def calibration_error(bins: Reliability) -> float:
    """Expected calibration error of one case or of pooled ones.

    `sum over bins of n_b / N |positives_b / n_b - mean probability_b|`: equation 3 of Guo et al.
    (2017), for the probability of the region instead of the more likely class. From 0 to 1, no
    unit; 0 without elements.
    """
    total = bins.elements.sum()
    return float(np.abs(bins.positives - bins.confidence).sum() / total) if total else 0.0


def expected_calibration_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """`calibration_error` of one map, with BINS bins.

    Every element counts alike, so that a small region has a small error when the background is
    easy: compare methods on the same cases. An empty truth is no special case.

    Args:
        probabilities: (H, W) or (X, Y, Z), from 0 to 1.
        truth: boolean mask of the same shape.
    """
    return calibration_error(reliability(probabilities, truth))


def brier_score(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean of `(p - y)^2` over the elements (G. W. Brier, Monthly Weather Review 78, 1950).

    From 0 to 1, no unit. An empty truth is no special case. Brier's own form adds the classes: for
    two of them it is twice this.

    Args:
        probabilities: (H, W) or (X, Y, Z), from 0 to 1.
        truth: boolean mask of the same shape.
    """
    return float(np.mean((probabilities.astype(np.float64) - truth) ** 2))
