"""Volumes predicted slice by slice, by networks whose answers are known."""

import numpy as np
import pytest

from keras_medseg.data import store
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets.brats import BACKGROUND, EDEMA, MODALITIES, NECROTIC
from keras_medseg.data.formats import nifti
from keras_medseg.tasks import task_of

from ..recipes import small_recipe

FULL_SHAPE, WINDOW = (12, 10, 8), (6, 4, 4)
# The centre window of 12 x 10 x 8 starts at ((12 - 6) / 2, (10 - 4) / 2, (8 - 4) / 2).
CENTRE = (slice(3, 9), slice(3, 7), slice(2, 6))
AFFINES = {
    "LPS": np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    "RAS": np.array([[0.5, 0, 0, -7], [0, 2, 0, 11], [0, 0, 3, 5], [0, 0, 0, 1.0]]),
    # First array axis runs to the feet, the second to the left, the third to the front.
    "ILA": np.array([[0, -2, 0, 4], [0, 0, 0.5, -3], [-3, 0, 0, 60], [0, 0, 0, 1.0]]),
}


class FirstChannel:
    """A network that returns its first input channel as probability; remembers its batches."""

    def __init__(self, outputs=1):
        self.outputs = outputs
        self.shapes = []

    def predict_on_batch(self, x):
        self.shapes.append(x.shape)
        return np.repeat(x[..., :1], self.outputs, axis=-1)


class Constant:
    def __init__(self, value, shape=None):
        self.value = value
        self.shape = shape

    def predict_on_batch(self, x):
        return np.full(self.shape or (*x.shape[:3], 1), self.value, np.float32)


def stored_case(folder, image, *, axes="LPS", dataset="BraTS2021"):
    """A case without segmentation, as the store keeps it. `image` is (X, Y, Z, C), LPS."""
    (folder / "source").write_bytes(b"")

    def read(case):
        return CaseArrays(image=image, labels=None, affine=AFFINES[axes], axis_codes=tuple(axes))

    case = Case("case", dataset, (folder / "source",), None, "case")
    return store.prepare([case], read, folder / "store", workers=1).cases["case"]


def random_image(seed=0, channels=2):
    """Voxels of 0 and 1 in a full grid."""
    return np.random.default_rng(seed).integers(0, 2, (*FULL_SHAPE, channels), dtype=np.int16)


def task(batch_size=3, normalization="none", window=WINDOW, channels=2):
    """Slices of a case of the first two modalities, or of one."""
    data = {
        "data.normalization": normalization,
        "data.window": window,
        "data.modalities": MODALITIES[:channels],
    }
    return task_of(small_recipe({**data, "train.batch_size": batch_size}))


def window_of(network, case, batch_size=3, normalization="none", window=WINDOW):
    chosen = task(batch_size, normalization, window, case.image.shape[-1])
    return chosen.predict_window(network, case)


def test_predict_window_is_the_centre_window_of_the_image(tmp_path):
    image = random_image()
    found = window_of(FirstChannel(), stored_case(tmp_path, image))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[..., 0], image[(*CENTRE, 0)])


def test_predict_window_of_a_cropped_brain(tmp_path):
    # One voxel of brain: the store keeps a box of 1 x 1 x 1, the window is zeros around it.
    image = np.zeros((*FULL_SHAPE, 1), np.int16)
    image[4, 6, 3] = 1
    found = window_of(FirstChannel(), stored_case(tmp_path, image))
    # In the window of origin (3, 3, 2) it lies at (4 - 3, 6 - 3, 3 - 2).
    assert np.argwhere(found[..., 0]).tolist() == [[1, 3, 1]]


def test_predict_window_normalises_as_asked(tmp_path):
    # Non-zero voxels 2 and 6: mean 4, standard deviation 2, so z-scores -1 and 1.
    image = np.zeros((*FULL_SHAPE, 1), np.int16)
    image[4, 4, 3], image[5, 4, 3] = 2, 6
    found = window_of(FirstChannel(), stored_case(tmp_path, image), normalization="z_score")
    assert found[1:3, 1, 1, 0] == pytest.approx([-1, 1], abs=1e-6)
    assert np.count_nonzero(found) == 2


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7])
def test_every_batch_has_the_same_shape_and_the_result_does_not_depend_on_it(tmp_path, batch_size):
    network, image = FirstChannel(), random_image()
    found = window_of(network, stored_case(tmp_path, image), batch_size)
    np.testing.assert_array_equal(found[..., 0], image[(*CENTRE, 0)])
    # Four slices in batches of 1, 3, 4 and 7: 4, 2, 1 and 1 calls.
    assert network.shapes == [(batch_size, 6, 4, 2)] * -(-4 // batch_size)


def test_a_keras_network_does_not_depend_on_the_batch_size(tmp_path):
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*WINDOW[:2], 2))
    x = keras.layers.Conv2D(3, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    network = keras.Model(inputs, keras.layers.Conv2D(2, 1, activation="sigmoid")(x))
    case = stored_case(tmp_path, random_image())
    together, alone = window_of(network, case, 4), window_of(network, case, 1)
    assert together.shape == (*WINDOW, 2)
    assert together.std() > 0.01
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_predict_case_pastes_back_and_counts_what_lies_outside_as_background(tmp_path):
    image = random_image()
    labels = task().predict({("WT",): FirstChannel()}, stored_case(tmp_path, image))
    expected = np.zeros(FULL_SHAPE, np.uint8)
    expected[CENTRE] = image[(*CENTRE, 0)] * EDEMA
    assert image[..., 0].sum() > np.count_nonzero(expected)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)


def test_predict_case_with_a_window_beyond_the_grid(tmp_path):
    # 16 slices of 8: four lie before the first one and four after the last one.
    image = random_image()
    chosen = task(batch_size=5, window=(6, 4, 16))
    labels = chosen.predict({("WT",): FirstChannel()}, stored_case(tmp_path, image))
    expected = np.zeros(FULL_SHAPE, np.uint8)
    expected[CENTRE[:2]] = image[(*CENTRE[:2], slice(None), 0)] * EDEMA
    np.testing.assert_array_equal(labels, expected)


def test_one_network_of_several_regions_equals_one_network_each(tmp_path):
    case = stored_case(tmp_path, random_image())
    joint = task().predict({("WT", "TC"): FirstChannel(outputs=2)}, case)
    each = task().predict({("WT",): FirstChannel(), ("TC",): FirstChannel()}, case)
    assert set(np.unique(joint)) == {BACKGROUND, NECROTIC}
    np.testing.assert_array_equal(joint, each)
    with pytest.raises(ValueError, match=r"networks\['WT'\]: found 2 output channels, expected 1"):
        task().predict({("WT",): FirstChannel(outputs=2)}, case)


def test_the_map_of_each_network_is_scored_alone_beside_the_merged_one(tmp_path):
    """The window has 6 x 4 x 4 = 96 voxels; all of its first half are core, and nothing is edema.
    WT finds the first half, TC everything: merged, TC is the half and its Dice 1; alone it has 48
    voxels in common with 48 true and 96 found ones."""
    image = np.zeros((*FULL_SHAPE, 2), np.int16)
    image[3:6, 3:7, 2:6, 0] = 1
    labels = np.zeros(FULL_SHAPE, np.uint8)
    labels[3:6, 3:7, 2:6] = NECROTIC
    arrays = CaseArrays(image, labels, AFFINES["LPS"], ("L", "P", "S"))
    case = store.StoredCase.from_arrays(Case("case", "BraTS2021", (), None, "case"), arrays)
    chosen = task_of(
        small_recipe(
            {
                "data.normalization": "none",
                "data.window": WINDOW,
                "data.modalities": MODALITIES[:2],
                "model.targets": (("WT",), ("TC",)),
            }
        )
    )
    networks = {("WT",): FirstChannel(), ("TC",): Constant(0.75)}
    scored = chosen.score_maps(chosen.probabilities(networks, case), case)
    np.testing.assert_array_equal(scored.prediction, labels)
    assert [(row["region"], row["dice"]) for row in scored.rows] == [("WT", 1.0), ("TC", 1.0)]
    assert all("dice_alone" not in row for row in scored.rows)
    assert list(scored.further) == [
        {"region": "WT", "dice_alone": 1.0},
        {"region": "TC", "dice_alone": pytest.approx(2 * 48 / (48 + 96))},
    ]
    # A probability of 1/2 is not above it.
    maps = chosen.probabilities({**networks, ("TC",): Constant(0.5)}, case)
    half = chosen.score_maps(maps, case)
    assert half.further[1]["dice_alone"] == 0


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Constant(0.5, (3, 6, 4)), r"output of shape \(3, 6, 4\)"),
        (Constant(0.5, (3, 3, 2, 1)), r"output of shape \(3, 3, 2, 1\)"),
        (Constant(np.nan), "not finite for case case"),
        (Constant(np.inf), "not finite for case case"),
    ],
)
def test_bad_networks_are_refused(tmp_path, network, message):
    with pytest.raises(ValueError, match=message):
        window_of(network, stored_case(tmp_path, random_image()))


@pytest.mark.parametrize("axes", ["LPS", "RAS", "ILA"])
def test_file_to_prediction_overlays_voxel_by_voxel(tmp_path, axes):
    """A network that marks bright voxels, from a file in any order back to that order."""
    shape = tuple(
        np.array(FULL_SHAPE)[{"LPS": [0, 1, 2], "RAS": [0, 1, 2], "ILA": [2, 0, 1]}[axes]]
    )
    source = np.random.default_rng(5).integers(0, 2, shape, dtype=np.int16)
    nifti.write_volume(tmp_path / "in.nii.gz", source, AFFINES[axes])
    volume = nifti.load(tmp_path / "in.nii.gz")
    affine = volume.header.affine
    case = stored_case(tmp_path, nifti.reorient(volume.array, affine)[..., None], axes=axes)
    chosen = task(batch_size=8, window=FULL_SHAPE, channels=1)
    labels = chosen.predict({("WT",): FirstChannel()}, case)
    chosen.write(tmp_path / "out.nii.gz", labels, case)
    written = nifti.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(written.array, source * 2)
    np.testing.assert_allclose(written.header.affine, affine)
