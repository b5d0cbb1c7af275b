"""Augmentations as pure functions of (seed, epoch, index): no state, any order, any process."""

from collections.abc import Sequence

import numpy as np


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers that sample `index` gets in `epoch`."""
    return np.random.default_rng((seed, epoch, index))


def flips(seed: int, epoch: int, index: int, axes: Sequence[str]) -> tuple[bool, bool]:
    """Whether to mirror the sample along x and along y, each with probability 1/2 if in `axes`."""
    if not axes:
        return False, False
    along_x, along_y = generator(seed, epoch, index).random(2) < 0.5
    return bool(along_x and "x" in axes), bool(along_y and "y" in axes)
