"""From a folder to scores, on a small synthetic data set with the recipe of a small network."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from keras_medseg import pipeline, postprocess, recipe, registry
from keras_medseg.data import brats, nifti, phantom
from keras_medseg.errors import DataError

RUN = recipe.Recipe(
    paper="test",
    data=recipe.Data((48, 48, 24), "z_score", (), 0.3, slice_step=6),
    model=recipe.Model("residual_attention_unet", (("WT",), ("TC",), ("ET",)), {"filters": 4}),
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
    data = pipeline.load_data(folder, out / "store", RUN)
    pipeline.claim(out, RUN, data)
    pipeline.train_variant("main", RUN, data, out)
    return out, data, pipeline.score_variant("main", RUN, data, out)


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
    again = pipeline.score_variant("main", RUN, data, out)
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
    again = pipeline.score_folder(out / "predictions" / "main", held_out)
    pd.testing.assert_frame_equal(again, scores, check_exact=True)


def test_unlabelled_cases_are_predicted(finished, folder, tmp_path):
    out, data, _ = finished
    case = next(path for path in folder.rglob(data.held_out[0]) if path.is_dir())
    unlabelled = tmp_path / "new" / case.name
    unlabelled.mkdir(parents=True)
    for path in case.glob("*"):
        if "seg" not in path.name:
            (unlabelled / path.name).write_bytes(path.read_bytes())
    done = pipeline.predict_folder(out, tmp_path / "new", tmp_path / "out")
    assert done.endswith("1 label maps of ET, TC, WT by the variant main")
    one = nib.load(tmp_path / "out" / f"{case.name}.nii.gz")
    other = nib.load(out / "predictions" / "main" / f"{case.name}.nii.gz")
    np.testing.assert_array_equal(one.dataobj, other.dataobj)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{case.name}.nii.gz"]


def test_a_network_that_was_not_trained_is_named(tmp_path):
    with pytest.raises(DataError, match=r"model\.keras.*Train first"):
        pipeline.load_network(tmp_path, "main", ("WT",))


def test_a_network_is_loaded_with_its_main_output_or_with_all(tmp_path):
    network = registry.build("mtds_r2unet", input_shape=(16, 16, 4), filters=4)
    folder = pipeline.training_folder(tmp_path, "main", ("WT",))
    folder.mkdir(parents=True)
    network.save(folder / "model.keras")
    x = np.random.default_rng(0).random((1, 16, 16, 4), "float32")
    whole, *auxiliary = network(x)
    found = pipeline.load_network(tmp_path, "main", ("WT",))(x)
    np.testing.assert_array_equal(found, whole)
    every = pipeline.load_network(tmp_path, "main", ("WT",), auxiliary=True)(x)
    assert len(every) == 1 + len(auxiliary) == 4
    np.testing.assert_array_equal(every[3], auxiliary[2])


def test_small_components_are_dropped_where_the_recipe_says_so(finished):
    """The same network on the same case: what is left is what hangs together with the largest."""
    out, data, _ = finished
    networks = pipeline.load_networks(out, "main")
    case = data.store.cases[data.held_out[0]]
    raw = pipeline.label_case(networks, case, RUN)
    run = recipe.override(RUN, ["predict.smallest_component=1.0"])
    cleaned = pipeline.label_case(networks, case, run)
    np.testing.assert_array_equal(cleaned, postprocess.drop_small_components(raw, 1.0))


def test_what_cannot_be_predicted_with_is_named(finished, folder, tmp_path):
    out = finished[0]
    with pytest.raises(DataError, match=r"trained networks of main, expected those of other"):
        pipeline.predict_folder(out, folder, tmp_path, variant="other")
    with pytest.raises(DataError, match="expected the recipe of a run"):
        pipeline.predict_folder(tmp_path, folder, tmp_path)


def test_a_run_folder_belongs_to_one_recipe_and_one_set_of_cases(finished, tmp_path):
    _, data, _ = finished
    pipeline.claim(tmp_path, RUN, data)
    pipeline.claim(tmp_path, RUN, data)
    with pytest.raises(DataError, match=r"train\.epochs = 1.*expected 2"):
        pipeline.claim(tmp_path, recipe.override(RUN, ["train.epochs=2"]), data)
    swapped = replace(data, training=data.held_out, held_out=data.training)
    with pytest.raises(DataError, match="run with training = "):
        pipeline.claim(tmp_path, RUN, swapped)
    other = replace(data, store=SimpleNamespace(fingerprint="0" * 64))
    with pytest.raises(DataError, match=f"expected '{'0' * 64}'"):
        pipeline.claim(tmp_path, RUN, other)


def test_a_prediction_on_another_grid_is_refused(finished, folder, tmp_path):
    out, data, _ = finished
    name = data.held_out[0]
    right = nib.load(out / "predictions" / "main" / f"{name}.nii.gz")
    shifted = right.affine + np.array([[0, 0, 0, 50.0], [0] * 4, [0] * 4, [0] * 4])
    for case in brats.find_cases(folder):
        nifti.write_volume(tmp_path / f"{case.id}.nii.gz", np.asarray(right.dataobj), shifted)
    with pytest.raises(DataError, match="a grid 50 mm away"):
        pipeline.score_folder(tmp_path, folder)


def test_prediction_does_not_read_the_segmentation(finished, folder, tmp_path):
    out, data, _ = finished
    case = next(path for path in folder.rglob(data.held_out[0]) if path.is_dir())
    shutil.copytree(case, tmp_path / "new" / case.name)
    segmentation = next((tmp_path / "new").rglob("*seg.nii*"))
    segmentation.write_bytes(segmentation.read_bytes()[:100])
    assert "1 label maps" in pipeline.predict_folder(out, tmp_path / "new", tmp_path / "out")


def test_a_phantom_is_called_one_wherever_its_folder_is_entered(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    names = [pipeline._data_name(brats.find_cases(f)) for f in (folder, tmp_path)]
    assert names == ["phantom in the layout of BraTS2020"] * 2
    one = next(path for path in folder.iterdir() if path.is_dir())
    assert pipeline._data_name(brats.find_cases(one)).startswith("phantom")


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("model.networks=(('WX',),)", "WX"),
        ("train.schedule=plateau", "expected 'monitor'"),
        ("train.schedule=polynomial", "expected 'power'"),
        ("model.overrides.residual_block=plane", "plain"),
    ],
)
def test_a_mistake_in_a_recipe_is_met_before_anything_is_written(assignment, words):
    with pytest.raises(ValueError, match=words):
        pipeline.check_recipe(recipe.override(RUN, [assignment]), channels=4)


def test_one_patient_under_two_names_is_used_once(tmp_path):
    phantom.write_brats(tmp_path / "a", cases=3, layout="BraTS2020", shape=SHAPE)
    phantom.write_brats(tmp_path / "b", cases=1, layout="BraTS2021", shape=SHAPE)
    data = pipeline.load_data(tmp_path, tmp_path / "store", RUN)
    assert len(data.training) + len(data.held_out) == 3
    assert len(data.duplicates) == 1


def test_stored_cases_come_back_whole(finished, folder):
    _, data, _ = finished
    case = next(c for c in brats.find_cases(folder) if c.id == data.held_out[0])
    arrays, stored = brats.read_case(case), data.store.cases[case.id]
    np.testing.assert_array_equal(pipeline.full_image(stored), arrays.image)
    np.testing.assert_array_equal(pipeline.full_labels(stored), arrays.labels)
