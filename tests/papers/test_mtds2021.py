"""What only this paper needs."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from experiments.mtds2021 import costs, figures, heads
from experiments.mtds2021.recipe import EXPERIMENT, RECIPE
from keras_medseg import cli, recipe, registry
from keras_medseg.data import splits, store
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets.brats import Brats
from keras_medseg.errors import DataError
from keras_medseg.models import mtds_r2unet
from keras_medseg.optimizers import OPTIMIZERS
from keras_medseg.phantoms.brats import write_brats
from keras_medseg.reporting.figures import volumes
from keras_medseg.reporting.tables import FILLED_IN, build_table, read_published
from keras_medseg.runs.run_folder import RunFolder, Variant
from keras_medseg.tasks import task_of
from keras_medseg.training import fit, schedules

PUBLISHED = Path(__file__).parents[2] / "experiments" / "mtds2021" / "published.csv"
PAPER = EXPERIMENT.profiles["paper"]
VARIANTS = {name: recipe.override(RECIPE, changes) for name, changes in PAPER.variants.items()}


def test_no_value_is_published_that_the_text_lost(tmp_path):
    # Copied, away from what a reader may have filled in beside it.
    published = read_published(shutil.copy(PUBLISHED, tmp_path))
    assert published["value"].isna().all()
    assert published["note"].str.startswith("Lost.").all()
    assert set(published["table"]) == {f"Table {number}" for number in (1, 3, 4, 5, 6)}


def test_a_reader_with_the_article_fills_in_the_lost_tables(tmp_path):
    """README: copy the lines, give values; the values stand in the table that the report shows."""
    shutil.copy(PUBLISHED, tmp_path)
    header, *lines = PUBLISHED.read_text().splitlines()
    [line] = [line for line in lines if line.startswith("Table 4,MTDS,,WT,dice,")]
    (tmp_path / FILLED_IN).write_text(f"{header}\n{line.replace('dice,,', 'dice,0.5,')}\n")
    table = read_published(tmp_path / PUBLISHED.name)
    [cell] = table[table["value"].notna()].to_dict("records")
    assert (cell["row"], cell["metric"], cell["value"]) == ("MTDS", "dice", 0.5)
    assert cell["note"] == "Filled in from the article by the reader."
    spec = next(spec for spec in EXPERIMENT.tables if spec.id == "Table 4")
    scores = pd.DataFrame({"variant": ["mtds"], "case": ["a"], "region": ["WT"], "dice": [0.25]})
    cells = build_table(spec, table, scores.assign(sensitivity=0.0, specificity=0.0, hd95_mm=0.0))
    shown = cells[(cells["row"] == "MTDS") & (cells["metric"] == "dice")]
    assert shown[["published", "measured"]].to_numpy().tolist() == [[0.5, 0.25]]


@pytest.mark.parametrize(
    "line", ["Table 4,Unknown,,WT,dice,0.5,,article,", "Table 4,MTDS,,WT,dice,0.5,%,article,"]
)
def test_only_lost_cells_can_be_filled_in(tmp_path, line):
    shutil.copy(PUBLISHED, tmp_path)
    header = PUBLISHED.read_text().splitlines()[0]
    (tmp_path / FILLED_IN).write_text(f"{header}\n{line}\n")
    with pytest.raises(DataError, match=f"{FILLED_IN}: found a value for Table 4, "):
        read_published(tmp_path / PUBLISHED.name)


def test_rows_of_the_lost_tables_are_the_references_that_no_sentence_cites():
    """51 to 58 in Table 5, and 59 to 62 in Table 6 beside U-Net, reference 10."""
    rows = {spec.id: [row.label for row in spec.rows] for spec in EXPERIMENT.tables}
    cited = [label.rpartition("(")[2].rstrip(")") for label in rows["Table 5"]]
    assert cited[:8] == [str(number) for number in range(51, 59)]
    assert set(rows["Table 5"][8:]) == {"Proposed"}
    assert rows["Table 6"] == [
        "U-Net",
        "D-ResUNet",
        "ResUNet++",
        "DeepLabV3+",
        "PSPNet",
        "Proposed",
    ]
    published = read_published(PUBLISHED)
    for table, labels in rows.items():
        assert set(published[published["table"] == table]["row"]) == set(labels)


NETWORK = "model.options"
SUPERVISION = {f"{NETWORK}.supervision", "model.auxiliary", "train.loss_options.output_weights"}


@pytest.mark.parametrize(
    ("one", "other", "fields"),
    [
        ("mtds", "se_without_dropout", {f"{NETWORK}.se_dropout"}),
        ("mtds", "without_supervision", SUPERVISION),
        ("mtds", "single_task", {"model.auxiliary"}),
        ("mtds", "before_postprocessing", {"predict.smallest_component"}),
        ("without_supervision", "without_gates", {f"{NETWORK}.encoder_block"}),
        ("without_supervision", "without_shortcut", {f"{NETWORK}.encoder_block"}),
        ("without_gates", "gates_on_skips", {f"{NETWORK}.skip_gates"}),
    ],
)
def test_every_ablation_changes_what_its_table_names(one, other, fields):
    assert recipe.differences(VARIANTS[one], VARIANTS[other]).keys() == fields


def test_the_readings_of_the_heads_in_the_readme_are_those_of_the_scores():
    paths = sorted(PUBLISHED.parent.glob("results/heads-seed*.csv"))
    assert heads.table(paths) in (PUBLISHED.parent / "README.md").read_text()


def test_readings_of_the_heads_by_hand(tmp_path):
    """Dice of two cases: without heads 0.5 and 0.7, by every reading 0.6 and 0.68."""
    path = tmp_path / "heads-seed7.csv"
    dice = {name: (0.6, 0.68) for name in heads.TITLES} | {heads.NONE: (0.5, 0.7)}
    rows = [f"{name},{case},{d}" for name, pair in dice.items() for case, d in zip("ab", pair)]
    path.write_text("\n".join(["variant,case,dice", *rows]))
    lines = heads.table([path]).splitlines()
    assert lines[0] == "| heads | seed 7 | difference from no heads | cases with a higher Dice |"
    assert lines[2:4] == [
        "| no heads | 60.0 |  |  |",
        "| encoder (chosen) | 64.0 | +4.0 | 1 of 2 |",
    ]


def test_every_order_that_the_text_states_is_tested():
    """Sections 2.1, 3.6.1, 3.6.2 and 3.7; (the lower, the higher)."""
    of_ablations = {
        ("se_without_dropout", "mtds"),
        # APR is first of Table 3, and Attention U-Net before the structures without gates.
        ("without_shortcut", "without_supervision"),
        ("without_gates", "without_supervision"),
        ("gates_on_skips", "without_supervision"),
        ("without_shortcut", "gates_on_skips"),
        ("without_gates", "gates_on_skips"),
        # MTDS is first of Table 4, and supervision by a single task last.
        ("without_supervision", "mtds"),
        ("single_task", "mtds"),
        ("single_task", "without_supervision"),
    }
    assert of_ablations <= set(PAPER.comparisons)
    rivals = ("unet", "dresunet", "resunetpp", "deeplabv3plus", "pspnet")
    compared = EXPERIMENT.profiles["paper-compare"].comparisons
    assert set(compared) == {(rival, "mtds") for rival in rivals}


def test_one_network_finds_the_whole_tumor():
    for run in VARIANTS.values():
        assert run.model.targets == (("WT",),)


def test_profiles_of_the_open_readings_change_these_alone():
    full = EXPERIMENT.profiles["paper-heads"]
    assert full.variants == EXPERIMENT.profiles["heads"].variants
    assert full.changes == EXPERIMENT.profiles["paper-table-1"].changes == {}
    readings = {name: recipe.override(RECIPE, changes) for name, changes in full.variants.items()}
    assert readings.pop("without_supervision") == VARIANTS["without_supervision"]
    assert set(readings) == {*mtds_r2unet.CHOICES["supervision"]} - {"none"}
    for name, run in readings.items():
        assert run.model.options["supervision"] == name
        assert recipe.differences(RECIPE, run).keys() <= {f"{NETWORK}.supervision"}
    one, other = (
        recipe.override(RECIPE, changes)
        for changes in EXPERIMENT.profiles["paper-table-1"].variants.values()
    )
    assert one == VARIANTS["without_supervision"]
    assert recipe.differences(one, other).keys() == {f"{NETWORK}.se_dropout"}


@pytest.mark.parametrize("name", PAPER.variants)
def test_outputs_targets_and_weights_of_every_variant_agree(name):
    small = {"data.window": (16, 16, 155), "model.options.filters": 4}
    run = recipe.override(VARIANTS[name], small)
    _, model = fit.compile_network(run, ("WT",), channels=4)
    predicted = model(np.random.default_rng(0).random((2, 16, 16, 4), "float32"))
    assert predicted.shape == (2, 16, 16, 1 + len(run.model.auxiliary))
    assert np.isfinite(float(model.loss(np.ones(predicted.shape, "float32"), predicted)))


def test_targets_of_the_four_outputs(tmp_path):
    """Whole tumour, enhancing, necrotic, edema; or the whole tumour four times, or once."""
    write_brats(tmp_path / "cases", cases=1, layout="BraTS2020", shape=(48, 48, 31))
    [case] = Brats().find(tmp_path / "cases").cases
    decoded = store.prepare([case], Brats().read, tmp_path / "store", workers=1)
    labels = Brats().read(case).labels
    z = int(np.count_nonzero(labels, axis=(0, 1)).argmax())
    small = {"data.window": (48, 48, 31), "train.batch_size": 31, "data.flips": ()}
    for variant, codes in {
        "mtds": ((1, 2, 3), (3,), (1,), (2,)),
        "single_task": ((1, 2, 3),) * 4,
        "without_supervision": ((1, 2, 3),),
    }.items():
        run = recipe.override(VARIANTS[variant], small)
        batches = task_of(run).batches(decoded, (case.id,), ("WT",), training=False)
        y = batches.batch(0, 0)[1][z]
        expected = [np.isin(labels[:, :, z], code) for code in codes]
        np.testing.assert_array_equal(y, np.stack(expected, axis=-1))


def test_slices_are_scaled_by_the_extremes_of_the_window_in_training_and_prediction():
    """Section 3.1.2: "After cropping", "of the 3D brain data". Window 2x2x2 of 4x2x2 voxels: 80 and
    90 lie outside of it, 20 and 40 are the maxima of its two slices."""
    image = np.zeros((4, 2, 2, 4), np.int16)
    image[0], image[3] = 80, 90
    image[1, 0, 0], image[2, 1, 1] = 20, 40
    arrays = CaseArrays(image, np.zeros((4, 2, 2), np.uint8), np.eye(4), ("L", "P", "S"))
    case = store.StoredCase.from_arrays(Case("a", "BraTS2020", (), None, "a"), arrays)
    run = recipe.override(RECIPE, {"data.window": (2, 2, 2), "train.batch_size": 2})
    task = task_of(run)
    decoded = SimpleNamespace(cases={"a": case}, folder=None)
    x = task.batches(decoded, ("a",), ("WT",), training=False).batch(0, 0)[0]
    seen = []
    network = SimpleNamespace(predict_on_batch=lambda x: seen.append(x.copy()) or x[..., :1])
    task.predict_window(network, case)
    expected = np.zeros((2, 2, 2, 4))
    expected[0, 0, 0], expected[1, 1, 1] = 20 / 40, 40 / 40
    np.testing.assert_allclose(x, expected)
    np.testing.assert_allclose(seen[0], expected)


def test_each_slice_is_predicted_once():
    """Section 3.7, "only used the proposed single model": no flips and no copies are averaged.
    The network's answer is the number of its call; 4 slices in batches of 2 are two calls."""
    image = np.ones((2, 2, 4, 4), np.int16)
    arrays = CaseArrays(image, np.zeros((2, 2, 4), np.uint8), np.eye(4), ("L", "P", "S"))
    case = store.StoredCase.from_arrays(Case("a", "BraTS2020", (), None, "a"), arrays)
    task = task_of(recipe.override(RECIPE, {"data.window": (2, 2, 4), "train.batch_size": 2}))
    calls = []

    def predict_on_batch(x):
        calls.append(len(x))
        return np.full((*x.shape[:-1], 1), len(calls), np.float32)

    maps = task.predict_window(SimpleNamespace(predict_on_batch=predict_on_batch), case)
    assert calls == [2, 2]
    assert maps[0, 0, :, 0].tolist() == [1, 1, 2, 2]


def test_twins_of_three_years_never_stand_on_two_sides(tmp_path):
    """Four patients in 2018, 2019 and 2020. Names and name_mapping.csv tell, and no voxel does."""
    for year in (2018, 2019, 2020):
        write_brats(tmp_path / f"{year}", cases=4, layout=f"BraTS{year}", shape=(24, 24, 24))

    def torn(seed):
        sides = splits.split_cases(Brats().find(tmp_path).cases, 0.25, seed)
        numbers = [{case.id.split("_")[2] for case in side} for side in sides[:2]]
        assert set.union(*numbers) == {"001", "002", "003", "004"}
        return set.intersection(*numbers)

    assert [torn(seed) for seed in range(8)] == [set()] * 8
    # The table alone prevents it: the ids of 2020 show nothing.
    (tmp_path / "2020" / "name_mapping.csv").unlink()
    assert any(torn(seed) for seed in range(8))


@pytest.mark.slow
def test_lowest_cost_of_all_at_full_width():
    """ "A small parameter and low computational cost"; README.md has the table."""
    found = {cost.name: cost for cost in costs.costs()}
    rounded = {name: round(cost.multiply_adds, 2) for name, cost in found.items()}
    assert rounded == {
        "MTDS": 4.16,
        "DeepLabV3+": 4.96,
        "ResUNet++": 6.06,
        "PSPNet": 19.62,
        "D-ResUNet": 21.24,
        "U-Net": 25.29,
    }
    readme = (PUBLISHED.parent / "README.md").read_text()
    for name, (_, parameters, operations) in found.items():
        assert f"| {name} | {parameters:,} | {operations:.2f} |" in readme
        if name != "MTDS":
            assert parameters > found["MTDS"].parameters
            assert operations > found["MTDS"].multiply_adds


def test_learning_rate_of_the_paper():
    """1e-4 * (1 - 0 / 50)^0.9 at first, 1e-4 * 0.5^0.9 half-way, 1e-4 * 0.02^0.9 at last."""
    found = [schedules.polynomial(RECIPE.train, epoch) for epoch in (0, 25, 49)]
    assert found == pytest.approx([1e-4, 1e-4 * 0.535887, 1e-4 * 0.0295752], rel=1e-5)


def _tiny_two_outputs(name, input_shape, classes):
    """A convolution, ReLU and two 1x1 convolutions: small enough to be differentiated by hand."""
    image = keras.Input(input_shape)
    hidden = keras.layers.Conv2D(3, 3, padding="same", activation="relu")(image)
    outputs = [
        keras.layers.Conv2D(channels, 1, activation="sigmoid")(hidden) for channels in (classes, 1)
    ]
    return keras.Model(image, outputs, name=name)


class NumpyNetwork:
    """The tiny network, the paper's loss and its gradients, in float64 and without Keras."""

    def __init__(self, weights):
        self.weights = [np.float64(weight) for weight in weights]

    def loss_and_gradients(self, x, y, output_weights):
        kernel, bias, *heads = self.weights
        _, height, width, _ = x.shape
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifts = {
            (i, j): padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)
        }
        linear = bias + sum(x_ij @ kernel[ij] for ij, x_ij in shifts.items())
        hidden = np.maximum(linear, 0)
        loss, gradients, to_hidden = 0, [], 0
        for k, weight in enumerate(output_weights):
            head, head_bias = heads[2 * k][0, 0, :, 0], heads[2 * k + 1]
            p, q = 1 / (1 + np.exp(-(hidden @ head + head_bias))), y[..., k]
            overlap, sizes = 2 * np.sum(p * q), np.sum(p**2) + np.sum(q**2)
            entropy = -np.mean(q * np.log(p) + (1 - q) * np.log(1 - p))
            loss += weight * (entropy + 1 - overlap / sizes)
            # d entropy / dp, and the quotient rule on the Dice term; then dp / dz = p (1 - p).
            by_p = (p - q) / (p * (1 - p)) / p.size
            by_p += -2 * q / sizes + overlap * 2 * p / sizes**2
            by_z = weight * by_p * p * (1 - p)
            by_head = np.einsum("nhw,nhwc->c", by_z, hidden)
            gradients += [by_head[None, None, :, None], by_z.sum(keepdims=True).ravel()]
            to_hidden = to_hidden + by_z[..., None] * head
        by_linear = to_hidden * (linear > 0)
        by_kernel = np.empty_like(kernel)
        for ij, x_ij in shifts.items():
            by_kernel[ij] = np.einsum("nhwi,nhwo->io", x_ij, by_linear)
        return loss, [by_kernel, by_linear.sum((0, 1, 2)), *gradients]


def _example():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 5, 4, 2), "float32")
    return x, np.float32(rng.random((2, 5, 4, 2)) > 0.6)


@pytest.fixture
def tiny(monkeypatch):
    """The tiny network, compiled as the recipe says with changes to it."""
    monkeypatch.setattr(registry, "build", _tiny_two_outputs)
    small = {
        "model.options": {},
        "data.window": (5, 4, 155),
        "model.auxiliary": ("ET",),
        "train.loss_options.output_weights": (1.0, 0.5),
    }

    def build(**train) -> keras.Model:
        changes = {f"train.{name}": value for name, value in train.items()}
        run = recipe.override(RECIPE, small | changes)
        return fit.compile_network(run, ("WT",), channels=2)[1]

    return build


def test_gradients_agree_with_numpy(tiny):
    """A step of plain gradient descent at rate 1 is the gradient."""
    model = tiny(optimizer="sgd", optimizer_options={}, learning_rate=1.0)
    (x, y), before = _example(), model.get_weights()
    loss, gradients = NumpyNetwork(before).loss_and_gradients(x, y, (1.0, 0.5))
    assert model.train_on_batch(x, y, return_dict=True)["loss"] == pytest.approx(loss, rel=1e-6)
    for one, other, gradient in zip(before, model.get_weights(), gradients):
        assert np.abs(gradient).max() > 1e-3
        np.testing.assert_allclose(one - other, gradient, atol=1e-6)


@pytest.mark.parametrize("logit", [-100.0, 100.0])
def test_a_sure_and_wrong_pixel_has_the_gradient_of_tensorflow_2(tiny, logit):
    """sigmoid(z) - q, computed from the logit z that TensorFlow 2 finds behind the sigmoid; here
    it is -1 or 1. The Dice loss of maps that are all wrong, or all sure, is flat."""
    model = tiny(optimizer="sgd", optimizer_options={}, learning_rate=1.0)
    model.set_weights([np.full(w.shape, logit * (w.ndim == 1)) for w in model.get_weights()])
    kernel, bias, *heads = model.get_weights()
    model.set_weights([kernel, 0 * bias, *heads])
    x, _ = _example()
    y = np.full((2, 5, 4, 2), logit < 0, "float32")
    # 100 for each output, with the weights 1 and 1/2, and 1 from the Dice.
    assert model.train_on_batch(x, y, return_dict=True)["loss"] == pytest.approx(1.5 * 101)
    for bias, weight in zip(model.get_weights()[3::2], (1.0, 0.5)):
        assert bias == pytest.approx(logit - weight * np.sign(logit), abs=1e-4)


def test_epsilon_of_adam_is_added_where_tensorflow_adds_it():
    """Before the second moment is corrected; PyTorch adds it after, and would go 1e-4 * 0.909.

    Gradient 1e-6: the root of the moment is sqrt(0.001) * 1e-6 = 3.1623e-8, and
    1e-4 * 3.1623e-8 / (3.1623e-8 + 1e-7) = 1e-4 * 0.24025.
    """
    train = RECIPE.train
    optimizer = OPTIMIZERS[train.optimizer](train.learning_rate, **train.optimizer_options)
    weight = keras.Variable([0.0])
    optimizer.apply([keras.ops.convert_to_tensor([1e-6])], [weight])
    assert -float(weight[0]) == pytest.approx(1e-4 * 0.24025, rel=1e-4)


def test_one_step_agrees_with_numpy(tiny):
    """Loss and weights after one and two steps of the paper's Adam (Kingma and Ba, section 2)."""
    model = tiny()
    x, y = _example()
    network = NumpyNetwork(model.get_weights())
    first, second = ([np.zeros_like(w) for w in network.weights] for _ in range(2))
    for step in (1, 2):
        loss, gradients = network.loss_and_gradients(x, y, (1.0, 0.5))
        assert model.train_on_batch(x, y, return_dict=True)["loss"] == pytest.approx(loss, rel=1e-6)
        rate = 1e-4 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        for index, gradient in enumerate(gradients):
            first[index] += 0.1 * (gradient - first[index])
            second[index] += 0.001 * (gradient**2 - second[index])
            change = rate * first[index] / (np.sqrt(second[index]) + 1e-7)
            network.weights[index] = network.weights[index] - change
        for found, expected in zip(model.get_weights(), network.weights):
            # A step is 1e-4; weights are of the order of 1.
            np.testing.assert_allclose(found, expected, atol=2e-7)
        model.reset_metrics()


def test_figure_5_shows_this_network_and_deeplab(tmp_path, monkeypatch):
    write_brats(tmp_path / "cases", cases=1, layout="BraTS2020", shape=(48, 48, 31))
    [case] = Brats().find(tmp_path / "cases").cases
    decoded = store.prepare([case], Brats().read, tmp_path / "store", workers=1)
    stored = decoded.cases[case.id]
    truth = stored.full_labels()
    compared = EXPERIMENT.profiles["paper-compare"].variants
    variants = {
        name: Variant(recipe.override(RECIPE, compared[name]), name)
        for name in ("mtds", "deeplabv3plus")
    }
    run = RunFolder(tmp_path / "run")
    run.create(RECIPE, variants, {})
    for name, labels in {"mtds": truth, "deeplabv3plus": np.zeros_like(truth)}.items():
        run.predictions(name).mkdir(parents=True)
        Brats().write_labels(run.prediction(name, case.id), labels, stored)
    rows = [f"{name},{case.id},WT,1,9\n" for name in variants]
    (run.path / "scores.csv").write_text("variant,case,region,dice,truth_voxels\n" + "".join(rows))
    drawn, draw = [], volumes.prediction_differences
    monkeypatch.setattr(
        volumes, "prediction_differences", lambda *a, **k: drawn.append(a[0]) or draw(*a, **k)
    )
    [figure] = figures.comparison_figures(run, SimpleNamespace(store=decoded))
    assert figure.path.exists()
    [(_, whole, masks)] = drawn[0].values()
    z = int(np.count_nonzero(truth, axis=(0, 1)).argmax())
    np.testing.assert_array_equal(whole, truth[:, :, z] > 0)
    np.testing.assert_array_equal(masks["ours"], whole)
    assert not masks["DeepLabV3+"].any()


def test_without_auxiliary_outputs_there_is_no_figure_of_them(tmp_path):
    bare = recipe.override(RECIPE, PAPER.variants["without_supervision"])
    run = RunFolder(tmp_path)
    run.create(bare, {"mtds": Variant(bare, "mtds")}, {})
    (tmp_path / "scores.csv").write_text("variant,case,region,dice\nmtds,001,WT,0.5\n")
    assert figures.paper_figures(run, SimpleNamespace()) == []


@pytest.mark.slow
def test_label_maps_can_be_handed_in(tmp_path):
    """What the BraTS portal asks for: <case>.nii.gz, uint8, 240x240x155, the input's affine and
    codes; from `keras-medseg predict` on cases without labels."""
    write_brats(tmp_path / "cases", cases=1, layout="BraTS2020", shape=(240, 240, 155))
    [labels] = (tmp_path / "cases").rglob("*_seg.nii*")
    labels.unlink()
    for path in list((tmp_path / "cases").rglob("*_Training_*.nii*")):
        path.rename(path.with_name(path.name.replace("Training", "Validation")))
    for folder in list((tmp_path / "cases").rglob("*_Training_*")):
        folder.rename(folder.with_name(folder.name.replace("Training", "Validation")))
    [flair] = (tmp_path / "cases").rglob("*_flair.nii*")
    small = recipe.override(RECIPE, {"model.options.filters": 2, "train.batch_size": 8})
    run = RunFolder(tmp_path / "run")
    run.create(small, {"mtds": Variant(small, "mtds")}, {})
    network, _ = fit.compile_network(small, ("WT",), channels=4)
    folder = run.training("mtds", ("WT",))
    folder.mkdir(parents=True)
    network.save(folder / "model.keras")
    arguments = [str(tmp_path / name) for name in ("run", "cases", "out")]
    assert cli.main(["predict", *arguments]) == 0
    [path] = (tmp_path / "out").glob("*.nii.gz")
    assert path.name == flair.name.replace("_flair.nii", ".nii").removesuffix(".gz") + ".gz"
    written, source = nib.load(path), nib.load(flair)
    assert written.shape == (240, 240, 155)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(written.affine, source.affine)
    found = np.asanyarray(written.dataobj)
    assert set(np.unique(found)) == {0, 2}, "an untrained network answers above 0.5 somewhere"
    # The window is 144 x 176: voxels 48 to 191 along x and 32 to 207 along y.
    inside = found[48:192, 32:208]
    assert np.count_nonzero(inside) == np.count_nonzero(found)
