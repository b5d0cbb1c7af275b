"""The papers by name: found from anywhere, listed, and printed as a page to read."""

import json
import sys
import tomllib
from pathlib import Path

import pytest

from keras_medseg import cli, recipe
from keras_medseg.runs import papers
from keras_medseg.runs.run_folder import read_recipe

ROOT = Path(papers.__file__).parents[2]


def test_a_paper_or_data_set_that_is_not_at_hand_is_named():
    with pytest.raises(ValueError, match="paper: found 'nowhere', expected one of: csam_knee, "):
        papers.find("nowhere")
    with pytest.raises(ValueError, match="--dataset: found 'mri', expected one of: cvc, isic"):
        papers.find("iacnn", "mri")


def test_papers_are_found_by_a_command_that_does_not_look_into_the_working_folder(
    tmp_path, monkeypatch
):
    """As `.venv/bin/keras-medseg report RUN`, whose sys.path begins with bin/."""
    elsewhere = [path for path in sys.path if Path(path or ".").resolve() != ROOT]
    monkeypatch.setattr(sys, "path", elsewhere)
    for name in [name for name in sys.modules if name.partition(".")[0] == "experiments"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.chdir(tmp_path)
    assert papers.find("dcabes2020").recipe.name == "dcabes2020"


def test_papers_are_listed_without_their_recipes(capsys, monkeypatch):
    """Importing a recipe would import Keras."""
    monkeypatch.setattr(papers, "recipe_module", None)
    assert cli.main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == papers.names()
    assert "Residual-attention U-Net with an edge loss (DCABES 2020, doi 10.1109/D" in lines[1]


def test_a_recipe_is_printed_with_the_word_of_its_ledger(capsys):
    assert cli.main(["recipes", "iacnn:isic"]) == 0
    page = capsys.readouterr().out
    assert "keras-medseg reproduce iacnn --dataset isic [--data DIR]" in page
    settings = {line.split()[0]: line.split()[1:] for line in page.splitlines() if "  " in line}
    assert settings["train.epochs"] == ["500", "chosen", "(epochs)"]
    assert settings["train.batch_size"] == ["16", "exact", "(batch-size)"]
    assert settings["model.options.framework"] == ["pytorch", "equivalent", "(stack)"]
    ledger = tomllib.loads((papers.FOLDER / "iacnn" / "ledger.toml").read_text())["entry"]
    entries = {entry["id"] for entry in ledger if entry.get("fields")}
    words = set(page.split())
    assert {entry for entry in entries if f"({entry})" not in words} == set()


@pytest.mark.parametrize("paper", papers.names())
def test_every_setting_of_a_page_has_its_entry(paper):
    """But for those of which no paper speaks, as in tests/papers/test_ledgers.py."""
    page = papers.describe(paper).partition("ledger says of each")[2]
    bare = [line.split()[0] for line in page.splitlines()[1:] if not line.endswith(")")]
    unspoken = {"name", "data.folds", "data.split_seed", "train.init"}
    assert {n for n in bare if not n.startswith(("data.options", "predict."))} <= unspoken


def test_a_recipe_is_written_to_be_edited(tmp_path, capsys):
    out = tmp_path / "recipe.json"
    assert cli.main(["recipes", "fmnet2023", "--out", str(out)]) == 0
    assert read_recipe(out) == papers.find("fmnet2023").recipe
    assert json.loads(out.read_text())["name"] == "fmnet2023"
    assert str(out) in capsys.readouterr().out
    assert cli.main(["recipes", "--out", str(out)]) == 1
    assert "--out: found no paper" in capsys.readouterr().err


def test_train_takes_a_paper_or_a_file(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("keras_medseg.runs.experiment.run", lambda e, r: asked.append((e, r)))
    file = tmp_path / "own.json"
    file.write_text(recipe.to_json(papers.find("csam_knee").recipe))
    for given in ("iacnn:isic", "dcabes2020", str(file)):
        assert cli.main(["train", "cases", "--recipe", given, "--out", "run"]) == 0
    names = [experiment.recipe.name for experiment, _ in asked]
    assert names == ["iacnn", "dcabes2020", "csam_knee"]
    assert asked[0][0].recipe == papers.find("iacnn", "isic").recipe
    assert asked[0][0].reference is None  # own data are not held against the paper's numbers
    assert asked[1][1].command == "keras-medseg train cases --recipe dcabes2020 --out run"
    capsys.readouterr()
    for given, words in {
        "dcabes2021": "paper: found 'dcabes2021', expected one of: csam_knee, dcabes2020, ",
        "a:b:c": "paper: found 'a', expected one of",
        "iacnn:mri": "--dataset: found 'mri', expected one of: cvc, isic",
        "none/recipe.json": "recipe.json: found no file",
    }.items():
        assert cli.main(["train", "cases", "--recipe", given, "--out", "run"]) == 1
        assert words in capsys.readouterr().err


def test_a_paper_is_reproduced_by_the_command_that_was_given(tmp_path, monkeypatch, capsys):
    """The provenance names `keras-medseg reproduce` or `python -m experiments`, as it was."""
    from experiments import __main__ as experiments_cli

    asked = []

    def run(chosen, request):
        asked.append((chosen.recipe.name, request))
        return len(asked) == 1

    monkeypatch.setattr("keras_medseg.runs.experiment.run", run)
    monkeypatch.chdir(tmp_path)
    options = ["--profile", "quick", "--compare", "--set", "train.epochs=2", "--seeds", "3"]
    assert cli.main(["reproduce", "iacnn", *options]) == 0
    assert experiments_cli.main(["iacnn", "--dataset", "isic", "--data", "ISIC"]) == 1
    assert "outside of what its recipe expects" in capsys.readouterr().err
    (name, ours), (_, theirs) = asked
    assert name == "iacnn"
    assert ours.command == f"keras-medseg reproduce iacnn {' '.join(options)}"
    assert theirs.command == "python -m experiments iacnn --dataset isic --data ISIC"
    assert (ours.profile, ours.seeds, ours.changes) == ("quick-compare", 3, {"train.epochs": 2})
    assert str(ours.out) == "runs/iacnn-quick-compare-phantom"
    assert (theirs.profile, theirs.experiment) == ("paper", ("iacnn", "isic"))
    assert cli.main(["reproduce", "iacnn", "--profile", "fast"]) == 1
    assert "--profile: found 'fast', expected one of: paper, quick" in capsys.readouterr().err
