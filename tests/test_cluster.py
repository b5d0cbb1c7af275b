"""Work on a Dask cluster, as a user starts it; Dask itself in the slow tier."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from keras_medseg import cli, cluster, recipe
from keras_medseg.errors import DataError
from keras_medseg.phantoms.brats import write_brats
from keras_medseg.runs import spread_trainings

from .recipes import small_recipe

ROOT = Path(__file__).parents[1]
with_dask = pytest.mark.skipif(
    not importlib.util.find_spec("distributed"), reason="dask is not installed"
)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "keras_medseg.cli", *map(str, arguments)]


def keras_medseg(*arguments: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command(*arguments), env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    write_brats(path, cases=4, layout="BraTS2020", shape=(60, 60, 39))
    return path


@pytest.fixture(scope="module")
def given(data, tmp_path_factory):
    """A command that trains with two seeds, without its run folder."""
    path = tmp_path_factory.mktemp("recipe") / "recipe.json"
    chosen = small_recipe({"model.targets": (("WT",),), "train.epochs": 3})
    path.write_text(recipe.to_json(chosen))
    return ("train", data, "--recipe", path, "--seeds", 2)


@pytest.fixture(scope="module")
def finished_run(given, tmp_path_factory):
    """The run of this command without a cluster."""
    out = tmp_path_factory.mktemp("run")
    keras_medseg(*given, "--out", out)
    return out


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    """What stands in files; of checkpoints the arrays, for the record has times."""
    found = {}
    for path in sorted(path for path in folder.rglob(pattern) if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".npz":
            with np.load(path) as archive:
                arrays = {key: archive[key].tobytes() for key in archive.files if key != "record"}
            found |= {f"{name}/{key}": value for key, value in arrays.items()}
        else:
            found[name] = path.read_bytes()
    return found


def trainings(process: subprocess.Popen, folder: Path) -> list[psutil.Process]:
    """The processes that train in `folder`."""
    family = psutil.Process(process.pid).children(recursive=True)
    return [child for child in family if str(folder) in child.cmdline()]


def wait_for(path: Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)


@with_dask
@pytest.mark.slow
def test_a_stopped_run_and_a_killed_worker_cost_no_bit(given, finished_run, tmp_path):
    """Ctrl-C while both seeds are trained; then, with the same command, SIGKILL of a worker."""
    all_ = tmp_path / "all"
    on_cluster = command(*given, "--out", all_, "--scheduler", "local:2")
    logs = [all_ / f"seed{seed}/training/main-WT/log.csv" for seed in range(2)]

    with open(tmp_path / "said", "w") as said:
        options = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "stdout": said, "stderr": said}
        stopped = subprocess.Popen(on_cluster, **options)
        wait_for(logs[0], stopped)
        left = psutil.Process(stopped.pid).children(recursive=True)
        stopped.send_signal(signal.SIGINT)
        assert stopped.wait(timeout=60) == 130
        assert not psutil.wait_procs(left, timeout=30)[1]

        again = subprocess.Popen(on_cluster, **options)
        until = time.monotonic() + 300
        while not (victims := trainings(again, all_ / "seed1")):
            assert time.monotonic() < until
            time.sleep(0.01)
        victims[0].parent().kill()
        assert again.wait(timeout=600) == 0, (tmp_path / "said").read_text()[-3000:]
    for pattern in ("scores.csv", "*.nii.gz", "*.npz"):
        expected = contents(finished_run, pattern)
        assert expected
        assert contents(all_, pattern) == expected
    entries = json.loads((all_ / "seed1" / "provenance.json").read_text())["commands"]
    assert [task["task"] for task in entries[-1]["tasks"]] == ["train main", "score"]


@with_dask
@pytest.mark.slow
def test_cases_are_decoded_predicted_and_scored_as_without_a_cluster(data, finished_run, tmp_path):
    for name, options in {"one": (), "all": ("--scheduler", "local:2")}.items():
        out = tmp_path / name
        keras_medseg("prepare", data, out / "store", *options)
        keras_medseg("predict", finished_run, data, out / "maps", *options)
        keras_medseg("score", out / "maps", data, "--out", out / "scores.csv", *options)
    expected = contents(tmp_path / "one", "*")
    assert len([name for name in expected if name.endswith(".nii.gz")]) == 4
    assert contents(tmp_path / "all", "*") == expected


@with_dask
def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(DataError, match=r"tcp://127.0.0.1:9: found no scheduler that answers"),
        cluster.connected("tcp://127.0.0.1:9"),
    ):
        pass


def test_a_cluster_needs_dask(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    write_brats(tmp_path / "data", cases=1, layout="BraTS2020", shape=(60, 60, 39))
    given = ["prepare", str(tmp_path / "data"), str(tmp_path / "store"), "--scheduler", "local:2"]
    assert cli.main(given) == 1
    assert "--scheduler: found no Dask" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("address", ["local:0", "local:", "local:two"])
def test_local_has_a_number_of_processes(monkeypatch, address):
    monkeypatch.setitem(sys.modules, "distributed", object())
    with (
        pytest.raises(ValueError, match=r"--scheduler: found .*, expected local:N"),
        cluster.connected(address),
    ):
        pass


def test_without_an_address_there_is_no_cluster():
    with cluster.connected(None) as found:
        assert found is None


def test_a_worker_of_another_version_is_refused():
    with pytest.raises(ValueError, match=r"worker: found keras_medseg .*, expected 0\.0"):
        cluster._task(1, function=str, version="0.0")


def test_the_process_of_a_task_says_what_is_wrong(tmp_path):
    """A run folder that is none; and a module that has nothing to call."""
    module = "keras_medseg.runs.spread_trainings"
    with pytest.raises(ValueError, match=r"run\.json: found no file"):
        cluster.in_process((str(tmp_path), "main", "1"), module=module)
    with pytest.raises(RuntimeError, match=r"ended with exit code 1: AttributeError"):
        cluster.in_process((), module="keras_medseg.errors")


def test_the_share_of_epochs_counts_from_where_the_command_began(tmp_path, monkeypatch):
    """Two networks of four epochs: four of eight are done, so one more is a quarter of the rest."""
    chosen = small_recipe({"model.targets": (("WT",), ("TC",)), "train.epochs": 4})
    run = SimpleNamespace(
        variant=lambda name: SimpleNamespace(recipe=chosen),
        training=lambda name, targets: tmp_path / targets[0],
    )
    monkeypatch.setattr(spread_trainings, "RunFolder", lambda path: run)
    tasks = [spread_trainings._Task("run", "main", "1"), spread_trainings._Task("run", "", "1")]
    assert spread_trainings._Epochs(tasks[1:]).now() == ("", None), "scores have no epochs"
    (tmp_path / "WT").mkdir()
    log = tmp_path / "WT" / "log.csv"
    log.write_text("epoch,loss\n" + "1,0.5\n" * 4)
    found = spread_trainings._Epochs(tasks)
    assert found.now() == ("4/8 epochs", 0)
    (tmp_path / "TC").mkdir()
    (tmp_path / "TC" / "log.csv").write_text("epoch,loss\n1,0.5\n")
    assert found.now() == ("5/8 epochs", 0.25)
    log.write_text("epoch,loss\n")  # all checkpoints but the first were damaged
    assert found.now() == ("1/8 epochs", 0)


def test_the_time_left_of_trainings_is_that_of_their_epochs(monkeypatch):
    """And not that of the trainings: one of two was finished when the command began."""
    shown, epochs = [], SimpleNamespace(now=lambda: ("5/8 epochs", 0.25))

    def results(perform, tasks, networks, watch):
        watch()
        yield tasks[0], {}

    monkeypatch.setattr(spread_trainings, "_Epochs", lambda tasks: epochs)
    monkeypatch.setattr(
        spread_trainings,
        "progress_bar",
        lambda title: nullcontext(lambda *what: shown.append(what)),
    )
    tasks = [spread_trainings._Task("run", "main", "1")]
    given = SimpleNamespace(results=results, address="here")
    spread_trainings._run(given, "trainings", tasks, {"run": []})
    assert shown[0] == (0, 1, "5/8 epochs", 0.25)
