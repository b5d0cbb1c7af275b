"""Run a function on many cases, in processes that end with their parent, or on a cluster."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from typing import TypeVar

from keras_medseg.cluster import Cluster
from keras_medseg.data.cases import Case
from keras_medseg.errors import DataError

T = TypeVar("T")
Results = Generator[tuple[Case, T | Exception], None, None]


def decode_all(
    decode: Callable[[Case], T],
    cases: Sequence[Case],
    workers: int | Cluster,
    *,
    fatal: type[Exception],
) -> Results[T]:
    """Call `decode` on every case, each in one of up to `workers` processes, or in a task.

    Close the generator if it is not used to its end (`contextlib.closing`), so that no worker keeps
    running.

    Args:
        decode: must be picklable if there is more than one worker.
        cases: at least one.
        workers: with 1, everything runs in this process; a cluster has a task for each case.
        fatal: type of error that stops all decoding.

    Yields:
        (case, result or error) for each case, in the order in which they finish.

    Raises:
        DataError: a worker was killed, most likely because it used too much memory.
    """
    if isinstance(workers, Cluster):
        return _unless_fatal(workers.results(decode, cases), fatal)
    if min(workers, len(cases)) > 1:
        return _in_processes(decode, cases, workers, fatal)
    return _in_turn(decode, cases, fatal)


def refuse_unguarded_script() -> None:
    """Refuse to run in a worker that is only importing its parent's script.

    A worker imports the script that started it. Without a guard around the script's main part the
    worker would prepare the store again and wait forever for its own parent.

    Raises:
        RuntimeError: saying where the guard belongs.
    """
    # The attribute that multiprocessing itself looks at.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "prepare: found a script that prepares a store on import, expected its main part "
            "under `if __name__ == '__main__':`. Put it there."
        )


def _unless_fatal(results: Results[T], fatal: type[Exception]) -> Results[T]:
    with closing(results):
        for case, result in results:
            if isinstance(result, fatal):
                raise result
            yield case, result


def _in_turn(
    decode: Callable[[Case], T], cases: Sequence[Case], fatal: type[Exception]
) -> Results[T]:
    for case in cases:
        result: T | Exception
        try:
            result = decode(case)
        except fatal:
            raise
        except Exception as error:
            result = error
        yield case, result


def _in_processes(
    decode: Callable[[Case], T], cases: Sequence[Case], workers: int, fatal: type[Exception]
) -> Results[T]:
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(cases)), spawn, initializer=_start_worker)
    pending = {pool.submit(decode, case): case for case in cases}
    try:
        for future in as_completed(list(pending)):
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                raise _worker_died(list(pending.values())[: workers + 1]) from error
            if isinstance(error, fatal):
                raise error
            case = pending.pop(future)
            yield case, error if isinstance(error, Exception) else future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _worker_died(suspects: Sequence[Case]) -> DataError:
    return DataError(
        ", ".join(case.id for case in suspects),
        found="a process that was killed while it decoded one of these cases",
        expected="it to finish",
        remedy="Most often memory ran out: use fewer workers; finished cases are kept.",
    )


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Show a warning about a file as one line, without the path and source line of this module.
    warnings.formatwarning = lambda message, *_: f"{message}\n"
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    # Without this, the workers of a killed parent would wait for work forever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
