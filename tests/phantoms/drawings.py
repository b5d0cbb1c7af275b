"""What a version of a drawing draws, as numbers that a test can hold."""

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Drawn:
    """Digest of the labels, and mean and standard deviation of the image's pixels."""

    labels_sha256: str
    mean: float
    deviation: float


def check_drawn(drawing: tuple[np.ndarray, np.ndarray], expected: Drawn) -> None:
    """Fail where a drawing is not the expected one."""
    advice = "Other pixels are drawn: raise VERSION of the drawing and add it to DRAWN."
    image, labels = drawing
    found = [image.mean(), image.std()]
    np.testing.assert_allclose(
        found, [expected.mean, expected.deviation], rtol=1e-3, err_msg=advice
    )
    assert hashlib.sha256(labels.tobytes()).hexdigest() == expected.labels_sha256, advice
