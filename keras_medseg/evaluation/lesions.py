"""Lesion-wise scores by the rules of the BraTS challenges of 2023, 2024, 2025 and 2026.

Several lesions of one region are scored one by one, so that a missed small lesion counts as much as
a large one. `lesion_wise` is the entry; `RULES` has the settings of every challenge.

2023 (also MEN of 2025 and FeTS of 2024):

1. Truth lesions that come close are one: the truth is dilated by 18 neighbors, `dilation` times, in
   voxels whatever their size. What lies in one 26-connected component of that is one lesion.
2. The prediction is split into its 26-connected components.
3. A truth lesion is matched with every whole component that shares a voxel with its dilation. One
   component may be matched with several lesions.
4. Dice and HD95 of the lesion against the union of its components; 0 and the penalty if it has
   none.
5. Components that no lesion is matched with are false positives, each with 0 and the penalty.
6. Truth lesions of at most `threshold` mm^3 count nowhere, but they can save a component from being
   a false positive.
7. The scores are means over the truth lesions that count and the false positives: 1 and 0 if there
   are none.

2024 and 2025: the prediction is joined by dilation too, and its lesions of at most `threshold`
voxels are deleted before anything else. Then lesions that touch the same lesion of another tissue
are joined (`Rule.joined`), in the order of their numbers: a flipped array may score differently.

2026: `lesion_matching`.

HD95 is that of `surface_elements`. NSD is nnU-Net's: (a + b) / (2 + 1e-8) with a, b the shares of
the voxels of each border that lie within the tolerance of the other border.

Mistakes of the originals: in 2024 and 2025 they compute HD95, sensitivity and specificity of the
whole mask from the numbers of the lesions, in eight bits; in 2026 they exchange the voxel sizes of
x and z. By default the masks and the right sizes are taken.

Sources: github rachitsaluja/BraTS-2023-Metrics 43c9052 for 2023; BraTS-2024-Metrics 9a0ab9c for
2024 and f1131e3 for 2025; PyPI BraTS_evaluation 0.0.10 for 2026.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from keras_medseg.errors import require_choice
from keras_medseg.evaluation import lesion_matching, metrics
from keras_medseg.evaluation.surface_elements import robust_hausdorff, surface_elements

Codes = tuple[int, ...]


class LabelWarning(UserWarning):
    """A label map has labels that count as background."""


_TOUCHING = ndimage.generate_binary_structure(3, 3)
_DILATION = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True)
class Rule:
    """How one challenge of 2023 to 2025 scores lesions; see the module's docstring.

    Attributes:
        regions: region -> its label codes in the files of the challenge.
        dilation: steps of the dilation that joins and matches lesions.
        threshold: truth lesions of at most this volume in mm^3 do not count.
        penalty_mm: HD95 of a lesion that is missed or made up; None for the diagonal of the array
            in voxels.
        dilations: `dilation` of the regions that have their own.
        thresholds: `threshold` of the regions that have their own.
        filters_prediction: the prediction is joined and its small lesions deleted, as from 2024 on.
        threshold_in_mm3: the small lesions of the prediction are those by volume, not by voxels.
        joined: region -> the tissues that join its lesions, in their order.
        counts_false_positives: in the means.
        tolerances_mm: of the NSD.
    """

    regions: Mapping[str, Codes]
    dilation: int
    threshold: float
    penalty_mm: float | None = 374.0
    dilations: Mapping[str, int] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    filters_prediction: bool = True
    threshold_in_mm3: bool = False
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counts_false_positives: bool = True
    tolerances_mm: tuple[float, ...] = ()


_NESTED: dict[str, Codes] = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
_TREATED: dict[str, Codes] = {**_NESTED, "NETC": (1,), "SNFH": (2,), "RC": (4,)}
_CHILDREN: dict[str, Codes] = {
    "WT": (1, 2, 3, 4), "TC": (1, 2, 3), "ET": (1,), "NETC": (2,), "CC": (3,), "ED": (4,),
}  # fmt: skip
_OF_TREATED = {
    "NETC": ("ET", "RC"),
    "ET": ("NETC", "RC"),
    "RC": ("ET", "NETC"),
    "SNFH": ("ET", "RC", "NETC"),
}
_ET_BY_NETC = {"ET": ("NETC",)}

_GLI_2023 = Rule(_NESTED, dilation=3, threshold=50, filters_prediction=False)
_MEN_2023 = replace(_GLI_2023, dilation=1)
# SNFH was meant to have a dilation of 5 as well, but its name is misspelt in the original: every
# score of the challenge has 3.
_GLI_2024 = Rule(
    _TREATED, dilation=3, threshold=20, penalty_mm=337.0,
    dilations={"NETC": 5, "RC": 5}, thresholds={"ET": 10}, joined=_OF_TREATED,
)  # fmt: skip
_SSA_2024 = Rule(_NESTED, dilation=3, threshold=50, joined=_ET_BY_NETC)
_MET_2024 = Rule(_NESTED, dilation=1, threshold=2, joined=_ET_BY_NETC)
_PED_2024 = Rule(_CHILDREN, dilation=5, threshold=10)
_MEN_RT_2024 = Rule(
    {"GTV": (1,)}, dilation=1, threshold=50, penalty_mm=None,
    threshold_in_mm3=True, counts_false_positives=False,
)  # fmt: skip
_MET_2025 = replace(_MET_2024, regions={**_NESTED, "RC": (4,)}, penalty_mm=None)

RULES: dict[tuple[int, str], Rule] = {
    (2023, "GLI"): _GLI_2023,
    (2023, "SSA"): _GLI_2023,
    (2023, "PED"): _GLI_2023,
    (2023, "MEN"): _MEN_2023,
    (2023, "MET"): replace(_MEN_2023, threshold=2),
    (2024, "FeTS"): _GLI_2023,
    (2024, "GLI"): _GLI_2024,
    (2024, "SSA"): _SSA_2024,
    (2024, "MET"): _MET_2024,
    (2024, "PED"): _PED_2024,
    (2024, "MEN-RT"): _MEN_RT_2024,
    **{
        (2025, challenge): replace(rule, tolerances_mm=(0.5, 1.0))
        for challenge, rule in (
            ("GLI", _GLI_2024),
            ("SSA", _SSA_2024),
            ("MET", _MET_2025),
            ("PED", _PED_2024),
            ("MEN", _MEN_2023),
            ("MEN-RT", _MEN_RT_2024),
        )
    },
}
"""(Year, challenge) -> rule, but for 2026.

A case of GoAT 2024 has the rule of 2023 for the challenge that it comes from.
"""


class _Lesions(NamedTuple):
    """The lesions of one mask.

    Attributes:
        numbers: (X, Y, Z) number of the lesion of every voxel of the mask, 0 elsewhere.
        zones: the same on the dilated mask.
    """

    numbers: np.ndarray
    zones: np.ndarray


class _Case(NamedTuple):
    """One region of one case.

    Attributes:
        rule, region, spacing_mm: as given.
        penalty_mm: HD95 where there is no distance.
        voxels: of the whole array.
    """

    rule: Rule
    region: str
    spacing_mm: tuple[float, ...]
    penalty_mm: float
    voxels: int

    @property
    def voxel_mm3(self) -> float:
        return float(np.prod(self.spacing_mm))


def lesion_wise(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    year: int = 2023,
    challenge: str = "GLI",
    region: str = "WT",
    *,
    codes: Sequence[int] | None = None,
    as_published: bool = False,
) -> dict[str, Any]:
    """Score one region of a label map lesion by lesion, by the rule of a BraTS challenge.

    Args:
        prediction: (X, Y, Z) label codes, as in the files of the challenge. From 2024 on, the order
            of the axes and their directions should be those of the files, too.
        truth: as `prediction`.
        spacing_mm: voxel size along x, y, z.
        year: 2023, 2024, 2025 or 2026.
        challenge: such as "GLI"; what there is, is in RULES and `lesion_matching.RULES`.
        region: such as "WT".
        codes: label codes of the region, if they are not those of the challenge's files. Two
            boolean arrays are masks of the region. Labels that the challenge does not have, such
            as 4 in 2023, are background, with a LabelWarning.
        as_published: repeats the mistakes of the original programs (end of the module's text).

    Returns:
        Up to 2025: lw_dice, lw_hd95 (mm), in 2025 lw_nsd_0.5 and lw_nsd_1.0; tp, fp, fn (lesions:
        found, made up, missed); lesions, for each truth lesion [volume in mm^3, Dice, HD95, number
        of matched components]; truth_volume (mm^3); and of the whole mask legacy_dice, legacy_hd95,
        sensitivity, specificity, in 2025 legacy_nsd_*. From 2024 on the whole mask is without the
        deleted small lesions; legacy_function (MET of 2025) has the scores before the deletion.
        For 2026 see `lesion_matching.match_lesions`.

        Empty masks: if both are, or if only truth lesions that do not count were missed, Dice 1
        and HD95 0. If the truth is empty and the prediction is not, 0 and the penalty, but 1 and 0
        for MEN-RT. If the prediction is empty, 0 and the penalty.

    Raises:
        TypeError: labels that are not whole numbers.
        ValueError: arrays that are not of one shape (X, Y, Z), a spacing that does not fit, or a
            year, challenge or region that does not exist.
    """
    metrics.check_label_volumes(prediction, truth, spacing_mm)
    codes = codes or ((1,) if prediction.dtype == truth.dtype == bool else None)
    if year == lesion_matching.YEAR:
        return lesion_matching.match_lesions(
            prediction, truth, spacing_mm, challenge, region,
            codes=codes, as_published=as_published,
        )  # fmt: skip
    rule = _rule(year, challenge, region, codes)
    if not codes and not as_published:
        _warn_of_unknown_codes((prediction, truth), rule, f"{challenge} {year}")
    case = _case(rule, region, prediction.shape, spacing_mm)
    box = _box(rule, prediction, truth)
    found = _scores(case, prediction[box], truth[box], as_published=as_published)
    if (year, challenge) == (2025, "MET"):
        masks = (np.isin(labels[box], rule.regions[region]) for labels in (prediction, truth))
        found["legacy_function"] = _whole_mask(case, *masks)
    return found


def _rule(year: int, challenge: str, region: str, codes: Sequence[int] | None) -> Rule:
    """The rule of a challenge, with the codes of the region."""
    years = sorted({known for known, _ in RULES} | {lesion_matching.YEAR})
    if not isinstance(year, int | np.integer) or year not in years:
        raise ValueError(
            f"year: found {year!r}, expected a number: {', '.join(map(str, years))}. The "
            "challenges until 2022 scored whole regions, not lesions."
        )
    if (year, challenge) == (2024, "GoAT"):
        raise ValueError(
            "challenge of 2024: found 'GoAT', expected the challenge that the case comes from. "
            "Score it by the rule of 2023 for GLI, SSA, PED, MEN or MET."
        )
    require_choice(f"challenge of {year}", challenge, [name for y, name in RULES if y == year])
    rule = RULES[year, challenge]
    if codes is not None:
        return replace(rule, regions={**rule.regions, region: tuple(codes)})
    require_choice(f"regions of {challenge} {year}", region, rule.regions)
    return rule


def _warn_of_unknown_codes(labels: Sequence[np.ndarray], rule: Rule, challenge: str) -> None:
    """The originals take labels of another year or challenge for background without a word."""
    known = sorted({0}.union(*rule.regions.values()))
    other = sorted({*np.concatenate([np.unique(array) for array in labels]).tolist()} - {*known})
    if other:
        warnings.warn(
            f"lesion_wise: found the labels {other}, expected those of {challenge}: "
            f"{', '.join(map(str, known))}. Others count as background; give codes=(...) if the "
            "region's are others.",
            LabelWarning,
            stacklevel=3,
        )


def _case(rule: Rule, region: str, shape: tuple[int, ...], spacing_mm: Sequence[float]) -> _Case:
    diagonal = float(np.linalg.norm(shape))
    penalty_mm = diagonal if rule.penalty_mm is None else rule.penalty_mm
    sizes_mm = tuple(float(size) for size in spacing_mm)
    return _Case(rule, region, sizes_mm, penalty_mm, int(np.prod(shape)))


def _scores(
    case: _Case, prediction: np.ndarray, truth: np.ndarray, *, as_published: bool
) -> dict[str, Any]:
    rule = case.rule
    true = _lesions(case, truth, case.region, filtered=False)
    if rule.filters_prediction:
        true = _join(case, true, truth, filtered=False)
        own = _lesions(case, prediction, case.region, filtered=True)
        predicted = _join(case, own, prediction, filtered=True).numbers
    else:
        mask = np.isin(prediction, rule.regions[case.region])
        predicted, _ = ndimage.label(mask, _TOUCHING)
    rows, false = _match(case, predicted, true)
    whole = _whole_mask(case, predicted > 0, true.numbers > 0)
    if as_published and rule.filters_prediction:
        whole |= _of_numbers(case, predicted, true.numbers)
    return _means(case, rows, false) | whole


def _lesions(case: _Case, labels: np.ndarray, tissue: str, *, filtered: bool) -> _Lesions:
    """The lesions of a region or tissue, joined by dilation, in C order of their first voxels.

    Args:
        case: region, rule and spacing.
        labels: (X, Y, Z) codes.
        tissue: name of the region.
        filtered: without the lesions that are deleted from a prediction.
    """
    codes = case.rule.regions.get(tissue) or _TREATED[tissue]
    mask = np.isin(labels, codes)
    dilated = ndimage.binary_dilation(mask, _DILATION, _dilation(case.rule, tissue))
    zones, count = ndimage.label(dilated, _TOUCHING)
    if filtered:
        sizes = np.bincount(zones[mask], minlength=count + 1) * 1.0
        if case.rule.threshold_in_mm3:
            sizes *= case.voxel_mm3
        kept = sizes > _threshold(case.rule, tissue)
        zones = (np.arange(count + 1, dtype=zones.dtype) * kept)[zones]
    return _Lesions(zones * mask, zones)


def _join(case: _Case, lesions: _Lesions, labels: np.ndarray, *, filtered: bool) -> _Lesions:
    """Join lesions that touch the same lesion of another tissue, for each tissue in turn.

    The other tissue's lesions are joined by dilation only. In the order of the pairs of touching
    lesions, a lesion joins the first group that it belongs to. Groups are numbered after all single
    lesions, in the order of the pairs, and nothing happens with fewer than two pairs.
    """
    tissues = case.rule.joined.get(case.region, ())
    for tissue in tissues:
        other = _lesions(case, labels, tissue, filtered=filtered).numbers
        pairs = _touching_pairs(lesions.numbers, other)
        if len(pairs) < 2:
            continue
        top = int(lesions.numbers.max())
        table = np.arange(top + 1, dtype=np.int32)
        groups = {b: top + 1 + i for i, b in enumerate(dict.fromkeys(b for _, b in pairs))}
        for a, b in reversed(pairs):  # the first pair of a lesion is written last
            table[a] = groups[b]
        lesions = _renumbered(lesions, table)
    if not tissues:
        return lesions
    table = np.zeros(int(lesions.numbers.max()) + 1, np.int32)
    kept = np.unique(lesions.numbers[lesions.numbers > 0])
    table[kept] = np.arange(1, len(kept) + 1)
    return _renumbered(lesions, table)


def _renumbered(lesions: _Lesions, table: np.ndarray) -> _Lesions:
    return _Lesions(table[lesions.numbers], table[lesions.zones])


def _touching_pairs(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of numbers that are neighbors by a face or an edge, sorted."""
    places, own, padded = np.argwhere(first) + 1, first[first > 0], np.pad(second, 1)
    found: set[tuple[int, int]] = set()
    for step in np.argwhere(_DILATION) - 1:
        near = padded[tuple((places + step).T)]
        found |= set(zip(*_distinct_pairs(own[near > 0], near[near > 0]).tolist()))
    return sorted(found)


def _distinct_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(2, n) the pairs that occur in two arrays (N,) of whole numbers, sorted."""
    base = int(second.max(initial=0)) + 1
    pairs = np.unique(first.astype(np.int64) * base + second)
    return np.stack(np.divmod(pairs, base))


def _match(case: _Case, predicted: np.ndarray, true: _Lesions) -> tuple[list[list[float]], int]:
    """Scores of every truth lesion, and the number of false positives.

    Returns:
        For each truth lesion [volume in mm^3, Dice, HD95 in mm, matched components, *NSD]; and the
        number of predicted lesions that no truth lesion is matched with.
    """
    shared = (true.zones > 0) & (predicted > 0)
    pairs = _distinct_pairs(true.zones[shared], predicted[shared])
    boxes = ndimage.find_objects(predicted)
    rows = []
    for lesion, box in enumerate(ndimage.find_objects(true.numbers), 1):
        if box is None:
            continue
        matched = pairs[1][pairs[0] == lesion]
        part = _around([box, *(boxes[number - 1] for number in matched)])
        mask = true.numbers[part] == lesion
        volume = np.count_nonzero(mask) * case.voxel_mm3
        missed = [0.0, case.penalty_mm, 0, *(0.0 for _ in case.rule.tolerances_mm)]
        found = np.isin(predicted[part], matched)
        scores = _lesion(case, found, mask, len(matched)) if len(matched) else missed
        rows.append([volume, *scores])
    every = {number for number, box in enumerate(boxes, 1) if box is not None}
    return rows, len(every - set(pairs[1].tolist()))


def _lesion(case: _Case, found: np.ndarray, lesion: np.ndarray, matched: int) -> list[float]:
    hd95 = robust_hausdorff(surface_elements(found, lesion, case.spacing_mm))
    nsd = _nsd(case, found, lesion)
    return [metrics.dice(found, lesion), hd95, matched, *nsd]


def _nsd(case: _Case, prediction: np.ndarray, truth: np.ndarray) -> list[float]:
    if not case.rule.tolerances_mm:
        return []
    if not (prediction.any() and truth.any()):
        return [float(prediction.any() == truth.any())] * len(case.rule.tolerances_mm)
    distances = metrics.surface_distances(prediction, truth, case.spacing_mm)
    return [
        sum(float((directed <= tolerance).mean()) for directed in distances) / (2 + 1e-8)
        for tolerance in case.rule.tolerances_mm
    ]


def _means(case: _Case, rows: list[list[float]], false: int) -> dict[str, Any]:
    rule = case.rule
    counted = [row for row in rows if row[0] > _threshold(rule, case.region)]
    found = sum(row[3] > 0 for row in counted)
    penalized = false if rule.counts_false_positives else 0
    number = len(counted) + penalized
    means = {"lw_dice": sum(row[1] for row in counted) / number if number else 1.0}
    hd95 = sum(row[2] for row in counted) + penalized * case.penalty_mm
    means["lw_hd95"] = hd95 / number if number else 0.0
    for column, tolerance in enumerate(rule.tolerances_mm, 4):
        nsd = sum(row[column] for row in counted)
        means[f"lw_nsd_{tolerance}"] = nsd / number if number else 1.0
    counts = {"tp": found, "fp": false, "fn": len(counted) - found}
    return means | counts | {"lesions": [row[:4] for row in rows]}


def _whole_mask(case: _Case, prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The scores of whole masks, which were those of the challenges up to 2022."""
    both = prediction.any() and truth.any()
    hd95 = case.penalty_mm if prediction.any() or truth.any() else 0.0
    if both:
        hd95 = robust_hausdorff(surface_elements(prediction, truth, case.spacing_mm))
    # Outside the box both masks are background.
    negatives = case.voxels - np.count_nonzero(truth)
    false = np.count_nonzero(prediction & ~truth)
    scores = {
        "legacy_dice": metrics.dice(prediction, truth),
        "legacy_hd95": hd95,
        "sensitivity": metrics.sensitivity(prediction, truth),
        "specificity": (negatives - false) / negatives if negatives else 1.0,
        "truth_volume": np.count_nonzero(truth) * case.voxel_mm3,
    }
    nsd = zip(case.rule.tolerances_mm, _nsd(case, prediction, truth))
    return scores | {f"legacy_nsd_{tolerance}": value for tolerance, value in nsd}


def _of_numbers(case: _Case, predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """HD95, sensitivity and specificity as the originals from 2024 on compute them.

    They take the numbers of the lesions for a mask: the first lesion alone can be a true positive,
    and the others count as often as their numbers say.
    """
    positives, predictions = int(true.sum()), int(predicted.sum())
    if not (positives or predictions):
        return {}
    common = np.count_nonzero((predicted == 1) & (true == 1))
    outside = case.voxels - predicted.size
    neither = np.count_nonzero((predicted != 1) & (true != 1)) + outside
    tiny = np.finfo(float).tiny
    hd95 = case.penalty_mm
    if positives and predictions:
        elements = surface_elements(
            predicted.astype(np.uint8), true.astype(np.uint8), case.spacing_mm
        )
        hd95 = robust_hausdorff(elements)
    return {
        "legacy_hd95": hd95 if np.isfinite(hd95) else case.penalty_mm,
        "sensitivity": common / (positives + tiny),
        "specificity": neither / (neither + predictions - common + tiny),
    }


def _dilation(rule: Rule, region: str) -> int:
    return rule.dilations.get(region, rule.dilation)


def _threshold(rule: Rule, region: str) -> float:
    return rule.thresholds.get(region, rule.threshold)


def _box(rule: Rule, prediction: np.ndarray, truth: np.ndarray) -> tuple[slice, ...]:
    """The box around both label maps, with room for every dilation as far as the array goes."""
    labelled = ((prediction != 0) | (truth != 0)).view(np.uint8)
    [found] = ndimage.find_objects(labelled) or [tuple(slice(0, 1) for _ in truth.shape)]
    margin = max(rule.dilation, *rule.dilations.values(), 0)
    return tuple(slice(max(part.start - margin, 0), part.stop + margin) for part in found)


def _around(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    """The smallest box around several."""
    return tuple(
        slice(min(part.start for part in axis), max(part.stop for part in axis))
        for axis in zip(*boxes)
    )
