"""Several devices for one training: tf.distribute on TensorFlow, keras.distribution on JAX.

Neither changes the recipe, nor what is computed beyond rounding: a batch is that of one device, in
the same order and augmented alike, and is divided among the devices sample by sample. What depends
on the whole batch is computed of all of it (`layers.replicas`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_medseg.data.batches.base import CaseBatches
from keras_medseg.data.batches.feeding import py_dataset, tf_dataset
from keras_medseg.layers import replicas
from keras_medseg.recipe import Train
from keras_medseg.training.hosts import Hosts

_OF_A_REPLICA = (
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "gradient_accumulation_steps",
    "use_ema",
)
"""Options that Keras' optimizers apply to each replica's own gradient, before they are added."""


@dataclass(frozen=True)
class Devices:
    """The devices of a training.

    Attributes:
        names: as the backend calls them; empty for its own choice, a single device.
        strategy: of tf.distribute or keras.distribution; None for a single device.
        hosts: the processes among which they are divided, if there are several.
    """

    names: tuple[str, ...] = ()
    strategy: Any = None
    hosts: Hosts | None = None

    @property
    def count(self) -> int:
        """Number of devices."""
        return max(len(self.names), 1)

    @property
    def first(self) -> bool:
        """Whether this process writes: it is the only one, or process 0."""
        return self.hosts is None or self.hosts.first

    def meet(self, place: str) -> None:
        """Wait for the other processes, if there are some."""
        if self.hosts is not None:
            self.hosts.meet(place)

    def part(self) -> None:
        """Wait until the other processes are done too, if there are some."""
        if self.hosts is not None:
            self.hosts.part()

    def agree(self, folder: Path, found: str) -> None:
        """Check that all processes found the same in a folder, which they share.

        Raises:
            ValueError: they did not.
        """
        if self.hosts is not None:
            self.hosts.agree(str(folder), found)

    @contextmanager
    def first_alone(self, place: str) -> Iterator[None]:
        """What is done in here is done by process 0 first, then by the others."""
        if not self.first:
            self.meet(place)
        yield
        if self.first:
            self.meet(place)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Networks that are made and fitted in here use these devices."""
        with (
            self.strategy.scope() if self.strategy is not None else nullcontext(),
            self.hosts.explained() if self.hosts is not None else nullcontext(),
        ):
            yield

    def feed(self, batches: CaseBatches, epochs: Sequence[int]) -> Any:
        """The batches of `epochs`, one after the other, for `fit` in the scope."""
        if keras.backend.backend() != "tensorflow":
            return py_dataset(batches, epochs)
        if self.strategy is None:
            return tf_dataset(batches, epochs)
        return self.strategy.distribute_datasets_from_function(
            lambda _: tf_dataset(batches, epochs, parts=self.count)
        )

    def check(self, train: Train) -> None:
        """Check that a training can use these devices.

        Raises:
            ValueError: naming the field.
        """
        count = self.count
        if count == 1:
            return
        if train.batch_size % count:
            dividing = [n for n in range(1, train.batch_size + 1) if not train.batch_size % n]
            raise ValueError(
                f"--devices: found {count} for batches of {train.batch_size}, expected a number "
                f"that divides it: {', '.join(map(str, dividing))}."
            )
        odd = sorted({*train.optimizer_options} & {*_OF_A_REPLICA})
        if odd and keras.backend.backend() == "tensorflow":
            raise ValueError(
                f"train.optimizer_options: found {odd[0]} with {count} devices, expected one. On "
                "TensorFlow Keras applies it to the gradient of each device, which is another "
                "training. Use one device, or KERAS_BACKEND=jax."
            )


ONE = Devices()


class _WholeBatches(keras.distribution.DataParallel):
    """Keras' data parallelism of JAX for batches of any size: see `spread`.

    Keras divides a batch before the step, with one layout for all, which a last batch that does not
    divide has not. Here every device is given the whole batch.
    """

    def get_data_layout(self, data_shape: tuple[int, ...]) -> keras.distribution.TensorLayout:
        """On every device as a whole."""
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)

    def divided(self, rank: int) -> keras.distribution.TensorLayout:
        """Divided along the first axis."""
        axes = [self.batch_dim_name, *[None] * (rank - 1)]
        return keras.distribution.TensorLayout(axes, self.device_mesh)


class _Spread(keras.layers.Layer):
    """Divides a batch among the devices of JAX, if it divides; else each computes the whole batch.

    All that follows is divided alike: JAX divides the arrays and keeps what is computed of them, so
    that statistics and losses are those of the whole batch. On TensorFlow the batch is divided
    already; here a replica without a sample is given a stand-in (`replicas.fill`).
    """

    def call(self, inputs: Any) -> Any:
        """(N, ..., C) -> the same."""
        if replicas.context() is not None:
            return replicas.fill(inputs)
        used = keras.distribution.distribution()
        if not isinstance(used, _WholeBatches) or inputs.shape[0] % used.device_mesh.shape[0]:
            return inputs
        return keras.distribution.distribute_tensor(inputs, used.divided(len(inputs.shape)))


class _Cut(keras.layers.Layer):
    """Cuts outputs back to as many samples as there are inputs."""

    def call(self, outputs: Any, inputs: Any) -> Any:
        """(N, ..., C), (n, ...) -> (n, ..., C)."""
        if replicas.context() is None:
            return outputs
        return outputs[: keras.ops.shape(inputs)[0]]


def spread(model: keras.Model, devices: int) -> keras.Model:
    """The model that divides its batches among several devices; of one device, itself."""
    if devices < 2:
        return model
    inputs = keras.Input(model.input_shape[1:], dtype="float32")
    outputs = model(_Spread(dtype="float32")(inputs))
    return keras.Model(inputs, _Cut(dtype="float32")(outputs, inputs), name=model.name)


def choose(asked: str, hosts: Hosts | None = None) -> Devices:
    """The devices that --devices asks for: GPUs, or processors where there is no GPU.

    Without a GPU, N devices are parts of the same processor: nothing is faster, but everything can
    be tried.

    Args:
        asked: a number, or "all" for all GPUs (without a GPU: one device); of each process.
        hosts: the processes that train together, which meet here.

    Raises:
        ValueError: no such number, fewer GPUs, or a backend that was started before.
    """
    if asked != "all" and not (asked.isdecimal() and int(asked)):
        raise ValueError(f"--devices: found {asked!r}, expected all or a number from 1.")
    if hosts is not None:
        return _of_hosts(None if asked == "all" else int(asked), hosts)
    if asked == "1":
        return ONE
    makers = {"tensorflow": _tensorflow, "jax": _jax}
    backend = keras.backend.backend()
    if backend not in makers:
        raise ValueError(
            f"--devices: found the backend {backend}, expected tensorflow or jax for several "
            "devices. Set KERAS_BACKEND."
        )
    return makers[backend](None if asked == "all" else int(asked))


def _tensorflow(count: int | None) -> Devices:
    import tensorflow as tf  # noqa: PLC0415 - not installed beside other backends

    gpus = tf.config.list_physical_devices("GPU")
    count = _count(count, len(gpus))
    if count == 1:
        return ONE
    if not gpus:
        (cpu,) = tf.config.list_physical_devices("CPU")
        try:
            one = tf.config.LogicalDeviceConfiguration
            tf.config.set_logical_device_configuration(cpu, [one() for _ in range(count)])
        except RuntimeError:  # it runs already; a second command of one process may ask the same
            pass
    kind = "GPU" if gpus else "CPU"
    names = tuple(device.name for device in tf.config.list_logical_devices(kind))[:count]
    _require(names, count)
    return Devices(names, tf.distribute.MirroredStrategy(names))


def _jax(count: int | None) -> Devices:
    import jax  # noqa: PLC0415 - not installed beside other backends

    if count is not None:
        # No effect on GPUs, nor on a backend that runs already.
        jax.config.update("jax_num_cpu_devices", count)
    found = keras.distribution.list_devices()
    count = _count(count, 0 if found[0].startswith("cpu") else len(found))
    if count == 1:
        return ONE
    _require(found[:count], count)
    return Devices(
        tuple(found[:count]), _WholeBatches(devices=found[:count], auto_shard_dataset=False)
    )


def _of_hosts(count: int | None, hosts: Hosts) -> Devices:
    import jax  # noqa: PLC0415 - not installed beside other backends

    if count is not None:
        jax.config.update("jax_num_cpu_devices", count)
    hosts.join(count)
    found = keras.distribution.list_devices()
    return Devices(tuple(found), _WholeBatches(devices=found, auto_shard_dataset=False), hosts)


def _count(asked: int | None, gpus: int) -> int:
    """How many devices to use of so many GPUs."""
    if asked is None:
        return max(gpus, 1)
    if gpus and asked > gpus:
        raise ValueError(f"--devices: found {asked}, expected 1 to {gpus}, the number of GPUs.")
    return asked


def _require(names: Any, count: int) -> None:
    if len(names) < count:
        raise ValueError(
            f"--devices: found a backend that runs with {len(names)}, expected {count}. Ask for "
            "devices before anything is computed, in a process of its own."
        )
