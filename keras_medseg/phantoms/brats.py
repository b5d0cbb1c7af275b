"""Synthetic BraTS data sets in the layouts and file formats of the real ones."""

from collections.abc import Iterator
from dataclasses import replace
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

# Layout -> the folder of a case, or the stem of its files in the Decathlon.
_CASE_IDS = {
    "BraTS2017": "{grade}/Brats17_Phantom_{number}_1",
    "BraTS2018": "{grade}/Brats18_Phantom_{number}_1",
    "BraTS2019": "{grade}/BraTS19_Phantom_{number}_1",
    "BraTS2020": "BraTS20_Training_{number}",
    "BraTS2021": "BraTS2021_{index:05d}",
    "BraTS2023": "BraTS-GLI-{index:05d}-000",
    "BraTS2023-MEN": "BraTS-MEN-{index:05d}-000",
    "BraTS2023-MET": "ASNR-MICCAI-BraTS2023-MET-Challenge-TrainingData/BraTS-MET-{index:05d}-000",
    "BraTS2023-PED": "ASNR-MICCAI-BraTS2023-PED-Challenge-TrainingData/BraTS-PED-{index:05d}-000",
    "BraTS2023-SSA": "BraTS-SSA-{index:05d}-000",
    "BraTS2024-GLI": "BraTS-GLI-{index:05d}-100",
    "BraTS2024-GoAT": "BraTS-GoAT-{index:05d}",
    "BraTS2024-MEN-RT": "BraTS-MEN-RT-{index:04d}-1",
    "BraTS2024-PED": "BraTS-PEDs2024_Training/BraTS-PED-{index:05d}-000",
    "BraTS2025-GLI": "BraTS-GLI-{index:05d}-{treated}00",
    "BraTS2025-MET": "MICCAI-LH-BraTS2025-MET-Challenge-TrainingData/BraTS-MET-{index:05d}-000",
    "Decathlon": "BRATS_{number}",
}

LAYOUTS = tuple(_CASE_IDS)

_TO_2021 = ("_flair", "_t1", "_t1ce", "_t2", "_seg")
_FROM_2023 = ("-t2f", "-t1n", "-t1c", "-t2w", "-seg")
_T1CE = 2
_NECROTIC, _ENHANCING, _FOURTH = 1, 3, 4
_WITH_CAVITY = ("BraTS2024-GLI", "BraTS2025-GLI", "BraTS2025-MET")
_MIRRORED = ("BraTS2024-GLI",)
"""Layouts whose arrays run to the front (axis codes L, A, S)."""
# Signal of fluid, as in a resection cavity or a cyst, relative to that of a necrosis.
_FLUID = np.array([28 / 165, 42 / 62, 44 / 62, 300 / 215])

_INDEX_FILES = ("name_mapping.csv", "dataset.json")
_DATASET_JSON = {
    "name": "BRATS (phantom)",
    "description": "Synthetic gliomas drawn by keras_medseg; no patient was involved",
    "tensorImageSize": "4D",
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    # Spelled as in the file of the real data set.
    "labels": {
        "0": "background",
        "1": "edema",
        "2": "non-enhancing tumor",
        "3": "enhancing tumour",
    },
    "numTest": 0,
    "test": [],
}


def write_brats(
    folder: Path | str,
    *,
    cases: int,
    seed: int = 0,
    layout: str = "BraTS2021",
    shape: tuple[int, int, int] = (240, 240, 155),
    progress: Progress | None = None,
) -> list[Path]:
    """Write a synthetic BraTS data set; complete cases of the same phantom are kept.

    Files are written atomically, so the same call finishes a run that was killed. The voxels depend
    on (seed, case) and shape alone. One case in every four has no enhancing tumor.

    Args:
        folder: a new or empty folder, or an earlier phantom: cases drawn with another seed, shape,
            layout or version are replaced, further cases of the same phantom stay.
        cases: number of cases.
        seed: of the data set.
        layout: one of `LAYOUTS`.
        shape: (X, Y, Z) in voxels; the anatomy scales with it, the headers always say 1 mm.
        progress: called with (cases done, cases, case id).

    Returns:
        The folders of the cases, or the image files in the layout of the Decathlon.

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
    ids = [_case_id(layout, seed, index) for index in range(cases)]

    def write(index: int) -> str:
        if not _complete(folder, layout, ids[index]):
            _write_case(folder, layout, ids[index], index, brain.brats_case(seed, index, shape))
        return Path(ids[index]).name

    write_cases(cases, write, progress)
    _write_index(folder, marker)
    images = [_case_files(layout, case_id)[0][0] for case_id in ids]
    return [folder / (path if layout == "Decathlon" else path.parent) for path in images]


def _grade(seed: int, index: int) -> str:
    return "HGG" if brain.enhances(seed, index) else "LGG"


def _case_id(layout: str, seed: int, index: int) -> str:
    grade = _grade(seed, index)
    number, treated = f"{index + 1:03d}", index % 2
    return _CASE_IDS[layout].format(grade=grade, number=number, index=index, treated=treated)


def _earlier_ids(seed: int, index: int) -> list[str]:
    """The ids of a case of BraTS2020 in 2017, 2018, the TCIA and 2019, NA where it was not used.

    Cases of one seed and index are the same patient in every layout.
    """
    first = (2017, 2017, 2018, 2019)[index % 4]
    ids = {year: Path(_case_id(f"BraTS{year}", seed, index)).name for year in (2017, 2018, 2019)}
    known = [id if year >= first else "NA" for year, id in ids.items()]
    return [*known[:2], "NA", known[2]]


def _case_files(layout: str, case_id: str) -> tuple[list[Path], Path]:
    """(images in the order of the channels, labels), relative to the data set's folder."""
    if layout == "Decathlon":
        return [Path("imagesTr", f"{case_id}.nii.gz")], Path("labelsTr", f"{case_id}.nii.gz")
    suffixes: tuple[str, ...] = _TO_2021 if layout <= "BraTS2021" else _FROM_2023
    if layout == "BraTS2024-MEN-RT":
        suffixes = ("_t1c", "_gtv")
    *images, labels = [Path(case_id, f"{Path(case_id).name}{s}.nii.gz") for s in suffixes]
    return images, labels


def _complete(folder: Path, layout: str, case_id: str) -> bool:
    images, labels = _case_files(layout, case_id)
    return all((folder / path).exists() for path in [*images, labels])


def _write_case(folder: Path, layout: str, case_id: str, index: int, case: CaseArrays) -> None:
    # Imported here because nibabel imports SciPy, which listing the layouts does not need.
    from keras_medseg.data.datasets.brats import to_dataset_labels
    from keras_medseg.data.formats.nifti import write_volume

    case = _as_in(layout, case, index)
    assert case.labels is not None
    images, labels = _case_files(layout, case_id)
    for path in [*images, labels]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    codes = to_dataset_labels(case.labels, layout)
    if layout == "Decathlon":
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        affine[0, 3] = 1.0 - case.image.shape[0]
        write_volume(folder / images[0], case.image[::-1, ::-1], affine)
        write_volume(folder / labels, codes[::-1, ::-1], affine)
        return
    affine = case.affine
    if layout in _MIRRORED:
        affine = affine @ np.diag([1.0, -1, 1, 1])
        affine[1, 3] = 0
        codes = codes[:, ::-1]
    for channel, path in enumerate(images):
        scan = case.image[..., channel]
        write_volume(folder / path, scan[:, ::-1] if layout in _MIRRORED else scan, affine)
    # In the real data sets, the dtype of the segmentations differs from case to case as well.
    dtype = ("uint8", "uint16", "int16", "float32")[index % 4]
    write_volume(folder / labels, codes, affine, dtype=dtype)


def _as_in(layout: str, case: CaseArrays, index: int) -> CaseArrays:
    """A drawn case with the labels and modalities of a layout."""
    assert case.labels is not None
    image, labels = case.image, case.labels
    if layout == "BraTS2024-MEN-RT":
        gross = np.isin(labels, (_NECROTIC, _ENHANCING)).astype(np.uint8)
        return replace(case, image=image[..., _T1CE : _T1CE + 1], labels=gross)
    treated = layout != "BraTS2025-GLI" or index % 2
    if layout == "BraTS2024-PED" or (layout in _WITH_CAVITY and treated and index % 3 != 2):
        # The rear half of the necrosis: a cyst in children, else the cavity of a resection.
        fluid = labels == _NECROTIC
        rows = np.nonzero(fluid)[1]
        fluid[:, : int(np.median(rows)) + 1 if rows.size else 0] = False
        image, labels = image.copy(), labels.copy()
        image[fluid] = np.rint(image[fluid] * _FLUID)
        labels[fluid] = _FOURTH
    return replace(case, image=image, labels=labels)


def _files(marker: Marker) -> Iterator[Path]:
    """Every file that `write_brats` wrote for a marker."""
    for index in range(marker.cases):
        images, labels = _case_files(marker.layout, _case_id(marker.layout, marker.seed, index))
        yield from [*images, labels]
    yield from map(Path, _INDEX_FILES)


def _write_index(folder: Path, marker: Marker) -> None:
    """Write the table of cases that belongs to the layout, if it has one."""
    layout, seed = marker.layout, marker.seed
    ids = {index: _case_id(layout, seed, index) for index in range(marker.cases)}
    ids = {index: case_id for index, case_id in ids.items() if _complete(folder, layout, case_id)}
    if layout == "BraTS2020":
        years = ("BraTS_2017", "BraTS_2018", "TCGA_TCIA", "BraTS_2019", "BraTS_2020")
        rows = [["Grade", *(f"{year}_subject_ID" for year in years)]]
        rows += [[_grade(seed, i), *_earlier_ids(seed, i), case_id] for i, case_id in ids.items()]
        write_text(folder / "name_mapping.csv", "".join(",".join(row) + "\n" for row in rows))
    if layout == "Decathlon":
        listed = [
            {"image": f"./imagesTr/{case_id}.nii.gz", "label": f"./labelsTr/{case_id}.nii.gz"}
            for case_id in ids.values()
        ]
        content = {**_DATASET_JSON, "numTraining": len(listed), "training": listed}
        write_json(folder / "dataset.json", content)
