"""What only this paper needs."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from experiments.csam_knee import memorize
from experiments.csam_knee.recipe import EXPERIMENT, RECIPE, WITH_NORM
from experiments.gradients import gradients_at_start
from keras_medseg import recipe, registry
from keras_medseg.phantoms.knee import knee_case
from keras_medseg.reporting.tables import read_published
from keras_medseg.runs import experiment
from keras_medseg.tasks import task_of
from keras_medseg.training import fit, schedules

FOLDER = Path(__file__).parents[2] / "experiments" / "csam_knee"
PAPER = EXPERIMENT.profiles["paper"]

# Typed anew from the paper: loss rate, MAE, F1.
TABLE_1 = {
    "U-Net": (0.0400, 0.004, 0.569),
    "U-Net++": (0.0351, 0.003, 0.636),
    "Res-Net": (0.0378, 0.003, 0.654),
    "FR-UNet": (0.0431, 0.003, 0.624),
    "Ours": (0.0321, 0.003, 0.663),
}


def test_published_table_is_that_of_the_paper():
    published = read_published(FOLDER / "published.csv")
    columns = ["cross_entropy", "mae", "dice"]
    assert {*columns} < {column.metric for column in EXPERIMENT.tables[0].columns}
    found = published.pivot(index="row", columns="metric", values="value")[columns]
    assert {name: tuple(row) for name, row in found.T.items()} == TABLE_1


def test_shares_of_the_ligament_that_the_columns_imply():
    """MAE as the share of wrong pixels of a mask as large as the truth: MAE / (2 (1 - F1)) of the
    picture is ligament. The README's sentence: the five rows agree on 0.41 to 0.47 %."""
    bounds = [
        ((mae - 0.0005) / (2 * (1 - f1)), (mae + 0.0005) / (2 * (1 - f1)))
        for _, mae, f1 in TABLE_1.values()
    ]
    low, high = max(low for low, _ in bounds), min(high for _, high in bounds)
    assert (round(low, 4), round(high, 4)) == (0.0041, 0.0047)
    # A network that says so for every pixel: -s log s - (1 - s) log(1 - s) = 0.029.
    share = 0.0045
    constant = -share * np.log(share) - (1 - share) * np.log(1 - share)
    assert round(constant, 3) == 0.029
    assert constant < min(loss for loss, _, _ in TABLE_1.values())


@pytest.mark.parametrize(
    ("variant", "field"),
    [("literal", "variant"), ("without_csam", "csam_place"), ("with_norm", "norm")],
)
def test_every_variant_changes_what_its_row_names(variant, field):
    changed = recipe.differences(RECIPE, recipe.override(RECIPE, PAPER.variants[variant]))
    assert changed.keys() == {f"model.options.{field}"}


def test_baselines_differ_from_the_recipe_in_the_network_alone():
    for changes in EXPERIMENT.profiles["paper-compare"].variants.values():
        changed = recipe.differences(RECIPE, recipe.override(RECIPE, changes))
        assert {name.split(".")[0] for name in changed} <= {"model"}


def test_learning_rate_of_the_paper():
    """2e-5 in epochs 1 to 300, which are numbered from 0; a tenth from the 301st on."""
    found = [schedules.step_decay(RECIPE.train, epoch) for epoch in (0, 299, 300, 499)]
    assert found == pytest.approx([2e-5, 2e-5, 2e-6, 2e-6])


def test_the_compared_networks_bring_no_training_method_of_their_own():
    """No penalty in the loss, and U-Net++ without the initialization and Dropout that it has by
    default. FR-UNet keeps its spatial Dropout: the ledger's entry says so."""
    profile = EXPERIMENT.profiles["quick-compare"]
    dropping = set()
    for name, changes in profile.variants.items():
        run = recipe.override(recipe.override(RECIPE, profile.changes), changes)
        network = registry.build(
            run.model.name, input_shape=(32, 32, 1), classes=1, **run.model.options
        )
        assert network.losses == [], name
        assert [w for w in network.non_trainable_weights if "moving" in w.path], name
        if any(getattr(layer, "rate", 0) for layer in network.layers):
            dropping.add(run.model.name)
    assert dropping == {"frunet"}
    own = recipe.override(RECIPE, EXPERIMENT.profiles["paper-compare"].variants["unetpp"])
    assert own.model.options["framework"] == RECIPE.model.options["framework"] == "pytorch"
    assert own.model.options["initializer"] == "framework"
    assert own.model.options["dropout"] == 0


@pytest.mark.parametrize(("changes", "healthy"), [({}, False), (WITH_NORM, True)])
def test_first_gradients_of_the_lowest_level_exceed_adams_epsilon_with_the_norm_alone(
    changes, healthy
):
    """A step is rate * gradient / (|gradient| + epsilon) at first: far below epsilon it is nearly
    nothing. The printed network learns nevertheless (results/memorize-printed.csv), with its upper
    levels first. Two synthetic knees and a quarter of the widths."""
    smaller = {"data.size": (64, 64), "model.options.filters": 16}
    run = recipe.override(RECIPE, smaller | changes)
    drawn = [knee_case(0, index, (64, 64)) for index in range(20)]
    shown = [(x, labels == 4) for x, labels in drawn if (labels == 4).any()][:2]
    x, y = (np.stack(part)[..., None].astype(np.float32) for part in zip(*shown))
    starts = gradients_at_start(run, x / 255, y)
    epsilon = run.train.optimizer_options["epsilon"]
    for layer in ("Bottleneck_conv1", "Bottleneck_conv2"):
        found = starts[layer].rms
        assert found > 100 * epsilon if healthy else found < epsilon, (layer, found)


@pytest.mark.parametrize("name", ["quick", "quick-compare"])
def test_shortened_runs_lower_the_rate_after_the_same_part_of_the_epochs(name):
    quick = recipe.override(RECIPE, EXPERIMENT.profiles[name].changes).train
    [after] = quick.schedule_options["after"]
    assert after / quick.epochs == 300 / 500


def test_masks_of_several_gray_values_keep_the_name_of_the_class():
    """The README's command: the class keeps its name, so Table 1 finds its scores."""
    run = recipe.override(RECIPE, recipe.parse_assignments(["data.classes={'ligament':(153,)}"]))
    assert run.data.classes == {"ligament": (153,)}
    assert task_of(run).dataset.targets == {"ligament": (1,)}


@pytest.mark.slow
def test_a_run_draws_the_masks_of_its_networks(tmp_path):
    out = tmp_path / "run"
    request = experiment.Request(
        out=out,
        folder=None,
        work=tmp_path,
        profile="quick",
        changes={"data.size": (32, 32), "model.options.filters": 2, "train.epochs": 1},
        command="test",
    )
    small = replace(EXPERIMENT, phantom=replace(EXPERIMENT.phantom, cases=12, size=(64, 64)))
    assert experiment.run(small, request)
    drawn = {path.name for path in (out / "figures").iterdir()}
    assert {"attention.png", "networks.png"} <= drawn
    assert "without CSAM" in (out / "report.html").read_text()


def _tiny(name, input_shape, classes):
    """One 1x1 convolution and a sigmoid: small enough to be differentiated by hand."""
    image = keras.Input(input_shape)
    output = keras.layers.Conv2D(classes, 1, activation="sigmoid")(image)
    return keras.Model(image, output, name=name)


@pytest.mark.parametrize("logit", [-100.0, 100.0])
def test_a_sure_and_wrong_pixel_has_the_gradient_of_pytorch(monkeypatch, logit):
    """sigmoid(z) - q at the logit z: -1 or 1, however sure the network is."""
    monkeypatch.setattr(registry, "build", _tiny)
    plain = {"train.optimizer": "sgd", "train.optimizer_options": {}, "train.learning_rate": 1.0}
    run = recipe.override(RECIPE, {"model.options": {}, "data.size": (5, 4), **plain})
    _, model = fit.compile_network(run, ("ligament",), channels=1)
    model.set_weights([np.zeros((1, 1, 1, 1)), np.array([logit])])
    x, y = np.zeros((2, 5, 4, 1), "float32"), np.full((2, 5, 4, 1), logit < 0, "float32")
    found = model.train_on_batch(x, y, return_dict=True)["loss"]
    assert found == pytest.approx(100)
    assert model.get_weights()[1] == pytest.approx(logit - np.sign(logit), abs=1e-4)


def test_memorize_ends_when_its_images_are_learned(monkeypatch):
    """Two images that are their own masks, which one weight can learn; a row every 25 steps."""
    monkeypatch.setattr(registry, "build", _tiny)
    run = recipe.override(
        RECIPE, {"model.options": {}, "data.size": (4, 4), "train.learning_rate": 0.1}
    )
    y = np.zeros((2, 4, 4, 1), np.float32)
    y[:, :2] = 1
    rows = list(memorize.memorize(run, 4 * y - 2, y, 400))
    assert [row["step"] for row in rows] == list(range(0, 25 * len(rows), 25))
    assert [row["f1"] > 0.9 for row in rows] == [False] * (len(rows) - 1) + [True]
    assert rows[-1]["highest_probability"] > 0.5
    assert [row["step"] for row in memorize.memorize(run, -4 * y + 2, 0 * y + 1, 25)] == [0, 25]


def test_one_step_agrees_with_numpy(monkeypatch):
    """Loss and weights after one and two steps of PyTorch's Adam on equation (2)."""
    monkeypatch.setattr(registry, "build", _tiny)
    run = recipe.override(RECIPE, {"model.options": {}, "data.size": (5, 4)})
    _, model = fit.compile_network(run, ("ligament",), channels=1)
    rng = np.random.default_rng(1)
    x, y = rng.random((2, 5, 4)), rng.random((2, 5, 4)) > 0.8
    weights = np.float64([w.item() for w in model.get_weights()])  # kernel, bias
    first, second = np.zeros(2), np.zeros(2)
    for step in (1, 2):
        p = 1 / (1 + np.exp(-(weights[0] * x + weights[1])))
        loss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
        batch = np.float32(x[..., None]), np.float32(y[..., None])
        found = model.train_on_batch(*batch, return_dict=True)
        assert found["loss"] == pytest.approx(loss, rel=1e-5)
        gradient = np.array([np.mean((p - y) * x), np.mean(p - y)])
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        unbiased = first / (1 - 0.9**step), second / (1 - 0.999**step)
        weights = weights - 2e-5 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        # A step is 2e-5; weights are of the order of 1.
        ours = [w.item() for w in model.get_weights()]
        np.testing.assert_allclose(ours, weights, atol=2e-7)
        model.reset_metrics()
