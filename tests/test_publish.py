"""`python -m experiments.publish`: what a page keeps of a run, without this machine's paths."""

import json

import pytest

from experiments import publish
from keras_medseg.errors import DataError
from keras_medseg.runs.run_folder import RunFolder, Variant

from .recipes import small_recipe

RECIPE = small_recipe()
FACTS = {
    "data_folder": "/disk/CVC-ClinicDB",
    "store": "/disk/stores/CVC-1",
    "training": ["1"],
    "changes": {"train.init": "'/disk/w.zip'", "train.epochs": "2"},
}
COMMAND = "python -m experiments iacnn --data '/my disk/CVC' --out=/x/runs/a --set a.b=1/2 --work w"


@pytest.fixture
def finished(tmp_path):
    """A run folder with every file that is needed, and one figure."""
    run = RunFolder(tmp_path / "run")
    run.create(RECIPE, {"main": Variant(RECIPE, "main")}, FACTS)
    facts = {"commands": [{"command": COMMAND, "seconds": 1.5}], "training_cases": 1}
    (run.path / "provenance.json").write_text(json.dumps(facts))
    for name in publish.NEEDED:
        path = run.path / name
        if not path.exists():
            path.write_text(f"{name},1\n")
    run.figure("dice").parent.mkdir()
    run.figure("dice").write_bytes(b"PNG")
    return run.path


def test_a_run_is_kept_without_the_paths_of_the_machine(finished, tmp_path):
    kept = tmp_path / "kept"
    assert publish.main([str(finished), str(kept), "--figures", "dice.png"]) == 0
    provenance = json.loads((kept / "provenance.json").read_text())
    assert provenance == {
        "commands": [
            {
                "command": "python -m experiments iacnn --data CVC --out=a --set a.b=1/2 --work w",
                "seconds": 1.5,
            }
        ],
        "training_cases": 1,
    }
    facts = json.loads((kept / "run.json").read_text())
    assert {name: facts[name] for name in FACTS} == {
        "data_folder": "CVC-ClinicDB",
        "store": "CVC-1",
        "training": ["1"],
        "changes": {"train.init": "'w.zip'", "train.epochs": "2"},
    }
    assert (kept / "scores.csv").read_text() == "scores.csv,1\n"
    assert (kept / "dice.png").read_bytes() == b"PNG"
    assert {path.name for path in kept.iterdir()} == {*publish.NEEDED, "variants", "dice.png"}
    assert RunFolder(kept).variant("main").recipe == RECIPE, "a kept run is still one"


def test_files_that_only_some_runs_have_are_kept_too(finished, tmp_path):
    (finished / "tests.csv").write_text("p\n")
    publish.publish(finished, tmp_path / "kept")
    assert (tmp_path / "kept" / "tests.csv").read_text() == "p\n"
    (tmp_path / "kept" / "variants" / "old.json").write_text("{}")
    (finished / "tests.csv").unlink()
    publish.publish(finished, tmp_path / "kept")
    kept = {path.name for path in (tmp_path / "kept").rglob("*.*")}
    assert not {"tests.csv", "old.json"} & kept, "what the run does not have is no longer there"


def test_nothing_is_kept_of_an_unfinished_run_or_without_its_figure(finished, tmp_path):
    with pytest.raises(DataError, match=r"case_best\.png: found no file, .*among dice\.png"):
        publish.publish(finished, tmp_path / "kept", ["case_best.png"])
    (finished / "scores.csv").unlink()
    with pytest.raises(DataError, match=r"scores\.csv: found no file.*Finish the run"):
        publish.publish(finished, tmp_path / "kept")
    (finished / "provenance.json").write_text("{")
    with pytest.raises(DataError, match=r"provenance\.json: found"):
        publish.publish(finished, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
