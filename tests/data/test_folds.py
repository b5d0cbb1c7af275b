"""Folds of a cross-validation, and splits_final.json."""

import json

import pytest

from keras_medseg.data.cases import Case
from keras_medseg.data.patients import by_patient
from keras_medseg.data.split_files import as_tree, read_splits, write_splits
from keras_medseg.data.splits import Split, leaking_groups, split_in_folds, steered
from keras_medseg.errors import DataError

CASES = [Case(f"{n:02d}", "toy", (), None, f"sequence_{n // 4}") for n in range(44)]
FOUR = [Case(name, "toy", (), None, name) for name in "abcd"]


def ids(cases) -> list[str]:
    return [case.id for case in cases]


@pytest.mark.parametrize("way", ["group", "random"])
@pytest.mark.parametrize("test", [False, True])
def test_every_case_is_scored_in_exactly_one_fold(way, test):
    folds = split_in_folds(CASES, 5, 0.2, test, seed=3, way=way)
    assert len(folds) == 5
    scored = [case for split in folds for case in (split.test if test else split.validation)]
    assert sorted(ids(scored)) == ids(CASES)
    for split in folds:
        assert sorted(ids([case for side in split for case in side])) == ids(CASES)
        assert bool(split.test) == test
        leaks = leaking_groups(*split)
        assert not leaks if way == "group" else leaks
        assert {c.id: c.group for side in split for c in side} == {c.id: c.group for c in CASES}


def test_the_parts_differ_by_at_most_one_group():
    # Eleven sequences of four frames in five folds: 3, 2, 2, 2, 2.
    sizes = [len(split.validation) for split in split_in_folds(CASES, 5, 0.2, False, seed=0)]
    assert sorted(sizes) == [8, 8, 8, 8, 12]


@pytest.mark.parametrize("test", [False, True])
def test_folds_are_seeded_and_ignore_the_order_of_cases(test):
    first = split_in_folds(CASES, 3, 0.2, test, seed=7)
    assert split_in_folds(CASES[::-1], 3, 0.2, test, seed=7) == first
    other = split_in_folds(CASES, 3, 0.2, test, seed=8)
    scored = [[set(ids(split[-1] if test else split[1])) for split in of] for of in (first, other)]
    assert scored[0] != scored[1]


def test_the_validation_side_is_a_share_of_all_groups_drawn_from_the_other_folds():
    # 0.2 of ten groups are two; each of five folds has two, so six are left to learn from.
    ten = CASES[:40]
    for split in split_in_folds(ten, 5, 0.2, True, seed=1):
        assert [len({case.group for case in side}) for side in split] == [6, 2, 2]
    with pytest.raises(ValueError, match=r"data.validation: found 0.9, expected less than 0.8, "):
        split_in_folds(ten, 5, 0.9, True, seed=1)


def test_more_folds_than_groups():
    with pytest.raises(ValueError, match=r"found 4 group\(s\), expected at least 5, one for each"):
        split_in_folds(FOUR, 5, 0.2, False, seed=0)
    alone = split_in_folds(FOUR, 4, 0.2, False, 0)
    assert sorted(ids(split.validation)[0] for split in alone) == [*"abcd"]


def test_a_patient_of_several_years_is_in_one_fold(tmp_path):
    rows = [f"HGG,NA,BraTS19_{n},BraTS20_Training_{n:03d}" for n in range(6)]
    header = "Grade,BraTS_2018_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID"
    (tmp_path / "name_mapping.csv").write_text("\n".join([header, *rows]))
    names = [f"BraTS19_{n}" for n in range(6)] + [f"BraTS20_Training_{n:03d}" for n in range(6)]
    found = [Case(name, "BraTS", (), None, name) for name in names]
    same = by_patient(found, [tmp_path / "name_mapping.csv"], lambda id: id)
    for split in split_in_folds(same, 3, 0.2, False, seed=0):
        numbers = sorted(int(id.rpartition("_")[2]) for id in ids(split.validation))
        assert numbers == sorted([*set(numbers)] * 2)
        assert len(numbers) == 4


def written(path, folds):
    file = path / "splits_final.json"
    file.write_text(json.dumps(folds))
    return file


@pytest.mark.parametrize("test", [False, True])
def test_splits_are_read_as_they_were_written(tmp_path, test):
    folds = split_in_folds(CASES, 4, 0.2, test, seed=5)
    trees = [as_tree(*map(ids, split)) for split in folds]
    write_splits(tmp_path / "splits_final.json", trees)
    assert read_splits(tmp_path / "splits_final.json", CASES) == folds
    assert [set(tree) for tree in trees] == [{"train", "val"} | ({"test"} if test else set())] * 4


def test_a_file_of_nnunet(tmp_path):
    """As its `do_split` writes it: a list of objects with train and val."""
    file = written(
        tmp_path,
        [{"train": ["a", "b"], "val": ["c", "d"]}, {"train": ["c", "d"], "val": ["a", "b"]}],
    )
    a, b, c, d = FOUR
    assert read_splits(file, FOUR) == (Split((a, b), (c, d)), Split((c, d), (a, b)))


def test_a_case_that_was_left_out_as_a_duplicate_may_be_named(tmp_path):
    file = written(tmp_path, [{"train": ["a", "b"], "val": ["c", "d", "copy"]}])
    [split] = read_splits(file, FOUR, ignored=["copy"])
    assert ids(split.validation) == ["c", "d"]


def test_names_of_files_are_no_ids(tmp_path):
    file = written(tmp_path, [{"train": ["a.nii.gz", "b.nii.gz"], "val": ["c", "d"]}])
    words = (
        r"2 cases that only the split has \(a.nii.gz, b.nii.gz\).*without the ending of a file: a"
    )
    with pytest.raises(DataError, match=words):
        read_splits(file, FOUR)


ALL = {"train": ["a", "b"], "val": ["c", "d"]}


@pytest.mark.parametrize(
    ("folds", "words"),
    [
        (
            [ALL, {"train": ["a", "x"], "val": ["b", "c", "d"]}],
            r"1 case that only the split has \(x\)",
        ),
        ([{"train": ["a"], "val": ["c", "d"]}], r"only the data has \(b"),
        ([{"train": ["a", "b"], "val": ["b", "c", "d"]}], "fold 0 with b twice"),
        ([{"train": ["a", "a", "b"], "val": ["c", "d"]}], "fold 0 with a twice"),
        ([{"train": ["a", "b", "c", "d"], "val": []}], "fold 0 with no case in val"),
        ([{"train": [], "val": ["a", "b", "c", "d"]}], "fold 0 with no case in train"),
        ([ALL, ALL], "found c on the scored side of 2 folds"),
        ([{"train": ["a", "b"]}], r"fold 0 with the keys \['train'\], not train and val"),
        ([ALL | {"more": ["e"]}], r"fold 0 with the keys \['more', 'train', 'val'\]"),
        ([["a"]], "fold 0 with list, not train and val"),
        ([{"train": ["a", 1], "val": ["c"]}], "fold 0 with train that is no list of case ids"),
        ([{"train": "ab", "val": ["c"]}], "fold 0 with train that is no list of case ids"),
        ([], "no list of folds"),
        ({"train": ["a"], "val": ["b"]}, "no list of folds"),
        (
            [
                {"train": ["a"], "val": ["b"], "test": ["c", "d"]},
                {"train": ["c", "d"], "val": ["a", "b"]},
            ],
            'the key "test" in some folds only',
        ),
    ],
)
def test_files_that_are_no_splits_of_these_cases(tmp_path, folds, words):
    with pytest.raises(DataError, match=words) as caught:
        read_splits(written(tmp_path, folds), FOUR)
    assert "splits_final.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_given_fold_is_what_is_scored_and_the_validation_side_is_drawn_beside_it():
    a, b, c, d = FOUR
    split = steered(Split((a, b, c), (d,)), 0.25, seed=0)
    assert split.test == (d,)
    assert len(split.validation) == 1
    assert {*split.training, *split.validation} == {a, b, c}
