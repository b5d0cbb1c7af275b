"""Checkpoints with verification: NumPy archives, each with a checksum file.

`epoch_0003.npz` contains every weight, the state of the optimizer and the log so far;
`epoch_0003.npz.sha256` is written after it (`sha256sum -c` reads it). An archive without a checksum
was left by a killed write and is ignored.
"""

import hashlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from keras_medseg.errors import DataError
from keras_medseg.files import read_bytes, write_atomic

KEEP = 2

_DAMAGED = "The file was damaged after it was written; delete it."


def save(folder: Path, epoch: int, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> Path:
    """Write the state after `epoch` finished epochs; the newest two checkpoints are kept."""
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps({"epoch": epoch, **record}).encode(), np.uint8)
    np.savez(buffer, **{"record": text, **arrays}, allow_pickle=False)
    content = buffer.getvalue()
    path = folder / f"epoch_{epoch:04d}.npz"
    write_atomic(path, content)
    line = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
    write_atomic(path.with_name(path.name + ".sha256"), line.encode())
    for old in _archives(folder)[KEEP:]:
        old.with_name(old.name + ".sha256").unlink(missing_ok=True)
        old.unlink()
    return path


def load_latest(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Arrays and record of the newest intact checkpoint, or None if there is no checkpoint.

    If the newest checkpoint is damaged, a warning names it and the one before it is used: training
    repeats the lost epochs to the same bits.

    Raises:
        DataError: checkpoints exist, but all are damaged.
    """
    damaged = []
    for path in _archives(folder):
        try:
            return _read(path)
        except DataError as error:
            warnings.warn(f"{error} Using the checkpoint before it.", stacklevel=2)
            damaged.append(path.name)
    if damaged:
        raise DataError(
            folder,
            found=f"only damaged checkpoints ({', '.join(damaged)})",
            expected="one whole checkpoint",
            remedy="Delete this folder to train from the start.",
        )
    return None


def load(folder: Path, epoch: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and record of the checkpoint of one epoch.

    Raises:
        DataError: the checkpoint is missing or damaged.
    """
    path = folder / f"epoch_{epoch:04d}.npz"
    if path not in _archives(folder):
        raise DataError(
            path,
            found="no whole checkpoint",
            expected="the state after this epoch",
            remedy="Delete this network's folder to train it from the start.",
        )
    return _read(path)


def _archives(folder: Path) -> list[Path]:
    """Archives with a checksum file, newest first."""
    paths = sorted(folder.glob("epoch_*.npz"), key=_epoch, reverse=True)
    return [path for path in paths if path.with_name(path.name + ".sha256").exists()]


def _epoch(path: Path) -> int:
    """By number, not by name: epoch_10000 comes after epoch_9999."""
    number = path.stem.removeprefix("epoch_")
    return int(number) if number.isdecimal() else -1


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    content = read_bytes(path, remedy=_DAMAGED)
    seal = read_bytes(path.with_name(path.name + ".sha256"), remedy=_DAMAGED)
    stated = seal.decode("utf-8", "replace").split(" ")[0]
    found = hashlib.sha256(content).hexdigest()
    if found != stated:
        raise DataError(
            path,
            found=f"sha256 {found[:12]}...",
            expected=f"{stated[:12]}...",
            remedy=_DAMAGED,
        )
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name != "record"}
            record = json.loads(archive["record"].tobytes())
    # zipfile and NumPy raise many kinds of errors on an archive that is none of ours.
    except Exception as error:
        found, expected = f"{type(error).__name__}: {error}", "an archive of arrays"
        raise DataError(path, found=found, expected=expected, remedy=_DAMAGED) from error
    sound = isinstance(record, dict) and isinstance(record.get("log", []), list)
    if not sound or not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise DataError(
            path, found="another record", expected="that of a training", remedy=_DAMAGED
        )
    return arrays, record
