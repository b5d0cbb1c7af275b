"""Augmentations of 3-D crops: zoom, flips, noise, blur, brightness and contrast, in this order.

The order and the details are those of fmnet2023, whose authors load their data with DALI: sizes are
truncated to whole voxels, the cubic interpolation is that of Keys with a = -1/2, whose weights come
from a table, the Gaussian ends at ceil(3 sigma), and the border is mirrored without repeating the
outermost voxel.

The random decisions about a sample are a few numbers that follow from (seed, epoch, index); NumPy
draws them. The augmentations themselves are written once, with functions that NumPy and keras.ops
have under the same names: the argument `ops` is `numpy` in the input pipeline and `keras.ops` in
the training step, and both give the same values up to the rounding of float32. An augmentation that
was not drawn for a sample leaves its bits unchanged, so the pipeline may skip it. Nor do they
depend on how many voxels are computed at once, so the pipeline takes slabs that stay in the
processor's cache (`augment_crop`).
"""

import math
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from keras_medseg.errors import require_choice

Options = Mapping[str, Mapping[str, Any]]
"""Name of an augmentation -> its options."""

# The strengths of the authors' code.
DEFAULTS: Options = {
    "zoom": {"probability": 0.15, "scale": (0.7, 1.0)},
    "flips": {"probability": 0.5},
    "noise": {"probability": 0.15, "sigma": (0.0, 0.33)},
    "blur": {"probability": 0.15, "sigma_voxels": (0.5, 1.5)},
    "brightness": {"probability": 0.15, "factor": (0.7, 1.3)},
    "contrast": {"probability": 0.15, "factor": (0.65, 1.5)},
}
# extent: voxels of an axis that are enlarged to its full size; key: two numbers of 24 bits.
COLUMNS = (
    *("extent_x", "extent_y", "extent_z", "flip_x", "flip_y", "flip_z"),
    *("noise_sigma", "noise_key_a", "noise_key_b", "blur_sigma", "brightness", "contrast"),
)
_SLAB = 2**16  # values computed at once: 256 KB, so that intermediate results stay in the cache
_CUBIC_STEPS = 32  # of DALI's table of the cubic kernel, for each voxel: 129 values from -2 to 2
# Augmentation -> the columns in which a sample with it differs from a sample without it.
DECIDE = {
    "zoom": (0, 1, 2),
    "flips": (3, 4, 5),
    "noise": (6,),
    "blur": (9,),
    "brightness": (10,),
    "contrast": (11,),
}


def with_defaults(options: Options) -> dict[str, dict[str, Any]]:
    """The named augmentations in their order, with the authors' strengths where none is given.

    Args:
        options: the augmentations to use; see `DEFAULTS` for their names and options.

    Returns:
        Name -> all options, in the order of `DEFAULTS`.

    Raises:
        ValueError: unknown name or option, a probability outside [0, 1], or a range whose numbers
            are not positive and ascending (scale: at most 1).
    """
    for name, given in options.items():
        require_choice("augmentation", name, DEFAULTS)
        for option, value in given.items():
            require_choice(f"augmentation.{name}", option, DEFAULTS[name])
            _check(f"augmentation.{name}.{option}", option, value)
    return {name: {**DEFAULTS[name], **options[name]} for name in DEFAULTS if name in options}


def draw_parameters(
    seed: int, epoch: int, count: int, options: Options, patch: tuple[int, int, int]
) -> np.ndarray:
    """Draw the augmentation parameters of samples 0 .. count - 1 for one epoch.

    A sample's row depends on (seed, epoch, index) alone: a larger count appends rows, and adding
    or removing an augmentation does not change the columns of the others.

    Args:
        seed: of the training.
        epoch: from 0.
        count: number of samples.
        options: as `with_defaults` returns them; without any, no sample is changed.
        patch: (x, y, z) voxels of the crops.

    Returns:
        (count, len(COLUMNS)) float32.
    """
    uniform = np.random.default_rng((seed, epoch, 3)).random((count, 15))

    def drawn(name: str, strength: str, column: int, neutral: float) -> np.ndarray:
        if name not in options:
            return np.full(count, neutral)
        low, high = options[name][strength]
        value = low + (high - low) * uniform[:, column + 1]
        return np.where(uniform[:, column] < options[name]["probability"], value, neutral)

    flipped = uniform[:, 2:5] < options.get("flips", {"probability": 0})["probability"]
    scale = drawn("zoom", "scale", 0, 1.0).astype(np.float32)
    columns = [
        *(np.maximum(np.floor(scale * np.float32(size)), 1) for size in patch),
        *flipped.T,
        drawn("noise", "sigma", 5, 0.0),
        *np.floor(uniform[:, 7:9].T * 2**24),
        drawn("blur", "sigma_voxels", 9, 0.0),
        drawn("brightness", "factor", 11, 1.0),
        drawn("contrast", "factor", 13, 1.0),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def occurring(options: Options, parameters: np.ndarray, patch: tuple[int, int, int]) -> Options:
    """The augmentations that change at least one sample of `parameters` (N, len(COLUMNS))."""
    changed = (parameters != draw_parameters(0, 0, 1, {}, patch)).any(axis=0)
    names = {name for name, columns in DECIDE.items() if changed[list(columns)].any()}
    return {name: given for name, given in options.items() if name in names}


def flips(parameters: np.ndarray) -> tuple[bool, bool, bool]:
    """Whether to mirror a sample along x, y and z, of its row (len(COLUMNS),) of parameters."""
    x, y, z = (bool(parameters[COLUMNS.index(f"flip_{axis}")]) for axis in "xyz")
    return x, y, z


def augment_image(ops: ModuleType, x: Any, parameters: Any, options: Options) -> Any:
    """Augment crops as their rows of `parameters` say.

    Args:
        ops: numpy or keras.ops.
        x: crops (N, X, Y, Z, C) float32.
        parameters: (N, len(COLUMNS)) of `draw_parameters`.
        options: as in `draw_parameters`; an augmentation that is not among them is left out,
            whatever the parameters say.

    Returns:
        (N, X, Y, Z, C) float32.
    """
    if "zoom" in options or "flips" in options:
        for axis in (1, 2, 3):
            x = _resample(ops, x, parameters, axis, cubic="zoom" in options)
    if "noise" in options:
        x = x + _per_sample(ops, parameters, "noise_sigma") * _normal(ops, x, parameters)
    if "blur" in options:
        radius = math.ceil(3 * options["blur"]["sigma_voxels"][1])
        weights = _gaussian(ops, _column(parameters, "blur_sigma"), radius)
        for axis in (1, 2, 3):
            x = _convolve(ops, x, weights, axis)
    if "brightness" in options:
        x = x * _per_sample(ops, parameters, "brightness")
    if "contrast" in options:
        low, high = (f(x, axis=(1, 2, 3, 4), keepdims=True) for f in (ops.min, ops.max))
        x = ops.minimum(ops.maximum(x * _per_sample(ops, parameters, "contrast"), low), high)
    return x


def augment_targets(ops: ModuleType, y: Any, parameters: Any, options: Options) -> Any:
    """Zoom (nearest voxel) and mirror targets like their crops.

    Args:
        ops: numpy or keras.ops.
        y: targets (N, X, Y, Z, R) float32.
        parameters: as in `augment_image`.
        options: as in `augment_image`.

    Returns:
        (N, X, Y, Z, R) float32.
    """
    if "zoom" in options or "flips" in options:
        for axis in (1, 2, 3):
            y = _resample(ops, y, parameters, axis, cubic=False)
    return y


def augment_crop(x: np.ndarray, y: np.ndarray, parameters: np.ndarray, options: Options) -> None:
    """Augment one crop and its targets in place: the same bits as `augment_image`, sooner.

    Intermediate results of a whole crop would go through main memory dozens of times, so what is
    done along one axis is done for a slab across it at a time.

    Args:
        x: one crop (X, Y, Z, C) float32, without gaps in memory, of finite numbers.
        y: its targets (X, Y, Z, R) float32; R may be 0.
        parameters: (1, len(COLUMNS)) of `draw_parameters`.
        options: as in `augment_image`.
    """
    given = dict(zip(COLUMNS, parameters[0]))
    if "zoom" in options or "flips" in options:
        _resample_slabs(x, parameters, cubic="zoom" in options)
        _resample_slabs(y, parameters, cubic=False)
    if "noise" in options:
        _add_noise(x, parameters, given["noise_sigma"])
    if "blur" in options:
        _blur_slabs(x, parameters, math.ceil(3 * options["blur"]["sigma_voxels"][1]))
    if "brightness" in options:
        x *= given["brightness"]
    if "contrast" in options:
        low, high = x.min(), x.max()
        for part in _slabs(x, 2):
            part *= given["contrast"]
            np.maximum(part, low, out=part)
            np.minimum(part, high, out=part)


def _check(where: str, option: str, value: Any) -> None:
    if option == "probability":
        fits, expected = 0 <= value <= 1, "0 to 1"
    else:
        smallest = 1e-6 if option in ("scale", "factor") else 0
        largest = 1 if option == "scale" else math.inf
        fits = len(value) == 2 and smallest <= value[0] <= value[1] <= largest
        expected = "(smallest, largest)" + (" with at most 1" if option == "scale" else "")
    if not fits:
        raise ValueError(f"{where}: found {value}, expected {expected}.")


def _column(parameters: Any, name: str) -> Any:
    """(N, 1)."""
    index = COLUMNS.index(name)
    return parameters[:, index : index + 1]


def _per_sample(ops: ModuleType, parameters: Any, name: str) -> Any:
    return ops.reshape(_column(parameters, name), (-1, 1, 1, 1, 1))


# Zoom and flips


def _resample(ops: ModuleType, x: Any, parameters: Any, axis: int, *, cubic: bool) -> Any:
    """Enlarge the middle `extent` voxels of an axis to its full size, then mirror it.

    Rows are gathered and added, not multiplied by a matrix, because matrix units by default round
    float32 to the ten bits of TF32. Indices are computed in integers, so that every backend reads
    the same voxels.
    """
    size = x.shape[axis]
    if not cubic:
        return _gather(ops, x, _nearest(ops, size, parameters, axis), axis)
    shape = [-1, 1, 1, 1, 1]
    shape[axis] = size
    total = 0.0
    for index, weight in zip(*_cubic(ops, size, parameters, axis)):
        total = total + ops.reshape(weight, shape) * _gather(ops, x, index, axis)
    return total


def _nearest(ops: ModuleType, size: int, parameters: Any, axis: int) -> Any:
    """(N, size) the voxel that each place along an axis is taken from."""
    place, extent, first = _places(ops, size, parameters, axis)
    return first + (2 * place + 1) * extent // (2 * size)


def _cubic(ops: ModuleType, size: int, parameters: Any, axis: int) -> tuple[list[Any], list[Any]]:
    """The four voxels that each place along an axis is made of, and their weights: (N, size)."""
    place, extent, first = _places(ops, size, parameters, axis)
    doubled = (2 * place + 1) * extent - size
    below = doubled // (2 * size)
    t = ops.array(doubled - below * 2 * size, dtype="float32") / (2 * size)
    voxels = (below + offset for offset in (-1, 0, 1, 2))
    indices = [first + ops.minimum(ops.maximum(voxel, 0), extent - 1) for voxel in voxels]
    return indices, _cubic_weights(ops, t)


def _places(ops: ModuleType, size: int, parameters: Any, axis: int) -> tuple[Any, Any, Any]:
    """Places (N, size) along an axis, mirrored if so drawn; extent and first voxel of the source.

    The source of place p lies at ((2 p + 1) extent - size) / (2 size), counted from the first
    voxel: centers are mapped to centers.
    """
    name = "xyz"[axis - 1]
    extent = ops.array(_column(parameters, f"extent_{name}"), dtype="int32")
    flip = ops.array(_column(parameters, f"flip_{name}"), dtype="int32")
    place = ops.arange(size, dtype="int32")[None]
    return flip * (size - 1) + (1 - 2 * flip) * place, extent, (size - extent + 1) // 2


def _cubic_weights(ops: ModuleType, t: Any) -> list[Any]:
    """Keys' weights as DALI 2.4 has them: linear between the steps of a table."""
    step = ops.floor(t * _CUBIC_STEPS)
    below, above = (_keys_weights((step + k) / _CUBIC_STEPS) for k in (0, 1))
    fraction = t * _CUBIC_STEPS - step
    return [low + fraction * (high - low) for low, high in zip(below, above)]


def _keys_weights(t: Any) -> tuple[Any, Any, Any, Any]:
    """Weights of the voxels at -1, 0, 1 and 2 for t in [0, 1]: cubic convolution, Keys 1981."""
    return (
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )


def _gather(ops: ModuleType, x: Any, index: Any, axis: int) -> Any:
    """Take, along `axis`, voxel index[n, p] of sample n for place p; index (N, size) int32."""
    shape, size = tuple(x.shape)[1:], x.shape[axis]
    outer, inner = math.prod(shape[: axis - 1]), math.prod(shape[axis:])
    start = ops.arange(ops.shape(x)[0] * outer, dtype="int32") * size
    rows = ops.reshape(start, (-1, outer, 1)) + ops.reshape(index, (-1, 1, size))
    taken = ops.take(ops.reshape(x, (-1, inner)), ops.reshape(rows, (-1,)), axis=0)
    return ops.reshape(taken, (-1, *shape))


# Noise


def _normal(ops: ModuleType, x: Any, parameters: Any) -> Any:
    """Standard normal numbers of x's shape that follow from the sample's key and the voxel.

    Each voxel's number is hashed to 32 bits; two of them become two normal numbers (Box and Muller
    1958). No random generator is used: those of NumPy, TensorFlow and JAX give different numbers.
    """
    shape = tuple(x.shape)[1:]
    count = math.prod(shape)
    half = (count + 1) // 2
    pairs = ops.concatenate(_normal_pairs(ops, parameters, half, 0, half), axis=1)
    return ops.reshape(pairs[:, :count], (-1, *shape))


def _normal_pairs(
    ops: ModuleType, parameters: Any, half: int, first: int, end: int
) -> tuple[Any, Any]:
    """The numbers of voxels `first` to `end` - 1, and of those `half` further on, (N, count)."""
    words = [_words(ops, parameters, first + start, end + start) for start in (0, half)]
    # 24 bits are exact in float32; the logarithm must not see 0.
    low, high = (
        ops.array(ops.right_shift(word, ops.array(8, dtype="uint32")), dtype="float32")
        for word in words
    )
    radius = ops.sqrt(-2.0 * ops.log((low + 1.0) * 2.0**-24))
    angle = high * (2 * math.pi * 2.0**-24)
    return radius * ops.cos(angle), radius * ops.sin(angle)


def _words(ops: ModuleType, parameters: Any, first: int, end: int) -> Any:
    """32 random bits (N, end - first) for each of these voxels."""
    key_a, key_b = (
        ops.array(_column(parameters, name), dtype="uint32")
        for name in ("noise_key_a", "noise_key_b")
    )
    voxel = ops.array(ops.arange(first, end, dtype="int32"), dtype="uint32")[None]
    return _scramble(ops, _scramble(ops, ops.bitwise_xor(voxel, key_a)) + key_b)


def _scramble(ops: ModuleType, words: Any) -> Any:
    """The finalizer of MurmurHash3 (Appleby): every bit depends on every bit."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        words = ops.bitwise_xor(words, ops.right_shift(words, ops.array(shift, dtype="uint32")))
        words = words * ops.array(factor, dtype="uint32")
    return ops.bitwise_xor(words, ops.right_shift(words, ops.array(16, dtype="uint32")))


# Blur


def _gaussian(ops: ModuleType, sigma: Any, radius: int) -> Any:
    """(N, 2 radius + 1) weights of a Gaussian; sigma (N, 1) voxels, 0 for no blur."""
    offsets = ops.array(np.arange(-radius, radius + 1)[None], dtype="float32")
    inside = ops.array(ops.abs(offsets) <= ops.ceil(3.0 * sigma), dtype="float32")
    spread = ops.maximum(sigma, 1e-3)
    weights = inside * ops.exp(-0.5 * (offsets / spread) ** 2)
    return weights / ops.sum(weights, axis=1, keepdims=True)


def _convolve(ops: ModuleType, x: Any, weights: Any, axis: int) -> Any:
    """Convolve each sample along one axis with its own weights, mirrored at the border."""
    size, radius = x.shape[axis], weights.shape[1] // 2
    padded = ops.take(x, _mirrored(size, radius), axis=axis)
    total = 0.0
    for tap in range(2 * radius + 1):
        part = padded[(slice(None),) * axis + (slice(tap, tap + size),)]
        total = total + ops.reshape(weights[:, tap], (-1, 1, 1, 1, 1)) * part
    return total


def _mirrored(size: int, radius: int) -> np.ndarray:
    """(size + 2 radius,) the voxels of an axis with those beyond its ends, int32."""
    period = max(2 * (size - 1), 1)
    voxels = np.abs(np.arange(-radius, size + radius)) % period
    return np.minimum(voxels, period - voxels).astype(np.int32)


# One crop by NumPy, slab by slab


def _slabs(x: np.ndarray, axis: int) -> Iterator[np.ndarray]:
    """Parts of a crop (X, Y, Z, C) that have all of an axis."""
    across = 1 if axis == 0 else 0
    step = max(1, _SLAB * x.shape[across] // max(x.size, 1))
    for first in range(0, x.shape[across], step):
        yield x[:, first : first + step] if across else x[first : first + step]


def _resample_slabs(x: np.ndarray, parameters: np.ndarray, *, cubic: bool) -> None:
    for axis in range(3):
        shape = [1, 1, 1, 1]
        shape[axis] = size = x.shape[axis]
        if not cubic:
            [index] = _nearest(np, size, parameters, axis + 1)
            for part in _slabs(x, axis):
                part[...] = np.take(part, index, axis=axis)
            continue
        indices, weights = _cubic(np, size, parameters, axis + 1)
        weights = [weight.reshape(shape) for weight in weights]
        for part in _slabs(x, axis):
            total = np.zeros(part.shape, part.dtype)
            for [index], weight in zip(indices, weights):
                taken = np.take(part, index, axis=axis)
                taken *= weight
                total += taken
            part[...] = total


def _add_noise(x: np.ndarray, parameters: np.ndarray, sigma: np.float32) -> None:
    flat = x.reshape(-1)
    half = (flat.size + 1) // 2
    for first in range(0, half, _SLAB):
        end = min(first + _SLAB, half)
        for start, [numbers] in zip((0, half), _normal_pairs(np, parameters, half, first, end)):
            part = flat[first + start : end + start]
            part += (sigma * numbers)[: part.size]


def _blur_slabs(x: np.ndarray, parameters: np.ndarray, radius: int) -> None:
    [weights] = _gaussian(np, _column(parameters, "blur_sigma"), radius)
    # A weight of 0 adds nothing, and most Gaussians end before the widest one.
    reach = int(np.abs(np.flatnonzero(weights) - radius).max())
    weights = weights[radius - reach : radius + reach + 1]
    for axis in range(3):
        size = x.shape[axis]
        voxels = _mirrored(size, reach)
        for part in _slabs(x, axis):
            padded = np.take(part, voxels, axis=axis)
            total, term = np.zeros(part.shape, part.dtype), np.empty(part.shape, part.dtype)
            for tap, weight in enumerate(weights):
                shifted = padded[(slice(None),) * axis + (slice(tap, tap + size),)]
                np.multiply(shifted, weight, out=term)
                total += term
            part[...] = total
