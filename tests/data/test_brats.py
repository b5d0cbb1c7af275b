"""brats.py on tiny cases in the layouts of every year, whole and damaged."""

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from keras_medseg.data import store
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets import brats
from keras_medseg.data.formats import nifti
from keras_medseg.data.patients import oldest_ids
from keras_medseg.errors import DataError

SHARED = Path(os.environ.get("KERAS_MEDSEG_SHARED", Path(__file__).parents[3] / "shared"))
REAL = SHARED / "data"

BRATS = brats.Brats()
SHAPE = (6, 5, 4)
LPS = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]], float)
RAS = np.eye(4)
TO_2021 = ("{}_flair", "{}_t1", "{}_t1ce", "{}_t2", "{}_seg")
# From facts published with each year: folder, file names in the order FLAIR, T1, T1ce, T2,
# segmentation, and the codes for background, necrotic, edema, enhancing.
LAYOUTS = {
    "BraTS2015": (
        "HGG/brats_2013_pat0001_1",
        (
            "VSD.Brain.XX.O.MR_Flair.54512/VSD.Brain.XX.O.MR_Flair.54512",
            "VSD.Brain.XX.O.MR_T1.54513/VSD.Brain.XX.O.MR_T1.54513",
            "VSD.Brain.XX.O.MR_T1c.54514/VSD.Brain.XX.O.MR_T1c.54514",
            "VSD.Brain.XX.O.MR_T2.54515/VSD.Brain.XX.O.MR_T2.54515",
            "VSD.Brain_3more.XX.O.OT.54517/VSD.Brain_3more.XX.O.OT.54517",
        ),
        (0, 1, 2, 4),
    ),
    "BraTS2017": ("HGG/Brats17_TCIA_101_1", TO_2021, (0, 1, 2, 4)),
    "BraTS2018": ("LGG/Brats18_TCIA02_101_1", TO_2021, (0, 1, 2, 4)),
    "BraTS2019": ("HGG/BraTS19_TCIA02_101_1", TO_2021, (0, 1, 2, 4)),
    "BraTS2020": ("BraTS20_Training_001", TO_2021, (0, 1, 2, 4)),
    "BraTS2021": ("BraTS2021_00017", TO_2021, (0, 1, 2, 4)),
    "BraTS2023": (
        "BraTS-GLI-00017-000",
        ("{}-t2f", "{}-t1n", "{}-t1c", "{}-t2w", "{}-seg"),
        (0, 1, 2, 3),
    ),
}


def _images(seed: int = 0) -> list[np.ndarray]:
    """Four modalities with values around 100, 200, 300 and 400 inside a dark border."""
    noise = np.random.default_rng(seed).integers(0, 50, (4, *SHAPE))
    images = noise + 100 * np.arange(1, 5)[:, None, None, None]
    images[:, 0] = 0
    return list(images.astype(np.int16))


def _labels(seed: int = 0) -> np.ndarray:
    """Canonical labels: one slab of each, and one voxel more that differs by seed."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1], labels[2], labels[3] = brats.NECROTIC, brats.EDEMA, brats.ENHANCING
    if seed:
        labels[4, seed % 5, seed // 5 % 4] = brats.EDEMA
    return labels


def _write(path: Path, array: np.ndarray, affine: np.ndarray = LPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write_volume(path, array, affine)


def _write_case(
    root: Path,
    dataset: str = "BraTS2021",
    home: str | None = None,
    *,
    seed: int = 0,
    suffix: str = ".nii.gz",
    labelled: bool = True,
) -> Path:
    """One case as that year lays it out; `home` renames it. The case folder."""
    example, names, codes = LAYOUTS[dataset]
    folder = root / (home or example)
    paths = [folder / (name.format(folder.name) + suffix) for name in names]
    arrays = [*_images(seed), np.array(codes, np.uint8)[_labels(seed)]]
    for path, array in list(zip(paths, arrays))[: 5 if labelled else 4]:
        _write(path, array)
    return folder


def _write_decathlon(root: Path, *, labelled: bool = True) -> None:
    # The Decathlon's arrays run to the right and to the front: both axes are mirrored.
    mirrored = np.stack(_images(), axis=-1)[::-1, ::-1].astype(np.float32)
    _write(root / "imagesTr/BRATS_001.nii.gz", mirrored, RAS)
    (root / "imagesTr/._BRATS_001.nii.gz").write_bytes(b"a Mac's attributes")
    if labelled:
        labels = np.array([0, 2, 1, 3], np.uint8)[_labels()][::-1, ::-1]
        _write(root / "labelsTr/BRATS_001.nii.gz", labels, RAS)


def _find(folder: Path, **options) -> list[Case]:
    return BRATS.find(folder, **options).cases


def _only(cases: list) -> object:
    assert len(cases) == 1
    return cases[0]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dataset", LAYOUTS)
def test_every_year_is_recognized_and_mapped_to_one_convention(dataset, suffix, tmp_path):
    folder = _write_case(tmp_path, dataset, suffix=suffix)
    case = _only(_find(tmp_path))
    assert (case.id, case.dataset) == (folder.name, dataset)
    arrays = BRATS.read(case)
    assert arrays.image.shape == (*SHAPE, 4)
    assert arrays.image.dtype == np.int16
    assert np.array_equal(arrays.image, np.stack(_images(), axis=-1))
    assert arrays.labels.dtype == np.uint8
    assert np.array_equal(arrays.labels, _labels())
    assert np.array_equal(arrays.affine, LPS)
    assert arrays.axis_codes == ("L", "P", "S")
    assert arrays.spacing_mm == (1, 1, 1)


def test_decathlon_is_turned_to_lps_and_its_modalities_kept_in_order(tmp_path):
    _write_decathlon(tmp_path / "Task01_BrainTumour")
    case = _only(_find(tmp_path))
    assert (case.id, case.dataset, len(case.images)) == ("BRATS_001", "Decathlon", 1)
    arrays = BRATS.read(case)
    assert arrays.image.dtype == np.int16
    assert np.array_equal(arrays.image, np.stack(_images(), axis=-1))
    assert np.array_equal(arrays.labels, _labels())
    assert arrays.axis_codes == ("R", "A", "S")
    restored = nifti.restore(arrays.labels, arrays.axis_codes)
    on_disk = nifti.load(case.labels).array
    assert np.array_equal(brats.to_dataset_labels(restored, "Decathlon"), on_disk)


@pytest.mark.parametrize("above", ["", "HGG", "HGG/Brats17_TCIA_101_1"])
def test_folder_may_be_the_case_or_any_folder_above(above, tmp_path):
    _write_case(tmp_path / "a/b", "BraTS2017")
    assert _only(_find(tmp_path / "a/b" / above)).id == "Brats17_TCIA_101_1"
    assert _only(_find(tmp_path)).id == "Brats17_TCIA_101_1"


def test_years_may_be_mixed(tmp_path):
    for dataset in LAYOUTS:
        _write_case(tmp_path / dataset, dataset)
    _write_decathlon(tmp_path / "Task01_BrainTumour")
    cases = _find(tmp_path)
    assert [case.dataset for case in cases] == [*LAYOUTS, "Decathlon"]
    for case in cases:
        assert np.array_equal(BRATS.read(case).labels, _labels())


@pytest.mark.parametrize(
    ("home", "dataset"),
    [
        ("BraTS-MEN-00001-000", "BraTS2023-MEN"),
        ("BraTS2023/BraTS-MET-00001-000", "BraTS2023-MET"),
        ("BraTS-SSA-00001-000", "BraTS2023-SSA"),
        ("BraTS-GoAT-00001", "BraTS2024-GoAT"),
    ],
)
def test_other_challenges_have_the_names_and_codes_of_2023(home, dataset, tmp_path):
    _write_case(tmp_path, "BraTS2023", home)
    case = _only(_find(tmp_path))
    assert case.dataset == dataset
    assert np.array_equal(BRATS.read(case).labels, _labels())


def test_all_cases_in_one_flat_folder(tmp_path):
    for number in (1, 2):
        folder = _write_case(tmp_path / "x", home=f"BraTS2021_0000{number}", seed=number)
        for path in folder.iterdir():
            path.rename(tmp_path / path.name)
    shutil.rmtree(tmp_path / "x")
    assert [case.id for case in _find(tmp_path)] == [
        "BraTS2021_00001",
        "BraTS2021_00002",
    ]
    (tmp_path / "BraTS2021_00002_seg.nii.gz").unlink()
    with pytest.raises(DataError, match=r"no BraTS2021_00002_seg"):
        _find(tmp_path)


def test_misnamed_segmentation_of_case_355(tmp_path):
    folder = _write_case(tmp_path, "BraTS2020", "BraTS20_Training_355", suffix=".nii")
    wrong = folder / "W39_1998.09.19_Segm.nii"
    (folder / "BraTS20_Training_355_seg.nii").rename(wrong)
    case = _only(_find(tmp_path))
    assert case.labels == wrong
    assert np.array_equal(BRATS.read(case).labels, _labels())
    assert BRATS.check(tmp_path).ok


def test_file_unpacked_into_a_folder_of_its_name(tmp_path):
    folder = _write_case(tmp_path, suffix=".nii")
    path = folder / "BraTS2021_00017_flair.nii"
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    (path / "00000057_brain_flair.nii").write_bytes(content)
    case = _only(_find(tmp_path))
    assert np.array_equal(BRATS.read(case).image[..., 0], _images()[0])


def test_links_that_run_in_a_circle_are_followed_once(tmp_path):
    _write_case(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path)
    assert len(_find(tmp_path)) == 1


def test_validation_sets_have_no_segmentation(tmp_path):
    home = "validation/BraTS20_Validation_001"
    _write_case(tmp_path, "BraTS2020", home, seed=3, labelled=False)
    case = _only(_find(tmp_path, labelled=False))
    assert case.labels is None
    assert BRATS.read(case).labels is None
    with pytest.raises(DataError, match=r"1 case without segmentations.*training data"):
        _find(tmp_path)
    _write_case(tmp_path / "training", "BraTS2020")
    assert _only(_find(tmp_path)).id == "BraTS20_Training_001"
    assert len(_find(tmp_path, labelled=False)) == 2
    assert BRATS.check(tmp_path).problems == []


def test_segmentation_missing_beside_labelled_cases(tmp_path):
    _write_case(tmp_path, home="BraTS2021_00001")
    _write_case(tmp_path, home="BraTS2021_00002", seed=1, labelled=False)
    with pytest.raises(DataError, match=r"BraTS2021_00002: found no BraTS2021_00002_seg"):
        _find(tmp_path)
    assert len(_find(tmp_path, labelled=False)) == 2
    assert not BRATS.check(tmp_path).ok


def test_groups_are_patients(tmp_path):
    homes = {
        "BraTS2015": ["brats_tcia_pat101_0181", "brats_tcia_pat101_0217", "brats_2013_pat0001_1"],
        "BraTS2017": ["Brats17_TCIA_101_1", "Brats17_2013_2_1"],
        "BraTS2018": ["Brats18_TCIA02_101_1", "Brats18_2013_2_1"],
        "BraTS2020": ["BraTS20_Training_001"],
        "BraTS2021": ["BraTS2021_00017"],
        "BraTS2023": ["BraTS-GLI-00017-000", "BraTS-GLI-00017-001", "BraTS-MET-00017-000"],
    }
    for dataset, names in homes.items():
        for name in names:
            _write_case(tmp_path / dataset, dataset, name)
    group = {case.id: case.group for case in _find(tmp_path)}
    assert group["BraTS-GLI-00017-000"] == group["BraTS-GLI-00017-001"] == group["BraTS2021_00017"]
    assert group["Brats17_TCIA_101_1"] == group["Brats18_TCIA02_101_1"]
    assert group["Brats17_2013_2_1"] == group["Brats18_2013_2_1"]
    assert group["brats_tcia_pat101_0181"] == group["brats_tcia_pat101_0217"]
    assert len(set(group.values())) == 7


MAPPING = """Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,\
BraTS_2019_subject_ID,BraTS_2020_subject_ID
HGG,Brats17_TCIA_101_1,Brats18_TCIA02_101_1,NA,BraTS19_TCIA02_101_1,BraTS20_Training_001
LGG,NA,NA,TCGA-XX-0000,BraTS19_CBICA_ZZZ_1,BraTS20_Training_002
LGG,NA,NA,NA,NA,BraTS20_Training_003
"""


def test_the_organizers_table_tells_who_is_known_from_earlier_years(tmp_path):
    homes = ["BraTS18/Brats18_TCIA02_101_1", "BraTS19/BraTS19_CBICA_ZZZ_1"]
    homes += [f"BraTS20/BraTS20_Training_00{number}" for number in (1, 2, 3)]
    for home in homes:
        _write_case(tmp_path, f"BraTS20{home[5:7]}", home)
    # As a spreadsheet saves it, with a mark at its start.
    (tmp_path / "BraTS20" / "name_mapping.csv").write_text(MAPPING, encoding="utf-8-sig")
    group = {case.id: case.group for case in _find(tmp_path)}
    assert group == {
        "Brats18_TCIA02_101_1": "TCIA_101",
        "BraTS19_CBICA_ZZZ_1": "CBICA_ZZZ",
        "BraTS20_Training_001": "TCIA_101",
        "BraTS20_Training_002": "CBICA_ZZZ",
        "BraTS20_Training_003": "BraTS20_Training_003",
    }
    complete, _ = BRATS.find_complete(tmp_path)
    assert {case.id: case.group for case in [*complete.cases]} == group
    assert {case.id: case.group for case in BRATS.check(tmp_path).cases} == group


def test_rows_of_two_tables_that_share_an_id_are_one_patient(tmp_path):
    one, other = tmp_path / "2019.csv", tmp_path / "2020.csv"
    one.write_text("BraTS_2017_subject_ID,BraTS_2019_subject_ID\nOLD,MIDDLE\n,LONE\n")
    other.write_text("BraTS_2020_subject_ID,BraTS_2019_subject_ID\nNew,Middle\nX,\n\n")
    expected = {"old": "OLD", "middle": "OLD", "new": "OLD", "lone": "LONE", "x": "X"}
    assert oldest_ids([one, other]) == oldest_ids([one, other, one]) == expected
    # Joined later: the middle one was its own oldest id at first.
    assert set(oldest_ids([other, one]).values()) == {"Middle", "LONE", "X"}


@pytest.mark.parametrize("content", [b"", b"Grade,id\nHGG,BraTS20_Training_001\n", b"\xff\xfe\x00"])
def test_a_table_without_ids_is_an_error(content, tmp_path):
    _write_case(tmp_path, "BraTS2020")
    (tmp_path / "name_mapping.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"name_mapping.csv: found .* Fetch the table again"):
        _find(tmp_path)


def test_folders_of_2015_that_were_renamed_are_patients_each(tmp_path):
    for name in ("case_01", "case_02"):
        _write_case(tmp_path, "BraTS2015", name)
    assert [case.group for case in _find(tmp_path)] == ["case_01", "case_02"]


@pytest.mark.parametrize(
    ("dataset", "codes", "canonical"),
    [
        ("BraTS2020", [0, 1, 2], [0, brats.NECROTIC, brats.EDEMA]),
        ("BraTS2023", [0, 1, 2], [0, brats.NECROTIC, brats.EDEMA]),
        ("Decathlon", [0, 1, 2], [0, brats.EDEMA, brats.NECROTIC]),
        ("BraTS2023", [0, 3], [0, brats.ENHANCING]),
        ("BraTS2021", [0, 4], [0, brats.ENHANCING]),
        ("BraTS2015", [0, 1, 3, 4], [0, brats.NECROTIC, brats.NECROTIC, brats.ENHANCING]),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_code_follows_the_data_set_whatever_labels_are_there(dataset, codes, canonical, dtype):
    labels = np.array(codes, dtype).reshape(1, 1, -1)
    found = brats.to_canonical(labels, dataset, "x_seg.nii")
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == canonical


@pytest.mark.parametrize(
    ("dataset", "value"),
    [
        ("BraTS2021", 3),
        ("BraTS2017", 5),
        ("BraTS2023", 4),
        ("Decathlon", 4),
        ("BraTS2015", 5),
        ("BraTS2021", 1.5),
        ("BraTS2021", -1),
        ("BraTS2021", 257),
        ("BraTS2021", 255),
    ],
)
def test_label_that_the_code_does_not_have(dataset, value):
    labels = np.array([0, value, 1], np.float32 if value == 1.5 else np.int16)
    expected = (
        rf"x_seg\.nii: found label {value} \(1 voxels\), expected the labels 0, 1, .*{dataset}"
    )
    with pytest.raises(DataError, match=expected):
        brats.to_canonical(labels, dataset, "x_seg.nii")


@pytest.mark.parametrize(
    ("dataset", "codes"),
    [
        *[(dataset, codes) for dataset, (_, _, codes) in LAYOUTS.items()],
        ("Decathlon", (0, 2, 1, 3)),
    ],
)
def test_canonical_labels_go_back_to_the_data_sets_codes(dataset, codes):
    labels = np.arange(4, dtype=np.uint8).reshape(2, 2)
    found = brats.to_dataset_labels(labels, dataset)
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == list(codes)
    assert np.array_equal(brats.to_canonical(found, dataset, "x"), labels)


def test_to_dataset_labels_refuses_the_unknown():
    with pytest.raises(ValueError, match=r"found 'BraTS2016', expected one of .*Decathlon"):
        brats.to_dataset_labels(np.zeros(1), "BraTS2016")
    with pytest.raises(ValueError, match="labels: found 0 to 4, expected 0 to 3"):
        brats.to_dataset_labels(np.array([0, 4]), "BraTS2021")


AFFINES = {
    "LPS": LPS,
    "RAS": np.array([[0.5, 0, 0, -7], [0, 2, 0, 11], [0, 0, 3, 5], [0, 0, 0, 1.0]]),
    # First array axis runs to the feet, the second to the left, the third to the front.
    "ILA": np.array([[0, -2, 0, 4], [0, 0, 0.5, -3], [-3, 0, 0, 60], [0, 0, 0, 1.0]]),
}


def _stored(folder: Path, *, axes: str = "LPS", dataset: str = "BraTS2021") -> store.StoredCase:
    """A case of SHAPE without segmentation, as the store keeps one whose files have these axes."""
    (folder / "source").write_bytes(b"")

    def read(case: Case) -> CaseArrays:
        image = np.ones((*SHAPE, 1), np.int16)
        return CaseArrays(image, labels=None, affine=AFFINES[axes], axis_codes=tuple(axes))

    case = Case("case", dataset, (folder / "source",), None, "case")
    return store.prepare([case], read, folder / "store", workers=1).cases["case"]


@pytest.mark.parametrize(
    ("dataset", "codes"),
    [
        ("BraTS2018", {"necrotic": 1, "edema": 2, "enhancing": 4}),
        ("BraTS2023", {"necrotic": 1, "edema": 2, "enhancing": 3}),
        ("Decathlon", {"necrotic": 2, "edema": 1, "enhancing": 3}),
    ],
)
def test_written_labels_have_the_codes_of_their_data_set(tmp_path, dataset, codes):
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2, 3] = brats.NECROTIC, brats.EDEMA, brats.ENHANCING
    BRATS.write_labels(tmp_path / "out.nii.gz", labels, _stored(tmp_path, dataset=dataset))
    written = nib.load(tmp_path / "out.nii.gz")
    voxels = np.asarray(written.dataobj)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_allclose(written.affine, LPS)
    assert voxels[1:4, 2, 3].tolist() == [codes["necrotic"], codes["edema"], codes["enhancing"]]
    assert np.count_nonzero(voxels) == 3


@pytest.mark.parametrize("axes", AFFINES)
def test_written_labels_lie_on_the_voxels_of_the_file(tmp_path, axes):
    # In LPS voxel (1, 2, 3) of 6 x 5 x 4 counts from right, front and feet. The same voxel in
    # RAS counts from left and back: (5 - 1, 4 - 2, 3); in ILA the first axis counts from the
    # head (3 - 3), the second from the right (1), the third from the back (4 - 2).
    on_disk = {"LPS": (1, 2, 3), "RAS": (4, 2, 3), "ILA": (0, 1, 2)}[axes]
    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 2, 3] = brats.EDEMA
    BRATS.write_labels(tmp_path / "out.nii", labels, _stored(tmp_path, axes=axes))
    written = nib.load(tmp_path / "out.nii")
    assert np.argwhere(np.asarray(written.dataobj)).tolist() == [list(on_disk)]
    np.testing.assert_allclose(written.affine, AFFINES[axes])


def test_written_labels_must_be_on_the_full_grid(tmp_path):
    with pytest.raises(ValueError, match=r"found shape \(3, 5, 4\), expected \(6, 5, 4\)"):
        BRATS.write_labels(tmp_path / "out.nii.gz", _labels()[:3], _stored(tmp_path))
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize("axes", AFFINES)
def test_written_labels_are_read_back_in_lps(tmp_path, axes):
    stored = _stored(tmp_path, axes=axes, dataset="Decathlon")
    path = tmp_path / "BRATS_001.nii.gz"
    BRATS.write_labels(path, _labels(), stored)
    found = BRATS.read_labels(path, stored)
    assert found.dtype == np.uint8
    assert np.array_equal(found, _labels())


def test_label_map_of_another_year_is_refused(tmp_path):
    path = tmp_path / "BRATS_001.nii.gz"
    _write(path, brats.to_dataset_labels(_labels(), "Decathlon"))
    case = Case("BRATS_001", "BraTS2021", (path,), path, "BRATS_001")
    with pytest.raises(DataError, match=r"BRATS_001\.nii\.gz: found label 3"):
        BRATS.read_labels(path, case)


@pytest.mark.parametrize("labelled", [True, False])
def test_label_map_lies_on_the_grid_of_the_cases_own_files(tmp_path, labelled):
    _write_case(tmp_path / "data", labelled=labelled)
    case = _only(_find(tmp_path / "data", labelled=labelled))
    path, labels = tmp_path / "prediction.nii.gz", np.array([0, 1, 2, 4], np.uint8)[_labels()]
    _write(path, labels, _moved(0.09))
    assert np.array_equal(BRATS.read_labels(path, case), _labels())
    reference = (case.labels or case.images[0]).name
    _write(path, labels, _moved(0.2))
    with pytest.raises(
        DataError,
        match=rf"prediction\.nii\.gz: found a grid 0\.2 mm away at a corner, expected the grid of "
        rf".*{reference}\. Predict on the case's own grid\.",
    ):
        BRATS.read_labels(path, case)
    _write(path, labels[:-1])
    with pytest.raises(DataError, match=rf"found shape \(5, 5, 4\), expected .*{reference}"):
        BRATS.read_labels(path, case)


@pytest.mark.parametrize("labelled", [True, False])
def test_label_map_of_the_decathlon_lies_on_the_grid_of_its_channels(tmp_path, labelled):
    _write_decathlon(tmp_path / "data", labelled=labelled)
    case = _only(_find(tmp_path / "data", labelled=labelled))
    path = tmp_path / "prediction.nii.gz"
    _write(path, np.array([0, 2, 1, 3], np.uint8)[_labels()][::-1, ::-1], RAS)
    assert np.array_equal(BRATS.read_labels(path, case), _labels())


def test_label_map_lies_on_the_grid_of_a_stored_case(tmp_path):
    path, stored = tmp_path / "prediction.nii.gz", _stored(tmp_path)
    _write(path, _labels() & 1, RAS)
    with pytest.raises(DataError, match="mm away at a corner, expected the grid of case"):
        BRATS.read_labels(path, stored)


def test_regions_are_the_challenges():
    labels = _labels()
    voxels = {name: np.isin(labels, codes).sum() for name, codes in brats.REGIONS.items()}
    # One slab is 5 x 4 voxels: all three, all but edema, enhancing alone.
    assert voxels == {"WT": 60, "TC": 40, "ET": 20}


@pytest.mark.parametrize(
    ("change", "dtype"),
    [
        (lambda image: image.astype(np.float32), np.int16),
        (lambda image: image.astype(np.float64) - 50, np.int16),
        (lambda image: image.astype(np.int32), np.int16),
        (lambda image: image * np.float32(0.01), np.float32),
        (lambda image: image.astype(np.uint16) * 100, np.float32),
        (lambda image: image.astype(np.int32) * 1000, np.float32),
    ],
)
def test_image_is_int16_where_that_loses_nothing(change, dtype, tmp_path):
    folder = _write_case(tmp_path)
    changed = change(_images()[3])
    _write(folder / "BraTS2021_00017_t2.nii.gz", changed)
    image = BRATS.read(_find(tmp_path)[0]).image
    assert image.dtype == dtype
    assert np.array_equal(image[..., 3], changed.astype(dtype))
    assert np.array_equal(image[..., 0], _images()[0])


def _replace(folder: Path, role: str, array: np.ndarray, affine: np.ndarray = LPS) -> None:
    _write(folder / f"{folder.name}_{role}.nii.gz", array, affine)


def _cut(folder: Path, role: str) -> None:
    path = folder / f"{folder.name}_{role}.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])


def _remove(folder: Path, *roles: str) -> None:
    for role in roles:
        (folder / f"{folder.name}_{role}.nii.gz").unlink()


def _second(folder: Path) -> None:
    path = folder / f"{folder.name}_t1.nii.gz"
    _write(path.with_name(f"{folder.name}_t1.nii"), _images()[1])


def _link(folder: Path) -> None:
    _remove(folder, "t1")
    (folder / f"{folder.name}_t1.nii.gz").symlink_to("absent.nii.gz")


def _moved(mm: float) -> np.ndarray:
    affine = LPS.copy()
    affine[2, 3] += mm
    return affine


# name: (what is done to the folder, what the message says, the remedy)
BAD_CASES = {
    "missing_modality": (lambda f: _remove(f, "t2"), "no {id}_t2.nii.gz", "Add what is missing"),
    "two_missing": (lambda f: _remove(f, "t1", "t1ce"), "no {id}_t1ce.nii.gz", "Add"),
    "missing_segmentation": (lambda f: _remove(f, "seg"), "no {id}_seg", "Add what is missing"),
    "segmentation_alone": (
        lambda f: _remove(f, *brats.MODALITIES),
        "no {id}_flair.nii.gz, no {id}_t1.nii.gz",
        "Add what is missing",
    ),
    "file_twice": (_second, "{id}_t1.nii and {id}_t1.nii.gz", "Keep one"),
    "cut_modality": (lambda f: _cut(f, "t1"), "{id}_t1.nii.gz: found gzip data", "Fetch"),
    "cut_segmentation": (lambda f: _cut(f, "seg"), "{id}_seg.nii.gz: found gzip data", "Fetch"),
    "dangling_modality": (_link, "{id}_t1.nii.gz: found a link", "Mend the link"),
    "other_shape": (
        lambda f: _replace(f, "t2", _images()[3][:-1]),
        "{id}_t2.nii.gz: found dim (5, 5, 4), expected dim (6, 5, 4) as in {id}_flair",
        "Fetch the case again",
    ),
    "other_shape_of_segmentation": (
        lambda f: _replace(f, "seg", _labels()[:, :-1]),
        "{id}_seg.nii.gz: found dim (6, 4, 4)",
        "Fetch the case again",
    ),
    "other_affine": (
        lambda f: _replace(f, "t1ce", _images()[2], _moved(0.2)),
        "{id}_t1ce.nii.gz: found an affine 0.2 mm away",
        "Fetch the case again",
    ),
    "identity_affine_of_segmentation": (
        lambda f: _replace(f, "seg", _labels() & 1, RAS),
        "{id}_seg.nii.gz: found an affine",
        "Fetch the case again",
    ),
    "no_brain_voxels": (
        lambda f: _replace(f, "t1", 0 * _images()[1]),
        "{id}_t1.nii.gz: found no brain voxels",
        "Fetch",
    ),
    "unknown_label": (
        lambda f: _replace(f, "seg", _labels()),
        "{id}_seg.nii.gz: found label 3 (20 voxels), expected the labels 0, 1, 2, 4 of BraTS2021",
        "Check that the file is a segmentation of that year",
    ),
    "fractional_label": (
        lambda f: _replace(f, "seg", _labels() * np.float32(0.5)),
        "{id}_seg.nii.gz: found label 0.5 (20 voxels), 1.5 (20 voxels), expected",
        "segmentation",
    ),
    "four_dimensional_modality": (
        lambda f: _replace(f, "t1", np.stack(_images(), axis=-1)),
        "{id}_t1.nii.gz: found dim (6, 5, 4, 4), 4 dimensions",
        "Split",
    ),
}


def _read_all(folder: Path) -> None:
    for case in _find(folder):
        BRATS.read(case)


@pytest.mark.parametrize("name", BAD_CASES)
def test_bad_case_is_refused_by_name_with_remedy(name, tmp_path):
    damage, says, remedy = BAD_CASES[name]
    folder = _write_case(tmp_path, home="BraTS2021_00002")
    _write_case(tmp_path, home="BraTS2021_00001", seed=1)
    damage(folder)
    with pytest.raises(DataError) as caught:
        _read_all(tmp_path)
    message = str(caught.value)
    assert says.format(id="BraTS2021_00002") in message
    assert remedy in message
    assert "\n" not in message
    report = BRATS.check(tmp_path)
    assert not report.ok
    errors = [problem for problem in report.problems if problem.severity == "error"]
    assert {problem.case_id for problem in errors} == {"BraTS2021_00002"}
    assert any(says.format(id="BraTS2021_00002") in problem.message for problem in errors)


def test_check_lists_all_problems_of_all_cases_in_one_go(tmp_path):
    for number, (damage, _, _) in enumerate(BAD_CASES.values()):
        damage(_write_case(tmp_path, home=f"BraTS2021_{number:05}", seed=number))
    _write_case(tmp_path, home="BraTS2021_00099", seed=99)
    steps = []
    report = BRATS.check(tmp_path, progress=lambda *step: steps.append(step))
    total = len(BAD_CASES) + 1
    assert [step[:2] for step in steps] == [(done, total) for done in range(1, total + 1)]
    for number, (_, says, remedy) in enumerate(BAD_CASES.values()):
        found = [p.message for p in report.problems if p.case_id == f"BraTS2021_{number:05}"]
        assert any(says.format(id=f"BraTS2021_{number:05}") in message for message in found)
        assert any(remedy in message for message in found)
    assert "BraTS2021_00099" not in {problem.case_id for problem in report.problems}
    text = " ".join(report.text.split())
    assert all(" ".join(problem.message.split()) in text for problem in report.problems)
    errors = sum(problem.severity == "error" for problem in report.problems)
    assert report.text.splitlines()[-1].startswith(f"{errors} errors, ")


def test_check_finds_content_problems_of_incomplete_cases_too(tmp_path):
    folder = _write_case(tmp_path)
    _remove(folder, "t2")
    _cut(folder, "flair")
    _replace(folder, "seg", _labels())
    messages = [problem.message for problem in BRATS.check(tmp_path).problems]
    assert len(messages) == 3
    for part in ("no BraTS2021_00017_t2.nii.gz", "flair.nii.gz: found gzip data", "found label 3"):
        assert sum(part in message for message in messages) == 1


def test_expected_tree_beside_the_one_found(tmp_path):
    folder = _write_case(tmp_path)
    _remove(folder, "t2")
    _cut(folder, "flair")
    _write(folder / "notes.nii.gz", _images()[0])
    report = BRATS.check(tmp_path)
    expected = """\
expected                                         | found
------------------------------------------------ | ------------------------------------------------
BraTS2021_00017/                                 | BraTS2021_00017/
  BraTS2021_00017_flair.nii.gz                   |   BraTS2021_00017_flair.nii.gz (see below)
  BraTS2021_00017_t1.nii.gz                      |   BraTS2021_00017_t1.nii.gz
  BraTS2021_00017_t1ce.nii.gz                    |   BraTS2021_00017_t1ce.nii.gz
  BraTS2021_00017_t2.nii.gz                      |   (missing)
  BraTS2021_00017_seg.nii.gz                     |   BraTS2021_00017_seg.nii.gz
                                                 |   notes.nii.gz (not known)"""
    assert report.trees == expected
    assert expected in report.text


def test_nothing_recognized_shows_both_trees(tmp_path):
    (tmp_path / "scans").mkdir()
    _write(tmp_path / "scans/patient_1.nii.gz", _images()[0])
    with pytest.raises(DataError) as caught:
        _find(tmp_path)
    message = str(caught.value)
    assert f"{tmp_path}: found 1 NIfTI file and no case" in message
    for line in ("BraTS-GLI-00000-000-t2f.nii.gz", "imagesTr/BRATS_001.nii.gz", "patient_1.nii.gz"):
        assert line in message
    report = BRATS.check(tmp_path)
    assert not report.ok
    assert report.cases == []
    assert max(map(len, report.trees.splitlines())) <= 100
    assert "(empty)" in BRATS.check(_empty(tmp_path)).text


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


@pytest.mark.parametrize(
    ("ending", "remedy"),
    [
        (".mgz", "Convert"),
        (".hdr", "Convert"),
        (".nrrd", "Convert"),
        (".NII.BZ2", "Unpack"),
        (".nii.zst", "Unpack"),
        (".nii.gz.part", "Fetch again"),
    ],
)
def test_a_case_in_a_form_that_is_not_read_is_named_with_what_it_costs(ending, remedy, tmp_path):
    _write_case(tmp_path, home="BraTS2021_00001")
    lost = tmp_path / "BraTS2021_00002"
    lost.mkdir()
    for role in ("flair", "t1", "t1ce", "t2", "seg"):
        (lost / f"{lost.name}_{role}{ending}").write_bytes(b"x")
    (tmp_path / "BraTS2021_00003").mkdir()
    with pytest.warns(brats.BratsWarning, match=r"2 cases without NIfTI files .*00002.*00003"):
        assert len(_find(tmp_path)) == 1
    messages = [problem.message for problem in BRATS.check(tmp_path).problems]
    suffix = ".part" if ending.endswith(".part") else ending.lower()
    assert messages[0].startswith(f"{lost}: found 5 files {suffix}, expected .nii or .nii.gz; Bra")
    assert remedy in messages[0]
    assert "00003: found no NIfTI file" in messages[1]
    assert "found 2 cases without NIfTI files" in messages[2]
    assert "1 case can be read" in messages[2]


def test_one_file_in_another_format_beside_the_others(tmp_path):
    home = _write_case(tmp_path)
    (home / f"{home.name}_t1.mgz").write_bytes(b"x")
    (tmp_path / "BraTS2021.zip").write_bytes(b"x")
    store.prepare(_find(tmp_path), BRATS.read, tmp_path / "store", workers=1)
    [problem] = BRATS.check(tmp_path).problems
    assert "found 1 file .mgz, expected .nii or .nii.gz. Convert" in problem.message


def _brain(seed: int = 0) -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij"))
    noise = np.random.default_rng(seed).normal(400, 30, (24, 24, 24))
    return np.where((grid**2).sum(0) < 0.8, noise, 0).astype(np.int16)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda image: image - 1024, "the value -1024 in"),
        (lambda image: (image - image.mean()) / image.std(), "the value -"),
        (lambda image: image / image.max() * 2 - 1, "the value -1 in"),
        (
            lambda image: image + (image == 0) * np.arange(24),
            "81% of the outermost voxels",
        ),
        (lambda image: np.pad((image + 7)[1:-1, 1:-1, 1:-1], 1), "the value 7 in"),
    ],
)
def test_a_background_that_is_not_0_is_warned_of(change, found, tmp_path):
    names = [f"BraTS2021_00001_{role}.nii.gz" for role in (*brats.MODALITIES, "seg")]
    for seed, name in enumerate(names[:4]):
        _write(tmp_path / name, _brain(seed))
    _write(tmp_path / names[4], (_brain() > 450).astype(np.uint8))
    assert BRATS.check(tmp_path).problems == []
    _write(tmp_path / names[2], np.asarray(change(_brain().astype(float)), np.float32))
    [problem] = BRATS.check(tmp_path).problems
    assert problem.path.name == names[2]
    assert f"found {found}" in problem.message
    assert "Normalization takes all that is not 0 for brain" in problem.message
    assert problem.severity == "warning"


@pytest.mark.parametrize(("moved", "accepted"), [(1.53e-5, True), (0.0157, True), (0.05, False)])
def test_labels_that_a_header_has_moved_are_rounded(moved, accepted, tmp_path):
    case = _only(_find(_write_case(tmp_path)))
    codes = nifti.load(case.labels).array
    nifti.write_volume(case.labels, (codes * (1 + moved / 4)).astype(np.float32), LPS)
    if not accepted:
        with pytest.raises(DataError, match=r"found label .* Number the labels as BraTS2021 does"):
            BRATS.read_labels(case.labels, case)
        with pytest.raises(DataError, match="found label"):
            BRATS.read(case)
        return
    with pytest.warns(brats.BratsWarning, match="beside whole numbers, expected whole ones"):
        np.testing.assert_array_equal(BRATS.read_labels(case.labels, case), _labels())
    with pytest.warns(brats.BratsWarning, match="beside whole numbers, expected whole ones"):
        np.testing.assert_array_equal(BRATS.read(case).labels, _labels())


def test_a_link_to_nowhere_is_named_by_the_store_too(tmp_path):
    home = _write_case(tmp_path / "data")
    path = home / f"{home.name}_t1.nii.gz"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"a link to .*nowhere, which does not exist"):
        store.prepare(_find(tmp_path / "data"), BRATS.read, tmp_path / "store", workers=1)


def test_good_folder_is_ok(tmp_path):
    _write_case(tmp_path)
    report = BRATS.check(tmp_path)
    assert report.ok
    assert report.problems == []
    assert [case.id for case in report.cases] == ["BraTS2021_00017"]
    assert "1 complete case (BraTS2021 1, 1 with a segmentation)" in report.text
    assert report.text.endswith("0 errors, 0 warnings")


def test_no_enhancing_tumor_is_normal_and_an_empty_segmentation_is_odd(tmp_path, recwarn):
    folder = _write_case(tmp_path)
    _replace(folder, "seg", np.where(_labels() == brats.ENHANCING, 0, _labels()))
    assert BRATS.check(tmp_path).problems == []
    BRATS.read(_find(tmp_path)[0])
    assert not recwarn.list
    _replace(folder, "seg", 0 * _labels())
    report = BRATS.check(tmp_path)
    assert report.ok
    problem = _only(report.problems)
    assert problem.severity == "warning"
    assert "found no tumor voxel" in problem.message
    with pytest.warns(brats.BratsWarning, match=r"_seg\.nii\.gz: found no tumor voxel.*Leave"):
        arrays = BRATS.read(_find(tmp_path)[0])
    assert not arrays.labels.any()


def test_affines_within_a_tenth_of_a_millimeter_agree(tmp_path):
    folder = _write_case(tmp_path)
    _replace(folder, "t1", _images()[1], _moved(0.09))
    _replace(folder, "t2", _images()[3], np.where(LPS == 0, -0.0, LPS))
    assert BRATS.check(tmp_path).problems == []


def test_same_voxels_under_two_names_are_reported(tmp_path):
    _write_case(tmp_path / "a", "BraTS2021", "BraTS2021_00017")
    _write_case(tmp_path / "b", "BraTS2023", "BraTS-GLI-00099-000")
    _write_case(tmp_path / "c", "BraTS2020", seed=5, labelled=False)
    report = BRATS.check(tmp_path)
    problem = _only(report.problems)
    assert (problem.case_id, problem.severity) == ("BraTS-GLI-00099-000", "warning")
    assert "BraTS2021_00017_flair.nii.gz (and 4 more files)" in problem.message
    assert report.ok


def test_duplicates_are_found_by_segmentation_and_in_any_orientation(tmp_path):
    _write_case(tmp_path / "a")
    _write_decathlon(tmp_path / "b")
    folder = _write_case(tmp_path / "c", "BraTS2023")
    for path in folder.glob("*-t*"):
        path.unlink()
    warnings = {p.case_id for p in BRATS.check(tmp_path).problems if p.severity == "warning"}
    assert warnings == {"BRATS_001", "BraTS-GLI-00017-000"}


def test_modality_copied_over_another_is_reported(tmp_path):
    folder = _write_case(tmp_path)
    _replace(folder, "t1ce", _images()[1])
    problem = _only(BRATS.check(tmp_path).problems)
    assert "t1ce.nii.gz: found the voxels of" in problem.message
    assert "Fetch the case again" in problem.message


def test_case_in_two_folders_is_refused(tmp_path):
    _write_case(tmp_path / "a")
    _write_case(tmp_path / "b")
    with pytest.raises(DataError, match=r"b/BraTS2021_00017: found case .* also in .*a/.*Keep one"):
        _find(tmp_path)
    assert not BRATS.check(tmp_path).ok


def test_decathlon_with_another_number_of_channels(tmp_path):
    _write_decathlon(tmp_path)
    _write(tmp_path / "imagesTr/BRATS_001.nii.gz", np.stack(_images()[:3], axis=-1), RAS)
    with pytest.raises(
        DataError, match=r"BRATS_001\.nii\.gz: found dim \(6, 5, 4, 3\), expected 4"
    ):
        BRATS.read(_find(tmp_path)[0])


def test_folder_that_is_none(tmp_path):
    for path, says in ((tmp_path / "absent", "no such folder"), (tmp_path / "file", "a file")):
        (tmp_path / "file").write_text("x")
        with pytest.raises(DataError, match=f"{path}: found {says}"):
            _find(path)


def test_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    _write_case(tmp_path)

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"found the error 'Permission denied'.*chmod"):
        _find(tmp_path)


@pytest.mark.skipif(not REAL.exists(), reason="the real cases are not here")
@pytest.mark.slow
def test_real_cases():
    # Voxel counts of BraTS2021_00000, also in its 2023 copy: 11738, 12836, 32731.
    counts = {}
    for case in _find(REAL / "BraTS2021") + _find(REAL / "BraTS2018"):
        arrays = BRATS.read(case)
        assert arrays.image.shape == (240, 240, 155, 4)
        assert arrays.image.dtype == np.int16
        counts[case.id] = np.bincount(arrays.labels.ravel(), minlength=4).tolist()
    assert counts["BraTS2021_00000"][1:] == [11738, 12836, 32731]
    assert len(counts) == 4
    report = BRATS.check(REAL)
    assert [p.case_id for p in report.problems] == ["BraTS-GLI-00000-000"] * 2
    assert [p.severity for p in report.problems] == ["error", "warning"]
    assert "BraTS2021_00000_seg.nii.gz" in report.problems[1].message
