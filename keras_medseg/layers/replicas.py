"""The replicas of a tf.distribute strategy: several devices, each with a part of every batch.

Keras 3 lets every replica normalize, drop and lose for itself, and adds up the gradients. What
depends on the whole batch (statistics of a norm, a Dice over the batch, the random numbers of
Dropout) asks here instead, so that several devices compute what one does. On other backends, and
on one device, there are no replicas: arrays of JAX that are spread over devices are global.
"""

from typing import Any

import keras
from keras import ops


def context() -> Any:
    """The context of a tf.distribute strategy with more than one replica, or None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf  # noqa: PLC0415 - not installed beside other backends

    found = tf.distribute.get_replica_context()
    return found if found is not None and found.num_replicas_in_sync > 1 else None


def count(part: Any) -> Any:
    """Samples of this replica's (n, ...) that are real: none where it has only a stand-in."""
    samples = ops.shape(part)[0]
    filled = getattr(context(), _FILLED, None)
    return samples if filled is None else samples * (1 - filled)


def fill(part: Any) -> Any:
    """A stand-in of zeros where this replica has no sample of a batch that is too small for all.

    TensorFlow's kernels fail on (0, ...). Until the next batch `count` does not count it; the
    outputs of the network are cut back to nothing (`[:0]`).
    """
    empty = ops.cast(ops.equal(ops.shape(part)[0], 0), "int32")
    setattr(context(), _FILLED, empty)
    return ops.concatenate([part, ops.zeros((empty, *part.shape[1:]), part.dtype)], axis=0)


_FILLED = "keras_medseg_filled"
"""Attribute of a replica's context: 1 where it has a stand-in, else 0."""


def whole_batch(part: Any) -> Any:
    """(n, ...) of this replica -> (N, ...), the parts of all replicas in their order.

    They may differ in n, which may be 0. The gradient is that of the sum over all replicas.
    """
    replicas = context()
    if replicas is None:
        return part
    whole = replicas.all_gather(part, axis=0)
    whole.set_shape((None, *part.shape[1:]))  # which gathering forgets
    return whole


def place(part: Any) -> tuple[Any, Any]:
    """(first, N): where the samples of this replica stand in the whole batch, and its size."""
    replicas = context()
    sizes = replicas.all_gather(ops.reshape(count(part), (1,)), axis=0)
    return ops.sum(sizes[: replicas.replica_id_in_sync_group]), ops.sum(sizes)
