"""Progress of loops: a bar that is updated in place on a terminal, sparse lines in a log.

Whether stdout is a terminal that can move its cursor decides (`in_place`); nothing else does.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

BAR_EVERY_S = 0.1
LINE_EVERY_S = 30.0
NARROW = 60
"""Columns of a terminal below which there is no room for the bar and the memory."""


def in_place() -> bool:
    """Whether what stdout shows can be overwritten."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


class Status(NamedTuple):
    """How far a loop is.

    Attributes:
        title: of the loop.
        counts: such as "3/40".
        detail: such as the name of the case, or losses.
        time: such as "3 min 20 s left".
        share: of the loop that is done, 0 to 1.
    """

    title: str
    counts: str
    detail: str
    time: str
    share: float

    def __str__(self) -> str:
        words = (self.title, self.counts, self.detail, self.time)
        return "  " + "  ".join(filter(None, words))


class Display(AbstractContextManager["Display"]):
    """Shows the status of a loop; the bar exists within the context alone.

    A loop that an error or Ctrl-C ends leaves its last status as a line.
    """

    def __init__(self) -> None:
        self.live: Live | None = None
        self.in_place = in_place()
        self.every_s = BAR_EVERY_S if self.in_place else LINE_EVERY_S
        self.shown = -BAR_EVERY_S if self.in_place else time.monotonic()
        self.status: Status | None = None

    @property
    def due(self) -> bool:
        """Whether enough time has passed to show something new."""
        return time.monotonic() - self.shown > self.every_s

    def show(self, status: Status) -> None:
        """Show the status now: in the bar, or as one more line of a log."""
        if not self.in_place:
            self.keep(status)
            return
        self.shown = time.monotonic()
        self.status = status
        if self.live is None:
            self.live = _start()
        self.live.update(_rendered(status, self.live.console.width), refresh=True)

    def keep(self, status: Status) -> None:
        """Print the status as a line that stays, above the bar."""
        self.shown = time.monotonic()
        self.status = None
        print(status, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
        if error is not None and self.status is not None:
            print(self.status, flush=True)


def _start() -> "Live":
    """A bar below everything that is printed while it is there.

    It has no thread of its own, and leaves the cursor where a killed process would lose it.
    """
    from rich.console import Console
    from rich.live import Live

    class VisibleCursor(Console):
        def show_cursor(self, show: bool = True) -> bool:
            return False

    live = Live(
        console=VisibleCursor(file=sys.stdout, force_terminal=True),
        auto_refresh=False,
        transient=True,
        # Otherwise warnings would leave the file into which stderr may go.
        redirect_stderr=sys.stderr.isatty(),
    )
    live.start()
    return live


def _rendered(status: Status, width: int) -> "RenderableType":
    """Two lines: title, counts, bar, time and memory; the detail. A narrow terminal has no bar."""
    from psutil import Process
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def line(*words: str) -> Text:
        return Text("  " + "  ".join(filter(None, words)), no_wrap=True, overflow="ellipsis")

    first = line(status.title, status.counts)
    if width < NARROW:
        return Group(first, line(status.time, status.detail))
    memory = f"{Process().memory_info().rss / 1e9:.1f} GB"
    row = Table.grid(padding=(0, 2, 0, 0), expand=True)
    row.add_column(no_wrap=True, overflow="ellipsis")
    row.add_column(ratio=1, min_width=8)
    row.add_column(no_wrap=True)
    row.add_column(no_wrap=True)
    row.add_row(first, ProgressBar(total=1.0, completed=status.share), status.time, memory)
    return Group(row, line(status.detail))


class Progress(Protocol):
    """Shows how far a loop is."""

    def __call__(self, done: int, total: int, name: str, share: float | None = None) -> None:
        """Show it.

        Args:
            done: items that are done.
            total: their number.
            name: of the last one, or other words.
            share: of the work that was left when the loop began, 0 to 1, if the items do not tell.
        """


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """The progress of a loop over cases or other items."""
    started = time.monotonic()

    def progress(done: int, total: int, name: str, share: float | None = None) -> None:
        elapsed = time.monotonic() - started
        if done == total:
            display.keep(Status(title, f"{done}/{total}", name, f"in {duration(elapsed)}", 1.0))
        elif display.due:
            shown = done / total if share is None else share
            # Without a share, the first item is assumed to take as long as has passed so far.
            known = max(shown, 1 / total) if share is None else share
            left = f"{duration(elapsed / known * (1 - shown))} left" if known else ""
            display.show(Status(title, f"{done}/{total}", name, left, shown))

    with Display() as display:
        yield progress


def duration(seconds: float) -> str:
    """A duration as text: 42 s, 3 min 20 s, 2 h 05 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
