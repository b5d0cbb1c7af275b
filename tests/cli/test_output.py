"""What commands print for people and for programs (--json, --quiet)."""

import json
import shutil

import numpy as np
import pytest

from keras_medseg import cli
from keras_medseg.data.formats import image_files
from keras_medseg.data.store import open_store
from keras_medseg.phantoms.images import write_images as write_phantom

from ..known_runs import AS_THEY_ARE, IMAGES, constant, write_images, write_run


@pytest.fixture
def told(capsys):
    """Runs a command: its exit code, its stdout and its stderr."""

    def run(*words):
        code = cli.main(list(map(str, words)))
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_phantom(folder, cases=3, layout="CVC-ClinicDB", size=(32, 40))
    return folder


def test_the_result_is_on_stdout_and_messages_are_on_stderr(data, tmp_path, told):
    code, out, err = told("prepare", data, tmp_path / "store", "--workers", 1, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["store"] == str(tmp_path / "store")
    assert sorted(facts["cases"]) == ["1", "2", "3"]
    assert facts["fingerprint"] == open_store(tmp_path / "store").fingerprint
    assert "decoding cases  3/3" in err
    assert "store: 3 cases, fingerprint" in err


def test_quiet_leaves_warnings_errors_and_the_exit_code(data, tmp_path, told):
    words = ("prepare", data, tmp_path / "store", "--workers", 1)
    assert told(*words, "--quiet") == (0, "", "")
    code, out, err = told(*words, "--quiet", "--json")
    assert (code, len(json.loads(out)["cases"]), err) == (0, 3, "")
    code, out, err = told("check", tmp_path / "nowhere", "--quiet", "--json")
    assert (code, out) == (1, "")
    assert err.startswith("keras-medseg: ")
    assert err.count("\n") == 1


def test_problems_are_an_answer_and_exit_code_1(data, tmp_path, told):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    [image] = folder.glob("Original/2.*")
    image.write_bytes(image.read_bytes()[:200])
    assert json.loads(told("check", data, "--json")[1])["ok"] is True
    code, out, err = told("check", folder, "--json")
    [problem] = json.loads(out)["problems"]
    assert (code, problem["severity"], problem["case"]) == (1, "error", "2")
    assert image.name in problem["message"]
    assert "1 error, " in err
    assert told("check", folder, "--quiet") == (1, "", "")


def test_predictions_and_scores(tmp_path, told):
    """A network that is sure of the polyp; annotations without a quarter of 0, and a half of 1."""
    network = constant(1.0, channels=3)
    run = write_run(tmp_path / "run", network, IMAGES, fitted=AS_THEY_ARE)
    write_images(tmp_path / "cases", 2)
    code, out, err = told("predict", run.path, tmp_path / "cases", tmp_path / "maps", "--json")
    facts = json.loads(out)
    assert (code, facts["label_maps"], facts["variant"]) == (0, ["0.png", "1.png"], "main")
    assert len(facts["weights_sha256"]["polyp"]) == 64
    assert "maps: 2 label maps of polyp" in err
    for number in range(2):
        mask = np.full((32, 40), 255, np.uint8)
        mask[: 8 * (number + 1)] = 0
        image_files.write(tmp_path / f"cases/masks/{number}.png", mask)
    words = ("score", tmp_path / "maps", tmp_path / "cases", "--out", tmp_path / "s.csv")
    code, out, err = told(*words, "--workers", 1, "--metrics", "dice", "--json")
    facts = json.loads(out)
    dice = {row["case"]: row["dice"] for row in facts["scores"]}
    # 2 x 960 / (960 + 1280) and 2 x 640 / (640 + 1280)
    assert dice == pytest.approx({"0": 6 / 7, "1": 2 / 3})
    assert facts["summary"][0]["mean"] == pytest.approx(16 / 21)
    assert facts["files"] == [str(tmp_path / "s.csv")]
    assert "s.csv: 2 rows" in err
