"""The command line as its users meet it: a process with output and exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import __main__ as experiments_cli
from keras_medseg import cli
from keras_medseg.data.store import open_store
from keras_medseg.phantoms.images import write_images

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "models", "check", "prepare", "train", "predict", "evaluate", "score", "report", "export",
    "phantom", "pack", "install", "completion", "doctor",
)  # fmt: skip


def run(*arguments: str, module: str = "keras_medseg.cli") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
    )


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


def test_check_lists_all_problems_and_exits_with_1(tmp_path, capsys):
    phantom = ["phantom", str(tmp_path), "--cases", "1", "--size", "40", "40", "26"]
    assert cli.main(phantom) == 0
    assert cli.main(["check", str(tmp_path)]) == 0
    volumes = sorted(tmp_path.rglob("*.nii*"))
    volumes[0].write_bytes(volumes[0].read_bytes()[:-20])
    volumes[1].unlink()
    capsys.readouterr()
    assert cli.main(["check", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert all(volume.name in printed for volume in volumes[:2])


def test_check_takes_the_gray_codes_of_a_masks_classes(tmp_path, capsys):
    write_images(tmp_path, cases=2, layout="knee", size=(64, 64))
    named = ["ligament=204", "background=51,102,153,255"]
    assert cli.main(["check", str(tmp_path)]) == 1
    assert "(--classes, or" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["check", str(tmp_path), "--classes", *named]) == 0
    assert cli.main(["check", str(tmp_path), "--classes", named[0]]) == 1
    capsys.readouterr()
    assert cli.main(["check", str(tmp_path), "--classes", "ligament"]) == 1
    assert "found 'ligament', expected NAME=CODE" in capsys.readouterr().err


def test_prepare_resamples_volumes_to_a_spacing(tmp_path):
    """24 voxels span 240 x 240 x 155 mm: 12 of 20 mm, and 15 of 10 mm and a half one."""
    made, store = tmp_path / "made", tmp_path / "store"
    phantom = ["phantom", str(made), "--cases", "1", "--layout", "nnUNet", "--size"]
    assert cli.main([*phantom, "24", "24", "24"]) == 0
    assert cli.main(["prepare", str(made), str(store), "--spacing", "20", "20", "10"]) == 0
    [case] = open_store(store).cases.values()
    assert case.full_shape == (12, 12, 16)


def test_a_mistake_is_one_line_and_exit_code_1(tmp_path):
    done = run("check", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "nowhere" in done.stderr + done.stdout


def test_an_unknown_network_gets_the_nearest_name(capsys):
    assert cli.main(["models", "residual_atention_unet"]) == 1
    assert "residual_attention_unet" in capsys.readouterr().err


def test_models_lists_the_networks(capsys):
    assert cli.main(["models"]) == 0
    assert "residual_attention_unet" in capsys.readouterr().out


def test_an_unknown_paper_is_refused_with_the_known_ones():
    done = run("dcabes2021", module="experiments")
    assert done.returncode == 2
    assert "dcabes2020" in done.stderr


def test_an_unknown_recipe_field_gets_the_nearest_one(tmp_path, capsys):
    arguments = ["dcabes2020", "--work", str(tmp_path), "--set", "train.epoch=2"]
    assert experiments_cli.main(arguments) == 1
    assert "'epochs'" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("layout", "size", "dataset"),
    [
        ("BraTS2023", ("40", "40", "26"), "brats"),
        ("ISIC2018", ("48", "64"), "image_folders"),
        ("knee", ("64", "64"), "image_folders"),
    ],
)
def test_phantom_writes_every_synthetic_data_set(tmp_path, capsys, layout, size, dataset):
    arguments = [str(tmp_path), "--cases", "2", "--layout", layout, "--size", *size]
    assert cli.main(["phantom", *arguments]) == 0
    assert f"2 synthetic cases, layout {layout}" in capsys.readouterr().out
    assert cli.main(["prepare", str(tmp_path), str(tmp_path / "store"), "--dataset", dataset]) == (
        1 if layout == "knee" else 0  # its masks have classes, which only check takes
    )


def test_a_data_set_can_be_named_and_is_refused_where_it_is_unknown(tmp_path, capsys):
    write_images(tmp_path, cases=1, layout="CVC-ClinicDB", size=(48, 64))
    assert cli.main(["check", str(tmp_path), "--dataset", "image_folders"]) == 0
    assert cli.main(["check", str(tmp_path), "--dataset", "images"]) == 1
    assert "expected one of: brats, image_folders" in capsys.readouterr().err
    assert cli.main(["check", str(tmp_path), "--dataset", "brats", "--classes", "a=1"]) == 1
    assert "classes" in capsys.readouterr().err


def test_a_store_among_the_data_is_refused(tmp_path, capsys):
    assert cli.main(["prepare", str(tmp_path), str(tmp_path)]) == 1
    assert "found the folder of the cases, expected one of its own" in capsys.readouterr().err
