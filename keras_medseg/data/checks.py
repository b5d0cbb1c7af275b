"""What `check` of every data set reports, and how it goes through the cases."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from textwrap import wrap
from typing import Literal

import numpy as np

from keras_medseg.data.cases import Case
from keras_medseg.errors import DataError

_SEVERITIES = ("error", "warning")
_KEEP_WORDS = {"break_long_words": False, "break_on_hyphens": False}
_WIDTH = 48


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one case."""

    case_id: str
    path: Path
    message: str
    severity: Literal["error", "warning"]


@dataclass(frozen=True)
class CheckReport:
    """What `check` found. cases: those with all their files; trees: expected beside found."""

    folder: Path
    cases: list[Case]
    problems: list[Problem]
    trees: str

    @property
    def ok(self) -> bool:
        """True when no problem is an error."""
        return all(problem.severity != "error" for problem in self.problems)

    @property
    def text(self) -> str:
        """The whole report in lines of 100 characters (paths are never broken)."""
        lines = [f"{self.folder}: {_count_cases(self.cases)}", "", self.trees, ""]
        for problem in sorted(self.problems, key=lambda p: (p.severity, p.case_id)):
            text = f"{problem.severity}: {problem.message}"
            lines += wrap(text, 100, subsequent_indent="    ", **_KEEP_WORDS)
        counts = Counter(problem.severity for problem in self.problems)
        lines.append(", ".join(plural(counts[severity], severity) for severity in _SEVERITIES))
        return "\n".join(lines)


@dataclass(frozen=True)
class Inspection:
    """What reading one case showed. digests: one per array that two cases must not share."""

    problems: list[Problem]
    digests: list[tuple[Path, bytes]]


def inspect_all(
    cases: Sequence[Case],
    inspect: Callable[[Case], Inspection],
    *,
    elements: str,
    workers: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Problem]:
    """The problems of all cases, read on several threads, and a warning per pair of equal ones.

    Args:
        elements: "voxels" or "pixels", for the messages.
        workers: cases read at once; by default one per core, at most 8.
        progress: called with (done, total, case id) after each case.
    """
    problems, digests = [], defaultdict(list)
    with ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 8)) as pool:
        for done, (case, result) in enumerate(zip(cases, pool.map(inspect, cases)), start=1):
            problems += result.problems
            for path, digest in result.digests:
                digests[digest].append((case, path))
            if progress is not None:
                progress(done, len(cases), case.id)
    return problems + _duplicates(digests.values(), elements)


def digest(array: np.ndarray) -> bytes:
    """Equal for equal values on an equal grid."""
    state = blake2b(repr((array.shape, array.dtype.str)).encode(), digest_size=16)
    state.update(np.ascontiguousarray(array.T))
    return state.digest()


def error_of(case_id: str, error: DataError) -> Problem:
    """An error as a problem of a case."""
    return Problem(case_id, Path(error.where), str(error), "error")


def with_remedy(error: DataError, remedy: str) -> DataError:
    """The same error with another advice."""
    return DataError(error.where, found=error.found, expected=error.expected, remedy=remedy)


def side_by_side(rows: Iterable[tuple[str, str]]) -> str:
    """Rows of (expected, found) in two columns of less than 100 characters."""
    rows = [("expected", "found"), ("-" * _WIDTH, "-" * _WIDTH), *rows]
    return "\n".join(f"{_clip(left):{_WIDTH}} | {_clip(right)}".rstrip() for left, right in rows)


def listing(folder: Path, limit: int) -> list[str]:
    """Up to `limit` lines for what lies in a folder and in the folders inside it."""
    lines = [f"{folder.name}/"]
    for path in entries(folder):
        lines.append(f"  {path.name}/" if path.is_dir() else f"  {path.name}")
        if path.is_dir():
            lines += [f"    {inside.name}" for inside in entries(path)]
        if len(lines) > limit:
            return [*lines[: limit - 1], "  ..."]
    return lines if len(lines) > 1 else [*lines, "  (empty)"]


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without hidden files."""
    paths = sorted(folder.iterdir())
    # Archives made on a Mac carry a hidden ._x.nii.gz beside every x.nii.gz.
    return [path for path in paths if not path.name.startswith((".", "__MACOSX"))]


def plural(count: int, noun: str) -> str:
    """1 case, 2 cases."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _duplicates(groups: Iterable[list[tuple[Case, Path]]], elements: str) -> list[Problem]:
    """One warning per pair of cases, or of files of one case, with equal contents."""
    pairs = defaultdict(list)
    for (first, path), *others in groups:
        for other, copy in others:
            pairs[first.id, other.id].append((path, copy))
    problems = []
    for (first, other), files in pairs.items():
        path, copy = files[0]
        more = f" (and {len(files) - 1} more files)" if len(files) > 1 else ""
        text = f"{copy}: found the {elements} of {path}{more}, expected other {elements} in each "
        text += "file. "
        text += "Keep one of the two cases." if first != other else "Fetch the case again."
        problems.append(Problem(other, copy, text, "warning"))
    return problems


def _clip(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH // 2 - 2]}...{text[1 - _WIDTH // 2 :]}"


def _count_cases(cases: Sequence[Case]) -> str:
    counts = Counter(case.dataset for case in cases)
    labelled = sum(case.labels is not None for case in cases)
    listed = [f"{dataset} {counts[dataset]}" for dataset in sorted(counts)]
    listed.append(f"{labelled} with a segmentation")
    return f"{plural(len(cases), 'complete case')} ({', '.join(listed)})"
