"""What the pipeline asks of pictures, where it is not plain."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.csam_knee.recipe import RECIPE
from keras_medseg import recipe
from keras_medseg.data import store
from keras_medseg.data.datasets import image_folders
from keras_medseg.data.formats import image_files
from keras_medseg.phantoms.images import write_images
from keras_medseg.tasks import images

LIGAMENT, OTHERS = (204,), (51, 102, 153, 255)


def run_with(classes) -> recipe.Recipe:
    data = replace(RECIPE.data, classes=classes, size=(32, 32))
    return replace(RECIPE, data=data)


@pytest.mark.parametrize(
    "classes",
    [
        {"ligament": LIGAMENT, "background": OTHERS},
        {"background": OTHERS, "ligament": LIGAMENT},
    ],
)
def test_background_is_no_target_wherever_it_is_named(tmp_path, classes):
    """Grey value 204 of the masks is the target, and a mask of that one class is 0 and 255."""
    write_images(tmp_path / "knees", cases=1, layout="knee", size=(64, 64))
    run = run_with(classes)
    assert images.targets(run) == {"ligament": (1,)}
    [case] = images.find_cases(tmp_path / "knees")
    decoded = store.prepare([case], images.reader(run), tmp_path / "store", workers=1)
    stored = decoded.cases[case.id]
    whole = image_folders.read_case(case, classes=classes).labels
    assert set(np.unique(whole)) == {0, 1}
    _, y = images.batches(run, decoded, [case.id], ["ligament"], training=False).batch(0, 0)
    truth = stored.full_labels()[:, :, 0] == 1
    assert truth.any()
    np.testing.assert_array_equal(y[0, ..., 0], truth)
    images.write(tmp_path / "mask.png", {"ligament": truth.astype("f4")}, run, stored)
    written = image_files.read_mask(tmp_path / "mask.png").pixels[..., 0]
    np.testing.assert_array_equal(written, truth * np.uint8(255))
