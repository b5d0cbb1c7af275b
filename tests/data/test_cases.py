"""cases.py: voxel sizes along the package's axes."""

import numpy as np

from keras_medseg.data.cases import CaseArrays


def test_spacing_is_given_along_lps_whatever_the_order_on_disk():
    # On disk: axis 0 runs to superior in 3 mm steps, 1 to left in 1 mm, 2 to posterior in 2 mm.
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = 3, -1, -2, 1
    arrays = CaseArrays(np.zeros((1, 1, 1, 4)), None, affine, ("S", "L", "P"))
    assert arrays.spacing_mm == (1.0, 2.0, 3.0)
