"""What a command tells: people on stdout, programs by --json; --quiet; warnings in one line."""

import argparse
import json
import os
import select
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What a command has to say to programs.

    Attributes:
        facts: gives what --json prints; called for --json alone.
        code: the exit code.
    """

    facts: Callable[[], Mapping[str, Any]]
    code: int = 0


def add_output(sub: argparse.ArgumentParser) -> None:
    """Add --json, of commands that return an Answer, and --quiet."""
    sub.add_argument(
        "--json", action="store_true", help="print the result as JSON, and messages on stderr"
    )
    sub.add_argument(
        "--quiet", action="store_true", help="print no messages but warnings and errors"
    )


@contextmanager
def messages(arguments: argparse.Namespace) -> Iterator[None]:
    """What a command prints: on stdout, with --json on stderr, with --quiet nowhere."""
    if getattr(arguments, "quiet", False):
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield
    elif getattr(arguments, "json", False):
        with redirect_stdout(sys.stderr):
            yield
    else:
        yield


def told(arguments: argparse.Namespace, answer: Answer | int | None) -> int:
    """Print the answer of a command if --json asks for it; its exit code."""
    if not isinstance(answer, Answer):
        return answer or 0
    if arguments.json:
        print(json.dumps(answer.facts(), indent=1, allow_nan=False))
    return answer.code


def one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning as a user reads it, without the module that gave it and its source."""
    return f"keras-medseg: warning: {message}\n"


def nobody_reads() -> bool:
    """Whether stdout is a pipe whose reader has ended, such as `| head`; then it is closed."""
    if not hasattr(select, "poll"):
        return False
    state = select.poll()
    state.register(1, 0)
    gone = any(events & select.POLLERR for _, events in state.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return gone
