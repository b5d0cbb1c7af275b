"""Whether the background of a volume is 0, which everything that follows takes for granted."""

from pathlib import Path

import numpy as np

_BORDER = 0.1
"""Share of the outermost voxels that a brain may cover; in BraTS it is at most 0.01."""
_ONE_VALUE = 0.2
"""Share of all voxels that one value of a brain may have."""
_SAMPLE = 200_000
_SMALLEST_SIDE = 16
"""In voxels; a smaller grid is cut out of a brain, or made for a test."""


def background_remark(image: np.ndarray, path: Path, channel: str = "") -> str:
    """What is to be said about a background that is not 0; empty where it is 0.

    A store cuts at what is 0, and z-scores are taken over what is not, so a background of another
    value changes the intensities of the whole image.

    Args:
        image: (X, Y, Z), skull-stripped.
        path: its file, for the message.
        channel: which one, of a file with several.
    """
    if min(image.shape) < _SMALLEST_SIDE:
        return ""
    border = np.concatenate(
        [face.ravel() for axis in range(3) for face in np.take(image, (0, -1), axis).reshape(2, -1)]
    )
    sample = image.ravel(order="K")[:: max(image.size // _SAMPLE, 1)]
    values, counts = np.unique(sample, return_counts=True)
    commonest, share = values[counts.argmax()], counts.max() / sample.size
    at_border = np.count_nonzero(border) / border.size
    one_value = commonest != 0 and share > _ONE_VALUE
    if at_border <= _BORDER and not one_value:
        return ""
    found = (
        f"the value {commonest:.6g} in {share:.0%} of all voxels"
        if one_value
        else f"{at_border:.0%} of the outermost voxels not 0"
    )
    of_channel = f"channel {channel}: " if channel else ""
    voxels = image[image != 0]
    return (
        f"{path}: {of_channel}found {found}, expected a skull-stripped image with background 0. "
        f"Normalization takes all that is not 0 for brain, here {voxels.size / image.size:.0%} of "
        f"the image (mean {voxels.mean(dtype=float):.4g}, deviation {voxels.std(dtype=float):.4g})"
        "; set the background to 0 with the brain's mask."
    )
