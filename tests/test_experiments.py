"""python -m experiments, as its users start it: small synthetic data, a network of 4 filters."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from experiments import experiment
from experiments.dcabes2020.recipe import RECIPE
from keras_medseg import recipe
from keras_medseg.data import phantom

ROOT = Path(__file__).parents[1]
SMALL = (
    "data.window=(48,48,24)",
    "data.slice_step=6",
    "model.overrides.filters=4",
    "train.epochs=2",
    "train.batch_size=4",
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    path = tmp_path_factory.mktemp("work")
    phantom.write_brats(path / "data", cases=4, layout="BraTS2017", shape=(60, 60, 39))
    return path


def command(work: Path, out: Path, *more: str) -> list[str]:
    settings = [part for field in SMALL for part in ("--set", field)]
    data = ["--data", str(work / "data"), "--profile", "quick"]
    folders = ["--work", str(work), "--out", str(out)]
    return [sys.executable, "-m", "experiments", "dcabes2020", *data, *folders, *settings, *more]


def interrupt(process: subprocess.Popen) -> str:
    """Ctrl-C, again after a while: Python drops one that arrives inside a destructor."""
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=8)[1]
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    return process.communicate()[1]


@pytest.fixture(scope="module")
def finished(work, tmp_path_factory):
    """A run that Ctrl-C stopped in its second network, and the same command once more."""
    out = tmp_path_factory.mktemp("run")
    first = subprocess.Popen(
        command(work, out), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    done = out / "training" / "with_edge_loss-WT" / "model.keras"
    for _ in range(1200):
        if done.exists() or first.poll() is not None:
            break
        time.sleep(0.1)
    stopped = interrupt(first)
    again = subprocess.run(
        command(work, out), cwd=ROOT, text=True, capture_output=True, check=False, timeout=600
    )
    return out, (first.returncode, stopped), again


def test_ctrl_c_leaves_a_run_that_the_same_command_resumes(finished):
    _, (code, stopped), again = finished
    assert code == 130
    # Python itself reports an interrupt that it met, and dropped, inside a destructor.
    assert stopped.strip().splitlines()[-1].startswith("Stopped. The same command goes on")
    assert "with_edge_loss, network 1 of 3" in again.stdout
    assert "WT  epoch 1/2" not in again.stdout.split("network 2 of 3")[0]
    assert "report:" in again.stdout, again.stderr


def test_a_run_outside_of_its_expectation_exits_with_1(finished):
    """A few steps of a 4-filter network cannot reach the whole-tumour Dice of 0.80."""
    _, _, again = finished
    assert again.returncode == 1
    assert "outside of what its recipe expects" in again.stderr


def test_the_run_folder_is_complete(finished):
    out, _, _ = finished
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {"recipe.json", "provenance.json", "log.csv", "scores.csv"} <= files
    assert {"table.csv", "table.md", "report.html"} <= files
    pictures = {"learning_curves", "dice", "edge_maps"}
    assert {f"figures/{name}.png" for name in pictures} <= files
    for network in ("with_edge_loss-WT", "with_edge_loss-TC", "without_edge_loss-WT"):
        assert f"training/{network}/log.csv" in files
        assert f"training/{network}/model.keras" in files
        assert any(name.startswith(f"training/{network}/tensorboard/") for name in files)
    assert len([name for name in files if name.endswith(".nii.gz")]) == 2  # 1 case, 2 variants


def test_provenance_says_where_the_numbers_come_from(finished):
    out, _, _ = finished
    found = json.loads((out / "provenance.json").read_text())
    assert found["data_name"] == "phantom in the layout of BraTS2017"
    assert (found["training_cases"], len(found["held_out_cases"])) == (3, 1)
    assert found["seed"] == 0
    assert len(found["data_fingerprint"]) == 64
    assert "--profile quick" in found["command"]
    assert {"python", "keras", "tensorflow", "numpy"} <= found["versions"].keys()


def test_the_report_names_what_was_left_out_and_why_it_is_not_comparable(finished):
    out, _, again = finished
    page = (out / "report.html").read_text()
    for words in ("synthetic", "not run in this profile", "train.epochs", "90.59"):
        assert words in page
    assert "not run in this profile" in again.stdout
    assert 'src="http' not in page


def test_variants_that_differ_after_training_share_one():
    run = RECIPE
    changes = {
        "full": (),
        "before_cleaning": ("predict.smallest_component=0.5",),
        "longer": ("train.epochs=99",),
        "longer_cleaned": ("train.epochs=99", "predict.smallest_component=0.5"),
    }
    variants = {name: recipe.override(run, lines) for name, lines in changes.items()}
    assert experiment.trained_as(variants) == {
        "full": "full",
        "before_cleaning": "full",
        "longer": "longer",
        "longer_cleaned": "longer",
    }


def test_judging_by_hand():
    scores = pd.DataFrame(
        {
            "variant": ["a", "a", "b"],
            "region": ["WT", "WT", "WT"],
            "dice": [0.7, 0.9, 0.1],
        }
    )

    def verdict(minimum, variant="a", data="phantom", profile="quick", maximum=None):
        entry = experiment.Expected(data, profile, variant, "WT", "dice", minimum, maximum)
        return experiment.judge((entry,), scores, "phantom in the layout of BraTS2017", "quick")

    assert [v["passed"] for v in verdict(0.8)] == [True]  # (0.7 + 0.9) / 2
    assert [v["passed"] for v in verdict(0.81)] == [False]
    assert [v["passed"] for v in verdict(0.7, maximum=0.8)] == [True]
    assert [v["passed"] for v in verdict(0.7, maximum=0.79)] == [False]
    assert [v["passed"] for v in verdict(0.0, variant="not run")] == [False]
    assert verdict(0.8, data="BraTS2017") == []
    assert verdict(0.8, profile="paper") == []
