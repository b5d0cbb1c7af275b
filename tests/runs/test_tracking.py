"""Trackers as listeners, by modules of their names that write down what they are asked for."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keras_medseg import cli
from keras_medseg.runs import tracking
from keras_medseg.runs.tracking import NAMES, tracker
from keras_medseg.training.events import EPOCH, FINISHED, STARTED, Event

FAKES = {
    "mlflow": """
import json, types
calls = []
def _note(*words, **options):
    calls.append([*words, options] if options else [*words])
class MlflowClient:
    def get_experiment_by_name(self, name):
        _note("experiment", name)
        return None
    def create_experiment(self, name):
        return "7"
    def create_run(self, experiment, run_name):
        _note("run", experiment, run_name)
        made = sum(call[0] == "run" for call in calls)
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=f"id{made}"))
    def __getattr__(self, name):
        return lambda *words, **options: _note(name, *words, **options)
""",
    "wandb": """
import types
calls = []
def Settings(**options):
    return options
class Artifact:
    def __init__(self, name, type):
        self.name, self.files = name, []
    def add_file(self, path, name):
        self.files.append(name)
class _Run:
    def __init__(self, id):
        self.id = id
        self.summary = types.SimpleNamespace(update=lambda d: calls.append(["summary", id, d]))
    def log(self, row):
        calls.append(["log", self.id, row])
    def log_artifact(self, made):
        calls.append(["artifact", self.id, made.name, made.files])
    def finish(self):
        calls.append(["finish", self.id])
def init(**options):
    calls.append(["init", options])
    return _Run(options["id"])
""",
}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Puts a module of this name on the path; what it was asked for."""

    def put(name):
        place = tmp_path / "modules"
        place.mkdir(exist_ok=True)
        (place / f"{name}.py").write_text(FAKES[name])
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(str(place))
        return lambda: sys.modules[name].calls

    yield put
    for name in FAKES:
        sys.modules.pop(name, None)


def tell_a_run(listener, out: Path):
    """Two epochs of one network, and the end of the run."""
    network = out / "fold0/training/main-WT+TC"
    listener(Event(STARTED, network, 0, 2, parameters={"train.epochs": 2}))
    for epoch, loss in ((1, 0.5), (2, 0.25)):
        listener(Event(EPOCH, network, epoch, 2, metrics={"loss": loss, "dice_a+b": 1.0}))
    files = {"report.html": out / "report.html", "fold0/training/m/model.keras": out / "m"}
    listener(Event(FINISHED, out, metrics={"main/WT/dice": 0.75}, artifacts=files))


def test_mlflow_has_a_run_for_every_network_and_one_for_all(fake, tmp_path):
    calls, out = fake("mlflow"), tmp_path / "out"
    tell_a_run(tracker("mlflow", out), out)
    assert calls() == [
        ["experiment", "keras_medseg"],
        ["run", "7", "out/fold0/main-WT+TC"],
        ["update_run", "id1", {"status": "RUNNING"}],
        ["log_param", "id1", "train.epochs", 2],
        ["log_metric", "id1", "loss", 0.5, {"step": 1}],
        ["log_metric", "id1", "dice_a_b", 1.0, {"step": 1}],  # "+" is refused by MLflow
        ["log_metric", "id1", "loss", 0.25, {"step": 2}],
        ["log_metric", "id1", "dice_a_b", 1.0, {"step": 2}],
        ["set_terminated", "id1"],
        ["experiment", "keras_medseg"],
        ["run", "7", "out"],
        ["log_metric", "id2", "main/WT/dice", 0.75, {"step": 0}],
        ["log_artifact", "id2", str(out / "report.html"), None],
        ["log_artifact", "id2", str(out / "m"), "fold0/training/m"],
        ["set_terminated", "id2"],
    ]


def test_wandb_has_a_run_for_every_network_and_one_for_all(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    calls, out = fake("wandb"), tmp_path / "out"
    tell_a_run(tracker("wandb", out), out)
    begun = [call[1] for call in calls() if call[0] == "init"]
    network, whole = (run["id"] for run in begun)
    assert [run["name"] for run in begun] == ["out/fold0/main-WT+TC", "out"]
    assert [run["config"] for run in begun] == [{"train.epochs": 2}, {}]
    assert {(run["group"], run["project"], run["resume"]) for run in begun} == {
        ("out", "mine", "allow")
    }
    assert [call for call in calls() if call[0] != "init"] == [
        ["log", network, {"epoch": 1, "loss": 0.5, "dice_a+b": 1.0}],
        ["log", network, {"epoch": 2, "loss": 0.25, "dice_a+b": 1.0}],
        ["finish", network],
        ["summary", whole, {"main/WT/dice": 0.75}],
        ["artifact", whole, "out", ["report.html", "fold0/training/m/model.keras"]],
        ["finish", whole],
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_goes_on_in_the_same_run_of_its_tracker(name, fake, tmp_path):
    calls, out = fake(name), tmp_path / "out"
    network = out / "training/main-WT"
    tracker(name, out)(Event(STARTED, network, 0, 2))
    kept = json.loads((out / "tracking.json").read_text())[name]
    tracker(name, out)(Event(EPOCH, network, 1, 2, metrics={"loss": 0.5}))
    assert json.loads((out / "tracking.json").read_text())[name] == kept
    ids = {call[1] for call in calls() if call[0] in ("log", "log_metric")}
    assert ids == {*kept.values()}
    (out / "tracking.json").write_text("[]")
    with pytest.warns(UserWarning, match=r"tracking.json: .*list, not names and ids"):
        tracker(name, out)(Event(STARTED, network, 0, 2))


def test_folds_side_by_side_keep_their_own_runs(tmp_path):
    """Each process reads, begins and writes while the other one waits."""
    asked = []

    def begin(name):
        asked.append(name)
        time.sleep(0.2)
        return f"id of {name}"

    events = [Event(STARTED, tmp_path / f"fold{k}/training/main-WT", 0, 2) for k in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        found = [
            *pool.map(lambda event: tracking._id(tmp_path, "mlflow", event, begin), events * 2)
        ]
    names = [f"{tmp_path.name}/fold{k}/main-WT" for k in (0, 1)]
    assert sorted(asked) == names
    assert found == [f"id of {name}" for name in names] * 2


def test_a_tracker_that_fails_does_not_stop_a_training(fake, tmp_path, monkeypatch):
    """A server that is gone is a warning; one that is not there at the start is an error."""
    calls, out = fake("mlflow"), tmp_path / "out"
    listener = tracker("mlflow", out)
    client = sys.modules["mlflow"].MlflowClient

    def unreachable(*words, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(client, "log_metric", unreachable, raising=False)
    with pytest.warns(UserWarning, match="mlflow: ConnectionError: no route to host The train"):
        listener(Event(EPOCH, out / "training/main-WT", 1, 2, metrics={"loss": 0.5}))
    listener(Event(STARTED, out / "training/main-WT", 1, 2))
    assert calls()[-1] == ["update_run", "id1", {"status": "RUNNING"}]
    monkeypatch.setattr(client, "__init__", unreachable)
    with pytest.raises(ValueError, match="--tracking mlflow: ConnectionError: no route to host"):
        tracker("mlflow", out)


@pytest.mark.parametrize("command", ["train", "reproduce"])
def test_a_tracker_beside_a_cluster_is_refused_before_anything_is_written(
    command, fake, tmp_path, capsys
):
    calls, out = fake("mlflow"), tmp_path / "out"
    words = [*("--out", str(out)), *("--tracking", "mlflow"), *("--scheduler", "local:2")]
    nowhere = str(tmp_path / "nowhere")
    own = {"train": [nowhere, "--recipe", "iacnn"], "reproduce": ["iacnn", "--data", nowhere]}
    assert cli.main([command, *own[command], *words]) == 1
    assert capsys.readouterr().err == (
        "keras-medseg: --tracking: found it beside --scheduler, expected one of the two: trainings "
        "on a cluster tell nobody of their epochs.\n"
    )
    assert not out.exists()
    assert calls() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_that_is_not_installed_is_named_before_anything_is_written(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "recipe.json").write_text("{}")
    words = ("--recipe", tmp_path / "recipe.json", "--out", tmp_path / "out", "--tracking", name)
    assert cli.main(["train", *map(str, (tmp_path, *words))]) == 1
    assert f"found no package {name}" in (error := capsys.readouterr().err)
    assert error.endswith(f"Run: python -m pip install {name}\n")
    assert not (tmp_path / "out").exists()
