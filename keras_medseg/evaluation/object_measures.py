"""How well a probability map shows the object of an image: what papers on polyps report.

Mean Dice and mean IoU over all thresholds, weighted F-measure, S-measure and E-measure, for images
(H, W). Everything is computed from the probabilities as they are. The published programs read maps
saved in eight bits and stretch each of them so that it reaches from 0 to 1, which turns a map that
is unsure everywhere into a sure one; `stretched` does the same, for a comparison with their
numbers.

The order of papers and code: the numbers are those of the authors' programs, where these differ
from the formulas in the papers. A rounding of exact halves is that of MATLAB, upward.

Sources: github DengPingFan/PraNet (evaluation of polyps) and DengPingFan/CODToolbox; each function
names its paper.
"""

import numpy as np
from scipy import ndimage

_TINY = float(np.spacing(1.0))


def stretched(probabilities: np.ndarray) -> np.ndarray:
    """A map as the published programs see it: in steps of 1/255, and reaching from 0 to 1.

    Args:
        probabilities: (H, W) from 0 to 1.

    Returns:
        (H, W) float64. A map of one value alone is not stretched.
    """
    steps = np.round(probabilities.astype(np.float64) * 255) / 255
    low, high = steps.min(), steps.max()
    return (steps - low) / (high - low) if high > low else steps


def mean_dice(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean of the Dice of the masks `p >= k / 255` over the thresholds k = 0 to 255.

    "mDice" or "meanDic" of papers on polyps (PraNet, MICCAI 2020); "dice" is that of one mask.

    Args:
        probabilities: (H, W) from 0 to 1.
        truth: (H, W) boolean mask.

    Returns:
        From 0 to 1, no unit. If the truth is empty, the share of the thresholds at which the mask
        is empty, too (the published program: 0).
    """
    common, predicted = _counts(probabilities, truth)
    total = predicted + np.count_nonzero(truth)
    return float(np.where(total, 2 * common / np.maximum(total, 1), 1.0).mean())


def mean_iou(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean of the IoU of the masks `p >= k / 255` over the thresholds k = 0 to 255.

    Arguments, empty cases and source: `mean_dice`.
    """
    common, predicted = _counts(probabilities, truth)
    union = predicted + np.count_nonzero(truth) - common
    return float(np.where(union, common / np.maximum(union, 1), 1.0).mean())


def weighted_f_measure(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """F-measure whose errors are weighted by their place (R. Margolin et al., CVPR 2014).

    With the error `E = |p - y|` of every pixel:

    * Pixels near each other can replace each other. The error of a background pixel is
      replaced by that of the nearest object pixel, all are smoothed by a Gaussian (7 x 7, sigma 5),
      and an object pixel has the smaller of both errors.
    * Background errors count more, the farther they are from the object: by
      `2 - exp(d ln(1/2) / 5)` at d pixels, and those of the object by 1.
    * Weighted precision `P = TP / (TP + FP)` with `TP = sum over the object of 1 - E'` and FP the
      sum of E' over the background; recall `R = 1 - mean of E' over the object`; the measure is
      `2 P R / (P + R)`, with beta = 1 as in the published program.

    Args:
        probabilities: (H, W) from 0 to 1.
        truth: (H, W) boolean mask.

    Returns:
        From 0 to 1, no unit. If the truth is empty, 1 if all probabilities are 0, otherwise 0.
    """
    if not truth.any():
        return float(not probabilities.any())
    error = np.abs(probabilities.astype(np.float64) - truth)
    distance, nearest = ndimage.distance_transform_edt(~truth, return_indices=True)
    steps = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 5**2))
    kernel = np.outer(steps, steps) / steps.sum() ** 2
    smooth = ndimage.convolve(error[tuple(nearest)], kernel, mode="constant")
    weighted = np.where(truth, np.minimum(error, smooth), error * (2 - 0.5 ** (distance / 5)))
    hits, false = np.sum(1 - weighted[truth]), np.sum(weighted[~truth])
    precision = hits / (hits + false + _TINY)
    recall = 1 - weighted[truth].mean()
    return float(2 * precision * recall / (precision + recall + _TINY))


def s_measure(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Structure measure: half likeness of the object, half of four parts of the image.

    D.-P. Fan et al., ICCV 2017, with alpha = 0.5. The likeness of the object is
    `2 m / (m^2 + 1 + s)`, with mean m and standard deviation s of the probabilities on it, and of
    1 - p on the background; both are weighted by their shares of the image. The likeness of the
    parts is the structural similarity of each of the four rectangles that meet in the centroid of
    the object, weighted by area: `4 x y c / ((x^2 + y^2) (v + w))`, with means x and y, variances v
    and w and covariance c of probabilities and truth.

    Args:
        probabilities: (H, W) from 0 to 1.
        truth: (H, W) boolean mask.

    Returns:
        From 0 to 1, no unit; negative sums are 0. If the truth is empty, 1 minus the mean
        probability; if it is the whole image, the mean probability.
    """
    likely = probabilities.astype(np.float64)
    share = truth.mean()
    if share in (0, 1):
        return float(likely.mean() if share else 1 - likely.mean())
    of_object = share * _likeness(likely[truth]) + (1 - share) * _likeness(1 - likely[~truth])
    row, column = (int(np.floor(mean + 0.5)) + 1 for mean in np.argwhere(truth).mean(axis=0))
    of_parts = 0.0
    for rows in (slice(row), slice(row, None)):
        for columns in (slice(column), slice(column, None)):
            part = truth[rows, columns]
            if part.size:
                similar = _structural_similarity(likely[rows, columns], part)
                of_parts += similar * part.size / truth.size
    return float(max(0.0, 0.5 * of_object + 0.5 * of_parts))


def e_measure(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean of `e_measure_curve` over its thresholds: "meanEm" of papers on polyps.

    Args:
        probabilities: (H, W) from 0 to 1.
        truth: (H, W) boolean mask.

    Returns:
        From 0 to N / (N - 1) for N pixels (the published program divides by N - 1), no unit. If the
        truth is empty, the mean share of background in the masks; if it is the whole image, that
        of the object.
    """
    return float(e_measure_curve(probabilities, truth).mean())


def e_measure_curve(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Enhanced-alignment measure of the masks `p >= k / 255`, k = 0 to 255.

    D.-P. Fan et al., IJCAI 2018. With the mask M and the truth T less their
    means, `m` and `t`, the alignment of a pixel is `2 m t / (m^2 + t^2)`, and the measure is the
    sum of `(1 + alignment)^2 / 4`, divided by N - 1 as in the published program (N in the paper).
    "maxEm" is the maximum of the mean of these curves over the images.

    Args:
        probabilities: (H, W) from 0 to 1.
        truth: (H, W) boolean mask.

    Returns:
        (256,) from 0 to N / (N - 1).
    """
    size, positives = truth.size, np.count_nonzero(truth)
    common, predicted = _counts(probabilities, truth)
    if positives in (0, size):
        return (predicted if positives else size - predicted) / (size - 1 + _TINY)
    counts = {
        (1, 1): common,
        (1, 0): predicted - common,
        (0, 1): positives - common,
        (0, 0): size - predicted - positives + common,
    }
    total = np.zeros(len(common))
    for (mask, true), count in counts.items():
        m, t = mask - predicted / size, true - positives / size
        total += count * (1 + 2 * m * t / (m**2 + t**2 + _TINY)) ** 2 / 4
    return total / (size - 1 + _TINY)


def _counts(probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in the masks `p >= k / 255` that are in the truth, and all of them: (256,) each."""
    steps = (probabilities.astype(np.float64) * 255).astype(np.uint8)
    common, every = (np.bincount(part, minlength=256) for part in (steps[truth], steps.ravel()))
    return np.cumsum(common[::-1])[::-1], np.cumsum(every[::-1])[::-1]


def _likeness(values: np.ndarray) -> float:
    mean = values.mean()
    deviation = values.std(ddof=1) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + deviation + _TINY)


def _structural_similarity(likely: np.ndarray, truth: np.ndarray) -> float:
    x, y = likely.mean(), truth.mean()
    free = likely.size - 1 + _TINY
    variances = (np.sum((likely - x) ** 2) + np.sum((truth - y) ** 2)) / free
    covariance = np.sum((likely - x) * (truth - y)) / free
    above, below = 4 * x * y * covariance, (x**2 + y**2) * variances
    if above:
        return float(above / (below + _TINY))
    return float(below == 0)
