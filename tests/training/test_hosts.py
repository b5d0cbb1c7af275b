"""Several processes that train one network, as a user starts them: on JAX, here on loopback."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import psutil
import pytest

from keras_medseg import recipe
from keras_medseg.phantoms.brats import write_brats
from keras_medseg.training import hosts

from ..recipes import small_recipe

ROOT = Path(__file__).parents[2]
LEAST_SECONDS = hosts.SILENT_SECONDS + 45
"""In which the others must have ended; the page says 30 s, and the test machine may be busy."""
with_jax = pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A command that trains for twelve epochs, without its run folder."""
    folder = tmp_path_factory.mktemp("given")
    write_brats(folder / "data", cases=4, layout="BraTS2020", shape=(60, 60, 39))
    changes = {"train.epochs": 12, "train.optimizer": "sgd", "model.targets": (("WT",),)}
    (folder / "recipe.json").write_text(recipe.to_json(small_recipe(changes)))
    return ["train", folder / "data", "--recipe", folder / "recipe.json"]


def start(out: Path, given: list, processes: int) -> list[subprocess.Popen]:
    """All processes, with their messages in OUT.<number>."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = ["--coordinator", f"127.0.0.1:{port}", "--processes", processes, "--process"]
    found = []
    for number in range(processes):
        more = [*together, number] if processes > 1 else []
        command = [*given, "--out", out, *more]
        with open(f"{out}.{number}", "w") as said:
            found.append(
                subprocess.Popen(
                    [sys.executable, "-m", "keras_medseg.cli", *map(str, command)],
                    env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "jax"},
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                )
            )
    return found


def log_of(out: Path) -> np.ndarray:
    path = out / "training" / "main-WT" / "log.csv"
    return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)[:, :-1]


def weights_of(out: Path) -> np.ndarray:
    with np.load(out / "training/main-WT/checkpoint/epoch_0012.npz") as archive:
        names = [name for name in archive.files if name.startswith("weights")]
        return np.concatenate([archive[name].ravel() for name in names])


@pytest.fixture(scope="module")
def alone(given, tmp_path_factory):
    """The run of a single process."""
    out = tmp_path_factory.mktemp("run") / "one"
    (process,) = start(out, given, 1)
    assert process.wait(timeout=600) == 0, Path(f"{out}.0").read_text()[-3000:]
    return out


@with_jax
@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0])
def test_a_dead_process_ends_the_others_and_the_same_command_goes_on(
    alone, given, tmp_path, victim
):
    """Killed after the first epoch; then two processes have trained as one does."""
    out = tmp_path / "two"
    started = start(out, given, 2)
    until = time.monotonic() + 300
    while not (out / "training/main-WT/log.csv").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    (child,) = psutil.Process(started[victim].pid).children()
    child.send_signal(signal.SIGKILL)
    assert started[1 - victim].wait(timeout=LEAST_SECONDS) not in (0, None)
    last = Path(f"{out}.{1 - victim}").read_text().splitlines()[-1]
    assert f"process {victim}" in last
    assert "goes on from the last epoch" in last
    assert started[victim].wait(timeout=30) == 128 + signal.SIGKILL
    assert len(log_of(out)) < 12

    for process in start(out, given, 2):
        assert process.wait(timeout=600) == 0, Path(f"{out}.0").read_text()[-3000:]
    np.testing.assert_allclose(log_of(out), log_of(alone), rtol=1e-5)
    apart = np.linalg.norm(weights_of(out) - weights_of(alone))
    assert apart < 1e-5 * np.linalg.norm(weights_of(alone))
    assert (out / "scores.csv").exists()


def test_a_process_that_is_done_stops_watching_the_others(monkeypatch):
    """It would meet the client that JAX has closed while Python ends, and abort."""
    known, beats = {}, threading.Event()

    def set_key(key, value, allow_overwrite=False):
        known[key] = value
        if key.startswith("alive"):
            beats.set()

    client = SimpleNamespace(
        key_value_set=set_key,
        key_value_try_get=lambda key: known[key],
        wait_at_barrier=lambda name, timeout: known.setdefault("met", name),
    )
    initialize = SimpleNamespace(distributed=SimpleNamespace(initialize=lambda *_, **__: None))
    monkeypatch.setitem(sys.modules, "jax", initialize)
    monkeypatch.setattr(hosts, "_client", lambda: client)
    alone = hosts.Hosts("host:1", 1, 0)
    before = {*threading.enumerate()}
    alone.join(None)
    (watch,) = {*threading.enumerate()} - before
    assert beats.wait(timeout=60)
    alone.part()
    assert known["met"] == "1 end"
    assert not watch.is_alive()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("host", 2, 0), r"--coordinator: found 'host', expected HOST:PORT"),
        (("host:1", 2, 2), r"--process: found 2 of 2, expected 0 to 1"),
        (("host:1", 2, -1), r"--process: found -1 of 2"),
    ],
)
def test_processes_are_numbered_from_0(given, message):
    with pytest.raises(ValueError, match=message):
        hosts.Hosts(*given)


def test_all_three_options_are_given_or_none():
    assert hosts.of_arguments(None, None, None) is None
    with pytest.raises(ValueError, match="expected all three or none"):
        hosts.of_arguments("host:1", None, 0)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="which is refused is another")
def test_other_backends_than_jax_are_refused():
    with pytest.raises(ValueError, match=r"found the backend .*, expected jax.* KERAS_BACKEND=jax"):
        hosts.of_arguments("host:1", 2, 0)
