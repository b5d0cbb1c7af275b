"""Synthetic volumes in layouts for anybody's data: a folder of nnU-Net, and a table of files.

The drawing is that of brain.py in two modalities, T1c and FLAIR. The voxels have the size that
belongs to the shape, and the arrays run to the right and to the front.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_medseg.data.cases import CaseArrays
from keras_medseg.data.store import Progress
from keras_medseg.errors import require_choice
from keras_medseg.files import write_json
from keras_medseg.phantoms import brain
from keras_medseg.phantoms.folder import (
    Marker,
    prepare_folder,
    require_cases,
    write_cases,
    write_text,
)

LAYOUTS = ("nnUNet", "cases.csv")

_EXTENT_MM = (240.0, 240.0, 155.0)
_CHANNELS = {"T1c": 2, "FLAIR": 0}
"""Modality -> its channel in the drawing."""
# Canonical label of the drawing -> code on disk: 1 edema, 2 necrotic, 3 enhancing.
_CODES = np.array([0, 2, 1, 3], np.uint8)
_WITHOUT_FLAIR = 3
"""In the table, one case of every eight has no FLAIR: the one with this index."""
_DATASET_JSON = {
    "name": "BrainPhantom",
    "description": "Synthetic gliomas drawn by keras_medseg; no patient was involved",
    "channel_names": {"0": "T1c", "1": "FLAIR"},
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
    "regions_class_order": [1, 2, 3],
    "file_ending": ".nii.gz",
}
_LABELS_JSON = {
    "labels": {"edema": 1, "necrotic": 2, "enhancing": 3},
    "regions": {
        "whole": ["edema", "necrotic", "enhancing"],
        "core": ["necrotic", "enhancing"],
        "enhancing": ["enhancing"],
    },
    "missing_modalities": ["FLAIR"],
}
_INDEX_FILES = ("dataset.json", "cases.csv", "labels.json")


def write_volumes(
    folder: Path | str,
    *,
    cases: int,
    seed: int = 0,
    layout: str = "nnUNet",
    shape: tuple[int, int, int] = (120, 120, 78),
    progress: Progress | None = None,
) -> list[Path]:
    """Write a synthetic data set of one's own; complete cases of the same phantom are kept.

    Args:
        folder: a new or empty folder, or an earlier phantom, as in `brats.write_brats`.
        cases: number of cases; in the table two in a row are visits of one patient (`group`).
        seed: of the data set.
        layout: one of `LAYOUTS`.
        shape: (X, Y, Z) in voxels; the voxels have the size that the same head needs.
        progress: called with (cases done, cases, case id).

    Returns:
        The first image file of each case.

    Raises:
        ValueError: an unknown layout, fewer than one case, or a shape under 24 voxels.
        DataError: the folder contains something else, or cannot be written.
    """
    require_choice("layout", layout, LAYOUTS)
    require_cases(cases)
    brain.check_shape(shape)
    folder = Path(folder)
    wanted = Marker(brain.VERSION, seed, layout, tuple(shape), cases)
    marker = prepare_folder(folder, wanted, layouts=LAYOUTS, files=_files)

    def write(index: int) -> str:
        paths = _case_files(layout, index)
        if not all((folder / path).exists() for path in paths.values()):
            _write_case(folder, paths, brain.brats_case(seed, index, shape))
        return _case_id(index)

    write_cases(cases, write, progress)
    _write_index(folder, marker)
    return [folder / next(iter(_case_files(layout, index).values())) for index in range(cases)]


def _case_id(index: int) -> str:
    return f"brain_{index:03d}"


def _case_files(layout: str, index: int) -> dict[str, Path]:
    """Modality or "label" -> file relative to the data set's folder."""
    name = _case_id(index)
    if layout == "nnUNet":
        images = {
            channel: Path("imagesTr", f"{name}_{number:04d}.nii.gz")
            for number, channel in enumerate(_CHANNELS)
        }
        return {**images, "label": Path("labelsTr", f"{name}.nii.gz")}
    home = Path(f"patient_{index // 2:02d}", f"visit_{index % 2}")
    channels = [c for c in _CHANNELS if c != "FLAIR" or index % 8 != _WITHOUT_FLAIR]
    return {
        **{channel: home / f"{channel.lower()}.nii.gz" for channel in channels},
        "label": home / "lesion.nii.gz",
    }


def _write_case(folder: Path, paths: dict[str, Path], case: CaseArrays) -> None:
    # Imported here because nibabel imports SciPy, which listing the layouts does not need.
    from keras_medseg.data.formats.nifti import write_volume

    assert case.labels is not None
    spacing_mm = [length / count for length, count in zip(_EXTENT_MM, case.labels.shape)]
    affine = np.diag([*spacing_mm, 1.0])
    affine[:2, 3] = -_EXTENT_MM[0] / 2
    for name, path in paths.items():
        drawn = _CODES[case.labels] if name == "label" else case.image[..., _CHANNELS[name]]
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_volume(folder / path, drawn[::-1, ::-1], affine)


def _files(marker: Marker) -> Iterator[Path]:
    """Every file that `write_volumes` wrote for a marker."""
    for index in range(marker.cases):
        yield from _case_files(marker.layout, index).values()
    yield from map(Path, _INDEX_FILES)


def _write_index(folder: Path, marker: Marker) -> None:
    """Write the description of the data set, for the cases that are complete."""
    files = {index: _case_files(marker.layout, index) for index in range(marker.cases)}
    files = {
        index: paths
        for index, paths in files.items()
        if all((folder / path).exists() for path in paths.values())
    }
    if marker.layout == "nnUNet":
        write_json(folder / "dataset.json", {**_DATASET_JSON, "numTraining": len(files)})
        return
    rows = [["id", *_CHANNELS, "label", "group"]]
    for index, paths in files.items():
        names = [str(paths.get(channel, "")) for channel in (*_CHANNELS, "label")]
        rows.append([_case_id(index), *names, f"patient_{index // 2:02d}"])
    write_text(folder / "cases.csv", "".join(",".join(row) + "\n" for row in rows))
    write_json(folder / "labels.json", _LABELS_JSON)
