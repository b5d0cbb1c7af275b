"""Every notebook runs from top to bottom, and the committed .ipynb is its source, executed."""

import re

import pytest

pytest.importorskip("jupytext")
pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

from notebooks import execute, table  # noqa: E402

SOURCES = execute.sources()
notebook_of_each_source = pytest.mark.parametrize("path", SOURCES.values(), ids=SOURCES)


def committed(path):
    return nbformat.read(path.with_suffix(".ipynb"), as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook):
    """Everything a reader sees of the outputs, images apart."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield output.get("text", "")
            yield from (v for kind, v in output.get("data", {}).items() if kind[:5] == "text/")


def kinds(notebook):
    """What each code cell shows: the kinds of its outputs, in their order."""
    return [
        [kind for output in cell.outputs for kind in sorted(output.get("data", ["text"]))]
        for cell in code_cells(notebook)
    ]


def scores(notebook):
    """The numbers of each row of the cell tagged "scores"; the Dice comes first."""
    (cell,) = (cell for cell in notebook.cells if "scores" in cell.metadata.get("tags", []))
    printed = cell.outputs[-1].data["text/plain"]
    rows = [re.findall(r"(?<=\s)\d+\.\d+(?=\s|$)", line) for line in printed.splitlines()]
    return [[float(number) for number in row] for row in rows if row]


def notebook_of(*cells):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def test_there_are_notebooks():
    assert "dcabes2020" in SOURCES


def test_the_page_lists_every_notebook(tmp_path):
    page = table.FOLDER / "README.md"
    rows = re.findall(r"^\| \[(\w+)\]\((\S+)\).* \| .+ \|$", page.read_text(), re.MULTILINE)
    assert rows == [(name, f"{name}.ipynb") for name in SOURCES]


def test_an_address_gives_links_to_colab():
    colab = "https://colab.research.google.com/github/me/of.it/blob/main/notebooks/dcabes2020.ipynb"
    for address in ("https://github.com/me/of.it", "https://github.com/me/of.it/"):
        assert f"| [dcabes2020](dcabes2020.ipynb) ([Colab]({colab})) | " in table.table(address)
    assert "Colab" not in table.table()
    for address in ("https://gitlab.com/me/it", "https://github.com/me", "me/it"):
        with pytest.raises(ValueError, match=f"{address}: found no https://github.com/OWNER/NAME"):
            table.table(address)


@pytest.mark.slow
@notebook_of_each_source
def test_runs_from_top_to_bottom(path):
    notebook = execute.execute(path, epochs=1)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert kinds(notebook) == kinds(committed(path))
    assert [*map(len, scores(notebook))] == [*map(len, scores(committed(path)))]


@notebook_of_each_source
def test_a_source_sets_its_epochs_in_one_place(path):
    notebook = execute.read_source(path)
    before = [cell.source for cell in notebook.cells]
    execute.shorten(notebook, 1)
    changed = [cell.source for cell in notebook.cells if cell.source not in before]
    assert len(changed) == 1
    assert '"train.epochs": 1,' in changed[0]


def test_shortening_changes_the_number_of_epochs_alone():
    notebook = notebook_of('changes = {"train.batch_size": 8, "train.epochs": 30}', "a = 30")
    execute.shorten(notebook, 2)
    assert [cell.source for cell in notebook.cells] == [
        'changes = {"train.batch_size": 8, "train.epochs": 2}',
        "a = 30",
    ]


@pytest.mark.parametrize("count", [0, 2])
def test_epochs_that_are_not_set_in_one_place_are_refused(count):
    with pytest.raises(ValueError, match=f'"train.epochs": N {count} times, expected it once'):
        execute.shorten(notebook_of(*['{"train.epochs": 30}'] * count), 2)


@notebook_of_each_source
def test_committed_notebook_shows_a_network_that_finds_most_of_the_object(path):
    dice = [row[0] for row in scores(committed(path))]
    assert dice
    assert all(0.3 < value <= 1 for value in dice)


@notebook_of_each_source
def test_committed_notebook_is_the_source_executed(path):
    def cells(notebook):
        return [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells]

    notebook = committed(path)
    assert cells(notebook) == cells(execute.read_source(path)), "run: make notebooks"
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


@notebook_of_each_source
def test_committed_notebook_has_figures(path):
    assert sum("image/png" in kinds_of_cell for kinds_of_cell in kinds(committed(path))) >= 4


@notebook_of_each_source
def test_committed_notebook_tells_nothing_about_the_machine(path):
    notebook = committed(path)
    assert notebook.metadata == execute.METADATA
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    found = [m for text in texts(notebook) for m in re.findall(r"(?<![\w.<*])/\w[\w.-]*/.*", text)]
    assert found == []
    assert not any(re.search(r"0x[0-9a-f]{6}|Warning|WARNING", text) for text in texts(notebook))


@notebook_of_each_source
def test_committed_notebook_is_small(path):
    assert path.with_suffix(".ipynb").stat().st_size < 1_000_000


def test_an_unknown_name_is_answered_with_the_known_ones(capsys):
    assert execute.main(["dcabes2021"]) == 2
    assert "dcabes2020" in capsys.readouterr().out
