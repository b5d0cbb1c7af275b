"""The papers whose recipes are at hand: by name, as a list, and each of them as a page to read.

In a checkout they are the package `experiments`; a wheel has the same files as
`keras_medseg.papers`, because a top-level `experiments` in site-packages could be anyone's. The
modules of a paper import each other by relative names, so they run under both.
"""

import ast
import importlib
import sys
import textwrap
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from keras_medseg.errors import require_choice
from keras_medseg.files import read_file

if TYPE_CHECKING:
    from keras_medseg.runs.experiment import Experiment

_PACKAGE = Path(__file__).parents[1]
_INSTALLED = (_PACKAGE / "papers").is_dir()
FOLDER = _PACKAGE / "papers" if _INSTALLED else _PACKAGE.parent / "experiments"
"""The folder with a folder per paper."""

_REMEDY = "Install the package again."


def names() -> list[str]:
    """The papers, as `reproduce` and `train --recipe` take them."""
    return sorted(path.parent.name for path in FOLDER.glob("*/recipe.py"))


def recipe_module(paper: str) -> ModuleType:
    """The module `recipe` of a paper, which declares RECIPE and EXPERIMENTS.

    Raises:
        ValueError: there is no such paper.
    """
    require_choice("paper", paper, names())
    # A command in bin/ does not look into the working folder, as python -m does.
    if not _INSTALLED and str(FOLDER.parent) not in sys.path:
        sys.path.append(str(FOLDER.parent))
    parent = "keras_medseg.papers" if _INSTALLED else "experiments"
    return importlib.import_module(f"{parent}.{paper}.recipe")


def find(paper: str, dataset: str | None = None) -> "Experiment":
    """The experiment of a paper, by default on its first data set.

    Raises:
        ValueError: there is no such paper, or it has no such data set.
    """
    declared = recipe_module(paper).EXPERIMENTS
    chosen = dataset or next(iter(declared))
    require_choice("--dataset", chosen, declared)
    return declared[chosen]


def named(text: str) -> "Experiment":
    """The experiment of `PAPER` or `PAPER:DATASET`.

    Raises:
        ValueError: there is no such paper, or it has no such data set.
    """
    paper, _, dataset = text.partition(":")
    return find(paper, dataset)


def listing() -> str:
    """A line per paper: its name, and what its recipe says it is."""
    return "\n".join(f"{name:12} {_first_line(name)}" for name in names())


def describe(text: str) -> str:
    """A page about `PAPER` or `PAPER:DATASET`: commands, profiles, settings with the ledger's word.

    Raises:
        ValueError: there is no such paper, or it has no such data set.
    """
    paper, _, dataset = text.partition(":")
    experiment = find(paper, dataset)
    declared = recipe_module(paper).EXPERIMENTS
    reference = experiment.reference
    option = f" --dataset {dataset}" if dataset else ""
    parts = [
        f"{paper}: {_first_line(paper)}",
        *([reference.citation] if reference and reference.citation else []),
        "",
        f"data sets    {', '.join(f'{name} ({_data(one)})' for name, one in declared.items())}",
        f"reproduce    keras-medseg reproduce {paper}{option} [--data DIR]",
        f"own data     keras-medseg train DIR --recipe {text} --out RUN",
        "",
        "Profiles, and the variants that each trains:",
        *(_profile(name, one.variants) for name, one in experiment.profiles.items()),
        "",
        "The paper's recipe, and what the ledger says of each setting (entry):",
        *_settings(paper, experiment),
    ]
    return "\n".join(parts)


def _profile(name: str, variants: Iterable[str]) -> str:
    """A profile with its variants, in lines of a terminal."""
    return textwrap.fill(
        ", ".join(variants), 100, initial_indent=f"  {name:14} ", subsequent_indent=17 * " "
    )


def _first_line(paper: str) -> str:
    """Without importing the recipe, which would import Keras."""
    module = ast.parse((FOLDER / paper / "recipe.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(module) or "").partition("\n")[0].removesuffix(".")


def _data(experiment: "Experiment") -> str:
    return experiment.reference.data if experiment.reference else "any"


def _settings(paper: str, experiment: "Experiment") -> list[str]:
    from keras_medseg import recipe  # noqa: PLC0415 - the command line lists papers without it

    said = _said(read_file(FOLDER / paper / "ledger.toml", tomllib.loads, _REMEDY))
    lines = []
    for name, value in recipe.fields(experiment.recipe).items():
        close = next((said[key] for key in (name, name.rpartition(".")[0]) if key in said), "")
        lines.append(f"  {name:38} {_plain(value):34} {close}".rstrip())
    return lines


def _said(ledger: dict[str, Any]) -> dict[str, str]:
    """{"train.epochs": "exact (training)"}."""
    return {
        name: f"{entry['status']} ({entry['id']})"
        for entry in ledger["entry"]
        for name in entry.get("fields", {})
    }


def _plain(value: object) -> str:
    return value if isinstance(value, str) and value else repr(value)
