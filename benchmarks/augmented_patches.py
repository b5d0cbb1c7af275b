"""Augmented 3-D crops from a store beside MONAI's CacheDataset, both as batches in memory.

    python benchmarks/augmented_patches.py [--rounds 9] [--monai-python PATH] [--one-thread]

Both read the same decoded cases (synthetic, of BraTS' size), cut crops of 128 x 128 x 128 voxels
with four channels and three targets, and augment them as FM-Net's recipe says. Ours reads the
store's memory-mapped integers and normalizes each crop; MONAI has the normalized cases and the
voxels that crops are placed on in memory (CacheDataset, cache_rate=1, copy_cache=False), and loads
in its own process and with two workers, of which the faster one counts. They take turns within a
round, in changing order, and each starts anew, so that neither reads ahead while the other is
measured. Shown are the medians of milliseconds per crop over the rounds, and of the rounds' ratios,
MONAI's / ours. --each adds a row for every augmentation alone, done to every crop. --one-thread is
for a machine that is not idle: it counts the time that one thread computes, not that it waits, and
leaves out MONAI's workers.

What differs: MONAI zooms by trilinear interpolation, which costs less than FM-Net's cubic one,
draws a width of the blur for each axis and ends the kernel at 4 sigma instead of 3, and places
crops around a voxel of the tumor instead of around an object. The rest is the same: probabilities,
strengths, mirroring, noise whose strength is drawn, brightness, and contrast that is cut off at the
extremes of the crop.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from worker import Worker, in_turns

PATCH, BATCH = (128, 128, 128), 4
REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
ZOOM, FLIPS, NOISE, BLUR, BRIGHTNESS, CONTRAST = ALL = (
    *("zoom", "flips", "noise", "blur", "brightness", "contrast"),
)
ROWS = {"FM-Net's augmentation": None, "crops alone": (), **{name: (name,) for name in ALL}}
"""Augmentations of a row, each done to every crop; None: with the probabilities of FM-Net."""

Batches = Callable[[int], Iterator[Any]]
"""Number of workers -> endless batches, anew."""


def ours(store: Path, row: str) -> Batches:
    """Batches of `PatchBatches` through tf.data."""
    from keras_medseg.data.batches.feeding import tf_dataset
    from keras_medseg.data.batches.patches import PatchBatches
    from keras_medseg.data.store import open_store
    from keras_medseg.runs import papers

    chosen = ROWS[row]
    every = papers.recipe_module("fmnet2023").AUGMENTATION
    augmentation = (
        every if chosen is None else {name: every[name] | {"probability": 1.0} for name in chosen}
    )
    opened = open_store(store)
    batches = PatchBatches(
        opened,
        list(opened.cases),
        tuple(REGIONS.items()),
        patch=PATCH,
        batch_size=BATCH,
        normalization="z_score",
        foreground_probability=0.4,
        augmentation=augmentation,
    )
    for index in range(batches.samples):
        batches.start(0, index)  # finds the objects once, as MONAI's cache has their voxels
    return lambda _: (x.numpy() for x, _ in tf_dataset(batches, range(1000)))


def monai(store: Path, row: str) -> Batches:
    """Batches of a CacheDataset through MONAI's DataLoader."""
    import monai.data
    import monai.transforms as of_monai
    import numpy as np
    import torch

    both, image = ("image", "label"), "image"

    def read(path: Path) -> dict[str, torch.Tensor]:
        labels = np.load(path.with_name(path.name.replace(".image.", ".labels.")))
        channels = [np.moveaxis(np.load(path), (3, 1, 2, 0), (0, 1, 2, 3)).astype(np.float32)]
        regions = [np.isin(np.moveaxis(labels, 0, 2), codes) for codes in REGIONS.values()]
        return {
            "image": torch.from_numpy(np.concatenate(channels)),
            "label": torch.from_numpy(np.stack(regions).astype(np.float32)),
        }

    transform = of_monai.Compose(
        [
            read,
            of_monai.NormalizeIntensityd(image, nonzero=True, channel_wise=True),
            of_monai.SpatialPadd(both, PATCH),
            of_monai.FgBgToIndicesd("label"),
            of_monai.RandCropByPosNegLabeld(
                both,
                label_key="label",
                spatial_size=PATCH,
                pos=0.4,
                neg=0.6,
                fg_indices_key="label_fg_indices",
                bg_indices_key="label_bg_indices",
            ),
            of_monai.SelectItemsd(both),
            *monai_augmentation(row),
        ]
    )
    cached = monai.data.CacheDataset(
        sorted(store.glob("*.image.npy")), transform, progress=False, copy_cache=False
    )
    # Of one long epoch: at the end of an epoch workers would have nothing to do.
    sampler = torch.utils.data.RandomSampler(cached, replacement=True, num_samples=100_000)

    def batches(workers: int) -> Iterator[Any]:
        loader = monai.data.DataLoader(
            cached, batch_size=BATCH, sampler=sampler, num_workers=workers
        )
        return (batch["image"].numpy() for batch in loader)

    return batches


def monai_augmentation(row: str) -> list[Any]:
    """MONAI's transforms nearest to FM-Net's augmentation."""
    import monai.transforms as of_monai

    both, image = ("image", "label"), "image"
    chosen = ROWS[row]

    def probability(name: str, otherwise: float) -> float:
        return otherwise if chosen is None else float(name in chosen)

    widths = {f"sigma_{axis}": (0.5, 1.5) for axis in "xyz"}
    return [
        of_monai.RandZoomd(
            both,
            prob=probability(ZOOM, 0.15),
            min_zoom=1.0,
            max_zoom=1 / 0.7,
            mode=("trilinear", "nearest"),
        ),
        *(
            of_monai.RandFlipd(both, prob=probability(FLIPS, 0.5), spatial_axis=axis)
            for axis in range(3)
        ),
        of_monai.RandGaussianNoised(image, prob=probability(NOISE, 0.15), std=0.33),
        of_monai.RandGaussianSmoothd(image, prob=probability(BLUR, 0.15), **widths),
        of_monai.RandScaleIntensityd(image, factors=0.3, prob=probability(BRIGHTNESS, 0.15)),
        of_monai.RandScaleIntensityFixedMeand(
            image,
            factors=(-0.35, 0.5),
            fixed_mean=False,
            preserve_range=True,
            prob=probability(CONTRAST, 0.15),
        ),
    ]


SIDES = {"ours": ours, "monai": monai}


def serve(side: str, store: Path, *, one_thread: bool) -> None:
    """Answer requests, one JSON object per line, until the input ends."""
    clock = time.process_time if one_thread else time.perf_counter
    made: dict[str, Batches] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["row"]
        if name not in made:
            made.clear()  # the cases of one row in memory at a time
            made[name] = SIDES[side](store, name)
        batches = made[name](request["workers"])
        next(batches)  # pays for starting
        start = clock()
        shapes = [next(batches).shape for _ in range(request["batches"])]
        seconds = clock() - start
        del batches  # ends workers and threads
        assert {tuple(sorted(shape[1:])) for shape in shapes} == {(4, *PATCH)}
        print(json.dumps(seconds / sum(shape[0] for shape in shapes)), flush=True)


def row(ask: dict[str, Callable[..., float]], name: str, rounds: int, batches: int) -> list[str]:
    """Cells of the medians of milliseconds per crop, and of the ratio.

    Args:
        ask: for each column a function that measures it; "ours" comes first.
        name: of the row.
        rounds: to take the medians of.
        batches: of each round.
    """
    seconds = [
        in_turns([partial(asked, row=name, batches=batches) for asked in ask.values()], number)
        for number in range(rounds)
    ]
    medians = [f"{1000 * statistics.median(side):.0f}" for side in zip(*seconds)]
    ratio = statistics.median(min(others) / own for own, *others in seconds)
    return [*medians, f"{ratio:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=6, help="of four crops, in a round")
    parser.add_argument("--cases", type=int, default=8, help="synthetic cases")
    parser.add_argument("--each", action="store_true", help="a row for each augmentation as well")
    parser.add_argument("--monai-python", default=sys.executable, help="an interpreter with MONAI")
    parser.add_argument("--one-thread", action="store_true", help="for a machine that is not idle")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help="a prepared store instead of synthetic cases")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.store, one_thread=arguments.one_thread)
        return
    with tempfile.TemporaryDirectory() as temporary:
        store = arguments.store or synthetic_store(Path(temporary), arguments.cases)
        print_table(store, arguments)


def print_table(store: Path, arguments: argparse.Namespace) -> None:
    """A process for each side, and a row for each augmentation."""
    options = {"one_thread": arguments.one_thread}
    own = Worker(sys.executable, __file__, "--serve", "ours", "--store", str(store), **options)
    other = Worker(
        arguments.monai_python, __file__, "--serve", "monai", "--store", str(store), **options
    )
    ask = {"ours": partial(own.ask, workers=0), "MONAI": partial(other.ask, workers=0)}
    if not arguments.one_thread:
        ask["MONAI, 2 workers"] = partial(other.ask, workers=2)
    print(f"| ms per crop | {' | '.join(ask)} | ratio |")
    print("|---" * (len(ask) + 2) + "|", flush=True)
    for name in ROWS if arguments.each else list(ROWS)[:1]:
        for asked in ask.values():
            asked(row=name, batches=1)  # imports, opens and fills the cache
        cells = row(ask, name, arguments.rounds, arguments.batches)
        print(f"| {' | '.join([name, *cells])} |", flush=True)
    for worker in (own, other):
        worker.close()


def synthetic_store(folder: Path, cases: int) -> Path:
    """The folder of a store of cases of BraTS' size."""
    from keras_medseg.data.datasets import brats
    from keras_medseg.data.store import prepare
    from keras_medseg.phantoms.brats import write_brats

    write_brats(folder / "cases", cases=cases)
    dataset = brats.Brats()
    return prepare(dataset.find(folder / "cases").cases, dataset.read, folder / "store").folder


if __name__ == "__main__":
    sys.exit(main())
