"""Which release of BraTS a folder holds, and what its labels mean there."""

import numpy as np
import pytest

from keras_medseg import phantoms
from keras_medseg.data import datasets, store
from keras_medseg.data.datasets import brats
from keras_medseg.data.datasets.brats import Brats
from keras_medseg.data.formats import nifti
from keras_medseg.data.store import StoredCase
from keras_medseg.errors import DataError

SHAPE = (6, 5, 4)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
NAMES = ("t2f", "t1n", "t1c", "t2w")


def write_case(root, home, codes=(0, 1, 2, 3), names=NAMES, between="-", seg="seg"):
    """A case of the names from 2023 on, with a slab of each code."""
    folder = root / home
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(home) + sum(codes))
    for name in names:
        image = rng.integers(1, 200, SHAPE).astype(np.int16)
        nifti.write_volume(folder / f"{folder.name}{between}{name}.nii.gz", image, LPS)
    labels = np.zeros(SHAPE, np.uint8)
    labels[: len(codes)] = np.array(codes, np.uint8)[:, None, None]
    nifti.write_volume(folder / f"{folder.name}{between}{seg}.nii.gz", labels, LPS)
    return folder


# (home of a case, codes on disk, release as --dataset, canonical codes)
B, N, E, H, F = 0, brats.NECROTIC, brats.EDEMA, brats.ENHANCING, brats.RESECTION
RELEASES = {
    "BraTS-GLI-00005-100": ((0, 1, 2, 3, 4), "BraTS2024-GLI", (B, N, E, H, F)),
    "BraTS-GLI-02405-101": ((0, 1, 2, 3), "BraTS2024-GLI", (B, N, E, H)),  # without a cavity
    "BraTS-GLI-00005-000": ((0, 1, 2, 3), "BraTS2023", (B, N, E, H)),
    "BraTS-MEN-00004-000": ((0, 1, 2, 3), "BraTS2023-MEN", (B, N, E, H)),
    "BraTS-SSA-00002-000": ((0, 1, 2, 3), "BraTS2023-SSA", (B, N, E, H)),
    "BraTS-GoAT-00000": ((0, 1, 2, 3), "BraTS2024-GoAT", (B, N, E, H)),
    "MICCAI-LH-BraTS2025-MET-Challenge-TrainingData_batch1/UCSD - Training/BraTS-MET-00553-000": (
        (0, 1, 2, 3, 4),
        "BraTS2025-MET",
        (B, N, E, H, F),
    ),
    "ASNR-MICCAI-BraTS2023-MET-Challenge-TrainingData/BraTS-MET-00002-000": (
        (0, 1, 2, 3),
        "BraTS2023-MET",
        (B, N, E, H),
    ),
    "MICCAI-BraTS2024-MET-Challenge-TrainingData_1/BraTS-MET-00003-000": (
        (0, 1, 2, 3),
        "BraTS2023-MET",
        (B, N, E, H),
    ),
    # Of children: 1 enhancing, 2 non-enhancing, 3 cyst, 4 edema.
    "BraTS-PEDs2024_Training/BraTS-PED-00001-000": (
        (0, 1, 2, 3, 4),
        "BraTS2024-PED",
        (B, H, N, brats.CYST, E),
    ),
    "BraTS-PEDs-v1/Training/BraTS-PED-00001-000": ((0, 1, 4), "BraTS2024-PED", (B, H, E)),
    "ASNR-MICCAI-BraTS2023-PED-Challenge-TrainingData/BraTS-PED-00002-000": (
        (0, 1, 2, 3),
        "BraTS2023-PED",
        (B, N, E, H),
    ),
}


@pytest.mark.parametrize("home", RELEASES)
def test_release_follows_from_names(home, tmp_path):
    codes, release, canonical = RELEASES[home]
    write_case(tmp_path, home, codes)
    kind = datasets.of_folder(tmp_path)
    [case] = kind.find(tmp_path).cases
    assert case.dataset == release
    labels = kind.read(case).labels
    assert labels[: len(codes), 0, 0].tolist() == list(canonical)
    assert kind.check(tmp_path).ok
    # Named as what it is, and as another release, which is refused.
    assert datasets.of_folder(tmp_path, release).find(tmp_path).cases == [case]
    with pytest.raises(DataError, match=f"cases of {release}, expected those of BraTS2021 alone"):
        datasets.of_folder(tmp_path, "BraTS2021").find(tmp_path)
    # What is predicted is written in the codes of the case.
    stored = StoredCase.from_arrays(case, kind.read(case))
    kind.write_labels(tmp_path / "found.nii.gz", labels, stored)
    np.testing.assert_array_equal(
        nifti.load(tmp_path / "found.nii.gz").array, nifti.load(case.labels).array
    )
    np.testing.assert_array_equal(kind.read_labels(tmp_path / "found.nii.gz", stored), labels)


def test_regions_of_the_challenges():
    """WT, TC, ET of all; cavity in none of them; the four labels of children; the target alone."""
    cavity = {"WT": "123", "TC": "13", "ET": "3", "RC": "4", "NETC": "1", "SNFH": "2"}
    of_codes = {
        "BraTS2024-GLI": (
            {1: N, 2: E, 3: H, 4: F},
            cavity,
        ),
        "BraTS2025-MET": (
            {1: N, 2: E, 3: H, 4: F},
            cavity,
        ),
        "BraTS2024-PED": (
            {1: H, 2: N, 3: F, 4: E},
            {"WT": "1234", "TC": "123", "ET": "1", "NETC": "2", "CC": "3", "ED": "4"},
        ),
        "BraTS2024-MEN-RT": ({1: 1}, {"GTV": "1"}),
        "BraTS2023-MEN": ({1: N, 2: E, 3: H}, {"WT": "123", "TC": "13", "ET": "3"}),
    }
    for release, (canonical, regions) in of_codes.items():
        kind = Brats(release=release)
        for name, codes in regions.items():
            assert set(kind.regions[name]) == {canonical[int(code)] for code in codes}, release
    assert Brats(release="BraTS2024-MEN-RT").channels == ("t1ce",)


def test_radiotherapy_has_one_modality_and_names_of_its_own(tmp_path):
    home = "BraTS-MEN-RT-0002-1"
    write_case(tmp_path, home, (0, 1), ("t1c",), "_", "gtv")
    kind = datasets.of_folder(tmp_path)
    assert kind == Brats(release="BraTS2024-MEN-RT")
    [case] = kind.find(tmp_path).cases
    assert case.group == "MEN-RT-0002"
    arrays = kind.read(case)
    assert arrays.image.shape == (*SHAPE, 1)
    assert set(np.unique(arrays.labels)) == {0, 1}
    # A run of the four modalities does not predict it, and its cases do not end up in such a run.
    listing, refused = Brats().find_complete(tmp_path)
    assert listing.cases == []
    assert "BraTS2024-MEN-RT, expected the modalities flair, t1, t1ce, t2" in str(refused[0])


@pytest.mark.parametrize(
    ("home", "first", "second"),
    [
        ("BraTS-MET-00002-000", "BraTS2023-MET", "BraTS2025-MET"),
        ("brats2019_project/MET/BraTS-MET-00002-000", "BraTS2023-MET", "BraTS2025-MET"),
        ("my_brats2025_code/BraTS-PED-00002-000", "BraTS2023-PED", "BraTS2024-PED"),
    ],
)
def test_names_that_leave_the_year_open_are_refused_with_the_choice(home, first, second, tmp_path):
    """Also where all labels are those that both years have: labels never decide."""
    write_case(tmp_path, home, (0, 1, 2, 3))
    with pytest.raises(DataError) as caught:
        datasets.of_folder(tmp_path)
    text = str(caught.value)
    assert f"`--dataset {first}` or `--dataset {second}`" in text
    assert f"{first} has 1 necrotic" in text
    assert "\n" not in text
    with pytest.raises(DataError, match="whose names do not tell"):
        Brats().find(tmp_path)
    assert not Brats().check(tmp_path).ok
    for name in (first, second):
        [case] = datasets.of_folder(tmp_path, name).find(tmp_path).cases
        assert case.dataset == name


def test_before_and_after_treatment_is_a_choice(tmp_path):
    write_case(tmp_path, "pre/BraTS-GLI-00005-000")
    write_case(tmp_path, "post/BraTS-GLI-00005-100", (0, 1, 2, 3, 4))
    with pytest.raises(DataError, match=r"BraTS2023 and BraTS2024-GLI, .*--dataset BraTS2025-GLI"):
        datasets.of_folder(tmp_path)
    for chosen in ({}, {"release": "BraTS2023"}, {"release": "BraTS2024-GLI"}):
        with pytest.raises(DataError, match="BraTS2023 and BraTS2024-GLI"):
            Brats(**chosen).find(tmp_path)
    kind = datasets.of_folder(tmp_path, "BraTS2025-GLI")
    cases = kind.find(tmp_path).cases
    assert [case.dataset for case in cases] == ["BraTS2025-GLI"] * 2
    assert len({case.group for case in cases}) == 1
    assert kind.read(cases[1]).labels.max() == brats.RESECTION
    assert datasets.of_folder(tmp_path / "pre") == Brats()
    assert datasets.of_folder(tmp_path / "post") == Brats(release="BraTS2024-GLI")


def test_usual_and_other_labels_do_not_mix(tmp_path):
    write_case(tmp_path, "a/BraTS-GLI-00005-000")
    write_case(tmp_path, "b/BraTS-PEDs2024_Training/BraTS-PED-00001-000", (0, 1, 2, 3, 4))
    with pytest.raises(DataError, match=r"cases of BraTS2023 and BraTS2024-PED, expected one rel"):
        datasets.of_folder(tmp_path)
    # Releases with the same labels do.
    write_case(tmp_path, "c/BraTS-MEN-00004-000")
    write_case(tmp_path, "c/BraTS-SSA-00004-000")
    assert len(datasets.of_folder(tmp_path / "c").find(tmp_path / "c").cases) == 2


def test_a_recipe_of_the_usual_labels_is_not_trained_on_cavities(tmp_path):
    write_case(tmp_path, "BraTS-GLI-00005-100", (0, 1, 2, 3))
    with pytest.raises(DataError, match=r"4 resection cavity\).*data\.options\.release"):
        Brats().find(tmp_path)
    # Predicting needs no labels; the map has the codes of the case's release.
    [case] = Brats().find_complete(tmp_path)[0].cases
    assert case.dataset == "BraTS2024-GLI"
    # A run with cavities writes its codes for gliomas before treatment, too.
    write_case(tmp_path, "BraTS-GLI-00006-000", (0, 1))
    found = Brats(release="BraTS2024-GLI").find_complete(tmp_path)[0].cases
    assert [case.dataset for case in found] == ["BraTS2024-GLI"] * 2


def test_a_label_of_another_year_is_refused_whatever_the_choice(tmp_path):
    folder = write_case(tmp_path, "BraTS-MET-00002-000", (0, 1, 4))
    report = datasets.of_folder(tmp_path, "BraTS2023-MET").check(tmp_path)
    assert not report.ok
    assert "label 4 (20 voxels), expected the labels 0, 1, 2, 3 of BraTS2023-MET" in report.text
    assert datasets.of_folder(tmp_path, "BraTS2025-MET").check(folder).ok


LAYOUTS = [name for name in phantoms.layouts() if name.startswith(("BraTS2023", "BraTS2024"))]
LAYOUTS += ["BraTS2025-MET", "BraTS2025-GLI"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_phantoms_pass_check_and_prepare_and_have_every_label(layout, tmp_path):
    phantoms.write(tmp_path, layout=layout, cases=3, size=(40, 40, 26))
    kind = datasets.of_folder(tmp_path, layout if layout == "BraTS2025-GLI" else "")
    report = kind.check(tmp_path)
    assert report.ok, report.text
    stored = store.prepare(report.cases, kind.read, tmp_path / "store", workers=1).cases
    found = {code for case in stored.values() for code in np.unique(case.full_labels())}
    assert found == {0, *kind.labels}
    if layout == "BraTS2024-GLI":
        assert {kind.read(case).axis_codes for case in report.cases} == {("L", "A", "S")}


def test_voxel_sizes_are_an_option_of_brats_too(tmp_path):
    write_case(tmp_path, "BraTS-GLI-00005-000")
    kind = Brats(spacing_mm=(2, 1, 1))
    [case] = kind.find(tmp_path).cases
    arrays = kind.read(case)
    assert arrays.image.shape == (3, 5, 4, 4)
    assert arrays.source_shape == SHAPE
    with pytest.raises(ValueError, match="release: found 'BraTS2022', expected one of: BraTS2015"):
        Brats(release="BraTS2022")
