"""`python -m experiments` on a machine where its backend is not what it should be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "iacnn", "--work", str(tmp_path / "work")],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"keras-medseg: {verdict}")
    assert not (tmp_path / "work").exists()
