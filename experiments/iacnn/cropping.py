"""What cropping to 256x256 costs of each object: `python -m experiments.iacnn.cropping DATA`.

DATA is CVC-ClinicDB or ISIC 2018. "crop" is the recipe's (scaled first), "cut" the literal one; see
`data.transforms.resize.FITS`. Printed as Markdown, for the ledger's entry `input-size`.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from keras_medseg.data.datasets.image_folders import ImageFolders
from keras_medseg.data.transforms.resize import resize_labels, restore

SIZE = (256, 256)
FITS = ("crop", "cut")


def lost(mask: np.ndarray, fit: str) -> float:
    """The share of an object's pixels that lie outside of what the network sees.

    Args:
        mask: (H, W) bool with at least one pixel.
        fit: one of FITS.
    """
    everything = resize_labels(np.ones(mask.shape, np.uint8), SIZE, fit)
    seen = restore(everything, mask.shape, fit) > 0
    return 1 - np.count_nonzero(mask & seen) / np.count_nonzero(mask)


def table(masks: Iterable[np.ndarray]) -> str:
    """A line for each fit, over all masks that are not empty; Markdown."""
    shown = [mask for mask in masks if mask.any()]
    lines = [
        f"{len(shown)} objects, {SIZE[0]}x{SIZE[1]} pixels.",
        "",
        "| fit | pixels lost, mean % | lost a fifth or more, % of images | most, % |",
        "|---|--:|--:|--:|",
    ]
    for fit in FITS:
        share = np.array([lost(mask, fit) for mask in shown]) * 100
        often = 100 * np.mean(share >= 20)
        lines.append(f"| {fit} | {share.mean():.1f} | {often:.1f} | {share.max():.0f} |")
    return "\n".join(lines)


def _masks(folder: Path) -> Iterator[np.ndarray]:
    dataset = ImageFolders()
    for case in dataset.find(folder).cases:
        labels = dataset.read(case).labels
        if labels is not None:
            yield labels[..., 0] > 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the images and masks")
    sys.stdout.write(table(_masks(parser.parse_args().data)) + "\n")
