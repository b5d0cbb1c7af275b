"""splits.py: by group, at random, and as published."""

import pytest

from keras_medseg.data.cases import Case
from keras_medseg.data.splits import (
    assign,
    read_split,
    split_by,
    torn_groups,
    write_split,
)
from keras_medseg.errors import DataError

CASES = [Case(str(n), "toy", (), None, f"sequence_{n // 5}") for n in range(50)]


def _ids(cases) -> list[str]:
    return [case.id for case in cases]


def test_by_group_nothing_is_torn():
    training, held_out = split_by(CASES, 0.2, seed=1)
    assert torn_groups(training, held_out) == []
    assert len(held_out) == 2 * 5  # a fifth of ten groups of five
    assert sorted(_ids(training) + _ids(held_out)) == sorted(_ids(CASES))


def test_at_random_groups_are_torn_and_kept_in_the_cases():
    training, held_out = split_by(CASES, 0.2, seed=1, way="random")
    assert len(held_out) == 10
    assert torn_groups(training, held_out)
    assert {case.id: case.group for case in training + held_out} == {
        case.id: case.group for case in CASES
    }


@pytest.mark.parametrize("way", ["group", "random"])
def test_seeded_and_independent_of_the_order(way):
    first = split_by(CASES, 0.3, 7, way)
    assert split_by(CASES[::-1], 0.3, 7, way) == first
    assert split_by(CASES, 0.3, 8, way) != first


def test_unknown_way():
    with pytest.raises(ValueError, match="way: found 'frame', expected one of group, random"):
        split_by(CASES, 0.2, 0, "frame")


def test_published_file_gives_the_same_sides(tmp_path):
    path = tmp_path / "splits/toy.csv"
    sides = split_by(CASES, 0.2, 3)
    write_split(path, *sides)
    lines = path.read_text().splitlines()
    assert lines[0] == "case,group,split"
    assert lines[1] == "0,sequence_0,training"
    assert lines[-1].endswith(",held_out")
    training, held_out = read_split(path, CASES)
    assert (set(training), set(held_out)) == tuple(map(set, sides))
    assert _ids(training) == sorted(_ids(training), key=int)  # the order of the cases given


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda text: text.replace("held_out", "test"), "line .*: found split 'test'"),
        (lambda text: text + "0,sequence_0,training\n", "found case 0 again"),
        (lambda text: text + "99,x,training\n", r"1 cases that only the split has \(99"),
        (lambda text: text.replace("0,sequence_0,training\n", "", 1), "that only the data has"),
        (lambda text: text.replace("held_out", "training"), "all cases on one side"),
        (lambda text: text.replace("case,", "id,"), "the columns id,group,split"),
    ],
)
def test_damaged_file(change, verdict, tmp_path):
    path = tmp_path / "toy.csv"
    write_split(path, *split_by(CASES, 0.2, 3))
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=verdict) as caught:
        read_split(path, CASES)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: found no CSV"):
        read_split(tmp_path / "none.csv", CASES)


def test_assign():
    sides = assign("here", {"0": "training", "1": "held_out"}, CASES[:2])
    assert [_ids(side) for side in sides] == [["0"], ["1"]]
