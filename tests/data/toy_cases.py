"""Cases of a few voxels, and readers that fail, wait or die, for tests that need more processes.

As a script, `toy_cases.py SOURCE STORE READER WORKERS [BYTES]` prepares a store; BYTES limits the
size of a file, which is what a full disk looks like.
"""

import os
import resource
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.store import DiskFullError, prepare

SHAPE = (8, 9, 7)


def toy_arrays(index: int) -> tuple[np.ndarray, np.ndarray]:
    """An int16 image (8, 9, 7, 2), non-zero within 2:7, 3:8, 1:6, and its labels."""
    rng = np.random.default_rng(index)
    image = np.zeros((*SHAPE, 2), np.int16)
    image[2:7, 3:8, 1:6] = rng.integers(1, 1000, (5, 5, 5, 2))
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:5, 4:6, 2:4] = rng.integers(1, 4, (2, 2, 2))
    return image, labels


def write_case(folder: Path, id: str, image: np.ndarray, labels: np.ndarray | None) -> Case:
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{id}_image.npy", image)
    path = None
    if labels is not None:
        path = folder / f"{id}_seg.npy"
        np.save(path, labels)
    return Case(id, "toy", (folder / f"{id}_image.npy",), path, group=id)


def write_cases(folder: Path, count: int = 4) -> list[Case]:
    return [write_case(folder, f"case{i}", *toy_arrays(i)) for i in range(count)]


def find_cases(folder: Path) -> list[Case]:
    ids = [path.name.removesuffix("_image.npy") for path in sorted(folder.glob("*_image.npy"))]
    return [
        Case(id, "toy", (folder / f"{id}_image.npy",), folder / f"{id}_seg.npy", group=id)
        for id in ids
    ]


def read(case: Case) -> CaseArrays:
    """The arrays of a toy case; every call is noted in decoded.txt beside it."""
    with open(case.images[0].parent / "decoded.txt", "a") as log:
        log.write(f"{case.id} {os.getpid()}\n")
    labels = np.load(case.labels) if case.labels else None
    return CaseArrays(
        np.load(case.images[0]), labels, np.diag([-1.0, -1.0, 3.0, 1.0]), ("L", "P", "S")
    )


def read_brighter(case: Case, *, by: int) -> CaseArrays:
    arrays = read(case)
    return replace(arrays, image=arrays.image + arrays.image.astype(bool) * np.int16(by))


@dataclass(frozen=True)
class Brighter:
    """A reader with a setting: a frozen dataclass whose method decodes."""

    by: int = 1

    def read(self, case: Case) -> CaseArrays:
        return read_brighter(case, by=self.by)

    @classmethod
    def read_plain(cls, case: Case) -> CaseArrays:
        return read(case)


def read_with(case: Case, *, reader: Brighter) -> CaseArrays:
    return reader.read(case)


def decoded(folder: Path) -> list[str]:
    """Ids of the cases read so far, sorted."""
    log = folder / "decoded.txt"
    return sorted(line.split()[0] for line in log.read_text().splitlines()) if log.exists() else []


def read_until_released(case: Case) -> CaseArrays:
    """Stop at case2 until the file `go` appears, a minute at most."""
    arrays = read(case)
    for _ in range(3000):
        if case.id != "case2" or (case.images[0].parent / "go").exists():
            break
        time.sleep(0.02)
    return arrays


def read_but_fail(case: Case) -> CaseArrays:
    if case.id in ("case1", "case3"):
        raise ValueError(f"cannot read {case.id}")
    return read(case)


def read_and_die(case: Case) -> CaseArrays:
    if case.id == "case1":
        os.kill(os.getpid(), signal.SIGKILL)
    return read(case)


def main(source: str, folder: str, reader: str, workers: str, limit: str = "0") -> int:
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        prepare(find_cases(Path(source)), globals()[reader], folder, workers=int(workers))
    except DiskFullError as error:
        print(error, file=sys.stderr)
        return 28
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
