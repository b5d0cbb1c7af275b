"""A data set of a third kind, added by one file, goes through every command."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import keras_medseg
from keras_medseg import recipe

from .recipes import small_recipe

SHAPE = (40, 36, 20)
# Stored with x to the right and y to the front, 2 x 1.5 x 3 mm.
AFFINE = np.array([[2.0, 0, 0, -40], [0, 1.5, 0, -20], [0, 0, 3.0, 0], [0, 0, 0, 1]])

pytestmark = pytest.mark.slow


def write_cases(folder: Path, count: int) -> None:
    """Bright kidneys with a brighter tumor in noise, where there is air around the body."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    for index in range(count):
        rng = np.random.default_rng(index)
        center = np.array([20, 18, 10]) + rng.integers(-3, 4, 3)
        distance = np.sqrt((x - center[0]) ** 2 + (y - center[1]) ** 2 + 4 * (z - center[2]) ** 2)
        labels = np.where(distance < 4, 2, np.where(distance < 9, 1, 0)).astype(np.uint8)
        image = rng.normal(100, 10, SHAPE) + 100 * (labels > 0) + 100 * (labels == 2)
        image[(x < 4) | (x > 35)] = 0
        home = folder / f"case_{index:05d}"
        home.mkdir(parents=True)
        for name, array in (("imaging", image.astype(np.int16)), ("segmentation", labels)):
            made = nib.Nifti1Image(array, AFFINE)
            made.header.set_xyzt_units("mm", "sec")
            made.set_sform(AFFINE, 1)
            nib.save(made, home / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The package with one file more, cases and a recipe."""
    folder = tmp_path_factory.mktemp("third")
    shutil.copytree(
        Path(keras_medseg.__file__).parent,
        folder / "keras_medseg",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copy(
        Path(__file__).with_name("ct_volumes.py"), folder / "keras_medseg" / "data" / "datasets"
    )
    write_cases(folder / "cases", 4)
    data = {"data.dataset": "ct_volumes", "data.window": (32, 32, 16), "data.slice_step": 1}
    model = {"model.targets": (("kidney", "tumor"),)}
    train = {"train.epochs": 12, "train.batch_size": 4, "train.learning_rate": 0.01}
    chosen = small_recipe({**data, **model, **train})
    (folder / "recipe.json").write_text(recipe.to_json(chosen))
    return folder


def command(place: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "keras_medseg.cli", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def succeeds(place: Path, *arguments: str) -> str:
    done = command(place, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_command_works_on_it(place):
    printed = succeeds(place, "check", "cases")
    assert "4 complete cases (CT 4, 4 with a segmentation)" in printed
    assert "4 cases, fingerprint" in succeeds(place, "prepare", "cases", "store")
    settings = ("--recipe", "recipe.json", "--out", "run")
    printed = succeeds(place, "train", "cases", *settings)
    assert "kidney+tumor  epoch 12/12" in printed
    scores = pd.read_csv(place / "run" / "scores.csv")
    assert list(scores["region"]) == ["kidney", "tumor"]
    assert {"dice", "sensitivity", "hd95_mm", "truth_voxels"} <= set(scores.columns)
    assert scores.set_index("region")["dice"]["kidney"] > 0.5
    run = place / "run"
    for name in ("report.html", "table.csv", "table.md", "provenance.json", "networks.csv"):
        assert (run / name).exists(), name
    page = (run / "report.html").read_text()
    assert "kidney tissue" in page  # the legend of the viewer
    assert (run / "figures" / "case_only.png").stat().st_size > 10_000
    (run / "report.html").unlink()
    succeeds(place, "report", "run")
    assert (run / "report.html").exists()
    printed = succeeds(place, "predict", "run", "cases", "found")
    assert "4 label maps of kidney+tumor" in printed
    validation = json.loads((run / "run.json").read_text())["validation"][0]
    written = nib.load(place / "found" / f"{validation}.nii.gz")
    np.testing.assert_allclose(written.affine, AFFINE)
    assert written.shape == SHAPE
    own = nib.load(run / "predictions" / "main" / f"{validation}.nii.gz")
    np.testing.assert_array_equal(written.dataobj, own.dataobj)
    succeeds(place, "score", "found", "cases", "--out", "again.csv")
    again = pd.read_csv(place / "again.csv").query("case == @validation")
    assert again["dice"].tolist() == pytest.approx(scores["dice"].tolist())
    assert again["hd95_mm"].tolist() == pytest.approx(scores["hd95_mm"].tolist())


def test_its_problems_are_named_as_those_of_any_other(place, tmp_path):
    write_cases(tmp_path / "cases", 1)
    (tmp_path / "cases" / "case_00000" / "segmentation.nii.gz").write_bytes(b"nothing")
    done = command(place, "check", str(tmp_path / "cases"))
    assert done.returncode == 1
    assert "segmentation.nii.gz" in done.stdout
    (tmp_path / "empty").mkdir()
    done = command(place, "check", str(tmp_path / "empty"))
    assert done.returncode == 1
    assert "ct_volumes" in done.stderr
