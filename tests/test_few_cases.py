"""`python -m experiments.few_cases`, by hand."""

import json
from pathlib import Path

import pandas as pd
import pytest

from experiments import few_cases
from keras_medseg.errors import DataError

FOLDER = Path(few_cases.__file__).parent

ROWS = [
    ("main", "b", "WT", 0.6),
    ("other", "b", "WT", 0.5),
    ("main", "a", "WT", 0.2),
    ("other", "a", "WT", 0.4),
    ("main", "c", "WT", 0.7),
    ("other", "c", "WT", 0.3),
    ("main", "a", "ET", 0.9),
    ("main", "b", "ET", 0.9),
    ("main", "c", "ET", 0.6),
]
SCORES = pd.DataFrame(ROWS, columns=["variant", "case", "region", "dice"])
"""As in a run whose second variant predicts one region; its folds are in the order of the draw."""


def test_an_interval_by_hand():
    """1, 2, 3: standard deviation 1, and 4.303 is the 97.5 % quantile of t with two degrees."""
    half = 4.302653 / 3**0.5
    assert few_cases.t_interval([1, 2, 3]) == pytest.approx((2 - half, 2 + half))


def test_equal_scores_have_an_interval_without_width():
    assert few_cases.t_interval([0.25, 0.25, 0.25]) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("scores", "found"),
    [(SCORES.assign(seed=0), "several seeds"), (SCORES[SCORES["case"] == "a"], "one case")],
)
def test_what_has_no_interval_by_t_is_refused(tmp_path, scores, found):
    scores.to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(DataError, match=rf"scores\.csv: found {found}, expected"):
        few_cases.main([str(tmp_path)])


def test_every_case_and_difference_has_its_cell(tmp_path, capsys):
    SCORES.to_csv(tmp_path / "scores.csv", index=False)
    assert few_cases.main([str(tmp_path)]) == 0
    # Standard deviations 26.458, 10, 30 and 17.321; 2.484 of each are half an interval.
    assert capsys.readouterr().out.splitlines() == [
        "| | region | a | b | c | mean (95 % by t) |",
        "|---|---|--:|--:|--:|--:|",
        "| main | WT | 20.0 | 60.0 | 70.0 | 50.0 (0.0 to 100.0) |",
        "| other | WT | 40.0 | 50.0 | 30.0 | 40.0 (15.2 to 64.8) |",
        "| main - other | WT | -20.0 | +10.0 | +40.0 | +10.0 (-64.5 to +84.5), p = 0.75 |",
        "| main | ET | 90.0 | 90.0 | 60.0 | 80.0 (37.0 to 100.0) |",
    ]


@pytest.mark.parametrize("paper", ["dcabes2020", "mtds2021"])
def test_the_pages_have_the_table_of_the_kept_runs(paper):
    folder = FOLDER / paper
    scores = pd.read_csv(folder / "results" / "brats-leave-one-out" / "scores.csv")
    assert few_cases.table(scores) in (folder / "README.md").read_text()
    splits = json.loads((folder / "results/brats-leave-one-out/splits_final.json").read_text())
    assert sorted(case for split in splits for case in split["val"]) == sorted(set(scores["case"]))
    assert all({*split["train"], *split["val"]} == {*scores["case"]} for split in splits)
