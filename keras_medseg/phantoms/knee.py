"""Drawing of sagittal MRI slices of the knee.

Everything is drawn in units of the image height from smooth random fields and signed distances
(positive inside); nothing comes from a patient's pixels. Shapes, signals and distractors (tendons,
menisci, cortical bone) were chosen to resemble knee MRI. Over 40 slices of seed 0, the best single
threshold of the image, raw or z-scored, reaches a Dice of 0.03 for the patellar ligament and of
0.37 for the femur, the easiest of the bones.
"""

import math

import numpy as np

from keras_medseg.phantoms.geometry import (
    Drawing,
    PixelGrid,
    ellipse,
    to_pixels,
    tube,
    union,
    with_rician_noise,
)

VERSION = 1
"""Version of the drawing: another version draws other pixels from the same seed."""

CLASSES = {
    "tibia": (51,),
    "femur": (102,),
    "patella": (153,),
    "patellar ligament": (204,),
    "cruciate ligament": (255,),
}
"""Name -> gray code in a mask file; the first class has label 1, and so on."""

_SIGNALS = {
    "fat": 0.82, "hamstrings": 0.27, "calf": 0.27, "quadriceps": 0.27, "vessel": 0.1,
    "tendon": 0.09, "meniscus": 0.09, "cartilage": 0.48, "cortex": 0.06, "marrow": 0.66,
    "patellar ligament": 0.1, "cruciate ligament": 0.16,
}  # fmt: skip

_MUSCLES = ("hamstrings", "calf", "quadriceps")


def knee_case(seed: int, index: int, size: tuple[int, int] = (256, 256)) -> Drawing:
    """Draw one slice. About one in four is off-center and has no ligaments.

    Args:
        seed: of the data set.
        index: of the slice, from 0.
        size: (rows, columns) in pixels.

    Returns:
        Image (H, W) uint8, and labels (H, W) uint8 from 1 on in the order of `CLASSES`.
    """
    rng = np.random.default_rng([seed, index, 4])
    grid = PixelGrid(size)
    central = rng.random() > 0.25
    p = _posed(rng, grid)
    bones = _bones(rng, p, central)
    labeled, others = _soft_tissues(rng, p, central)
    image = _scanned(rng, grid, _painted(rng, grid, p, bones, labeled, others))
    labels = np.zeros(size, np.uint8)
    for code, name in enumerate(CLASSES, 1):
        labels[(bones | labeled)[name] > 0] = code
    return image, labels


def _painted(
    rng: np.random.Generator,
    grid: PixelGrid,
    p: np.ndarray,
    bones: dict[str, np.ndarray],
    labeled: dict[str, np.ndarray],
    others: dict[str, np.ndarray],
) -> np.ndarray:
    """(H, W) signal of the tissues, from the skin to the ligaments; 1 is very bright."""
    uneven = 0.0025 * grid.noise(rng, 0.03)
    skin = tube(
        p,
        [(-0.3, 0.47), (0.2, 0.48), (0.4, 0.47), (0.7, 0.5), (1.3, 0.47)],
        tuple(np.array([0.33, 0.3, 0.28, 0.27, 0.28]) * rng.normal(1, 0.06)),
    )
    skin = union(skin, bones["patella"] + 0.035, 0.05)
    contrast = {name: value * rng.lognormal(0, 0.12) for name, value in _SIGNALS.items()}
    if rng.random() < 0.25:  # degenerated tendons are bright
        contrast["patellar ligament"] *= rng.uniform(1.5, 3.0)
    fibers = grid.noise(rng, 0.02)
    signal = contrast["fat"] * (1 - 0.12 * np.clip(grid.noise(rng, 0.025) - 0.3, 0, 2))
    layers = [(name, others[name] + uneven) for name in _MUSCLES]
    layers += [(name, others[name]) for name in ("vessel", "tendon")]
    layers += [("cartilage", bones[name] + 0.014) for name in ("femur", "patella")]
    layers += [("meniscus", others["meniscus"])]
    for bone in bones.values():
        layers += [("cortex", bone + 0.006), ("marrow", bone - 0.003 + uneven)]
    layers += [*labeled.items()]
    for name, distance in layers:
        share = grid.coverage(distance)
        texture = 1 + (0.3 if name in _MUSCLES else 0.08) * fibers
        signal = signal + share * (contrast[name] * texture - signal)
    fascia = np.exp(-(((skin - 0.03 - 4 * uneven) / 0.003) ** 2))
    return signal * (1 - 0.5 * fascia) * grid.coverage(skin, 0.006) + 0.01


def _posed(rng: np.random.Generator, grid: PixelGrid) -> np.ndarray:
    """(2, H, W) position of each pixel in the anatomy of `_bones`, rotated, scaled and warped."""
    turn, scale = rng.normal(0, 0.12), rng.normal(1.12, 0.09)
    y = (grid.y - 0.5 + rng.normal(0, 0.05)) / scale
    x = (grid.x - grid.aspect / 2 + rng.normal(0, 0.04)) / scale
    posed = np.stack([
        0.5 + math.cos(turn) * y + math.sin(turn) * x,
        0.5 + math.cos(turn) * x - math.sin(turn) * y,
    ])  # fmt: skip
    return posed + np.stack([0.018 * grid.noise(rng, 0.22) for _ in range(2)])


def _scanned(rng: np.random.Generator, grid: PixelGrid, signal: np.ndarray) -> np.ndarray:
    """The scanned image of a signal: coil sensitivity, blur and noise."""
    from scipy import ndimage

    reach = rng.uniform(0.45, 0.7)
    coil = np.exp(-(((grid.y - 0.5) / reach) ** 4)) * (0.75 + rng.uniform(0, 0.9) * grid.x**2)
    signal = signal * coil * np.exp(0.12 * grid.noise(rng, 0.7))
    signal = ndimage.gaussian_filter(signal, rng.uniform(0.3, 0.8) * grid.size[0] / 256)
    magnitude = with_rician_noise(rng, signal, rng.uniform(0.012, 0.03))
    return to_pixels(magnitude * rng.uniform(0.7, 1.1))


def _bones(rng: np.random.Generator, p: np.ndarray, central: bool) -> dict[str, np.ndarray]:
    """Tibia, femur and patella as solids; p (2, H, W) is (y, x) in units of the image height."""
    size = rng.normal(1, 0.05, 4)
    condyle = ellipse(p, (0.43, 0.49), (0.115 * size[0], 0.145 * size[1]), rng.normal(0, 0.15))
    plateau = ellipse(p, (0.635, 0.47), (0.055, 0.145 * size[2]), rng.normal(0.05, 0.06))
    if central:
        shaft = tube(p, [(-0.2, 0.43), (0.2, 0.43), (0.42, 0.46)], (0.075, 0.075, 0.1))
        leg = tube(p, [(0.66, 0.46), (0.85, 0.41), (1.3, 0.39)], (0.11, 0.085, 0.075))
    else:
        shaft = ellipse(p, (0.34, 0.48), (rng.uniform(0.04, 0.12), 0.07))
        leg = tube(p, [(0.66, 0.47), (rng.uniform(0.68, 0.8), 0.46)], (0.09, 0.03))
    knob = ellipse(p, (0.71, 0.335), (0.05, 0.03), -0.3) if central else leg
    patella = ellipse(p, (0.36, 0.265), (0.08 * size[3], 0.034), rng.normal(0.05, 0.08))
    return {
        "tibia": union(union(plateau, leg, 0.05), knob, 0.03),
        "femur": union(condyle, shaft, 0.06),
        "patella": patella if central or rng.random() < 0.4 else np.full_like(patella, -1),
    }


def _soft_tissues(
    rng: np.random.Generator, p: np.ndarray, central: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The ligaments, which have labels, and the other soft tissues, as solids."""
    bow, thick = rng.normal(0, 0.008), rng.uniform(0.013, 0.022)
    band = [(0.425, 0.262), (0.55, 0.272 + bow), (0.69, 0.312)]
    ligament = tube(p, band, (0.9 * thick, thick, 0.8 * thick))
    tendon = tube(p, [(-0.1, 0.335), (0.15, 0.315), (0.295, 0.262)], (0.012, 0.014, 0.02))
    front = tube(p, [(0.47, 0.52), (0.53, 0.47), (0.58, 0.42)], (0.02, 0.016, 0.014))
    back = tube(p, [(0.46, 0.5), (0.52, 0.57), (0.61, 0.6)], (0.015, 0.018, 0.016))
    absent = np.full_like(ligament, -1)
    labeled = {
        "patellar ligament": ligament if central else absent,
        "cruciate ligament": np.maximum(front, back) if central else absent,
    }
    meniscus = [ellipse(p, (0.565, x), (0.02, 0.035), a) for x, a in ((0.375, 0.5), (0.58, -0.5))]
    others = {
        "tendon": tendon if central else absent,
        "meniscus": np.maximum(*meniscus) if not central else meniscus[0],
        "hamstrings": tube(p, [(-0.2, 0.68), (0.2, 0.7), (0.42, 0.72)], (0.13, 0.1, 0.03)),
        "calf": tube(p, [(0.5, 0.66), (0.75, 0.68), (1.2, 0.62)], (0.03, 0.11, 0.15)),
        "quadriceps": tube(p, [(-0.2, 0.3), (0.1, 0.31), (0.24, 0.3)], (0.07, 0.045, 0.01)),
        "vessel": ellipse(p, (0.4, 0.73), (rng.uniform(0.02, 0.3), 0.014), 0.1),
    }
    return labeled, others
