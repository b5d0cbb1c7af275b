"""The organizers' table of BraTS case ids: which cases show the same patient, and tumor grades.

`name_mapping.csv` comes with the training data of 2019 and 2020. It has the columns Grade, one
BraTS_<year>_subject_ID per year and TCGA_TCIA_subject_ID. A row is a case, NA where a year does not
have it.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from keras_medseg.data import checks
from keras_medseg.data.cases import Case
from keras_medseg.errors import DataError

TABLE = "name_mapping.csv"
GRADES = ("HGG", "LGG")

_COLUMN = re.compile(r"BraTS_?(\d{4})_subject_ID", re.IGNORECASE)
_MISSING = ("", "na", "nan")
_EXAMPLE = "columns such as BraTS_2018_subject_ID and BraTS_2020_subject_ID"


def tables(folder: Path, depth: int) -> list[Path]:
    """The tables at most `depth` levels below a folder."""
    with checks.readable_folders():
        walked = checks.walk(Path(folder).absolute(), depth)
        return sorted(path for _, paths in walked for path in paths if path.name == TABLE)


def oldest_ids(paths: Iterable[Path]) -> dict[str, str]:
    """Every case id of some tables, in lower case, with the oldest id of the same case.

    Rows of several tables that share an id are one case.

    Raises:
        DataError: a table that is no CSV, or has no column of ids.
    """
    oldest: dict[str, str] = {}
    for path in paths:
        for _, ids in _rows(path):
            names = [id.casefold() for id in ids]
            known = {oldest[name] for name in names if name in oldest}
            first = min(known, default=ids[0])
            same = [name for name, id in oldest.items() if id in known]
            oldest |= dict.fromkeys([*names, *same], first)
    return oldest


def grades(paths: Iterable[Path]) -> dict[str, str]:
    """Every case id of some tables, in lower case, with its grade, "HGG" or "LGG".

    Raises:
        DataError: as `oldest_ids`.
    """
    rows = [row for path in paths for row in _rows(path)]
    return {id.casefold(): grade for grade, ids in rows if grade in GRADES for id in ids}


def by_patient(
    cases: Iterable[Case], tables: Iterable[Path], patient: Callable[[str], str]
) -> list[Case]:
    """The cases, each that a table names with the patient of its oldest id as group.

    A case without a grade gets that of its row.

    Args:
        cases: of any years.
        tables: see `tables`.
        patient: the group of a case by its id.

    Raises:
        DataError: as `oldest_ids`.
    """
    tables = [*tables]
    oldest, graded = oldest_ids(tables), grades(tables)

    def completed(case: Case) -> Case:
        name = case.id.casefold()
        group = patient(oldest[name]) if name in oldest else case.group
        return replace(case, group=group, grade=case.grade or graded.get(name, ""))

    return [completed(case) for case in cases]


def _rows(path: Path) -> list[tuple[str, list[str]]]:
    """Grade and ids of each row, from the oldest year on; rows without ids are left out."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        rows = [[field.strip() for field in row] for row in csv.reader(io.StringIO(text))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        found, remedy = f"no CSV ({error})", "Fetch the table again, or remove it."
        raise DataError(path, found=found, expected="CSV in UTF-8", remedy=remedy) from error
    header = rows[0] if rows else []
    years = {match[1]: i for i, name in enumerate(header) if (match := _COLUMN.fullmatch(name))}
    if not years:
        found = f"the columns {','.join(header) or 'none'}"
        remedy = "Fetch the table again, or remove it."
        raise DataError(path, found=found, expected=_EXAMPLE, remedy=remedy)
    graded = header.index("Grade") if "Grade" in header else len(header)
    columns = [years[year] for year in sorted(years)]
    found_rows = []
    for row in rows[1:]:
        ids = [row[i] for i in columns if i < len(row) and row[i].casefold() not in _MISSING]
        if ids:
            found_rows.append((row[graded] if graded < len(row) else "", ids))
    return found_rows
