"""Break each statement that a ledger calls exact or equivalent, and see whether its tests notice.

    make mutations [PAPER=dcabes2020]
    python -m experiments.mutations [PAPER ...] [--entry ID] [--sample N --seed S]

Every such entry, and some of the others, has a mutation in `experiments/<paper>/mutations.py`: a
few lines that put the neighboring wrong reading in the place of the right one, in memory. The
entry's tests run with it in a process of their own and at least one must fail ("killed"); they run
without it as well, because a test that fails anyway proves nothing ("broken"). One entry by hand,
as a pytest plugin:

    KERAS_MEDSEG_MUTATION=dcabes2020:cbam-place python -m pytest -p experiments.mutations tests/...
"""

import argparse
import ast
import contextlib
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAPERS = sorted(path.parent.name for path in Path(__file__).parent.glob("*/mutations.py"))
PROVED = ("exact", "equivalent")  # statuses of a ledger that claim fidelity
FIELDS_TEST = "tests/papers/test_ledgers.py::test_every_entry_is_proved_by_a_field_or_a_test"
VARIABLE = "KERAS_MEDSEG_MUTATION"
LONGEST_S = 300  # of one entry's tests; a mutation may make them run for ever
PROCESSES = 2

Mutation = Callable[[pytest.MonkeyPatch], None]


class Entry(NamedTuple):
    """An entry of a ledger with a mutation, and the tests that prove it.

    Tests are written as in the ledger, file::function, of all parameters and whichever class.
    """

    paper: str
    id: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        """As the environment variable has it."""
        return f"{self.paper}:{self.id}"


@dataclass(frozen=True)
class Outcome:
    """What the tests of an entry did.

    Attributes:
        failed: node id -> first line of the reason, of the tests that failed.
        passed: node ids of the tests that passed.
        trouble: why there is no result; "" if there is one.
    """

    failed: dict[str, str] = field(default_factory=dict)
    passed: tuple[str, ...] = ()
    trouble: str = ""


# For experiments/<paper>/mutations.py


def collector(into: dict[str, Mutation]) -> Callable[[Mutation], Mutation]:
    """A decorator that files a mutation under its entry's id: `cbam_place` under "cbam-place".

    An underscore at the end, where the name would hide an import, does not count.
    """

    def collect(mutation: Mutation) -> Mutation:
        entry = mutation.__name__.rstrip("_").replace("_", "-")
        if entry in into:
            raise ValueError(f"mutations: found {entry} twice, expected one mutation an entry.")
        into[entry] = mutation
        return mutation

    return collect


def substitute(patch: pytest.MonkeyPatch, old: Callable, new: Callable) -> None:
    """Put `new` wherever loaded modules of ours hold the function or class `old`.

    Their tables, which are dictionaries at the top of a module, are searched as well. `new` keeps
    the name and the signature of `old`, from which options are read.

    Raises:
        LookupError: no module holds `old`, so that nothing would be broken.
    """
    if not isinstance(old, type):
        new = wraps(old)(new)
    found = 0
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in ("keras_medseg", "experiments"):
            continue
        for key, value in list(vars(module).items()):
            if value is old:
                patch.setattr(module, key, new)
                found += 1
            elif isinstance(value, dict) and not key.startswith("__"):
                for inner in [k for k, v in value.items() if v is old]:
                    patch.setitem(value, inner, new)
                    found += 1
    if not found:
        raise LookupError(f"{old}: found in no module, expected to replace it somewhere.")


def clip_probabilities(patch: pytest.MonkeyPatch) -> None:
    """Have losses from logits clip the probabilities at 1e-7, as Keras 2.2.4 does."""
    import keras

    from keras_medseg import losses

    likelihood = losses._log_likelihood

    def clipped(
        y_true: Any, y_pred: Any, epsilon: float = losses.EPSILON, from_logits: bool = False
    ) -> Any:
        y_pred = keras.ops.sigmoid(y_pred) if from_logits else y_pred
        return likelihood(y_true, y_pred, epsilon)

    substitute(patch, likelihood, clipped)


def set_field(patch: pytest.MonkeyPatch, paper: str, changes: dict[str, Any]) -> None:
    """Change fields of a paper's recipe, in its module and in the experiments declared there."""
    from keras_medseg import recipe
    from keras_medseg.runs.experiment import Experiment

    module = importlib.import_module(f"experiments.{paper}.recipe")
    original = module.RECIPE
    changed = recipe.override(original, changes)
    patch.setattr(module, "RECIPE", changed)
    for key, value in list(vars(module).items()):
        if isinstance(value, Experiment) and value.recipe is original:
            patch.setattr(module, key, replace(value, recipe=changed))


# The pytest plugin

_APPLIED = pytest.MonkeyPatch()


def pytest_configure(config: pytest.Config) -> None:
    """Apply the mutation that the environment names, before any test is imported."""
    if name := os.environ.get(VARIABLE):
        paper, _, entry = name.partition(":")
        mutations(paper)[entry](_APPLIED)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take it back."""
    _APPLIED.undo()


class _Recorder:
    """Keeps what each test did."""

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}
        self.passed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = crash.message if crash else str(report.longrepr)
            self.failed[report.nodeid] = (text.strip().splitlines() or [""])[0]
        elif report.when == "call" and report.passed:
            self.passed.append(report.nodeid)


# The run


def mutations(paper: str) -> dict[str, Mutation]:
    """The mutations of a paper by entry; a ledger that claims nothing needs none."""
    if not (ROOT / "experiments" / paper / "mutations.py").exists():
        return {}
    return importlib.import_module(f"experiments.{paper}.mutations").MUTATIONS


def entries(paper: str) -> list[Entry]:
    """The entries of a paper's ledger with a mutation; their fields are proved by a test as well.

    Raises:
        LookupError: an entry claims fidelity and has no mutation, or a mutation has no entry.
    """
    ledger = tomllib.loads((ROOT / "experiments" / paper / "ledger.toml").read_text())["entry"]
    known = mutations(paper)
    claiming = {entry["id"] for entry in ledger if entry["status"] in PROVED}
    if missing := sorted(claiming - known.keys()):
        raise LookupError(f"{paper}: found no mutation of {', '.join(missing)}, expected one each.")
    if unknown := sorted(known.keys() - {entry["id"] for entry in ledger}):
        raise LookupError(f"{paper}: found no entry {', '.join(unknown)}, expected one a mutation.")
    fields_test = f"{FIELDS_TEST}[{paper}]"
    return [
        Entry(
            paper,
            entry["id"],
            (*entry.get("tests", ()), *((fields_test,) if "fields" in entry else ())),
        )
        for entry in ledger
        if entry["id"] in known
    ]


def run_tests(tests: Sequence[str], mutation: str, *options: str) -> Outcome:
    """Run tests in this process, which must be thrown away afterwards.

    Args:
        tests: as in an `Entry`.
        mutation: name of an entry, or "" for none.
        options: of pytest.
    """
    os.environ[VARIABLE] = mutation
    recorder = _Recorder()
    arguments = [*options, "-q", "-p", "no:cacheprovider", "-p", __spec__.name]
    nodes = [node for test in tests for node in _node_ids(test)]
    code = pytest.main([*arguments, *nodes], plugins=[recorder])
    ended = code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    trouble = "" if ended else f"pytest ended with {pytest.ExitCode(code).name}"
    return Outcome(recorder.failed, tuple(recorder.passed), trouble)


def run_all(jobs: Sequence[tuple[Sequence[str], str]]) -> list[Outcome]:
    """Run each job, its tests and its mutation, in a fork of this process, PROCESSES at a time."""
    outcomes: dict[int, Outcome] = {}
    running: dict[int, tuple[int, Path]] = {}
    waiting = list(enumerate(jobs))
    with tempfile.TemporaryDirectory() as scratch:
        while waiting or running:
            while waiting and len(running) < PROCESSES:
                number, (tests, mutation) = waiting.pop(0)
                path = Path(scratch) / str(number)
                running[_fork(path, tests, mutation)] = number, path
            child, status = os.wait()
            number, path = running.pop(child)
            outcomes[number] = _read(path, status)
    return [outcomes[number] for number in range(len(jobs))]


def _fork(path: Path, tests: Sequence[str], mutation: str) -> int:
    """Start a child whose outcome goes to `path` and what it prints to `path`.log; its id."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    code = 1
    with contextlib.suppress(BaseException):
        signal.alarm(LONGEST_S)
        log = os.open(f"{path}.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        outcome = run_tests(tests, mutation, *(["-x"] if mutation else []))
        path.write_text(json.dumps(vars(outcome)))
        code = 0
    os._exit(code)


def _read(path: Path, status: int) -> Outcome:
    if status == 0:
        return Outcome(**json.loads(path.read_text()))
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return Outcome(trouble=f"ran for more than {LONGEST_S} s")
    log = Path(f"{path}.log")
    last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
    return Outcome(trouble=" ".join(last) or f"ended with status {status}")


def verdict(entry: Entry, mutated: Outcome, clean: Outcome) -> tuple[str, str]:
    """("killed", "survived" or "broken", why)."""
    for test in entry.tests:
        found = [node for node in (*clean.failed, *clean.passed) if _is_of(node, test)]
        failed = [node for node in found if node in clean.failed]
        if failed or not found:
            why = f"{failed[0]} fails" if failed else f"{test} did not run"
            return "broken", f"{why} without the mutation"
    if mutated.trouble:
        return "broken", mutated.trouble
    if mutated.failed:
        node, reason = next(iter(mutated.failed.items()))
        return "killed", f"{node.partition('::')[2]}: {reason}"
    return "survived", ", ".join(entry.tests)


def _is_of(node: str, test: str) -> bool:
    if test.endswith("]"):
        return node == test
    parts = node.partition("[")[0].split("::")
    return f"{parts[0]}::{parts[-1]}" == test


def _node_ids(test: str) -> list[str]:
    """pytest's ids of a ledger's test, whose class the ledger leaves out."""
    file, _, name = test.partition("::")
    body = ast.parse((ROOT / file).read_text()).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    inside = [
        f"{file}::{owner.name}::{name}"
        for owner in classes
        if any(isinstance(node, ast.FunctionDef) and node.name == name for node in owner.body)
    ]
    return inside or [test]


def judge(chosen: Sequence[Entry]) -> list[tuple[str, str]]:
    """The verdict on each entry. Every test runs once without a mutation."""
    by_file: dict[str, dict[str, None]] = {}
    for test in (test for entry in chosen for test in entry.tests):
        by_file.setdefault(test.partition("::")[0], {})[test] = None
    jobs: list[tuple[Sequence[str], str]] = [(list(tests), "") for tests in by_file.values()]
    jobs += [(entry.tests, entry.name) for entry in chosen]
    outcomes = run_all(jobs)
    clean = Outcome({}, ())
    for outcome in outcomes[: len(by_file)]:
        clean = Outcome(clean.failed | outcome.failed, (*clean.passed, *outcome.passed))
    return [
        verdict(entry, mutated, clean) for entry, mutated in zip(chosen, outcomes[len(by_file) :])
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every mutation was killed, 1 when one survived, or when its tests are broken."""
    parser = argparse.ArgumentParser(prog="python -m experiments.mutations", description=__doc__)
    papers = f"some of {', '.join(PAPERS)}; without it all"
    parser.add_argument("papers", nargs="*", metavar="PAPER", help=papers)
    parser.add_argument("--entry", action="append", help="only the entries with this id")
    parser.add_argument("--sample", type=int, help="only so many entries, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.papers) - set(PAPERS):
        parser.error(f"found {', '.join(sorted(unknown))}, expected some of {', '.join(PAPERS)}")
    os.chdir(ROOT)  # node ids count from there
    started = time.monotonic()
    _import_frameworks()
    chosen = [entry for paper in arguments.papers or PAPERS for entry in entries(paper)]
    if arguments.entry:
        chosen = [entry for entry in chosen if entry.id in arguments.entry]
    if arguments.sample is not None:
        count = min(arguments.sample, len(chosen))
        chosen = random.Random(arguments.seed).sample(chosen, count)
    verdicts = judge(chosen)
    for entry, (word, why) in zip(chosen, verdicts):
        print(f"{word:9}{entry.name}  {why}")
    _print_counts(chosen, [word for word, _ in verdicts])
    print(f"{time.monotonic() - started:.0f} s")
    return int(any(word != "killed" for word, _ in verdicts))


def _print_counts(chosen: Sequence[Entry], words: Sequence[str]) -> None:
    print(f"\n{'':14}killed  survived  broken")
    for paper in dict.fromkeys(entry.paper for entry in chosen):
        found = [word for entry, word in zip(chosen, words) if entry.paper == paper]
        counts = [found.count(word) for word in ("killed", "survived", "broken")]
        print(f"{paper:14}{counts[0]:6}{counts[1]:10}{counts[2]:8}")


def _import_frameworks() -> None:
    """What every fork needs. TensorFlow may be imported before a fork, but not used."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    importlib.import_module("keras")
    importlib.import_module("keras_medseg.runs.experiment")


if __name__ == "__main__":
    sys.exit(main())
