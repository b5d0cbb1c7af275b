"""The table of networks, printed and in the README."""

from pathlib import Path

import pytest

from keras_medseg import registry
from keras_medseg.reporting import model_table

README = Path(__file__).parents[2] / "README.md"


def test_table_has_a_row_per_network():
    lines = model_table.table().splitlines()
    header, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    counts = ["trainable", "parameters"]
    assert header == ["network", "paper", "input", *counts, "parity", "compared in"]
    assert [row[0] for row in rows] == registry.list_models()
    row = rows[registry.list_models().index("unet")]
    papers = "dcabes2020, mtds2021, csam_knee, iacnn"
    counts = ["34,527,041", "34,540,737"]
    assert row[1:] == ["ronneberger2015", "224x224x3 (2-D)", *counts, "golden", papers]


def test_table_of_the_readme_is_the_one_that_is_printed(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(README.read_text())
    model_table.write_table(page)
    remedy = "run: keras-medseg models --write README.md"
    assert page.read_text() == README.read_text(), remedy


def test_table_is_put_between_its_marks_only(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("above\n{}\nold\n{}\nbelow\n".format(*model_table.TABLE_MARKS))
    model_table.write_table(page)
    begin, end = model_table.TABLE_MARKS
    assert page.read_text() == f"above\n{begin}\n\n{model_table.table()}\n\n{end}\nbelow\n"
    page.write_text(f"{end} {begin}")
    with pytest.raises(ValueError, match=r"page\.md: found no lines"):
        model_table.write_table(page)


def test_old_version_is_named(monkeypatch):
    monkeypatch.setattr(registry, "version", {"keras": "2.15.0", "tensorflow": "2.20.0"}.get)
    with pytest.raises(ImportError, match=r"keras: found version 2\.15\.0, expected"):
        model_table.table()
