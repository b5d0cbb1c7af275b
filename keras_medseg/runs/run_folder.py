"""A run folder: the names of its files, and the functions that read and write them."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from keras_medseg import __version__, recipe
from keras_medseg.data import split_files
from keras_medseg.errors import DataError, require_choice
from keras_medseg.files import is_file_name, parse_csv, read_file, write_atomic, write_json
from keras_medseg.inference.outputs import load_network, main_output
from keras_medseg.recipe import Recipe
from keras_medseg.tasks import Task, task_of

FORMAT = 2
"""Of a run folder, in run.json; docs/versions.md says when it changes."""

_NO_RUN = "Name the folder that a training wrote into."
_RUN_AGAIN = "Run the experiment again, to its end."
FURTHER = "further_scores"
"""Table of scores that do not follow from the label maps."""
INITIAL = "init.json"
"""In the folder of a network that started from weights: what it took, see `runs.initial`."""
_MAY_CHANGE = ("data_folder", "store", "changes")
"""Facts in run.json that do not identify a run: folders may move, fields may be redundant."""


@dataclass(frozen=True)
class Variant:
    """One variant of a run.

    Attributes:
        recipe: its complete recipe.
        trained_as: the variant whose networks it uses: its own name, or that of a variant that
            differs from it only in what follows training.
        fitted: numbers measured on the training cases, see `tasks.Task.fit`.
        members: of an ensemble, the variants whose probabilities it averages; the rest is that of
            the first one.
    """

    recipe: Recipe
    trained_as: str
    fitted: Mapping[str, Any] = field(default_factory=dict)
    members: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """The task of the recipe: how cases are sampled, predicted and scored."""
        return task_of(self.recipe, self.fitted)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, with one recipe, one set of cases and one split.

    The folder of a run with several folds or seeds has a run folder for each of its trainings
    (`parts`), and itself no networks and label maps.
    """

    path: Path

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return self._run_file.exists() or (self.path / "training").exists()

    # Paths

    @property
    def scores_file(self) -> Path:
        """scores.csv: one row per variant, case and region."""
        return self.path / "scores.csv"

    @property
    def provenance_file(self) -> Path:
        """provenance.json: data, versions, commands."""
        return self.path / "provenance.json"

    @property
    def report_file(self) -> Path:
        """report.html."""
        return self.path / "report.html"

    @property
    def splits_file(self) -> Path:
        """splits_final.json: the sides of the run, of all folds; see `data.split_files`."""
        return self.path / split_files.NAME

    @property
    def _run_file(self) -> Path:
        return self.path / "run.json"

    def _variant_file(self, variant: str) -> Path:
        return self.path / "variants" / f"{variant}.json"

    def training(self, trained_as: str, targets: tuple[str, ...]) -> Path:
        """Folder of one network: its log, checkpoint and final model."""
        return self.path / "training" / f"{trained_as}-{'+'.join(targets)}"

    def predictions(self, variant: str) -> Path:
        """Folder of the label maps of a variant's scored cases."""
        return self.path / "predictions" / variant

    def prediction(self, variant: str, case_id: str) -> Path:
        """The label map of one scored case."""
        suffix = self.variant(variant).task.dataset.suffix
        return self.predictions(variant) / f"{case_id}{suffix}"

    def figure(self, name: str) -> Path:
        """A figure of the report, by its name without suffix."""
        return self.path / "figures" / f"{name}.png"

    # Reading

    @cached_property
    def run(self) -> dict[str, Any]:
        """run.json: format, version, experiment, data, split and variants.

        Raises:
            DataError: the folder has no run, or one in another format.
        """
        facts = read_file(self._run_file, _parse_facts, _NO_RUN)
        _require_format(self._run_file, facts)
        return _Facts(self._run_file, facts)

    @cached_property
    def recipe(self) -> Recipe:
        """recipe.json: the recipe that the variants change.

        Raises:
            DataError: the folder has no run.
        """
        return read_recipe(self.path / "recipe.json")

    @property
    def parts(self) -> tuple["RunFolder", ...]:
        """The run folders of the trainings: of folds and seeds, otherwise this folder itself.

        Those that were not started yet do not exist.

        Raises:
            DataError: the folder has no run.
        """
        return tuple(RunFolder(self.path / name) for name in self.run.get("parts", ())) or (self,)

    @property
    def variants(self) -> dict[str, Variant]:
        """All variants by name, in the order of the run."""
        return {name: self.variant(name) for name in self.run["variants"]}

    def variant(self, name: str) -> Variant:
        """One variant of the run.

        Raises:
            DataError: the folder has no run, or the file is damaged.
            ValueError: the run has no such variant.
        """
        require_choice(f"{self.path}: variant", name, self.run["variants"])
        path = self._variant_file(name)
        tree = read_file(path, _parse_variant, _RUN_AGAIN)
        members = tuple(tree.get("members", ()))
        return Variant(read_recipe(path), tree["trained_as"], tree["fitted"], members)

    def scores(self) -> pd.DataFrame:
        """scores.csv; names such as 001 or NA stay text.

        Raises:
            DataError: the file is missing or damaged.
        """
        return read_file(self.scores_file, _parse_scores, _RUN_AGAIN)

    def further_scores(self) -> pd.DataFrame:
        """further_scores.csv: variant, case, group, region and scores; empty if there is none.

        Raises:
            DataError: the file is damaged.
        """
        path = self.path / f"{FURTHER}.csv"
        if not path.exists():
            return pd.DataFrame(columns=["variant", "case", "group", "region"])
        return read_file(path, parse_csv, _RUN_AGAIN)

    def provenance(self) -> dict[str, Any]:
        """provenance.json.

        Raises:
            DataError: the file is missing or damaged.
        """
        return read_file(self.provenance_file, _parse_provenance, _RUN_AGAIN)

    def logs(self) -> dict[str, pd.DataFrame]:
        """{"<variant>-<targets>": its log.csv} of all trainings, "<part>/..." of those of parts.

        Raises:
            DataError: a log is damaged.
        """
        found = {}
        for part in self.parts if self._run_file.exists() else (self,):
            prefix = "" if part == self else f"{part.path.name}/"
            for path in sorted((part.path / "training").glob("*/log.csv")):
                found[prefix + path.parent.name] = read_file(path, _numbers, _RUN_AGAIN)
        return found

    def initial(self) -> dict[str, Any]:
        """{"<variant>-<targets>": its init.json} of the networks that started from weights.

        Raises:
            DataError: a file is damaged.
        """
        paths = sorted((self.path / "training").glob(f"*/{INITIAL}"))
        return {path.parent.name: read_file(path, _parse_initial, _RUN_AGAIN) for path in paths}

    def trained_variant(self, name: str) -> Variant:
        """As `variant`, but not an ensemble, which has no networks of its own.

        Raises:
            DataError: as `variant`.
            ValueError: the run has no such variant, or it is an ensemble.
        """
        chosen = self.variant(name)
        if chosen.members:
            raise ValueError(
                f"{self.path}:{name}: found an ensemble, expected one training. Name one of "
                f"{', '.join(chosen.members)}."
            )
        return chosen

    def log(self, variant: str, targets: tuple[str, ...]) -> pd.DataFrame:
        """log.csv of one network, which another variant may have trained.

        Raises:
            DataError: it is missing or damaged.
            ValueError: as `trained_variant`.
        """
        place = self.training(self.trained_variant(variant).trained_as, targets)
        return read_file(place / "log.csv", _numbers, _RUN_AGAIN)

    def network(
        self, variant: str, targets: tuple[str, ...], *, auxiliary: bool = False
    ) -> keras.Model:
        """One trained network, with its main output or, if `auxiliary`, with all outputs.

        Another variant may have trained it.

        Raises:
            DataError: the network is not completely trained.
            ValueError: as `trained_variant`.
        """
        place = self.training(self.trained_variant(variant).trained_as, targets)
        network = load_network(place / "model.keras")
        return network if auxiliary else main_output(network)

    def networks(self, variant: str) -> dict[tuple[str, ...], keras.Model]:
        """The networks of a variant, by the regions that they predict.

        Raises:
            DataError: a network is not completely trained.
            ValueError: the variant is an ensemble.
        """
        chosen = self.trained_variant(variant)
        whole = chosen.task.needs_auxiliary
        return {
            targets: self.network(variant, targets, auxiliary=whole)
            for targets in chosen.recipe.model.targets
        }

    # Writing

    def create(
        self, base: Recipe, variants: Mapping[str, Variant], facts: Mapping[str, Any]
    ) -> None:
        """Start the run in this folder, or check that the run in it is the same.

        Writes `recipe.json`, `variants/<name>.json` and, last, `run.json`. All files in the folder
        are taken for files of this run, so it may contain nothing else.

        Args:
            base: the recipe that the variants change.
            variants: by name.
            facts: what else identifies the run, as JSON: experiment, data, split.

        Raises:
            DataError: the folder already has a run with another recipe, other data, another split
                or another version of the package.
        """
        versions = {"format": FORMAT, "keras_medseg": __version__}
        asked = {**versions, **facts, "variants": list(variants)}
        if self.exists:
            self._refuse_other_run(base, asked, variants)
        write_atomic(self.path / "recipe.json", recipe.to_json(base).encode())
        for name, variant in variants.items():
            tree = {"recipe": recipe.to_tree(variant.recipe), "trained_as": variant.trained_as}
            tree |= {"fitted": dict(variant.fitted)}
            tree |= {"members": list(variant.members)} if variant.members else {}
            write_json(self._variant_file(name), tree)
        write_json(self._run_file, asked)
        self.__dict__.pop("run", None)
        self.__dict__.pop("recipe", None)

    def _refuse_other_run(
        self, base: Recipe, asked: Mapping[str, Any], variants: Mapping[str, Variant]
    ) -> None:
        earlier = self.run
        # The version comes first: the recipe of another version may not be readable.
        facts = {
            name: (asked.get(name), earlier.get(name))
            # "parts" and "test" are there only if a run has them.
            for name in dict.fromkeys([*asked, "parts", "test"])
            if not _agree(name, asked.get(name), earlier.get(name))
        }
        same_version = "keras_medseg" not in facts
        changed = recipe.differences(base, self.recipe) if same_version else {}
        changed |= facts
        for name in () if changed else variants:
            now, then = variants[name], self.variant(name)
            found = recipe.differences(now.recipe, then.recipe)
            if now.members != then.members:
                found |= {"members": (now.members, then.members)}
            changed |= {f"{part} of {name}": values for part, values in found.items()}
        if changed:
            name, (now, then) = next(iter(changed.items()))
            if name == "parts":
                raise _other_parts(self.path, now, then)
            raise DataError(
                self.path,
                found=f"a run with {name} = {then!r}",
                expected=f"{now!r} as asked for now",
                remedy="Choose another run folder (OUT=, --out), or delete this one.",
            )

    def write_scores(self, scores: pd.DataFrame) -> None:
        """Replace scores.csv."""
        write_atomic(self.scores_file, scores.to_csv(index=False).encode())

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Replace `<name>.csv`, another table of the run."""
        write_atomic(self.path / f"{name}.csv", table.to_csv(index=False).encode())

    def gather_logs(self) -> pd.DataFrame:
        """Write the logs of all trainings into one table, `log.csv` of the run folder."""
        table = pd.concat(self.logs(), names=["network"]).reset_index("network")
        table = table.sort_values(["network", "epoch"], ignore_index=True)
        self.write_table("log", table)
        return table


def _other_parts(path: Path, now: Sequence[str] | None, then: Sequence[str] | None) -> DataError:
    """Other seeds or folds than those of the run are asked for."""
    found, expected = (
        f"{len(names)} trainings ({', '.join(names)})" if names else "a single training"
        for names in (then, now)
    )
    return DataError(
        path,
        found=f"a run of {found}",
        expected=f"one of {expected}, as asked for now",
        remedy="Give the folds of its first command and at least as many --seeds to go on with it, "
        "or choose another run folder (OUT=, --out).",
    )


def _agree(name: str, now: Any, then: Any) -> bool:
    """Whether an entry of run.json lets a run go on; seeds may be added to a run that has some."""
    added = name == "parts" and bool(now) and bool(then) and {*then} <= {*now}
    return name in _MAY_CHANGE or now == then or added


def read_recipe(path: Path) -> Recipe:
    """Read recipe.json, or the file of a variant.

    Raises:
        DataError: the file is missing, or is not the JSON of a recipe.
    """
    return read_file(path, recipe.from_json, _NO_RUN)


def trained_as(variants: Mapping[str, Recipe]) -> dict[str, str]:
    """{variant: the first one with the same training}; they may differ in what follows training."""
    first: dict[str, str] = {}
    return {
        name: first.setdefault(recipe.to_json(replace(variant, predict=recipe.Predict())), name)
        for name, variant in variants.items()
    }


def _numbers(text: str) -> pd.DataFrame:
    table = pd.read_csv(io.StringIO(text))
    odd = [name for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    if odd or "epoch" not in table or table["epoch"].isna().any():
        raise ValueError(f"the columns {list(table)}, of which {odd or 'epoch'} are no numbers")
    return table


# The structure of the files, checked when they are read


class _Facts(dict):
    """What run.json says; an entry that an older version did not write is missed by name."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        super().__init__(facts)
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise DataError(self._path, found=f"no {name!r}", expected="one", remedy=_RUN_AGAIN)


_TEXTS = {"keras_medseg", "profile", "data", "data_folder", "store", "fingerprint", "splits"}
_LISTS = {"training", "validation", "test", "leaking_groups", "datasets", "variants", "parts"}


def _require_format(path: Path, facts: Mapping[str, Any]) -> None:
    """Refuse what this version cannot read; the recipe of an earlier run it can."""
    found = facts["format"]
    if found == FORMAT:
        return
    earlier = found < FORMAT
    again = f"train again with --recipe {path.with_name('recipe.json')}, whose names are understood"
    raise DataError(
        path,
        found=f"a run folder of format {found}, of keras_medseg {facts.get('keras_medseg')}",
        expected=f"format {FORMAT}",
        remedy=f"Read it with that version, or {again}."
        if earlier
        else "Run: python -m pip install --upgrade keras_medseg",
    )


def _parse_facts(text: str) -> dict[str, Any]:
    facts = _mapping(text)
    # The number is younger than its format; format 1 had "held_out" where 2 has "validation".
    facts = {"format": 1 if "held_out" in facts else 2, **facts}
    kinds: dict[str, type] = dict.fromkeys(_TEXTS, str) | dict.fromkeys(_LISTS, list)
    kinds |= {"changes": dict, "duplicates": dict, "phantom": bool}
    kinds |= {"fold": int, "seed": int, "format": int}
    for name in kinds.keys() & facts.keys():
        _require(isinstance(facts[name], kinds[name]), name, facts)
    for name in _LISTS & facts.keys():
        _require(all(isinstance(item, str) for item in facts[name]), name, facts)
    variants = facts.get("variants")
    _require(bool(variants) and all(map(is_file_name, variants or ())), "variants", facts)
    _require(all(map(is_file_name, facts.get("parts", ()))), "parts", facts)
    experiment = facts.get("experiment")
    named = isinstance(experiment, list) and len(experiment) == 2 and is_file_name(experiment[0])
    _require(
        experiment is None or (named and isinstance(experiment[1], str | None)), "experiment", facts
    )
    return facts


def _parse_variant(text: str) -> dict[str, Any]:
    tree = _mapping(text)
    _require(is_file_name(tree.get("trained_as")), "trained_as", tree)
    fitted = tree.get("fitted")
    _require(isinstance(fitted, dict) and all(map(_are_numbers, fitted.values())), "fitted", tree)
    members = tree.get("members", [])
    _require(isinstance(members, list) and all(map(is_file_name, members)), "members", tree)
    return tree


def _parse_initial(text: str) -> dict[str, Any]:
    record = _mapping(text)
    _require(isinstance(record.get("weights_sha256"), str), "weights_sha256", record)
    return record


def _parse_provenance(text: str) -> dict[str, Any]:
    content = _mapping(text)
    commands = content.get("commands", [])
    sound = isinstance(commands, list) and all(isinstance(item, dict) for item in commands)
    _require(sound, "commands", content)
    return content


def _parse_scores(text: str) -> pd.DataFrame:
    table = parse_csv(text)
    names = ["variant", "case", "region"]
    if missing := [name for name in names if name not in table]:
        raise ValueError(f"no column {', '.join(missing)}")
    for name in table.columns.difference([*names, "group"]):
        if not pd.api.types.is_numeric_dtype(table[name]):  # empty cells, or text
            table[name] = pd.to_numeric(table[name].mask(table[name] == ""))
    return table


def _mapping(text: str) -> dict[str, Any]:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"{type(content).__name__}, not an object")
    return content


def _require(sound: bool, name: str, content: Mapping[str, Any]) -> None:
    if not sound:
        raise ValueError(f"{name} = {content.get(name)!r}")


def _are_numbers(values: object) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    )
