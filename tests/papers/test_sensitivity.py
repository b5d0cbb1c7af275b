"""The open readings of every paper, and what their table says of scores made by hand."""

import importlib
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from experiments import sensitivity
from experiments.readings import Alternative, Readings
from keras_medseg import recipe
from keras_medseg.data import store
from keras_medseg.errors import DataError
from keras_medseg.runs import experiment, papers
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.tasks import task_of

FOLDER = Path(__file__).parents[2] / "experiments"
PAPERS = sorted(path.parent.name for path in FOLDER.glob("*/readings.py"))
PUBLISHED = [paper for paper in PAPERS if (FOLDER / paper / "results" / "sensitivity").is_dir()]
# Fields of varied entries in which the small runs differ from the recipe: the pages say so.
CHANGED = {
    "csam_knee": {"model.options.norm"},
    "dcabes2020": {"model.targets"},
    "fmnet2023": {"data.patch"},
    "iacnn": {"model.options.filters", "train.learning_rate", "train.epochs"},
    "mtds2021": set(),
}


def readings_of(paper):
    return importlib.import_module(f"experiments.{paper}.readings").OPEN_READINGS


def small_recipe(paper):
    return recipe.override(papers.find(paper).recipe, readings_of(paper).small)


def ledger(paper):
    entries = tomllib.loads((FOLDER / paper / "ledger.toml").read_text())["entry"]
    return {entry["id"]: entry for entry in entries if entry["status"] == "chosen"}


def test_the_five_papers_have_readings():
    assert {*CHANGED} == {*PAPERS}


@pytest.mark.parametrize("paper", PAPERS)
def test_every_chosen_entry_is_varied_or_said_why_not(paper):
    readings = readings_of(paper)
    varied = {name for one in readings.alternatives.values() for name in one.entries}
    assert varied.isdisjoint(readings.not_varied)
    assert varied | readings.not_varied.keys() == ledger(paper).keys()


@pytest.mark.parametrize("paper", PAPERS)
def test_every_alternative_is_a_valid_recipe_of_its_own(paper):
    """Their networks are built by test_every_variant_of_every_profile_can_be_trained."""
    readings, base = readings_of(paper), small_recipe(paper)
    assert papers.find(paper).profiles["sensitivity"] == readings.profile
    changed = [recipe.override(base, one.changes) for one in readings.alternatives.values()]
    decoded = store.reader_name(task_of(base).reader)
    different = {recipe.to_json(one) for one in [base, *changed]}
    assert len(different) == 1 + len(changed)
    for one in changed:
        assert store.reader_name(task_of(one).reader) == decoded
        assert one.data.validation == base.data.validation
        assert readings.region in {name for names in one.model.targets for name in names}


@pytest.mark.parametrize("paper", PAPERS)
def test_small_runs_keep_the_recipes_reading_of_what_they_vary(paper):
    entries, readings = ledger(paper), readings_of(paper)
    varied = {name for one in readings.alternatives.values() for name in one.entries}
    fields = {field for name in varied for field in entries[name].get("fields", {})}
    small = recipe.differences(papers.find(paper).recipe, small_recipe(paper))
    assert fields & small.keys() == CHANGED[paper]


def example(**dice):
    """Scores of three cases, by variant and seed: one Dice for all cases, or one for each."""
    rows = [
        {"variant": name, "case": case, "seed": seed, "region": "WT", "dice": value}
        for name, seeds in dice.items()
        for seed, values in enumerate(seeds)
        for case, value in zip("abc", values if isinstance(values, list) else [values] * 3)
    ]
    other = [{**row, "region": "ET", "dice": 0.0} for row in rows]
    return pd.DataFrame(rows + other)


DICE = {
    "own": (0.5, 0.5, 0.5),
    "worse": (0.4, 0.4, 0.4),
    "same": (0.5, 0.5, 0.5),
    "hint": (0.51, 0.52, 0.59),
    "noise": (0.6, 0.4, [0.4, 0.5, 0.6]),
}
READINGS = Readings(
    own="own",
    region="WT",
    cases=3,
    size=None,
    small={},
    why_small="Three cases.",
    alternatives={name: Alternative(("an-entry",), "ours", "theirs", {}) for name in [*DICE][1:]},
    not_varied={"another": "no switch"},
)


def test_differences_by_hand():
    table = sensitivity.differences(READINGS, example(**DICE)).set_index("variant")
    assert [*table.index] == ["hint", "same", "noise", "worse"]
    assert table["difference"].round(9).to_dict() == {
        "hint": 4,
        "same": 0,
        "noise": 0,
        "worse": -10,
    }
    assert table["dice_other"].round(9).to_dict() == {
        "hint": 54,
        "same": 50,
        "noise": 50,
        "worse": 40,
    }
    assert table["dice_ours"].round(9).eq(50).all()
    # Standard deviation of 51, 52, 59: sqrt((9 + 4 + 25) / 2); of 60, 40, 50: 10.
    assert table["spread_other"].round(3).to_dict() == {
        "hint": 4.359,
        "same": 0,
        "noise": 10,
        "worse": 0,
    }
    # Every case and seed loses 10; the seeds alone decide the hint's interval: 1 to 9.
    assert table.loc["worse", ["low", "high"]].round(9).tolist() == [-10, -10]
    assert table.loc["hint", ["low", "high"]].round(9).tolist() == [1, 9]
    # Student's t with 2 degrees of freedom has p = 1 - t / sqrt(2 + t^2); one test has a smaller p.
    t = 4 / (19 / 3) ** 0.5
    p = 1 - t / (2 + t**2) ** 0.5
    assert table.loc["hint", "p"] == pytest.approx(p)
    assert table.loc["hint", "p_holm"] == pytest.approx(3 * p)
    assert table["verdict"].to_dict() == {
        "hint": "undecided",
        "same": "the same scores",
        "noise": "no difference seen",
        "worse": "moves the result by -10.0",
    }


def test_an_alternative_that_found_nothing_in_any_case_and_seed_is_called_so():
    """Case c has nothing to find: an empty map is right there."""
    dice = {**DICE, "noise": ([0, 0, 1], [0, 0, 1], [0, 0, 1]), "worse": (0, 0, [0, 0.01, 1])}
    verdicts = sensitivity.differences(READINGS, example(**dice)).set_index("variant")["verdict"]
    assert verdicts["noise"] == "found nothing in so few steps"
    assert verdicts["worse"] == "undecided"


def test_what_is_found_wholly_is_not_called_nothing():
    dice = {**DICE, "noise": (1, 1, 1)}
    table = sensitivity.differences(READINGS, example(**dice)).set_index("variant")
    assert table.loc["noise", "verdict"] != "found nothing in so few steps"
    every = {name: [0, 0, 0] for name in DICE} | {READINGS.own: DICE[READINGS.own]}
    table = sensitivity.differences(READINGS, example(**every))
    assert table["found_nothing"].all()
    assert "nan" not in sensitivity._legend(READINGS, table)


def test_a_variant_without_scores_is_named():
    scores = example(**DICE)
    with pytest.raises(ValueError, match="noise"):
        sensitivity.differences(READINGS, scores[scores["variant"] != "noise"])


def test_a_page_is_made_of_what_is_kept_of_a_run(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write_scores(example(**DICE).assign(group=lambda rows: rows["case"]))
    (run.path / "recipe.json").write_text(recipe.to_json(small_recipe("mtds2021")))
    facts = {
        "training_cases": 7,
        "validation_cases": ["x", "y"],
        "test_cases": ["a", "b", "c"],
        "commands": [{"command": "python -m experiments.sensitivity mtds2021 --out run"}],
    }
    (run.path / "provenance.json").write_text(json.dumps(facts))
    folder = tmp_path / "kept"
    sensitivity.keep(run, READINGS, folder)
    kept = sensitivity.read_kept(folder)
    assert kept.cases == (7, 2, 3)
    assert set(kept.scores["region"]) == {"WT"}
    sensitivity.write_page("mtds2021", READINGS, folder)
    page = (folder / "README.md").read_text()
    assert "| [`an-entry`](../../ledger.toml): hint | ours | theirs | 54.0 ± 4.4 | +4.0 (" in page
    assert "The recipe's readings have a Dice of 50.0 ± 0.0 %." in " ".join(page.split())
    assert "| `train.batch_size` | 32 | 4 |" in page
    assert "| [`another`](../../ledger.toml) | no switch |" in page
    assert (folder / "sensitivity.png").stat().st_size > 5000
    table = pd.read_csv(folder / "sensitivity.csv")
    assert table["difference"].tolist() == [4, 0, 0, -10]


def test_a_run_of_other_readings_is_not_kept(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write_scores(example(own=(0.5, 0.5)))
    with pytest.raises(DataError, match="found the variants own, expected hint, noise, own"):
        sensitivity.keep(run, READINGS, tmp_path / "kept")
    run.write_scores(example(**DICE).drop(columns="seed"))
    with pytest.raises(DataError, match="found one training of each network, expected several se"):
        sensitivity.keep(run, READINGS, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("paper", PUBLISHED)
def test_published_pages_are_those_of_their_scores(paper):
    folder, readings = FOLDER / paper / "results" / "sensitivity", readings_of(paper)
    kept = sensitivity.read_kept(folder)
    table = sensitivity.differences(readings, kept.scores)
    assert (folder / "README.md").read_text() == sensitivity.page(paper, readings, kept, table)


@pytest.mark.parametrize("paper", PUBLISHED)
def test_published_scores_are_of_the_readings_that_are_declared(paper):
    """All of them, three seeds each, by the command that the page names; files decide the rest."""
    kept = sensitivity.read_kept(FOLDER / paper / "results" / "sensitivity")
    assert {*kept.scores["variant"]} == {*readings_of(paper).profile.variants}
    assert (kept.scores.groupby("variant")["seed"].nunique() == sensitivity.SEEDS).all()
    assert kept.command.startswith(f"python -m experiments.sensitivity {paper} --out ")
    changed = recipe.differences(small_recipe(paper), kept.recipe)
    assert {
        name for name in changed if not name.startswith(("data.classes", "data.options"))
    } == set()


@pytest.mark.slow
def test_a_tiny_run_goes_from_readings_to_a_table(tmp_path, capsys):
    readings = readings_of("iacnn")
    one = {"ratio_4": readings.alternatives["ratio_4"]}
    readings = replace(readings, cases=32, alternatives=one)
    request = experiment.Request(
        out=tmp_path / "run",
        folder=None,
        profile="sensitivity",
        command="a test",
        work=tmp_path,
        changes={"data.size": (32, 32), "model.options.filters": 2, "train.epochs": 1},
        seeds=2,
    )
    sensitivity.train("iacnn", readings, request)
    assert ": ratio 4 | 16 | 4 |" in capsys.readouterr().out
    assert set(RunFolder(request.out).scores()["seed"]) == {0, 1}
