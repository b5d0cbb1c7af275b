"""Which file in a folder of label maps belongs to which case: a comparison of names.

Programs name their label maps after the case, and add to the name. Names are compared as words,
in any case, whatever stands between the words (`-`, `_`, `.`, a space, or the border of a folder).
The first rule that fits a file decides:

| rule | the case BraTS-GLI-00001-000 has |
|---|---|
| the name is the id | BraTS-GLI-00001-000.nii.gz (nnU-Net, the BraTS portals, `predict`) |
| the id, and words for label maps | pred_brats_gli_00001_000.nii, BraTS-GLI-00001-000/seg.nii.gz |
| the id, and other words | BraTS-GLI-00001-000_t1c/BraTS-GLI-00001-000_t1c_trans.nii.gz (MONAI) |
| the number at the end of the id | 00001-000.nii.gz (what the BraTS portals accept) |

A name may contain several ids, as case_1_2 contains case_1: the longest counts.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_medseg.data import checks
from keras_medseg.data.cases import Case
from keras_medseg.data.formats import foreign, image_files
from keras_medseg.data.fractions import MAPS
from keras_medseg.errors import DataError, listed, plural

WORDS = frozenset(
    (
        "seg", "segmentation", "segmented", "pred", "preds", "predicted", "prediction",
        "predictions", "label", "labels", "labelmap", "mask", "masks", "gt", "gtv", "truth",
        "annotation", "output", "result", "postprocessed", "final",
    )
)  # fmt: skip
"""Words that say that a file is a label map."""

_DEPTH = 2
_SEPARATORS = re.compile(r"[\W_]+")
# Synapse's evaluation of BraTS finds the case of a file by this part of its name.
_PORTAL = re.compile(r"\d{4,5}(?:-\d{1,3})?$")

Words = tuple[str, ...]


@dataclass(frozen=True)
class Matched:
    """The label maps of a folder.

    Attributes:
        paths: case id -> its label map.
        missing: ids of the cases that have none.
        errors: names that fit several cases, and cases with several files.
        surplus: readable files that belong to no case.
        unread: files in other formats; of texts and previews those that are named after a case.
        suffix: what the label maps should end in.
    """

    paths: dict[str, Path]
    missing: list[str]
    errors: list[DataError]
    surplus: list[Path]
    unread: list[Path]
    suffix: str


def match(folder: Path, cases: Sequence[Case], suffix: str) -> Matched:
    """Find the label map of every case by its name, in a folder and up to two levels below it.

    Args:
        folder: of label maps.
        cases: those to be scored.
        suffix: of the data set's label maps (`Dataset.suffix`); any ending of the same kind of
            files will do.

    Raises:
        DataError: the folder does not exist or cannot be read.
    """
    remedy = "Give the folder of the predicted label maps."
    checks.require_folder(folder, expected="a folder with label maps", remedy=remedy)
    with checks.readable_folders():
        files = checks.files_below(folder, _DEPTH)
    # What `predict` writes beside its label maps has their names.
    files = [path for path in files if path.relative_to(folder).parts[0] not in MAPS]
    endings = endings_of(suffix)
    readable = [path for path in files if foreign.ending(path.name) in endings]
    index = _Index(cases)
    unread = [
        path
        for path in files
        if path not in {*readable}
        and (index.fits(path.relative_to(folder))[1] or not foreign.is_text(path))
    ]
    found: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    errors, surplus = [], []
    for path in readable:
        rule, ids = index.fits(path.relative_to(folder))
        if len(ids) == 1:
            found[ids[0]].append((rule, path))
        elif ids:
            errors.append(_doubtful(path, ids))
        else:
            surplus.append(path)
    paths: dict[str, Path] = {}
    for id, candidates in found.items():
        first = min(rule for rule, _ in candidates)
        best = [path for rule, path in candidates if rule == first]
        surplus += [path for rule, path in candidates if rule != first]
        paths[id] = best[0]
        if len(best) > 1:
            text = f"{len(best)} files for case {id}: {listed(path.name for path in best)}"
            remedy = "Move the others elsewhere."
            errors.append(DataError(folder, found=text, expected="one", remedy=remedy))
    missing = [case.id for case in cases if case.id not in found]
    return Matched(paths, missing, errors, sorted(surplus), unread, suffix)


def problems(folder: Path, matched: Matched, cases: int) -> list[DataError]:
    """What keeps a folder from being scored: cases without a label map, and doubtful names."""
    if not matched.missing:
        return matched.errors
    text = f"no label map of {len(matched.missing)} of {plural(cases, 'case')}"
    text += f": {listed(matched.missing)}"
    near = [path.name for path in matched.surplus]
    if near:
        text += f", but {plural(len(near), 'file')} of no case: {listed(near)}"
    if matched.unread:
        text += f", and {foreign.counted(matched.unread)}"
    remedy = "Rename each label map to the id of its case." if near else "Predict these cases."
    if matched.unread and not matched.paths:
        remedy = foreign.remedies(matched.unread, matched.suffix)
    error = DataError(folder, found=text, expected="one for every case", remedy=remedy)
    return [error, *matched.errors]


def _doubtful(path: Path, ids: Sequence[str]) -> DataError:
    text, remedy = f"a name that fits the cases {listed(ids)}", "Rename it to the id of its case."
    return DataError(path, found=text, expected="one id in it", remedy=remedy)


def endings_of(suffix: str) -> tuple[str, ...]:
    """The endings of the same kind of files as `suffix`: volumes or images."""
    kinds: tuple[tuple[str, ...], ...] = (foreign.NIFTI, tuple(image_files.SUFFIXES))
    return next((kind for kind in kinds if suffix in kind), (suffix,))


def words_of(name: str) -> Words:
    """The words of a name, in lower case."""
    return tuple(word for word in _SEPARATORS.split(_folded(name)) if word)


def _folded(name: str) -> str:
    """A name in lower case, its accents joined to their letters: a Mac's archives part them."""
    return unicodedata.normalize("NFC", name).casefold()


class _Index:
    """The ids of all cases, by what a file's name may share with them."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.names: dict[str, list[str]] = defaultdict(list)
        self.words: dict[Words, list[str]] = defaultdict(list)
        self.numbers: dict[str, list[str]] = defaultdict(list)
        for case in cases:
            self.names[_folded(case.id)].append(case.id)
            self.words[words_of(case.id)].append(case.id)
            if number := _PORTAL.search(case.id):
                self.numbers[number[0]].append(case.id)

    def fits(self, path: Path) -> tuple[int, list[str]]:
        """The number of the first rule that fits a file, and the ids of its cases."""
        stem = foreign.without_ending(path.name)
        if ids := self.names.get(_folded(stem)):
            return 0, ids
        words = words_of("/".join([*path.parts[:-1], stem]))
        runs = {
            words[start:stop]
            for start in range(len(words))
            for stop in range(start + 1, len(words) + 1)
        } & self.words.keys()
        if runs:
            longest = max(map(len, runs))
            ids = [id for run in runs if len(run) == longest for id in self.words[run]]
            others = WORDS.union(*(run for run in runs if len(run) == longest))
            return (1 if others.issuperset(words) else 2), sorted(ids)
        number = _PORTAL.search(stem)
        return 3, self.numbers.get(number[0], []) if number else []
