"""splits.py: by group, at random, and as a manifest says."""

import pytest

from keras_medseg.data.cases import Case
from keras_medseg.data.splits import assign, split_by, torn_groups
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


def test_assign():
    sides = assign("here", {"0": "training", "1": "validation"}, CASES[:2])
    assert [_ids(side) for side in sides] == [["0"], ["1"]]


@pytest.mark.parametrize(
    ("sides", "verdict"),
    [
        ({"0": "training", "1": "validation", "x": "training"}, r"that only the split has \(x"),
        ({"0": "validation"}, r"that only the data has \(1"),
        ({"0": "training", "1": "training"}, "all cases on one side"),
    ],
)
def test_assign_to_other_cases_or_to_one_side(sides, verdict):
    with pytest.raises(DataError, match=f"here: found .*{verdict}"):
        assign("here", sides, CASES[:2])
