"""The organizers' table of BraTS case ids: which cases of several years show the same patient.

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
        for ids in _rows(path):
            names = [id.casefold() for id in ids]
            known = {oldest[name] for name in names if name in oldest}
            first = min(known, default=ids[0])
            same = [name for name, id in oldest.items() if id in known]
            oldest |= dict.fromkeys([*names, *same], first)
    return oldest


def by_patient(
    cases: Iterable[Case], tables: Iterable[Path], patient: Callable[[str], str]
) -> list[Case]:
    """The cases, with the patient of the oldest id as the group of each that a table names.

    Args:
        cases: of any years.
        tables: see `tables`.
        patient: the group of a case by its id.

    Raises:
        DataError: as `oldest_ids`.
    """
    oldest = oldest_ids(tables)
    named = [(case, oldest.get(case.id.casefold())) for case in cases]
    return [replace(case, group=patient(id)) if id else case for case, id in named]


def _rows(path: Path) -> list[list[str]]:
    """The ids of each row, from the oldest year on; rows without ids are left out."""
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
    columns = [years[year] for year in sorted(years)]
    given = [[row[i] for i in columns if i < len(row)] for row in rows[1:]]
    ids = [[id for id in row if id.casefold() not in _MISSING] for row in given]
    return [row for row in ids if row]
