"""A run on other data sets, by a network whose answers are known."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from keras_medseg import cli
from keras_medseg.data import store
from keras_medseg.data.datasets.brats import BratsWarning
from keras_medseg.data.formats import nifti
from keras_medseg.errors import DataError
from keras_medseg.evaluation.generalization import IN_DOMAIN
from keras_medseg.runs import evaluate as module
from keras_medseg.runs.evaluate import evaluate, parse_sets
from keras_medseg.runs.members import members
from keras_medseg.tasks import task_of

from ..known_runs import CENTER, RAS, SHAPE, SLICES, constant, read_map, write_run, write_volumes

SCORES = {"a": 0.9, "b": 0.7, "c": 0.8}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run on three cases, and two other data sets, near/ of three and far/ of two."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_volumes(folder / "own", 3, labelled=True)
    task = task_of(SLICES)
    cases = task.dataset.find(folder / "own").cases
    decoded = store.prepare(cases, task.reader, folder / "store", workers=1)
    names = [case.id for case in cases]
    facts = {
        "data": "BraTS2021", "store": str(folder / "store"), "fingerprint": decoded.fingerprint,
        "training": names[:2], "validation": names[2:], "duplicates": {}, "leaking_groups": [],
        "datasets": ["BraTS2021"], "phantom": False,
    }  # fmt: skip
    run = write_run(folder / "run", constant(0.75), variants=("main", "other"), facts=facts)
    rows = [
        {"variant": variant, "case": case, "group": case, "region": "WT", "dice": dice}
        | {"hd95_mm": 4.0, "truth_voxels": 7}
        for variant in ("other", "main")
        for case, dice in SCORES.items()
    ]
    run.write_scores(pd.DataFrame(rows))
    # One of near's cases, number 2, is one of the run's.
    write_volumes(folder / "near", 3, first=2, labelled=True)
    write_volumes(folder / "far", 2, first=10, labelled=True)
    return folder


def own_dice(flair):
    """Of the whole window, which the network finds, with the voxels above 12."""
    true = flair > 12
    return 2 * true[CENTER].sum() / (true.sum() + true[CENTER].size)


def flairs(folder):
    paths = sorted(folder.rglob("*_flair.nii.gz"))
    return {path.parent.name: read_map(path) for path in paths}


def test_other_data_sets_are_scored_as_the_runs_own_and_compared(place, tmp_path):
    sets = {"near": place / "near", "far": place / "far"}
    page = evaluate(str(place / "run"), sets, tmp_path, "the command")
    scores = pd.read_csv(tmp_path / "scores.csv")
    for name, folder in sets.items():
        found = scores[scores["dataset"] == name].set_index("case")["dice"]
        expected = {case: own_dice(flair) for case, flair in flairs(folder).items()}
        expected.pop("BraTS2021_00002", None)
        assert found.to_dict() == pytest.approx(expected)
    table = pd.read_csv(tmp_path / "table.csv").set_index(["dataset", "metric"])
    assert table.loc[(IN_DOMAIN, "dice"), "mean"] == pytest.approx(0.8)
    far = np.mean([own_dice(flair) for flair in flairs(place / "far").values()])
    assert table.loc[("far", "dice"), "drop"] == pytest.approx(0.8 - far)
    distance = scores[scores["dataset"] == "far"]["hd95_mm"].mean()
    assert table.loc[("far", "hd95_mm"), "drop"] == pytest.approx(distance - 4.0)
    label_map = read_map(tmp_path / "predictions/far/BraTS2021_00010.nii.gz")
    expected = np.zeros(SHAPE)
    expected[CENTER] = 2
    np.testing.assert_array_equal(label_map, expected)
    facts = json.loads((tmp_path / "evaluation.json").read_text())
    assert facts["in_domain_side"] == "validation"
    assert [row["dataset"] for row in facts["table"] if row["metric"] == "dice"] == [
        IN_DOMAIN, "near", "far"
    ]  # fmt: skip
    left_out, steered = sorted(facts["notes"])
    assert left_out.startswith("1 of 3 cases of near left out")
    assert "00002 = BraTS2021_00002" in left_out
    assert "validation cases of the training" in steered
    text = page.read_text()
    assert "the command" in text
    assert left_out in text
    assert "http" not in re.sub(r"data:image[^\"]*", "", text)


def test_an_interrupted_evaluation_goes_on_and_takes_further_data_sets(
    place, tmp_path, monkeypatch
):
    run, sets = str(place / "run"), {"near": place / "near", "far": place / "far"}
    evaluate(run, sets, tmp_path / "whole", "c")
    predicted = []
    score = module._score_case

    def stop(found, name, case):
        if len(predicted) == 3:
            raise KeyboardInterrupt
        known = score(found, name, case)
        predicted.extend([] if known else [case.id])
        return known

    monkeypatch.setattr(module, "_score_case", stop)
    evaluate(run, {"near": sets["near"]}, tmp_path / "out", "c")
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, sets, tmp_path / "out", "c")
    done = [path.name[:-7] for path in (tmp_path / "out/predictions/far").iterdir()]
    assert predicted == ["BraTS2021_00003", "BraTS2021_00004", *done]
    predicted.clear()
    evaluate(run, sets, tmp_path / "out", "c")
    assert predicted + done == ["BraTS2021_00011", "BraTS2021_00010"]
    for name in ("scores.csv", "table.csv", "evaluation.json", "evaluation.html", "record.json"):
        one, other = ((tmp_path / where / name).read_bytes() for where in ("out", "whole"))
        assert one == other, name
    evaluate(run, {"far": sets["far"]}, tmp_path / "out", "c")
    assert set(pd.read_csv(tmp_path / "out/table.csv")["dataset"]) == {IN_DOMAIN, "far"}
    assert set(pd.read_csv(tmp_path / "out/scores.csv")["dataset"]) == {IN_DOMAIN, *sets}


def test_the_score_of_a_case_is_the_mean_over_all_trainings(place, tmp_path, monkeypatch):
    """Of two, one of which finds nothing: Dice 0, as all cases have edema."""
    nothing = members([write_run(tmp_path / "nothing", constant(0.25)).path])
    monkeypatch.setattr(module, "members", lambda texts: (*members(texts), *nothing))
    read, decode = [], module.StoredCase.from_arrays
    watched = staticmethod(lambda case, arrays: read.append(case.id) or decode(case, arrays))
    monkeypatch.setattr(module.StoredCase, "from_arrays", watched)
    run = shutil.copytree(place / "run", tmp_path / "run")
    one = pd.read_csv(run / "scores.csv").assign(seed=0)
    two = one.assign(seed=1, dice=one["dice"] / 2)
    pd.concat([one, two]).to_csv(run / "scores.csv", index=False)
    evaluate(str(run), {"far": place / "far"}, tmp_path / "out")
    assert read == ["BraTS2021_00010", "BraTS2021_00011"], "once for both, which read alike"
    scores = pd.read_csv(tmp_path / "out/scores.csv").set_index(["dataset", "case"])["dice"]
    assert scores[IN_DOMAIN].to_dict() == pytest.approx({k: v * 0.75 for k, v in SCORES.items()})
    expected = {case: own_dice(flair) / 2 for case, flair in flairs(place / "far").items()}
    assert scores["far"].to_dict() == pytest.approx(expected)
    notes = json.loads((tmp_path / "out/evaluation.json").read_text())["notes"]
    assert notes[0].startswith("2 trainings: the score of a case is the mean")
    assert read_map(tmp_path / "out/predictions/far/1/BraTS2021_00010.nii.gz").any()
    assert not read_map(tmp_path / "out/predictions/far/2/BraTS2021_00010.nii.gz").any()


def test_names_and_groups_stay_text(place, tmp_path):
    sets = {"007": place / "far"}
    evaluate(str(place / "run"), sets, tmp_path)
    evaluate(str(place / "run"), sets, tmp_path)
    table = pd.read_csv(tmp_path / "table.csv", dtype=str)
    assert list(dict.fromkeys(table["dataset"])) == [IN_DOMAIN, "007"]


def test_another_evaluation_in_the_same_folder_is_refused(place, tmp_path):
    evaluate(str(place / "run"), {"far": place / "far"}, tmp_path)
    with pytest.raises(DataError, match="the evaluation of another run, variant or training"):
        evaluate(f"{place / 'run'}:other", {"far": place / "far"}, tmp_path)
    with pytest.raises(DataError, match=r"found scores of .*far as far, expected those of .*near"):
        evaluate(str(place / "run"), {"far": place / "near"}, tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("record.json", "[]", "no members or no datasets"),
        ("record.json", '{"members": 1}', "no members or no datasets"),
        ("record.json", '{"members": 1, "datasets": {"far": 1}}', "datasets = {'far': 1}"),
        ("scores.csv", "case,dice\na,1\n", "no column dataset, group, region"),
        ("scores.csv", "", "No columns"),
    ],
)
def test_a_damaged_evaluation_is_named(place, tmp_path, name, text, found):
    evaluate(str(place / "run"), {"far": place / "far"}, tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"{name}: found {found}.*Delete"):
        evaluate(str(place / "run"), {"far": place / "far"}, tmp_path)


def test_a_case_that_cannot_be_read_does_not_keep_the_others_back(place, tmp_path):
    data = shutil.copytree(place / "far", tmp_path / "data")
    next(data.rglob("BraTS2021_00010_t2.nii.gz")).write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)found 1 case that cannot be read.*00010_t2"):
        evaluate(str(place / "run"), {"far": data}, tmp_path / "out")
    assert "BraTS2021_00011" in (tmp_path / "out/scores.csv").read_text()
    assert not (tmp_path / "out/table.csv").exists()


def test_all_folders_are_looked_at_before_any_case_is_predicted(place, tmp_path):
    sets = {"far": place / "far", "x": tmp_path / "x", "y": tmp_path / "y"}
    with pytest.raises(DataError, match=r"(?s)found 2 folders without cases.*x: found.*y: found"):
        evaluate(str(place / "run"), sets, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_other_data_set_is_refused(place, tmp_path):
    with pytest.raises(DataError, match="own: found cases of the run alone, expected others"):
        evaluate(str(place / "run"), {"own": place / "own"}, tmp_path)


def test_without_the_runs_store_a_note_says_what_was_not_checked(place, tmp_path):
    moved = shutil.copytree(place / "run", tmp_path / "run")
    tree = json.loads((moved / "run.json").read_text())
    (moved / "run.json").write_text(json.dumps({**tree, "store": str(tmp_path / "gone")}))
    evaluate(str(moved), {"own": place / "own"}, tmp_path / "out")
    notes = json.loads((tmp_path / "out/evaluation.json").read_text())["notes"]
    assert any(note.startswith("Not checked whether cases are among those of") for note in notes)


def test_cases_without_an_object_are_counted(place, tmp_path):
    data = shutil.copytree(place / "far", tmp_path / "data")
    empty = next(data.rglob("BraTS2021_00010_seg.nii.gz"))
    nifti.write_volume(empty, np.zeros(SHAPE, np.uint8), RAS)
    with pytest.warns(BratsWarning, match="found no tumor voxel"):
        evaluate(str(place / "run"), {"far": data}, tmp_path / "out")
    notes = json.loads((tmp_path / "out/evaluation.json").read_text())["notes"]
    assert any(note.startswith("far: 1 of 2 cases have no object") for note in notes)


def test_a_run_without_scores_is_refused(place, tmp_path):
    run = write_run(tmp_path / "run", constant(0.5))
    run.write_scores(pd.DataFrame([{"variant": "x", "case": "a", "region": "WT", "dice": 1.0}]))
    with pytest.raises(DataError, match=r"scores\.csv: found no scores of main.*Finish the run"):
        evaluate(str(run.path), {"far": place / "far"}, tmp_path / "out")


@pytest.mark.parametrize("text", ["far", "=data", "far=", "../far=data", "in-domain=data"])
def test_data_sets_need_a_name_and_a_folder(text):
    with pytest.raises(ValueError, match="found no new NAME=DIR, expected one for each"):
        parse_sets([text])
    with pytest.raises(ValueError, match="found no new NAME=DIR"):
        parse_sets(["a=b", "a=c"])


def test_the_command_line(place, tmp_path, capsys):
    far = f"far={place / 'far'}"
    words = ["evaluate", str(place / "run"), far, "--out", str(tmp_path)]
    assert cli.main(words) == 0
    assert f"page: {tmp_path / 'evaluation.html'}" in capsys.readouterr().out
    assert (
        f"keras-medseg evaluate {place / 'run'} {far}" in (tmp_path / "evaluation.html").read_text()
    )
    assert cli.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["page"] == str(tmp_path / "evaluation.html")
    assert {row["dataset"] for row in told["table"]} == {"in-domain", "far"}
