"""The foreground of label maps against SciPy's erosion of every region, in any order in memory."""

import numpy as np
import pytest
from scipy import ndimage

from keras_medseg.evaluation import metrics
from keras_medseg.evaluation.foreground import border, foreground

LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "reversed": lambda labels: np.asfortranarray(labels)[::-1, ::-1],
    "moved": lambda labels: np.moveaxis(np.ascontiguousarray(np.moveaxis(labels, 1, 0)), 0, 1),
}


def labels(seed, shape):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.0)
    return np.digitize(noise, [0.1, 0.25, 0.4]).astype(np.uint8)


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
@pytest.mark.parametrize("shape", [(9, 11, 7), (5, 13)])
def test_surfaces_are_what_erosion_takes_away(first, second, shape):
    """693 and 65 elements, so the last five and one are no word of eight; regions touch borders."""
    maps = [LAYOUTS[layout](labels(seed, shape)) for seed, layout in enumerate((first, second))]
    seen = foreground(*maps)
    assert seen.background == np.count_nonzero((maps[0] == 0) & (maps[1] == 0))
    for codes in ([1], [1, 2, 3], [2, 3], [7]):
        belongs = np.isin(np.arange(256), codes)
        masks = [np.isin(one, codes) for one in maps]
        for mask, found in zip(masks, seen.borders):
            surface = mask & ~ndimage.binary_erosion(mask)
            np.testing.assert_array_equal(found.surface(belongs), np.argwhere(surface))
        compact = belongs[seen.prediction], belongs[seen.truth]
        assert metrics.dice(*compact) == metrics.dice(*masks)
        for metric in (metrics.specificity, metrics.mask_error):
            assert metric(*compact, seen.background) == metric(*masks)


def test_a_map_of_one_code_up_to_its_border_and_one_of_none():
    """Of 3 x 3 x 3 voxels, all but the middle one lie on the surface."""
    everything = np.ones((3, 3, 3), bool)
    belongs = np.arange(256) > 0
    assert len(border(everything).surface(belongs)) == 26
    assert border(~everything).surface(belongs).shape == (0, 3)
