"""What a paper's folder declares, and the way every paper's experiment goes."""

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from keras_medseg import pipeline, progress, recipe, report
from keras_medseg.data import phantom
from keras_medseg.files import write_atomic


@dataclass(frozen=True)
class Expected:
    """The mean of a metric over the held-out cases that a run must reach; else it exits with 1.

    data: "phantom", or the data set's name, e.g. "BraTS2017". maximum: where the paper gives a
    range; above it is no reproduction either.
    """

    data: str
    profile: str
    variant: str
    region: str
    metric: str
    minimum: float
    maximum: float | None = None


@dataclass(frozen=True)
class Profile:
    """How much of an experiment is run: overrides for all of it, and those of each variant."""

    changes: tuple[str, ...]
    variants: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Experiment:
    """One paper: its recipe, what is run in which profile, its tables and what to expect.

    figures: (run folder, data, recipe) -> pictures that only this paper has.
    """

    paper: report.Paper
    profiles: dict[str, Profile]
    tables: tuple[report.TableSpec, ...]
    comparisons: tuple[tuple[str, str], ...]
    expected: tuple[Expected, ...]
    notes: tuple[str, ...]
    phantom_layout: str
    phantom_cases: int
    figures: Callable[[Path, pipeline.Cohort, recipe.Recipe], list[report.Picture]]


def run(
    experiment: Experiment,
    *,
    folder: Path | None,
    out: Path,
    work: Path,
    profile: str,
    assignments: list[str],
    command: str,
) -> bool:
    """Data, training, label maps, scores and report; True when all expectations are met.

    folder: cases on disk, or None for the synthetic data set. work: where the synthetic data and
    the decoded stores are kept for the next run.
    """
    started = time.monotonic()
    chosen = experiment.profiles[profile]
    base = recipe.override(experiment.paper.recipe, (*chosen.changes, *assignments))
    variants = {name: recipe.override(base, changes) for name, changes in chosen.variants.items()}
    folder = folder or make_phantom(experiment, work)
    data = pipeline.load_data(folder, work / "stores" / store_name(folder), base)
    for variant in variants.values():
        pipeline.check_recipe(variant, data.channels)
    pipeline.claim(out, base, data)
    _announce(data, experiment, profile)
    trained = trained_as(variants)
    for name in dict.fromkeys(trained.values()):
        pipeline.train_variant(name, variants[name], data, out)
    scores = pd.concat(
        [
            pipeline.score_variant(name, variant, data, out, trained[name])
            for name, variant in variants.items()
        ]
    )
    pipeline.gather_logs(out)
    write_provenance(out, data, profile, command, base.train.seed, started)
    verdicts = judge(experiment.expected, scores, data.name, profile)
    page = report.write_report(
        out,
        paper=experiment.paper,
        tables=experiment.tables,
        published=_folder(experiment) / "published.csv",
        expected=verdicts,
        comparisons=experiment.comparisons,
        figures=[*common_figures(out, data, base), *experiment.figures(out, data, base)],
        ledger=_folder(experiment) / "ledger.toml",
        notes=[*experiment.notes, *_duplicate_notes(data)],
    )
    print((out / "table.md").read_text())
    print(f"report: {page}")
    return all(verdict["passed"] for verdict in verdicts)


def trained_as(variants: dict[str, recipe.Recipe]) -> dict[str, str]:
    """{variant: the first one that is trained alike}; they may differ in what follows training."""
    first: dict[str, str] = {}
    return {
        name: first.setdefault(recipe.to_json(replace(variant, predict=recipe.Predict())), name)
        for name, variant in variants.items()
    }


def make_phantom(experiment: Experiment, work: Path) -> Path:
    """Write the synthetic data set of this experiment, or find it from the last run."""
    layout, cases = experiment.phantom_layout, experiment.phantom_cases
    folder = work / "phantoms" / f"{layout}-{cases}"
    with progress.bar("synthetic cases") as shown:
        phantom.write_brats(folder, cases=cases, layout=layout, progress=shown)
    return folder


def judge(
    expected: tuple[Expected, ...], scores: pd.DataFrame, data: str, profile: str
) -> list[dict]:
    """Those expectations that speak of this data and profile, with what was measured."""
    verdicts = []
    for entry in expected:
        if entry.profile != profile or not data.startswith(entry.data):
            continue
        rows = scores[(scores.variant == entry.variant) & (scores.region == entry.region)]
        measured = float(rows[entry.metric].mean()) if len(rows) else None
        highest = math.inf if entry.maximum is None else entry.maximum
        passed = measured is not None and entry.minimum <= measured <= highest
        verdicts.append({**asdict(entry), "measured": measured, "passed": passed})
    return verdicts


def write_provenance(
    out: Path, data: pipeline.Cohort, profile: str, command: str, seed: int, started: float
) -> None:
    """Everything that a number in the report came from, as provenance.json."""
    import keras

    packages = ("keras", "tensorflow", "numpy", "scipy", "nibabel", "pandas", "keras_medseg")
    content = {
        "data_name": data.name,
        "data_fingerprint": data.store.fingerprint,
        "training_cases": len(data.training),
        "held_out_cases": list(data.held_out),
        "profile": profile,
        "command": command,
        "seed": seed,
        "backend": keras.backend.backend(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "training_time": progress.duration(pd.read_csv(out / "log.csv")["seconds"].sum()),
        "time_of_this_command": progress.duration(time.monotonic() - started),
        "peak_memory_gb": pipeline.peak_memory_gb(),
    }
    write_atomic(out / "provenance.json", (json.dumps(content, indent=2) + "\n").encode())


def common_figures(out: Path, data: pipeline.Cohort, base: recipe.Recipe) -> list[report.Picture]:
    """Learning curves, box plots, and the best, median and worst case of the first variant."""
    from keras_medseg import figures

    folder = out / "figures"
    finished = report.load_run(out)
    scores = finished.scores
    variant = scores["variant"].iloc[0]
    curves = figures.save(figures.learning_curves(finished.logs), folder / "learning_curves.png")
    boxes = figures.save(figures.score_boxes(scores), folder / "dice.png")
    pictures = [
        report.Picture("Learning curves", "Held-out cases dashed.", curves),
        report.Picture("Dice of every held-out case", "One point per case.", boxes),
    ]
    for which, name in figures.pick_cases(scores, variant).items():
        rows = scores[(scores["variant"] == variant) & (scores["case"] == name)]
        dice = dict(zip(rows["region"], rows["dice"]))
        truth, prediction = pipeline.read_result(out, variant, data, name)
        case = data.store.cases[name]
        drawn = figures.case_overlay(
            pipeline.full_image(case),
            truth,
            prediction,
            title=f"{which} case: {name}",
            dice=dice,
            spacing_mm=case.spacing_mm,
        )
        path = figures.save(drawn, folder / f"case_{which}.png")
        caption = f"Variant {variant}; the slice with the largest annotated tumour."
        pictures.append(report.Picture(f"The {which} case", caption, path))
    return pictures


def _announce(data: pipeline.Cohort, experiment: Experiment, profile: str) -> None:
    print(
        f"{experiment.paper.title}\n"
        f"data: {data.name}, {len(data.training)} cases to train on, {len(data.held_out)} held out "
        f"(by case); profile: {profile}",
        flush=True,
    )
    for note in _duplicate_notes(data):
        print(note)


def _duplicate_notes(data: pipeline.Cohort) -> list[str]:
    if not data.duplicates:
        return []
    pairs = ", ".join(f"{name} = {kept}" for name, kept in data.duplicates.items())
    return [f"Cases left out because another one has the same voxels: {pairs}."]


def store_name(folder: Path) -> str:
    """A name for what is made from `folder`: its own, and a part that tells equal names apart."""
    path = folder.resolve()
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _folder(experiment: Experiment) -> Path:
    return Path(__file__).parent / experiment.paper.recipe.paper
