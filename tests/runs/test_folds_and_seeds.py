"""Runs of several trainings: their folders, what is gathered from them, resume after SIGKILL."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments import __main__ as experiments_cli
from keras_medseg import cli, recipe
from keras_medseg.data.cases import Case
from keras_medseg.data.datasets.base import Listing
from keras_medseg.errors import DataError
from keras_medseg.files import write_atomic
from keras_medseg.phantoms.brats import write_brats
from keras_medseg.runs import experiment, repetitions, report, steering, steps
from keras_medseg.runs.run_folder import RunFolder, Variant
from keras_medseg.tasks import task_of

from ..recipes import small_recipe

ROOT = Path(__file__).parents[2]
RECIPE = small_recipe({"model.targets": (("WT",),), "data.folds": 2})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantom")
    write_brats(path, cases=4, layout="BraTS2020", shape=(60, 60, 39))
    return path


def untrained(chosen, targets, training, validation, folder, *, channels, wrap=None, **_):
    """In place of `fit`: the initial network of the seed, and a log of one epoch."""
    if folder.exists():
        return
    network, _ = steps.fit.compile_network(chosen, targets, channels=channels, wrap=wrap)
    folder.mkdir(parents=True)
    network.save(folder / "model.keras")
    row = {"epoch": [1], "val_loss": [0.5], "val_dice_WT": [0.4], "loss": [1.0], "seconds": [2.0]}
    write_atomic(folder / "log.csv", pd.DataFrame(row).to_csv(index=False).encode())
    trained.append(folder)


trained: list[Path] = []


def ask(folder, out, chosen=RECIPE, **more):
    request = experiment.Request(out, folder, "train", "c", store=folder.parent / "store", **more)
    trained.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps.fit, "fit", untrained)
        experiment.run(experiment.of_recipe(chosen), request)
    return [path.parents[1].name for path in trained]


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """Fold 1 alone, then all."""
    out = tmp_path_factory.mktemp("run")
    first = ask(folder, out, seeds=2, fold="1")
    page = (out / "report.html").read_text()
    return RunFolder(out), first, page, ask(folder, out, seeds=2)


@pytest.mark.slow
def test_one_fold_is_trained_alone_and_not_again(finished):
    run, first, page, rest = finished
    assert first == ["fold1-seed0", "fold1-seed1"]
    assert rest == ["fold0-seed0", "fold0-seed1"]
    assert [part.path.name for part in run.parts] == rest + first
    assert "Folds that are not trained yet, whose cases are not scored: 0." in page
    assert "1 folds" not in page
    assert "not trained yet" not in run.report_file.read_text()


@pytest.mark.slow
def test_every_seed_scores_every_case_once_and_out_of_fold(finished):
    run, *_ = finished
    scores = run.scores()
    cases = {case for part in run.parts for case in part.run["training"]}
    assert len(cases) == 4
    assert not scores.duplicated(["case", "seed"]).any()
    assert {*zip(scores["seed"], scores["case"])} == {(s, c) for s in (0, 1) for c in cases}
    for part in run.parts:
        assert not {*part.run["training"]} & {*part.scores()["case"]}
        assert {*part.run["validation"]} == {*part.scores()["case"]}
    assert scores["fold"].tolist() == [0] * 4 + [1] * 4
    for fold in (0, 1):
        first, second = (RunFolder(run.path / f"fold{fold}-seed{seed}") for seed in (0, 1))
        assert first.run["training"] == second.run["training"]
        assert first.recipe == run.recipe
        changed = recipe.differences(second.recipe, run.recipe)
        assert changed == {"train.seed": (1, 0), "data.split_seed": (0, None)}
    weights = [
        RunFolder(run.path / f"fold0-seed{seed}").network("main", ("WT",)).get_weights()[0]
        for seed in (0, 1)
    ]
    assert not np.array_equal(*weights)


@pytest.mark.slow
def test_the_table_is_over_all_seeds_and_cases(finished):
    run, *_ = finished
    scores, table = run.scores(), pd.read_csv(run.path / "table.csv")
    [row] = table[table["metric"] == "dice"].to_dict("records")
    assert (row["n"], row["seeds"]) == (4, 2)
    assert row["measured"] == pytest.approx(100 * scores["dice"].mean())
    of_seeds = scores.groupby("seed")["dice"].mean()
    assert row["seed_std"] == pytest.approx(100 * of_seeds.std(ddof=1))
    page, markdown = run.report_file.read_text(), (run.path / "table.md").read_text()
    assert "2 folds, the first with 2 training cases; scored on 4 validation cases" in page
    assert f"2 seeds ± {row['seed_std']:.2f}" in page
    assert f"2 seeds ± {row['seed_std']:.2f})" in markdown
    assert "with the seeds 0, 1." in page
    provenance = run.provenance()
    assert (provenance["folds"], provenance["seeds"]) == (2, [0, 1])
    names = [command["training"] for command in provenance["commands"]]
    # The second command finds fold 1 finished, and says so in its folder.
    assert names == ["fold0-seed0", "fold0-seed1", *["fold1-seed0"] * 2, *["fold1-seed1"] * 2]
    assert provenance["training_seconds"] == 8.0
    assert len(pd.read_csv(run.path / "log.csv")) == 4


@pytest.mark.slow
def test_the_report_is_made_again(finished):
    run, *_ = finished
    names = ("table.csv", "scores.csv", "log.csv")
    before = {name: (run.path / name).read_bytes() for name in names}
    for name in names:
        (run.path / name).unlink()
    assert experiment.remake_report(run.path) == run.report_file
    assert {name: (run.path / name).read_bytes() for name in names} == before


@pytest.mark.slow
def test_the_splits_are_a_file_that_makes_the_same_splits(finished, folder, tmp_path):
    run, *_ = finished
    file = run.splits_file
    whole = json.loads(file.read_text())
    assert [set(fold) for fold in whole] == [{"train", "val"}] * 2
    for part, fold in zip(run.parts, (0, 0, 1, 1)):
        assert json.loads(part.splits_file.read_text()) == [whole[fold]]
        assert whole[fold]["val"] == part.run["validation"]
    single = recipe.override(RECIPE, {"data.folds": 0, "train.seed": 9})
    store = folder.parent / "store"
    found = steps.load_cohorts(folder, store, task_of(single), file)
    assert [list(cohort.validation) for cohort in found] == [fold["val"] for fold in whole]
    # A recipe with a test side scores the fold as well, and steers by other cases.
    tested = recipe.override(single, {"data.test": 0.2, "data.validation": 0.25})
    for cohort, fold in zip(steps.load_cohorts(folder, store, task_of(tested), file), whole):
        assert {*cohort.test} == {*fold["val"]}
        assert {*cohort.training, *cohort.validation} == {*fold["train"]}
        assert len(cohort.validation) == 1
    elsewhere = shutil.copy(file, tmp_path / "mine.json")
    elsewhere.write_text(file.read_text().replace(whole[0]["val"][0], "someone"))
    with pytest.raises(DataError, match=r"mine.json: found 1 case that only the split"):
        steps.load_cohorts(folder, store, task_of(single), elsewhere)


@pytest.mark.slow
def test_folders_of_other_runs_are_refused_and_seeds_may_be_added(finished, folder, tmp_path):
    run, *_ = finished
    other = json.loads(run.splits_file.read_text())[::-1]
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match=r"found a run with (splits|training) = "):
        ask(folder, run.path, seeds=2, splits=tmp_path / "other.json")
    facts = {name: run.run[name] for name in ("splits", "fingerprint")}
    for parts in ({}, {"parts": run.run["parts"][:2]}):
        with pytest.raises(DataError, match=r"found a run of \d+ trainings \(fold0-seed0, "):
            run.create(run.recipe, run.variants, facts | parts)
    more = RunFolder(shutil.copytree(run.path, tmp_path / "more"))
    names = [f"fold{fold}-seed{seed}" for fold in (0, 1) for seed in range(3)]
    more.create(run.recipe, run.variants, facts | {"parts": names})
    with pytest.raises(DataError, match="found 4 of 6 trainings finished, expected one fold with"):
        repetitions.finished(more, None, None)


@pytest.mark.parametrize(
    ("finished", "missing"),
    [
        (
            {"fold0-seed1", *(f"fold1-seed{seed}" for seed in range(7))},
            "fold0-seed0, fold0-seed2, fold0-seed3, fold0-seed4, fold0-seed5, fold0-seed6, "
            "fold0-seed7, fold1-seed7.",
        ),
        (
            {"fold0-seed1"},
            "fold0-seed0, fold0-seed2, fold0-seed3, fold0-seed4, fold0-seed5, fold0-seed6, "
            "fold0-seed7, fold1-seed0, fold1-seed1, fold1-seed2, fold1-seed3, fold1-seed4 and 3 "
            "more.",
        ),
    ],
)
def test_the_trainings_that_a_report_needs_are_named(tmp_path, finished, missing):
    """Of two folds with eight seeds; one training scored but one of its two cases."""
    run, variants = RunFolder(tmp_path / "run"), {"main": Variant(RECIPE, "main", {})}
    names = [f"fold{fold}-seed{seed}" for fold in (0, 1) for seed in range(8)]
    run.create(RECIPE, variants, {"parts": names})
    for name in (*finished, "fold0-seed0"):
        part = RunFolder(run.path / name)
        part.create(RECIPE, variants, {"validation": ["a", "b"]})
        cases = ["a", "b"] if name in finished else ["a"]
        part.write_scores(pd.DataFrame({"variant": "main", "case": cases, "region": "WT"}))
    with pytest.raises(DataError) as refused:
        repetitions.finished(run, None, None)
    assert refused.value.found == f"{len(finished)} of 16 trainings finished"
    assert str(refused.value).endswith(f"to its end; it does what is missing: {missing}")


@pytest.mark.parametrize(
    ("splits", "more", "words"),
    [
        (None, {"fold": "2"}, "--fold: found '2', expected all or one of: 0, 1"),
        ([{"train": ["a"], "val": ["b"]}], {}, "2 cases that only the split has"),
        ([{"train": ["a"]}], {}, "expected splits as nnU-Net writes them"),
    ],
)
def test_wrong_folds_and_splits_are_refused_before_a_case_is_decoded(
    folder, tmp_path, splits, more, words
):
    if splits:
        (tmp_path / "s.json").write_text(json.dumps(splits))
        more = {"splits": tmp_path / "s.json"}
    request = experiment.Request(
        tmp_path / "out", folder, "train", "c", store=tmp_path / "store", **more
    )
    with pytest.raises(ValueError, match=words):
        experiment.run(experiment.of_recipe(RECIPE), request)
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "out").exists()


def plan(folds=1, seeds=1, first=0):
    cohorts = [SimpleNamespace(training=(), validation=(n,), test=()) for n in range(folds)]
    return repetitions.plan(cohorts, first, seeds, 5)


def test_the_papers_own_recipe_is_trained_three_times_unless_asked_otherwise(folder, monkeypatch):
    asked = []

    def stop(cohorts, first, seeds, split_seed):
        asked.append(seeds)
        raise KeyboardInterrupt

    monkeypatch.setattr(repetitions, "plan", stop)
    profile = experiment.Profile({}, {"main": {}})
    names = ("paper", "paper-compare", "paper-heads", "quick")
    paper = experiment.Experiment(RECIPE, dict.fromkeys(names, profile))
    for seeds in (None, 1):
        for name in names:
            request = experiment.Request(
                folder / "out", folder, name, "c", store=folder.parent / "store", seeds=seeds
            )
            with pytest.raises(KeyboardInterrupt):
                experiment.run(paper, request)
    assert asked == [3, 3, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--seeds", "3", "--fold", "1", "--splits", "mine.json"], (3, "1", Path("mine.json"))),
        ([], (None, "all", None)),
    ],
)
def test_both_command_lines_have_the_options(words, expected, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(experiment, "run", lambda _, request: asked.append(request) or True)
    (tmp_path / "recipe.json").write_text(recipe.to_json(RECIPE))
    where = ["data", "--recipe", str(tmp_path / "recipe.json"), "--out", "out"]
    assert cli.main(["train", *where, *words]) == 0
    assert experiments_cli.main(["dcabes2020", *words]) == 0
    assert [(request.seeds, request.fold, request.splits) for request in asked] == [expected] * 2


def test_the_names_of_trainings():
    assert [part.name for part in plan()] == [""]
    assert [part.name for part in plan(seeds=2, first=7)] == ["seed7", "seed8"]
    assert [part.name for part in plan(folds=2)] == ["fold0", "fold1"]
    assert [part.name for part in plan(2, 2)][1:3] == ["fold0-seed1", "fold1-seed0"]
    assert [part.facts for part in plan(2)] == [{"seed": 0, "fold": 0}, {"seed": 0, "fold": 1}]
    assert [dict(part.changes) for part in plan(seeds=2, first=7)] == [
        {}, {"train.seed": 8, "data.split_seed": 5}
    ]  # fmt: skip


def test_trainings_that_do_not_exist():
    assert repetitions.of_fold(plan(2, 2), "1") == plan(2, 2)[2:]
    with pytest.raises(ValueError, match=r"--fold: found '2', expected all or one of: 0, 1"):
        repetitions.of_fold(plan(2), "2")
    with pytest.raises(ValueError, match=r"--fold: found '0', expected .* --set data.folds=5"):
        repetitions.of_fold(plan(seeds=2), "0")
    with pytest.raises(ValueError, match="--seeds: found 0, expected 1 or more"):
        plan(seeds=0)


def test_folds_of_data_with_a_split_of_their_own():
    cases = [Case(name, "toy", (), None, name) for name in "abcd"]
    listing = Listing(cases, dict(zip("abcd", ["training", "training", "validation", "test"])))
    task = task_of(recipe.override(RECIPE, {"data.folds": 0}))
    [split] = task.splits(listing, cases)
    assert [len(side) for side in split] == [2, 1, 1]
    with pytest.raises(ValueError, match=r"data.folds: found 2, but the data set has its own"):
        task_of(RECIPE).splits(listing, cases)


def test_the_seed_of_the_split_is_that_of_the_recipe_unless_given():
    listing = Listing([Case(f"{n}", "toy", (), None, f"{n}") for n in range(20)], {})
    single = recipe.override(RECIPE, {"data.folds": 0})

    def split(**changes):
        changes = {name.replace("_", ".", 1): value for name, value in changes.items()}
        return task_of(recipe.override(single, changes)).splits(listing, listing.cases)

    assert split(train_seed=4) != split()
    assert split(train_seed=4, data_split_seed=0) == split()
    with pytest.raises(ValueError, match=r"data.split_seed: found -1, expected 0 or more"):
        split(data_split_seed=-1)
    with pytest.raises(ValueError, match=r"data\.folds: found 1, expected 0, or 2 or more"):
        split(data_folds=1)


def test_scores_of_no_case_name_their_fold():
    runs = [SimpleNamespace(run={"fold": n, "seed": 3}) for n in range(2)]
    cohorts = [SimpleNamespace(scored=(case,)) for case in "ab"]
    tables = [
        pd.DataFrame({"variant": "v", "case": [case, "log"], "x": [1.0, 2.0]}) for case in "ab"
    ]
    found = repetitions._together(runs, cohorts, tables)
    assert found["case"].tolist() == ["a", "log, fold 0", "b", "log, fold 1"]
    assert list(found) == ["variant", "case", "fold", "x"]


def log(val_loss, dice):
    epochs = range(1, len(dice) + 1)
    return pd.DataFrame({"epoch": epochs, "val_loss": val_loss, "val_dice_WT": dice})


def test_what_the_choice_of_the_epoch_gained_by_hand():
    # Kept: epoch 3. 0.8 against (0.5 + 0.6 + 0.6 + 0.5) / 4 = 0.55.
    assert steering.gain(log([5, 4, 1, 4, 5], [0.5, 0.6, 0.8, 0.6, 0.5])) == pytest.approx(0.25)
    # On a straight line nothing.
    line = np.arange(7) / 10
    assert steering.gain(log([9, 9, 9, 1, 9, 9, 9], line)) == pytest.approx(0)
    # Epoch 2 has one epoch before it, so one on each side.
    assert steering.gain(log([2, 1, 2, 2], [0.1, 0.4, 0.3, 0.9])) == pytest.approx(0.2)
    for losses in ([3, 2, 1], [1, 2, 3]):
        assert np.isnan(steering.gain(log(losses, [0.1, 0.2, 0.6])))


def steered_by(changes, side="validation", logs=(None,)):
    chosen = recipe.override(RECIPE, changes)
    variant = SimpleNamespace(recipe=chosen, trained_as="main")
    part = SimpleNamespace(variants={"main": variant}, log=lambda *_: logs[0])
    return steering.notes(SimpleNamespace(cohort=SimpleNamespace(scored_side=side), parts=[part]))


def test_the_report_says_when_one_set_of_cases_is_for_both():
    best = {"train.keep": "best"}
    watched = {"train.schedule": "plateau", "train.schedule_options": {"monitor": "val_loss"}}
    assert steered_by({}) == []
    assert steered_by(best, side="test") == []
    assert steered_by(watched | {"train.schedule_options.monitor": "loss"}) == []
    [note] = steered_by(watched)
    assert "also lowered the learning rate, so" in note
    assert "neither the weights nor the number of epochs" in note
    [note] = steered_by(watched | best, logs=[log([2, 1, 2], [0.5, 0.75, 0.6])])
    assert "also lowered the learning rate and chose the epoch that is kept, so" in note
    assert "+20.00 points from the mean" in note
    [note] = steered_by(best, logs=[log([1], [0.5])])
    assert "the logs cannot show" in note


SETTINGS = (
    "data.window=(48,48,24)", "data.slice_step=6", "model.targets=(('WT',),)", "train.epochs=3",
    "data.folds=2",
)  # fmt: skip


def command(folder, out, store):
    path = out.parent / "recipe.json"
    path.write_text(recipe.to_json(RECIPE))
    settings = [part for field in SETTINGS for part in ("--set", field)]
    where = ["--recipe", str(path), "--out", str(out), "--store", str(store)]
    return ["train", str(folder), *where, *settings, "--seeds", "2"]


@pytest.mark.slow
def test_a_run_killed_in_its_last_training_ends_with_the_same_bits(folder, tmp_path):
    """SIGKILL in the middle of fold 1, seed 1; the other three trainings are not repeated."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert cli.main(command(folder, whole, tmp_path / "store")) == 0
    line = [sys.executable, "-m", "keras_medseg.cli", *command(folder, killed, tmp_path / "store")]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL)
    last = killed / "fold1-seed1" / "training" / "main-WT"
    while not list(last.glob("checkpoint/*.sha256")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (last / "model.keras").exists()
    assert not (killed / "report.html").exists()
    again = subprocess.run(line, cwd=ROOT, text=True, capture_output=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "epoch 1/3" not in again.stdout
    assert "epoch 3/3" in again.stdout
    ours, theirs = RunFolder(whole), RunFolder(killed)
    for one, other in zip(ours.parts, theirs.parts, strict=True):
        weights = [part.network("main", ("WT",)).get_weights() for part in (one, other)]
        assert all(a.tobytes() == b.tobytes() for a, b in zip(*weights, strict=True))
    for name in ("scores.csv", "table.csv"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()


@pytest.mark.slow
def test_the_first_seed_has_the_bits_of_a_single_training(folder, tmp_path):
    chosen = recipe.override(RECIPE, {"data.folds": 0})
    for name, seeds in (("one", 1), ("two", 2)):
        request = experiment.Request(
            tmp_path / name, folder, "train", "c", store=tmp_path / "store", seeds=seeds
        )
        experiment.run(experiment.of_recipe(chosen), request)
    one, first, second = (
        RunFolder(tmp_path / name).network("main", ("WT",)).get_weights()
        for name in ("one", "two/seed0", "two/seed1")
    )
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one, first, strict=True))
    assert any(a.tobytes() != b.tobytes() for a, b in zip(one, second, strict=True))
    both = RunFolder(tmp_path / "two").scores()
    alone = RunFolder(tmp_path / "one").scores()
    same = both[both["seed"] == 0].drop(columns="seed").reset_index(drop=True)
    pd.testing.assert_frame_equal(same, alone, check_exact=True)


@pytest.mark.slow
def test_a_run_folder_names_its_trainings_by_names_alone(finished, tmp_path):
    run, *_ = finished
    facts = json.loads((run.path / "run.json").read_text())
    for wrong in (["../fold0"], [""], "fold0", [1]):
        (tmp_path / "run.json").write_text(json.dumps(facts | {"parts": wrong}))
        with pytest.raises(DataError, match="found parts = "):
            RunFolder(tmp_path).run  # noqa: B018
    assert replace(run) == run
    assert report.open_store(run).cases
