"""What is decoded belongs to the format of the store: other numbers need another FORMAT."""

import hashlib
from functools import partial

import numpy as np
import pytest

from keras_medseg import phantoms
from keras_medseg.data import datasets, store
from keras_medseg.data.transforms.resize import read_resized

# {format: {layout: (sha256 of the labels, mean and standard deviation of the images)}}
DECODED = {
    5: {
        "BraTS2021": ("c8cca6a0e1a4", 222.280129, 332.129329),
        "nnUNet": ("6a5bf7ca610e", 319.223572, 418.078949),
        "CVC-ClinicDB": ("ba64ecd09d20", 69.331055, 50.891481),
    }
}


@pytest.mark.parametrize(
    ("layout", "size", "options"),
    [
        ("BraTS2021", (40, 40, 26), {}),
        ("nnUNet", (40, 40, 26), {"spacing_mm": (8.0, 8.0, 8.0)}),
        ("CVC-ClinicDB", (48, 64), {}),
    ],
)
def test_what_is_decoded_has_its_format(layout, size, options, tmp_path):
    phantoms.write(tmp_path / "data", layout=layout, cases=1, size=size)
    dataset = datasets.of_folder(tmp_path / "data", **options)
    read = partial(read_resized, dataset=dataset, size=(32, 32), fit="stretch")
    reader = read if layout == "CVC-ClinicDB" else dataset.read
    cases = dataset.find(tmp_path / "data").cases
    [case] = store.prepare(cases, reader, tmp_path / "store", workers=1).cases.values()
    advice = "Decoding gives other numbers: raise FORMAT of store.py and add it to DECODED."
    assert max(DECODED) == store.FORMAT, advice
    labels, mean, deviation = DECODED[store.FORMAT][layout]
    found = hashlib.sha256(np.ascontiguousarray(case.labels)).hexdigest()[:12]
    assert (found, float(case.image.mean()), float(case.image.std())) == (
        labels, pytest.approx(mean, rel=1e-5), pytest.approx(deviation, rel=1e-5)
    ), advice  # fmt: skip
