"""_image_layouts.py: the published image data sets by name, each as its phantom lays it out."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from keras_medseg import phantoms
from keras_medseg.data import datasets
from keras_medseg.data.datasets import _polyps
from keras_medseg.data.datasets.image_folders import ImageFolders
from keras_medseg.data.formats import image_files
from keras_medseg.errors import DataError
from keras_medseg.phantoms import knee

from . import bad_images as corpus

IMAGES = ImageFolders()
KVASIR_TEST = "cju30ajhw09sx0988qyahx9s8"
KVASIR_TRAIN = "cju0qkwl35piu0993l0dewei2"


def _write(root: Path, *names: str, mask: bool = False) -> Path:
    """Files of noise or, with `mask`, of a disc; no two of noise are alike."""
    for name in names:
        seed = sum(ord(letter) * (i + 1) for i, letter in enumerate(name))
        image_files.write(root / name, corpus.disc() if mask else corpus.color(seed))
    return root


def _pairs(root: Path, *names: str, images: str = "images", masks: str = "masks") -> Path:
    _write(root / images, *(f"{name}.png" for name in names))
    return _write(root / masks, *(f"{name}.png" for name in names), mask=True).parent


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("CVC-ClinicDB", {"CVC-ClinicDB"}),
        ("ISIC2018", {"ISIC2018"}),
        ("knee", {"images"}),
        ("knee-colors", {"images"}),
        ("knee-numbers", {"images"}),
        ("Kvasir-SEG", {"Kvasir-SEG"}),
        ("ETIS-LaribPolypDB", {"ETIS-LaribPolypDB"}),
        ("CVC-ColonDB", {"CVC-ColonDB"}),
        ("CVC-300", {"CVC-300"}),
        ("polyps", _polyps.DATASETS),
        ("HAM10000", {"HAM10000"}),
        ("PH2", {"PH2"}),
    ],
)
def test_phantom_is_recognized_by_name_and_read(layout, names, tmp_path):
    phantoms.write(tmp_path, layout=layout, cases=9, size=(48, 64))
    assert datasets.recognize(tmp_path) == "image_folders"
    kind = datasets.of_folder(tmp_path)
    if layout == "knee":
        kind = ImageFolders(knee.CLASSES)
    cases = kind.find(tmp_path).cases
    assert {case.dataset for case in cases} == names
    assert len(cases) == 9
    assert kind.check(tmp_path).ok


@pytest.mark.parametrize(
    "layout",
    [
        "ETIS-LaribPolypDB",
        "CVC-ColonDB",
        "CVC-300",
        "HAM10000",
        "PH2",
        "knee-colors",
        "knee-numbers",
    ],
)
def test_masks_belong_to_their_images(layout, tmp_path):
    phantoms.write(tmp_path, layout=layout, cases=2, size=(48, 64))
    kind = datasets.of_folder(tmp_path)
    for index, case in enumerate(kind.find(tmp_path).cases):
        expected = phantoms.images.LAYOUTS[layout].draw(0, index, (48, 64))[1]
        np.testing.assert_array_equal(kind.read(case).labels[..., 0], expected)


def test_kvasir_masks_are_jpeg(tmp_path):
    phantoms.write(tmp_path, layout="Kvasir-SEG", cases=1, size=(48, 64))
    (case,) = IMAGES.find(tmp_path).cases
    with warnings.catch_warnings(action="error"):  # their gray edges are known
        labels = IMAGES.read(case).labels
    expected = phantoms.images.LAYOUTS["Kvasir-SEG"].draw(0, 0, (48, 64))[1]
    np.testing.assert_array_equal(labels[..., 0], expected)


class TestPolypBenchmark:
    def test_numbers_of_the_published_split(self):
        tested = _polyps.tested()
        assert {name: len(images) for name, images in tested.items()} == {
            "Kvasir-SEG": 100,
            "CVC-ClinicDB": 62,
        }
        training = sum(_polyps.IMAGES[name] - len(images) for name, images in tested.items())
        assert training == 900 + 550
        assert all(len(name) == 25 for name in tested["Kvasir-SEG"])
        assert all(1 <= int(name) <= 612 for name in tested["CVC-ClinicDB"])

    def test_folders_as_they_are_distributed(self, tmp_path):
        train = _pairs(
            tmp_path / "TrainDataset", KVASIR_TRAIN, "27", "75", images="image", masks="mask"
        )
        assert train.name == "TrainDataset"
        for name, image in (("Kvasir", KVASIR_TEST), ("CVC-ClinicDB", "25"), ("CVC-300", "149")):
            _pairs(tmp_path / "TestDataset" / name, image)
        listing = IMAGES.find(tmp_path)
        assert {
            case.id: (case.dataset, case.group, listing.sides[case.id]) for case in listing.cases
        } == {
            f"TrainDataset_{KVASIR_TRAIN}": (
                "Kvasir-SEG", f"Kvasir-SEG_{KVASIR_TRAIN}", "training",
            ),
            # Frames 26 to 50 are sequence 2, and 68 to 78 sequence 4; frame 25 is in sequence 1.
            "TrainDataset_27": ("CVC-ClinicDB", "CVC-ClinicDB_sequence_02", "training"),
            "TrainDataset_75": ("CVC-ClinicDB", "CVC-ClinicDB_sequence_04", "training"),
            f"TestDataset_Kvasir_{KVASIR_TEST}": (
                "Kvasir-SEG", f"Kvasir-SEG_{KVASIR_TEST}", "validation",
            ),
            "TestDataset_CVC-ClinicDB_25": (
                "CVC-ClinicDB", "CVC-ClinicDB_sequence_01", "validation",
            ),
            "TestDataset_CVC-300_149": ("CVC-300", "CVC-300_149", "validation"),
        }  # fmt: skip

    def test_one_part_alone(self, tmp_path):
        test = _pairs(tmp_path / "TestDataset/ETIS-LaribPolypDB", "1", "2").parent
        assert test.name == "TestDataset"
        _pairs(test / "Kvasir", KVASIR_TEST)
        for folder in (test, test / "Kvasir"):
            listing = IMAGES.find(folder)
            assert {case.dataset for case in listing.cases} <= {"ETIS-LaribPolypDB", "Kvasir-SEG"}
        assert [case.id for case in IMAGES.find(test / "Kvasir").cases] == [KVASIR_TEST]
        assert not IMAGES.find(test / "Kvasir").sides

    def test_the_data_sets_themselves_side_by_side(self, tmp_path):
        _pairs(tmp_path / "Kvasir-SEG", KVASIR_TRAIN, KVASIR_TEST)
        cvc = tmp_path / "CVC-ClinicDB"
        _write(cvc / "Original", "24.tif", "25.tif")
        _write(cvc / "Ground Truth", "24.tif", "25.tif", mask=True)
        etis = tmp_path / "ETIS"
        _write(etis / "ETIS-LaribPolypDB", "7.tif")
        _write(etis / "Ground Truth", "p7.tif", mask=True)
        listing = IMAGES.find(tmp_path)
        assert listing.sides == {
            f"Kvasir-SEG_{KVASIR_TRAIN}": "training",
            f"Kvasir-SEG_{KVASIR_TEST}": "validation",
            "CVC-ClinicDB_24": "training",
            "CVC-ClinicDB_25": "validation",
            "ETIS-LaribPolypDB_7": "validation",
        }
        text = IMAGES.check(tmp_path).text
        assert "found 1 images, expected 196 of ETIS-LaribPolypDB" in " ".join(text.split())

    def test_equal_pixels_on_both_sides_are_named(self, tmp_path):
        train = _pairs(tmp_path / "TrainDataset", KVASIR_TRAIN, "27", images="image")
        _pairs(tmp_path / "TestDataset/Kvasir", KVASIR_TEST)
        shutil.copy(
            train / f"image/{KVASIR_TRAIN}.png",
            tmp_path / f"TestDataset/Kvasir/images/{KVASIR_TEST}.png",
        )
        problems = [p.message for p in IMAGES.check(tmp_path).problems]
        assert any("which is on the validation side, expected none" in text for text in problems)


class TestSides:
    @pytest.mark.parametrize(
        ("training", "validation"),
        [
            ("train", "val"), ("Training", "Validation"), ("train_images", "valid"),
            ("TrainDataset", "test"), ("TRAIN SET", "Testing-Data"),
        ],
    )  # fmt: skip
    def test_names_of_both(self, training, validation, tmp_path):
        _pairs(tmp_path / training, "a", "b")
        _pairs(tmp_path / validation, "a")
        listing = IMAGES.find(tmp_path)
        assert listing.sides == {
            f"{training}_a": "training",
            f"{training}_b": "training",
            f"{validation}_a": "validation",
        }

    def test_three_sides(self, tmp_path):
        for side in ("Training_Set", "Validation", "test"):
            _pairs(tmp_path / side, side)
        assert IMAGES.find(tmp_path).sides == {
            "Training_Set_Training_Set": "training",
            "Validation_Validation": "validation",
            "test_test": "test",
        }

    def test_other_names_are_two_data_sets(self, tmp_path):
        _pairs(tmp_path / "hospital_1", "a")
        _pairs(tmp_path / "hospital_2", "b")
        with pytest.raises(DataError, match=r"images in .*hospital_1, .*expected one data set"):
            IMAGES.find(tmp_path)

    def test_the_same_data_set_twice(self, tmp_path):
        _pairs(tmp_path / "Kvasir-SEG", KVASIR_TEST)
        _pairs(tmp_path / "copy of Kvasir-SEG", KVASIR_TRAIN)
        with pytest.raises(DataError, match="expected one data set"):
            IMAGES.find(tmp_path)


class TestSkin:
    def test_lesions_of_ham10000_are_groups(self, tmp_path):
        phantoms.write(tmp_path, layout="HAM10000", cases=3, size=(48, 64))
        groups = {case.id: case.group for case in IMAGES.find(tmp_path).cases}
        assert groups == {
            "ISIC_0024306": "HAM_0000000",
            "ISIC_0024307": "HAM_0000000",
            "ISIC_0024308": "HAM_0000001",
        }

    def test_ham10000_without_its_table_of_lesions(self, tmp_path):
        phantoms.write(tmp_path, layout="HAM10000", cases=2, size=(48, 64))
        (tmp_path / "HAM10000_metadata.csv").unlink()
        assert "without HAM10000_metadata.csv" in " ".join(IMAGES.check(tmp_path).text.split())
        (tmp_path / "HAM10000_metadata.csv").write_text("image,lesion\n")
        with pytest.raises(DataError, match=r"without lesion_id and image_id.*Fetch it again"):
            IMAGES.find(tmp_path)

    def test_ham10000_without_masks_names_their_file(self, tmp_path):
        phantoms.write(tmp_path, layout="HAM10000", cases=2, size=(48, 64))
        shutil.rmtree(tmp_path / "HAM10000_segmentations_lesion_tschandl")
        with pytest.raises(DataError, match=r"fetch and unpack HAM10000_segmentations_lesion_tsc"):
            IMAGES.find(tmp_path)
        assert len(IMAGES.find(tmp_path, labelled=False).cases) == 2

    def test_a_case_of_ph2_without_its_image(self, tmp_path):
        phantoms.write(tmp_path, layout="PH2", cases=2, size=(48, 64))
        image = tmp_path / "PH2 Dataset images/IMD001/IMD001_Dermoscopic_Image/IMD001.bmp"
        image.unlink()
        with pytest.raises(DataError, match=r"IMD001_lesion.bmp: found no image"):
            IMAGES.find(tmp_path)
        shutil.rmtree(image.parents[1] / "IMD001_lesion")
        with pytest.raises(DataError, match=r"IMD001: found no image"):
            IMAGES.find(tmp_path)


class TestClasses:
    @pytest.mark.parametrize(
        ("text", "verdict"),
        [
            ("", "expected a whole file"),
            ("[]", "found \\[\\]"),
            ('{"a": "red"}', "'#ff0000'"),
            ('{"a": [300]}', "0 to 255"),
            ('{"a": 1, "b": 1}', "none twice"),
        ],
    )
    def test_damaged_file(self, text, verdict, tmp_path):
        (tmp_path / "classes.json").write_text(text)
        with pytest.raises(DataError, match=rf"classes\.json.*{verdict}.*Write it as"):
            ImageFolders.options_of(tmp_path, {})

    def test_beside_a_manifest(self, tmp_path):
        _pairs(tmp_path, "a")
        (tmp_path / "manifest.csv").write_text("image,mask\nimages/a.png,masks/a.png\n")
        (tmp_path / "classes.json").write_text(json.dumps({"disc": 255}))
        for folder in (tmp_path, tmp_path / "manifest.csv"):
            kind = datasets.of_folder(folder)
            assert isinstance(kind, ImageFolders)
            assert dict(kind.classes) == {"disc": (255,)}
        given = datasets.of_folder(tmp_path, classes={"all": (255,)})
        assert given == ImageFolders({"all": (255,)})

    def test_names_in_upper_case(self, tmp_path):
        _pairs(tmp_path / "DATA", "a", images="IMAGES", masks="Masks")
        for path in (tmp_path / "DATA").glob("*/a.png"):
            path.rename(path.with_name("A.PNG"))
        (tmp_path / "MANIFEST.CSV").write_text("image,mask\nDATA/IMAGES/A.PNG,DATA/Masks/A.PNG\n")
        (tmp_path / "Classes.json").write_text(json.dumps({"disc": 255}))
        assert [case.id for case in IMAGES.find(tmp_path).cases] == ["A"]
        assert [case.id for case in IMAGES.find(tmp_path / "DATA").cases] == ["A"]
        assert ImageFolders.options_of(tmp_path, {}) == {"classes": {"disc": (255,)}}

    def test_a_jpeg_mask_in_colors_is_refused(self, tmp_path):
        phantoms.write(tmp_path, layout="knee-colors", cases=1, size=(48, 64))
        mask = tmp_path / "masks/1.png"
        pixels = image_files.read_image(mask).pixels
        mask.unlink()
        image_files.write(mask.with_suffix(".jpg"), pixels)
        kind = datasets.of_folder(tmp_path)
        with pytest.raises(DataError, match=r"1\.jpg: found colors #.*Name all classes"):
            kind.read(kind.find(tmp_path).cases[0])


class TestPathsStayInside:
    """A manifest comes from others: it must not name other files of its user."""

    @pytest.mark.parametrize("column", ["image", "mask"])
    @pytest.mark.parametrize("how", ["absolute", "above", "above and back", "link"])
    def test_manifest(self, how, column, tmp_path):
        outside = _pairs(tmp_path / "outside", "a") / f"{column}s/a.png"
        home = _pairs(tmp_path / "home", "a", "b")
        names = {
            "absolute": str(outside),
            "above": f"../outside/{column}s/a.png",
            "above and back": f"../home/{column}s/a.png",
            "link": "link.png",
        }
        (home / "link.png").symlink_to(outside)
        row = {"image": "images/a.png", "mask": "masks/a.png", column: names[how]}
        (home / "manifest.csv").write_text(f"image,mask\n{row['image']},{row['mask']}\n")
        with pytest.raises(
            DataError, match=r"line 2: .*leads out of the manifest's folder.* above"
        ):
            IMAGES.find(home)

    def test_links_inside_and_a_linked_data_set_are_followed(self, tmp_path):
        home = _pairs(tmp_path / "home", "a")
        (home / "link.png").symlink_to("images/a.png")
        (home / "manifest.csv").write_text("image,mask\nlink.png,masks/a.png\n")
        (tmp_path / "elsewhere").symlink_to(home)
        for folder in (home, tmp_path / "elsewhere"):
            assert [case.id for case in IMAGES.find(folder).cases] == ["link"]

    def test_a_label_map_replaces_a_link_and_is_not_written_through_it(self, tmp_path):
        precious = tmp_path / "precious.png"
        precious.write_text("mine")
        (tmp_path / "out").mkdir()
        (tmp_path / "out/a.png").symlink_to(precious)
        image_files.write(tmp_path / "out/a.png", corpus.disc())
        assert precious.read_text() == "mine"
        assert not (tmp_path / "out/a.png").is_symlink()
