"""Predict a folder of cases with the networks of a run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from keras_medseg.data.cases import Case, CaseArrays
from keras_medseg.data.store import StoredCase
from keras_medseg.errors import DataError
from keras_medseg.files import is_file_name, read_bytes, read_file, write_json
from keras_medseg.progress import progress_bar
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.tasks.base import Networks, Task

RECORD = "predictions.json"
"""Beside the label maps: by which run, variant, weights and options they were made."""

_MAY_CHANGE = ("run", "cases")
_REMEDY = "Choose another folder, or give --overwrite to predict the cases again."


def predict_folder(
    run: RunFolder,
    folder: Path,
    out: Path,
    variant: str | None = None,
    *,
    overwrite: bool = False,
) -> str:
    """Write a label map for every case of `folder`; annotations are neither needed nor scored.

    Existing label maps are kept, so an interrupted command can be repeated. A case that cannot be
    read, or lacks a file, does not stop the prediction of the others.

    Args:
        run: the run with the trained networks.
        folder: of the cases.
        out: folder of the label maps, `<case>.nii.gz` or `<case>.png`, and of `predictions.json`.
        variant: which variant of the run predicts; by default the first.
        overwrite: whether existing label maps are predicted again.

    Returns:
        One line: the number of label maps, their regions, and the variant.

    Raises:
        DataError: the run is incomplete or damaged; `out` holds label maps of another run, variant
            or options; or, after all other cases, some cases cannot be read.
        ValueError: the run has no such variant.
    """
    variant = variant or run.run["variants"][0]
    task = run.variant(variant).task
    networks = run.networks(variant)
    listing, refused = task.dataset.find_complete(folder)
    cases, suffix = listing.cases, task.dataset.suffix
    _claim(out, _identity(run, variant), [f"{case.id}{suffix}" for case in cases], overwrite)
    total = len(cases) + len(refused)
    with progress_bar("predicting") as progress:
        for number, case in enumerate(cases, 1):
            path = out / f"{case.id}{suffix}"
            try:
                if not path.exists():
                    _predict_case(task, networks, case, path)
            except DataError as error:
                refused.append(error)
            progress(number, len(cases), case.id)
    if refused:
        listed = "\n  ".join(map(str, refused))
        raise DataError(
            out,
            found=f"{total - len(refused)} of {total} label maps",
            expected="one for every case",
            remedy="Mend these and give the same command again; it does what is left:\n  " + listed,
        )
    regions = ", ".join("+".join(names) for names in networks)
    return f"{out}: {len(cases)} label maps of {regions} by the variant {variant}"


def _predict_case(task: Task, networks: Networks, case: Case, path: Path) -> None:
    arrays = task.read_image(case)
    for network in networks.values():
        _require_channels(case, arrays, task, network.input_shape[-1])
    stored = StoredCase.from_arrays(replace(case, labels=None), arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    task.write(path, task.predict(networks, stored), stored, own_size=True)


def _require_channels(case: Case, arrays: CaseArrays, task: Task, wanted: int) -> None:
    """Refuse a gray image where the network was trained on color, and the other way round."""
    found = task.channels(arrays.image.shape[-1])
    if found != wanted:
        names = {1: "gray (1 channel)", 3: "color (3 channels)"}
        raise DataError(
            case.images[0],
            found=names.get(found, f"{found} channels"),
            expected=f"{names.get(wanted, f'{wanted} channels')}, as this run was trained on",
            remedy="Convert it.",
        )


def _identity(run: RunFolder, variant: str) -> dict[str, Any]:
    """What label maps depend on besides their case, as JSON holds it."""
    chosen = run.variant(variant)
    weights = {}
    for targets in chosen.recipe.model.targets:
        path = run.training(chosen.trained_as, targets) / "model.keras"
        content = read_bytes(path, expected="a trained network", remedy="Train first.")
        weights["+".join(targets)] = hashlib.sha256(content).hexdigest()
    options = {"data": asdict(chosen.recipe.data), "predict": asdict(chosen.recipe.predict)}
    identity = {
        "run": str(run.path.resolve()),
        "variant": variant,
        "weights_sha256": weights,
        "options": options,
        "fitted": dict(chosen.fitted),
    }
    return json.loads(json.dumps(identity))


def _claim(out: Path, identity: dict[str, Any], names: Sequence[str], overwrite: bool) -> None:
    """Make `out` the folder of these predictions, or refuse one that holds others.

    Raises:
        DataError: label maps that were made in another way, or whose making is not known.
    """
    record = out / RECORD
    known: list[str] = []
    if record.exists():
        earlier = read_file(record, _parse_record, "Delete it with the label maps beside it.")
        known = earlier.get("cases", [])
        for field, asked in identity.items():
            if not overwrite and field not in _MAY_CHANGE and earlier.get(field) != asked:
                found = f"label maps of the run {earlier.get('run')}, with another {field}"
                expected = f"those of {identity['run']}, variant {identity['variant']}"
                raise DataError(out, found=found, expected=expected, remedy=_REMEDY)
    elif not overwrite and (there := [name for name in names if (out / name).exists()]):
        found = f"{there[0]} and no {RECORD} that says how it was made"
        raise DataError(out, found=found, expected="a folder of its own", remedy=_REMEDY)
    if overwrite:
        for name in {*names, *known}:  # the old ones go first, so that none passes for a new one
            (out / name).unlink(missing_ok=True)
        known = []
    write_json(record, {**identity, "cases": sorted({*known, *names})})


def _parse_record(text: str) -> dict[str, Any]:
    """The record; its names are those of files that may be deleted, so they must stay inside."""
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError(f"{type(record).__name__}, not an object")
    names = record.get("cases", [])
    if not isinstance(names, list) or not all(map(is_file_name, names)):
        raise ValueError(f"cases = {names!r}")
    return record
