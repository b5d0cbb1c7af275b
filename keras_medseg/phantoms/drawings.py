"""Drawings of endoscopy-like, dermoscopy-like and knee-MRI-like pictures and their labels.

Everything is drawn in units of the picture's height from smooth random fields and signed distances
(positive inside); nothing comes from a patient's pixels. Colours, sizes and the confusing things
beside the object (folds and highlights, hairs and moles, tendons and cortical bone) were chosen to
resemble CVC-ClinicDB, ISIC 2018 and knee MRI. Over 40 pictures (of 40 sequences) of seed 0 the best
single threshold of any channel, raw or z-scored, reaches a Dice of 0.21 for polyps, 0.43 for
lesions, 0.03 for the patellar ligament and 0.37 for the femur, the easiest of the bones.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Drawing = tuple[np.ndarray, np.ndarray]

VERSION = 1
"""Of the drawings: another version draws other pixels from the same seed."""

FRAMES_PER_SEQUENCE = 4
"""Consecutive frames of one scene in endoscopy-like pictures."""

KNEE_CLASSES = {
    "tibia": (51,),
    "femur": (102,),
    "patella": (153,),
    "patellar ligament": (204,),
    "cruciate ligament": (255,),
}
"""Name -> grey code in a mask of the knee; label 1 is the first, and so on."""


class _Grid:
    """The pixels' centres: y (H, 1) from 0 to 1 and x (1, W), in units of the picture's height."""

    def __init__(
        self, size: tuple[int, int], zoom: float = 1.0, shift: Sequence[float] = (0.0, 0.0)
    ) -> None:
        rows, columns = size
        self.size, self.zoom = size, zoom
        self.aspect, self.pixel = columns / rows, 1 / rows
        y, x = (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / rows
        self.y = np.float32((y - 0.5) * zoom + 0.5 + shift[0])[:, None]
        self.x = np.float32((x - self.aspect / 2) * zoom + self.aspect / 2 + shift[1])[None, :]

    def inside(self, distance: np.ndarray, blur: float = 0.0) -> np.ndarray:
        """Share of the pixel that lies inside: over one pixel or `blur`."""
        return np.clip(0.5 + distance / max(self.pixel, blur), 0, 1)


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _field(rng: np.random.Generator, grid: _Grid, spacing: float) -> np.ndarray:
    """(H, W) smooth random field of unit variance: a cubic B-spline with random coefficients."""
    from scipy import sparse

    low, high = -0.7, 2.7
    count = int((high - low) / spacing) + 4
    values = rng.standard_normal((count, count), dtype=np.float32)
    for axis in (grid.y, grid.x):
        t = np.abs((axis.ravel()[:, None] - low) / spacing - np.arange(-1, count - 1, dtype="f4"))
        near = 2 / 3 - t**2 + t**3 / 2
        weights = np.where(t < 1, near, np.clip(2 - t, 0, None) ** 3 / 6)
        # Four numbers per row: as sparse matrices they take a tenth of the time.
        values = (sparse.csr_array(np.float32(weights)) @ values).T
    return np.ascontiguousarray(values) / np.float32(0.479)


@dataclass(frozen=True)
class _Polyp:
    """A bump on the wall. height: in units of its radius; lobes: (size, phase) of each order."""

    y: float
    x: float
    radius: float
    stretch: float
    angle: float
    height: float
    lobes: np.ndarray

    def distance(self, grid: _Grid) -> np.ndarray:
        """1 at the centre, 0 at the border, negative outside."""
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
    spots = rng.uniform((0.22, 0.3), (0.78, aspect - 0.3), (50, 2))
    away = np.hypot(*(spots - lumen).T)
    y, x = spots[np.argmax(away > 0.28)]
    radius = float(np.exp(rng.normal(np.log(0.14), 0.35)).clip(0.06, 0.3))
    lobes = np.stack([rng.normal(0, (0.1, 0.06, 0.04, 0.03)), rng.uniform(0, 6.3, 4)], -1)
    height = rng.uniform(0.4, 0.9)
    return _Polyp(y, x, radius, rng.uniform(1.0, 1.6), rng.uniform(0, 3.1), height, lobes)


def _bump(polyps: list[_Polyp], grid: _Grid) -> np.ndarray:
    domes = [
        polyp.radius * polyp.height * (1 - (1 - np.clip(polyp.distance(grid), 0, 1)) ** 2.2) ** 0.75
        for polyp in polyps
    ]
    return np.maximum.reduce(domes)


def _wall(
    rng: np.random.Generator, grid: _Grid, lumen: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heights of the wall and of its folds above the picture's plane; distance from the lumen."""
    stretch, rings = rng.uniform(0.8, 1.3), rng.uniform(1.6, 3.5)
    wobble, strength = _field(rng, grid, 0.3), _field(rng, grid, 0.35)
    radius = np.hypot(grid.y - lumen[0], (grid.x - lumen[1]) * stretch) * np.exp(0.22 * wobble)
    depth = np.log(radius + 0.08)
    phase = rings * depth + 0.45 * _field(rng, grid, 0.5)
    ridge = np.exp(-(((phase % 1 - 0.5) / 0.16) ** 2)) * np.clip(0.6 + 0.6 * strength, 0, 1.5)
    folds = rng.uniform(0.02, 0.06) * (radius + 0.2) * ridge
    height = rng.uniform(0.15, 0.35) * depth
    for spacing, size in ((0.25, 0.05), (0.11, 0.012), (0.05, 0.003), (0.018, 0.0006)):
        height += size * rng.uniform(0.5, 1.3) * _field(rng, grid, spacing)
    return height, folds, radius


def _vessels(rng: np.random.Generator, grid: _Grid) -> np.ndarray:
    """How much of a pixel is a vessel: the zero lines of two random fields, where there are any."""
    patches = np.clip(_field(rng, grid, 0.35), 0, 1)
    lines = 0
    for spacing, width in ((0.16, 0.05), (0.08, 0.05)):
        field = _field(rng, grid, spacing)
        lines = np.maximum(lines, np.exp(-((field / width) ** 2)))
    return rng.uniform(0.1, 0.6) * lines * patches


def _lit(
    height: np.ndarray, grid: _Grid, lamp: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse and mirrored light of a lamp beside the camera on a surface."""
    slope_y, slope_x = np.gradient(height, grid.pixel * grid.zoom)
    size = np.sqrt(1 + slope_y**2 + slope_x**2)
    plain = _Grid(grid.size)
    to_lamp = (lamp[0] - plain.y, lamp[1] - plain.x, lamp[2] - height)
    distance = np.sqrt(sum(part**2 for part in to_lamp))
    facing = (to_lamp[2] - slope_y * to_lamp[0] - slope_x * to_lamp[1]) / (size * distance)
    to_eye = (0.5 - plain.y, grid.aspect / 2 - plain.x, 1.0 - height)
    far = np.sqrt(sum(part**2 for part in to_eye))
    half = [a / distance + b / far for a, b in zip(to_lamp, to_eye)]
    length = np.sqrt(sum(part**2 for part in half))
    mirrored = (half[2] - slope_y * half[0] - slope_x * half[1]) / (size * length)
    return np.clip(facing, 0, 1) / distance**2, np.clip(mirrored, 0, 1)


def _octagon(rng: np.random.Generator, grid: _Grid) -> np.ndarray:
    """The endoscope's field of view, positive inside."""
    y, x = np.abs(grid.y - 0.5), np.abs(grid.x - grid.aspect / 2 - rng.uniform(-0.03, 0.03))
    width = rng.uniform(0.5, 0.56)
    return np.minimum(np.minimum(0.47 - y, width - x), (0.47 + width - 0.16 - y - x) / 2**0.5)


def endoscopy(seed: int, index: int, size: tuple[int, int] = (288, 384)) -> Drawing:
    """Draw one frame: picture (H, W, 3) uint8 and labels (H, W) uint8, 1 where a polyp is.

    Frames of a sequence show one scene from places close to each other.
    """
    scene = np.random.default_rng([seed, index // FRAMES_PER_SEQUENCE, 1])
    frame = np.random.default_rng([seed, index, 2])
    plain, grid = _Grid(size), _camera(scene, frame, index, size)
    lumen = _lumen(scene, plain)
    polyps = [_plan_polyp(scene, lumen, plain.aspect) for _ in range(1 + (scene.random() < 0.15))]
    height, folds, radius = _wall(scene, grid, lumen)
    distance = np.maximum.reduce([polyp.distance(grid) for polyp in polyps])
    on_polyp = plain.inside(distance, 0.02)
    pits = _field(scene, grid, 0.012)
    # A polyp grows out of the wall: the folds under it are stretched flat.
    height += folds * (1 - plain.inside(distance, 0.4)) + _bump(polyps, grid)
    height += 0.001 * pits * on_polyp
    lamp = (
        0.5 + scene.normal(0, 0.12) + frame.normal(0, 0.04),
        plain.aspect / 2 + scene.normal(0, 0.12) + frame.normal(0, 0.04),
        1.0 + frame.normal(0, 0.04),
    )
    diffuse, mirrored = _lit(height, grid, lamp)
    groove = 1 - 0.35 * np.exp(-((distance / 0.1) ** 2)) * (distance < 0.05)
    open_wall = np.clip((radius - 0.03) / 0.3, 0, 1) ** 0.7
    light = (0.08 + diffuse) * groove * (0.12 + 0.88 * open_wall) * scene.uniform(1.0, 1.9)
    colour = 1 - np.exp(-1.1 * _mucosa(scene, grid, on_polyp, pits) * light[..., None])
    gloss = scene.uniform(0.3, 1.0) * mirrored ** scene.uniform(150, 500)
    colour += (np.clip(3 * gloss - 0.5, 0, 1) * open_wall)[..., None]
    view = plain.inside(_octagon(scene, plain), 0.006)
    colour = np.clip(colour, 0, 1) * view[..., None] + 0.03 * (1 - view[..., None])
    noise = 0.008 * frame.standard_normal(colour.shape, dtype=np.float32)
    return _pixels(colour + noise), ((distance > 0) & (view > 0.5)).astype(np.uint8)


def _camera(
    scene: np.random.Generator, frame: np.random.Generator, index: int, size: tuple[int, int]
) -> _Grid:
    """Where a frame's pixels lie in its scene: the camera drifts and shakes."""
    drift, zoom = scene.normal(0, 0.02, 2), scene.uniform(0.8, 1.2)
    step = index % FRAMES_PER_SEQUENCE - (FRAMES_PER_SEQUENCE - 1) / 2
    return _Grid(size, zoom * (1 + 0.05 * frame.normal()), drift * step + frame.normal(0, 0.012, 2))


def _lumen(rng: np.random.Generator, grid: _Grid) -> tuple[float, float]:
    """(y, x) of the dark end of the bowel: in the picture, or beside it where the wall is seen."""
    away = rng.uniform(0.05, 0.3) if rng.random() < 0.5 else rng.uniform(0.8, 1.5)
    turn = rng.uniform(0, 2 * math.pi)
    return 0.5 + away * math.sin(turn), grid.aspect / 2 + away * math.cos(turn)


def _mucosa(
    rng: np.random.Generator, grid: _Grid, on_polyp: np.ndarray, pits: np.ndarray
) -> np.ndarray:
    """(H, W, 3) colour of the wall with its vessels, and of the polyp."""
    warm, pale = np.array([0.92, 0.46, 0.27]), np.array([0.84, 0.62, 0.53])
    base = warm + (pale - warm) * rng.uniform(0, 1) + rng.normal(0, 0.03, 3)
    # Redder than the wall, or paler, by so much that another polyp's wall may look the same.
    tint = rng.normal(0, 0.08) * np.array([0.3, 1.2, 1.0]) - np.array([0, 0.09, 0.09])
    blotches, vessels = _field(rng, grid, 0.2), _vessels(rng, grid) * (1 - on_polyp)
    colour = base * (1 + 0.06 * blotches[..., None] * np.array([0.4, 1, 1]))
    colour *= 1 - vessels[..., None] * np.array([0.25, 0.7, 0.7])
    return colour * (1 + on_polyp[..., None] * (tint + 0.08 * pits[..., None]))


def _spot(
    rng: np.random.Generator, grid: _Grid, centre: np.ndarray, radius: float, uneven: float
) -> np.ndarray:
    """Distance inside of a pigmented spot: 1 in the middle, 0 at the border, negative outside."""
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.6)
    y, x = grid.y - float(centre[0]), grid.x - float(centre[1])
    along = (math.cos(turn) * x + math.sin(turn) * y) / stretch**0.5
    across = (math.cos(turn) * y - math.sin(turn) * x) * stretch**0.5
    distance = 1 - np.hypot(along, across) / radius
    for spacing, size in ((0.9, 0.3), (0.35, 0.12), (0.12, 0.05)) if uneven else ():
        distance = distance + uneven * size * _field(rng, grid, spacing * radius + 0.01)
    return distance


def _pigment(
    rng: np.random.Generator, grid: _Grid, lesion: np.ndarray, radius: float
) -> np.ndarray:
    """Melanin of a lesion per pixel: patches, a network of lines, globules, and pale parts."""
    patches = 1 + rng.uniform(0.2, 0.6) * _field(rng, grid, 0.35 * radius + 0.01)
    first, second = (_field(rng, grid, 0.022) for _ in range(2))
    network = np.exp(-((first / 0.35) ** 2)) + np.exp(-((second / 0.35) ** 2)) - 0.8
    globules = np.clip(_field(rng, grid, 0.014) - 1.3, 0, 1)
    fine = rng.uniform(0, 0.5) * network + rng.uniform(0, 1.0) * globules
    pale = 1 - rng.uniform(0, 0.9) * np.clip(_field(rng, grid, 0.6 * radius) - 0.6, 0, 1)
    edge = grid.inside(lesion, rng.uniform(0.08, 0.5))
    return np.clip(patches + fine, 0.15, None) * pale * edge


def _hairs(rng: np.random.Generator, grid: _Grid, count: int) -> np.ndarray:
    """Share of a pixel that is hair: arcs of large circles, thin at their ends."""
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
            covered, grid.inside(width - np.abs(np.hypot(y, x) - radius)) * (taper > 0)
        )
    return covered


_SKINS = np.array([
    (0.93, 0.74, 0.68), (0.90, 0.84, 0.80), (0.78, 0.76, 0.70), (0.74, 0.80, 0.93),
    (0.84, 0.62, 0.48), (0.92, 0.60, 0.56),
])  # fmt: skip


def dermoscopy(seed: int, index: int, size: tuple[int, int] = (576, 768)) -> Drawing:
    """Draw one picture: (H, W, 3) uint8, and labels (H, W) uint8, 1 where the lesion is."""
    rng = np.random.default_rng([seed, index, 3])
    grid = _Grid(size)
    radius = float(np.exp(rng.normal(np.log(0.24), 0.35)).clip(0.1, 0.46))
    centre = np.array([0.5, grid.aspect / 2]) + rng.normal(0, 0.06, 2)
    lesion = _spot(rng, grid, centre, radius, rng.uniform(0.5, 1.2))
    melanin = rng.uniform(0.08, 0.9) * _pigment(rng, grid, lesion, radius)
    texture = 0.02 * _field(rng, grid, 0.012) + 0.025 * _field(rng, grid, 0.06)
    for _ in range(rng.poisson(2)):
        place = rng.uniform((0.05, 0.05), (0.95, grid.aspect - 0.05))
        mole = _spot(rng, grid, place, rng.uniform(0.012, 0.05), 0.0)
        melanin += rng.uniform(0.1, 0.8) * grid.inside(mole + 6 * texture, 0.5)
    skin = _SKINS[rng.integers(len(_SKINS))] * rng.uniform(0.8, 1.05) + rng.normal(0, 0.02, 3)
    blotches = 0.05 * _field(rng, grid, 0.25)
    absorbed = np.array([0.45, 0.95, 1.25]) * rng.uniform(0.8, 1.2, 3)
    red = rng.uniform(0, 0.3) * np.clip(_field(rng, grid, 0.3), 0, 2) * (lesion < 0.3)
    density = melanin[..., None] * absorbed + red[..., None] * np.array([0.05, 0.6, 0.5])
    density += (blotches + texture)[..., None] * np.array([0.6, 1.0, 1.0])
    colour = skin * np.exp(-density)
    picture, seen = _photographed(rng, grid, colour)
    return picture, ((lesion > 0) & seen).astype(np.uint8)


def _photographed(
    rng: np.random.Generator, grid: _Grid, colour: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Hairs, a ruler, gel and uneven light over a skin; and what the lens' round mount leaves."""
    hairs = _hairs(rng, grid, int(rng.integers(0, 14) * (rng.random() < 0.6)))
    shade = np.array([0.16, 0.1, 0.08]) * rng.uniform(0.3, 3.0)
    colour = colour + 0.9 * hairs[..., None] * (shade - colour)
    if rng.random() < 0.2:
        ticks = np.minimum(0.004 - np.abs((grid.x / 0.06) % 1 - 0.5) * 0.06, grid.y - 0.94)
        colour = colour * (1 - 0.8 * grid.inside(ticks))[..., None]
    for _ in range(rng.poisson(1.5)):
        y, x = rng.uniform(0, 1), rng.uniform(0, grid.aspect)
        ring = np.abs(np.hypot(grid.y - y, grid.x - x) - rng.uniform(0.008, 0.03))
        colour = colour + 0.25 * grid.inside(0.003 - ring)[..., None]
    slope = rng.normal(0, 0.12, 2)
    light = 1 + slope[0] * (grid.y - 0.5) + slope[1] * (grid.x - grid.aspect / 2)
    away = np.hypot(grid.y - 0.5, grid.x - grid.aspect / 2)
    light = light * (1 - rng.uniform(0, 0.8) * np.clip(away - 0.3, 0, None))
    mount = rng.uniform(0.5, 0.68) - away if rng.random() < 0.5 else np.ones_like(away)
    light = light * (0.03 + 0.97 * grid.inside(mount, 0.08))
    colour = colour * light[..., None]
    colour += 0.01 * rng.standard_normal(colour.shape, dtype=np.float32)
    return _pixels(colour), mount > 0


def _ellipse(
    p: np.ndarray, centre: Sequence[float], radii: Sequence[float], angle: float = 0.0
) -> np.ndarray:
    """Approximate distance to an ellipse's border, positive inside; p (2, H, W) is (y, x)."""
    y, x = p[0] - centre[0], p[1] - centre[1]
    down = (math.cos(angle) * y + math.sin(angle) * x) / radii[0]
    across = (math.cos(angle) * x - math.sin(angle) * y) / radii[1]
    away = np.hypot(down, across) + 1e-4
    return away * (1 - away) / (np.hypot(down / radii[0], across / radii[1]) + 1e-4)


def _tube(
    p: np.ndarray, points: Sequence[tuple[float, float]], radii: Sequence[float]
) -> np.ndarray:
    """Distance to a polyline with a radius per point, positive inside."""
    best = np.full(p.shape[1:], -9, np.float32)
    for a, b, ra, rb in zip(points, points[1:], radii, radii[1:]):
        length = (b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2
        t = ((p[0] - a[0]) * (b[0] - a[0]) + (p[1] - a[1]) * (b[1] - a[1])) / length
        t = np.clip(t, 0, 1)
        away = np.hypot(p[0] - a[0] - t * (b[0] - a[0]), p[1] - a[1] - t * (b[1] - a[1]))
        best = np.maximum(best, ra + (rb - ra) * t - away)
    return best


def _union(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    h = np.clip(0.5 + 0.5 * (a - b) / blend, 0, 1)
    return b + (a - b) * h + blend * h * (1 - h)


def _bones(rng: np.random.Generator, p: np.ndarray, central: bool) -> dict[str, np.ndarray]:
    """Distances inside of tibia, femur and patella, in units of the picture's height."""
    size = rng.normal(1, 0.05, 4)
    condyle = _ellipse(p, (0.43, 0.49), (0.115 * size[0], 0.145 * size[1]), rng.normal(0, 0.15))
    plateau = _ellipse(p, (0.635, 0.47), (0.055, 0.145 * size[2]), rng.normal(0.05, 0.06))
    if central:
        shaft = _tube(p, [(-0.2, 0.43), (0.2, 0.43), (0.42, 0.46)], (0.075, 0.075, 0.1))
        leg = _tube(p, [(0.66, 0.46), (0.85, 0.41), (1.3, 0.39)], (0.11, 0.085, 0.075))
    else:
        shaft = _ellipse(p, (0.34, 0.48), (rng.uniform(0.04, 0.12), 0.07))
        leg = _tube(p, [(0.66, 0.47), (rng.uniform(0.68, 0.8), 0.46)], (0.09, 0.03))
    knob = _ellipse(p, (0.71, 0.335), (0.05, 0.03), -0.3) if central else leg
    patella = _ellipse(p, (0.36, 0.265), (0.08 * size[3], 0.034), rng.normal(0.05, 0.08))
    return {
        "tibia": _union(_union(plateau, leg, 0.05), knob, 0.03),
        "femur": _union(condyle, shaft, 0.06),
        "patella": patella if central or rng.random() < 0.4 else np.full_like(patella, -1),
    }


def _soft_tissues(
    rng: np.random.Generator, p: np.ndarray, central: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(those that are labelled, the others): distances inside."""
    bow, thick = rng.normal(0, 0.008), rng.uniform(0.013, 0.022)
    band = [(0.425, 0.262), (0.55, 0.272 + bow), (0.69, 0.312)]
    ligament = _tube(p, band, (0.9 * thick, thick, 0.8 * thick))
    tendon = _tube(p, [(-0.1, 0.335), (0.15, 0.315), (0.295, 0.262)], (0.012, 0.014, 0.02))
    front = _tube(p, [(0.47, 0.52), (0.53, 0.47), (0.58, 0.42)], (0.02, 0.016, 0.014))
    back = _tube(p, [(0.46, 0.5), (0.52, 0.57), (0.61, 0.6)], (0.015, 0.018, 0.016))
    absent = np.full_like(ligament, -1)
    labelled = {
        "patellar ligament": ligament if central else absent,
        "cruciate ligament": np.maximum(front, back) if central else absent,
    }
    meniscus = [_ellipse(p, (0.565, x), (0.02, 0.035), a) for x, a in ((0.375, 0.5), (0.58, -0.5))]
    others = {
        "tendon": tendon if central else absent,
        "meniscus": np.maximum(*meniscus) if not central else meniscus[0],
        "hamstrings": _tube(p, [(-0.2, 0.68), (0.2, 0.7), (0.42, 0.72)], (0.13, 0.1, 0.03)),
        "calf": _tube(p, [(0.5, 0.66), (0.75, 0.68), (1.2, 0.62)], (0.03, 0.11, 0.15)),
        "quadriceps": _tube(p, [(-0.2, 0.3), (0.1, 0.31), (0.24, 0.3)], (0.07, 0.045, 0.01)),
        "vessel": _ellipse(p, (0.4, 0.73), (rng.uniform(0.02, 0.3), 0.014), 0.1),
    }
    return labelled, others


_SIGNALS = {
    "fat": 0.82, "hamstrings": 0.27, "calf": 0.27, "quadriceps": 0.27, "vessel": 0.1,
    "tendon": 0.09, "meniscus": 0.09, "cartilage": 0.48, "cortex": 0.06, "marrow": 0.66,
    "patellar ligament": 0.1, "cruciate ligament": 0.16,
}  # fmt: skip


def knee(seed: int, index: int, size: tuple[int, int] = (256, 256)) -> Drawing:
    """Draw one sagittal slice: (H, W) uint8, and labels (H, W) uint8 in KNEE_CLASSES' order.

    One slice in four or so lies beside the knee's middle and has no ligaments.
    """
    rng = np.random.default_rng([seed, index, 4])
    grid = _Grid(size)
    central = rng.random() > 0.25
    p = _posed(rng, grid)
    bones = _bones(rng, p, central)
    labelled, others = _soft_tissues(rng, p, central)
    picture = _scanned(rng, grid, _painted(rng, grid, p, bones, labelled, others))
    labels = np.zeros(size, np.uint8)
    for code, name in enumerate(KNEE_CLASSES, 1):
        labels[(bones | labelled)[name] > 0] = code
    return picture, labels


def _painted(
    rng: np.random.Generator,
    grid: _Grid,
    p: np.ndarray,
    bones: dict[str, np.ndarray],
    labelled: dict[str, np.ndarray],
    others: dict[str, np.ndarray],
) -> np.ndarray:
    """(H, W) signal of the tissues, from the skin to the ligaments; 1 is very bright."""
    uneven = 0.0025 * _field(rng, grid, 0.03)
    skin = _tube(
        p,
        [(-0.3, 0.47), (0.2, 0.48), (0.4, 0.47), (0.7, 0.5), (1.3, 0.47)],
        tuple(np.array([0.33, 0.3, 0.28, 0.27, 0.28]) * rng.normal(1, 0.06)),
    )
    skin = _union(skin, bones["patella"] + 0.035, 0.05)
    contrast = {name: value * rng.lognormal(0, 0.12) for name, value in _SIGNALS.items()}
    if rng.random() < 0.25:  # worn tendons shine
        contrast["patellar ligament"] *= rng.uniform(1.5, 3.0)
    fibres = _field(rng, grid, 0.02)
    signal = contrast["fat"] * (1 - 0.12 * np.clip(_field(rng, grid, 0.025) - 0.3, 0, 2))
    layers = [(name, others[name] + uneven) for name in ("hamstrings", "calf", "quadriceps")]
    layers += [(name, others[name]) for name in ("vessel", "tendon")]
    layers += [("cartilage", bones[name] + 0.014) for name in ("femur", "patella")]
    layers += [("meniscus", others["meniscus"])]
    for bone in bones.values():
        layers += [("cortex", bone + 0.006), ("marrow", bone - 0.003 + uneven)]
    layers += [*labelled.items()]
    for name, distance in layers:
        share = grid.inside(distance)
        texture = 1 + (0.3 if name in ("hamstrings", "calf", "quadriceps") else 0.08) * fibres
        signal = signal + share * (contrast[name] * texture - signal)
    fascia = np.exp(-(((skin - 0.03 - 4 * uneven) / 0.003) ** 2))
    return signal * (1 - 0.5 * fascia) * grid.inside(skin, 0.006) + 0.01


def _posed(rng: np.random.Generator, grid: _Grid) -> np.ndarray:
    """(2, H, W): where each pixel lies in the anatomy of `_bones`, turned, scaled and warped."""
    turn, scale = rng.normal(0, 0.12), rng.normal(1.12, 0.09)
    y = (grid.y - 0.5 + rng.normal(0, 0.05)) / scale
    x = (grid.x - grid.aspect / 2 + rng.normal(0, 0.04)) / scale
    posed = np.stack([
        0.5 + math.cos(turn) * y + math.sin(turn) * x,
        0.5 + math.cos(turn) * x - math.sin(turn) * y,
    ])  # fmt: skip
    return posed + np.stack([0.018 * _field(rng, grid, 0.22) for _ in range(2)])


def _scanned(rng: np.random.Generator, grid: _Grid, signal: np.ndarray) -> np.ndarray:
    """Coil, blur and noise of a scanner."""
    from scipy import ndimage

    reach = rng.uniform(0.45, 0.7)
    coil = np.exp(-(((grid.y - 0.5) / reach) ** 4)) * (0.75 + rng.uniform(0, 0.9) * grid.x**2)
    signal = signal * coil * np.exp(0.12 * _field(rng, grid, 0.7))
    signal = ndimage.gaussian_filter(signal, rng.uniform(0.3, 0.8) * grid.size[0] / 256)
    real, imaginary = rng.uniform(0.012, 0.03) * rng.standard_normal((2, *grid.size), np.float32)
    scale = rng.uniform(0.7, 1.1)
    return _pixels(np.hypot(signal + real, imaginary) * scale)


LAYOUTS: dict[str, tuple[Callable[..., Drawing], tuple[int, int]]] = {
    "CVC-ClinicDB": (endoscopy, (288, 384)),
    "ISIC2018": (dermoscopy, (576, 768)),
    "knee": (knee, (256, 256)),
}
"""Layout -> what draws for it, and the (rows, columns) of the real set or a common one of its."""
