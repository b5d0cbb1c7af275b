"""What a folder of volumes says of itself: channels, labels, regions and their nesting.

`dataset.json` is read as nnU-Net (versions 1 and 2) and the Medical Segmentation Decathlon define
it. `labels.json` is this package's own and small; it stands beside a `cases.csv`, or beside a
`dataset.json` to add regions to it:

    {"labels": {"edema": 2, "core": 1}, "regions": {"whole": ["edema", "core"], "core": ["core"]},
     "nesting": {"whole": "edema"}, "missing_modalities": ["t2"]}

All but `labels` may be left out. Without `regions` every label is a region of its own. `nesting`
names the label of those voxels of a region that are in no region inside it; where only one label
is left for them, it need not be named.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_medseg.data.formats import foreign
from keras_medseg.data.formats.manifest import read_rows
from keras_medseg.errors import DataError, require_choice

DATASET_JSON, LABELS_JSON, CASES_CSV = "dataset.json", "labels.json", "cases.csv"
COLUMNS = ("label", "group", "split")
"""The columns that a cases.csv may have beside `id` and those of the modalities."""

_KEYS = ("labels", "regions", "nesting", "missing_modalities")
_MEND = "Mend it there."
_HIGHEST = 255

Codes = tuple[int, ...]


@dataclass(frozen=True)
class Description:
    """What a data set of volumes says of itself.

    Attributes:
        name: of the data set.
        channels: names of the modalities, in their order.
        label_codes: name -> code on disk, without background (0).
        region_codes: what is scored: name -> codes.
        nesting: region with others inside -> the code of its other voxels; each region before
            those inside it.
        may_miss: modalities that a case may lack.
        content: of dataset.json; empty if there is none.
    """

    name: str
    channels: tuple[str, ...]
    label_codes: dict[str, int]
    region_codes: dict[str, Codes]
    nesting: dict[str, int]
    may_miss: tuple[str, ...]
    content: dict[str, Any]


def describes(folder: Path) -> bool:
    """Whether a folder has a file that describes its volumes."""
    return (folder / CASES_CSV).is_file() or (folder / DATASET_JSON).is_file()


def read_description(folder: Path) -> Description:
    """The description of the volumes in `folder`.

    Raises:
        DataError: no description, or one that is damaged or contradicts itself; the message names
            the file and the entry.
    """
    if (folder / DATASET_JSON).is_file():
        described = _of_dataset_json(folder / DATASET_JSON)
        if (folder / LABELS_JSON).is_file():
            described = _with_labels_json(described, folder / LABELS_JSON)
        return described
    if not (folder / CASES_CSV).is_file():
        raise DataError(
            folder,
            found=f"no {DATASET_JSON} and no {CASES_CSV}",
            expected="one of them",
            remedy="Describe the cases; docs/own_data.md shows how.",
        )
    channels = tuple(name for name in _columns(folder / CASES_CSV) if name not in ("id", *COLUMNS))
    if not all(map(_is_name, channels)):
        found = f"the columns {_short(channels)}"
        raise DataError(folder / CASES_CSV, found=found, expected="names", remedy=_MEND)
    bare = Description(folder.resolve().name, channels, {}, {}, {}, (), {})
    return _with_labels_json(bare, folder / LABELS_JSON)


def _columns(path: Path) -> list[str]:
    rows = read_rows(path, ("id",), COLUMNS, others="<a column per modality>")
    return list(rows[0][1])


# dataset.json


def _of_dataset_json(path: Path) -> Description:
    content = read_object(path)
    key = "channel_names" if "channel_names" in content else "modality"
    channels = _channels(path, key, content.get(key))
    ending = content.get("file_ending", ".nii.gz")
    if ending not in foreign.NIFTI:
        expected = f"one of {', '.join(foreign.NIFTI)}"
        remedy = "Convert volumes to NIfTI; pictures are read from images/ beside masks/."
        raise DataError(path, found=f"file_ending {ending!r}", expected=expected, remedy=remedy)
    name = content.get("name")
    named = str(name) if _is_name(name) else path.resolve().parent.name
    labels = content.get("labels")
    if not isinstance(labels, dict) or len(labels) < 2 or not all(map(_is_name, labels)):
        expected = 'a background and at least one label, such as {"background": 0, "tumor": 1}'
        raise DataError(path, found=f"labels {_short(labels)}", expected=expected, remedy=_MEND)
    if all(key.isdecimal() for key in labels) and not any(
        type(code) is int for code in labels.values()
    ):
        labels = _turned(path, labels)
    codes, regions, nesting = _labels_and_regions(path, labels, content.get("regions_class_order"))
    return Description(named, channels, codes, regions, nesting, (), content)


def _channels(path: Path, key: str, names: Any) -> tuple[str, ...]:
    expected = 'channel_names {"0": "T1", "1": "FLAIR", ...} (or modality), numbered from 0'
    numbers = [str(number) for number in range(len(names))] if isinstance(names, dict) else []
    if not numbers or sorted(names, key=lambda n: (len(n), n)) != numbers:
        found = "no channel_names" if names is None else f"{key} {_short(names)}"
        raise DataError(path, found=found, expected=expected, remedy=_MEND)
    ordered = [names[number] for number in numbers]
    if not all(map(_is_name, ordered)):
        raise DataError(path, found=f"{key} {_short(names)}", expected=expected, remedy=_MEND)
    counts = Counter(ordered)
    # nnU-Net normalizes by the name of a channel, so several may be called "noNorm".
    return tuple(
        name if counts[name] == 1 else f"{name} {number}" for number, name in enumerate(ordered)
    )


def _turned(path: Path, labels: Mapping[str, Any]) -> dict[str, int]:
    """{"edema": 1} of version 1's {"1": "edema"}."""
    turned: dict[str, int] = {}
    for code, name in labels.items():
        if not _is_name(name) or name in turned:
            found = f"label {code} named {name!r}"
            raise DataError(path, found=found, expected="a name of its own", remedy=_MEND)
        turned["background" if int(code) == 0 else name] = int(code)
    return turned


def _labels_and_regions(
    path: Path, labels: Mapping[str, Any], order: Any
) -> tuple[dict[str, int], dict[str, Codes], dict[str, int]]:
    """Labels, regions and nesting of the labels of version 2, of which some may be lists."""
    if labels.get("background") != 0 or type(labels.get("background")) is not int:
        found = f"background {labels.get('background')!r} among the labels"
        raise DataError(path, found=found, expected='"background": 0', remedy=_MEND)
    if "ignore" in labels:
        remedy = "Label these voxels, or leave their cases out."
        found, expected = 'the label "ignore", of voxels that nobody labelled', "labelled voxels"
        raise DataError(path, found=found, expected=expected, remedy=remedy)
    named = {name: codes for name, codes in labels.items() if name != "background"}
    regions = {
        name: tuple(
            _code(path, name, code) for code in (codes if isinstance(codes, list) else [codes])
        )
        for name, codes in named.items()
    }
    if not any(isinstance(codes, list) for codes in named.values()):
        codes = {name: own[0] for name, own in regions.items()}
        _require_unique(path, codes)
        return codes, regions, {}
    return _in_class_order(path, regions, order)


def _in_class_order(
    path: Path, regions: dict[str, Codes], order: Any
) -> tuple[dict[str, int], dict[str, Codes], dict[str, int]]:
    every = {code for codes in regions.values() for code in codes}
    sound = (
        isinstance(order, list)
        and len(order) == len(regions)
        and all(type(code) is int and code in codes for code, codes in zip(order, regions.values()))
    )
    if not sound or set(order) != every:
        found = f"regions_class_order {_short(order)}"
        expected = f"for each of the regions {', '.join(regions)} one of its codes, and all codes"
        raise DataError(path, found=found, expected=expected, remedy=_MEND)
    rest = dict(zip(regions, order))
    names = {
        code: name if len(regions[name]) == 1 else f"{name}, rest" for name, code in rest.items()
    }
    codes = {names[code]: code for code in sorted(names)}
    return codes, regions, nesting_of(path, regions, rest)


def _code(path: Path, name: str, code: Any) -> int:
    if type(code) is not int or not 1 <= code <= _HIGHEST:
        expected = f"a whole number from 1 to {_HIGHEST}"
        found = f"label {name!r} with the code {code!r}"
        raise DataError(path, found=found, expected=expected, remedy=_MEND)
    return code


def _require_unique(path: Path, codes: Mapping[str, int]) -> None:
    counts = Counter(codes.values())
    twice = [name for name, code in codes.items() if counts[code] > 1]
    if twice:
        found = f"the code {codes[twice[0]]} for {' and '.join(twice)}"
        raise DataError(path, found=found, expected="a code of its own for each", remedy=_MEND)


# labels.json


def _with_labels_json(described: Description, path: Path) -> Description:
    """A description with what labels.json says, which takes precedence."""
    if not path.is_file():
        raise DataError(
            path,
            found="no such file",
            expected='the names of the labels, such as {"labels": {"tumor": 1}}',
            remedy="Write it; docs/own_data.md shows how.",
        )
    content = read_object(path)
    for key in content:
        _choice(path, "entry", key, _KEYS)
    codes = described.label_codes
    if "labels" in content:
        codes = _label_codes(path, content["labels"])
    elif not codes:
        raise DataError(path, found="no labels", expected='{"labels": {...}}', remedy=_MEND)
    regions, nesting = described.region_codes, described.nesting
    if "regions" in content or "labels" in content:
        regions = {name: (code,) for name, code in codes.items()}
        nesting = {}
    if "regions" in content:
        regions = _regions(path, content["regions"], codes)
    if "nesting" in content or regions != described.region_codes:
        declared = _mapping(path, "nesting", content.get("nesting", {}))
        rest = {name: _number(path, code, codes) for name, code in declared.items()}
        nesting = nesting_of(path, regions, rest)
    may_miss = content.get("missing_modalities", [])
    if not isinstance(may_miss, list):
        found = f"missing_modalities {_short(may_miss)}"
        raise DataError(path, found=found, expected="a list of their names", remedy=_MEND)
    for name in may_miss:
        _choice(path, "missing_modalities", name, described.channels)
    return replace(
        described,
        label_codes=codes,
        region_codes=regions,
        nesting=nesting,
        may_miss=tuple(may_miss),
    )


def _label_codes(path: Path, labels: Any) -> dict[str, int]:
    named = _mapping(path, "labels", labels)
    codes = {name: _code(path, name, code) for name, code in named.items() if name != "background"}
    if named.get("background", 0) != 0 or not codes:
        expected = 'names with their codes, such as {"edema": 2, "core": 1}; background is 0'
        raise DataError(path, found=f"labels {_short(labels)}", expected=expected, remedy=_MEND)
    _require_unique(path, codes)
    return codes


def _regions(path: Path, regions: Any, codes: Mapping[str, int]) -> dict[str, Codes]:
    named = _mapping(path, "regions", regions)
    read: dict[str, Codes] = {}
    for name, members in named.items():
        if not isinstance(members, list) or not members:
            found, expected = f"region {name!r} as {_short(members)}", "a list of its labels"
            raise DataError(path, found=found, expected=expected, remedy=_MEND)
        read[name] = tuple(dict.fromkeys(_number(path, member, codes) for member in members))
    if not read:
        raise DataError(path, found="no regions", expected="one or more", remedy=_MEND)
    return read


def _number(path: Path, member: Any, codes: Mapping[str, int]) -> int:
    """The code of a label that is given by its name or its code."""
    if type(member) is int and member in codes.values():
        return member
    _choice(path, "label", member, codes)
    return codes[member]


# Nesting


def nesting_of(
    path: Path, regions: Mapping[str, Codes], declared: Mapping[str, int]
) -> dict[str, int]:
    """The nesting of regions: which of them have others inside, and the code of their rest.

    Args:
        path: the file that describes the regions, for messages.
        regions: name -> codes.
        declared: region -> code of those of its voxels that are in no region inside it. It need
            not have the regions for which a single code is left.

    Returns:
        As `Description.nesting`; empty if no region is inside another.

    Raises:
        DataError: regions that overlap without one being inside the other, or a rest whose code is
            not clear.
    """
    members = {name: frozenset(codes) for name, codes in regions.items()}
    _require_nested(path, members)
    for name in declared:
        _choice(path, "nesting", name, regions)
    nesting: dict[str, int] = {}
    for name in sorted(regions, key=lambda name: -len(members[name])):
        inner = [other for other in members.values() if other < members[name]]
        left = members[name].difference(*inner)
        # Without regions inside, several labels are one to the network.
        only = regions[name][0] if not inner else next(iter(left)) if len(left) == 1 else None
        code = declared.get(name, only)
        if code not in members[name]:
            found = f"no label for the voxels of {name!r} that are in no region inside it"
            expected = f'"nesting": {{"{name}": ...}} with one of {sorted(left or members[name])}'
            raise DataError(path, found=found, expected=expected, remedy="Add it.")
        nesting[name] = code
    nested = any(one < other for one in members.values() for other in members.values())
    return nesting if nested or declared else {}


def _require_nested(path: Path, members: Mapping[str, frozenset[int]]) -> None:
    for name, codes in members.items():
        for other, theirs in members.items():
            if name >= other or not codes & theirs:
                continue
            if codes == theirs or not (codes < theirs or theirs < codes):
                what = "equal" if codes == theirs else "overlapping"
                found = (
                    f"the {what} regions {name!r} {sorted(codes)} and {other!r} {sorted(theirs)}"
                )
                expected = "regions inside each other, or without common labels"
                raise DataError(path, found=found, expected=expected, remedy=_MEND)


# JSON


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        DataError: no UTF-8, no JSON (the place is named), a key twice, or another type.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = json.loads(text, object_pairs_hook=_no_key_twice)
    except OSError as error:
        found = f"the error {error.strerror!r}"
        raise DataError(path, found=found, expected="a readable file", remedy=_MEND) from error
    except (ValueError, RecursionError) as error:
        found = f"no JSON ({error})"
        raise DataError(path, found=found, expected="a JSON object", remedy=_MEND) from error
    if not isinstance(content, dict):
        raise DataError(path, found=_short(content), expected="a JSON object", remedy=_MEND)
    return content


def _no_key_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(key for key, _ in pairs)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise ValueError(f"the key {twice[0]!r} twice")
    return dict(pairs)


def _mapping(path: Path, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(map(_is_name, value)):
        expected = f"{key} as a JSON object with names"
        raise DataError(path, found=f"{key} {_short(value)}", expected=expected, remedy=_MEND)
    return value


def _is_name(value: Any) -> bool:
    """Whether a value is a text that fits into a line of a message, a table or a legend."""
    return isinstance(value, str) and value.isprintable() and bool(value.strip())


def _choice(path: Path, what: str, value: Any, known: Any) -> None:
    try:
        require_choice(what, value, known)
    except ValueError as error:
        _, _, text = str(error).partition("found ")
        found, _, rest = text.partition(", expected ")
        raise DataError(
            path, found=f"{what} {found}", expected=rest.removesuffix("."), remedy=_MEND
        ) from error


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
