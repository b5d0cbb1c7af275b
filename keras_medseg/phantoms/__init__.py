"""Synthetic data sets in the layouts and file formats of real ones; `write` makes any of them.

A synthetic image data set is one file with its drawing and one entry in `images.LAYOUTS`. A data
set of another kind is one file with its `LAYOUTS` and its writer, and one entry in `_WRITERS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from keras_medseg.errors import require_choice


@dataclass(frozen=True)
class _Writer:
    """How to call the writer function of a module of this package.

    Attributes:
        function: its name.
        size: name of its argument for the size of a case.
        axes: names of the axes of that size.
        unit: voxels or pixels.
    """

    function: str
    size: str
    axes: tuple[str, ...]
    unit: str


# Module of this package -> its writer. Modules are imported on demand.
_WRITERS = {
    "brats": _Writer("write_brats", size="shape", axes=("x", "y", "z"), unit="voxels"),
    "volumes": _Writer("write_volumes", size="shape", axes=("x", "y", "z"), unit="voxels"),
    "images": _Writer("write_images", size="size", axes=("rows", "columns"), unit="pixels"),
}


def layouts() -> list[str]:
    """Names of all data sets that `write` can imitate."""
    return [layout for name in _WRITERS for layout in _module(name).LAYOUTS]


def write(
    folder: Path | str,
    *,
    layout: str,
    cases: int,
    seed: int = 0,
    size: Sequence[int] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Path]:
    """Write a synthetic data set; complete cases of the same phantom are kept.

    Args:
        folder: a new or empty folder, or an earlier phantom of the same kind.
        layout: one of `layouts()`.
        cases: number of cases.
        seed: of the data set; equal seeds give equal data.
        size: (x, y, z) voxels of volumes or (rows, columns) pixels of images; by default that of
            the real data set.
        progress: called with (cases done, cases, case id).

    Returns:
        The folders of the cases or, if several cases share one, their image files.

    Raises:
        ValueError: an unknown layout, fewer than one case, or a size that the layout cannot have.
        DataError: the folder contains something else, or cannot be written.
    """
    require_choice("layout", layout, layouts())
    name = next(name for name in _WRITERS if layout in _module(name).LAYOUTS)
    writer = _WRITERS[name]
    options = {}
    if size is not None:
        if len(size) != len(writer.axes):
            expected = f"{len(writer.axes)} for {layout}: ({', '.join(writer.axes)}) {writer.unit}"
            raise ValueError(f"size: found {len(size)} numbers, expected {expected}.")
        options[writer.size] = tuple(size)
    function = getattr(_module(name), writer.function)
    return function(folder, layout=layout, cases=cases, seed=seed, progress=progress, **options)


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")
