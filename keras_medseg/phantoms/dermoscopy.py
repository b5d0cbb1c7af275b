"""Drawing of dermoscopic images of pigmented lesions.

Everything is drawn in units of the image height from smooth random fields and signed distances
(positive inside); nothing comes from a patient's pixels. Colors, sizes and distractors (hairs,
moles, the shadow of the lens mount) were chosen to resemble ISIC 2018. Over 40 images of seed 0,
the best single threshold of any channel, raw or z-scored, reaches a Dice of 0.43.
"""

import math

import numpy as np

from keras_medseg.phantoms.geometry import Drawing, PixelGrid, to_pixels

VERSION = 1
"""Version of the drawing: another version draws other pixels from the same seed."""

_SKINS = np.array([
    (0.93, 0.74, 0.68), (0.90, 0.84, 0.80), (0.78, 0.76, 0.70), (0.74, 0.80, 0.93),
    (0.84, 0.62, 0.48), (0.92, 0.60, 0.56),
])  # fmt: skip


def dermoscopy_case(seed: int, index: int, size: tuple[int, int] = (576, 768)) -> Drawing:
    """Draw one image.

    Args:
        seed: of the data set.
        index: of the image, from 0.
        size: (rows, columns) in pixels.

    Returns:
        Image (H, W, 3) uint8, and labels (H, W) uint8, 1 where the lesion is.
    """
    rng = np.random.default_rng([seed, index, 3])
    grid = PixelGrid(size)
    radius = float(np.exp(rng.normal(np.log(0.24), 0.35)).clip(0.1, 0.46))
    center = np.array([0.5, grid.aspect / 2]) + rng.normal(0, 0.06, 2)
    lesion = _spot(rng, grid, center, radius, rng.uniform(0.5, 1.2))
    melanin = rng.uniform(0.08, 0.9) * _pigment(rng, grid, lesion, radius)
    texture = 0.02 * grid.noise(rng, 0.012) + 0.025 * grid.noise(rng, 0.06)
    for _ in range(rng.poisson(2)):
        place = rng.uniform((0.05, 0.05), (0.95, grid.aspect - 0.05))
        mole = _spot(rng, grid, place, rng.uniform(0.012, 0.05), 0.0)
        melanin += rng.uniform(0.1, 0.8) * grid.coverage(mole + 6 * texture, 0.5)
    skin = _SKINS[rng.integers(len(_SKINS))] * rng.uniform(0.8, 1.05) + rng.normal(0, 0.02, 3)
    blotches = 0.05 * grid.noise(rng, 0.25)
    absorbed = np.array([0.45, 0.95, 1.25]) * rng.uniform(0.8, 1.2, 3)
    red = rng.uniform(0, 0.3) * np.clip(grid.noise(rng, 0.3), 0, 2) * (lesion < 0.3)
    density = melanin[..., None] * absorbed + red[..., None] * np.array([0.05, 0.6, 0.5])
    density += (blotches + texture)[..., None] * np.array([0.6, 1.0, 1.0])
    color = skin * np.exp(-density)
    image, seen = _photographed(rng, grid, color)
    return image, ((lesion > 0) & seen).astype(np.uint8)


def _photographed(
    rng: np.random.Generator, grid: PixelGrid, color: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The skin under hairs, a ruler, gel and uneven light; and the part inside the lens mount."""
    hairs = _hairs(rng, grid, int(rng.integers(0, 14) * (rng.random() < 0.6)))
    shade = np.array([0.16, 0.1, 0.08]) * rng.uniform(0.3, 3.0)
    color = color + 0.9 * hairs[..., None] * (shade - color)
    if rng.random() < 0.2:
        ticks = np.minimum(0.004 - np.abs((grid.x / 0.06) % 1 - 0.5) * 0.06, grid.y - 0.94)
        color = color * (1 - 0.8 * grid.coverage(ticks))[..., None]
    for _ in range(rng.poisson(1.5)):
        y, x = rng.uniform(0, 1), rng.uniform(0, grid.aspect)
        ring = np.abs(np.hypot(grid.y - y, grid.x - x) - rng.uniform(0.008, 0.03))
        color = color + 0.25 * grid.coverage(0.003 - ring)[..., None]
    slope = rng.normal(0, 0.12, 2)
    light = 1 + slope[0] * (grid.y - 0.5) + slope[1] * (grid.x - grid.aspect / 2)
    away = np.hypot(grid.y - 0.5, grid.x - grid.aspect / 2)
    light = light * (1 - rng.uniform(0, 0.8) * np.clip(away - 0.3, 0, None))
    mount = rng.uniform(0.5, 0.68) - away if rng.random() < 0.5 else np.ones_like(away)
    light = light * (0.03 + 0.97 * grid.coverage(mount, 0.08))
    color = color * light[..., None]
    color += 0.01 * rng.standard_normal(color.shape, dtype=np.float32)
    return to_pixels(color), mount > 0


def _spot(
    rng: np.random.Generator, grid: PixelGrid, center: np.ndarray, radius: float, uneven: float
) -> np.ndarray:
    """Depth inside a pigmented spot: 1 in the middle, 0 at the border, negative outside."""
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.6)
    y, x = grid.y - float(center[0]), grid.x - float(center[1])
    along = (math.cos(turn) * x + math.sin(turn) * y) / stretch**0.5
    across = (math.cos(turn) * y - math.sin(turn) * x) * stretch**0.5
    distance = 1 - np.hypot(along, across) / radius
    for spacing, size in ((0.9, 0.3), (0.35, 0.12), (0.12, 0.05)) if uneven else ():
        distance = distance + uneven * size * grid.noise(rng, spacing * radius + 0.01)
    return distance


def _pigment(
    rng: np.random.Generator, grid: PixelGrid, lesion: np.ndarray, radius: float
) -> np.ndarray:
    """Melanin of a lesion at each pixel: patches, a network of lines, globules, pale parts."""
    patches = 1 + rng.uniform(0.2, 0.6) * grid.noise(rng, 0.35 * radius + 0.01)
    first, second = (grid.noise(rng, 0.022) for _ in range(2))
    network = np.exp(-((first / 0.35) ** 2)) + np.exp(-((second / 0.35) ** 2)) - 0.8
    globules = np.clip(grid.noise(rng, 0.014) - 1.3, 0, 1)
    fine = rng.uniform(0, 0.5) * network + rng.uniform(0, 1.0) * globules
    pale = 1 - rng.uniform(0, 0.9) * np.clip(grid.noise(rng, 0.6 * radius) - 0.6, 0, 1)
    edge = grid.coverage(lesion, rng.uniform(0.08, 0.5))
    return np.clip(patches + fine, 0.15, None) * pale * edge


def _hairs(rng: np.random.Generator, grid: PixelGrid, count: int) -> np.ndarray:
    """Fraction of each pixel that is hair: arcs of large circles, thin at their ends."""
    covered = np.zeros(grid.size, np.float32)
    for _ in range(count):
        radius, turn = rng.uniform(0.4, 3.0), rng.uniform(0, 2 * np.pi)
        middle = rng.uniform(0, 1), rng.uniform(0, grid.aspect)
        y = grid.y - (middle[0] + radius * math.sin(turn))
        x = grid.x - (middle[1] + radius * math.cos(turn))
        along = (np.arctan2(-y, -x) - turn + np.pi) % (2 * np.pi) - np.pi
        taper = np.clip(1 - (along * radius / rng.uniform(0.15, 0.6)) ** 2, 0, 1)
        width = rng.uniform(0.002, 0.006) * taper
        covered = np.maximum(
            covered, grid.coverage(width - np.abs(np.hypot(y, x) - radius)) * (taper > 0)
        )
    return covered
