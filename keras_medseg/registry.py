"""The networks by name: build, list and describe them.

A network is a file of its name in `keras_medseg/models`, with a builder under
`@register(Card(...))`. The files are found, not listed. Each is imported when its network is first
used, so that a file that cannot be imported breaks only that network.
"""

import importlib
import inspect
import json
import os
import pkgutil
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from keras_medseg.errors import require_choice

if TYPE_CHECKING:
    import keras

# As in setup.cfg; a test compares them.
MINIMUM_VERSIONS = {"keras": (3, 12), "tensorflow": (2, 20)}
BACKENDS = ("tensorflow", "jax", "torch")
# For inference alone; if they lack what a network needs, Keras says so.
_OTHER_BACKENDS = ("numpy", "openvino")
# How a network was compared with its original, in the words of `describe`.
PARITIES = {
    "golden": "golden: with the same weights, the code named as source gives the same output",
    "count": "count: as many parameters as in the paper or its code, which others may have too",
    "rebuilt": "rebuilt from the paper: no code of the authors to compare with",
}
COUNTS = {"classes", "filters"}  # numbers of channels, checked for all builders alike


@dataclass(frozen=True)
class Card:
    """What is known about a network before it is built.

    Attributes:
        name: of the network, its builder and its file.
        paper: short name of the reproduced paper, or of the article that introduced the network.
        title: what it is, in a few words.
        input_shape: (..., C) of the paper, the default of the builder.
        parameters: of the default build, including moving statistics.
        dimensions: number of spatial axes.
        output: activation of the last layer.
        source: of the structure: an article or public code.
        parity: relation to the original, one of PARITIES.
        moving_statistics: number of parameters that are means and variances of batch norms, or
            needed to average them, which no gradient changes.
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
    """Decorator that registers a builder under `card.name`.

    Args:
        card: of the network.

    Returns:
        The decorator; it returns the builder as it is.

    Raises:
        ValueError: the name is already registered.
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


def build(name: str, **options: Any) -> "keras.Model":
    """Build a network, e.g. build("residual_attention_unet", input_shape=(96, 96, 4)).

    Args:
        name: one of list_models().
        options: of its builder; describe(name) lists them.

    Returns:
        The network, with new weights.

    Raises:
        ValueError: unknown name, unknown option, an invalid value, or Keras is set to channels
            first.
        ImportError: Keras or its backend is too old or not installed, or the file of the network
            cannot be imported.
    """
    entry = _find(name)
    _require_channels_last()
    accepted = _options(entry.builder)
    for option in options:
        require_choice(f"option of {name}", option, accepted)
    # A default may be None.
    if "input_shape" in options and options["input_shape"] is not accepted["input_shape"]:
        _require_shape(options["input_shape"], entry.card.input_shape)
    for option in sorted(COUNTS & options.keys()):
        count = options[option]
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{option}: found {count!r}, expected a whole number from 1 on.")
    return entry.builder(**options)


def list_models(pattern: str = "*") -> list[str]:
    """Sorted names of the networks that match a shell pattern such as "*unet*"."""
    return sorted(name for name in _files("models") | set(_entries) if fnmatchcase(name, pattern))


def card(name: str) -> Card:
    """The card of a network.

    Raises:
        ValueError: unknown name.
    """
    return _find(name).card


def options(name: str) -> dict[str, Any]:
    """The options that build(name) takes, each with its default.

    Raises:
        ValueError: unknown name.
    """
    return _options(_find(name).builder)


def describe(name: str) -> str:
    """The card of a network, the options of its builder with defaults, and its docstring.

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


def check_versions() -> None:
    """Check that Keras and its backend are there, and their versions against MINIMUM_VERSIONS.

    Keras is not imported.

    Raises:
        ImportError: one line with what was found, what is needed, and the command that mends it.
    """
    packages = ["keras"]
    if _require_backend() == "tensorflow":
        packages.append("tensorflow")
    for package in packages:
        try:
            found = version(package)
        except PackageNotFoundError:
            continue  # The import that follows reports a missing package.
        numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
        if numbers < MINIMUM_VERSIONS[package]:
            bound = ".".join(map(str, MINIMUM_VERSIONS[package]))
            raise ImportError(
                f"{package}: found version {found}, expected {bound} or newer. "
                f"Run: python -m pip install --upgrade '{package}>={bound}'"
            )


def _require_backend() -> str:
    """The backend that Keras will take, by the variable or by its file of settings."""
    path = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")).expanduser() / "keras.json"
    try:
        chosen = json.loads(path.read_text()).get("backend", "tensorflow")
    except (OSError, ValueError, AttributeError):  # as for Keras, no settings
        chosen = "tensorflow"
    where = str(path)
    if os.environ.get("KERAS_BACKEND"):
        where, chosen = "KERAS_BACKEND", os.environ["KERAS_BACKEND"]
    expected = f"expected one of {', '.join(BACKENDS)}"
    if chosen not in (*BACKENDS, *_OTHER_BACKENDS):
        raise ImportError(f"{where}: found {chosen!r}, {expected}. Unset it, or name one of them.")
    if chosen != "numpy" and not _is_installed(chosen):
        there = list(filter(_is_installed, BACKENDS))
        remedy = f"Set KERAS_BACKEND={there[0]}" if there else "Unset it"
        raise ImportError(
            f"{where}: found {chosen!r}, which is not installed, {expected} that is. {remedy}, or "
            f"run: python -m pip install {chosen}"
        )
    return chosen


def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None  # as where its import is forbidden
    return find_spec(package) is not None


def _require_channels_last() -> None:
    # By name, as nothing here imports Keras before a network's file does.
    found = importlib.import_module("keras").config.image_data_format()
    if found != "channels_last":
        raise ValueError(
            f"image_data_format: found {found!r} (in keras.json), expected 'channels_last'. Change "
            "it there, or call keras.config.set_image_data_format('channels_last') first."
        )


def _require_shape(found: object, example: tuple[int, ...]) -> None:
    """Refuse shapes that no builder can use; the builder itself checks rank and sizes."""
    numbers = list(found) if isinstance(found, Sequence) else []
    whole = all(size is None or isinstance(size, Integral) for size in numbers)
    if not numbers or not whole or numbers[-1] is None or numbers[-1] < 1:
        raise ValueError(
            f"input_shape: found {found!r}, expected whole numbers, the last one 1 channel or "
            f"more, such as {example}."
        )


def _options(builder: Callable) -> dict[str, Any]:
    parameters = inspect.signature(builder).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def _place(builder: Callable) -> str:
    return f"{builder.__module__}.{builder.__qualname__}"


def _files(folder: str) -> set[str]:
    """Names of the modules in a folder of the package, without those that begin with "_"."""
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
            f"imported. Correct it; the other networks do not need it."
        ) from error
    if name not in _entries:
        raise ImportError(
            f"models/{name}.py: found no network {name!r}, expected a builder under "
            f"@register(Card(name={name!r}, ...)). Name the file as its network."
        )
