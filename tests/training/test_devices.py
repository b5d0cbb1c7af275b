"""A training on several devices is that of one device."""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_medseg.training import devices

from ..recipes import small_recipe

SCRIPT = Path(__file__).with_name("run_on_devices.py")
RUN = Path(__file__).with_name("run_tiny_training.py")
BACKENDS = ("tensorflow", "jax")
LOCAL_NORMS = "norm_of_each_device"
# JAX compiles each for half a minute; the script without names does them all.
CASES = {
    "tensorflow": (),
    "jax": ("dice_of_the_batch", "penalty", LOCAL_NORMS),
}


def test_other_backends_are_fed_the_epochs_that_were_asked_for(monkeypatch):
    """Validation sees the batches of epoch 0 every time, also where they are drawn by epoch."""

    class Batches:
        steps_per_epoch = 1

        def batch(self, epoch, step):
            return epoch

    def fed(epochs):
        data = devices.ONE.feed(Batches(), epochs)
        found = []
        for _ in epochs:
            found.append(data[0])
            data.on_epoch_end()
        return found

    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert fed([0, 0, 0]) == [0, 0, 0]
    assert fed(range(2, 5)) == [2, 3, 4]


def of_python(backend: str, script: Path, *arguments: str, expected: int = 0) -> None:
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == expected, done.stderr[-3000:]


@pytest.fixture(scope="module", params=BACKENDS)
def deviations(request, tmp_path_factory):
    """Of every case of the script on two devices, from one device."""
    folder = tmp_path_factory.mktemp(request.param)
    of_python(request.param, SCRIPT, str(folder), "2", *CASES[request.param])
    return request.param, json.loads((folder / "deviations.json").read_text())


@pytest.mark.slow
def test_two_devices_train_as_one(deviations):
    """Losses, norms, Dropout, optimizers, penalties and a last batch of one sample."""
    backend, found = deviations
    assert len(found) == (len(CASES[backend]) or 8)
    for name, (of_log, of_weights) in found.items():
        if name != LOCAL_NORMS:
            assert max(of_log, of_weights) < 1e-5, (name, of_log, of_weights)


@pytest.mark.slow
def test_norms_of_each_device_would_be_noticed(deviations):
    """The same comparison, of a network whose norms are not synchronized."""
    backend, found = deviations
    of_log, of_weights = found[LOCAL_NORMS]
    if backend == "tensorflow":
        assert of_log > 1e-3
        assert of_weights > 1e-4
    else:  # arrays of JAX are global, so that there is nothing to synchronize
        assert max(of_log, of_weights) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_run_goes_on_with_another_number_of_devices(tmp_path, backend):
    """One device, then two, then four; each process is killed in the epoch after its first one."""
    settings = ["train.optimizer=sgd", "train.schedule=constant", "train.schedule_options={}"]
    given = [part for field in (*settings, "train.epochs=3") for part in ("--set", field)]
    killed = ("--die-at-step", "3")  # of two steps an epoch
    of_python(backend, RUN, str(tmp_path / "one"), *given)
    of_python(backend, RUN, str(tmp_path / "all"), *given, *killed, expected=-signal.SIGKILL)
    two = ("--devices", "2", *killed)
    of_python(backend, RUN, str(tmp_path / "all"), *given, *two, expected=-signal.SIGKILL)
    of_python(backend, RUN, str(tmp_path / "all"), *given, "--devices", "4")
    logs = [
        np.loadtxt(tmp_path / name / "training/main-WT/log.csv", delimiter=",", skiprows=1)
        for name in ("one", "all")
    ]
    assert logs[1][:, 0].tolist() == [1, 2, 3]
    np.testing.assert_allclose(logs[0][:, :-1], logs[1][:, :-1], rtol=1e-5)


def test_a_batch_that_does_not_divide_is_refused():
    three = devices.Devices(("a", "b", "c"))
    train = small_recipe({"train.batch_size": 8}).train
    with pytest.raises(ValueError, match=r"--devices: found 3 .* of 8, .* divides it: 1, 2, 4, 8"):
        three.check(train)
    three.check(dataclasses.replace(train, batch_size=6))
    devices.ONE.check(train)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX clips what is global")
def test_options_that_keras_applies_to_each_device_are_refused():
    train = small_recipe({"train.optimizer_options": {"global_clipnorm": 1.0}}).train
    with pytest.raises(ValueError, match=r"train\.optimizer_options: found global_clipnorm with 2"):
        devices.Devices(("a", "b")).check(train)


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_devices_is_all_or_one_or_more(asked):
    with pytest.raises(ValueError, match=r"--devices: found .* expected all or a number from 1"):
        devices.choose(asked)


def test_one_device_needs_no_strategy():
    assert devices.choose("1") is devices.ONE
    assert devices.ONE.count == 1
