"""Every notebook runs from top to bottom, and the committed .ipynb is its source, executed."""

import re

import pytest

pytest.importorskip("jupytext")
pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

from notebooks import execute  # noqa: E402

SOURCES = execute.sources()
notebook_of_each_source = pytest.mark.parametrize("path", SOURCES.values(), ids=SOURCES)


def committed(path):
    return nbformat.read(path.with_suffix(".ipynb"), as_version=4)


def texts(notebook):
    """Everything a reader sees of the outputs, pictures apart."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield output.get("text", "")
            yield from (v for kind, v in output.get("data", {}).items() if kind[:5] == "text/")


def scores(notebook):
    """The numbers of the cell tagged "scores"."""
    (cell,) = (cell for cell in notebook.cells if "scores" in cell.metadata.get("tags", []))
    printed = cell.outputs[-1].data["text/plain"]
    return [float(number) for number in re.findall(r"(?<=\s)\d+\.\d+(?=\s|$)", printed)]


def test_there_are_notebooks():
    assert "dcabes2020" in SOURCES


@notebook_of_each_source
def test_runs_from_top_to_bottom(path):
    notebook = execute.execute(path, epochs=1)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len(scores(notebook)) == len(scores(committed(path)))


@notebook_of_each_source
def test_committed_notebook_shows_a_network_that_finds_most_of_the_tumour(path):
    dice = scores(committed(path))[::4]
    assert dice
    assert all(0.3 < value <= 1 for value in dice)


@notebook_of_each_source
def test_committed_notebook_is_the_source_executed(path):
    def cells(notebook):
        return [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells]

    notebook = committed(path)
    assert cells(notebook) == cells(execute.read_source(path)), "run: make notebooks"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@notebook_of_each_source
def test_committed_notebook_tells_nothing_about_the_machine(path):
    notebook = committed(path)
    assert notebook.metadata == execute.METADATA
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    found = [m for text in texts(notebook) for m in re.findall(r"(?<![\w.<*])/\w[\w.-]*/.*", text)]
    assert found == []
    assert not any(re.search(r"0x[0-9a-f]{6}|Warning", text) for text in texts(notebook))


@notebook_of_each_source
def test_committed_notebook_is_small(path):
    assert path.with_suffix(".ipynb").stat().st_size < 1_000_000


def test_an_unknown_name_is_answered_with_the_known_ones(capsys):
    assert execute.main(["dcabes2021"]) == 2
    assert "dcabes2020" in capsys.readouterr().out
