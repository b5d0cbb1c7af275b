"""Grades of BraTS tumors: folders HGG and LGG until 2019, name_mapping.csv since 2018.

The table of the organizers has one row for a patient: the grade, and the names that the patient's
case had in the releases of each year, or NA.
"""

import csv
import functools
from pathlib import Path

GRADES = ("HGG", "LGG")
TABLE = "name_mapping.csv"
_ABOVE = 3


def grade(case_id: str, folder: Path) -> str:
    """The grade of a case, "HGG" or "LGG"; "" where neither folders nor table tell it.

    Args:
        case_id: its name.
        folder: of its files; the folders above it are searched as well.
    """
    above = (folder, *folder.parents)[: 1 + _ABOVE]
    for parent in above:
        if parent.name.upper() in GRADES:
            return parent.name.upper()
    for path in (parent / TABLE for parent in above):
        if path.is_file():
            status = path.stat()
            return _grades(path, status.st_mtime_ns, status.st_size).get(case_id.casefold(), "")
    return ""


@functools.lru_cache(maxsize=16)
def _grades(path: Path, modified_ns: int, size: int) -> dict[str, str]:
    """Case name in lower case -> grade; the file is read again when it has changed."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    return {
        name.casefold(): row[0]
        for row in rows
        if row and row[0] in GRADES
        for name in row[1:]
        if name and name != "NA"
    }
