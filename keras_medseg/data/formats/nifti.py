"""Strict reading of NIfTI: nibabel parses the format, this module adds the checks it leaves out.

A damaged file raises a NiftiError, an unusual one gets remarks; both name the file, the field, what
was found, what was expected and what to do. The module reads single-file NIfTI-1 and NIfTI-2 images
(.nii, .nii.gz) of either byte order with integers or floats of up to 64 bits. It refuses .hdr/.img
pairs, RGB, complex and bit types, lengths not in millimeters, and files larger than LIMIT_BYTES. A
flipped bit among the voxels of a plain .nii goes unnoticed: the format has no checksum, gzip has
one.
"""

import gzip
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.orientations import (
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    ornt_transform,
)
from numpy.typing import DTypeLike

from keras_medseg.errors import DataError
from keras_medseg.files import write_atomic

LIMIT_BYTES = 2**31
"""Largest header plus voxels that are read, in bytes after decompression."""

TOLERANCE_MM = 0.1
"""Two affines agree when no corner of the volume moves by more than this."""

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 16
# The largest compression ratio of deflate: 258 bytes from 2 bits (zlib's technical notes).
_DEFLATE_RATIO = 1032
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_MAGIC = {348: b"n+1", 540: b"n+2"}
_LINE_ENDS = (13, 10, 26, 10)
_UNITS = {1: "meters", 3: "micrometers"}
_TYPES = {2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280}
_TYPE_NAMES = {0: "unknown", 1: "bits", 32: "complex64", 128: "RGB", 1536: "float128"}
_TYPE_NAMES |= {1792: "complex128", 2048: "complex256", 2304: "RGBA"}
_FORM_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
_FETCH = "Fetch the file again from its source."
_CONVERT = "Convert it to an integer or float image with the tool that wrote it."


class NiftiError(DataError):
    """A NIfTI file that cannot be trusted."""


@dataclass(frozen=True)
class Header:
    """The checked contents of a NIfTI header.

    Attributes:
        path: the file.
        shape: as on disk, (X, Y, Z) or with further axes.
        dtype: of the voxels on disk, byte order included.
        affine: (4, 4) float64, voxel -> mm.
        spacing_mm: voxel size along the first three axes.
        header_bytes: 348 or 540.
        offset: bytes before the first voxel.
        slope: factor of the voxels on disk; 1 if the file has no scaling.
        intercept: added after that; 0 if the file has no scaling.
        remarks: what is unusual about the header.
        forms: what the header says about the position of the voxels, field -> numbers: both forms
            (sform and qform), their codes and the voxel sizes. `write_volume` writes them again.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    header_bytes: int
    offset: int
    slope: float
    intercept: float
    remarks: tuple[str, ...]
    forms: dict[str, Any]

    @property
    def voxel_bytes(self) -> int:
        """Size of all voxels on disk, decompressed."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@dataclass(frozen=True)
class Volume:
    """The contents of a file.

    Attributes:
        array: the voxels, with the scaling of the file applied.
        header: of the file.
        remarks: what is unusual about header and voxels.
    """

    array: np.ndarray
    header: Header
    remarks: tuple[str, ...]


def read_header(path: Path | str) -> Header:
    """Read and check the header, and whether the file is large enough for its voxels.

    Raises:
        NiftiError: the file or its header is damaged, or of an unsupported kind.
    """
    with _open(Path(path)) as stream:
        return _read_header(stream)


def load(path: Path | str, *, dimensions: int = 3) -> Volume:
    """Read a volume to the last byte, checksum included.

    Args:
        path: the file.
        dimensions: number of axes of the result; further axes of length 1 are dropped.

    Raises:
        NiftiError: the file is damaged, of an unsupported kind, or has voxels that are not finite.
    """
    with _open(Path(path)) as stream:
        header = _read_header(stream)
        shape = _drop_axes_of_one(header, dimensions)
        raw = _read_voxels(stream, header)
    flat = _scale(raw, header)
    remarks = header.remarks + _check_voxels(flat, header)
    return Volume(flat.reshape(shape, order="F"), header, remarks)


def write_volume(
    path: Path | str,
    array: np.ndarray,
    affine: np.ndarray,
    *,
    dtype: DTypeLike | None = None,
    forms: Mapping[str, Any] | None = None,
    slope: float = 1.0,
) -> None:
    """Write a NIfTI-1 file atomically; equal arguments give equal bytes.

    Args:
        path: ends in .nii or .nii.gz; an existing file is replaced.
        array: (X, Y, Z) or (X, Y, Z, C); booleans become uint8.
        affine: (4, 4) voxel -> mm.
        dtype: type on disk; the conversion must not change integers.
        forms: of the header of a file with this grid, which then are copied, so that the two files
            coincide in every program, whether it takes the sform, the qform or neither. By default
            both forms are the affine, with the code 1.
        slope: what a reader multiplies the voxels by.

    Raises:
        ValueError: an argument that NIfTI cannot represent.
        NiftiError: another suffix, or a folder that cannot be created or written.
    """
    path = Path(path)
    header = _new_header(array, affine)
    if forms is not None:
        header["pixdim"][:4] = forms["pixdim"]
        for name in _FORM_FIELDS:
            header[name] = forms[name]
    header["scl_slope"] = slope
    voxels = _convert(array, dtype)
    header.set_data_dtype(voxels.dtype)
    # Four zero bytes: no header extensions follow.
    content = header.binaryblock + bytes(4) + voxels.tobytes(order="F")
    if _suffix(path) == ".nii.gz":
        content = gzip.compress(content, compresslevel=4, mtime=0)
    try:
        write_atomic(path, content)
    except OSError as error:
        found, expected = f"the error {error.strerror!r} on writing", "a folder to write to"
        remedy = "Free space on its disk, or choose another folder."
        raise NiftiError(path, found=found, expected=expected, remedy=remedy) from error


def axis_codes(affine: np.ndarray) -> tuple[str, str, str]:
    """The directions in which the voxel axes run, such as ("L", "P", "S")."""
    return tuple(aff2axcodes(affine))


def reorient(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Flip and permute the first three axes to LPS; further axes stay. May be a view."""
    return _reorder(array, axis_codes(affine), ("L", "P", "S"))


def restore(array: np.ndarray, axis_codes: tuple[str, str, str]) -> np.ndarray:
    """Undo `reorient`: from LPS back to the order of a file with these axis codes."""
    return _reorder(array, ("L", "P", "S"), axis_codes)


def corner_distance_mm(affine_a: np.ndarray, affine_b: np.ndarray, shape: tuple[int, ...]) -> float:
    """The largest distance in mm between the positions that two affines give a corner voxel."""
    corners = np.array([*product(*((0, n - 1) for n in shape[:3]), [1])], dtype=float)
    apart = corners @ (np.asarray(affine_a, float) - np.asarray(affine_b, float)).T
    return float(np.linalg.norm(apart[:, :3], axis=1).max())


def check_grid(
    path: Path | str, shape: tuple[int, ...], affine: np.ndarray, *, of: Path | str
) -> None:
    """Check by its header that a file has the grid of a case.

    Its axes may have another order or direction, as in the files of programs that work in RAS, if
    the voxels have the same positions; `reorient` brings both to LPS.

    Args:
        path: the file.
        shape: the grid's (X, Y, Z), in the axis order of the case's files.
        affine: the grid's (4, 4) voxel -> mm.
        of: the owner of this grid, for the message.

    Raises:
        NiftiError: a damaged file, or another grid (to TOLERANCE_MM).
    """
    header = read_header(path)
    found, apart_mm = f"shape {header.shape}", np.inf
    if len(header.shape) >= 3:
        theirs, expected = _lps_grid(header.shape, header.affine), _lps_grid(shape, affine)
        if theirs[0] == expected[0]:
            apart_mm = corner_distance_mm(theirs[1], expected[1], theirs[0])
            found = f"a grid {apart_mm:.3g} mm away at a corner"
    if not apart_mm <= TOLERANCE_MM:
        remedy = "Predict on the case's own grid."
        raise NiftiError(path, found=found, expected=f"the grid of {of}", remedy=remedy)


def _lps_grid(shape: Sequence[int], affine: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of a grid after `reorient`."""
    change = ornt_transform(axcodes2ornt(axis_codes(affine)), axcodes2ornt(("L", "P", "S")))
    order = np.argsort(change[:, 0])
    return tuple(int(shape[axis]) for axis in order), affine @ inv_ornt_aff(change, shape[:3])


def _reorder(array: np.ndarray, source: tuple, target: tuple) -> np.ndarray:
    change = ornt_transform(axcodes2ornt(source), axcodes2ornt(target))
    return apply_orientation(array, change)


def _suffix(path: Path) -> str:
    name = path.name.lower()
    for suffix in (".nii.gz", ".nii"):
        if name.endswith(suffix):
            return suffix
    remedy = "Convert it to a single .nii or .nii.gz file."
    if name.endswith((".hdr", ".img", ".hdr.gz", ".img.gz")):
        found = "a header/image pair (.hdr, .img), which is not read"
        raise NiftiError(path, found=found, expected=".nii or .nii.gz", remedy=remedy)
    found = f"the suffix {path.suffix!r}"
    raise NiftiError(path, found=found, expected=".nii or .nii.gz", remedy=remedy)


@contextmanager
def _open(path: Path) -> Iterator["_Plain | _Gzip"]:
    kind = _Gzip if _suffix(path) == ".nii.gz" else _Plain
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _not_a_file(path, status.st_mode)
        if status.st_size == 0:
            raise NiftiError(path, found="0 bytes", expected="a NIfTI file", remedy=_FETCH)
        with path.open("rb", buffering=0) as file:
            yield kind(path, file, status.st_size)
    except OSError as error:
        raise _unreadable(path, error) from error


def _not_a_file(path: Path, mode: int) -> NiftiError:
    found = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
    remedy = "Give the path of the file itself."
    return NiftiError(path, found=found, expected="a NIfTI file", remedy=remedy)


def _unreadable(path: Path, error: OSError) -> NiftiError:
    found, remedy = f"the error {error.strerror!r}", "Check the path and the disk."
    if path.is_symlink() and not path.exists():
        found = f"a link to {os.readlink(path)}, which does not exist"
        remedy = "Mend the link, or put the file in its place."
    elif isinstance(error, FileNotFoundError):
        found = "no such file"
    elif isinstance(error, PermissionError):
        remedy = "Give yourself the right to read it (chmod u+r)."
    return NiftiError(path, found=found, expected="a readable NIfTI file", remedy=remedy)


class _Plain:
    """The bytes of a .nii file."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self._file, self._size = path, file, size
        if file.read(2) == _GZIP_MAGIC:
            found, expected = "gzip data in a file named .nii", "a plain NIfTI file"
            remedy = f"Rename it to {path.name}.gz."
            raise NiftiError(path, found=found, expected=expected, remedy=remedy)
        file.seek(0)

    def read(self, limit: int) -> bytes:
        """At most `limit` bytes, none at the end."""
        return self._file.read(min(limit, 1 << 20))

    def check_size(self, offset: int, voxel_bytes: int) -> None:
        """Refuse a file of another length than the header announces."""
        if offset > self._size:
            found = f"vox_offset {offset} in a file of {self._size} bytes"
            expected = "voxels that start inside the file"
            raise NiftiError(self.path, found=found, expected=expected, remedy=_FETCH)
        if self._size != offset + voxel_bytes:
            raise _wrong_length(self.path, f"{self._size} bytes", offset, voxel_bytes)


class _Gzip:
    """The bytes inside a .nii.gz file, every gzip member verified to its CRC and length."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self._file, self._size = path, file, size
        self._pending = file.read(_CHUNK)
        if self._pending[:2] != _GZIP_MAGIC:
            raise _not_gzip(path, self._pending)
        self._inflate = zlib.decompressobj(wbits=31)

    def read(self, limit: int) -> bytes:
        """At most `limit` bytes, none at the end; never inflates more than that."""
        while True:
            try:
                data = self._inflate.decompress(self._pending, limit)
            except zlib.error as error:
                raise _damaged(self.path, f"damaged gzip data ({error})") from error
            # At the end of a member the tail repeats what is in unused_data.
            self._pending = b"" if self._inflate.eof else self._inflate.unconsumed_tail
            if data:
                return data
            if self._inflate.eof:
                if not self._next_member():
                    return b""
            elif not self._pending:
                self._pending = self._file.read(_CHUNK)
                if not self._pending:
                    raise _damaged(self.path, "gzip data that stop before their end")

    def _next_member(self) -> bool:
        self._pending = self._inflate.unused_data or self._file.read(_CHUNK)
        start = self._pending[:2]
        if start != _GZIP_MAGIC[: len(start)]:
            raise _damaged(self.path, f"bytes after the end of the gzip data ({start!r} ...)")
        self._inflate = zlib.decompressobj(wbits=31)
        return bool(start)

    def check_size(self, offset: int, voxel_bytes: int) -> None:
        """Refuse a header that announces more voxels than these compressed bytes can contain."""
        if offset + voxel_bytes > self._size * _DEFLATE_RATIO:
            raise _wrong_length(self.path, f"{self._size} compressed bytes", offset, voxel_bytes)


def _not_gzip(path: Path, start: bytes) -> NiftiError:
    found, remedy = f"a file that starts with {start[:8]!r}", _FETCH
    if start[:4] in [size.to_bytes(4, order) for size in _HEADERS for order in ("little", "big")]:
        found = "a plain NIfTI file named .gz"
        remedy = f"Rename it to {path.name[:-3]}, or compress it with gzip."
    return NiftiError(path, found=found, expected="gzip data (1f 8b)", remedy=remedy)


def _damaged(path: Path, found: str) -> NiftiError:
    expected = "one complete gzip stream with matching CRC and length"
    return NiftiError(path, found=found, expected=expected, remedy=_FETCH)


def _wrong_length(path: Path, found: str, offset: int, voxel_bytes: int) -> NiftiError:
    expected = f"{offset + voxel_bytes} (vox_offset {offset} + {voxel_bytes} by dim and bitpix)"
    return NiftiError(path, found=found, expected=expected, remedy=_FETCH)


def _fill(stream: _Plain | _Gzip, target: memoryview) -> int:
    """Read until `target` is full or the stream ends; the number of bytes read."""
    filled = 0
    while filled < len(target):
        data = stream.read(len(target) - filled)
        if not data:
            break
        target[filled : filled + len(data)] = data
        filled += len(data)
    return filled


def _read_header(stream: _Plain | _Gzip) -> Header:
    raw = _parse(stream)
    path = stream.path
    shape = _shape(path, raw)
    dtype = _dtype(path, raw)
    offset = _offset(path, raw)
    voxel_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if offset + voxel_bytes > LIMIT_BYTES:
        remedy = "Crop or split the image, or raise keras_medseg.data.formats.nifti.LIMIT_BYTES."
        raise _field(path, "dim", f"{shape}, {voxel_bytes} bytes", f"{LIMIT_BYTES} at most", remedy)
    stream.check_size(offset, voxel_bytes)
    slope, intercept = _scaling(path, raw)
    affine, remarks = _affine(path, raw, shape)
    x_mm, y_mm, z_mm = map(float, np.linalg.norm(affine[:3, :3], axis=0))
    return Header(
        path=path,
        shape=shape,
        dtype=dtype,
        affine=affine,
        spacing_mm=(x_mm, y_mm, z_mm),
        header_bytes=int(raw["sizeof_hdr"]),
        offset=offset,
        slope=slope,
        intercept=intercept,
        remarks=remarks,
        forms=_forms(raw),
    )


def _forms(raw: nib.Nifti1Header) -> dict[str, Any]:
    """The fields of both forms, as JSON can hold them; a form that is not finite is left out."""
    forms: dict[str, Any] = {"pixdim": raw["pixdim"][:4].tolist()}
    forms |= {name: raw[name].tolist() for name in _FORM_FIELDS}
    quaternion = [forms[name] for name in _FORM_FIELDS[2:8]]
    if not np.isfinite([*quaternion, *forms["pixdim"]]).all():
        forms["qform_code"] = 0
    for name, numbers in forms.items():
        forms[name] = np.nan_to_num(numbers, nan=0, posinf=0, neginf=0).tolist()
    return forms


def _field(path: Path, name: str, found: object, expected: str, remedy: str = _FETCH) -> NiftiError:
    return NiftiError(path, found=f"{name} {found}", expected=expected, remedy=remedy)


def _parse(stream: _Plain | _Gzip) -> nib.Nifti1Header:
    block = bytearray(348)
    filled = _fill(stream, memoryview(block))
    if filled < len(block):
        raise _field(stream.path, "sizeof_hdr", f"in {filled} bytes", "a header of 348 bytes")
    sizes = {order: int.from_bytes(block[:4], order) for order in ("little", "big")}
    order = next((order for order in sizes if sizes[order] in _HEADERS), None)
    if order is None:
        found = f"{sizes['little']} (file starts with {bytes(block[:4])!r})"
        raise _field(stream.path, "sizeof_hdr", found, "348 (NIfTI-1) or 540 (NIfTI-2)")
    size = sizes[order]
    rest = bytearray(size - len(block))
    if _fill(stream, memoryview(rest)) < len(rest):
        raise _field(stream.path, "sizeof_hdr", f"{size} in a shorter file", f"{size} bytes")
    raw = _HEADERS[size](bytes(block + rest), "<" if order == "little" else ">", check=False)
    magic = raw["magic"].item()
    if magic != _MAGIC[size]:
        pair = magic[:3] in (b"ni1", b"ni2", b"")
        remedy = "Convert it to a single .nii file." if pair else _FETCH
        raise _field(stream.path, "magic", repr(magic), repr(_MAGIC[size]), remedy)
    _check_damage(stream.path, raw)
    return raw


def _check_damage(path: Path, raw: nib.Nifti1Header) -> None:
    """Fields that no program writes so: their neighbors are damaged too."""
    for name in ("sform_code", "qform_code"):
        if not 0 <= raw[name] <= 5:
            raise _field(path, name, raw[name], "a code from 0 to 5")
    # NIfTI-2 has four bytes that a transfer as text changes.
    if "eol_check" in raw and tuple(raw["eol_check"]) not in ((0, 0, 0, 0), _LINE_ENDS):
        raise _field(path, "eol_check", raw["eol_check"].tolist(), f"{[*_LINE_ENDS]}")


def _shape(path: Path, raw: nib.Nifti1Header) -> tuple[int, ...]:
    dim = [int(n) for n in raw["dim"]]
    if not 1 <= dim[0] <= 7:
        raise _field(path, "dim[0]", dim[0], "1 to 7 dimensions")
    shape = tuple(dim[1 : dim[0] + 1])
    if min(shape) < 1:
        raise _field(path, "dim", shape, "lengths of 1 or more")
    return shape


def _dtype(path: Path, raw: nib.Nifti1Header) -> np.dtype:
    code = int(raw["datatype"])
    if code not in _TYPES:
        found = f"{code} ({_TYPE_NAMES.get(code, 'no NIfTI type')})"
        expected = "integers or floats of 8 to 64 bits"
        raise _field(path, "datatype", found, expected, _CONVERT)
    dtype = raw.get_data_dtype()
    if int(raw["bitpix"]) != 8 * dtype.itemsize:
        expected = f"{8 * dtype.itemsize} for datatype {code} ({dtype.name})"
        raise _field(path, "bitpix", int(raw["bitpix"]), expected)
    return dtype


def _offset(path: Path, raw: nib.Nifti1Header) -> int:
    offset, first = float(raw["vox_offset"]), int(raw["sizeof_hdr"]) + 4
    if not (first <= offset <= LIMIT_BYTES and offset.is_integer()):
        expected = f"a whole number from {first} to the end of the file"
        raise _field(path, "vox_offset", offset, expected)
    return int(offset)


def _scaling(path: Path, raw: nib.Nifti1Header) -> tuple[float, float]:
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if np.isnan(slope) or slope == 0:
        return 1.0, 0.0
    if np.isinf(slope):
        raise _field(path, "scl_slope", slope, "a finite number, or 0 or NaN for no scaling")
    if not np.isfinite(intercept):
        raise _field(path, "scl_inter", intercept, f"a finite number beside scl_slope {slope}")
    return slope, intercept


def _affine(
    path: Path, raw: nib.Nifti1Header, shape: tuple[int, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    unit = int(raw["xyzt_units"]) & 7
    if unit in _UNITS:
        remedy = "Rewrite the header in millimeters."
        raise _field(path, "xyzt_units", f"{unit} ({_UNITS[unit]})", "millimeters (2)", remedy)
    shape = (*shape, 1, 1)[:3]
    if raw["pixdim"][0] == 0:
        raw["pixdim"][0] = 1  # as the standard says
    sform = raw.get_sform(coded=True)[0]
    qform = _qform(path, raw, required=sform is None)
    remarks: tuple[str, ...] = ()
    if sform is None and qform is None:
        name, affine = "pixdim", raw.get_base_affine()
        found = "found sform_code 0 and qform_code 0, expected an orientation"
        remarks = (f"{path}: {found}. Voxel sizes are used alone; set sform or qform.",)
    else:
        name, affine = ("qform", qform) if sform is None else ("sform", sform)
    _check_affine(path, name, affine)
    if sform is not None and qform is not None and np.isnan(qform).all():
        found = "found a qform that cannot be used (quatern or pixdim), expected a rotation"
        remarks = (f"{path}: {found}. The sform is used; set both alike.",)
    elif sform is not None and qform is not None:
        apart = corner_distance_mm(sform, qform, shape)
        if not apart <= TOLERANCE_MM:
            found = f"found sform and qform {apart:.3g} mm apart at a corner"
            expected = f"expected at most {TOLERANCE_MM} mm"
            remarks = (f"{path}: {found}, {expected}. The sform is used; set both alike.",)
    return affine.astype(np.float64), remarks


def _qform(path: Path, raw: nib.Nifti1Header, *, required: bool) -> np.ndarray | None:
    try:
        return raw.get_qform(coded=True)[0]
    except (ValueError, nib.spatialimages.HeaderDataError) as error:
        if required:
            found, remedy = f"quatern or pixdim unusable ({error})", "Set sform or qform anew."
            raise _field(path, "qform", found, "a rotation", remedy) from error
        # The sform is used, with a warning.
        return np.full((4, 4), np.nan)


def _check_affine(path: Path, name: str, affine: np.ndarray) -> None:
    remedy = "Copy the affine (sform or qform) of the case's other images, or fetch the file again."
    if not np.isfinite(affine).all():
        found = f"not finite: {affine[:3].tolist()}"
        raise _field(path, name, found, "finite numbers", remedy)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if abs(np.linalg.det(affine[:3, :3])) <= 1e-6 * lengths.prod():
        expected = "three independent axes"
        raise _field(path, name, f"singular: {affine[:3].tolist()}", expected, remedy)


def _drop_axes_of_one(header: Header, dimensions: int) -> tuple[int, ...]:
    shape = header.shape
    while len(shape) > dimensions and 1 in shape[3:]:
        first = shape.index(1, 3)  # ITK keeps channels on the fifth axis
        shape = shape[:first] + shape[first + 1 :]
    if len(shape) != dimensions:
        remedy = "Split or merge the image so that each file holds one volume."
        if dimensions == 4:
            remedy = "Put all channels into one file."
        found = f"{header.shape}, {len(header.shape)} dimensions"
        raise _field(header.path, "dim", found, f"{dimensions} dimensions", remedy)
    return shape


def _read_voxels(stream: _Plain | _Gzip, header: Header) -> np.ndarray:
    """All voxels in the file's order as one axis, native byte order; the stream is at its end."""
    position = header.header_bytes
    while position < header.offset:
        extension = stream.read(min(header.offset - position, _CHUNK))
        if not extension:
            break
        position += len(extension)
    buffer = np.empty(header.voxel_bytes, np.uint8)
    position += _fill(stream, buffer.data)
    if position < header.offset + header.voxel_bytes:
        found = f"{position} bytes after decompression"
        raise _wrong_length(header.path, found, header.offset, header.voxel_bytes)
    if stream.read(1):
        found = "more bytes after decompression"
        raise _wrong_length(header.path, found, header.offset, header.voxel_bytes)
    voxels = buffer.view(header.dtype)
    if header.dtype.isnative:
        return voxels
    return voxels.byteswap(inplace=True).view(header.dtype.newbyteorder("="))


def _scale(voxels: np.ndarray, header: Header) -> np.ndarray:
    if (header.slope, header.intercept) == (1, 0):
        return voxels
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = voxels * np.float64(header.slope) + np.float64(header.intercept)
        return scaled.astype(np.float32)


def _check_voxels(voxels: np.ndarray, header: Header) -> tuple[str, ...]:
    low, high = voxels.min(), voxels.max()
    # NaN propagates through min and max, so checking these two covers all voxels.
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = np.flatnonzero(~np.isfinite(voxels))
        where = tuple(int(i) for i in np.unravel_index(bad[0], header.shape, order="F"))
        found = f"{bad.size} voxels that are NaN or infinite, the first at {where}"
        remedy = "Mend the tool that wrote the image; no value is made up here."
        raise NiftiError(header.path, found=found, expected="finite voxels", remedy=remedy)
    if max(-float(low), float(high)) > float(np.finfo(np.float32).max):
        found = f"voxels from {low:.3g} to {high:.3g}"
        remedy = "Scale the image down; it is kept as float32."
        raise NiftiError(header.path, found=found, expected="numbers of float32", remedy=remedy)
    if low == high:
        found = f"found all voxels equal to {low}, expected an image"
        return (f"{header.path}: {found}. Check that the file was exported whole.",)
    return ()


def _new_header(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Header:
    if array.ndim not in (3, 4) or not all(1 <= n < 2**15 for n in array.shape):
        raise ValueError(
            f"array: found shape {array.shape}, expected 3 or 4 axes of 1 to 32767. "
            "Write one volume, or one volume with channels, per file."
        )
    affine = np.asarray(affine, float)
    singular = affine.shape != (4, 4) or not np.isfinite(affine).all()
    if singular or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise ValueError(
            f"affine: found {affine.tolist()}, expected an invertible 4 x 4 matrix. "
            "Pass the affine of the image that the array belongs to."
        )
    header = nib.Nifti1Header(endianness="<")
    header.set_data_shape(array.shape)
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, 1, 0
    header.set_xyzt_units("mm")
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    if corner_distance_mm(header.get_qform(), affine, array.shape) > TOLERANCE_MM:
        # A quaternion cannot represent shears: no qform is better than one that contradicts.
        header["qform_code"] = 0
    return header


def _convert(array: np.ndarray, dtype: DTypeLike | None) -> np.ndarray:
    if array.dtype == bool:
        array = array.astype(np.uint8)
    target = np.dtype(array.dtype if dtype is None else dtype).newbyteorder("<")
    if target.kind not in "iuf" or target.itemsize * 8 not in (8, 16, 32, 64) or target == "<f2":
        raise ValueError(
            f"dtype: found {target}, expected an integer or float type of NIfTI. "
            "Pass dtype='uint8' for labels or dtype='float32' for images."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(target)
    if target.kind != "f" and not np.array_equal(converted, array):
        raise ValueError(
            f"array: found values that {target.name} cannot hold, expected a lossless conversion. "
            "Pass a wider dtype."
        )
    if not np.isfinite(converted).all():
        raise ValueError(
            f"array: found values that are not finite as {target.name}, expected finite values. "
            "Mend the array, or pass a wider dtype."
        )
    return converted
