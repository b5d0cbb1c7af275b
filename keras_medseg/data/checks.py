"""What all data sets share: searching folders, reading a case, the report of `check`."""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import Literal, TypeVar

import numpy as np

from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.errors import DataError, plural

Progress = Callable[[int, int, str], None]
"""Called with (done, total, case id) after each case."""

S = TypeVar("S")
T = TypeVar("T")

_SEVERITIES: tuple[Literal["error", "warning"], ...] = ("error", "warning")
_WIDTH = 48


# What lies on disk


def require_folder(folder: Path, *, expected: str, remedy: str) -> None:
    """Check that `folder` is a folder.

    Raises:
        DataError: it is a file, or does not exist.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise DataError(folder, found=found, expected=expected, remedy=remedy)


@contextmanager
def readable_folders() -> Iterator[None]:
    """Turn a file-system error into one that names the folder and the remedy.

    Raises:
        DataError: instead of OSError.
    """
    try:
        yield
    except OSError as error:
        found, expected = f"the error {error.strerror!r}", "folders that can be read"
        remedy = "Give yourself the right to read it (chmod u+rx)."
        raise DataError(error.filename, found=found, expected=expected, remedy=remedy) from error


def walk(folder: Path, depth: int) -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder from `folder` on, at most `depth` levels below it, with its contents.

    A folder comes before those inside it, links are followed once, hidden files are left out. As
    with `os.walk`, paths that the caller removes from a list are not entered.
    """
    yield from _walk(folder, depth, set())


def _walk(folder: Path, depth: int, seen: set[str]) -> Iterator[tuple[Path, list[Path]]]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    inside = entries(folder)
    yield folder, inside
    if depth:
        for path in inside:
            if path.is_dir():
                yield from _walk(path, depth - 1, seen)


def entries(folder: Path) -> list[Path]:
    """The contents of a folder, sorted, without hidden files."""
    paths = sorted(folder.iterdir())
    # Archives made on a Mac have a hidden ._x.nii.gz beside every x.nii.gz.
    return [path for path in paths if not path.name.startswith((".", "__MACOSX"))]


def files_below(folder: Path, depth: int) -> list[Path]:
    """All files in a folder and those at most `depth` below it, as `walk` finds them."""
    if not folder.is_dir():
        return []
    return [path for _, inside in walk(folder, depth) for path in inside if not path.is_dir()]


def labelled_cases(folder: Path, cases: Sequence[Case], *, noun: str, labels: str) -> list[Case]:
    """The cases that have labels.

    Args:
        folder: where the cases were found, for the message.
        cases: all of them.
        noun: what a case is called in the message, such as "image".
        labels: what its labels are called, such as "masks".

    Raises:
        DataError: no case has labels.
    """
    labelled = [case for case in cases if case.labels is not None]
    if not labelled:
        raise DataError(
            folder,
            found=f"{plural(len(cases), noun)} without {labels}",
            expected=f"{noun}s with {labels}",
            remedy="Give the folder of the training data, or ask for unlabelled cases.",
        )
    return labelled


def raise_first(folder: Path, errors: Sequence[DataError]) -> None:
    """Raise the first error, if there is one, with a hint on how to see the others.

    Raises:
        DataError: the first of `errors`.
    """
    if errors:
        rest = f"`keras-medseg check {folder}` lists all problems of all cases."
        raise with_remedy(errors[0], f"{errors[0].remedy} {rest}")


def with_remedy(error: DataError, remedy: str) -> DataError:
    """The same error with another remedy."""
    return DataError(error.where, found=error.found, expected=error.expected, remedy=remedy)


def with_trees(error: DataError, trees: str) -> DataError:
    """The same error with the expected tree and the one found below it."""
    return with_remedy(error, f"{error.remedy}\n{trees}")


# What the files hold


@dataclass
class Reading:
    """What could be read of one case, and what is wrong with its files.

    Attributes:
        arrays: the case; None if there are errors.
        labels: (X, Y, Z) uint8 canonical labels, even if the images have errors.
        errors: why the case cannot be used.
        remarks: (file, message) of what is unusual but can be used.
    """

    arrays: CaseArrays | None = None
    labels: np.ndarray | None = None
    errors: list[DataError] = field(default_factory=list)
    remarks: list[tuple[Path, str]] = field(default_factory=list)

    def load(self, read: Callable[[S], T], source: S) -> T | None:
        """`read(source)`; None if it raised a DataError, which is then added to the errors."""
        try:
            return read(source)
        except DataError as error:
            self.errors.append(error)
            return None

    def result(self, category: type[Warning]) -> CaseArrays:
        """The arrays, after one warning of this category per remark.

        Raises:
            DataError: the first of the errors.
        """
        if self.errors:
            raise self.errors[0]
        for _, remark in self.remarks:
            warnings.warn(remark, category, stacklevel=3)
        assert self.arrays is not None  # otherwise `errors` is not empty
        return self.arrays

    def inspection(self, case_id: str, digests: list[tuple[Path, bytes]]) -> "Inspection":
        """The errors and remarks as problems of a case."""
        problems = [error_of(case_id, error) for error in self.errors]
        problems += [Problem(case_id, path, text, "warning") for path, text in self.remarks]
        return Inspection(problems, digests)


def digest(array: np.ndarray) -> bytes:
    """A digest that is equal for equal values on an equal grid."""
    state = blake2b(repr((array.shape, array.dtype.str)).encode(), digest_size=16)
    state.update(np.ascontiguousarray(array.T).data)
    return state.digest()


# The report


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one case."""

    case_id: str
    path: Path
    message: str
    severity: Literal["error", "warning"]


@dataclass(frozen=True)
class Inspection:
    """The problems found by reading one case.

    Attributes:
        problems: of this case.
        digests: (file, digest), one for each array that two cases must not share.
    """

    problems: list[Problem]
    digests: list[tuple[Path, bytes]]


@dataclass(frozen=True)
class CheckReport:
    """What `check` found.

    Attributes:
        folder: the folder that was checked.
        cases: those with all their files.
        problems: of all cases.
        trees: the expected folder tree beside the one found.
    """

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
            lines += wrap(
                text,
                100,
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        counts = Counter(problem.severity for problem in self.problems)
        lines.append(", ".join(plural(counts[severity], severity) for severity in _SEVERITIES))
        return "\n".join(lines)


def inspect_all(
    cases: Sequence[Case],
    inspect: Callable[[Case], Inspection],
    *,
    elements: str,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Problem]:
    """The problems of all cases, read on several threads; two equal cases are a problem, too.

    Args:
        cases: the cases to read.
        inspect: reads one case completely.
        elements: "voxels" or "pixels", for the messages.
        workers: cases read at once; by default one per core, at most 8.
        progress: called with (done, total, case id) after each case.
    """
    problems: list[Problem] = []
    digests: dict[bytes, list[tuple[Case, Path]]] = defaultdict(list)
    with ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 8)) as pool:
        for done, (case, result) in enumerate(zip(cases, pool.map(inspect, cases)), start=1):
            problems += result.problems
            for path, digest in result.digests:
                digests[digest].append((case, path))
            if progress is not None:
                progress(done, len(cases), case.id)
    return problems + _duplicates(digests.values(), elements)


def error_of(case_id: str, error: DataError) -> Problem:
    """An error as a problem of a case."""
    return Problem(case_id, Path(error.where), str(error), "error")


def side_by_side(rows: Iterable[tuple[str, str]]) -> str:
    """Rows of (expected, found) in two columns, less than 100 characters wide."""
    rows = [("expected", "found"), ("-" * _WIDTH, "-" * _WIDTH), *rows]
    return "\n".join(f"{_clip(left):{_WIDTH}} | {_clip(right)}".rstrip() for left, right in rows)


def beside_listing(examples: Sequence[str], folder: Path) -> str:
    """The expected files beside those in `folder`, in two columns."""
    found = listing(folder, len(examples)) if folder.is_dir() else []
    return side_by_side(zip_longest(examples, found, fillvalue=""))


def listing(folder: Path, limit: int) -> list[str]:
    """Up to `limit` lines for the contents of a folder and of the folders inside it."""
    lines = [f"{folder.name}/"]
    for path in entries(folder):
        lines.append(f"  {path.name}/" if path.is_dir() else f"  {path.name}")
        if path.is_dir():
            lines += [f"    {inside.name}" for inside in entries(path)]
        if len(lines) > limit:
            return [*lines[: limit - 1], "  ..."]
    return lines if len(lines) > 1 else [*lines, "  (empty)"]


def _duplicates(groups: Iterable[list[tuple[Case, Path]]], elements: str) -> list[Problem]:
    """One warning for each pair of cases, or of files of one case, with equal contents."""
    pairs: dict[tuple[str, str], list[tuple[Path, Path]]] = defaultdict(list)
    for (first, path), *others in groups:
        for other, copy in others:
            pairs[first.id, other.id].append((path, copy))
    problems = []
    for (first_id, other_id), files in pairs.items():
        path, copy = files[0]
        more = f" (and {len(files) - 1} more files)" if len(files) > 1 else ""
        text = f"{copy}: found the {elements} of {path}{more}, expected other {elements} in each "
        text += "file. "
        text += "Keep one of the two cases." if first_id != other_id else "Fetch the case again."
        problems.append(Problem(other_id, copy, text, "warning"))
    return problems


def _clip(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH // 2 - 2]}...{text[1 - _WIDTH // 2 :]}"


def _count_cases(cases: Sequence[Case]) -> str:
    counts = Counter(case.dataset for case in cases)
    labelled = sum(case.labels is not None for case in cases)
    listed = [f"{dataset} {counts[dataset]}" for dataset in sorted(counts)]
    listed.append(f"{labelled} with a segmentation")
    return f"{plural(len(cases), 'complete case')} ({', '.join(listed)})"
