"""What only this paper needs."""

import colorsys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments.dcabes2020 import cost_claim, figures, rivals, scores
from experiments.dcabes2020.recipe import EXPERIMENT, RECIPE
from keras_medseg import recipe, registry
from keras_medseg.data.datasets import brats
from keras_medseg.optimizers import OPTIMIZERS
from keras_medseg.reporting.tables import build_table, read_published
from keras_medseg.runs import experiment
from keras_medseg.runs.steps import check_recipe
from keras_medseg.training.schedules import step_decay

FOLDER = Path(__file__).parents[2] / "experiments" / "dcabes2020"

# Typed anew from the paper, Tables II and III.
TABLE_II = {
    "EMMA": (90.10, 79.70, 73.80),
    "MC": (90.41, 78.48, 72.91),
    "OM-Net": (91.28, 82.50, 80.84),
    "CU-Net": (88.80, 83.10, 78.40),
    "Ours": (90.59, 86.64, 77.50),
}
TABLE_III = {
    "without edge network": (88.44, 86.30, 76.15),
    "with edge network": (90.59, 86.64, 78.17),
}


def test_published_tables_are_those_of_the_paper():
    published = read_published(FOLDER / "published.csv")
    for table, expected, key in (
        ("Table II", TABLE_II, "row"),
        ("Table III", TABLE_III, "variant"),
    ):
        cells = published[published["table"] == table]
        found = cells.pivot(index=key, columns="region", values="value")[["WT", "TC", "ET"]]
        assert {name: tuple(row) for name, row in found.T.items()} == expected


def test_the_gain_of_the_text_fits_table_iii():
    """Section III.B names gains of 2.15, 0.34 and 2.02 points."""
    published = read_published(FOLDER / "published.csv").query("table == 'Table III'")
    cells = published.pivot(index="variant", columns="region", values="value")[["WT", "TC", "ET"]]
    gains = cells.loc["with edge network"] - cells.loc["without edge network"]
    assert gains.tolist() == pytest.approx([2.15, 0.34, 2.02])


def test_the_variants_differ_in_the_edge_loss_alone():
    variants = EXPERIMENT.profiles["paper"].variants
    with_edge, without = (recipe.override(RECIPE, changes) for changes in variants.values())
    changed = recipe.differences(with_edge, without)
    assert changed["train.loss"] == ("cross_entropy_and_edge", "cross_entropy")
    assert all(field.startswith("train.loss") for field in changed)


def test_the_tables_are_those_of_285_cases_of_brats_2017():
    """210 high-grade and 75 low-grade cases."""
    assert EXPERIMENT.reference.data == EXPERIMENT.phantom.layout == "BraTS2017"
    assert EXPERIMENT.reference.cases == 210 + 75


@pytest.mark.parametrize(
    "changes",
    [
        {"model.options.residual_block": "bottleneck", "model.options.shortcut_norm": True},
        {"train.loss": "cross_entropy_and_learned_edge", "train.loss_options": {}},
        {"train.schedule_options.monitor": "val_accuracy", "train.schedule_options.patience": 10},
    ],
)
def test_the_other_readings_of_the_readme_can_be_run(changes):
    small = {"data.window": (32, 32, 4), "model.options.filters": 4}
    check_recipe(recipe.override(RECIPE, small | changes), channels=4)


COMPARED = ["unet", "attention_unet", "resunet", "mc", "omnet", "cunet", "emma"]


def _recipes(profile):
    chosen = EXPERIMENT.profiles[profile]
    base = recipe.override(RECIPE, chosen.changes)
    return base, experiment._recipes(chosen, base)


@pytest.mark.parametrize("profile", ["paper-compare", "quick-compare"])
def test_compared_networks_differ_in_the_network_alone(profile):
    base, recipes = _recipes(profile)
    pairs = EXPERIMENT.profiles[profile].comparisons
    assert pairs == tuple((name, "with_edge_loss") for name in COMPARED)
    allowed = {"model.targets"} if profile == "quick-compare" else set()
    for name in ("with_edge_loss", "unet", "attention_unet", "resunet"):
        changed = recipe.differences(recipes[name], base)
        assert all(field.startswith("model.") for field in changed), name
        assert not {"model.targets"} & changed.keys() - allowed
    if profile == "paper-compare":
        assert base == RECIPE


@pytest.mark.parametrize("profile", ["paper-compare", "quick-compare"])
def test_under_one_recipe_the_network_alone_differs(profile):
    _, recipes = _recipes(profile)
    same = {name: chosen for name, chosen in recipes.items() if name.endswith("_same")}
    assert len(same) == 9
    reference = same["mc_same"]
    for name, chosen in same.items():
        changed = {*recipe.differences(chosen, reference)}
        slices = {"data.slices"} if name in rivals.PLANAR else set()
        found = {field for field in changed if not field.startswith("model.")}
        assert found == slices
        assert chosen.model.targets == (("WT", "TC", "ET"),)


@pytest.mark.parametrize("profile", ["paper-compare", "quick-compare"])
def test_the_rows_of_table_ii_are_trained_by_their_own_recipes(profile):
    _, recipes = _recipes(profile)
    [table] = [table for table in EXPERIMENT.tables if table.id == "Table II"]
    rows = {row.label: row.measured for row in table.rows}
    assert rows == {
        "EMMA": "emma",
        "MC": "mc",
        "OM-Net": "omnet",
        "CU-Net": "cunet",
        "Ours": "with_edge_loss",
    }
    ensembles = EXPERIMENT.profiles[profile].ensembles
    networks = [recipes[name].model.name for name in ensembles["emma"]]
    kinds = {"deepmedic": 2, "dltk_resnetfcn": 3, "mc_fusionnet": 1, "dltk_resunet": 1}
    assert Counter(networks) == kinds
    for name in [*rows.values(), *rivals.IN_ONE_RECIPE.values()]:
        assert name in recipes or name in ensembles
    assert {*rivals.IN_ONE_RECIPE} == {*COMPARED, "with_edge_loss"} - {"omnet"}


def test_the_recipes_of_deepmedic_are_those_of_its_release():
    """modelConfig.cfg and trainConfig.cfg of v0.6, as facts/cascades.md has them."""
    _, recipes = _recipes("paper-compare")
    chosen = recipes["emma_deepmedic"]
    assert (chosen.data.segment, chosen.data.margin) == ((9, 9, 9), 24)
    assert chosen.data.centers == ({"rest": 0.5, "WT": 0.5},)
    assert chosen.data.flips == ("x",)
    assert chosen.data.tile == (29, 29, 29)  # 45 less 16
    train = chosen.train
    assert (train.epochs, train.batch_size, train.learning_rate) == (35, 10, 1e-3)
    assert chosen.data.segments_per_case == round(20 * 1000 / (285 - round(0.15 * 285)))
    rates = [step_decay(train, epoch) for epoch in range(35)]
    assert rates[:13] == [1e-3] * 12 + [5e-4]
    assert rates[-1] == pytest.approx(1e-3 / 2**8)
    options = OPTIMIZERS[train.optimizer](train.learning_rate, **train.optimizer_options).constants
    expected = {"rho": 0.9, "epsilon": 1e-4, "momentum": 0.6, "normalized": True}
    assert options == expected | {"l1": 1e-6, "l2": 1e-4}
    wide = recipes["emma_deepmedic_wide"]
    assert [size + 16 for size in wide.data.segment] == [34, 34, 34]
    doubled = tuple(2 * width for width in chosen.model.options["widths"])
    assert wide.model.options["widths"] == doubled
    # The subsampled pathway reads 22 voxels for 34: ceil(18 / 3) + 16.
    network = registry.build(
        "deepmedic", input_shape=(34, 34, 34, 4), form="segments", widths=doubled
    )
    assert [shape[1] for shape in network.input_shape] == [34, 22]


def test_the_recipes_of_mc_and_omnet_are_those_of_their_solver():
    """Halved every 80,000 of 400,000 iterations, which are epochs of 2,000 here."""
    _, recipes = _recipes("paper-compare")
    cases = 285 - round(0.15 * 285)
    for name, first in (("mc", 0), ("omnet", 40)):
        chosen = recipes[name]
        steps = cases * chosen.data.segments_per_case / chosen.train.batch_size
        assert steps == pytest.approx(2000, rel=0.01)
        rates = [step_decay(chosen.train, epoch) for epoch in range(chosen.train.epochs)]
        assert [epoch for epoch in range(1, len(rates)) if rates[epoch] < rates[epoch - 1]] == [
            first + 40 * number for number in (1, 2, 3, 4)
        ]
        assert len(rates) == first + 200
        options = OPTIMIZERS[chosen.train.optimizer](1e-3, **chosen.train.optimizer_options)
        assert (options.momentum, options.l2, options.bias_rate) == (0.99, 5e-4, 2.0)
        assert chosen.data.segment == (32, 32, 16)  # 16 x 32 x 32, depth first
    omnet = recipes["omnet"]
    assert omnet.data.transfer
    assert omnet.data.stages == (20, 40)
    assert [*map(list, omnet.data.centers[1:])] == [["WT"], ["TC"]]
    assert omnet.train.loss_options["classes"] == (5, 5, 2)
    assert omnet.model.options["attention"] == "cga"


def test_the_verdict_on_a_cost():
    assert cost_claim.judge(3, {"a": 4, "b": 5}) == (cost_claim.CONFIRMED, [])
    assert cost_claim.judge(3, {"a": 4, "b": 3, "c": 2}) == (cost_claim.REFUTED, ["c", "b"])
    table = pd.DataFrame(
        {"networks": 1, "parameters": [9.0, 1.0], "training_seconds": [2.0, 5.0]},
        index=["MC", "Ours"],
    )
    assert cost_claim.verdicts(table) == [
        "Fewer parameters: confirmed against MC.",
        "Shortest training: refuted by MC.",
    ]


def test_the_costs_of_a_recipe_by_hand():
    _, recipes = _recipes("paper-compare")
    found = cost_claim.costs(recipes["emma_deepmedic"])
    assert (found.networks, found.parameters) == (1, 1_053_012)
    assert cost_claim.labeled(recipes["emma_deepmedic"]) == 9**3
    assert cost_claim.labeled(recipes["with_edge_loss"]) == 176 * 176
    assert cost_claim.labeled(recipes["mc_same"]) == 64**3
    assert cost_claim.labeled(recipes["unet_same"]) == 64**2
    both = cost_claim.together([found, cost_claim.Cost(2, 10, 1.5)])
    assert (both.networks, both.parameters) == (3, 1_053_022)
    assert both.multiply_adds == pytest.approx(found.multiply_adds + 1.5)


def test_one_network_has_fewer_parameters_than_the_others_and_three_than_most():
    own = registry.build(RECIPE.model.name, **RECIPE.model.options).count_params()
    assert own == 570_265
    built = {
        name: registry.build(name, input_shape=(None, None, 4), classes=1).count_params()
        for name in ("unet", "attention_unet", "resunet")
    }
    assert built == {"unet": 34_541_313, "attention_unet": 34_894_773, "resunet": 8_228_033}
    # Counts of the authors' code, without moving statistics, which makes them smaller.
    deep_medic_2017, deep_medic_2018 = 1_053_012, 2_013_767
    omnet, mc, mc_row = 13_879_212, 41_470_380, 13_823_493
    others = [*built.values(), deep_medic_2018, omnet, mc, mc_row, 2 * deep_medic_2017]
    assert 3 * own == 1_710_795 < min(others)
    assert own < deep_medic_2017 < 3 * own


def test_the_four_panels_of_figure_3_have_its_parts_and_colors():
    labels = np.array([[brats.BACKGROUND, brats.EDEMA], [brats.NECROTIC, brats.ENHANCING]])
    panels = figures.parts(labels)
    assert [title[0] for title in panels] == ["A", "B", "C", "D"]
    found = [
        {name: mask.astype(int).tolist() for name, (_, mask) in part.items()}
        for part in panels.values()
    ]
    edema, core = {"edema": [[0, 1], [0, 0]]}, {"tumor core": [[0, 0], [1, 1]]}
    inner = {"necrosis": [[0, 0], [1, 0]], "enhancing focus": [[0, 0], [0, 1]]}
    assert found == [edema, core, inner, edema | inner]
    tones = {
        name: colorsys.rgb_to_hsv(*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)))
        for part in panels.values()
        for name, (color, _) in part.items()
    }
    hues = {name: 360 * hue for name, (hue, _, _) in tones.items()}
    assert hues["edema"] == pytest.approx(60, abs=10)  # yellow
    assert hues["tumor core"] == pytest.approx(0, abs=10)  # red
    assert 100 < hues["necrosis"] < 160  # green
    assert 100 < hues["enhancing focus"] < 160
    assert tones["necrosis"][2] < 0.5 < tones["enhancing focus"][2]  # dark green, green


def _cohort(grades):
    cases = {name: SimpleNamespace(grade=grade) for name, grade in grades.items()}
    return SimpleNamespace(store=SimpleNamespace(cases=cases))


def _run(tables):
    """A run of one variant with Dice 0.5 for a high-grade and 0.0 for a low-grade case."""
    named = {"variant": "with_edge_loss"}
    rows = [
        {**named, "case": case, "group": case, "region": region, "dice": dice}
        for case, dice in (("a", 0.5), ("b", 0.0))
        for region in ("WT", "ET")
    ]
    alone = [{**row, "dice_alone": row["dice"] + 0.25} for row in rows] if tables else []
    columns = ["variant", "case", "group", "region", "dice_alone"]
    further = pd.DataFrame(alone, columns=columns)
    return SimpleNamespace(scores=lambda: pd.DataFrame(rows), further_scores=lambda: further)


def test_high_grade_cases_alone_have_a_column():
    run = _run(tables=True)
    made = scores.further_scores(run, _cohort({"a": "HGG", "b": "LGG"}))
    [spec] = [table for table in EXPERIMENT.tables if table.id == "Other readings"]
    published = read_published(FOLDER / "published.csv")
    table = build_table(spec, published, run.scores(), made)
    own = table[(table["variant"] == "with edge network") & table["measured"].notna()]
    cells = {(row.region, row.metric): (row.measured, row.n) for row in own.itertuples()}
    assert cells == {
        ("WT", scores.ALONE): (50.0, 2),  # 0.75 and 0.25
        ("ET", scores.ALONE): (50.0, 2),
        ("ET", scores.HIGH_GRADE): (50.0, 1),
    }


def test_scores_under_one_recipe_stand_beside_those_under_their_own():
    rows = [
        {"variant": name, "case": "a", "group": "a", "region": "WT", "dice": dice}
        for name, dice in (("mc", 0.5), ("mc_same", 0.25), ("emma_same", 0.75), ("ours_same", 1.0))
    ]
    columns = ["variant", "case", "group", "region", "dice_alone"]
    run = SimpleNamespace(
        scores=lambda: pd.DataFrame(rows), further_scores=lambda: pd.DataFrame(columns=columns)
    )
    made = scores.further_scores(run, _cohort({"a": ""})).set_index("variant")
    assert made[scores.SAME_RECIPE].to_dict() == {"mc": 0.25, "emma": 0.75, "with_edge_loss": 1.0}
    [spec] = [table for table in EXPERIMENT.tables if table.id == "Table II"]
    table = build_table(spec, None, run.scores(), made.reset_index())
    cells = table[table["measured"].notna()].set_index(["row", "metric"])["measured"]
    assert cells.to_dict() == {
        ("MC", "dice"): 0.5,
        ("MC", scores.SAME_RECIPE): 25.0,
        ("EMMA", scores.SAME_RECIPE): 75.0,
        ("Ours", scores.SAME_RECIPE): 100.0,
    }


@pytest.mark.parametrize("tables", [True, False])
def test_where_no_grade_is_known_the_column_is_empty(tables):
    run = _run(tables)
    made = scores.further_scores(run, _cohort({"a": "", "b": ""}))
    assert made[scores.HIGH_GRADE].isna().all()
    [spec] = [table for table in EXPERIMENT.tables if table.id == "Other readings"]
    table = build_table(spec, read_published(FOLDER / "published.csv"), run.scores(), made)
    assert table.loc[table["metric"] == scores.HIGH_GRADE, "measured"].isna().all()
