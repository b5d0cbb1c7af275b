"""What only this paper needs."""

from pathlib import Path

import pytest

from experiments.dcabes2020.recipe import EXPERIMENT, RECIPE
from keras_medseg import recipe
from keras_medseg.reporting.tables import read_published

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
