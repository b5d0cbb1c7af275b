"""Decode every case once into memory-mapped arrays that are verified before they are used.

A store is a flat folder. For each case it holds `<id>.image.npy`, `<id>.labels.npy` (for a volume
that was resampled also `<id>.own_labels.npy`) and `<id>.json`, which is written after the arrays
and contains their sha256; `manifest.json` is written last and contains the checksums of all cases.
A case that is incomplete, missing, damaged or of another format fails this verification and is
decoded again.
"""

import dataclasses
import errno
import hashlib
import inspect
import io
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from keras_medseg import __version__
from keras_medseg.cluster import Cluster
from keras_medseg.data.cases import Case, CaseArrays, lps_spacing_mm
from keras_medseg.data.cropping import crop
from keras_medseg.data.decoding import decode_all, refuse_unguarded_script
from keras_medseg.errors import DataError
from keras_medseg.files import (
    is_file,
    is_file_name,
    locked,
    read_bytes,
    sha256_of,
    write_atomic,
)

FORMAT = 5
"""Of a store; docs/versions.md says when it changes."""

MANIFEST = "manifest.json"

Reader = Callable[[Case], CaseArrays]
"""Decodes one case."""

Progress = Callable[[int, int, str], None]
"""Called with (done, total, case id)."""

_Entry = dict[str, Any]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_UNFINISHED = re.compile(r"\..+\.(image\.npy|labels\.npy|own_labels\.npy|json)\.\d+")
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REBUILD = "Prepare the store again: what is sound is kept, the rest is decoded again."


class DiskFullError(DataError):
    """The store does not fit on its disk."""


@dataclass(frozen=True, eq=False)
class StoredCase:
    """One decoded case, cropped to the box outside which image and labels are exactly 0.

    Attributes:
        folder: of the store; None for a case in memory.
        id: from the `Case`, as are `dataset`, `group` and `grade`.
        dataset: name of the data set.
        group: cases of one group stay on one side of a split.
        grade: of the tumor, "HGG", "LGG", or "" where it is not known.
        full_shape: (X, Y, Z) of the uncropped grid, in LPS, the package's orientation.
        source_shape: (X, Y, Z) of the case on disk; it differs from `full_shape` if the reader
            resized the case.
        origin: (x, y, z) of the box's first voxel in the uncropped grid.
        image_boxes: (x first, x end, y first, y end) of the non-zero pixels of each stored slice,
            counted from `origin`; four zeros for a slice of zeros.
        label_boxes: the same for the labels; None for a case without labels.
        affine: (4, 4) voxel -> mm of the file on disk.
        axis_codes: orientation of the file on disk, as in `CaseArrays`.
        forms: orientation fields of the header on disk, as in `CaseArrays`.
        spacing_mm: voxel size along x, y, z of the stored (LPS) grid.
        statistics: min, max, mean and std of each channel over its non-zero voxels.
        voxels_sha256: equal for two cases whose images have equal voxels (as float32).
        in_memory: (image, labels, own_labels) of a case without a folder.
    """

    folder: Path | None
    id: str
    dataset: str
    group: str
    grade: str
    full_shape: tuple[int, int, int]
    source_shape: tuple[int, ...]
    origin: tuple[int, int, int]
    image_boxes: tuple[tuple[int, int, int, int], ...]
    label_boxes: tuple[tuple[int, int, int, int], ...] | None
    affine: np.ndarray
    axis_codes: tuple[str, str, str]
    forms: dict[str, Any] | None
    spacing_mm: tuple[float, float, float]
    statistics: tuple[dict[str, float], ...]
    voxels_sha256: str
    in_memory: tuple[np.ndarray, np.ndarray | None, np.ndarray | None] | None = field(
        default=None, repr=False
    )

    @classmethod
    def from_arrays(cls, case: Case, arrays: CaseArrays) -> "StoredCase":
        """The case as a store would return it, but with image and labels in memory.

        Args:
            case: gives id, data set and group; its files are not read.
            arrays: as a reader returns them; they are copied.

        Raises:
            DataError: as `cropping.crop`.
        """
        cropped = crop(case.id, arrays)
        arrays_in_memory = (cropped.image, cropped.labels, cropped.own_labels)
        for array in arrays_in_memory:
            if array is not None:
                array.flags.writeable = False
        made = _stored_case(None, {"source": _identity(case), **cropped.numbers})
        return dataclasses.replace(made, in_memory=arrays_in_memory)

    @property
    def labelled(self) -> bool:
        """Whether the case has labels."""
        return self.label_boxes is not None

    @property
    def channels(self) -> int:
        """Number of channels of the image."""
        return len(self.statistics)

    @cached_property
    def image(self) -> np.ndarray:
        """(Z', X', Y', C), read-only, mapped from disk or in memory, in the dtype of the source."""
        return self.in_memory[0] if self.in_memory else self._mapped("image")

    @cached_property
    def labels(self) -> np.ndarray | None:
        """(Z', X', Y') uint8, read-only, like `image`; None for a case without labels."""
        if not self.labelled:
            return None
        return self.in_memory[1] if self.in_memory else self._mapped("labels")

    @property
    def pixels(self) -> np.ndarray:
        """(H, W, C): the full image of a case with one slice, the stored form of a 2-D image.

        Raises:
            ValueError: the case has more than one slice.
        """
        self._check_one_slice()
        return self.full_image()[:, :, 0]

    @property
    def mask(self) -> np.ndarray:
        """(H, W) uint8: the full labels of a case with one slice.

        Raises:
            ValueError: the case has more than one slice, or no labels.
        """
        self._check_one_slice()
        return self.full_labels()[:, :, 0]

    def full_image(self) -> np.ndarray:
        """(X, Y, Z, C) voxels as stored on the full grid, LPS."""
        image = np.zeros((*self.full_shape, self.image.shape[-1]), self.image.dtype)
        image[self._box] = np.moveaxis(self.image, 0, 2)
        return image

    def full_labels(self) -> np.ndarray:
        """(X, Y, Z) uint8 canonical labels on the full grid, LPS.

        Raises:
            ValueError: the case has no labels.
        """
        labels = np.zeros(self.full_shape, np.uint8)
        labels[self._box] = np.moveaxis(self.require_labels(), 0, 2)
        return labels

    @property
    def resampled(self) -> bool:
        """Whether a volume is stored with other voxel sizes than its files have."""
        return self.spacing_mm != self.own_spacing_mm

    @property
    def own_spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along x, y, z of the case's own files, in LPS."""
        return lps_spacing_mm(self.affine, self.axis_codes)

    def own_labels(self) -> np.ndarray:
        """(X, Y, Z) uint8 canonical labels on the grid of the case's own files, LPS.

        Raises:
            ValueError: the case has no labels.
        """
        if not self.resampled:
            return self.full_labels()
        self.require_labels()
        own = self.in_memory[2] if self.in_memory else self._mapped("own_labels")
        assert own is not None, self.id
        return own

    def require_labels(self) -> np.ndarray:
        """`labels` of a case that must have them.

        Raises:
            ValueError: the case has no labels.
        """
        if self.labels is None:
            raise ValueError(f"case {self.id}: found no labels, expected a labelled case.")
        return self.labels

    @property
    def _box(self) -> tuple[slice, ...]:
        z, x, y = self.image.shape[:3]
        return tuple(slice(first, first + n) for first, n in zip(self.origin, (x, y, z)))

    def _mapped(self, kind: str) -> np.ndarray:
        if self.folder is None:
            raise ValueError(f"case {self.id}: found neither a folder nor arrays, expected one.")
        mapped = np.load(self.folder / f"{self.id}.{kind}.npy", mmap_mode="r", allow_pickle=False)
        # A plain array on the mapping: slicing a np.memmap costs more than copying a row.
        return mapped.view(np.ndarray)

    def _check_one_slice(self) -> None:
        if self.full_shape[2] != 1:
            raise ValueError(
                f"case {self.id}: found {self.full_shape[2]} slices, expected one as of a 2-D "
                "image. Use full_image and full_labels."
            )

    def __getstate__(self) -> dict[str, Any]:
        # Another process maps the arrays again; arrays in memory are pickled with `in_memory`.
        return {k: v for k, v in self.__dict__.items() if k not in ("image", "labels")}


class Store:
    """A verified store.

    Attributes:
        folder: of the store.
        cases: id -> case, sorted by id.
        fingerprint: sha256 of all voxels, labels and their positions.
    """

    def __init__(self, folder: Path, entries: dict[str, _Entry]) -> None:
        self.folder = folder
        self._entries = entries
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
    workers: int | Cluster | None = None,
    progress: Progress | None = None,
) -> Store:
    """Decode `cases` into the store in `folder` and open it.

    Intact cases from an earlier run, killed or not, are kept. A case is decoded again if its source
    files, the reader, the format or the files of the store have changed. Other
    cases in the folder are left alone but are not part of the returned store. If two processes
    prepare one folder at once, the second waits for the first.

    Args:
        cases: what to decode; their ids become file names.
        read: decodes one case. It must have a name, see `reader_name`. With more than one worker
            it is sent to other processes, and a script must guard its main part with
            `if __name__ == "__main__"`.
        folder: of the store; created if it does not exist.
        workers: number of processes, by default one per core, each of which holds one decoded case
            in memory; or a cluster.
        progress: called with (done, total, case id) after each case.

    Raises:
        DataError: naming every case that could not be decoded; the others are stored.
        DiskFullError: the store does not fit on the disk.
        ValueError: case ids that are not unique or not usable as file names, or a reader without a
            name.
        RuntimeError: the script is not guarded, see `read`.
    """
    folder = Path(folder)
    refuse_unguarded_script()
    _check_ids(cases)
    reader = reader_name(read)
    with locked(folder, "prepares this store"):
        _remove_unfinished(folder)
        entries: dict[str, _Entry] = {}
        report = partial(_report, progress, entries, len(cases))
        for case, entry in _in_threads(partial(_sound_entry, folder, reader), cases):
            if entry is not None:
                report(case.id, entry)
        stale = [case for case in cases if case.id not in entries]
        if stale:
            (folder / MANIFEST).unlink(missing_ok=True)
            decode = partial(_decode, read, reader, folder)
            _decode_stale(decode, stale, folder, workers or os.cpu_count() or 1, report)
        _write_sealed(folder / MANIFEST, {id: entries[id] for id in sorted(entries)})
    return Store(folder, entries)


@dataclass(frozen=True)
class Estimate:
    """What a store will need.

    Attributes:
        cases: to decode.
        bytes_each: of the decoded cases that were tried.
        seconds_each: that it took one process to read and decode each of them.
    """

    cases: int
    bytes_each: tuple[int, ...]
    seconds_each: tuple[float, ...]

    def __str__(self) -> str:
        tried, scale = len(self.bytes_each), self.cases / 1e9
        low, high = scale * min(self.bytes_each), scale * max(self.bytes_each)
        hours = self.cases * float(np.mean(self.seconds_each)) / 3600
        return (
            f"{scale * float(np.mean(self.bytes_each)):.2f} GB for {self.cases} cases ({low:.2f} "
            f"if all were as the smallest of {tried} tried, {high:.2f} as the largest), "
            f"{hours:.2f} hours of one process"
        )


def estimate(cases: Sequence[Case], read: Reader, *, tried: int = 5) -> Estimate:
    """Decode a few cases, evenly spaced in the list, and write nothing.

    Raises:
        DataError: one of these cases cannot be decoded.
    """
    _check_ids(cases)
    chosen = [cases[int(n)] for n in np.linspace(0, len(cases) - 1, min(tried, len(cases)))]
    sizes, seconds = [], []
    for case in chosen:
        started = time.perf_counter()
        image, labels, own_labels, _ = crop(case.id, read(case))
        sizes.append(sum(a.nbytes for a in (image, labels, own_labels) if a is not None))
        seconds.append(time.perf_counter() - started)
    return Estimate(len(cases), tuple(sizes), tuple(seconds))


def copy(made: Store, folder: Path) -> Store:
    """The store in another folder, such as one on a local disk; what is there and sound stays.

    Each file is read once from the store and checked against its sha256 before it is written.

    Args:
        made: an open store.
        folder: of the copy.

    Raises:
        DataError: a file of the store is missing or damaged.
        DiskFullError: the copy does not fit on its disk.
    """
    if folder.resolve() == made.folder.resolve():
        return made
    with locked(folder, "copies a store into this folder"):
        _remove_unfinished(folder)
        for id, entry in made._entries.items():
            if _damage(folder, entry) is None:
                continue
            for name, expected in entry["files"].items():
                content = read_bytes(made.folder / name, remedy=_REBUILD)
                found = hashlib.sha256(content).hexdigest()
                if found != expected["sha256"]:
                    path, right = made.folder / name, expected["sha256"]
                    raise DataError(path, found=found, expected=right, remedy=_REBUILD)
                _write(folder / name, content)
            _write_sealed(folder / f"{id}.json", entry)
        _write_sealed(folder / MANIFEST, dict(sorted(made._entries.items())))
    return Store(folder, made._entries)


def open_store(folder: Path | str, *, verified: str = "") -> Store:
    """Open a prepared store after checking the sha256 of every file.

    Args:
        folder: of the store.
        verified: fingerprint of a store whose files another process has just checked; here only the
            fingerprint and the sizes of the files are compared with it.

    Raises:
        DataError: there is no store, or it is incomplete, of another format, or has damaged files
            (the message names all of them).
    """
    folder = Path(folder)
    if not is_file(folder / MANIFEST):
        raise DataError(
            folder,
            found=f"no {MANIFEST}",
            expected="a completed store",
            remedy="Prepare the store; an interrupted preparation goes on where it stopped.",
        )
    entries = _read_sealed(folder / MANIFEST)
    found = Store(folder, entries)
    if verified not in ("", found.fingerprint):
        raise DataError(
            folder,
            found=f"fingerprint {found.fingerprint[:12]}",
            expected=f"{verified[:12]}, as when it was verified",
            remedy=_REBUILD,
        )
    damage = partial(_damage, folder, hashed=not verified)
    verdicts = _in_threads(damage, entries.values())
    damaged = [text for _, text in verdicts if text]
    if damaged:
        raise DataError(
            folder, found="; ".join(damaged), expected="files as written", remedy=_REBUILD
        )
    return found


def reader_name(read: Reader) -> str:
    """The name of a reader in a store, which decodes again when the name changes.

    Args:
        read: a function; a method of a frozen dataclass, whose fields then belong to the name; or
            `functools.partial` of one of the two, whose arguments then belong to the name.

    Raises:
        ValueError: a method of another object, whose settings are not known.
    """
    if isinstance(read, partial):
        options = [repr(value) for value in read.args]
        options += [f"{key}={value!r}" for key, value in sorted(read.keywords.items())]
        return f"{reader_name(read.func)}({', '.join(options)})"
    owner = read.__self__ if inspect.ismethod(read) else None
    if owner is None or isinstance(owner, type):
        return f"{read.__module__}.{read.__qualname__}"
    if not getattr(getattr(owner, "__dataclass_params__", None), "frozen", False):
        raise ValueError(
            f"reader: found a method of {type(owner).__name__}, expected a function or a method "
            "of a frozen dataclass."
        )
    return f"{owner!r}.{read.__name__}"


def _check_ids(cases: Sequence[Case]) -> None:
    if not cases:
        raise ValueError("cases: found none, expected at least one.")
    ids = [case.id for case in cases]
    for id in ids:
        if not is_file_name(id):
            raise ValueError(f"case id: found {id!r}, expected a plain file name.")
    if len(set(ids)) < len(ids):
        twice = sorted({id for id in ids if ids.count(id) > 1})
        raise ValueError(f"cases: found {', '.join(twice)} more than once, expected unique ids.")


def _remove_unfinished(folder: Path) -> None:
    """Delete temporary files that a killed `write_atomic` left, and no other hidden file."""
    for path in folder.glob(".*"):
        if _UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink()


def _report(
    progress: Progress | None, entries: dict[str, _Entry], total: int, id: str, entry: _Entry
) -> None:
    entries[id] = entry
    if progress:
        progress(len(entries), total, id)


def _in_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[tuple[_Item, _Result]]:
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
        document = json.loads(read_bytes(path, expected="a sealed file", remedy=_REBUILD))
        seal = document.pop("sha256")
        found = document["format"]
    except DataError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            path, found="no readable JSON", expected="a sealed file", remedy=_REBUILD
        ) from error
    if found != FORMAT:
        raise DataError(path, found=f"format {found}", expected=f"{FORMAT}", remedy=_REBUILD)
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


# Verification


def _identity(case: Case) -> dict[str, str]:
    return {"id": case.id, "dataset": case.dataset, "group": case.group, "grade": case.grade}


def _source(case: Case, reader: str) -> dict[str, Any]:
    paths = [*case.images, *([case.labels] if case.labels else [])]
    files = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    return {**_identity(case), "missing": list(case.missing), "reader": reader, "files": files}


def _sound_entry(folder: Path, reader: str, case: Case) -> _Entry | None:
    try:
        entry = _read_sealed(folder / f"{case.id}.json")
        sound = entry["source"] == _source(case, reader) and not _damage(folder, entry)
    except (FileNotFoundError, DataError):
        return None
    return entry if sound else None


def _damage(folder: Path, entry: _Entry, *, hashed: bool = True) -> str | None:
    """What is wrong with a case's files, or None; unless `hashed`, of their sizes alone."""
    for name, expected in entry["files"].items():
        path = folder / name
        if not path.exists():
            return f"{name}: missing"
        if (size := path.stat().st_size) != expected["bytes"]:
            return f"{name}: {size} bytes instead of {expected['bytes']}"
        if hashed and sha256_of(path) != expected["sha256"]:
            return f"{name}: wrong sha256"
    return None


def _stored_case(folder: Path | None, entry: _Entry) -> StoredCase:
    return StoredCase(
        folder=folder,
        id=entry["source"]["id"],
        dataset=entry["source"]["dataset"],
        group=entry["source"]["group"],
        grade=entry["source"]["grade"],
        full_shape=tuple(entry["full_shape"]),
        source_shape=tuple(entry["source_shape"]),
        origin=tuple(entry["origin"]),
        image_boxes=tuple(map(tuple, entry["image_boxes"])),
        label_boxes=entry["label_boxes"] and tuple(map(tuple, entry["label_boxes"])),
        affine=np.array(entry["affine"]),
        axis_codes=tuple(entry["axis_codes"]),
        forms=entry["forms"],
        spacing_mm=tuple(entry["spacing_mm"]),
        statistics=tuple(entry["statistics"]),
        voxels_sha256=entry["voxels_sha256"],
    )


# Decoding


def _decode(read: Reader, reader: str, folder: Path, case: Case) -> _Entry:
    """Decode and store one case; return its entry, the contents of `<id>.json`."""
    # Before reading, so that a file that changes meanwhile does not count as decoded.
    try:
        source = _source(case, reader)
    except FileNotFoundError:
        read(case)  # raises an error that names the file and the remedy
        raise
    image, labels, own_labels, numbers = crop(case.id, read(case))
    arrays = {"image": image, "labels": labels, "own_labels": own_labels}
    files = {f"{case.id}.{kind}.npy": a for kind, a in arrays.items() if a is not None}
    written = {name: _write_array(folder / name, array) for name, array in files.items()}
    entry = {"source": source, "files": written, **numbers}
    _write_sealed(folder / f"{case.id}.json", entry)
    return entry


def _decode_stale(
    decode: Callable[[Case], _Entry],
    cases: Sequence[Case],
    folder: Path,
    workers: int | Cluster,
    report: Callable[[str, _Entry], None],
) -> None:
    expected = sum(_expected_bytes(case) for case in cases)
    if expected > shutil.disk_usage(folder).free:
        raise _disk_full(folder, expected)
    failures: dict[str, Exception] = {}
    stored_bytes: list[int] = []
    # Closed immediately, so that no worker writes after an error has released the lock.
    with closing(decode_all(decode, cases, workers, fatal=DiskFullError)) as results:
        for case, result in results:
            if isinstance(result, Exception):
                failures[case.id] = result
                continue
            report(case.id, result)
            stored_bytes.append(sum(file["bytes"] for file in result["files"].values()))
            remaining = len(cases) - len(stored_bytes) - len(failures)
            needed = remaining * float(np.mean(stored_bytes))
            if needed > shutil.disk_usage(folder).free:
                raise _disk_full(folder, needed)
    if failures:
        raise _unreadable(folder, failures, len(cases)) from next(iter(failures.values()))


def _expected_bytes(case: Case) -> float:
    # Deliberately low: the first decoded cases give a better estimate (BraTS: 3 times the size of
    # .gz, 0.4 of .nii).
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
