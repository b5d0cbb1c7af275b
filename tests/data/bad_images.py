"""A corpus of image and mask files that are damaged or odd, each with the verdict it deserves.

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


def color(seed: int = 0) -> np.ndarray:
    """(40, 30, 3) noise, which no compressor shortens: every compressed byte carries pixels."""
    return np.random.default_rng(seed).integers(0, 256, (H, W, 3), np.uint8)


def gray(seed: int = 0) -> np.ndarray:
    """(40, 30) noise."""
    return np.ascontiguousarray(color(seed)[..., 0])


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
    first, second, file = Image.fromarray(color(0)), Image.fromarray(color(1)), io.BytesIO()
    first.save(file, kind, save_all=True, append_images=[second])
    return file.getvalue()


def palette() -> bytes:
    """A PNG whose pixels are indices into colors."""
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
    chunks = png_chunks(by_pillow("PNG", color()))
    header = struct.pack(">II", 30_000, 30_000) + chunks[0][1][8:]
    return png_of([(b"IHDR", header), *chunks[1:]])


def flipped(content: bytes, position: int) -> bytes:
    """One bit changed."""
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def oriented(orientation: int, pixels: np.ndarray | None = None) -> bytes:
    """A PNG with EXIF's orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return by_pillow("PNG", color() if pixels is None else pixels, exif=exif)


PNG, TIFF = by_pillow("PNG", color()), by_tifffile(color(), photometric="rgb")
JPEG = by_pillow("JPEG", color())
DEFLATED = by_tifffile(color(), photometric="minisblack", planarconfig="contig", compression=8)
SIXTEEN = color().astype(np.uint16) * 257


@dataclass(frozen=True)
class File:
    """name: with its suffix. role: "image" or "mask". verdict: what the message must say."""

    name: str
    role: str
    content: Callable[[], bytes] | bytes
    verdict: str

    def bytes(self) -> bytes:
        """The file's content."""
        return self.content() if callable(self.content) else self.content


REFUSED = [
    File("empty.png", "image", b"", "an empty file"),
    File("page.jpg", "image", b"<!DOCTYPE html><html>403</html>", "begins with b'<!DOCTYPE"),
    File("lfs.png", "image", b"version https://git-lfs.github.com/spec/v1\n", "begins with"),
    File("image.gif.png", "image", lambda: by_pillow("GIF", color()), "begins with b'GIF"),
    File("half.jpg", "image", JPEG[: len(JPEG) // 2], "damaged JPEG file .*truncated"),
    File("without_end.jpg", "image", JPEG[:-2], "damaged JPEG file .*truncated"),
    File("header_only.jpg", "image", JPEG[:20], "damaged JPEG file"),
    File("cmyk.jpg", "image", lambda: by_pillow("JPEG", color(), "CMYK"), "of the kind CMYK"),
    File("half.png", "image", PNG[: len(PNG) // 2], "bytes, .* announced"),
    File("without_end.png", "image", PNG[:-12], "bytes, .* announced"),
    File("last_byte.png", "image", PNG[:-1], "bytes, .* announced"),
    File("flipped.png", "image", flipped(PNG, len(PNG) // 2), "wrong checksum in chunk IDAT"),
    File("flipped_header.png", "image", flipped(PNG, 19), "wrong checksum in chunk IHDR"),
    File("flipped_end.png", "image", flipped(PNG, len(PNG) - 1), "wrong checksum in chunk IEND"),
    File("animated.png", "image", lambda: two_frames("PNG"), "an animation"),
    File("gray16.png", "image", lambda: by_pillow("PNG", SIXTEEN[..., 0]), "16 bits per sample"),
    File("bomb.png", "image", bomb, "decompression bomb"),
    File("wide.tif", "image", lambda: by_tifffile(np.zeros((1, 80_000_001), np.uint8),
         compression=8), "80000001 pixels announced"),
    File("half.tif", "image", TIFF[: len(TIFF) // 2], "bytes, .* announced"),
    File("half_deflate.tif", "image", DEFLATED[: len(DEFLATED) // 2], "bytes, .* announced"),
    File("header_only.tif", "image", TIFF[:8], "damaged TIFF file"),
    File("flipped.tif", "image", flipped(DEFLATED, len(DEFLATED) // 2), "damaged TIFF file"),
    File("pages.tif", "image", lambda: two_frames("TIFF"), "more than one page"),
    File("lost_page.tif", "image", lambda: two_frames("TIFF")[: len(TIFF)], "more than one page"),
    File("color16.tif", "image", lambda: by_tifffile(SIXTEEN, photometric="rgb"), "16 bits"),
    File("float.tif", "image", lambda: by_tifffile(np.float32(gray())), "32 bits .*float"),
    File("signed.tif", "image", lambda: by_tifffile(gray().view(np.int8)), "8 bits .*, signed"),
    File("cmyk.tif", "image", lambda: by_pillow("TIFF", color(), "CMYK"), "of the kind CMYK"),
    File("samples.tif", "image", lambda: by_tifffile(np.zeros((H, W, 5), np.uint8),
         photometric="minisblack", planarconfig="contig"), "5 samples"),
    File("half.bmp", "image", lambda: by_pillow("BMP", color())[:900], "damaged BMP file"),
    File("glass.png", "image", lambda: by_pillow("PNG", with_alpha(color(), disc())),
         "not opaque"),
    File("transparent.png", "image", lambda: by_pillow("PNG", disc(), transparency=0),
         "not opaque"),
    File("palette.png", "mask", palette, "a palette"),
    File("glass.png", "mask", lambda: by_pillow("PNG", with_alpha(disc(), disc())), "not opaque"),
    File("colored.png", "mask", lambda: by_pillow("PNG", color()), "colors"),
    File("mask16.png", "mask", lambda: by_pillow("PNG", disc().astype(np.uint16)), "16 bits"),
    File("mask16.tif", "mask", lambda: by_tifffile(disc().astype(np.uint16)), "16 bits"),
]  # fmt: skip


def turned_mask(photometric: str) -> bytes:
    """The disc as TIFF; with "miniswhite" the file holds its negative."""
    pixels = 255 - disc() if photometric == "miniswhite" else disc()
    return by_tifffile(pixels, photometric=photometric)


def planar() -> bytes:
    """Three planes one after the other, as TIFF allows."""
    planes = np.ascontiguousarray(np.moveaxis(color(), -1, 0))
    return by_tifffile(planes, photometric="rgb", planarconfig="separate")


def interlaced_bilevel() -> bytes:
    """One bit per pixel."""
    return by_pillow("PNG", disc(), "1")


ACCEPTED = [
    (File("plain.png", "image", PNG, ""), color()),
    (File("plain.tif", "image", TIFF, ""), color()),
    (File("cvc.tif", "image", DEFLATED, ""), color()),
    (File("planar.tif", "image", planar, ""), color()),
    (File("lzw.tif", "image",
          lambda: by_pillow("TIFF", color(), compression="tiff_lzw"), ""), color()),
    (File("big_endian.tif", "image",
          lambda: by_tifffile(color(), photometric="rgb", byteorder=">"), ""), color()),
    (File("plain.bmp", "image", lambda: by_pillow("BMP", color()), ""), color()),
    (File("gray.png", "image", lambda: by_pillow("PNG", gray()), ""), gray()[..., None]),
    (File("opaque.png", "image",
          lambda: by_pillow("PNG", with_alpha(color(), 255)), ""), color()),
    (File("palette.png", "image", palette, ""),
     np.array([[0, 0, 0], [200, 30, 60]], np.uint8)[disc(1)]),
    (File("misnamed.jpg", "image", PNG, "found PNG inside.*name ending in .png"), color()),
    (File("gray.png", "mask", lambda: by_pillow("PNG", disc()), ""), disc()[..., None]),
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
