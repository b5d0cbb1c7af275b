"""The command line as its users meet it: a process with output and exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_medseg import __version__, cli

ROOT = Path(__file__).parents[2]
COMMANDS = [command.run.__name__ for command in cli.COMMANDS]


def run(*arguments: str, module: str = "keras_medseg") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.parametrize("module", ["keras_medseg", "keras_medseg.cli"])
def test_python_runs_it_without_an_installed_script(module):
    assert run("--version", module=module).stdout == f"keras-medseg {__version__}\n"
    assert run(module=module).returncode == 2


def test_help_names_every_command_and_imports_no_framework():
    code = (
        "import sys\nfrom keras_medseg import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


def test_what_tensorflow_prints_when_it_is_imported_is_not_shown():
    """Lines about devices and rounding, before TensorFlow reads its own log level."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "keras_medseg.cli", "models", "nosuch"],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("keras-medseg: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_tracing_several_networks_is_no_warning():
    """Of five networks that predict twice each, TensorFlow would warn at the last."""
    script = (
        "from keras_medseg.cli.keras_import import import_frameworks; import_frameworks()\n"
        "import keras, numpy as np\n"
        "for number in range(5):\n"
        "    x = keras.Input((2,))\n"
        "    network = keras.Model(x, keras.layers.Dense(1)(x))\n"
        "    [network.predict_on_batch(np.zeros((1, 2), 'float32')) for _ in range(2)]\n"
        "import logging; logging.getLogger('tensorflow').warning('another warning')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.strip().splitlines()[-1].endswith("another warning")
    assert "retracing" not in done.stderr


def test_a_reader_that_has_enough_ends_a_command_quietly():
    done = subprocess.run(
        [sys.executable, "-c", "from keras_medseg import cli; cli.main(['completion', 'bash'])"],
        stdout=_closed_pipe(), stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.stderr == ""


def _closed_pipe():
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert command in capsys.readouterr().out


def test_a_mistake_is_one_line_and_exit_code_1(tmp_path):
    done = run("check", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "nowhere" in done.stderr + done.stdout
