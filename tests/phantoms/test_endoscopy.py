"""Synthetic frames of a colonoscopy."""

from itertools import pairwise

import numpy as np

from keras_medseg.phantoms.endoscopy import FRAMES_PER_SEQUENCE, VERSION, endoscopy_case

from .drawings import Drawn, check_drawn

SMALL = (48, 64)
DRAWN = {
    1: Drawn(
        labels_sha256="c5bf0b11e9e5597c0c58b112232a1b443a43784c755d778586ea15fecdb6869b",
        mean=77.780,
        deviation=63.625,
    )
}


def test_another_version_draws_other_pixels_and_none_other():
    assert max(DRAWN) == VERSION, "Add to DRAWN what the new version draws."
    check_drawn(endoscopy_case(0, 1, SMALL), DRAWN[VERSION])


def test_frames_of_a_sequence_are_near_duplicates():
    frames = [endoscopy_case(0, index, SMALL)[0].astype(float).ravel() for index in range(8)]
    alike = np.corrcoef(frames)
    first, second = range(FRAMES_PER_SEQUENCE), range(FRAMES_PER_SEQUENCE, 8)
    within = [alike[a, b] for group in (first, second) for a in group for b in group if a < b]
    between = [alike[a, b] for a in first for b in second]
    assert min(within) > max(between)
    assert max(within) < 0.9999


def test_frames_of_a_sequence_show_the_same_polyps_from_other_places():
    polyps = [endoscopy_case(0, index, SMALL)[1] for index in range(FRAMES_PER_SEQUENCE)]
    for first, second in pairwise(polyps):
        assert (first != second).any()
        assert 2 * (first & second).sum() / (first.sum() + second.sum()) > 0.5
