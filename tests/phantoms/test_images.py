"""Synthetic images: what every drawing has to do, and what is written in the real layouts."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from keras_medseg.data.datasets.image_folders import ImageFolders
from keras_medseg.errors import DataError
from keras_medseg.phantoms import brats, knee
from keras_medseg.phantoms.endoscopy import FRAMES_PER_SEQUENCE
from keras_medseg.phantoms.images import LAYOUTS, write_images

from .folders import written

SMALL = {"CVC-ClinicDB": (48, 64), "ISIC2018": (48, 64), "knee": (64, 64)}
MEDIUM = {"CVC-ClinicDB": (96, 128), "ISIC2018": (96, 128), "knee": (128, 128)}
# The label that a network is trained for: in the knee, the patellar ligament.
OBJECT = {"CVC-ClinicDB": 1, "ISIC2018": 1, "knee": 4}


def draw(layout: str, seed: int, index: int, size=SMALL) -> tuple[np.ndarray, np.ndarray]:
    return LAYOUTS[layout].draw(seed, index, size[layout])


def check(layout: str, folder) -> list[str]:
    classes = knee.CLASSES if layout == "knee" else None
    report = ImageFolders(classes or {}).check(folder)
    assert report.ok, report.text
    return [problem.message for problem in report.problems]


def best_threshold_dice(images: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Mean Dice of the best threshold that all share: any channel, raw or z-scored, either side."""
    best = 0.0
    for channel in range(images[0][0].shape[2]):
        for scaled in (False, True):
            curves = []
            for pixels, mask in images:
                values = pixels[..., channel].astype(np.float64).ravel()
                steps = np.arange(0, 256, 2.0)
                if scaled:
                    values = (values - values.mean()) / values.std()
                    steps = np.arange(-4, 6, 0.05)
                predicted = len(values) - np.searchsorted(np.sort(values), steps)
                hits = mask.sum() - np.searchsorted(np.sort(values[mask.ravel()]), steps)
                above = 2 * hits / (predicted + mask.sum())
                below = 2 * (mask.sum() - hits) / (len(values) - predicted + mask.sum())
                curves.append([above, below])
            best = max(best, float(np.mean(curves, axis=0).max()))
    return best


@pytest.mark.parametrize("layout", SMALL)  # the other layouts show the same drawings
class TestDrawings:
    def test_equal_arguments_give_equal_pixels(self, layout):
        first, second = draw(layout, 3, 5), draw(layout, 3, 5)
        for one, other in zip(first, second):
            np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize("other", [(4, 5), (3, 60)])
    def test_seed_and_index_change_image_and_labels(self, layout, other):
        for one, another in zip(draw(layout, 3, 5), draw(layout, *other)):
            assert (one != another).mean() > 0.01

    def test_shapes_types_and_labels(self, layout):
        for index in range(8):
            image, labels = draw(layout, 1, index)
            rows, columns = SMALL[layout]
            assert image.shape == ((rows, columns) if layout == "knee" else (rows, columns, 3))
            assert (image.dtype, labels.dtype) == (np.uint8, np.uint8)
            assert labels.shape == (rows, columns)
            assert set(np.unique(labels)) <= set(range(6 if layout == "knee" else 2))
            assert labels.any()

    def test_the_size_changes_the_grid_and_not_the_scene(self, layout):
        small = draw(layout, 0, 2)[1] > 0
        large = draw(layout, 0, 2, {layout: tuple(2 * side for side in SMALL[layout])})[1] > 0
        both = (small & large[::2, ::2]).sum()
        assert 2 * both / (small.sum() + large[::2, ::2].sum()) > 0.85

    def test_no_threshold_finds_the_object(self, layout):
        images = []
        for index in range(24):
            # One frame of each sequence.
            step = FRAMES_PER_SEQUENCE if layout == "CVC-ClinicDB" else 1
            image, labels = draw(layout, 0, index * step, MEDIUM)
            if (labels == OBJECT[layout]).any():
                pixels = image.reshape(*labels.shape, -1)
                images.append((pixels, labels == OBJECT[layout]))
        assert len(images) > 12
        dice = best_threshold_dice(images)
        print(f"{layout}: best single threshold {dice:.3f}")
        assert dice < 0.6


class TestLayouts:
    def test_cvc_clinicdb(self, tmp_path):
        paths = write_images(tmp_path, cases=8, seed=1, size=SMALL["CVC-ClinicDB"])
        assert [path.name for path in paths] == [f"{n}.tif" for n in range(1, 9)]
        cases = ImageFolders().find(tmp_path).cases
        assert [case.group for case in cases] == ["sequence_01"] * 4 + ["sequence_02"] * 4
        assert check("CVC-ClinicDB", tmp_path) == []
        for index, case in enumerate(cases):
            arrays = ImageFolders().read(case)
            image, labels = draw("CVC-ClinicDB", 1, index)
            np.testing.assert_array_equal(arrays.image[:, :, 0], image)
            if index % 4 < 3:
                np.testing.assert_array_equal(arrays.labels[..., 0], labels)
            else:
                assert (arrays.labels[..., 0] != labels).mean() < 0.02
        values = {len(np.unique(np.asarray(Image.open(case.labels)))) for case in cases}
        assert values == {2, 3}

    def test_isic(self, tmp_path):
        write_images(tmp_path, cases=2, layout="ISIC2018", size=SMALL["ISIC2018"])
        cases = ImageFolders().find(tmp_path).cases
        assert [case.id for case in cases] == ["ISIC_0000001", "ISIC_0000002"]
        assert cases[0].dataset == "ISIC2018"
        assert check("ISIC2018", tmp_path) == []
        arrays = ImageFolders().read(cases[0])
        image, labels = draw("ISIC2018", 0, 0)
        assert np.abs(arrays.image[:, :, 0].astype(int) - image).mean() < 4
        np.testing.assert_array_equal(arrays.labels[..., 0], labels)

    def test_knee(self, tmp_path):
        write_images(tmp_path, cases=8, layout="knee", size=SMALL["knee"])
        cases = ImageFolders().find(tmp_path).cases
        assert [Image.open(case.labels).mode for case in cases] == ["L"] + 6 * ["LA"] + ["L"]
        [warning] = check("knee", tmp_path)
        assert re.search(r"masks/4\.png: found gr[ae]y codes", warning)
        for index in (0, 1, 7):
            arrays = ImageFolders(knee.CLASSES).read(cases[index])
            image, labels = draw("knee", 0, index)
            np.testing.assert_array_equal(arrays.image[:, :, 0, 0], image)
            np.testing.assert_array_equal(arrays.labels[..., 0], labels)


class TestWriting:
    def test_folder_says_that_it_is_synthetic(self, tmp_path):
        write_images(tmp_path, cases=1, seed=7, layout="knee", size=SMALL["knee"])
        readme = (tmp_path / "README.txt").read_text()
        assert "Synthetic" in readme
        assert "seed 7" in readme
        assert json.loads((tmp_path / "PHANTOM").read_text()) == {
            "version": knee.VERSION,
            "seed": 7,
            "layout": "knee",
            "shape": [64, 64],
            "cases": 1,
        }

    def test_complete_cases_are_kept_and_missing_files_replaced(self, tmp_path):
        seen = []
        options = {"cases": 2, "size": (48, 64)}
        write_images(tmp_path, **options, progress=lambda *step: seen.append(step))
        assert seen == [(1, 2, "1"), (2, 2, "2")]
        before = written(tmp_path)
        kept = tmp_path / "Original/1.tif"
        time = kept.stat().st_mtime_ns
        (tmp_path / "Ground Truth/2.tif").unlink()
        write_images(tmp_path, **options)
        assert written(tmp_path) == before
        assert kept.stat().st_mtime_ns == time

    def test_more_cases_are_added_and_fewer_take_nothing_away(self, tmp_path):
        for cases in (1, 8, 2):
            paths = write_images(tmp_path, cases=cases, size=(48, 64))
            assert len(paths) == cases
        assert len(ImageFolders().find(tmp_path).cases) == 8
        assert check("CVC-ClinicDB", tmp_path) == []

    @pytest.mark.parametrize("first", LAYOUTS)
    def test_another_phantom_replaces_the_earlier_one(self, first, tmp_path):
        options = {"cases": 2, "seed": 2, "layout": "knee", "size": (64, 64)}
        write_images(tmp_path / "a", cases=3, layout=first, size=(48, 64))
        write_images(tmp_path / "a", **options)
        write_images(tmp_path / "b", **options)
        assert written(tmp_path / "a") == written(tmp_path / "b")
        assert {path.name for path in (tmp_path / "a").iterdir() if path.is_dir()} == {
            "images",
            "masks",
        }

    def test_other_files_are_left_alone(self, tmp_path):
        (tmp_path / "photo.jpg").write_bytes(b"precious")
        with pytest.raises(DataError, match="not a phantom"):
            write_images(tmp_path, cases=1)
        assert written(tmp_path) == {"photo.jpg": b"precious"}

    def test_a_phantom_of_volumes_is_left_alone(self, tmp_path):
        brats.write_brats(tmp_path, cases=1, shape=(24, 24, 24))
        before = written(tmp_path)
        with pytest.raises(DataError, match=r"found a phantom of BraTS2021, expected a new"):
            write_images(tmp_path, cases=1)
        assert written(tmp_path) == before

    @pytest.mark.parametrize(
        ("arguments", "name"),
        [
            ({"layout": "ISIC2016"}, "layout"),
            ({"cases": 0}, "cases"),
            ({"size": (16, 16)}, "size"),
            ({"size": (64, 200)}, "size"),
            ({"size": (64,)}, "size"),
        ],
    )
    def test_odd_arguments_are_refused_before_anything_is_written(self, tmp_path, arguments, name):
        with pytest.raises(ValueError, match=name):
            write_images(tmp_path / "set", **{"cases": 1, **arguments})
        assert not (tmp_path / "set").exists()
