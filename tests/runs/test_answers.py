"""What programs are told of a finished run, by scores whose means are known."""

import json

import numpy as np
import pandas as pd
import pytest

from keras_medseg.errors import DataError
from keras_medseg.runs import answers
from keras_medseg.training.events import FINISHED

from ..known_runs import SLICES, constant, write_run

FACTS = {"profile": "train", "data": "BraTS2021", "training": ["c"], "validation": ["a", "b"]}


@pytest.fixture
def run(tmp_path):
    """Dice 0.25 and 0.75; one HD95 of 8 mm, the other case has none."""
    made = write_run(tmp_path / "run", constant(0.5), SLICES, facts=FACTS)
    rows = [
        {"variant": "main", "case": case, "group": case, "region": "WT",
         "dice": dice, "sensitivity": 1.0, "specificity": 1.0, "hd95_mm": hd95}
        for case, dice, hd95 in (("a", 0.25, 8.0), ("b", 0.75, np.nan))
    ]  # fmt: skip
    made.write_scores(pd.DataFrame(rows))
    for name in ("report.html", "table.md", "lock"):
        (made.path / name).write_text("")
    return made


def test_the_answer_of_a_run_has_its_means_and_no_number_that_json_has_not(run):
    told = answers.of_run(run.path)
    json.dumps(told, allow_nan=False)
    means = {row["metric"]: (row["mean"], row["n"]) for row in told["scores"]}
    ones = {"sensitivity": (1.0, 2), "specificity": (1.0, 2)}
    assert means == {"dice": (0.5, 2), **ones}  # HD95 has no mean over both cases
    assert told["trainings"] == [told["run"]] == [str(run.path)]
    assert (told["data"], told["variants"]) == ("BraTS2021", ["main"])


def test_listeners_hear_the_means_and_the_files_of_a_run(run):
    event = answers.finished_event(run)
    assert (event.kind, event.folder) == (FINISHED, run.path)
    assert event.metrics == {
        "main/WT/dice": 0.5,
        "main/WT/sensitivity": 1.0,
        "main/WT/specificity": 1.0,
    }
    network = "training/main-WT/model.keras"
    assert [*event.artifacts] == [
        "recipe.json", "report.html", "run.json", "scores.csv", "table.md", network,
    ]  # fmt: skip
    assert event.artifacts[network] == run.path / network


def test_a_run_that_is_not_finished_has_no_answer(tmp_path):
    made = write_run(tmp_path / "run", constant(0.5), SLICES, facts=FACTS)
    with pytest.raises(DataError, match=r"scores.csv: found no file"):
        answers.of_run(made.path)
