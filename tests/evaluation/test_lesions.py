"""Lesion-wise scores: equal to those of the challenges' programs, and cases by hand."""

from dataclasses import replace

import numpy as np
import pytest

from keras_medseg.evaluation import lesion_wise
from keras_medseg.evaluation.lesions import RULES, LabelWarning

from .lesion_goldens import ARTEFACTS, differences, expected, label_maps, names
from .lesion_goldens import cases as golden_cases

# Between them: thresholds of both sides, joining by dilation and across tissues, numbering, matches
# beside a lesion, anisotropic voxels, empty masks.
TELLING = (
    "truth_threshold", "pred_threshold", "cavity_links", "numbering", "match_gap",
    "anisotropic_threshold", "empty_truth", "both_empty",
)  # fmt: skip
FAST_OR_SLOW = [
    pytest.param(name, marks=() if name in TELLING else pytest.mark.slow) for name in names()
]
YEARS = (2023, 2024, 2025, 2026)


def score(name, year, challenge, region, **options):
    truth, prediction = label_maps(name)
    spacing = golden_cases()[name]["spacing"]
    return lesion_wise(prediction, truth, spacing, year, challenge, region, **options)


@pytest.mark.parametrize("name", FAST_OR_SLOW)
def test_as_published_every_value_is_that_of_the_challenge(name):
    compared = 0
    for year in YEARS:
        for challenge, region, golden in expected(name, year):
            found = score(name, year, challenge, region, as_published=True)
            assert differences(found, golden) == {}, (year, challenge, region)
            compared += len(golden)
    assert compared > 400


# The goldens' label maps have the cavity of 2024 in every year.
@pytest.mark.filterwarnings("ignore::keras_medseg.evaluation.lesions.LabelWarning")
@pytest.mark.parametrize("name", ["anisotropic_threshold", "truth_threshold", "random11"])
def test_by_default_only_the_mistakes_of_the_originals_differ(name):
    for year in (2023, 2025):
        for challenge, region, golden in expected(name, year):
            found = score(name, year, challenge, region)
            filters = RULES[year, challenge].filters_prediction
            wrong = ARTEFACTS if filters else ()
            assert differences(found, golden, wrong) == {}, (year, challenge, region)


@pytest.mark.parametrize("name", ["perfect", "random11", "truth_threshold"])
def test_by_default_the_whole_mask_is_scored_from_masks(name):
    """The original of MET 2025 has a function that computes them so, from what is not deleted."""
    for challenge, region, golden in expected(name, 2025):
        if challenge == "MET":
            found = score(name, 2025, challenge, region)["legacy_function"]
            assert differences(found, golden["legacy_function"]) == {}


def test_a_perfect_prediction_of_three_lesions_is_perfect():
    right = score("perfect", 2025, "GLI", "WT")
    assert [right[key] for key in sorted(ARTEFACTS)] == [0, 1, 1]
    published = score("perfect", 2025, "GLI", "WT", as_published=True)
    # Of 5695 voxels, the 2109 of lesion 1 are common; lesions 2 and 3 with 3071 and 515 voxels
    # count by their numbers: 2109 / (2109 + 2 * 3071 + 3 * 515).
    assert published["sensitivity"] == pytest.approx(2109 / 9796)


def test_one_touching_pair_changes_no_number():
    # The first of two enhancing lesions touches a core. It keeps number 1, so that as published its
    # 125 voxels are the true positives, and the 150 of the other count twice.
    labels = volume((2, 7), (30, 36), code=3) + volume((7, 8), code=1)
    found = lesion_wise(labels, labels, (1, 1, 1), 2024, "GLI", "ET", as_published=True)
    assert found["sensitivity"] == pytest.approx(125 / (125 + 2 * 150))


def test_rules_that_the_goldens_call_equal():
    for challenge in ("SSA", "PED"):
        assert RULES[2023, challenge] == RULES[2023, "GLI"]
    for challenge in ("GLI", "SSA", "PED", "MEN-RT"):
        assert replace(RULES[2025, challenge], tolerances_mm=()) == RULES[2024, challenge]
    assert RULES[2024, "FeTS"] == RULES[2023, "GLI"]
    assert replace(RULES[2025, "MEN"], tolerances_mm=()) == RULES[2023, "MEN"]
    for challenge in ("GoAT", "MEN", "MenPre", "gli"):
        for region in ("WT", "TC", "ET"):
            found = score("random7", 2026, challenge, region)
            np.testing.assert_equal(found, score("random7", 2026, "GLI", region))


def volume(*boxes, shape=(60, 20, 20), code=1):
    """Boxes of one label, each as (start, stop) along x; 5 x 5 voxels along y and z."""
    labels = np.zeros(shape, np.uint8)
    for start, stop in boxes:
        labels[start:stop, 5:10, 5:10] = code
    return labels


def test_a_found_a_missed_and_a_made_up_lesion_by_hand():
    truth, prediction = volume((2, 7), (30, 35)), volume((2, 7))
    prediction[55, 15, 15] = 1
    found = lesion_wise(prediction, truth, (1, 1, 1), 2023, "GLI", "WT")
    assert (found["tp"], found["fn"], found["fp"]) == (1, 1, 1)
    assert found["lesions"] == [[125.0, 1.0, 0.0, 1], [125.0, 0.0, 374.0, 0]]
    assert found["lw_dice"] == pytest.approx(1 / 3)
    assert found["lw_hd95"] == pytest.approx((0 + 374 + 374) / 3)
    assert found["truth_volume"] == 250
    # From 2024 on, a predicted lesion of one voxel is deleted.
    found = lesion_wise(prediction, truth, (1, 1, 1), 2024, "GLI", "WT")
    assert (found["lw_dice"], found["lw_hd95"], found["fp"]) == (1 / 2, 337 / 2, 0)


def test_volumes_and_distances_are_in_millimeters():
    # 25 voxels of 2 mm^3 are 50 mm^3: they do not count. 125 of them are, and the prediction ends
    # one voxel of 2 mm later.
    truth, prediction = volume((2, 3), (30, 35)), volume((30, 36))
    found = lesion_wise(prediction, truth, (2, 1, 1))
    assert found["lesions"][1][:2] == [250.0, pytest.approx(2 * 125 / (125 + 150))]
    assert (found["tp"], found["fn"], found["lw_hd95"]) == (1, 0, 2.0)


def test_the_penalty_of_met_and_men_rt_is_the_diagonal_in_voxels():
    truth, empty = volume((2, 7)), volume()
    diagonal = np.sqrt(60**2 + 20**2 + 20**2)
    for challenge, region in (("MET", "TC"), ("MEN-RT", "GTV")):
        found = lesion_wise(empty, truth, (2, 2, 2), 2025, challenge, region)
        assert found["lw_hd95"] == found["legacy_hd95"] == pytest.approx(diagonal)
    # A made-up lesion alone does not count in the means of MEN-RT.
    found = lesion_wise(truth, empty, (1, 1, 1), 2025, "MEN-RT", "GTV")
    assert (found["fp"], found["lw_dice"], found["lw_hd95"]) == (1, 1.0, 0.0)
    assert found["legacy_dice"] == 0


def test_2026_swaps_the_voxel_sizes_only_as_published():
    # One plane of 5 x 5 voxels, predicted one plane too far along x as well: every other voxel of
    # the two planes is 2 mm away, and the 95th percentile is 2.
    truth, prediction = volume((10, 11)), volume((10, 12))
    right = lesion_wise(prediction, truth, (2, 1, 1), 2026, "GLI", "WT")
    assert right["lw_hd95"] == 2
    published = lesion_wise(prediction, truth, (2, 1, 1), 2026, "GLI", "WT", as_published=True)
    assert published["lw_hd95"] == 1
    assert right["global_hd95"] == published["global_hd95"] == 1  # in voxels


def test_2026_pairs_lesions_so_that_the_sum_of_dice_is_largest():
    # One predicted box over both lesions can be the partner of one: of the larger one.
    truth, prediction = volume((2, 6), (8, 18)), volume((2, 18))
    found = lesion_wise(prediction, truth, (1, 1, 1), 2026, "GLI", "WT")
    assert (found["tp"], found["fn"], found["fp"]) == (1, 1, 0)
    assert found["lw_dsc"] == pytest.approx(2 * 10 / (10 + 16))
    assert found["f1"] == pytest.approx(2 / 3)


def test_codes_of_ones_own_and_masks():
    truth, prediction = volume((2, 7), code=7), volume((2, 6), code=7)
    own = lesion_wise(prediction, truth, (1, 1, 1), region="liver", codes=(7,))
    assert own["lw_dice"] == pytest.approx(2 * 4 / 9)
    masks = lesion_wise(prediction > 0, truth > 0, (1, 1, 1), region="WT")
    assert masks == own
    assert lesion_wise(prediction > 0, truth > 0, (1, 1, 1), region="ET") == own
    with pytest.warns(LabelWarning, match=r"found the labels \[7\], .* GLI 2023: 0, 1, 2, 3"):
        assert lesion_wise(prediction, truth, (1, 1, 1), region="WT")["lw_dice"] == 1
    matched = lesion_wise(prediction, truth, (1, 1, 1), 2026, region="liver", codes=(7,))
    assert matched["lw_dsc"] == pytest.approx(2 * 4 / 9)


def test_lesions_far_apart_score_the_same_wherever_they_lie():
    """Cropping and numbering must not matter when nothing is joined: flip and pad."""
    truth, prediction = volume((9, 14), (30, 36)), volume((10, 15), (31, 36))
    expected_scores = lesion_wise(prediction, truth, (1, 1, 1), 2025, "GLI", "RC", codes=(1,))
    padded = [np.pad(labels[::-1], ((3, 0), (0, 9), (0, 0))) for labels in (prediction, truth)]
    found = lesion_wise(*padded, (1, 1, 1), 2025, "GLI", "RC", codes=(1,))
    for key in ("lw_dice", "lw_hd95", "lw_nsd_0.5", "lw_nsd_1.0"):
        assert found[key] == pytest.approx(expected_scores[key], abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"year": 2022}, ValueError, "year: found 2022, expected a number: 2023, 2024, 2025, 2026"),
        ({"challenge": "XYZ"}, ValueError, "challenge of 2023: found 'XYZ', expected one of: GLI"),
        ({"year": 2026, "challenge": "SSA"}, ValueError, "challenge of 2026: found 'SSA'"),
        ({"region": "RC"}, ValueError, "regions of GLI 2023: found 'RC', expected one of: WT"),
        ({"year": 2024, "challenge": "GoAT"}, ValueError, "rule of 2023 for GLI"),
        ({"truth": np.zeros((2, 2, 2))}, TypeError, "truth: found dtype float64"),
        ({"prediction": [1]}, TypeError, "prediction: found list, expected an array of whole"),
        ({"truth": np.zeros((2, 2, 3), int)}, ValueError, "found shapes"),
        ({"spacing_mm": (1, 1)}, ValueError, "spacing: found"),
    ],
)
def test_what_does_not_exist_or_fit_is_named(changes, error, words):
    given = {"prediction": np.zeros((2, 2, 2), int), "truth": np.zeros((2, 2, 2), int)}
    with pytest.raises(error, match=words):
        lesion_wise(**{**given, "spacing_mm": (1, 1, 1), **changes})


def test_2026_refuses_labels_that_a_challenge_does_not_have():
    labels = volume((2, 7), code=4)
    for challenge, region in (("GoAT", "WT"), ("MEN-RT", "GTV")):
        with pytest.raises(ValueError, match=r"prediction: found the labels \[4\], expected"):
            lesion_wise(labels, labels, (1, 1, 1), 2026, challenge, region)
    assert lesion_wise(labels, labels, (1, 1, 1), 2026, "GLI", "RC")["tp"] == 1
