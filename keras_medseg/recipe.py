"""A recipe: every setting of one experiment as plain, frozen data.

A paper's recipe is written once in `experiments/<paper>/recipe.py`; a profile, an ablation or
`--set train.epochs=2` is a list of overrides on it.
"""

import ast
import dataclasses
import difflib
import inspect
import json
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from keras_medseg.data.datasets.brats import MODALITIES


@dataclass(frozen=True)
class Slices:
    """Axial slices of volumes. Sizes in voxels of the (x, y, z) grid.

    window: the centre of the grid that is used; the network sees (x, y).
    flips: axes, of "x" and "y", along which a training slice is mirrored with probability 1/2.
    held_out: the part of the patients that is not trained on.
    slice_step: every so many-th slice of the window is used in training.
    modalities: what the network sees, its channels in this order.
    """

    window: tuple[int, int, int]
    normalisation: str
    flips: tuple[str, ...]
    held_out: float
    slice_step: int = 1
    modalities: tuple[str, ...] = MODALITIES

    @property
    def input_size(self) -> tuple[int, int]:
        """What the network sees at once."""
        return self.window[:2]


@dataclass(frozen=True)
class Patches:
    """Three-dimensional crops of volumes, one per case and epoch. Sizes in voxels (x, y, z).

    foreground_probability: how often a training crop is placed on a labelled object.
    augmentation: name -> options of the augmentations of `data.augment_volumes`, in training.
    augment_on_device: whether they are done within the training step, on the accelerator.
    overlap: the part by which neighbouring windows overlap when a whole volume is predicted.
    test_time_flips: whether predictions of the mirrored volume are averaged in.
    modalities: what the network sees, its channels in this order.
    """

    patch: tuple[int, int, int]
    normalisation: str
    foreground_probability: float
    held_out: float
    augmentation: dict[str, Any] = field(default_factory=dict)
    augment_on_device: bool = False
    overlap: float = 0.5
    test_time_flips: bool = False
    modalities: tuple[str, ...] = MODALITIES

    @property
    def input_size(self) -> tuple[int, int, int]:
        """What the network sees at once."""
        return self.patch


@dataclass(frozen=True)
class Pictures:
    """Two-dimensional pictures, each brought to one size. Sizes in pixels (rows, columns).

    fit: how a picture is brought to `size`, see `data.resize`.
    classes: name -> grey values in the masks; no values: whatever is not background.
    smoothing_px, equalisation, normalisation: see `data.pictures.Preparation`.
    flips: axes, of "x" (rows) and "y" (columns), along which a training picture is mirrored with
        probability 1/2.
    brightness: training intensities are multiplied by 1 - brightness to 1 + brightness.
    held_out, split: the part that is not trained on, of "group"s or of single pictures ("random").
    mean, std: of the training pictures' channels; None until a run has measured them.
    """

    size: tuple[int, int]
    classes: dict[str, tuple[int, ...]]
    normalisation: str
    held_out: float
    fit: str = "stretch"
    smoothing_px: float = 0.0
    equalisation: bool = False
    flips: tuple[str, ...] = ()
    brightness: float = 0.0
    split: str = "group"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def input_size(self) -> tuple[int, int]:
        """What the network sees at once."""
        return self.size


@dataclass(frozen=True)
class Model:
    """The network and what it is trained for.

    networks: one training per inner tuple, which names the regions of that network's outputs.
    overrides: passed on to `keras_medseg.build`.
    auxiliary: regions of the further outputs that every network has in training alone.
    """

    name: str
    networks: tuple[tuple[str, ...], ...]
    overrides: dict[str, Any] = field(default_factory=dict)
    auxiliary: tuple[str, ...] = ()


@dataclass(frozen=True)
class Train:
    """How one network is fitted.

    keep: the weights of the "last" epoch, or of that with the "best" (lowest) validation loss, the
        first of equals.
    """

    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    loss: str
    schedule: str
    precision: str
    seed: int
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    loss_options: dict[str, Any] = field(default_factory=dict)
    schedule_options: dict[str, Any] = field(default_factory=dict)
    keep: str = "last"


@dataclass(frozen=True)
class Predict:
    """What is done to a predicted label map.

    smallest_component: connected components under this share of the largest are dropped; 0 keeps
        all.
    """

    smallest_component: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """One experiment of one paper."""

    paper: str
    data: Slices | Patches | Pictures
    model: Model
    train: Train
    predict: Predict = Predict()


SIZES = {Slices: ("window", 3), Patches: ("patch", 3), Pictures: ("size", 2)}
"""Each kind's field of a size, and its number of axes."""

KINDS = {kind.__name__: kind for kind in (Slices, Patches, Pictures)}


def input_channels(recipe: Recipe, stored: int) -> int:
    """How many channels the network sees, of `stored` in a case."""
    return stored if isinstance(recipe.data, Pictures) else len(recipe.data.modalities)


def fields(recipe: Recipe) -> dict[str, Any]:
    """The recipe as {"train.epochs": 20, "train.loss_options.edge_weight": 1.0, ...}."""

    def walk(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:
        if dataclasses.is_dataclass(value):
            value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            yield prefix, value

    return dict(walk("", recipe))


def override(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """Apply `a.b=value` assignments; values are Python literals, anything else is a string.

    `data={'kind': 'Slices', 'window': (128, 128, 128), ...}` puts other data in the place of the
    recipe's, in the form that they have in JSON.

    Raises:
        ValueError: for an assignment without "=", an unknown field (the nearest is named) or a
            value of another type than the field's.
    """
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment}: found no '=', expected FIELD=VALUE.")
        recipe = _replace(recipe, name.strip(), name.strip().split("."), _literal(text.strip()))
    return recipe


def differences(ours: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Fields in which two recipes differ: {field: (ours, other)}; a missing field is None."""
    a, b = fields(ours), fields(other)
    return {k: (a.get(k), b.get(k)) for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)}


def to_json(recipe: Recipe) -> str:
    """Readable JSON that `from_json` turns back into an equal recipe."""
    tree = dataclasses.asdict(recipe)
    tree["data"] = {"kind": type(recipe.data).__name__, **tree["data"]}
    return json.dumps(tree, indent=2) + "\n"


def from_json(text: str) -> Recipe:
    """Inverse of `to_json`.

    Raises:
        ValueError: when the text is no JSON of a recipe, naming the field.
    """
    try:
        tree = json.loads(text)
        data = _data({"kind": "Slices", **_tuples(tree["data"])})
        model, train = Model(**_tuples(tree["model"])), Train(**_tuples(tree["train"]))
        return Recipe(tree["paper"], data, model, train, Predict(**tree.get("predict", {})))
    except (KeyError, TypeError) as error:
        raise ValueError(f"recipe: {error}. Expected the fields that to_json writes.") from error


def _literal(text: str) -> Any:
    try:
        return _tuples(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text


def _replace(node: Any, name: str, path: list[str], value: Any) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(node, dict):
        inner = _replace(node.get(head, {}), name, rest, value) if rest else value
        return {**node, head: inner}
    known = [f.name for f in dataclasses.fields(node)]
    if head not in known:
        near = difflib.get_close_matches(head, known, n=1) or known
        raise ValueError(f"--set {name}: no field {head!r}. Did you mean {' or '.join(near)}?")
    current = getattr(node, head)
    if name == "data" and isinstance(value, dict):
        return dataclasses.replace(node, data=_data(value))
    if rest and not (dataclasses.is_dataclass(current) or isinstance(current, dict)):
        raise ValueError(f"--set {name}: {head!r} is a value, not a group of fields.")
    new = _replace(current, name, rest, value) if rest else _typed(current, name, value)
    return dataclasses.replace(node, **{head: new})


def _data(values: dict[str, Any]) -> Slices | Patches | Pictures:
    """The data of a recipe from {"kind": "Slices", "window": (...), ...}.

    Raises:
        ValueError: for an unknown kind, and a field that is unknown, missing or of another type.
    """
    values = dict(values)
    kind = KINDS.get(found := values.pop("kind", None))
    if kind is None:
        raise ValueError(f"data.kind: found {found!r}, expected one of {', '.join(KINDS)}.")
    for part in dataclasses.fields(kind):
        if part.name in values:
            values[part.name] = _of_type(part.type, f"data.{part.name}", values[part.name])
    try:
        return kind(**values)
    except TypeError as error:
        names = ", ".join(part.name for part in dataclasses.fields(kind))
        raise ValueError(f"data: {error}. The fields of {found} are {names}.") from error


def _of_type(expected: Any, name: str, value: Any) -> Any:
    options = typing.get_args(expected) if isinstance(expected, types.UnionType) else (expected,)
    if expected is float and type(value) is int:
        return float(value)
    if any(_fits(option, value) for option in options):
        return value
    raise ValueError(f"{name}: found {value!r}, expected {inspect.formatannotation(expected)}.")


def _fits(expected: Any, value: Any) -> bool:
    if typing.get_origin(expected) is tuple:
        return isinstance(value, tuple) and {*map(type, value)} <= {*typing.get_args(expected)}
    return type(value) is (typing.get_origin(expected) or expected)


def _typed(current: Any, name: str, value: Any) -> Any:
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(current, tuple):
        value = _tuples(value) if isinstance(value, list | tuple) else (value,)
    # Elements too: ("WT") is no list of networks, (("WT",),) is.
    elements = isinstance(current, tuple) and {type(inner) for inner in current}
    if type(value) is not type(current) or (elements and {*map(type, value)} - elements):
        raise ValueError(
            f"--set {name}: found {value!r}, expected {type(current).__name__} such as {current!r}."
        )
    return value


def _tuples(value: Any) -> Any:
    """JSON knows no tuples: lists inside a recipe are tuples."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_tuples(inner) for inner in value)
    return value
