"""images.py: every layout, whole and damaged, on pictures of a few pixels."""

import os
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_medseg.data import store
from keras_medseg.data.datasets import image_folders
from keras_medseg.data.formats import image_files
from keras_medseg.errors import DataError

from . import bad_images as corpus

SHARED = Path(os.environ.get("KERAS_MEDSEG_SHARED", Path(__file__).parents[3] / "shared"))
REAL = SHARED / "data"
KNEE = {"tibia": (51,), "femur": (102,), "patella": (153,), "cruciate ligament": (204, 255)}

README = """Frames | Sequence
--------------------
|   1 to   2 |\t 1\t|
|   3 to  10 |\t 2  |
| 11 to 12   |3|
"""


def _write_cvc(root: Path, frames=(1, 2, 3, 10, 11), readme: str | None = README) -> Path:
    """Frames in three sequences: 1 and 2, 3 to 10, 11 and 12."""
    for frame in frames:
        image_files.write(root / f"Original/{frame}.tif", corpus.colour(frame))
        image_files.write(root / f"Ground Truth/{frame}.tif", corpus.disc())
    if readme is not None:
        (root / "README.txt").write_text(readme)
    return root


def _write_isic(root: Path, ids=(3, 12), ending="segmentation", task="ISIC2018_Task1") -> Path:
    for id in ids:
        image_files.write(root / f"{task}-2_Training_Input/ISIC_{id:07}.jpg", corpus.colour(id))
        mask = root / f"{task}_Training_GroundTruth/ISIC_{id:07}_{ending}.png"
        image_files.write(mask, corpus.disc())
    (root / f"{task}-2_Training_Input/ATTRIBUTION.txt").write_text("CC-0")
    return root


def _write_pairs(root: Path, names=("a", "b")) -> Path:
    for seed, name in enumerate(names):
        image_files.write(root / f"images/{name}.png", corpus.grey(seed))
        image_files.write(root / f"masks/{name}.png", corpus.disc())
    return root


def _write_manifest(root: Path, text: str) -> Path:
    (root / "manifest.csv").write_text(text)
    return root


def _messages(report, severity="error") -> list[str]:
    return [problem.message for problem in report.problems if problem.severity == severity]


class TestLayouts:
    def test_cvc_clinicdb(self, tmp_path):
        cases = image_folders.find_cases(_write_cvc(tmp_path))
        assert [case.id for case in cases] == ["1", "2", "3", "10", "11"]
        groups = ["sequence_01"] * 2 + ["sequence_02"] * 2 + ["sequence_03"]
        assert [case.group for case in cases] == groups
        assert {case.dataset for case in cases} == {"CVC-ClinicDB"}
        arrays = image_folders.read_case(cases[3])
        assert arrays.image.shape == (40, 30, 1, 3)
        np.testing.assert_array_equal(arrays.image[:, :, 0], corpus.colour(10))
        np.testing.assert_array_equal(arrays.labels[..., 0], corpus.disc(1))
        np.testing.assert_array_equal(arrays.affine, np.eye(4))
        assert arrays.axis_codes == ("L", "P", "S")
        assert arrays.image.dtype == arrays.labels.dtype == np.uint8

    @pytest.mark.parametrize("folder", ["", "PNG", "a/b/CVC"])
    def test_data_sets_are_found_some_folders_below(self, folder, tmp_path):
        _write_cvc(tmp_path / folder)
        assert len(image_folders.find_cases(tmp_path)) == 5

    def test_the_readme_may_lie_beside_a_converted_copy(self, tmp_path):
        _write_cvc(tmp_path / "PNG", readme=None)
        (tmp_path / "README.txt").write_text(README)
        assert image_folders.find_cases(tmp_path)[-1].group == "sequence_03"

    @pytest.mark.parametrize("readme", [None, "A database of polyps."])
    def test_without_its_table_the_originals_sequences_are_used(self, readme, tmp_path):
        _write_cvc(tmp_path, frames=(1, 25, 26, 612), readme=readme)
        groups = [case.group for case in image_folders.find_cases(tmp_path)]
        assert groups == ["sequence_01", "sequence_01", "sequence_02", "sequence_29"]
        warned = _messages(image_folders.check(tmp_path), "warning")
        assert ("no table of sequences" in " ".join(warned)) == (readme is not None)
        assert "found 4 frames, expected 612 (frame 2 is missing)" in " ".join(warned)

    def test_isic_2018(self, tmp_path):
        first, second = image_folders.find_cases(_write_isic(tmp_path))
        assert (first.id, second.id) == ("ISIC_0000003", "ISIC_0000012")
        assert (first.dataset, first.group) == ("ISIC2018", "ISIC_0000003")
        assert first.labels.name == "ISIC_0000003_segmentation.png"
        assert image_folders.check(tmp_path).problems == []

    def test_isic_of_other_years(self, tmp_path):
        _write_isic(tmp_path / "a", ending="Segmentation", task="ISBI2016_ISIC_Part1")
        assert {case.dataset for case in image_folders.find_cases(tmp_path / "a")} == {"ISIC2016"}
        _write_isic(tmp_path / "b", ending="Segmentation", task="ISIC-2017")
        assert {case.dataset for case in image_folders.find_cases(tmp_path / "b")} == {"ISIC2017"}

    def test_isics_other_files_are_passed_over(self, tmp_path):
        folder = _write_isic(tmp_path) / "ISIC2018_Task1-2_Training_Input"
        image_files.write(folder / "ISIC_0000003_superpixels.png", corpus.colour())
        image_files.write(folder / "ISIC_0000003_attribute_globules.png", corpus.disc())
        assert image_folders.check(tmp_path).problems == []

    def test_sets_without_masks_are_left_out_or_found_as_wished(self, tmp_path):
        _write_isic(tmp_path)
        test = tmp_path / "ISIC2018_Task1-2_Test_Input/ISIC_0000099.jpg"
        image_files.write(test, corpus.colour())
        assert len(image_folders.find_cases(tmp_path)) == 2
        unlabelled = image_folders.find_cases(tmp_path, labelled=False)[-1]
        assert (unlabelled.id, unlabelled.labels) == ("ISIC_0000099", None)
        assert image_folders.read_case(unlabelled).labels is None
        with pytest.raises(DataError, match="found 1 picture without masks"):
            image_folders.find_cases(test.parent)

    def test_images_beside_masks(self, tmp_path):
        cases = image_folders.find_cases(_write_pairs(tmp_path, ["a10", "a9"]))
        assert [(case.id, case.group, case.dataset) for case in cases] == [
            ("a9", "a9", "pictures"),
            ("a10", "a10", "pictures"),
        ]
        assert image_folders.read_case(cases[1]).image.shape == (40, 30, 1, 1)

    def test_masks_may_be_called_masks(self, tmp_path):
        image_files.write(tmp_path / "images/a.jpg", corpus.colour())
        image_files.write(tmp_path / "Masks/a_mask.png", corpus.disc())
        assert image_folders.find_cases(tmp_path)[0].labels.name == "a_mask.png"

    def test_images_alone(self, tmp_path):
        image_files.write(tmp_path / "images/a.png", corpus.colour())
        assert image_folders.find_cases(tmp_path, labelled=False)[0].labels is None

    def test_manifest(self, tmp_path):
        for name in ("p1/x.png", "p1/y.png", "p2/x.png"):
            image_files.write(tmp_path / "scans" / name, corpus.grey())
        image_files.write(tmp_path / "drawn/1.png", corpus.disc())
        rows = "scans/p1/x.png,drawn/1.png,one\nscans/p1/y.png,,one\nscans/p2/x.png,drawn/1.png,\n"
        _write_manifest(tmp_path, f"\ufeffimage,mask,group\n{rows}")
        for place in (tmp_path, tmp_path / "manifest.csv"):
            cases = image_folders.find_cases(place, labelled=False)
            assert [case.id for case in cases] == ["p1_x", "p1_y", "p2_x"]
            assert [case.group for case in cases] == ["one", "one", "p2_x"]
        assert cases[1].labels is None
        assert len(image_folders.find_cases(tmp_path)) == 2
        assert image_folders.find_split(tmp_path, cases) is None

    def test_split_of_a_manifest(self, tmp_path):
        _write_pairs(tmp_path, "abc")
        rows = [f"images/{n},masks/{n},{s}" for n, s in zip(
            ("a.png", "b.png", "c.png"), ("training", "held_out", "training"))]  # fmt: skip
        _write_manifest(tmp_path, "\n".join(["image,mask,split", *rows]))
        training, held_out = image_folders.find_split(tmp_path, image_folders.find_cases(tmp_path))
        assert [case.id for case in training] == ["a", "c"]
        assert [case.id for case in held_out] == ["b"]


class TestWhatLiesOnDisk:
    """Each mistake is an error of find_cases, and one of check's, with the same message."""

    def refused(self, folder: Path, verdict: str) -> None:
        with pytest.raises(DataError, match=verdict) as caught:
            image_folders.find_cases(folder)
        first = str(caught.value).splitlines()[0]
        errors = _messages(image_folders.check(folder))
        assert any(first.startswith(message.rstrip(".")) for message in errors), errors

    def test_no_such_folder(self, tmp_path):
        for check in (image_folders.find_cases, image_folders.check):
            with pytest.raises(DataError, match="found no such folder"):
                check(tmp_path / "nowhere")
        (tmp_path / "a.txt").write_text("")
        with pytest.raises(DataError, match="found a file"):
            image_folders.find_cases(tmp_path / "a.txt")

    def test_nothing_known_shows_both_trees(self, tmp_path):
        (tmp_path / "photos").mkdir()
        self.refused(tmp_path, "no pictures in a layout that is known")
        text = image_folders.check(tmp_path).text
        assert "manifest.csv: image,mask[,group][,split]" in text
        assert "|   photos/" in text

    def test_two_data_sets(self, tmp_path):
        _write_cvc(tmp_path / "PNG")
        _write_cvc(tmp_path / "TIF")
        self.refused(tmp_path, "CVC-ClinicDB in .*PNG, CVC-ClinicDB in .*TIF, expected one")

    @pytest.mark.parametrize(
        ("gone", "verdict"),
        [
            ("Original/3.tif", r"Ground Truth/3\.tif: found no picture, expected one for case 3"),
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
        self.refused(tmp_path / "b", r"ISIC_0000003_segmentation\.png: found no picture")

    def test_two_files_for_one_case(self, tmp_path):
        image_files.write(_write_pairs(tmp_path) / "images/a.jpg", corpus.grey())
        self.refused(tmp_path, r"a\.jpg: found also .*a\.png, expected one picture for case a")

    def test_two_masks_for_one_case(self, tmp_path):
        image_files.write(_write_pairs(tmp_path) / "masks/a_mask.png", corpus.disc())
        self.refused(tmp_path, r"found also .*, expected one mask for case a")

    def test_one_frame_twice(self, tmp_path):
        image_files.write(_write_cvc(tmp_path) / "Original/003.tif", corpus.colour())
        self.refused(tmp_path, r"expected one picture for case 3")

    def test_names_that_differ_in_case_only(self, tmp_path):
        _write_pairs(tmp_path, ["a", "A"])
        self.refused(tmp_path, r"the names .*A\.png and .*a\.png, expected different names")

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
            ("image,mask\n" + "images/a.png,masks/a.png\n" * 2, "the names .* different names"),
        ],
    )
    def test_manifest(self, text, verdict, tmp_path):
        self.refused(_write_manifest(_write_pairs(tmp_path), text), verdict)

    def test_manifest_in_another_encoding(self, tmp_path):
        (tmp_path / "manifest.csv").write_bytes("image,mask\nä.png,b.png\n".encode("latin-1"))
        self.refused(tmp_path, "no CSV .*utf-8")

    def test_all_bad_rows_are_listed(self, tmp_path):
        _write_manifest(_write_pairs(tmp_path), "image,mask\nx.png,\ny.png,\nimages/a.png,\n")
        report = image_folders.check(tmp_path)
        assert [message.split(": ")[0][-6:] for message in _messages(report)] == [
            "line 2",
            "line 3",
        ]
        assert len(report.cases) == 1

    def test_split_with_one_side(self, tmp_path):
        _write_manifest(
            _write_pairs(tmp_path), "image,mask,split\nimages/a.png,masks/a.png,training\n"
        )
        with pytest.raises(DataError, match="all cases on one side"):
            image_folders.find_split(tmp_path, image_folders.find_cases(tmp_path))

    def test_stray_files_are_warned_of_and_hidden_ones_passed_over(self, tmp_path):
        folder = _write_pairs(tmp_path) / "images"
        (folder / "a.gif").write_bytes(b"GIF89a")
        (folder / "notes.docx").write_bytes(b"PK")
        (folder / "more").mkdir()
        (folder / ".DS_Store").write_bytes(b"")
        (folder / "Thumbs.db").write_bytes(b"")
        image_files.write(_write_cvc(tmp_path / "cvc") / "Original/overview.tif", corpus.colour())
        assert len(image_folders.find_cases(tmp_path)) == 2
        warned = _messages(image_folders.check(tmp_path), "warning")
        assert [Path(text.split(": ")[0]).name for text in warned] == [
            "a.gif",
            "notes.docx",
            "more",
        ]
        warned = _messages(image_folders.check(tmp_path / "cvc"), "warning")
        assert "overview.tif: found another file, expected a frame's number" in " ".join(warned)


class TestWhatTheFilesHold:
    def case(self, folder: Path, picture: bytes | np.ndarray, mask: bytes | np.ndarray):
        """A case of two PNG files with these pixels or bytes."""
        for name, content in (("images", picture), ("masks", mask)):
            path = folder / name / "a.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                image_files.write(path, content)
        return image_folders.find_cases(folder)[0]

    @pytest.mark.parametrize(
        ("picture", "mask", "verdict"),
        [
            (corpus.colour(), corpus.disc()[:-1], "39 x 30 pixels, expected 40 x 30 as in a.png"),
            (corpus.colour(), corpus.disc().T.copy(), "30 x 40 pixels, expected 40 x 30"),
            (np.zeros((40, 30), np.uint8), corpus.disc(), r"one value only \(\[0\]\)"),
            (np.full((40, 30, 3), 7, np.uint8), corpus.disc(), "one value only"),
            (corpus.colour(), corpus.grey(), "grey values .*expected 0 and one other"),
            (corpus.PNG[:-20], corpus.disc(), "announced"),
            (corpus.colour(), corpus.palette(), "a palette"),
            (corpus.oriented(3), corpus.disc()[:-1], "39 x 30 pixels"),
        ],
    )
    def test_refused_by_both(self, picture, mask, verdict, tmp_path):
        case = self.case(tmp_path, picture, mask)
        with pytest.raises(DataError, match=verdict) as caught:
            image_folders.read_case(case)
        report = image_folders.check(tmp_path)
        assert not report.ok
        assert _messages(report) == [str(caught.value)]

    def test_both_files_are_reported(self, tmp_path):
        self.case(tmp_path, corpus.PNG[:-20], corpus.palette())
        assert len(_messages(image_folders.check(tmp_path))) == 2

    def test_grey_where_colour_is_known(self, tmp_path):
        image_files.write(_write_cvc(tmp_path) / "Original/3.tif", corpus.grey())
        assert "3.tif: found grey, expected colour" in _messages(image_folders.check(tmp_path))[0]

    def test_grey_beside_colour(self, tmp_path):
        image_files.write(_write_pairs(tmp_path, "abc") / "images/b.png", corpus.colour())
        [message] = _messages(image_folders.check(tmp_path))
        assert "b.png: found colour, expected grey as most pictures are" in message

    @pytest.mark.parametrize("orientation", [3, 6])
    def test_turned_picture(self, orientation, tmp_path):
        upright = image_files.upright(corpus.colour(), orientation)
        mask = image_files.upright(corpus.disc()[..., None], orientation)[..., 0]
        case = self.case(tmp_path, corpus.oriented(orientation), mask)
        with pytest.warns(image_folders.PictureWarning) as caught:
            arrays = image_folders.read_case(case)
        assert f"EXIF orientation {orientation}" in str(caught[0].message)
        assert "is turned" in str(caught[0].message)
        np.testing.assert_array_equal(arrays.image[:, :, 0], upright)

    def test_picture_whose_mask_is_drawn_on_the_unturned_pixels(self, tmp_path):
        case = self.case(tmp_path, corpus.oriented(6), corpus.disc())
        with pytest.warns(image_folders.PictureWarning, match="is not turned, for its mask is not"):
            arrays = image_folders.read_case(case)
        np.testing.assert_array_equal(arrays.image[:, :, 0], corpus.colour())

    @pytest.mark.parametrize(
        ("mask", "verdict"),
        [(np.zeros((40, 30), np.uint8), "no object"), (corpus.disc() | 255, "nothing but object")],
    )
    def test_empty_and_full_masks_are_warned_of(self, mask, verdict, tmp_path):
        case = self.case(tmp_path, corpus.colour(), mask)
        with pytest.warns(image_folders.PictureWarning, match=f"found {verdict}"):
            image_folders.read_case(case)

    def test_grey_edges_are_warned_of_but_for_cvc(self, tmp_path):
        soft, expected = corpus.disc(), corpus.disc(1)
        soft[0, :5] = (1, 5, 20, 200, 250)
        expected[0, 3:5] = 1
        case = self.case(tmp_path / "a", corpus.colour(), soft)
        with pytest.warns(image_folders.PictureWarning, match="Those over 127 count as object"):
            arrays = image_folders.read_case(case)
        np.testing.assert_array_equal(arrays.labels[..., 0], expected)
        image_files.write(_write_cvc(tmp_path / "b") / "Ground Truth/3.tif", soft)
        assert "Ground Truth" not in " ".join(
            _messages(image_folders.check(tmp_path / "b"), "warning")
        )

    def test_classes(self, tmp_path):
        mask = corpus.disc(102)
        mask[0, :5] = (204, 255, 204, 51, 51)
        case = self.case(tmp_path, corpus.grey(), mask)
        named = {"background": (51,), "femur": (102,), "ligament": (204, 255)}
        labels = image_folders.read_case(case, classes=named).labels[..., 0]
        assert labels[0, :5].tolist() == [2, 2, 2, 0, 0]
        np.testing.assert_array_equal(labels[1:], (mask[1:] == 102))
        assert image_folders.check(tmp_path, classes=named).ok
        assert not image_folders.check(tmp_path).ok

    def test_a_slice_may_lack_the_classes_that_are_named(self, tmp_path):
        case = self.case(tmp_path, corpus.grey(), corpus.disc(102))
        with warnings.catch_warnings(action="error"):
            arrays = image_folders.read_case(
                case, classes={"ligament": (204,), "background": (102,)}
            )
        assert not arrays.labels.any()

    def test_size_and_fit(self, tmp_path):
        case = self.case(tmp_path, corpus.colour(), corpus.disc())
        arrays = image_folders.read_case(case, size=(20, 20), fit="pad")
        assert arrays.image.shape == (20, 20, 1, 3)
        assert arrays.labels.shape == (20, 20, 1)
        # 40 x 30 at one half is 20 x 15: two columns of zeros before it and three after.
        assert not arrays.image[:, :2].any()
        assert not arrays.image[:, 17:].any()
        assert arrays.image[:, 2:17].any(axis=(0, 2, 3)).all()

    def test_equal_pictures_under_two_names(self, tmp_path):
        image_files.write(_write_pairs(tmp_path) / "images/b.png", corpus.grey(0))
        [message] = _messages(image_folders.check(tmp_path), "warning")
        assert "b.png: found the pixels of" in message
        assert message.endswith("Keep one of the two cases.")

    def test_progress(self, tmp_path):
        seen = []
        image_folders.check(_write_pairs(tmp_path), progress=lambda *step: seen.append(step))
        assert seen == [(1, 2, "a"), (2, 2, "b")]


def test_store_holds_a_picture_as_one_slice(tmp_path):
    cases = image_folders.find_cases(_write_cvc(tmp_path / "data"))
    read = partial(image_folders.read_case, size=(16, 12))
    stored = store.prepare(cases, read, tmp_path / "store", workers=1).cases["10"]
    assert stored.image.shape == (1, 16, 12, 3)
    arrays = read(cases[3])
    np.testing.assert_array_equal(stored.full_image(), arrays.image)
    np.testing.assert_array_equal(stored.full_labels(), arrays.labels)
    again = store.prepare(cases, partial(image_folders.read_case, size=(8, 6)), tmp_path / "store")
    assert again.cases["10"].full_shape == (8, 6, 1)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real pictures")
class TestRealData:
    def test_cvc_clinicdb(self):
        cases = image_folders.find_cases(REAL / "CVC-ClinicDB")
        assert len(cases) == 612
        assert len({case.group for case in cases}) == 29
        assert [case.id for case in cases] == [str(frame) for frame in range(1, 613)]
        # Frame 200 is the first of the tenth sequence by README.txt, frame 199 the last before.
        assert [cases[198].group, cases[199].group] == ["sequence_09", "sequence_10"]
        arrays = image_folders.read_case(cases[0])
        assert arrays.image.shape == (288, 384, 1, 3)
        assert set(np.unique(arrays.labels)) == {0, 1}
        expected = np.asarray(Image.open(cases[0].labels)) > 127
        np.testing.assert_array_equal(arrays.labels[..., 0], expected)

    def test_isic_and_knee_have_no_errors(self):
        assert image_folders.check(REAL / "ISIC2018").ok
        report = image_folders.check(REAL / "knee_mri", classes=KNEE)
        assert report.ok
        # 9 masks with greys between the codes and 2 that are empty, counted by hand.
        assert len(report.problems) == 11
