import json
import os

import pytest

from keras_medseg import files
from keras_medseg.errors import DataError


def test_write_atomic_leaves_the_old_file_and_no_rest_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_a_file_that_cannot_be_read_is_named_with_its_remedy(tmp_path):
    path = tmp_path / "scores.json"
    with pytest.raises(DataError, match=r"found no file, expected a file\. Run it") as error:
        files.read_file(path, json.loads, "Run it again.")
    assert error.value.where == str(path)
    path.write_text('{"a": 1')
    with pytest.raises(DataError, match=r"found Expecting .*expected a whole file\. Run it"):
        files.read_file(path, json.loads, "Run it again.")
    with pytest.raises(DataError) as caught:
        files.read_file(path, _refuse_field, "Run it again.")
    assert str(caught.value) == f"{path}, train: found 3, expected 4. Run it again."
    path.write_bytes(b"\xff")
    with pytest.raises(DataError, match="found 'utf-8' codec"):
        files.read_file(path, str, "Run it again.")
    path.write_text('{"a": 1}')
    assert files.read_file(path, json.loads, "Run it again.") == {"a": 1}


def _refuse_field(text):
    raise ValueError("train: found 3, expected 4.")


def test_names_in_a_table_stay_text():
    text = "variant,case,region,dice,value\nNA,001,None,0.50,90.10\n"
    [row] = files.parse_csv(text).to_dict("records")
    expected = {"variant": "NA", "case": "001", "region": "None", "dice": 0.5, "value": "90.10"}
    assert row == expected


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "circle", "none", "zero byte"])
def test_what_is_no_file_is_named_and_never_waited_for(kind, tmp_path):
    path = tmp_path / ("a\0b" if kind == "zero byte" else "a")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("nowhere")
    elif kind == "circle":
        path.symlink_to("a")
    found = {
        "folder": "a folder",
        "pipe": "a device, pipe or socket",
        "link": "a link to nowhere, which does not exist",
        "circle": "the error 'Too many levels of symbolic links'",
        "none": "no file",
        "zero byte": "the error 'embedded null byte'",
    }[kind]
    with pytest.raises(DataError) as error:
        files.read_bytes(path, remedy="Mend it.")
    assert f": found {found}, expected a file. Mend it." in str(error.value)


@pytest.mark.parametrize("name", ["a.png", "a b", "é", "a..b"])
def test_names_that_stay_in_their_folder(name):
    assert files.is_file_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "a/b", "a\\b", ".a", "a\n", "a\0", 1, None]
)
def test_names_that_may_lead_elsewhere(name):
    assert not files.is_file_name(name)


def test_json_that_is_nested_too_deeply_is_a_damaged_file(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="expected a whole file"):
        files.read_file(tmp_path / "a.json", json.loads, "Mend it.")


def test_odd_names_and_values_make_one_line():
    error = DataError("a\nb", found="\x1b[31m" + "x" * 9000, expected="c\rd", remedy="Mend it.")
    assert str(error).startswith("a\\nb: found \\x1b[31mxxx")
    assert "expected c\\rd. Mend it." in str(error)
    assert len(str(error)) < 2000
