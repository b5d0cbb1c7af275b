"""One exception for everything a user can mend."""

from pathlib import Path


class DataError(ValueError):
    """A file, folder or setting that is not as it should be.

    The message is one line: where, what was found, what was expected, what to do.
    """

    def __init__(self, where: Path | str, *, found: str, expected: str, remedy: str) -> None:
        self.where = str(where)
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(f"{where}: found {found}, expected {expected}. {remedy}")

    def __reduce__(self):
        # Keyword-only arguments are lost by the default, and workers send errors to the parent.
        return _rebuild, (type(self), self.where, self.found, self.expected, self.remedy)


def _rebuild(cls, where, found, expected, remedy):
    return cls(where, found=found, expected=expected, remedy=remedy)
