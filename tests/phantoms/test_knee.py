"""Synthetic MRI slices of the knee."""

import numpy as np

from keras_medseg.phantoms.knee import VERSION, knee_case

from .drawings import Drawn, check_drawn

SMALL = (64, 64)
DRAWN = {
    1: Drawn(
        labels_sha256="4f5974afa112c72f00d4220b9e87763f863af27b6cc2b8f0adcd6c1e1c3169a4",
        mean=69.487,
        deviation=59.200,
    )
}


def test_another_version_draws_other_pixels_and_none_other():
    assert max(DRAWN) == VERSION, "Add to DRAWN what the new version draws."
    check_drawn(knee_case(0, 1, SMALL), DRAWN[VERSION])


def test_some_knees_have_no_ligament():
    ligaments = [(knee_case(0, index, SMALL)[1] == 4).any() for index in range(24)]
    assert 2 <= ligaments.count(False) <= 12


def test_label_1_is_the_first_class():
    """Tibia, femur, patella: the shin bone lies below the thigh bone, the kneecap before both."""
    for index in range(8):
        labels = knee_case(0, index, SMALL)[1]
        rows, columns = np.indices(labels.shape)
        assert rows[labels == 1].mean() > rows[labels == 2].mean()
        if (labels == 3).any():
            assert columns[labels == 3].mean() < columns[labels == 2].mean()
