"""Synthetic dermoscopic images."""

from scipy import ndimage

from keras_medseg.phantoms.dermoscopy import VERSION, dermoscopy_case

from .drawings import Drawn, check_drawn

SMALL = (48, 64)
DRAWN = {
    1: Drawn(
        labels_sha256="8ede7e1a7aab555ce7ad2a3d6edb8116caee9aac2f04ace35b0deb4a6ba03095",
        mean=113.938,
        deviation=75.151,
    )
}


def test_another_version_draws_other_pixels_and_none_other():
    assert max(DRAWN) == VERSION, "Add to DRAWN what the new version draws."
    check_drawn(dermoscopy_case(0, 1, SMALL), DRAWN[VERSION])


def test_lesions_are_darker_than_the_skin_around_them():
    """In 23 of 24 images; hairs and the shadow of the mount may lie on the skin."""
    darker = []
    for index in range(24):
        image, labels = dermoscopy_case(0, index, SMALL)
        around = ndimage.binary_dilation(labels, iterations=5) & (labels == 0)
        darker.append(image[labels == 1].mean() < image[around].mean())
    assert sum(darker) >= 20
