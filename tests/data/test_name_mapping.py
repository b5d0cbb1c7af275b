"""Grades of tumors, by folder and by the organizers' table."""

import pytest

from keras_medseg.data import store
from keras_medseg.data.datasets.brats import Brats
from keras_medseg.data.formats import name_mapping
from keras_medseg.phantoms import brain
from keras_medseg.phantoms.brats import write_brats

TABLE = """Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,BraTS_2019_subject_ID
HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,BraTS19_CBICA_AAB_1
LGG,NA,NA,BraTS19_TCIA_1_1
"""


@pytest.fixture
def table(tmp_path):
    (tmp_path / "name_mapping.csv").write_text(TABLE)
    return tmp_path


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
def test_the_table_names_the_grade_by_the_names_of_every_year(name, expected, table):
    assert name_mapping.grade(name, table / name) == expected
    assert name_mapping.grade(name, table / "cases" / name) == expected


def test_the_folder_comes_before_the_table_which_is_read_again_when_it_changes(table):
    assert name_mapping.grade("BraTS19_CBICA_AAB_1", table / "lgg" / "case") == "LGG"
    assert name_mapping.grade("BraTS19_TCIA_1_1", table) == "LGG"
    (table / "name_mapping.csv").write_text(TABLE.replace("LGG,", "HGG,") + "\n")
    assert name_mapping.grade("BraTS19_TCIA_1_1", table) == "HGG"


def test_no_folder_and_no_table_give_no_grade(tmp_path):
    assert name_mapping.grade("BraTS2021_00000", tmp_path / "BraTS2021_00000") == ""


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
