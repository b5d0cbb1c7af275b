"""What the drawings share: grids, smooth random fields, solids, and their conversion to voxels.

A solid is a signed distance field: positive inside, zero on the surface, in the unit of its
coordinates. Changing the order of the floating point operations changes some pixels, and requires a
new `VERSION` in the drawings that use them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

Drawing = tuple[np.ndarray, np.ndarray]
"""Image (H, W) or (H, W, 3) uint8, and labels (H, W) uint8."""

Vector = Sequence[float] | np.ndarray
"""A position or a size: one number for each axis."""

# Random fields extend beyond the image: zoom and shift move the view, not the field.
_IMAGE_SPAN = (-0.7, 2.7)
_NODE_SPACING_MM = 2


class PixelGrid:
    """The centers of the pixels of an image, in units of the image height.

    Attributes:
        size: (rows, columns).
        zoom: factor of the field of view.
        aspect: width of the image.
        pixel: edge length of a pixel without zoom.
        y: (H, 1) float32, from 0 at the upper edge to 1 at the lower edge without zoom and shift.
        x: (1, W) float32, from 0 at the left edge to `aspect` at the right edge.
    """

    def __init__(
        self, size: tuple[int, int], zoom: float = 1.0, shift: Vector = (0.0, 0.0)
    ) -> None:
        rows, columns = size
        self.size, self.zoom = size, zoom
        self.aspect, self.pixel = columns / rows, 1 / rows
        y, x = (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / rows
        y = (y - 0.5) * zoom + 0.5 + shift[0]
        x = (x - self.aspect / 2) * zoom + self.aspect / 2 + shift[1]
        self.y, self.x = y.astype(np.float32)[:, None], x.astype(np.float32)[None, :]

    def noise(self, rng: np.random.Generator, spacing: float) -> np.ndarray:
        """(H, W) smooth random field of unit variance, see `smooth_noise`."""
        return smooth_noise(rng, (self.y.ravel(), self.x.ravel()), spacing, 2 * (_IMAGE_SPAN,))

    def coverage(self, distance: np.ndarray, blur: float = 0.0) -> np.ndarray:
        """Fraction of each pixel that lies inside; the edge is one pixel or `blur` wide."""
        return coverage(distance, max(self.pixel, blur))


@dataclass(frozen=True)
class VoxelGrid:
    """The voxels of a box in a volume, and the coarser nodes on which fields are computed.

    Attributes:
        extent_mm: edge lengths of the whole volume; coordinates count from its corner.
        start: index of the first voxel of the box along each axis.
        fine: coordinates in mm of the voxels of the box, one array for each axis.
        nodes: coordinates in mm of the nodes, one array for each axis.
        voxel_mm: longest edge of a voxel.
        weights: (voxels, nodes) interpolation matrix of each axis.
    """

    extent_mm: tuple[float, ...]
    start: tuple[int, ...]
    fine: tuple[np.ndarray, ...]
    nodes: tuple[np.ndarray, ...]
    voxel_mm: float
    weights: tuple[np.ndarray, ...] = field(repr=False)

    @property
    def box(self) -> tuple[slice, ...]:
        """Indices of the box in the volume."""
        return tuple(slice(s, s + len(axis)) for s, axis in zip(self.start, self.fine))

    def points(self) -> np.ndarray:
        """(3, ...) float32 coordinates in mm of the nodes."""
        return np.stack(np.meshgrid(*self.nodes, indexing="ij")).astype(np.float32)

    def upsample(self, values: np.ndarray) -> np.ndarray:
        """Linear interpolation from the nodes to the voxels of the box."""
        return _separable(values, self.weights)

    def noise(
        self,
        rng: np.random.Generator,
        spacing_mm: float,
        at: Sequence[np.ndarray] | None = None,
    ) -> np.ndarray:
        """Smooth random field of unit variance on the nodes, or on the axes `at`."""
        spans = [(0.0, extent) for extent in self.extent_mm]
        return smooth_noise(rng, self.nodes if at is None else at, spacing_mm, spans)

    def distance_to_zero(self, values: np.ndarray) -> np.ndarray:
        """Approximate distance in mm to the zero surface of a field on the nodes.

        A quarter of the mean gradient is added to the divisor, to avoid a division by zero where
        the field is constant. For a field of constant gradient the result is 0.8 of the distance.
        """
        slopes = np.gradient(values, *[float(axis[1] - axis[0]) for axis in self.nodes])
        steepness = norm(slopes)
        return values / (steepness + 0.25 * steepness.mean())


def voxel_grid(
    shape: Sequence[int],
    extent_mm: tuple[float, ...],
    box_mm: Sequence[tuple[float, float]],
) -> VoxelGrid:
    """The grid of those voxels whose centers lie in a box.

    Args:
        shape: (X, Y, Z) of the whole volume.
        extent_mm: edge lengths of the whole volume, whatever its shape.
        box_mm: (low, high) of the box along each axis.
    """
    start, fine, nodes, weights, sizes_mm = [], [], [], [], []
    for count, extent, (low, high) in zip(shape, extent_mm, box_mm):
        size = extent / count
        centers = (np.arange(count) + 0.5) * size
        inside = np.flatnonzero((centers >= low) & (centers <= high))
        axis = centers[inside]
        wanted = int((axis[-1] - axis[0]) / _NODE_SPACING_MM) + 2
        coarse = np.linspace(axis[0], axis[-1], min(len(axis), wanted))
        start.append(int(inside[0]))
        fine.append(axis)
        nodes.append(coarse)
        weights.append(_linear_weights(axis, coarse))
        sizes_mm.append(size)
    return VoxelGrid(
        extent_mm, tuple(start), tuple(fine), tuple(nodes), float(max(sizes_mm)), tuple(weights)
    )


def smooth_noise(
    rng: np.random.Generator,
    axes: Sequence[np.ndarray],
    spacing: float,
    spans: Sequence[tuple[float, float]],
) -> np.ndarray:
    """A smooth random field of unit variance: a cubic B-spline with random coefficients.

    Args:
        rng: draws the coefficients.
        axes: coordinates along each axis at which the field is evaluated.
        spacing: distance between the knots of the spline.
        spans: (low, high) of the spline along each axis; `axes` may cover a part of it.

    Returns:
        One float32 value for each combination of the coordinates.
    """
    counts = [int((high - low) / spacing) + 4 for low, high in spans]
    coefficients = rng.standard_normal(counts, dtype=np.float32)
    weights = []
    for axis, count, (low, _) in zip(axes, counts, spans):
        knots = np.arange(-1, count - 1, dtype=np.float32)
        t = np.abs((axis[:, None] - low) / spacing - knots)
        near = 2 / 3 - t**2 + t**3 / 2
        spline = np.where(t < 1, near, np.clip(2 - t, 0, None) ** 3 / 6)
        weights.append(spline.astype(np.float32))
    # Averaged over the positions between two knots, the variance is 151 / 315 = 0.479 per axis.
    return _separable(coefficients, weights) / np.float32(0.479 ** (len(counts) / 2))


def norm(parts: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Length of vectors, given as a sequence of their two or three components."""
    if len(parts) == 2:
        return np.hypot(parts[0], parts[1])
    return np.sqrt(_sum(part**2 for part in parts))


def ellipsoid(p: np.ndarray, center: Vector, radii: Vector) -> np.ndarray:
    """Approximate distance to the surface of an ellipsoid along the axes; p (3, ...)."""
    middle, half_axes = np.asarray(center, np.float32), np.asarray(radii, np.float32)
    q = [(axis - m) / half_axis for axis, m, half_axis in zip(p, middle, half_axes)]
    return _ellipsoid(q, half_axes, 1e-6)


def ellipse(p: np.ndarray, center: Vector, radii: Vector, angle: float = 0.0) -> np.ndarray:
    """Approximate distance to the border of an ellipse rotated by `angle` radians; p (2, ...)."""
    y, x = p[0] - center[0], p[1] - center[1]
    down = (math.cos(angle) * y + math.sin(angle) * x) / radii[0]
    across = (math.cos(angle) * x - math.sin(angle) * y) / radii[1]
    return _ellipsoid((down, across), radii, 1e-4)


def tube(p: np.ndarray, points: Sequence[Vector], radii: Vector) -> np.ndarray:
    """Distance to the surface around a polyline with one radius per point; p (2 or 3, ...)."""
    segments = []
    for a, b, radius_a, radius_b in zip(points, points[1:], radii, radii[1:]):
        step = [end - start for start, end in zip(a, b)]
        along = _sum((axis - start) * s for axis, start, s in zip(p, a, step))
        t = np.clip(along / sum(s**2 for s in step), 0, 1)
        away = norm([axis - start - t * s for axis, start, s in zip(p, a, step)])
        segments.append(radius_a + (radius_b - radius_a) * t - away)
    return np.maximum.reduce(segments)


def union(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """The union of two solids, with a fillet of the size `blend` where they meet."""
    h = np.clip(0.5 + 0.5 * (a - b) / blend, 0, 1)
    return b + (a - b) * h + blend * h * (1 - h)


def coverage(distance: np.ndarray, width: float) -> np.ndarray:
    """Fraction of a pixel or voxel of this width that lies inside a solid."""
    return np.clip(0.5 + distance / width, 0, 1)


def with_rician_noise(rng: np.random.Generator, signal: np.ndarray, deviation: float) -> np.ndarray:
    """Magnitude of a signal with Gaussian noise in its real and imaginary parts."""
    real, imaginary = deviation * rng.standard_normal((2, *signal.shape), np.float32)
    return np.hypot(signal + real, imaginary)


def to_pixels(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1 as uint8; values outside are clipped."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _ellipsoid(q: Sequence[np.ndarray], radii: Vector, smallest_slope: float) -> np.ndarray:
    """Distance to the unit sphere in scaled coordinates `q`, divided by its gradient."""
    k0 = norm(q) + 1e-4
    slope = norm([axis / radius for axis, radius in zip(q, radii)]) + smallest_slope
    return k0 * (1 - k0) / slope


def _sum(parts: Iterable[np.ndarray]) -> np.ndarray:
    """The sum from left to right."""
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


def _linear_weights(at: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    distance = np.abs(at[:, None] - nodes) / (nodes[1] - nodes[0])
    return np.clip(1 - distance, 0, 1).astype(np.float32)


def _separable(values: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """Apply one matrix along each axis; with 2 or 4 numbers per row, sparse is 4 times faster."""
    from scipy import sparse

    for matrix in weights:
        rest = values.shape[1:]
        values = sparse.csr_array(matrix) @ values.reshape(len(values), -1)
        values = np.ascontiguousarray(np.moveaxis(values.reshape(-1, *rest), 0, -1))
    return values
