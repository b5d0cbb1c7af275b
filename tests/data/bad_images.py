"""A corpus of picture and mask files that are damaged or odd, each with the verdict it deserves.

Whole files come from Pillow's and tifffile's encoders; damage and headers are made here by hand.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tifffile
from PIL import Image

H, W = 40, 30


def colour(seed: int = 0) -> np.ndarray:
    """(40, 30, 3) noise, which no compressor shortens: every compressed byte carries pixels."""
    return np.random.default_rng(seed).integers(0, 256, (H, W, 3), np.uint8)


def grey(seed: int = 0) -> np.ndarray:
    """(40, 30) noise."""
    return np.ascontiguousarray(colour(seed)[..., 0])


def disc(value: int = 255) -> np.ndarray:
    """(40, 30) mask of 0 and `value`."""
    rows, columns = np.indices((H, W))
    return np.where((rows - 15) ** 2 + (columns - 12) ** 2 < 80, value, 0).astype(np.uint8)


def by_pillow(kind: str, pixels: np.ndarray, mode: str | None = None, **options) -> bytes:
    """Encoded by Pillow; `mode` converts first."""
    image, file = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def by_tifffile(pixels: np.ndarray, **options) -> bytes:
    """Encoded by tifffile, one page."""
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, **options)
    return file.getvalue()


def with_alpha(pixels: np.ndarray, alpha: int | np.ndarray) -> np.ndarray:
    """One more channel."""
    flat = pixels if pixels.ndim == 3 else pixels[..., None]
    return np.concatenate([flat, np.broadcast_to(alpha, (H, W))[..., None]], -1).astype(np.uint8)


def two_frames(kind: str) -> bytes:
    """An animated PNG or a TIFF of two pages."""
    first, second, file = Image.fromarray(colour(0)), Image.fromarray(colour(1)), io.BytesIO()
    first.save(file, kind, save_all=True, append_images=[second])
    return file.getvalue()


def palette() -> bytes:
    """A PNG whose pixels are indices into colours."""
    image = Image.fromarray(disc(1))
    image.putpalette([0, 0, 0, 200, 30, 60])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """(name, body) of the chunks of a PNG."""
    position, chunks = 8, []
    while position < len(content):
        size, name = struct.unpack_from(">I4s", content, position)
        chunks.append((name, content[position + 8 : position + 8 + size]))
        position += 12 + size
    return chunks


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks, with right checksums."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, body in chunks:
        checksum = zlib.crc32(name + body)
        parts.append(struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum))
    return b"".join(parts)


def bomb() -> bytes:
    """A PNG whose header announces 30,000 x 30,000 pixels."""
    chunks = png_chunks(by_pillow("PNG", colour()))
    header = struct.pack(">II", 30_000, 30_000) + chunks[0][1][8:]
    return png_of([(b"IHDR", header), *chunks[1:]])


def flipped(content: bytes, position: int) -> bytes:
    """One bit changed."""
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def oriented(orientation: int, pixels: np.ndarray | None = None) -> bytes:
    """A PNG with EXIF's orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return by_pillow("PNG", colour() if pixels is None else pixels, exif=exif)


PNG, TIFF = by_pillow("PNG", colour()), by_tifffile(colour(), photometric="rgb")
JPEG = by_pillow("JPEG", colour())
DEFLATED = by_tifffile(colour(), photometric="minisblack", planarconfig="contig", compression=8)
SIXTEEN = colour().astype(np.uint16) * 257


@dataclass(frozen=True)
class File:
    """name: with its suffix. role: "picture" or "mask". verdict: what the message must say."""

    name: str
    role: str
    content: Callable[[], bytes] | bytes
    verdict: str

    def bytes(self) -> bytes:
        """The file's content."""
        return self.content() if callable(self.content) else self.content


REFUSED = [
    File("empty.png", "picture", b"", "an empty file"),
    File("page.jpg", "picture", b"<!DOCTYPE html><html>403</html>", "begins with b'<!DOCTYPE"),
    File("lfs.png", "picture", b"version https://git-lfs.github.com/spec/v1\n", "begins with"),
    File("picture.gif.png", "picture", lambda: by_pillow("GIF", colour()), "begins with b'GIF"),
    File("half.jpg", "picture", JPEG[: len(JPEG) // 2], "damaged JPEG file .*truncated"),
    File("without_end.jpg", "picture", JPEG[:-2], "damaged JPEG file .*truncated"),
    File("header_only.jpg", "picture", JPEG[:20], "damaged JPEG file"),
    File("cmyk.jpg", "picture", lambda: by_pillow("JPEG", colour(), "CMYK"), "of the kind CMYK"),
    File("half.png", "picture", PNG[: len(PNG) // 2], "bytes, .* announced"),
    File("without_end.png", "picture", PNG[:-12], "bytes, .* announced"),
    File("last_byte.png", "picture", PNG[:-1], "bytes, .* announced"),
    File("flipped.png", "picture", flipped(PNG, len(PNG) // 2), "wrong checksum in chunk IDAT"),
    File("flipped_header.png", "picture", flipped(PNG, 19), "wrong checksum in chunk IHDR"),
    File("flipped_end.png", "picture", flipped(PNG, len(PNG) - 1), "wrong checksum in chunk IEND"),
    File("animated.png", "picture", lambda: two_frames("PNG"), "an animation"),
    File("grey16.png", "picture", lambda: by_pillow("PNG", SIXTEEN[..., 0]), "16 bits per sample"),
    File("bomb.png", "picture", bomb, "decompression bomb"),
    File("wide.tif", "picture", lambda: by_tifffile(np.zeros((1, 80_000_001), np.uint8),
         compression=8), "80000001 pixels announced"),
    File("half.tif", "picture", TIFF[: len(TIFF) // 2], "bytes, .* announced"),
    File("half_deflate.tif", "picture", DEFLATED[: len(DEFLATED) // 2], "bytes, .* announced"),
    File("header_only.tif", "picture", TIFF[:8], "damaged TIFF file"),
    File("flipped.tif", "picture", flipped(DEFLATED, len(DEFLATED) // 2), "damaged TIFF file"),
    File("pages.tif", "picture", lambda: two_frames("TIFF"), "more than one page"),
    File("lost_page.tif", "picture", lambda: two_frames("TIFF")[: len(TIFF)], "more than one page"),
    File("colour16.tif", "picture", lambda: by_tifffile(SIXTEEN, photometric="rgb"), "16 bits"),
    File("float.tif", "picture", lambda: by_tifffile(np.float32(grey())), "32 bits .*float"),
    File("signed.tif", "picture", lambda: by_tifffile(grey().view(np.int8)), "8 bits .*, signed"),
    File("cmyk.tif", "picture", lambda: by_pillow("TIFF", colour(), "CMYK"), "of the kind CMYK"),
    File("samples.tif", "picture", lambda: by_tifffile(np.zeros((H, W, 5), np.uint8),
         photometric="minisblack", planarconfig="contig"), "5 samples"),
    File("half.bmp", "picture", lambda: by_pillow("BMP", colour())[:900], "damaged BMP file"),
    File("glass.png", "picture", lambda: by_pillow("PNG", with_alpha(colour(), disc())),
         "not opaque"),
    File("transparent.png", "picture", lambda: by_pillow("PNG", disc(), transparency=0),
         "not opaque"),
    File("palette.png", "mask", palette, "a palette"),
    File("glass.png", "mask", lambda: by_pillow("PNG", with_alpha(disc(), disc())), "not opaque"),
    File("coloured.png", "mask", lambda: by_pillow("PNG", colour()), "colours"),
    File("mask16.png", "mask", lambda: by_pillow("PNG", disc().astype(np.uint16)), "16 bits"),
    File("mask16.tif", "mask", lambda: by_tifffile(disc().astype(np.uint16)), "16 bits"),
]  # fmt: skip


def turned_mask(photometric: str) -> bytes:
    """The disc as TIFF; with "miniswhite" the file holds its negative."""
    pixels = 255 - disc() if photometric == "miniswhite" else disc()
    return by_tifffile(pixels, photometric=photometric)


def planar() -> bytes:
    """Three planes one after the other, as TIFF allows."""
    planes = np.ascontiguousarray(np.moveaxis(colour(), -1, 0))
    return by_tifffile(planes, photometric="rgb", planarconfig="separate")


def interlaced_bilevel() -> bytes:
    """One bit per pixel."""
    return by_pillow("PNG", disc(), "1")


ACCEPTED = [
    (File("plain.png", "picture", PNG, ""), colour()),
    (File("plain.tif", "picture", TIFF, ""), colour()),
    (File("cvc.tif", "picture", DEFLATED, ""), colour()),
    (File("planar.tif", "picture", planar, ""), colour()),
    (File("lzw.tif", "picture",
          lambda: by_pillow("TIFF", colour(), compression="tiff_lzw"), ""), colour()),
    (File("big_endian.tif", "picture",
          lambda: by_tifffile(colour(), photometric="rgb", byteorder=">"), ""), colour()),
    (File("plain.bmp", "picture", lambda: by_pillow("BMP", colour()), ""), colour()),
    (File("grey.png", "picture", lambda: by_pillow("PNG", grey()), ""), grey()[..., None]),
    (File("opaque.png", "picture",
          lambda: by_pillow("PNG", with_alpha(colour(), 255)), ""), colour()),
    (File("palette.png", "picture", palette, ""),
     np.array([[0, 0, 0], [200, 30, 60]], np.uint8)[disc(1)]),
    (File("misnamed.jpg", "picture", PNG, "found PNG inside.*name ending in .png"), colour()),
    (File("grey.png", "mask", lambda: by_pillow("PNG", disc()), ""), disc()[..., None]),
    (File("opaque.png", "mask",
          lambda: by_pillow("PNG", with_alpha(disc(), 255)), ""), disc()[..., None]),
    (File("rgb.png", "mask",
          lambda: by_pillow("PNG", disc(), "RGB"), ""), disc()[..., None]),
    (File("bilevel.png", "mask", interlaced_bilevel, ""), disc()[..., None]),
    (File("bilevel.tif", "mask",
          lambda: by_pillow("TIFF", disc(), "1", compression="group4"), ""), disc()[..., None]),
    (File("negative.tif", "mask", lambda: turned_mask("miniswhite"), ""), disc()[..., None]),
    (File("positive.tif", "mask", lambda: turned_mask("minisblack"), ""), disc()[..., None]),
]  # fmt: skip
