"""Files that a run folder, a checkpoint or a store got from elsewhere: no code, no other folder."""

import hashlib
import json
import pickle
import zipfile
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

from keras_medseg import recipe
from keras_medseg.data import store
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.errors import DataError
from keras_medseg.inference.export import export
from keras_medseg.inference.outputs import load_network
from keras_medseg.runs import predict_folder
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.training import checkpoint

from ..recipes import small_recipe


class _Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def _seal(path):
    line = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
    path.with_name(path.name + ".sha256").write_text(line)


def test_a_pickle_in_a_checkpoint_is_not_opened(tmp_path):
    trace = tmp_path / "trace"
    path = tmp_path / "epoch_0001.npz"
    array = np.array([_Bomb(trace)], object)
    record = np.frombuffer(b'{"epoch": 1, "log": []}', np.uint8)
    np.savez(path, record=record, weights=array, allow_pickle=True)
    _seal(path)
    with (
        pytest.warns(UserWarning, match="Using the checkpoint before"),
        pytest.raises(DataError, match="only damaged"),
    ):
        checkpoint.load_latest(tmp_path)
    with pytest.raises(
        DataError, match=r"epoch_0001\.npz: found ValueError: .*expected an archive"
    ):
        checkpoint.load(tmp_path, 1)
    path.write_bytes(pickle.dumps(_Bomb(trace)))
    _seal(path)
    with pytest.raises(DataError, match="expected an archive of arrays"):
        checkpoint.load(tmp_path, 1)
    assert not trace.exists()


def test_a_pickle_in_a_store_is_not_opened(tmp_path):
    trace = tmp_path / "trace"
    np.save(tmp_path / "a.image.npy", np.array([_Bomb(trace)], object), allow_pickle=True)
    array = np.ones((2, 2, 1, 1), np.uint8)
    arrays = CaseArrays(array, None, np.eye(4), ("L", "P", "S"))
    in_memory = store.StoredCase.from_arrays(Case("a", "x", (), None, "a"), arrays)
    case = replace(in_memory, folder=tmp_path, in_memory=None)
    with pytest.raises(ValueError, match="Python objects in dtype"):
        _ = case.image
    assert not trace.exists()


def _network_with_code(path):
    keras.utils.clear_session()
    x = keras.Input((4, 4, 1))
    keras.Model(x, keras.layers.Lambda(lambda t: t + 1)(x)).save(path)


def test_a_network_with_code_is_refused_whatever_opens_it(tmp_path):
    path = tmp_path / "model.keras"
    _network_with_code(path)
    words = (
        r"model\.keras: found a file that Keras does not open .*Lambda.*expected the model\.keras"
    )
    with pytest.raises(DataError, match=words) as error:
        load_network(path)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=words):
        export(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_that_names_any_class_is_refused(tmp_path):
    """A configuration can name a module and a function to call."""
    trace = tmp_path / "trace"
    path = tmp_path / "model.keras"
    config = {"module": "os", "class_name": "mkdir", "config": {"path": str(trace)}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": keras.__version__}))
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(DataError, match="does not open"):
        load_network(path)
    assert not trace.exists()


def _run(tmp_path, **facts):
    """A run folder without networks."""
    path = tmp_path / "run"
    (path / "variants").mkdir(parents=True)
    (path / "run.json").write_text(json.dumps({"variants": ["main"], **facts}))
    recipe_tree = recipe.to_tree(small_recipe())
    tree = {"recipe": recipe_tree, "trained_as": "main", "fitted": {}}
    (path / "variants/main.json").write_text(json.dumps(tree))
    return RunFolder(path), tree


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", ".", "a\\b"])
def test_a_variant_is_a_file_of_the_run(name, tmp_path):
    run, _ = _run(tmp_path, variants=[name])
    with pytest.raises(DataError, match=r"run\.json: found variants = "):
        _ = run.run


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"trained_as": "../other"}, "trained_as = '../other'"),
        ({"trained_as": None}, "trained_as = None"),
        ({"fitted": {"mean": "x"}}, "fitted = "),
        ({"fitted": []}, "fitted = "),
    ],
)
def test_a_variant_names_a_folder_of_the_run(change, verdict, tmp_path):
    run, tree = _run(tmp_path)
    (run.path / "variants/main.json").write_text(json.dumps({**tree, **change}))
    with pytest.raises(DataError, match=rf"main\.json: found {verdict}"):
        run.variant("main")


def test_what_an_older_run_lacks_is_named(tmp_path):
    run, _ = _run(tmp_path)
    with pytest.raises(DataError, match=r"run\.json: found no 'profile', expected one\. Run the"):
        _ = run.run["profile"]


@pytest.mark.parametrize(
    "name", ["../precious.txt", "/tmp/precious.txt", "a/../../precious.txt", 3]
)
def test_overwriting_predictions_deletes_nothing_elsewhere(name, tmp_path):
    """`predictions.json` lists the label maps that --overwrite may delete."""
    out = tmp_path / "out"
    out.mkdir()
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    (out / "predictions.json").write_text(json.dumps({"cases": [name]}))
    identity = {"run": "r", "variant": "main"}
    with pytest.raises(DataError, match=r"predictions\.json: found cases = .*Delete it"):
        predict_folder._claim(out, identity, ["a.png"], overwrite=True)
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("text", ["", "[]", "case\n", "variant,case,region,dice\nmain,a,WT,high\n"])
def test_damaged_scores(text, tmp_path):
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(DataError, match=r"scores\.csv: found .*expected a whole file"):
        RunFolder(tmp_path).scores()


def test_a_score_without_a_value_stays_a_missing_number(tmp_path):
    """Such as the 95th percentile of no distances; names of cases stay text."""
    run = RunFolder(tmp_path)
    rows = [
        {"variant": "a", "case": "001", "region": "WT", "hd95_mm": 2.5},
        {"variant": "a", "case": "NA", "region": "WT", "hd95_mm": float("nan")},
    ]
    run.write_scores(pd.DataFrame(rows))
    pd.testing.assert_frame_equal(run.scores(), pd.DataFrame(rows))
