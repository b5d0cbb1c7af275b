"""Decode every case once into memory-mapped arrays that are verified before they are trusted.

A store is a flat folder. Per case it holds `<id>.image.npy`, `<id>.labels.npy` and `<id>.json`,
which is written after the arrays and seals them with their sha256; `manifest.json` is written last
and seals the whole. Whatever is interrupted, missing, damaged or of another version fails its seal
and is decoded again.
"""

import errno
import hashlib
import io
import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_medseg import __version__
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.errors import DataError
from keras_medseg.files import locked, write_atomic

FORMAT = 3
MANIFEST = "manifest.json"

Reader = Callable[[Case], CaseArrays]
Progress = Callable[[int, int, str], None]

_log = logging.getLogger(__name__)
_UNFINISHED = re.compile(r"\..+\.(image\.npy|labels\.npy|json)\.\d+")
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REBUILD = "Prepare the store again: what is sound is kept, the rest is decoded again."


class DiskFullError(DataError):
    """The store does not fit on its disk."""


@dataclass(frozen=True, eq=False)
class StoredCase:
    """One decoded case, cropped to the box outside which image and labels are exactly 0.

    full_shape: (X, Y, Z) of the uncropped grid, in the order of the package's orientation, LPS.
    origin: (x, y, z) of the box's first voxel in that grid.
    image_boxes, label_boxes: per stored slice (x first, x end, y first, y end) of what is not 0 in
        it, counted from `origin`; four zeros for a slice of zeros.
    affine, axis_codes: of the file on disk, as in CaseArrays.
    spacing_mm: voxel size along x, y, z of the stored (LPS) grid.
    statistics: per channel min, max, mean, std over the channel's non-zero voxels.
    voxels_sha256: equal for two cases whose images hold equal voxels (to float32).
    """

    folder: Path
    id: str
    dataset: str
    group: str
    full_shape: tuple[int, int, int]
    origin: tuple[int, int, int]
    image_boxes: tuple[tuple[int, int, int, int], ...]
    label_boxes: tuple[tuple[int, int, int, int], ...] | None
    affine: np.ndarray
    axis_codes: tuple[str, str, str]
    spacing_mm: tuple[float, float, float]
    statistics: tuple[dict[str, float], ...]
    voxels_sha256: str

    @property
    def labelled(self) -> bool:
        """Whether the case has labels."""
        return self.label_boxes is not None

    @cached_property
    def image(self) -> np.ndarray:
        """(Z', X', Y', C), read-only, mapped from disk, in the dtype of the source."""
        return _mapped(self.folder / f"{self.id}.image.npy")

    @cached_property
    def labels(self) -> np.ndarray | None:
        """(Z', X', Y') uint8, read-only, mapped from disk; None for a case without labels."""
        return _mapped(self.folder / f"{self.id}.labels.npy") if self.labelled else None

    def full_image(self) -> np.ndarray:
        """(X, Y, Z, C) voxels as stored on the full grid, LPS."""
        image = np.zeros((*self.full_shape, self.image.shape[-1]), self.image.dtype)
        image[self._box] = np.moveaxis(self.image, 0, 2)
        return image

    def full_labels(self) -> np.ndarray:
        """(X, Y, Z) uint8 canonical labels on the full grid, LPS."""
        labels = np.zeros(self.full_shape, np.uint8)
        labels[self._box] = np.moveaxis(self.labels, 0, 2)
        return labels

    @property
    def _box(self) -> tuple[slice, ...]:
        z, x, y = self.image.shape[:3]
        return tuple(slice(first, first + n) for first, n in zip(self.origin, (x, y, z)))

    def __getstate__(self) -> dict[str, Any]:
        # Pickled to another process, the arrays are mapped there anew.
        return {k: v for k, v in self.__dict__.items() if k not in ("image", "labels")}


class Store:
    """A verified store: `cases` by id, and a `fingerprint` of all their voxels."""

    def __init__(self, folder: Path, entries: dict[str, dict[str, Any]]) -> None:
        self.folder = folder
        self.cases = {id: _stored_case(folder, entries[id]) for id in sorted(entries)}
        contents = [
            [id, entry["full_shape"], entry["origin"]]
            + [file["sha256"] for file in entry["files"].values()]
            for id, entry in sorted(entries.items())
        ]
        self.fingerprint = hashlib.sha256(_canonical(contents)).hexdigest()


def prepare(
    cases: Sequence[Case],
    read: Reader,
    folder: Path | str,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Store:
    """Decode `cases` into the store in `folder` and open it.

    Sound cases from an earlier, perhaps killed, run are kept; a case is decoded again when its
    source files, the reader, the package's version or the store's own files have changed. Other
    cases in the folder are left alone but are not part of the returned store. Two processes may
    prepare one folder at once: the second waits for the first.

    Args:
        read: decodes one case. With more than one worker it is sent to other processes, so it
            must be a module's function, or `functools.partial` of one with options by keyword, and
            a script must guard its main part with
            `if __name__ == "__main__"`.
        workers: processes; by default one per core. Each holds one decoded case in memory.
        progress: called as (done, total, case id) after each case.

    Raises:
        DataError: naming every case that could not be decoded; the others are stored.
        DiskFullError: when the store does not fit.
        ValueError: for case ids that are not unique or not usable as file names.
    """
    folder = Path(folder)
    _refuse_unguarded_script()
    _check_ids(cases)
    with locked(folder, "prepares this store"):
        _remove_unfinished(folder)
        entries: dict[str, dict[str, Any]] = {}
        report = partial(_report, progress, entries, len(cases))
        reader = reader_name(read)
        for case, entry in _in_threads(partial(_sound_entry, folder, reader), cases):
            if entry is not None:
                report(case.id, entry)
        stale = [case for case in cases if case.id not in entries]
        if stale:
            (folder / MANIFEST).unlink(missing_ok=True)
            decode = partial(_decode, read, reader, folder)
            _decode_all(decode, stale, folder, workers or os.cpu_count() or 1, report)
        _write_sealed(folder / MANIFEST, {id: entries[id] for id in sorted(entries)})
    return Store(folder, entries)


def open_store(folder: Path | str) -> Store:
    """Open a prepared store after checking the sha256 of every file.

    Raises:
        DataError: no store, one that was not completed, of another version, or with damaged files
            (all of them named).
    """
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        raise DataError(
            folder,
            found=f"no {MANIFEST}",
            expected="a completed store",
            remedy="Prepare the store; an interrupted preparation goes on where it stopped.",
        )
    entries = _read_sealed(folder / MANIFEST)
    verdicts = _in_threads(partial(_damage, folder), entries.values())
    damaged = [text for _, text in verdicts if text]
    if damaged:
        raise DataError(
            folder, found="; ".join(damaged), expected="files as written", remedy=_REBUILD
        )
    return Store(folder, entries)


def reader_name(read: Reader) -> str:
    """A reader's name; of one with options set, `functools.partial`, those too."""
    if isinstance(read, partial):
        options = ", ".join(f"{key}={value!r}" for key, value in sorted(read.keywords.items()))
        return f"{reader_name(read.func)}({options})"
    return f"{read.__module__}.{read.__qualname__}"


def _refuse_unguarded_script() -> None:
    # A worker imports its parent's script; without a guard it would prepare the store again and
    # wait forever for its own parent. The attribute is what multiprocessing itself looks at.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "prepare: found a script that prepares a store on import, expected its main part "
            "under `if __name__ == '__main__':`. Put it there."
        )


def _check_ids(cases: Sequence[Case]) -> None:
    if not cases:
        raise ValueError("cases: found none, expected at least one.")
    ids = [case.id for case in cases]
    for id in ids:
        if not id or id.startswith(".") or Path(id).name != id:
            raise ValueError(f"case id: found {id!r}, expected a plain file name.")
    if len(set(ids)) < len(ids):
        twice = sorted({id for id in ids if ids.count(id) > 1})
        raise ValueError(f"cases: found {', '.join(twice)} more than once, expected unique ids.")


def _remove_unfinished(folder: Path) -> None:
    """Delete what a killed `write_atomic` left of the store's files, and no other hidden file."""
    for path in folder.glob(".*"):
        if _UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink()


def _report(
    progress: Progress | None,
    entries: dict[str, dict[str, Any]],
    total: int,
    id: str,
    entry: dict[str, Any],
) -> None:
    entries[id] = entry
    if progress:
        progress(len(entries), total, id)


def _in_threads(function: Callable, items) -> Iterator[tuple[Any, Any]]:
    """(item, function(item)) in order; hashing and reading release the interpreter's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        items = list(items)
        yield from zip(items, threads.map(function, items))


# Sealed files


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()


def _write_sealed(path: Path, content: dict[str, Any]) -> None:
    document = {"format": FORMAT, "keras_medseg": __version__, "content": content}
    document["sha256"] = hashlib.sha256(_canonical(document)).hexdigest()
    _write(path, json.dumps(document, allow_nan=False).encode())


def _read_sealed(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        seal = document.pop("sha256")
        version = {key: document[key] for key in ("format", "keras_medseg")}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            path, found="no readable JSON", expected="a sealed file", remedy=_REBUILD
        ) from error
    expected = {"format": FORMAT, "keras_medseg": __version__}
    if version != expected:
        raise DataError(path, found=f"{version}", expected=f"{expected}", remedy=_REBUILD)
    if hashlib.sha256(_canonical(document)).hexdigest() != seal:
        raise DataError(path, found="a wrong sha256", expected=seal, remedy=_REBUILD)
    return document["content"]


def _write(path: Path, content: bytes | memoryview) -> None:
    try:
        write_atomic(path, content)
    except OSError as error:
        if error.errno not in _FULL_DISK:
            raise
        raise _disk_full(path, len(content)) from error


def _disk_full(where: Path, needed: float) -> DiskFullError:
    free = shutil.disk_usage(where if where.is_dir() else where.parent).free
    return DiskFullError(
        where,
        found=f"{free / 1e6:.1f} MB free",
        expected=f"{needed / 1e6:.1f} MB",
        remedy="Free space or put the store on another disk; finished cases are kept.",
    )


def _write_array(path: Path, array: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    content = file.getbuffer()
    _write(path, content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mapped(path: Path) -> np.ndarray:
    # A plain array on the mapping: slicing the memmap subclass costs more than the copy of a row.
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


# What is sound


def _source(case: Case, reader: str) -> dict[str, Any]:
    paths = [*case.images, *([case.labels] if case.labels else [])]
    files = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    return {
        "id": case.id,
        "dataset": case.dataset,
        "group": case.group,
        "reader": reader,
        "files": files,
    }


def _sound_entry(folder: Path, reader: str, case: Case) -> dict[str, Any] | None:
    try:
        entry = _read_sealed(folder / f"{case.id}.json")
        sound = entry["source"] == _source(case, reader) and not _damage(folder, entry)
    except (FileNotFoundError, DataError):
        return None
    return entry if sound else None


def _damage(folder: Path, entry: dict[str, Any]) -> str | None:
    """What is wrong with a case's files, or None."""
    for name, expected in entry["files"].items():
        path = folder / name
        if not path.exists():
            return f"{name}: missing"
        if (size := path.stat().st_size) != expected["bytes"]:
            return f"{name}: {size} bytes instead of {expected['bytes']}"
        if _sha256(path) != expected["sha256"]:
            return f"{name}: wrong sha256"
    return None


def _stored_case(folder: Path, entry: dict[str, Any]) -> StoredCase:
    return StoredCase(
        folder=folder,
        id=entry["source"]["id"],
        dataset=entry["source"]["dataset"],
        group=entry["source"]["group"],
        full_shape=tuple(entry["full_shape"]),
        origin=tuple(entry["origin"]),
        image_boxes=tuple(map(tuple, entry["image_boxes"])),
        label_boxes=entry["label_boxes"] and tuple(map(tuple, entry["label_boxes"])),
        affine=np.array(entry["affine"]),
        axis_codes=tuple(entry["axis_codes"]),
        spacing_mm=tuple(entry["spacing_mm"]),
        statistics=tuple(entry["statistics"]),
        voxels_sha256=entry["voxels_sha256"],
    )


# Decoding


def _decode_all(
    decode: Callable[[Case], dict[str, Any]],
    cases: Sequence[Case],
    folder: Path,
    workers: int,
    report: Callable[[str, dict[str, Any]], None],
) -> None:
    expected = sum(_expected_bytes(case) for case in cases)
    if expected > shutil.disk_usage(folder).free:
        raise _disk_full(folder, expected)
    failures: dict[str, Exception] = {}
    stored_bytes = []
    run = _in_processes if min(workers, len(cases)) > 1 else _in_turn
    # Closed at once, so that no worker writes after an error has released the lock.
    with closing(run(decode, cases, workers)) as results:
        for case, result in results:
            if isinstance(result, Exception):
                failures[case.id] = result
                continue
            report(case.id, result)
            stored_bytes.append(sum(file["bytes"] for file in result["files"].values()))
            remaining = len(cases) - len(stored_bytes) - len(failures)
            if remaining * np.mean(stored_bytes) > shutil.disk_usage(folder).free:
                raise _disk_full(folder, remaining * np.mean(stored_bytes))
    if failures:
        raise _unreadable(folder, failures, len(cases)) from next(iter(failures.values()))


def _expected_bytes(case: Case) -> float:
    # Low on purpose: the first decoded cases give a better figure (BraTS: 3 of .gz, 0.4 of .nii).
    paths = [*case.images, *([case.labels] if case.labels else [])]
    return sum(p.stat().st_size * (2 if p.suffix == ".gz" else 0.2) for p in paths if p.exists())


def _unreadable(folder: Path, failures: dict[str, Exception], total: int) -> DataError:
    texts = [f"{id} ({error})" for id, error in sorted(failures.items())]
    return DataError(
        folder,
        found=f"{len(failures)} of {total} cases that cannot be decoded: {'; '.join(texts)}",
        expected="none",
        remedy="Mend these files or leave the cases out; all other cases are stored.",
    )


def _in_turn(function: Callable, cases: Sequence[Case], workers: int) -> Iterator[tuple]:
    for case in cases:
        try:
            result = function(case)
        except DiskFullError:
            raise
        except Exception as error:
            result = error
        yield case, result


def _in_processes(function: Callable, cases: Sequence[Case], workers: int) -> Iterator[tuple]:
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(cases)), spawn, initializer=_start_worker)
    pending = {pool.submit(function, case): case for case in cases}
    try:
        for future in as_completed(list(pending)):
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                raise _worker_died(list(pending.values())[: workers + 1]) from error
            if isinstance(error, DiskFullError):
                raise error
            yield pending.pop(future), error or future.result()
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
    # What is odd about a file is one line to a user, without this module's path and source.
    warnings.formatwarning = lambda message, *_: f"{message}\n"
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    # Workers of a killed parent would wait for work for ever.
    multiprocessing.parent_process().join()
    os._exit(1)


def _decode(read: Reader, reader: str, folder: Path, case: Case) -> dict[str, Any]:
    """Decode and store one case; its entry, which `<id>.json` seals."""
    source = _source(case, reader)
    arrays = read(case)
    box = _box(case.id, arrays)
    image = np.ascontiguousarray(arrays.image[box].transpose(2, 0, 1, 3))
    statistics = [_statistics(case.id, image[..., c]) for c in range(image.shape[3])]
    files, labels = {f"{case.id}.image.npy": image}, None
    if arrays.labels is not None:
        labels = np.ascontiguousarray(arrays.labels[box].transpose(2, 0, 1))
        files[f"{case.id}.labels.npy"] = labels
    entry = {
        "source": source,
        "files": {name: _write_array(folder / name, array) for name, array in files.items()},
        "full_shape": list(arrays.image.shape[:3]),
        "origin": [side.start for side in box],
        "image_boxes": [_slice_box(voxels.any(axis=2)) for voxels in image],
        "label_boxes": None if labels is None else [_slice_box(codes != 0) for codes in labels],
        "affine": arrays.affine.tolist(),
        "axis_codes": list(arrays.axis_codes),
        "spacing_mm": list(arrays.spacing_mm),
        "statistics": statistics,
        "voxels_sha256": _voxels_sha256(image),
    }
    _write_sealed(folder / f"{case.id}.json", entry)
    return entry


def _box(id: str, arrays: CaseArrays) -> tuple[slice, slice, slice]:
    """The bounding box of everything that is not 0, after checking the arrays."""
    image, labels = arrays.image, arrays.labels
    if image.ndim != 4 or image.dtype.kind not in "iuf":
        raise DataError(
            id,
            found=f"an image of shape {image.shape} and type {image.dtype}",
            expected="(X, Y, Z, C) integers or floats",
            remedy="Mend the reader.",
        )
    if labels is not None and (labels.shape != image.shape[:3] or labels.dtype != np.uint8):
        raise DataError(
            id,
            found=f"labels of shape {labels.shape} and type {labels.dtype}",
            expected=f"{image.shape[:3]} uint8",
            remedy="Mend the reader.",
        )
    occupied = image.any(axis=3)
    if not occupied.any():
        raise DataError(
            id,
            found="an image of zeros",
            expected="non-zero voxels",
            remedy="Leave the case out.",
        )
    if labels is not None:
        occupied |= labels != 0
    sides = (occupied.any(axis=axes).nonzero()[0] for axes in ((1, 2), (0, 2), (0, 1)))
    return tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)


def _slice_box(occupied: np.ndarray) -> list[int]:
    if not occupied.any():
        return [0, 0, 0, 0]
    x, y = (occupied.any(axis=axis).nonzero()[0] for axis in (1, 0))
    return [int(x[0]), int(x[-1]) + 1, int(y[0]), int(y[-1]) + 1]


def _statistics(id: str, channel: np.ndarray) -> dict[str, float]:
    values = channel[channel != 0].astype(np.float64)
    if not values.size:
        return {"min": 0.0, "max": 0.0, "mean": 0.0, "std": 0.0}
    if not np.isfinite(values).all():
        raise DataError(
            id,
            found="voxels that are not finite",
            expected="finite numbers",
            remedy="Mend the file or leave the case out.",
        )
    names = ("min", "max", "mean", "std")
    return {name: float(getattr(values, name)()) for name in names}


def _voxels_sha256(image: np.ndarray) -> str:
    digest = hashlib.sha256(repr(image.shape).encode())
    for voxels in image:
        # One type for all, so that a case saved as int16 and as float32 counts as one; + 0 for -0.
        digest.update(voxels.astype("<f4") + 0)
    return digest.hexdigest()
