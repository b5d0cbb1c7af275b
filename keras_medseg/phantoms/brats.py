"""Synthetic data sets in the layouts and file formats of the real ones.

The BraTS phantom draws a head in millimetres of the real grid: smooth implicit fields (positive
inside, in mm) on a 2 mm grid, interpolated to the voxels and turned into tissue fractions. Nothing
in it comes from a patient's voxels; sizes and contrasts were chosen to resemble BraTS 2021.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_medseg.data.cases import CaseArrays
from keras_medseg.data.datasets.brats import to_dataset_labels
from keras_medseg.data.formats.nifti import write_volume
from keras_medseg.phantoms.folder import claim, write_text

VERSION = 2
"""Of the generator: another version draws other voxels from the same seed."""

LAYOUTS = (
    "BraTS2017", "BraTS2018", "BraTS2019", "BraTS2020", "BraTS2021", "BraTS2023", "Decathlon",
)  # fmt: skip

# Relative signal of flair, t1, t1ce, t2; white matter of every modality but T2 is 100.
_SIGNAL = {
    "white": (100, 100, 100, 78),
    "grey": (132, 80, 86, 112),
    "deep grey": (116, 88, 92, 92),
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

# How much the signal of a tissue differs between cases (standard deviation of its logarithm).
_SPREAD = {"grey": 0.1, "hyperintensity": 0.1, "edema": 0.14, "necrotic": 0.12, "enhancing": 0.12}

_REFERENCE_MM = (240.0, 240.0, 155.0)
_BOX_MM = ((40.0, 198.0), (32.0, 222.0), (0.0, 146.0))
_CENTRE_MM = (119.0, 127.0, 0.0)
_SMALLEST = 24


@dataclass(frozen=True)
class _Grid:
    """The voxels around the brain (`fine`) and the nodes on which fields are computed (`nodes`).

    Both are per-axis coordinates in mm of the 240 x 240 x 155 mm field of view, whatever `shape`.
    """

    shape: tuple[int, int, int]
    start: tuple[int, ...]
    fine: tuple[np.ndarray, ...]
    nodes: tuple[np.ndarray, ...]
    voxel_mm: float
    weights: tuple[np.ndarray, ...] = field(repr=False)

    @property
    def box(self) -> tuple[slice, ...]:
        return tuple(slice(s, s + len(axis)) for s, axis in zip(self.start, self.fine))

    def upsample(self, values: np.ndarray) -> np.ndarray:
        """Linear interpolation from the nodes to the voxels of the box."""
        return _separable(values, self.weights)


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or min(shape) < _SMALLEST:
        raise ValueError(f"shape: found {shape}, expected three sizes of {_SMALLEST} or more.")


def _grid(shape: tuple[int, int, int]) -> _Grid:
    start, fine, nodes, weights, sizes = [], [], [], [], []
    for count, extent, (low, high) in zip(shape, _REFERENCE_MM, _BOX_MM):
        size = extent / count
        centres = (np.arange(count) + 0.5) * size
        inside = np.flatnonzero((centres >= low) & (centres <= high))
        axis = centres[inside]
        coarse = np.linspace(axis[0], axis[-1], min(len(axis), int((axis[-1] - axis[0]) / 2) + 2))
        start.append(int(inside[0]))
        fine.append(axis)
        nodes.append(coarse)
        weights.append(_hat(axis, coarse))
        sizes.append(size)
    return _Grid(
        tuple(shape), tuple(start), tuple(fine), tuple(nodes), float(max(sizes)), tuple(weights)
    )


def _hat(at: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    distance = np.abs(at[:, None] - nodes) / (nodes[1] - nodes[0])
    return np.clip(1 - distance, 0, 1).astype(np.float32)


def _separable(values: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """One matrix along each axis. They have 2 or 4 numbers per row, so sparse is 4 times faster."""
    from scipy import sparse

    for matrix in weights:
        rest = values.shape[1:]
        values = sparse.csr_array(matrix) @ values.reshape(len(values), -1)
        values = np.ascontiguousarray(np.moveaxis(values.reshape(-1, *rest), 0, -1))
    return values


def _noise(rng: np.random.Generator, axes, spacing_mm: float) -> np.ndarray:
    """A smooth random field of unit variance: a cubic B-spline with random coefficients."""
    counts = [int(extent / spacing_mm) + 4 for extent in _REFERENCE_MM]
    weights = []
    for axis, count in zip(axes, counts):
        t = np.abs(axis[:, None] / spacing_mm - (np.arange(count) - 1))
        spline = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
        weights.append(spline.astype(np.float32))
    coefficients = rng.standard_normal(counts, dtype=np.float32)
    return _separable(coefficients, weights) / np.float32(0.479**1.5)


def _ellipsoid(p: np.ndarray, centre, radii) -> np.ndarray:
    """Approximate distance to an ellipsoid's surface in mm, positive inside."""
    radii = np.reshape(np.asarray(radii, np.float32), (3,) + (1,) * (p.ndim - 1))
    q = (p - np.reshape(np.asarray(centre, np.float32), radii.shape)) / radii
    k0 = np.sqrt((q**2).sum(0)) + 1e-4
    return k0 * (1 - k0) / (np.sqrt(((q / radii) ** 2).sum(0)) + 1e-6)


def _tube(p: np.ndarray, points, radii) -> np.ndarray:
    """Distance to a polyline with a radius per point, positive inside."""
    best = None
    for a, b, ra, rb in zip(points, points[1:], radii, radii[1:]):
        a, b = (np.reshape(np.asarray(v, np.float32), (3,) + (1,) * (p.ndim - 1)) for v in (a, b))
        t = np.clip(((p - a) * (b - a)).sum(0) / ((b - a) ** 2).sum(), 0, 1)
        inside = ra + (rb - ra) * t - np.sqrt(((p - a - t * (b - a)) ** 2).sum(0))
        best = inside if best is None else np.maximum(best, inside)
    return best


def _union(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    h = np.clip(0.5 + 0.5 * (a - b) / blend_mm, 0, 1)
    return b + (a - b) * h + blend_mm * h * (1 - h)


def _cerebrum(p: np.ndarray) -> np.ndarray:
    """Both hemispheres without sulci; p (3, ...) in mm from the mid-plane, x to the left."""
    x, y, z = p
    narrow = 1 + 0.14 * np.clip(-y / 86, 0, 1) ** 2
    below = np.where(z < 72, 1.75, 1.0)
    main = _ellipsoid(np.stack([x * narrow, y, (z - 72) * below]), (0, 2, 0), (67, 86, 70))
    mirrored = np.stack([np.abs(x), y, z + 0.25 * (y + 18)])
    temporal = _ellipsoid(mirrored, (40, -12, 47), (24, 38, 18))
    frontal = _ellipsoid(mirrored, (11, -48, 51), (19, 33, 17))
    return _union(_union(main, temporal, 5), frontal, 6)


def _cerebellum(p: np.ndarray) -> np.ndarray:
    return _ellipsoid(p, (0, 44, 29), (52, 34, 25))


def _brainstem(p: np.ndarray) -> np.ndarray:
    return _tube(p, [(0, 6, 64), (0, 10, 40), (0, 24, -4)], (15, 14, 9))


def _lateral_ventricles(p: np.ndarray) -> np.ndarray:
    side = np.stack([1.4 * np.abs(p[0]), p[1], p[2]])
    return _tube(
        side,
        [(9, -31, 70), (14, -24, 83), (15, 4, 91), (20, 22, 90), (33, 38, 76), (34, 56, 70)],
        (3.5, 6.0, 5.5, 6.0, 7.0, 2.0),
    )


def _other_ventricles(p: np.ndarray) -> np.ndarray:
    side = np.stack([1.4 * np.abs(p[0]), p[1], p[2]])
    temporal_horn = _tube(side, [(33, 38, 76), (46, 20, 56), (44, -4, 48)], (5, 3, 2))
    third = _ellipsoid(p, (0, 2, 64), (2.5, 15, 9))
    fourth = _ellipsoid(p, (0, 31, 34), (7, 6, 9))
    return np.maximum(temporal_horn, np.maximum(third, fourth))


def _deep_grey(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(caudate, putamen and thalamus; pallidum)."""
    side = np.stack([np.abs(p[0]), p[1], p[2]])
    caudate = _tube(side, [(13, -24, 70), (17, -8, 78), (19, 12, 84)], (6, 5, 2.5))
    turned = np.stack([side[0] - 0.25 * side[1], side[1], side[2]])
    putamen = _ellipsoid(turned, (29, -5, 67), (6, 17, 11))
    thalamus = _ellipsoid(turned, (9, 13, 68), (9, 14, 10))
    pallidum = _ellipsoid(turned, (21, -2, 66), (4.5, 10, 7))
    return np.maximum(np.maximum(caudate, putamen), thalamus), pallidum


def _fold(values: np.ndarray, grid: _Grid) -> np.ndarray:
    """Signed distance in mm to the zero surface of a random field, by its gradient."""
    slopes = np.gradient(values, *[float(axis[1] - axis[0]) for axis in grid.nodes])
    steepness = np.sqrt(sum(s**2 for s in slopes))
    return values / (steepness + 0.25 * steepness.mean())


def _gyri(rng: np.random.Generator, p: np.ndarray, grid: _Grid, spacing_mm: float) -> np.ndarray:
    """Sulci as surfaces that run from the brain's surface inwards: noise along rays, in mm."""
    from scipy import ndimage

    centre = np.array([0, 5, 66], np.float32).reshape(3, 1, 1, 1)
    radii = np.array([67, 86, 70], np.float32).reshape(3, 1, 1, 1)
    ray = p - centre
    depth = np.sqrt(((ray / radii) ** 2).sum(0)) + 1e-3
    surface = ray * ((0.55 + 0.45 * depth) / np.maximum(depth, 0.3))
    surface += np.stack([2.0 * _noise(rng, grid.nodes, 11) for _ in range(3)])
    coefficients = rng.standard_normal((40, 40, 40), dtype=np.float32)
    coefficients -= ndimage.gaussian_filter(coefficients, 1.2, mode="wrap")
    folded = ndimage.map_coordinates(
        coefficients, surface / spacing_mm + 20, order=3, prefilter=False, mode="grid-wrap"
    )
    return _fold(folded, grid)


@dataclass(frozen=True)
class _Lesion:
    """Where the tumour grows; centres in mm as in `_cerebrum`."""

    enhancing: bool
    centres: np.ndarray
    radii_mm: np.ndarray
    edema_mm: float

    def distance(self, p: np.ndarray) -> np.ndarray:
        """Distance in mm from the nearest focus' surface, taken as a sphere; positive outside."""
        gaps = [
            np.sqrt(((p - np.reshape(c, (3,) + (1,) * (p.ndim - 1))) ** 2).sum(0)) - r
            for c, r in zip(self.centres, self.radii_mm)
        ]
        return np.minimum.reduce(gaps)


def _enhances(seed: int, index: int) -> bool:
    """One case in every four consecutive ones has no enhancing tumour."""
    return index % 4 != np.random.default_rng([seed, index // 4, 4]).integers(4)


def _plan_lesion(rng: np.random.Generator, enhancing: bool) -> _Lesion:
    candidates = rng.uniform((-55, -65, 46), (55, 68, 116), (2000, 3)).T.astype(np.float32)
    depth = np.minimum(_cerebrum(candidates), -_cerebellum(candidates))
    free = (depth > 9) & (_brainstem(candidates) < -8) & (np.abs(candidates[0]) > 10)
    free &= _lateral_ventricles(candidates) < -4
    candidates = candidates.T[free]
    typical = 15.0 if enhancing else 17
    radius = float(np.exp(rng.normal(np.log(typical), 0.28)).clip(9, 24))
    centres, radii = [candidates[0]], [radius]
    if rng.random() < 0.25:
        apart = np.linalg.norm(candidates - candidates[0], axis=1) - radius
        same_side = candidates[:, 0] * candidates[0, 0] > 0
        near = candidates[(apart > 8) & (apart < 30) & same_side]
        centres += list(near[:1])
        radii += [radius * rng.uniform(0.35, 0.6)] * len(near[:1])
    edema = rng.uniform(6, 18) if enhancing else rng.uniform(4, 12)
    return _Lesion(enhancing, np.array(centres), np.array(radii), float(edema))


def _core(rng: np.random.Generator, p: np.ndarray, lesion: _Lesion, grid: _Grid) -> np.ndarray:
    """Tumour core in mm, positive inside: lobes around each focus with an uneven surface."""
    core = None
    for centre, radius in zip(lesion.centres, lesion.radii_mm):
        for _ in range(rng.integers(2, 5)):
            offset = rng.normal(0, 0.4 * radius, 3)
            lobe = _ellipsoid(p, centre + offset, radius * rng.uniform(0.6, 1.1, 3))
            core = lobe if core is None else _union(core, lobe, 0.3 * radius)
    size = float(lesion.radii_mm.max())
    uneven = 0.16 * _noise(rng, grid.nodes, 11) + 0.07 * _noise(rng, grid.nodes, 5)
    return core + np.float32(size) * uneven


def _spots(
    rng: np.random.Generator, p: np.ndarray, lesion: _Lesion, count: int, size_mm, depth_mm
) -> np.ndarray:
    """`count` small ellipsoids in the white matter away from the tumour, positive inside."""
    candidates = rng.uniform((-58, -72, 40), (58, 76, 128), (4000, 3)).T.astype(np.float32)
    depth = np.minimum(_cerebrum(candidates), -_cerebellum(candidates) - 4)
    free = (depth > depth_mm[0]) & (depth < depth_mm[1]) & (_brainstem(candidates) < -6)
    free &= (_lateral_ventricles(candidates) < -3) & (np.abs(candidates[0]) > 6)
    free &= lesion.distance(candidates) > lesion.edema_mm + 2 * max(size_mm)
    spots = np.full(p.shape[1:], -50, np.float32)
    for centre in candidates.T[free][:count]:
        radii = rng.uniform(*size_mm) * rng.uniform(0.6, 1.2, 3)
        spots = np.maximum(spots, _ellipsoid(p, centre, radii))
    return spots


def _anatomy(rng: np.random.Generator, grid: _Grid, lesion: _Lesion) -> dict[str, np.ndarray]:
    """Every implicit field of one case on the grid's nodes, in mm."""
    p = np.stack(np.meshgrid(*grid.nodes, indexing="ij")).astype(np.float32)
    p -= np.reshape(np.asarray(_CENTRE_MM, np.float32), (3, 1, 1, 1))
    middle = np.array([0, 0, 70], np.float32).reshape(3, 1, 1, 1)
    head = middle + (p - middle) * rng.uniform(0.97, 1.05, (3, 1, 1, 1)).astype(np.float32)
    head += np.stack([1.8 * _noise(rng, grid.nodes, 42) for _ in range(3)])
    cerebellum, stem = _cerebellum(head), _brainstem(head)
    hull = _union(_union(_cerebrum(head), cerebellum, 6), stem, 6) + 0.6
    hull = np.minimum(hull + 0.7 * _noise(rng, grid.nodes, 8), p[2] - rng.uniform(1, 12))
    inner = head.copy()
    for centre, radius in zip(lesion.centres, lesion.radii_mm):
        towards = np.reshape(centre, (3, 1, 1, 1)) - p
        reach = np.exp(-(towards**2).sum(0) / (2.2 * radius) ** 2)
        inner += (rng.uniform(0.15, 0.4) * reach * towards).astype(np.float32)
    x, y, z = inner
    deep, pallidum = _deep_grey(inner)
    lateral = _lateral_ventricles(inner) + np.float32(rng.uniform(-0.5, 3.5))
    return {
        "hull": hull,
        "cerebrum": np.minimum(_cerebrum(inner), -cerebellum - 0.7),
        "cerebellum": cerebellum,
        "stem": stem,
        "gyri": _gyri(rng, inner, grid, float(rng.uniform(6.6, 8.0))),
        "midline": x,
        "centre": _ellipsoid(inner, (0, 3, 68), (28, 44, 24)),
        "depth": _cerebrum(inner),
        "base": _ellipsoid(inner, (0, 0, 52), (26, 38, 24)),
        "sylvian": z - 62 - 0.2 * y - 0.15 * (np.abs(x) - 50),
        "sylvian gap": np.maximum(36 - np.abs(x), np.abs(y + 8) - 28),
        "ventricles": np.maximum(lateral, _other_ventricles(inner) + 0.5),
        "lateral": lateral,
        "choroid": _tube(np.stack([np.abs(x), y, z]), [(22, 32, 78), (23, 42, 74)], (2.0, 3.0)),
        "deep grey": deep,
        "pallidum": pallidum,
        "folia": z + 0.35 * y + 2.5 * _noise(rng, grid.nodes, 14),
        "core": _core(rng, p, lesion, grid),
        "focus": lesion.distance(p),
        "spots": _spots(rng, p, lesion, int(rng.integers(0, 24)), (1.5, 4.5), (9, 40)),
        "infarct": _spots(rng, p, lesion, int(rng.random() < 0.6), (9.0, 17.0), (2, 10)),
        "uneven": _noise(rng, grid.nodes, 9),
        "patchy": _noise(rng, grid.nodes, 22),
        "branches": _fold(_noise(rng, grid.nodes, 10), grid),
    }


class _Voxels:
    """Fields at the voxels of the brain, interpolated when asked for."""

    def __init__(self, fields: dict[str, np.ndarray], grid: _Grid) -> None:
        self._fields, self._grid = fields, grid
        hull = grid.upsample(fields["hull"])
        self.mask = hull > 0
        self.hull = hull[self.mask]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._grid.upsample(self._fields[name])[self.mask]

    def inside(self, distance: np.ndarray, blur_mm: float = 0.0) -> np.ndarray:
        """Share of the voxel that lies inside: partial volume over one voxel or `blur_mm`."""
        return np.clip(0.5 + distance / max(self._grid.voxel_mm, blur_mm), 0, 1)


def _tissues(v: _Voxels, rng: np.random.Generator) -> tuple[list, dict[str, np.ndarray]]:
    """Layers (tissue, share of the voxel) to paint in order, and the fields lesions need."""
    atrophy = float(rng.uniform(0.3, 1.1))
    gyri, centre, midline = v["gyri"], v["centre"], v["midline"]
    cerebrum, cerebellum, stem = v["cerebrum"], v["cerebellum"], v["stem"]
    uneven, patchy = v["uneven"], v["patchy"]
    bottom = np.maximum(v["depth"] - 15 - 4 * patchy, v["base"])
    sulci = np.hypot(gyri, np.maximum(bottom, 0)) - atrophy
    fissure = np.hypot(midline, np.maximum(centre, 0)) - 0.2 - 0.4 * atrophy
    sylvian = np.hypot(v["sylvian"], np.maximum(v["sylvian gap"], 0)) - 1.0 - atrophy
    pial = np.minimum(np.minimum(cerebrum, sulci), np.minimum(fissure, sylvian))
    hindbrain = np.maximum(cerebellum, stem)
    ventricles = v["ventricles"]
    tissue = np.maximum(pial, hindbrain)
    folia = np.abs((v["folia"] / 4.5) % 1 - 0.5) * 9 - 1.2
    cortex = v.inside(2.7 + 0.5 * uneven - pial) * v.inside(-stem)
    cortex *= 1 - v.inside(cerebellum)
    leaf = v.inside(cerebellum) * v.inside(13 + 3 * patchy - cerebellum, 4) * v.inside(-stem)
    thickness = min(1.5 * rng.gamma(1.3), 3.5) * (1 + 0.6 * patchy + 0.4 * uneven)
    caps = np.minimum(thickness, 6) + v["lateral"] - 0.5
    white = v.inside(pial - 3.2, 2) * (1 - v.inside(v["deep grey"]))
    hyper = np.maximum(v.inside(caps, 3), v.inside(v["spots"], 2)) * white
    infarct = v["infarct"]
    layers = [
        ("grey", cortex),
        ("grey", leaf * (0.75 + 0.25 * v.inside(folia, 2))),
        ("csf", 0.5 * leaf * v.inside(-folia, 2)),
        ("brainstem", v.inside(stem, 3)),
        ("deep grey", v.inside(v["deep grey"], 2)),
        ("pallidum", v.inside(v["pallidum"], 2)),
        ("hyperintensity", 0.9 * hyper),
        ("hyperintensity", v.inside(infarct, 2)),
        ("csf", v.inside(infarct - 3 - uneven, 3)),
        ("csf", v.inside(-tissue)),
        ("csf", v.inside(ventricles)),
        ("choroid", v.inside(v["choroid"], 2) * v.inside(ventricles)),
    ]
    branches = v["branches"]
    crossing = np.hypot(np.hypot(gyri, branches), np.maximum(bottom, 0))
    outer = v.inside(cerebrum) * v.inside(-hindbrain - 2)
    layers += [
        ("vessel", 0.8 * v.inside(0.8 + 0.3 * uneven - crossing) * outer),
        ("vessel", 0.5 * v.inside(0.8 - np.abs(midline)) * v.inside(-centre - 8) * outer),
        ("sinus", v.inside(3.5 - np.hypot(midline, v.hull - 1)) * outer),
        ("dura", v.inside(2.5 - v.hull + uneven) * v.inside(patchy - 1.0, 0.4)),
    ]
    depth = np.where(hindbrain > pial, 1.0, pial)
    return layers, {"depth": depth, "ventricles": ventricles, "uneven": uneven, "patchy": patchy}


def _tumour(
    v: _Voxels, rng: np.random.Generator, lesion: _Lesion, near: dict[str, np.ndarray]
) -> tuple[list, np.ndarray]:
    """Layers to paint over the tissues, and the canonical labels of the brain's voxels."""
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
        ("edema", strength * v.inside(swelling, 2)),
        (inner, v.inside(core)),
        ("enhancing", v.inside(rim) * np.clip(0.85 + 0.25 * near["patchy"], 0.45, 1.3)),
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
    # What is called edema is what stands out from the cortex on FLAIR.
    signal["edema"][0] = max(signal["edema"][0], 1.25 * signal["grey"][0])
    if rng.random() < 0.25:  # necrosis with free water, dark on FLAIR
        signal["necrotic"][0] = rng.uniform(45, 95)
    return signal


def _render(
    v: _Voxels, grid: _Grid, layers: list, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """One scan per modality: contrast, texture, bias field, blur, Rician noise, scanner's scale."""
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
        bias = rng.uniform(0.1, 0.28) * _noise(rng, grid.nodes, 70)
        texture = rng.uniform(0.01, 0.04) * _noise(rng, grid.fine, 5)
        signal *= np.exp(grid.upsample(bias)[v.mask] + texture[v.mask])
        sigma = np.float32(rng.uniform(2, 6))
        real, imaginary = sigma * rng.standard_normal((2, signal.size), np.float32)
        volume = np.full(v.mask.shape, 0.4 * contrast["grey"])
        volume[v.mask] = np.hypot(signal + real, imaginary)
        blur_mm = np.full(3, rng.uniform(0.4, 0.7))
        blur_mm[rng.integers(3)] += rng.choice([0, 0, 1.0])
        volume = ndimage.gaussian_filter(volume, blur_mm / grid.voxel_mm, truncate=2.5)
        scale = np.exp(rng.uniform(np.log(2), np.log(25)))
        yield np.where(v.mask, np.clip(np.rint(volume * scale), 1, 32767), 0).astype(np.int16)


def brats_case(seed: int, index: int, shape: tuple[int, int, int] = (240, 240, 155)) -> CaseArrays:
    """Draw one case: image (X, Y, Z, 4) int16 in the order flair, t1, t1ce, t2, LPS.

    The labels are canonical (1 necrotic and non-enhancing, 2 edema, 3 enhancing). The head always
    fills the same share of `shape`. Equal arguments give equal arrays.

    Raises:
        ValueError: a shape that is not three sizes of 24 or more.
    """
    _check_shape(shape)
    rng = np.random.default_rng([seed, index])
    grid = _grid(shape)
    lesion = _plan_lesion(rng, _enhances(seed, index))
    voxels = _Voxels(_anatomy(rng, grid, lesion), grid)
    layers, near = _tissues(voxels, rng)
    growth, tumour = _tumour(voxels, rng, lesion, near)
    image = np.zeros((*shape, 4), np.int16, order="F")
    for channel, scan in enumerate(_render(voxels, grid, layers + growth, rng)):
        image[(*grid.box, channel)] = scan
    labels = np.zeros(shape, np.uint8)
    labels[grid.box][voxels.mask] = tumour
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = shape[1] - 1
    return CaseArrays(image, labels, affine, ("L", "P", "S"))


_README = """Synthetic images. No patient was involved.

Drawn by keras_medseg.phantoms.brats, version {version}, seed {seed}, in the layout of {layout}.
Scores measured on them say that software works, and nothing about medicine.
"""
_NAMES = {
    "BraTS2017": "{grade}/Brats17_Phantom_{number}_1",
    "BraTS2018": "{grade}/Brats18_Phantom_{number}_1",
    "BraTS2019": "{grade}/BraTS19_Phantom_{number}_1",
    "BraTS2020": "BraTS20_Training_{number}",
    "BraTS2021": "BraTS2021_{index:05d}",
    "BraTS2023": "BraTS-GLI-{index:05d}-000",
    "Decathlon": "BRATS_{number}",
}


_INDEX_FILES = ("name_mapping.csv", "dataset.json")
_DATASET_JSON = {
    "name": "BRATS (phantom)",
    "description": "Synthetic gliomas drawn by keras_medseg; no patient was involved",
    "tensorImageSize": "4D",
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {
        "0": "background",
        "1": "edema",
        "2": "non-enhancing tumor",
        "3": "enhancing tumour",
    },
    "numTest": 0,
    "test": [],
}


def _grade(seed: int, index: int) -> str:
    return "HGG" if _enhances(seed, index) else "LGG"


def _case_id(layout: str, seed: int, index: int) -> str:
    grade = _grade(seed, index)
    return _NAMES[layout].format(grade=grade, number=f"{index + 1:03d}", index=index)


def _case_files(layout: str, case_id: str) -> tuple[list[Path], Path]:
    """(images in the order of the channels, labels), relative to the data set's folder."""
    if layout == "Decathlon":
        return [Path("imagesTr", f"{case_id}.nii.gz")], Path("labelsTr", f"{case_id}.nii.gz")
    suffixes = ["_flair", "_t1", "_t1ce", "_t2", "_seg"]
    if layout == "BraTS2023":
        suffixes = ["-t2f", "-t1n", "-t1c", "-t2w", "-seg"]
    *images, labels = [Path(case_id, f"{Path(case_id).name}{s}.nii.gz") for s in suffixes]
    return images, labels


def _complete(folder: Path, layout: str, case_id: str) -> bool:
    images, labels = _case_files(layout, case_id)
    return all((folder / path).exists() for path in [*images, labels])


def _write_case(folder: Path, layout: str, case_id: str, case: CaseArrays, index: int) -> None:
    images, labels = _case_files(layout, case_id)
    for path in [*images, labels]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    codes = to_dataset_labels(case.labels, layout)
    if layout == "Decathlon":
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        affine[0, 3] = 1.0 - case.image.shape[0]
        write_volume(folder / images[0], case.image[::-1, ::-1], affine)
        write_volume(folder / labels, codes[::-1, ::-1], affine)
        return
    for channel, path in enumerate(images):
        write_volume(folder / path, case.image[..., channel], case.affine)
    # The type of the segmentations differs from case to case in the real sets as well.
    dtype = ("uint8", "uint16", "int16", "float32")[index % 4]
    write_volume(folder / labels, codes, case.affine, dtype=dtype)


def _files(marker: dict) -> Iterator[Path]:
    """Every file that `write_brats` wrote for a marker."""
    for index in range(marker["cases"]):
        case_id = _case_id(marker["layout"], marker["seed"], index)
        images, labels = _case_files(marker["layout"], case_id)
        yield from [*images, labels]
    yield from map(Path, _INDEX_FILES)


def _write_index(folder: Path, layout: str, seed: int, cases: int) -> None:
    """The data set's own table of its cases, where it has one."""
    ids = {index: _case_id(layout, seed, index) for index in range(cases)}
    ids = {index: case_id for index, case_id in ids.items() if _complete(folder, layout, case_id)}
    if layout == "BraTS2020":
        years = ("BraTS_2017", "BraTS_2018", "TCGA_TCIA", "BraTS_2019", "BraTS_2020")
        rows = [["Grade", *(f"{year}_subject_ID" for year in years)]]
        rows += [[_grade(seed, index), *4 * ["NA"], case_id] for index, case_id in ids.items()]
        write_text(folder / "name_mapping.csv", "".join(",".join(row) + "\n" for row in rows))
    if layout == "Decathlon":
        listed = [
            {"image": f"./imagesTr/{case_id}.nii.gz", "label": f"./labelsTr/{case_id}.nii.gz"}
            for case_id in ids.values()
        ]
        content = {**_DATASET_JSON, "numTraining": len(listed), "training": listed}
        write_text(folder / "dataset.json", json.dumps(content, indent=2) + "\n")


def write_brats(
    folder: Path | str,
    *,
    cases: int,
    seed: int = 0,
    layout: str = "BraTS2021",
    shape: tuple[int, int, int] = (240, 240, 155),
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Path]:
    """Write a synthetic BraTS data set; complete cases of the same phantom are kept.

    Files appear complete or not at all, so a run that was killed is finished by the same call.
    The voxels depend on (seed, case) alone. Every fourth case or so has no enhancing tumour.

    Args:
        folder: a new or empty folder, or an earlier phantom: cases drawn with another seed, shape,
            layout or version are replaced, further cases of the same phantom stay.
        layout: one of `LAYOUTS`.
        shape: (X, Y, Z); the anatomy scales with it, the files say 1 mm.
        progress: called with (cases done, cases, case id).

    Returns:
        The cases' folders, or the image files in the Decathlon's layout.

    Raises:
        ValueError: an unknown layout, fewer than one case, or a shape under 24 voxels.
        DataError: the folder holds something else, or cannot be written.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: found {layout!r}, expected one of {', '.join(LAYOUTS)}.")
    if cases < 1:
        raise ValueError(f"cases: found {cases}, expected at least 1.")
    _check_shape(shape)
    folder = Path(folder)
    wanted = {
        "version": VERSION,
        "seed": seed,
        "layout": layout,
        "shape": list(shape),
        "cases": cases,
    }
    readme = _README.format(**wanted)
    held = claim(folder, wanted, layouts=LAYOUTS, files=_files, readme=readme)
    ids = [_case_id(layout, seed, index) for index in range(cases)]

    def write(index: int) -> str:
        if not _complete(folder, layout, ids[index]):
            _write_case(folder, layout, ids[index], brats_case(seed, index, shape), index)
        return ids[index]

    # Nearly all of the time is spent in NumPy, SciPy and zlib, which let go of the interpreter.
    with ThreadPoolExecutor(2) as pool:
        for done, case_id in enumerate(pool.map(write, range(cases)), 1):
            if progress is not None:
                progress(done, cases, Path(case_id).name)
    _write_index(folder, layout, seed, held)
    images = [_case_files(layout, case_id)[0][0] for case_id in ids]
    return [folder / (path if layout == "Decathlon" else path.parent) for path in images]
