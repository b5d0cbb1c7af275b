"""Drawing of a brain with a tumor, as the four modalities of BraTS show it.

The head is drawn in millimeters of the real grid: smooth implicit fields (positive inside, in mm)
on a 2 mm grid, interpolated to the voxels and turned into tissue fractions. Nothing in it comes
from a patient's voxels; sizes and contrasts were chosen to resemble BraTS 2021.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from keras_medseg.data.cases import CaseArrays
from keras_medseg.phantoms.geometry import (
    VoxelGrid,
    coverage,
    ellipsoid,
    norm,
    tube,
    union,
    voxel_grid,
    with_rician_noise,
)

VERSION = 2
"""Version of the drawing: another version draws other voxels from the same seed."""

_Layers = list[tuple[str, np.ndarray]]
"""(tissue, fraction of each brain voxel), in the order in which they are painted."""

# Relative signal in flair, t1, t1ce, t2; white matter is 100 in every modality except T2.
_SIGNAL = {
    "white": (100, 100, 100, 78),
    "gray": (132, 80, 86, 112),
    "deep gray": (116, 88, 92, 92),
    "pallidum": (95, 96, 98, 70),
    "brainstem": (100, 93, 96, 88),
    "csf": (28, 42, 44, 300),
    "hyperintensity": (172, 84, 90, 135),
    "edema": (178, 82, 86, 158),
    "necrotic": (165, 62, 62, 215),
    "non-enhancing": (168, 70, 76, 185),
    "enhancing": (172, 80, 230, 145),
    "choroid": (105, 75, 210, 190),
    "vessel": (95, 72, 330, 60),
    "sinus": (85, 75, 380, 170),
    "dura": (90, 118, 240, 90),
}

# Variation of the signal of a tissue between cases (standard deviation of its logarithm).
_SPREAD = {"gray": 0.1, "hyperintensity": 0.1, "edema": 0.14, "necrotic": 0.12, "enhancing": 0.12}

_EXTENT_MM = (240.0, 240.0, 155.0)
_BOX_MM = ((40.0, 198.0), (32.0, 222.0), (0.0, 146.0))
_CENTER_MM = (119.0, 127.0, 0.0)
_SMALLEST = 24


def brats_case(seed: int, index: int, shape: tuple[int, int, int] = (240, 240, 155)) -> CaseArrays:
    """Draw one case. Equal arguments give equal arrays.

    Args:
        seed: of the data set.
        index: of the case, from 0.
        shape: (X, Y, Z) in voxels; the head always fills the same share of it.

    Returns:
        Image (X, Y, Z, 4) int16 in the order flair, t1, t1ce, t2, and labels (X, Y, Z) uint8 in
        the canonical codes (1 necrotic and non-enhancing, 2 edema, 3 enhancing), both in LPS.

    Raises:
        ValueError: a shape that is not three sizes of 24 or more.
    """
    check_shape(shape)
    rng = np.random.default_rng([seed, index])
    grid = voxel_grid(shape, _EXTENT_MM, _BOX_MM)
    lesion = _plan_lesion(rng, enhances(seed, index))
    voxels = _Voxels(_anatomy(rng, grid, lesion), grid)
    layers, near = _tissues(voxels, rng)
    growth, tumor = _tumor(voxels, rng, lesion, near)
    image = np.zeros((*shape, 4), np.int16, order="F")
    for channel, scan in enumerate(_render(voxels, grid, layers + growth, rng)):
        image[..., channel][grid.box] = scan
    labels = np.zeros(shape, np.uint8)
    labels[grid.box][voxels.mask] = tumor
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = shape[1] - 1
    return CaseArrays(image, labels, affine, ("L", "P", "S"))


def check_shape(shape: Sequence[int]) -> None:
    """Check that a head can be drawn in a volume of this shape.

    Raises:
        ValueError: a shape that is not three sizes of 24 or more.
    """
    if len(shape) != 3 or min(shape) < _SMALLEST:
        raise ValueError(f"shape: found {shape}, expected three sizes of {_SMALLEST} or more.")


def enhances(seed: int, index: int) -> bool:
    """Whether a case has an enhancing tumor; one in every four consecutive cases has none."""
    return bool(index % 4 != np.random.default_rng([seed, index // 4, 4]).integers(4))


def _cerebrum(p: np.ndarray) -> np.ndarray:
    """Both hemispheres without sulci; p (3, ...) in mm from the mid-plane, x to the left."""
    x, y, z = p
    narrow = 1 + 0.14 * np.clip(-y / 86, 0, 1) ** 2
    below = np.where(z < 72, 1.75, 1.0)
    main = ellipsoid(np.stack([x * narrow, y, (z - 72) * below]), (0, 2, 0), (67, 86, 70))
    mirrored = np.stack([np.abs(x), y, z + 0.25 * (y + 18)])
    temporal = ellipsoid(mirrored, (40, -12, 47), (24, 38, 18))
    frontal = ellipsoid(mirrored, (11, -48, 51), (19, 33, 17))
    return union(union(main, temporal, 5), frontal, 6)


def _cerebellum(p: np.ndarray) -> np.ndarray:
    return ellipsoid(p, (0, 44, 29), (52, 34, 25))


def _brainstem(p: np.ndarray) -> np.ndarray:
    return tube(p, [(0, 6, 64), (0, 10, 40), (0, 24, -4)], (15, 14, 9))


def _lateral_ventricles(p: np.ndarray) -> np.ndarray:
    side = np.stack([1.4 * np.abs(p[0]), p[1], p[2]])
    return tube(
        side,
        [(9, -31, 70), (14, -24, 83), (15, 4, 91), (20, 22, 90), (33, 38, 76), (34, 56, 70)],
        (3.5, 6.0, 5.5, 6.0, 7.0, 2.0),
    )


def _other_ventricles(p: np.ndarray) -> np.ndarray:
    side = np.stack([1.4 * np.abs(p[0]), p[1], p[2]])
    temporal_horn = tube(side, [(33, 38, 76), (46, 20, 56), (44, -4, 48)], (5, 3, 2))
    third = ellipsoid(p, (0, 2, 64), (2.5, 15, 9))
    fourth = ellipsoid(p, (0, 31, 34), (7, 6, 9))
    return np.maximum(temporal_horn, np.maximum(third, fourth))


def _deep_gray(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(caudate, putamen and thalamus; pallidum)."""
    side = np.stack([np.abs(p[0]), p[1], p[2]])
    caudate = tube(side, [(13, -24, 70), (17, -8, 78), (19, 12, 84)], (6, 5, 2.5))
    turned = np.stack([side[0] - 0.25 * side[1], side[1], side[2]])
    putamen = ellipsoid(turned, (29, -5, 67), (6, 17, 11))
    thalamus = ellipsoid(turned, (9, 13, 68), (9, 14, 10))
    pallidum = ellipsoid(turned, (21, -2, 66), (4.5, 10, 7))
    return np.maximum(np.maximum(caudate, putamen), thalamus), pallidum


def _gyri(
    rng: np.random.Generator, p: np.ndarray, grid: VoxelGrid, spacing_mm: float
) -> np.ndarray:
    """Distance in mm to the sulci: surfaces that run inward along rays, from noise on the hull."""
    from scipy import ndimage

    center = np.array([0, 5, 66], np.float32).reshape(3, 1, 1, 1)
    radii = np.array([67, 86, 70], np.float32).reshape(3, 1, 1, 1)
    ray = p - center
    depth = norm(ray / radii) + 1e-3
    surface = ray * ((0.55 + 0.45 * depth) / np.maximum(depth, 0.3))
    surface += np.stack([2.0 * grid.noise(rng, 11) for _ in range(3)])
    coefficients = rng.standard_normal((40, 40, 40), dtype=np.float32)
    coefficients -= ndimage.gaussian_filter(coefficients, 1.2, mode="wrap")
    folded = ndimage.map_coordinates(
        coefficients, surface / spacing_mm + 20, order=3, prefilter=False, mode="grid-wrap"
    )
    return grid.distance_to_zero(folded)


@dataclass(frozen=True)
class _Lesion:
    """Where the tumor grows.

    Attributes:
        enhancing: whether it has an enhancing rim around a necrotic core.
        centers: (foci, 3) in mm, as in `_cerebrum`.
        radii_mm: one for each focus.
        edema_mm: width of the edema around the core.
    """

    enhancing: bool
    centers: np.ndarray
    radii_mm: np.ndarray
    edema_mm: float

    def distance(self, p: np.ndarray) -> np.ndarray:
        """Distance in mm from the nearest focus, taken as a sphere; positive outside."""
        gaps = [
            norm([axis - c for axis, c in zip(p, center)]) - radius
            for center, radius in zip(self.centers, self.radii_mm)
        ]
        return np.minimum.reduce(gaps)


def _plan_lesion(rng: np.random.Generator, enhancing: bool) -> _Lesion:
    """A tumor of one or two foci in the white matter of one hemisphere."""
    candidates = rng.uniform((-55, -65, 46), (55, 68, 116), (2000, 3)).T.astype(np.float32)
    depth = np.minimum(_cerebrum(candidates), -_cerebellum(candidates))
    free = (depth > 9) & (_brainstem(candidates) < -8) & (np.abs(candidates[0]) > 10)
    free &= _lateral_ventricles(candidates) < -4
    candidates = candidates.T[free]
    typical = 15.0 if enhancing else 17
    radius = float(np.exp(rng.normal(np.log(typical), 0.28)).clip(9, 24))
    centers, radii = [candidates[0]], [radius]
    if rng.random() < 0.25:
        apart = np.linalg.norm(candidates - candidates[0], axis=1) - radius
        same_side = candidates[:, 0] * candidates[0, 0] > 0
        near = candidates[(apart > 8) & (apart < 30) & same_side]
        centers += list(near[:1])
        radii += [radius * rng.uniform(0.35, 0.6)] * len(near[:1])
    edema = rng.uniform(6, 18) if enhancing else rng.uniform(4, 12)
    return _Lesion(enhancing, np.array(centers), np.array(radii), float(edema))


def _core(rng: np.random.Generator, p: np.ndarray, lesion: _Lesion, grid: VoxelGrid) -> np.ndarray:
    """The tumor core: lobes around each focus with an uneven surface."""
    lobes = []
    for center, radius in zip(lesion.centers, lesion.radii_mm):
        for _ in range(rng.integers(2, 5)):
            offset = rng.normal(0, 0.4 * radius, 3)
            lobe = ellipsoid(p, center + offset, radius * rng.uniform(0.6, 1.1, 3))
            lobes.append((lobe, 0.3 * radius))
    core = lobes[0][0]
    for lobe, blend_mm in lobes[1:]:
        core = union(core, lobe, blend_mm)
    size = float(lesion.radii_mm.max())
    uneven = 0.16 * grid.noise(rng, 11) + 0.07 * grid.noise(rng, 5)
    return core + np.float32(size) * uneven


def _spots(
    rng: np.random.Generator,
    p: np.ndarray,
    lesion: _Lesion,
    count: int,
    size_mm: tuple[float, float],
    depth_mm: tuple[float, float],
) -> np.ndarray:
    """`count` small ellipsoids in the white matter away from the tumor.

    Args:
        rng: draws their positions, then their sizes.
        p: (3, ...) coordinates in mm.
        lesion: the tumor that they stay away from.
        count: largest number of spots.
        size_mm: (low, high) of their radii.
        depth_mm: (low, high) of their depth below the brain's surface.
    """
    candidates = rng.uniform((-58, -72, 40), (58, 76, 128), (4000, 3)).T.astype(np.float32)
    depth = np.minimum(_cerebrum(candidates), -_cerebellum(candidates) - 4)
    free = (depth > depth_mm[0]) & (depth < depth_mm[1]) & (_brainstem(candidates) < -6)
    free &= (_lateral_ventricles(candidates) < -3) & (np.abs(candidates[0]) > 6)
    free &= lesion.distance(candidates) > lesion.edema_mm + 2 * max(size_mm)
    spots = np.full(p.shape[1:], -50, np.float32)
    for center in candidates.T[free][:count]:
        radii = rng.uniform(*size_mm) * rng.uniform(0.6, 1.2, 3)
        spots = np.maximum(spots, ellipsoid(p, center, radii))
    return spots


def _anatomy(rng: np.random.Generator, grid: VoxelGrid, lesion: _Lesion) -> dict[str, np.ndarray]:
    """Every implicit field of one case on the nodes of the grid, most of them distances in mm."""
    p = grid.points()
    p -= np.reshape(np.asarray(_CENTER_MM, np.float32), (3, 1, 1, 1))
    middle = np.array([0, 0, 70], np.float32).reshape(3, 1, 1, 1)
    head = middle + (p - middle) * rng.uniform(0.97, 1.05, (3, 1, 1, 1)).astype(np.float32)
    head += np.stack([1.8 * grid.noise(rng, 42) for _ in range(3)])
    cerebellum, stem = _cerebellum(head), _brainstem(head)
    hull = union(union(_cerebrum(head), cerebellum, 6), stem, 6) + 0.6
    hull = np.minimum(hull + 0.7 * grid.noise(rng, 8), p[2] - rng.uniform(1, 12))
    inner = head.copy()
    for center, radius in zip(lesion.centers, lesion.radii_mm):
        towards = np.reshape(center, (3, 1, 1, 1)) - p
        reach = np.exp(-(towards**2).sum(0) / (2.2 * radius) ** 2)
        inner += (rng.uniform(0.15, 0.4) * reach * towards).astype(np.float32)
    x, y, z = inner
    deep, pallidum = _deep_gray(inner)
    lateral = _lateral_ventricles(inner) + np.float32(rng.uniform(-0.5, 3.5))
    return {
        "hull": hull,
        "cerebrum": np.minimum(_cerebrum(inner), -cerebellum - 0.7),
        "cerebellum": cerebellum,
        "stem": stem,
        "gyri": _gyri(rng, inner, grid, float(rng.uniform(6.6, 8.0))),
        "midline": x,
        "center": ellipsoid(inner, (0, 3, 68), (28, 44, 24)),
        "depth": _cerebrum(inner),
        "base": ellipsoid(inner, (0, 0, 52), (26, 38, 24)),
        "sylvian": z - 62 - 0.2 * y - 0.15 * (np.abs(x) - 50),
        "sylvian gap": np.maximum(36 - np.abs(x), np.abs(y + 8) - 28),
        "ventricles": np.maximum(lateral, _other_ventricles(inner) + 0.5),
        "lateral": lateral,
        "choroid": tube(np.stack([np.abs(x), y, z]), [(22, 32, 78), (23, 42, 74)], (2.0, 3.0)),
        "deep gray": deep,
        "pallidum": pallidum,
        "folia": z + 0.35 * y + 2.5 * grid.noise(rng, 14),
        "core": _core(rng, p, lesion, grid),
        "spots": _spots(rng, p, lesion, int(rng.integers(0, 24)), (1.5, 4.5), (9, 40)),
        "infarct": _spots(rng, p, lesion, int(rng.random() < 0.6), (9.0, 17.0), (2, 10)),
        "uneven": grid.noise(rng, 9),
        "patchy": grid.noise(rng, 22),
        "branches": grid.distance_to_zero(grid.noise(rng, 10)),
    }


class _Voxels:
    """Fields at the voxels of the brain, interpolated on demand.

    Attributes:
        mask: which voxels of the box of the grid belong to the brain.
        hull: depth in mm of those voxels below the surface of the brain.
    """

    def __init__(self, fields: dict[str, np.ndarray], grid: VoxelGrid) -> None:
        self._fields, self._grid = fields, grid
        hull = grid.upsample(fields["hull"])
        self.mask = hull > 0
        self.hull = hull[self.mask]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._grid.upsample(self._fields[name])[self.mask]

    def coverage(self, distance: np.ndarray, blur_mm: float = 0.0) -> np.ndarray:
        """Fraction of each voxel that lies inside; the edge is one voxel or `blur_mm` wide."""
        return coverage(distance, max(self._grid.voxel_mm, blur_mm))


def _tissues(v: _Voxels, rng: np.random.Generator) -> tuple[_Layers, dict[str, np.ndarray]]:
    """Layers to paint, and the fields that `_tumor` needs."""
    atrophy = float(rng.uniform(0.3, 1.1))
    gyri, center, midline = v["gyri"], v["center"], v["midline"]
    cerebrum, cerebellum, stem = v["cerebrum"], v["cerebellum"], v["stem"]
    uneven, patchy = v["uneven"], v["patchy"]
    bottom = np.maximum(v["depth"] - 15 - 4 * patchy, v["base"])
    sulci = np.hypot(gyri, np.maximum(bottom, 0)) - atrophy
    fissure = np.hypot(midline, np.maximum(center, 0)) - 0.2 - 0.4 * atrophy
    sylvian = np.hypot(v["sylvian"], np.maximum(v["sylvian gap"], 0)) - 1.0 - atrophy
    pial = np.minimum(np.minimum(cerebrum, sulci), np.minimum(fissure, sylvian))
    hindbrain = np.maximum(cerebellum, stem)
    ventricles = v["ventricles"]
    tissue = np.maximum(pial, hindbrain)
    folia = np.abs((v["folia"] / 4.5) % 1 - 0.5) * 9 - 1.2
    cortex = v.coverage(2.7 + 0.5 * uneven - pial) * v.coverage(-stem)
    cortex *= 1 - v.coverage(cerebellum)
    leaf = v.coverage(cerebellum) * v.coverage(13 + 3 * patchy - cerebellum, 4) * v.coverage(-stem)
    thickness = min(1.5 * rng.gamma(1.3), 3.5) * (1 + 0.6 * patchy + 0.4 * uneven)
    caps = np.minimum(thickness, 6) + v["lateral"] - 0.5
    white = v.coverage(pial - 3.2, 2) * (1 - v.coverage(v["deep gray"]))
    hyper = np.maximum(v.coverage(caps, 3), v.coverage(v["spots"], 2)) * white
    infarct = v["infarct"]
    layers = [
        ("gray", cortex),
        ("gray", leaf * (0.75 + 0.25 * v.coverage(folia, 2))),
        ("csf", 0.5 * leaf * v.coverage(-folia, 2)),
        ("brainstem", v.coverage(stem, 3)),
        ("deep gray", v.coverage(v["deep gray"], 2)),
        ("pallidum", v.coverage(v["pallidum"], 2)),
        ("hyperintensity", 0.9 * hyper),
        ("hyperintensity", v.coverage(infarct, 2)),
        ("csf", v.coverage(infarct - 3 - uneven, 3)),
        ("csf", v.coverage(-tissue)),
        ("csf", v.coverage(ventricles)),
        ("choroid", v.coverage(v["choroid"], 2) * v.coverage(ventricles)),
    ]
    branches = v["branches"]
    crossing = np.hypot(np.hypot(gyri, branches), np.maximum(bottom, 0))
    outer = v.coverage(cerebrum) * v.coverage(-hindbrain - 2)
    layers += [
        ("vessel", 0.8 * v.coverage(0.8 + 0.3 * uneven - crossing) * outer),
        ("vessel", 0.5 * v.coverage(0.8 - np.abs(midline)) * v.coverage(-center - 8) * outer),
        ("sinus", v.coverage(3.5 - np.hypot(midline, v.hull - 1)) * outer),
        ("dura", v.coverage(2.5 - v.hull + uneven) * v.coverage(patchy - 1.0, 0.4)),
    ]
    depth = np.where(hindbrain > pial, 1.0, pial)
    return layers, {"depth": depth, "ventricles": ventricles, "uneven": uneven, "patchy": patchy}


def _tumor(
    v: _Voxels, rng: np.random.Generator, lesion: _Lesion, near: dict[str, np.ndarray]
) -> tuple[_Layers, np.ndarray]:
    """Layers to paint over the tissues, and the canonical labels of the brain voxels."""
    dry = (near["ventricles"] < 0) & (near["depth"] > -1.5)
    core = np.where(near["ventricles"] < 0, v["core"], -1)
    spread = lesion.edema_mm * (1 + 0.45 * near["patchy"] + 0.2 * near["uneven"])
    swelling = spread + np.minimum(core, 0) - 3.0 * np.maximum(3.8 - near["depth"], 0)
    swelling = np.where(dry, np.maximum(swelling, core), -1)
    size = float(lesion.radii_mm.max())
    thickness = size * rng.uniform(0.14, 0.4) * (1 + 0.55 * near["uneven"])
    rim = np.minimum(core, thickness - core) if lesion.enhancing else np.full_like(core, -9)
    inner = "necrotic" if lesion.enhancing else "non-enhancing"
    strength = 0.6 + 0.05 * swelling + 0.14 * near["uneven"] + 0.14 * near["patchy"]
    strength = np.clip(strength, 0.35, 1.15)
    layers = [
        ("edema", strength * v.coverage(swelling, 2)),
        (inner, v.coverage(core)),
        ("enhancing", v.coverage(rim) * np.clip(0.85 + 0.25 * near["patchy"], 0.45, 1.3)),
    ]
    labels = np.zeros(core.shape, np.uint8)
    labels[swelling > 0] = 2
    labels[core > 0] = 1
    labels[rim > 0] = 3
    return layers, labels


def _contrasts(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Signal per tissue and modality of one patient on one scanner."""
    signal = {
        name: np.array(row) * rng.lognormal(0, _SPREAD.get(name, 0.05), 4)
        for name, row in _SIGNAL.items()
    }
    # By definition, edema is brighter than the cortex on FLAIR.
    signal["edema"][0] = max(signal["edema"][0], 1.25 * signal["gray"][0])
    if rng.random() < 0.25:  # necrosis with free water, dark on FLAIR
        signal["necrotic"][0] = rng.uniform(45, 95)
    return signal


def _render(
    v: _Voxels, grid: VoxelGrid, layers: _Layers, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """One scan per modality: contrast, texture, bias field, blur, Rician noise, intensity scale."""
    from scipy import ndimage

    contrasts = _contrasts(rng)
    painted = []
    for name, share in layers:
        where = np.flatnonzero(share)
        painted.append((name, where, share[where].astype(np.float32)))
    for channel in range(4):
        contrast = {name: np.float32(row[channel]) for name, row in contrasts.items()}
        signal = np.full(v.hull.shape, contrast["white"])
        for name, where, share in painted:
            below = signal[where]
            signal[where] = below + share * (contrast[name] - below)
        bias = rng.uniform(0.1, 0.28) * grid.noise(rng, 70)
        texture = rng.uniform(0.01, 0.04) * grid.noise(rng, 5, at=grid.fine)
        signal *= np.exp(grid.upsample(bias)[v.mask] + texture[v.mask])
        volume = np.full(v.mask.shape, 0.4 * contrast["gray"])
        volume[v.mask] = with_rician_noise(rng, signal, rng.uniform(2, 6))
        blur_mm = np.full(3, rng.uniform(0.4, 0.7))
        blur_mm[rng.integers(3)] += rng.choice([0, 0, 1.0])
        volume = ndimage.gaussian_filter(volume, blur_mm / grid.voxel_mm, truncate=2.5)
        scale = np.exp(rng.uniform(np.log(2), np.log(25)))
        yield np.where(v.mask, np.clip(np.rint(volume * scale), 1, 32767), 0).astype(np.int16)
