"""JAX without TensorFlow, as docs/start.md says, in a process that cannot import TensorFlow."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A module that is None cannot be imported, nor found by find_spec.
SCRIPT = """
import sys
if __name__ == "__main__":  # processes that decode cases start from this file as well
    for name in ("tensorflow", "tensorboard", "tf2onnx"):
        sys.modules[name] = None
    from keras_medseg import cli
    def run(*words):
        code = cli.main(list(words))
        print("exit", code, *words[:1], flush=True)
    tiny = ["data.window=(48,48,24)", "data.slice_step=8", "model.options.filters=4",
            "model.options.attention=False", "model.targets=[['WT','TC','ET']]", "train.epochs=1"]
    settings = [token for change in tiny for token in ("--set", change)]
    run("models", "unet")
    run("phantom", "small", "--layout", "BraTS2021", "--cases", "3", "--size", "48", "48", "31")
    run("train", "small", "--recipe", "dcabes2020", "--out", "run", *settings)
    run("predict", "run", "small", "maps")
    run("report", "run")
    run("pack", "run", "w.zip")
    run("export", "run/training/main-WT+TC+ET/model.keras", "exported")
    import keras, numpy, keras_medseg
    found = keras_medseg.load("phantom/brats2021-small")(
        numpy.ones((48, 48, 32, 4), "float32"), spacing_mm=(1, 1, 1)
    )
    print("array", found.labels.shape, keras.backend.backend())
"""


def python(folder, code, **environment):
    script = folder / "alone.py"
    script.write_text(code)
    return subprocess.run(
        [sys.executable, script.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed")
def test_jax_alone_trains_predicts_shares_and_refuses_an_export_in_a_sentence(tmp_path):
    done = python(tmp_path, SCRIPT, KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stdout + done.stderr
    codes = dict(reversed(line.split()[1:]) for line in done.stdout.splitlines() if "exit" in line)
    expected = dict.fromkeys(("models", "phantom", "train", "predict", "report", "pack"), "0")
    assert codes == {**expected, "export": "1"}, done.stderr
    [refusal] = [line for line in done.stderr.splitlines() if line.startswith("keras-medseg: This")]
    assert "tensorflow" in refusal
    assert not (tmp_path / "exported").exists()
    assert "array (48, 48, 32) jax" in done.stdout
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "maps").glob("*.nii.gz"))) == 3
    assert (tmp_path / "run/report.html").exists()
    provenance = json.loads((tmp_path / "run/provenance.json").read_text())
    assert {entry["backend"] for entry in provenance["commands"]} == {"jax"}
    [training] = (tmp_path / "run/training").iterdir()
    assert (training / "model.keras").exists()
    assert not (training / "tensorboard").exists()


def test_without_tensorflow_and_without_a_choice_one_line_says_what_to_set(tmp_path):
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from keras_medseg import cli; sys.exit(cli.main(['models']))"
    )
    done = python(tmp_path, code, KERAS_BACKEND="", KERAS_HOME=str(tmp_path))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    there = "jax" if find_spec("jax") else "torch" if find_spec("torch") else None
    assert "found 'tensorflow', which is not installed" in line
    if there:
        assert f"Set KERAS_BACKEND={there}, or run: python -m pip install tensorflow" in line
