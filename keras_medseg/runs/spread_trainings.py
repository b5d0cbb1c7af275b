"""The trainings of a run as tasks of a cluster: one for each variant of each fold and seed."""

import socket
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from keras_medseg.cluster import Cluster, in_process
from keras_medseg.data import store
from keras_medseg.errors import DataError
from keras_medseg.files import locked, write_json
from keras_medseg.progress import progress_bar
from keras_medseg.runs import provenance, steps
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.training import devices

Begun = tuple[RunFolder, dict[str, Any]]
"""The run folder of a training, and its entry in provenance.json."""


Records = dict[str, list[dict[str, Any]]]


class _Task(NamedTuple):
    """What is done in the run folder of a training, all of which is on disk; as `main`."""

    folder: str
    variant: str
    devices: str

    @property
    def name(self) -> str:
        """As the user sees it."""
        return f"{Path(self.folder).name} {self.variant or 'scores'}"


def train_and_score(cluster: Cluster, parts: Sequence[Begun], asked: str) -> None:
    """Train all variants of all parts, then score each part; the entries say where this was done.

    Args:
        cluster: whose workers see the run folders and the store under the same paths.
        parts: run folders that are created, and locked by the caller, with their entries.
        asked: devices of each training, as in `devices.choose`.

    Raises:
        DataError: some tasks failed; the others are done. The message names all.
    """
    records: Records = {
        str(part.path.resolve()): entry.setdefault("tasks", []) for part, entry in parts
    }
    trainings = [
        _Task(folder, name, asked)
        for folder in records
        for name, variant in RunFolder(Path(folder)).variants.items()
        if variant.trained_as == name
    ]
    _run(cluster, "trainings", trainings, records)
    _run(cluster, "scoring", [_Task(folder, "", asked) for folder in records], records)


def _run(cluster: Cluster, title: str, tasks: Sequence[_Task], records: Records) -> None:
    failed, done, epochs = [], 0, _Epochs(tasks)
    perform = partial(in_process, module=__name__)
    with progress_bar(title) as progress:

        def watch() -> None:
            progress(done, len(tasks), *epochs.now())

        with closing(cluster.results(perform, tasks, networks=True, watch=watch)) as results:
            for done, (task, result) in enumerate(results, 1):
                if isinstance(result, Exception):
                    failed.append(f"{task.name}: {result}")
                else:
                    records[task.folder].append(result)
                progress(done, len(tasks), task.name)
    if failed:
        raise DataError(
            cluster.address,
            found=f"{len(failed)} of {len(tasks)} tasks that failed",
            expected="none",
            remedy="Mend these and give the same command again; it does what is left:\n  "
            + "\n  ".join(failed),
        )


class _Epochs:
    """How many epochs of all trainings are done, as their logs on disk say."""

    def __init__(self, tasks: Sequence[_Task]) -> None:
        self.logs: list[Path] = []
        self.total = 0
        for task in tasks:
            if task.variant:
                run = RunFolder(Path(task.folder))
                chosen = run.variant(task.variant).recipe
                for targets in chosen.model.targets:
                    self.logs.append(run.training(task.variant, targets) / "log.csv")
                    self.total += chosen.train.epochs
        self.before = self._done()

    def _done(self) -> int:
        return sum(len(log.read_bytes().splitlines()) - 1 for log in self.logs if log.exists())

    def now(self) -> tuple[str, float | None]:
        """Words, and the share of what was left when the command began; None if nothing was."""
        if not self.total:
            return "", None
        done, left = self._done(), self.total - self.before
        # A damaged checkpoint takes an epoch back.
        share = max(done - self.before, 0) / left if left else None
        return f"{done}/{self.total} epochs", share


def main(folder: str, variant: str, asked: str, answer: str) -> None:
    """What the process of a task does: train a variant, or score all if `variant` is empty.

    Args:
        folder: run folder of the training.
        variant: to train; empty to score.
        asked: devices, as in `devices.choose`.
        answer: file for the answer, see `cluster.in_process`.
    """
    started = time.monotonic()
    run = RunFolder(Path(folder))
    name = f"train {variant}" if variant else "score"
    try:
        # A task whose worker was lost, but not killed, may still run.
        with locked(run.path / "training" / f".{variant or 'scores'}", "does the same"):
            _train(run, variant, asked) if variant else _score(run)
        where = {"host": socket.gethostname(), "devices": provenance.devices()}
        content = {"task": name, **where, "seconds": round(time.monotonic() - started, 1)}
    except (ValueError, OSError, ImportError) as error:
        content = {"error": str(error)}
    write_json(Path(answer), content)


def _train(run: RunFolder, variant: str, asked: str) -> None:
    """Train one variant, in the place where an embedded run trains it."""
    used = devices.choose(asked)
    used.check(run.variant(variant).recipe.train)
    steps.train_variant(run, variant, _cohort(run), devices=used)


def _score(run: RunFolder) -> None:
    """Score all variants of a training, as an embedded run does."""
    run.gather_logs()
    steps.score_variants(run, _cohort(run))


def _cohort(run: RunFolder) -> steps.Cohort:
    """The cases of a run, in a store that the client has verified."""
    facts = run.run
    decoded = store.open_store(Path(facts["store"]), verified=facts["fingerprint"])
    return steps.cohort_of(run, decoded)
