"""Small components beside the largest one, by hand."""

import numpy as np
import pytest

from keras_medseg.inference.postprocess import drop_small_components


def _labels() -> np.ndarray:
    """20 voxels of two labels, and components of 2 and of 1 voxel."""
    labels = np.zeros((10, 10, 6), np.uint8)
    labels[0:2, 0:5, 0] = 2
    labels[0:2, 0:5, 1] = 3
    labels[6, 6, 2:4] = 2
    labels[9, 9, 5] = 1
    return labels


def test_what_is_below_a_tenth_of_the_largest_is_dropped():
    """2 of 20 is a tenth and stays, as "less than one-tenth" has it; 1 is less."""
    labels = _labels()
    cleaned = drop_small_components(labels, 0.1)
    expected = labels.copy()
    expected[9, 9, 5] = 0
    np.testing.assert_array_equal(cleaned, expected)
    assert cleaned.dtype == np.uint8
    assert np.count_nonzero(drop_small_components(labels, 0.11)) == 20
    np.testing.assert_array_equal(labels, _labels())


def test_components_are_connected_across_slices_and_corners():
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[:2, :2, :2] = 1
    labels[2, 2, 2] = 1  # touches the cube at a corner only
    labels[5, 5, 5] = 1
    cleaned = drop_small_components(labels, 1.0)
    assert cleaned.sum() == 9
    assert cleaned[2, 2, 2] == 1


def test_equally_large_components_all_stay():
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[0, 0, 0] = labels[4, 4, 4] = 1
    np.testing.assert_array_equal(drop_small_components(labels, 1.0), labels)


def test_nothing_predicted_and_nothing_asked_for():
    empty = np.zeros((3, 3, 3), np.uint8)
    assert not drop_small_components(empty, 0.1).any()
    labels = _labels()
    np.testing.assert_array_equal(drop_small_components(labels, 0.0), labels)


def test_a_share_outside_of_its_range_is_refused():
    with pytest.raises(ValueError, match="smallest: found 10"):
        drop_small_components(_labels(), 10)
