"""Progress as text: one line that is overwritten on a terminal, repeated lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StatusLine:
    """A line that is updated in place; in a file or pipe it is repeated every 30 s at most."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.every_seconds = 0.5 if self.terminal else 30.0
        self.printed = time.monotonic()
        self.width = 0

    @property
    def due(self) -> bool:
        """Whether enough time has passed to show something new."""
        return time.monotonic() - self.printed > self.every_seconds

    def show(self, text: str, *, last: bool = False) -> None:
        """Print the text now; `last` ends the line."""
        self.printed = time.monotonic()
        blank = " " * max(self.width - len(text), 0) if self.terminal else ""
        print(text + blank, end="\r" if self.terminal and not last else "\n", flush=True)
        self.width = 0 if last else len(text)

    def end(self) -> None:
        """End a line that is still being updated, so that the next output starts a new line."""
        if self.terminal and self.width:
            print(flush=True)
        self.width = 0


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A function of (done, total, name) that shows the progress of a loop over cases."""
    line, started = StatusLine(), time.monotonic()

    def progress(done: int, total: int, name: str) -> None:
        if done == total or line.due:
            elapsed = time.monotonic() - started
            left = f"{duration(elapsed / max(done, 1) * (total - done))} left"
            ending = f"in {duration(elapsed)}" if done == total else left
            line.show(f"  {title}: {done}/{total}  {name}  {ending}", last=done == total)

    try:
        yield progress
    finally:
        line.end()


def duration(seconds: float) -> str:
    """A duration as text: 42 s, 3 min 20 s, 2 h 05 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
