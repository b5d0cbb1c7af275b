"""store.py: what is stored, and that nothing but a sound store is ever trusted."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from keras_medseg.data import decoding, store
from keras_medseg.data.cases import CaseArrays
from keras_medseg.data.store import DiskFullError, StoredCase, open_store, prepare
from keras_medseg.errors import DataError

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    # A plain module, so that worker processes can import its readers.
    monkeypatch.syspath_prepend(HERE)
    import toy_cases

    return toy_cases


@pytest.fixture
def source(tmp_path, toys):
    toys.write_cases(tmp_path / "source")
    return tmp_path / "source"


def _prepare(toys, source, **options):
    return prepare(toys.find_cases(source), toys.read, source.parent / "store", **options)


def _process(toys, source, reader="read", workers=1, *limit) -> subprocess.Popen:
    arguments = [source, source.parent / "store", reader, workers, *limit]
    command = [sys.executable, HERE / "toy_cases.py", *map(str, arguments)]
    root = {"PYTHONPATH": str(HERE.parents[1]), "PATH": ""}
    return subprocess.Popen(
        command, env=root, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _wait_for(condition) -> None:
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("nothing happened within half a minute")


def _single(tmp_path, toys, image, labels=None):
    case = toys.write_case(tmp_path / "source", "a", np.asarray(image), labels)
    return prepare([case], toys.read, tmp_path / "store").cases["a"]


# What is stored


def test_stores_the_box_of_what_is_not_zero(tmp_path, toys):
    image, labels = toys.toy_arrays(0)
    labels[1, 3, 6] = 2  # One labelled voxel outside the brain's box 2:7, 3:8, 1:6.
    stored = _single(tmp_path, toys, image, labels)
    assert stored.full_shape == (8, 9, 7)
    assert stored.origin == (1, 3, 1)
    assert stored.image.shape == (6, 6, 5, 2)
    assert stored.image.dtype == np.int16
    assert stored.labels.dtype == np.uint8
    # Slices first: (X, Y, Z, C) -> (Z, X, Y, C).
    assert np.array_equal(stored.image, image[1:7, 3:8, 1:7].transpose(2, 0, 1, 3))
    assert np.array_equal(stored.labels, labels[1:7, 3:8, 1:7].transpose(2, 0, 1))
    assert image.sum() == stored.image.sum()
    assert labels.sum() == stored.labels.sum()


def test_boxes_of_slices_are_those_of_their_own_voxels(tmp_path, toys):
    image = np.zeros((6, 7, 3, 1), np.int16)
    image[1, 2, 0] = image[4, 5, 0] = 9
    image[2, 3, 2] = 9
    labels = np.zeros((6, 7, 3), np.uint8)
    labels[3:5, 2, 1] = 1
    stored = _single(tmp_path, toys, image, labels)
    assert stored.origin == (1, 2, 0)
    assert stored.image_boxes == ((0, 4, 0, 4), (0, 0, 0, 0), (1, 2, 1, 2))
    assert stored.label_boxes == ((0, 0, 0, 0), (2, 4, 0, 1), (0, 0, 0, 0))


def test_statistics_are_of_the_non_zero_voxels_of_each_channel(tmp_path, toys):
    image = np.zeros((4, 1, 1, 2), np.int16)
    image[:, 0, 0, 0] = 0, 2, 4, 6
    image[:, 0, 0, 1] = 5, 0, 5, 0
    stored = _single(tmp_path, toys, image)
    # Mean (2 + 4 + 6) / 3 = 4, variance (4 + 0 + 4) / 3.
    expected = {"min": 2.0, "max": 6.0, "mean": 4.0, "std": (8 / 3) ** 0.5}
    assert stored.statistics[0] == pytest.approx(expected, rel=1e-12)
    assert stored.statistics[1] == {"min": 5.0, "max": 5.0, "mean": 5.0, "std": 0.0}
    assert stored.labels is None
    assert not stored.labelled


def test_a_channel_of_zeros_has_statistics_of_zeros(tmp_path, toys):
    image = np.zeros((2, 2, 2, 2), np.int16)
    image[..., 0] = 1
    stored = _single(tmp_path, toys, image)
    assert stored.statistics[1] == {"min": 0.0, "max": 0.0, "mean": 0.0, "std": 0.0}


def test_geometry_and_origin_are_kept(source, toys):
    stored = _prepare(toys, source).cases["case0"]
    assert np.array_equal(stored.affine, np.diag([-1.0, -1.0, 3.0, 1.0]))
    assert stored.axis_codes == ("L", "P", "S")
    assert stored.spacing_mm == (1.0, 1.0, 3.0)
    assert (stored.id, stored.dataset, stored.group) == ("case0", "toy", "case0")


def test_equal_voxels_are_recognized_under_other_names_types_and_margins(tmp_path, toys):
    image, labels = toys.toy_arrays(0)
    other = image.copy()
    other[4, 5, 3, 0] += 1
    source = tmp_path / "source"
    cases = [
        toys.write_case(source, "a", image, labels),
        toys.write_case(source, "b", image.astype(np.float32), None),
        toys.write_case(source, "c", np.pad(image, ((1, 1), (0, 2), (3, 0), (0, 0))), None),
        toys.write_case(source, "d", other, None),
    ]
    stored = prepare(cases, toys.read, tmp_path / "store").cases
    assert stored["a"].voxels_sha256 == stored["b"].voxels_sha256 == stored["c"].voxels_sha256
    assert stored["a"].voxels_sha256 != stored["d"].voxels_sha256


def test_fingerprint_names_the_content(tmp_path, source, toys):
    first = _prepare(toys, source)
    cases = toys.find_cases(source)
    again = prepare(cases[::-1], toys.read, tmp_path / "again")
    assert again.fingerprint == first.fingerprint == open_store(tmp_path / "again").fingerprint
    fewer = prepare(cases[1:], toys.read, tmp_path / "fewer")
    image, labels = toys.toy_arrays(0)
    labels[3, 4, 2] ^= 1
    toys.write_case(source, "case0", image, labels)
    changed = _prepare(toys, source)
    assert len({first.fingerprint, fewer.fingerprint, changed.fingerprint}) == 3


def test_an_open_store_is_read_only_and_travels_to_other_processes(source, toys):
    made = _prepare(toys, source)
    case = made.cases["case0"]
    with pytest.raises(ValueError, match="read-only"):
        case.image[0] = 0
    packed = pickle.dumps(case)
    assert b"memmap" not in packed
    assert np.array_equal(pickle.loads(packed).image, case.image)


# Decoding once


def test_nothing_is_decoded_twice(source, toys):
    calls = []
    _prepare(toys, source, progress=lambda *call: calls.append(call))
    _prepare(toys, source, progress=lambda *call: calls.append(call))
    assert toys.decoded(source) == ["case0", "case1", "case2", "case3"]
    assert [call[:2] for call in calls] == [(1, 4), (2, 4), (3, 4), (4, 4)] * 2
    assert {call[2] for call in calls} == set(toys.decoded(source))


def test_several_processes_store_what_one_stores(source, toys):
    alone = prepare(toys.find_cases(source), toys.read, source.parent / "one", workers=1)
    assert _prepare(toys, source, workers=3).fingerprint == alone.fingerprint


@pytest.mark.parametrize("change", ["voxels", "time", "labels gone"])
def test_a_changed_source_is_decoded_again_and_no_other(source, toys, change):
    _prepare(toys, source)
    cases = toys.find_cases(source)
    if change == "voxels":
        toys.write_case(source, "case1", np.ones((2, 2, 2, 2), np.int16), np.ones((2, 2, 2), "u1"))
    elif change == "time":
        cases[1].images[0].touch()
    else:
        cases[1] = toys.Case("case1", "toy", cases[1].images, None, "case1")
    made = prepare(cases, toys.read, source.parent / "store")
    assert toys.decoded(source) == ["case0", "case1", "case1", "case2", "case3"]
    assert made.cases["case1"].labelled == (change != "labels gone")
    assert made.cases["case1"].image.shape[0] == (2 if change == "voxels" else 5)


def test_another_reader_is_another_source(source, toys):
    _prepare(toys, source)
    (source / "go").touch()
    prepare(toys.find_cases(source), toys.read_until_released, source.parent / "store")
    assert len(toys.decoded(source)) == 8


@pytest.mark.parametrize(
    ("way", "workers"), [("method", 2), ("option", 1), ("object as option", 2)]
)
def test_another_setting_of_the_reader_is_another_source(source, toys, way, workers):
    """Decoded again when the setting changes, and kept when it does not."""
    for by in (1, 5, 5):
        read = {
            "method": toys.Brighter(by).read,
            "option": partial(toys.read_brighter, by=by),
            "object as option": partial(toys.read_with, reader=toys.Brighter(by)),
        }[way]
        made = prepare(toys.find_cases(source), read, source.parent / "store", workers=workers)
    assert made.cases["case0"].image.max() == toys.toy_arrays(0)[0].max() + 5
    assert len(toys.decoded(source)) == 2 * len(made.cases)


def test_names_of_readers(toys):
    brighter = toys.Brighter(3)
    name = store.reader_name
    assert name(toys.read) == "toy_cases.read"
    assert name(toys.Brighter.read_plain) == "toy_cases.Brighter.read_plain"
    assert name(brighter.read) == "Brighter(by=3).read"
    assert name(partial(brighter.read, size=2)) == "Brighter(by=3).read(size=2)"
    options = {"reader": brighter, "fit": "pad"}
    assert name(partial(toys.read_with, 7, **options)) == (
        "toy_cases.read_with(7, fit='pad', reader=Brighter(by=3))"
    )


def test_a_reader_whose_settings_are_not_known_is_refused(source, toys):
    class Plain:
        def read(self, case):
            return toys.read(case)

    @dataclass
    class Changeable(Plain):
        by: int = 1

    for reader in (Plain(), Changeable()):
        expected = f"reader: found a method of {type(reader).__name__}, expected .* frozen"
        with pytest.raises(ValueError, match=expected):
            prepare(toys.find_cases(source), reader.read, source.parent / "store")
    assert not (source.parent / "store").exists()


# In memory


FIELDS = [field.name for field in fields(StoredCase) if field.name not in ("folder", "in_memory")]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("resized", [True, False])
def test_a_case_in_memory_is_that_of_a_store(tmp_path, toys, labelled, resized):
    image, labels = toys.toy_arrays(0)
    labels[1, 3, 6] = 2
    case = toys.write_case(tmp_path / "source", "a", image, labels if labelled else None)
    arrays = toys.read(case)
    arrays = replace(
        arrays,
        affine=np.float32(arrays.affine),
        source_shape=(16, 18, 14) if resized else None,
    )
    stored = prepare([case], lambda case: arrays, tmp_path / "store", workers=1).cases["a"]
    made = StoredCase.from_arrays(case, arrays)
    for name in FIELDS:
        one, other = getattr(made, name), getattr(stored, name)
        assert type(one) is type(other), name
        assert np.array_equal(one, other) if name == "affine" else one == other, name
    assert made.source_shape == ((16, 18, 14) if resized else (8, 9, 7))
    for one, other in (
        (made.image, stored.image),
        (made.labels, stored.labels),
        (made.full_image(), stored.full_image()),
    ):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            assert one.flags.c_contiguous
            np.testing.assert_array_equal(one, other)
    assert made.folder is None
    assert made.labelled == labelled


def test_a_case_in_memory_is_its_own_and_read_only(toys, tmp_path):
    image = np.arange(1, 13, dtype=np.uint8).reshape(4, 3, 1, 1)
    case = toys.Case("a", "toy", (), None, "a")
    arrays = CaseArrays(image, image[..., 0].copy(), np.eye(4), ("L", "P", "S"))
    made = StoredCase.from_arrays(case, arrays)
    image[...] = 0
    assert made.image.min() == 1
    for array in (made.image, made.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    again = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(again.image, made.image)
    np.testing.assert_array_equal(again.labels, made.labels)


def test_a_case_in_memory_is_checked_as_any_other(toys):
    case = toys.Case("a", "toy", (), None, "a")
    empty = CaseArrays(np.zeros((2, 2, 2, 1), np.int16), None, np.eye(4), ("L", "P", "S"))
    with pytest.raises(DataError, match="a: found an image of zeros"):
        StoredCase.from_arrays(case, empty)


# Images


def test_pixels_and_mask_of_one_slice(tmp_path, toys):
    image = np.zeros((5, 4, 1, 3), np.uint8)
    image[1:4, 2:, 0] = np.arange(1, 19).reshape(3, 2, 3)
    labels = np.zeros((5, 4, 1), np.uint8)
    labels[2, 3] = 1
    stored = _single(tmp_path, toys, image, labels)
    assert stored.image.shape == (1, 3, 2, 3)
    np.testing.assert_array_equal(stored.pixels, image[:, :, 0])
    np.testing.assert_array_equal(stored.mask, labels[:, :, 0])


def test_a_volume_has_no_pixels_and_an_unlabelled_case_no_mask(tmp_path, toys):
    volume = _single(tmp_path, toys, *toys.toy_arrays(0))
    for name in ("pixels", "mask"):
        with pytest.raises(ValueError, match="case a: found 7 slices, expected one"):
            getattr(volume, name)
    unlabelled = StoredCase.from_arrays(
        toys.Case("b", "toy", (), None, "b"),
        CaseArrays(np.ones((2, 2, 1, 1), np.uint8), None, np.eye(4), ("L", "P", "S")),
    )
    with pytest.raises(ValueError, match="case b: found no labels"):
        _ = unlabelled.mask
    with pytest.raises(ValueError, match="case b: found no labels"):
        unlabelled.full_labels()


# What is damaged


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", ["case1.image.npy", "case1.labels.npy"])
@pytest.mark.parametrize("damage", [_flip, _cut, Path.unlink])
def test_a_damaged_array_is_refused_and_decoded_again(source, toys, name, damage):
    before = _prepare(toys, source)
    damage(before.folder / name)
    with pytest.raises(DataError, match=name):
        open_store(before.folder)
    after = _prepare(toys, source)
    assert after.fingerprint == before.fingerprint == open_store(after.folder).fingerprint
    assert toys.decoded(source) == ["case0", "case1", "case1", "case2", "case3"]


@pytest.mark.parametrize("damage", [_flip, _cut, Path.unlink])
def test_a_damaged_seal_of_a_case_is_decoded_again(source, toys, damage):
    damage(_prepare(toys, source).folder / "case1.json")
    _prepare(toys, source)
    assert toys.decoded(source) == ["case0", "case1", "case1", "case2", "case3"]


def test_a_seal_with_an_edited_number_is_not_believed(source, toys):
    folder = _prepare(toys, source).folder
    for name in ("case1.json", "manifest.json"):
        text = (folder / name).read_text()
        assert '"origin": [2, 3, 1]' in text
        (folder / name).write_text(text.replace('"origin": [2, 3, 1]', '"origin": [2, 2, 1]'))
    with pytest.raises(DataError, match="wrong sha256"):
        open_store(folder)
    assert _prepare(toys, source).cases["case1"].origin == (2, 3, 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 1}'])
def test_a_manifest_that_is_none_is_refused(source, toys, content):
    folder = _prepare(toys, source).folder
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match=r"manifest\.json"):
        open_store(folder)


def test_a_store_of_another_format_is_rebuilt(source, toys, monkeypatch):
    with monkeypatch.context() as other:
        other.setattr(store, "FORMAT", 10_000)
        folder = _prepare(toys, source, workers=1).folder
    with pytest.raises(DataError, match="found format 10000, expected 5"):
        open_store(folder)
    _prepare(toys, source)
    open_store(folder)
    assert len(toys.decoded(source)) == 8


def test_a_store_of_another_version_of_the_package_is_kept(source, toys, monkeypatch):
    """A terabyte is not decoded again for a release that changes nothing in it."""
    with monkeypatch.context() as other:
        other.setattr(store, "__version__", "0.1.0")
        folder = _prepare(toys, source, workers=1).folder
    _prepare(toys, source)
    assert len(open_store(folder).cases) == 4
    assert len(toys.decoded(source)) == 4


def test_no_store_is_said_to_be_none(tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json"):
        open_store(tmp_path)


# Interruption, company, and no room


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_preparation_goes_on_where_it_stopped(source, toys, workers):
    folder = source.parent / "store"
    process = _process(toys, source, "read_until_released", workers)
    _wait_for(lambda: "case2" in toys.decoded(source) and (folder / "case1.json").exists())
    process.kill()
    process.wait()
    # A worker that was only starting goes on with a case of its own before it ends.
    _wait_for(lambda: not _of_session(process.pid))
    before = toys.decoded(source)
    missing = [f"case{i}" for i in range(4) if not (folder / f"case{i}.json").exists()]
    assert "case2" in missing
    assert "case1" not in missing
    with pytest.raises(DataError, match="no manifest"):
        open_store(folder)
    (source / "go").touch()
    assert _process(toys, source, "read_until_released", workers).wait() == 0
    assert toys.decoded(source) == sorted(before + missing)
    assert len(open_store(folder).cases) == 4
    assert not list(folder.glob(".*"))


def test_only_what_a_killed_preparation_left_is_removed(source, toys):
    folder = source.parent / "store"
    left = (".case0.image.npy.12", ".case0.labels.npy.7", ".case1.json.345", ".manifest.json.6")
    users = (".gitignore", ".bashrc", ".case0.json", ".case0.json.swp", ".notes.npy.12")
    (folder / ".git").mkdir(parents=True)
    for name in (*left, *users, ".git/HEAD"):
        (folder / name).write_text("kept?")
    _prepare(toys, source)
    assert {path.name for path in folder.glob(".*")} == {*users, ".git"}
    assert (folder / ".git" / "HEAD").exists()


def _of_session(leader: int) -> list[int]:
    """The processes of a session that still run; one that has ended has no command line."""

    def runs(pid: int) -> bool:
        try:
            return os.getsid(pid) == leader and bool(Path(f"/proc/{pid}/cmdline").read_bytes())
        except OSError:
            return False

    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if runs(int(path.name))]


def test_two_preparations_of_one_folder_share_the_work(source, toys):
    first = _process(toys, source, "read_until_released")
    _wait_for(lambda: "case2" in toys.decoded(source))
    second = _process(toys, source, "read_until_released")
    assert "waiting" in second.stderr.readline()
    (source / "go").touch()
    assert first.wait() == second.wait() == 0
    assert toys.decoded(source) == ["case0", "case1", "case2", "case3"]
    open_store(source.parent / "store")


def test_every_case_that_fails_is_named_and_the_others_are_kept(source, toys):
    folder = source.parent / "store"
    for workers in (1, 2):
        with pytest.raises(DataError) as caught:
            prepare(toys.find_cases(source), toys.read_but_fail, folder, workers=workers)
        message = str(caught.value)
        assert "case1 (cannot read case1); case3 (cannot read case3)" in message
        assert "\n" not in message
        assert toys.decoded(source) == ["case0", "case2"]
    with pytest.raises(DataError, match="no manifest"):
        open_store(folder)


def test_a_preparation_that_fails_leaves_no_manifest_of_the_old_store(source, toys):
    folder = _prepare(toys, source).folder
    with pytest.raises(DataError, match="case1"):
        prepare(toys.find_cases(source), toys.read_but_fail, folder, workers=1)
    with pytest.raises(DataError, match="no manifest"):
        open_store(folder)


def test_a_worker_that_dies_is_an_error_that_names_its_case(source, toys):
    with pytest.raises(DataError, match=r"case1.*memory"):
        prepare(toys.find_cases(source), toys.read_and_die, source.parent / "store", workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_an_error_with_figures_and_leaves_nothing_half(source, toys, workers):
    # An image needs 5 * 5 * 5 * 2 * 2 + 128 = 628 bytes.
    process = _process(toys, source, "read", workers, 500)
    _, stderr = process.communicate()
    assert process.returncode == 28
    assert ".image.npy: found " in stderr
    assert "MB free, expected 0.0 MB. Free space" in stderr
    assert sorted(path.name for path in (source.parent / "store").iterdir()) == ["lock"]
    assert len(_prepare(toys, source).cases) == 4


def test_too_little_room_is_noticed_before_decoding(source, toys, monkeypatch):
    usage = shutil.disk_usage(source)._replace(free=10)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFullError):
        _prepare(toys, source)
    assert toys.decoded(source) == []


def test_too_little_room_for_the_rest_is_noticed_after_the_first_case(source, toys, monkeypatch):
    # Three more of 5 * 5 * 5 * (2 * 2 + 1) bytes and two headers of 128 are 2,643.
    usage = shutil.disk_usage(source)._replace(free=2600)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFullError):
        _prepare(toys, source, workers=1)
    assert toys.decoded(source) == ["case0"]


# Arguments and readers


@pytest.mark.parametrize("id", ["", ".hidden", "a/b", ".."])
def test_ids_must_be_file_names(source, toys, id):
    with pytest.raises(ValueError, match="plain file name"):
        prepare([toys.Case(id, "toy", (), None, "g")], toys.read, source.parent / "store")


def test_ids_must_be_unique_and_there_must_be_some(source, toys):
    case = toys.find_cases(source)[0]
    with pytest.raises(ValueError, match="case0 more than once"):
        prepare([case, case], toys.read, source.parent / "store")
    with pytest.raises(ValueError, match="at least one"):
        prepare([], toys.read, source.parent / "store")


@pytest.mark.parametrize(
    ("image", "labels", "found"),
    [
        (np.ones((2, 2, 2), np.int16), None, r"shape \(2, 2, 2\)"),
        (np.ones((2, 2, 2, 1), bool), None, "type bool"),
        (np.zeros((2, 2, 2, 1), np.int16), None, "an image of zeros"),
        (np.full((2, 2, 2, 1), np.inf, np.float32), None, "not finite"),
        (np.ones((2, 2, 2, 1), np.int16), np.ones((2, 2, 3), np.uint8), r"\(2, 2, 3\)"),
        (np.ones((2, 2, 2, 1), np.int16), np.ones((2, 2, 2), np.int16), "int16"),
    ],
)
def test_arrays_that_no_reader_should_give_are_refused(tmp_path, toys, image, labels, found):
    def read(case):
        return CaseArrays(image, labels, np.eye(4), ("L", "P", "S"))

    case = toys.write_case(tmp_path, "a", np.ones(1), None)
    with pytest.raises(DataError, match=found):
        prepare([case], read, tmp_path / "store")


def test_a_missing_source_names_the_case_and_the_file(source, toys):
    cases = toys.find_cases(source)
    cases[1].images[0].unlink()
    with pytest.raises(DataError, match=r"case1 .*case1_image\.npy"):
        prepare(cases, toys.read, source.parent / "store")


def test_signals_of_the_terminal_do_not_reach_workers(monkeypatch):
    calls = []
    monkeypatch.setattr(decoding.signal, "signal", lambda *call: calls.append(call))
    monkeypatch.setattr(decoding, "_exit_with_parent", lambda: None)
    decoding._start_worker()
    assert calls == [(signal.SIGINT, signal.SIG_IGN)]


def test_a_script_without_main_guard_is_told_so_and_does_not_hang(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from keras_medseg.data import store\n"
        "from keras_medseg.data.datasets import brats\n"
        "from keras_medseg.phantoms import brats as phantom\n"
        f"folder = Path({str(tmp_path / 'data')!r})\n"
        "if not folder.exists():\n"
        "    phantom.write_brats(folder, cases=2, shape=(40, 40, 26))\n"
        "cases = brats.Brats().find(folder).cases\n"
        f"store.prepare(cases, brats.Brats().read, {str(tmp_path / 'store')!r}, workers=2)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode != 0
    assert "if __name__ == '__main__'" in done.stderr


def test_an_estimate_is_the_size_of_the_store(tmp_path, monkeypatch):
    """Of all cases, where all are tried; nothing is written. One case in three: three times it."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import toy_cases

    cases = toy_cases.write_cases(tmp_path / "source", 3)
    told = store.estimate(cases, toy_cases.read)
    made = store.prepare(cases, toy_cases.read, tmp_path / "store", workers=1)
    sizes = [case.image.nbytes + case.labels.nbytes for case in made.cases.values()]
    assert sorted(told.bytes_each) == sorted(sizes)
    assert f"{sum(sizes) / 1e9:.2f} GB for 3 cases" in str(told)
    assert len(store.estimate(cases, toy_cases.read, tried=2).bytes_each) == 2


def test_a_copy_is_the_store_and_a_damaged_file_is_not_copied(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import toy_cases

    cases = toy_cases.write_cases(tmp_path / "source", 2)
    made = store.prepare(cases, toy_cases.read, tmp_path / "store", workers=1)
    copied = store.copy(made, tmp_path / "copy")
    assert copied.folder == tmp_path / "copy"
    assert store.open_store(tmp_path / "copy").fingerprint == made.fingerprint
    first, second = sorted((tmp_path / "copy").glob("*.image.npy"))
    written = first.stat().st_mtime_ns
    second.write_bytes(b"broken")
    store.copy(made, tmp_path / "copy")
    assert first.stat().st_mtime_ns == written
    store.open_store(tmp_path / "copy")

    damaged = made.folder / first.name
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(DataError, match=f"{first.name}: found .* expected"):
        store.copy(made, tmp_path / "other")
    assert not (tmp_path / "other" / store.MANIFEST).exists()


def test_a_store_that_was_just_verified_is_opened_by_its_fingerprint(tmp_path, monkeypatch):
    """Its files are not read again, but their sizes and the fingerprint must be right."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import toy_cases

    cases = toy_cases.write_cases(tmp_path / "source", 2)
    made = store.prepare(cases, toy_cases.read, tmp_path / "store", workers=1)
    with mock.patch.object(store, "sha256_of", side_effect=AssertionError):
        opened = store.open_store(made.folder, verified=made.fingerprint)
        assert opened.fingerprint == made.fingerprint
        with pytest.raises(DataError, match="found fingerprint"):
            store.open_store(made.folder, verified="0" * 64)
        next(made.folder.glob("*.labels.npy")).write_bytes(b"short")
        with pytest.raises(DataError, match="bytes instead of"):
            store.open_store(made.folder, verified=made.fingerprint)
