"""The kinds of data sets, one file each; `base.Dataset` is their contract.

A new kind is a new file here: the kinds are found, not listed, and imported when they are used.
"""

import os
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from keras_medseg.data import checks
from keras_medseg.data.datasets.base import Codes, Dataset
from keras_medseg.data.formats import foreign
from keras_medseg.errors import DataError, require_choice

_DEPTH = 6
"""How many folders below the one given are looked through for what else lies there."""


def names() -> list[str]:
    """Names of the kinds of data sets, which are the names of their files."""
    found = (module.name for module in iter_modules(__path__))
    return sorted(name for name in found if name != "base" and not name.startswith("_"))


def get(name: str, **options: Any) -> Dataset:
    """A kind of data set with its options.

    Args:
        name: one of `names()`.
        **options: the fields of its class.

    Raises:
        ValueError: an unknown name or option, or an invalid value.
    """
    cls = _class_of(name)
    for option in options:
        require_choice(f"option of data set {name}", option, [field.name for field in fields(cls)])
    return cls(**options)


def of_folder(folder: Path, name: str = "", **options: Any) -> Dataset:
    """The data set in `folder`, with the options that its files and names determine.

    Args:
        folder: of the cases.
        name: one of `names()` or of their aliases, such as "BraTS2024-GLI"; by default as
            recognized.
        **options: take precedence.

    Raises:
        DataError: as `recognize` and `Dataset.options_of`.
        ValueError: an unknown name or option.
    """
    kind, of_alias = resolve(name) if name else (recognize(folder), {})
    chosen = {**of_alias, **options}
    return get(kind, **complete_options(kind, chosen, folder))


def annotations(
    folder: Path,
    name: str = "",
    *,
    labels: Mapping[int, str] | None = None,
    regions: Mapping[str, Codes] | None = None,
    **options: Any,
) -> Dataset:
    """The data set in `folder` for scoring; it may also hold label maps alone, without images.

    Args:
        folder: of a data set as in `of_folder`, or of label maps alone: segmentations with the
            names of BraTS, those of nnU-Net below its dataset.json, volumes whose `labels` or
            `regions` are given, or masks of one object.
        name: as in `of_folder`.
        labels: code on disk -> name, of label maps alone.
        regions: name -> codes on disk, of label maps alone; by default every label.
        **options: as in `of_folder`.

    Raises:
        DataError: as `of_folder`, or nothing says what label maps hold.
        ValueError: an unknown name or option, a name or option beside `labels` or `regions`, or a
            region of codes without a label.
    """
    from keras_medseg.data.datasets import _label_maps

    if labels or regions:
        if name or options:
            given = ", ".join([name, *options] if name else options)
            raise ValueError(
                f"{folder}: found {given} beside labels or regions with codes, expected these "
                "alone. Label maps alone are of no data set."
            )
        _refuse_codes_of_a_known_data_set(folder)
        return _label_maps.label_maps(folder, labels or {}, regions or {})
    known = name or any(_class_of(kind).recognizes(folder.absolute()) for kind in names())
    if (not name and _label_maps.masks_alone(folder)) or (not known and _label_maps.holds(folder)):
        return _label_maps.label_maps(folder, {}, {})
    return of_folder(folder, name, **options)


def _refuse_codes_of_a_known_data_set(folder: Path) -> None:
    """With codes, its patients and the rules of its challenge would be lost without a word."""
    for kind in names():
        if not _class_of(kind).recognizes(folder.absolute()):
            continue
        try:
            known = of_folder(folder, kind)
            cases = known.find(folder).cases
        except DataError:  # label maps alone, named as in a data set
            continue
        if cases:
            raise ValueError(
                f"{folder}: found labels or regions with codes for a data set ({kind}), "
                f"expected names of its regions: {', '.join(known.regions)}. Codes are for label "
                "maps alone: copy these into a folder of their own, and give --groups where a "
                "patient has several."
            )


def resolve(name: str) -> tuple[str, dict[str, Any]]:
    """The kind and the options that a name or an alias stands for.

    Raises:
        ValueError: an unknown name.
    """
    aliases = {alias: kind for kind in names() for alias in _class_of(kind).aliases}
    if name in aliases:
        return aliases[name], dict(_class_of(aliases[name]).aliases[name])
    require_choice("data set", name, [*names(), *aliases])
    return name, {}


def complete_options(name: str, options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`options` of a kind, completed by what the files in `folder` determine.

    Raises:
        DataError: as `Dataset.options_of`.
    """
    home = folder if folder.is_dir() else folder.parent  # of a manifest
    known = _class_of(name).options_of(home, options) if home.is_dir() else {}
    return {**known, **options}


def recognize(folder: Path) -> str:
    """The kind of the data set in `folder`, recognized by its file names.

    Raises:
        DataError: none is recognized (with the expected files beside those found), or several.
    """
    folder = Path(os.path.abspath(folder))
    found = [name for name in names() if _class_of(name).recognizes(folder)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            folder,
            found=f"data sets of several kinds: {', '.join(found)}",
            expected="one kind",
            remedy=f"Name the one that you mean, such as `--dataset {found[0]}`.",
        )
    kinds = "; ".join(f"{name}: {_about(_class_of(name))}" for name in names())
    remedy = "Give the folder that holds the cases."
    checks.require_folder(folder, expected=f"a folder with cases ({kinds})", remedy=remedy)
    with checks.readable_folders():
        others = [path for path in checks.files_below(folder, _DEPTH) if not foreign.is_text(path)]
    remedies = foreign.remedies(others) if others else ""
    error = DataError(
        folder,
        found="no files with the names of a data set that is known"
        + (f", but {foreign.counted(others)}" if others else ""),
        expected=f"one of {', '.join(names())} ({kinds})",
        remedy=f"{remedies} Give the folder of the cases, with the files named as below, or name "
        "the kind (`--dataset NAME`).".lstrip(),
    )
    raise checks.with_trees(error, checks.beside_listing(_examples(), folder))


def refuse_another_kind(name: str, folder: Path) -> None:
    """Refuse a folder whose files are those of other kinds alone.

    Raises:
        ValueError: naming the kind to set in the recipe.
    """
    found = [kind for kind in names() if _class_of(kind).recognizes(folder.absolute())]
    if found and name not in found:
        raise ValueError(
            f"data.dataset: found {name!r}, expected {found[0]!r}, whose files those in {folder} "
            f"are. Give --set data.dataset={found[0]}, and what else the recipe says of "
            "its data: model.targets, data.modalities."
        )


def _about(cls: type[Dataset]) -> str:
    """The first line of a class' docstring, as a part of a sentence."""
    return (cls.__doc__ or "").splitlines()[0].rstrip(".")


def _class_of(name: str) -> type[Dataset]:
    """The one subclass of Dataset that a file defines."""
    require_choice("data set", name, names())
    module = import_module(f"{__name__}.{name}")
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    own = [cls for cls in classes if cls.__module__ == module.__name__ and issubclass(cls, Dataset)]
    if len(own) != 1:
        raise TypeError(f"{module.__file__}: found {len(own)} subclasses of Dataset, expected one.")
    return own[0]


def _examples() -> list[str]:
    """How the files of every kind are named."""
    lines = []
    for name in names():
        lines += [f"{name}:", *(f"  {line}" for line in _class_of(name).layout_examples())]
    return lines
