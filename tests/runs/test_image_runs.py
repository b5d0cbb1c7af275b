"""Image data sets from check to report: the polyp benchmark with its split, classes in colors."""

import json
import shutil

import numpy as np
import pytest

from experiments.iacnn.recipe import RECIPE
from keras_medseg import cli, phantoms, recipe
from keras_medseg.data import datasets
from keras_medseg.data.formats import image_files
from keras_medseg.runs import steps
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.tasks import task_of

TINY = {
    "train.epochs": 1,
    "train.batch_size": 2,
    "data.size": (32, 32),
    "data.normalization": "mean_std_per_image",
    "model.name": "unet",
    "model.options": {"filters": 2, "activation": "sigmoid"},
}


def _train(tmp_path, capsys, layout: str, changes: dict) -> RunFolder:
    """All verbs up to a report, on the command line, each with exit code 0."""
    data, out = tmp_path / "data", tmp_path / "run"
    phantoms.write(data, layout=layout, cases=9, size=(48, 64))
    chosen = tmp_path / "recipe.json"
    chosen.write_text(recipe.to_json(recipe.override(RECIPE, {**TINY, **changes})))
    assert cli.main(["check", str(data)]) == 0
    assert cli.main(["prepare", str(data), str(tmp_path / "store"), "--workers", "1"]) == 0
    capsys.readouterr()
    command = ["train", str(data), "--recipe", str(chosen), "--out", str(out)]
    assert cli.main([*command, "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    run = RunFolder(out)
    means = run.scores().groupby("region")["dice"].mean()
    found = {row["region"]: row["mean"] for row in told["scores"] if row["metric"] == "dice"}
    assert found == pytest.approx(means.to_dict())
    assert told["report"] == str(run.report_file)
    assert cli.main(["report", str(out)]) == 0
    return run


@pytest.mark.slow
def test_polyp_benchmark(tmp_path, capsys):
    run = _train(tmp_path, capsys, "polyps", {})
    assert len(run.run["training"]) == 4
    assert all(case.startswith("TrainDataset_") for case in run.run["training"])
    assert {case.split("_")[1] for case in run.run["validation"]} == {
        "Kvasir", "CVC-ClinicDB", "CVC-ColonDB", "ETIS-LaribPolypDB", "CVC-300",
    }  # fmt: skip
    # Frames 3, 4 (training) and 6 (test) are of sequence 1, as in the published split.
    assert run.run["leaking_groups"] == ["CVC-ClinicDB_sequence_01"]
    assert "The split leaks: 1 groups" in run.report_file.read_text()
    test_set = tmp_path / "data/TestDataset/CVC-300"
    out = tmp_path / "predictions"
    assert cli.main(["predict", str(run.path), str(test_set), str(out)]) == 0
    scores = tmp_path / "scores.csv"
    # A recipe names its class; the data set calls the single one "object".
    command = ["score", str(out), str(test_set), "--out", str(scores)]
    assert cli.main(command) == 0
    assert len(scores.read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["knee-colors", "knee-numbers"])
def test_classes_that_a_file_declares(layout, tmp_path):
    declared = ("tibia", "femur", "patella", "patellar ligament", "cruciate ligament")
    changes = {
        "data.classes": {},
        "model.targets": (declared,),
        "train.loss": "cross_entropy",
        "train.loss_options": {},
    }
    data = tmp_path / "data"
    phantoms.write(data, layout=layout, cases=6, size=(48, 64))
    chosen = recipe.to_json(recipe.override(RECIPE, {**TINY, **changes}))
    (tmp_path / "recipe.json").write_text(chosen)
    out = tmp_path / "run"
    command = ["train", str(data), "--recipe", str(tmp_path / "recipe.json"), "--out", str(out)]
    assert cli.main(command) == 0
    run = RunFolder(out)
    assert tuple(run.recipe.data.classes) == declared
    assert set(run.scores()["region"]) == set(declared)
    assert cli.main(["predict", str(out), str(data), str(tmp_path / "predictions")]) == 0
    kind = datasets.of_folder(data)
    for case in kind.find(data).cases:
        labels = image_files.read_mask(tmp_path / f"predictions/{case.id}.png").pixels
        assert labels.shape == (48, 64, 1)
        assert np.unique(labels).max() <= 5
    scores = tmp_path / "scores.csv"
    command = ["score", str(tmp_path / "predictions"), str(data), "--out", str(scores)]
    assert cli.main(command) == 0
    assert len(scores.read_text().splitlines()) == 1 + 6 * 5


def test_targets_that_the_declared_classes_lack_are_named(tmp_path, capsys):
    data = tmp_path / "data"
    phantoms.write(data, layout="knee-colors", cases=2, size=(48, 64))
    changes = {"data.classes": {"object": ()}, "model.targets": (("object",),)}
    chosen = tmp_path / "recipe.json"
    chosen.write_text(recipe.to_json(recipe.override(RECIPE, {**TINY, **changes})))
    out = tmp_path / "run"
    assert cli.main(["train", str(data), "--recipe", str(chosen), "--out", str(out)]) == 1
    words = "model.targets: found 'object', expected one of: tibia, femur, patella, patellar"
    assert words in capsys.readouterr().err
    assert not (out / "run.json").exists()


def test_of_equal_images_on_both_sides_the_tested_one_stays(tmp_path):
    phantoms.write(tmp_path / "data", layout="polyps", cases=9, size=(48, 64))
    (tested,) = (tmp_path / "data/TestDataset/Kvasir/images").iterdir()
    trained = min((tmp_path / "data/TrainDataset/image").glob("cju*"))
    shutil.copy(tested, trained)
    mask = tmp_path / "data/TrainDataset/mask" / trained.name
    shutil.copy(tmp_path / "data/TestDataset/Kvasir/masks" / tested.name, mask)
    task = task_of(recipe.override(RECIPE, TINY))
    cohort = steps.load_cohort(tmp_path / "data", tmp_path / "store", task)
    left, kept = f"TrainDataset_{trained.stem}", f"TestDataset_Kvasir_{tested.stem}"
    assert cohort.duplicates == {left: kept}
    assert left not in (*cohort.training, *cohort.validation)
    assert kept in cohort.validation
