"""The task on whole images: fitted numbers, masks of classes, sizes."""

from functools import partial

import numpy as np
import pytest

from experiments.csam_knee.recipe import RECIPE
from keras_medseg import recipe
from keras_medseg.data import store
from keras_medseg.data.formats import image_files
from keras_medseg.phantoms.images import write_images
from keras_medseg.runs import steps
from keras_medseg.tasks import task_of

LIGAMENT, OTHERS = (204,), (51, 102, 153, 255)


def task_with(classes, **data):
    changes = {"data.classes": classes, "data.size": (32, 32)}
    changes |= {f"data.{name}": value for name, value in data.items()}
    return task_of(recipe.override(RECIPE, changes))


@pytest.fixture(scope="module")
def knees(tmp_path_factory):
    path = tmp_path_factory.mktemp("knees")
    write_images(path, cases=4, layout="knee", size=(64, 80))
    return path


CLASSES = {"ligament": LIGAMENT, "background": OTHERS}


@pytest.mark.parametrize("classes", [CLASSES, {"background": OTHERS, "ligament": LIGAMENT}])
def test_background_is_no_target_wherever_it_is_named(knees, tmp_path, classes):
    """Gray value 204 of the masks is the target, and a mask of that one class is 0 and 255."""
    task = task_with(classes)
    assert task.dataset.targets == task.dataset.regions == {"ligament": (1,)}
    case = task.dataset.find(knees).cases[0]
    decoded = store.prepare([case], task.reader, tmp_path / "store", workers=1)
    stored = decoded.cases[case.id]
    assert set(np.unique(task.dataset.read(case).labels)) == {0, 1}
    task = task.fit(decoded, [case.id])
    _, y = task.batches(decoded, [case.id], ["ligament"], training=False).batch(0, 0)
    truth = stored.mask == 1
    assert truth.any()
    np.testing.assert_array_equal(y[0, ..., 0], truth)
    task.write(tmp_path / "mask.png", {"ligament": truth.astype("f4")}, stored)
    written = image_files.read_mask(tmp_path / "mask.png").pixels[..., 0]
    np.testing.assert_array_equal(written, truth * np.uint8(255))


def test_a_mask_is_written_at_the_size_of_the_networks_or_of_the_file(knees, tmp_path):
    task = task_with(CLASSES)
    case = task.dataset.find(knees).cases[0]
    stored = store.StoredCase.from_arrays(case, task.reader(case))
    assert (stored.pixels.shape[:2], stored.source_shape[:2]) == ((32, 32), (64, 80))
    found = {"ligament": (stored.mask == 1).astype("f4")}
    task.write(tmp_path / "small.png", found, stored)
    task.dataset.write_labels(tmp_path / "own.png", task.label_map(found, stored), stored)
    sizes = [
        image_files.read_mask(tmp_path / name).pixels.shape[:2] for name in ("small.png", "own.png")
    ]
    assert sizes == [(32, 32), (64, 80)]


def test_every_variant_is_fitted_with_its_own_preparation(knees, tmp_path):
    """A variant that changes equalization or normalization has other numbers than the base."""
    changes = {
        "base": {"data.normalization": "mean_std", "data.equalization": False},
        "equalized": {"data.normalization": "mean_std", "data.equalization": True},
        "per_image": {"data.normalization": "mean_std_per_image"},
        "unit": {"data.normalization": "unit_range"},
    }
    small = task_with(CLASSES).recipe
    recipes = {name: recipe.override(small, fields) for name, fields in changes.items()}
    cohort = steps.load_cohort(knees, tmp_path / "store", task_of(small))
    fitted = {name: variant.fitted for name, variant in steps.fit_variants(recipes, cohort).items()}
    pixels = {
        name: np.concatenate(
            [
                task_of(chosen)
                .fit(cohort.store, cohort.training)
                .preparation.condition(cohort.store.cases[case].pixels)
                for case in cohort.training
            ]
        )
        for name, chosen in recipes.items()
    }
    for name in ("base", "equalized"):
        assert fitted[name]["mean"] == pytest.approx([pixels[name].mean() / 255])
        assert fitted[name]["std"] == pytest.approx([pixels[name].std() / 255])
    assert fitted["base"]["mean"] != pytest.approx(fitted["equalized"]["mean"], rel=0.01)
    assert fitted["per_image"] == {}
    assert fitted["unit"] == {"mean": [0.0], "std": [1.0]}


def test_a_task_that_was_not_fitted_refuses_to_guess(knees, tmp_path):
    """Without the training images' numbers there are no batches: not those of each image."""
    task = task_with(CLASSES, normalization="mean_std")
    case = task.dataset.find(knees).cases[0]
    decoded = store.prepare([case], task.reader, tmp_path / "store", workers=1)
    make = partial(task.batches, decoded, [case.id], ["ligament"], training=False)
    with pytest.raises(ValueError, match=r"without mean and deviation.*Call fit first"):
        make()
    images = task_with(CLASSES, normalization="mean_std_per_image")
    x, _ = images.batches(decoded, [case.id], ["ligament"], training=False).batch(0, 0)
    assert x.mean() == pytest.approx(0, abs=1e-5)
