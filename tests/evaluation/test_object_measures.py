"""Measures of papers on polyps: values of a published program, by hand, and by plain loops."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from keras_medseg.evaluation import object_measures as measures

GOLDEN = Path(__file__).parents[1] / "goldens" / "polyp_metrics.json"
CASES = json.loads(GOLDEN.read_text())["cases"]


def golden_case(name):
    """Probabilities and truth."""
    gray = [[int(value) for value in row.split()] for row in CASES[name]["prediction"]]
    truth = [[character == "1" for character in row] for row in CASES[name]["truth"]]
    return np.array(gray) / 255, np.array(truth)


@pytest.mark.parametrize("stretched", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_published_program(name, stretched):
    likely, truth = golden_case(name)
    likely = measures.stretched(likely) if stretched else likely
    golden = dict(CASES[name]["stretched" if stretched else "as_is"])
    found = {
        "e_measure_max": measures.e_measure_curve(likely, truth).max(),
        "mae": np.abs(likely - truth).mean(),
    }
    for key in set(golden) - set(found):
        found[key] = getattr(measures, key)(likely, truth)
    assert found == pytest.approx(golden, abs=1e-12)


def disk(shape=(21, 17), center=(10, 8), radius=5):
    y, x = np.indices(shape)
    return (y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2


def test_a_perfect_mask_by_hand():
    truth = disk()
    likely, size = truth.astype(float), truth.size
    assert measures.weighted_f_measure(likely, truth) == pytest.approx(1)
    assert measures.s_measure(likely, truth) == pytest.approx(1)
    # Of 256 thresholds, 255 give the truth, and k = 0 the whole image: its mask less its mean is 0,
    # so that every pixel counts (1 + 0)^2 / 4.
    expected = (255 + 1 / 4) / 256 * size / (size - 1)
    assert measures.e_measure(likely, truth) == pytest.approx(expected)
    share = truth.mean()
    assert measures.mean_dice(likely, truth) == pytest.approx((255 + 2 * share / (1 + share)) / 256)
    assert measures.mean_iou(likely, truth) == pytest.approx((255 + share) / 256)


def test_weighted_f_of_one_false_pixel_by_hand():
    truth = np.zeros((15, 15), bool)
    truth[5:8, 5:8] = True
    likely = truth.astype(float)
    likely[6, 12] = 1  # 5 pixels from the nearest one of the object: weight 2 - 1/2
    precision = 9 / (9 + 1.5)
    expected = 2 * precision / (1 + precision)
    assert measures.weighted_f_measure(likely, truth) == pytest.approx(expected)


def test_weighted_f_of_a_hole_by_hand():
    # The error of one pixel inside a large object is the smaller of 1 and the middle of the kernel.
    truth = np.ones((31, 31), bool)
    truth[0, 0] = False
    likely = truth.astype(float)
    likely[15, 15] = 0
    steps = [math.exp(-(step**2) / 50) for step in range(-3, 4)]
    error = 1 / sum(steps) ** 2
    recall = 1 - error / 960
    assert measures.weighted_f_measure(likely, truth) == pytest.approx(2 * recall / (1 + recall))


def plain_s_measure(likely, truth):
    """The paper's formulas, with loops and MATLAB's indices from 1, rounding halves up."""
    height, width = truth.shape
    pixels = [(i, j) for i in range(height) for j in range(width) if truth[i, j]]
    row = math.floor(sum(i + 1 for i, _ in pixels) / len(pixels) + 0.5)
    column = math.floor(sum(j + 1 for _, j in pixels) / len(pixels) + 0.5)
    parts = 0.0
    for rows in (range(row), range(row, height)):
        for columns in (range(column), range(column, width)):
            n = len(rows) * len(columns)
            if not n:
                continue
            p = [likely[i, j] for i in rows for j in columns]
            t = [float(truth[i, j]) for i in rows for j in columns]
            x, y = sum(p) / n, sum(t) / n
            covariance = sum((a - x) * (b - y) for a, b in zip(p, t)) / (n - 1)
            spread = sum((a - x) ** 2 + (b - y) ** 2 for a, b in zip(p, t)) / (n - 1)
            above, below = 4 * x * y * covariance, (x**2 + y**2) * spread
            parts += n / truth.size * (above / below if above else float(below == 0))

    def likeness(values):
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
        return 2 * mean / (mean**2 + 1 + deviation)

    share = len(pixels) / truth.size
    whole = share * likeness(list(likely[truth])) + (1 - share) * likeness(list(1 - likely[~truth]))
    return 0.5 * whole + 0.5 * parts


@pytest.mark.parametrize(
    "box",
    [
        (slice(2, 6), slice(1, 5)),  # the centroid lies at 4.5 and 3.5, counted from 1
        (slice(3, 8), slice(8, 11)),  # and at column 10
        (slice(2, 9), slice(10, 11)),  # in the last column: no part lies to its right
        (slice(8, 9), slice(2, 7)),  # in the last row
    ],
)
def test_s_measure_by_plain_loops(box):
    truth = np.zeros((9, 11), bool)
    truth[box] = True
    likely = np.random.default_rng(0).random(truth.shape)
    likely[truth] = 0.5 + likely[truth] / 2
    found = measures.s_measure(likely, truth)
    assert 0 < found < 1
    assert found == pytest.approx(plain_s_measure(likely, truth))


def test_truths_without_object_or_background():
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    none, some = np.zeros((4, 5)), np.full((4, 5), 0.25)
    assert measures.weighted_f_measure(none, empty) == 1
    assert measures.weighted_f_measure(some, empty) == 0
    assert measures.s_measure(some, empty) == 0.75
    assert measures.s_measure(some, full) == 0.25
    # 0.25 * 255 = 63.75: the thresholds k = 0 to 63 give the whole image, the other 192 nothing.
    for measure in (measures.mean_dice, measures.mean_iou):
        assert measure(some, empty) == 192 / 256
        assert measure(some, full) == 64 / 256
    assert measures.e_measure(some, empty) == pytest.approx(192 / 256 * 20 / 19)
    assert measures.e_measure(some, full) == pytest.approx(64 / 256 * 20 / 19)


def test_stretched_maps_reach_from_0_to_1_in_steps_of_8_bits():
    # 0.2 and 0.6 are 51 and 153 of 255; 0.3 is 76.5, rounded to 76: (76 - 51) / 102.
    found = measures.stretched(np.array([[0.2, 0.3, 0.6]]))
    assert found.tolist() == [[0, pytest.approx(25 / 102), 1]]
    assert measures.stretched(np.full((2, 2), 0.4)).tolist() == [[0.4, 0.4]] * 2


def test_goldens_are_what_the_published_program_computes():
    """The goldens were made for this package; here is how."""
    sod = pytest.importorskip("py_sod_metrics")
    handlers = {"mean_dice": sod.DICEHandler, "mean_iou": sod.IOUHandler}
    for name, golden in CASES.items():
        likely, truth = golden_case(name)
        in_bytes = np.round(likely * 255).astype(np.uint8), truth * np.uint8(255)
        for kind, inputs in (("stretched", in_bytes), ("as_is", (likely, truth))):
            meters = [sod.Smeasure(), sod.WeightedFmeasure(), sod.Emeasure(), sod.MAE()]
            of_masks = {
                key: handler(with_dynamic=True, with_adaptive=False)
                for key, handler in handlers.items()
            }
            meters.append(sod.FmeasureV2(of_masks))
            for meter in meters:
                meter.step(*inputs, normalize=kind == "stretched")
            structure, weighted, aligned, error, masks = (meter.get_results() for meter in meters)
            curve = aligned["em"]["curve"]
            found = {key: np.mean(masks[key]["dynamic"]) for key in handlers}
            found |= {"s_measure": structure["sm"], "weighted_f_measure": weighted["wfm"]}
            found |= {"mae": error["mae"], "e_measure": curve.mean(), "e_measure_max": curve.max()}
            assert found == pytest.approx(golden[kind], abs=1e-12), (name, kind)
