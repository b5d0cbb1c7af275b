"""The names in a run folder, and the one reader of each of its files."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from keras_medseg import recipe
from keras_medseg.errors import require_choice
from keras_medseg.files import parse_csv, read_file

RUN = "run.json"
RECIPE = "recipe.json"
SCORES = "scores.csv"
PROVENANCE = "provenance.json"
_RUN_AGAIN = "Run the experiment again, to its end."


@dataclass(frozen=True)
class Variant:
    """What a run did under one name. trained_as: the variant whose networks it predicts with."""

    recipe: recipe.Recipe
    trained_as: str


def training_folder(out: Path, variant: str, regions: tuple[str, ...]) -> Path:
    """Where one network's log, checkpoint and final model lie in a run folder."""
    return out / "training" / f"{variant}-{'+'.join(regions)}"


def variant_file(out: Path, variant: str) -> Path:
    """Where a variant's recipe stands, with the variant whose networks it uses."""
    return out / "variants" / f"{variant}.json"


def read_recipe(path: Path) -> recipe.Recipe:
    """A recipe.json, or a variant's file.

    Raises:
        DataError: where there is none, or it is no recipe's JSON.
    """
    return read_file(path, recipe.from_json, "Name the folder that a training wrote into.")


def read_run(out: Path) -> dict[str, Any]:
    """run.json: what the folder was claimed for.

    Raises:
        DataError: in a folder without a run.
    """
    return read_file(out / RUN, json.loads, "Name the folder that a training wrote into.")


def read_variant(out: Path, name: str) -> Variant:
    """A variant of a run.

    Raises:
        DataError: in a folder without a run, and for a damaged file.
        ValueError: the run has no such variant.
    """
    require_choice(f"{out}: variant", name, read_run(out)["variants"])
    path = variant_file(out, name)
    return Variant(read_recipe(path), read_file(path, json.loads, _RUN_AGAIN)["trained_as"])


def read_scores(out: Path) -> pd.DataFrame:
    """scores.csv; names such as 001 or NA stay names.

    Raises:
        DataError: without one, and for a damaged one.
    """
    return read_file(out / SCORES, parse_csv, _RUN_AGAIN)


def read_provenance(out: Path) -> dict[str, Any]:
    """provenance.json.

    Raises:
        DataError: without one, and for a damaged one.
    """
    return read_file(out / PROVENANCE, json.loads, _RUN_AGAIN)


def read_logs(out: Path) -> dict[str, pd.DataFrame]:
    """{"<variant>-<network>": its log.csv} of all trainings.

    Raises:
        DataError: for a damaged one.
    """
    paths = sorted((out / "training").glob("*/log.csv"))
    return {path.parent.name: read_file(path, _numbers, _RUN_AGAIN) for path in paths}


def _numbers(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text))
