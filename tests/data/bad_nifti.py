"""A corpus of NIfTI files that are damaged or odd, each with the verdict it deserves.

The bytes are laid out here by hand, after the offsets of nifti1.h, and not by the code under test.
"""

import gzip
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# name: (offset, struct format), from nifti1.h
FIELDS = {
    "sizeof_hdr": (0, "i"),
    "dim": (40, "8h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern": (256, "6f"),
    "srow": (280, "12f"),
    "magic": (344, "4s"),
}
DATATYPES = {"uint8": 2, "int16": 4, "int32": 8, "float32": 16, "float64": 64, "uint16": 512}
LPS = np.array([[-1, 0, 0, 0], [0, -1, 0, 9], [0, 0, 1, 0], [0, 0, 0, 1]], float)
SHAPE = (7, 6, 5)
NAN, INF = float("nan"), float("inf")


def voxels(shape: tuple[int, ...] = SHAPE, dtype: str = "int16", seed: int = 0) -> np.ndarray:
    """Noise, which no compressor shortens: every compressed byte carries voxels."""
    return np.random.default_rng(seed).integers(1, 250, shape).astype(dtype)


def nifti_bytes(
    array: np.ndarray, affine: np.ndarray = LPS, order: str = "<", **fields: object
) -> bytes:
    """A NIfTI-1 file with an sform; `fields` replace what the header says."""
    dim = (array.ndim, *array.shape, *[1] * (7 - array.ndim))
    values = {
        "sizeof_hdr": 348,
        "dim": dim,
        "datatype": DATATYPES[array.dtype.name],
        "bitpix": 8 * array.dtype.itemsize,
        "pixdim": (1,) * 8,
        "vox_offset": 352,
        "xyzt_units": 2,
        "sform_code": 1,
        "srow": tuple(np.asarray(affine)[:3].ravel()),
        "magic": b"n+1\0",
    }
    header = bytearray(352)
    for name, value in (values | fields).items():
        offset, form = FIELDS[name]
        struct.pack_into(order + form, header, offset, *np.atleast_1d(value).tolist())
    data = array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")
    return bytes(header) + data


@dataclass(frozen=True)
class BadFile:
    """make(path) puts the file there; a refusal or warning says `says` and advises `remedy`."""

    name: str
    file: str
    make: Callable[[Path], object]
    says: str
    remedy: str = "Fetch the file again"


GOOD = nifti_bytes(voxels())
PACKED = gzip.compress(GOOD, mtime=0)


def _bytes(name, file, content, says, remedy="Fetch the file again"):
    return BadFile(name, file, lambda path: path.write_bytes(content), says, remedy)


def _field(name, says, remedy="Fetch the file again", **fields):
    content = nifti_bytes(voxels(), **fields)
    return _bytes(name, f"{name}.nii", content, says, remedy)


def _flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


def _with_voxel(value: float, dtype: str = "float32") -> bytes:
    array = voxels(dtype=dtype)
    array[3, 2, 1] = value
    return nifti_bytes(array)


def _srow(matrix: list) -> tuple:
    return tuple(np.asarray(matrix, float).ravel())


def _link(path: Path) -> None:
    path.symlink_to(path.with_name("absent.nii"))


def _loop(path: Path) -> None:
    path.symlink_to(path)


_CUTS = [
    _bytes(
        f"gzip_cut_at_{percent}_percent",
        f"cut_{percent}.nii.gz",
        PACKED[: max(2, len(PACKED) * percent // 100)],
        "stop before their end",
    )
    for percent in (1, 10, 50, 90, 99)
]
_FLIPS = [
    _bytes(
        f"gzip_flipped_byte_at_{percent}_percent",
        f"flipped_{percent}.nii.gz",
        _flipped(PACKED, 10 + (len(PACKED) - 18) * percent // 100),
        "",
    )
    for percent in (2, 20, 40, 60, 80, 98)
]
_GZIP = [
    _bytes("gzip_wrong_crc", "crc.nii.gz", _flipped(PACKED, -8 + len(PACKED)), "data check"),
    _bytes("gzip_wrong_length", "isize.nii.gz", _flipped(PACKED, -4 + len(PACKED)), "length check"),
    _bytes("gzip_without_trailer", "trailer.nii.gz", PACKED[:-8], "stop before their end"),
    _bytes("gzip_half_a_trailer", "trailer4.nii.gz", PACKED[:-4], "stop before their end"),
    _bytes("gzip_then_garbage", "garbage.nii.gz", PACKED + b"garbage", "after the end"),
    _bytes("gzip_then_zeros", "padded.nii.gz", PACKED + bytes(512), "after the end"),
    _bytes("gzip_twice", "twice.nii.gz", PACKED + PACKED, "more bytes"),
    _bytes("gzip_of_gzip", "gzgz.nii.gz", gzip.compress(PACKED), "sizeof_hdr"),
    _bytes("gzip_of_nothing", "nothing.nii.gz", gzip.compress(b""), "sizeof_hdr"),
    _bytes("gzip_header_only", "header.nii.gz", gzip.compress(GOOD[:352]), "dim and bitpix"),
    _bytes("gzip_cut_voxels", "short.nii.gz", gzip.compress(GOOD[:-1]), "dim and bitpix"),
    _bytes("gzip_one_byte_more", "long.nii.gz", gzip.compress(GOOD + b"\0"), "more bytes"),
    _bytes("gzip_bad_magic", "magic.nii.gz", _flipped(PACKED, 0), "starts with"),
    _bytes("gzip_bad_method", "method.nii.gz", _flipped(PACKED, 2), "gzip data"),
    _bytes("plain_named_gz", "plain.nii.gz", GOOD, "plain NIfTI file named .gz", "Rename it"),
    _bytes("gzip_named_nii", "packed.nii", PACKED, "gzip data in a file named .nii", "Rename it"),
    _bytes("text_named_gz", "text.nii.gz", b"version https://", "starts with"),
]
_LENGTHS = [
    _bytes("plain_cut", "cut.nii", GOOD[:-100], "dim and bitpix"),
    _bytes("plain_one_byte_more", "more.nii", GOOD + b"\0", "dim and bitpix"),
    _bytes("plain_header_only", "header.nii", GOOD[:348], "vox_offset"),
    _bytes("plain_half_a_header", "half.nii", GOOD[:100], "sizeof_hdr"),
    _bytes("empty_file", "empty.nii", b"", "0 bytes"),
    _bytes("empty_gzip_file", "empty.nii.gz", b"", "0 bytes"),
    _bytes("text_named_nii", "text.nii", b"<html>" * 100, "sizeof_hdr"),
]
_HEADERS = [
    _field("bad_sizeof_hdr", "sizeof_hdr 349", sizeof_hdr=349),
    _field("bad_magic", "magic b'n+7'", magic=b"n+7\0"),
    _field("magic_of_a_pair", "magic b'ni1'", "Convert", magic=b"ni1\0"),
    _field("analyze_without_magic", "magic b''", "Convert", magic=b"\0\0\0\0"),
    _field("offset_beyond_the_end", "vox_offset 999999", vox_offset=999_999),
    _field("offset_inside_the_header", "vox_offset 100", vox_offset=100),
    _field("offset_of_zero", "vox_offset 0", vox_offset=0),
    _field("offset_not_whole", "vox_offset 352.5", vox_offset=352.5),
    _field("offset_nan", "vox_offset nan", vox_offset=NAN),
    _field("no_dimensions", "dim[0] 0", dim=(0, 7, 6, 5, 1, 1, 1, 1)),
    _field("nine_dimensions", "dim[0] 9", dim=(9, 7, 6, 5, 1, 1, 1, 1)),
    _field("zero_dimension", "dim (7, 0, 5)", dim=(3, 7, 0, 5, 1, 1, 1, 1)),
    _field("negative_dimension", "dim (7, -6, 5)", dim=(3, 7, -6, 5, 1, 1, 1, 1)),
    _field("huge_dimensions", "dim (32767,", "Crop or split", dim=(5, *[32767] * 5, 1, 1)),
    _field("dimensions_too_large", "dim and bitpix", dim=(3, 7, 6, 6, 1, 1, 1, 1)),
    _field("unknown_datatype", "datatype 0", "Convert", datatype=0),
    _field("undefined_datatype", "datatype 7", "Convert", datatype=7),
    _field("rgb", "datatype 128 (RGB)", "Convert", datatype=128, bitpix=24),
    _field("rgba", "datatype 2304 (RGBA)", "Convert", datatype=2304, bitpix=32),
    _field("complex64", "datatype 32 (complex64)", "Convert", datatype=32, bitpix=64),
    _field("float128", "datatype 1536", "Convert", datatype=1536, bitpix=128),
    _field("bits", "datatype 1 (bits)", "Convert", datatype=1, bitpix=1),
    _field("wrong_bitpix", "bitpix 8", bitpix=8),
    _field("infinite_slope", "scl_slope inf", scl_slope=INF),
    _field("nan_intercept", "scl_inter nan", scl_slope=2, scl_inter=NAN),
    _field("meters", "xyzt_units 1", "millimeters", xyzt_units=1),
    _field("singular_sform", "sform singular", "affine", srow=_srow(np.ones((3, 4)))),
    _field("zero_sform", "sform singular", "affine", srow=_srow(np.zeros((3, 4)))),
    _field("nan_sform", "sform not finite", "affine", srow=(NAN, *_srow(LPS[:3])[1:])),
    _field("infinite_sform", "sform not finite", "affine", srow=(*_srow(LPS[:3])[:11], INF)),
    _field(
        "nan_qform_alone",
        "qform",
        "sform or qform",
        sform_code=0,
        qform_code=1,
        quatern=(NAN, 0, 0, 0, 0, 0),
    ),
    _field(
        "no_rotation_in_qform",
        "qform",
        "sform or qform",
        sform_code=0,
        qform_code=1,
        quatern=(3, 3, 3, 0, 0, 0),
    ),
    _field("zero_pixdim", "pixdim singular", "affine", sform_code=0, pixdim=(1, 0, 1, 1, *[1] * 4)),
]
_CONTENTS = [
    _bytes("nan_voxel", "nan.nii", _with_voxel(NAN), "1 voxels that are NaN", "Mend"),
    _bytes("inf_voxel", "inf.nii", _with_voxel(INF), "first at (3, 2, 1)", "Mend"),
    _bytes("minus_inf_voxel", "minf.nii", _with_voxel(-INF, "float64"), "infinite", "Mend"),
    _bytes("nan_voxel_gzip", "nan.nii.gz", gzip.compress(_with_voxel(NAN)), "NaN", "Mend"),
    _bytes(
        "overflow_by_slope",
        "slope.nii",
        nifti_bytes(voxels(), scl_slope=3e38, scl_inter=0),
        "infinite",
        "Mend",
    ),
    _bytes("two_dimensions", "2d.nii", nifti_bytes(voxels((7, 6))), "2 dimensions", "Split"),
    _bytes("four_dimensions", "4d.nii", nifti_bytes(voxels((4, 3, 2, 5))), "4 dimensions", "Split"),
    _bytes(
        "five_dimensions", "5d.nii", nifti_bytes(voxels((4, 3, 2, 1, 5))), "5 dimensions", "Split"
    ),
]
_FILE_SYSTEM = [
    BadFile("folder", "folder.nii", Path.mkdir, "a folder", "path of the file"),
    BadFile("dangling_link", "link.nii.gz", _link, "a link to", "Mend the link"),
    BadFile("link_to_itself", "loop.nii", _loop, "a link to", "Mend the link"),
    BadFile("pipe", "pipe.nii", os.mkfifo, "pipe", "path of the file"),
    BadFile("absent", "absent.nii", lambda path: None, "no such file", "Check the path"),
    _bytes("pair_header", "pair.hdr", GOOD, "header/image pair", "Convert"),
    _bytes("pair_image", "pair.img", GOOD, "header/image pair", "Convert"),
    _bytes("other_suffix", "image.mha", GOOD, "suffix '.mha'", "Convert"),
]
REFUSED = [*_CUTS, *_FLIPS, *_GZIP, *_LENGTHS, *_HEADERS, *_CONTENTS, *_FILE_SYSTEM]

_TURNED = {"qform_code": 1, "quatern": (0, 0, 0, 0, 0, 0)}
WARNED = [
    _bytes(
        "constant", "constant.nii", nifti_bytes(np.full(SHAPE, 7, "int16")), "equal to 7", "Check"
    ),
    _field("sform_against_qform", "sform and qform", "set both", **_TURNED),
    _field(
        "nan_qform_beside_sform",
        "a qform that cannot be used",
        "set both",
        qform_code=1,
        pixdim=(NAN,) * 8,
    ),
    _field("no_orientation", "sform_code 0 and qform_code 0", "set sform or qform", sform_code=0),
]
