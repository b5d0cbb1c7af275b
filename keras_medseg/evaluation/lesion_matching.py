"""Lesion-wise scores by the one-to-one matching of the BraTS challenges of 2026.

Nothing is dilated and nothing is deleted: the lesions are the 26-connected components of both
masks. Every truth lesion is paired with at most one predicted one and the other way round, so that
the sum of their Dice is as large as possible; a pair counts if its Dice exceeds `_LOWEST_DICE`.

The scores are means over the pairs alone: lesions that are missed or made up do not lower them, but
F1. Metastases (MET) differ: truth lesions of at least 27 mm^3 are scored, and each of them that is
missed, and each false positive, counts with 0 (HD95: 373); smaller ones are only detected, by a
Dice of at least 0.2.

HD95 is the 95th percentile of both directions pooled, NSD the mean of the shares of the voxels of
each border that lie within the tolerance of the other border.

Source: PyPI BraTS_evaluation 0.0.10 on panoptica 2.1.7.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy
from scipy import ndimage

from keras_medseg.errors import require_choice
from keras_medseg.evaluation import metrics

Codes = tuple[int, ...]

YEAR = 2026

_NESTED: dict[str, Codes] = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}

RULES: dict[str, dict[str, Codes]] = {
    "GLI": {**_NESTED, "NETC": (1,), "SNFH": (2,), "RC": (4,)},
    "MET": {**_NESTED, "RC": (4,)},
    "PED": {
        "WT": (1, 2, 3, 4), "TC": (1, 2, 3), "ET": (1,), "NETC": (2,), "CC": (3,), "ED": (4,),
    },
    "MEN": _NESTED,
    "MEN-RT": {"GTV": (1,)},
    "GoAT": _NESTED,
}  # fmt: skip
"""Challenge -> region -> label codes in its files."""
_CONFIGURATIONS = {"gli": "GLI", "mets": "MET", "ped": "PED", "MenPre": "MEN", "MenRT": "MEN-RT"}
"""Names of the original's configurations, which are understood, too."""

_CODES = {"GoAT": (0, 1, 2, 3), "MEN-RT": (0, 1)}
"""Challenges that refuse a case with other labels."""
_LOWEST_DICE = 1e-6
_PENALTY = 373.0
_SMALLEST_MM3, _DETECTED_DICE = 27.0, 0.2
"""Of metastases."""
_TOUCHING = ndimage.generate_binary_structure(3, 3)


class _Lesions(NamedTuple):
    """The components of both masks, and which of them belong together.

    Attributes:
        predicted, true: (X, Y, Z) numbers of the components, 0 elsewhere.
        sizes: (T,) voxels of the true ones.
        false: predicted ones without a partner.
        partner: true number -> predicted number and Dice.
    """

    predicted: np.ndarray
    true: np.ndarray
    sizes: np.ndarray
    false: int
    partner: Mapping[int, tuple[int, float]]


def match_lesions(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    challenge: str,
    region: str,
    *,
    codes: Sequence[int] | None = None,
    as_published: bool = False,
) -> dict[str, Any]:
    """Score one region of a label map by the rule of 2026. Arguments: `lesions.lesion_wise`.

    Returns:
        tp, fp, fn (lesions) and f1 = 2 TP / (2 TP + FP + FN); lw_dsc with its standard deviation
        lw_dsc_std, lw_nsd (tolerance: the smallest voxel size) and lw_hd95 (mm); of the whole mask
        global_dsc, global_nsd (tolerance: half a voxel) and global_hd95 (voxels). MET also has tp,
        fp, fn, prec, rec and f1 of the large and the small lesions, such as large_tp.

        Empty masks: everything but the counts is NaN if both are empty. Without a pair, Dice, NSD
        and F1 are 0, lw_hd95 infinite (373 for MET), lw_dsc_std NaN and global_hd95 373. The scores
        of MET are NaN if the truth has no large lesion.

    Raises:
        ValueError: there is no such challenge or region, or a label that the challenge refuses
            (without `codes`): 4 in GoAT, any but 1 in MEN-RT.
    """
    challenge = _CONFIGURATIONS.get(challenge, challenge)
    require_choice(f"challenge of {YEAR}", challenge, RULES)
    regions = RULES[challenge]
    if codes is None:
        _check_codes(prediction, truth, challenge)
    else:
        regions = {region: tuple(codes)}
    require_choice(f"regions of {challenge} {YEAR}", region, regions)
    masks = _cropped(*(np.isin(labels, regions[region]) for labels in (prediction, truth)))
    lesions = _pair(*masks)
    sizes_mm = tuple(float(size) for size in spacing_mm)
    used_mm = sizes_mm[::-1] if as_published else sizes_mm
    tp, fp, fn = len(lesions.partner), lesions.false, len(lesions.sizes) - len(lesions.partner)
    counts = {"tp": tp, "fp": fp, "fn": fn, "f1": _f1(tp, fp, fn)}
    scored = _metastases if challenge == "MET" else _pairs_alone
    return counts | scored(lesions, used_mm) | _whole_mask(*masks, found=tp > 0)


def _check_codes(prediction: np.ndarray, truth: np.ndarray, challenge: str) -> None:
    """Refuse labels that stop a case in the original; the others are background there."""
    if challenge not in _CODES:
        return
    known = _CODES[challenge]
    for name, labels in (("prediction", prediction), ("truth", truth)):
        other = sorted(set(np.unique(labels).tolist()) - set(known))
        if other:
            raise ValueError(
                f"{name}: found the labels {other}, expected those of {challenge} {YEAR}: "
                f"{', '.join(map(str, known))}."
            )


def _cropped(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks in the box around them; an empty pair stays as it is."""
    for box in ndimage.find_objects((prediction | truth).view(np.uint8)):
        return prediction[box], truth[box]
    return prediction, truth


def _pair(prediction: np.ndarray, truth: np.ndarray) -> _Lesions:
    """The components of two masks, one to one with the largest sum of Dice."""
    predicted, many = ndimage.label(prediction, _TOUCHING)
    true, count = ndimage.label(truth, _TOUCHING)
    predicted_sizes = np.bincount(predicted[prediction], minlength=many + 1)[1:]
    true_sizes = np.bincount(true[truth], minlength=count + 1)[1:]
    both = prediction & truth
    near, rows = np.unique(predicted[both], return_inverse=True)  # all others have a Dice of 0
    places = rows * count + true[both] - 1
    common = np.bincount(places, minlength=len(near) * count).reshape(len(near), count)
    scores = 2 * common / np.add.outer(predicted_sizes[near - 1], true_sizes)
    partner = {
        int(column) + 1: (int(near[row]), float(scores[row, column]))
        for row, column in zip(*scipy.optimize.linear_sum_assignment(scores, maximize=True))
        if scores[row, column] > _LOWEST_DICE
    }
    return _Lesions(predicted, true, true_sizes, many - len(partner), partner)


def _pairs_alone(lesions: _Lesions, spacing_mm: tuple[float, ...]) -> dict[str, float]:
    rows = [_scores_of(lesions, number, spacing_mm) for number in sorted(lesions.partner)]
    if not rows:
        if len(lesions.sizes) or lesions.false:
            return {"lw_dsc": 0.0, "lw_dsc_std": np.nan, "lw_nsd": 0.0, "lw_hd95": np.inf}
        return dict.fromkeys(("lw_dsc", "lw_dsc_std", "lw_nsd", "lw_hd95"), np.nan)
    return _means(rows)


def _metastases(lesions: _Lesions, spacing_mm: tuple[float, ...]) -> dict[str, float]:
    volumes = lesions.sizes * np.prod(spacing_mm)
    large = [int(number) for number in np.flatnonzero(volumes >= _SMALLEST_MM3) + 1]
    small = [int(number) for number in np.flatnonzero(volumes < _SMALLEST_MM3) + 1]
    found = [number for number in large if number in lesions.partner]
    rows = [_scores_of(lesions, number, spacing_mm) for number in found]
    rows += [(0.0, 0.0, _PENALTY)] * (len(large) - len(found) + lesions.false)
    none = dict.fromkeys(("lw_dsc", "lw_dsc_std", "lw_nsd", "lw_hd95"), np.nan)
    detected = sum(lesions.partner.get(number, (0, 0.0))[1] >= _DETECTED_DICE for number in small)
    return {
        **(_means(rows) if large else none),
        **_detection("large", len(found), len(large), lesions.false),
        **_detection("small", detected, len(small), lesions.false),
    }


def _scores_of(
    lesions: _Lesions, number: int, spacing_mm: tuple[float, ...]
) -> tuple[float, float, float]:
    """Dice, NSD and HD95 of one pair."""
    partner, dice = lesions.partner[number]
    either = (lesions.true == number) | (lesions.predicted == partner)
    [box] = ndimage.find_objects(either.view(np.uint8))
    masks = lesions.predicted[box] == partner, lesions.true[box] == number
    return dice, *_surface_scores(*masks, spacing_mm, tolerance=min(spacing_mm))


def _surface_scores(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float], *, tolerance: float
) -> tuple[float, float]:
    """NSD and HD95 of two masks that are not empty."""
    distances = metrics.surface_distances(prediction, truth, spacing)
    nsd = np.mean([np.mean(directed <= tolerance) for directed in distances])
    return float(nsd), float(np.percentile(np.concatenate(distances), 95))


def _means(rows: Sequence[tuple[float, float, float]]) -> dict[str, float]:
    dice, nsd, hd95 = np.mean(rows, axis=0).tolist()
    deviation = float(np.std([row[0] for row in rows]))
    return {"lw_dsc": dice, "lw_dsc_std": deviation, "lw_nsd": nsd, "lw_hd95": hd95}


def _detection(kind: str, found: int, number: int, false: int) -> dict[str, float]:
    if not number:
        names = ("tp", "fp", "fn", "prec", "rec", "f1")
        return {f"{kind}_{name}": np.nan for name in names}
    return {
        f"{kind}_tp": found,
        f"{kind}_fp": false,
        f"{kind}_fn": number - found,
        f"{kind}_prec": found / (found + false) if found else 0.0,
        f"{kind}_rec": found / number,
        f"{kind}_f1": _f1(found, false, number - found),
    }


def _f1(tp: int, fp: int, fn: int) -> float:
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else np.nan


def _whole_mask(prediction: np.ndarray, truth: np.ndarray, *, found: bool) -> dict[str, float]:
    if not found:
        empty = not (prediction.any() or truth.any())
        values = (np.nan,) * 3 if empty else (0.0, 0.0, _PENALTY)
    else:
        voxels = (1.0,) * prediction.ndim
        distances = _surface_scores(prediction, truth, voxels, tolerance=0.5)
        values = metrics.dice(prediction, truth), *distances
    return dict(zip(("global_dsc", "global_nsd", "global_hd95"), values))
