from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from keras_medseg.errors import DataError
from keras_medseg.reporting.tables import (
    Column,
    Row,
    build_table,
    own_tables,
    read_published,
)

from .example import PUBLISHED, TABLE, cells, score_table, write_published


def build(tmp_path: Path) -> dict[tuple[str, str, str], pd.Series]:
    published = read_published(write_published(tmp_path))
    return cells(build_table(TABLE, published, score_table()))


def test_measured_cells_are_the_hand_derived_means_in_percent(tmp_path):
    cell = build(tmp_path)["Ours", "with", "WT"]
    # (0.9 + 0.8 + 0.7) / 3 = 0.8; deviations 0.1, 0, -0.1: variance 0.02 / 2, deviation 0.1.
    assert cell["measured"] == pytest.approx(80.0)
    assert cell["std"] == pytest.approx(10.0)
    assert cell["n"] == 3
    assert 69.999 < cell["ci_low"] < 80.0 < cell["ci_high"] < 90.001
    assert (cell["published"], cell["status"], cell["note"]) == (90.59, "measured", "")
    # (0.85 + 0.80 + 0.60) / 3 = 0.75
    assert build(tmp_path)["Ours", "without", "WT"]["measured"] == pytest.approx(75.0)


def test_empty_cells_say_why_and_stay_empty(tmp_path):
    table = build(tmp_path)
    rival = table["Rival", "", "WT"]
    assert (rival["status"], rival["note"]) == ("not retrained", "From its own paper.")
    assert pd.isna(rival["measured"])
    lost = table["Rival", "", "ET"]
    assert pd.isna(lost["published"])
    assert lost["note"] == "lost in the source text"
    left_out = table["Ours", "without", "ET"]
    assert (left_out["published"], left_out["status"]) == (76.15, "not run in this profile")
    assert pd.isna(left_out["measured"])


def test_a_cell_that_the_paper_does_not_have_is_not_called_lost(tmp_path):
    spec = replace(TABLE, rows=(Row("Ours", "with more", "edge"),))
    published = read_published(write_published(tmp_path))
    cell = cells(build_table(spec, published, score_table()))["Ours", "with more", "WT"]
    assert pd.isna(cell["published"])
    assert cell["note"] == "not in the paper"
    assert cell["measured"] == pytest.approx(80.0)


def test_scores_that_are_no_cases_fill_the_cells_of_their_own_metric(tmp_path):
    """Each row has one of the further metrics; the cases' Dice is not touched by them."""
    spec = replace(TABLE, columns=(Column("WT"), Column("", "loss")))
    published = read_published(write_published(tmp_path))
    further = pd.DataFrame(
        [
            {"variant": "edge", "case": "crops", "region": "WT", "crop_dice": 0.5},
            {"variant": "edge", "case": "crops", "region": "", "loss": 0.25},
        ]
    )
    table = build_table(spec, published, score_table(), further)
    row = table[(table["row"] == "Ours") & (table["variant"] == "with")]
    assert row["measured"].tolist() == pytest.approx([80.0, 0.25])
    assert row["n"].tolist() == [3, 1]


@pytest.mark.parametrize("given", [{}, {"val_loss_at_40": float("nan")}])
def test_a_further_metric_that_no_row_has_is_not_run(tmp_path, given):
    """Such as the loss at an epoch to which no training came."""
    spec = replace(TABLE, columns=(Column("WT"), Column("", "val_loss_at_40")))
    published = read_published(write_published(tmp_path))
    further = pd.DataFrame([{"variant": "edge", "case": "log", "region": "", "loss": 1.0, **given}])
    table = build_table(spec, published, score_table(), further)
    row = table[(table["row"] == "Ours") & (table["variant"] == "with")]
    assert row["status"].tolist() == ["measured", "not run in this profile"]


def test_a_row_may_say_why_it_is_not_measured(tmp_path):
    rows = (Row("Rival", otherwise="not described"), *TABLE.rows[1:])
    published = read_published(write_published(tmp_path))
    table = cells(build_table(replace(TABLE, rows=rows), published, score_table()))
    assert table["Rival", "", "WT"]["status"] == "not described"
    assert table["Ours", "without", "ET"]["status"] == "not run in this profile"


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("91.28", "91.28 %", "a value that is not a number in line 2"),
        ("91.28,%", "91.28,percent", "a unit other than"),
        ("77.50,%", "0.775,", "a second unit for one metric in line 7"),
        ("Ours,without,ET", "Ours,without,WT", "a cell for a second time in line 5"),
        ("source", "page", "columns table,row,variant,region,metric,value,unit,page,note"),
    ],
)
def test_a_wrong_line_of_published_is_named(tmp_path, old, new, found):
    assert old in PUBLISHED
    path = write_published(tmp_path, PUBLISHED.replace(old, new))
    with pytest.raises(DataError, match=found) as error:
        read_published(path)
    assert str(error.value).startswith(str(path))


def test_tables_of_own_data_have_dice_in_percent_and_surface_distances_of_every_region():
    (spec,) = own_tables(score_table())
    columns = [(column.region, column.metric, column.unit) for column in spec.columns]
    expected = [
        (region, *of) for region in ("WT", "ET") for of in (("dice", "%"), ("hd95_mm", "mm"))
    ]
    assert columns == expected
    assert [(row.label, row.measured) for row in spec.rows] == [
        ("edge", "edge"),
        ("plain", "plain"),
    ]
    table = build_table(spec, None, score_table())
    edge = table[table["row"] == "edge"]
    assert edge["measured"].tolist() == pytest.approx([80.0, 4.0, 60.0, 4.0])
    assert edge["n"].tolist() == [3] * 4
    assert edge["unit"].tolist() == ["%", "mm"] * 2
    assert table["published"].isna().all()
    assert set(table["note"]) == {""}


def test_tables_of_own_data_have_the_means_over_lesions_but_not_their_numbers():
    more = {"lesion_dice": 0.5, "lesion_hd95_mm": 9.0, "lesions_found": 2, "nsd": 0.75}
    scores = score_table().assign(**more)
    (spec,) = own_tables(scores)
    columns = {column.metric: column.unit for column in spec.columns}
    wanted = {"dice": "%", "hd95_mm": "mm", "nsd": "%", "lesion_dice": "%", "lesion_hd95_mm": "mm"}
    assert columns == wanted
    table = build_table(spec, None, scores)
    edge = table[table["row"] == "edge"]
    measured = dict(zip(edge["metric"], edge["measured"]))
    assert (measured["lesion_dice"], measured["nsd"], measured["lesion_hd95_mm"]) == (50, 75, 9)


def test_a_variant_in_words_is_the_row_of_own_data():
    (spec,) = own_tables(score_table().replace("edge", "with_edge_loss"))
    assert (spec.rows[0].label, spec.rows[0].measured) == ("with edge loss", "with_edge_loss")


def test_the_unit_of_a_column_goes_before_that_of_the_paper(tmp_path):
    published = read_published(write_published(tmp_path))
    spec = replace(TABLE, columns=(Column("WT", unit=""), Column("WT")))
    table = build_table(spec, published, score_table())
    row = table[table["variant"] == "with"]
    assert row["measured"].tolist() == pytest.approx([0.8, 80.0])
    assert row["unit"].tolist() == ["", "%"]
