"""What the data sets of volumes share: grids, channels, label codes, resampling, label maps."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from keras_medseg.data.cases import Case, CaseArrays, lps_spacing_mm
from keras_medseg.data.formats import nifti
from keras_medseg.data.store import StoredCase
from keras_medseg.data.transforms import resample
from keras_medseg.errors import DataError

_ROUNDING = 0.02
"""How far a header with 8 bits for all codes moves them: half of 4 / 255, and a little more."""


def require_spacing(spacing_mm: Sequence[float]) -> tuple[float, ...]:
    """The option `spacing_mm` of a data set: three lengths, or none for voxels as they lie.

    Raises:
        ValueError: another number of lengths, or one that is no length.
    """
    lengths = tuple(map(float, spacing_mm)) if isinstance(spacing_mm, tuple | list) else None
    if lengths is None or len(lengths) not in (0, 3) or not all(0 < mm < 1e3 for mm in lengths):
        raise ValueError(
            f"spacing_mm: found {spacing_mm!r}, expected three lengths in mm along x, y, z, such "
            "as (1, 1, 1), or () for the voxels as they lie."
        )
    return lengths


def geometry_errors(first: nifti.Header, other: nifti.Header) -> Iterator[DataError]:
    """What is wrong with the grid of a file of the case that has another one."""
    shape, name = first.shape[:3], first.path.name
    remedy = "Fetch the case again; all its files lie on one grid."
    if other.shape[:3] != shape:
        expected = f"dim {shape} as in {name}"
        yield DataError(other.path, found=f"dim {other.shape}", expected=expected, remedy=remedy)
        return
    apart = nifti.corner_distance_mm(first.affine, other.affine, shape)
    if not apart <= nifti.TOLERANCE_MM:
        found = f"an affine {apart:.3g} mm away from that of {name} at a corner"
        expected = f"{nifti.TOLERANCE_MM} mm at most"
        yield DataError(other.path, found=found, expected=expected, remedy=remedy)


def stack(arrays: Sequence[np.ndarray | None], affine: np.ndarray) -> np.ndarray:
    """Channels (X, Y, Z), or one (X, Y, Z, C), in file order -> (X, Y, Z, C) in LPS.

    Args:
        arrays: one per channel; None for a channel that is missing, which becomes 0. At least one
            is not None.
        affine: of the files.

    Returns:
        int16 if that loses nothing, otherwise float32. In memory x runs fastest.
    """
    first = arrays[0]
    channels = [*np.moveaxis(first, 3, 0)] if first is not None and first.ndim == 4 else arrays
    lossless = all(_fits_int16(channel) for channel in channels if channel is not None)
    views = [None if array is None else nifti.reorient(array, affine) for array in channels]
    grid = next(view.shape for view in views if view is not None)
    image = np.empty((*grid, len(views)), np.int16 if lossless else np.float32, order="F")
    for channel, view in enumerate(views):
        image[..., channel] = 0 if view is None else view
    return image


def of_array(
    image: np.ndarray, affine: np.ndarray, channels: Sequence[str], may_miss: Sequence[str]
) -> CaseArrays:
    """A volume in memory as the readers of files give it; see `Dataset.of_array`."""
    affine = np.asarray(affine, float)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.linalg.det(affine):
        raise ValueError(f"affine: found {affine.tolist()}, expected (4, 4) voxel -> mm.")
    image = image[..., None] if image.ndim == 3 and len(channels) == 1 else image
    if image.ndim != 4 or image.shape[3] != len(channels) or image.dtype.kind not in "iuf":
        raise ValueError(
            f"image: found {image.dtype} of shape {image.shape}, expected numbers "
            f"(X, Y, Z, {len(channels)}): {', '.join(channels)}."
        )
    if not np.isfinite(image).all():
        raise ValueError("image: found voxels that are not finite, expected numbers.")
    for name, voxels in zip(channels, np.moveaxis(image, 3, 0)):
        if name not in may_miss and not voxels.any():
            raise ValueError(f"image: found zeros alone in the channel {name}, expected an image.")
    return CaseArrays(stack([image], affine), None, affine, nifti.axis_codes(affine))


def whole_numbers(volume: nifti.Volume) -> tuple[np.ndarray, str]:
    """Label codes, rounded where a header's scaling has moved them, and what is to be said of it.

    What lies between two codes, as interpolation leaves it, stays as it is and is refused later.
    """
    array = volume.array
    if array.dtype.kind != "f":
        return array, ""
    rounded = np.rint(array)
    apart = float(np.abs(array - rounded).max())
    if not 0 < apart <= _ROUNDING:
        return array, ""
    found = f"found labels up to {apart:.2g} beside whole numbers, expected whole ones"
    return rounded, f"{volume.header.path}: {found}. They are rounded; save them as integers."


def resampled(arrays: CaseArrays, spacing_mm: Sequence[float]) -> CaseArrays:
    """A case with other voxel sizes; unchanged for no sizes, or where the grid stays the same."""
    shape = arrays.image.shape[:3]
    if not spacing_mm:
        return arrays
    wanted = resample.new_shape(shape, arrays.spacing_mm, spacing_mm)
    if wanted == shape:
        return arrays
    labels = arrays.labels
    return replace(
        arrays,
        image=resample.resample_image(arrays.image, wanted),
        labels=None if labels is None else resample.resample_labels(labels, wanted),
        source_shape=shape,
        resampled_mm=resample.new_spacing_mm(shape, arrays.spacing_mm, wanted),
        own_labels=labels,
    )


def check_grid(path: Path, case: Case | StoredCase) -> None:
    """Check that a label map has the grid of a case's own files.

    Raises:
        DataError: another grid, or a damaged file.
    """
    if isinstance(case, StoredCase):
        grid = np.broadcast_to(np.uint8(0), case.source_shape)
        shape = nifti.restore(grid, case.axis_codes).shape
        nifti.check_grid(path, shape, case.affine, of=case.id)
    else:
        reference = case.labels or case.images[0]
        header = nifti.read_header(reference)
        nifti.check_grid(path, header.shape, header.affine, of=reference)


def spacing_of(path: Path) -> tuple[float, float, float]:
    """Voxel size in mm along x, y, z (LPS) of a file."""
    affine = nifti.read_header(path).affine
    return lps_spacing_mm(affine, nifti.axis_codes(affine))


def axis_codes_of(case: Case | StoredCase) -> tuple[str, str, str]:
    """Orientation of the files of a case, such as ("L", "P", "S")."""
    if isinstance(case, StoredCase):
        return case.axis_codes
    return nifti.axis_codes(nifti.read_header(case.labels or case.images[0]).affine)


def write_codes(path: Path, codes: np.ndarray, case: StoredCase) -> None:
    """Write label codes (X, Y, Z) in LPS as a NIfTI file that overlays the case's own files.

    It has the axis order of the case's files, both forms of their header with their codes, and the
    type uint8. The file is written completely or not at all.

    Raises:
        ValueError: the labels are not on the grid of the case's own files.
        DataError: the folder cannot be written.
    """
    if codes.shape != tuple(case.source_shape):
        raise ValueError(
            f"labels: found shape {codes.shape}, expected {tuple(case.source_shape)}, "
            f"the full grid of {case.id}."
        )
    on_disk = nifti.restore(codes, case.axis_codes)
    nifti.write_volume(path, on_disk, case.affine, dtype=np.uint8, forms=case.forms)


def listed(values: np.ndarray, counts: np.ndarray) -> str:
    """Labels that a code does not have: "7 (12 voxels), 9 (1 voxels)"."""
    text = ", ".join(f"{value} ({n} voxels)" for value, n in zip(values[:5], counts))
    return text + (", ..." if len(values) > 5 else "")


def _fits_int16(array: np.ndarray) -> bool:
    if np.can_cast(array.dtype, np.int16):
        return True
    limits = np.iinfo(np.int16)
    if array.min() < limits.min or array.max() > limits.max:
        return False
    return array.dtype.kind in "iu" or np.array_equal(array.astype(np.int16), array)
