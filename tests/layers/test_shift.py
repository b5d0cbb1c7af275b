"""Shifts by hand."""

import keras
import numpy as np
import pytest

from keras_medseg.layers.shift import shift

# One pixel per row, the same in all of five channels; channel c moves by c - 2.
COLUMN = np.arange(1.0, 6)
MOVED = [
    [3, 4, 5, 0, 0],
    [2, 3, 4, 5, 0],
    [1, 2, 3, 4, 5],
    [0, 1, 2, 3, 4],
    [0, 0, 1, 2, 3],
]


def _shifted(x: np.ndarray, axis: int) -> np.ndarray:
    image = keras.Input(x.shape[1:])
    model = keras.Model(image, shift(image, axis, name="shift"))
    return keras.ops.convert_to_numpy(model(np.float32(x)))


@pytest.mark.parametrize("axis", [1, 2])
def test_five_channels_move_by_one_pixel_more_each(axis):
    column = np.repeat(COLUMN[:, None], 5, axis=1)
    y = _shifted(np.expand_dims(column, (0, 3 - axis)), axis)
    assert np.squeeze(y).T.tolist() == MOVED


def test_channels_are_grouped_as_by_torch_chunk():
    # ceil(12 / 5) = 3 channels a group make four groups: -2, -1, 0 and 1; +2 has none.
    column = np.repeat(COLUMN[:, None], 12, axis=1)
    y = np.squeeze(_shifted(column[None, :, None], 1)).T
    assert y.tolist() == [row for row in MOVED[:4] for _ in range(3)]
