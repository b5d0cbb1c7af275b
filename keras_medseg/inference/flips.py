"""Test-time augmentation by mirroring: the mean over mirrored inputs, each mirrored back."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np


def mirrored_mean(
    predict: Callable[[np.ndarray], np.ndarray], values: np.ndarray, axes: Sequence[int]
) -> np.ndarray:
    """The mean of what `predict` gives for `values` mirrored along every set of `axes`.

    As in the test-time augmentation of nnU-Net (Isensee et al. 2021, Nature Methods 18), each
    output is mirrored back before it is added. n axes take 2^n calls; no axis changes nothing.

    Args:
        predict: an array -> an array with the same axes, except perhaps another last one.
        values: the array, such as (N, H, W, C) or (X, Y, Z, C).
        axes: indices of axes of `values`, none of them the last.

    Returns:
        What `predict` returns, averaged.
    """
    mirrors = [m for n in range(len(axes) + 1) for m in itertools.combinations(axes, n)]
    total: np.ndarray | None = None
    for mirror in mirrors:
        found = np.flip(np.asarray(predict(np.flip(values, mirror))), mirror)
        total = found if total is None else total + found
    assert total is not None
    return total / np.float32(len(mirrors)) if axes else total
