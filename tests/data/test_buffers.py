"""buffers.py: memory is used again when nobody holds it, and never where that cannot be known."""

import sys

import numpy as np
import pytest

from keras_medseg.data import buffers
from keras_medseg.data.buffers import COUNTS_TELL, Buffers, counts_tell


@pytest.fixture(params=[True, False])
def reuse(request):
    if request.param and not COUNTS_TELL:
        pytest.skip("this interpreter's reference counts do not tell what is free")
    return request.param


def test_cpython_counts_references():
    assert (sys.implementation.name == "cpython") == COUNTS_TELL
    assert buffers.SHARED._reuse == COUNTS_TELL


def test_arrays_are_aligned_float32_of_their_shape(reuse):
    memory = Buffers(reuse=reuse)
    for shape in ((3, 5), (), (2, 0, 4), (7,)):
        array = memory.array(shape)
        assert (array.shape, array.dtype) == (shape, np.float32)
        assert array.ctypes.data % 64 == 0 or not array.size


def test_what_somebody_holds_is_not_lent_again(reuse):
    memory = Buffers(reuse=reuse)
    first = memory.array((3, 5))
    first[...] = 1
    part = first[1]
    del first
    second = memory.array((3, 5))
    second[...] = 2
    assert part.tolist() == [1] * 5
    assert not np.shares_memory(memory.array((3, 5)), part)


def test_what_nobody_holds_is_lent_again():
    memory = Buffers(reuse=COUNTS_TELL)
    first = memory.array((3, 5))
    address = first.ctypes.data
    del first
    assert (memory.array((3, 5)).ctypes.data == address) or not COUNTS_TELL


def test_number_of_blocks_kept_is_bounded(reuse):
    memory = Buffers(kept=2, reuse=reuse)
    held = [memory.array((4,)) for _ in range(5)]
    for number, array in enumerate(held):
        array[...] = number
    assert [array[0] for array in held] == [0, 1, 2, 3, 4]
    assert len(memory._blocks) == (2 if reuse else 0)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_counts_that_do_not_tell_are_noticed(count, monkeypatch):
    """Counts that never change say either that nothing is held (2) or that everything is."""
    monkeypatch.setattr(sys, "getrefcount", lambda block: count)
    assert not counts_tell()


def test_an_interpreter_without_counts_is_noticed(monkeypatch):
    monkeypatch.delattr(sys, "getrefcount")
    assert not counts_tell()
