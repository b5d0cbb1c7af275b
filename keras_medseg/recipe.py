"""A recipe: every setting of one experiment as plain, frozen data.

A paper's recipe is written once in `experiments/<paper>/recipe.py`. A profile, an ablation or
`--set train.epochs=2` is a mapping of changes to it: {"train.epochs": 2}. Values from code, JSON
and the command line are all coerced to the types of their fields and checked when the dataclass is
created, so every recipe object is valid.
"""

import ast
import dataclasses
import inspect
import json
import types
import typing
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from keras_medseg.data import splits
from keras_medseg.data.batches.patches import CROPS
from keras_medseg.data.transforms import images, resize, volumes
from keras_medseg.errors import require_choice

FORMAT = 2
"""Of recipe.json; docs/versions.md says when it changes. 1 had the names of `_RENAMED`."""

Changes = Mapping[str, Any]
"""Field -> new value, such as {"model.name": "unet", "model.options": {"filters": 16}}."""


@dataclass(frozen=True)
class _Section:
    """Base class: coerces values to the declared types, then calls `_check`.

    Attributes:
        section: prefix of the names of its fields.
    """

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for part in dataclasses.fields(self):
            value = _coerce(hints[part.name], self._name(part.name), getattr(self, part.name))
            object.__setattr__(self, part.name, value)
        self._check()

    def _check(self) -> None:
        """Raise a ValueError that names the field with an invalid value."""

    def _name(self, part: str) -> str:
        return f"{self.section}.{part}" if self.section else part

    def _require(self, sound: bool, part: str, expected: str) -> None:
        if not sound:
            found = getattr(self, part)
            raise ValueError(f"{self._name(part)}: found {found!r}, expected {expected}.")

    def _require_all(self, part: str, known: Iterable[str]) -> None:
        for word in getattr(self, part):
            require_choice(self._name(part), word, known)


@dataclass(frozen=True)
class _Data(_Section, ABC):
    """The common part of all kinds of sampling.

    Attributes:
        dataset: kind of data set, one of `data.datasets.names()`.
        folds: number of folds of a cross-validation: every case is scored once, by networks that
            were trained on other folds. The scored side (`test`, or `validation` without a test
            side) is then one fold, whatever its fraction. 0: a single split.
        split_seed: of the split or folds; None: `train.seed`. So trainings with several seeds have
            one split.
    """

    section = "data"

    dataset: str
    folds: int = field(default=0, kw_only=True)
    split_seed: int | None = field(default=None, kw_only=True)

    @property
    @abstractmethod
    def input_size(self) -> tuple[int, ...]:
        """Size of the network's input without channels."""

    def _check_sides(self, validation: float, test: float) -> None:
        self._require(0 < validation < 1, "validation", "a share between 0 and 1")
        rest = 1 - validation
        self._require(0 <= test < rest, "test", f"a share from 0 to less than {rest:g}")
        self._require(self.folds == 0 or self.folds >= 2, "folds", "0, or 2 or more")
        self._require(self.split_seed is None or self.split_seed >= 0, "split_seed", "0 or more")

    def _check_sizes(self, part: str) -> None:
        self._require(min(getattr(self, part)) >= 1, part, "sizes of 1 or more")


@dataclass(frozen=True)
class Slices(_Data):
    """Axial slices of volumes. Sizes in voxels of the (x, y, z) grid.

    Attributes:
        window: size of the center window of the grid; the network sees its slices (x, y).
        normalization: see `data.transforms.volumes.slice_scaling`.
        flips: axes, of "x" and "y", along which a training slice is mirrored with probability 1/2.
        validation: fraction of the patients in the validation set.
        slice_step: train on every `slice_step`-th slice of the window.
        modalities: input channels of the network, in this order; empty: all of the data set.
        test: as `Images.test`, of the patients.
        options: of the kind of data set, such as {"spacing_mm": (1, 1, 1)}; what is not given is
            taken from the folder of the cases when a run starts.
    """

    window: tuple[int, int, int]
    normalization: str
    flips: tuple[str, ...]
    validation: float
    slice_step: int = 1
    modalities: tuple[str, ...] = ()
    test: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def input_size(self) -> tuple[int, ...]:
        """(x, y) of the window."""
        return self.window[:2]

    def _check(self) -> None:
        self._check_sizes("window")
        require_choice("data.normalization", self.normalization, volumes.SLICE_NORMALIZATIONS)
        self._require_all("flips", ("x", "y"))
        self._check_sides(self.validation, self.test)
        self._require(self.slice_step >= 1, "slice_step", "1 or more")


@dataclass(frozen=True)
class Patches(_Data):
    """Three-dimensional crops of volumes, one per case and epoch. Sizes in voxels (x, y, z).

    Attributes:
        patch: size of the crops, the input of the network.
        normalization: see `data.transforms.volumes.scaling`.
        foreground_probability: how often a training crop is placed on a labelled object.
        validation: fraction of the patients in the validation set.
        augmentation: name -> options of the augmentations of `data.transforms.augment_volumes`.
        augment_on_device: whether crops are augmented in the training step, on the accelerator.
        overlap: fraction by which neighboring windows overlap when a whole volume is predicted.
        test_time_flips: whether predictions are averaged with those of the mirrored volume.
        modalities: input channels of the network, in this order; empty: all of the data set.
        test: as `Images.test`, of the patients.
        crops: where training crops lie: "random", a new place in every epoch, or "center" of the
            box of the case. Validation crops lie in the center.
        slices: whether a 2-D network learns from the axial slices of the crops, which come one
            after the other, and a volume is predicted slice by slice.
        options: of the kind of data set, such as {"spacing_mm": (1, 1, 1)}; what is not given is
            taken from the folder of the cases when a run starts.
    """

    patch: tuple[int, int, int]
    normalization: str
    foreground_probability: float
    validation: float
    augmentation: dict[str, Any] = field(default_factory=dict)
    augment_on_device: bool = False
    overlap: float = 0.5
    test_time_flips: bool = False
    modalities: tuple[str, ...] = ()
    test: float = 0.0
    crops: str = "random"
    slices: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def input_size(self) -> tuple[int, ...]:
        """The patch, or (x, y) of it where the network sees slices."""
        return self.patch[:2] if self.slices else self.patch

    def _check(self) -> None:
        self._check_sizes("patch")
        require_choice("data.normalization", self.normalization, volumes.NORMALIZATIONS)
        probability = self.foreground_probability
        self._require(0 <= probability <= 1, "foreground_probability", "0 to 1")
        self._check_sides(self.validation, self.test)
        self._require(0 <= self.overlap < 1, "overlap", "0 or more and less than 1")
        require_choice("data.crops", self.crops, CROPS)
        possible = not (self.slices and self.augment_on_device)
        self._require(possible, "augment_on_device", "False, because data.slices is True")


@dataclass(frozen=True)
class Segments(_Data):
    """Three-dimensional segments of volumes, drawn by the class of their middle voxel.

    For networks whose outputs are classes that exclude each other: `model.targets` names these.
    Sizes in voxels (x, y, z).

    Attributes:
        segment: size of what the network labels.
        normalization: see `data.transforms.volumes.scaling`.
        centers: for each task, how often a segment's middle voxel is of each kind: target ->
            weight. "rest" are the voxels of the object (not 0 in every channel) without a label.
        segments_per_case: segments in an epoch, as a multiple of the cases.
        validation: fraction of the patients in the validation set.
        margin: voxels on every side that the network reads beyond the segment, such as 24 of
            DeepMedic with form="valid"; 0 for a network that pads.
        transfer: whether a sample of a task also trains those after it, by OM-Net's rule
            (`data.transforms.task_transfer`). Otherwise each trains its own.
        stages: epochs, from 0, from which the second, third, ... task are trained; empty: all from
            the start.
        flips: axes, of "x", "y" and "z", along which a training segment is mirrored with
            probability 1/2.
        tile: size of the windows when a whole volume is predicted; empty: the segment. One that is
            larger than the volume predicts it at once.
        overlap: as `Patches.overlap`.
        modalities, test, options: as those of `Patches`.
    """

    segment: tuple[int, int, int]
    normalization: str
    centers: tuple[dict[str, float], ...]
    segments_per_case: int
    validation: float
    margin: int = 0
    transfer: bool = False
    stages: tuple[int, ...] = ()
    flips: tuple[str, ...] = ()
    tile: tuple[int, ...] = ()
    overlap: float = 0.0
    modalities: tuple[str, ...] = ()
    test: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def input_size(self) -> tuple[int, ...]:
        """The segment with its margin."""
        return tuple(size + 2 * self.margin for size in self.segment)

    def _check(self) -> None:
        self._check_sizes("segment")
        require_choice("data.normalization", self.normalization, volumes.NORMALIZATIONS)
        weights = [[*weights.values()] for weights in self.centers]
        sound = bool(weights) and all(min(line, default=-1) >= 0 < sum(line) for line in weights)
        self._require(sound, "centers", "for each task some weights of 0 or more, not all 0")
        self._require(self.segments_per_case >= 1, "segments_per_case", "1 or more")
        self._require(self.margin >= 0, "margin", "0 or more")
        later = len(self.centers) - 1
        sound = len(self.stages) in (0, later) and [*self.stages] == sorted(self.stages)
        self._require(sound, "stages", f"no epochs, or {later} that do not fall")
        self._require_all("flips", ("x", "y", "z"))
        sound = not self.tile or (len(self.tile) == 3 and min(self.tile) >= 1)
        self._require(sound, "tile", "three sizes of 1 or more, or none")
        self._require(0 <= self.overlap < 1, "overlap", "0 or more and less than 1")
        self._check_sides(self.validation, self.test)


@dataclass(frozen=True)
class Images(_Data):
    """Two-dimensional images, all resized to one size. Sizes in pixels (rows, columns).

    Attributes:
        size: of the network's input.
        classes: name -> gray values in the masks, or colors such as "#ff0000"; no values:
            everything that is not background, or what classes.json beside the images declares.
        normalization, smoothing_px, equalization: see `data.transforms.images.Preparation`.
        validation: fraction of the groups, or of the images (see `split`), in the validation set.
        fit: how an image is resized to `size`, see `data.transforms.resize`.
        flips: axes, of "x" (rows) and "y" (columns), along which a training image is mirrored with
            probability 1/2.
        brightness: training intensities are multiplied by 1 - brightness to 1 + brightness.
        split: "group" keeps a patient or video sequence on one side, "random" draws single images.
        test: fraction in a test set, which is scored. The validation set then only steers the
            training: its loss lowers the learning rate and chooses the epoch that is kept. 0: no
            test set, the validation set is scored as well.
    """

    size: tuple[int, int]
    classes: dict[str, tuple[Any, ...]]
    normalization: str
    validation: float
    fit: str = "stretch"
    smoothing_px: float = 0.0
    equalization: bool = False
    flips: tuple[str, ...] = ()
    brightness: float = 0.0
    split: str = "group"
    test: float = 0.0

    @property
    def input_size(self) -> tuple[int, ...]:
        """The size of every image."""
        return self.size

    def _check(self) -> None:
        self._check_sizes("size")
        require_choice("data.normalization", self.normalization, images.NORMALIZATIONS)
        require_choice("data.fit", self.fit, resize.FITS)
        require_choice("data.split", self.split, splits.WAYS)
        self._require_all("flips", ("x", "y"))
        self._check_sides(self.validation, self.test)
        codes = [code for codes in self.classes.values() for code in codes]
        sound = all(type(code) in (int, str) for code in codes)
        self._require(sound, "classes", "gray values, or colors such as '#ff0000'")
        self._require(self.smoothing_px >= 0, "smoothing_px", "0 or more")
        self._require(0 <= self.brightness < 1, "brightness", "0 to less than 1")


@dataclass(frozen=True)
class Model(_Section):
    """The network and what it is trained for.

    Attributes:
        name: one of `keras_medseg.list_models()`.
        targets: one network is trained for each inner tuple, which lists the regions it predicts,
            one output channel each.
        options: arguments of `keras_medseg.build`.
        auxiliary: targets of the auxiliary outputs, which every network has in training only.
    """

    section = "model"

    name: str
    targets: tuple[tuple[str, ...], ...]
    options: dict[str, Any] = field(default_factory=dict)
    auxiliary: tuple[str, ...] = ()

    def _check(self) -> None:
        sound = bool(self.targets) and all(self.targets)
        self._require(sound, "targets", "the regions of at least one network, such as (('WT',),)")


@dataclass(frozen=True)
class Train(_Section):
    """How one network is fitted.

    Attributes:
        optimizer, optimizer_options: see `keras_medseg.optimizers.OPTIMIZERS`.
        loss, loss_options: see `keras_medseg.losses.get`.
        schedule, schedule_options: learning-rate rule, see `training.schedules.SCHEDULES`.
        precision: dtype policy of Keras, such as "float32" or "mixed_float16".
        seed: of the initial weights, all random draws in training and, unless `data.split_seed` is
            given, the split.
        keep: which weights are kept: those of the "last" epoch, or of the first epoch with the
            "best" (lowest) validation loss.
        init: weights to start from: a name, an archive or a run folder, as in
            `keras_medseg.load`; see `runs.initial`. Empty: the weights that the seed draws.
    """

    section = "train"

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
    init: str = ""

    def _check(self) -> None:
        self._require(self.epochs >= 1, "epochs", "1 or more")
        self._require(self.batch_size >= 1, "batch_size", "1 or more")
        self._require(self.seed >= 0, "seed", "0 or more")
        require_choice("train.keep", self.keep, ("last", "best"))


@dataclass(frozen=True)
class Predict(_Section):
    """Postprocessing of a predicted label map.

    Attributes:
        smallest_component: connected components smaller than this fraction of the largest one are
            removed; 0 keeps all.
    """

    section = "predict"

    smallest_component: float = 0.0

    def _check(self) -> None:
        self._require(0 <= self.smallest_component <= 1, "smallest_component", "0 to 1")


@dataclass(frozen=True)
class Recipe(_Section):
    """All settings of one experiment.

    Attributes:
        name: of the paper, or of your own experiment.
        data, model, train, predict: the sections.
    """

    name: str
    data: Slices | Patches | Segments | Images
    model: Model
    train: Train
    predict: Predict = field(default_factory=Predict)


def fields(recipe: Recipe) -> dict[str, Any]:
    """The recipe as {"train.epochs": 20, "train.loss_options.edge_weight": 1.0, ...}."""

    def walk(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
        if dataclasses.is_dataclass(value):
            value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            yield prefix, value

    return dict(walk("", recipe))


def override(recipe: Recipe, changes: Changes) -> Recipe:
    """A copy of the recipe with some fields changed, one after the other.

    {"data": Slices(...)} replaces the whole data section; so does a mapping in its JSON form,
    {"task": "Slices", "dataset": "brats", "window": (8, 8, 8), ...}.

    Raises:
        ValueError: an unknown field (the message names the nearest ones), or a value of the wrong
            type or out of range.
    """
    for name, value in changes.items():
        recipe = _replace(recipe, name, name.split("."), value)
    return recipe


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Changes from FIELD=VALUE on the command line; a value that is no Python literal is a string.

    Raises:
        ValueError: an assignment has no "=".
    """
    changes = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment}: found no '=', expected FIELD=VALUE.")
        changes[_current_name(name.strip())] = _literal(text.strip())
    return changes


def differences(ours: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Fields in which two recipes differ: {field: (ours, other)}; a missing field is None."""
    a, b = fields(ours), fields(other)
    return {k: (a.get(k), b.get(k)) for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)}


def to_tree(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested dictionaries, for JSON."""
    tree = dataclasses.asdict(recipe)
    tree["data"] = {"task": type(recipe.data).__name__, **tree["data"]}
    return {"format": FORMAT, **tree}


def from_tree(tree: Any) -> Recipe:
    """Inverse of `to_tree`; also reads earlier formats, and trees written by hand without one.

    Raises:
        ValueError: a field is missing, unknown or invalid, and the message names it; or a later
            format.
    """
    if isinstance(tree, Mapping) and "format" in tree:
        written = tree["format"]
        if type(written) is not int or not 1 <= written <= FORMAT:
            raise ValueError(
                f"recipe: found format {written!r}, expected {FORMAT} or earlier. If a later "
                "version wrote it, run: python -m pip install --upgrade keras_medseg"
            )
        tree = {name: value for name, value in tree.items() if name != "format"}
    return _coerce(Recipe, "recipe", _with_current_names(tree))


def to_json(recipe: Recipe) -> str:
    """Readable JSON that `from_json` turns back into an equal recipe."""
    return json.dumps(to_tree(recipe), indent=2) + "\n"


def from_json(text: str) -> Recipe:
    """Inverse of `to_json`; also reads the recipe in the file of a variant of a run.

    Raises:
        ValueError: the text is not the JSON of a recipe; the message names the field.
    """
    tree = json.loads(text)
    return from_tree(tree.get("recipe", tree) if isinstance(tree, dict) else tree)


def _replace(node: Any, name: str, path: Sequence[str], value: Any) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(node, dict):
        return {**node, head: _replace(node.get(head, {}), name, rest, value) if rest else value}
    if not dataclasses.is_dataclass(node):
        group = name.removesuffix("." + ".".join(path))
        raise ValueError(f"{name}: {group} is a value, not a group of fields.")
    require_choice(f"{name}: field", head, [part.name for part in dataclasses.fields(node)])
    new = _replace(getattr(node, head), name, rest, value) if rest else value
    return dataclasses.replace(typing.cast(Any, node), **{head: new})


# One coercion for code, JSON and the command line


def _coerce(expected: Any, name: str, value: Any, *, wrap: bool = True) -> Any:
    """Convert `value` to the type `expected`.

    Args:
        expected: the annotation of the field.
        name: of the field, for the message.
        value: from code, JSON or the command line.
        wrap: whether a single value may stand for a tuple with one element.

    Raises:
        ValueError: the value does not fit; the message names the field.
    """
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if expected is Any:
        return _tuples(value)
    if isinstance(expected, types.UnionType):
        if types.NoneType not in inner:
            return _coerce_data(inner, name, value)
        return None if value is None else _coerce(inner[0], name, value)
    if dataclasses.is_dataclass(expected):
        return _coerce_section(expected, name, value)
    if origin is tuple:
        return _coerce_tuple(expected, name, value, wrap)
    if origin is dict and isinstance(value, Mapping):
        return {key: _coerce(inner[1], f"{name}.{key}", item) for key, item in value.items()}
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is (origin or expected):
        return value
    raise _wrong(expected, name, value)


def _coerce_tuple(expected: Any, name: str, value: Any, wrap: bool) -> tuple:
    inner = typing.get_args(expected)
    variadic = inner[-1] is Ellipsis
    single = variadic and wrap and not isinstance(value, Mapping | list | tuple)
    items = (value,) if single else value
    if not isinstance(items, list | tuple) or not (variadic or len(items) == len(inner)):
        raise _wrong(expected, name, value)
    kinds = [inner[0]] * len(items) if variadic else inner
    try:
        return tuple(_coerce(kind, name, item, wrap=False) for kind, item in zip(kinds, items))
    except ValueError as error:
        raise _wrong(expected, name, value) from error


def _coerce_data(kinds: Sequence[type], name: str, value: Any) -> Any:
    if isinstance(value, tuple(kinds)):
        return value
    if not isinstance(value, Mapping):
        raise _wrong(" or ".join(kind.__name__ for kind in kinds), name, value)
    tasks = {kind.__name__: kind for kind in kinds}
    require_choice(f"{name}.task", value.get("task"), tasks)
    rest = {key: item for key, item in value.items() if key != "task"}
    return _coerce_section(tasks[value["task"]], name, rest)


def _coerce_section(kind: Any, name: str, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise _wrong(kind, name, value)
    parts = dataclasses.fields(kind)
    for key in value:
        require_choice(f"{name}: field of {kind.__name__}", key, [part.name for part in parts])
    needed = [
        part.name
        for part in parts
        if part.default is dataclasses.MISSING and part.default_factory is dataclasses.MISSING
    ]
    if missing := [key for key in needed if key not in value]:
        known = ", ".join(part.name for part in parts)
        raise ValueError(
            f"{name}: found no {', '.join(missing)}, expected the fields of {kind.__name__}: "
            f"{known}."
        )
    return kind(**value)


def _wrong(expected: Any, name: str, value: Any) -> ValueError:
    words = expected if isinstance(expected, str) else inspect.formatannotation(expected)
    return ValueError(f"{name}: found {value!r}, expected {words}.")


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _tuples(value: Any) -> Any:
    """Turn lists into tuples: JSON has no tuples, and a recipe has no lists."""
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_tuples(inner) for inner in value)
    return value


# Names of version 0.1

_RENAMED = {
    "paper": "name",
    "data.kind": "data.task",
    "data.normalisation": "data.normalization",
    "data.equalisation": "data.equalization",
    "data.held_out": "data.validation",
    "model.networks": "model.targets",
    "model.overrides": "model.options",
    "model.overrides.stack": "model.options.framework",
    "model.options.stack": "model.options.framework",
    "train.loss_options.lowest": "train.loss_options.epsilon",
}
_FORMER_TASKS = {"Pictures": ("Images", "image_folders")}


def _current_name(name: str) -> str:
    """The current name of a field that may have had another name in version 0.1."""
    for count in range(name.count(".") + 1, 0, -1):
        parts = name.split(".")
        start = ".".join(parts[:count])
        if start in _RENAMED:
            current = ".".join([_RENAMED[start], *parts[count:]])
            warnings.warn(
                f"{name} is called {current} now; its old name goes with 0.3.",
                FutureWarning,
                stacklevel=3,
            )
            return current
    return name


def _with_current_names(tree: Any) -> Any:
    """The tree of a recipe, with names of version 0.1 replaced by the current ones."""
    if not isinstance(tree, Mapping) or not isinstance(tree.get("data"), Mapping):
        return tree

    def walk(prefix: str, node: Any) -> Any:
        if not isinstance(node, Mapping):
            return node
        renamed = {}
        for key, value in node.items():
            name = f"{prefix}.{key}" if prefix else key
            current = _RENAMED.get(name, name)
            renamed[current.rpartition(".")[2]] = walk(current, value)
        return renamed

    tree = walk("", tree)
    if "dataset" not in tree["data"]:
        former = tree["data"].pop("task", "Slices")
        task, dataset = _FORMER_TASKS.get(former, (former, "brats"))
        fitted = ("mean", "std")  # fields in 0.1; measured in every run now
        rest = {key: value for key, value in tree["data"].items() if key not in fitted}
        tree["data"] = {"task": task, "dataset": dataset, **rest}
    return tree
