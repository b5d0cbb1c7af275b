"""Maps of fractions as files, read back by nibabel and Pillow."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.fractions import write_fractions
from keras_medseg.data.store import StoredCase

# First array axis runs to the feet, the second to the left, the third to the front.
ILA = np.array([[0, -2, 0, 4], [0, 0, 0.5, -3], [-3, 0, 0, 60], [0, 0, 0, 1.0]])


def stored(shape, axes="LPS", affine=None):
    arrays = CaseArrays(
        np.ones((*shape, 1), np.int16),
        None,
        np.diag([-1, -1, 1, 1.0]) if affine is None else affine,
        tuple(axes),
    )
    return StoredCase.from_arrays(Case("case", "set", (), None, "case"), arrays)


def test_a_volume_has_the_axes_and_the_affine_of_its_case(tmp_path):
    values = np.random.default_rng(0).random((4, 5, 6), "f4")
    path = tmp_path / "map.nii.gz"
    write_fractions(path, values, stored((4, 5, 6), "ILA", ILA))
    volume = nib.load(path)
    np.testing.assert_array_equal(volume.affine, ILA)
    # LPS (x, y, z) on disk as I, L, A: minus z, x, minus y.
    expected = np.transpose(values, (2, 0, 1))[::-1, :, ::-1]
    np.testing.assert_allclose(volume.get_fdata(), expected, atol=2**-15)
    assert volume.get_data_dtype() == np.int16


def test_nothing_one_half_and_all_are_exact_in_a_volume(tmp_path):
    values = np.float32([0, 0.5, 1, -1e-7, 1 + 1e-6]).reshape(5, 1, 1)
    write_fractions(tmp_path / "map.nii.gz", values, stored((5, 1, 1)))
    found = nib.load(tmp_path / "map.nii.gz").get_fdata().ravel()
    np.testing.assert_array_equal(found, [0, 0.5, 1, 0, 1])


def test_an_image_is_gray_of_16_bits(tmp_path):
    values = np.float32([[0, 0.25, 0.75], [1, -1e-7, 1 + 1e-6]])
    write_fractions(tmp_path / "map.png", values, stored((2, 3, 1)))
    image = Image.open(tmp_path / "map.png")
    assert image.mode == "I;16"
    # 65535 / 4 = 16383.75 and 65535 * 3 / 4 = 49151.25
    assert np.asarray(image).tolist() == [[0, 16384, 49151], [65535, 0, 65535]]


def test_half_the_size_of_a_float_with_a_smaller_error_than_float16(tmp_path):
    """What the module says of float16, by trying it."""
    values = np.linspace(0.5, 1, 4097, dtype="f4").reshape(-1, 1, 1)
    write_fractions(tmp_path / "map.nii.gz", values, stored(values.shape))
    ours = np.abs(nib.load(tmp_path / "map.nii.gz").get_fdata() - values).max()
    theirs = np.abs(values.astype("f2").astype("f8") - values).max()
    assert ours <= 2**-15
    assert theirs == pytest.approx(2**-12)
