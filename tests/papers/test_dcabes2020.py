"""What only this paper needs."""

import colorsys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments.dcabes2020 import figures, scores
from experiments.dcabes2020.recipe import EXPERIMENT, RECIPE
from keras_medseg import recipe, registry
from keras_medseg.data.datasets import brats
from keras_medseg.reporting.tables import build_table, read_published
from keras_medseg.runs.steps import check_recipe

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


@pytest.mark.parametrize("profile", ["paper-compare", "quick-compare"])
def test_compared_networks_differ_in_the_network_alone(profile):
    chosen = EXPERIMENT.profiles[profile]
    base = recipe.override(RECIPE, chosen.changes)
    assert [*chosen.variants] == ["with_edge_loss", "unet", "attention_unet", "resunet"]
    assert {variant for _, variant in chosen.comparisons} == {"with_edge_loss"}
    for name, changes in chosen.variants.items():
        changed = recipe.differences(recipe.override(base, changes), base)
        assert all(field.startswith("model.") for field in changed), name
        assert "model.targets" not in changed
    if profile == "paper-compare":
        assert base == RECIPE


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


@pytest.mark.parametrize("tables", [True, False])
def test_where_no_grade_is_known_the_column_is_empty(tables):
    run = _run(tables)
    made = scores.further_scores(run, _cohort({"a": "", "b": ""}))
    assert made[scores.HIGH_GRADE].isna().all()
    [spec] = [table for table in EXPERIMENT.tables if table.id == "Other readings"]
    table = build_table(spec, read_published(FOLDER / "published.csv"), run.scores(), made)
    assert table.loc[table["metric"] == scores.HIGH_GRADE, "measured"].isna().all()
