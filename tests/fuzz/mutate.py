"""Damage to files and folders, drawn at random: bytes, values, whole files, and repaired checksums.

A tree is {path relative to a folder: its bytes}. Most damage is found by a checksum at once; so
half of it is sealed again (PNG chunks, gzip, zip archives, sha256 files), and reaches what lies
behind the checksum.
"""

import gzip
import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Tree = dict[str, bytes]

_BYTES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
_INTEGERS = (0, 1, -1, 2, 255, 256, 1 << 15, (1 << 15) - 1, 1 << 16, (1 << 31) - 1, -(1 << 31), 348)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, -(2**63), 1e308, -0.0, float("nan"), float("inf"), 10**30,
    "", "a", "é\u0000", "../x", "/etc/passwd", "C:\\x", "x" * 5000, "1", "none", "[]", [], {}, [[]],
    [None], {"": None}, [1, 2, 3], {"a": {"b": {"c": []}}}, "\ud800",
)  # fmt: skip
_WORDS = (
    b"\0", b"\n", b"\r", b",", b";", b'"', b"'", b"\t", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3\x28",
    b"NaN", b"-1", b"1e999", b"null", b"[" * 3000, b"{", b"}", b"]", b"../", b"/etc/passwd", b"\\",
    b"%s", b"=1+1", b"images/", b"training", b"x" * 9000, b"\x1a", b"\xe2\x80\xae",
)  # fmt: skip


def damaged(rng: np.random.Generator, content: bytes, others: list[bytes]) -> bytes:
    """One to three random changes to the bytes of a file.

    Args:
        rng: of this file.
        content: of the sound file.
        others: of sound files of the same kind, from which parts are taken.
    """
    for _ in range(rng.integers(1, 4)):
        change = _CHANGES[rng.integers(len(_CHANGES))]
        content = change(rng, content, others)
    return content


def _place(rng: np.random.Generator, content: bytes, size: int = 0) -> int:
    """A random offset; half of them among the first 512 bytes, where headers are."""
    last = max(len(content) - size, 0)
    return int(rng.integers(0, min(last, 512) + 1 if rng.random() < 0.5 else last + 1))


def _flip(rng: np.random.Generator, content: bytes, others: list[bytes]) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        if changed:
            changed[_place(rng, content, 1)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _set(rng: np.random.Generator, content: bytes, others: list[bytes]) -> bytes:
    if not content:
        return content
    at = _place(rng, content, 1)
    return content[:at] + bytes([_BYTES[rng.integers(len(_BYTES))]]) + content[at + 1 :]


def _number(rng: np.random.Generator, content: bytes, others: list[bytes]) -> bytes:
    order = "<>"[rng.integers(2)]
    form = "hiqfd"[rng.integers(5)]
    if form in "fd":
        value: Any = _FLOATS[rng.integers(len(_FLOATS))]
        value = min(max(value, -3e38), 3e38) if form == "f" and abs(value) < np.inf else value
    else:
        bits = {"h": 16, "i": 32, "q": 64}[form]
        value = int(_INTEGERS[rng.integers(len(_INTEGERS))])
        value = (value + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
    packed = struct.pack(order + form, value)
    at = _place(rng, content, len(packed))
    return content[:at] + packed + content[at + len(packed) :]


def _cut(rng: np.random.Generator, content: bytes, others: list[bytes]) -> bytes:
    return content[: _place(rng, content)]


def _longer(rng: np.random.Generator, content: bytes, others: list[bytes]) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 600)))


def _without(rng: np.random.Generator, content: bytes, others: list[bytes]) -> bytes:
    at = _place(rng, content)
    return content[:at] + content[at + int(rng.integers(1, 65)) :]


def _twice(rng: np.random.Generator, content: bytes, others: list[bytes]) -> bytes:
    at, size = _place(rng, content), int(rng.integers(1, 200))
    return content[: at + size] + content[at:]


def _spliced(rng: np.random.Generator, content: bytes, others: list[bytes]) -> bytes:
    other = others[rng.integers(len(others))] if others else content
    return content[: _place(rng, content)] + other[_place(rng, other) :]


def _inserted(rng: np.random.Generator, content: bytes, others: list[bytes]) -> bytes:
    at = _place(rng, content)
    words = (*_WORDS, rng.bytes(int(rng.integers(1, 65))), bytes(int(rng.integers(1, 65))))
    return content[:at] + words[rng.integers(len(words))] + content[at:]


def _random(rng: np.random.Generator, content: bytes, others: list[bytes]) -> bytes:
    return content[: int(rng.integers(0, 17))] + rng.bytes(int(rng.integers(0, 300)))


_CHANGES: tuple[Callable[[np.random.Generator, bytes, list[bytes]], bytes], ...] = (
    _flip, _flip, _flip, _set, _set, _number, _number, _number, _cut, _longer, _without, _twice,
    _spliced, _inserted, _random,
)  # fmt: skip


# What lies behind a checksum


def resealed_png(content: bytes) -> bytes:
    """The same chunks, each with the right checksum; what is no chunk stays."""
    made, at = bytearray(content[:8]), 8
    while at + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, at)
        if at + 12 + size > len(content):
            break
        body = content[at + 4 : at + 8 + size]
        made += content[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return bytes(made) + content[at:]


def resealed_weights(content: bytes) -> bytes:
    """The same files of an archive of weights, with right checksums where its manifest is JSON."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        files = {name: old.read(name) for name in old.namelist()}
        try:
            manifest = json.loads(files["package.json"])
            for name, facts in manifest["files"].items():
                facts["sha256"] = hashlib.sha256(files[name]).hexdigest()
            manifest.pop("sha256", None)
            text = json.dumps(manifest, sort_keys=True)
            manifest["sha256"] = hashlib.sha256(text.encode()).hexdigest()
            files["package.json"] = json.dumps(manifest).encode()
        except (ValueError, LookupError, TypeError, AttributeError):
            pass  # too damaged to be sealed
        for name, data in files.items():
            new.writestr(name, data)
    return file.getvalue()


def inside_gzip(
    rng: np.random.Generator, content: bytes, others: list[bytes], level: int = 1
) -> bytes:
    """Damage to what a gzip file contains, compressed again."""
    inner = [gzip.decompress(other) for other in others if other[:2] == b"\x1f\x8b"]
    return gzip.compress(damaged(rng, gzip.decompress(content), inner), level, mtime=0)


def inside_zip(
    rng: np.random.Generator, content: bytes, change: Callable[[str, bytes], bytes]
) -> bytes:
    """Damage to one member of a zip archive; its checksums are right."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        names = old.namelist()
        victim = names[rng.integers(len(names))]
        for name in names:
            inner = old.read(name)
            if name != victim:
                new.writestr(name, inner)
            elif rng.random() < 0.9:  # otherwise the member is missing
                new.writestr(name if rng.random() < 0.95 else f"../{name}", change(name, inner))
    return file.getvalue()


def sha256_line(content: bytes, name: str) -> bytes:
    """The line of a .sha256 file."""
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()


# JSON


def damaged_json(rng: np.random.Generator, content: bytes) -> bytes:
    """One to three values, keys or items of a JSON text replaced, removed, renamed or repeated."""
    tree = json.loads(content)
    for _ in range(rng.integers(1, 4)):
        tree = _changed(rng, tree)
    return json.dumps(tree, ensure_ascii=True).encode()


def _changed(rng: np.random.Generator, node: Any) -> Any:
    if rng.random() < 0.15 or not isinstance(node, dict | list) or not node:
        return _value(rng, node)
    if isinstance(node, list):
        at = int(rng.integers(len(node)))
        way = rng.random()
        if way < 0.1:
            return node[:at] + node[at + 1 :]
        if way < 0.2:
            return [*node, node[at]]
        return [*node[:at], _changed(rng, node[at]), *node[at + 1 :]]
    key = list(node)[rng.integers(len(node))]
    way = rng.random()
    if way < 0.1:
        return {name: value for name, value in node.items() if name != key}
    if way < 0.2:
        new = str(_VALUES[rng.integers(len(_VALUES))]) if rng.random() < 0.7 else f"{key}x"
        return {(new if name == key else name): value for name, value in node.items()}
    return {**node, key: _changed(rng, node[key])}


def _value(rng: np.random.Generator, old: Any) -> Any:
    if isinstance(old, int | float) and not isinstance(old, bool) and rng.random() < 0.4:
        return (old + 1, -old, old * 1000, float(old), str(old), old / 3)[rng.integers(6)]
    if rng.random() < 0.05:
        deep: Any = old if not isinstance(old, dict | list) else 0
        for _ in range(400):
            deep = [deep]
        return deep
    return _VALUES[rng.integers(len(_VALUES))]


# Folders


def write_tree(rng: np.random.Generator, tree: Tree, folder: Path, victim: str) -> str:
    """Write a tree; now and then the victim is no file any more.

    Returns:
        What was done to the victim, for the record.
    """
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    path = folder / victim
    way = rng.random()
    if way > 0.06:
        return "changed"
    path.unlink()
    if way < 0.015:
        return "missing"
    if way < 0.03:
        path.mkdir()
        return "a folder"
    if way < 0.04:
        path.symlink_to("nowhere")
        return "a link to nowhere"
    if way < 0.05:
        path.symlink_to(path.name)
        return "a link to itself"
    os.mkfifo(path)
    return "a pipe"
