"""Run folders and recipes of other formats are read, or refused with a sentence."""

import json
import re

import pytest

from keras_medseg import cli, recipe
from keras_medseg.errors import DataError
from keras_medseg.recipe import Changes
from keras_medseg.runs import run_folder
from keras_medseg.runs.run_folder import RunFolder, Variant, read_recipe

from ..recipes import small_recipe

# What commit f87d19d wrote for its quick profile of dcabes2020.
RECIPE_0_1 = {
    "paper": "dcabes2020",
    "data": {
        "kind": "Slices",
        "window": [176, 176, 128],
        "normalisation": "z_score",
        "flips": [],
        "held_out": 0.15,
        "slice_step": 1,
        "modalities": ["flair", "t1", "t1ce", "t2"],
    },
    "model": {
        "name": "residual_attention_unet",
        "networks": [["WT"], ["TC"], ["ET"]],
        "overrides": {"residual_block": "separable", "filters": 16, "stack": "keras_2_2"},
        "auxiliary": [],
    },
    "train": {
        "epochs": 5,
        "batch_size": 8,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "loss": "cross_entropy_and_edge",
        "schedule": "constant",
        "precision": "float32",
        "seed": 0,
        "optimizer_options": {},
        "loss_options": {"edge_weight": 1.0, "response": "xy"},
        "schedule_options": {},
        "keep": "last",
    },
    "predict": {"smallest_component": 0.0},
}
RUN_0_1 = {
    "keras_medseg": "0.1.0",
    "data": "phantom in the layout of BraTS2017",
    "fingerprint": "0123456789abcdef",
    "training": ["Brats17_CBICA_AAB_1", "Brats17_CBICA_AAC_1"],
    "held_out": ["Brats17_CBICA_AAD_1"],
    "variants": ["with_edge_loss"],
}


@pytest.fixture
def run_of_0_1(tmp_path):
    folder = tmp_path / "run"
    for path in ("variants", "training/with_edge_loss-WT", "predictions/with_edge_loss"):
        (folder / path).mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(RECIPE_0_1))
    variant = {**RECIPE_0_1, "trained_as": "with_edge_loss"}
    (folder / "variants/with_edge_loss.json").write_text(json.dumps(variant))
    (folder / "run.json").write_text(json.dumps(RUN_0_1))
    (folder / "scores.csv").write_text("variant,case,region,dice\nwith_edge_loss,a,WT,0.5\n")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("report", "RUN"),
        ("predict", "RUN", "RUN", "out"),
        ("evaluate", "RUN", "other=RUN", "--out", "out"),
        ("pack", "RUN", "w.zip"),
    ],
)
def test_a_run_folder_of_0_1_is_refused_with_a_sentence(
    words, run_of_0_1, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert cli.main([str(run_of_0_1) if word == "RUN" else word for word in words]) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
    assert "found a run folder of format 1, of keras_medseg 0.1.0, expected format 2." in line
    assert line.endswith(f"--recipe {run_of_0_1}/recipe.json, whose names are understood.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_run_of_0_1_is_not_gone_on_with(run_of_0_1):
    with pytest.raises(DataError, match="a run folder of format 1"):
        RunFolder(run_of_0_1).create(small_recipe(), {"main": Variant(small_recipe(), "main")}, {})
    assert json.loads((run_of_0_1 / "run.json").read_text()) == RUN_0_1


def test_the_recipe_of_a_run_of_0_1_is_read(run_of_0_1):
    """Under the names of today, so that the advice in the sentence can be followed."""
    changed = read_recipe(run_of_0_1 / "recipe.json")
    expected: Changes = {
        "name": "dcabes2020",
        "data.dataset": "brats",
        "data.normalization": "z_score",
        "data.validation": 0.15,
        "model.targets": (("WT",), ("TC",), ("ET",)),
        "model.options.framework": "keras_2_2",
        "model.options.filters": 16,
        "train.epochs": 5,
    }
    found = recipe.fields(changed)
    assert {name: found[name] for name in expected} == expected
    assert type(changed.data).__name__ == "Slices"


def test_formats_are_written_and_later_ones_are_refused(tmp_path):
    base = small_recipe()
    run = RunFolder(tmp_path)
    run.create(base, {"main": Variant(base, "main")}, {"validation": ["a"]})
    facts = json.loads((tmp_path / "run.json").read_text())
    tree = json.loads((tmp_path / "recipe.json").read_text())
    assert (facts["format"], tree["format"]) == (run_folder.FORMAT, recipe.FORMAT) == (2, 2)
    assert read_recipe(tmp_path / "recipe.json") == base
    assert RunFolder(tmp_path).variant("main").recipe == base

    # Folders of 0.1.0 after the renaming have no number yet.
    unnumbered = {name: value for name, value in facts.items() if name != "format"}
    (tmp_path / "run.json").write_text(json.dumps(unnumbered))
    assert RunFolder(tmp_path).run["format"] == 2

    (tmp_path / "run.json").write_text(json.dumps({**facts, "format": 3}))
    with pytest.raises(
        DataError, match=r"found a run folder of format 3.* expected format 2.* --up"
    ):
        _ = RunFolder(tmp_path).run
    (tmp_path / "recipe.json").write_text(json.dumps({**tree, "format": 3}))
    with pytest.raises(DataError, match=r"found format 3, expected 2 or earlier.*--upgrade"):
        read_recipe(tmp_path / "recipe.json")
    for odd in (0, "2", None, 2.5, True):
        with pytest.raises(ValueError, match=re.escape(f"found format {odd!r}, expected")):
            recipe.from_tree({**tree, "format": odd})
