"""Volumes predicted by networks of exclusive classes, whose answers are known."""

import keras
import numpy as np
import pytest

from keras_medseg import recipe, registry
from keras_medseg.data.batches.segments import INSIDE, OUTSIDE
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets.brats import MODALITIES
from keras_medseg.data.store import StoredCase
from keras_medseg.inference.outputs import merge_regions
from keras_medseg.tasks import task_of
from keras_medseg.training import fit

from ..known_runs import SLICES, constant

SHAPE = (12, 10, 8)
FOUR = ("rest", "NCR", "ED", "ET")
FIVE = (*FOUR, "outside")
SECOND, THIRD = tuple(f"{name}_2" for name in FIVE), ("rest_3", "ET_3")
ONE_TASK = ({"rest": 1.0, "WT": 1.0},)
THREE_TASKS = (*ONE_TASK, {"WT": 1.0}, {"TC": 1.0})


def chosen(targets=(FOUR,), centers=ONE_TASK, auxiliary=(), model=None, **options):
    data = recipe.Segments("brats", (8, 6, 4), "none", centers, 2, 0.5, **options)
    changes = {"data": data, "model.targets": targets, "model.auxiliary": auxiliary}
    if model is not None:
        changes |= {"model.name": model[0], "model.options": model[1]}
    return recipe.override(SLICES, changes)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    image = rng.integers(1, 17, (*SHAPE, len(MODALITIES)), dtype=np.int16)
    labels = rng.integers(0, 4, SHAPE).astype(np.uint8)
    arrays = CaseArrays(image=image, labels=labels, affine=np.eye(4), axis_codes=("L", "P", "S"))
    return StoredCase.from_arrays(Case("case", "BraTS2017", (), None, group="case"), arrays)


def label_of(task, networks, case):
    labels = np.unique(task.predict(networks, case))
    assert len(labels) == 1
    return int(labels[0])


def test_a_region_is_the_sum_of_its_classes(case):
    maps = task_of(chosen()).probabilities({FOUR: constant(0.4, 0.3, 0.2, 0.1, dimensions=3)}, case)
    found = {name: (values.shape, float(values.mean())) for name, values in maps.items()}
    assert found == {
        "WT": (SHAPE, pytest.approx(0.6)),
        "TC": (SHAPE, pytest.approx(0.4)),
        "ET": (SHAPE, pytest.approx(0.1)),
    }


@pytest.mark.parametrize(
    ("probabilities", "label"),
    [
        ((0.4, 0.3, 0.2, 0.1), 0),  # the tumor has 0.6, but each of its classes has less
        ((0.3, 0.4, 0.2, 0.1), 1),
        ((0.3, 0.2, 0.4, 0.1), 2),
        ((0.1, 0.3, 0.25, 0.35), 3),
    ],
)
def test_the_most_likely_class_is_the_label(probabilities, label, case):
    task = task_of(chosen())
    assert label_of(task, {FOUR: constant(*probabilities, dimensions=3)}, case) == label


def test_another_threshold_asks_whether_a_voxel_is_of_a_region(case):
    task = task_of(chosen())
    maps = task.probabilities({FOUR: constant(0.4, 0.3, 0.2, 0.1, dimensions=3)}, case)
    assert np.unique(task.label_map(maps, case, threshold=0.35)).tolist() == [1]


def test_the_mean_over_networks_is_that_of_their_classes(case):
    """EMMA: the mean of the confidences of every class, of which the largest wins."""
    task = task_of(chosen())
    answers = [(0.5, 0.3, 0.1, 0.1), (0.0, 0.45, 0.5, 0.05), (0.4, 0.1, 0.5, 0.0)]
    maps = [task.probabilities({FOUR: constant(*answer, dimensions=3)}, case) for answer in answers]
    means = {name: np.mean([one[name] for one in maps], axis=0) for name in maps[0]}
    expected = int(np.mean(answers, axis=0).argmax())
    assert expected == 2
    assert np.unique(task.label_map(means, case)).tolist() == [expected]


# What tasks 1, 2 and 3 answer, and the label: each region counts within the one before.
ANSWERS = [
    ((0.2, 0.3, 0.3, 0.2, 0.0), (0.1, 0.4, 0.2, 0.3, 0.0), (0.4, 0.6), 3),
    ((0.2, 0.3, 0.3, 0.2, 0.0), (0.1, 0.4, 0.2, 0.3, 0.0), (0.6, 0.4), 1),
    ((0.2, 0.3, 0.3, 0.2, 0.0), (0.1, 0.2, 0.5, 0.2, 0.0), (0.1, 0.9), 2),
    ((0.4, 0.1, 0.1, 0.1, 0.3), (0.0, 0.5, 0.0, 0.5, 0.0), (0.1, 0.9), 0),
]


@pytest.mark.parametrize("answers", ANSWERS)
def test_three_networks_are_merged_by_region(answers, case):
    """MC: the tumor of network 1, its core of network 2 within, the enhancing of 3 within."""
    targets = (FIVE, SECOND, THIRD)
    networks = {names: constant(*answer, dimensions=3) for names, answer in zip(targets, answers)}
    task = task_of(chosen(targets, THREE_TASKS))
    assert label_of(task, networks, case) == answers[3]


@pytest.mark.parametrize("answers", ANSWERS)
def test_three_outputs_are_merged_by_region(answers, case):
    """OM-Net: one network for the three tasks."""
    image = keras.Input((None, None, None, len(MODALITIES)))
    outputs = [constant(*answer, dimensions=3)(image) for answer in answers[:3]]
    task = task_of(chosen((FIVE,), THREE_TASKS, (*SECOND, *THIRD)))
    assert label_of(task, {FIVE: keras.Model(image, outputs)}, case) == answers[3]
    assert task.needs_auxiliary


def test_a_network_is_enlarged_to_the_tile(case):
    """DeepMedic without padding: whatever the tile, each voxel sees the same around it."""
    options = {"form": "valid", "widths": (4,) * 8, "fc_widths": (4, 4), "activation": "softmax"}
    keras.utils.set_random_seed(1)
    network = registry.build("deepmedic", input_shape=(57, 57, 57, 4), classes=4, **options)
    given = {"model": ("deepmedic", options), "margin": 24}
    large = task_of(chosen(tile=(12, 12, 12), **given))
    maps = large.probabilities({FOUR: network}, case)
    assert maps["WT"].shape == SHAPE
    # Read at once: the volume lies in the middle of what is put out for a volume in zeros.
    [(_, tiled)] = large._for_tiles.values()
    assert tiled.input_shape[1:] == (60, 60, 60, 4)
    padded = np.zeros((1, 60, 60, 60, 4), np.float32)
    padded[0, 24:36, 25:35, 26:34] = case.full_image()
    expected = tiled.predict_on_batch(padded)[0, :, 1:11, 2:10, 1:].sum(axis=-1)
    np.testing.assert_allclose(maps["WT"], expected, rtol=1e-5)
    for ours, theirs in zip(tiled.get_weights(), network.get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def test_the_tile_computes_in_the_precision_of_the_network(case):
    options = {"form": "valid", "widths": (2,) * 8, "fc_widths": (2, 2), "activation": "softmax"}
    with fit.precision("mixed_bfloat16"):
        network = registry.build("deepmedic", input_shape=(57, 57, 57, 4), classes=4, **options)
    task = task_of(chosen(model=("deepmedic", options), margin=24, tile=(10, 10, 10)))
    tiled = task._tiled(network, 4)
    assert tiled.get_layer("Normal_2_conv").compute_dtype == "bfloat16"
    assert tiled.input_shape[1:] == (58, 58, 58, 4)


def test_batches_have_the_classes_and_centers_of_the_tasks_of_a_network(case):
    class Store:
        folder, cases = "memory", {"case": case}

    shared = {"transfer": True, "stages": (1, 2), "flips": ("x",)}
    whole = chosen((FIVE,), THREE_TASKS, (*SECOND, *THIRD), **shared)
    whole = recipe.override(whole, {"train.batch_size": 3})
    batches = task_of(whole).batches(Store(), ["case"], FIVE, training=True)
    assert batches.sizes == (5, 5, 2)
    assert batches.sides == (INSIDE, "", "", "", OUTSIDE) * 2 + ("", "")
    assert dict(batches.targets)["rest_3"] == (0, 1, 2)
    assert dict(batches.targets)["rest"] == dict(batches.targets)["outside"] == (0,)
    assert [[kind for kind, _ in task] for task in batches.centers] == [
        [(), (1, 2, 3)],
        [(1, 2, 3)],
        [(1, 3)],
    ]
    assert (batches.stages, batches.flips, batches.transfer) == ((1, 2), ("x",), True)
    validation = task_of(whole).batches(Store(), ["case"], FIVE, training=False)
    assert (validation.stages, validation.flips, validation.shuffle) == ((), (), False)
    cascade = task_of(chosen((FIVE, SECOND, THIRD), THREE_TASKS))
    alone = cascade.batches(Store(), ["case"], THIRD, training=True)
    assert (alone.sizes, alone.centers) == ((2,), [[((1, 3), 1.0)]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": (("rest", "tumor"),)}, "class: found 'tumor', expected one of: rest, outside"),
        ({"targets": (("rest", "WT", "ET"),)}, "rest and labels that exclude each other"),
        ({"targets": (("NCR", "ED", "ET"),)}, "found the classes NCR, ED, ET in task 1"),
        ({"targets": (("rest", "WT_2"),)}, "task of WT_2: found '2', expected one of: 1"),
        ({"centers": (*ONE_TASK, {"WT": 1.0})}, "found the classes none in task 2"),
        ({"centers": ({"brain": 1.0},)}, r"data.centers: found 'brain', expected one of: rest"),
        (
            {"centers": (*ONE_TASK, {"WT": 1.0}), "targets": (FOUR, ("rest_2", "ET_2"))},
            "data.centers: found 2 tasks, expected 1 or 3, one for each of WT, TC, ET",
        ),
    ],
)
def test_what_is_no_class_or_task_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        task_of(chosen(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"centers": ()}, "data.centers: found"),
        ({"centers": ({},)}, "data.centers: found"),
        ({"centers": ({"rest": 0.0},)}, "not all 0"),
        ({"centers": ({"rest": -1.0, "WT": 2.0},)}, "weights of 0 or more"),
        ({"stages": (1,)}, "data.stages: found"),
        ({"centers": THREE_TASKS, "stages": (3, 1)}, "that do not fall"),
        ({"tile": (8, 8)}, "data.tile: found"),
        ({"margin": -1}, "data.margin: found"),
        ({"overlap": 1.0}, "data.overlap: found"),
        ({"flips": ("w",)}, "data.flips: found 'w'"),
    ],
)
def test_settings_out_of_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        chosen(**options)


def test_merging_is_that_of_the_package_where_tasks_are_several(case):
    task = task_of(chosen((FIVE, SECOND, THIRD), THREE_TASKS))
    rng = np.random.default_rng(0)
    maps = {name: rng.random(SHAPE).astype(np.float32) for name in ("WT", "TC", "ET")}
    regions, nesting = task.dataset.regions, task.dataset.nesting
    expected = merge_regions(maps, regions, nesting)
    np.testing.assert_array_equal(task.label_map(maps, case), expected)


def test_a_graph_of_scans_is_refused():
    with pytest.raises(ValueError, match=r"data.task: found Segments, expected Slices, Patches"):
        task_of(chosen()).scan_graph({}, "BraTS2021")


def test_a_recipe_survives_its_json():
    whole = chosen((FIVE,), THREE_TASKS, (*SECOND, *THIRD), stages=(1, 2), tile=(8, 8, 8))
    assert recipe.from_json(recipe.to_json(whole)) == whole
    assert whole.data.input_size == (8, 6, 4)
    assert chosen(margin=3).data.input_size == (14, 12, 10)
