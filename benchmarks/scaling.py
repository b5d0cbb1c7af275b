"""Arithmetic of large data sets: what a store of N cases needs, and what breaks first.

    python benchmarks/scaling.py [--cases 1251 100000] [--slices 120] [--step-seconds 0.15]

Measured here, on synthetic cases of BraTS' size: seconds to decode a case, bytes of the decoded
case, slices a second that batches are made of, seconds to verify a GB. They are seconds of a
processor, so that other work on the machine does not count. The rest is multiplication, each line
of which is printed. The seconds of a training step are an argument, because they belong to the
network and the GPU.
"""

import argparse
import tempfile
import time
from pathlib import Path

from keras_medseg.data import datasets, store
from keras_medseg.data.batches.slices import SliceBatches
from keras_medseg.phantoms.brats import write_brats

WINDOW = (176, 176, 120)
BATCH = 32
TARGETS = (("WT", (1, 2, 3)),)


def measure(folder: Path) -> dict[str, float]:
    """Seconds to decode a case, its bytes, slices a second, seconds to verify a GB."""
    write_brats(folder / "data", cases=2, layout="BraTS2021")
    dataset = datasets.of_folder(folder / "data")
    cases = dataset.find(folder / "data").cases
    started = time.process_time()
    told = store.estimate(cases, dataset.read)
    decode = (time.process_time() - started) / len(cases)
    made = store.prepare(cases, dataset.read, folder / "store", workers=1)
    started = time.process_time()
    store.open_store(folder / "store")
    gigabytes = sum(path.stat().st_size for path in (folder / "store").glob("*.npy")) / 1e9
    verify = (time.process_time() - started) / gigabytes
    batches = SliceBatches(
        made, list(made.cases), TARGETS, window=WINDOW, batch_size=BATCH, normalization="z_score"
    )
    batches.batch(0, 0)
    started = time.process_time()
    for step in range(batches.steps_per_epoch):
        batches.batch(0, step)
    rate = batches.samples / (time.process_time() - started)
    return {
        "decode": decode,
        "bytes": sum(told.bytes_each) / len(told.bytes_each),
        "rate": rate,
        "verify": verify,
    }


def lines(cases: int, found: dict[str, float], slices: int, step_seconds: float) -> list[str]:
    """What so many cases need, a line for each product."""
    gigabytes = cases * found["bytes"] / 1e9
    hours = cases * found["decode"] / 3600
    samples = cases * slices
    steps = samples / BATCH
    read = BATCH / step_seconds * found["bytes"] / slices / 1e6
    files = 3 * cases
    return [
        f"store: {cases} x {found['bytes'] / 1e6:.1f} MB = {gigabytes:,.1f} GB in {files:,} files",
        f"decoding: {cases} x {found['decode']:.2f} s = {hours:.1f} h of one process, "
        f"{hours / 16 * 60:.1f} min of 16",
        f"verifying: {gigabytes:,.1f} GB x {found['verify']:.2f} s = "
        f"{gigabytes * found['verify'] / 60:.1f} min of one core",
        f"an epoch: {cases} x {slices} = {samples:,} slices, {steps:,.0f} batches of {BATCH}; at "
        f"{step_seconds:g} s a step {3600 / step_seconds:,.0f} steps an hour and "
        f"{steps * step_seconds / 3600:.1f} h an epoch on one GPU",
        f"reading: {BATCH} slices every {step_seconds:g} s = {read:.0f} MB/s for each GPU, if "
        "nothing stays in memory",
        f"one reading thread makes {found['rate']:,.0f} slices/s: enough for "
        f"{found['rate'] * step_seconds / BATCH:.1f} GPUs of this speed",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, nargs="+", default=[1251, 100_000])
    parser.add_argument("--slices", type=int, default=120, help="trained on, of each case")
    parser.add_argument("--step-seconds", type=float, default=0.15, help="of a batch of 32")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    for cases in arguments.cases:
        print(f"\n{cases:,} cases")
        print("\n".join(lines(cases, found, arguments.slices, arguments.step_seconds)))


if __name__ == "__main__":
    main()
