"""Augmentations as pure functions of (seed, epoch, index): no state, any order, any process."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=4)
def draw_flips(seed: int, epoch: int, count: int) -> np.ndarray:
    """Whether to mirror samples 0 .. count - 1 along x and along y, each with probability 1/2.

    A sample's row depends on (seed, epoch, index) alone: a larger count appends rows.

    Returns:
        (count, 2) bool, read-only.
    """
    drawn = np.random.default_rng((seed, epoch, 1)).random((count, 2)) < 0.5
    drawn.flags.writeable = False
    return drawn


def draw_brightness(seed: int, epoch: int, count: int, strength: float) -> np.ndarray:
    """Factors for samples 0 .. count - 1, drawn uniformly from 1 - strength to 1 + strength.

    A sample's factor depends on (seed, epoch, index) and strength alone.

    Returns:
        (count,) float64.
    """
    drawn = np.random.default_rng((seed, epoch, 2)).random(count)
    return 1 + strength * (2 * drawn - 1)
