"""Feed batches to Keras: as a tf.data.Dataset, or as a PyDataset for every backend."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_medseg.data.batches.base import CaseBatches, Inputs

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def tf_dataset(
    batches: CaseBatches, epochs: Sequence[int] = range(1), *, parts: int = 1
) -> tf.data.Dataset:
    """All batches of `epochs` in order, the same in every run, read ahead on another thread.

    A resumed `fit(initial_epoch=k)` is given range(k, n) and sees the same batches as an
    uninterrupted one.

    Args:
        batches: of which every one is read once.
        epochs: their numbers, in order.
        parts: into which each batch is divided, one after the other, for the replicas of a
            tf.distribute strategy. They differ in size by one sample where it does not divide, and
            the first are empty where there are fewer samples than parts.
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

    def divide(*batch: tf.Tensor) -> tf.data.Dataset:
        size = tf.shape(tf.nest.flatten(batch)[0], out_type=tf.int64)[0]

        def part(number: tf.Tensor) -> tuple:
            first, end = size * number // parts, size * (number + 1) // parts
            return tf.nest.map_structure(lambda array: array[first:end], batch)

        return tf.data.Dataset.range(parts).map(part)

    numbers = tf.data.Dataset.range(len(epochs) * steps)
    # One reader: a second one makes both wait for the interpreter's lock.
    whole = numbers.map(load, num_parallel_calls=1, deterministic=True)
    options = tf.data.Options()
    # Nothing here is tuned, and an iterator that is tuned may keep Keras waiting when it is deleted
    # after a validation: until the tuning thread wakes, up to 20 seconds later.
    options.autotune.enabled = False
    divided = whole.flat_map(divide) if parts > 1 else whole
    return divided.prefetch(2 * parts).with_options(options)


def py_dataset(batches: CaseBatches, epochs: Iterable[int] | None = None) -> keras.utils.PyDataset:
    """The batches of the first of `epochs`, and of the next one after every `on_epoch_end`.

    Args:
        batches: of which every one is read once in an epoch.
        epochs: their numbers, in order, the last one for ever; by default 0, 1, 2 and so on.
    """
    import keras

    class Dataset(keras.utils.PyDataset):
        """Adapter that advances to the next epoch when Keras calls on_epoch_end."""

        def __init__(self) -> None:
            super().__init__()
            self.numbers = iter(epochs) if epochs is not None else itertools.count()
            self.epoch = next(self.numbers)

        def __len__(self) -> int:
            return batches.steps_per_epoch

        def __getitem__(self, step: int) -> tuple[Inputs, np.ndarray]:
            return batches.batch(self.epoch, step)

        def on_epoch_end(self) -> None:
            self.epoch = next(self.numbers, self.epoch)

    return Dataset()
