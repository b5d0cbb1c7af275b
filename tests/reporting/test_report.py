import base64
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from keras_medseg import recipe
from keras_medseg.errors import DataError
from keras_medseg.reporting import report
from keras_medseg.reporting.figures import charts, style

THEIRS = recipe.Recipe(
    paper="paper2020",
    data=recipe.Slices(window=(16, 16, 8), normalisation="z_score", flips=(), held_out=0.15),
    model=recipe.Model(name="net", networks=(("WT",), ("ET",))),
    train=recipe.Train(
        epochs=20,
        batch_size=32,
        optimizer="sgd",
        learning_rate=0.005,
        loss="cross_entropy",
        schedule="none",
        precision="float32",
        seed=0,
    ),
)
PAPER = report.Paper(title="A <net> & its loss", recipe=THEIRS, data="BraTS2017", cases=5)
TABLE = report.TableSpec(
    id="Table II",
    title="Dice",
    columns=(report.Column("WT"), report.Column("ET")),
    rows=(
        report.Row("Rival"),
        report.Row("Ours", "without", "plain"),
        report.Row("Ours", "with", "edge"),
    ),
)
PUBLISHED = """table,row,variant,region,metric,value,unit,source,note
Table II,Rival,,WT,dice,91.28,%,p. 156,From its own paper.
Table II,Rival,,ET,dice,,%,p. 156,
Table II,Ours,without,WT,dice,88.44,%,p. 156,
Table II,Ours,without,ET,dice,76.15,%,p. 156,
Table II,Ours,with,WT,dice,90.59,%,p. 156,
Table II,Ours,with,ET,dice,77.50,%,p. 156,Table III prints 78.17.
"""
# Three held-out cases: (WT, ET) of "edge", then WT of "plain", whose ET was not run.
EDGE = {"one": (0.90, 0.50), "two": (0.80, 0.70), "<three>": (0.70, 0.60)}
PLAIN = {"one": 0.85, "two": 0.80, "<three>": 0.60}


def score_table() -> pd.DataFrame:
    rows = [("edge", case, "WT", wt) for case, (wt, _) in EDGE.items()]
    rows += [("edge", case, "ET", et) for case, (_, et) in EDGE.items()]
    rows += [("plain", case, "WT", wt) for case, wt in PLAIN.items()]
    table = pd.DataFrame(rows, columns=["variant", "case", "region", "dice"])
    return table.assign(
        sensitivity=0.8, specificity=0.99, hd95_mm=4.0, truth_voxels=900, predicted_voxels=800
    )


def write_run(folder: Path, *, run=THEIRS, scores=None, epochs=None, **provenance) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text(recipe.to_json(run))
    content = {"data_name": "BraTS2017", "training_cases": 2, "profile": "paper"}
    content |= {"versions": {"keras": "3.15.0"}, **provenance}
    (folder / "provenance.json").write_text(json.dumps(content))
    table = score_table() if scores is None else scores
    table.to_csv(folder / "scores.csv", index=False)
    log = folder / "training" / "edge-WT" / "log.csv"
    log.parent.mkdir(parents=True, exist_ok=True)
    count = epochs or run.train.epochs
    lines = [f"{n},0.005,{1 / n},0.9,{1 / n},0.9,3.0" for n in range(1, count + 1)]
    header = "epoch,learning_rate,loss,accuracy,val_loss,val_accuracy,seconds"
    log.write_text("\n".join([header, *lines]) + "\n")
    return folder


def write_published(folder: Path, text: str = PUBLISHED) -> Path:
    path = folder / "published.csv"
    path.write_text(text)
    return path


def cells(table: pd.DataFrame) -> dict[tuple[str, str, str], pd.Series]:
    return {(line["row"], line["variant"], line["region"]): line for _, line in table.iterrows()}


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
    columns = (report.Column("", "dice"), report.Column("", "hd95_mm"))
    spec = report.TableSpec("Table 1", "t", columns, (report.Row("Ours", "", "main"),))
    scores = score_table().query("variant == 'edge' and region == 'WT'")
    scores = scores.assign(variant="main", region="")
    run = write_run(tmp_path / "run", scores=scores)
    published = write_published(tmp_path, text)
    page = report.write_report(run, paper=PAPER, tables=[spec], published=published)
    table = pd.read_csv(run / "table.csv")
    assert table["measured"].tolist() == pytest.approx([0.8, 4.0])
    markdown = (run / "table.md").read_text()
    assert "| | Dice, published | Dice, measured | HD95 (mm), published |" in markdown
    assert "1. Only the order survives: first." in markdown
    assert page.exists()


def test_the_same_experiment_is_comparable(tmp_path):
    run = report.load_run(write_run(tmp_path))
    assert report.why_not_comparable(run, PAPER) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data_name": "phantom in the layout of BraTS2017"}, "The data are synthetic"),
        ({"data_name": "BraTS2021"}, "The data are BraTS2021; the paper's"),
        ({"training_cases": 1}, "1 cases to train on and 3 held out; the paper had 5 together."),
        ({"epochs": 4}, "Training edge-WT ended after 4 of 20 epochs."),
    ],
)
def test_each_reason_against_a_comparison_is_named(tmp_path, changes, reason):
    run = report.load_run(write_run(tmp_path, **changes))
    (found,) = report.why_not_comparable(run, PAPER)
    assert found.startswith(reason)


def test_shortened_training_and_changed_fields_are_named(tmp_path):
    ours = recipe.override(THEIRS, ["train.epochs=2", "train.optimizer=adam"])
    run = report.load_run(write_run(tmp_path, run=ours))
    assert report.why_not_comparable(run, PAPER) == [
        "Training was shortened to 2 of the paper's 20 epochs.",
        "Recipe fields that depart from the paper's, listed below: 2.",
    ]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("scores.csv", None, "no file"),
        ("provenance.json", '{"data_name": "BraTS2017"', "Expecting"),
        ("provenance.json", '{"data_name": "BraTS2017"}', "no profile, training_cases"),
        ("recipe.json", "{}", "recipe: 'data'"),
    ],
)
def test_an_incomplete_run_folder_names_the_file(tmp_path, name, content, found):
    path = write_run(tmp_path) / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(DataError, match=found) as error:
        report.load_run(tmp_path)
    assert error.value.where == str(path)


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
    ours = recipe.override(THEIRS, ["train.epochs=2"])
    run = write_run(tmp_path / "run", run=ours, data_name="phantom in the layout of BraTS2017")
    logs = report.load_run(run).logs
    picture = style.save(charts.learning_curves(logs), run / "figures" / "curves.png")
    ledger = tmp_path / "ledger.toml"
    ledger.write_text(
        '[[entry]]\nid = "loss"\nwhere = "II.C"\nstatus = "exact"\nreason = ""\n'
        '[[entry]]\nid = "filters"\nwhere = "Table I"\nstatus = "departs"\nreason = "misprint"\n'
    )
    page = report.write_report(
        run,
        paper=PAPER,
        tables=[TABLE],
        published=write_published(tmp_path),
        expected=[
            {"metric": "dice", "region": "WT", "variant": "edge", "minimum": 0.75}
            | {"measured": 0.8, "passed": True},
            {"metric": "dice", "region": "ET", "variant": "edge", "expected": 0.9}
            | {"tolerance": 0.05, "measured": None, "passed": False},
            {"metric": "dice", "region": "WT", "variant": "edge", "minimum": 0.86}
            | {"maximum": 0.9, "measured": 0.95, "passed": False},
        ],
        comparisons=[("plain", "edge"), ("plain", "absent")],
        figures=[report.Figure("Learning curves", "Validation dashed.", picture)],
        ledger=ledger,
        notes=["The split is not published."],
        **options,
    )
    return run, Page(page.read_text())


def test_the_page_is_self_contained(tmp_path):
    run, page = whole_report(tmp_path)
    assert not {"script", "link", "iframe"} & set(page.tags)
    (source,) = page.loaded
    head, _, data = source.partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == (run / "figures" / "curves.png").read_bytes()
    style = (run / "report.html").read_text().split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_the_page_says_what_was_run_and_what_it_is_worth(tmp_path):
    _, page = whole_report(tmp_path)
    for text in (
        "A <net> & its loss",
        "phantom in the layout of BraTS2017",
        "2 cases to train on, 3 held out and scored",
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
        "Dice ET, edge 0.9 ± 0.05 not measured not met",
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
    assert list(pd.read_csv(run / "table.csv").columns) == list(report.TABLE_COLUMNS)
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
    run = write_run(tmp_path / "run", scores=scores)
    spec = replace(TABLE, columns=(report.Column("WT"), report.Column("ET", "mae")))
    published = write_published(tmp_path, small)
    report.write_report(run, paper=PAPER, tables=[spec], published=published)
    # ET of edge: Dice 0.5, 0.7, 0.6, a two hundredth of which is 0.003 +- 0.0005.
    assert "| 0.0035 [3] | 0.0030 ± 0.0005 (" in (run / "table.md").read_text()


def test_one_case_has_neither_deviation_nor_interval(tmp_path):
    scores = score_table().query("case == 'one' and variant == 'edge'")
    run = write_run(tmp_path / "run", scores=scores)
    report.write_report(run, paper=PAPER, tables=[TABLE], published=write_published(tmp_path))
    markdown = (run / "table.md").read_text()
    assert "90.59 | 90.00 (one case, no interval) | 77.50 [3] |" in markdown
    assert "nan" not in markdown
    assert ">nan" not in (run / "report.html").read_text()


def test_a_report_is_written_again_in_place_and_without_traces(tmp_path):
    run, _ = whole_report(tmp_path)
    before = {path.name for path in run.iterdir()}
    whole_report(tmp_path)
    assert {path.name for path in run.iterdir()} == before


def test_paired_tests_are_of_every_metric_of_the_tables_and_corrected_together(tmp_path):
    scores = score_table().assign(hd95_mm=lambda t: t["dice"].where(t["variant"] == "edge", 9.0))
    run = write_run(tmp_path / "run", scores=scores)
    spec = replace(TABLE, columns=(report.Column("WT"), report.Column("WT", "hd95_mm")))
    published = write_published(tmp_path, PUBLISHED + "Table II,Ours,with,WT,hd95_mm,4,mm,p. 1,\n")
    report.write_report(
        run, paper=PAPER, tables=[spec], published=published, comparisons=[("plain", "edge")]
    )
    table = pd.read_csv(run / "tests.csv").set_index("metric")
    assert table["baseline_variant"].unique().tolist() == ["plain"]
    assert table["compared_variant"].unique().tolist() == ["edge"]
    # Dice differs by 0.05, 0 and 0.1: two signs alike, p = 2 / 2^2. HD95 is (0.9, 0.8, 0.7) - 9,
    # three signs alike, p = 2 / 2^3; times 2, for it is the smaller of two.
    assert table.loc["dice", ["p", "p_holm"]].tolist() == pytest.approx([0.5, 0.5])
    assert table.loc["hd95_mm", ["p", "p_holm"]].tolist() == pytest.approx([0.25, 0.5])
    assert table.loc["hd95_mm", "difference"] == pytest.approx(-8.2)
    assert "| edge - plain | HD95 | WT | 3 | -8.20 (" in (run / "table.md").read_text().replace(
        "HD95 (mm)", "HD95"
    )
