"""Writing files so that nobody ever meets half of one."""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file or none: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON, whole or not at all."""
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


@contextmanager
def locked(folder: Path, purpose: str) -> Iterator[None]:
    """Keep other processes out of a folder; a second one waits for the first.

    purpose: what the other process does, for the message: "prepares this store".
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The kernel drops the lock when its process dies, so no lock is ever stale.
    with open(folder / "lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("%s: another process %s; waiting for it.", folder, purpose)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
