"""Grades of tumors, by folder and by the organizers' table; tests/data/test_brats.py has groups."""

import pytest

from keras_medseg.data import patients, store
from keras_medseg.data.cases import Case
from keras_medseg.data.datasets.brats import Brats
from keras_medseg.phantoms import brain
from keras_medseg.phantoms.brats import write_brats

TABLE = """Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,BraTS_2019_subject_ID
HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,BraTS19_CBICA_AAB_1
LGG,NA,NA,BraTS19_TCIA_1_1
"""


def _graded(folder, case_id, home):
    path = folder / home / f"{case_id}_flair.nii.gz"
    case = Case(case_id, "BraTS2019", (path,), None, case_id)
    (found,) = patients.by_patient([case], patients.tables(folder, 3), str)
    return found.grade


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BraTS19_CBICA_AAB_1", "HGG"),
        ("brats18_cbica_aab_1", "HGG"),
        ("BraTS19_TCIA_1_1", "LGG"),
        ("BraTS19_TCIA_2_1", ""),
        ("NA", ""),
    ],
)
def test_the_table_names_the_grade_by_the_names_of_every_year(name, expected, tmp_path):
    assert _graded(tmp_path, name, name) == ""
    (tmp_path / "name_mapping.csv").write_text(TABLE)
    assert _graded(tmp_path, name, name) == expected


def test_the_folder_comes_before_the_table(tmp_path):
    write_brats(tmp_path, cases=4, layout="BraTS2017", shape=(24, 24, 24))
    before = {case.id: case.grade for case in Brats().find(tmp_path).cases}
    assert set(before.values()) == {"HGG", "LGG"}
    swapped = {"HGG": "LGG", "LGG": "HGG"}
    rows = [f"{swapped[grade]},{id}" for id, grade in before.items()]
    table = "\n".join(["Grade,BraTS_2017_subject_ID", *rows])
    (tmp_path / "name_mapping.csv").write_text(table)
    assert {case.id: case.grade for case in Brats().find(tmp_path).cases} == before


@pytest.mark.parametrize("layout", ["BraTS2017", "BraTS2020", "BraTS2021"])
def test_the_grade_of_a_case_goes_into_the_store(layout, tmp_path):
    """The phantom writes folders in the layout of 2017, a table in that of 2020, else nothing."""
    write_brats(tmp_path / "data", cases=4, layout=layout, shape=(24, 24, 24))
    dataset = Brats()
    found = dataset.find(tmp_path / "data").cases
    decoded = store.prepare(found, dataset.read, tmp_path / "store", workers=1)
    grades = sorted(case.grade for case in decoded.cases.values())
    drawn = sorted("HGG" if brain.enhances(0, index) else "LGG" for index in range(4))
    assert grades == ([""] * 4 if layout == "BraTS2021" else drawn)
    assert len(set(drawn)) == 2
    again = store.open_store(tmp_path / "store")
    assert {name: case.grade for name, case in again.cases.items()} == {
        case.id: case.grade for case in found
    }
