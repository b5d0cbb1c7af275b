import numpy as np
import pytest

from keras_medseg.errors import DataError
from keras_medseg.training import checkpoint


@pytest.fixture
def folder(tmp_path):
    for epoch in (1, 2, 3):
        arrays = {"weights/0000": np.full(4, epoch, np.float32)}
        checkpoint.save(tmp_path, epoch, arrays, {"log": list(range(epoch))})
    return tmp_path


def test_the_newest_checkpoint_comes_back_and_older_ones_go(folder):
    arrays, record = checkpoint.load_latest(folder)
    assert record == {"epoch": 3, "log": [0, 1, 2]}
    np.testing.assert_array_equal(arrays["weights/0000"], np.float32([3, 3, 3, 3]))
    assert sorted(p.name for p in folder.glob("*.npz")) == ["epoch_0002.npz", "epoch_0003.npz"]


def test_epochs_are_ordered_by_their_numbers_not_by_their_names(tmp_path):
    for epoch in (9999, 10000, 10001):
        checkpoint.save(tmp_path, epoch, {"w": np.zeros(1)}, {})
    assert checkpoint.load_latest(tmp_path)[1]["epoch"] == 10001
    assert checkpoint.load(tmp_path, 10000)[1]["epoch"] == 10000


def test_nothing_yet_is_none(tmp_path):
    assert checkpoint.load_latest(tmp_path) is None


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(folder, damage):
    path = folder / "epoch_0003.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"flip": content, "cut": content[:-7], "empty": b""}
    path.write_bytes(damaged[damage])
    with pytest.warns(UserWarning, match=r"epoch_0003\.npz"):
        assert checkpoint.load_latest(folder)[1]["epoch"] == 2


def test_only_damaged_checkpoints_are_refused(folder):
    for path in folder.glob("*.npz"):
        path.write_bytes(b"x")
    damaged = pytest.warns(UserWarning, match="epoch_")
    with damaged, pytest.raises(DataError, match="Delete this folder"):
        checkpoint.load_latest(folder)


def test_a_checkpoint_without_checksum_is_a_killed_write(folder):
    (folder / "epoch_0003.npz.sha256").unlink()
    assert checkpoint.load_latest(folder)[1]["epoch"] == 2


def test_the_checkpoint_of_one_epoch_comes_back_or_is_missed(folder):
    arrays, record = checkpoint.load(folder, 2)
    assert record["epoch"] == 2
    np.testing.assert_array_equal(arrays["weights/0000"], np.float32([2, 2, 2, 2]))
    with pytest.raises(DataError, match=r"epoch_0001\.npz: found no whole checkpoint"):
        checkpoint.load(folder, 1)
    (folder / "epoch_0003.npz.sha256").unlink()
    with pytest.raises(DataError, match=r"epoch_0003\.npz: found no whole checkpoint"):
        checkpoint.load(folder, 3)
