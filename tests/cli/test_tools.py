"""What is here: models and completion; tests of recipes and doctor lie beside what they call."""

import shutil
import subprocess
from pathlib import Path

import pytest

from keras_medseg import cli


def test_models_lists_the_networks(capsys):
    assert cli.main(["models"]) == 0
    assert "residual_attention_unet" in capsys.readouterr().out


def test_an_unknown_network_gets_the_nearest_name(capsys):
    assert cli.main(["models", "residual_atention_unet"]) == 1
    assert "residual_attention_unet" in capsys.readouterr().err


def complete(script: Path, cwd: Path, *words: str) -> set[str]:
    """What bash would offer after these words."""
    code = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()\n'
        '_shtab_keras_medseg keras-medseg\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", code, "bash", str(script), "keras-medseg", *words],
        capture_output=True, text=True, timeout=60, check=True, cwd=cwd,
    )  # fmt: skip
    return set(done.stdout.split())


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_completes_commands_options_names_and_files(tmp_path, capsys):
    script = tmp_path / "completion.bash"
    assert cli.main(["completion", "bash"]) == 0
    script.write_text(capsys.readouterr().out)
    (tmp_path / "cases").mkdir()
    assert complete(script, tmp_path, "pre") == {"prepare", "predict"}
    assert complete(script, tmp_path, "train", "cases", "--rec") == {"--recipe"}
    assert complete(script, tmp_path, "models", "residual_a") == {"residual_attention_unet"}
    assert complete(script, tmp_path, "phantom", "x", "--layout", "kn") >= {"knee"}
    assert complete(script, tmp_path, "check", "ca") == {"cases"}
    assert complete(script, tmp_path, "predict", "ca") == {"cases"}
    assert complete(script, tmp_path, "export", "ca") == {"cases"}
    assert complete(script, tmp_path, "train", "x", "--recipe", "ca") >= {"cases"}


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_every_command(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in ("predict", "evaluate", "completion"))
