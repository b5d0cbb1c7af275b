"""What this machine has for a run: versions, devices, memory, disk; and what is missing.

Nothing here imports a deep-learning framework at the top, because a broken one must be told.
"""

import os
import platform
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import psutil
from packaging.requirements import Requirement

from keras_medseg.errors import plural
from keras_medseg.files import read_file
from keras_medseg.runs import papers

PACKAGE = "keras_medseg"
_PURPOSE = {
    "cuda": "NVIDIA GPUs",
    "export": "keras-medseg export",
    "notebooks": "the notebooks",
    "docs": "the documentation site",
    "test": "the tests",
    "jax": "the backend JAX",
}
_DRIVER = Path("/proc/driver/nvidia/version")
_CGROUP = Path("/sys/fs/cgroup")
_SMI = ("nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")


def examine(work: Path = Path()) -> dict[str, Any]:
    """Everything that `keras-medseg doctor` tells.

    Args:
        work: the folder whose disk a run would fill.

    Returns:
        versions (package -> version), backend, devices, gpus, machine, disk, papers, and two lists
        of sentences: `missing`, without which commands fail, and `optional`.
    """
    missing, optional, versions = _packages()
    backend, devices, trouble = _backend()
    places = [work.resolve(), *([] if trouble else [_weights_home()])]
    machine = _machine()
    gpus = _gpus()
    if not gpus and _DRIVER.exists():
        optional.append("nvidia-smi: found none beside an NVIDIA driver, expected it on the PATH.")
    if gpus and devices == ["CPU"]:
        optional.append(
            f"GPU: found {plural(len(gpus), 'NVIDIA GPU')} that {backend} does not see, expected "
            f"all. Run: python -m pip install '{PACKAGE}[cuda]'"
        )
    return {
        "versions": {"python": platform.python_version(), **versions},
        "backend": backend,
        "devices": devices,
        "gpus": gpus,
        "machine": machine,
        "disk": {str(place): _free_gb(place) for place in places},
        "papers": _papers(machine["memory_free_gb"]),
        "missing": [*missing, *trouble],
        "optional": optional,
    }


def text(facts: Mapping[str, Any]) -> str:
    """The facts of `examine` as lines for people."""
    machine, versions = facts["machine"], facts["versions"]
    rest = ", ".join(f"{name} {found}" for name, found in versions.items() if name != PACKAGE)
    memory = f"{machine['memory_gb']:.1f} GB of memory, {machine['memory_free_gb']:.1f} GB free"
    lines = [
        f"{PACKAGE} {versions.get(PACKAGE, 'not installed')} on {machine['system']}",
        f"versions   {rest}",
        f"backend    {facts['backend']} on {', '.join(facts['devices']) or 'nothing'}",
        *(
            f"GPU        {gpu['name']}, {gpu['memory_gb']:.1f} GB, {gpu['memory_free_gb']:.1f} GB "
            "free"
            for gpu in facts["gpus"]
        ),
        f"machine    {plural(machine['cores'], 'core')}, {memory}",
        *(f"disk       {free:.1f} GB free for {place}" for place, free in facts["disk"].items()),
        "",
        "What the measured runs of the papers took, and whether their memory is free here:",
        *(_paper_line(run) for run in facts["papers"]),
        "",
        *(f"missing    {sentence}" for sentence in facts["missing"]),
        *(f"optional   {sentence}" for sentence in facts["optional"]),
    ]
    if not facts["missing"]:
        lines.append("Nothing is missing.")
    return "\n".join(lines)


def _paper_line(run: Mapping[str, Any]) -> str:
    needs = f"{run['memory_gb']:g} GB"
    return (
        f"  {run['paper']}, {run['data']}: {run['time']}, {needs} on {run['device']} - "
        f"{'enough' if run['fits'] else 'not enough'}\n    {run['command']}"
    )


def _packages() -> tuple[list[str], list[str], dict[str, str]]:
    """Sentences on packages that are required, and on those of extras; versions of the required."""
    try:
        own = version(PACKAGE)
        listed = [Requirement(line) for line in requires(PACKAGE) or ()]
    except PackageNotFoundError:
        return [f"{PACKAGE}: found no installed package, expected one. Install it."], [], {}
    versions, missing = {PACKAGE: own}, []
    extras: dict[str, list[str]] = {}
    for needed in listed:
        found = _version(needed.name)
        sound = bool(found) and needed.specifier.contains(found, prereleases=True)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            if found:
                versions[needed.name] = found
            if not sound:
                missing.append(
                    f"{needed.name}: found {found or 'none'}, expected {needed.specifier}. Run: "
                    f"python -m pip install '{needed.name}{needed.specifier}'"
                )
        elif not sound:
            for extra in (name for name in _PURPOSE if needed.marker.evaluate({"extra": name})):
                extras.setdefault(extra, []).append(needed.name)
    optional = [
        f"{', '.join(dict.fromkeys(names))} for {_PURPOSE[extra]}: python -m pip install "
        f"'{PACKAGE}[{extra}]'"
        for extra, names in extras.items()
    ]
    return missing, optional, versions


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _backend() -> tuple[str, list[str], list[str]]:
    """Name of the backend, its devices, and what keeps it from starting."""
    chosen = os.environ.get("KERAS_BACKEND", "tensorflow")
    try:
        # Here, because a framework that does not start is what a user asks about.
        from keras_medseg import registry
        from keras_medseg.runs import provenance

        registry.check_versions()
        return provenance.keras.backend.backend(), provenance.devices(), []
    except Exception as error:  # whatever an import of a damaged framework raises
        brief = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return chosen, [], [f"backend {chosen}: found the error {brief}"]


def _machine() -> dict[str, Any]:
    memory = psutil.virtual_memory()
    total, free = _container_limit(memory.total, memory.available)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
        "memory_gb": round(total / 1e9, 1),
        "memory_free_gb": round(free / 1e9, 1),
    }


def _container_limit(total: int, free: int) -> tuple[int, int]:
    """Total and free memory in bytes; in a container with a limit, those of the container."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return total, free
    return min(total, limit), min(free, max(limit - used, 0))


def _gpus() -> list[dict[str, Any]]:
    """NVIDIA GPUs as their driver tells them, whether or not the backend sees them."""
    try:
        done = subprocess.run(_SMI, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in done.stdout.splitlines():
        name, total, free = (cell.strip() for cell in line.rsplit(",", 2))
        sizes = {"memory_gb": total, "memory_free_gb": free}
        mib = {key: round(int(cell) * 2**20 / 1e9, 1) for key, cell in sizes.items()}
        found.append({"name": name, **mib})
    return found


def _weights_home() -> Path:
    from keras_medseg.runs.installed import home

    return home()


def _free_gb(folder: Path) -> float:
    """Free disk for a folder that may not exist yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return round(shutil.disk_usage(there).free / 1e9, 1)


_ANYWHERE = re.compile(r"make reproduce-|python -m experiments ")
"""What begins a command that needs a checkout."""


def _papers(free_gb: float) -> list[dict[str, Any]]:
    """The measured runs of all papers at hand, each with whether its memory is free here."""
    names = ("data", "command", "configuration", "time", "memory_gb", "device")
    remedy = "Install the package again."
    return [
        {
            "paper": path.parent.name,
            **{name: result[name] for name in names},
            "command": _ANYWHERE.sub("keras-medseg reproduce ", result["command"]),
            "fits": result["memory_gb"] <= free_gb,
        }
        for path in sorted(papers.FOLDER.glob("*/metafile.toml"))
        for result in read_file(path, tomllib.loads, remedy).get("results", [])
    ]
