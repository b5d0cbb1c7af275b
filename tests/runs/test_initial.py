"""`train.init`: what a run takes from weights, records and refuses."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from keras_medseg import cli, recipe
from keras_medseg.phantoms.brats import write_brats
from keras_medseg.runs import experiment, initial
from keras_medseg.runs.run_folder import RunFolder

from ..known_runs import SLICES, constant, next_voxel, write_run
from ..recipes import small_recipe

STILL = {
    "model.targets": (("WT", "TC"),),
    "data.window": (32, 32, 12),
    "data.split_seed": 0,
    "train.optimizer": "sgd",
    "train.learning_rate": 1e-30,
}
"""A training that changes no kernel."""
KERNELS = ("Conv1", "Output")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantom")
    write_brats(path, cases=3, layout="BraTS2020", shape=(40, 40, 26))
    return path


@pytest.fixture(scope="module")
def train(folder, tmp_path_factory):
    """Trains a recipe in a new folder, or in one that is given."""

    def run(changes, out=None):
        out = out or tmp_path_factory.mktemp("run")
        request = experiment.Request(out, folder, "train", "the command", store=folder / "../store")
        assert experiment.run(experiment.of_recipe(small_recipe({**STILL, **changes})), request)
        return RunFolder(out)

    return run


@pytest.fixture(scope="module")
def first(train):
    return train({"train.seed": 1})


def kernels(run, targets=("WT", "TC")):
    network = run.network("main", targets)
    return {name: network.get_layer(name).get_weights()[0] for name in KERNELS}


@pytest.mark.slow
def test_a_network_starts_from_a_run_and_says_what_it_took(first, train, capsys):
    run = train({"train.init": str(first.path), "model.targets": (("WT", "TC"), ("ET",))})
    assert "network of WT+TC: 27 of 27 layers taken\n" in capsys.readouterr().out
    for name, kernel in kernels(first).items():
        np.testing.assert_array_equal(kernels(run)[name], kernel)
    records = run.provenance()["init"]
    assert records == run.initial()
    assert records["main-ET"]["other_shape"] == {"Output": "1x1x4x2, not 1x1x4x1"}
    np.testing.assert_array_equal(kernels(run, ("ET",))["Conv1"], kernels(first)["Conv1"])
    ours = records["main-WT+TC"]
    assert (ours["weights"], ours["network"]) == (str(first.path), "WT+TC")
    assert (len(ours["taken"]), ours["other_shape"], ours["new"]) == (27, {}, [])
    assert ours["trained_on"] == first.run["data"]
    assert ours["scored_cases_among_its_training"] == []


@pytest.mark.slow
def test_a_run_of_its_own_seed_has_other_weights_and_no_record(first, train):
    run = train({"train.seed": 2})
    assert "init" not in run.provenance()
    assert (kernels(run)["Conv1"] != kernels(first)["Conv1"]).any()


@pytest.mark.slow
def test_nothing_is_written_where_nothing_fits(first, train, tmp_path):
    changes = {"train.init": str(first.path), "model.options.filters": 8}
    with pytest.raises(ValueError, match=r"train.init: .*found no layer of residual_attention_u"):
        train(changes, tmp_path / "run")
    with pytest.raises(ValueError, match=r"train.init: nowhere: found no such weights"):
        train({"train.init": "nowhere"}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# With networks whose answers are known


def begin(source, chosen, folder, scored=("a",), targets=("WT",)):
    network = constant(0.5)
    start = initial.start(recipe.override(chosen, {"train.init": source}), targets, scored, folder)
    start(network)
    return network, json.loads((folder / "init.json").read_text())


def test_the_nearest_network_of_a_variant_is_taken(tmp_path):
    """By the same regions, otherwise by the number of those that it shares."""
    networks = {("WT",): constant(0.25), ("TC", "ET"): constant(0.5, 0.75)}
    run = write_run(tmp_path / "run", networks, SLICES, ("main", "other"))
    network, record = begin(f"{run.path}:other", SLICES, tmp_path)
    assert record["network"] == "WT"
    np.testing.assert_array_equal(network.get_layer("Convolution").get_weights()[1], [0.25])
    with pytest.raises(ValueError, match=r"Convolution \(1x1x4x2, not 1x1x4x1\)"):
        begin(str(run.path), SLICES, tmp_path, targets=("ET",))


def test_cases_that_the_weights_were_trained_on_are_named(tmp_path):
    facts = {"training": ["a", "b"], "data": "BraTS2021"}
    run = write_run(tmp_path / "run", constant(0.25), SLICES, facts=facts)
    words = "trained on cases called as 1 of the 2 that are scored here, such as b. If they are"
    with pytest.warns(UserWarning, match=words):
        _, record = begin(str(run.path), SLICES, tmp_path, scored=("b", "c"))
    assert record["scored_cases_among_its_training"] == ["b"]


def test_a_run_of_several_trainings_and_a_missing_network_are_refused(tmp_path):
    run = write_run(tmp_path / "run", next_voxel(), SLICES, facts={"parts": ["seed0", "seed1"]})
    for seed in (0, 1):
        write_run(tmp_path / f"run/seed{seed}", next_voxel(), SLICES)
    with pytest.raises(ValueError, match=r"a run of 2 trainings, expected one, such as .*seed0"):
        begin(str(run.path), SLICES, tmp_path)
    (tmp_path / "run/seed1/training/main-WT/model.keras").unlink()
    with pytest.raises(ValueError, match=r"seed1/training/main-WT/model.keras: found no file"):
        begin(str(run.path / "seed1"), SLICES, tmp_path)


@pytest.mark.slow
def test_the_page_on_training_does_what_it_says(tmp_path, monkeypatch, capsys):
    """Its command and its program, after the first commands of own_data.md, on smaller heads."""
    docs = Path(__file__).parents[2] / "docs"
    monkeypatch.chdir(tmp_path)
    shown = (docs / "own_data.md").read_text()
    chosen = json.loads(shown.partition("```json")[2].partition("```")[0])
    chosen["data"]["window"], chosen["data"]["options"]["spacing_mm"] = [48, 48, 24], [5.5] * 3
    chosen["model"]["options"]["filters"], chosen["train"]["epochs"] = 4, 2
    Path("recipe.json").write_text(json.dumps(chosen))
    page = (docs / "training.md").read_text()
    starts = ("keras-medseg phantom mydata", "keras-medseg train")
    lines = [line for line in shown.splitlines() if line.startswith(starts)]
    [initial_line] = re.findall("^```bash\n(.*)\n```", page, re.MULTILINE)
    for line in [*lines, initial_line]:
        words = shlex.split(line.replace("64 64 40", "48 48 31"))[1:]
        assert cli.main(words) == 0, capsys.readouterr().err
    [record] = RunFolder(Path("run3")).initial().values()
    assert (record["weights"], record["other_shape"], record["new"]) == ("run", {}, [])
    capsys.readouterr()
    exec(page.partition("```python")[2].partition("```")[0], {})
    heard = re.findall("heard: (.*)", capsys.readouterr().out)
    assert [line.split()[1] for line in heard[:2]] == ["1/2", "2/2"]
    assert {"report.html", "scores.csv"} < {*heard[2].split(", ")}
