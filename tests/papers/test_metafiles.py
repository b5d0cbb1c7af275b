"""The results of README against the pages and the published numbers of the papers."""

import csv
import re

import pytest

from experiments import metafiles
from experiments.__main__ import PAPERS

RESULTS = [(paper, result) for paper in PAPERS for result in metafiles.read_results(paper)]


def page(paper):
    home = metafiles.HOME / paper
    pages = [home / "README.md", home / "results" / "README.md"]
    text = "\n".join(path.read_text() for path in pages if path.exists())
    return re.sub(r"\s+", " ", text)


def test_every_paper_has_results():
    assert {paper for paper, _ in RESULTS} == set(PAPERS)


@pytest.mark.parametrize(
    ("paper", "result"), RESULTS, ids=lambda value: getattr(value, "data", value)
)
def test_every_number_is_that_of_the_papers_page(paper, result):
    text = page(paper)
    for number in result.measured.values():
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d])", text), number
    assert f"{result.memory_gb:g} GB" in text
    amount = re.match(r"\d+ (min|s)\w*", result.time)
    assert amount
    assert amount[0] in text
    assert f"`{result.command}`" in text or f"{result.command} " in text


@pytest.mark.parametrize(
    ("paper", "result"), RESULTS, ids=lambda value: getattr(value, "data", value)
)
def test_published_numbers_are_those_of_published_csv(paper, result):
    with open(metafiles.HOME / paper / "published.csv") as file:
        rows = [*csv.DictReader(file)]
    for region, value in metafiles.published_values(paper, result).items():
        found = [
            row["value"] for row in rows
            if (row["table"], row["row"], row["variant"]) == result.published
            and (row["region"], row["metric"]) == (region, result.metric)
        ]  # fmt: skip
        assert found == ["" if value == metafiles.LOST else value]


def test_a_row_that_is_not_published_and_an_unknown_entry_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(metafiles, "HOME", tmp_path)
    folder = tmp_path / "paper"
    folder.mkdir()
    entries = """[[results]]
data = "d"
score = "s"
metric = "dice"
published = ["Table 1", "Ours", ""]
measured = { WT = "1.0" }
command = "c"
configuration = "x"
time = "1 min"
memory_gb = 1.0
device = "CPU"
why_other = ""
"""
    (folder / "metafile.toml").write_text(entries)
    header = "table,row,variant,region,metric,value,unit,source,note\n"
    (folder / "published.csv").write_text(header + "Table 1,Ours,,WT,dice,90.50,%,p,\n")
    assert "| 90.50 | 1.0 | nothing | x | 1 min, 1 GB | not kept |" in metafiles.results_table(
        ["paper"]
    )
    (folder / "published.csv").write_text(header + "Table 1,Theirs,,WT,dice,90.50,%,p,\n")
    with pytest.raises(ValueError, match="found no published dice of WT"):
        metafiles.results_table(["paper"])
    (folder / "metafile.toml").write_text(entries.replace("why_other", "why"))
    with pytest.raises(ValueError, match=r"entry: found 'why', expected .*why_other"):
        metafiles.read_results("paper")
    (folder / "metafile.toml").write_text(entries.replace('why_other = ""', ""))
    with pytest.raises(ValueError, match="missing 1 required positional argument: 'why_other'"):
        metafiles.read_results("paper")
