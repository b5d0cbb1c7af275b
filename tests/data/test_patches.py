"""patches.py: crops are functions of (seed, epoch, case), placed as DALI places them."""

import hashlib
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keras_medseg.data.batches.crop_slices import CropSliceBatches
from keras_medseg.data.batches.patches import PatchBatches, find_objects, place_crop
from keras_medseg.data.store import prepare
from keras_medseg.data.transforms import augment_volumes, volumes

GOLDENS = Path(__file__).parents[1] / "goldens"
TARGETS = (("WT", (1, 2, 3)), ("ET", (3,)))
OPTIONS = {"normalization": "z_score", "foreground_probability": 0.4}
AUGMENTATION = {name: {"probability": 0.5} for name in augment_volumes.DEFAULTS}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Five cases of 8x9x7x2 with boxes of 5x5x5; crops of 4x3x4 in batches of 2."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import toy_cases

    cases = toy_cases.write_cases(tmp_path / "source", 5)
    store = prepare(cases, toy_cases.read, tmp_path / "store", workers=1)
    shape = {"patch": (4, 3, 4), "batch_size": 2, "seed": 11}
    return PatchBatches(store, list(store.cases), TARGETS, **shape, **OPTIONS)


def _digest(made, epoch, step):
    return hashlib.sha256(b"".join(a.tobytes() for a in made.batch(epoch, step))).hexdigest()


def _all(made, epoch):
    return [made.batch(epoch, step) for step in range(made.steps_per_epoch)]


def _joined(made, epoch):
    return [np.concatenate(part) for part in zip(*_all(made, epoch))]


def test_shapes_steps_and_a_last_batch_that_is_smaller(made):
    assert made.steps_per_epoch == 3
    shapes = [(x.shape, y.shape) for x, y in _all(made, 0)]
    assert shapes == [((n, 4, 3, 4, 2), (n, 4, 3, 4, 2)) for n in (2, 2, 1)]
    x, y = made.batch(0, 0)
    assert x.dtype == y.dtype == np.float32


def test_each_case_comes_once_in_an_epoch_at_its_place(made):
    import toy_cases

    plain = replace(made, normalization="none")
    x, y = _joined(plain, 3)
    order = plain.order(3).tolist()
    assert sorted(order) == list(range(5))
    for row, index in enumerate(order):
        image, labels = toy_cases.toy_arrays(index)
        # The box of toy cases begins at (2, 3, 1).
        first = np.add(plain.start(3, index), (2, 3, 1))
        part = tuple(slice(f, f + size) for f, size in zip(first, (4, 3, 4)))
        np.testing.assert_array_equal(x[row], image[part])
        np.testing.assert_array_equal(y[row, ..., 0], labels[part] > 0)
        np.testing.assert_array_equal(y[row, ..., 1], labels[part] == 3)


def test_crops_follow_the_case_and_not_its_place(made):
    shuffled, ordered = _joined(made, 1), _joined(replace(made, shuffle=False), 1)
    for one, other in zip(shuffled, ordered):
        np.testing.assert_array_equal(one, other[made.order(1)])


def test_same_arguments_same_bytes_in_any_order(made):
    made = replace(made, augmentation=AUGMENTATION)
    expected = {(e, s): _digest(made, e, s) for e in range(3) for s in range(3)}
    other = replace(made, case_ids=made.case_ids[::-1])
    for epoch, step in sorted(expected, key=lambda at: (-at[1], at[0])):
        assert _digest(other, epoch, step) == expected[epoch, step]
    assert len(set(expected.values())) == 9
    assert _digest(replace(made, seed=12), 0, 0) != expected[0, 0]


def test_same_bytes_in_another_process(made):
    made = replace(made, augmentation=AUGMENTATION)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(_digest_of, (made, 2, 1))
    assert found == _digest(made, 2, 1)


def _digest_of(made, epoch, step):
    return _digest(made, epoch, step)


def test_center_crops_are_the_same_in_every_epoch(made):
    fixed = replace(made, crops="center", shuffle=False)
    # (5 - 4) // 2 = 0, (5 - 3) // 2 = 1, (5 - 4) // 2 = 0.
    assert fixed.start(0, 0) == fixed.start(7, 3) == (0, 1, 0)
    for one, other in zip(_joined(fixed, 0), _joined(fixed, 5)):
        np.testing.assert_array_equal(one, other)


def test_cases_that_are_smaller_lie_in_the_middle_of_zeros(made):
    wide = replace(made, patch=(8, 5, 6), normalization="none", shuffle=False)
    # (5 - 8) // 2 = -2: two before, one after; 5; (5 - 6) // 2 = -1: one before, none after.
    assert wide.start(0, 0) == (-2, 0, -1)
    x, y = wide.batch(0, 0)
    case = wide.store.cases["case0"]
    np.testing.assert_array_equal(x[0, 2:7, :, 1:], volumes.read_volume(case, "none"))
    for outside in (np.s_[:, :2], np.s_[:, 7:], np.s_[:, :, :, :1]):
        assert not x[outside].any()
        assert not y[outside].any()


def test_batches_are_normalized_as_the_case_is(made):
    fixed = replace(made, crops="center", shuffle=False)
    volume = volumes.read_volume(made.store.cases["case1"], "z_score")
    np.testing.assert_array_equal(fixed.batch(0, 0)[0][1], volume[0:4, 1:4, 0:4])


def test_chosen_channels_are_those_of_all(made):
    one = replace(made, channels=(1,), augmentation={"zoom": {"probability": 1.0}})
    both = replace(one, channels=None)
    for (x, y), (everything, targets) in zip(_all(one, 0), _all(both, 0)):
        np.testing.assert_array_equal(x, everything[..., 1:])
        np.testing.assert_array_equal(y, targets)


# Where crops lie


def test_crop_holds_a_smaller_object_and_lies_in_a_larger_one():
    # Object 3..5 (behind 6), crop 4: first voxel 6 - 4 = 2 or 3. Object 2..8, crop 4: 2 to 5.
    for first, behind, possible in ((3, 6, {2, 3}), (2, 9, {2, 3, 4, 5}), (4, 8, {4})):
        roi = ((first,) * 3, (behind,) * 3)
        numbers = [(u, u, u) for u in np.linspace(0, 0.999, 50)]
        starts = [place_crop((10, 10, 10), (4, 4, 4), roi, number) for number in numbers]
        assert {start[0] for start in starts} == possible
        assert all(len(set(start)) == 1 for start in starts)


def test_crop_stays_in_the_image():
    # Object 0 (behind 1), crop 4: -3 to 0 would hold it; object 9: 6 to 9.
    for first, expected in ((0, 0), (9, 6)):
        for u in (0, 0.5, 0.999):
            roi = ((first,) * 3, (first + 1,) * 3)
            assert place_crop((10, 10, 10), (4, 4, 4), roi, (u, u, u)) == (expected,) * 3


def test_crop_without_bias_lies_anywhere():
    roi = ((0, 0, 0), (10, 4, 3))
    starts = {place_crop((10, 4, 3), (4, 4, 4), roi, (u, u, u)) for u in np.linspace(0, 0.999, 99)}
    # 0 to 6; exactly there; (3 - 4) // 2.
    assert starts == {(x, 0, -1) for x in range(7)}


def _labelled_store(tmp_path, labels):
    from . import toy_cases

    image = np.ones((*labels.shape, 1), np.int16)
    case = toy_cases.write_case(tmp_path / "objects", "case", image, labels)
    return prepare([case], toy_cases.read, tmp_path / "object_store", workers=1)


def test_objects_are_found_per_label_and_through_faces(made, tmp_path):
    labels = np.zeros((9, 8, 7), np.uint8)
    labels[1:3, 1:4, 1] = 2
    labels[3, 4, 1] = 2  # touches the first at an edge only
    labels[2, 1, 2] = 3  # another label, though it touches
    labels[6:9, 5, 4:6] = 2
    store = _labelled_store(tmp_path, labels)
    of_two, of_three = find_objects(store.cases["case"])
    expected = [((1, 1, 1), (3, 4, 2)), ((3, 4, 1), (4, 5, 2)), ((6, 5, 4), (9, 6, 6))]
    assert sorted(of_two) == expected
    assert of_three == [((2, 1, 2), (3, 2, 3))]


def test_foreground_comes_with_its_probability_label_and_object(made, tmp_path):
    # Label 1: one voxel. Label 3: two voxels far apart. Crops of one voxel hit one of them.
    labels = np.zeros((30, 30, 30), np.uint8)
    objects = {(3, 4, 5): 1, (20, 9, 2): 3, (1, 25, 28): 3}
    for at, code in objects.items():
        labels[at] = code
    store = _labelled_store(tmp_path, labels)
    shape = {"patch": (1, 1, 1), "batch_size": 4, "seed": 1}
    made = PatchBatches(store, ["case"], TARGETS, **shape, **OPTIONS)
    starts = [made.start(epoch, 0) for epoch in range(4000)]
    hits = {at: starts.count(at) for at in objects}
    # 0.4 / 2 for the only voxel of its label, 0.4 / 4 for the others; standard deviations 25, 19.
    assert abs(hits[3, 4, 5] - 800) < 5 * 25
    assert abs(hits[20, 9, 2] - 400) < 5 * 19
    assert abs(hits[1, 25, 28] - 400) < 5 * 19
    # The rest anywhere: mean 14.5, standard deviation 8.66 / sqrt(2400) = 0.18.
    others = [start for start in starts if start not in objects]
    assert np.abs(np.mean(others, axis=0) - 14.5).max() < 5 * 0.18


def _dalis_volume():
    """One voxel of label 1; of label 3 an object larger than the crop in y, and one at a corner."""
    labels = np.zeros((14, 12, 10), np.uint8)
    labels[3, 4, 5] = 1
    labels[9:13, 1:9, 2:4], labels[:2, 9:, 7:] = 3, 3
    return labels


def test_objects_are_drawn_as_often_as_by_dali(tmp_path):
    """8,000 draws of DALI 2.4 (goldens/README.md): nothing, a label's only object, one of two."""
    labels = _dalis_volume()
    found = json.loads((GOLDENS / "dali_crops.json").read_text())
    counts = {(*map(tuple, (box["start"], box["stop"])),): box["count"] for box in found["boxes"]}
    [case] = _labelled_store(tmp_path, labels).cases.values()
    shares = {((0, 0, 0), labels.shape): 0.6}
    objects = find_objects(case)
    for of_label in objects:
        shares |= {box: 0.4 / len(objects) / len(of_label) for box in of_label}
    assert shares.keys() == counts.keys()
    for box, share in shares.items():
        spread = (8000 * share * (1 - share)) ** 0.5
        assert abs(counts[box] - 8000 * share) < 4 * spread


def test_crops_lie_where_dalis_do():
    """The same places for each box and axis, and DALI's counts are those of equal chances."""
    full, patch = _dalis_volume().shape, (5, 6, 4)
    for box in json.loads((GOLDENS / "dali_crops.json").read_text())["boxes"]:
        roi = tuple(box["start"]), tuple(box["stop"])
        chances = np.linspace(0, 1, 840, endpoint=False)
        ours = np.array([place_crop(full, patch, roi, (chance,) * 3) for chance in chances])
        for axis, counts in enumerate(box["starts"]):
            places, times = np.unique(ours[:, axis], return_counts=True)
            assert places.tolist() == [int(place) for place in counts]
            assert len(set(times)) == 1
            share = 1 / len(places)
            spread = (box["count"] * share * (1 - share)) ** 0.5
            assert all(abs(n - box["count"] * share) <= 4 * spread for n in counts.values())


def test_case_without_a_tumor_is_cropped_anywhere(made, tmp_path):
    store = _labelled_store(tmp_path, np.zeros((6, 6, 6), np.uint8))
    shape = {"patch": (4, 4, 4), "batch_size": 4}
    options = {**OPTIONS, "foreground_probability": 1.0}
    made = PatchBatches(store, ["case"], TARGETS, **shape, **options)
    assert len({made.start(epoch, 0) for epoch in range(50)}) > 10
    assert not made.batch(0, 0)[1].any()


# Augmentation


def test_augmentation_is_that_of_the_parameters(made):
    raw = replace(made, augmentation=AUGMENTATION, augment=False)
    options = augment_volumes.with_defaults(AUGMENTATION)
    changed = 0
    for step in range(3):
        (crops, parameters), targets = raw.batch(2, step)
        plain = made.batch(2, step)
        np.testing.assert_array_equal(crops, plain[0])
        np.testing.assert_array_equal(targets, plain[1])
        x, y = replace(raw, augment=True).batch(2, step)
        expected = augment_volumes.augment_image(np, crops, parameters, options)
        np.testing.assert_array_equal(x, expected)
        expected = augment_volumes.augment_targets(np, targets, parameters, options)
        np.testing.assert_array_equal(y, expected)
        changed += not np.array_equal(x, crops)
    assert changed


@pytest.mark.parametrize("others", [(), ("noise",), ("zoom",)])
@pytest.mark.parametrize("patch", [(4, 3, 4), (8, 7, 6)])
def test_crops_that_are_read_mirrored_are_those_that_are_mirrored_afterwards(made, others, patch):
    """Boxes of 5x5x5: a crop inside, and one that is padded by an odd number of voxels."""
    names = {name: {"probability": 1.0} for name in ("flips", *others)}
    plain = replace(made, patch=patch, augmentation=names, normalization="min_max", augment=False)
    options = augment_volumes.with_defaults(names)
    for step in range(3):
        (crops, parameters), targets = plain.batch(1, step)
        x, y = replace(plain, augment=True).batch(1, step)
        expected = augment_volumes.augment_image(np, crops, parameters, options)
        np.testing.assert_array_equal(x, expected)
        expected = augment_volumes.augment_targets(np, targets, parameters, options)
        np.testing.assert_array_equal(y, expected)
        assert not np.array_equal(x, crops)


def test_parameters_belong_to_the_case(made):
    raw = replace(made, augmentation=AUGMENTATION, augment=False)
    rows = np.concatenate([raw.batch(1, step)[0][1] for step in range(3)])
    options = augment_volumes.with_defaults(AUGMENTATION)
    expected = augment_volumes.draw_parameters(11, 1, 5, options, made.patch)
    np.testing.assert_array_equal(rows, expected[raw.order(1)])


# Arguments


@pytest.mark.parametrize("name", ["patch", "batch_size", "foreground_probability", "normalization"])
def test_no_papers_numbers_are_defaults(made, name):
    options = {"patch": (4, 3, 4), "batch_size": 2, **OPTIONS}
    del options[name]
    with pytest.raises(TypeError, match=name):
        PatchBatches(made.store, made.case_ids, TARGETS, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"case_ids": []}, "case_ids: found none"),
        ({"case_ids": ["case0", "case9"]}, "case9"),
        ({"normalization": "zscore"}, "normalization: found 'zscore'"),
        ({"batch_size": 0}, "batch_size: found 0, expected 1 or more"),
        ({"patch": (4, 0, 4)}, "1 or more"),
        ({"patch": (4, 4)}, "three sizes"),
        ({"foreground_probability": 1.5}, "foreground_probability: found 1.5"),
        ({"crops": "middle"}, "crops: found 'middle', expected one of: random, center"),
        ({"augmentation": {"rotate": {}}}, "augmentation: found"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(made, options, message):
    with pytest.raises(ValueError, match=message):
        replace(made, **options)


def test_cases_without_labels_have_images_but_no_targets(made, tmp_path):
    import toy_cases

    image, _ = toy_cases.toy_arrays(0)
    case = toy_cases.write_case(tmp_path / "bare", "bare", image, None)
    store = prepare([case], toy_cases.read, tmp_path / "other", workers=1)
    with pytest.raises(ValueError, match=r"no labels for \['bare'\]"):
        replace(made, store=store, case_ids=["bare"])
    bare = replace(made, store=store, case_ids=["bare"], targets=(), augmentation=AUGMENTATION)
    shapes = [[a.shape for a in bare.batch(epoch, 0)] for epoch in range(8)]
    assert shapes == [[(1, 4, 3, 4, 2), (1, 4, 3, 4, 0)]] * 8


@pytest.mark.parametrize("step", [-1, 3])
def test_there_are_no_other_steps(made, step):
    with pytest.raises(IndexError, match="expected 0 to 2"):
        made.batch(0, step)


# Slices of crops


def _sliced(made, **changes):
    options = {"patch": (4, 3, 4), "batch_size": 2, "seed": 11, "augmentation": AUGMENTATION}
    return CropSliceBatches(made.store, made.case_ids, TARGETS, **(options | OPTIONS | changes))


def test_a_step_has_the_same_slice_of_every_crop_of_a_batch(made):
    """Three batches of crops of four slices: step 5 is slice 1 of batch 1."""
    crops, slices = replace(made, augmentation=AUGMENTATION), _sliced(made)
    assert slices.steps_per_epoch == 3 * 4
    for step, number, z in ((0, 0, 0), (5, 1, 1), (3, 0, 3), (11, 2, 3)):
        (x, y), (whole, truth) = slices.batch(2, step), crops.batch(2, number)
        np.testing.assert_array_equal(x, whole[:, :, :, z])
        np.testing.assert_array_equal(y, truth[:, :, :, z])
        assert x.flags.c_contiguous


def test_slices_of_crops_are_the_same_in_any_order(made):
    first, again = _sliced(made), _sliced(made)
    found = [_digest(first, 1, step) for step in range(12)]
    assert [_digest(again, 1, step) for step in range(11, -1, -1)] == found[::-1]
    assert _digest(again, 0, 0) != found[0]


def test_slices_of_crops_refuse_what_they_do_not_have(made):
    with pytest.raises(IndexError, match="found 12, expected 0 to 11"):
        _sliced(made).batch(0, 12)
    with pytest.raises(ValueError, match="augment: found False"):
        _sliced(made, augment=False)
