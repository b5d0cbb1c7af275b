"""How fast batches come out of the store, against copying and against reading NIfTI per slice.

    python benchmarks/input_pipeline.py [--data DIR] [--rounds 9] [--batches 100] [--one-thread]

Without --data it writes a phantom of real size first. The ways take turns within a round; shown are
medians of slices per second over the rounds, and of the rounds' ratios. Exit code 1 when a bar is
missed: batches with masks through tf.data, mirrored and normalized, at 35 % or more of the rate of
plainly copying the raw windows of their images into a buffer that is used again, and at 100 times
or more of nibabel.get_fdata() per slice. The copy that does not zero the buffer leaves the batch
before in the margins; it is the memory's speed, not a batch, and is shown only. Batches that are
held lie in main memory, as those of tf.data do; a batch that is dropped at once stays in the cache.
--one-thread is for a machine that is not idle: it counts the time that the process computes, not
that it waits.
"""

import argparse
import collections
import dataclasses
import functools
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from keras_medseg.data.batches.feeding import py_dataset, tf_dataset
from keras_medseg.data.batches.slices import SliceBatches
from keras_medseg.data.cases import Case
from keras_medseg.data.datasets import brats
from keras_medseg.data.store import Store, StoredCase, open_store, prepare
from keras_medseg.data.transforms.volumes import window_origin
from keras_medseg.phantoms import brats as phantom

COPY, IMAGES = "raw int16 copy", "SliceBatches.batch, no masks"
COPY_ONLY = "raw int16 copy, margins stale"
IN_USE = 3  # batches of tf_dataset while a further one is made: one that is used, two read ahead
Clock = Callable[[], float]
NIBABEL = "nibabel get_fdata() per slice"
TF_DATA = "tf_dataset"


def raw_window(case: StoredCase, z: int, size: tuple[int, int, int], out: np.ndarray) -> None:
    """The plainest copy of a window: two slices per axis, no flip, no scaling."""
    x, y, first = np.subtract(window_origin(case.full_shape, size), case.origin).tolist()
    z += first
    if 0 <= z < len(case.image):
        part = case.image[z, max(x, 0) : x + size[0], max(y, 0) : y + size[1]]
        out[max(-x, 0) :, max(-y, 0) :][: part.shape[0], : part.shape[1]] = part


def raw_batches(
    batches: SliceBatches, epochs: range, *, zeroed: bool = True, places: int = 1
) -> Iterator[int]:
    """The slices of SliceBatches in the same order, as stored, into one or more batches in turn."""
    cases = [batches.store.cases[id] for id in sorted(batches.case_ids)]
    (width, height, depth), channels = batches.window, cases[0].image.shape[3]
    shape = (places, batches.batch_size, width, height, channels)
    turns = itertools.cycle(np.zeros(shape, cases[0].image.dtype))
    for epoch in epochs:
        order = batches.order(epoch)
        for first in range(0, len(order), batches.batch_size):
            chosen, raw = order[first : first + batches.batch_size].tolist(), next(turns)
            for row, index in enumerate(chosen):
                if zeroed:
                    raw[row].fill(0)
                raw_window(cases[index // depth], index % depth, batches.window, raw[row])
            yield len(chosen)


def plain_batches(batches: SliceBatches, epochs: range) -> Iterator[int]:
    for epoch in epochs:
        for step in range(batches.steps_per_epoch):
            yield len(batches.batch(epoch, step)[0])


def held_batches(batches: SliceBatches, epochs: range) -> Iterator[int]:
    """As many batches in memory at a time as tf.data holds, without tf.data."""
    held: collections.deque = collections.deque(maxlen=IN_USE)
    for epoch in epochs:
        for step in range(batches.steps_per_epoch):
            held.append(batches.batch(epoch, step))
            yield len(held[-1][0])


def image_batches(batches: SliceBatches, epochs: range) -> Iterator[int]:
    """Without masks, as the raw copy is."""
    return plain_batches(dataclasses.replace(batches, targets=()), epochs)


def tf_batches(batches: SliceBatches, epochs: range) -> Iterator[int]:
    for x, _ in tf_dataset(batches, epochs):
        yield int(x.shape[0])


def py_batches(batches: SliceBatches, epochs: range) -> Iterator[int]:
    data = py_dataset(batches)
    for _ in epochs:
        for step in range(len(data)):
            yield len(data[step][0])
        data.on_epoch_end()


def nifti_slices(cases: list[Case]) -> Callable[[SliceBatches, range], Iterator[int]]:
    """One slice of a case by get_fdata() of every modality, as a first version would do it."""

    def read(batches: SliceBatches, epochs: range) -> Iterator[int]:
        for case in (cases * 4)[:4]:
            np.stack([nib.load(path).get_fdata()[..., 70] for path in case.images], axis=-1)
            yield 1

    return read


def slices_per_second(batches: Iterator[int], limit: int, clock: Clock) -> float:
    """Over `limit` batches after the first, which pays for setting up."""
    next(batches)
    start = clock()
    slices = sum(itertools.islice(batches, limit))
    return slices / (clock() - start)


def measure(
    batches: SliceBatches, cases: list[Case], arguments: argparse.Namespace
) -> list[dict[str, float]]:
    """Slices per second of each way, for each round."""
    ways = {
        COPY: raw_batches,
        COPY_ONLY: functools.partial(raw_batches, zeroed=False),
        "raw int16 copy, three held": functools.partial(raw_batches, places=IN_USE + 1),
        IMAGES: image_batches,
        "SliceBatches.batch": plain_batches,
        "SliceBatches.batch, three held": held_batches,
        "py_dataset": py_batches,
        TF_DATA: tf_batches,
        NIBABEL: nifti_slices(cases),
    }
    epochs = range(arguments.batches // batches.steps_per_epoch + 2)
    clock = time.process_time if arguments.one_thread else time.perf_counter
    return [
        {
            name: slices_per_second(read(batches, epochs), arguments.batches, clock)
            for name, read in ways.items()
        }
        for _ in range(arguments.rounds)
    ]


def time_store(cases: list[Case], folder: Path) -> Store:
    start = time.perf_counter()
    store = prepare(cases, brats.Brats().read, folder)
    decoded = time.perf_counter()
    open_store(folder)
    verified = time.perf_counter()
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e9
    print(f"prepare: {(decoded - start) / len(cases):.2f} s per case, {size:.2f} GB")
    print(f"open and verify: {(verified - decoded) / size:.2f} s per GB")
    return store


def report(rounds: list[dict[str, float]]) -> bool:
    """Print the table; whether both bars are met."""

    def ratio(name: str, to: str) -> float:
        return statistics.median(rates[name] / rates[to] for rates in rounds)

    print(f"{'':32}{'slices/s':>10}{'of copy':>10}{'x nibabel':>12}")
    for name in rounds[0]:
        rate = statistics.median(rates[name] for rates in rounds)
        print(f"{name:32}{rate:10.1f}{ratio(name, COPY):10.1%}{ratio(name, NIBABEL):12.0f}")
    met = ratio(TF_DATA, COPY) >= 0.35 and ratio(TF_DATA, NIBABEL) >= 100
    print("tf_dataset at 35 % of copy and 100 x nibabel:", "met" if met else "MISSED")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a BraTS folder; by default a phantom")
    parser.add_argument("--cases", type=int, default=6, help="cases of the phantom")
    parser.add_argument("--batches", type=int, default=100, help="batches per round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--one-thread", action="store_true", help="for a machine that is not idle")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or Path(folder, "phantom")
        if not arguments.data:
            phantom.write_brats(data, cases=arguments.cases)
        cases = brats.Brats().find(data).cases
        store = time_store(cases, Path(folder, "store"))
        shape = {"window": (176, 176, 128), "batch_size": 32, "normalization": "z_score"}
        targets = (("WT", brats.REGIONS["WT"]),)
        batches = SliceBatches(store, list(store.cases), targets, **shape, flips=("x", "y"))
        print(f"{len(cases)} cases, batches of 32 at 176x176x4, {os.cpu_count()} cores")
        return 0 if report(measure(batches, cases, arguments)) else 1


if __name__ == "__main__":
    sys.exit(main())
