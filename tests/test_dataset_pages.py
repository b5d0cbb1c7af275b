"""docs/datasets/: every data set has its page, and the pages show what `check` says."""

import importlib.util
import re
from pathlib import Path

import pytest

from keras_medseg import phantoms
from keras_medseg.data.datasets import _image_layouts, _polyps
from keras_medseg.files import write_between

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs/datasets").glob("*.md"))
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
SECTIONS = ("Given by", "Access", "License", "Size", "Folder", "What `check` says", "Citation")


@pytest.fixture(scope="module")
def check_outputs():
    path = ROOT / "benchmarks/check_outputs.py"
    spec = importlib.util.spec_from_file_location("check_outputs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_data_set_has_a_page():
    titles = {text.partition("\n")[0].removeprefix("# ") for text in TEXTS.values()}
    for name in _image_layouts.IN_COLOR:
        title = "ISIC 2016 to 2018, Task 1" if name.startswith("ISIC") else name
        assert title in titles, name


@pytest.mark.parametrize("layout", phantoms.layouts())
def test_every_layout_is_on_a_page(layout):
    pages = [*TEXTS.values(), *(page.read_text() for page in (ROOT / "docs").glob("*.md"))]
    assert any(f"`{layout}`" in text or f"--layout {layout}`" in text for text in pages), layout


@pytest.mark.parametrize("name", sorted(set(TEXTS) - {"README.md", "own_images.md"}))
def test_a_page_has_all_its_parts(name):
    parts = re.findall(r"^## (.+)\n\n(?!#)\S", TEXTS[name], re.MULTILINE)
    assert tuple(parts) == SECTIONS
    assert f"]({name})" in TEXTS["README.md"]


SHOWN = [
    (page.name, layout)
    for page in PAGES
    for layout in re.findall(r"<!-- check (\S+) -->", TEXTS[page.name])
]


@pytest.mark.parametrize(("name", "layout"), SHOWN)
def test_the_output_of_check_is_current(name, layout, check_outputs, tmp_path):
    """Otherwise: python benchmarks/check_outputs.py."""
    copy = tmp_path / name
    copy.write_text(TEXTS[name], encoding="utf-8")
    write_between(copy, check_outputs.marks(layout), check_outputs.output(layout))
    assert copy.read_text(encoding="utf-8") == TEXTS[name]


def test_the_numbers_of_the_benchmark():
    tested = {name: len(images) for name, images in _polyps.tested().items()}
    for dataset, images in _polyps.IMAGES.items():
        count = tested.get(dataset, images)
        row = f"| {dataset} | {images - count} | {count} |"
        assert row in TEXTS["polyp_benchmark.md"]
