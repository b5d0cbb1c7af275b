"""A process that is measured: it answers requests, so that several can take turns.

Imported by the benchmarks that compare two environments, which cannot be in one process.
"""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

THREADS = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)


class Worker:
    """A script in an interpreter of its own; a line of JSON for each request and each answer."""

    def __init__(
        self, python: str, script: str, *options: str, one_thread: bool, backend: str = ""
    ) -> None:
        """Start the script with `options`, and with --one-thread if so asked.

        Args:
            python: the interpreter.
            script: the file.
            options: of its command line.
            one_thread: whether libraries compute on one thread.
            backend: of Keras; without one, the default.
        """
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        paths = [str(Path(script).resolve().parents[1]), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        if backend:
            environment["KERAS_BACKEND"] = backend
        command = [python, "-W", "ignore", script, *options]
        if one_thread:
            command.append("--one-thread")
            environment |= dict.fromkeys(THREADS, "1")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **request: Any) -> Any:
        """The answer to a request."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{request}: the process ended, expected an answer.")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def in_turns(askers: Sequence[Callable[[], Any]], number: int) -> list[Any]:
    """The answers of some functions, called forwards in odd rounds and backwards in even ones."""
    step = 1 if number % 2 else -1
    return [ask() for ask in askers[::step]][::step]
