"""Strict reading of PNG, JPEG, TIFF and BMP files into 8-bit pixels, and writing of them.

tifffile reads TIFF, Pillow the rest (and the TIFF compressions for which tifffile needs a separate
package). TIFF is read by tifffile because Pillow refuses three samples that are declared
"minisblack", as in the files of CVC-ClinicDB. This module decides by a file's own header what is
accepted, not by what a reader returns:

| file | verdict |
|---|---|
| empty, unreadable, a folder, a pipe, a broken link | error |
| text, HTML, a Git LFS pointer, GIF, WebP and anything else outside the four formats | error |
| a suffix that belongs to another of the four formats | the content decides, with a warning |
| cut short, whatever the format | error |
| PNG with a wrong checksum in any chunk, or without its end | error |
| JPEG with bytes changed in its middle | error if the decoder notices; JPEG has no checksum |
| more than one frame or page (APNG, TIFF); the first of a camera's MPO is the image | error |
| 16-bit, 2-bit, 4-bit, float or signed samples; CMYK, Lab and other color spaces | error |
| no pixels | error |
| more than 80 million pixels by its header: possibly a decompression bomb | error, not decoded |
| alpha that is 255 everywhere | dropped |
| any other alpha, or a transparent color | error |
| palette | image: replaced by its colors; mask: error, because index or color may be meant |
| 1 bit per pixel | 0 and 255 |
| TIFF with "miniswhite" | inverted |
| three equal channels in a mask | one of them |
| colors in a mask | error |
| progressive, interlaced, tiled, planar, ICC profile | accepted, the profile is not applied |
| EXIF orientation | kept beside the pixels, see `upright` |
"""

import io
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from keras_medseg.errors import DataError
from keras_medseg.files import read_bytes, write_atomic

SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
"""Suffix of an image file -> the format that it should have."""
MAX_PIXELS = 80_000_000
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap rows and columns."""

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"BM": "BMP",
}
_MODES = ("1", "L", "LA", "RGB", "RGBA", "P")
_FETCH = "Fetch or export the file again."
_EIGHT_BITS = "8 bits per sample"
# No compression, deflate (two codes), PackBits: what tifffile decodes by itself.
_TIFFFILE_COMPRESSIONS = (1, 8, 32946, 32773)
_TIFF_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Raster:
    """One decoded file.

    Attributes:
        path: the file.
        mode: a key of Pillow's: "1", "L", "LA", "RGB", "RGBA" or "P".
        pixels: (H, W, S) uint8 in the file's own orientation; a palette is replaced by its colors.
        orientation: from EXIF, 1 to 8.
        remarks: what is unusual about the file.
        lossy: whether the format changes values a little, as JPEG does.
    """

    path: Path
    mode: str
    pixels: np.ndarray
    orientation: int
    remarks: tuple[str, ...]
    lossy: bool = False


def load(path: Path | str) -> Raster:
    """Read a file to its last byte.

    Raises:
        DataError: an error in the module's table.
    """
    path = Path(path)
    content = _read_bytes(path)
    kind = _format(path, content)
    promised = SUFFIXES.get(path.suffix.lower())
    remarks = () if promised == kind else (_misnamed(path, kind),)
    if kind == "PNG":
        _check_png(path, content)
    try:
        mode, pixels, orientation = _DECODERS.get(kind, _decode_by_pillow)(path, content)
    except DataError:
        raise
    # Decoders may raise any exception on damaged bytes.
    except Exception as error:
        raise _undecodable(path, kind, error) from error
    if 0 in pixels.shape:
        raise _undecodable(path, kind, ValueError(f"{pixels.shape[0]} x {pixels.shape[1]} pixels"))
    return Raster(path, mode, pixels, orientation, remarks, lossy=kind == "JPEG")


def read_image(path: Path | str) -> Raster:
    """Read an image, gray (H, W, 1) or color (H, W, 3), without its alpha channel.

    Raises:
        DataError: as `load`, or an image with transparent pixels.
    """
    raster = load(path)
    pixels = _without_alpha(raster)
    gray_palette = raster.mode == "P" and _equal_channels(pixels)
    return _with_pixels(raster, pixels[..., :1] if gray_palette else pixels)


def read_mask(path: Path | str) -> Raster:
    """Read the gray codes of a mask, (H, W, 1).

    Raises:
        DataError: as `load`, or a palette, transparent pixels or colors.
    """
    raster = load(path)
    if raster.mode == "P":
        remedy = "Save the mask as 8-bit gray, one value per class."
        raise DataError(path, found="a palette", expected="gray values", remedy=remedy)
    pixels = _without_alpha(raster)
    if not _equal_channels(pixels):
        remedy = "Save the mask as 8-bit gray, one value per class."
        raise DataError(path, found="colors", expected="gray values", remedy=remedy)
    return _with_pixels(raster, pixels[..., :1])


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate and mirror (H, W, S) pixels upright, by their EXIF orientation 1 to 8."""
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def write(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W) or (H, W, 1, 2 or 3) uint8 in the format of the suffix; atomically.

    Two channels are gray and alpha, which only PNG can hold. JPEG is slightly lossy (quality 92, no
    chroma subsampling); PNG, TIFF and BMP are lossless. TIFF is written with deflate and
    "minisblack", as in CVC-ClinicDB.

    Raises:
        ValueError: pixels of another type or shape, or an unknown suffix.
    """
    kind, shape = SUFFIXES.get(path.suffix.lower()), pixels.shape
    channels = ((), (1,), (3,), (2,)) if kind == "PNG" else ((), (1,), (3,))
    fits = len(shape) in (2, 3) and shape[2:] in channels and pixels.dtype == np.uint8
    if kind is None or not fits:
        raise ValueError(
            f"write: found {pixels.dtype} of shape {shape} for {path.name}, expected uint8 "
            f"(H, W[, 1 or 3]) and one of {', '.join(SUFFIXES)}."
        )
    flat = pixels[..., 0] if shape[2:] == (1,) else pixels
    write_atomic(path, _encode(flat, kind))


def _encode(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "TIFF":
        tifffile.imwrite(
            file,
            pixels,
            photometric="minisblack",
            planarconfig=None if pixels.ndim == 2 else "contig",
            compression="zlib",
            metadata=None,
            software=False,
        )
    else:
        quality = {"quality": 92, "subsampling": 0} if kind == "JPEG" else {}
        Image.fromarray(pixels).save(file, kind, **quality)
    return file.getvalue()


def _read_bytes(path: Path) -> bytes:
    remedy = "Mend the path or the right to read it."
    content = read_bytes(path, expected="a file to read", remedy=remedy)
    if not content:
        raise DataError(path, found="an empty file", expected="an image", remedy=_FETCH)
    return content


def _format(path: Path, content: bytes) -> str:
    for signature, kind in _SIGNATURES.items():
        if content.startswith(signature):
            return kind
    raise DataError(
        path,
        found=f"a file that begins with {content[:16]!r}",
        expected=f"{', '.join(dict.fromkeys(SUFFIXES.values()))}",
        remedy="Convert the file, or fetch it again if it is a web page or a pointer to a file.",
    )


def _misnamed(path: Path, kind: str) -> str:
    suffixes = " or ".join(suffix for suffix, name in SUFFIXES.items() if name == kind)
    return f"{path}: found {kind} inside, expected a name ending in {suffixes}. Rename the file."


def _undecodable(path: Path, kind: str, error: Exception) -> DataError:
    text = " ".join(str(error).split())[:120] or type(error).__name__
    return DataError(
        path, found=f"a damaged {kind} file ({text})", expected="a whole one", remedy=_FETCH
    )


def _check_png(path: Path, content: bytes) -> None:
    """Check the checksum of every chunk, the end, one frame, 8 bits; decoders check less."""
    position, name = 8, b""
    while name != b"IEND":
        size, name = struct.unpack(">I4s", content[position : position + 8].ljust(8, b"\0"))
        body = content[position + 4 : position + 8 + size]
        position += 12 + size
        if position > len(content):
            found = f"{len(content)} bytes, {position} or more announced"
            raise DataError(path, found=found, expected="a whole PNG file", remedy=_FETCH)
        checksum = struct.unpack(">I", content[position - 4 : position])[0]
        if zlib.crc32(body) != checksum:
            found = f"a wrong checksum in chunk {name.decode('ascii', 'replace')}"
            raise DataError(path, found=found, expected=f"{checksum:08x}", remedy=_FETCH)
        if name == b"IHDR" and len(body) < 14:
            found = f"a header of {size} bytes"
            raise DataError(path, found=found, expected="one of 13", remedy=_FETCH)
        if name == b"acTL":
            raise _frames(path, "an animation")
        if name == b"IHDR" and body[12] != 8 and not (body[12] == 1 or body[13] == 3):
            raise _bits(path, f"{body[12]} bits per sample")


def _frames(path: Path, found: str) -> DataError:
    remedy = "Save each image as a file of its own."
    return DataError(path, found=found, expected="one image", remedy=remedy)


def _bits(path: Path, found: str) -> DataError:
    remedy = "Convert the file; how 16 bits become 8 is for you to choose."
    return DataError(path, found=found, expected=_EIGHT_BITS, remedy=remedy)


def _check_size(path: Path, rows: int, columns: int) -> None:
    if rows * columns > MAX_PIXELS:
        raise DataError(
            path,
            found=f"{rows} x {columns} pixels announced",
            expected=f"{MAX_PIXELS // 10**6} million at most",
            remedy="Fetch the file again if it is damaged, or scale it down.",
        )


def _decode_by_pillow(path: Path, content: bytes) -> tuple[str, np.ndarray, int]:
    try:
        image: Image.Image = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        raise DataError(
            path,
            found=f"a decompression bomb ({error})",
            expected=f"{MAX_PIXELS // 10**6} million pixels at most",
            remedy="Fetch the file again if it is damaged, or scale it down.",
        ) from error
    _check_size(path, image.height, image.width)
    if image.mode not in _MODES:
        found, expected = f"pixels of the kind {image.mode}", "gray, RGB or a palette"
        remedy = "Convert the file to 8-bit gray or RGB."
        raise DataError(path, found=found, expected=expected, remedy=remedy)
    mode = image.mode
    orientation = image.getexif().get(_ORIENTATION, 1)
    if mode == "P" or "transparency" in image.info:
        image = image.convert("LA" if mode == "L" else "RGBA")
    elif mode == "1":
        image = image.convert("L")
    pixels = np.array(image)
    return mode, pixels.reshape(*pixels.shape[:2], -1), _known(orientation)


def _known(orientation: int) -> int:
    return orientation if orientation in range(1, 9) else 1


def _decode_tiff(path: Path, content: bytes) -> tuple[str, np.ndarray, int]:
    if _tiff_has_more(content):
        raise _frames(path, "more than one page")
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        _check_tiff(path, page, len(content))
        known = page.compression in _TIFFFILE_COMPRESSIONS and page.photometric in (0, 1, 2)
        if known and page.bitspersample == 8:
            mode, pixels = _tiff_pixels(path, page)
            tag = page.tags.get(_ORIENTATION)
            return mode, pixels, _known(int(tag.value) if tag else 1)
    return _decode_by_pillow(path, content)


def _check_tiff(path: Path, page: tifffile.TiffPage, size: int) -> None:
    _check_size(path, page.imagelength, page.imagewidth)
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts)]
    if not ends or max(ends) > size:
        found = f"{size} bytes, {max(ends, default='none')} announced"
        raise DataError(path, found=found, expected="a whole TIFF file", remedy=_FETCH)
    if page.bitspersample not in (1, 8) or page.sampleformat != 1:
        kind = {1: "unsigned", 2: "signed", 3: "float"}.get(page.sampleformat, "other")
        raise _bits(path, f"{page.bitspersample} bits per sample, {kind}")
    compressed = page.compression not in _TIFFFILE_COMPRESSIONS
    if compressed and page.photometric == 1 and page.samplesperpixel == 3:
        found = f"compression {page.compression} and three samples declared minisblack"
        expected, remedy = "RGB, or another compression", "Save the file without compression."
        raise DataError(path, found=found, expected=expected, remedy=remedy)


def _tiff_pixels(path: Path, page: tifffile.TiffPage) -> tuple[str, np.ndarray]:
    samples = page.samplesperpixel
    if samples not in _TIFF_MODES:
        found, expected = f"{samples} samples per pixel", "1 to 4"
        raise DataError(path, found=found, expected=expected, remedy="Convert the file to RGB.")
    pixels = page.asarray()
    if samples > 1 and page.planarconfig == 2:
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = pixels.reshape(page.imagelength, page.imagewidth, samples)
    return _TIFF_MODES[samples], 255 - pixels if page.photometric == 0 else pixels


def _tiff_has_more(content: bytes) -> bool:
    """Whether the first directory names another; tifffile ignores one beyond the file's end."""
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    return struct.unpack_from(f"{order}I", content, start + 2 + 12 * count)[0] != 0


_DECODERS = {"TIFF": _decode_tiff}


def _without_alpha(raster: Raster) -> np.ndarray:
    samples = raster.pixels.shape[2]
    if samples in (1, 3):
        return raster.pixels
    if (raster.pixels[..., -1] != 255).any():
        found, expected = "pixels that are not opaque", "no alpha, or 255 everywhere"
        remedy = "Flatten the image on the background that you want."
        raise DataError(raster.path, found=found, expected=expected, remedy=remedy)
    return raster.pixels[..., :-1]


def _equal_channels(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[..., :1]).all())


def _with_pixels(raster: Raster, pixels: np.ndarray) -> Raster:
    return replace(raster, pixels=pixels)
