"""Other voxel sizes: splines against scikit-image, labels by hand, cases of the store."""

from dataclasses import replace

import numpy as np
import pytest
from skimage.transform import resize

from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets._volumes import require_spacing, resampled
from keras_medseg.data.store import StoredCase, prepare
from keras_medseg.data.transforms.resample import (
    new_shape,
    new_spacing_mm,
    resample_image,
    resample_labels,
    resample_map,
)

CASE = Case("a", "toy", (), None, "a")


def smooth(shape):
    """An image without background: waves around 100."""
    x, y, z = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij")
    return (100 + 40 * np.sin(x + 2 * y) + 20 * np.cos(3 * z)).astype(np.float32)


def test_the_new_grid_covers_the_same_box():
    # 240 mm in voxels of 3.5 mm are 68.57, so 69 of 3.478 mm.
    assert new_shape((120, 120, 78), (2, 2, 2), (3.5, 2, 4)) == (69, 120, 39)
    assert new_spacing_mm((120, 120, 78), (2, 2, 2), (69, 120, 39)) == (240 / 69, 2, 4)
    assert new_shape((3, 3, 1), (1, 1, 1), (9, 9, 9)) == (1, 1, 1)


@pytest.mark.parametrize("shape", [(7, 12, 5), (15, 10, 9), (10, 9, 4)])
def test_images_are_as_scikit_image_makes_them(shape):
    image = np.stack([smooth((10, 9, 7)), smooth((10, 9, 7))[::-1]], axis=-1)
    found = resample_image(image, shape)
    assert (found.shape, found.dtype) == ((*shape, 2), np.float32)
    for channel in range(2):
        expected = resize(image[..., channel], shape, order=3, mode="edge", anti_aliasing=False)
        np.testing.assert_allclose(found[..., channel], expected, rtol=1e-4)


def test_the_background_stays_exactly_0():
    image = np.zeros((12, 12, 12, 1), np.int16)
    image[4:8, 4:8, 4:8] = 1000
    found = resample_image(image, (24, 24, 24))[..., 0]
    box = found[8:16, 8:16, 8:16]
    # Of the voxels at the eight corners 0.75 ** 3 = 0.42 are inside: less than half.
    assert np.count_nonzero(found) == np.count_nonzero(box) == box.size - 8
    assert resize(image[..., 0] / 1.0, (24, 24, 24), order=3, mode="edge", clip=False).min() < 0


def test_labels_get_the_code_with_the_largest_share():
    # Of 6 voxels make 3: pairs of (1, 1), (1, 3), (3, 3). The pair of equal shares gets the smaller
    # code, and nothing becomes 2, which lies between.
    labels = np.array([1, 1, 1, 3, 3, 3], np.uint8).reshape(6, 1, 1)
    assert resample_labels(labels, (3, 1, 1)).ravel().tolist() == [1, 1, 3]
    assert resample_labels(labels, (6, 1, 1)) is labels
    # Linear between centers at 0.5 and 1.5: quarters. Three codes meet, none is invented.
    narrow = np.array([0, 4], np.uint8).reshape(2, 1, 1)
    assert resample_labels(narrow, (8, 1, 1)).ravel().tolist() == [0] * 4 + [4] * 4


def test_no_code_appears_and_none_large_disappears():
    codes = np.random.default_rng(0).choice(np.uint8([0, 7, 200]), (5, 4, 3))
    labels = codes.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    for shape in ((13, 9, 17), (31, 30, 11)):
        assert set(np.unique(resample_labels(labels, shape))) == {0, 7, 200}


def arrays(labels=True):
    affine = np.diag([-1.0, -2.0, 3.0, 1.0])
    image = smooth((12, 10, 8))[..., None]
    mask = (image[..., 0] > 110).astype(np.uint8) if labels else None
    return CaseArrays(image, mask, affine, ("L", "P", "S"))


def test_a_resampled_case_keeps_the_labels_of_its_own_grid(tmp_path):
    own = arrays()
    changed = resampled(own, (2.0, 2.0, 2.0))
    assert changed.image.shape == (6, 10, 12, 1)
    assert changed.spacing_mm == (2, 2, 2)
    assert changed.source_shape == (12, 10, 8)
    assert changed.labels.shape == (6, 10, 12)
    stored = prepare([CASE], lambda case: changed, tmp_path / "store", workers=1).cases["a"]
    for case in (stored, StoredCase.from_arrays(CASE, changed)):
        assert case.resampled
        assert (case.spacing_mm, case.own_spacing_mm) == ((2, 2, 2), (1, 2, 3))
        np.testing.assert_array_equal(case.own_labels(), own.labels)
        np.testing.assert_array_equal(case.full_labels(), changed.labels)
    plain = StoredCase.from_arrays(CASE, own)
    assert not plain.resampled
    np.testing.assert_array_equal(plain.own_labels(), own.labels)
    unlabelled = StoredCase.from_arrays(CASE, resampled(arrays(labels=False), (2, 2, 2)))
    with pytest.raises(ValueError, match="case a: found no labels"):
        unlabelled.own_labels()


def test_a_case_that_has_the_voxel_size_is_not_touched():
    own = arrays()
    assert resampled(own, ()) is own
    assert resampled(own, (1, 2, 3)) is own
    near = resampled(replace(own), (1.01, 2, 3))  # 12 voxels still
    assert near.image is own.image


@pytest.mark.parametrize("wrong", [(1, 1), (1, 1, 0), (1, -1, 1), "111", (1, 1, float("nan"))])
def test_odd_voxel_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"spacing_mm: found .*expected three lengths in mm"):
        require_spacing(wrong)


def test_probabilities_are_interpolated_linearly_between_the_centers_of_voxels():
    # Centers of 4 voxels, in voxels of 2: -1/4, 1/4, 3/4, 5/4; beyond a center its value stays.
    values = np.float32([0, 1]).reshape(2, 1, 1)
    found = resample_map(values, (4, 1, 1))
    np.testing.assert_allclose(found.ravel(), [0, 0.25, 0.75, 1])
    assert found.dtype == np.float32
    assert resample_map(values, (2, 1, 1)) is values
