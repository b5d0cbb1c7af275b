"""Names of label maps as programs write them, and those that fit no case or several."""

from pathlib import Path

import pytest

from keras_medseg.data.cases import Case
from keras_medseg.errors import DataError
from keras_medseg.evaluation import matching


def case(id):
    return Case(id, "toy", (), Path(f"{id}.nii.gz"), id)


def matched(folder, names, *ids, suffix=".nii.gz"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = matching.match(folder, [case(id) for id in ids], suffix)
    return found, {id: str(path.relative_to(folder)) for id, path in found.paths.items()}


@pytest.mark.parametrize(
    "name",
    [
        "BraTS-GLI-00001-000.nii.gz",
        "BraTS-GLI-00001-000.nii",
        "brats-gli-00001-000.NII.GZ",
        "BraTS_GLI_00001_000.nii.gz",
        "BraTS-GLI-00001-000-seg.nii.gz",
        "BraTS-GLI-00001-000_pred.nii.gz",
        "prediction BraTS-GLI-00001-000.nii.gz",
        "BraTS-GLI-00001-000/seg.nii.gz",
        "BraTS-GLI-00001-000/BraTS-GLI-00001-000_seg.nii.gz",
        "BraTS-GLI-00001-000_t1c/BraTS-GLI-00001-000_t1c_trans.nii.gz",
        "out/team7_BraTS-GLI-00001-000.nii.gz",
        "00001-000.nii.gz",
        "our_00001-000.nii.gz",
    ],
)
def test_a_name_of_another_program(tmp_path, name):
    other = "BraTS-GLI-00002-000.nii.gz"
    ids = "BraTS-GLI-00001-000", "BraTS-GLI-00002-000"
    found, paths = matched(tmp_path, [name, other], *ids)
    assert paths == {ids[0]: name, ids[1]: other}
    assert (found.missing, found.errors, found.surplus) == ([], [], [])


def test_the_longest_id_counts(tmp_path):
    names = "case_1.nii.gz", "case_1_2_pred.nii.gz", "case_10.nii.gz"
    _, paths = matched(tmp_path, names, "case_1", "case_1_2", "case_10")
    assert paths == dict(zip(("case_1", "case_1_2", "case_10"), names))


def test_the_surer_rule_counts(tmp_path):
    """Images and probabilities that lie beside the label maps are surplus."""
    names = "a_flair.nii.gz", "a_seg.nii.gz", "b.nii.gz", "b_probabilities.nii.gz", "b_final.nii.gz"
    found, paths = matched(tmp_path, names, "a", "b")
    assert paths == {"a": "a_seg.nii.gz", "b": "b.nii.gz"}
    surplus = ["a_flair.nii.gz", "b_final.nii.gz", "b_probabilities.nii.gz"]
    assert [path.name for path in found.surplus] == surplus
    assert matching.problems(tmp_path, found, 2) == []


def test_several_files_of_a_case_and_names_of_several_cases(tmp_path):
    names = "a_seg.nii.gz", "a_mask.nii.gz", "a_b.nii.gz", "c.nii.gz"
    found, _ = matched(tmp_path, names, "a", "b", "c")
    doubtful, twice = (str(error) for error in found.errors)
    assert "a_b.nii.gz: found a name that fits the cases a, b, expected one id" in doubtful
    assert "found 2 files for case a: a_mask.nii.gz, a_seg.nii.gz, expected one" in twice
    assert found.missing == ["b"]


def test_everything_missing_and_surplus_stands_in_one_line(tmp_path):
    names = "a.nii.gz", "patient7.nii.gz", "readme.txt", "b.mha"
    found, _ = matched(tmp_path, names, "a", "b", "c")
    [error] = matching.problems(tmp_path, found, 3)
    assert str(error) == (
        f"{tmp_path}: found no label map of 2 of 3 cases: b, c, but 1 file of no case: "
        "patient7.nii.gz, and 1 file .mha, expected one for every case. Rename each label map to "
        "the id of its case."
    )


def test_other_formats_are_named(tmp_path):
    found, _ = matched(tmp_path, ["a.mha", "b.mha"], "a", "b")
    [error] = matching.problems(tmp_path, found, 2)
    assert "2 files .mha" in str(error)
    assert str(error).endswith("Convert other formats to .nii.gz.")


def test_ids_that_differ_only_between_words_are_told_apart_by_their_exact_name(tmp_path):
    found, paths = matched(tmp_path, ["a-1.nii.gz", "a_1.nii.gz"], "a-1", "a_1")
    assert paths == {"a-1": "a-1.nii.gz", "a_1": "a_1.nii.gz"}
    assert found.errors == []


def test_images_match_images(tmp_path):
    names = "1.png", "2.TIF", "3.nii.gz", "1_2.png"
    found, paths = matched(tmp_path, names, "1", "2", "1.2", suffix=".png")
    assert paths == {"1": "1.png", "2": "2.TIF", "1.2": "1_2.png"}
    assert [path.name for path in found.unread] == ["3.nii.gz"]


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match="found no such folder, expected a folder with label maps"):
        matching.match(tmp_path / "gone", [case("a")], ".nii.gz")


def test_an_accent_apart_from_its_letter(tmp_path):
    """As a Mac's archives write it; the names look equal."""
    apart = "polyp_u\u0308_pred.png", "u\u0308.png"
    _, paths = matched(tmp_path, apart, "polyp_\u00fc", "\u00fc", suffix=".png")
    assert paths == {"polyp_\u00fc": apart[0], "\u00fc": apart[1]}


def test_label_maps_in_a_format_that_is_not_read_are_named(tmp_path):
    found, _ = matched(tmp_path, ["a.gif", "b_mask.npy", "notes.gif"], "a", "b", suffix=".png")
    assert [path.name for path in found.unread] == ["a.gif", "b_mask.npy"]
    [error] = matching.problems(tmp_path, found, 2)
    assert "1 file .gif, 1 file .npy" in str(error)
    assert "Convert other formats to .png" in str(error)
