"""What every paper's recipe must be; a paper is tested because its folder is there."""

import importlib
import os
import re
from pathlib import Path

import pytest

from keras_medseg import recipe, registry
from keras_medseg.reporting.tables import read_published
from keras_medseg.runs import papers, steps
from keras_medseg.tasks import task_of

FOLDER = Path(__file__).parents[2] / "experiments"
SLOW = [pytest.mark.slow]
SHARED = Path(os.environ.get("KERAS_MEDSEG_SHARED", FOLDER.parent.parent / "shared"))
EXPERIMENTS = {
    f"{paper}-{dataset}": experiment
    for paper in papers.names()
    for dataset, experiment in importlib.import_module(
        f"experiments.{paper}.recipe"
    ).EXPERIMENTS.items()
}


def _runs() -> dict[str, tuple[recipe.Recipe, int]]:
    """Every recipe that is run, once, with the channels of its cases."""
    runs = {}
    for name, experiment in EXPERIMENTS.items():
        for profile, chosen in experiment.profiles.items():
            for variant, changes in chosen.variants.items():
                run = recipe.override(recipe.override(experiment.recipe, chosen.changes), changes)
                if run not in [known for known, _ in runs.values()]:
                    runs[f"{name}-{profile}-{variant}"] = run, _channels(experiment)
    return runs


def _channels(experiment) -> int:
    channels = task_of(experiment.recipe).dataset.channels
    # Color images, or the gray ones of the knee.
    return len(channels) or (1 if experiment.phantom.layout == "knee" else 3)


def _compares(experiment) -> bool:
    return any(profile.endswith("-compare") for profile in experiment.profiles)


RUNS = _runs()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if "-quick-" in name and "compare" not in name else SLOW)
        for name in RUNS
    ],
)
def test_every_variant_of_every_profile_can_be_trained(name):
    steps.check_recipe(*RUNS[name])


@pytest.mark.parametrize("name", registry.list_models())
def test_a_card_names_the_papers_that_train_its_network(name):
    papers = {run.name for run, _ in RUNS.values() if run.model.name == name}
    assert set(registry.card(name).compared_in) == papers


@pytest.fixture(params=EXPERIMENTS)
def experiment(request):
    return EXPERIMENTS[request.param]


@pytest.fixture
def published(experiment):
    return read_published(FOLDER / experiment.recipe.name / "published.csv")


def test_the_paper_profile_is_the_papers_recipe(experiment):
    profile = experiment.profiles["paper"]
    assert profile.changes == {}
    assert next(iter(profile.variants.values())) == {}


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if _compares(EXPERIMENTS[name])])
def test_the_small_comparison_is_of_the_same_networks_as_the_large_one(name):
    profiles = EXPERIMENTS[name].profiles
    base = EXPERIMENTS[name].recipe
    large, small = (
        {
            variant: recipe.override(base, changes).model.name
            for variant, changes in profiles[profile].variants.items()
        }
        for profile in ("paper-compare", "quick-compare")
    )
    assert small == large


def test_comparisons_name_variants_of_their_profile(experiment):
    for profile in experiment.profiles.values():
        known = profile.variants.keys() | profile.ensembles.keys()
        assert {name for pair in profile.comparisons for name in pair} <= known


def test_ensembles_are_of_variants_of_their_profile(experiment):
    for profile in experiment.profiles.values():
        assert not profile.ensembles.keys() & profile.variants.keys()
        for members in profile.ensembles.values():
            assert {*members} <= profile.variants.keys()
            assert len(members) == len({*members}) > 1


def test_every_measured_row_names_a_variant(experiment):
    profiles = experiment.profiles.values()
    variants = {name for one in profiles for name in (*one.variants, *one.ensembles)}
    measured = {row.measured for table in experiment.tables for row in table.rows}
    assert measured - {None} <= variants


def test_tables_and_published_file_have_the_same_rows(experiment, published):
    """No row that is neither printed nor measured; no printed row or column is left out."""
    for table in experiment.tables:
        printed = published[published["table"] == table.id]
        ours_alone = all(row.measured for row in table.rows)
        assert len(printed) or ours_alone, f"{table.id} is not in published.csv"
        rows = {(row.label, row.variant): row.measured for row in table.rows}
        in_file = set(zip(printed["row"], printed["variant"]))
        assert in_file <= rows.keys()
        assert {row for row, measured in rows.items() if measured is None} <= in_file
        columns = {(column.region, column.metric) for column in table.columns}
        assert set(zip(printed["region"], printed["metric"])) <= columns


@pytest.mark.parametrize("paper", papers.names())
def test_only_what_no_run_measures_is_published_and_not_shown(paper):
    """Such as seconds per epoch on the authors' machine."""
    tables = [
        table
        for experiment in EXPERIMENTS.values()
        if experiment.recipe.name == paper
        for table in experiment.tables
    ]
    published = read_published(FOLDER / paper / "published.csv")
    hidden = published[~published["table"].isin([table.id for table in tables])]
    measured = {column.metric for table in tables for column in table.columns}
    assert measured.isdisjoint(hidden["metric"])


# So that none is lost unnoticed.
ORDERS = {"csam_knee": 10, "dcabes2020": 3, "fmnet2023": 13, "iacnn": 8, "mtds2021": 43}
THREE_YEARS = ("BraTS2018", "BraTS2019", "BraTS2020")
ON_THE_PAPERS_DATA = {
    # Table II minus 3 points.
    "dcabes2020": {
        ("BraTS2017", "WT"): 0.8759,
        ("BraTS2017", "TC"): 0.8364,
        ("BraTS2017", "ET"): 0.745,
    },
    # "the Dice score of whole tumors reached 0.86-0.90" (3.7).
    "mtds2021": {("BraTS2020", "WT"): 0.86, (THREE_YEARS, "WT"): 0.86},
}


def test_no_order_and_no_expectation_is_lost(experiment):
    paper = experiment.recipe.name
    if paper not in ORDERS:
        pytest.skip("counted once its table stands: a new paper touches its own files only")
    assert len(experiment.orders) == ORDERS[paper]
    real = [entry for entry in experiment.expected if entry.data != "phantom"]
    found = {(entry.data, entry.region): entry.minimum for entry in real}
    assert found == ON_THE_PAPERS_DATA.get(paper, {})
    assert all(entry.maximum is None and entry.profile == "paper" for entry in real)


def test_every_expectation_speaks_of_a_score_that_its_run_has(experiment):
    metrics = {column.metric for table in experiment.tables for column in table.columns}
    assert experiment.expected
    for entry in experiment.expected:
        profile = experiment.profiles[entry.profile]
        run = recipe.override(experiment.recipe, profile.changes)
        run = recipe.override(run, profile.variants[entry.variant])
        assert entry.region in {name for names in run.model.targets for name in names}
        assert entry.metric in metrics
        together = (entry.data,) if isinstance(entry.data, str) else entry.data
        assert {"phantom", experiment.reference.data} & set(together)
        assert list(together) == sorted(together)
        assert entry.maximum is None or entry.minimum < entry.maximum


def _trained_regions(experiment, changes) -> set[str]:
    targets = recipe.override(experiment.recipe, changes).model.targets
    return {name for names in targets for name in names}


def test_every_order_is_between_variants_that_one_profile_trains(experiment):
    metrics = {column.metric for table in experiment.tables for column in table.columns}
    assert len(set(experiment.orders)) == len(experiment.orders)
    for order in experiment.orders:
        profiles = [
            profile.variants
            for profile in experiment.profiles.values()
            if {order.better, order.worse} <= profile.variants.keys()
        ]
        assert profiles, order
        assert order.metric in metrics
        for variants in profiles[:1]:
            shared = _trained_regions(experiment, variants[order.better])
            shared &= _trained_regions(experiment, variants[order.worse])
            assert shared if order.region is None else order.region in shared


def test_every_order_quotes_the_paper(experiment):
    """Line breaks, spaces and a translation at the end, in parentheses, aside."""
    texts = ["".join(path.read_text().split()) for path in SHARED.glob("papers/*.txt")]
    if not texts:
        pytest.skip("the papers' texts are not part of the repository")
    printed = {re.sub(r" \([^()]*\)$", "", order.says) for order in experiment.orders}
    quotes = {"".join(text.split()) for text in printed}
    missing = [{quote for quote in quotes if quote not in text} for text in texts]
    assert min(missing, key=len) == set()
