"""Folders of label maps as other programs write them, scored together; their problems in one go."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_medseg
from keras_medseg import cli
from keras_medseg.cli import scoring
from keras_medseg.data import datasets
from keras_medseg.data.formats import nifti
from keras_medseg.errors import DataError
from keras_medseg.evaluation.score_folder import metric_names, score_folders, with_groups
from keras_medseg.phantoms.brats import write_brats

SHAPE = (6, 5, 4)
SPACING = np.diag([1.0, 2.0, 3.0, 1.0])
IDS = "case_01", "case_02"
DESCRIBED = {
    "channel_names": {"0": "T1"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2],
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


def annotation(case):
    """Two columns of 4 voxels: edema (1) and core (2); those of the second case lie elsewhere."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[case, 1], labels[case, 2] = 1, 2
    return labels


def predicted(case):
    """Half of the core is called edema: Dice of the core 2 x 2 / (4 + 2) = 2/3, of the whole 1."""
    labels = annotation(case)
    labels[case, 2, :2] = 1
    return labels


def save(path, labels, affine=SPACING):
    nifti.write_volume(path, labels, affine)


@pytest.fixture
def truth(tmp_path):
    """nnU-Net's data set of two cases."""
    root = tmp_path / "Dataset001_Toy"
    root.mkdir()
    (root / "dataset.json").write_text(json.dumps(DESCRIBED))
    for number, id in enumerate(IDS, 1):
        save(root / f"labelsTr/{id}.nii.gz", annotation(number))
        save(root / f"imagesTr/{id}_0000.nii.gz", np.full(SHAPE, 7, np.int16))
    return root


def score(truth, folders, **options):
    dataset = datasets.annotations(truth, **options.pop("read", {}))
    return score_folders(folders, dataset.find(truth).cases, dataset, **options)


def dice_of(scored):
    return scored.table.pivot(index="case", columns=["variant", "region"], values="dice")


def write_nnunet(folder):
    for number, id in enumerate(IDS, 1):
        save(folder / f"{id}.nii.gz", predicted(number))
        (folder / f"{id}.npz").write_bytes(b"probabilities")
    (folder / "plans.json").write_text("{}")
    return folder


def write_monai(folder):
    """A folder per case, names from the image, and the axes of RAS: x and y the other way round."""
    for number, id in enumerate(IDS, 1):
        turned = SPACING.copy()
        turned[:3, 3] = (SHAPE[0] - 1) * 1.0, (SHAPE[1] - 1) * 2.0, 0
        turned[0, 0], turned[1, 1] = -1, -2
        flipped = predicted(number)[::-1, ::-1]
        save(folder / f"{id}_0000/{id}_0000_seg.nii.gz", flipped, turned)
    return folder


def test_folders_of_several_programs_get_the_same_scores(truth, tmp_path):
    """The axes of MONAI's files run the other way, and their voxels have the same positions."""
    folders = {
        "nnunet": write_nnunet(tmp_path / "a"),
        "monai": write_monai(tmp_path / "b"),
        "truth": truth / "labelsTr",
    }
    scored = score(truth, folders)
    assert scored.metrics == ("dice", "sensitivity", "specificity", "hd95_mm")
    table = dice_of(scored)
    for name in ("nnunet", "monai"):
        assert table[name, "whole"].tolist() == [1, 1]
        assert table[name, "core"].tolist() == [pytest.approx(2 / 3)] * 2
    assert table["truth", "core"].tolist() == [1, 1]
    assert scored.remarks == []
    assert [*dict.fromkeys(scored.table["variant"])] == ["nnunet", "monai", "truth"]
    # The missing half of the core is a column of two voxels, 3 mm apart: 3 and 6 mm. The 95th
    # percentile of the distances 0, 0, 3, 6 lies 0.85 of the way from 3 to 6.
    rows = scored.table[scored.table["region"] == "core"]
    assert rows["hd95_mm"].iloc[0] == pytest.approx(3 + 0.85 * 3)


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(truth, tmp_path):
    folders = {"a": write_nnunet(tmp_path / "a")}
    one, two = (score(truth, folders, workers=workers).table for workers in (1, 2))
    assert one.equals(two)


def test_all_problems_of_all_folders_in_one_go(truth, tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    save(a / "case_01.nii.gz", annotation(1), np.diag([1.0, 2.0, 4.0, 1.0]))  # another grid
    save(a / "patient.nii.gz", annotation(1))
    save(b / "case_01.nii.gz", 9 * annotation(1))  # unknown codes
    (b / "case_02.nii.gz").write_bytes(b"damaged")
    with pytest.raises(DataError) as caught:
        score(truth, {"a": a, "b": b})
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"{a}, {b}: found 4 problems, expected a label map of each case")
    found = [
        "found no label map of 1 of 2 cases: case_02, but 1 file of no case: patient.nii.gz",
        "case_01.nii.gz: found a grid 3 mm away at a corner",
        "case_01.nii.gz: found label 9",
        "case_02.nii.gz: found",
    ]
    assert len(lines) == len(found)
    assert all(text in line for text, line in zip(found, lines))


def test_cases_that_one_folder_lacks_are_left_out_on_request(truth, tmp_path):
    folders = {"a": write_nnunet(tmp_path / "a"), "b": tmp_path / "b"}
    save(tmp_path / "b/case_02.nii.gz", annotation(2))
    scored = score(truth, folders, common=True)
    assert [case.id for case in scored.cases] == ["case_02"]
    assert scored.table["case"].unique().tolist() == ["case_02"]
    [remark] = scored.remarks
    assert remark == "b: no label map of 1 of 2 cases, left out for all: case_01."
    (tmp_path / "b/case_02.nii.gz").unlink()
    with pytest.raises(DataError, match="b: found no label map of 2 of 2 cases"):
        score(truth, folders, common=True)


def test_annotations_alone_are_enough(truth, tmp_path):
    """Those of nnU-Net, with the dataset.json above them; others with labels or regions."""
    folders = {"a": write_nnunet(tmp_path / "a")}
    of_nnunet = score(truth / "labelsTr", folders)
    assert of_nnunet.table["dice"].tolist() == score(truth, folders).table["dice"].tolist()
    (tmp_path / "alone").mkdir()
    for id in IDS:  # named as BraTS names segmentations, beside images
        moved = tmp_path / f"alone/{id}"
        moved.mkdir()
        (truth / f"labelsTr/{id}.nii.gz").rename(moved / f"{id}-seg.nii.gz")
        (truth / f"imagesTr/{id}_0000.nii.gz").rename(moved / f"{id}-t1n.nii.gz")
    regions = {"whole": (1, 2), "core": (2,)}
    given = score(tmp_path / "alone", folders, read={"regions": regions})
    assert given.table["dice"].tolist() == of_nnunet.table["dice"].tolist()
    labels = {1: "edema", 2: "core"}
    each = score(tmp_path / "alone", folders, read={"labels": labels})
    assert [*each.regions.items()] == [("edema", (1,)), ("core", (2,))]
    with pytest.raises(DataError, match=r"Give --labels 1=necrosis,2=edema or --regions WT=1,2"):
        score(tmp_path / "alone", folders)
    with pytest.raises(ValueError, match="--regions: found the codes 3, expected those of"):
        score(tmp_path / "alone", folders, read={"labels": labels, "regions": {"x": (2, 3)}})


def test_masks_alone_are_enough(tmp_path):
    """Of 8 pixels of a 4 x 4 mask half are found: Dice 2 x 4 / (8 + 4) = 2/3."""
    mask, found = np.zeros((2, 4, 4), np.uint8)
    mask[:2], found[0] = 255, 255
    for folder, pixels, name in (("truth", mask, "7_mask.png"), ("a", found, "7.png")):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / name)
    scored = score(tmp_path / "truth", {"a": tmp_path / "a"}, metrics=["dice", "hd95"])
    assert scored.table[["case", "region"]].to_numpy().tolist() == [["7", "object"]]
    assert scored.table["dice"].tolist() == [pytest.approx(2 / 3)]
    assert "hd95_px" in scored.table
    soft = np.uint8([[0] * 60, [250] * 60])  # gray edges, as after resizing
    soft[0, :8], soft[1, :8] = np.arange(8), np.arange(248, 256)
    for name in ("truth/7_mask.png", "a/7.png"):
        Image.fromarray(soft).save(tmp_path / name)
    scored = score(tmp_path / "truth", {"a": tmp_path / "a"})
    assert scored.table["truth_pixels"].tolist() == [60]
    assert any("7.png: found 16 gray values" in text for text in scored.remarks)
    Image.fromarray(found[:2]).save(tmp_path / "a" / "7.png")
    Image.fromarray(mask).save(tmp_path / "truth" / "7_mask.png")
    with pytest.raises(DataError, match="found 2 x 4 pixels, expected 4 x 4, those of 7_mask"):
        score(tmp_path / "truth", {"a": tmp_path / "a"})


def test_masks_of_several_classes(tmp_path):
    mask = np.array([[0, 1], [2, 2]], np.uint8)
    found = np.array([[0, 1], [1, 2]], np.uint8)
    for folder, pixels in (("truth", mask), ("a", found)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "x.png")
    read = {"labels": {1: "bone", 2: "cartilage"}}
    table = score(tmp_path / "truth", {"a": tmp_path / "a"}, read=read).table
    assert dict(zip(table["region"], table["dice"])) == {"bone": 2 / 3, "cartilage": 2 / 3}
    Image.fromarray(3 * found).save(tmp_path / "a" / "x.png")
    with pytest.raises(DataError, match="found gray values 3, 6, expected 0 and 1, 2"):
        score(tmp_path / "truth", {"a": tmp_path / "a"}, read=read)


def test_groups_from_a_table(truth, tmp_path):
    cases = datasets.annotations(truth).find(truth).cases
    path = tmp_path / "groups.csv"
    path.write_text("case,group\ncase_01,007\ncase_02,007\n")
    assert [case.group for case in with_groups(cases, path)] == ["007", "007"]
    path.write_text("case,group\ncase_01,p\n")
    with pytest.raises(DataError, match="no group of case_02"):
        with_groups(cases, path)
    path.write_text("case,group\ncase_01,p\ncase_01,q\ncase_02,q\n")
    with pytest.raises(DataError, match="several rows of case_01"):
        with_groups(cases, path)
    path.write_text("case,group\ncase_01,p\ncase_01,q\n")
    with pytest.raises(DataError, match="no group of case_02 and several rows of case_01"):
        with_groups(cases, path)
    path.write_text("id,patient\ncase_01,p\n")
    with pytest.raises(DataError, match="found the columns id, patient, expected case and group"):
        with_groups(cases, path)


def test_metrics_by_name_and_unit(truth):
    dataset = datasets.annotations(truth)
    assert metric_names(["hd95", "iou", "hd95_mm"], dataset) == ("hd95_mm", "iou")
    for name in ("hd95_px", "dise"):
        with pytest.raises(ValueError, match=f"--metrics: found '{name}', expected one of: dice"):
            metric_names([name], dataset)
    with pytest.raises(ValueError, match="--rank-by: found 'dise', expected one of: dice"):
        metric_names(["dise"], dataset, "--rank-by")
    words = "--metrics: found 'ece', which needs probabilities, expected a metric of label maps"
    with pytest.raises(ValueError, match=words):
        metric_names(["ece"], dataset)


# The command


def run(*words):
    return cli.main(["score", "--workers", "1", *map(str, words)])


def test_the_command_with_two_folders(truth, tmp_path, capsys):
    """The form `score PREDICTIONS CASES`, and the same with --truth."""
    a, out = write_nnunet(tmp_path / "a"), tmp_path / "scores.csv"
    assert run(a, truth, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "whole        dice           1.0000 [1.0000, 1.0000]" in printed
    assert printed.endswith(f"{out}: 4 rows\n")
    assert "ranking" not in printed
    first = out.read_bytes()
    assert run(a, "--truth", truth, "--out", out) == 0
    assert out.read_bytes() == first
    assert [path.name for path in tmp_path.glob("scores*")] == ["scores.csv"]


def test_the_command_with_several_folders(truth, tmp_path, capsys):
    a, b = write_nnunet(tmp_path / "a"), write_monai(tmp_path / "b")
    save(tmp_path / "b/surplus.nii.gz", annotation(1))
    out = tmp_path / "out.csv"
    words = f"best={truth / 'labelsTr'}", a, b, "--truth", truth, "--out", out
    with pytest.warns(UserWarning, match="b: 1 file of no case, not scored: surplus.nii.gz."):
        assert run(*words, "--metrics", "dice,hd95", "--regions", "core") == 0
    printed = capsys.readouterr().out
    assert printed.index("best:") < printed.index("a:") < printed.index("b:")
    assert "  1. best  mean rank 1.000 [1.000, 1.000]\n  2. a  mean rank 2.500" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "--truth: found none beside 1 folders, expected the folder of the annotations"),
        (["a", "b", "c"], "--truth: found none beside 3 folders"),
        (["a", "x/a", "--truth", "t"], "x/a: found a second name 'a', expected one for each"),
        (["a", "--truth", "t", "--report", "--out", "x.html"], "--out: found x.html, expected a"),
        (
            ["a", "--truth", "t", "--regions", "WT=1", "--dataset", "BraTS2021"],
            "t: found BraTS2021 beside labels or regions with codes, expected these alone.",
        ),
        (["a", "--truth", "t", "--labels", "core"], "--labels: found 'core', expected CODE=NAME"),
        (["a", "--truth", "t", "--regions", "WT=a"], "--regions: found 'WT=a', expected NAME=CODE"),
        (["a", "--truth", "t", "--regions", "WT=1", "TC"], "--regions: found TC beside WT with"),
    ],
)
def test_mistakes_in_the_command(words, message, capsys):
    assert run(*words) == 1
    assert f"keras-medseg: {message}" in capsys.readouterr().err


def test_a_ranking_by_another_metric_is_refused_before_scoring(truth, tmp_path, capsys):
    a = write_nnunet(tmp_path / "a")
    assert run(a, "--truth", truth, "--metrics", "dice", "--rank-by", "hd95") == 1
    assert "--rank-by: found 'hd95_mm', expected one of: dice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--metrics", "dice, volume_error_ml", "--rank-by", "volume_error_ml"],
            "--rank-by: found",
        ),
        (
            ["--metrics", "volume_error_ml", "--report"],
            "--metrics: found volume_error_ml, expected",
        ),
        (["--out", "."], "--out: found the folder ., expected a file such as s.csv"),
    ],
)
def test_what_can_be_known_is_refused_before_scoring(words, message, truth, tmp_path, capsys):
    assert run(write_nnunet(tmp_path / "a"), "--truth", truth, *words) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert "mean and" not in printed.out


def test_codes_are_refused_where_patients_and_rules_are_known(tmp_path, capsys):
    """With codes alone, two scans of a patient would count as two patients."""
    write_brats(tmp_path / "cases", cases=1, layout="BraTS2024-GLI", shape=(40, 40, 26))
    words = tmp_path, "--truth", tmp_path / "cases", "--regions", "WT=1,2,3"
    assert run(*words) == 1
    message = "found labels or regions with codes for a data set (brats), expected names of its"
    assert message in capsys.readouterr().err


def test_segmentations_of_brats_alone_have_its_regions_and_patients(tmp_path):
    """Codes are those on disk: 4 is the enhancing tumor of 2021, and of no other region."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 1, :2], labels[1, 1, 2:] = 4, 2
    id = "BraTS2021_00003"
    save(tmp_path / f"truth/{id}_seg.nii.gz", labels)
    save(tmp_path / f"a/{id}.nii.gz", np.where(labels == 4, 1, labels))
    out = tmp_path / "s.csv"
    assert run(tmp_path / "a", "--truth", tmp_path / "truth", "--out", out, "--report") == 0
    found = json.loads(out.with_suffix(".json").read_text())
    dice = {row["region"]: row["dice"] for row in found["scores"]}
    assert dice == {"WT": 1, "TC": 1, "ET": 0}
    assert {row["group"] for row in found["scores"]} == {"GLI-00003"}
    assert {*found["regions"]["WT"]} == {"necrotic, non-enhancing", "edema", "enhancing"}
    page = out.with_suffix(".html").read_text()
    assert "resamples of the" not in page  # of a single case there are none


def test_a_segmentation_that_lies_there_twice_is_refused(tmp_path):
    id = "BraTS2021_00003"
    for name in (f"{id}/{id}_seg.nii", f"{id}/{id}_seg.nii.gz"):
        save(tmp_path / name, annotation(1))
    dataset = datasets.annotations(tmp_path)
    with pytest.raises(DataError, match="expected each file once"):
        dataset.find_annotations(tmp_path)


def test_masks_alone_are_scored_though_their_names_are_of_a_data_set(tmp_path):
    pixels = np.zeros((8, 9), np.uint8)
    pixels[2:5, 2:5] = 255
    for name in ("truth/ISIC_0000001_segmentation", "a/ISIC_0000001"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir()
        Image.fromarray(pixels).save(path)
    dataset = datasets.annotations(tmp_path / "truth")
    cases = dataset.find_annotations(tmp_path / "truth").cases
    [row] = score_folders({"a": tmp_path / "a"}, cases, dataset).table.to_dict("records")
    assert (row["case"], row["dice"], row["truth_pixels"]) == ("ISIC_0000001", 1, 9)


def test_many_remarks_are_counted(truth, tmp_path, capsys):
    a = write_nnunet(tmp_path / "a")
    remarks = [f"remark {number}" for number in range(20)]
    with pytest.warns(UserWarning, match="remark") as caught:
        scoring._warn_of_each(remarks)
    assert len(caught) == 13
    assert str(caught[-1].message) == "found 8 further remarks; --report lists all."
    with pytest.raises(SystemExit):
        run(a, truth, "--workers", "0")
    assert "argument --workers: found '0', expected 1 or more" in capsys.readouterr().err


def test_no_deep_learning_framework_is_needed(truth, tmp_path):
    """As if none were installed: the whole command, with its page, in a new process."""
    write_nnunet(tmp_path / "a")
    script = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "jax", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import keras_medseg.evaluation
from keras_medseg import cli
assert cli.main(sys.argv[1:]) == 0
assert {"tensorflow", "keras", "jax", "torch"}.isdisjoint(sys.modules)
"""
    words = [
        "score",
        "a",
        f"b={truth / 'labelsTr'}",
        "--truth",
        str(truth),
        "--report",
        "--metrics",
        "dice",
    ]
    done = subprocess.run(
        [sys.executable, "-c", script, *words, "--workers", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(keras_medseg.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "scores.html").is_file()


@pytest.mark.slow
def test_a_report_of_fewer_methods_leaves_nothing_of_the_one_before(truth, tmp_path):
    a, b, out = write_nnunet(tmp_path / "a"), write_monai(tmp_path / "b"), tmp_path / "out/s.csv"
    words = "--truth", truth, "--metrics", "dice", "--out", out
    assert run(a, b, *words, "--report") == 0
    assert out.with_name("s_ranking.csv").exists()
    assert run(a, *words, "--report") == 0
    assert not [*out.parent.glob("s_ranking.csv"), *out.parent.glob("s_tests.csv")]
    with pytest.warns(UserWarning, match=r"s\.html: found an earlier report"):
        assert run(b, *words) == 0
