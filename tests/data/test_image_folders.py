"""image_folders.py: every layout, whole and damaged, on images of a few pixels."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_medseg.data import splits, store
from keras_medseg.data.cases import Case
from keras_medseg.data.datasets.image_folders import ImageFolders, ImageWarning
from keras_medseg.data.formats import image_files
from keras_medseg.errors import DataError

from . import bad_images as corpus

SHARED = Path(os.environ.get("KERAS_MEDSEG_SHARED", Path(__file__).parents[3] / "shared"))
REAL = SHARED / "data"
IMAGES = ImageFolders()
KNEE = {"tibia": (51,), "femur": (102,), "patella": (153,), "cruciate ligament": (204, 255)}

README = """Frames | Sequence
--------------------
|   1 to   2 |\t 1\t|
|   3 to  10 |\t 2  |
| 11 to 12   |3|
"""


def _find(folder: Path, **options) -> list[Case]:
    return IMAGES.find(folder, **options).cases


def _write_cvc(root: Path, frames=(1, 2, 3, 10, 11), readme: str | None = README) -> Path:
    """Frames in three sequences: 1 and 2, 3 to 10, 11 and 12."""
    for frame in frames:
        image_files.write(root / f"Original/{frame}.tif", corpus.color(frame))
        image_files.write(root / f"Ground Truth/{frame}.tif", corpus.disc())
    if readme is not None:
        (root / "README.txt").write_text(readme)
    return root


def _write_isic(root: Path, ids=(3, 12), ending="segmentation", task="ISIC2018_Task1") -> Path:
    for id in ids:
        image_files.write(root / f"{task}-2_Training_Input/ISIC_{id:07}.jpg", corpus.color(id))
        mask = root / f"{task}_Training_GroundTruth/ISIC_{id:07}_{ending}.png"
        image_files.write(mask, corpus.disc())
    (root / f"{task}-2_Training_Input/ATTRIBUTION.txt").write_text("CC-0")
    return root


def _write_pairs(root: Path, names=("a", "b")) -> Path:
    for seed, name in enumerate(names):
        image_files.write(root / f"images/{name}.png", corpus.gray(seed))
        image_files.write(root / f"masks/{name}.png", corpus.disc())
    return root


def _write_manifest(root: Path, text: str) -> Path:
    (root / "manifest.csv").write_text(text)
    return root


def _messages(report, severity="error") -> list[str]:
    return [problem.message for problem in report.problems if problem.severity == severity]


class TestLayouts:
    def test_cvc_clinicdb(self, tmp_path):
        cases = _find(_write_cvc(tmp_path))
        assert [case.id for case in cases] == ["1", "2", "3", "10", "11"]
        groups = ["sequence_01"] * 2 + ["sequence_02"] * 2 + ["sequence_03"]
        assert [case.group for case in cases] == groups
        assert {case.dataset for case in cases} == {"CVC-ClinicDB"}
        arrays = IMAGES.read(cases[3])
        assert arrays.image.shape == (40, 30, 1, 3)
        np.testing.assert_array_equal(arrays.image[:, :, 0], corpus.color(10))
        np.testing.assert_array_equal(arrays.labels[..., 0], corpus.disc(1))
        np.testing.assert_array_equal(arrays.affine, np.eye(4))
        assert arrays.axis_codes == ("L", "P", "S")
        assert arrays.image.dtype == arrays.labels.dtype == np.uint8

    @pytest.mark.parametrize("folder", ["", "PNG", "a/b/CVC"])
    def test_data_sets_are_found_some_folders_below(self, folder, tmp_path):
        _write_cvc(tmp_path / folder)
        assert len(_find(tmp_path)) == 5

    def test_the_readme_may_lie_beside_a_converted_copy(self, tmp_path):
        _write_cvc(tmp_path / "PNG", readme=None)
        (tmp_path / "README.txt").write_text(README)
        assert _find(tmp_path)[-1].group == "sequence_03"

    @pytest.mark.parametrize("readme", [None, "A database of polyps."])
    def test_without_its_table_the_originals_sequences_are_used(self, readme, tmp_path):
        _write_cvc(tmp_path, frames=(1, 25, 26, 612), readme=readme)
        groups = [case.group for case in _find(tmp_path)]
        assert groups == ["sequence_01", "sequence_01", "sequence_02", "sequence_29"]
        warned = _messages(IMAGES.check(tmp_path), "warning")
        assert ("no table of sequences" in " ".join(warned)) == (readme is not None)
        assert "found 4 frames, expected 612 (frame 2 is missing)" in " ".join(warned)

    def test_isic_2018(self, tmp_path):
        first, second = _find(_write_isic(tmp_path))
        assert (first.id, second.id) == ("ISIC_0000003", "ISIC_0000012")
        assert (first.dataset, first.group) == ("ISIC2018", "ISIC_0000003")
        assert first.labels.name == "ISIC_0000003_segmentation.png"
        assert IMAGES.check(tmp_path).problems == []

    def test_isic_of_other_years(self, tmp_path):
        _write_isic(tmp_path / "a", ending="Segmentation", task="ISBI2016_ISIC_Part1")
        assert {case.dataset for case in _find(tmp_path / "a")} == {"ISIC2016"}
        _write_isic(tmp_path / "b", ending="Segmentation", task="ISIC-2017")
        assert {case.dataset for case in _find(tmp_path / "b")} == {"ISIC2017"}

    def test_isics_other_files_are_passed_over(self, tmp_path):
        folder = _write_isic(tmp_path) / "ISIC2018_Task1-2_Training_Input"
        image_files.write(folder / "ISIC_0000003_superpixels.png", corpus.color())
        image_files.write(folder / "ISIC_0000003_attribute_globules.png", corpus.disc())
        assert IMAGES.check(tmp_path).problems == []

    def test_sets_without_masks_are_left_out_or_found_as_wished(self, tmp_path):
        _write_isic(tmp_path)
        test = tmp_path / "ISIC2018_Task1-2_Test_Input/ISIC_0000099.jpg"
        image_files.write(test, corpus.color())
        assert len(_find(tmp_path)) == 2
        unlabelled = _find(tmp_path, labelled=False)[-1]
        assert (unlabelled.id, unlabelled.labels) == ("ISIC_0000099", None)
        assert IMAGES.read(unlabelled).labels is None
        with pytest.raises(DataError, match="found 1 image without masks"):
            _find(test.parent)

    def test_images_beside_masks(self, tmp_path):
        cases = _find(_write_pairs(tmp_path, ["a10", "a9"]))
        assert [(case.id, case.group, case.dataset) for case in cases] == [
            ("a9", "a9", "images"),
            ("a10", "a10", "images"),
        ]
        assert IMAGES.read(cases[1]).image.shape == (40, 30, 1, 1)

    def test_masks_may_be_called_masks(self, tmp_path):
        image_files.write(tmp_path / "images/a.jpg", corpus.color())
        image_files.write(tmp_path / "Masks/a_mask.png", corpus.disc())
        assert _find(tmp_path)[0].labels.name == "a_mask.png"

    def test_images_alone(self, tmp_path):
        image_files.write(tmp_path / "images/a.png", corpus.color())
        assert _find(tmp_path, labelled=False)[0].labels is None

    def test_manifest(self, tmp_path):
        for name in ("p1/x.png", "p1/y.png", "p2/x.png"):
            image_files.write(tmp_path / "scans" / name, corpus.gray())
        image_files.write(tmp_path / "drawn/1.png", corpus.disc())
        rows = "scans/p1/x.png,drawn/1.png,one\nscans/p1/y.png,,one\nscans/p2/x.png,drawn/1.png,\n"
        _write_manifest(tmp_path, f"\ufeffimage,mask,group\n{rows}")
        for place in (tmp_path, tmp_path / "manifest.csv"):
            cases = _find(place, labelled=False)
            assert [case.id for case in cases] == ["p1_x", "p1_y", "p2_x"]
            assert [case.group for case in cases] == ["one", "one", "p2_x"]
        assert cases[1].labels is None
        assert len(_find(tmp_path)) == 2
        assert IMAGES.find(tmp_path).sides == {}

    @pytest.mark.parametrize("validation", ["validation", "held_out"])  # the second is the old name
    def test_split_of_a_manifest(self, validation, tmp_path):
        _write_pairs(tmp_path, "abc")
        rows = [f"images/{n},masks/{n},{s}" for n, s in zip(
            ("a.png", "b.png", "c.png"), ("training", validation, "training"))]  # fmt: skip
        _write_manifest(tmp_path, "\n".join(["image,mask,split", *rows]))
        listing = IMAGES.find(tmp_path)
        assert listing.sides == {"a": "training", "b": "validation", "c": "training"}
        training, held_out, test = splits.assign(tmp_path, listing.sides, listing.cases)
        assert [case.id for case in training] == ["a", "c"]
        assert [case.id for case in held_out] == ["b"]
        assert test == ()

    def test_a_manifest_may_have_a_test_side(self, tmp_path):
        _write_pairs(tmp_path, "abc")
        rows = [f"images/{n}.png,masks/{n}.png,{s}" for n, s in zip(
            "abc", ("training", "test", "validation"))]  # fmt: skip
        _write_manifest(tmp_path, "\n".join(["image,mask,split", *rows]))
        listing = IMAGES.find(tmp_path)
        split = splits.assign(tmp_path, listing.sides, listing.cases)
        assert [[case.id for case in side] for side in split] == [["a"], ["c"], ["b"]]

    def test_cases_that_are_left_out_are_on_no_side(self, tmp_path):
        _write_pairs(tmp_path)
        rows = "images/a.png,masks/a.png,training\nimages/b.png,,validation\n"
        _write_manifest(tmp_path, f"image,mask,split\n{rows}")
        assert IMAGES.find(tmp_path).sides == {"a": "training"}
        sides = {"a": "training", "b": "validation"}
        assert IMAGES.find(tmp_path, labelled=False).sides == sides


class TestWhatLiesOnDisk:
    """Each mistake is an error of find_cases, and one of check's, with the same message."""

    def refused(self, folder: Path, verdict: str) -> None:
        with pytest.raises(DataError, match=verdict) as caught:
            _find(folder)
        first = str(caught.value).splitlines()[0]
        errors = _messages(IMAGES.check(folder))
        assert any(first.startswith(message.rstrip(".")) for message in errors), errors

    def test_no_such_folder(self, tmp_path):
        for check in (IMAGES.find, IMAGES.check):
            with pytest.raises(DataError, match="found no such folder"):
                check(tmp_path / "nowhere")
        (tmp_path / "a.txt").write_text("")
        with pytest.raises(DataError, match="found a file"):
            _find(tmp_path / "a.txt")

    def test_nothing_known_shows_both_trees(self, tmp_path):
        (tmp_path / "photos").mkdir()
        self.refused(tmp_path, "no images in a layout that is known")
        text = IMAGES.check(tmp_path).text
        assert "manifest.csv: image,mask[,group][,split]" in text
        assert "|   photos/" in text

    def test_two_data_sets(self, tmp_path):
        _write_cvc(tmp_path / "PNG")
        _write_cvc(tmp_path / "TIF")
        self.refused(tmp_path, "CVC-ClinicDB in .*PNG, CVC-ClinicDB in .*TIF, expected one")

    @pytest.mark.parametrize(
        ("gone", "verdict"),
        [
            ("Original/3.tif", r"Ground Truth/3\.tif: found no image, expected one for case 3"),
            ("Ground Truth/3.tif", r"Original/3\.tif: found no mask, expected one for case 3"),
        ],
    )
    def test_missing_partner(self, gone, verdict, tmp_path):
        (_write_cvc(tmp_path) / gone).unlink()
        self.refused(tmp_path, verdict)

    def test_missing_partner_in_the_other_layouts(self, tmp_path):
        (_write_pairs(tmp_path / "a") / "masks/b.png").unlink()
        self.refused(tmp_path / "a", r"images/b\.png: found no mask")
        folder = _write_isic(tmp_path / "b") / "ISIC2018_Task1-2_Training_Input"
        (folder / "ISIC_0000003.jpg").unlink()
        self.refused(tmp_path / "b", r"ISIC_0000003_segmentation\.png: found no image")

    def test_two_files_for_one_case(self, tmp_path):
        image_files.write(_write_pairs(tmp_path) / "images/a.jpg", corpus.gray())
        self.refused(tmp_path, r"a\.jpg: found also .*a\.png, expected one image for case a")

    def test_two_masks_for_one_case(self, tmp_path):
        image_files.write(_write_pairs(tmp_path) / "masks/a_mask.png", corpus.disc())
        self.refused(tmp_path, r"found also .*, expected one mask for case a")

    def test_one_frame_twice(self, tmp_path):
        image_files.write(_write_cvc(tmp_path) / "Original/003.tif", corpus.color())
        self.refused(tmp_path, r"expected one image for case 3")

    def test_names_that_differ_in_case_only(self, tmp_path):
        _write_pairs(tmp_path, ["a", "A"])
        self.refused(tmp_path, r"the names .*A\.png and .*a\.png, expected different names")

    def test_a_mask_may_be_named_in_another_case_and_with_accents_apart(self, tmp_path):
        for image, mask in (("IMG0", "img0"), ("pol\u00fdp", "poly\u0301p"), ("B", "b_mask")):
            image_files.write(tmp_path / f"images/{image}.png", corpus.gray())
            image_files.write(tmp_path / f"masks/{mask}.png", corpus.disc())
        cases = _find(tmp_path)
        assert sorted(case.id for case in cases) == ["B", "IMG0", "pol\u00fdp"]
        assert all(case.labels is not None for case in cases)

    def test_an_error_of_the_folder_is_not_followed_by_another(self, tmp_path):
        _write_cvc(tmp_path / "PNG")
        _write_cvc(tmp_path / "TIF")
        assert len(IMAGES.check(tmp_path).problems) == 1

    def test_a_link_to_nowhere(self, tmp_path):
        path = _write_pairs(tmp_path, "ab") / "images/b.png"
        path.unlink()
        path.symlink_to(tmp_path / "nowhere")
        with pytest.raises(DataError, match=r"b\.png: found a link to .*nowhere, which does not"):
            store.prepare(_find(tmp_path), IMAGES.read, tmp_path / "store", workers=1)

    def test_frame_outside_of_every_sequence(self, tmp_path):
        _write_cvc(tmp_path, frames=(1, 13))
        self.refused(tmp_path, r"13\.tif: found frame 13 in 0 sequences, expected one")

    def test_frame_in_two_sequences(self, tmp_path):
        _write_cvc(tmp_path, readme=README.replace("3 to", "2 to"))
        self.refused(tmp_path, r"2\.tif: found frame 2 in 2 sequences, expected one")

    @pytest.mark.parametrize(
        ("text", "verdict"),
        [
            ("", "the columns none, expected image,mask,"),
            ("image;mask\na.png;b.png\n", "the columns image;mask, expected"),
            ("image,label\na.png,b.png\n", "the columns image,label"),
            ("image,mask,mask\na.png,b.png,c.png\n", "the columns image,mask,mask"),
            ("image,mask\n", "no rows"),
            ('image,mask\n"a.png,b.png\n', "no CSV"),
            ("image,mask\na.png\n", "line 2: found fewer fields than columns"),
            ("image,mask\na.png,b.png,c.png\n", "line 2: found more fields than columns"),
            ("image,mask\n,masks/a.png\n", "line 2: found no image"),
            ("image,mask\nimages/a.png,masks/a.png\nimages/x.png,\n", "line 3: found no such file"),
            ("image,mask\nimages/a.png,masks/x.png\n", "expected the mask .*x.png"),
            ("image,mask\nimages/a.png,images/a.png\n", "one file as both"),
            ("image,mask,split\nimages/a.png,masks/a.png,val\n", "split 'val', expected training"),
            (
                "image,mask,group,split\nimages/a.png,masks/a.png,g,training\n"
                "images/b.png,masks/b.png,g,held_out\n",
                "group g on both sides",
            ),
            ("image,mask\n" + "images/a.png,masks/a.png\n" * 2, "2 rows for .*a.png, expected one"),
        ],
    )
    def test_manifest(self, text, verdict, tmp_path):
        self.refused(_write_manifest(_write_pairs(tmp_path), text), verdict)

    def test_manifest_in_another_encoding(self, tmp_path):
        (tmp_path / "manifest.csv").write_bytes("image,mask\nä.png,b.png\n".encode("latin-1"))
        self.refused(tmp_path, "no CSV .*utf-8")

    def test_all_bad_rows_are_listed(self, tmp_path):
        _write_manifest(_write_pairs(tmp_path), "image,mask\nx.png,\ny.png,\nimages/a.png,\n")
        report = IMAGES.check(tmp_path)
        assert [message.split(": ")[0][-6:] for message in _messages(report)] == [
            "line 2",
            "line 3",
        ]
        assert len(report.cases) == 1

    def test_split_with_one_side(self, tmp_path):
        _write_manifest(
            _write_pairs(tmp_path), "image,mask,split\nimages/a.png,masks/a.png,training\n"
        )
        listing = IMAGES.find(tmp_path)
        with pytest.raises(DataError, match="no case on the side validation"):
            splits.assign(tmp_path, listing.sides, listing.cases)

    def test_stray_files_are_warned_of_and_hidden_ones_passed_over(self, tmp_path):
        folder = _write_pairs(tmp_path) / "images"
        (folder / "a.gif").write_bytes(b"GIF89a")
        (folder / "notes.docx").write_bytes(b"PK")
        (folder / "more").mkdir()
        (folder / ".DS_Store").write_bytes(b"")
        (folder / "Thumbs.db").write_bytes(b"")
        image_files.write(_write_cvc(tmp_path / "cvc") / "Original/overview.tif", corpus.color())
        with pytest.warns(ImageWarning, match=r"among the images, such as a\.gif"):
            assert len(_find(tmp_path)) == 2
        warned = _messages(IMAGES.check(tmp_path), "warning")
        assert [Path(text.split(": ")[0]).name for text in warned] == [
            "a.gif",
            "notes.docx",
            "more",
        ]
        warned = _messages(IMAGES.check(tmp_path / "cvc"), "warning")
        assert "overview.tif: found another file, expected a frame's number" in " ".join(warned)


class TestWhatTheFilesHold:
    def case(self, folder: Path, image: bytes | np.ndarray, mask: bytes | np.ndarray):
        """A case of two PNG files with these pixels or bytes."""
        for name, content in (("images", image), ("masks", mask)):
            path = folder / name / "a.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                image_files.write(path, content)
        return _find(folder)[0]

    @pytest.mark.parametrize(
        ("image", "mask", "verdict"),
        [
            (corpus.color(), corpus.disc()[:-1], "39 x 30 pixels, expected 40 x 30 as in a.png"),
            (corpus.color(), corpus.disc().T.copy(), "30 x 40 pixels, expected 40 x 30"),
            (np.zeros((40, 30), np.uint8), corpus.disc(), r"one value only \(\[0\]\)"),
            (np.full((40, 30, 3), 7, np.uint8), corpus.disc(), "one value only"),
            (corpus.color(), corpus.gray(), "gray values .*expected 0 and one other"),
            (corpus.PNG[:-20], corpus.disc(), "announced"),
            (corpus.color(), corpus.palette(), "a palette"),
            (corpus.oriented(3), corpus.disc()[:-1], "39 x 30 pixels"),
        ],
    )
    def test_refused_by_both(self, image, mask, verdict, tmp_path):
        case = self.case(tmp_path, image, mask)
        with pytest.raises(DataError, match=verdict) as caught:
            IMAGES.read(case)
        report = IMAGES.check(tmp_path)
        assert not report.ok
        assert _messages(report) == [str(caught.value)]

    def test_both_files_are_reported(self, tmp_path):
        self.case(tmp_path, corpus.PNG[:-20], corpus.palette())
        assert len(_messages(IMAGES.check(tmp_path))) == 2

    def test_gray_where_color_is_known(self, tmp_path):
        image_files.write(_write_cvc(tmp_path) / "Original/3.tif", corpus.gray())
        assert "3.tif: found gray, expected color" in _messages(IMAGES.check(tmp_path))[0]

    def test_gray_beside_color(self, tmp_path):
        image_files.write(_write_pairs(tmp_path, "abc") / "images/b.png", corpus.color())
        [message] = _messages(IMAGES.check(tmp_path))
        assert "b.png: found color, expected gray as most images are" in message

    @pytest.mark.parametrize("orientation", [3, 6])
    def test_turned_image(self, orientation, tmp_path):
        upright = image_files.upright(corpus.color(), orientation)
        mask = image_files.upright(corpus.disc()[..., None], orientation)[..., 0]
        case = self.case(tmp_path, corpus.oriented(orientation), mask)
        with pytest.warns(ImageWarning) as caught:
            arrays = IMAGES.read(case)
        assert f"EXIF orientation {orientation}" in str(caught[0].message)
        assert "is turned" in str(caught[0].message)
        np.testing.assert_array_equal(arrays.image[:, :, 0], upright)

    def test_image_whose_mask_is_drawn_on_the_unturned_pixels(self, tmp_path):
        case = self.case(tmp_path, corpus.oriented(6), corpus.disc())
        with pytest.warns(ImageWarning, match="is not turned, as its mask is not"):
            arrays = IMAGES.read(case)
        np.testing.assert_array_equal(arrays.image[:, :, 0], corpus.color())

    @pytest.mark.parametrize(
        ("mask", "verdict"),
        [(np.zeros((40, 30), np.uint8), "no object"), (corpus.disc() | 255, "nothing but object")],
    )
    def test_empty_and_full_masks_are_warned_of(self, mask, verdict, tmp_path):
        case = self.case(tmp_path, corpus.color(), mask)
        with pytest.warns(ImageWarning, match=f"found {verdict}"):
            IMAGES.read(case)

    def test_gray_edges_are_warned_of_but_for_cvc(self, tmp_path):
        soft, expected = corpus.disc(), corpus.disc(1)
        soft[0, :5] = (1, 5, 20, 200, 250)
        expected[0, 3:5] = 1
        case = self.case(tmp_path / "a", corpus.color(), soft)
        with pytest.warns(ImageWarning, match="Those over 127 count as object"):
            arrays = IMAGES.read(case)
        np.testing.assert_array_equal(arrays.labels[..., 0], expected)
        image_files.write(_write_cvc(tmp_path / "b") / "Ground Truth/3.tif", soft)
        assert "Ground Truth" not in " ".join(_messages(IMAGES.check(tmp_path / "b"), "warning"))

    def test_classes(self, tmp_path):
        mask = corpus.disc(102)
        mask[0, :5] = (204, 255, 204, 51, 51)
        case = self.case(tmp_path, corpus.gray(), mask)
        named = {"background": (51,), "femur": (102,), "ligament": (204, 255)}
        labels = ImageFolders(named).read(case).labels[..., 0]
        assert labels[0, :5].tolist() == [2, 2, 2, 0, 0]
        np.testing.assert_array_equal(labels[1:], (mask[1:] == 102))
        assert ImageFolders(named).check(tmp_path).ok
        assert not IMAGES.check(tmp_path).ok

    def test_a_slice_may_lack_the_classes_that_are_named(self, tmp_path):
        case = self.case(tmp_path, corpus.gray(), corpus.disc(102))
        with warnings.catch_warnings(action="error"):
            arrays = ImageFolders({"ligament": (204,), "background": (102,)}).read(case)
        assert not arrays.labels.any()

    def test_equal_images_under_two_names(self, tmp_path):
        image_files.write(_write_pairs(tmp_path) / "images/b.png", corpus.gray(0))
        [message] = _messages(IMAGES.check(tmp_path), "warning")
        assert "b.png: found the pixels of" in message
        assert message.endswith("Keep one of the two cases.")

    def test_progress(self, tmp_path):
        seen = []
        IMAGES.check(_write_pairs(tmp_path), progress=lambda *step: seen.append(step))
        assert seen == [(1, 2, "a"), (2, 2, "b")]


def test_store_holds_an_image_as_one_slice(tmp_path):
    cases = _find(_write_cvc(tmp_path / "data"))
    stored = store.prepare(cases, IMAGES.read, tmp_path / "store", workers=1).cases["10"]
    assert stored.image.shape == (1, 40, 30, 3)
    arrays = IMAGES.read(cases[3])
    np.testing.assert_array_equal(stored.full_image(), arrays.image)
    np.testing.assert_array_equal(stored.full_labels(), arrays.labels)


class TestClasses:
    def test_without_classes_there_is_one_object(self):
        assert IMAGES.labels == {1: "object"}
        assert IMAGES.regions == IMAGES.targets == {"object": (1,)}

    def test_names_in_order_are_the_labels_and_the_background_is_none(self):
        knee = ImageFolders({"femur": (102,), "background": (51, 255), "tibia": [153]})
        assert knee.labels == {1: "femur", 2: "tibia"}
        assert knee.regions == knee.targets == {"femur": (1,), "tibia": (2,)}
        assert knee.classes["tibia"] == (153,)

    def test_one_class_may_be_named_without_codes(self):
        assert ImageFolders({"polyp": ()}).regions == {"polyp": (1,)}

    @pytest.mark.parametrize(
        "classes",
        [{"a": (), "b": ()}, {"a": (1,), "b": ()}, {"a": (1,), "b": (1,)}, {"background": (1,)}],
    )
    def test_classes_that_make_no_sense(self, classes):
        with pytest.raises(ValueError, match="classes: found"):
            ImageFolders(classes)

    def test_equal_classes_in_another_order_are_other_labels(self):
        first = ImageFolders({"a": (1,), "b": (2,)})
        assert first == ImageFolders({"a": (1,), "b": [2]})
        assert hash(first) == hash(ImageFolders({"a": (1,), "b": [2]}))
        assert first != ImageFolders({"b": (2,), "a": (1,)})


class TestLabelMaps:
    def case(self, folder: Path, images: ImageFolders = IMAGES) -> Case:
        for name in "ab":
            image_files.write(folder / f"images/{name}.png", corpus.gray())
            image_files.write(folder / f"masks/{name}.png", corpus.disc())
        return images.find(folder).cases[0]

    def stored(self, folder: Path, images: ImageFolders = IMAGES) -> store.StoredCase:
        case = self.case(folder, images)
        return store.prepare([case], images.read, folder / "store", workers=1).cases[case.id]

    @pytest.mark.parametrize("classes", [{}, {"polyp": ()}, {"polyp": (255,), "background": (7,)}])
    def test_one_class_alone_is_written_as_255(self, classes, tmp_path):
        images = ImageFolders(classes)
        stored = self.stored(tmp_path, images)
        images.write_labels(tmp_path / "mask.png", corpus.disc(1)[..., None], stored)
        written = np.asarray(Image.open(tmp_path / "mask.png"))
        np.testing.assert_array_equal(written, corpus.disc())
        found = images.read_labels(tmp_path / "mask.png", stored)
        np.testing.assert_array_equal(found, corpus.disc(1)[..., None])
        assert found.dtype == np.uint8

    def test_several_classes_are_written_as_their_labels(self, tmp_path):
        images = ImageFolders({"femur": (102,), "tibia": (153, 255)})
        stored, labels = self.stored(tmp_path, images), corpus.disc(1)[..., None]
        labels[0] = 2
        images.write_labels(tmp_path / "mask.png", labels, stored)
        written = np.asarray(Image.open(tmp_path / "mask.png"))
        np.testing.assert_array_equal(written, labels[..., 0])
        np.testing.assert_array_equal(images.read_labels(tmp_path / "mask.png", stored), labels)

    @pytest.mark.parametrize("size", [(20, 30, 1), (40, 30), (40, 30, 3)])
    def test_labels_of_another_size_are_not_written(self, size, tmp_path):
        stored = self.stored(tmp_path)
        with pytest.raises(ValueError, match=r"labels: found shape .*, expected \(40, 30, 1\)"):
            IMAGES.write_labels(tmp_path / "mask.png", np.zeros(size, np.uint8), stored)

    def test_labels_may_have_the_size_of_the_file_that_was_resized(self, tmp_path):
        stored = self.stored(tmp_path)
        object.__setattr__(stored, "source_shape", (80, 60, 1))
        for size in ((40, 30, 1), (80, 60, 1)):
            IMAGES.write_labels(tmp_path / "mask.png", np.ones(size, np.uint8), stored)
            assert np.asarray(Image.open(tmp_path / "mask.png")).shape == size[:2]
        with pytest.raises(ValueError, match=r"\(20, 15, 1\), expected \(40, 30, 1\) or \(80, "):
            IMAGES.write_labels(tmp_path / "mask.png", np.ones((20, 15, 1), np.uint8), stored)

    @pytest.mark.parametrize("value", [1, 7, 255])
    def test_whatever_is_not_0_belongs_to_a_class_alone(self, value, tmp_path):
        case, mask = self.case(tmp_path), corpus.disc(value)
        image_files.write(tmp_path / "mask.bmp", mask)
        found = IMAGES.read_labels(tmp_path / "mask.bmp", case)
        np.testing.assert_array_equal(found[..., 0], mask > 0)

    @pytest.mark.parametrize("classes", [{}, {"polyp": (255,)}])
    def test_probabilities_are_refused_as_an_annotation_would_be(self, classes, tmp_path):
        images = ImageFolders(classes)
        case, soft = self.case(tmp_path, images), corpus.gray()
        image_files.write(tmp_path / "soft.png", soft)
        with pytest.raises(DataError, match=r"soft\.png: found gray values .* Save a mask of"):
            images.read_labels(tmp_path / "soft.png", case)

    def test_gray_edges_of_a_prediction_are_cut_with_a_warning(self, tmp_path):
        case, mask = self.case(tmp_path), corpus.disc()
        mask[0, :3] = 9, 90, 200
        image_files.write(tmp_path / "mask.png", mask)
        with pytest.warns(ImageWarning, match="over 127 count as object"):
            found = IMAGES.read_labels(tmp_path / "mask.png", case)
        np.testing.assert_array_equal(found[..., 0], mask > 127)

    def test_a_prediction_that_is_jpeg_inside(self, tmp_path):
        case, mask = self.case(tmp_path), corpus.disc()
        image_files.write(tmp_path / "mask.jpg", mask)
        (tmp_path / "mask.png").write_bytes((tmp_path / "mask.jpg").read_bytes())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = IMAGES.read_labels(tmp_path / "mask.png", case)
        jpeg, edges = (str(warning.message) for warning in caught)
        assert "found JPEG inside" in jpeg
        assert "over 127 count as object" in edges
        np.testing.assert_array_equal(found[..., 0], mask > 127)

    def test_numbered_classes_in_jpeg_are_refused(self, tmp_path):
        images = ImageFolders({"femur": (102,), "tibia": (153, 255)})
        case = self.case(tmp_path, images)
        image_files.write(tmp_path / "mask.jpg", corpus.disc(2))
        with pytest.raises(DataError, match=r"found JPEG, which changes .* as PNG: femur, tibia"):
            images.read_labels(tmp_path / "mask.jpg", case)

    def test_mask_of_another_size(self, tmp_path):
        case = self.case(tmp_path)
        image_files.write(tmp_path / "mask.png", corpus.disc()[1:])
        expected = (
            r"mask\.png: found 39 x 30 pixels, expected 40 x 30, those of a\.png\. Predict at"
        )
        with pytest.raises(DataError, match=expected):
            IMAGES.read_labels(tmp_path / "mask.png", case)

    @pytest.mark.parametrize(
        ("classes", "verdict"),
        [
            (
                {"ligament": (204, 255), "background": (51,)},
                r"values .*51 \(30 .*, expected 0 and ",
            ),
            ({"tibia": (51,), "ligament": (204, 255)}, "gray code 204, expected 0 to 2"),
        ],
    )
    def test_an_annotation_is_no_label_map(self, classes, verdict, tmp_path):
        mask = corpus.disc(204)
        mask[0] = 51
        image_files.write(tmp_path / "mask.png", mask)
        images = ImageFolders(classes)
        with pytest.raises(DataError, match=verdict):
            images.read_labels(tmp_path / "mask.png", self.case(tmp_path, images))

    @pytest.mark.parametrize("orientation", [5, 6, 7, 8])
    def test_an_image_has_one_orientation_from_reading_to_scores(self, orientation, tmp_path):
        case, mask = self.case(tmp_path), corpus.disc()
        mask[:5, :9] = 255  # no symmetry
        case.images[0].write_bytes(corpus.oriented(orientation))
        image_files.write(case.labels, mask)
        with pytest.warns(ImageWarning, match="is not turned, as its mask is not"):
            image = IMAGES.read_image(case).image
        np.testing.assert_array_equal(image[:, :, 0], corpus.color())
        turned = image_files.upright(mask[..., None], orientation)[..., 0]
        image_files.write(tmp_path / "turned.png", turned)
        with pytest.warns(ImageWarning, match=r"turned\.png: found the pixels of a turned"):
            found = IMAGES.read_labels(tmp_path / "turned.png", case)
        np.testing.assert_array_equal(found[..., 0], mask > 0)
        image_files.write(case.labels, turned)  # now the image is turned, and a plain mask is not
        image_files.write(tmp_path / "plain.png", mask)
        with pytest.warns(ImageWarning, match=r"plain\.png: found the pixels of a turned"):
            found = IMAGES.read_labels(tmp_path / "plain.png", case)
        np.testing.assert_array_equal(found[..., 0], turned > 0)

    def test_an_image_to_predict_needs_no_sound_mask(self, tmp_path):
        case = self.case(tmp_path)
        case.labels.write_bytes(b"no mask")
        arrays = IMAGES.read_image(case)
        assert arrays.labels is None
        np.testing.assert_array_equal(arrays.image[:, :, 0, 0], corpus.gray())

    def test_size_is_that_of_the_turned_image(self, tmp_path):
        path = tmp_path / "images/a.png"
        path.parent.mkdir()
        path.write_bytes(corpus.oriented(6))
        mask = image_files.upright(corpus.disc()[..., None], 6)[..., 0]
        image_files.write(tmp_path / "masks/a.png", mask)
        [case] = _find(tmp_path)
        with warnings.catch_warnings(action="error"):
            found = IMAGES.read_labels(tmp_path / "masks/a.png", case)
        np.testing.assert_array_equal(found[..., 0], mask > 0)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real images")
class TestRealData:
    def test_cvc_clinicdb(self):
        cases = _find(REAL / "CVC-ClinicDB")
        assert len(cases) == 612
        assert len({case.group for case in cases}) == 29
        assert [case.id for case in cases] == [str(frame) for frame in range(1, 613)]
        # Frame 200 is the first of the tenth sequence by README.txt, frame 199 the last before.
        assert [cases[198].group, cases[199].group] == ["sequence_09", "sequence_10"]
        arrays = IMAGES.read(cases[0])
        assert arrays.image.shape == (288, 384, 1, 3)
        assert set(np.unique(arrays.labels)) == {0, 1}
        expected = np.asarray(Image.open(cases[0].labels)) > 127
        np.testing.assert_array_equal(arrays.labels[..., 0], expected)

    def test_isic_and_knee_have_no_errors(self):
        assert IMAGES.check(REAL / "ISIC2018").ok
        report = ImageFolders(KNEE).check(REAL / "knee_mri")
        assert report.ok
        # 9 masks with grays between the codes and 2 that are empty, counted by hand.
        assert len(report.problems) == 11
