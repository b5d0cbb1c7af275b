"""Independent work on a Dask cluster: cases to decode, predict or score, trainings of a run.

A task is a plain function of what is on disk, and leaves its files where the same function leaves
them without a cluster. So Dask may run it again: where a worker was killed, its unfinished part is
lost and nothing else. All workers see the same folders under the same paths.
"""

import importlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from keras_medseg import __version__
from keras_medseg.errors import DataError

if TYPE_CHECKING:
    import distributed

Item = TypeVar("Item")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)

GPU = "GPU"
"""A worker that was started with `--resources GPU=1` runs one task with networks at a time."""
_LOOK_SECONDS = 0.1
_SAY_SECONDS = 30.0


@dataclass(frozen=True)
class Cluster:
    """A Dask cluster.

    Attributes:
        client: of its scheduler.
        address: as the user named it.
    """

    client: "distributed.Client"
    address: str

    def results(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        networks: bool = False,
        watch: Callable[[], None] = lambda: None,
    ) -> Generator[tuple[Item, Result | Exception], None, None]:
        """Call `function` on every item, each in a task; close the generator to cancel the rest.

        Args:
            function: can be pickled, and may be called again on the same item.
            items: can be pickled.
            networks: whether tasks run networks, which need a GPU on workers that have some.
            watch: called several times a second while no task finishes.

        Yields:
            (item, result or error) in the order in which tasks finish. A task is an error, too, if
            several workers were killed while they ran it.

        Raises:
            DataError: the scheduler is lost.
        """
        futures = self.client.map(
            _task,
            list(items),
            function=function,
            version=__version__,
            pure=False,
            resources={GPU: 1} if networks and self._has(GPU) else None,
        )
        waiting = dict(zip(futures, items))
        try:
            for future in self._finished(futures, watch):
                yield waiting.pop(future), self._result(future)
        finally:
            if waiting:
                self.client.cancel(list(waiting))

    def _finished(
        self, futures: Sequence["distributed.Future"], watch: Callable[[], None]
    ) -> Iterator["distributed.Future"]:
        from distributed import as_completed  # noqa: PLC0415 - an extra

        left, said = as_completed(futures), time.monotonic()
        while not left.is_empty():
            if left.has_ready():
                yield next(left)
                continue
            time.sleep(_LOOK_SECONDS)
            watch()
            if time.monotonic() - said > _SAY_SECONDS:
                said = time.monotonic()
                if not self._workers():
                    _log.warning("%s: waiting for a worker.", self.address)

    def _result(self, future: "distributed.Future") -> Any:
        from distributed import KilledWorker  # noqa: PLC0415 - an extra

        try:
            error = future.exception()
        except (CancelledError, TimeoutError) as lost:
            raise DataError(
                self.address,
                found="a scheduler that no longer answers",
                expected="one that runs until the end",
                remedy="Start it again, then give the same command: it does what is left.",
            ) from lost
        if isinstance(error, KilledWorker):
            return DataError(
                self.address,
                found=f"a task at which {error.allowed_failures + 1} workers were killed",
                expected="workers that finish it",
                remedy="Most often memory ran out: give workers more of it.",
            )
        return future.result() if error is None else error

    def _has(self, resource: str) -> bool:
        return any(worker.get("resources", {}).get(resource) for worker in self._workers())

    def _workers(self) -> list[dict[str, Any]]:
        return list(self.client.scheduler_info(n_workers=-1)["workers"].values())


@contextmanager
def connected(address: str | None) -> Iterator[Cluster | None]:
    """The cluster of --scheduler; None without it, for processes of this machine.

    Args:
        address: of a scheduler that runs, such as tcp://host:8786; a file that ends in .json and
            names it (`dask scheduler --scheduler-file`); or local:N for N processes of this
            machine, which end with this command.

    Raises:
        ImportError: Dask is not installed.
        DataError: no scheduler answers.
        ValueError: another form.
    """
    if address is None:
        yield None
        return
    try:
        import distributed  # noqa: PLC0415 - an extra
    except ImportError as error:
        text = "found no Dask, which --scheduler needs. pip install 'keras_medseg[cluster]'"
        raise ImportError(f"--scheduler: {text}") from error
    kind, _, count = address.partition(":")
    if kind == "local" and not (count.isdecimal() and int(count)):
        raise ValueError(f"--scheduler: found {address!r}, expected local:N, such as local:2.")
    if kind == "local":
        with (
            _quiet(),
            distributed.LocalCluster(
                n_workers=int(count),
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                memory_limit=0,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield Cluster(client, address)
        return
    where = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    try:
        client = distributed.Client(**where)
    except (OSError, TimeoutError, ValueError) as error:
        raise DataError(
            address,
            found=f"no scheduler that answers ({error})",
            expected="that of a Dask cluster",
            remedy="Start one (dask scheduler), or give --scheduler local:N.",
        ) from error
    with _quiet(), client:
        yield Cluster(client, address)


def _task(item: Item, *, function: Callable[[Item], Result], version: str) -> Result:
    """What a worker calls: `function`, without its progress, which the client shows."""
    if version != __version__:
        raise ValueError(
            f"worker: found keras_medseg {__version__}, expected {version} as at the client. "
            "Install the same version everywhere."
        )
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        return function(item)


def in_process(arguments: Sequence[str], *, module: str) -> dict[str, Any]:
    """Do a task in a process of its own, which ends with the worker, however that ends.

    Initial weights are drawn from the generator of Python's `random`, from which the threads of a
    worker draw as well; and a process that has ended has given its GPU back.

    Args:
        arguments: of the module, which is given one more: a file for its answer, a JSON object with
            "error" or with what is returned.
        module: is run as `python -m`.

    Raises:
        ValueError: what "error" says.
        RuntimeError: the process ended without an answer.
    """
    with tempfile.TemporaryDirectory() as scratch:
        answer, said = Path(scratch) / "answer.json", Path(scratch) / "stderr"
        script = f"from keras_medseg import cluster; cluster.end_with_parent({module!r})"
        with open(said, "wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", script, *arguments, str(answer)],
                stdin=subprocess.PIPE,  # closed when the worker dies
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
            code = process.wait()
        if not answer.exists():
            last = said.read_text(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise RuntimeError(f"its process ended with exit code {code}: {last[0]}")
        found = json.loads(answer.read_text())
    if "error" in found:
        raise ValueError(found["error"])
    return found


def end_with_parent(module: str) -> None:
    """Call `main` of a module with the arguments of this process, until the parent is gone."""
    exit_with_parent()
    importlib.import_module(module).main(*sys.argv[1:])


def exit_with_parent() -> None:
    """End this process when its standard input, a pipe from its parent, is closed."""

    def wait() -> None:
        while os.read(0, 1024):  # past sys.stdin, whose lock would stop the interpreter's exit
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Dask's log of workers that come and go, and its warnings about size."""
    log = logging.getLogger("distributed")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")
            yield
    finally:
        log.setLevel(before)
