"""`python -m experiments`: what it refuses before it writes anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import __main__ as experiments_cli

ROOT = Path(__file__).parents[1]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "experiments", *arguments],
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("backend", "verdict"),
    [
        (
            "theano",
            "KERAS_BACKEND: found 'theano', expected one of tensorflow, jax, torch.",
        ),
        ("openvino", "KERAS_BACKEND: found 'openvino', which is not installed"),
    ],
)
def test_a_backend_that_is_not_there_is_one_line(backend, verdict, tmp_path):
    done = run("iacnn", "--work", str(tmp_path / "work"), KERAS_BACKEND=backend)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"keras-medseg: {verdict}")
    assert not (tmp_path / "work").exists()


def test_an_unknown_paper_is_refused_with_the_known_ones():
    done = run("dcabes2021")
    assert done.returncode == 2
    assert "dcabes2020" in done.stderr


def test_an_unknown_recipe_field_gets_the_nearest_one(tmp_path, capsys):
    arguments = ["dcabes2020", "--work", str(tmp_path), "--set", "train.epoch=2"]
    assert experiments_cli.main(arguments) == 1
    assert "'epochs'" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
