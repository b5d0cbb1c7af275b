"""python -m experiments, as its users start it: small synthetic data, a network of 4 filters."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments import __main__ as experiments_cli
from keras_medseg.phantoms.brats import write_brats
from keras_medseg.recipe import Images
from keras_medseg.runs import experiment, report

from ..recipes import small_recipe

ROOT = Path(__file__).parents[2]
CLASSES = {"WT": (1,), "TC": (2,), "ET": (3,)}
IMAGES = Images("image_folders", (8, 8), CLASSES, "unit_range", 0.3)
SMALL = (
    "data.window=(48,48,24)",
    "data.slice_step=6",
    "model.options.filters=4",
    "model.options.attention=False",
    "model.options.residual_block=plain_single",
    "train.epochs=2",
    "train.batch_size=4",
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    path = tmp_path_factory.mktemp("work")
    write_brats(path / "data", cases=4, layout="BraTS2017", shape=(60, 60, 39))
    return path


def command(work: Path, out: Path, *more: str) -> list[str]:
    settings = [part for field in SMALL for part in ("--set", field)]
    data = ["--data", str(work / "data"), "--profile", "quick"]
    folders = ["--work", str(work), "--out", str(out)]
    return [sys.executable, "-m", "experiments", "dcabes2020", *data, *folders, *settings, *more]


def interrupt(process: subprocess.Popen) -> str:
    """Ctrl-C, again after a while: Python drops one that arrives inside a destructor."""
    while True:
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=5)[1]
        except subprocess.TimeoutExpired:
            continue


@pytest.fixture(scope="module")
def finished(work, tmp_path_factory):
    """A run that Ctrl-C stopped in its second network, and the same command once more."""
    out = tmp_path_factory.mktemp("run")
    first = subprocess.Popen(
        command(work, out), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    done = out / "training" / "with_edge_loss-WT" / "model.keras"
    while not done.exists() and first.poll() is None:
        time.sleep(0.1)
    stopped = interrupt(first)
    again = subprocess.run(
        command(work, out), cwd=ROOT, text=True, capture_output=True, check=False
    )
    return out, (first.returncode, stopped), again


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_the_same_command_resumes(finished):
    _, (code, stopped), again = finished
    assert code == 130
    # Python itself reports an interrupt that it met, and dropped, inside a destructor.
    assert stopped.strip().splitlines()[-1].startswith("Stopped. The same command goes on")
    assert "with_edge_loss, network 1 of 3" in again.stdout
    assert "WT  epoch 1/2" not in again.stdout.split("network 2 of 3")[0]
    assert "report:" in again.stdout, again.stderr


@pytest.mark.slow
def test_a_changed_recipe_is_not_held_against_the_papers_expectations(finished):
    """A few steps of a 4-filter network cannot reach the whole-tumour Dice of 0.80."""
    out, _, again = finished
    assert again.returncode == 0
    assert "Not held against its expectations" in (out / "report.html").read_text()


@pytest.mark.slow
def test_the_report_is_made_again_from_the_run_folder(finished):
    """The same page, but for the costs, which are measured anew, and nothing is trained."""
    out, _, _ = finished
    before = {path.name: path.read_bytes() for path in out.glob("*.csv")}
    table = (out / "table.md").read_text()
    for path in [out / "report.html", *out.glob("figures/*.png")]:
        path.unlink()
    again = subprocess.run(
        [sys.executable, "-m", "keras_medseg.cli", "report", str(out)],
        cwd=ROOT, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "report:" in again.stdout
    assert "epoch" not in again.stdout
    assert "Not held against its expectations" in (out / "report.html").read_text()
    assert (out / "figures" / "edge_maps.png").exists()
    for name in ("table.csv", "tests.csv", "scores.csv", "log.csv"):
        assert (out / name).read_bytes() == before[name], name
    assert (out / "table.md").read_text().splitlines()[:5] == table.splitlines()[:5]


def test_a_run_outside_of_its_expectation_exits_with_1(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(experiment, "run", lambda *_, **__: False)
    assert experiments_cli.main(["dcabes2020", "--work", str(tmp_path)]) == 1
    assert "outside of what its recipe expects" in capsys.readouterr().err


@pytest.mark.slow
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


@pytest.mark.slow
def test_provenance_says_where_the_numbers_come_from(finished):
    out, _, _ = finished
    found = json.loads((out / "provenance.json").read_text())
    assert found["data_name"] == "phantom in the layout of BraTS2017"
    assert (found["training_cases"], len(found["validation_cases"])) == (3, 1)
    assert found["seed"] == 0
    assert len(found["data_fingerprint"]) == 64
    stopped, finishing = found["commands"]
    for command in (stopped, finishing):
        assert "--profile quick" in command["command"]
        assert {"python", "keras", "tensorflow", "numpy"} <= command["versions"].keys()
        assert command["seconds"] > 0
        assert command["devices"]
    assert stopped["started"] < finishing["started"]
    logs = [pd.read_csv(path) for path in out.glob("training/*/log.csv")]
    assert found["training_seconds"] == pytest.approx(sum(log["seconds"].sum() for log in logs))


@pytest.mark.slow
def test_the_report_names_what_was_left_out_and_why_it_is_not_comparable(finished):
    out, _, again = finished
    page = (out / "report.html").read_text()
    for words in ("synthetic", "not run in this profile", "train.epochs", "90.59"):
        assert words in page
    assert "not run in this profile" in again.stdout
    assert 'src="http' not in page


def test_a_reader_is_told_of_leaks_and_of_cases_without_an_object():
    labels = {"a": [[0, 1]], "b": [[0, 0]], "c": [[2, 0]], "d": [[0, 0]]}
    stored = {name: SimpleNamespace(labels=np.array(values)) for name, values in labels.items()}
    of_cases = {"store": SimpleNamespace(cases=stored), "duplicates": {}, "leaking_groups": ()}
    of_cases["scored_side"] = "validation"
    seen = SimpleNamespace(scored=("a", "c"), **of_cases)
    assert report.data_notes(seen) == []
    seen = SimpleNamespace(scored=("a", "b", "c", "d"), **of_cases | {"leaking_groups": ("x",)})
    leak, empty = report.data_notes(seen)
    assert leak.startswith("The split leaks: 1 groups")
    assert empty.startswith("2 of 4 validation cases have no object")


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
        return experiment.judge((entry,), scores, cohort, "quick")

    cohort = SimpleNamespace(phantom=True, datasets=("BraTS2017",))

    assert [v["passed"] for v in verdict(0.8)] == [True]  # (0.7 + 0.9) / 2
    assert [v["passed"] for v in verdict(0.81)] == [False]
    assert [v["passed"] for v in verdict(0.7, maximum=0.8)] == [True]
    assert [v["passed"] for v in verdict(0.7, maximum=0.79)] == [False]
    assert [v["passed"] for v in verdict(0.0, variant="not run")] == [False]
    assert verdict(0.8, data="BraTS2017") == []
    assert verdict(0.8, profile="paper") == []
    cohort = SimpleNamespace(phantom=False, datasets=("BraTS2017",))
    assert verdict(0.8) == []
    assert len(verdict(0.8, data="BraTS2017")) == 1
    cohort = SimpleNamespace(phantom=False, datasets=("BraTS2017", "BraTS2018"))
    assert verdict(0.8, data="BraTS2017") == []
    together = ("BraTS2017", "BraTS2018")
    assert [v["passed"] for v in verdict(0.8, data=together)] == [True]
    assert verdict(0.8, data=("BraTS2017", "BraTS2018", "BraTS2019")) == []


def test_variants_share_the_runs_data_and_split():
    base = small_recipe()
    for changes, words in (
        ({"data.validation": 0.5}, "variant b: found data.validation 0.5, expected 0.3"),
        ({"data.test": 0.1}, "variant b: found data.test 0.1, expected 0.0"),
        ({"data": IMAGES}, "variant b: found data that are decoded in another way"),
    ):
        profile = experiment.Profile({}, {"a": {}, "b": changes})
        request = experiment.Request(Path("out"), Path("in"), "p", "test")
        with pytest.raises(ValueError, match=words):
            experiment.run(experiment.Experiment(base, {"p": profile}), request)
    assert not Path("out").exists()


def test_a_recipe_without_a_phantom_wants_data(tmp_path):
    request = experiment.Request(tmp_path / "out", None, "train", "test")
    with pytest.raises(ValueError, match="found none, expected a folder of cases"):
        experiment.run(experiment.of_recipe(small_recipe()), request)
