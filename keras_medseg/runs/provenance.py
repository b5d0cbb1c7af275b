"""The origin of the numbers of a run: provenance.json, to which every command adds an entry."""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import keras
import psutil

from keras_medseg import progress
from keras_medseg.files import write_json
from keras_medseg.runs.repetitions import Finished
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort

try:
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]

PACKAGES = ("keras", "tensorflow", "jax", "numpy", "scipy", "nibabel", "pandas", "keras_medseg")


@contextmanager
def recorded(
    run: RunFolder,
    cohort: Cohort,
    *,
    profile: str,
    seed: int,
    command: str,
    used: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Write provenance.json before the work and again, with time and memory, after it.

    A resumed run has one entry per command; the entry of a killed command has no `seconds`. What
    the work adds to the entry that it is given is written with it.
    """
    earlier = run.provenance()["commands"] if run.provenance_file.exists() else []
    mine: dict[str, Any] = {
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": None,
        **_machine(),
        **({"each_training_on": list(used)} if used else {}),
    }
    content = {
        **_of_cases(cohort),
        "profile": profile,
        "seed": seed,
        "commands": [*earlier, mine],
    }
    write_json(run.provenance_file, content)
    started = time.monotonic()
    try:
        yield mine
    finally:
        mine |= {"seconds": round(time.monotonic() - started, 1), **peak_memory_gb()}
        write_json(run.provenance_file, content | _training_time(run) | _initial(run))


def gather(run: RunFolder, done: Finished) -> dict[str, Any]:
    """The provenance of a run; of one with several trainings it is written from theirs.

    What the commands of a training ran on stands in the provenance.json of its own folder.
    """
    if done.parts == (run,):
        return run.provenance()
    brief = ("command", "started", "seconds")
    commands = [
        {"training": part.path.name, **{name: entry.get(name) for name in brief}}
        for part in done.parts
        for entry in part.provenance()["commands"]
    ]
    content = {
        **_of_cases(done.cohort),
        **({"folds": done.folds} if done.folds else {}),
        "seeds": list(done.seeds),
        "profile": run.run["profile"],
        "commands": commands,
        **_training_time(run),
    }
    write_json(run.provenance_file, content)
    return content


def _of_cases(cohort: Cohort) -> dict[str, Any]:
    return {
        "data_name": cohort.name,
        "data_fingerprint": cohort.store.fingerprint,
        "training_cases": len(cohort.training),
        "validation_cases": list(cohort.validation),
        **({"test_cases": list(cohort.test)} if cohort.test else {}),
    }


def _training_time(run: RunFolder) -> dict[str, Any]:
    seconds = sum(float(log["seconds"].sum()) for log in run.logs().values())
    return {"training_seconds": seconds, "training_time": progress.duration(seconds)}


def _initial(run: RunFolder) -> dict[str, Any]:
    """What networks took from other weights; nothing where all were drawn at random."""
    found = run.initial()
    return {"init": found} if found else {}


def peak_memory_gb() -> dict[str, float]:
    """Peak resident memory so far, of this process and of the largest decoding process."""
    if resource is None:  # Windows, which does not tell it of processes that have ended
        peak_bytes = psutil.Process().memory_info().peak_wset
        return {"peak_memory_gb_main": round(peak_bytes / 1e9, 2)}
    scale = 1 if platform.system() == "Darwin" else 1024
    who = {"main": resource.RUSAGE_SELF, "decoding": resource.RUSAGE_CHILDREN}
    found = {name: resource.getrusage(of).ru_maxrss * scale / 1e9 for name, of in who.items()}
    return {f"peak_memory_gb_{name}": round(value, 2) for name, value in found.items()}


def _machine() -> dict[str, Any]:
    return {
        "backend": keras.backend.backend(),
        "devices": devices(),
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def devices() -> list[str]:
    """Names of the devices that the backend sees: its GPUs, otherwise "CPU"."""
    found = _SEEN[keras.backend.backend()]()
    return [name for name in found if not name.startswith("cpu")] or ["CPU"]


def _seen_by_tensorflow() -> list[str]:
    import tensorflow as tf  # noqa: PLC0415 - not installed beside other backends

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [gpu.get("device_name", "GPU") for gpu in details]


def _seen_by_torch() -> list[str]:
    import torch  # noqa: PLC0415 - not installed beside other backends

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


_SEEN = {
    "tensorflow": _seen_by_tensorflow,
    "jax": keras.distribution.list_devices,
    "torch": _seen_by_torch,
}
"""Backend -> what it calls its devices."""


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # the backend is not installed, or the package is used from a checkout
    return found
