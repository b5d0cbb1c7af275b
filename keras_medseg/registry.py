"""The networks by name: build one, list them, describe one.

A network is a file in `keras_medseg/models` of its own name, with a builder under
`@register(Card(...))`. The files are found, not listed, and one is imported when its network is
asked for: a file that cannot be imported breaks that network alone.
"""

import importlib
import inspect
import os
import pkgutil
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from keras_medseg.errors import require_choice
from keras_medseg.files import write_atomic

if TYPE_CHECKING:
    import keras

# As in setup.cfg; a test compares them.
MINIMUM_VERSIONS = {"keras": (3, 12), "tensorflow": (2, 20)}
# What ties a network to its original, in the words of `describe`.
PARITIES = {
    "golden": "golden: the code named as source puts out the same for the same weights",
    "count": "count: as many parameters as the paper, or its authors' code, has",
    "rebuilt": "rebuilt from the paper: no code of the authors to compare with",
}
COUNTS = {"classes", "filters"}  # numbers of channels, checked for all builders alike
TABLE_MARKS = ("<!-- networks: keras-medseg models --write README.md -->", "<!-- networks end -->")


@dataclass(frozen=True)
class Card:
    """What is known about a network before it is built.

    paper: short name of the reproduced paper, or of the article that introduced the network.
    input_shape: (..., C) of the paper, the builder's default.
    parameters: of the default build, moving statistics included.
    moving_statistics: how many of them are those of batch norms, which no gradient changes.
    dimensions: 2 or 3 spatial axes.
    output: what the last layer gives.
    source: where the structure was read.
    parity: what ties it to the original, one of PARITIES.
    compared_in: short names of the papers whose tables list it.
    notes: which reading was followed where the original is silent or contradicts its paper.
    """

    name: str
    paper: str
    title: str
    input_shape: tuple[int, ...]
    parameters: int
    dimensions: Literal[2, 3]
    output: Literal["sigmoid", "softmax", "logits"]
    source: str
    parity: Literal["golden", "count", "rebuilt"]
    moving_statistics: int = 0
    compared_in: tuple[str, ...] = ()
    notes: str = ""

    @property
    def trainable(self) -> int:
        """Parameters without moving statistics, as PyTorch and most articles count them."""
        return self.parameters - self.moving_statistics


@dataclass(frozen=True)
class _Entry:
    card: Card
    builder: Callable[..., "keras.Model"]


_entries: dict[str, _Entry] = {}


def register(card: Card) -> Callable:
    """Decorator that makes a builder known under `card.name`.

    Raises:
        ValueError: the name is taken.
    """

    def add(builder: Callable[..., "keras.Model"]) -> Callable[..., "keras.Model"]:
        taken = _entries.get(card.name)
        if taken is not None and _place(taken.builder) != _place(builder):
            raise ValueError(
                f"{_place(builder)}: the model name {card.name!r} is taken by "
                f"{_place(taken.builder)}. Choose another."
            )
        _entries[card.name] = _Entry(card, builder)
        return builder

    return add


def build(name: str, **overrides) -> "keras.Model":
    """Build a network, e.g. build("residual_attention_unet", input_shape=(96, 96, 4)).

    Args:
        name: one of list_models().
        overrides: options of its builder; describe(name) lists them.

    Raises:
        ValueError: unknown name, unknown override, or a value that the builder refuses.
        ImportError: Keras or TensorFlow is too old, or the network's file cannot be imported.
    """
    accepted = options(name)
    for option in overrides:
        require_choice(f"option of {name}", option, accepted)
    # A default may be None.
    if "input_shape" in overrides and overrides["input_shape"] is not accepted["input_shape"]:
        _require_shape(overrides["input_shape"], card(name).input_shape)
    for option in sorted(COUNTS & overrides.keys()):
        count = overrides[option]
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{option}: found {count!r}, expected a whole number from 1 on.")
    return _find(name).builder(**overrides)


def list_models(pattern: str = "*") -> list[str]:
    """Sorted names of the networks that match a shell pattern such as "*unet*"."""
    return sorted(name for name in _files("models") | set(_entries) if fnmatchcase(name, pattern))


def card(name: str) -> Card:
    """The card of a network.

    Raises:
        ValueError: unknown name.
    """
    return _find(name).card


def options(name: str) -> dict[str, object]:
    """The overrides that build(name) takes, each with its default.

    Raises:
        ValueError: unknown name.
    """
    parameters = inspect.signature(_find(name).builder).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def describe(name: str) -> str:
    """A network's card, its builder's options with defaults, and the builder's own words.

    Raises:
        ValueError: unknown name.
    """
    entry = _find(name)
    facts = entry.card
    lines = [
        f"{facts.name}: {facts.title}",
        f"  paper        {facts.paper}",
        f"  source       {facts.source}",
        f"  input        {'x'.join(map(str, facts.input_shape))} ({facts.dimensions}-D)",
        f"  output       {facts.output}",
        f"  parameters   {facts.parameters:,}, of which {facts.trainable:,} are trainable",
        f"  fidelity     {PARITIES[facts.parity]}",
        f"  compared in  {', '.join(facts.compared_in) or '-'}",
    ]
    if facts.notes:
        label = "  notes        "
        lines.append(
            textwrap.fill(
                label + facts.notes,
                width=100,
                subsequent_indent=" " * len(label),
                break_on_hyphens=False,
            )
        )
    lines += ["", "options"]
    lines += [f"  {option} = {default!r}" for option, default in options(name).items()]
    return "\n".join([*lines, "", inspect.getdoc(entry.builder) or ""]).rstrip()


def table() -> str:
    """All networks as a Markdown table; below it, the files that cannot be imported.

    Raises:
        ImportError: Keras or TensorFlow is too old.
    """
    check_versions()
    rows = [("network", "paper", "input", "trainable", "parameters", "parity", "compared in")]
    broken = []
    for name in list_models():
        try:
            facts = card(name)
        except ImportError as error:
            broken.append(str(error))
            continue
        size = f"{'x'.join(map(str, facts.input_shape))} ({facts.dimensions}-D)"
        counts = f"{facts.trainable:,}", f"{facts.parameters:,}"
        papers = ", ".join(facts.compared_in) or "-"
        rows.append((name, facts.paper, size, *counts, facts.parity, papers))
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]
    return "\n\n".join(["\n".join(f"| {line} |" for line in lines), *broken])


def write_table(page: Path) -> None:
    """Put the table between the two marks of a Markdown page.

    Raises:
        ValueError: the page has not both marks, in this order.
        OSError: the page cannot be read or written.
    """
    text = page.read_text()
    before, begin, rest = text.partition(TABLE_MARKS[0])
    _, end, after = rest.partition(TABLE_MARKS[1])
    if not begin or not end:
        raise ValueError(f"{page}: found no lines {' ... '.join(TABLE_MARKS)}, expected both.")
    write_atomic(page, f"{before}{begin}\n\n{table()}\n\n{end}{after}".encode())


def import_layers() -> None:
    """Make the package's layer classes known to Keras, which a saved network may hold."""
    for name in sorted(_files("layers")):
        importlib.import_module(f"keras_medseg.layers.{name}")


def check_versions() -> None:
    """Check Keras, and TensorFlow where it is the backend, against the lower bounds.

    Raises:
        ImportError: one line with the version found, the one needed, and the command that mends it.
    """
    packages = ["keras"]
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        packages.append("tensorflow")
    for package in packages:
        try:
            found = version(package)
        except PackageNotFoundError:
            continue  # The import that follows says so.
        numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
        if numbers < MINIMUM_VERSIONS[package]:
            bound = ".".join(map(str, MINIMUM_VERSIONS[package]))
            raise ImportError(
                f"{package}: found version {found}, expected {bound} or newer. "
                f"Run: python -m pip install --upgrade '{package}>={bound}'"
            )


def _require_shape(found: object, example: tuple[int, ...]) -> None:
    """Check what no builder could make sense of; rank and sizes are theirs to check."""
    numbers = list(found) if isinstance(found, Sequence) else []
    whole = all(size is None or isinstance(size, Integral) for size in numbers)
    if not numbers or not whole or numbers[-1] is None or numbers[-1] < 1:
        raise ValueError(
            f"input_shape: found {found!r}, expected whole numbers, the last one 1 channel or "
            f"more, such as {example}."
        )


def _place(builder: Callable) -> str:
    return f"{builder.__module__}.{builder.__qualname__}"


def _files(folder: str) -> set[str]:
    """Names of the package's modules in a folder; those with an underscore are shared parts."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent / folder)])
    return {module.name for module in modules if not module.name.startswith("_")}


def _find(name: str) -> _Entry:
    check_versions()
    require_choice("model", name, list_models())
    if name not in _entries:
        _import(name)
    return _entries[name]


def _import(name: str) -> None:
    try:
        importlib.import_module(f"keras_medseg.models.{name}")
    except Exception as error:
        raise ImportError(
            f"models/{name}.py: found {type(error).__name__}: {error}; expected a file that can be "
            f"imported. Mend it; the other networks do without it."
        ) from error
    if name not in _entries:
        raise ImportError(
            f"models/{name}.py: found no network {name!r}, expected a builder under "
            f"@register(Card(name={name!r}, ...)). Name the file as its network."
        )
