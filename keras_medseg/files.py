"""Read files with errors that say what to do, and write them atomically."""

import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from keras_medseg.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

_log = logging.getLogger(__name__)


def read_file(path: Path, parse: Callable[[str], T], remedy: str) -> T:
    """Read a text file.

    Args:
        path: a UTF-8 file.
        parse: turns the text into the result; raises a ValueError if the text is damaged.
        remedy: the last sentence of an error, such as "Run the experiment again, to its end."

    Returns:
        What `parse` returns.

    Raises:
        DataError: the file is missing, or `parse` refuses its text.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(path, found="no file", expected="a file", remedy=remedy) from None
    except ValueError as error:
        raise DataError(path, found=str(error), expected="a whole file", remedy=remedy) from error


def parse_csv(text: str) -> "pd.DataFrame":
    """A table of scores or published numbers; names such as 001 or NA and values stay text."""
    import pandas as pd

    names = dict.fromkeys(("table", "row", "variant", "region", "case", "group", "value"), str)
    return pd.read_csv(io.StringIO(text), na_filter=False, dtype=names)


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write a file completely or not at all: temporary name, fsync, rename."""
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


def write_between(page: Path, marks: tuple[str, str], text: str) -> None:
    """Replace the text between two lines of a page.

    Args:
        page: a text file.
        marks: the lines before and after the text.
        text: the new text.

    Raises:
        ValueError: the page does not contain both marks in this order.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"{page}: found no lines {' ... '.join(marks)}, expected both.")
    write_atomic(page, f"{before}{begin}\n\n{text}\n\n{end}{after}".encode())


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON atomically."""
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


@contextmanager
def locked(folder: Path, purpose: str) -> Iterator[None]:
    """Keep other processes out of a folder; a second one waits for the first.

    Args:
        folder: created if it does not exist.
        purpose: what a process does while it holds the lock, such as "prepares this store"; waiting
            processes print it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The operating system drops the lock when its process dies, so no lock is ever stale.
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _log.warning("%s: another process %s; waiting for it.", folder, purpose)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
