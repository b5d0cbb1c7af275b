"""From a folder to scores, on a small synthetic data set with the recipe of a small network."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from keras_medseg import recipe, registry
from keras_medseg.data.datasets import brats
from keras_medseg.data.formats import nifti
from keras_medseg.errors import DataError
from keras_medseg.inference import postprocess
from keras_medseg.phantoms import brats as phantom
from keras_medseg.phantoms.folder import is_phantom
from keras_medseg.runs import steps
from keras_medseg.tasks import volumes

RUN = recipe.Recipe(
    paper="test",
    data=recipe.Slices((48, 48, 24), "z_score", (), 0.3, slice_step=6),
    model=recipe.Model(
        "residual_attention_unet",
        (("WT",), ("TC",), ("ET",)),
        {"filters": 4, "attention": False, "residual_block": "plain_single"},
    ),
    train=recipe.Train(1, 8, "adam", 0.01, "cross_entropy", "constant", "float32", 0),
)
SHAPE = (60, 60, 39)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantom")
    phantom.write_brats(path, cases=4, layout="BraTS2020", shape=SHAPE)
    return path


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    data = steps.load_data(folder, out / "store", RUN)
    steps.claim(out, RUN, data, {"main": RUN})
    steps.train_variant("main", RUN, data, out)
    return out, data, steps.score_variant("main", RUN, data, out)


def test_a_run_goes_from_folder_to_scores(finished):
    out, data, scores = finished
    assert len(data.held_out) == 1  # 30 % of 4 cases, rounded
    assert set(scores["case"]) == set(data.held_out)
    assert list(scores["region"]) == ["WT", "TC", "ET"]
    assert scores["dice"].between(0, 1).all()
    pd.testing.assert_frame_equal(pd.read_csv(out / "scores.csv"), scores, check_exact=True)


def test_label_maps_overlay_the_input(finished, folder):
    out, data, _ = finished
    name = data.held_out[0]
    written = nib.load(out / "predictions" / "main" / f"{name}.nii.gz")
    source = nib.load(next(folder.rglob(f"{name}_flair.nii*")))
    assert written.shape == source.shape == SHAPE
    np.testing.assert_array_equal(written.affine, source.affine)
    assert written.get_data_dtype() == np.uint8
    assert set(np.unique(written.dataobj)) <= {0, 1, 2, 4}


def test_finished_cases_are_not_predicted_again(finished, capsys):
    out, data, scores = finished
    again = steps.score_variant("main", RUN, data, out)
    assert "predicting" not in capsys.readouterr().out
    pd.testing.assert_frame_equal(again, scores, check_exact=True)


def test_predictions_are_scored_again_from_their_files(finished, folder):
    """The scores of a run follow from its NIfTI files alone."""
    out, data, scores = finished
    held_out = folder.parent / f"held-out-{folder.name}"
    held_out.mkdir()
    name = data.held_out[0]
    case = next(path for path in folder.rglob(name) if path.is_dir())
    (held_out / name).symlink_to(case)
    again = steps.score_folder(out / "predictions" / "main", held_out, ("WT", "TC", "ET"))
    pd.testing.assert_frame_equal(again, scores, check_exact=True)


def test_unlabelled_cases_are_predicted(finished, folder, tmp_path):
    out, data, _ = finished
    case = next(path for path in folder.rglob(data.held_out[0]) if path.is_dir())
    unlabelled = tmp_path / "new" / case.name
    unlabelled.mkdir(parents=True)
    for path in case.glob("*"):
        if "seg" not in path.name:
            (unlabelled / path.name).write_bytes(path.read_bytes())
    done = steps.predict_folder(out, tmp_path / "new", tmp_path / "out")
    assert done.endswith("1 label maps of WT, TC, ET by the variant main")
    one = nib.load(tmp_path / "out" / f"{case.name}.nii.gz")
    other = nib.load(out / "predictions" / "main" / f"{case.name}.nii.gz")
    np.testing.assert_array_equal(one.dataobj, other.dataobj)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{case.name}.nii.gz"]


def test_a_variant_predicts_as_its_own_recipe_reads(finished, folder, tmp_path):
    """One with a window of 8 slices finds nothing outside of it; the run's base recipe does.

    Its name has a hyphen and it has no networks of its own, and all three regions are there."""
    out, data, _ = finished
    shutil.copytree(out / "training", tmp_path / "copy")
    thin = recipe.override(RUN, ["data.window=(48, 48, 8)"])
    steps.claim(tmp_path / "run", RUN, data, {"thin-window": thin})
    (tmp_path / "copy").rename(tmp_path / "run" / "training")
    for trained in list((tmp_path / "run" / "training").iterdir()):
        trained.rename(trained.with_name(trained.name.replace("main", "thin-window")))
    steps.predict_folder(tmp_path / "run", folder, tmp_path / "out")
    name = f"{data.held_out[0]}.nii.gz"
    found = np.asarray(nib.load(tmp_path / "out" / name).dataobj)
    usual = np.asarray(nib.load(out / "predictions" / "main" / name).dataobj)
    first = (found.shape[2] - 8) // 2
    np.testing.assert_array_equal(found[:, :, first : first + 8], usual[:, :, first : first + 8])
    outside = np.r_[:first, first + 8 : found.shape[2]]
    assert not found[:, :, outside].any()
    assert usual[:, :, outside].any()


def test_a_variant_without_networks_of_its_own_predicts_with_those_it_names(
    finished, folder, tmp_path
):
    out, data, _ = finished
    cleaned = recipe.override(RUN, ["predict.smallest_component=1.0"])
    steps.claim(tmp_path / "run", RUN, data, {"main": RUN, "cleaned": cleaned})
    shutil.copytree(out / "training", tmp_path / "run" / "training")
    assert steps.read_variant(tmp_path / "run", "cleaned").trained_as == "main"
    steps.predict_folder(tmp_path / "run", folder, tmp_path / "out", "cleaned")
    name = f"{data.held_out[0]}.nii.gz"
    found = brats.read_labels(tmp_path / "out" / name, "BraTS2020")
    usual = brats.read_labels(out / "predictions" / "main" / name, "BraTS2020")
    np.testing.assert_array_equal(found, postprocess.drop_small_components(usual, 1.0))


def test_a_network_that_is_missing_is_not_left_out(finished, folder, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "training" / "main-ET" / "model.keras").unlink()
    with pytest.raises(DataError, match=r"main-ET/model\.keras"):
        steps.predict_folder(tmp_path / "run", folder, tmp_path / "out")


def test_a_case_that_cannot_be_read_does_not_keep_the_others_back(finished, folder, tmp_path):
    out, data, _ = finished
    shutil.copytree(folder, tmp_path / "new")
    damaged = next((tmp_path / "new").rglob(f"{data.held_out[0]}_t1ce.nii*"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=rf"3 of 4 label maps.*{damaged.name}"):
        steps.predict_folder(out, tmp_path / "new", tmp_path / "out")
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert len(written) == 3
    damaged.write_bytes(whole)
    steps.predict_folder(out, tmp_path / "new", tmp_path / "out")
    again = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert len(again) == 4
    assert {name: again[name] for name in written} == written


def test_a_network_that_was_not_trained_is_named(tmp_path):
    with pytest.raises(DataError, match=r"model\.keras.*Train first"):
        steps.load_network(tmp_path, "main", ("WT",))


def test_a_network_is_loaded_with_its_main_output_or_with_all(tmp_path):
    network = registry.build("mtds_r2unet", input_shape=(16, 16, 4), filters=4)
    folder = steps.training_folder(tmp_path, "main", ("WT",))
    folder.mkdir(parents=True)
    network.save(folder / "model.keras")
    x = np.random.default_rng(0).random((1, 16, 16, 4), "float32")
    whole, *auxiliary = network(x)
    found = steps.load_network(tmp_path, "main", ("WT",))(x)
    np.testing.assert_array_equal(found, whole)
    every = steps.load_network(tmp_path, "main", ("WT",), auxiliary=True)(x)
    assert len(every) == 1 + len(auxiliary) == 4
    np.testing.assert_array_equal(every[3], auxiliary[2])


def test_small_components_are_dropped_where_the_recipe_says_so(finished):
    """The same network on the same case: what is left is what hangs together with the largest."""
    out, data, _ = finished
    networks = steps.load_networks(out, "main", RUN)
    case = data.store.cases[data.held_out[0]]
    raw = volumes.predict(networks, case, RUN)
    run = recipe.override(RUN, ["predict.smallest_component=1.0"])
    cleaned = volumes.predict(networks, case, run)
    np.testing.assert_array_equal(cleaned, postprocess.drop_small_components(raw, 1.0))


def test_what_cannot_be_predicted_with_is_named(finished, folder, tmp_path):
    out = finished[0]
    with pytest.raises(ValueError, match=r"variant: found 'other', expected one of: main"):
        steps.predict_folder(out, folder, tmp_path, variant="other")
    with pytest.raises(DataError, match=r"run\.json: found no file.*that a training wrote into"):
        steps.predict_folder(tmp_path, folder, tmp_path)


def test_a_run_folder_belongs_to_one_recipe_and_one_set_of_cases(finished, tmp_path):
    _, data, _ = finished
    variants = {"main": RUN, "longer": recipe.override(RUN, ["train.epochs=3"])}
    steps.claim(tmp_path, RUN, data, variants)
    steps.claim(tmp_path, RUN, data, variants)
    with pytest.raises(DataError, match=r"train\.epochs = 1.*expected 2"):
        steps.claim(tmp_path, recipe.override(RUN, ["train.epochs=2"]), data, variants)
    changed = {**variants, "longer": recipe.override(RUN, ["train.epochs=4"])}
    with pytest.raises(DataError, match=r"train\.epochs of longer = 3, expected 4"):
        steps.claim(tmp_path, RUN, data, changed)
    with pytest.raises(DataError, match=r"variants = \['main', 'longer'\], expected \['main'\]"):
        steps.claim(tmp_path, RUN, data, {"main": RUN})
    swapped = replace(data, training=data.held_out, held_out=data.training)
    with pytest.raises(DataError, match="run with training = "):
        steps.claim(tmp_path, RUN, swapped, variants)
    other = replace(data, store=SimpleNamespace(fingerprint="0" * 64))
    with pytest.raises(DataError, match=f"expected '{'0' * 64}'"):
        steps.claim(tmp_path, RUN, other, variants)


def test_a_run_of_another_version_of_the_package_is_refused(finished, tmp_path, monkeypatch):
    _, data, _ = finished
    steps.claim(tmp_path, RUN, data, {"main": RUN})
    monkeypatch.setattr(steps, "__version__", "99.0")
    with pytest.raises(DataError, match=r"a run with keras_medseg = .*expected '99\.0'"):
        steps.claim(tmp_path, RUN, data, {"main": RUN})


def test_variants_that_differ_after_training_share_one():
    changes = {
        "full": (),
        "before_cleaning": ("predict.smallest_component=0.5",),
        "longer": ("train.epochs=99",),
        "longer_cleaned": ("train.epochs=99", "predict.smallest_component=0.5"),
    }
    variants = {name: recipe.override(RUN, lines) for name, lines in changes.items()}
    assert steps.trained_as(variants) == {
        "full": "full",
        "before_cleaning": "full",
        "longer": "longer",
        "longer_cleaned": "longer",
    }


def test_a_prediction_on_another_grid_is_refused(finished, folder, tmp_path):
    out, data, _ = finished
    name = data.held_out[0]
    right = nib.load(out / "predictions" / "main" / f"{name}.nii.gz")
    shifted = right.affine + np.array([[0, 0, 0, 50.0], [0] * 4, [0] * 4, [0] * 4])
    for case in brats.find_cases(folder):
        nifti.write_volume(tmp_path / f"{case.id}.nii.gz", np.asarray(right.dataobj), shifted)
    with pytest.raises(DataError, match="a grid 50 mm away"):
        steps.score_folder(tmp_path, folder, ("WT",))


def test_prediction_does_not_read_the_segmentation(finished, folder, tmp_path):
    out, data, _ = finished
    case = next(path for path in folder.rglob(data.held_out[0]) if path.is_dir())
    shutil.copytree(case, tmp_path / "new" / case.name)
    segmentation = next((tmp_path / "new").rglob("*seg.nii*"))
    segmentation.write_bytes(segmentation.read_bytes()[:100])
    assert "1 label maps" in steps.predict_folder(out, tmp_path / "new", tmp_path / "out")


def test_a_phantom_is_called_one_wherever_its_folder_is_entered(finished, folder, tmp_path):
    data = finished[1]
    assert (data.name, data.datasets) == ("phantom in the layout of BraTS2020", ("BraTS2020",))
    (tmp_path / "link").symlink_to(folder)
    one = next(path for path in folder.iterdir() if path.is_dir())
    for entered in (folder, tmp_path, one):
        assert is_phantom(brats.find_cases(entered)[0].images[0])
    shutil.copytree(one, tmp_path / "alone" / one.name)
    assert not is_phantom(brats.find_cases(tmp_path / "alone")[0].images[0])


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("model.networks=(('WX',),)", r"model.networks: found 'WX', expected one of: WT, TC, ET"),
        ("model.networks=(('NCR',),)", r"model.networks: found 'NCR', expected one of: WT, TC, ET"),
        ("model.networks=()", r"model.networks: found \(\), expected the regions"),
        ("model.networks=((),)", r"model.networks: found \(\(\),\), expected the regions"),
        ("model.auxiliary=('WX',)", r"model.auxiliary: found 'WX', expected one of: .*NCR"),
        ("data.window=(48,48)", r"data.window: found \(48, 48\), expected 3 sizes"),
        ("data.window=(48,48,0)", r"data.window: found \(48, 48, 0\), expected 3 sizes"),
        ("train.epochs=0", "train.epochs, train.batch_size: expected 1 or more"),
        ("train.batch_size=0", "train.epochs, train.batch_size: expected 1 or more"),
        ("train.schedule=plateau", "expected 'monitor'"),
        ("train.schedule=polynomial", "expected 'power'"),
        ("train.schedule_options={'power': 1}", "options of constant: found 'power'"),
        ("train.loss_options={'edge': 1}", "option of cross_entropy: found 'edge'"),
        ("train.optimizer_options={'beta': 1}", r"train\.optimizer_options: .*beta"),
        ("model.overrides.filters='many'", "model: "),
        ("data.modalities=('flair','t1c')", "data.modalities: found 't1c'"),
        ("data.modalities=()", r"data.modalities: found \(\), expected one or more"),
        ("data.modalities=('t1','t1')", "each once"),
        ("model.overrides.residual_block=plane", "plain"),
    ],
)
def test_a_mistake_in_a_recipe_is_met_before_anything_is_written(assignment, words):
    with pytest.raises(ValueError, match=words):
        steps.check_recipe(recipe.override(RUN, [assignment]), channels=4)


def test_a_loss_that_does_not_fit_the_outputs_is_met_before_anything_is_written():
    changes = ("train.loss=cross_entropy_and_dice", "train.loss_options={'output_weights': (1, 1)}")
    words = "train.loss cross_entropy_and_dice: output_weights: found .*, expected 1"
    with pytest.raises(ValueError, match=words):
        steps.check_recipe(recipe.override(RUN, changes), channels=4)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("data.normalisation=z_scores", "normalization: found 'z_scores'"),
        ("data.flips=('z',)", "flips: found"),
        ("data.slice_step=0", "slice_step"),
    ],
)
def test_a_recipe_that_does_not_fit_its_data_is_met_before_training(finished, assignment, words):
    with pytest.raises(ValueError, match=words):
        steps.check_batches(recipe.override(RUN, [assignment]), finished[1])


def test_one_patient_under_two_names_is_used_once(tmp_path):
    phantom.write_brats(tmp_path / "a", cases=3, layout="BraTS2020", shape=SHAPE)
    phantom.write_brats(tmp_path / "b", cases=1, layout="BraTS2021", shape=SHAPE)
    data = steps.load_data(tmp_path, tmp_path / "store", RUN)
    assert len(data.training) + len(data.held_out) == 3
    assert len(data.duplicates) == 1


def test_stored_cases_come_back_whole(finished, folder):
    _, data, _ = finished
    case = next(c for c in brats.find_cases(folder) if c.id == data.held_out[0])
    arrays, stored = brats.read_case(case), data.store.cases[case.id]
    np.testing.assert_array_equal(stored.full_image(), arrays.image)
    np.testing.assert_array_equal(stored.full_labels(), arrays.labels)


def test_label_maps_are_scored_in_the_spacing_of_a_grid_with_other_axes(tmp_path):
    """Voxels of 1 x 2 x 3 mm, stored as (z, x, y): masks 2 voxels apart along y are 4 mm apart."""
    affine = np.array([[0, -1.0, 0, 0], [0, 0, -2.0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    folder = tmp_path / "data" / "BraTS2021_00000"
    folder.mkdir(parents=True)
    truth, found = np.zeros((2, 5, 6, 7), np.uint8)
    truth[2, 3, 1] = found[2, 3, 3] = 4
    for role in ("flair", "t1", "t1ce", "t2"):
        image = np.ones((5, 6, 7), np.int16)
        nifti.write_volume(folder / f"{folder.name}_{role}.nii.gz", image, affine)
    nifti.write_volume(folder / f"{folder.name}_seg.nii.gz", truth, affine)
    nifti.write_volume(tmp_path / f"{folder.name}.nii.gz", found, affine)
    table = steps.score_folder(tmp_path, tmp_path / "data", ("ET",))
    assert table["hd95_mm"].tolist() == [pytest.approx(4.0)]
