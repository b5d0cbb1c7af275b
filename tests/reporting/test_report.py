import base64
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from keras_medseg.errors import DataError
from keras_medseg.recipe import override
from keras_medseg.reporting import report, viewer
from keras_medseg.reporting.figures import charts, style
from keras_medseg.reporting.report import (
    Declaration,
    ReportFigure,
    RunData,
    why_not_comparable,
    write_report,
)
from keras_medseg.reporting.tables import TABLE_COLUMNS, Column, Row, TableSpec

from .browser import needs_browser, use
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


COST = {
    "variant": "edge",
    "networks": 1,
    "parameters": 1_234_567,
    "largest_network": 1_234_567,
    "multiply_adds": 2_500_000_000,
    "seconds_per_input": 0.0314,
    "training_epochs": 40,
    "training_seconds": 1230.0,
}


def test_costs_of_several_networks_name_one_and_all_and_the_time_of_training(tmp_path):
    """1230 s are 20.5 minutes, and 30.75 s for each of 40 epochs."""
    several = {"networks": 3, "parameters": 1_710_795, "largest_network": 570_265}
    costs = pd.DataFrame([COST | several])
    page = write_report(tmp_path, run_data(), Declaration(), costs=costs)
    line = "| edge | 3 | 3 x 570,265 = 1,710,795 | 2.50 | 31 | 20.5 | 30.8 |"
    assert line in (tmp_path / "table.md").read_text().splitlines()
    assert "edge 3 3 x 570,265 = 1,710,795 2.50 31 20.5 30.8" in Page(page.read_text()).text
    run, _ = whole_report(tmp_path / "paper", costs=costs)
    [ours] = [
        text for text in (run / "table.md").read_text().splitlines() if "| Ours, with |" in text
    ]
    assert ours.endswith("| 3 x 570,265 | 2.50 | 31 | 20.5 |")
    write_report(tmp_path, run_data(), Declaration(), costs=costs.assign(largest_network=600_000))
    assert "| edge | 3 | 1,710,795 |" in (tmp_path / "table.md").read_text()


def test_costs_stand_beside_the_scores_of_their_variant(tmp_path):
    def row(of, start):
        line = next(line for line in of.splitlines() if line.startswith(start))
        return [cell.strip() for cell in line.split("|")][-5:-1]

    costs = pd.DataFrame([COST])
    run, page = whole_report(tmp_path / "with", costs=costs)
    table = (run / "table.md").read_text()
    assert row(table, "| |") == [
        "parameters",
        "multiply-adds (10^9)",
        "ms per input",
        "training (min)",
    ]
    assert row(table, "| Ours, with |") == ["1,234,567", "2.50", "31", "20.5"]
    assert row(table, "| Ours, without |") == row(table, "| Rival |") == [""] * 4
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
        targets = [value for name, value in attributes if name in ("src", "href")]
        self.loaded += [value for value in targets if not value.startswith("#")]

    def handle_data(self, data):
        if self.tags[-1:] != ["script"]:
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
    assert not {"link", "iframe"} & set(page.tags)  # scripts are a part of the page, see `loaded`
    (source,) = page.loaded
    head, _, data = source.partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == (run / "figures" / "curves.png").read_bytes()
    css = (run / "report.html").read_text().split("</style>")[0]
    assert "url(" not in css
    assert "@import" not in css
    assert "prefers-color-scheme: dark" in css


@needs_browser
def test_cases_open_in_the_viewer_of_the_page(tmp_path):
    truth = np.zeros((6, 6, 4), np.uint8)
    truth[2:4, 2:4, 1:3] = 1
    ids = list(score_table()["case"].unique()[:2])
    cases = [viewer.ViewerCase(id, "", None, truth, {"edge": truth}) for id in ids]
    shown = viewer.encode(cases, labels={1: "tumor"}, regions={"WT": (1,)})
    run, page = whole_report(tmp_path, shown=shown)
    assert "Cases, slice by slice" in page.text
    script = """
    const table = document.getElementById("cases");
    said.cases = [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
    said.links = [...table.querySelectorAll("a")].map((link) => link.textContent);
    table.querySelector("a").click(); await pause(); press("t");
    said.opened = shown();
    """
    said = use(run / "report.html", script, tmp_path)
    assert len(said["cases"]) > 2
    assert sorted(said["links"]) == sorted(ids)
    assert said["opened"]["case"] == said["links"][0]
    assert said["opened"]["mode"] == "truth"


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


def test_what_was_not_run_names_the_metric_where_another_was_measured():
    """Not the row as a whole: its Dice under one recipe for all alone."""
    lines = [
        ("Ours", "", "WT", "dice", "measured"),
        ("Ours", "", "WT", "Dice, one recipe", "not run in this profile"),
        ("Ours", "", "TC", "Dice, one recipe", "not run in this profile"),
        ("Theirs", "A", "WT", "dice", "not run in this profile"),
        ("Theirs", "A", "WT", "Dice, one recipe", "not run in this profile"),
    ]
    table = pd.DataFrame(lines, columns=["row", "variant", "region", "metric", "status"])
    assert report._left_out([table.assign(table="Table II")]) == [
        "Table II, Ours, Dice, one recipe: WT",
        "Table II, Ours: TC",
        "Table II, Theirs, A: WT",
    ]


def test_paired_test_uses_the_shared_region_and_admits_what_three_cases_cannot_show(tmp_path):
    _, page = whole_report(tmp_path)
    # WT: edge 80.00, plain 75.00; differences 0.05, 0, 0.1.
    assert "WT 3 75.00 80.00 +5.00" in page.text
    # 2 / 2^3 = 0.25
    assert "With 3 cases no paired test can reach p < 0.05: the smallest possible p" in page.text
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
    costs = pd.DataFrame([COST])
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


LEDGER = '[[entry]]\nid = "{}"\nwhere = "II.C"\nstatus = "{}"\nreason = "because"\n'


def standing_of(tmp_path, *statuses, reference=PAPER, **run) -> tuple[str, str, set[str]]:
    """table.md, the text of the page, and the values of `comparable` beside measured numbers."""
    ledger = tmp_path / "experiments" / "net2020" / "ledger.toml"
    ledger.parent.mkdir(parents=True, exist_ok=True)
    ledger.write_text("".join(LEDGER.format(f"entry-{s}", s) for s in statuses))
    published = write_published(tmp_path)
    whole = Declaration(reference, (TABLE,), published, ledger if statuses else None)
    page = Page(write_report(tmp_path, run_data(**run), whole).read_text())
    table = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    of_measured = set(table.loc[table["status"] == "measured", "comparable"])
    return (tmp_path / "table.md").read_text(), page.text, of_measured


def test_departures_choices_and_an_unknown_split_stand_against_a_comparison(tmp_path):
    statuses = ["exact", "departs", "departs", "chosen"]
    markdown, page, comparable = standing_of(tmp_path, *statuses)
    assert comparable == {"same recipe as ours"}
    counted = "2 departures from the paper, 1 choice, unknown split"
    heading = f"## Same recipe as ours: {counted}"
    assert heading in markdown.splitlines()
    assert "By the ledger, the recipe departs from the paper in 2 points." in markdown
    assert "`experiments/net2020/ledger.toml`" in markdown
    assert "Comparable with the paper" not in page
    for words in (
        f"not the paper's in every point: {counted}",
        "Where the paper leaves a choice (1)",
        "because",
    ):
        assert words in page, words
    # The reader is led to the list.
    html = (tmp_path / "report.html").read_text()
    assert '<a href="#fidelity">' in html
    assert 'id="fidelity"' in html


@pytest.mark.parametrize(
    ("statuses", "split_known", "counted"),
    [
        (["exact", "departs"], True, "1 departure from the paper"),
        (["exact", "chosen"], True, "1 choice"),
        (["exact"], False, "unknown split"),
    ],
)
def test_each_of_them_is_enough(tmp_path, statuses, split_known, counted):
    reference = replace(PAPER, split_known=split_known)
    markdown, _, comparable = standing_of(tmp_path, *statuses, reference=reference)
    assert comparable == {"same recipe as ours"}
    assert f"## Same recipe as ours: {counted}\n" in markdown


def test_comparable_is_a_run_of_a_recipe_that_is_the_papers_in_every_point(tmp_path):
    exact = replace(PAPER, split_known=True)
    markdown, page, comparable = standing_of(tmp_path, "exact", "equivalent", reference=exact)
    assert comparable == {"yes"}
    assert "## Comparable with the paper\n" in markdown
    assert "same data, number of cases, split and recipe" in page


def test_a_run_on_other_data_is_not_comparable_and_the_ledger_is_counted(tmp_path):
    markdown, page, comparable = standing_of(tmp_path, "departs", data_name="BraTS2021")
    assert comparable == {"no"}
    assert "## Not comparable with the paper: 1 departure from the paper, unknown split" in markdown
    assert "3 reasons, below, among them 1 departure from the paper, unknown split" in page


def test_a_recipe_without_a_ledger_is_ones_own(tmp_path):
    markdown, page, comparable = standing_of(tmp_path)
    assert comparable == {"no"}
    assert "## Recipe of your own" in markdown
    assert "No ledger says in which points this recipe is that of the paper." in page
    page = Page(write_report(tmp_path, run_data(), Declaration()).read_text())
    assert "Recipe of your own" in page.text


GROUPS = {"one": "p1", "two": "p1", "<three>": "p2"}


def test_groups_are_named_beside_cases(tmp_path):
    scores = score_table().assign(group=lambda table: table["case"].map(GROUPS))
    published = write_published(tmp_path)
    whole = declared((TABLE,), published, comparisons=(("plain", "edge"),))
    page = write_report(tmp_path, run_data(scores=scores), whole).read_text()
    table = cells(pd.read_csv(tmp_path / "table.csv"))
    # WT of edge: p1 (0.9 + 0.8) / 2 = 0.85, p2 0.7: groups 77.5, cases 80. Two groups: the interval
    # is that of p1 or p2 drawn twice.
    line = table["Ours", "with", "WT"]
    assert (line["n"], line["groups"]) == (3, 2)
    assert (line["measured"], line["group_mean"]) == (pytest.approx(80), pytest.approx(77.5))
    assert (line["ci_low"], line["ci_high"]) == (pytest.approx(70), pytest.approx(85))
    detail = "80.00 ± 10.00 (70.00 to 85.00, n = 3, 2 groups: 77.50)"
    markdown = (tmp_path / "table.md").read_text()
    assert detail in markdown
    # Differences 0.05, 0 and 0.1: cases 5.00; groups (2.5 + 10) / 2 = 6.25.
    assert "| edge - plain | Dice (%) | WT | 3 in 2 groups | +5.00 (" in markdown
    assert ") | +6.25 |" in markdown
    assert "on the means of groups" in markdown
    tests = pd.read_csv(tmp_path / "tests.csv").iloc[0]
    assert (tests["n"], tests["groups"]) == (3, 2)
    assert tests["group_difference"] == pytest.approx(0.0625)
    text = Page(page).text
    assert "over groups +6.25" in text
    assert "With 2 groups no paired test can reach p < 0.05" in text
    one = scores.assign(group="p1")
    write_report(tmp_path, run_data(scores=one), declared((TABLE,), published))
    assert "(one group, no interval, n = 3)" in (tmp_path / "table.md").read_text()


def test_cases_of_their_own_are_shown_as_ever(tmp_path):
    run, page = whole_report(tmp_path)
    for text in ((run / "table.md").read_text(), page.text[page.text.index("Reproduction") :]):
        assert "group" not in text


ORDER = {
    "better": "edge", "worse": "plain", "metric": "dice", "region": "WT", "where": "Table II",
    "says": "The <edge> loss improves.", "n": 40, "groups": 40, "difference": 0.0215, "low": 0.01,
    "high": 0.03, "seeds": 1, "seed_std": float("nan"), "group_difference": 0.0215, "p": 0.001,
    "p_holm": 0.002, "verdict": "confirmed", "passed": True,
}  # fmt: skip


def test_an_order_stands_beside_the_sentence_that_it_tests(tmp_path):
    other = ORDER | {"region": "ET", "verdict": "undecided", "p_holm": 0.5, "low": -0.01}
    third = ORDER | {"says": "It is last.", "verdict": "reversed", "n": 12, "groups": 6}
    run, page = whole_report(tmp_path, orders=[ORDER, other, third])
    markdown = (run / "table.md").read_text()
    assert markdown.count('* Table II: "The <edge> loss improves."') == 1
    assert (
        "  * CONFIRMED: edge better than plain, Dice in %, WT: +2.15 (+1.00 to +3.00), n = 40, "
        "p (Holm) = 0.002" in markdown
    )
    assert "  * UNDECIDED: edge better than plain, Dice in %, ET: +2.15 (-1.00 to" in markdown
    assert "  * REVERSED: " in markdown
    assert "n = 12 in 6 groups" in markdown
    assert "Orders of the paper 1 confirmed, 1 reversed, 1 undecided" in page.text
    assert "“The <edge> loss improves.”" in page.text
    assert "One training per variant" in page.text
    table = pd.read_csv(run / "orders.csv")
    assert table["verdict"].tolist() == ["confirmed", "undecided", "reversed"]
    assert table["difference"].tolist() == pytest.approx([0.0215] * 3)


def test_seeds_are_named_beside_cases(tmp_path):
    """Two seeds, the second 0.04 above the first: a standard deviation of 0.04 / sqrt(2)."""
    scores = pd.concat([score_table().assign(seed=0), score_table().assign(seed=1)])
    scores.loc[scores["seed"] == 1, "dice"] += 0.04
    # The second training of "edge" gained 0.06 more than that of "plain".
    scores.loc[(scores["seed"] == 1) & (scores["variant"] == "edge"), "dice"] += 0.06
    whole = declared((TABLE,), write_published(tmp_path), comparisons=(("plain", "edge"),))
    order = ORDER | {"n": 3, "groups": 3, "seeds": 2, "seed_std": 0.012}
    run = run_data(scores=scores)
    page = Page(write_report(tmp_path, run, whole, orders=[order]).read_text())
    line = cells(pd.read_csv(tmp_path / "table.csv"))["Ours", "with", "WT"]
    assert (line["n"], line["seeds"], line["measured"]) == (3, 2, pytest.approx(85))
    assert (line["std"], line["seed_std"]) == (pytest.approx(10), pytest.approx(10 / 2**0.5))
    # Three cases and two seeds: the lowest of both has 1/27 * 1/4 = 0.9 %, the next ones more.
    assert 70 < line["ci_low"] < 80
    markdown = (tmp_path / "table.md").read_text()
    detail = f"85.00 ± 10.00 ({line['ci_low']:.2f} to {line['ci_high']:.2f}, n = 3, 2 seeds ± 7.07)"
    assert detail in markdown
    assert "Two-sided t tests whose variance" in markdown
    assert "Interval and test include the spread between 2 trainings" in markdown
    assert "(+1.00 to +3.00, 2 seeds ± 1.20), n = 3" in markdown
    for words in ("2 seeds ± 7.07", "With few cases or seeds the interval", "20 epochs, network"):
        assert words in page.text, words
    assert "Wilcoxon" not in page.text + markdown
    assert "One training per variant" not in page.text + markdown
    [test] = pd.read_csv(tmp_path / "tests.csv").query("metric == 'dice'").to_dict("records")
    # WT, edge - plain: 0.05, 0.0 and 0.1 in the first training, 0.06 more in the second.
    assert (test["n"], test["seeds"], test["difference"]) == (3, 2, pytest.approx(0.08))
    assert test["seed_std"] == pytest.approx(0.06 / 2**0.5)
    assert "+20.00" not in page.text  # one row a case, not one a seed
    assert page.text.count("<three>") == 1


def test_the_cases_of_folds_are_counted_once(tmp_path):
    run = run_data(training_cases=2, folds=3, validation_cases=[], test_cases=["one"])
    wanted = replace(PAPER, cases=3)
    assert why_not_comparable(run, wanted) == []
    [reason] = why_not_comparable(run, PAPER)
    assert reason == (
        "2 training cases and 3 test cases of 3 folds; the paper had 5 cases together."
    )
    page = Page(write_report(tmp_path, run, Declaration()).read_text())
    assert "3 folds, the first with 2 training cases; scored on 3 test cases" in page.text


def test_cases_that_only_steer_the_training_are_counted_but_not_scored(tmp_path):
    sides = {"validation_cases": ["v"], "test_cases": ["one", "two", "<three>"]}
    whole = declared((TABLE,), write_published(tmp_path))
    run = run_data(training_cases=1, **sides)
    assert why_not_comparable(run, PAPER) == []  # 1 + 1 + 3 are the paper's five
    page = Page(write_report(tmp_path, run, whole).read_text())
    assert "1 training case; 1 validation case to steer; scored on 3 test cases" in page.text
    assert "standard deviation over the test cases" in page.text
    markdown = (tmp_path / "table.md").read_text()
    assert "1 training case, 1 validation case, 3 test cases." in markdown
    (reason,) = why_not_comparable(run_data(training_cases=4, **sides), PAPER)
    assert reason == (
        "4 training cases, 1 validation case and 3 test cases; the paper had 5 cases together."
    )
