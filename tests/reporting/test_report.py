import base64
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from keras_medseg.errors import DataError
from keras_medseg.recipe import override
from keras_medseg.reporting.figures import charts, style
from keras_medseg.reporting.report import (
    Declaration,
    ReportFigure,
    RunData,
    why_not_comparable,
    write_report,
)
from keras_medseg.reporting.tables import TABLE_COLUMNS, Column, Row, TableSpec

from .example import PAPER, PUBLISHED, TABLE, THEIRS, cells, score_table, write_published


def run_data(*, recipe=THEIRS, scores=None, epochs=None, **provenance) -> RunData:
    content = {"data_name": "BraTS2017", "training_cases": 2, "profile": "paper"}
    content |= {"versions": {"keras": "3.15.0"}, **provenance}
    epoch = pd.Series(range(1, (epochs or recipe.train.epochs) + 1))
    log = {"epoch": epoch, "learning_rate": 0.005, "loss": 1 / epoch, "accuracy": 0.9}
    log |= {"val_loss": 1 / epoch, "val_accuracy": 0.9, "seconds": 3.0}
    table = score_table() if scores is None else scores
    return RunData(recipe, content, table, {"edge-WT": pd.DataFrame(log)})


def declared(tables, published, **options) -> Declaration:
    return Declaration(reference=PAPER, tables=tables, published=published, **options)


def test_costs_stand_beside_the_scores_of_their_variant(tmp_path):
    def row(of, start):
        line = next(line for line in of.splitlines() if line.startswith(start))
        return [cell.strip() for cell in line.split("|")][-4:-1]

    cost = {"networks": 1, "parameters": 1234567, "multiply_adds": 2_500_000_000}
    costs = pd.DataFrame([{"variant": "edge", **cost, "seconds_per_input": 0.0314}])
    run, page = whole_report(tmp_path / "with", costs=costs)
    table = (run / "table.md").read_text()
    assert row(table, "| |") == ["parameters", "multiply-adds (10^9)", "ms per input"]
    assert row(table, "| Ours, with |") == ["1,234,567", "2.50", "31"]
    assert row(table, "| Ours, without |") == row(table, "| Rival |") == [""] * 3
    assert page.text.count("1,234,567") == 2  # and in the table of the costs alone
    assert "parameters" not in whole_report(tmp_path / "without")[1].text


def test_tables_of_several_metrics_without_region_keep_their_units(tmp_path):
    text = (
        "table,row,variant,region,metric,value,unit,source,note\n"
        "Table 1,Ours,,,dice,0.663,,p. 3,\n"
        "Table 1,Ours,,,hd95_mm,,mm,p. 3,Only the order survives: first.\n"
    )
    columns = (Column("", "dice"), Column("", "hd95_mm"))
    spec = TableSpec("Table 1", "t", columns, (Row("Ours", "", "main"),))
    scores = score_table().query("variant == 'edge' and region == 'WT'")
    scores = scores.assign(variant="main", region="")
    published = write_published(tmp_path, text)
    page = write_report(tmp_path, run_data(scores=scores), declared((spec,), published))
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["measured"].tolist() == pytest.approx([0.8, 4.0])
    markdown = (tmp_path / "table.md").read_text()
    assert "| | Dice, published | Dice, measured | HD95 (mm), published |" in markdown
    assert "1. Only the order survives: first." in markdown
    assert page.exists()


def test_the_same_experiment_is_comparable():
    assert why_not_comparable(run_data(), PAPER) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data_name": "phantom in the layout of BraTS2017"}, "The data are synthetic"),
        ({"data_name": "BraTS2021"}, "The data are BraTS2021; the paper's"),
        (
            {"training_cases": 1},
            "1 training case and 3 validation cases; the paper had 5 cases together.",
        ),
        ({"epochs": 4}, "Training edge-WT ended after 4 of 20 epochs."),
    ],
)
def test_each_reason_against_a_comparison_is_named(changes, reason):
    (found,) = why_not_comparable(run_data(**changes), PAPER)
    assert found.startswith(reason)


def test_shortened_training_and_changed_fields_are_named():
    ours = override(THEIRS, {"train.epochs": 2, "train.optimizer": "adam"})
    assert why_not_comparable(run_data(recipe=ours), PAPER) == [
        "Training was shortened to 2 of the paper's 20 epochs.",
        "Recipe fields that depart from the paper's, listed below: 2.",
    ]


class Page(HTMLParser):
    """The text of a page, its tags, and everything it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.loaded, self.texts = [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loaded += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data)


def whole_report(tmp_path: Path, **options) -> tuple[Path, Page]:
    folder = tmp_path / "run"
    ours = override(THEIRS, {"train.epochs": 2})
    run = run_data(recipe=ours, data_name="phantom in the layout of BraTS2017")
    curves = style.save(charts.learning_curves(run.logs), folder / "figures" / "curves.png")
    ledger = tmp_path / "ledger.toml"
    ledger.write_text(
        '[[entry]]\nid = "loss"\nwhere = "II.C"\nstatus = "exact"\nreason = ""\n'
        '[[entry]]\nid = "filters"\nwhere = "Table I"\nstatus = "departs"\nreason = "misprint"\n'
    )
    whole = declared(
        (TABLE,),
        write_published(tmp_path),
        comparisons=(("plain", "edge"), ("plain", "absent")),
        ledger=ledger,
        notes=("The split is not published.",),
    )
    page = write_report(
        folder,
        run,
        whole,
        expected=[
            {"metric": "dice", "region": "WT", "variant": "edge", "minimum": 0.75}
            | {"maximum": None, "measured": 0.8, "passed": True},
            {"metric": "dice", "region": "ET", "variant": "edge", "minimum": 0.85}
            | {"maximum": None, "measured": None, "passed": False},
            {"metric": "dice", "region": "WT", "variant": "edge", "minimum": 0.86}
            | {"maximum": 0.9, "measured": 0.95, "passed": False},
        ],
        figures=[ReportFigure("Learning curves", "Validation dashed.", curves)],
        **options,
    )
    return folder, Page(page.read_text())


def test_the_page_is_self_contained(tmp_path):
    run, page = whole_report(tmp_path)
    assert not {"script", "link", "iframe"} & set(page.tags)
    (source,) = page.loaded
    head, _, data = source.partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == (run / "figures" / "curves.png").read_bytes()
    css = (run / "report.html").read_text().split("</style>")[0]
    assert "url(" not in css
    assert "@import" not in css
    assert "prefers-color-scheme: dark" in css


def test_the_page_says_what_was_run_and_what_it_is_worth(tmp_path):
    _, page = whole_report(tmp_path)
    for text in (
        "A <net> & its loss",
        "phantom in the layout of BraTS2017",
        "2 training cases; scored on 3 validation cases",
        "Expected results: not met",
        "1 of 3 within what the recipe expects",
        "Not comparable with the paper",
        "80.00 ± 10.00",
        "not run in this profile",
        "lost in the source text",
        "train.epochs 20 2",
        "Not run in this profile: Table II, Ours, without: ET.",
        "The split is not published.",
        "Dice WT, edge at least 0.75 0.8000 met",
        "Dice ET, edge at least 0.85 not measured not met",
        "Dice WT, edge 0.86 to 0.9 0.9500 not met",
        "1 exact",
        "filters Table I misprint",
        "versions.keras 3.15.0",
    ):
        assert text in page.text, text


def test_paired_test_uses_the_shared_region_and_admits_what_three_cases_cannot_show(tmp_path):
    _, page = whole_report(tmp_path)
    # WT: edge 80.00, plain 75.00; differences 0.05, 0, 0.1.
    assert "WT 3 75.00 80.00 +5.00" in page.text
    # 2 / 2^3 = 0.25
    assert "With n = 3 no paired test can reach p < 0.05: the smallest possible p" in page.text
    assert "is 0.25." in page.text
    assert "No paired test: one of the two was not run in this profile." in page.text


def test_names_from_disk_are_escaped(tmp_path):
    run, page = whole_report(tmp_path)
    assert "<three>" in page.text
    assert "<three>" not in (run / "report.html").read_text()


def test_cases_stand_worst_first(tmp_path):
    _, page = whole_report(tmp_path)
    # Means: one (.9 + .5 + .85) / 3 = .75, two .767, three (.7 + .6 + .6) / 3 = .633
    rows = page.text[page.text.index("Cases, worst first") :]
    assert rows.index("<three>") < rows.index("one") < rows.index("two")


def test_markdown_and_csv_hold_the_same_table(tmp_path):
    run, _ = whole_report(tmp_path)
    table = cells(pd.read_csv(run / "table.csv", keep_default_na=False))
    assert list(pd.read_csv(run / "table.csv").columns) == list(TABLE_COLUMNS)
    assert table["Ours", "with", "WT"]["comparable"] == "no"
    assert table["Rival", "", "WT"]["comparable"] == ""
    line = next(
        line
        for line in (run / "table.md").read_text().splitlines()
        if line.startswith("| Ours, without |")
    )
    low, high = (float(table["Ours", "without", "WT"][name]) for name in ("ci_low", "ci_high"))
    assert line == (
        f"| Ours, without | 88.44 | 75.00 ± 13.23 ({low:.2f} to {high:.2f}, n = 3) "
        "| 76.15 | not run in this profile |"
    )


def test_a_metric_without_a_unit_keeps_digits_that_two_decimals_would_lose(tmp_path):
    small = PUBLISHED.replace("77.50,%", "0.0035,").replace("76.15,%", "0.004,")
    small = small.replace("dice,,%", "dice,,").replace(",ET,dice,", ",ET,mae,")
    scores = score_table().assign(mae=lambda table: table["dice"] / 200)
    spec = replace(TABLE, columns=(Column("WT"), Column("ET", "mae")))
    published = write_published(tmp_path, small)
    write_report(tmp_path, run_data(scores=scores), declared((spec,), published))
    # ET of edge: Dice 0.5, 0.7, 0.6, a two hundredth of which is 0.003 +- 0.0005.
    assert "| 0.0035 [3] | 0.0030 ± 0.0005 (" in (tmp_path / "table.md").read_text()


def test_one_case_has_neither_deviation_nor_interval(tmp_path):
    scores = score_table().query("case == 'one' and variant == 'edge'")
    write_report(tmp_path, run_data(scores=scores), declared((TABLE,), write_published(tmp_path)))
    markdown = (tmp_path / "table.md").read_text()
    assert "90.59 | 90.00 (one case, no interval) | 77.50 [3] |" in markdown
    assert "nan" not in markdown
    assert ">nan" not in (tmp_path / "report.html").read_text()


def test_a_report_is_written_again_in_place_and_without_traces(tmp_path):
    run, _ = whole_report(tmp_path)
    before = {path.name for path in run.iterdir()}
    whole_report(tmp_path)
    assert {path.name for path in run.iterdir()} == before


def test_paired_tests_are_of_every_metric_of_the_tables_and_corrected_together(tmp_path):
    scores = score_table().assign(hd95_mm=lambda t: t["dice"].where(t["variant"] == "edge", 9.0))
    spec = replace(TABLE, columns=(Column("WT"), Column("WT", "hd95_mm")))
    published = write_published(tmp_path, PUBLISHED + "Table II,Ours,with,WT,hd95_mm,4,mm,p. 1,\n")
    whole = declared((spec,), published, comparisons=(("plain", "edge"),))
    write_report(tmp_path, run_data(scores=scores), whole)
    table = pd.read_csv(tmp_path / "tests.csv").set_index("metric")
    assert table["baseline_variant"].unique().tolist() == ["plain"]
    assert table["compared_variant"].unique().tolist() == ["edge"]
    # Dice differs by 0.05, 0 and 0.1: two signs alike, p = 2 / 2^2. HD95 is (0.9, 0.8, 0.7) - 9,
    # three signs alike, p = 2 / 2^3; times 2, because it is the smaller of two.
    assert table.loc["dice", ["p", "p_holm"]].tolist() == pytest.approx([0.5, 0.5])
    assert table.loc["hd95_mm", ["p", "p_holm"]].tolist() == pytest.approx([0.25, 0.5])
    assert table.loc["hd95_mm", "difference"] == pytest.approx(-8.2)
    markdown = (tmp_path / "table.md").read_text()
    assert "| edge - plain | HD95 (mm) | WT | 3 | -8.20 (" in markdown


def own_report(tmp_path: Path, scores=None, notes=(), **provenance) -> tuple[str, Page]:
    """table.md and the page of a run on a user's own data, with nothing declared but notes."""
    run = run_data(scores=scores, data_name="my <scans>", **provenance)
    del run.provenance["profile"]
    page = write_report(tmp_path, run, Declaration(notes=notes))
    return (tmp_path / "table.md").read_text(), Page(page.read_text())


def test_a_report_without_a_paper_has_measured_numbers_alone(tmp_path):
    markdown, page = own_report(tmp_path)
    assert "Training report" in page.text
    assert "net on my <scans>" in page.text
    assert "2 training cases; scored on 3 validation cases" in page.text
    body = page.text[page.text.index("Training report") :]  # without the style sheet
    for text in (markdown, body):
        assert "80.00 ± 10.00" in text
        for word in ("paper", "ublished", "ompar", "profile", "Rival", "Expected", "otes"):
            assert word not in text, word
        assert "not measured" in text  # plain has no ET
    header = "| | WT Dice (%) | WT HD95 (mm) | ET Dice (%) | ET HD95 (mm) |"
    assert header in markdown
    table = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    assert list(table.columns) == list(TABLE_COLUMNS)
    assert set(table["comparable"]) == {""}
    assert set(table["published"]) == {""}
    assert not (tmp_path / "tests.csv").exists()


def test_a_report_without_a_paper_may_have_notes_tables_and_paired_tests(tmp_path):
    markdown, page = own_report(tmp_path, notes=("The split leaks.",))
    for text in (markdown, page.text):
        assert "Notes" in text
        assert "The split leaks." in text
    own = Declaration(tables=(TABLE,), comparisons=(("plain", "edge"),))
    page = Page(write_report(tmp_path, run_data(), own).read_text())
    assert "Table II: Dice" in page.text
    assert "edge against plain" in page.text
    assert "Rival not retrained not retrained" in page.text


def test_costs_of_own_data_have_a_table_of_their_own(tmp_path):
    cost = {"networks": 1, "parameters": 1234567, "multiply_adds": 2_500_000_000}
    costs = pd.DataFrame([{"variant": "edge", **cost, "seconds_per_input": 0.0314}])
    page = write_report(tmp_path, run_data(), Declaration(), costs=costs)
    assert Page(page.read_text()).text.count("1,234,567") == 1
    assert (tmp_path / "table.md").read_text().count("1,234,567") == 1


def test_a_paper_without_published_tables_has_measured_numbers_and_reasons(tmp_path):
    page = write_report(tmp_path, run_data(data_name="BraTS2021"), declared((TABLE,), None))
    assert "Not comparable with the paper" in Page(page.read_text()).text
    markdown = (tmp_path / "table.md").read_text()
    assert "| | WT | ET |" in markdown
    assert "published" not in markdown
    assert "not in the paper" not in markdown


def test_provenance_must_say_what_the_numbers_are_of():
    with pytest.raises(DataError, match="provenance: found no training_cases, expected the fields"):
        RunData(THEIRS, {"data_name": "BraTS2017"}, score_table(), {})
