"""batches.py: a batch is a function of (seed, epoch, step), whoever asks, in any order."""

import hashlib
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keras_medseg.data.batches.base import CaseBatches, epoch_order
from keras_medseg.data.batches.feeding import py_dataset, tf_dataset
from keras_medseg.data.batches.slices import SliceBatches
from keras_medseg.data.store import prepare
from keras_medseg.data.transforms import augment, volumes

TARGETS = (("WT", (1, 2, 3)), ("ET", (3,)))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Three cases of 8x9x7x2; windows of 6x6x5; batches of 4: 15 slices in 4 steps."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import toy_cases

    cases = toy_cases.write_cases(tmp_path / "source", 3)
    store = prepare(cases, toy_cases.read, tmp_path / "store", workers=1)
    shape = {"window": (6, 6, 5), "batch_size": 4, "normalization": "z_score"}
    return SliceBatches(store, list(store.cases), TARGETS, **shape, seed=11, flips=("x", "y"))


def _digest(made, epoch, step):
    return hashlib.sha256(b"".join(a.tobytes() for a in made.batch(epoch, step))).hexdigest()


def _all(made, epoch):
    return [made.batch(epoch, step) for step in range(made.steps_per_epoch)]


def _equal(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b) for x, y in zip(first, second) for a, b in zip(x, y)
    )


def test_shapes_steps_and_a_last_batch_that_is_smaller(made):
    assert made.samples == 3 * 5
    assert made.steps_per_epoch == 4
    shapes = [(x.shape, y.shape) for x, y in _all(made, 0)]
    assert shapes == [((4, 6, 6, 2), (4, 6, 6, 2))] * 3 + [((3, 6, 6, 2), (3, 6, 6, 2))]
    x, y = made.batch(0, 0)
    assert x.dtype == y.dtype == np.float32


def test_chosen_channels_are_those_of_all(made):
    swapped = replace(made, channels=(1, 0))
    for (x, y), (everything, targets) in zip(_all(swapped, 1), _all(made, 1)):
        np.testing.assert_array_equal(x, everything[..., ::-1])
        np.testing.assert_array_equal(y, targets)


def test_each_slice_comes_once_in_an_epoch_with_its_own_labels(made):
    plain = replace(made, flips=(), normalization="none")
    x, y = (np.concatenate(part) for part in zip(*_all(plain, 3)))
    order = plain.order(3)
    assert sorted(order.tolist()) == list(range(15))
    import toy_cases

    for row, index in enumerate(order.tolist()):
        image, labels = toy_cases.toy_arrays(index // 5)
        # Window 6x6x5 of 8x9x7: (8 - 6) // 2 = 1, (9 - 6) // 2 = 1, (7 - 5) // 2 = 1.
        z = 1 + index % 5
        assert np.array_equal(x[row], image[1:7, 1:7, z])
        assert np.array_equal(y[row, ..., 0], labels[1:7, 1:7, z] > 0)
        assert np.array_equal(y[row, ..., 1], labels[1:7, 1:7, z] == 3)


def test_flips_turn_image_and_labels_alike(made):
    straight = replace(made, flips=(), shuffle=False)
    turned = replace(straight, flips=("x", "y"))
    drawn = augment.draw_flips(11, 2, 15)
    assert len({tuple(row) for row in drawn.tolist()}) == 4
    for step in range(4):
        for plain, flipped in zip(straight.batch(2, step), turned.batch(2, step)):
            for row, (x, y) in enumerate(drawn[step * 4 :][: len(plain)].tolist()):
                expected = plain[row][:: -1 if x else 1, :: -1 if y else 1]
                assert np.array_equal(flipped[row], expected)


def test_only_the_named_axes_are_flipped(made):
    straight, along_y = (replace(made, flips=f, shuffle=False) for f in ((), ("y",)))
    drawn = augment.draw_flips(11, 0, 15)[:, 1]
    plain, flipped = straight.batch(0, 0)[0], along_y.batch(0, 0)[0]
    for row, turned in enumerate(drawn[:4].tolist()):
        assert np.array_equal(flipped[row], plain[row][:, :: -1 if turned else 1])


def test_flips_follow_the_slice_and_not_its_place(made):
    shuffled, ordered = _all(made, 1), _all(replace(made, shuffle=False), 1)
    x = np.concatenate([x for x, _ in ordered])
    assert np.array_equal(np.concatenate([x for x, _ in shuffled]), x[made.order(1)])


def test_same_arguments_same_bytes_in_any_order(made):
    expected = {(e, s): _digest(made, e, s) for e in range(3) for s in range(4)}
    other = replace(made)
    for epoch, step in sorted(expected, key=lambda at: (-at[1], at[0])):
        assert _digest(other, epoch, step) == expected[epoch, step]
    assert len(set(expected.values())) == 12


def test_same_bytes_in_another_process(made):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(_digest_of, (made, 2, 1))
    assert found == _digest(made, 2, 1)


def _digest_of(made, epoch, step):
    return _digest(made, epoch, step)


def test_a_target_may_come_twice(made):
    twice = replace(made, targets=(*TARGETS, TARGETS[0]))
    _, y = twice.batch(1, 0)
    np.testing.assert_array_equal(y[..., :2], made.batch(1, 0)[1])
    np.testing.assert_array_equal(y[..., 2], y[..., 0])


def test_seed_and_epoch_change_the_order(made):
    first = made.order(0).tolist()
    assert first != made.order(1).tolist()
    assert first != replace(made, seed=12).order(0).tolist()
    assert replace(made, shuffle=False).order(5).tolist() == list(range(15))


def test_cached_order_cannot_be_changed(made):
    expected = np.random.default_rng((11, 4)).permutation(15)
    for drawn in (made.order(4), epoch_order(15, 11, 4)):
        with pytest.raises(ValueError, match="read-only"):
            drawn[:] = 0
        np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_array_equal(replace(made).order(4), expected)
    assert sorted(made.order(5).tolist()) == list(range(15))


def test_order_of_case_ids_does_not_matter(made):
    assert _equal(_all(made, 0), _all(replace(made, case_ids=made.case_ids[::-1]), 0))


def test_slice_step_takes_every_second_slice(made):
    full = replace(made, shuffle=False, flips=(), batch_size=15).batch(0, 0)
    half = replace(made, shuffle=False, flips=(), batch_size=15, slice_step=2)
    assert half.samples == 3 * 3
    rows = [0, 2, 4, 5, 7, 9, 10, 12, 14]
    assert _equal([half.batch(0, 0)], [tuple(part[rows] for part in full)])


def test_batches_are_normalized_as_the_case_is(made):
    made = replace(made, shuffle=False, flips=())
    x, _ = made.batch(0, 0)
    case = made.store.cases["case0"]
    expected = np.empty((6, 6, 2), np.float32)
    scaling = volumes.scaling(case.statistics, "z_score")
    volumes.read_slice(case, 1, made.window, scaling, expected)
    assert np.array_equal(x[1], expected)
    assert np.all(x[0][0] == 0)


# What feeds Keras


def test_tf_dataset_gives_the_batches_of_its_epochs_in_order(made):
    expected = _all(made, 0) + _all(made, 1)
    dataset = tf_dataset(made, range(2))
    for _ in range(2):
        assert _equal(list(dataset.as_numpy_iterator()), expected)
    assert [spec.shape.as_list() for spec in dataset.element_spec] == [[None, 6, 6, 2]] * 2
    assert int(dataset.cardinality()) == 8


def test_the_parts_of_a_batch_are_the_batch(made):
    """Four replicas share batches of 4, and a last one of 3, of which one has no sample."""
    parts = list(tf_dataset(made, range(2), parts=4).as_numpy_iterator())
    assert [len(x) for x, _ in parts] == ([1] * 12 + [0, 1, 1, 1]) * 2
    whole = _all(made, 0) + _all(made, 1)
    for step, batch in enumerate(whole):
        for array, own in zip(batch, zip(*parts[4 * step :][:4]), strict=True):
            np.testing.assert_array_equal(np.concatenate(own), array)


@pytest.mark.parametrize("parts", [1, 2])
def test_an_iterator_is_deleted_without_waiting_for_a_tuner(made, parts):
    """Its thread sleeps for 0.01 s x a power of two; a validation of seconds waited 20 for it."""
    assert tf_dataset(made, parts=parts).options().autotune.enabled is False


def test_tensors_keep_their_values_while_later_batches_are_made(made):
    tensors = list(tf_dataset(made, range(3)))
    expected = [batch for epoch in range(3) for batch in _all(made, epoch)]
    assert _equal([(x.numpy(), y.numpy()) for x, y in tensors], expected)


def test_resuming_at_an_epoch_gives_what_an_unbroken_run_would_have(made):
    unbroken = list(tf_dataset(made, range(3)).as_numpy_iterator())
    resumed = list(tf_dataset(made, range(2, 3)).as_numpy_iterator())
    assert _equal(resumed, unbroken[8:])


def test_py_dataset_gives_the_same_batches(made):
    data = py_dataset(made, range(1, 3))
    assert len(data) == 4
    for epoch in (1, 2, 2):
        assert _equal([data[step] for step in range(4)], _all(made, epoch))
        data.on_epoch_end()


def test_fit_sees_every_batch_of_every_epoch(made):
    import keras

    class Sum(keras.layers.Layer):
        def build(self, shape):
            self.total = self.add_weight(shape=(), initializer="zeros", trainable=False)
            self.weight = self.add_weight(shape=(), initializer="zeros")

        def call(self, x):
            self.total.assign_add(keras.ops.sum(keras.ops.abs(x)))
            return x * self.weight

    totals = []
    for data, options in (
        (tf_dataset(made, range(2)), {"steps_per_epoch": 4}),
        (py_dataset(made), {}),
    ):
        model = keras.Sequential([keras.Input((6, 6, 2)), Sum()])
        model.compile(loss="mse")
        model.fit(data, epochs=2, verbose=0, shuffle=False, **options)
        totals.append(float(model.layers[-1].total))
    expected = sum(float(np.abs(x).sum()) for e in range(2) for x, _ in _all(made, e))
    assert totals == pytest.approx([expected, expected], rel=1e-5)


# Arguments


def test_there_are_no_batches_without_a_kind_of_sample(made):
    with pytest.raises(TypeError, match="abstract"):
        CaseBatches(made.store, made.case_ids, TARGETS, batch_size=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"case_ids": []}, "case_ids: found none"),
        ({"case_ids": ["case0", "case9"]}, "case9"),
        ({"flips": ("z",)}, "flips: found"),
        ({"normalization": "zscore"}, "normalization: found 'zscore'"),
        ({"channels": (2,)}, r"channels: found \(2,\)"),
        ({"batch_size": 0}, "batch_size: found 0, expected 1 or more"),
        (
            {"targets": {"WT": (1, 2, 3)}},
            r"targets: .* \(name, label codes\) pairs",
        ),
        ({"targets": ("WT", "ET")}, "targets: found"),
        ({"targets": (("WT", ()),)}, "targets: found"),
        ({"slice_step": 0}, "1 or more"),
        ({"window": (6, 0, 5)}, "1 or more"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(made, options, message):
    with pytest.raises(ValueError, match=message):
        replace(made, **options)


def test_cases_without_labels_have_images_but_no_targets(made, tmp_path):
    import toy_cases

    image, labels = toy_cases.toy_arrays(0)
    cases = [
        toy_cases.write_case(tmp_path / "source", "labelled", image, labels),
        toy_cases.write_case(tmp_path / "source", "bare", image, None),
    ]
    store = prepare(cases, toy_cases.read, tmp_path / "other", workers=1)
    with pytest.raises(ValueError, match=r"no labels for \['bare'\]"):
        replace(made, store=store, case_ids=["labelled", "bare"])
    x, y = replace(made, store=store, case_ids=["bare"], targets=()).batch(0, 0)
    assert x.shape == (4, 6, 6, 2)
    assert y.shape == (4, 6, 6, 0)


def test_cases_of_different_channels_do_not_mix(made, tmp_path):
    import toy_cases

    image, labels = toy_cases.toy_arrays(0)
    cases = [
        toy_cases.write_case(tmp_path / "source", "two", image, labels),
        toy_cases.write_case(tmp_path / "source", "one", image[..., :1], labels),
    ]
    store = prepare(cases, toy_cases.read, tmp_path / "other", workers=1)
    with pytest.raises(ValueError, match="different channels"):
        replace(made, store=store, case_ids=["one", "two"])


@pytest.mark.parametrize("step", [-1, 4])
def test_there_are_no_other_steps(made, step):
    with pytest.raises(IndexError, match="expected 0 to 3"):
        made.batch(0, step)
