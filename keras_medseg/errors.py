"""Errors that a user can fix; each message is one line."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

_LONGEST = 1500


class DataError(ValueError):
    """A file, folder or setting is not as it should be.

    The message is one line: where, what was found, what was expected, what to do.
    """

    def __init__(self, where: Path | str, *, found: str, expected: str, remedy: str) -> None:
        self.where = str(where)
        self.found = found
        self.expected = expected
        self.remedy = remedy
        about = (_one_line(str(text)) for text in (where, found, expected))
        super().__init__("{}: found {}, expected {}. {}".format(*about, remedy))

    def __reduce__(self) -> tuple[Any, ...]:
        # The default loses keyword-only arguments, and workers send errors to their parent.
        return _rebuild, (type(self), self.where, self.found, self.expected, self.remedy)


def as_one(
    where: Path | str, errors: Sequence[DataError], *, found: str, expected: str, remedy: str
) -> DataError:
    """One error with a line for each of several, below the sentence on all of them."""
    lines = "\n  ".join(map(str, errors))
    return DataError(where, found=found, expected=expected, remedy=f"{remedy}\n  {lines}")


def listed(names: Iterable[str], most: int = 20) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 case", "2 cases"."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def require_choice(what: str, value: object, known: Iterable[str]) -> None:
    """Check that `value` is one of `known`.

    Raises:
        ValueError: naming `what`, the value, the nearest known words and all of them.
    """
    words = list(known)
    if value in words:
        return
    same = [word for word in words if word.casefold() == str(value).casefold()]
    near = same or get_close_matches(str(value), words, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(
        f"{what}: found {value!r}, expected one of: {', '.join(words) or 'none'}.{hint}"
    )


def _one_line(text: str) -> str:
    """The text of a damaged file or an odd name in a message: printable, and not too long."""
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(printable) <= _LONGEST:
        return printable
    return f"{printable[: _LONGEST - 300]} ... {printable[-300:]}"


def _rebuild(cls: type[DataError], where: str, found: str, expected: str, remedy: str) -> DataError:
    return cls(where, found=found, expected=expected, remedy=remedy)
