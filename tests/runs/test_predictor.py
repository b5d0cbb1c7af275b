"""The predictor gives what `keras-medseg predict` writes, bit by bit, and writes nothing."""

import os
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest

import keras_medseg
from keras_medseg import recipe
from keras_medseg.data.formats import image_files
from keras_medseg.errors import DataError
from keras_medseg.runs.members import members
from keras_medseg.runs.predict_folder import Options, predict_with
from keras_medseg.runs.predictor import Predictor
from keras_medseg.runs.run_folder import RunFolder

from .. import known_runs
from ..known_runs import AS_THEY_ARE, IMAGES, PATCHES, RAS, SHAPE, SLICES

FACTS = {"datasets": ["BraTS2021"]}
FILES = {
    name: Path(f"BraTS2021_00000/BraTS2021_00000_{name}.nii.gz")
    for name in ("flair", "t1", "t1ce", "t2")
}


def disk(path):
    return np.asarray(nibabel.load(path).dataobj)


def files(folder):
    return {str(path) for path in folder.rglob("*")}


@pytest.fixture
def volumes(tmp_path):
    """A case on disk, and the array and affine of its files."""
    known_runs.write_volumes(tmp_path / "cases", 1)
    paths = {name: tmp_path / "cases" / path for name, path in FILES.items()}
    return paths, np.stack([disk(path) for path in paths.values()], axis=-1)


def written(run, folder, out, **options):
    """Label map and FLAIR's probabilities as the command line writes them."""
    found = predict_with(
        members(run if isinstance(run, list) else [run]),
        folder,
        out,
        Options(probabilities=True, **options),
    )
    assert found
    [labels] = out.glob("*.*[gz]")
    return labels, {path.parent.name: path for path in out.glob("probabilities/*/*")}


def require_equal(found, expected, affine):
    labels, maps = expected
    np.testing.assert_array_equal(found.labels, disk(labels), strict=True)
    assert found.labels.any()
    assert set(found.probabilities) == set(maps)
    for name, path in maps.items():  # the file has steps of 2^-14
        np.testing.assert_allclose(found.probabilities[name], disk(path), rtol=0, atol=2**-15)
        assert found.probabilities[name].dtype == np.float32
    np.testing.assert_array_equal(found.affine, affine)


@pytest.mark.parametrize(
    ("chosen", "dimensions"),
    [
        (SLICES, 2),
        (PATCHES, 3),
        (recipe.override(PATCHES, {"data.options": {"spacing_mm": (1.5, 1, 2)}}), 3),
    ],
    ids=["slices", "patches", "resampled"],
)
def test_volumes_from_array_files_and_folder_are_the_label_map_on_disk(
    tmp_path, volumes, chosen, dimensions
):
    paths, image = volumes
    known_runs.write_run(tmp_path / "run", known_runs.next_voxel(dimensions), chosen, facts=FACTS)
    expected = written(tmp_path / "run", tmp_path / "cases", tmp_path / "out")
    predictor = keras_medseg.load(tmp_path / "run")
    before = files(tmp_path)
    for case, grid in (
        (image, {"affine": RAS}),
        (image.astype(np.float64), {"affine": RAS}),
        (paths, {}),
        ({name: str(path) for name, path in paths.items()}, {}),
        (tmp_path / "cases", {}),
    ):
        require_equal(predictor(case, **grid), expected, RAS)
    [(name, found)] = predictor.cases(tmp_path / "cases")
    require_equal(found, expected, RAS)
    assert name == "BraTS2021_00000"
    assert files(tmp_path) == before
    assert (predictor.channels, predictor.regions) == (tuple(FILES), ("WT",))


def test_labels_have_the_codes_of_the_release_and_the_axes_of_the_array(tmp_path, volumes):
    """ET is 4 in 2021 and 3 in 2023; the window of the networks lies in the middle."""
    _, image = volumes
    nested = {("WT", "TC", "ET"): known_runs.constant(0.9, 0.9, 0.9)}
    for release, code in (("BraTS2021", 4), ("BraTS2023", 3)):
        run = known_runs.write_run(tmp_path / release, nested, facts={"datasets": [release]})
        predictor = keras_medseg.load(run.path)
        found = predictor(image, affine=RAS)
        center = np.zeros(SHAPE, np.uint8)
        center[known_runs.CENTER] = code
        np.testing.assert_array_equal(found.labels, center)
        assert predictor.labels[code] == "enhancing"
        turned = predictor(image.transpose(2, 0, 1, 3), affine=RAS[:, [2, 0, 1, 3]])
        np.testing.assert_array_equal(turned.labels, center.transpose(2, 0, 1))
        np.testing.assert_array_equal(turned.affine, RAS[:, [2, 0, 1, 3]])


def test_a_spacing_stands_for_axes_to_the_left_back_and_top(tmp_path, volumes):
    _, image = volumes
    known_runs.write_run(tmp_path / "run", known_runs.next_voxel(), facts=FACTS)
    predictor = keras_medseg.load(tmp_path / "run")
    expected = predictor(image, affine=RAS)
    found = predictor(image[::-1, ::-1], spacing_mm=(1, 1, 1))
    np.testing.assert_array_equal(found.labels[::-1, ::-1], expected.labels)
    np.testing.assert_array_equal(found.affine, np.diag([-1, -1, 1, 1]))


def test_images_from_array_file_and_folder_are_the_mask_on_disk(tmp_path):
    [pixels] = known_runs.write_images(tmp_path / "cases", 1)
    network = known_runs.next_voxel(channels=3, scale=1.0)
    known_runs.write_run(
        tmp_path / "run", network, IMAGES, fitted=AS_THEY_ARE, facts={"datasets": ["images"]}
    )
    labels, maps = written(tmp_path / "run", tmp_path / "cases", tmp_path / "out")
    predictor = keras_medseg.load(str(tmp_path / "run"))
    for case in (pixels, tmp_path / "cases/images/0.png", tmp_path / "cases"):
        found = predictor(case)
        mask = image_files.load(labels).pixels[..., 0]
        np.testing.assert_array_equal(found.labels, mask, strict=True)
        assert set(np.unique(mask)) == {0, 255}
        from PIL import Image

        probabilities = np.asarray(Image.open(maps["polyp"]), float) / 65535
        np.testing.assert_allclose(found.probabilities["polyp"], probabilities, atol=2**-16)
    assert predictor.labels == {255: "polyp"}
    with pytest.raises(DataError, match=r"array: found gray .* expected color"):
        predictor(pixels[..., 0])
    with pytest.raises(ValueError, match=r"found float64 of shape .*expected uint8"):
        predictor(pixels / 255)


def test_several_sources_are_averaged_as_on_the_command_line(tmp_path, volumes):
    paths, image = volumes
    for name, network in (("a", known_runs.next_voxel()), ("b", known_runs.constant(0.7))):
        known_runs.write_run(tmp_path / name, network, facts=FACTS)
    sources = [tmp_path / "a", tmp_path / "b"]
    options = {"flips": "x", "threshold": 0.6}
    expected = written(sources, tmp_path / "cases", tmp_path / "out", **options)
    predictor = keras_medseg.load(*sources, **options)
    require_equal(predictor(image, affine=RAS), expected, RAS)
    require_equal(predictor(paths), expected, RAS)


def test_threads_get_their_own_results_from_networks_that_were_loaded_once(
    tmp_path, volumes, monkeypatch
):
    loaded = []
    load = RunFolder.network
    monkeypatch.setattr(
        RunFolder, "network", lambda *args, **options: loaded.append(args) or load(*args, **options)
    )
    _, image = volumes
    known_runs.write_run(tmp_path / "run", known_runs.next_voxel(), facts=FACTS)
    predictor = keras_medseg.load(tmp_path / "run")
    images = [np.roll(image, shift, axis=0) for shift in range(6)]
    alone = [predictor(each, affine=RAS).labels for each in images]
    found = {}

    def work(number):
        found[number] = predictor(images[number], affine=RAS).labels

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, labels in enumerate(alone):
        np.testing.assert_array_equal(found[number], labels)
    assert len({labels.tobytes() for labels in alone}) == len(images)
    assert len(loaded) == 1


def test_one_thread_at_a_time_is_within_a_network(tmp_path, volumes):
    class Watched:
        input_shape = (None, None, None, 4)
        inside, most = 0, 0

        def predict_on_batch(self, batch):
            self.inside += 1
            self.most = max(self.most, self.inside)
            threading.Event().wait(0.01)
            self.inside -= 1
            return np.zeros((*batch.shape[:3], 1), np.float32)

    known_runs.write_run(tmp_path / "run", known_runs.constant(0.5), facts=FACTS)
    [member] = members([tmp_path / "run"])
    watched = Watched()
    member.__dict__["networks"] = {("WT",): watched}
    predictor = Predictor([member])
    call = {"affine": RAS}
    threads = [
        threading.Thread(target=predictor, args=(volumes[1],), kwargs=call) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watched.most == 1


def test_what_is_no_case_is_refused_in_one_line(tmp_path, volumes):
    paths, image = volumes
    known_runs.write_run(tmp_path / "run", known_runs.next_voxel(), facts=FACTS)
    predictor = keras_medseg.load(tmp_path / "run")
    empty = image.copy()
    empty[..., 2] = 0
    unknown = np.where(image == 3, np.nan, image)
    channels = "flair, t1, t1ce, t2"
    for case, grid, words in (
        (image, {}, "affine, spacing_mm: found both or none"),
        (image, {"affine": RAS, "spacing_mm": (1, 1, 1)}, "found both or none"),
        (paths, {"affine": RAS}, "found one beside files"),
        (image, {"affine": np.zeros((4, 4))}, r"expected \(4, 4\) voxel -> mm"),
        (image, {"spacing_mm": (1, 0, 1)}, "expected three lengths in mm"),
        (image[..., :3], {"affine": RAS}, rf"\(12, 10, 8, 3\), expected .*: {channels}"),
        (image[..., 0], {"affine": RAS}, rf"\(12, 10, 8\), expected .*: {channels}"),
        (image > 3, {"affine": RAS}, "found bool"),
        (unknown, {"affine": RAS}, "voxels that are not finite"),
        (empty, {"affine": RAS}, "zeros alone in the channel t1ce"),
        ({**paths, "pd": paths["t1"]}, {}, "channel: found 'pd'"),
        ({"t1": paths["t1"]}, {}, f"found t1, expected a file for each of {channels}"),
        (paths["t1"], {}, "found 1 channels, expected 4"),
        (tmp_path / "nowhere", {}, "nowhere: found no file, expected a file or a folder"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            predictor(case, **grid)
        assert "\n" not in str(error.value)
    known_runs.write_volumes(tmp_path / "cases", 1, first=1)
    with pytest.raises(ValueError, match=r"found 2 cases, expected one\. Call predictor\.cases"):
        predictor(tmp_path / "cases")
    paths["t2"].write_bytes(b"damaged")
    found = []
    with pytest.raises(DataError, match="t2"):
        found.extend(name for name, _ in predictor.cases(tmp_path / "cases"))
    assert found in ([], ["BraTS2021_00001"])


def test_load_names_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_MEDSEG_HOME", str(tmp_path / "home"))
    for source in ("dcabes2020/brats2017", str(tmp_path / "run")):
        with pytest.raises(ValueError, match=r"expected a path or one of: phantom/brats2021-small"):
            keras_medseg.load(source)
    with pytest.raises(ValueError, match="found no name or path"):
        keras_medseg.load()
    assert not os.listdir(tmp_path)
