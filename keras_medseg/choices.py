"""Errors for a word that is not one of the known ones."""

from collections.abc import Iterable
from difflib import get_close_matches


def require_choice(what: str, value: object, known: Iterable[str]) -> None:
    """Check that `value` is one of `known`.

    Raises:
        ValueError: naming `what`, the value, the nearest known words and all of them.
    """
    words = list(known)
    if value in words:
        return
    near = get_close_matches(str(value), words, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(
        f"{what}: found {value!r}, expected one of: {', '.join(words) or 'none'}.{hint}"
    )
