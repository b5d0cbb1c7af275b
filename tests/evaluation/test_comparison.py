"""Several folders compared: what is ranked by, which cases are shown."""

import numpy as np
import pandas as pd
import pytest

from keras_medseg.evaluation import comparison


def test_every_method_and_case_gets_its_place():
    """Dice of A falls from case 1 to 5, that of B rises; distances turn both round."""
    values = {"A": [0.9, 0.8, 0.7, 0.6, 0.5], "B": [0.1, 0.2, 0.3, 0.4, 0.5]}
    rows = [
        {"variant": name, "case": str(number), "region": "WT", "dice": value, "hd95_mm": value}
        | {"truth_voxels": 5}
        for name, listed in values.items()
        for number, value in enumerate(listed, 1)
    ]
    table = pd.DataFrame(rows)
    assert comparison.cases_to_show(table, "dice") == {
        "5": {"worst": ["A"], "best": ["B"]},
        "1": {"worst": ["B"], "best": ["A"]},
        "4": {"second worst": ["A"]},
        "2": {"second worst": ["B"]},
        "3": {"median": ["A", "B"], "third worst": ["A", "B"]},
    }
    assert comparison.cases_to_show(table, "hd95_mm")["5"] == {"worst": ["B"], "best": ["A"]}
    shuffled = np.random.default_rng(0).permuted(np.tile(np.arange(50.0), (9, 1)), axis=1)
    many = pd.DataFrame(
        [(str(a), str(b), "WT", shuffled[a, b], 5) for a in range(9) for b in range(50)],
        columns=["variant", "case", "region", "dice", "truth_voxels"],
    )
    assert len(comparison.cases_to_show(many, "dice")) == comparison.MOST_SHOWN


def test_a_case_without_an_object_is_no_example_of_a_good_one():
    """Case 3 has none, and an empty answer a Dice of 1."""
    rows = [("A", "1", 0.2, 5), ("A", "2", 0.6, 5), ("A", "3", 1.0, 0)]
    table = pd.DataFrame(rows, columns=["variant", "case", "dice", "truth_voxels"])
    assert comparison.cases_to_show(table.assign(region="WT"), "dice") == {
        "1": {"worst": ["A"]},
        "2": {"second worst": ["A"], "median": ["A"], "best": ["A"]},
        "3": {"third worst": ["A"]},
    }
    empty = table.assign(region="WT", truth_voxels=0)
    assert comparison.cases_to_show(empty, "dice")["3"]["best"] == ["A"]


def test_a_single_method_has_neither_tests_nor_a_ranking():
    table = pd.DataFrame([{"variant": "A", "case": "1", "region": "WT", "dice": 0.5}])
    compared = comparison.compare_all(table, ["dice"])
    assert len(compared.summary) == 1
    assert not any(map(len, (compared.tests, compared.ranking, compared.permutations)))
    assert comparison.standings(compared) == ""


def test_what_is_ranked_by():
    rows = [
        {"variant": name, "case": "1", "region": "WT", "dice": 0.5, "iou": 0.1, "hd95_px": 1.0}
        for name in "AB"
    ]
    table = pd.DataFrame(rows)
    metrics = ["iou", "hd95_px", "dice"]
    assert comparison.compare_all(table, metrics).rank_by == ("hd95_px", "dice")
    assert comparison.compare_all(table, ["iou"]).rank_by == ("iou",)
    assert comparison.compare_all(table, metrics, ["iou"]).rank_by == ("iou",)
    lesions = table.assign(lesion_dice=0.5)
    assert comparison.compare_all(lesions, [*metrics, "lesion_dice"]).rank_by == ("lesion_dice",)
    with pytest.raises(ValueError, match="--rank-by: found 'mae', expected one of: iou"):
        comparison.compare_all(table, metrics, ["mae"])


def test_a_signed_error_says_not_what_is_better(monkeypatch):
    def neither(name):
        if name == "signed":
            raise ValueError("neither")
        return True

    monkeypatch.setattr(comparison, "higher_is_better", neither)
    rows = [
        {"variant": name, "case": "1", "region": "WT", "dice": 0.5, "signed": value}
        for name, value in (("A", -1.0), ("B", 1.0))
    ]
    table = pd.DataFrame(rows)
    assert comparison.compare_all(table, ["signed", "dice"]).rank_by == ("dice",)
    compared = comparison.compare_all(table, ["signed"])
    assert compared.rank_by == ()
    assert (len(compared.summary), len(compared.tests), len(compared.ranking)) == (2, 1, 0)
    assert [comparison.direction(name) for name in ("signed", "dice")] == [0, 1]
