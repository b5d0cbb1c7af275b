"""Folders that say of themselves that what lies in them is synthetic."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from keras_medseg.errors import DataError
from keras_medseg.phantoms.folder import Marker, is_phantom, prepare_folder, write_cases

from .folders import written

WANTED = Marker(version=3, seed=7, layout="rings", shape=(8, 9), cases=2)


def files(marker: Marker) -> list[Path]:
    return [Path("deep", "images", f"{marker.seed}_{index}.png") for index in range(marker.cases)]


def prepare(folder: Path, wanted: Marker = WANTED, layouts=("rings",)) -> Marker:
    return prepare_folder(folder, wanted, layouts=layouts, files=files)


def fill(folder: Path, marker: Marker) -> None:
    for path in files(marker):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def test_a_new_folder_gets_a_marker_and_a_readme(tmp_path):
    assert prepare(tmp_path / "new" / "set") == WANTED
    folder = tmp_path / "new" / "set"
    assert json.loads((folder / "PHANTOM").read_text()) == {**asdict(WANTED), "shape": [8, 9]}
    readme = (folder / "README.txt").read_text()
    assert "No patient was involved" in readme
    assert "version 3, seed 7, in the layout of rings" in readme


def test_the_readme_ends_with_the_appendix(tmp_path):
    def appendix(marker):
        return f"{marker.cases} cases.\n"

    prepare(tmp_path)
    options = {"layouts": ("rings",), "files": files}
    prepare_folder(tmp_path, replace(WANTED, cases=1), **options, appendix=appendix)
    # Two: the case of the earlier call stays.
    assert (tmp_path / "README.txt").read_text().endswith("medicine.\n2 cases.\n")


def test_the_same_phantom_keeps_its_cases_and_its_number_only_grows(tmp_path):
    fill(tmp_path, prepare(tmp_path))
    assert prepare(tmp_path, replace(WANTED, cases=1)).cases == 2
    assert prepare(tmp_path, replace(WANTED, cases=5)).cases == 5
    assert all((tmp_path / path).exists() for path in files(WANTED))
    assert json.loads((tmp_path / "PHANTOM").read_text())["cases"] == 5


@pytest.mark.parametrize("change", [{"seed": 8}, {"version": 4}, {"shape": (9, 9)}])
def test_another_phantom_removes_the_files_of_the_earlier_one_and_no_other(tmp_path, change):
    fill(tmp_path, prepare(tmp_path))
    (tmp_path / "deep" / "notes.txt").write_text("mine")
    other = replace(WANTED, cases=1, **change)
    assert prepare(tmp_path, other) == other
    assert written(tmp_path).keys() == {"PHANTOM", "README.txt", "deep/notes.txt"}
    assert not (tmp_path / "deep" / "images").exists()


def test_hidden_files_do_not_make_a_folder_foreign(tmp_path):
    (tmp_path / ".DS_Store").touch()
    assert prepare(tmp_path) == WANTED


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "patient.png").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"found files that are not a phantom's, expected a new"):
        prepare(tmp_path)
    assert written(tmp_path) == {"patient.png": b"precious"}


def test_the_phantom_of_another_writer_is_left_alone(tmp_path):
    prepare(tmp_path)
    before = written(tmp_path)
    with pytest.raises(DataError, match=r"found a phantom of rings, expected a new"):
        prepare(tmp_path, replace(WANTED, layout="spheres"), layouts=("spheres",))
    assert written(tmp_path) == before


def test_a_file_in_the_folders_place_is_named(tmp_path):
    (tmp_path / "set").write_text("not a folder")
    with pytest.raises(DataError, match="a folder to write to"):
        prepare(tmp_path / "set")


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"version": 3}'])
def test_a_damaged_marker_is_named(tmp_path, text):
    (tmp_path / "PHANTOM").write_text(text)
    with pytest.raises(DataError, match="PHANTOM: found a text that is not a phantom's marker"):
        prepare(tmp_path)


def test_a_file_in_a_phantom_is_one_through_a_link_too(tmp_path):
    fill(tmp_path / "set", prepare(tmp_path / "set"))
    (tmp_path / "link").symlink_to(tmp_path / "set" / "deep")
    (tmp_path / "alone.png").touch()
    assert is_phantom(tmp_path / "set" / files(WANTED)[0])
    assert is_phantom(tmp_path / "link" / "images" / "7_0.png")
    assert not is_phantom(tmp_path / "alone.png")


def test_cases_are_written_once_and_reported_in_order():
    indices, reports = [], []

    def write(index: int) -> str:
        indices.append(index)
        return f"case {index}"

    write_cases(3, write, lambda *step: reports.append(step))
    assert sorted(indices) == [0, 1, 2]
    assert reports == [(1, 3, "case 0"), (2, 3, "case 1"), (3, 3, "case 2")]


def test_an_error_while_writing_reaches_the_caller():
    def write(index: int) -> str:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_cases(2, write)
