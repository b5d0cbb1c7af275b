"""Volumes of any kind: nnU-Net, the Decathlon, a table; whole, odd and damaged."""

import json
import re

import nibabel as nib
import numpy as np
import pytest

from keras_medseg import phantoms
from keras_medseg.data import datasets
from keras_medseg.data.datasets.volume_folders import VolumeFolders, VolumeWarning
from keras_medseg.data.formats import nifti
from keras_medseg.data.store import StoredCase, prepare
from keras_medseg.errors import DataError

SHAPE = (6, 5, 4)
RAS = np.diag([1.0, 1.5, 3.0, 1.0])
DESCRIBED = {
    "channel_names": {"0": "T1", "1": "FLAIR"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2],
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
IDS = ("a", "b", "c")


def image(seed):
    return np.random.default_rng(seed).integers(1, 500, SHAPE).astype(np.int16)


def labels(seed=0):
    made = np.zeros(SHAPE, np.uint8)
    made[1:4], made[2, seed % 5] = 1, 2
    return made


def save(path, array, affine=RAS):
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write_volume(path, array, affine)
    return path


def write_json(path, content):
    path.write_text(json.dumps(content))


@pytest.fixture
def nnunet(tmp_path):
    """Three cases of nnU-Net 2, and one to predict."""
    write_json(tmp_path / "dataset.json", DESCRIBED)
    for number, id in enumerate((*IDS, "t")):
        part = "Ts" if id == "t" else "Tr"
        for channel in range(2):
            save(tmp_path / f"images{part}/{id}_{channel:04}.nii.gz", image(10 * number + channel))
        if part == "Tr":
            save(tmp_path / f"labelsTr/{id}.nii.gz", labels(number))
    return tmp_path


@pytest.fixture
def table(tmp_path):
    """Three cases of a table: two visits of one patient, one without FLAIR."""
    rows = ["id,t1,flair,label,group"]
    for number, id in enumerate(IDS):
        save(tmp_path / f"{id}/t1.nii", image(10 * number))
        save(tmp_path / f"{id}/drawn.nii.gz", labels(number))
        flair = ""
        if id != "c":
            flair = f"{id}/flair.nii"
            save(tmp_path / flair, image(10 * number + 1))
        rows.append(f"{id},{id}/t1.nii,{flair},{id}/drawn.nii.gz,{'p' if number < 2 else ''}")
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n")
    described = {
        "labels": {"edema": 1, "core": 2},
        "regions": {"whole": [1, 2], "core": [2]},
        "missing_modalities": ["flair"],
    }
    write_json(tmp_path / "labels.json", described)
    return tmp_path


def errors_of(folder, kind=None):
    kind = kind or datasets.of_folder(folder)
    report = kind.check(folder)
    assert all("\n" not in p.message for p in report.problems if "found no cases" not in p.message)
    return [p.message for p in report.problems if p.severity == "error"]


def warnings_of(folder):
    report = datasets.of_folder(folder).check(folder)
    assert report.ok, report.text
    return [p.message for p in report.problems]


# Layouts


def test_nnunet(nnunet):
    assert datasets.recognize(nnunet) == "volume_folders"
    kind = datasets.of_folder(nnunet)
    assert kind.channels == ("T1", "FLAIR")
    assert kind.regions == {"whole": (1, 2), "core": (2,)}
    assert kind.targets == {"whole": (1, 2), "core": (2,), "whole, rest": (1,)}
    cases = kind.find(nnunet).cases
    assert [case.id for case in cases] == [*IDS]
    assert [case.id for case in kind.find(nnunet, labelled=False).cases] == [*IDS, "t"]
    arrays = kind.read(cases[1])
    # Both in-plane axes run the other way in LPS.
    expected = np.stack([image(10), image(11)], axis=-1)[::-1, ::-1]
    np.testing.assert_array_equal(arrays.image, expected)
    assert arrays.image.dtype == np.int16
    np.testing.assert_array_equal(arrays.labels, labels(1)[::-1, ::-1])
    assert arrays.spacing_mm == (1, 1.5, 3)
    assert warnings_of(nnunet) == []
    truth, spacing_mm = kind.read_annotation(cases[1])
    np.testing.assert_array_equal(truth, arrays.labels)
    assert spacing_mm == (1, 1.5, 3)


def test_nnunet_1_lists_its_cases(nnunet):
    described = {
        "modality": {"0": "T1", "1": "FLAIR"},
        "labels": {"0": "background", "1": "edema", "2": "core"},
        "training": [
            {"image": f"./imagesTr/{id}.nii.gz", "label": f"./labelsTr/{id}.nii.gz"}
            for id in ("a", "b")
        ],
        "test": ["./imagesTs/t.nii.gz"],
    }
    write_json(nnunet / "dataset.json", described)
    kind = datasets.of_folder(nnunet)
    assert [case.id for case in kind.find(nnunet).cases] == ["a", "b"]
    [left] = warnings_of(nnunet)
    assert "found no entry for c in training. The case is left out" in left
    described["training"].append({"image": "./imagesTr/z.nii.gz", "label": "./labelsTr/z.nii.gz"})
    write_json(nnunet / "dataset.json", described)
    [error] = errors_of(nnunet)
    assert "case z in training, expected imagesTr/z_0000.nii.gz or z.nii.gz" in error


def test_decathlon(tmp_path):
    for number, id in enumerate(("liver_1", "liver_2")):
        both = np.stack([image(number), image(number + 10)], axis=-1).astype(np.float32)
        save(tmp_path / f"imagesTr/{id}.nii.gz", both)
        save(tmp_path / f"labelsTr/{id}.nii.gz", labels(number))
    save(tmp_path / "imagesTs/liver_9.nii.gz", both)
    save(tmp_path / "imagesTr/liver_3.nii.gz", both)
    (tmp_path / "imagesTr/._liver_1.nii.gz").write_bytes(b"a Mac's attributes")
    described = {
        "name": "Liver",
        "modality": {"0": "CT", "1": "late CT"},
        "labels": {"0": "background", "1": "liver", "2": "tumor"},
        "training": [
            {"image": f"./imagesTr/{id}.nii.gz", "label": f"./labelsTr/{id}.nii.gz"}
            for id in ("liver_1", "liver_2")
        ],
        "test": ["./imagesTs/liver_9.nii.gz"],
    }
    write_json(tmp_path / "dataset.json", described)
    kind = datasets.of_folder(tmp_path)
    cases = kind.find(tmp_path).cases
    assert [(case.id, case.dataset) for case in cases] == [
        ("liver_1", "Liver"),
        ("liver_2", "Liver"),
    ]
    assert len(kind.find(tmp_path, labelled=False).cases) == 3
    arrays = kind.read(cases[0])
    assert arrays.image.shape == (*SHAPE, 2)
    np.testing.assert_array_equal(arrays.image[..., 1], image(10)[::-1, ::-1])
    assert any("liver_3.nii.gz: found no entry for it" in text for text in warnings_of(tmp_path))
    described["modality"] = {"0": "CT", "1": "late CT", "2": "third"}
    write_json(tmp_path / "dataset.json", described)
    assert "found 2 channels, expected 3: CT, late CT, third" in errors_of(tmp_path)[0]


def test_brain_tumors_of_the_decathlon_stay_brats(tmp_path):
    phantoms.write(tmp_path, layout="Decathlon", cases=1, size=(24, 24, 24))
    assert datasets.recognize(tmp_path) == "brats"


def test_files_named_one_by_one(nnunet):
    entries = {
        "x": {"images": ["imagesTr/b_0000.nii.gz", "imagesTr/b_0001.nii.gz"],
              "label": "labelsTr/b.nii.gz"},
    }  # fmt: skip
    write_json(nnunet / "dataset.json", {**DESCRIBED, "dataset": entries})
    [case] = datasets.of_folder(nnunet).find(nnunet).cases
    assert (case.id, case.images[1].name, case.labels.name) == ("x", "b_0001.nii.gz", "b.nii.gz")
    for wrong in ({"x": {"images": ["imagesTr/b_0000.nii.gz"]}}, {"x": None}, {"x": {"images": 3}}):
        write_json(nnunet / "dataset.json", {**DESCRIBED, "dataset": wrong})
        assert "expected 2 images and a label" in errors_of(nnunet)[0]
    write_json(nnunet / "dataset.json", {**DESCRIBED, "dataset": ["x"]})
    assert "found another dataset" in errors_of(nnunet)[0]


def test_table(table):
    assert datasets.recognize(table) == "volume_folders"
    kind = datasets.of_folder(table)
    cases = kind.find(table).cases
    assert [case.group for case in cases] == ["p", "p", "c"]
    assert [case.missing for case in cases] == [(), (), (1,)]
    assert not kind.read(cases[2]).image[..., 1].any()
    np.testing.assert_array_equal(kind.read(cases[2]).image[..., 0], image(20)[::-1, ::-1])
    assert warnings_of(table) == []
    stored = prepare(cases, kind.read, table / "store", workers=1)
    assert stored.cases["c"].statistics[1] == {"min": 0, "max": 0, "mean": 0, "std": 0}


def test_a_table_may_have_its_own_split(table):
    text = (table / "cases.csv").read_text().splitlines()
    sides = ["split", "training", "training", "validation"]
    (table / "cases.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(text, sides)))
    kind = datasets.of_folder(table)
    assert dict(kind.find(table).sides) == {"a": "training", "b": "training", "c": "validation"}
    sides[2] = "validation"
    (table / "cases.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(text, sides)))
    assert errors_of(table) == [
        f"{table}/cases.csv: found group p on several sides, expected one side. Split by group."
    ]
    for side, message in (("", "no split for b"), ("exam", "split 'exam', expected training, v")):
        sides[2] = side
        (table / "cases.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(text, sides)))
        assert message in errors_of(table)[0]


def test_groups_for_nnunet(nnunet):
    (nnunet / "cases.csv").write_text("id,group\na,p\nb,p\nc,q\n")
    kind = datasets.of_folder(nnunet)
    assert [case.group for case in kind.find(nnunet).cases] == ["p", "p", "q"]
    (nnunet / "cases.csv").write_text("id,group\na,p\nb,p\n")
    assert "found no row for c, expected one" in errors_of(nnunet)[0]
    (nnunet / "cases.csv").write_text("id,group\na,p\nb,p\nc,q\nd,q\n")
    assert "line 5: found id 'd', expected a case of dataset.json" in errors_of(nnunet)[0]
    (nnunet / "cases.csv").write_text("id,group\na,p\na,p\n")
    assert "line 3: found id 'a' a second time" in errors_of(nnunet)[0]


# Damage


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def copy(source, target):
    return lambda folder: (folder / target).write_bytes((folder / source).read_bytes())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            remove("imagesTr/b_0001.nii.gz"),
            r"no b_0001\.nii\.gz \(FLAIR\), expected all mod.*declare",
        ),
        (
            remove("labelsTr/b.nii.gz"),
            r"imagesTr/b: found no labels, expected .*labelsTr/b\.nii\.gz",
        ),
        (
            copy("imagesTr/b_0001.nii.gz", "imagesTr/b_0002.nii.gz"),
            r"found b_0002\.nii\.gz, expected the channels 0000 to 0001 \(T1, FLAIR\)",
        ),
        (
            copy("labelsTr/b.nii.gz", "labelsTr/b.NII.GZ"),
            r"found b\.NII\.GZ and b\.nii\.gz, expected one of them",
        ),
        (
            lambda folder: save(folder / "labelsTr/b.nii.gz", labels() * 3),
            r"label 3 \(56 voxels\), 6 \(4 voxels\), expected 0 and the described 1, 2",
        ),
        (
            lambda folder: save(folder / "labelsTr/b.nii.gz", labels(), np.diag([1, 1, 1, 1])),
            r"labelsTr/b\.nii\.gz: found an affine 6\.",
        ),
        (
            lambda folder: save(folder / "imagesTr/b_0001.nii.gz", image(1)[:5]),
            r"b_0001\.nii\.gz: found dim \(5, 5, 4\), expected dim \(6, 5, 4\) as in b_0000",
        ),
        (
            lambda folder: save(folder / "imagesTr/b_0001.nii.gz", image(1) * 0),
            "found an image of zeros",
        ),
        (
            lambda folder: (folder / "imagesTr/b_0001.nii.gz").write_bytes(b"nothing"),
            "starts with b'nothing'",
        ),
    ],
)
def test_damaged_cases_are_named_and_the_others_stay(damage, message, nnunet):
    damage(nnunet)
    [error] = errors_of(nnunet)
    assert re.search(message, error), error


ROW = "a,a/t1.nii,a/flair.nii,a/drawn.nii.gz,p"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found the columns none"),
        ("id,t1,flair,label\n", "found no rows"),
        ("id;t1;flair\na;b;c\n", r"the columns id;t1;flair, expected id,<a column per modality>"),
        ("id,label\na,a/drawn.nii.gz\n", "the columns id,label, expected id,<a column per mod"),
        ("case,t1\na,a/t1.nii\n", "the columns case,t1"),
        ("id,t1,t1\na,b,c\n", "the columns id,t1,t1"),
        (f"id,t1,flair,label,group\n{ROW},x\n", "line 2: found more fields than columns"),
        (f"id,t1,flair,label,group\n{ROW[:-2]}\n", "line 2: found fewer fields"),
        (f"id,t1,flair,label,group\n{ROW}\n{ROW}\n", "the case 'a' twice"),
        (f"id,t1,flair,label,group\n{ROW}\n{ROW.replace('a', 'A', 1)}\n", "other capitals"),
        (f"id,t1,flair,label,group\n{ROW.replace('a', '../a', 1)}\n", r"line 2: found id '\.\./a'"),
        (f"id,t1,flair,label,group\n,{ROW}\n".replace(",p", ""), "line 2: found id ''"),
        (f"id,t1,flair,label,group\n{ROW.replace('t1', 't9')}\n", r"no such file, .*a/t9\.nii"),
        (f"id,t1,flair,label,group\n{ROW.replace('drawn', 'd')}\n", r"no such file, .*a/d\.nii"),
        (f"id,t1,flair,label,group\n{ROW.replace('a/t1', '../t1')}\n", r"path '\.\./t1\.nii', exp"),
        (f"id,t1,flair,label,group\n{ROW.replace('a/t1', '/a/t1')}\n", r"path '/a/t1\.nii', exp"),
        (f"id,t1,flair,label,group\n{ROW.replace('t1', 't' * 999)}\n", "no such file"),
        ("id,t1,flair,label,group\na,,a/flair.nii,a/drawn.nii.gz,p\n", "line 2: found no t1 for a"),
        ("id,t1,flair,label,group\na,a/t1.nii,a/t1.nii,,p\n", "found t1.nii in two columns"),
        ("id,t1,flair,label,group\na,a/t1.nii,a/drawn.nii.gz,a/drawn.nii.gz,\n", "in two columns"),
        ("id,t1,flair\nü,a,b\n".encode("latin-1"), "found no CSV"),
        ('id,t1,flair\n"a,b\n', "found no CSV"),
    ],
)
def test_damaged_tables(text, message, table):
    kind = datasets.of_folder(table)
    content = text if isinstance(text, bytes) else text.encode()
    (table / "cases.csv").write_bytes(content)
    found = errors_of(table, kind)
    assert found
    assert re.search(message, found[0]), found
    with pytest.raises(DataError):
        kind.find(table)


def test_without_declaration_no_modality_is_missing(table):
    write_json(table / "labels.json", {"labels": {"edema": 1, "core": 2}})
    [error] = errors_of(table)
    assert 'no flair for c, expected all modalities. Add it, or declare "missing_mod' in error


def test_odd_files_are_mentioned(nnunet):
    (nnunet / "imagesTr/a.nrrd").write_bytes(b"")
    save(nnunet / "imagesTr/a.nii.gz", image(0))
    save(nnunet / "labelsTr/z.nii.gz", labels())
    save(nnunet / "labelsTr/b.nii.gz", labels() * 0)
    write_json(nnunet / "dataset.json", {**DESCRIBED, "numTraining": 9})
    text = "\n".join(warnings_of(nnunet))
    assert "a.nrrd: found another file" in text
    assert "a.nii.gz: found a name without channel" in text
    assert "z.nii.gz: found labels, expected an image in imagesTr" in text
    assert "b.nii.gz: found no object" in text
    assert "found numTraining 9, expected 3" in text


def test_a_background_other_than_0_is_said_once(tmp_path):
    described = {**DESCRIBED, "channel_names": {"0": "CT"}, "numTraining": 3}
    write_json(tmp_path / "dataset.json", described)
    for number, id in enumerate(IDS):
        air = np.full((20, 20, 20), -1024, np.int16)
        air[5:15, 5:15, 5:15] = number
        save(tmp_path / f"imagesTr/{id}_0000.nii.gz", air)
        save(tmp_path / f"labelsTr/{id}.nii.gz", (air > 0).astype(np.uint8))
    problems = [text for text in warnings_of(tmp_path) if "-1024" in text]
    assert len(problems) == 1
    assert "So in 3 of 3 cases" in problems[0]


def test_empty_folder_and_no_folder(tmp_path):
    write_json(tmp_path / "dataset.json", DESCRIBED)
    with pytest.raises(DataError, match="found no files with the names of a data set"):
        datasets.recognize(tmp_path)
    kind = datasets.of_folder(tmp_path, "volume_folders")
    assert "found no cases" in errors_of(tmp_path, kind)[0]
    with pytest.raises(DataError, match="found no cases"):
        kind.find(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        kind.find(tmp_path / "nowhere")


# Recipes and predictions


def test_a_folder_that_describes_itself_otherwise_is_refused(nnunet):
    kind = datasets.of_folder(nnunet)
    write_json(nnunet / "dataset.json", {**DESCRIBED, "labels": {"background": 0, "whole": 1}})
    with pytest.raises(DataError, match=r"found label_codes \{'whole': 1\}, expected \{.*recipe"):
        kind.find(nnunet)
    assert len(kind.find_complete(nnunet)[0].cases) == 4  # labels do not matter there
    write_json(nnunet / "dataset.json", {**DESCRIBED, "channel_names": {"0": "FLAIR", "1": "T1"}})
    with pytest.raises(DataError, match="found channels"):
        kind.find_complete(nnunet)


def test_one_case_does_not_keep_the_others_from_prediction(nnunet):
    (nnunet / "imagesTr/b_0000.nii.gz").unlink()
    kind = datasets.of_folder(nnunet)
    listing, errors = kind.find_complete(nnunet)
    assert [case.id for case in listing.cases] == ["a", "c", "t"]
    assert "no b_0000.nii.gz" in str(errors[0])
    # The files alone are enough, since the recipe knows the channels.
    listing, errors = kind.find_complete(nnunet / "imagesTs")
    assert [case.id for case in listing.cases] == ["t"]
    assert errors == []


def test_label_maps_overlay_their_image_also_after_resampling(nnunet):
    """Both forms and codes of the header are copied; the grid is the case's own."""
    turned = np.array([[0, 0, 3, -7], [-1, 0, 0, 4], [0, 1.5, 0, 9], [0, 0, 0, 1.0]])
    for path in (*nnunet.glob("imagesTr/a_*"), nnunet / "labelsTr/a.nii.gz"):
        made = nib.Nifti1Image(nib.load(path).get_fdata().astype(np.int16), None)
        made.header.set_sform(turned, code=2)
        moved = turned.copy()
        moved[:3, 3] += 0.01
        made.header.set_qform(moved, code=1)
        made.header.set_xyzt_units("mm")
        nib.save(made, path)
    for options in ({}, {"spacing_mm": (1.5, 1.5, 1.5)}):
        kind = datasets.of_folder(nnunet, **options)
        case = kind.find(nnunet).cases[0]
        arrays = kind.read(case)
        stored = StoredCase.from_arrays(case, arrays)
        assert stored.resampled == bool(options)
        kind.write_labels(nnunet / "map.nii.gz", stored.own_labels(), stored)
        written, source = nib.load(nnunet / "map.nii.gz"), nib.load(case.labels)
        np.testing.assert_array_equal(written.get_fdata(), source.get_fdata())
        for form in ("get_sform", "get_qform"):
            (one, code), (other, known) = (
                getattr(file.header, form)(coded=True) for file in (written, source)
            )
            assert code == known
            np.testing.assert_allclose(one, other, atol=1e-6)
        np.testing.assert_array_equal(
            kind.read_labels(nnunet / "map.nii.gz", stored), stored.own_labels()
        )
        with pytest.raises(ValueError, match="the full grid of a"):
            kind.write_labels(nnunet / "map.nii.gz", stored.own_labels()[:2], stored)


def test_labels_that_a_header_has_moved_are_rounded_with_a_word(nnunet):
    made = nib.Nifti1Image(labels().astype(np.float32) + np.float32(1e-5), RAS)
    made.header.set_xyzt_units("mm")
    nib.save(made, nnunet / "labelsTr/a.nii.gz")
    kind = datasets.of_folder(nnunet)
    case = kind.find(nnunet).cases[0]
    with pytest.warns(VolumeWarning, match="rounded"):
        assert set(np.unique(kind.read(case).labels)) == {0, 1, 2}


def test_options_are_checked():
    with pytest.raises(ValueError, match="region_codes: found \\[3\\] of 'a'"):
        VolumeFolders(label_codes={"a": 1}, region_codes={"a": (3,)})
    one = VolumeFolders(("x",), {"a": 1, "b": 2}, {"a": (1,), "b": (2,)})
    other = VolumeFolders(("x",), {"a": 1, "b": 2}, {"b": (2,), "a": (1,)})
    assert one != other  # the order of the regions is that of the outputs
    assert one == VolumeFolders(["x"], {"a": 1, "b": 2}, {"a": [1], "b": [2]})


@pytest.mark.parametrize("layout", ["nnUNet", "cases.csv"])
def test_phantoms_pass_check_and_prepare(layout, tmp_path):
    phantoms.write(tmp_path, layout=layout, cases=4, size=(40, 36, 26))
    kind = datasets.of_folder(tmp_path)
    report = kind.check(tmp_path)
    assert report.problems == []
    stored = prepare(report.cases, kind.read, tmp_path / "store", workers=1).cases
    assert {code for case in stored.values() for code in np.unique(case.full_labels())} == {
        0, *kind.labels
    }  # fmt: skip
    assert stored["brain_000"].spacing_mm == pytest.approx((240 / 40, 240 / 36, 155 / 26))
    missing = {case.id: case.missing for case in report.cases}
    assert missing["brain_003"] == ((1,) if layout == "cases.csv" else ())
    groups = {case.group for case in report.cases}
    assert len(groups) == (2 if layout == "cases.csv" else 4)
