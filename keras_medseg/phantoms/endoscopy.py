"""Drawing of frames from a colonoscopy, in sequences that show one polyp or two.

Everything is drawn in units of the image height from smooth random fields and signed distances
(positive inside); nothing comes from a patient's pixels. Colors, sizes and distractors (folds,
highlights) were chosen to resemble CVC-ClinicDB. Over 40 frames of 40 sequences of seed 0, the best
single threshold of any channel, raw or z-scored, reaches a Dice of 0.21.
"""

import math
from dataclasses import dataclass

import numpy as np

from keras_medseg.phantoms.geometry import Drawing, PixelGrid, norm, to_pixels

VERSION = 1
"""Version of the drawing: another version draws other pixels from the same seed."""

FRAMES_PER_SEQUENCE = 4
"""Consecutive frames of one scene."""


def endoscopy_case(seed: int, index: int, size: tuple[int, int] = (288, 384)) -> Drawing:
    """Draw one frame. Frames of a sequence show one scene from nearby viewpoints.

    Args:
        seed: of the data set.
        index: of the frame, from 0.
        size: (rows, columns) in pixels.

    Returns:
        Image (H, W, 3) uint8, and labels (H, W) uint8, 1 where a polyp is.
    """
    scene = np.random.default_rng([seed, index // FRAMES_PER_SEQUENCE, 1])
    frame = np.random.default_rng([seed, index, 2])
    plain, grid = PixelGrid(size), _camera(scene, frame, index, size)
    lumen = _lumen(scene, plain)
    polyps = [_plan_polyp(scene, lumen, plain.aspect) for _ in range(1 + (scene.random() < 0.15))]
    height, folds, radius = _wall(scene, grid, lumen)
    distance = np.maximum.reduce([polyp.distance(grid) for polyp in polyps])
    on_polyp = plain.coverage(distance, 0.02)
    pits = grid.noise(scene, 0.012)
    # A polyp grows out of the wall and flattens the folds under it.
    height += folds * (1 - plain.coverage(distance, 0.4)) + _bump(polyps, grid)
    height += 0.001 * pits * on_polyp
    lamp = (
        0.5 + scene.normal(0, 0.12) + frame.normal(0, 0.04),
        plain.aspect / 2 + scene.normal(0, 0.12) + frame.normal(0, 0.04),
        1.0 + frame.normal(0, 0.04),
    )
    diffuse, specular = _lit(height, grid, lamp)
    groove = 1 - 0.35 * np.exp(-((distance / 0.1) ** 2)) * (distance < 0.05)
    open_wall = np.clip((radius - 0.03) / 0.3, 0, 1) ** 0.7
    light = (0.08 + diffuse) * groove * (0.12 + 0.88 * open_wall) * scene.uniform(1.0, 1.9)
    color = 1 - np.exp(-1.1 * _mucosa(scene, grid, on_polyp, pits) * light[..., None])
    gloss = scene.uniform(0.3, 1.0) * specular ** scene.uniform(150, 500)
    color += (np.clip(3 * gloss - 0.5, 0, 1) * open_wall)[..., None]
    view = plain.coverage(_octagon(scene, plain), 0.006)
    color = np.clip(color, 0, 1) * view[..., None] + 0.03 * (1 - view[..., None])
    noise = 0.008 * frame.standard_normal(color.shape, dtype=np.float32)
    return to_pixels(color + noise), ((distance > 0) & (view > 0.5)).astype(np.uint8)


def _camera(
    scene: np.random.Generator, frame: np.random.Generator, index: int, size: tuple[int, int]
) -> PixelGrid:
    """The positions of a frame's pixels in its scene: the camera drifts and shakes."""
    drift, zoom = scene.normal(0, 0.02, 2), scene.uniform(0.8, 1.2)
    step = index % FRAMES_PER_SEQUENCE - (FRAMES_PER_SEQUENCE - 1) / 2
    return PixelGrid(
        size, zoom * (1 + 0.05 * frame.normal()), drift * step + frame.normal(0, 0.012, 2)
    )


def _lumen(rng: np.random.Generator, grid: PixelGrid) -> tuple[float, float]:
    """(y, x) of the dark lumen of the bowel: in the image, or beside it, facing the wall."""
    away = rng.uniform(0.05, 0.3) if rng.random() < 0.5 else rng.uniform(0.8, 1.5)
    turn = rng.uniform(0, 2 * math.pi)
    return 0.5 + away * math.sin(turn), grid.aspect / 2 + away * math.cos(turn)


def _mucosa(
    rng: np.random.Generator, grid: PixelGrid, on_polyp: np.ndarray, pits: np.ndarray
) -> np.ndarray:
    """(H, W, 3) color of the wall with its vessels, and of the polyp."""
    warm, pale = np.array([0.92, 0.46, 0.27]), np.array([0.84, 0.62, 0.53])
    base = warm + (pale - warm) * rng.uniform(0, 1) + rng.normal(0, 0.03, 3)
    # Redder or paler than the wall, but by no more than the walls of two scenes differ.
    tint = rng.normal(0, 0.08) * np.array([0.3, 1.2, 1.0]) - np.array([0, 0.09, 0.09])
    blotches, vessels = grid.noise(rng, 0.2), _vessels(rng, grid) * (1 - on_polyp)
    color = base * (1 + 0.06 * blotches[..., None] * np.array([0.4, 1, 1]))
    color *= 1 - vessels[..., None] * np.array([0.25, 0.7, 0.7])
    return color * (1 + on_polyp[..., None] * (tint + 0.08 * pits[..., None]))


@dataclass(frozen=True)
class _Polyp:
    """A bump on the wall.

    Attributes:
        y: row of its center, in units of the image height, as are x and radius.
        x: column of its center.
        radius: of the undistorted circle.
        stretch: its length divided by its width.
        angle: of its longer axis in radians.
        height: in units of its radius.
        lobes: (orders, 2) amplitude and phase of the waves of its border, from the second order on.
    """

    y: float
    x: float
    radius: float
    stretch: float
    angle: float
    height: float
    lobes: np.ndarray

    def distance(self, grid: PixelGrid) -> np.ndarray:
        """1 at the center, 0 at the border, negative outside."""
        y, x = grid.y - self.y, grid.x - self.x
        along = math.cos(self.angle) * x + math.sin(self.angle) * y
        across = math.cos(self.angle) * y - math.sin(self.angle) * x
        angle = np.arctan2(across, along)
        border = 1 + sum(
            size * np.cos(order * angle + phase)
            for order, (size, phase) in enumerate(self.lobes, 2)
        )
        return 1 - np.hypot(along / self.stretch, across) / (self.radius * border)


def _plan_polyp(rng: np.random.Generator, lumen: tuple[float, float], aspect: float) -> _Polyp:
    """A polyp in the image and away from the lumen."""
    spots = rng.uniform((0.22, 0.3), (0.78, aspect - 0.3), (50, 2))
    away = np.hypot(*(spots - lumen).T)
    y, x = spots[np.argmax(away > 0.28)]
    radius = float(np.exp(rng.normal(np.log(0.14), 0.35)).clip(0.06, 0.3))
    lobes = np.stack([rng.normal(0, (0.1, 0.06, 0.04, 0.03)), rng.uniform(0, 6.3, 4)], -1)
    height = rng.uniform(0.4, 0.9)
    return _Polyp(y, x, radius, rng.uniform(1.0, 1.6), rng.uniform(0, 3.1), height, lobes)


def _bump(polyps: list[_Polyp], grid: PixelGrid) -> np.ndarray:
    """(H, W) height of the polyps above the wall."""
    domes = [
        polyp.radius * polyp.height * (1 - (1 - np.clip(polyp.distance(grid), 0, 1)) ** 2.2) ** 0.75
        for polyp in polyps
    ]
    return np.maximum.reduce(domes)


def _wall(
    rng: np.random.Generator, grid: PixelGrid, lumen: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height of the wall and of its folds above the image plane; distance from the lumen."""
    stretch, rings = rng.uniform(0.8, 1.3), rng.uniform(1.6, 3.5)
    wobble, strength = grid.noise(rng, 0.3), grid.noise(rng, 0.35)
    radius = np.hypot(grid.y - lumen[0], (grid.x - lumen[1]) * stretch) * np.exp(0.22 * wobble)
    depth = np.log(radius + 0.08)
    phase = rings * depth + 0.45 * grid.noise(rng, 0.5)
    ridge = np.exp(-(((phase % 1 - 0.5) / 0.16) ** 2)) * np.clip(0.6 + 0.6 * strength, 0, 1.5)
    folds = rng.uniform(0.02, 0.06) * (radius + 0.2) * ridge
    height = rng.uniform(0.15, 0.35) * depth
    for spacing, size in ((0.25, 0.05), (0.11, 0.012), (0.05, 0.003), (0.018, 0.0006)):
        height += size * rng.uniform(0.5, 1.3) * grid.noise(rng, spacing)
    return height, folds, radius


def _vessels(rng: np.random.Generator, grid: PixelGrid) -> np.ndarray:
    """Fraction of each pixel that is vessel: in patches, the zero lines of two random fields."""
    patches = np.clip(grid.noise(rng, 0.35), 0, 1)
    wide, narrow = (np.exp(-((grid.noise(rng, spacing) / 0.05) ** 2)) for spacing in (0.16, 0.08))
    return rng.uniform(0.1, 0.6) * np.maximum(wide, narrow) * patches


def _lit(
    height: np.ndarray, grid: PixelGrid, lamp: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse and specular light of a lamp beside the camera on a surface."""
    slope_y, slope_x = np.gradient(height, grid.pixel * grid.zoom)
    size = np.sqrt(1 + slope_y**2 + slope_x**2)
    plain = PixelGrid(grid.size)
    to_lamp = (lamp[0] - plain.y, lamp[1] - plain.x, lamp[2] - height)
    distance = norm(to_lamp)
    facing = (to_lamp[2] - slope_y * to_lamp[0] - slope_x * to_lamp[1]) / (size * distance)
    to_eye = (0.5 - plain.y, grid.aspect / 2 - plain.x, 1.0 - height)
    far = norm(to_eye)
    half = [a / distance + b / far for a, b in zip(to_lamp, to_eye)]
    length = norm(half)
    specular = (half[2] - slope_y * half[0] - slope_x * half[1]) / (size * length)
    return np.clip(facing, 0, 1) / distance**2, np.clip(specular, 0, 1)


def _octagon(rng: np.random.Generator, grid: PixelGrid) -> np.ndarray:
    """The endoscope's field of view, positive inside."""
    y, x = np.abs(grid.y - 0.5), np.abs(grid.x - grid.aspect / 2 - rng.uniform(-0.03, 0.03))
    width = rng.uniform(0.5, 0.56)
    return np.minimum(np.minimum(0.47 - y, width - x), (0.47 + width - 0.16 - y - x) / 2**0.5)
