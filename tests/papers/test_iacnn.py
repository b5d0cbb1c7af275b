"""What only this paper needs."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.gradients import gradients_at_start
from experiments.iacnn import arms, by_sequence, cropping, leak
from experiments.iacnn.recipe import AS_PRINTED, EXPERIMENTS, RECIPE
from keras_medseg import phantoms, recipe, registry
from keras_medseg.data import splits
from keras_medseg.data.datasets import image_folders
from keras_medseg.errors import DataError
from keras_medseg.phantoms.endoscopy import endoscopy_case
from keras_medseg.phantoms.images import write_images
from keras_medseg.reporting.tables import read_published
from keras_medseg.runs import experiment, report, steps
from keras_medseg.runs.run_folder import RunFolder, Variant
from keras_medseg.tasks import task_of
from keras_medseg.training import fit

FOLDER = Path(__file__).parents[2] / "experiments" / "iacnn"
CVC, ISIC = EXPERIMENTS["cvc"], EXPERIMENTS["isic"]

# Typed anew from the paper: Dice, IoU, precision, sensitivity.
TABLE_1 = {
    "U-Net": (87.92, 80.52, 87.49, 88.35),
    "Att-UNet": (88.01, 80.82, 87.64, 89.34),
    "ResUNet": (88.42, 81.25, 88.57, 89.28),
    "Swin-UNet": (88.73, 81.96, 89.24, 89.87),
    "UNeXt": (86.19, 78.36, 88.35, 89.65),
    "Ours": (89.72, 82.93, 90.52, 90.81),
}
TABLE_2 = {
    "U-Net": (87.61, 80.25, 89.46, 87.65),
    "Att-UNet": (88.32, 81.13, 89.23, 88.50),
    "ResUNet": (88.12, 80.82, 88.32, 87.43),
    "Swin-UNet": (88.64, 81.03, 88.97, 89.72),
    "UNeXt": (88.83, 81.74, 89.21, 90.21),
    "Ours": (89.86, 82.05, 90.73, 91.03),
}


@pytest.mark.parametrize(
    ("run", "id", "expected"), [(ISIC, "Table 1", TABLE_1), (CVC, "Table 2", TABLE_2)]
)
def test_published_tables_are_those_of_the_paper(run, id, expected):
    published = read_published(FOLDER / "published.csv")
    cells = published[published["table"] == id]
    [table] = run.tables
    columns = [column.metric for column in table.columns]
    found = cells.pivot(index="row", columns="metric", values="value")[columns]
    assert {name: tuple(row) for name, row in found.T.items()} == expected
    assert (table.id, [row.label for row in table.rows if not row.variant]) == (id, list(expected))


def test_seven_of_the_eight_gains_of_the_text_fit_the_tables():
    """Section 2.3, over U-Net; of Dice on CVC-ClinicDB it names 2.35 points."""
    for table, expected in (
        (TABLE_1, [1.80, 2.41, 3.03, 2.46]),
        (TABLE_2, [2.25, 1.80, 1.27, 3.38]),
    ):
        gains = [ours - theirs for ours, theirs in zip(table["Ours"], table["U-Net"])]
        assert gains == pytest.approx(expected)


def test_no_row_of_the_tables_can_be_pooled():
    """Pooled over all pixels Dice is 2 IoU / (1 + IoU), which is concave: means over images, of
    which some differ, lie below it."""
    for table in (TABLE_1, TABLE_2):
        for name, (dice, iou, _, _) in table.items():
            assert dice < 100 * 2 * iou / (100 + iou) - 0.1, name


def test_the_two_experiments_differ_in_their_data_alone():
    assert list(EXPERIMENTS) == ["cvc", "isic"]  # the first is the default
    assert CVC.recipe == ISIC.recipe == RECIPE
    assert CVC.profiles == ISIC.profiles
    assert [run.reference.data for run in EXPERIMENTS.values()] == [
        "CVC-ClinicDB",
        "ISIC2018",
    ]
    assert {run.phantom.layout for run in EXPERIMENTS.values()} <= {*phantoms.layouts()}


def test_baselines_differ_from_the_recipe_in_the_network_alone():
    for changes in CVC.profiles["paper-compare"].variants.values():
        changed = recipe.differences(RECIPE, recipe.override(RECIPE, changes))
        assert {name.split(".")[0] for name in changed} <= {"model"}


def test_the_u_net_of_the_cpu_profile_has_the_same_widths():
    """16 to 256, in five stages with four halvings; the paper's network halves five times."""
    own, unet = (
        recipe.override(RECIPE, changes) for changes in CVC.profiles["cpu"].variants.values()
    )
    assert own.model.options["filters"] == unet.model.options["filters"] == 16
    assert unet.model.name == "unet"


def test_the_published_split_is_that_of_the_recipe(tmp_path):
    """The recipe's seed on the 29 sequences of the original's 612 frames, without their pixels."""
    for folder in ("Original", "Ground Truth"):
        (tmp_path / folder).mkdir()
        for frame in range(1, 613):
            (tmp_path / folder / f"{frame}.tif").touch()
    frames = image_folders.ImageFolders().find(tmp_path).cases
    assert len({frame.group for frame in frames}) == 29
    data = RECIPE.data
    drawn = splits.split_by(frames, data.validation, RECIPE.train.seed, data.split)
    assert splits.leaking_groups(*drawn) == []
    sides = zip(("training", "validation"), drawn)
    expected = {(frame.id, frame.group, side) for side, frames in sides for frame in frames}
    published = pd.read_csv(FOLDER / "splits" / "cvc.csv", dtype=str)
    assert len(published) == len(expected)
    assert set(published.itertuples(index=False, name=None)) == expected


def _tiny(name, input_shape, classes):
    """One 1x1 convolution and a sigmoid: small enough to be differentiated by hand."""
    image = keras.Input(input_shape)
    output = keras.layers.Conv2D(classes, 1, activation="sigmoid")(image)
    return keras.Model(image, output, name=name)


def _loss_and_gradients(x, y, kernel, bias):
    """Equation (11) and its slope, in float64: the mean over pixels of the cross entropy, and
    1 - 2 sum(p y) / (sum(p + y) + lambda) over the batch."""
    p = 1 / (1 + np.exp(-(x @ kernel + bias)))
    overlap, sizes = np.sum(p * y), np.sum(p + y) + 1e-7
    loss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)) + 1 - 2 * overlap / sizes
    by_p = (p - y) / (p * (1 - p)) / p.size - 2 * y / sizes + 2 * overlap / sizes**2
    by_z = by_p * p * (1 - p)
    return loss, [np.einsum("nhwc,nhw->c", x, by_z), by_z.sum()]


def test_one_step_agrees_with_numpy(monkeypatch):
    """Loss and weights after one and two steps of PyTorch's Adam with weight_decay=1e-5."""
    monkeypatch.setattr(registry, "build", _tiny)
    run = recipe.override(RECIPE, {"model.options": {}, "data.size": (5, 4)})
    _, model = fit.compile_network(run, ("tumour",), channels=3)
    rng = np.random.default_rng(1)
    # Dark pictures: their slopes are smaller than 1e-5 w, so that the decay decides the direction.
    x, y = 1e-6 * rng.standard_normal((2, 5, 4, 3)), rng.random((2, 5, 4)) > 0.6
    weights = [np.array([3.0, -2.0, 2.5]), -1.0]
    model.set_weights([np.float32(weights[0]).reshape(1, 1, 3, 1), np.float32([-1.0])])
    first, second = [0.0, 0.0], [0.0, 0.0]
    for step in (1, 2):
        loss, gradients = _loss_and_gradients(x, y, *weights)
        found = model.train_on_batch(np.float32(x), np.float32(y[..., None]), return_dict=True)
        assert found["loss"] == pytest.approx(loss, rel=1e-5)
        for index, gradient in enumerate(gradients):
            gradient = gradient + 1e-5 * weights[index]
            first[index] = 0.9 * first[index] + 0.1 * gradient
            second[index] = 0.999 * second[index] + 0.001 * gradient**2
            unbiased = first[index] / (1 - 0.9**step), second[index] / (1 - 0.999**step)
            weights[index] = weights[index] - 1e-4 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        for ours, expected in zip(model.get_weights(), weights):
            # A step is 1e-4; float32 numbers near 3 are 2e-7 apart.
            np.testing.assert_allclose(ours.ravel(), np.ravel(expected), atol=5e-7)
        model.reset_metrics()


@pytest.mark.parametrize("logit", [-100.0, 100.0])
def test_a_sure_and_wrong_pixel_has_the_gradient_of_pytorch(monkeypatch, logit):
    """sigmoid(z) - q at the logit z: -1 or 1, however sure the network is."""
    monkeypatch.setattr(registry, "build", _tiny)
    plain = {"train.optimizer": "sgd", "train.optimizer_options": {}, "train.learning_rate": 1.0}
    run = recipe.override(RECIPE, {"model.options": {}, "data.size": (5, 4), **plain})
    _, model = fit.compile_network(run, ("tumour",), channels=3)
    model.set_weights([np.zeros((1, 1, 3, 1)), np.array([logit])])
    x, y = np.zeros((2, 5, 4, 3), "float32"), np.full((2, 5, 4, 1), logit < 0, "float32")
    found = model.train_on_batch(x, y, return_dict=True)["loss"]
    assert found == pytest.approx(101)
    assert model.get_weights()[1] == pytest.approx(logit - np.sign(logit), abs=1e-4)


def test_gradients_at_start_agree_with_numpy(monkeypatch):
    monkeypatch.setattr(registry, "build", _tiny)
    run = recipe.override(RECIPE, {"model.options": {}, "data.size": (5, 4)})
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 5, 4, 3)), rng.random((2, 5, 4)) > 0.6
    [start] = gradients_at_start(run, np.float32(x), np.float32(y[..., None])).values()
    _, (expected, _) = _loss_and_gradients(x, y, start.weight.ravel(), 0.0)
    np.testing.assert_allclose(start.gradient.ravel(), expected, rtol=1e-4)
    assert start.rms == pytest.approx(np.sqrt(np.mean(expected**2)), rel=1e-4)
    assert start.median_decay(1e-5) == pytest.approx(1e-5 * np.median(np.abs(start.weight)))
    assert start.share_below(np.abs(expected).max() * 2) == 1


@pytest.mark.parametrize(("changes", "healthy"), [({}, True), (AS_PRINTED, False)])
def test_gradients_of_the_lowest_level_exceed_the_decay_unless_sa_is_as_printed(changes, healthy):
    """Adam takes l2 w + gradient: where the first is larger, a weight goes to 0 and not to where
    the loss is lower. Two synthetic frames, the recipe's widths."""
    run = recipe.override(RECIPE, {"data.size": (64, 64), **changes})
    drawn = [endoscopy_case(0, index, (64, 64)) for index in (0, 40)]
    x = np.stack([drawing[0] for drawing in drawn]) / np.float32(255)
    x = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
    y = np.stack([drawing[1] for drawing in drawn])[..., None] > 0
    starts = gradients_at_start(run, np.float32(x), np.float32(y))
    for layer in ("SFA_B3_conv1", "Up5"):
        start = starts[layer]
        ratio = start.median / start.median_decay(run.train.optimizer_options["l2"])
        assert ratio > 1 if healthy else ratio < 0.1, (layer, ratio)


@pytest.mark.slow
def test_a_run_draws_attention_and_the_masks_of_all_networks(tmp_path):
    write_images(tmp_path / "frames", cases=18, size=(64, 80))
    out = tmp_path / "run"
    request = experiment.Request(
        out=out,
        folder=tmp_path / "frames",
        work=tmp_path,
        profile="cpu",
        changes={"data.size": (32, 32), "model.options.filters": 4, "train.epochs": 1},
        command="test",
    )
    assert experiment.run(CVC, request)
    drawn = {path.name for path in (out / "figures").iterdir()}
    assert {"attention.png", "networks.png", "case_worst.png"} <= drawn
    page = (out / "report.html").read_text()
    assert "Masks of all networks" in page
    assert "What the attention modules make of an image" in page
    run = RunFolder(out)
    cohort = report.open_cohort(run)
    found = arms.lowest_level(run, cohort, "iacnn")
    # The same by hand, frame by frame.
    network = run.network("iacnn", ("tumour",))
    lowest = keras.Model(network.input, network.get_layer("SFA").output)
    batches = run.variant("iacnn").task.batches(
        cohort.store, cohort.validation, ("tumour",), training=False
    )
    frames = [
        lowest(batches.batch(0, n)[0], training=False) for n in range(batches.steps_per_epoch)
    ]
    assert found["lowest_max"] == pytest.approx(max(float(abs(f.numpy()).max()) for f in frames))
    assert found["lowest_spread"] == 0  # one pixel is left of 32
    assert found["up5_max"] == float(abs(network.get_layer("Up5").get_weights()[0]).max())


def test_recipes_that_decode_alike_share_a_store_and_no_run_takes_that_of_another(tmp_path):
    frames = tmp_path / "frames"
    write_images(frames, cases=8, size=(64, 80))
    small, large = (recipe.override(RECIPE, {"data.size": size}) for size in ((32, 32), (48, 48)))
    again = recipe.override(small, {"train.seed": 1, "data.flips": ()})
    stores, written = [], []
    for run in (small, large, again):
        where = experiment.store_folder(tmp_path, frames, run)
        data = steps.load_cohort(frames, where, task_of(run))
        assert {case.full_shape[:2] for case in data.store.cases.values()} == {run.data.size}
        stores.append(where)
        written.append({path.name: path.stat().st_mtime_ns for path in where.glob("*.npy")})
    assert stores[0] == stores[2] != stores[1]
    assert written[0] == written[2] != {}


@pytest.mark.parametrize("runs", by_sequence.RUNS)
def test_the_published_scores_by_sequence_are_those_of_the_page(runs):
    page = (FOLDER / "results" / "README.md").read_text()
    assert by_sequence.tables(*runs) in page
    scores = by_sequence.by_sequence(*runs)
    assert scores["group"].nunique() == 6
    sizes = scores.groupby("group")["case"].nunique()
    assert (sizes.sum(), sizes.min(), sizes.max()) == (129, 17, 25)


def test_the_published_scores_by_frame_are_those_of_the_page():
    page = (FOLDER / "results" / "README.md").read_text()
    assert by_sequence.tables(*by_sequence.BY_FRAME) in page
    scores = by_sequence.by_sequence(*by_sequence.BY_FRAME)
    assert (scores["group"].nunique(), scores["case"].nunique()) == (28, 122)
    means = scores.pivot_table(index="group", columns="variant", values="dice")
    for name in ("printed", "unet"):
        ahead = (means["iacnn"] > means[name]).sum()
        assert f"| above 0 in {ahead} of 28 |" in page


def test_a_network_against_another_by_sequence_by_hand():
    """Means of the sequences with pandas and scipy alone."""
    scores = pd.read_csv(
        FOLDER / "results" / "cvc-six-networks" / "scores.csv", dtype={"case": str}
    )
    frames = pd.read_csv(FOLDER / "splits" / "cvc.csv", dtype=str)
    joined = scores.merge(frames, on="case")
    means = joined.pivot_table(index="group", columns="variant", values="dice")
    assert len(means) == 6
    differences = means["iacnn"] - means["attention_unet"]
    row = by_sequence.tables("cvc-six-networks").splitlines()[4]
    assert row.startswith("| attention_unet |")
    assert f"| {100 * differences.mean():+.1f} | {stats.wilcoxon(differences).pvalue:.2g} |" in row
    assert row.endswith(f"| {', '.join(f'{100 * d:+.1f}' for d in differences)} |")


def test_what_cropping_costs_an_object_by_hand():
    """In 512 x 1024 pixels, crop sees the columns 256 to 767 and cut the rows 128 to 383 of the
    columns 384 to 639."""
    mask = np.zeros((512, 1024), bool)
    mask[128:256, 192:448] = True  # crop loses 64 of its 256 columns, cut 192
    assert [cropping.lost(mask, fit) for fit in cropping.FITS] == [0.25, 0.75]
    lines = cropping.table([mask, np.zeros((512, 1024), bool)]).splitlines()
    assert lines[0].startswith("1 objects")
    assert lines[-2:] == ["| crop | 25.0 | 100.0 | 25 |", "| cut | 75.0 | 100.0 | 75 |"]


def scores_of(frames):
    """{case: (sequence, Dice)} as rows of scores.csv."""
    rows = [(case, group, dice) for case, (group, dice) in frames.items()]
    return pd.DataFrame(rows, columns=["case", "group", "dice"])


def test_what_a_split_by_frame_adds_by_hand():
    """Sequences a and b were held out whole; by frame, two of a, one of b and one of c."""
    by_sequence = scores_of({"1": ("a", 0.4), "2": ("a", 0.5), "3": ("a", 0.6), "4": ("b", 0.8)})
    by_frame = scores_of({"1": ("a", 0.8), "2": ("a", 0.6), "4": ("b", 0.9), "5": ("c", 0.7)})
    table = leak.leak(by_sequence, by_frame)
    every, both = table.to_dict("records")
    assert (every["frames"], both["frames"]) == ("4 and 4", "3")
    assert every["difference"] == pytest.approx(3.0 / 4 - 2.3 / 4)
    assert both["difference"] == pytest.approx(2.3 / 3 - 1.7 / 3)
    # The held-out sequences are drawn for both runs at once, c each time: a twice, a and b, or b
    # twice, which a quarter, a half and a quarter of the draws are.
    draws = [3.5 / 5 - 3.0 / 6, 3.0 / 4 - 2.3 / 4, 2.5 / 3 - 1.6 / 2]
    assert (every["low"], every["high"]) == pytest.approx((min(draws), max(draws)))
    # The pairs of a differ by 0.4 and 0.1, that of b by 0.1. Drawn with their sequences: 0.25 of a
    # alone, 0.2, or 0.1 of b alone. Drawn singly, three of the first would be common: 0.4.
    assert (both["low"], both["high"]) == pytest.approx((0.1, 0.25))
    assert "| in both | 3 | 56.7 | 76.7 | +20.0 (+10.0 to +25.0) |" in leak.table_text(table)


def test_a_leak_wants_frames_that_both_runs_scored():
    one, other = (scores_of({name: ("a", 0.5)}) for name in ("1", "2"))
    with pytest.raises(ValueError, match="found no frame that the other run scored"):
        leak.leak(one, other)
    rows = leak.leak(one, one)
    assert rows[["low", "high"]].isna().all(axis=None), "one sequence has no interval"
    with pytest.raises(ValueError, match="found a case several times"):
        leak.leak(one, pd.concat([one, one]))


@pytest.mark.parametrize(
    ("run", "variant"),
    [("cvc-long", "iacnn"), ("cvc-long-printed", "printed"), ("cvc-long-unet", "unet")],
)
def test_the_published_leak_is_that_of_the_kept_runs(run, variant, capsys):
    results = FOLDER / "results"
    folders = (str(results / name) for name in (run, f"{run}-by-frame"))
    assert leak.main([*folders, "--variant", variant]) == 0
    page = (results / "README.md").read_text()
    assert capsys.readouterr().out in page


def test_the_runs_of_a_leak_differ_in_the_split_alone(tmp_path, capsys):
    frames = scores_of({"1": ("a", 0.4), "2": ("b", 0.6)})
    changes = {
        "group": {},
        "random": {"data.split": "random"},
        "longer": {"data.split": "random", "train.epochs": 1000},
    }
    for name, change in changes.items():
        chosen = recipe.override(RECIPE, change)
        run = RunFolder(tmp_path / name)
        run.create(chosen, {"iacnn": Variant(chosen, "iacnn")}, {})
        frames.assign(variant="iacnn", region="tumour").to_csv(run.scores_file, index=False)
    group, random, longer = (str(tmp_path / name) for name in changes)
    rows = ("network,epoch,loss,val_loss", "iacnn-tumour,1,2,2", "other-tumour,1,9,9")
    for name in changes:
        (tmp_path / name / "log.csv").write_text("\n".join(rows))
    assert leak.main([group, random, "--figure", str(tmp_path / "leak.png")]) == 0
    assert (tmp_path / "leak.png").stat().st_size > 5000
    figure = leak.curves([tmp_path / "group", tmp_path / "random"], "iacnn")
    titles = [panel.get_title() for panel in figure.axes if panel.get_title()]
    assert titles == ["split by sequence", "split by frame"]
    assert "| all | 2 and 2 | 50.0 | 50.0 | +0.0 (+0.0 to +0.0) |" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"found a run with data\.split=random"):
        leak.main([random, group])
    with pytest.raises(DataError, match=r"also differs in train\.epochs"):
        leak.main([group, longer])
    with pytest.raises(ValueError, match="--variant: found 'unet', expected"):
        leak.main([group, random, "--variant", "unet"])
    scores = pd.read_csv(tmp_path / "group" / "scores.csv")
    pd.concat([scores, scores]).to_csv(tmp_path / "group" / "scores.csv", index=False)
    with pytest.raises(DataError, match=r"several trainings .* Give .*group/seed0"):
        leak.main([group, random])
