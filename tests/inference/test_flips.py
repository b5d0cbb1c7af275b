"""Mirrored inputs whose outputs are mirrored back and averaged."""

import numpy as np

from keras_medseg.inference.flips import mirrored_mean


def test_by_hand():
    # Forward: 1, 1+2, 1+2+3. Mirrored, 3, 3+2, 3+2+1, is mirrored back to 6, 5, 3.
    found = mirrored_mean(np.cumsum, np.float32([1, 2, 3]), [0])
    np.testing.assert_array_equal(found, [(1 + 6) / 2, (3 + 5) / 2, (6 + 3) / 2])


def test_every_set_of_axes_once():
    seen = []
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

    def watch(x):
        seen.append(x.copy())
        return x

    np.testing.assert_array_equal(mirrored_mean(watch, values, [0, 2]), values)
    expected = [values, values[::-1], values[:, :, ::-1], values[::-1, :, ::-1]]
    assert len(seen) == 4
    for one, other in zip(seen, expected):
        np.testing.assert_array_equal(one, other)


def test_without_axes_nothing_is_computed_but_the_prediction():
    values = np.float32([[0.1, 0.7]])
    found = mirrored_mean(lambda x: x, values, [])
    np.testing.assert_array_equal(found, values)
    assert found.dtype == np.float32
