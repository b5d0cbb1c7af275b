"""Read files with errors that say what to do, and write them atomically."""

import hashlib
import io
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from keras_medseg.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
_SENTENCE = re.compile(r"([^:]+(?:: field of \w+)?): found (.+?), expected (.+?)\.(?: (.+))?")

_log = logging.getLogger(__name__)


def is_file_name(value: object) -> bool:
    """Whether a value from a file can name a file in a folder, and cannot lead out of it."""
    return (
        isinstance(value, str)
        and value.isprintable()
        and not value.startswith(".")
        and value != ""
        and not {"/", "\\"} & {*value}
    )


def is_file(path: Path) -> bool:
    """Whether a path is that of a file; a path that no file can have, too long or odd, is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def sha256_of(path: Path) -> str:
    """The checksum of a file, which is read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_file(path: Path, *, expected: str = "a file", remedy: str) -> None:
    """Check that a path is that of a file; it may be missing, a folder, or a pipe that never ends.

    Args:
        path: of the file.
        expected: what it should be, for the message.
        remedy: the last sentence of an error.

    Raises:
        DataError: it is no regular file.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return
        found = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
    except FileNotFoundError:
        found = "no file"
        if path.is_symlink():
            found = f"a link to {os.readlink(path)}, which does not exist"
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        found = f"the error {getattr(error, 'strerror', None) or str(error)!r}"
    raise DataError(path, found=found, expected=expected, remedy=remedy)


def read_bytes(path: Path, *, expected: str = "a file", remedy: str) -> bytes:
    """Read a file to its end.

    Args:
        path: of the file.
        expected: what it should be, for the message.
        remedy: the last sentence of an error.

    Raises:
        DataError: it is no regular file, or cannot be read.
    """
    require_file(path, expected=expected, remedy=remedy)
    try:
        return path.read_bytes()
    except OSError as error:
        found = f"the error {error.strerror!r}"
        raise DataError(path, found=found, expected=expected, remedy=remedy) from error


def read_file(
    path: Path, parse: Callable[[str], T], remedy: str, *, expected: str = "a whole file"
) -> T:
    """Read a text file.

    Args:
        path: a UTF-8 file.
        parse: turns the text into the result; raises a ValueError if the text is damaged.
        remedy: the last sentence of an error, such as "Run the experiment again, to its end."
        expected: what `parse` takes, for the message.

    Returns:
        What `parse` returns.

    Raises:
        DataError: the file is missing, or `parse` refuses its text.
    """
    content = read_bytes(path, remedy=remedy)
    try:
        return parse(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # JSON that is nested too deeply
        if sentence := _SENTENCE.fullmatch(str(error)):  # as errors of fields are
            part, found, expected, advice = sentence.groups()
            where = f"{path}, {part}"
            raise DataError(
                where, found=found, expected=expected, remedy=advice or remedy
            ) from error
        raise DataError(path, found=str(error), expected=expected, remedy=remedy) from error


def parse_csv(text: str) -> "pd.DataFrame":
    """A table of scores or published numbers; names such as 001 or NA and values stay text."""
    import pandas as pd

    texts = ("table", "row", "variant", "dataset", "region", "case", "group", "value")
    return pd.read_csv(io.StringIO(text), na_filter=False, dtype=dict.fromkeys(texts, str))


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


def json_rows(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Rows for JSON; NaN becomes null."""
    return json.loads(table.to_json(orient="records", double_precision=15))


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
