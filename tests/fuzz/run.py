"""Run damaged inputs through the package, in processes of their own, and judge what comes back."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .kinds import KINDS, Kind
from .mutate import write_tree

SHARES = {
    "nifti": 4000, "png": 3000, "jpeg": 3000, "tiff": 4000, "bmp": 2000, "recipe": 2000,
    "manifest": 1000, "folder": 1000, "checkpoint": 1500, "store": 500, "run": 500,
    "weights": 60,
}  # fmt: skip
"""Kind -> files of the published run."""

MEMORY_BYTES = 2 * 2**30
"""That a process may take beyond what it needs for its libraries."""

_LONGEST = 4000
_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Result:
    """What came of the files of one kind.

    Attributes:
        kind: of the inputs.
        outcomes: "read" and "refused" -> how many.
        failures: one line each; the number of the case comes first.
        slowest: seconds of the slowest file.
        seconds: of all files.
    """

    kind: str
    outcomes: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    seconds: float = 0.0

    @property
    def files(self) -> int:
        return sum(self.outcomes.values()) + len(self.failures)


class TooLong(BaseException):
    """A file takes longer than it may. No `except Exception` catches it."""


def one_case(name: str, seed: int, number: int, keep: Path | None = None) -> str:
    """ "read", "refused: ..." or "FAILURE: ..." of one damaged input."""
    kind = KINDS[name]
    rng = np.random.default_rng([seed, list(KINDS).index(name), number])
    trees = kind.trees()
    tree = trees[rng.integers(len(trees))]
    victims = kind.victims(tree)
    victim = victims[rng.integers(len(victims))]
    tree = kind.damage(rng, tree, victim, trees)
    with tempfile.TemporaryDirectory(prefix="fuzz") as place:
        folder = keep or Path(place)
        how = write_tree(rng, tree, folder, victim)
        outcome = _judged(kind, folder, tree, victim)
    return outcome if not outcome.startswith("FAILURE") else f"{outcome} [{victim}: {how}]"


def _judged(kind: Kind, folder: Path, tree: dict[str, bytes], victim: str) -> str:
    try:
        with _limited(kind.seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = kind.read(folder, victim)
    except TooLong:
        return f"FAILURE: more than {kind.seconds} s"
    except ValueError as error:
        return _refusal(error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"FAILURE: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    try:
        wrong = kind.sound(result, folder, tree, victim)
    except Exception as error:
        wrong = f"what the comparison cannot read: {type(error).__name__}: {error}"
    return f"FAILURE: read {wrong}" if wrong else "read"


def _refusal(error: ValueError) -> str:
    """A refusal is a line with what was found and expected; trees of a folder may follow it."""
    line, *tree = str(error).split("\n")
    named = "found" in line and "expected" in line
    if not named or len(line) > _LONGEST or any("|" not in row for row in tree):
        kind, said = type(error).__name__, repr(str(error)[:300])
        return f"FAILURE: {kind} without what was found or expected: {said}"
    return f"refused: {line}"


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooLong

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def failures_of(name: str, seed: int, first: int, end: int) -> None:
    """The work of one process: a line of JSON for each case, on the standard output."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    KINDS[name].trees()
    if name == "run":
        one_case(name, seed, first)  # loads the libraries before memory is bounded
    _bound_memory()
    for number in range(first, end):
        started = time.perf_counter()
        outcome = one_case(name, seed, number)
        print(json.dumps([number, outcome, time.perf_counter() - started]), file=output, flush=True)


def _bound_memory() -> None:
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))


def run(counts: Mapping[str, int], seed: int) -> list[Result]:
    """Run so many files of each kind, one kind after the other."""
    results = []
    for name, count in counts.items():
        result = Result(name)
        first = 0
        while first < count:
            first = _run_process(result, seed, first, count)
        results.append(result)
        print(table([result]).splitlines()[-1], file=sys.stderr, flush=True)
    return results


def _run_process(result: Result, seed: int, first: int, end: int) -> int:
    """Run cases in one process until all are done or it dies; the number of the next case."""
    name = result.kind
    command = [sys.executable, "-m", "tests.fuzz", "--kinds", name, "--seed", str(seed)]
    command += ["--worker", str(first), str(end)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(_REPOSITORY)}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, cwd=_REPOSITORY, env=environment
        ) as process,
    ):
        done = first
        for line in _lines(process, KINDS[name].seconds):
            number, outcome, seconds = json.loads(line)
            _count(result, number, outcome, seconds)
            done = number + 1
        process.kill()
        if done < end:
            errors.seek(0)
            said = errors.read().strip().splitlines()
            if done == 0:
                raise RuntimeError(f"{name}: the process did not start: {said[-1:]}")
            result.failures.append(f"{done}: the process died or hung ({said[-1:]})")
    return done if done == end else done + 1


def _lines(process: subprocess.Popen, seconds: float) -> Iterator[bytes]:
    """Lines of the process; ends when it ends, or when one takes far longer than it may."""
    assert process.stdout is not None
    waiting, patience = b"", 300.0  # the first line waits for the libraries
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while ready.select(timeout=patience):
            content = os.read(process.stdout.fileno(), 1 << 16)
            if not content:
                return
            *whole, waiting = (waiting + content).split(b"\n")
            yield from whole
            patience = 3 * seconds if whole else patience


def _count(result: Result, number: int, outcome: str, seconds: float) -> None:
    if outcome.startswith("FAILURE"):
        result.failures.append(f"{number}: {outcome}")
    else:
        result.outcomes[outcome.partition(":")[0]] += 1
    result.slowest = max(result.slowest, seconds)
    result.seconds += seconds


def table(results: list[Result]) -> str:
    """Lines of a Markdown table."""
    lines = [
        "| kind | files | read rightly | refused | failures | slowest |",
        "|---|---|---|---|---|---|",
    ]
    total: Counter = Counter()
    for result in results:
        row = (
            result.files,
            result.outcomes["read"],
            result.outcomes["refused"],
            len(result.failures),
        )
        total.update(dict(enumerate(row)))
        listed = " | ".join(f"{number:,}" for number in row)
        lines.append(f"| {result.kind} | {listed} | {result.slowest:.2f} s |")
    if len(results) > 1:
        slowest = max(result.slowest for result in results)
        lines.append(f"| all | {' | '.join(f'{total[i]:,}' for i in range(4))} | {slowest:.2f} s |")
    return "\n".join(lines)
