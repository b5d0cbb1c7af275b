"""splits.py: by group, at random, and as a manifest says."""

import pytest

from keras_medseg.data.cases import Case
from keras_medseg.data.splits import (
    Split,
    assign,
    leaking_groups,
    split_by,
    split_cases,
    split_in_three,
)
from keras_medseg.errors import DataError

CASES = [Case(str(n), "toy", (), None, f"sequence_{n // 5}") for n in range(50)]


def cases(*names):
    return [Case(name, "BraTS2021", (), None, name.split("-")[0]) for name in names]


def _ids(cases) -> list[str]:
    return [case.id for case in cases]


def test_a_split_keeps_groups_whole_and_ignores_the_order_of_cases():
    found = cases("a-0", "a-1", "b-0", "c-0", "d-0", "e-0", "e-1")
    training, validation = split_cases(found, 0.4, seed=1)
    again = split_cases(found[::-1], 0.4, seed=1)
    assert (training, validation) == again
    assert {c.id for c in training + validation} == {c.id for c in found}
    assert not {c.group for c in training} & {c.group for c in validation}
    assert len({c.group for c in validation}) == 2  # 0.4 of 5 groups


def test_the_share_is_that_of_the_validation_side():
    # 0.15 of 20 patients are 3, with two cases each.
    names = [f"{letter}-{n}" for letter in "abcdefghijklmnopqrst" for n in (0, 1)]
    training, validation = split_cases(cases(*names), 0.15, seed=0)
    assert (len(training), len(validation)) == (2 * 17, 2 * 3)


def test_seeds_give_other_splits():
    found = cases(*"abcdefghij")
    splits = {split_cases(found, 0.3, seed)[1] for seed in range(10)}
    assert len(splits) > 5


def test_each_side_gets_a_case():
    training, validation = split_cases(cases("a", "b"), 0.01, seed=0)
    assert len(training) == len(validation) == 1


@pytest.mark.parametrize(("names", "fraction"), [(("a-0", "a-1"), 0.5), ("ab", 0.0), ("ab", 1.0)])
def test_impossible_splits_are_refused(names, fraction):
    with pytest.raises(ValueError, match="expected"):
        split_cases(cases(*names), fraction, seed=0)


def test_by_group_nothing_leaks():
    training, validation = split_by(CASES, 0.2, seed=1)
    assert leaking_groups(training, validation) == []
    assert len(validation) == 2 * 5  # a fifth of ten groups of five
    assert sorted(_ids(training) + _ids(validation)) == sorted(_ids(CASES))


def test_at_random_groups_leak_and_are_kept_in_the_cases():
    training, validation = split_by(CASES, 0.2, seed=1, way="random")
    assert len(validation) == 10
    assert leaking_groups(training, validation)
    assert {case.id: case.group for case in training + validation} == {
        case.id: case.group for case in CASES
    }


@pytest.mark.parametrize("way", ["group", "random"])
def test_seeded_and_independent_of_the_order(way):
    first = split_by(CASES, 0.3, 7, way)
    assert split_by(CASES[::-1], 0.3, 7, way) == first
    assert split_by(CASES, 0.3, 8, way) != first


def test_unknown_way():
    with pytest.raises(ValueError, match="way: found 'frame', expected one of: group, random"):
        split_by(CASES, 0.2, 0, "frame")


def test_assign():
    sides = assign("here", {"0": "training", "1": "validation"}, CASES[:2])
    assert sides == Split(training=(CASES[0],), validation=(CASES[1],))


@pytest.mark.parametrize(
    ("sides", "verdict"),
    [
        (
            {"0": "training", "1": "validation", "x": "training"},
            r"1 case that only the split has \(x\)",
        ),
        ({"0": "validation"}, r"1 case that only the data has \(1"),
        ({"0": "training", "1": "training"}, "no case on the side validation"),
        ({"0": "training", "1": "test"}, "no case on the side validation"),
        ({"0": "validation", "1": "test"}, "no case on the side training"),
    ],
)
def test_assign_to_other_cases_or_to_one_side(sides, verdict):
    with pytest.raises(DataError, match=f"here: found .*{verdict}"):
        assign("here", sides, CASES[:2])


def test_three_sides_are_those_of_two_with_the_validation_side_divided():
    """8:1:1 of ten sequences of five frames: one sequence each to steer and to score."""
    training, validation, test = split_in_three(CASES, 0.1, 0.1, seed=1)
    assert (len(training), len(validation), len(test)) == (40, 5, 5)
    of_two = split_by(CASES, 0.2, seed=1)
    assert training == of_two.training
    assert sorted(_ids(validation + test)) == sorted(_ids(of_two.validation))
    assert leaking_groups(training, validation, test) == []


def test_without_a_test_side_a_split_has_the_same_bits_as_ever():
    for way in ("group", "random"):
        assert split_in_three(CASES, 0.2, 0.0, 3, way) == (*split_by(CASES, 0.2, 3, way), ())


def test_three_sides_at_random_keep_their_groups_and_leak():
    sides = split_in_three(CASES, 0.2, 0.1, seed=1, way="random")
    assert [len(side) for side in sides] == [35, 10, 5]
    assert {c.id: c.group for side in sides for c in side} == {c.id: c.group for c in CASES}
    # A group that is on the validation and the test side alone leaks as well.
    assert leaking_groups((), *sides[1:]) == sorted(
        {c.group for c in sides.validation} & {c.group for c in sides.test}
    )
    assert leaking_groups((), CASES[:2], CASES[4:6]) == ["sequence_0"]


def test_three_sides_need_three_groups():
    with pytest.raises(ValueError, match=r"found 2 group\(s\), expected at least 3, one for each"):
        split_in_three(cases("a-0", "a-1", "b"), 0.1, 0.1, seed=0)
    assert [len(side) for side in split_in_three(cases("a", "b", "c"), 0.1, 0.1, seed=0)] == [1] * 3
