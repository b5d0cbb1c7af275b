import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import keras_medseg
from keras_medseg.data.datasets.brats import Brats
from keras_medseg.errors import DataError
from keras_medseg.phantoms.brain import VERSION, brats_case
from keras_medseg.phantoms.brats import LAYOUTS, write_brats

from .folders import written

OTHER_LABELS = [f"BraTS2024-{name}" for name in ("GLI", "MEN-RT", "PED")]
OTHER_LABELS += ["BraTS2025-GLI", "BraTS2025-MET"]
SMALL = (48, 48, 31)


class TestLayouts:
    @pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in OTHER_LABELS])
    def test_package_reads_back_what_was_drawn(self, tmp_path, layout):
        paths = write_brats(tmp_path / "set", cases=2, seed=1, layout=layout, shape=SMALL)
        assert len(paths) == 2
        assert all(path.exists() for path in paths)
        cases = Brats().find(tmp_path / "set").cases
        assert [case.dataset for case in cases] == [layout, layout]
        drawn = [brats_case(1, index, SMALL) for index in range(2)]
        for case in cases:
            read = Brats().read(case)
            equal = [np.array_equal(read.image, one.image) for one in drawn]
            assert sum(equal) == 1
            np.testing.assert_array_equal(read.labels, drawn[equal.index(True)].labels)
        assert Brats().check(tmp_path / "set").ok

    @pytest.mark.parametrize("layout", OTHER_LABELS)
    def test_a_fourth_label_is_part_of_the_necrosis(self, tmp_path, layout):
        write_brats(tmp_path, cases=1, seed=1, layout=layout, shape=SMALL)
        kind = Brats(release=layout)
        [case] = kind.find(tmp_path).cases
        read, drawn = kind.read(case), brats_case(1, 0, SMALL)
        if layout == "BraTS2024-MEN-RT":  # the core as target, in T1ce alone
            np.testing.assert_array_equal(read.labels, np.isin(drawn.labels, (1, 3)))
            np.testing.assert_array_equal(read.image[..., 0], drawn.image[..., 2])
            return
        fourth = read.labels == 4
        # Of the gliomas of 2025 every other one is from before the treatment, as is the first.
        assert fourth.any() == (layout != "BraTS2025-GLI")
        assert set(drawn.labels[fourth]) <= {1}
        np.testing.assert_array_equal(np.where(fourth, 1, read.labels), drawn.labels)
        np.testing.assert_array_equal(read.image[~fourth], drawn.image[~fourth])
        # Fluid is dark in FLAIR and bright in T2.
        assert (read.image[fourth][:, 0] < drawn.image[fourth][:, 0]).all()
        assert (read.image[fourth][:, 3] > drawn.image[fourth][:, 3]).all()

    @pytest.mark.parametrize(
        ("layout", "labels", "codes"),
        [
            ("BraTS2017", "*/*/*_seg.nii.gz", {1: 1, 2: 2, 3: 4}),
            ("BraTS2020", "*/*_seg.nii.gz", {1: 1, 2: 2, 3: 4}),
            ("BraTS2021", "*/*_seg.nii.gz", {1: 1, 2: 2, 3: 4}),
            ("BraTS2023", "*/*-seg.nii.gz", {1: 1, 2: 2, 3: 3}),
        ],
    )
    def test_labels_have_the_data_sets_codes(self, tmp_path, layout, labels, codes):
        write_brats(tmp_path, cases=4, seed=2, layout=layout, shape=SMALL)
        counts = sorted(
            tuple(np.bincount(np.asarray(nib.load(p).dataobj).astype(int).ravel(), minlength=5))
            for p in tmp_path.glob(labels)
        )
        wanted = []
        for index in range(4):
            drawn = np.bincount(brats_case(2, index, SMALL).labels.ravel(), minlength=4)
            row = [int(drawn[0]), 0, 0, 0, 0]
            for canonical, code in codes.items():
                row[code] = int(drawn[canonical])
            wanted.append(tuple(row))
        assert counts == sorted(wanted)

    def test_decathlon_is_flipped_and_says_so(self, tmp_path):
        [path] = write_brats(tmp_path, cases=1, layout="Decathlon", shape=SMALL)
        assert path == tmp_path / "imagesTr" / "BRATS_001.nii.gz"
        image, labels = nib.load(path), nib.load(tmp_path / "labelsTr" / "BRATS_001.nii.gz")
        drawn = brats_case(0, 0, SMALL)
        assert image.shape == (*SMALL, 4)
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        np.testing.assert_array_equal(np.asarray(image.dataobj), drawn.image[::-1, ::-1])
        codes = np.array([0, 2, 1, 3])[drawn.labels[::-1, ::-1]]
        np.testing.assert_array_equal(np.asarray(labels.dataobj), codes)
        # The same point of the head lies at the same place in mm.
        i, j, k = 10, 20, 5
        flipped = [SMALL[0] - 1 - i, SMALL[1] - 1 - j, k, 1]
        np.testing.assert_allclose(image.affine @ flipped, drawn.affine @ [i, j, k, 1])
        listed = json.loads((tmp_path / "dataset.json").read_text())
        assert listed["numTraining"] == len(listed["training"]) == 1
        assert (tmp_path / listed["training"][0]["image"]).exists()

    def test_grades(self, tmp_path):
        write_brats(tmp_path / "17", cases=4, layout="BraTS2017", shape=SMALL)
        write_brats(tmp_path / "20", cases=4, layout="BraTS2020", shape=SMALL)
        assert len(list((tmp_path / "17" / "LGG").iterdir())) == 1
        assert len(list((tmp_path / "17" / "HGG").iterdir())) == 3
        rows = (tmp_path / "20" / "name_mapping.csv").read_text().splitlines()
        assert rows[0].startswith("Grade,")
        assert rows[0].endswith(",BraTS_2020_subject_ID")
        assert sorted(row.split(",")[0] for row in rows[1:]) == ["HGG", "HGG", "HGG", "LGG"]

    def test_folder_says_that_it_is_synthetic(self, tmp_path):
        write_brats(tmp_path, cases=1, seed=7, shape=SMALL)
        readme = (tmp_path / "README.txt").read_text()
        assert "Synthetic" in readme
        assert "seed 7" in readme
        marker = json.loads((tmp_path / "PHANTOM").read_text())
        assert marker == {
            "version": VERSION,
            "seed": 7,
            "layout": "BraTS2021",
            "shape": list(SMALL),
            "cases": 1,
        }


class TestWriting:
    def test_complete_cases_are_kept_and_missing_files_replaced(self, tmp_path):
        seen = []
        write_brats(tmp_path, cases=2, shape=SMALL, progress=lambda *step: seen.append(step))
        assert seen == [(1, 2, "BraTS2021_00000"), (2, 2, "BraTS2021_00001")]
        before = written(tmp_path)
        times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")}
        lost = tmp_path / "BraTS2021_00001" / "BraTS2021_00001_t2.nii.gz"
        lost.unlink()
        write_brats(tmp_path, cases=2, shape=SMALL)
        assert written(tmp_path) == before
        kept = [path for path in times if path.parent.name == "BraTS2021_00000"]
        assert [path.stat().st_mtime_ns for path in kept] == [times[path] for path in kept]

    def test_more_cases_are_added_and_fewer_take_nothing_away(self, tmp_path):
        write_brats(tmp_path, cases=1, shape=SMALL)
        write_brats(tmp_path, cases=3, shape=SMALL)
        assert len(write_brats(tmp_path, cases=2, shape=SMALL)) == 2
        assert len(Brats().find(tmp_path).cases) == 3
        assert json.loads((tmp_path / "PHANTOM").read_text())["cases"] == 3

    def test_another_seed_or_layout_replaces_the_earlier_phantom(self, tmp_path):
        write_brats(tmp_path / "a", cases=3, seed=1, layout="BraTS2020", shape=SMALL)
        write_brats(tmp_path / "a", cases=2, seed=2, shape=SMALL)
        write_brats(tmp_path / "b", cases=2, seed=2, shape=SMALL)
        assert written(tmp_path / "a") == written(tmp_path / "b")

    def test_a_folder_with_other_files_is_left_alone(self, tmp_path):
        (tmp_path / "patient.nii.gz").write_bytes(b"precious")
        with pytest.raises(DataError, match="not a phantom"):
            write_brats(tmp_path, cases=1, shape=SMALL)
        assert written(tmp_path) == {"patient.nii.gz": b"precious"}

    @pytest.mark.parametrize(
        ("arguments", "name"),
        [
            ({"layout": "BraTS1999"}, "layout"),
            ({"cases": 0}, "cases"),
            ({"shape": (9, 9, 9)}, "shape"),
        ],
    )
    def test_odd_arguments_are_refused_before_anything_is_written(self, tmp_path, arguments, name):
        with pytest.raises(ValueError, match=name):
            write_brats(tmp_path / "set", **{"cases": 1, "shape": SMALL, **arguments})
        assert not (tmp_path / "set").exists()

    def test_killed_run_is_finished_by_the_same_call(self, tmp_path):
        code = (
            "import sys; from keras_medseg.phantoms import brats; "
            f"brats.write_brats(sys.argv[1], cases=40, seed=5, shape={SMALL})"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(keras_medseg.__file__).parents[1])}
        run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], env=environment)
        while run.poll() is None and not list((tmp_path / "a").glob("*/*_seg.nii.gz")):
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        run.wait()
        done = len(list((tmp_path / "a").glob("*/*_seg.nii.gz")))
        assert 1 <= done < 40
        write_brats(tmp_path / "a", cases=done + 2, seed=5, shape=SMALL)
        write_brats(tmp_path / "b", cases=done + 2, seed=5, shape=SMALL)
        finished, unbroken = written(tmp_path / "a"), written(tmp_path / "b")
        # The marker of the killed run still says 40; its half-written file is hidden.
        assert {name for name in finished if finished[name] != unbroken.get(name)} <= {
            "PHANTOM",
            *(name for name in finished if Path(name).name.startswith(".")),
        }
        assert set(unbroken) <= set(finished)
        assert len(Brats().find(tmp_path / "a").cases) == done + 2
