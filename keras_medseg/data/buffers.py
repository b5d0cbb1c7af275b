"""Reuse the memory of earlier batches once nothing refers to it any more.

Allocating new memory pages takes as much time as all arithmetic on a batch. CPython's reference
counts tell whether a block is free; other interpreters have no such counts, and later versions may
count differently (tested: 3.11, 3.12, 3.13). A check at import decides: if the counts cannot be
trusted, every array gets its own memory, which only costs time.
"""

import math
import sys
import threading

import numpy as np

_ALIGNMENT_BYTES = 64


class Buffers:
    """Lends out float32 arrays; a block whose array, views and tensors are gone is lent again."""

    def __init__(self, kept: int = 12, *, reuse: bool | None = None) -> None:
        """Nothing is allocated yet.

        Args:
            kept: largest number of blocks to keep.
            reuse: whether blocks are lent again; by default if reference counts can be trusted.
        """
        self._kept = kept
        self._reuse = COUNTS_TELL if reuse is None else reuse
        self._blocks: list[np.ndarray] = []
        self._lock = threading.Lock()

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """An uninitialized float32 array, aligned so that it becomes a tensor without a copy."""
        size = math.prod(shape) * 4
        with self._lock:
            block = self._block(size + _ALIGNMENT_BYTES)
        start = -block.ctypes.data % _ALIGNMENT_BYTES
        return block[start : start + size].view(np.float32).reshape(shape)

    def _block(self, size: int) -> np.ndarray:
        if not self._reuse:
            return np.empty(size, np.uint8)
        for i in range(len(self._blocks)):
            # Two references: the list and the call. An array, a view or a tensor would be a third.
            if self._blocks[i].size == size and sys.getrefcount(self._blocks[i]) == 2:
                return self._blocks[i]
        block = np.empty(size, np.uint8)
        self._blocks = [*self._blocks, block][-self._kept :]
        return block


def counts_tell() -> bool:
    """Whether reference counts show, on this interpreter, that a block of `Buffers` is free.

    True only if a block is not lent again while an array, a view or a memoryview holds it, and is
    lent again afterwards.
    """
    try:
        buffers = Buffers(reuse=True)
        array = buffers.array((4,))
        address = array.ctypes.data
        held = buffers.array((4,)).ctypes.data == address
        view = array[1:]
        del array
        held |= buffers.array((4,)).ctypes.data == address
        other = view.data
        del view
        held |= buffers.array((4,)).ctypes.data == address
        del other
        return not held and buffers.array((4,)).ctypes.data == address
    except AttributeError:  # No sys.getrefcount: not CPython.
        return False


COUNTS_TELL = counts_tell()
"""Whether the reference counts of this interpreter can be trusted."""

SHARED = Buffers()
"""The buffers that all batches share."""
