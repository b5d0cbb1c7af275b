"""The solids and fields of which every drawing is made."""

import math

import numpy as np
import pytest

from keras_medseg.phantoms import geometry
from keras_medseg.phantoms.geometry import PixelGrid, VoxelGrid, voxel_grid


def column(*place: float) -> np.ndarray:
    """One place, as coordinates (axes, 1)."""
    return np.array(place, np.float32)[:, None]


class TestSolids:
    @pytest.mark.parametrize(("radius_mm", "away_mm"), [(10, 5), (10, 10), (10, 20), (3, 7)])
    def test_distance_to_a_sphere_by_hand(self, radius_mm, away_mm):
        """k0 (1 - k0) / (k0 / r) = (1 - k0) r = r - distance from the center."""
        p = column(1, 2 + away_mm, 3)
        distance = geometry.ellipsoid(p, (1, 2, 3), 3 * (radius_mm,))
        np.testing.assert_allclose(distance, [radius_mm - away_mm], atol=2e-3)

    def test_an_ellipsoid_ends_at_its_radii(self):
        for axis, radius in enumerate((4.0, 6.0, 9.0)):
            for side, sign in ((0.9, 1), (1.1, -1)):
                p = np.zeros((3, 1), np.float32)
                p[axis] = side * radius
                assert np.sign(geometry.ellipsoid(p, (0, 0, 0), (4, 6, 9))) == sign

    def test_an_ellipse_turns_from_y_to_x(self):
        """0.3 long along y; turned by a right angle, it is 0.3 long along x."""
        upright, lying = ((0.0, 0.0), (0.3, 0.1)), math.pi / 2
        assert geometry.ellipse(column(0.2, 0), *upright) > 0
        assert geometry.ellipse(column(0, 0.2), *upright) < 0
        assert geometry.ellipse(column(0.2, 0), *upright, lying) < 0
        assert geometry.ellipse(column(0, 0.2), *upright, lying) > 0

    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_distance_to_a_tube_by_hand(self, dimensions):
        """From (0, 0) to (10, 0), 1 wide at one end and 3 at the other, then to (10, 10)."""
        points = [(0, 0, 0)[:dimensions], (10, 0, 0)[:dimensions], (10, 10, 0)[:dimensions]]
        for place, expected in [
            ((5, 0), 2.0),  # the radius in the middle
            ((5, -4), 2.0 - 4.0),
            ((-3, 0), 1.0 - 3.0),  # round ends
            ((10, 14), 5.0 - 4.0),
            ((9, 5), 4.0 - 1.0),  # the nearest segment counts
        ]:
            p = column(*place, 0)[:dimensions]
            distance = geometry.tube(p, points, (1, 3, 5))
            np.testing.assert_allclose(distance, [expected], rtol=1e-6)

    def test_a_union_is_the_larger_one_with_a_fillet(self):
        a, b = np.array([5.0, -8.0, 1.0]), np.array([1.0, 2.0, 1.0])
        # Equal distances gain blend / 4; those more than a blend apart gain nothing.
        np.testing.assert_allclose(geometry.union(a, b, 2.0), [5.0, 2.0, 1.5])
        np.testing.assert_allclose(geometry.union(b, a, 2.0), [5.0, 2.0, 1.5])

    def test_coverage_is_a_half_on_the_surface(self):
        distance = np.array([-2.0, -1.0, 0.0, 0.5, 3.0])
        np.testing.assert_allclose(geometry.coverage(distance, 2.0), [0, 0, 0.5, 0.75, 1])


class TestSmoothNoise:
    def test_has_unit_variance(self):
        axes = [np.linspace(0, 100, 200)] * 2
        noise = geometry.smooth_noise(np.random.default_rng(0), axes, 1.0, [(0.0, 100.0)] * 2)
        assert noise.dtype == np.float32
        assert abs(noise.mean()) < 0.05
        assert abs(noise.std() - 1) < 0.05

    def test_does_not_depend_on_where_it_is_sampled(self):
        def noise(axis):
            spans = [(0.0, 20.0)] * 3
            return geometry.smooth_noise(np.random.default_rng(1), [axis] * 3, 3.0, spans)

        fine, coarse = np.linspace(0, 20, 41), np.linspace(0, 20, 21)
        np.testing.assert_allclose(noise(fine)[::2, ::2, ::2], noise(coarse), atol=1e-5)

    def test_is_the_sum_of_the_splines(self):
        """At a knot, a cubic B-spline weighs it by 2/3 and each of its neighbors by 1/6."""
        axis = np.array([2.0])
        found = geometry.smooth_noise(np.random.default_rng(2), [axis] * 2, 1.0, [(0.0, 5.0)] * 2)
        coefficients = np.random.default_rng(2).standard_normal((9, 9), dtype=np.float32)
        weights = np.array([1 / 6, 2 / 3, 1 / 6])
        # The knots begin one spacing before 0, so that of 2 is the fourth.
        expected = weights @ coefficients[2:5, 2:5] @ weights / 0.479
        np.testing.assert_allclose(found, [[expected]], rtol=1e-5)


class TestPixelGrid:
    def test_centers_of_the_pixels(self):
        grid = PixelGrid((2, 4))
        np.testing.assert_allclose(grid.y, [[0.25], [0.75]])
        np.testing.assert_allclose(grid.x, [[0.25, 0.75, 1.25, 1.75]])
        assert (grid.aspect, grid.pixel) == (2.0, 0.5)

    def test_zooms_around_the_center_and_shifts(self):
        grid = PixelGrid((2, 4), zoom=2.0, shift=(0.1, -0.1))
        np.testing.assert_allclose(grid.y, [[0.1], [1.1]], rtol=1e-6)
        np.testing.assert_allclose(grid.x, [[-0.6, 0.4, 1.4, 2.4]], rtol=1e-6)

    def test_coverage_is_blurred_over_a_pixel_at_least(self):
        grid, distance = PixelGrid((10, 10)), np.array([0.025])
        np.testing.assert_allclose(grid.coverage(distance), [0.75])
        np.testing.assert_allclose(grid.coverage(distance, 0.05), [0.75])
        np.testing.assert_allclose(grid.coverage(distance, 0.2), [0.625])

    def test_noise_moves_with_the_view(self):
        """Shifted by one pixel, the same field is seen one pixel further on."""
        here, there = PixelGrid((20, 30)), PixelGrid((20, 30), shift=(0.05, 0.05))
        noise = [grid.noise(np.random.default_rng(3), 0.2) for grid in (here, there)]
        np.testing.assert_allclose(noise[0][1:, 1:], noise[1][:-1, :-1], atol=1e-4)


class TestVoxelGrid:
    @pytest.fixture
    def grid(self) -> VoxelGrid:
        """20 voxels of 1 mm, of which those with centers from 4 to 14 mm are in the box."""
        return voxel_grid((20, 20, 10), (20.0, 20.0, 20.0), [(4.0, 14.0)] * 3)

    def test_box_holds_the_voxels_whose_centers_lie_in_it(self, grid):
        np.testing.assert_allclose(grid.fine[0], np.arange(4.5, 14))
        np.testing.assert_allclose(grid.fine[2], [5, 7, 9, 11, 13])
        assert grid.box == (slice(4, 14), slice(4, 14), slice(2, 7))
        assert grid.voxel_mm == 2.0

    def test_linear_fields_are_interpolated_exactly(self, grid):
        x, y, z = grid.points()
        found = grid.upsample(2 * x - y + 0.5 * z)
        x, y, z = np.meshgrid(*grid.fine, indexing="ij")
        np.testing.assert_allclose(found, 2 * x - y + 0.5 * z, atol=1e-5)

    def test_distance_to_a_zero_surface_does_not_depend_on_the_fields_scale(self, grid):
        """Of a plane it is 0.8 of the distance: gradient / (gradient + 0.25 mean gradient)."""
        x = grid.points()[0] - 9
        for slope in (1, 50):
            np.testing.assert_allclose(grid.distance_to_zero(slope * x), 0.8 * x, rtol=1e-5)

    def test_noise_on_the_voxels_is_that_of_the_nodes(self, grid):
        nodes = grid.noise(np.random.default_rng(4), 8)
        fine = grid.noise(np.random.default_rng(4), 8, at=grid.fine)
        np.testing.assert_allclose(nodes[0, 0, 0], fine[0, 0, 0], atol=1e-5)
        np.testing.assert_allclose(nodes[-1, -1, -1], fine[-1, -1, -1], atol=1e-5)
        assert fine.shape == (10, 10, 5)


def test_rician_noise_raises_the_power_by_that_of_both_parts():
    """E[(s + a)^2 + b^2] = s^2 + 2 sigma^2."""
    signal = np.full(100_000, 3.0, np.float32)
    noisy = geometry.with_rician_noise(np.random.default_rng(5), signal, 2.0)
    np.testing.assert_allclose((noisy**2).mean(), 9 + 2 * 4, rtol=0.02)
    assert noisy.min() >= 0


def test_pixels_are_rounded_and_clipped():
    found = geometry.to_pixels(np.array([-0.2, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 7.0]))
    np.testing.assert_array_equal(found, np.array([0, 0, 0, 1, 255, 255], np.uint8))
    assert found.dtype == np.uint8
