"""segments.py: where segments lie, what their classes are, and which samples train which task."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from keras_medseg.data.batches.segments import INSIDE, OUTSIDE, SegmentBatches, pick
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.store import StoredCase
from keras_medseg.data.transforms.task_transfer import transferred

REST, TUMOR, CORE, ENHANCING = (), (1, 2, 3), (1, 3), (3,)
FOUR = (("rest", (0,)), ("NCR", (1,)), ("ED", (2,)), ("ET", (3,)))
FIVE = (*FOUR, ("outside", (0,)))
TWELVE = (
    *FIVE,
    *((f"{name}_2", codes) for name, codes in FIVE),
    ("rest_3", (0, 1, 2)),
    ("ET_3", (3,)),
)
SIDES = (INSIDE, "", "", "", OUTSIDE)
SHAPE = (14, 12, 10)


class Cases:
    """A store in memory."""

    folder = "memory"

    def __init__(self, *labels):
        self.cases = {f"case{n}": _case(f"case{n}", *arrays) for n, arrays in enumerate(labels)}


def _case(name, labels, image=None):
    if image is None:
        image = np.arange(1, 1 + 2 * labels.size, dtype=np.int16).reshape(*SHAPE, 2)
    arrays = CaseArrays(image=image, labels=labels, affine=np.eye(4), axis_codes=("L", "P", "S"))
    return StoredCase.from_arrays(Case(name, "toy", (), None, group=name), arrays)


def _labels(**blocks):
    """Voxels of a few labels in a volume without any."""
    labels = np.zeros(SHAPE, np.uint8)
    for name, block in blocks.items():
        labels[block] = {"NCR": 1, "ED": 2, "ET": 3}[name]
    return labels


WHOLE = _labels(ED=np.s_[2:9, 2:9, 2:8], NCR=np.s_[3:7, 3:7, 3:7], ET=np.s_[4:6, 4:6, 4:6])


def made(*labels, **options):
    given = {
        "segment": (4, 3, 2),
        "normalization": "none",
        "centers": [[(REST, 1.0), (TUMOR, 3.0)]],
        "sizes": (4,),
        "sides": ("",) * 4,
        "segments_per_case": 40,
        "batch_size": 8,
        "seed": 5,
    }
    store = Cases(*(labels or [(WHOLE,)]))
    targets = options.pop("targets", FOUR)
    return SegmentBatches(store, list(store.cases), targets, **{**given, **options})


def middles(batches, epochs=1):
    """The label of the middle voxel of every sample."""
    found = []
    for epoch in range(epochs):
        for step in range(batches.steps_per_epoch):
            _, y = batches.batch(epoch, step)
            middle = y[(slice(None), *(size // 2 for size in batches.segment))]
            found += middle.argmax(axis=-1).tolist()
    return found


def test_middle_voxels_are_of_the_kinds_in_their_shares():
    found = middles(made(segments_per_case=400))
    assert len(found) == 400
    share = sum(label > 0 for label in found) / 400
    assert share == pytest.approx(0.75, abs=0.07)  # three standard deviations
    equal = [[(REST, 1.0), ((1,), 1.0), ((2,), 1.0), ((3,), 1.0)]]
    counts = Counter(middles(made(centers=equal, segments_per_case=400)))
    assert all(abs(counts[label] - 100) < 27 for label in range(4))


def test_each_voxel_of_a_kind_can_be_the_middle_one():
    batches = made(centers=[[(ENHANCING, 1.0)]], segment=(1, 1, 1))
    starts = {batches.start(0, 0, (0.0, u))[1] for u in (np.arange(8) + 0.5) / 8}
    voxels = {tuple(int(i) for i in at) for at in np.argwhere(WHOLE == 3)}
    assert starts == voxels
    assert len(voxels) == 8


def test_a_voxel_of_the_rest_is_of_the_object():
    image = np.zeros((*SHAPE, 2), np.int16)
    image[:9, :, :, 1] = 7
    batches = made((WHOLE, image), centers=[[(REST, 1.0)]], segment=(1, 1, 1))
    for u in np.linspace(0, 0.999, 200):
        at = batches.start(0, 0, (0.5, u))[1]
        assert image[at].any()
        assert WHOLE[at] == 0


@pytest.mark.parametrize(("u", "index"), [(0.0, 0), (0.249, 0), (0.25, 1), (0.999, 1)])
def test_a_pick_in_proportion(u, index):
    assert pick(np.array([1.0, 4.0]), u) == index


def test_a_weight_of_nothing_is_never_picked():
    assert {pick(np.array([0.0, 1.0, 1.0]), u) for u in (0.0, 0.5, 0.999)} == {1}


def test_a_case_without_any_kind_gives_way_to_the_next():
    batches = made((_labels(ED=np.s_[:3, :3, :3]),), (WHOLE,), centers=[[(CORE, 1.0)]])
    assert batches.start(0, 0, (0.0, 0.0))[0] == batches.start(1, 0, (0.0, 0.0))[0] == 1
    alone = made((_labels(ED=np.s_[:3, :3, :3]),), centers=[[(CORE, 1.0)]])
    with pytest.raises(ValueError, match=r"data.centers: found no voxel of"):
        alone.batch(0, 0)


def test_x_is_the_image_with_its_margin_and_y_the_segment_within():
    batches = made(margin=3)
    x, y = batches.batch(0, 0)
    assert x.shape == (8, 10, 9, 8, 2)
    assert y.shape == (8, 4, 3, 2, 4)
    plain, same = made(margin=0).batch(0, 0)
    np.testing.assert_array_equal(x[:, 3:-3, 3:-3, 3:-3], plain)
    np.testing.assert_array_equal(y, same)
    image = batches.store.cases["case0"].full_image()
    padded = np.pad(image, [(20, 20)] * 3 + [(0, 0)])
    for row in x:
        # Voxels are numbered, so that the largest one tells the place of the row.
        at = [int(i[0]) for i in np.where(padded[..., 1] == row[..., 1].max())]
        inner = [int(i[0]) for i in np.where(row[..., 1] == row[..., 1].max())]
        start = [a - i for a, i in zip(at, inner)]
        box = tuple(slice(first, first + size) for first, size in zip(start, (10, 9, 8)))
        np.testing.assert_array_equal(row, padded[box])


def test_flips_mirror_image_and_classes_together():
    plain, mirrored = made(), made(flips=("x", "z"))
    same = both = 0
    for step in range(plain.steps_per_epoch):
        for pair, other in zip(zip(*plain.batch(0, step)), zip(*mirrored.batch(0, step))):
            fits = [
                all(np.array_equal(a[::i, :, ::j], b) for a, b in zip(pair, other))
                for i in (1, -1)
                for j in (1, -1)
            ]
            assert any(fits)
            same += fits[0]
            both += fits[3]
    assert 1 < same < 25  # of 40
    assert both > 1


def test_the_same_epoch_and_step_give_the_same_bytes_and_another_epoch_others():
    first, again = made((WHOLE,), (WHOLE,)), made((WHOLE,), (WHOLE,))
    again.batch(3, 1)
    for a, b in zip(first.batch(2, 1), again.batch(2, 1)):
        assert a.tobytes() == b.tobytes()
    assert first.batch(2, 1)[0].tobytes() != first.batch(3, 1)[0].tobytes()
    fixed = replace(first, shuffle=False)
    assert fixed.order(4).tolist() == list(range(80))


def test_outside_is_a_class_of_its_own():
    image = np.zeros((*SHAPE, 2), np.int16)
    image[3:, 2:, :, 1] = 1
    five = {"targets": FIVE, "sizes": (5,), "sides": SIDES, "centers": [[(TUMOR, 1.0)]]}
    batches = made((WHOLE, image), segment=SHAPE, **five)
    _, y = batches.batch(0, 0)
    for row, index in enumerate(batches.order(0)[:8].tolist()):
        start = batches.start(0, 0, _uniform(batches, index))[1]
        # The box of the case begins where image or labels do, at 2 along x and y.
        place = tuple(slice(20 + o + s, 20 + o + s + n) for o, s, n in zip((2, 2, 0), start, SHAPE))
        labels, inside = np.pad(WHOLE, 20)[place], np.pad(image[..., 1], 20)[place]
        expected = np.where((labels == 0) & (inside == 0), 4, labels)
        np.testing.assert_array_equal(y[row].argmax(axis=-1), expected)
        assert (y[row].sum(axis=-1) == 1).all()
        assert {0, 4} < {*expected.flat}


def _uniform(batches, index, epoch=0):
    return np.random.default_rng((batches.seed, epoch, 3, index)).random(5)[:2]


def omnet(*labels, **options):
    """Three tasks, whose samples lie in the whole volume, the tumor and its core."""
    given = {
        "targets": TWELVE,
        "sizes": (5, 5, 2),
        "sides": (*SIDES, *SIDES, "", ""),
        "centers": [[(REST, 1.0)], [(TUMOR, 1.0)], [(CORE, 1.0)]],
        "batch_size": 9,
        "segments_per_case": 18,
    }
    return made(*labels, **{**given, **options})


def test_a_batch_has_as_many_samples_of_each_task():
    _, y = omnet().batch(0, 0)
    trained = np.stack(
        [y[..., part].any(axis=(1, 2, 3, 4)) for part in (np.s_[:5], np.s_[5:10], np.s_[10:])]
    )
    assert trained.T.tolist() == 3 * np.eye(3, dtype=bool).tolist()


def test_with_transfer_samples_count_as_the_authors_count_them():
    batches = omnet(transfer=True)
    counted = 0
    for step in range(batches.steps_per_epoch):
        _, y = batches.batch(0, step)
        _, own = replace(batches, transfer=False).batch(0, step)
        tasks = np.arange(9) % 3 + 1
        chosen, labels = batches._chosen(0, step), []
        for row, index in enumerate(chosen.tolist()):
            start = batches.start(0, row % 3, _uniform(batches, index))[1]
            box = np.pad(WHOLE, 20)[
                tuple(slice(20 + s, 20 + s + n) for s, n in zip(start, (4, 3, 2)))
            ]
            labels.append(box == 3 if row % 3 == 2 else box)
        found = transferred(np.stack(labels).astype(int), tasks)
        for task, part in enumerate((np.s_[:5], np.s_[5:10], np.s_[10:]), 1):
            trains = y[..., part].any(axis=(1, 2, 3, 4))
            assert trains.tolist() == (found[task][1] > 0).tolist()
            counted += int((trains & (tasks < task)).sum())
            assert y[trains][..., part].sum(axis=-1).all()
        assert not own[tasks == 1][..., 5:].any()
    assert counted > 0


def test_tasks_are_added_at_their_epochs():
    batches = omnet(stages=(1, 3), transfer=True)
    trained = []
    for epoch in range(4):
        _, y = batches.batch(epoch, 0)
        trained.append([bool(y[..., part].any()) for part in (np.s_[:5], np.s_[5:10], np.s_[10:])])
    assert trained == [[True, False, False], [True, True, False], [True, True, False], [True] * 3]
    # Before the others come, all rows are of the first task.
    assert batches.batch(0, 0)[1][..., :5].any(axis=(1, 2, 3, 4)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": (3,)}, r"centers, sizes: found 1 and \(3,\), expected one for each task, and 4"),
        ({"sizes": (2, 2)}, "centers, sizes: found 1"),
        ({"transfer": True}, r"data.transfer: found tasks of \(4,\) classes, expected 5, 5 and 2"),
        ({"normalization": "other"}, "normalization"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


def test_a_batch_that_the_tasks_do_not_divide_is_refused():
    with pytest.raises(
        ValueError, match=r"train.batch_size: found 8, expected a multiple of the 3"
    ):
        omnet(batch_size=8)
