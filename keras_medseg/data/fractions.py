"""Maps of fractions, such as probabilities, as files of 16 bits that overlay the case's own files.

NIfTI-1 has no float16: its floats begin at 32 bits. So volumes are int16 with the scale 2^-14 in
their header, which every reader of NIfTI applies: 0, 1/2 and 1 are exact, anything else is off by
at most 2^-15 = 3.1e-5. float16, of the same size, is off by up to 2.4e-4 above 1/2. Images are gray
PNG of 16 bits, which image viewers open; 65535 is 1.
"""

import io
from pathlib import Path

import numpy as np

from keras_medseg.data.formats import nifti
from keras_medseg.data.store import StoredCase
from keras_medseg.files import write_atomic

PROBABILITIES, ENTROPY, DISAGREEMENT = MAPS = ("probabilities", "entropy", "disagreement")
"""Folders beside the label maps of `predict`, `<map>/<region>/<case>.nii.gz` or `.png`."""

_STEPS_NIFTI = 2**14
_STEPS_PNG = 2**16 - 1


def write_fractions(path: Path, values: np.ndarray, case: StoredCase) -> None:
    """Write numbers from 0 to 1 with the grid, and in a volume the header forms, of a case's files.

    Args:
        path: ends in .nii.gz or .png.
        values: (X, Y, Z) in LPS, or (H, W), on the grid of the case's own files. Rounding errors of
            interpolation below 0 and above 1 are cut off.
        case: the case that they belong to.

    Raises:
        DataError, OSError: the folder cannot be written.
    """
    limited = np.clip(values, 0, 1)
    if path.suffix == ".png":
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(np.rint(limited * _STEPS_PNG).astype(np.uint16)).save(file, "PNG")
        write_atomic(path, file.getvalue())
        return
    steps = nifti.restore(np.rint(limited * _STEPS_NIFTI).astype(np.int16), case.axis_codes)
    nifti.write_volume(path, steps, case.affine, forms=case.forms, slope=1 / _STEPS_NIFTI)
