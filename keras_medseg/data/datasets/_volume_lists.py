"""The cases of a folder of volumes: files of nnU-Net, lists of the Decathlon, rows of a table."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from keras_medseg.data import checks
from keras_medseg.data.cases import Case
from keras_medseg.data.formats import description, foreign
from keras_medseg.data.formats.description import CASES_CSV, DATASET_JSON, Description
from keras_medseg.data.formats.foreign import nifti_stem
from keras_medseg.data.formats.manifest import TEST, TRAINING, VALIDATION, read_rows
from keras_medseg.errors import DataError
from keras_medseg.files import is_file, is_file_name

_CHANNEL = re.compile(r"(.+)_(\d{4})")
_PARTS = (("imagesTr", "labelsTr"), ("imagesTs", "labelsTs"))
_MEND = "Mend the row."


@dataclass
class Scan:
    """What lies in a folder.

    Attributes:
        cases: those that are complete, sorted by id.
        sides: id -> side of the split, if cases.csv has that column.
        errors: why the other cases are not complete.
        remarks: (file, message) of what is ignored.
    """

    cases: list[Case] = field(default_factory=list)
    sides: dict[str, str] = field(default_factory=dict)
    errors: list[DataError] = field(default_factory=list)
    remarks: list[tuple[Path, str]] = field(default_factory=list)

    def remark(self, path: Path, text: str) -> None:
        """Say something about a file."""
        self.remarks.append((path, f"{path}: {text}"))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep a DataError for later."""
        try:
            yield
        except DataError as error:
            self.errors.append(error)


def scan_folder(folder: Path, described: Description, *, labelled: bool) -> Scan:
    """All cases of a folder; without `labelled` also those that have no labels.

    Args:
        folder: of the cases.
        described: by `read_description`. A folder that has neither dataset.json nor cases.csv holds
            the files x_0000.nii.gz themselves.
        labelled: whether only cases with labels are wanted.

    Raises:
        DataError: dataset.json or cases.csv is damaged as a whole.
    """
    scan = Scan()
    if described.content:
        _add_described(scan, folder, described, labelled=labelled)
        if (folder / CASES_CSV).is_file():
            _add_groups(scan, folder / CASES_CSV)
    elif (folder / CASES_CSV).is_file():
        _add_rows(scan, folder / CASES_CSV, described, labelled=labelled)
    else:
        _add_files(scan, folder, None, described)
    _end(scan, folder)
    return scan


def _end(scan: Scan, folder: Path) -> None:
    """Sort the cases, and refuse names that no file can have or that two cases share."""
    scan.cases.sort(key=lambda case: case.id)
    counts = Counter(case.id.casefold() for case in scan.cases)
    for case in scan.cases:
        found = f"the case {case.id!r} twice, or in other capitals"
        if counts[case.id.casefold()] > 1 or not is_file_name(case.id):
            found = found if is_file_name(case.id) else f"the case {case.id!r}"
            expected, remedy = "a name of its own that a file can have", "Rename it."
            scan.errors.append(DataError(folder, found=found, expected=expected, remedy=remedy))


def _add_described(scan: Scan, folder: Path, described: Description, *, labelled: bool) -> None:
    """The cases of a folder with dataset.json."""
    content, path = described.content, folder / DATASET_JSON
    if "dataset" in content:
        _add_dataset_entries(scan, path, described, content["dataset"])
        return
    listed = _listed(path, content, "training")
    if any(is_file(folder / image) for image, _ in listed):
        _add_listed(scan, path, described, listed)
        if not labelled:
            tests = [(image, None) for image, _ in _listed(path, content, "test")]
            _add_listed(scan, path, described, tests)
        return
    for images, labels in _PARTS[: 1 if labelled else 2]:
        if (folder / images).is_dir():
            _add_files(scan, folder / images, folder / labels, described)
    _compare_with_list(scan, path, content, [image for image, _ in listed])


def _listed(path: Path, content: Mapping[str, Any], key: str) -> list[tuple[str, str | None]]:
    """(image, label) of the entries of a list of dataset.json."""
    entries = content.get(key, [])
    if not isinstance(entries, list):
        expected = 'a list such as [{"image": "./imagesTr/x.nii.gz", "label": ...}]'
        raise DataError(path, found=f"{key} {entries!r:.60}", expected=expected, remedy="Mend it.")
    read: list[tuple[str, str | None]] = []
    for entry in entries:
        pair = entry if isinstance(entry, dict) else {"image": entry}
        image, label = pair.get("image"), pair.get("label")
        if not isinstance(image, str) or not isinstance(label, str | None):
            found = f"the entry {entry!r:.60} in {key}"
            expected = "the paths of image and label"
            raise DataError(path, found=found, expected=expected, remedy="Mend it.")
        read.append((image, label))
    return read


def _add_listed(
    scan: Scan, path: Path, described: Description, listed: Sequence[tuple[str, str | None]]
) -> None:
    """Cases of the Decathlon: one file with all channels each."""
    folder = path.parent
    for image, label in listed:
        with scan.collecting():
            id = nifti_stem(Path(image).name) or Path(image).name
            case = _case_of_paths(path, id, [image], label)
            scan.cases.append(replace(case, dataset=described.name))
    known = {folder / image for image, _ in listed}
    for home in {image.parent for image in known if image.parent.is_dir()}:
        for other in _volumes_in(scan, home):
            if other not in known:
                scan.remark(other, f"found no entry for it in {path.name}. It is ignored.")


def _add_dataset_entries(scan: Scan, path: Path, described: Description, entries: Any) -> None:
    """Cases whose files dataset.json names one by one (nnU-Net 2)."""
    if not isinstance(entries, dict):
        expected = 'an object such as {"x": {"images": [...], "label": ...}}'
        raise DataError(path, found="another dataset", expected=expected, remedy="Mend it.")
    for id, entry in entries.items():
        with scan.collecting():
            files = entry if isinstance(entry, dict) else {}
            images, label = files.get("images"), files.get("label")
            images = images if isinstance(images, list) else []
            sound = all(isinstance(name, str) for name in (*images, label or ""))
            if not sound or len(images) != len(described.channels):
                found = f"the entry {id!r}: {entry!r:.60} in dataset"
                expected = f"{len(described.channels)} images and a label"
                raise DataError(path, found=found, expected=expected, remedy="Mend it.")
            case = _case_of_paths(path, id, images, label)
            scan.cases.append(replace(case, dataset=described.name))


def _case_of_paths(path: Path, id: str, images: Sequence[str], label: str | None) -> Case:
    """The case with these paths, which are relative to the folder of dataset.json."""
    where = f"{path}, case {id}"
    paths = [_file_of(path.parent, name, where) for name in images]
    labels = _file_of(path.parent, label, where) if label else None
    return Case(id, "", tuple(paths), labels, id)


def _add_files(scan: Scan, images: Path, labels: Path | None, described: Description) -> None:
    """Cases of nnU-Net: x_0000.nii.gz, x_0001.nii.gz, ... and the labels x.nii.gz."""
    channels: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in _volumes_in(scan, images):
        stem = nifti_stem(path.name) or ""
        if match := _CHANNEL.fullmatch(stem):
            channels[match[1]][int(match[2])].append(path)
        elif labels is None and len(described.channels) == 1:
            channels[stem][0].append(path)
        else:
            expected = f"expected the channel in it ({stem}_0000.nii.gz)"
            scan.remark(path, f"found a name without channel, {expected}. It is ignored.")
    maps: dict[str, list[Path]] = defaultdict(list)
    for path in _volumes_in(scan, labels) if labels is not None and labels.is_dir() else ():
        maps[nifti_stem(path.name) or ""].append(path)
    required = labels is not None and (bool(maps) or labels.name == _PARTS[0][1])
    for id, files in channels.items():
        with scan.collecting():
            case = _case_of_files(images / id, files, maps.pop(id, []), described)
            if required and case.labels is None:
                remedy = "Add the labels, or move the case to imagesTs."
                expected = f"{labels}/{id}.nii.gz"
                raise DataError(images / id, found="no labels", expected=expected, remedy=remedy)
            scan.cases.append(case)
    for path in (path for paths in maps.values() for path in paths):
        scan.remark(path, f"found labels, expected an image in {images.name}. They are ignored.")


def _case_of_files(
    where: Path, files: Mapping[int, list[Path]], maps: Sequence[Path], described: Description
) -> Case:
    """The case with these files by channel and these label maps, if they are complete."""
    channels = described.channels
    for paths in (*files.values(), maps):
        if len(paths) > 1:
            found = " and ".join(path.name for path in paths)
            raise DataError(where, found=found, expected="one of them", remedy="Keep one of them.")
    for number in sorted(set(files) - set(range(len(channels)))):
        expected = f"the channels 0000 to {len(channels) - 1:04} ({', '.join(channels)})"
        remedy = "Describe the channel, or move the file elsewhere."
        raise DataError(where, found=files[number][0].name, expected=expected, remedy=remedy)
    missing = tuple(number for number in range(len(channels)) if number not in files)
    for number in missing:
        found = f"no {where.name}_{number:04}.nii.gz ({channels[number]})"
        _require_declared(where, found, channels[number], described)
    images = tuple(files[number][0] for number in sorted(files))
    labels = maps[0] if maps else None
    return Case(where.name, described.name, images, labels, where.name, missing=missing)


def _compare_with_list(
    scan: Scan, path: Path, content: Mapping[str, Any], listed: Sequence[str]
) -> None:
    """Keep the cases that version 1 lists; say where list, number and folder differ."""
    count = content.get("numTraining")
    labelled = sum(case.labels is not None for case in scan.cases)
    if isinstance(count, int) and not scan.errors and count not in (labelled, len(scan.cases)):
        scan.remark(path, f"found numTraining {count}, expected {labelled}, those in imagesTr.")
    if not listed:
        return
    ids = {nifti_stem(Path(image).name) for image in listed}
    there = {case.id for case in scan.cases}
    wrong = {Path(error.where).name for error in scan.errors}
    for id in sorted(ids - there - wrong - {None}, key=str):
        found, expected = (
            f"case {id} in training",
            f"{_PARTS[0][0]}/{id}_0000.nii.gz or {id}.nii.gz",
        )
        remedy = "Add it, or mend the entry."
        scan.errors.append(DataError(path, found=found, expected=expected, remedy=remedy))
    for case in [case for case in scan.cases if case.labels is not None and case.id not in ids]:
        scan.remark(path, f"found no entry for {case.id} in training. The case is left out.")
        scan.cases.remove(case)


# cases.csv


def _add_rows(scan: Scan, path: Path, described: Description, *, labelled: bool) -> None:
    """The cases of a table with paths."""
    columns = (*description.COLUMNS,)
    for line, row in read_rows(path, ("id",), columns, others="<a column per modality>"):
        where = f"{path}, line {line}"
        with scan.collecting():
            case = _row_case(path, where, row, described)
            if case.labels is None and row.get("split"):
                found, expected = "no label", f"one for a case of the {row['split']} side"
                raise DataError(where, found=found, expected=expected, remedy=_MEND)
            if case.labels is not None or not labelled:
                scan.cases.append(case)
            if row.get("split"):
                scan.sides[case.id] = row["split"]
    _require_sides(scan, path)


def _row_case(path: Path, where: str, row: Mapping[str, str], described: Description) -> Case:
    id = row["id"].strip()
    if not is_file_name(id):
        expected = "a name of its own that can be the name of a file"
        raise DataError(where, found=f"id {row['id']!r}", expected=expected, remedy=_MEND)
    _require_split(where, row)
    missing = tuple(n for n, name in enumerate(described.channels) if not row[name].strip())
    for number in missing:
        name = described.channels[number]
        _require_declared(where, f"no {name} for {id}", name, described)
    names = [name for name in described.channels if row[name].strip()]
    if not names:
        raise DataError(where, found="no image", expected="one or more", remedy=_MEND)
    label = row.get("label", "").strip()
    paths = [_file_of(path.parent, row[name].strip(), where) for name in names]
    paths += [_file_of(path.parent, label, where)] if label else []
    for each in paths:
        if paths.count(each) > 1:
            found = f"{each.name} in two columns"
            raise DataError(where, found=found, expected="a file of its own", remedy=_MEND)
    labels = paths.pop() if label else None
    group = row.get("group", "").strip() or id
    return Case(id, described.name, tuple(paths), labels, group, missing=missing)


def _add_groups(scan: Scan, path: Path) -> None:
    """Groups and sides of the cases of a dataset.json from the cases.csv beside it."""
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    for line, row in read_rows(path, ("id",), ("group", "split")):
        where = f"{path}, line {line}"
        if row["id"] in rows:
            found = f"id {row['id']!r} a second time"
            raise DataError(where, found=found, expected="each once", remedy=_MEND)
        _require_split(where, row)
        rows[row["id"]] = line, row
    known = {case.id for case in scan.cases}
    for id, (line, _) in rows.items():
        if id not in known and not scan.errors:
            found, expected = f"id {id!r}", f"a case of {DATASET_JSON}"
            where = f"{path}, line {line}"
            scan.errors.append(DataError(where, found=found, expected=expected, remedy=_MEND))
    for index, case in enumerate(scan.cases):
        if case.id not in rows:
            if case.labels is not None:
                found, remedy = f"no row for {case.id}", "Add it."
                scan.errors.append(DataError(path, found=found, expected="one", remedy=remedy))
            continue
        row = rows[case.id][1]
        group = row.get("group", "").strip() or case.id
        scan.cases[index] = replace(case, group=group)
        if row.get("split") and case.labels is not None:
            scan.sides[case.id] = row["split"]
    _require_sides(scan, path)


def _require_split(where: str, row: Mapping[str, str]) -> None:
    if row.get("split", "") not in ("", TRAINING, VALIDATION, TEST):
        found, expected = f"split {row['split']!r}", f"{TRAINING}, {VALIDATION} or {TEST}"
        raise DataError(where, found=found, expected=expected, remedy=_MEND)


def _require_sides(scan: Scan, path: Path) -> None:
    """Either all labelled cases have a side or none, and a group has one."""
    labelled = [case for case in scan.cases if case.labels is not None]
    without = [case.id for case in labelled if case.id not in scan.sides]
    if scan.sides and without:
        found = f"no split for {without[0]}"
        expected = f"{TRAINING}, {VALIDATION} or {TEST} for every case with labels, or for none"
        scan.errors.append(DataError(path, found=found, expected=expected, remedy=_MEND))
    sides: dict[str, set[str]] = defaultdict(set)
    for case in labelled:
        if case.id in scan.sides:
            sides[case.group].add(scan.sides[case.id])
    for group in (group for group, names in sides.items() if len(names) > 1):
        found, remedy = f"group {group} on several sides", "Split by group."
        scan.errors.append(DataError(path, found=found, expected="one side", remedy=remedy))


# Names


def _file_of(folder: Path, name: str, where: str) -> Path:
    """The file that an entry names; it must lie below the folder.

    A description comes with data that others made, so it must not name other files of its user.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        remedy = "Put the description above all its files, and name them from there."
        expected = "a file below its folder"
        raise DataError(where, found=f"the path {name!r:.80}", expected=expected, remedy=remedy)
    if not is_file(folder / name):
        expected, remedy = f"the file {folder / name!s:.300}", "Add it, or mend the entry."
        raise DataError(where, found="no such file", expected=expected, remedy=remedy)
    return folder / name


def _volumes_in(scan: Scan, folder: Path) -> list[Path]:
    """The NIfTI files of a folder; other volumes and archives are remarked upon."""
    found = []
    for path in checks.entries(folder):
        if path.is_file() and nifti_stem(path.name) is not None:
            found.append(path)
        elif not foreign.is_text(path) and not path.is_dir():
            scan.remark(path, "found another file, expected .nii or .nii.gz. It is ignored.")
    return found


def _require_declared(where: Path | str, found: str, channel: str, described: Description) -> None:
    """Refuse a case without a modality, unless labels.json says that it may be missing."""
    if channel not in described.may_miss:
        remedy = f'Add it, or declare "missing_modalities": ["{channel}"] in labels.json.'
        raise DataError(where, found=found, expected="all modalities", remedy=remedy)
