"""What only this paper needs."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from experiments.fmnet2023 import figures as paper_figures
from experiments.fmnet2023.recipe import EXPERIMENT, RECIPE, heads
from keras_medseg import pipeline, recipe, report, training
from keras_medseg.data import brats, phantom, store

ROOT = Path(__file__).parents[2]
PAPER = EXPERIMENT.profiles["paper"]
VARIANTS = {name: recipe.override(RECIPE, changes) for name, changes in PAPER.variants.items()}
SMALL = ("data.patch=(32, 32, 32)", "model.overrides.filters=2", "train.precision=float32")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three synthetic cases, two of them held out."""
    folder = tmp_path_factory.mktemp("cases")
    phantom.write_brats(folder, cases=3, layout="BraTS2021", shape=(40, 40, 32))
    cases = brats.find_cases(folder)
    decoded = store.prepare(cases, brats.read_case, folder / "store", workers=1)
    first, *others = sorted(decoded.cases)
    return pipeline.Cohort("test", decoded, (first,), tuple(others), {})


def test_every_printed_row_is_published():
    """Not printed are the seconds of Table I and the losses of section V-A, which are no scores."""
    published = report.read_published(ROOT / "experiments" / "fmnet2023" / "published.csv")
    printed = set(zip(published["table"], published["row"]))
    ours = {(table.id, row.label) for table in EXPERIMENT.tables for row in table.rows}
    assert ours <= printed
    assert {name for name, _ in printed - ours} == {"Table I", "Section V-A"}


def test_the_recipe_is_that_of_the_code():
    """configs of fuat-arslan/MRI-Segmentation: 0.0003, 70 epochs, batches of 4; no best weights."""
    train = RECIPE.train
    assert (train.learning_rate, train.epochs, train.batch_size) == (3e-4, 70, 4)
    assert PAPER.changes == ()
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


def test_each_further_head_has_half_the_weight():
    assert heads(2)[1] == "train.loss_options.output_weights=(1.0, 0.5, 0.25)"
    assert heads(0)[1] == "train.loss_options.output_weights=(1.0,)"


def test_all_four_modalities_are_read(data):
    run = recipe.override(RECIPE, (*SMALL, "data.augment_on_device=False"))
    feed = pipeline.batches(run, data.store, data.training, ("WT", "TC", "ET"), training=False)
    x, y = feed.batch(0, 0)
    assert x.shape == (1, 32, 32, 32, 4)
    assert y.shape == (1, 32, 32, 32, 3)
    assert all(np.ptp(x[..., channel]) > 0 for channel in range(4))


@pytest.mark.parametrize("on_device", [False, True])
def test_a_run_goes_from_crops_to_scores(data, tmp_path, on_device):
    """Training, a whole volume by windows, the authors' score and the figure."""
    settings = (*SMALL, "train.epochs=1", f"data.augment_on_device={on_device}")
    run = recipe.override(RECIPE, settings)
    pipeline.check_recipe(run, channels=4)
    pipeline.claim(tmp_path, run, data, {"fmnet": run})
    pipeline.train_variant("fmnet", run, data, tmp_path)
    scores = pipeline.score_variant("fmnet", run, data, tmp_path)
    assert len(scores) == 2 * 3
    crops = paper_figures.crop_scores(tmp_path, data, {"fmnet": run})
    assert list(crops["region"]) == ["WT", "TC", "ET", ""]
    assert crops["crop_dice"].dropna().between(0, 1).all()
    (figure,) = paper_figures.head_figures(tmp_path, data, run)
    assert figure.path.stat().st_size > 10_000


def test_the_loss_of_the_recipe_weighs_the_three_outputs(data):
    """Equal outputs: the weighted mean is the loss of one of them."""
    run = recipe.override(RECIPE, SMALL)
    _, model = training.compile_network(run, ("WT", "TC", "ET"), channels=4)
    y = np.random.default_rng(0).integers(0, 2, (1, 4, 4, 4, 3)).astype("float32")
    p = np.random.default_rng(1).random((1, 4, 4, 4, 3)).astype("float32")
    alone = recipe.override(RECIPE, (*SMALL, *heads(0)))
    _, single = training.compile_network(alone, ("WT", "TC", "ET"), channels=4)
    three = float(model.loss(y, np.concatenate([p, p, p], axis=-1)))
    assert three == pytest.approx(float(single.loss(y, p)), rel=1e-6)


def test_the_benchmark_has_the_papers_seconds():
    printed = runpy.run_path(str(ROOT / "benchmarks" / "fmnet_loading.py"))["PAPER"]
    published = report.read_published(ROOT / "experiments" / "fmnet2023" / "published.csv")
    rows = published[published["table"] == "Table I"]
    assert {name.lower(): float(value) for name, value in printed.items()} == {
        name.lower(): value for name, value in zip(rows["row"], rows["value"])
    }
