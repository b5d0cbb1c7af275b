"""The door to all synthetic data sets."""

import subprocess
import sys
from pathlib import Path

import pytest

import keras_medseg
from keras_medseg import phantoms
from keras_medseg.data import datasets
from keras_medseg.phantoms.brats import write_brats
from keras_medseg.phantoms.images import write_images
from keras_medseg.phantoms.knee import CLASSES

from .folders import written

VOLUMES = ["BraTS2017", "BraTS2018", "BraTS2019", "BraTS2020", "BraTS2021", "BraTS2023"]
VOLUMES += [f"BraTS2023-{name}" for name in ("MEN", "MET", "PED", "SSA")]
VOLUMES += [f"BraTS2024-{name}" for name in ("GLI", "GoAT", "MEN-RT", "PED")]
VOLUMES += ["BraTS2025-GLI", "BraTS2025-MET", "Decathlon", "nnUNet", "cases.csv"]
IMAGES = ["CVC-ClinicDB", "ISIC2018", "knee", "knee-colors", "knee-numbers", "Kvasir-SEG"]
IMAGES += ["ETIS-LaribPolypDB", "CVC-ColonDB", "CVC-300", "polyps", "HAM10000", "PH2"]


def small(layout: str) -> tuple[int, ...]:
    return (40, 40, 26) if layout in VOLUMES else (48, 64)


def test_layouts():
    assert phantoms.layouts() == VOLUMES + IMAGES


@pytest.mark.parametrize("layout", VOLUMES + IMAGES)
def test_every_layout_is_written_and_found_again(layout, tmp_path):
    steps = []
    paths = phantoms.write(
        tmp_path,
        layout=layout,
        cases=2,
        seed=3,
        size=small(layout),
        progress=lambda *step: steps.append(step[:2]),
    )
    assert steps == [(1, 2), (2, 2)]
    options = {"classes": CLASSES} if layout == "knee" else {}
    # Before and after treatment together: no name says so.
    name = layout if layout == "BraTS2025-GLI" else ""
    kind = datasets.of_folder(tmp_path, name, **options)
    cases = kind.find(tmp_path).cases
    assert len(cases) == len(paths) == 2
    # What `write` returns holds, or is, the images of one case each.
    for case in cases:
        assert sum(case.images[0].is_relative_to(path) for path in paths) == 1
    # Layouts for the data of anybody, and the benchmark, which is of several data sets.
    if not layout.startswith(("knee", "polyps", "nnUNet", "cases.csv")):
        assert [case.dataset for case in cases] == [layout, layout]
    arrays = kind.read(cases[0])
    assert arrays.image.shape[: len(small(layout))] == small(layout)
    assert arrays.labels.any()


def test_it_writes_what_the_writers_write(tmp_path):
    phantoms.write(tmp_path / "a", layout="BraTS2020", cases=1, seed=2, size=[24, 24, 24])
    write_brats(tmp_path / "b", layout="BraTS2020", cases=1, seed=2, shape=(24, 24, 24))
    assert written(tmp_path / "a") == written(tmp_path / "b")
    phantoms.write(tmp_path / "c", layout="knee", cases=1, seed=2)
    write_images(tmp_path / "d", layout="knee", cases=1, seed=2, size=(256, 256))
    assert written(tmp_path / "c") == written(tmp_path / "d")


@pytest.mark.parametrize(
    ("layout", "size", "message"),
    [
        (
            "BraTS2021",
            (64, 64),
            r"size: found 2 numbers, expected 3 for BraTS2021: \(x, y, z\) vox",
        ),
        ("knee", (64, 64, 64), r"size: found 3 numbers, expected 2 for knee: \(rows, columns\) pi"),
        ("BraTS2021", (9, 9, 9), "24 or more"),
        ("knee", (9, 9), "32 or more"),
        ("BraTS2012", None, "layout: found 'BraTS2012', expected one of: .*Did you mean 'BraTS20"),
    ],
)
def test_odd_arguments_are_refused_before_anything_is_written(tmp_path, layout, size, message):
    with pytest.raises(ValueError, match=message):
        phantoms.write(tmp_path / "set", layout=layout, cases=1, size=size)
    assert not (tmp_path / "set").exists()


def test_no_case_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cases: found 0"):
        phantoms.write(tmp_path / "set", layout="knee", cases=0)


def test_naming_the_layouts_imports_nothing_heavy():
    code = (
        "import sys; from keras_medseg import phantoms; phantoms.layouts();"
        "print(sorted({'scipy', 'nibabel', 'pandas', 'skimage', 'keras'} & sys.modules.keys()))"
    )
    root = Path(keras_medseg.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
