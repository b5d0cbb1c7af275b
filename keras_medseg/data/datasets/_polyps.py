"""The published polyp benchmark: which images of five data sets are tested.

Fan et al. (PraNet, MICCAI 2020), and most papers on polyps after it, train on 900 images of
Kvasir-SEG and 550 frames of CVC-ClinicDB and test on the other 100 and 62, and on CVC-ColonDB,
ETIS-LaribPolypDB and 60 frames of CVC-300. `polyp_benchmark.csv` lists the 162 images of the first
two that are tested, by the names of the test folders as they are distributed; the other images of
the two are the training set. The split is by image: frames of one sequence of CVC-ClinicDB are on
both sides.
"""

import csv
from functools import cache
from pathlib import Path

IMAGES = {
    "Kvasir-SEG": 1000,
    "CVC-ClinicDB": 612,
    "CVC-ColonDB": 380,
    "ETIS-LaribPolypDB": 196,
    "CVC-300": 60,
}
"""Data set -> its images in the benchmark, on both sides."""

DATASETS = {*IMAGES}
_TABLE = Path(__file__).with_name("polyp_benchmark.csv")


@cache
def tested() -> dict[str, frozenset[str]]:
    """Data set -> its tested images, for the two data sets that are on both sides."""
    names: dict[str, set[str]] = {}
    for row in csv.DictReader(_TABLE.read_text("utf-8").splitlines()):
        names.setdefault(row["dataset"], set()).add(row["image"])
    return {dataset: frozenset(images) for dataset, images in names.items()}


def is_tested(dataset: str, name: str) -> bool:
    """Whether an image, by its name without suffix, is tested; numbers may begin with zeros."""
    listed = tested().get(dataset)
    return listed is None or (name.lstrip("0") if name.isdecimal() else name) in listed
