"""Own volumes and BraTS 2024 from a folder to a report, by the commands of the documentation."""

import json
import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from keras_medseg import cli, phantoms, recipe
from keras_medseg.data import datasets
from keras_medseg.data.store import open_store
from keras_medseg.runs.run_folder import RunFolder

from ..recipes import small_recipe

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = pytest.mark.slow


def blocks(page, language):
    text = (DOCS / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def tutorial() -> list[str]:
    return [line for block in blocks("own_data.md", "bash") for line in block.splitlines()]


@pytest.mark.slow
def test_a_papers_recipe_is_trained_on_own_volumes_by_the_command_of_the_page(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    [line] = [line for line in tutorial() if "--recipe dcabes2020" in line]
    phantoms.write(Path("mydata"), layout="nnUNet", cases=3, size=(48, 48, 31))
    assert cli.main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    chosen = RunFolder(Path("paper")).recipe
    assert (chosen.name, chosen.data.dataset) == ("dcabes2020", "volume_folders")
    assert chosen.train.loss == "cross_entropy_and_edge"  # the paper's
    assert Path("paper/training/main-core/model.keras").exists()


def test_the_tutorial_on_own_data_does_what_it_says(tmp_path, monkeypatch, capsys):
    """Every command in order, on smaller heads and with one epoch."""
    monkeypatch.chdir(tmp_path)
    shown = json.loads(blocks("own_data.md", "json")[0])
    shown["data"]["window"] = [48, 48, 24]
    shown["data"]["options"]["spacing_mm"] = [5.5, 5.5, 5.5]
    shown["model"]["options"]["filters"] = 4
    shown["train"]["epochs"] = 2
    Path("recipe.json").write_text(json.dumps(shown))
    lines = [line for line in tutorial() if "--recipe dcabes2020" not in line]
    assert [shlex.split(line)[1] for line in lines] == [
        "phantom", "phantom", "check", "train", "predict", "score", "export", "report"
    ]  # fmt: skip
    for line in lines:
        program, *words = shlex.split(line.replace("64 64 40", "48 48 31"))
        assert program == "keras-medseg"
        assert cli.main(words) == 0, capsys.readouterr().err
    run = RunFolder(Path("run"))
    assert run.recipe.data.options["channels"] == ("T1c", "FLAIR")
    assert run.recipe.data.options["region_codes"]["whole"] == (1, 2, 3)
    page = Path("run/report.html").read_text()
    assert "BrainPhantom" in page
    assert '"maps": ["main"]' in page  # the viewer, of cases that were resampled
    # Resampled for the network, written and scored on the case's own grid.
    new = nib.load("predictions/brain_000.nii.gz")
    source = nib.load("new/labelsTr/brain_000.nii.gz")
    np.testing.assert_array_equal(new.affine, source.affine)
    assert new.shape == source.shape == (48, 48, 31)
    validation = run.run["validation"]
    assert cli.main(["predict", "run", "mydata", "again"]) == 0
    assert cli.main(["score", "again", "mydata", "--out", "again.csv"]) == 0
    again, first = pd.read_csv("again.csv"), pd.read_csv("run/scores.csv")
    again = again[again["case"].isin(validation)]
    for column in ("dice", "hd95_mm", "truth_voxels"):
        one, other = (t.sort_values(["case", "region"])[column] for t in (again, first))
        np.testing.assert_allclose(one, other)
    [stored] = {case.full_shape for case in open_store(Path(run.run["store"])).cases.values()}
    assert stored == (44, 44, 28)  # 240 / 5.5 = 43.6, 155 / 5.5 = 28.2
    assert (Path("exported") / "1/saved_model.pb").exists()
    before = json.loads(Path("exported/model.json").read_text())["keras_medseg"]["before"]
    assert [step["name"] for step in before] == ["orientation", "resampling"]


def test_a_table_with_a_missing_modality_and_patients(tmp_path, capsys):
    phantoms.write(tmp_path / "data", layout="cases.csv", cases=4, size=(48, 48, 31))
    chosen = small_recipe(
        {"data.dataset": "volume_folders", "model.targets": (("whole",), ("core",))}
    )
    (tmp_path / "recipe.json").write_text(recipe.to_json(chosen))
    folder, run = str(tmp_path / "data"), str(tmp_path / "run")
    assert cli.main(["prepare", folder, str(tmp_path / "store")]) == 0
    arguments = ["train", folder, "--recipe", str(tmp_path / "recipe.json"), "--out", run]
    assert cli.main(arguments) == 0, capsys.readouterr().err
    facts = RunFolder(Path(run)).run
    # Two visits of a patient stay together.
    assert {frozenset(facts[side]) for side in ("training", "validation")} == {
        frozenset({"brain_000", "brain_001"}), frozenset({"brain_002", "brain_003"})
    }  # fmt: skip
    assert cli.main(arguments) == 0  # the finished run, found again by its completed recipe
    other = json.loads((tmp_path / "data/labels.json").read_text())
    other["labels"]["edema"], other["labels"]["necrotic"] = 2, 1
    (tmp_path / "data/labels.json").write_text(json.dumps(other))
    capsys.readouterr()
    assert cli.main(arguments) == 1  # the same command, but now it means something else
    assert "\n" not in capsys.readouterr().err.strip()


def test_gliomas_after_treatment_from_check_to_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("brats.md", "bash") for line in block.splitlines()]
    for line in lines:
        assert cli.main(shlex.split(line)[1:]) == 0
    targets = {"model.targets": (("WT", "TC", "ET", "RC"),), "train.epochs": 2}
    Path("recipe.json").write_text(recipe.to_json(small_recipe(targets)))
    assert cli.main(["prepare", "gliomas", "store"]) == 0
    train = ["train", "gliomas", "--recipe", "recipe.json", "--out", "run"]
    assert cli.main(train) == 0, capsys.readouterr().err
    assert "BraTS2024-GLI" in capsys.readouterr().out
    run = RunFolder(Path("run"))
    assert run.recipe.data.options == {"release": "BraTS2024-GLI"}
    scores = run.scores()
    assert list(scores["region"].unique()) == ["WT", "TC", "ET", "RC"]
    assert scores["lesion_dice"].between(0, 1).all()
    report = Path("run/report.html").read_text()
    assert "BraTS2024-GLI" in report
    assert "WT lesion-wise HD95 (mm)" in report
    # The truth of the cavity, counted in the files.
    kind = datasets.of_folder(Path("gliomas"))
    for case in kind.find(Path("gliomas")).cases:
        rows = scores.query("case == @case.id and region == 'RC'")
        voxels = np.count_nonzero(nib.load(case.labels).get_fdata() == 4)
        assert all(rows["truth_voxels"] == voxels)
    assert cli.main(["predict", "run", "gliomas", "found"]) == 0
    assert cli.main(["score", "found", "gliomas", "--out", "found.csv"]) == 0
    assert "lesion_hd95_mm" in Path("found.csv").read_text()
    assert cli.main(["report", "run"]) == 0
    # Gliomas before treatment have no such label, and are not mixed in without a word.
    phantoms.write("before", layout="BraTS2023", cases=2, size=(48, 48, 31))
    capsys.readouterr()
    assert cli.main(["train", "before", "--recipe", "run/recipe.json", "--out", "run2"]) == 1
    error = capsys.readouterr().err
    assert "cases of BraTS2023, expected those of BraTS2024-GLI alone" in error
