"""What only this paper needs."""

import runpy
from pathlib import Path

import keras
import numpy as np
import pytest

from experiments.fmnet2023.crop_scores import crop_scores
from experiments.fmnet2023.figures import head_figures
from experiments.fmnet2023.recipe import EXPERIMENT, RECIPE, heads
from keras_medseg import recipe
from keras_medseg.data import splits, store
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets.brats import MODALITIES, Brats
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


def test_variants_differ_from_the_recipe_in_what_they_name():
    fields = {
        name: {field.rsplit(".", 1)[1] for field in recipe.differences(variant, RECIPE)}
        for name, variant in VARIANTS.items()
    }
    assert fields["fmnet"] == set()
    assert fields["attention_unet"] == {"supervision_heads", "output_weights", "bottleneck_blocks"}
    assert fields["unet"] == fields["attention_unet"] | {"attention"}
    assert fields["with_supervision"] == fields["bottleneck_4"] == {"bottleneck_blocks"}
    assert fields["heads_1"] == {"supervision_heads", "output_weights"}
    assert {"variant", "learning_rate", "loss"} <= fields["as_the_text_says"]
    assert fields["three_dimensions"] == fields["unet"] | {"epochs"}
    everything = recipe.fields(VARIANTS["two_dimensions"])
    in_slices = {name.rsplit(".", 1)[1] for name in everything if name.startswith("data.")}
    of_patches = {field for field in fields["two_dimensions"] if hasattr(RECIPE.data, field)}
    extra = {"probability", "scale", "sigma", "sigma_voxels", "factor"}  # of the augmentation
    assert fields["two_dimensions"] - of_patches - extra - in_slices == (
        fields["three_dimensions"] | {"dimensions"}
    )


def test_single_modalities_differ_in_nothing_else():
    base = VARIANTS["binary_all_four"]
    assert recipe.differences(base, VARIANTS["two_dimensions"]).keys() == {"model.targets"}
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


@pytest.mark.parametrize("on_device", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_goes_from_crops_to_scores(data, tmp_path, on_device):
    """Training, a whole volume by windows, the authors' score and the figure. On the device with
    the recipe's own optimizer and precision."""
    plain = {} if on_device else FLOAT32 | PLAIN
    settings = {**PATCH, **TINY, **plain, "train.epochs": 1, "data.augment_on_device": on_device}
    chosen = recipe.override(RECIPE, settings)
    steps.check_recipe(chosen, channels=4)
    run = begin(tmp_path, "fmnet", chosen)
    steps.train_variant(run, "fmnet", data)
    scores = steps.score_variant(run, "fmnet", data)
    assert len(scores) == 2 * 3
    crops = crop_scores(run, data)
    assert list(crops["region"]) == ["WT", "TC", "ET", ""]
    assert crops["crop_dice"].dropna().between(0, 1).all()
    (figure,) = head_figures(run, data)
    assert figure.path.stat().st_size > 10_000


# One of each kind; the single modalities differ in nothing else, as tested above.
@pytest.mark.parametrize(
    "name",
    [
        "two_dimensions",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("binary_all_four", "binary_t1ce")),
    ],
)
def test_a_variant_in_slices_goes_from_slices_to_scores(data, tmp_path, name):
    """One step; cases are predicted from the chosen modalities and scored both ways."""
    small = {"data.window": (32, 32, 4), **TINY, **FLOAT32, **PLAIN, "train.epochs": 1}
    chosen = recipe.override(VARIANTS[name], small)
    run = begin(tmp_path, name, chosen)
    steps.train_variant(run, name, data)
    scores = steps.score_variant(run, name, data)
    (targets,) = chosen.model.targets
    assert list(scores["region"]) == list(targets) * 2
    network = run.network(name, targets)
    assert network.input_shape == (None, 32, 32, len(chosen.data.modalities))
    crops = crop_scores(run, data).set_index("region")
    dice, loss = crops.loc["WT", ["crop_dice", "dice_loss"]]
    assert 0 <= dice == pytest.approx(1 - loss)


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


def test_the_benchmark_has_the_papers_seconds():
    printed = runpy.run_path(str(ROOT / "benchmarks" / "fmnet_loading.py"))["PAPER"]
    published = read_published(ROOT / "experiments" / "fmnet2023" / "published.csv")
    rows = published[published["table"] == "Table I"]
    assert {name.lower(): float(value) for name, value in printed.items()} == {
        name.lower(): value for name, value in zip(rows["row"], rows["value"])
    }
