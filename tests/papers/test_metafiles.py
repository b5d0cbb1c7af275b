"""The results of README against the pages and the published numbers of the papers."""

import csv
import re

import pytest

from experiments import metafiles
from keras_medseg.errors import DataError
from keras_medseg.runs import papers

RESULTS = [(paper, result) for paper in papers.names() for result in metafiles.read_results(paper)]


BEFORE = 300
"""Characters before a command that may be about its run: "12 min, 2.5 GB (`make ...`)"."""


def passages(paper, command):
    """What the page of a paper, or of its results, says of a command: up to the next one, or to the
    next heading."""
    home = metafiles.HOME / paper
    for path in (home / "README.md", home / "results" / "README.md"):
        text = path.read_text() if path.exists() else ""
        for found in re.finditer(rf"{re.escape(command)}(?=[`\n])", text):
            rest = re.split(r"\n#|`(?:make|python) ", text[found.end() :], maxsplit=1)[0]
            yield re.sub(r"\s+", " ", text[max(found.start() - BEFORE, 0) : found.end()] + rest)


def test_every_paper_whose_page_has_results_has_them_here():
    pages = {paper: (metafiles.HOME / paper / "README.md").read_text() for paper in papers.names()}
    with_results = {paper for paper, text in pages.items() if "results so far\n" in text.lower()}
    assert len(with_results) >= 5
    assert {paper for paper, _ in RESULTS} == with_results


@pytest.mark.parametrize(
    ("paper", "result"), RESULTS, ids=lambda value: getattr(value, "data", value)
)
def test_every_number_is_that_of_the_papers_page(paper, result):
    amount = re.match(r"\d+ min\w*", result.time)
    assert amount
    wanted = [rf"(?<![\d.]){re.escape(number)}(?!\d)" for number in result.measured.values()]
    wanted += [re.escape(amount[0]), re.escape(f"{result.memory_gb:g} GB")]
    missing = [
        [pattern for pattern in wanted if not re.search(pattern, text)]
        for text in passages(paper, result.command)
    ]
    assert [] in missing


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
    (folder / "metafile.toml").write_text(entries.replace('"Ours", ""]', '"Ours"]'))
    with pytest.raises(DataError, match=r"found published = \['Table 1', 'Ours'\], expected \[tab"):
        metafiles.read_results("paper")
    (folder / "metafile.toml").write_text("")
    assert metafiles.read_results("paper") == []
    (folder / "metafile.toml").write_text(entries.replace('why_other = ""', ""))
    with pytest.raises(ValueError, match="missing 1 required positional argument: 'why_other'"):
        metafiles.read_results("paper")
