"""What every kind of batches shares: the protocol, order and memory, and what feeds Keras.

Batches are a pure function (seed, epoch, step) -> batch: data/slices.py, data/patches.py and
data/pictures.py have one class each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from keras_medseg.data.store import Store

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class Batches(Protocol):
    """What a training needs to know of its data.

    targets: name -> label codes; one channel of y each, in this order.
    """

    store: Store
    case_ids: Sequence[str]
    targets: Mapping[str, tuple[int, ...]]

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch, the last of which may be smaller."""

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """x (N, ..., C) and y (N, ..., targets), float32, of step `step` of `epoch`.

        What a training step is to do to its crops itself comes with x, as a tuple of arrays.
        """


@lru_cache(maxsize=4)
def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Sample numbers 0 .. count - 1 in the random order of that epoch: (count,), read-only."""
    drawn = np.random.default_rng((seed, epoch)).permutation(count)
    # The array is cached: whoever wrote to it would change every later call.
    drawn.flags.writeable = False
    return drawn


def tf_dataset(batches: Batches, epochs: Sequence[int] = range(1)) -> tf.data.Dataset:
    """All batches of `epochs`, in order and the same in every run, read ahead on other threads.

    A later `fit(initial_epoch=k)` gets range(k, n) and sees what an unbroken one would have seen.
    """
    import tensorflow as tf

    steps = batches.steps_per_epoch
    first = batches.batch(epochs[0], 0)
    arrays = tf.nest.flatten(first)

    def read(number: np.ndarray) -> list[np.ndarray]:
        return tf.nest.flatten(batches.batch(epochs[int(number) // steps], int(number) % steps))

    def load(number: tf.Tensor) -> tuple:
        tensors = tf.numpy_function(read, [number], [tf.float32] * len(arrays), stateful=False)
        for tensor, array in zip(tensors, arrays):
            tensor.set_shape((None, *array.shape[1:]))
        return tf.nest.pack_sequence_as(first, tensors)

    numbers = tf.data.Dataset.range(len(epochs) * steps)
    # One reader: a second one makes both wait for the interpreter's lock.
    return numbers.map(load, num_parallel_calls=1, deterministic=True).prefetch(2)


def py_dataset(batches: Batches, epoch: int = 0) -> keras.utils.PyDataset:
    """The batches of `epoch`, and of one epoch more after every `on_epoch_end`."""
    import keras

    class Dataset(keras.utils.PyDataset):
        """Keras calls on_epoch_end; everything else is `batches`."""

        def __init__(self) -> None:
            super().__init__()
            self.epoch = epoch

        def __len__(self) -> int:
            return batches.steps_per_epoch

        def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
            return batches.batch(self.epoch, step)

        def on_epoch_end(self) -> None:
            self.epoch += 1

    return Dataset()
