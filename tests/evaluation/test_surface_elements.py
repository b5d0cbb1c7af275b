"""Surface elements: areas by hand, and distances of PyPI surface-distance."""

import math

import numpy as np
import pytest
from scipy import ndimage

from keras_medseg.evaluation import surface_elements as surfaces

from .lesion_goldens import cases, label_maps

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,), "RC": (4,)}


def cube(size, *, shape=(9, 9, 9), at=2):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(at, at + n) for n in size)] = True
    return mask


def areas(mask, spacing_mm=(1, 1, 1)):
    return surfaces.surface_elements(mask, mask, spacing_mm).truth_areas


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (1, 2, 0.5)])
def test_area_of_a_box_by_hand(spacing_mm):
    # A box of 3 x 4 x 2 voxels. Where four voxels meet inside a face, the element is a whole face
    # of a voxel. On an edge along z it stands obliquely, over half of an x face and half of a y
    # face: sqrt(x^2 + y^2) / 2. In a corner it is a triangle of sqrt(x^2 + y^2 + z^2) / 8.
    x, y, z = (spacing_mm[1] * spacing_mm[2], spacing_mm[0] * spacing_mm[2],
               spacing_mm[0] * spacing_mm[1])  # fmt: skip
    i, j, k = 2, 3, 1  # corners of voxels inside the box, along each axis
    expected = 2 * (j * k * x + i * k * y + i * j * z)
    expected += 4 * (k * math.hypot(x, y) + j * math.hypot(x, z) + i * math.hypot(y, z)) / 2
    expected += 8 * math.sqrt(x**2 + y**2 + z**2) / 8
    assert areas(cube((3, 4, 2)), spacing_mm).sum() == pytest.approx(expected)


def test_every_code_has_an_area_and_its_complement_the_same():
    table = surfaces._areas((1.0, 2.0, 3.0))
    assert table[0] == table[255] == 0
    assert (table[1:255] > 0).all()
    np.testing.assert_allclose(table, table[::-1])


@pytest.mark.parametrize("name", ["anisotropic", "random11", "diagonal", "shift1", "border"])
def test_distances_are_those_of_the_package(name):
    truth, prediction = label_maps(name)
    spacing_mm = cases()[name]["spacing"]
    compared = 0
    for region, codes in REGIONS.items():
        masks = np.isin(prediction, codes), np.isin(truth, codes)
        golden = cases()[name]["plain"][region]
        if None in golden.values() or not all(mask.any() for mask in masks):
            continue
        found = surfaces.surface_elements(*masks, spacing_mm)
        assert surfaces.robust_hausdorff(found) == pytest.approx(golden["hd95"], abs=1e-9)
        assert surfaces.robust_hausdorff(found, 100) == pytest.approx(golden["hd100"], abs=1e-9)
        weighted = np.average(found.prediction_to_truth, weights=found.prediction_areas)
        assert weighted == pytest.approx(golden["asd_pred_to_gt"], abs=1e-9)
        weighted = np.average(found.truth_to_prediction, weights=found.truth_areas)
        assert weighted == pytest.approx(golden["asd_gt_to_pred"], abs=1e-9)
        for tolerance in (1, 2):
            dice = surfaces.surface_dice(*masks, spacing_mm, tolerance)
            assert dice == pytest.approx(golden[f"nsd_{tolerance}mm"], abs=1e-9)
        compared += 1
    assert compared


def test_the_percentile_is_the_first_distance_up_to_which_that_share_of_the_area_lies():
    areas, none = np.ones(20), np.zeros(0)
    distances = np.array([5.0] + [0.0] * 18 + [3.0])
    found = surfaces.SurfaceElements(distances, areas, np.zeros(20), areas)
    assert surfaces.robust_hausdorff(found) == 3  # 19 of 20 are 95 percent
    assert surfaces.robust_hausdorff(found, 96) == 5
    areas = np.where(distances == 5, 3.0, 1.0)  # 19 of 22 are 86 percent
    assert (
        surfaces.robust_hausdorff(
            surfaces.SurfaceElements(np.zeros(1), np.ones(1), distances, areas)
        )
        == 5
    )
    assert (
        surfaces.robust_hausdorff(surfaces.SurfaceElements(none, none, distances, areas)) == np.inf
    )


def test_empty_masks():
    full, empty = cube((2, 2, 2)), cube((0, 0, 0))
    assert surfaces.surface_dice(empty, empty, (1, 1, 1), 1) == 1
    assert surfaces.surface_dice(full, empty, (1, 1, 1), 99) == 0
    assert surfaces.surface_dice(empty, full, (1, 1, 1), 99) == 0
    for masks in ((empty, full), (full, empty), (empty, empty)):
        elements = surfaces.surface_elements(*masks, (1, 1, 1))
        assert surfaces.robust_hausdorff(elements) == math.inf


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.9, 0.7, 1.2)])
def test_nearest_distances_equal_the_distance_transform(spacing_mm):
    some, others = np.random.default_rng(0).random((2, 17, 14, 11)) < 0.02
    transform = ndimage.distance_transform_edt(~others, sampling=spacing_mm)
    found = surfaces.to_nearest(some, others, spacing_mm)
    np.testing.assert_array_equal(found, transform[some])


def test_numbers_overflow_in_eight_bits_as_in_the_originals():
    # Of 27 corners of a cube of 2 x 2 x 2 voxels, the middle one is no surface. With the number 4
    # for 1, its code is 4 * 255 = 1020 = 252 in eight bits, which is neither 0 nor 255. But those
    # of 64, 128 and 192, two corners of the cube and the edge between them, are 0.
    mask = cube((2, 2, 2))
    assert len(areas(mask)) == 26
    assert len(areas(mask.astype(np.uint8) * 4)) == 26 + 1 - 3
