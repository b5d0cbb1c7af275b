"""Several processes, on one host or many, that train one network together: on JAX.

Each is started with the same command but for its number. They meet at the coordinator, which is
process 0; it alone writes. All see the same folders under the same paths.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_medseg.cluster import exit_with_parent

SILENT_SECONDS = 15
"""A process that gave no sign for so long is taken for dead; the others end."""
_JAX_SECONDS = 30
"""After which JAX itself ends all processes, without saying which one is dead."""
_SUPERVISED = "KERAS_MEDSEG_SUPERVISED"
_DAYS_MS = 30 * 24 * 3600 * 1000


@dataclass(frozen=True)
class Hosts:
    """The processes of a training.

    Attributes:
        coordinator: HOST:PORT of process 0.
        processes: their number.
        process: that of this one, from 0.
    """

    coordinator: str
    processes: int
    process: int
    _met: list[str] = field(default_factory=list, compare=False, repr=False)
    # A list, because the class is frozen.
    _watching: list[threading.Thread] = field(default_factory=list, compare=False, repr=False)
    _ended: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def __post_init__(self) -> None:
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(
                f"--coordinator: found {self.coordinator!r}, expected HOST:PORT of process 0."
            )
        if not 0 <= self.process < self.processes:
            raise ValueError(
                f"--process: found {self.process} of {self.processes}, expected 0 to "
                f"{self.processes - 1}."
            )

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.process == 0

    def join(self, local_devices: int | None) -> None:
        """Meet the other processes, and from then on watch that they live.

        Args:
            local_devices: of each process; None for all that it sees.
        """
        import jax  # noqa: PLC0415 - not installed beside other backends

        jax.distributed.initialize(
            self.coordinator,
            self.processes,
            self.process,
            local_device_ids=None if local_devices is None else range(local_devices),
            heartbeat_timeout_seconds=_JAX_SECONDS,
            cluster_detection_method="deactivate",
        )
        self._watching.append(threading.Thread(target=self._watch, daemon=True))
        self._watching[0].start()

    def meet(self, place: str) -> None:
        """Wait until all processes have come to this place, however long it takes."""
        self._met.append(place)
        _client().wait_at_barrier(f"{len(self._met)} {place}", _DAYS_MS)

    def part(self) -> None:
        """Wait until all processes are done, and stop watching them.

        A watch that went on while Python ends would meet the client that JAX has closed, and abort.
        """
        self.meet("end")
        self._ended.set()
        for thread in self._watching:
            thread.join()

    def agree(self, what: str, found: str) -> None:
        """Check that all processes found the same as process 0.

        Raises:
            ValueError: this one found something else.
        """
        key = f"{len(self._met)} {what}"
        if self.first:
            _client().key_value_set(key, found)
        expected = _client().blocking_key_value_get(key, _DAYS_MS)
        if found != expected:
            raise ValueError(
                f"{what}: process {self.process} found {found}, expected {expected}, as process 0. "
                "All processes need the same folders."
            )
        self.meet(what)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Wait for what `_watch` finds out, when a step fails because a process is gone."""
        try:
            yield
        except RuntimeError:
            time.sleep(SILENT_SECONDS + 5)
            raise

    def _watch(self) -> None:
        """Give signs of life, look for those of the others, and end this process without them."""
        client, me = _client(), f"{socket.gethostname()}, process id {os.getpid()}"
        client.key_value_set(f"name/{self.process}", me)
        heard: dict[int, tuple[str | None, float]] = {}
        beat = 0
        while not self._ended.is_set():
            client.key_value_set(f"alive/{self.process}", str(beat), allow_overwrite=True)
            for other in {*range(self.processes)} - {self.process}:
                sign, now = _look(client, f"alive/{other}"), time.monotonic()
                known, since = heard.setdefault(other, (sign, now))
                if sign != known:
                    heard[other] = (sign, now)
                elif now - since > SILENT_SECONDS:
                    name = _look(client, f"name/{other}") or "never seen"
                    _end(f"process {other} ({name}) gave no sign for {SILENT_SECONDS} s")
            beat += 1
            self._ended.wait(1)


def supervise() -> int | None:
    """Run this command in a child and say why it ended; None in the child, which goes on.

    When process 0 dies, JAX aborts the others at once, before they can say anything.
    """
    if os.environ.get(_SUPERVISED):
        exit_with_parent()
        return None
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        stdin=subprocess.PIPE,
        env={**os.environ, _SUPERVISED: "1"},
        start_new_session=True,  # a Ctrl-C comes through this process alone
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: child.send_signal(number))
    code = child.wait()
    if code == -signal.SIGABRT:
        _say("process 0, the coordinator, is gone (or JAX failed; see above)")
    return 128 - code if code < 0 else code


def _say(what: str) -> None:
    text = f"{what}. The same command in all processes goes on from the last epoch."
    sys.stderr.write(f"\nkeras-medseg: {text}\n")
    sys.stderr.flush()


def _end(what: str) -> None:
    _say(what)
    os._exit(1)


def _look(client: Any, key: str) -> str | None:
    try:
        return client.key_value_try_get(key)
    except Exception:  # JAX's own for a key that is not there
        return None


def _client() -> Any:
    from jax._src import distributed  # noqa: PLC0415 - JAX has no public name for it

    return distributed.global_state.client


def of_arguments(
    coordinator: str | None, processes: int | None, process: int | None
) -> Hosts | None:
    """The processes that three options of the command line name; None without them.

    Raises:
        ValueError: one of them is missing or out of range, or another backend.
    """
    given = (coordinator, processes, process)
    if given == (None, None, None):
        return None
    if coordinator is None or processes is None or process is None:
        raise ValueError(
            "--coordinator, --processes, --process: found some of them, expected all three or none."
        )
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"--coordinator: found the backend {keras.backend.backend()}, expected jax, which "
            "trains on several hosts. Set KERAS_BACKEND=jax."
        )
    return Hosts(coordinator, processes, process)
