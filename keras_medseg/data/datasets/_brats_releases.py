"""The releases of BraTS: how each names its files, and what its labels mean.

A release is recognized by the names of its files and folders, never by the labels that it holds. Up
to 2022 the names of the cases say it alone. From 2023 on they name the challenge: gliomas (GLI),
meningiomas (MEN, MEN-RT), metastases (MET), children's tumors (PED), Sub-Saharan Africa (SSA),
generalizability (GoAT). Gliomas before treatment have the time points 000 to 099, after treatment
(from 2024 on, with the resection cavity as fourth label) 100 and more. Metastases got the cavity in
2025 and children's tumors their own codes in 2024, both without another name; there the name of a
folder above must tell the year.

Codes, names and time points: code and infrastructure of the challenges (github
rachitsaluja/BraTS-2023-Metrics and BraTS-2024-Metrics, Sage-Bionetworks-Challenges/brats2023).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

MODALITIES = ("flair", "t1", "t1ce", "t2")
BACKGROUND, NECROTIC, EDEMA, ENHANCING = 0, 1, 2, 3
"""The package's label codes; NECROTIC is necrotic and non-enhancing tumor."""
RESECTION = CYST = 4
"""The fourth label: the cavity of a resection in gliomas and metastases, a cyst in children."""
GROSS_TUMOR = 1
"""The only label of MEN-RT, the gross tumor volume of radiotherapy."""

SEG = "seg"
Codes = tuple[int, ...]


@dataclass(frozen=True)
class Labels:
    """What the labels of a release mean, in the package's codes.

    Attributes:
        names: code -> name in figures and reports.
        regions: what the challenge scores.
        nesting: as in `Dataset.nesting`.
        targets: what a network can be trained for.
        channels: names of the modalities.
    """

    names: Mapping[int, str]
    regions: Mapping[str, Codes]
    nesting: Mapping[str, int]
    targets: Mapping[str, Codes]
    channels: tuple[str, ...] = MODALITIES


_NAMES = {EDEMA: "edema", NECROTIC: "necrotic, non-enhancing", ENHANCING: "enhancing"}
_NESTING = {"WT": EDEMA, "TC": NECROTIC, "ET": ENHANCING}
REGIONS: dict[str, Codes] = {
    "WT": (NECROTIC, EDEMA, ENHANCING),
    "TC": (NECROTIC, ENHANCING),
    "ET": (ENHANCING,),
}
_CHILDREN: dict[str, Codes] = {
    "WT": (NECROTIC, EDEMA, ENHANCING, CYST),
    "TC": (NECROTIC, ENHANCING, CYST),
    "ET": (ENHANCING,),
    "NETC": (NECROTIC,),
    "CC": (CYST,),
    "ED": (EDEMA,),
}

TARGETS: dict[str, Codes] = {**REGIONS, "NCR": (NECROTIC,), "ED": (EDEMA,)}
_WITH_CAVITY_REGIONS: dict[str, Codes] = {
    **REGIONS,
    "RC": (RESECTION,),
    "NETC": (NECROTIC,),
    "SNFH": (EDEMA,),
}
_TARGET_VOLUME: dict[str, Codes] = {"GTV": (GROSS_TUMOR,)}

USUAL = Labels(_NAMES, REGIONS, _NESTING, TARGETS)
"""Three labels in nested regions: all releases up to 2022, and most of the later ones."""
CAVITY = Labels(
    {**_NAMES, RESECTION: "resection cavity"}, _WITH_CAVITY_REGIONS, _NESTING, _WITH_CAVITY_REGIONS
)
"""With the cavity of a resection, which is part of neither WT nor TC."""
CHILDREN = Labels(
    {EDEMA: "edema", NECROTIC: "non-enhancing", CYST: "cystic component", ENHANCING: "enhancing"},
    _CHILDREN,
    _NESTING,
    _CHILDREN,
)
RADIOTHERAPY = Labels(
    {GROSS_TUMOR: "gross tumor volume"}, _TARGET_VOLUME, {}, _TARGET_VOLUME, ("t1ce",)
)

_TO_2021 = {0: BACKGROUND, 1: NECROTIC, 2: EDEMA, 4: ENHANCING}
_FROM_2023 = {0: BACKGROUND, 1: NECROTIC, 2: EDEMA, 3: ENHANCING}
_WITH_CAVITY = {**_FROM_2023, 4: RESECTION}
_OF_CHILDREN = {0: BACKGROUND, 1: ENHANCING, 2: NECROTIC, 3: CYST, 4: EDEMA}
_OF_DECATHLON = {0: BACKGROUND, 1: EDEMA, 2: NECROTIC, 3: ENHANCING}
_OF_2015 = {0: BACKGROUND, 1: NECROTIC, 2: EDEMA, 4: ENHANCING, 3: NECROTIC}

_NAMES_TO_2021 = {role: "{id}_" + role for role in (*MODALITIES, SEG)}
_NAMES_2023 = {
    "flair": "{id}-t2f",
    "t1": "{id}-t1n",
    "t1ce": "{id}-t1c",
    "t2": "{id}-t2w",
    SEG: "{id}-seg",
}
_NAMES_2015 = {
    "flair": "VSD.Brain.XX.O.MR_Flair.<n>",
    "t1": "VSD.Brain.XX.O.MR_T1.<n>",
    "t1ce": "VSD.Brain.XX.O.MR_T1c.<n>",
    "t2": "VSD.Brain.XX.O.MR_T2.<n>",
    SEG: "VSD.Brain.XX.O.OT.<n>",
}


@dataclass(frozen=True)
class Layout:
    """How one release names its files, and its codes.

    Attributes:
        dataset: name of the release.
        case: regular expression of the case ids. Its group `patient` is equal for all examinations
            of a patient, also across releases if the names show it.
        names: role -> file name without suffix.
        codes: label on disk -> canonical label.
        example: id of a case.
        labels: what the labels mean.
        choices: the releases that the same names may belong to; empty if the names decide.
    """

    dataset: str
    case: str
    names: dict[str, str]
    codes: dict[int, int]
    example: str
    labels: Labels = USUAL
    choices: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """Roles of the images, in the order of the channels."""
        return tuple(role for role in self.names if role != SEG)

    def match(self, stem: str) -> tuple[str, str] | None:
        """Case id and role of a file name without suffix; None if it is not of this release."""
        for role, name in self.names.items():
            ending = name.removeprefix("{id}")
            if stem.casefold().endswith(ending.casefold()):
                case_id = stem[: len(stem) - len(ending)]
                if re.fullmatch(self.case, case_id, re.IGNORECASE):
                    return case_id, role
        return None


def _to_2021(dataset: str, case: str, example: str) -> Layout:
    return Layout(dataset, case, _NAMES_TO_2021, _TO_2021, example)


def _later(
    dataset: str,
    case: str,
    example: str,
    codes: dict[int, int] = _FROM_2023,
    labels: Labels = USUAL,
) -> Layout:
    return Layout(dataset, f"BraTS-(?P<patient>{case}", _NAMES_2023, codes, example, labels)


# The last number of brats_tcia_pat101_0181 is one of several examinations of the patient.
_CASE_2015 = r"(?P<patient>.*pat\d+(?=_\d+$)|.+)(_\d+)?"
OF_2015 = Layout("BraTS2015", _CASE_2015, _NAMES_2015, _OF_2015, "brats_2013_pat0001_1")
DECATHLON = Layout(
    "Decathlon",
    r"(?P<patient>BRATS_\d+)",
    {"image": "imagesTr/{id}", SEG: "labelsTr/{id}"},
    _OF_DECATHLON,
    "BRATS_001",
)
_GLI, _MET, _PED = r"GLI-\d+)", r"METS?-\d+)", r"PEDS?-\d+)"
_TIME = r"(-\d+)?"
_MEN_RT = Layout(
    "BraTS2024-MEN-RT",
    r"BraTS-(?P<patient>MEN-RT-\d+)-\d+",
    {"t1ce": "{id}_t1c", SEG: "{id}_gtv"},
    {0: BACKGROUND, 1: GROSS_TUMOR},
    "BraTS-MEN-RT-0002-1",
    RADIOTHERAPY,
)
DECIDED = (
    _to_2021("BraTS2017", r"Brats17_(?P<patient>\w+)_\d+", "Brats17_CBICA_AAB_1"),
    _to_2021("BraTS2018", r"Brats18_(?P<patient>\w+)_\d+", "Brats18_CBICA_AAB_1"),
    _to_2021("BraTS2019", r"BraTS19_(?P<patient>\w+)_\d+", "BraTS19_CBICA_AAB_1"),
    _to_2021("BraTS2020", r"(?P<patient>BraTS20_[a-z]+_\d+)", "BraTS20_Training_001"),
    _to_2021("BraTS2021", r"BraTS2021_(?P<patient>\d+)", "BraTS2021_00000"),
    _later("BraTS2023", rf"{_GLI}(-0\d\d)?", "BraTS-GLI-00000-000"),
    _later("BraTS2023-MEN", rf"MEN-\d+){_TIME}", "BraTS-MEN-00004-000"),
    _later("BraTS2023-SSA", rf"SSA-\d+){_TIME}", "BraTS-SSA-00002-000"),
    _later("BraTS2024-GoAT", rf"GoAT-\d+){_TIME}", "BraTS-GoAT-00000"),
    _later("BraTS2024-GLI", rf"{_GLI}-[1-9]\d\d", "BraTS-GLI-00005-100", _WITH_CAVITY, CAVITY),
    _MEN_RT,
)
_BY_YEAR = (
    _later("BraTS2023-MET", rf"{_MET}{_TIME}", "BraTS-MET-00002-000"),
    _later("BraTS2023-PED", rf"{_PED}{_TIME}", "BraTS-PED-00002-000"),
    _later("BraTS2025-MET", rf"{_MET}{_TIME}", "BraTS-MET-00002-000", _WITH_CAVITY, CAVITY),
    _later("BraTS2024-PED", rf"{_PED}{_TIME}", "BraTS-PED-00002-000", _OF_CHILDREN, CHILDREN),
)
_BOTH = _later("BraTS2025-GLI", rf"{_GLI}{_TIME}", "BraTS-GLI-00005-100", _WITH_CAVITY, CAVITY)
"""Before and after treatment together; nobody's names say so, so it is chosen by --dataset."""

LAYOUTS = {layout.dataset: layout for layout in (OF_2015, *DECIDED, *_BY_YEAR, _BOTH, DECATHLON)}
LESION_RULES = {
    "BraTS2023": (2023, "GLI"),
    "BraTS2023-MEN": (2023, "MEN"),
    "BraTS2023-SSA": (2023, "SSA"),
    "BraTS2023-MET": (2023, "MET"),
    "BraTS2023-PED": (2023, "PED"),
    "BraTS2024-GLI": (2024, "GLI"),
    "BraTS2024-PED": (2024, "PED"),
    "BraTS2024-MEN-RT": (2024, "MEN-RT"),
    "BraTS2025-MET": (2025, "MET"),
    "BraTS2025-GLI": (2025, "GLI"),
}
"""Release -> year and challenge of the rule that scores its lesions, a key of `lesions.RULES`.

A case of GoAT has the rule of the challenge that it comes from, which its name does not tell.
"""
OPEN = (
    Layout(
        "BraTS-MET",
        _BY_YEAR[0].case,
        _NAMES_2023,
        {},
        "",
        choices=("BraTS2023-MET", "BraTS2025-MET"),
    ),
    Layout(
        "BraTS-PED",
        _BY_YEAR[1].case,
        _NAMES_2023,
        {},
        "",
        choices=("BraTS2023-PED", "BraTS2024-PED"),
    ),
)
_FIRST_YEARS = {"BraTS-MET": 2025, "BraTS-PED": 2024}
"""In which year the labels changed."""


def named(folder: Path, stem: str, release: str) -> tuple[Layout, str, str] | None:
    """Layout, case id and role of a file from 2017 on, or None.

    Args:
        folder: of the file.
        stem: its name without suffix.
        release: the one that was chosen, or "".
    """
    chosen = [LAYOUTS[release]] if release in LAYOUTS else []
    for layout in (*chosen, *DECIDED):
        if known := layout.match(stem):
            return layout, *known
    for layout in OPEN:
        if known := layout.match(stem):
            return _of_year(layout, folder), *known
    return None


def examples() -> Iterator[str]:
    """The files of an example case of every release; those with the same names appear once."""
    layouts = sorted(LAYOUTS.values(), key=lambda layout: [*_FILE_NAMES].index(_file_names(layout)))
    for _, group in groupby(layouts, key=_file_names):
        same = [*group]
        for layout in same:
            folder = "Task01_BrainTumour" if layout is DECATHLON else layout.example
            yield f"{layout.dataset + ':':18}{folder}/"
        for name in same[0].names.values():
            yield f"{'':4}{name.format(id=same[0].example)}.nii.gz"


def _of_year(layout: Layout, folder: Path) -> Layout:
    """The release of files whose names leave it open, by the nearest folder that tells the year."""
    year = _nearest_year(folder, layout.dataset.removeprefix("BraTS-"))
    if year is None:
        return layout
    return LAYOUTS[layout.choices[year >= _FIRST_YEARS[layout.dataset]]]


@cache
def _nearest_year(folder: Path, challenge: str) -> int | None:
    years = (_year(part.name, challenge) for part in (folder, *folder.parents))
    return next((year for year in years if year is not None), None)


def _year(name: str, challenge: str) -> int | None:
    """The year in a folder's name such as BraTS2025-MET-Challenge-TrainingData or BraTS2023."""
    if challenge == "PED" and re.match(r"BraTS-PEDs-v\d", name, re.IGNORECASE):
        return 2024  # as it is called in The Cancer Imaging Archive
    of_challenge = re.search(rf"(?<![a-z]){challenge}s?(?![a-z])", name, re.IGNORECASE)
    alone = re.fullmatch(r"BraTS[-_ ]?20\d\d", name, re.IGNORECASE)
    year = re.search(r"BraTS.*?(20[23]\d)(?!\d)", name, re.IGNORECASE)
    return int(year[1]) if year and (of_challenge or alone) else None


def _file_names(layout: Layout) -> tuple[str, ...]:
    return tuple(layout.names.values())


_FILE_NAMES = dict.fromkeys(map(_file_names, LAYOUTS.values()))
