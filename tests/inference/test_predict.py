import nibabel as nib
import numpy as np
import pytest

from keras_medseg.data import store
from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.datasets import brats
from keras_medseg.data.formats import nifti
from keras_medseg.inference import predict

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


def window_of(network, case, batch_size=3, normalisation="none", window=WINDOW):
    return predict.predict_window(
        network, case, window=window, normalisation=normalisation, batch_size=batch_size
    )


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
    found = window_of(FirstChannel(), stored_case(tmp_path, image), normalisation="z_score")
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
    labels = predict.predict_case(
        {"WT": FirstChannel()},
        stored_case(tmp_path, image),
        window=WINDOW,
        normalisation="none",
        batch_size=3,
    )
    expected = np.zeros(FULL_SHAPE, np.uint8)
    expected[CENTRE] = image[(*CENTRE, 0)] * brats.EDEMA
    assert image[..., 0].sum() > np.count_nonzero(expected)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)


def test_predict_case_with_a_window_beyond_the_grid(tmp_path):
    # 16 slices of 8: four lie before the first one and four after the last one.
    image = random_image()
    labels = predict.predict_case(
        {"WT": FirstChannel()},
        stored_case(tmp_path, image),
        window=(6, 4, 16),
        normalisation="none",
        batch_size=5,
    )
    expected = np.zeros(FULL_SHAPE, np.uint8)
    expected[CENTRE[:2]] = image[(*CENTRE[:2], slice(None), 0)] * brats.EDEMA
    np.testing.assert_array_equal(labels, expected)


def test_one_network_of_several_regions_equals_one_network_each(tmp_path):
    case = stored_case(tmp_path, random_image())
    options = {"window": WINDOW, "normalisation": "none", "batch_size": 2}
    joint = predict.predict_case({"WT+TC": FirstChannel(outputs=2)}, case, **options)
    each = predict.predict_case({"WT": FirstChannel(), "TC": FirstChannel()}, case, **options)
    assert set(np.unique(joint)) == {brats.BACKGROUND, brats.NECROTIC}
    np.testing.assert_array_equal(joint, each)
    with pytest.raises(ValueError, match=r"networks\['WT'\]: found 2 output channels, expected 1"):
        predict.predict_case({"WT": FirstChannel(outputs=2)}, case, **options)


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


def test_batch_size_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="batch_size: found 0"):
        window_of(FirstChannel(), stored_case(tmp_path, random_image()), batch_size=0)


def test_merge_regions_for_every_combination():
    # Columns: WT, TC, ET predicted or not; last the label by intersection with the larger.
    table = [
        (0, 0, 0, brats.BACKGROUND),
        (1, 0, 0, brats.EDEMA),
        (1, 1, 0, brats.NECROTIC),
        (1, 1, 1, brats.ENHANCING),
        (1, 0, 1, brats.EDEMA),
        (0, 1, 0, brats.BACKGROUND),
        (0, 0, 1, brats.BACKGROUND),
        (0, 1, 1, brats.BACKGROUND),
    ]
    whole, core, enhancing, expected = np.array(table).T
    # The order of the mapping does not matter.
    labels = predict.merge_regions({"ET": enhancing, "WT": whole, "TC": core})
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)
    # The regions of the merged map are nested, and WT is as it was predicted.
    in_region = {name: np.isin(labels, codes) for name, codes in brats.REGIONS.items()}
    np.testing.assert_array_equal(in_region["WT"], whole == 1)
    np.testing.assert_array_equal(in_region["TC"], (whole & core) == 1)
    np.testing.assert_array_equal(in_region["ET"], (whole & core & enhancing) == 1)


def test_merge_regions_threshold_is_exclusive():
    probability = np.array([0.2, 0.3, 0.31, 0.5, 0.51])
    assert predict.merge_regions({"WT": probability}).tolist() == [0, 0, 0, 0, 2]
    assert predict.merge_regions({"WT": probability}, threshold=0.3).tolist() == [0, 0, 2, 2, 2]


def test_merge_regions_refuses_what_it_cannot_merge():
    one = np.ones((2, 2))
    with pytest.raises(ValueError, match=r"found regions \['NCR', 'WT'\], expected one or more"):
        predict.merge_regions({"WT": one, "NCR": one})
    with pytest.raises(ValueError, match=r"found regions \[\]"):
        predict.merge_regions({})
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2, 3\)"):
        predict.merge_regions({"WT": one, "TC": np.ones((2, 3))})


@pytest.mark.parametrize(
    ("dataset", "codes"),
    [
        ("BraTS2018", {"necrotic": 1, "edema": 2, "enhancing": 4}),
        ("BraTS2023", {"necrotic": 1, "edema": 2, "enhancing": 3}),
        ("Decathlon", {"necrotic": 2, "edema": 1, "enhancing": 3}),
    ],
)
def test_prediction_has_the_codes_of_its_data_set(tmp_path, dataset, codes):
    case = stored_case(tmp_path, random_image(), dataset=dataset)
    labels = np.zeros(FULL_SHAPE, np.uint8)
    labels[1, 2, 3], labels[2, 2, 3], labels[3, 2, 3] = (
        brats.NECROTIC,
        brats.EDEMA,
        brats.ENHANCING,
    )
    predict.write_prediction(tmp_path / "out.nii.gz", labels, case)
    written = nib.load(tmp_path / "out.nii.gz")
    voxels = np.asarray(written.dataobj)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_allclose(written.affine, AFFINES["LPS"])
    assert voxels[1:4, 2, 3].tolist() == [codes["necrotic"], codes["edema"], codes["enhancing"]]
    assert np.count_nonzero(voxels) == 3


@pytest.mark.parametrize("axes", ["LPS", "RAS", "ILA"])
def test_prediction_lies_on_the_voxels_of_the_file(tmp_path, axes):
    # In LPS voxel (1, 2, 3) of 12 x 10 x 8 counts from right, front and feet. The same voxel in
    # RAS counts from left and back: (11 - 1, 9 - 2, 3); in ILA the first axis counts from the
    # head (7 - 3), the second from the right (1), the third from the back (9 - 2).
    on_disk = {"LPS": (1, 2, 3), "RAS": (10, 7, 3), "ILA": (4, 1, 7)}[axes]
    case = stored_case(tmp_path, random_image(), axes=axes)
    labels = np.zeros(FULL_SHAPE, np.uint8)
    labels[1, 2, 3] = brats.EDEMA
    predict.write_prediction(tmp_path / "out.nii", labels, case)
    written = nib.load(tmp_path / "out.nii")
    assert np.argwhere(np.asarray(written.dataobj)).tolist() == [list(on_disk)]
    np.testing.assert_allclose(written.affine, AFFINES[axes])


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
    labels = predict.predict_case(
        {"WT": FirstChannel()}, case, window=FULL_SHAPE, normalisation="none", batch_size=8
    )
    predict.write_prediction(tmp_path / "out.nii.gz", labels, case)
    written = nifti.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(written.array, source * 2)
    np.testing.assert_allclose(written.header.affine, affine)


def test_prediction_must_be_on_the_full_grid(tmp_path):
    case = stored_case(tmp_path, random_image())
    with pytest.raises(ValueError, match=r"found shape \(6, 4, 4\), expected \(12, 10, 8\)"):
        predict.write_prediction(tmp_path / "out.nii.gz", np.zeros(WINDOW, np.uint8), case)
    assert not (tmp_path / "out.nii.gz").exists()
