"""What only this paper needs."""

import json
import re
import runpy
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from experiments.fmnet2023 import overfit
from experiments.fmnet2023.figures import absence_figures, curve_figures, paper_figures
from experiments.fmnet2023.further_scores import (
    absence,
    absence_scores,
    curve_scores,
    further_scores,
)
from experiments.fmnet2023.recipe import EXPERIMENT, RECIPE, UNET, heads
from keras_medseg import losses, recipe
from keras_medseg.data import splits, store
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets.brats import MODALITIES, Brats
from keras_medseg.data.transforms import augment_volumes
from keras_medseg.phantoms.brats import write_brats
from keras_medseg.reporting.tables import read_published
from keras_medseg.runs import steps
from keras_medseg.runs.run_folder import RunFolder, Variant
from keras_medseg.tasks import task_of
from keras_medseg.training import fit

ROOT = Path(__file__).parents[2]
PAPER = EXPERIMENT.profiles["paper"]
VARIANTS = {name: recipe.override(RECIPE, changes) for name, changes in PAPER.variants.items()}
# NAdam's many operations take seconds to compile.
PLAIN = {"train.optimizer": "sgd", "train.optimizer_options": {}}
TINY = {"model.options.filters": 2}
PATCH = {"data.patch": (32, 32, 32)}
FLOAT32 = {"train.precision": "float32"}


def begin(path, name, chosen):
    run = RunFolder(path)
    run.create(chosen, {name: Variant(chosen, name)}, {})
    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three synthetic cases, two of them for validation."""
    folder = tmp_path_factory.mktemp("cases")
    write_brats(folder, cases=3, layout="BraTS2021", shape=(40, 40, 32))
    cases = Brats().find(folder).cases
    decoded = store.prepare(cases, Brats().read, folder / "store", workers=1)
    first, *others = sorted(decoded.cases)
    return steps.Cohort("test", decoded, (first,), tuple(others), {})


def test_a_fifth_of_the_cases_that_are_not_scored_chooses_the_epoch():
    """The authors' fold, four to one, of the cases outside of their test folder; 1251 in all."""
    cases = [Case(f"{n:04}", "BraTS2021", (), None, f"{n:04}") for n in range(1251)]
    for data in (RECIPE.data, VARIANTS["two_dimensions"].data):
        split = splits.split_in_three(cases, data.validation, data.test, RECIPE.train.seed)
        training, validation, test = (len(side) for side in split)
        assert validation / (training + validation) == pytest.approx(0.2, abs=1e-3)
        assert test == 125


def test_the_recipe_is_that_of_the_code():
    """configs of fuat-arslan/MRI-Segmentation: 0.0003, 70 epochs, batches of 4; its trainer keeps
    the weights of the lowest validation loss."""
    train = RECIPE.train
    assert (train.learning_rate, train.epochs, train.batch_size) == (3e-4, 70, 4)
    assert train.keep == "best"
    assert PAPER.changes == {}
    assert VARIANTS["fmnet"] == RECIPE


def changed(variant, base="fmnet"):
    """Names of the fields in which two variants differ, without their sections."""
    found = recipe.differences(VARIANTS[variant], VARIANTS[base])
    return {field.rpartition(".")[2] for field in found}


def test_variants_differ_from_the_recipe_in_what_they_name():
    heads = {"supervision_heads", "output_weights"}
    unet = heads | {"attention", "bottleneck_blocks", "epochs"}
    slices = {"slices", "augment_on_device", "dimensions"}
    assert changed("float32") == {"precision"}
    assert changed("gated_skip_and_up") == {"variant"}
    assert changed("with_bottleneck") == {"epochs"}
    assert changed("with_supervision", "with_bottleneck") == {"bottleneck_blocks"}
    assert changed("attention_unet", "with_supervision") == heads
    assert changed("unet", "attention_unet") == {"attention"}
    assert changed("three_dimensions") == changed("unet") == unet
    assert changed("three_dimensions", "unet") == {"epochs"}
    assert changed("two_dimensions", "three_dimensions") == slices
    assert changed("kernels_32_64", "attention_unet") == {"levels"}
    assert changed("kernels_8_to_64", "attention_unet") == {"levels", "filters"}
    assert {VARIANTS[name].train.epochs for name in ("two_dimensions", "three_dimensions")} == {40}


def test_heads_are_counted_before_there_is_a_bottleneck():
    """Section V-D: heads on the attention U-Net, blocks below the network with two heads; 30
    epochs, as many as the curves of Figure 4 have."""
    names = ("attention_unet", "heads_1", "with_supervision", "heads_3")
    options = [VARIANTS[name].model.options for name in names]
    assert [option["supervision_heads"] for option in options] == [0, 1, 2, 3]
    assert {option["bottleneck_blocks"] for option in options} == {0}
    blocks = ("with_supervision", "bottleneck_1", "with_bottleneck", "bottleneck_3", "bottleneck_4")
    options = [VARIANTS[name].model.options for name in blocks]
    assert [option["bottleneck_blocks"] for option in options] == [0, 1, 2, 3, 4]
    assert {option["supervision_heads"] for option in options} == {2}
    assert {VARIANTS[name].train.epochs for name in (*names, *blocks, "unet")} == {30}


def test_every_experiment_of_section_v_d_has_a_row():
    shown = {row.measured for table in EXPERIMENT.tables for row in table.rows}
    assert PAPER.variants.keys() - shown == set()
    compared = {name for pair in PAPER.comparisons for name in pair}
    assert PAPER.variants.keys() - compared == set()


def test_the_text_has_what_the_text_says():
    """Sections III, V-C, V-E: one crop for good, no contrast, 0.003, three outputs summed."""
    text = VARIANTS["as_the_text_says"]
    assert changed("as_figure_6_shows", "as_the_text_says") == {"variant"}
    assert text.data.crops == "center"
    names = ["zoom", "flips", "noise", "blur", "brightness"]
    assert list(text.data.augmentation) == names
    assert {name: RECIPE.data.augmentation[name] for name in names} == text.data.augmentation
    assert text.train.learning_rate == 0.003
    assert text.train.loss == "cross_entropy_and_dice"
    assert text.train.loss_options["squared"]
    assert text.train.loss_options["output_weights"] == (1.0, 1.0, 1.0)
    assert text.model.options["variant"] == "paper"


def test_single_modalities_differ_in_nothing_else():
    assert changed("binary_all_four", "two_dimensions") == {"targets"}
    base = VARIANTS["binary_all_four"]
    for name in MODALITIES:
        found = recipe.differences(VARIANTS[f"binary_{name}"], base)
        assert found == {"data.modalities": ((name,), MODALITIES)}


def test_each_further_head_has_half_the_weight():
    assert heads(2)["train.loss_options.output_weights"] == (1.0, 0.5, 0.25)
    assert heads(0)["train.loss_options.output_weights"] == (1.0,)


def test_all_four_modalities_are_read(data):
    run = recipe.override(RECIPE, {**PATCH, "data.augment_on_device": False})
    feed = task_of(run).batches(data.store, data.training, ("WT", "TC", "ET"), training=False)
    x, y = feed.batch(0, 0)
    assert x.shape == (1, 32, 32, 32, 4)
    assert y.shape == (1, 32, 32, 32, 3)
    assert all(np.ptp(x[..., channel]) > 0 for channel in range(4))


def test_each_channel_is_the_region_that_the_text_names(tmp_path):
    """WT: "mask values 1, 2, and 3"; TC: "1 and 3"; ET: 3, which is 4 in the files of 2021."""
    labels = np.array([0, 1, 2, 3], np.uint8).reshape(4, 1, 1)
    arrays = CaseArrays(np.ones((4, 1, 1, 4), np.int16), labels, np.eye(4), ("L", "P", "S"))
    (tmp_path / "source").touch()
    case = Case("case", "BraTS2021", (tmp_path / "source",), tmp_path / "source", "case")
    decoded = store.prepare([case], lambda case: arrays, tmp_path / "store", workers=1)
    run = recipe.override(RECIPE, {"data.patch": (4, 1, 1), "data.augment_on_device": False})
    (targets,) = run.model.targets
    feed = task_of(run).batches(decoded, ("case",), targets, training=False)
    expected = [[0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]]
    assert feed.batch(0, 0)[1][0, :, 0, 0].tolist() == expected


@pytest.mark.parametrize("on_device", [False, True])
def test_half_precision_has_a_loss_scale(on_device):
    """As the GradScaler of the paper's framework; without it small gradients are 0 in float16."""
    run = recipe.override(RECIPE, {**PATCH, **TINY, "data.augment_on_device": on_device})
    assert run.train.precision == "mixed_float16"
    wrap = task_of(run).wrap
    network, model = fit.compile_network(run, ("WT", "TC", "ET"), channels=4, wrap=wrap)
    assert {output.dtype for output in network.outputs} == {"float32"}
    assert network.get_layer("Encode1_conv1").compute_dtype == "float16"
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert type(model.optimizer.inner_optimizer).__name__ == "NadamPyTorch"


@pytest.mark.slow
def test_half_precision_learns_what_float32_learns(data):
    """Section V-B: no noticeable impact. Three steps on one crop: each loss to 1 %."""
    found = {}
    for name in ("float32", "fmnet"):
        changes = {**PATCH, **TINY, **PLAIN, "data.augment_on_device": False}
        run = recipe.override(VARIANTS[name], {**changes, "train.learning_rate": 0.05})
        (targets,) = run.model.targets
        feed = task_of(run).batches(data.store, data.training, targets, training=False)
        _, model = fit.compile_network(run, targets, channels=4)
        batch = feed.batch(0, 0)
        found[run.train.precision] = [
            float(model.train_on_batch(*batch, return_dict=True)["loss"]) for _ in range(3)
        ]
    assert found["float32"][2] < found["float32"][0]
    np.testing.assert_allclose(found["mixed_float16"], found["float32"], rtol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("on_device", [False, True])
def test_a_run_goes_from_crops_to_scores(data, tmp_path, on_device):
    """Training, a whole volume by windows, the authors' scores and the figures. On the device with
    the recipe's own optimizer and precision."""
    plain = {} if on_device else FLOAT32 | PLAIN
    settings = {**PATCH, **TINY, **plain, "train.epochs": 1, "data.augment_on_device": on_device}
    chosen = recipe.override(RECIPE, settings)
    steps.check_recipe(chosen, channels=4)
    run = begin(tmp_path, "fmnet", chosen)
    steps.train_variant(run, "fmnet", data)
    scores = steps.score_variant(run, "fmnet", data)
    assert len(scores) == 2 * 3
    found = further_scores(run, data)
    crops = found[found["case"] == "augmented crops"].set_index("region")
    assert list(crops.index) == ["WT", "TC", "ET", ""]
    outputs = [f"outside_{name}" for name in ("first_ds", "second_ds", "prediction")]
    shares = crops.loc[["WT", "TC", "ET"], ["crop_dice", "crop_dice_by_slice", *outputs]]
    assert shares.to_numpy(float).min() >= 0
    assert shares.to_numpy(float).max() <= 1
    assert crops.loc["", ["loss", "loss_by_slice", "main_loss"]].astype(float).min() > 0
    assert (tmp_path / "absence.csv").exists()
    for figure in paper_figures(run, data):
        assert figure.path.stat().st_size > 10_000


@pytest.fixture
def small_run(data, tmp_path):
    """A run of FM-Net with a log of three epochs and label maps; no network was trained."""
    chosen = recipe.override(RECIPE, PATCH | TINY)
    run = begin(tmp_path, "fmnet", chosen)
    folder = run.training("fmnet", ("WT", "TC", "ET"))
    folder.mkdir(parents=True)
    lines = ["epoch,loss,val_loss,val_dice_WT,val_dice_TC,val_dice_ET"]
    lines += ["1,2.0,1.5,0.1,0.2,0.3", "5,1.0,0.9,0.6,0.5,0.4", "30,0.9,1.2,0.7,0.6,0.5"]
    (folder / "log.csv").write_text("\n".join(lines))
    run.predictions("fmnet").mkdir(parents=True)
    for number, case_id in enumerate(data.validation):
        case = data.store.cases[case_id]
        labels = np.zeros(case.full_shape, np.uint8)
        if number:  # One voxel of edema in every slice.
            labels[0, 0, :] = 2
        chosen_task = run.variant("fmnet").task
        chosen_task.write(run.prediction("fmnet", case_id), labels, case)
    return run


def test_what_the_curves_show_comes_from_the_log(small_run):
    """The lowest loss is that of epoch 5; there was no epoch 40."""
    table = curve_scores(small_run).set_index("region")
    row = table.loc[""]
    assert (row["val_loss_at_5"], row["val_loss_at_30"]) == (0.9, 1.2)
    assert np.isnan(row["val_loss_at_40"])
    assert (row["val_loss_lowest"], row["lowest_epoch"]) == (0.9, 5)
    assert table.loc[["WT", "TC", "ET"], "val_dice"].tolist() == [0.6, 0.5, 0.4]
    (figure,) = curve_figures(small_run)
    assert figure.title == "Figures 3, 4 and 5"


def test_slices_without_tumor_are_shown(small_run, data):
    (figure,) = absence_figures(small_run, data)
    assert figure.path.stat().st_size > 10_000


def test_only_slices_of_the_brain_count_as_empty(small_run, data):
    """In the first case nothing is predicted, in the second one voxel of edema in every slice."""
    table = absence_scores(small_run, data).set_index(["case", "region"])
    first, second = data.validation
    assert table.loc[first, "false_voxels"].max() == 0
    assert table.loc[first, "left_empty"].min() == 1
    assert table.loc[(second, "WT"), ["left_empty", "false_voxels"]].tolist() == [0, 1]
    assert table.loc[(second, "ET"), ["left_empty", "false_voxels"]].tolist() == [1, 0]
    # A voxel in a slice above the brain, which is empty, does not count.
    case = data.store.cases[first]
    outside = [z for z in range(case.full_shape[2]) if not case.full_image()[:, :, z].any()]
    assert outside, "the phantom has slices without brain"
    labels = np.zeros(case.full_shape, np.uint8)
    labels[0, 0, outside] = 3
    small_run.variant("fmnet").task.write(small_run.prediction("fmnet", first), labels, case)
    again = absence_scores(small_run, data).set_index(["case", "region"])
    assert again.loc[first, "false_voxels"].max() == 0


def test_absence_by_hand():
    """Four slices of 2x2: annotated, left empty, one voxel too many, three too many."""
    truth, found = np.zeros((2, 2, 4), int), np.zeros((2, 2, 4), int)
    truth[0, 0, 0] = 3
    found[0, 0, 2] = 1
    found[:, :, 3] = [[3, 3], [3, 2]]
    assert absence(truth, found, (1, 2, 3)) == {"left_empty": 1 / 3, "false_voxels": 5 / 3}
    assert absence(truth, found, (3,)) == {"left_empty": 2 / 3, "false_voxels": 3 / 3}
    full = np.ones((2, 2, 4), int)
    assert np.isnan(list(absence(full, found, (1, 2, 3)).values())).all()


# One of each kind; the single modalities differ in nothing else, as tested above.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["two_dimensions", "binary_all_four", "binary_t1ce"])
def test_a_variant_in_slices_goes_from_slices_to_scores(data, tmp_path, name):
    """Two steps; cases are predicted from the chosen modalities and scored both ways."""
    small = {"data.patch": (32, 32, 2), **TINY, **FLOAT32, **PLAIN, "train.epochs": 1}
    chosen = recipe.override(VARIANTS[name], small)
    run = begin(tmp_path, name, chosen)
    steps.train_variant(run, name, data)
    scores = steps.score_variant(run, name, data)
    (targets,) = chosen.model.targets
    assert list(scores["region"]) == list(targets) * 2
    network = run.network(name, targets)
    assert network.input_shape == (None, 32, 32, len(chosen.data.modalities))
    found = further_scores(run, data)
    crops = found[found["case"] == "augmented crops"].set_index("region")
    dice, loss = crops.loc["WT", ["crop_dice_by_slice", "dice_loss_by_slice"]]
    assert 0 <= dice == pytest.approx(1 - loss)
    assert crops.loc["", "loss_by_slice"] > 0


def test_a_volume_is_predicted_slice_by_slice_at_its_place(data):
    """A network that sees each pixel for itself: tumor where FLAIR is above its mean."""

    class Bright:
        def predict_on_batch(self, x):
            assert x.shape[1:] == (32, 16, 4)
            return 1 / (1 + np.exp(-x[..., :1]))

    small = {"data.patch": (32, 16, 2), "model.targets": (("WT",),)}
    task = task_of(recipe.override(VARIANTS["two_dimensions"], small))
    case = data.store.cases[data.validation[0]]
    found = task.predict({("WT",): Bright()}, case)
    channel = case.full_image()[..., 0].astype(float)
    mean = channel[channel != 0].mean()
    np.testing.assert_array_equal(found > 0, channel > mean)


def test_slices_and_crops_are_learned_from_the_same_crops(data):
    """Section V-A: the same places and augmentation; a step for each slice."""
    batches = []
    for name in ("two_dimensions", "three_dimensions"):
        small = {"data.patch": (32, 32, 4), "data.augment_on_device": False}
        task = task_of(recipe.override(VARIANTS[name], small))
        batches.append(task.batches(data.store, data.validation, ("WT", "TC", "ET"), training=True))
    slices, crops = batches
    assert slices.steps_per_epoch == 4 * crops.steps_per_epoch
    x, y = crops.batch(3, 0)
    for z in range(4):
        found, truth = slices.batch(3, z)
        np.testing.assert_array_equal(found, x[:, :, :, z])
        np.testing.assert_array_equal(truth, y[:, :, :, z])


def test_the_background_is_flair_where_the_network_saw_it(data):
    """And T1ce as well, where it saw that."""
    names = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
    for seen, shown in (
        *(((name,), [name]) for name in names),
        (("t2", "flair"), ["flair"]),
        (("t1ce", "t2"), ["t1ce"]),
        (("t2", "t1ce"), ["t2", "t1ce"]),
        (MODALITIES, ["flair", "t1ce"]),
    ):
        run = recipe.override(RECIPE, {"data.modalities": seen})
        case = data.store.cases[data.validation[0]]
        source = Brats().find(data.store.folder.parent).cases
        path = next(found.labels for found in source if found.id == case.id)
        drawn, _ = task_of(run).overlay(path, case, title="", dice={})
        titles = [panel.get_title() for panel in drawn.axes][::3]
        assert titles == [names[name] for name in shown]


def test_the_loss_of_the_recipe_weighs_the_three_outputs(data):
    """Equal outputs: the weighted mean is the loss of one of them."""
    run = recipe.override(RECIPE, PATCH | TINY | FLOAT32)
    _, model = fit.compile_network(run, ("WT", "TC", "ET"), channels=4)
    y = np.random.default_rng(0).integers(0, 2, (1, 4, 4, 4, 3)).astype("float32")
    p = np.random.default_rng(1).random((1, 4, 4, 4, 3)).astype("float32")
    alone = recipe.override(RECIPE, PATCH | TINY | FLOAT32 | heads(0))
    _, single = fit.compile_network(alone, ("WT", "TC", "ET"), channels=4)
    three = float(model.loss(y, np.concatenate([p, p, p], axis=-1)))
    assert three == pytest.approx(float(single.loss(y, p)), rel=1e-6)


BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "fmnet_loading.py"))
PUBLISHED = read_published(ROOT / "experiments" / "fmnet2023" / "published.csv")


def test_the_benchmark_has_the_papers_seconds():
    rows = PUBLISHED[PUBLISHED["table"] == "Table I"]
    assert {name.lower(): float(value) for name, value in BENCHMARK["PAPER"].items()} == {
        name.lower(): value for name, value in zip(rows["row"], rows["value"])
    }


def test_table_one_compares_precision_and_place_of_the_augmentation_alone():
    """Table I: the same U-Net, crops and augmentation four times."""
    none, amp, dali, both = (
        BENCHMARK["configuration"](name, patch=32, filters=2, batch=1)
        for name in ("none", "AMP", "DALI", "DALI and AMP")
    )
    precision = {"train.precision": ("mixed_float16", "float32")}
    place = {"data.augment_on_device": (True, False)}
    assert recipe.differences(amp, none) == precision
    assert recipe.differences(dali, none) == place
    assert recipe.differences(both, none) == precision | place
    of_the_text = recipe.override(RECIPE, UNET).model.options | {"filters": 2}
    assert both.model.options == of_the_text
    assert both.data.augmentation == RECIPE.data.augmentation


def value(table, row, metric, region=""):
    chosen = PUBLISHED[(PUBLISHED["table"] == table) & (PUBLISHED["row"] == row)]
    (found,) = chosen[(chosen["metric"] == metric) & (chosen["region"] == region)]["value"]
    return found


def test_table_two_fits_the_loss_of_the_code_and_not_that_of_the_text():
    """Loss 0.325, Dice 0.925, 0.914, 0.893. The Dice part of one output is 0.075 + 0.086 + 0.107
    = 0.268. A weighted mean over the outputs leaves 0.057 for focal loss and heads; the text's sum
    over three outputs as good as this one would have 0.804 of Dice alone."""
    dice = [value("Table II", "FM-Net", "crop_dice", region) for region in ("WT", "TC", "ET")]
    of_one_output = sum(1 - each for each in dice)
    assert of_one_output == pytest.approx(0.268)
    loss = value("Table II", "FM-Net", "loss")
    assert loss - of_one_output == pytest.approx(0.057)
    assert 3 * of_one_output == pytest.approx(0.804)
    assert 3 * of_one_output > loss
    # The recipe's loss is such a mean: of three equal outputs it is that of one.
    y = np.ones((1, 2, 2, 2, 3), "float32")
    p = np.full((1, 2, 2, 2, 3), 0.9, "float32")  # logits
    together = losses.get(RECIPE.train.loss, **RECIPE.train.loss_options)
    alone = losses.get(RECIPE.train.loss, output_weights=(1.0,), from_logits=True)
    joined = np.concatenate([p, p, p], axis=-1)
    assert float(together(y, joined)) == pytest.approx(float(alone(y, p)), rel=1e-6)


def test_what_was_read_off_the_figures():
    """The reading of audit 2 (A8), to within 0.03."""
    metrics = ("val_loss_at_5", "val_loss_at_30", "val_loss_lowest")
    for row, expected in {
        "U-Net": (1.18, 0.66, 0.59),
        "Attention U-Net": (1.78, 0.50, 0.45),
        "With deep supervision": (0.98, 0.41, 0.39),
        "With bottleneck": (0.66, 0.41, 0.36),
    }.items():
        assert tuple(value("Figure 4", row, metric) for metric in metrics) == expected
    assert value("Figure 3", "3-D", "val_loss_at_30") == 0.47
    assert value("Figure 3", "3-D", "val_loss_at_40") == 0.40
    assert value("Figure 3", "2-D", "val_loss_at_40") == 0.81
    assert value("Figure 5", "FM-Net", "val_loss_lowest") == 0.324
    assert value("Figure 5", "FM-Net", "lowest_epoch") == 54


def test_figures_three_and_four_contradict_each_other():
    """The basic 3-D U-Net at epoch 30 of both: 0.19 apart, where the ablation gains 0.25."""
    in_figure_3, in_figure_4 = (
        value(*where, "val_loss_at_30") for where in (("Figure 3", "3-D"), ("Figure 4", "U-Net"))
    )
    assert changed("three_dimensions", "unet") == {"epochs"}  # the same network
    assert in_figure_4 - in_figure_3 == pytest.approx(0.19)
    last = value("Figure 4", "With bottleneck", "val_loss_at_30")
    assert in_figure_4 - last == pytest.approx(0.25)


def test_noise_is_blurred_with_the_image():
    """A crop of zeros, with a noise that is known: noise, then blur gives the blurred noise, of
    which far less is left; in the other order the whole noise would be left."""
    x = np.zeros((1, 8, 8, 8, 1), np.float32)
    options = {name: RECIPE.data.augmentation[name] for name in ("noise", "blur")}
    row = np.zeros((1, len(augment_volumes.COLUMNS)), np.float32)
    still = augment_volumes.draw_parameters(0, 0, 1, {}, (8, 8, 8))
    row[:] = still
    for name, number in {"noise_sigma": 0.3, "noise_key_a": 5, "noise_key_b": 7}.items():
        row[0, augment_volumes.COLUMNS.index(name)] = number
    noise = augment_volumes.augment_image(np, x, row, {"noise": options["noise"]})
    row[0, augment_volumes.COLUMNS.index("blur_sigma")] = 1.0
    found = augment_volumes.augment_image(np, x, row, options)
    line = np.exp(-(np.arange(-3.0, 4) ** 2) / 2)
    expected = noise[0, ..., 0]
    for axis in range(3):
        padded = np.pad(expected, [(3, 3) if a == axis else (0, 0) for a in range(3)], "reflect")
        moved = [np.take(padded, range(i, i + 8), axis) for i in range(7)]
        expected = np.tensordot(line / line.sum(), moved, 1)
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-5)
    assert found.std() < 0.5 * noise.std()


@pytest.mark.slow
def test_the_training_on_one_case_is_scored_on_its_crops_and_as_a_whole(
    data, tmp_path, capsys, monkeypatch
):
    case = data.training[0]
    changes = ("data.patch=48,48,48", "model.options.filters=2")
    small = ["--epochs", "2", *(word for change in changes for word in ("--set", change))]
    cases = str(data.store.folder.parent)
    run = [cases, "--case", case, "--out", str(tmp_path), *small]
    assert overfit.main(run) == 1, "so few steps learn nothing"
    facts = json.loads((tmp_path / "overfit.json").read_text())
    assert facts["steps"] == 16
    losses = pd.read_csv(tmp_path / "log.csv")["val_loss"]
    assert facts["kept_epoch"] == losses.idxmin() + 1
    assert {*facts["crops"]} == {*facts["whole_case"]} == {"WT", "TC", "ET"}
    assert (tmp_path / "overfit.png").stat().st_size > 10_000
    weights = (tmp_path / "model.keras").read_bytes()
    monkeypatch.setattr(overfit, "ENOUGH", min(facts["crops"].values()) - 0.01)
    assert overfit.main(run) == 0
    assert (tmp_path / "model.keras").read_bytes() == weights, "nothing was trained again"
    with pytest.raises(SystemExit):
        overfit.main([cases, "--case", "nobody", "--out", str(tmp_path), *small])
    assert "--case: found nobody, expected the id of a case" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["train.epochs=3", "train.init=weights.zip"])
def test_the_training_on_one_case_has_its_epochs_and_first_weights_from_elsewhere(field, capsys):
    with pytest.raises(SystemExit):
        overfit.main(["folder", "--case", "a", "--out", "run", "--set", field])
    assert f"--set: found {field.partition('=')[0]}, expected neither" in capsys.readouterr().err


def test_the_page_has_the_numbers_of_the_kept_over_fit():
    folder = ROOT / "experiments" / "fmnet2023"
    page = re.sub(r"\s+", " ", (folder / "README.md").read_text())
    for name in ("overfit", "last-epoch"):
        facts = json.loads((folder / f"results/overfit/{name}.json").read_text())
        parts = (facts["crops"], facts["whole_case"])
        cells = (
            ", ".join(f"{region} {value:.2f}" for region, value in part.items()) for part in parts
        )
        assert f"[facts](results/overfit/{name}.json)) | {' | '.join(cells)} |" in page
    logs = [pd.read_csv(folder / f"results/overfit/{name}.csv") for name in ("log", "log-128")]
    assert facts["steps"] == overfit.CROPS * len(logs[0]) == 1200
    assert logs[0]["val_loss"].idxmin() + 1 == 149
    assert f"{int(logs[0]['seconds'].sum() / 60)} min of training" in page
    assert f"took {logs[1]['seconds'].item():.0f} s beside other work" in page
    assert facts["command"] in page


def test_the_dice_of_crops_by_hand():
    """Two crops of two voxels each."""

    class Network:
        def predict_on_batch(self, x):
            return x

    class Batches:
        targets = (("WT", (1, 2, 4)), ("TC", (1, 4)), ("ET", (4,)))
        steps_per_epoch = 2

        def batch(self, epoch, step):
            assert epoch == 5
            x = np.array(
                [[[[0.9, 0.2, 0.1], [0.4, 0.7, 0.4]]], [[[0.6, 0.5, 0.0], [0.8, 0.1, 0.3]]]]
            )[step]
            y = np.array([[[[1, 0, 0], [1, 1, 0]]], [[[1, 0, 0], [1, 0, 0]]]])[step]
            return x[None], y[None].astype(np.float32)

    # WT: found 3 of 4, all right: 6 / 7. TC: one found, and right: a probability of 1/2 is not. The
    # case has no ET, and none is found: nothing is wrong.
    found = overfit.crop_dice(Network(), Batches(), 5)
    assert found == {"WT": round(6 / 7, 4), "TC": 1.0, "ET": 1.0}
