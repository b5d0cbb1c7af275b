import json

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
    path.write_bytes(b"\xff")
    with pytest.raises(DataError, match="found 'utf-8' codec"):
        files.read_file(path, str, "Run it again.")
    path.write_text('{"a": 1}')
    assert files.read_file(path, json.loads, "Run it again.") == {"a": 1}


def test_names_in_a_table_stay_text():
    text = "variant,case,region,dice,value\nNA,001,None,0.50,90.10\n"
    [row] = files.parse_csv(text).to_dict("records")
    expected = {"variant": "NA", "case": "001", "region": "None", "dice": 0.5, "value": "90.10"}
    assert row == expected
