"""Write the networks of a run into one archive, with a card and checksums; see packages.py."""

import hashlib
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from keras_medseg import __version__, recipe
from keras_medseg.errors import DataError
from keras_medseg.evaluation.statistics import summarize
from keras_medseg.files import read_bytes, write_atomic
from keras_medseg.inference.outputs import main_output
from keras_medseg.recipe import Recipe
from keras_medseg.reporting.card import write_card
from keras_medseg.runs.packages import (
    AGAIN,
    CARD,
    FORMAT,
    MANIFEST,
    is_name,
    network_file,
    read_manifest,
    seal,
)
from keras_medseg.runs.run_folder import RunFolder, Variant
from keras_medseg.runs.steering import steered
from keras_medseg.tasks.base import Networks

_KEPT = ("format", "keras_medseg", "experiment", "profile", "changes", "data", "fingerprint",
         "training", "validation", "test", "fold", "seed", "duplicates", "leaking_groups",
         "datasets", "phantom")  # fmt: skip
"""What is kept of run.json: no path of the machine that trained."""


_NO_DATE = "1980-01-01@00:00:00"
"""The first one that zip files know: equal networks give equal bytes."""


def pack(
    run: RunFolder,
    path: Path,
    *,
    variant: str | None = None,
    name: str | None = None,
    license: str = "",
    card: str = "",
) -> str:
    """Write one variant of a finished run into an archive; the same run gives the same bytes.

    Args:
        run: the run; or unpacked weights, which are passed on as they are, without other arguments.
        path: of the archive, by custom .zip.
        variant: by default the first of the run.
        name: by which the weights are loaded, "<paper>/<data>"; by default that of the recipe and
            that of the data.
        license: of the weights, such as "CC-BY-4.0".
        card: text in Markdown that the packer adds to the card.

    Returns:
        One line: name, size and sha256 of the archive.

    Raises:
        DataError: the run is not finished, or damaged.
        ValueError: an unknown variant, no possible name, or a name that hides a phantom.
    """
    if (run.path / MANIFEST).exists():
        if variant or name or license or card:
            raise ValueError(f"{run.path}: found unpacked weights, expected no further options.")
        content = _listed_files(run.path, read_manifest(run.path))
    else:
        content = _content(run, variant or run.run["variants"][0], name, license, card)
    archive = _zip(content)
    write_atomic(path, archive)
    packed = json.loads(content[MANIFEST])["name"]
    digest = hashlib.sha256(archive).hexdigest()
    return f"{path}: {packed}, {len(archive) / 1e6:.1f} MB, sha256 {digest}"


def _content(
    run: RunFolder, variant: str, name: str | None, license: str, card: str
) -> dict[str, bytes]:
    """{path in the archive: content}."""
    _require_one_training(run)
    chosen, facts = run.trained_variant(variant), run.run
    name = name or _default_name(chosen, facts)
    if not is_name(name):
        expected = "a name such as dcabes2020/brats2017-fold0: small letters, digits, one slash"
        raise ValueError(f"--name: found {name!r}, expected {expected}.")
    if facts["phantom"] and "phantom" not in name:
        expected = "a name with the word phantom, because the run is on synthetic data"
        raise ValueError(f"--name: found {name!r}, expected {expected}.")
    whole = {
        targets: run.network(variant, targets, auxiliary=True)
        for targets in chosen.recipe.model.targets
    }
    networks = {targets: main_output(network) for targets, network in whole.items()}
    kept = {key: facts[key] for key in _KEPT if key in facts}
    told = _without_paths(chosen.recipe)
    if "train.init" in facts.get("changes", {}):
        kept["changes"] = {**facts["changes"], "train.init": repr(told.train.init)}
    tree = {"recipe": recipe.to_tree(told), "trained_as": chosen.trained_as}
    scores = run.scores()
    scores = scores[scores["variant"] == variant]
    content = {
        "run.json": _json({**kept, "variants": [variant]}),
        "recipe.json": recipe.to_json(told).encode(),
        f"variants/{variant}.json": _json({**tree, "fitted": dict(chosen.fitted)}),
        "scores.csv": scores.to_csv(index=False).encode(),
    }
    content |= {network_file(chosen, part): _saved(network) for part, network in whole.items()}
    manifest = {"format": FORMAT, **describe(run, variant, networks, name, license)}
    content[CARD] = write_card(manifest, card).encode()
    manifest["files"] = {
        path: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in sorted(content.items())
    }
    content[MANIFEST] = _json({**manifest, "sha256": seal(manifest)})
    return content


def describe(
    run: RunFolder, variant: str, networks: Networks, name: str | None = None, license: str = ""
) -> dict[str, Any]:
    """What package.json says of networks, without what concerns the files of an archive.

    Args:
        run: of one training.
        variant: its variant.
        networks: its networks, with one output each.
        name: of the weights; by default that of the recipe and that of the data.
        license: of the weights.
    """
    chosen, facts = run.variant(variant), run.run
    scores = run.scores() if run.scores_file.exists() else pd.DataFrame({"variant": []})
    return {
        "name": name or _default_name(chosen, facts),
        "keras_medseg": __version__,
        "keras": keras.__version__,
        "license": license,
        **_description(chosen, networks, facts),
        "scores": _summary(scores[scores["variant"] == variant], chosen.task.dataset.metrics),
        "training": _training(run) | _initial(run, chosen),
    }


def _without_paths(chosen: Recipe) -> Recipe:
    """The recipe, in which a run or archive to start from has its name alone."""
    init = chosen.train.init
    if not init or is_name(init):
        return chosen
    return recipe.override(chosen, {"train.init": Path(init).name})


def _require_one_training(run: RunFolder) -> None:
    if parts := run.run.get("parts"):
        raise DataError(
            run.path,
            found=f"a run of {len(parts)} trainings (folds, seeds)",
            expected="one of them",
            remedy=f"Pack each by itself, such as {run.path / parts[0]}.",
        )


def _saved(network: keras.Model) -> bytes:
    """A .keras file without the optimizer, whose state is twice the size of the weights (Adam)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        network.save(path)
        with zipfile.ZipFile(path) as opened:
            files = {name: opened.read(name) for name in opened.namelist()}
    metadata = json.loads(files["metadata.json"])  # the version of Keras, and the date
    files["metadata.json"] = _json({**metadata, "date_saved": _NO_DATE})
    return _zip(files)


def _default_name(chosen: Variant, facts: Mapping[str, Any]) -> str:
    paper = facts["experiment"][0] if facts.get("experiment") else chosen.recipe.name
    words = ["phantom"] if facts["phantom"] else []
    words += facts["datasets"]
    words += [f"{part}{facts[part]}" for part in ("fold", "seed") if part in facts]
    return f"{_slug(paper)}/{_slug('-'.join(words))}"


def _slug(text: str) -> str:
    return re.sub("[^a-z0-9_.]+", "-", text.lower()).strip("-._") or "weights"


def _description(chosen: Variant, networks: Networks, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the networks are, see and predict, and which cases they have seen."""
    task, data = chosen.task, chosen.recipe.data
    dataset = task.dataset
    seen = next(iter(networks.values())).input_shape[-1]
    gray_or_color = {1: ["gray"], 3: ["red", "green", "blue"]}
    return {
        "network": {
            "name": chosen.recipe.model.name,
            "parameters": sum(network.count_params() for network in networks.values()),
        },
        "input": {
            "dataset": data.dataset,
            "releases": facts["datasets"],
            "channels": list(dataset.channels) or gray_or_color[seen],
            "channels_seen": list(getattr(task, "modalities", gray_or_color.get(seen, []))),
            "size": list(data.input_size),
            "window": list(getattr(data, "window", ())),
            "spacing_mm": list(dataset.spacing_mm),
            "normalization": data.normalization,
            "fitted": dict(chosen.fitted),
        },
        "output": {
            "labels": {
                str(code): label
                for code, label in dataset.labels_on_disk(facts["datasets"][0]).items()
            },
            "networks": [
                {"regions": list(targets), "file": network_file(chosen, targets)}
                for targets in networks
            ],
        },
        "data": {
            "name": facts["data"],
            "phantom": facts["phantom"],
            "fingerprint": facts["fingerprint"],
            "scored": "test" if facts.get("test") else "validation",
            "steered": [] if facts.get("test") else steered(chosen.recipe.train),
            **{side: len(facts.get(side, ())) for side in ("training", "validation", "test")},
        },
    }


def _summary(scores: pd.DataFrame, metrics: tuple[str, ...]) -> list[dict[str, Any]]:
    """Mean and 95 % interval of every region and metric that is a number for all cases."""
    known = [name for name in metrics if name in scores]
    whole = [name for name in known if np.isfinite(scores[name].to_numpy(float)).all()]
    columns = ["region", "metric", "n", "groups", "mean", "low", "high"]
    if not whole or scores.empty:
        return []
    # JSON has no NaN: the interval of a single case.
    table = summarize(scores, whole)[columns].astype(object)
    table = table.where(table.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _training(run: RunFolder) -> dict[str, Any]:
    """Time, memory, devices and versions of the training, as far as the run knows them."""
    if not run.provenance_file.exists():
        return {}
    told = run.provenance()
    commands = told.get("commands", [])
    last = commands[-1] if commands else {}
    found: dict[str, Any] = {}
    for known, source in (("training_seconds", told), ("seed", told), ("devices", last),
                          ("versions", last)):  # fmt: skip
        if known in source:
            found[known] = source[known]
    peaks = [entry["peak_memory_gb_main"] for entry in commands if "peak_memory_gb_main" in entry]
    if peaks:
        found["peak_memory_gb"] = max(peaks)
    return found


def _initial(run: RunFolder, chosen: Variant) -> dict[str, Any]:
    """The sha256 of the weights that each network started from, as far as it did."""
    prefix = f"{chosen.trained_as}-"
    found = {
        name.removeprefix(prefix): facts["weights_sha256"]
        for name, facts in run.initial().items()
        if name.startswith(prefix)
    }
    init = _without_paths(chosen.recipe).train.init
    return {"init": {"weights": init, "sha256": found}} if found else {}


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _listed_files(folder: Path, manifest: Mapping[str, Any]) -> dict[str, bytes]:
    content = {path: read_bytes(folder / path, remedy=AGAIN) for path in manifest["files"]}
    return {**content, MANIFEST: read_bytes(folder / MANIFEST, remedy=AGAIN)}


def _zip(content: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path, data in sorted(content.items()):
            # Without a date of its own, equal content gives equal bytes.
            archive.writestr(zipfile.ZipInfo(path), data)
    return file.getvalue()
