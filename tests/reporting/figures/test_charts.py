import numpy as np
import pandas as pd
import pytest

from keras_medseg.reporting.figures import charts, style


def training_log(epochs: int) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "learning_rate": 0.005,
            "loss": 0.5 / epoch,
            "accuracy": 1 - 0.1 / epoch,
            "val_loss": 0.6 / epoch,
            "val_accuracy": 1 - 0.2 / epoch,
        }
    )


def score_table(cases: int, variants=("with_edge", "without_edge")) -> pd.DataFrame:
    generator = np.random.default_rng(cases)
    return pd.DataFrame(
        [
            {"variant": variant, "case": f"case{number:02d}", "region": region}
            | {"dice": generator.uniform(0.5, 1), "hd95_mm": generator.uniform(1, 9)}
            for variant in variants
            for number in range(cases)
            for region in ("WT", "TC", "ET")
        ]
    )


@pytest.mark.parametrize("epochs", [1, 3, 40])
def test_learning_curves_have_a_column_per_variant_and_whole_epochs(epochs):
    logs = {f"{v}-{r}": training_log(epochs) for v in ("a_b", "c") for r in ("WT", "TC", "ET")}
    figure = charts.learning_curves(logs)
    panels = np.array(figure.axes).reshape(3, 2)
    assert [panel.get_title() for panel in panels[0]] == ["a b", "c"]
    assert len(panels[0, 0].lines) == 6  # three regions, training and validation
    assert len(panels[2, 0].lines) == 3  # the learning rate has no validation
    ticks = panels[0, 0].get_xticks()
    assert ticks[0] == 1
    assert ticks[-1] <= epochs
    assert len(ticks) <= 10
    assert (ticks == np.round(ticks)).all()


def test_many_variants_go_into_blocks_with_the_same_axes():
    """Twelve variants: five columns, three blocks of three rows, the last with three empty ones."""
    logs = {f"v{number:02d}-WT": training_log(3 + number) for number in range(12)}
    figure = charts.learning_curves(logs)
    assert figure.get_size_inches()[0] < 25
    panels = np.array(figure.axes).reshape(9, 5)
    titles = [panel.get_title() for row in panels[::3] for panel in row]
    assert titles == [f"v{number:02d}" for number in range(12)] + [""] * 3
    assert [len(panel.lines) for panel in panels[6]] == [2, 2, 0, 0, 0]
    for row in range(3):
        shown = [panel for panel in panels[row::3].flat if panel.lines]
        assert {panel.get_ylim() for panel in shown} == {panels[row, 0].get_ylim()}
        assert {panel.get_yscale() for panel in shown} == {panels[row, 0].get_yscale()}
    labelled = [panel.get_ylabel() for panel in panels[:, 0]]
    assert labelled == ["loss", "pixel accuracy", "learning rate"] * 3


def test_learning_curves_of_a_log_without_validation():
    log = training_log(2).drop(columns=["val_loss", "val_accuracy"])
    figure = charts.learning_curves({"main-WT": log})
    assert [len(panel.lines) for panel in figure.axes] == [1, 1, 1]


def test_a_region_has_its_color_in_every_chart():
    figure = charts.learning_curves({"main-ET": training_log(2)})
    assert figure.axes[0].lines[0].get_color() == style.REGION_COLORS["ET"]


@pytest.mark.parametrize(("cases", "boxes"), [(1, 0), (3, 0), (4, 0), (5, 2), (30, 2)])
def test_score_boxes_draw_every_case_and_a_box_only_from_five_cases(cases, boxes):
    figure = charts.score_boxes(score_table(cases))
    assert [panel.get_title() for panel in figure.axes] == ["WT", "TC", "ET"]
    panel = figure.axes[0]
    assert len(panel.patches) == boxes
    points = np.concatenate([c.get_offsets() for c in panel.collections if len(c.get_offsets())])
    drawn = sorted(y for _, y in points if not np.ma.is_masked(y))
    scores = score_table(cases)
    assert set(np.round(scores.loc[scores["region"] == "WT", "dice"], 9)) <= set(np.round(drawn, 9))
    assert all(f"n = {cases}" in label.get_text() for label in panel.get_xticklabels())
    assert panel.get_ylim() == pytest.approx((-0.03, 1.03))


def test_score_boxes_show_where_a_variant_has_no_scores():
    scores = score_table(3)
    left = scores[(scores["variant"] == "with_edge") | (scores["region"] == "WT")]
    figure = charts.score_boxes(left)
    labels = [label.get_text().splitlines()[-1] for label in figure.axes[2].get_xticklabels()]
    assert labels == ["n = 3", "n = 0"]


def test_hd95_has_its_unit_and_its_own_axis():
    figure = charts.score_boxes(score_table(6), metric="hd95_mm")
    assert figure.axes[0].get_ylabel() == "HD95 (mm)"
    assert figure.axes[0].get_ylim()[1] > 2


def test_a_metric_that_is_not_in_the_table_is_drawn_under_its_own_name():
    scores = score_table(6).rename(columns={"hd95_mm": "volume_ml"})
    panel = charts.score_boxes(scores, metric="volume_ml").axes[0]
    assert panel.get_ylabel() == "volume_ml"
    assert panel.get_ylim()[1] > 2


def test_a_forest_has_a_row_per_name_and_a_panel_per_region():
    rows = [
        ("WT", "a", 0.8, 0.7, 0.9),
        ("WT", "b", 0.6, np.nan, np.nan),  # a single case
        ("TC", "b", 0.5, 0.4, 0.6),
    ]
    table = pd.DataFrame(rows, columns=["region", "name", "value", "low", "high"])
    figure = charts.forest(table, "Dice", zero=True)
    first, second = figure.axes
    assert [panel.get_title() for panel in figure.axes] == ["WT", "TC"]
    assert [text.get_text() for text in first.get_yticklabels()] == ["a", "b"]
    assert first.get_ylim()[0] > first.get_ylim()[1]  # the first on top
    lines = first.collections[0].get_segments()
    np.testing.assert_array_equal(lines[0], [[0.7, 0], [0.9, 0]])
    points = first.lines[-1]
    assert (list(points.get_xdata()), list(points.get_ydata())) == ([0.8, 0.6], [0, 1])
    np.testing.assert_array_equal(second.lines[-1].get_xdata(), [np.nan, 0.5])
    assert first.lines[0].get_xdata() == [0, 0]
    with pytest.raises(ValueError, match="table: found no rows"):
        charts.forest(table[:0], "Dice")


def test_a_saved_chart_is_small(tmp_path):
    curves = style.save(charts.learning_curves({"a-WT": training_log(3)}), tmp_path / "a.png")
    assert curves.stat().st_size < style.MAX_BYTES


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="logs: found none"):
        charts.learning_curves({})
    with pytest.raises(ValueError, match="scores: found no rows"):
        charts.score_boxes(score_table(0))
