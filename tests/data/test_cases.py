import numpy as np
import pytest

from keras_medseg.data.cases import Case, CaseArrays, split_cases


def cases(*names):
    return [Case(name, "BraTS2021", (), None, name.split("-")[0]) for name in names]


def test_spacing_is_given_along_lps_whatever_the_order_on_disk():
    # On disk: axis 0 runs to superior in 3 mm steps, 1 to left in 1 mm, 2 to posterior in 2 mm.
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = 3, -1, -2, 1
    arrays = CaseArrays(np.zeros((1, 1, 1, 4)), None, affine, ("S", "L", "P"))
    assert arrays.spacing_mm == (1.0, 2.0, 3.0)


def test_a_split_keeps_groups_whole_and_ignores_the_order_of_cases():
    found = cases("a-0", "a-1", "b-0", "c-0", "d-0", "e-0", "e-1")
    training, held_out = split_cases(found, 0.4, seed=1)
    again = split_cases(found[::-1], 0.4, seed=1)
    assert (training, held_out) == again
    assert {c.id for c in training + held_out} == {c.id for c in found}
    assert not {c.group for c in training} & {c.group for c in held_out}
    assert len({c.group for c in held_out}) == 2  # 0.4 of 5 groups


def test_seeds_give_other_splits():
    found = cases(*"abcdefghij")
    splits = {split_cases(found, 0.3, seed)[1] for seed in range(10)}
    assert len(splits) > 5


def test_each_side_gets_a_case():
    training, held_out = split_cases(cases("a", "b"), 0.01, seed=0)
    assert len(training) == len(held_out) == 1


@pytest.mark.parametrize(("names", "fraction"), [(("a-0", "a-1"), 0.5), ("ab", 0.0), ("ab", 1.0)])
def test_impossible_splits_are_refused(names, fraction):
    with pytest.raises(ValueError, match="expected"):
        split_cases(cases(*names), fraction, seed=0)
