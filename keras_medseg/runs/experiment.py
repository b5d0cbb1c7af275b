"""What a paper's folder declares, and the way every paper's experiment goes."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from keras_medseg import progress, recipe
from keras_medseg.data import store
from keras_medseg.files import locked
from keras_medseg.reporting import report
from keras_medseg.runs import provenance, steps


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
    """What of an experiment is run: overrides for all of it, and those of each variant.

    comparisons: (baseline, variant) pairs for the paired tests.
    """

    changes: tuple[str, ...]
    variants: dict[str, tuple[str, ...]]
    comparisons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Experiment:
    """One paper on one data set: its recipe, what is run in which profile, tables, expectations.

    profiles: "paper" and "quick"; with rivals, "paper-compare" and "quick-compare".
    figures: (run folder, data, recipe) -> pictures that only this paper has; none of their own
        networks is there in a comparison.
    phantom_options: of the generator of the synthetic data, such as shape.
    phantom_changes: overrides that the synthetic data needs, such as the grey codes of its masks.
    further_scores: (run folder, data, variants) -> rows as in scores.csv, of scores that are not
        those of single held-out cases; for the tables alone.
    """

    paper: report.Paper
    profiles: dict[str, Profile]
    tables: tuple[report.TableSpec, ...]
    expected: tuple[Expected, ...]
    notes: tuple[str, ...]
    phantom_layout: str
    phantom_cases: int
    figures: Callable[[Path, steps.Cohort, recipe.Recipe], list[report.Figure]]
    phantom_options: dict[str, Any] = field(default_factory=dict)
    phantom_changes: tuple[str, ...] = ()
    further_scores: (
        Callable[[Path, steps.Cohort, dict[str, recipe.Recipe]], pd.DataFrame] | None
    ) = None


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
    chosen = experiment.profiles[profile]
    of_data = () if folder else experiment.phantom_changes
    changes = (*chosen.changes, *of_data, *assignments)
    base = recipe.override(experiment.paper.recipe, changes)
    folder = folder or make_phantom(experiment, work)
    data = steps.load_data(folder, store_folder(work, folder, base), base)
    base = steps.settle(base, data)
    variants = {name: recipe.override(base, changes) for name, changes in chosen.variants.items()}
    for variant in variants.values():
        steps.check_recipe(variant, data.channels)
        steps.check_batches(variant, data)
    notes = [*experiment.notes, *data_notes(data)]
    # With --set it is no longer the recipe that the expectations speak of.
    expected = () if assignments else experiment.expected
    if assignments:
        notes.append(f"Not held against its expectations, for --set was given: {assignments}.")
    with locked(out, "writes into this run folder"):
        steps.claim(out, base, data, variants)
        _announce(data, experiment, profile)
        with provenance.recorded(out, data, profile=profile, seed=base.train.seed, command=command):
            scores = _train_and_score(variants, data, out)
        more = experiment.further_scores
        verdicts = judge(expected, scores, data, profile)
        page = report.write_report(
            out,
            paper=experiment.paper,
            tables=experiment.tables,
            published=_folder(experiment) / "published.csv",
            expected=verdicts,
            comparisons=chosen.comparisons,
            costs=steps.network_costs(out, _trained(variants)),
            figures=[*common_figures(out, data), *experiment.figures(out, data, base)],
            ledger=_folder(experiment) / "ledger.toml",
            further_scores=more(out, data, variants) if more else None,
            notes=notes,
        )
    print((out / "table.md").read_text())
    print(f"report: {page}")
    return all(verdict["passed"] for verdict in verdicts)


def _train_and_score(
    variants: dict[str, recipe.Recipe], data: steps.Cohort, out: Path
) -> pd.DataFrame:
    for name, variant in _trained(variants).items():
        steps.train_variant(name, variant, data, out)
    steps.gather_logs(out)
    source = steps.trained_as(variants)
    return pd.concat(
        [
            steps.score_variant(name, variant, data, out, source[name])
            for name, variant in variants.items()
        ]
    )


def _trained(variants: dict[str, recipe.Recipe]) -> dict[str, recipe.Recipe]:
    """The variants that have networks of their own."""
    return {name: variants[name] for name in dict.fromkeys(steps.trained_as(variants).values())}


def with_comparison(
    profiles: dict[str, Profile], own: str, rivals: dict[str, dict[str, tuple[str, ...]]]
) -> dict[str, Profile]:
    """The profiles and, for each of them, one that trains its own network and the paper's rivals.

    rivals: profile -> variant -> overrides.
    """
    compared = {
        f"{name}-compare": Profile(
            profiles[name].changes,
            {own: profiles[name].variants[own], **others},
            tuple((rival, own) for rival in others),
        )
        for name, others in rivals.items()
    }
    return {**profiles, **compared}


def make_phantom(experiment: Experiment, work: Path) -> Path:
    """Write the synthetic data set of this experiment, or find it from the last run."""
    layout, cases = experiment.phantom_layout, experiment.phantom_cases
    options = [f"{value}" for value in experiment.phantom_options.values()]
    name = "-".join([layout, str(cases), *options]).replace(" ", "")
    folder = work / "phantoms" / name
    write = steps.family(experiment.paper.recipe).write_phantom
    with progress.bar("synthetic cases") as shown:
        write(folder, cases=cases, layout=layout, progress=shown, **experiment.phantom_options)
    return folder


def judge(
    expected: Sequence[Expected], scores: pd.DataFrame, data: steps.Cohort, profile: str
) -> list[dict]:
    """Those expectations that speak of this data and profile, with what was measured."""
    verdicts = []
    for entry in expected:
        names = ("phantom",) if data.phantom else data.datasets
        if entry.profile != profile or names != (entry.data,):
            continue
        rows = scores[(scores.variant == entry.variant) & (scores.region == entry.region)]
        measured = float(rows[entry.metric].mean()) if len(rows) else None
        highest = math.inf if entry.maximum is None else entry.maximum
        passed = measured is not None and entry.minimum <= measured <= highest
        verdicts.append({**asdict(entry), "measured": measured, "passed": passed})
    return verdicts


def common_figures(out: Path, data: steps.Cohort) -> list[report.Figure]:
    """Learning curves, box plots, and the best, median and worst case of the first variant."""
    from keras_medseg.reporting import figures

    folder = out / "figures"
    finished = report.load_run(out)
    scores = finished.scores
    variant = scores["variant"].iloc[0]
    run = steps.read_variant(out, variant).recipe
    curves = figures.save(figures.learning_curves(finished.logs), folder / "learning_curves.png")
    boxes = figures.save(figures.score_boxes(scores), folder / "dice.png")
    pictures = [
        report.Figure("Learning curves", "Held-out cases dashed.", curves),
        report.Figure("Dice of every held-out case", "One point per case.", boxes),
    ]
    for which, name in figures.pick_cases(scores, variant).items():
        rows = scores[(scores["variant"] == variant) & (scores["case"] == name)]
        path = steps.prediction(out, run, variant, name)
        drawn, shown = steps.family(run).overlay(
            path,
            data.store.cases[name],
            run,
            title=f"{which} case: {name}",
            dice=dict(zip(rows["region"], rows["dice"])),
        )
        path = figures.save(drawn, folder / f"case_{which}.png")
        caption = f"Variant {variant}; {shown}"
        pictures.append(report.Figure(f"The {which} case", caption, path))
    return pictures


def _announce(data: steps.Cohort, experiment: Experiment, profile: str) -> None:
    print(
        f"{experiment.paper.title}\n"
        f"data: {data.name}, {len(data.training)} cases to train on, {len(data.held_out)} held "
        f"out; profile: {profile}",
        flush=True,
    )
    for note in data_notes(data):
        print(note)


def data_notes(data: steps.Cohort) -> list[str]:
    """What a reader of the scores must know of these cases and their split."""
    notes = []
    if data.duplicates:
        pairs = ", ".join(f"{name} = {kept}" for name, kept in data.duplicates.items())
        notes.append(f"Cases left out because another one has the same voxels: {pairs}.")
    if data.torn_groups:
        notes.append(
            f"The split leaks: {len(data.torn_groups)} groups (patients, video sequences) have "
            "cases on both sides, so the held-out scores are too good."
        )
    held_out = [data.store.cases[name] for name in data.held_out]
    if empty := sum(not case.labels.any() for case in held_out):
        notes.append(
            f"{empty} of {len(held_out)} held-out cases have no object: there an empty answer has "
            "a Dice of 1, and any other 0. Read means of Dice beside this share."
        )
    return notes


def folder_name(folder: Path) -> str:
    """A name for what is made from `folder`: its own, and a part that tells equal names apart."""
    path = folder.resolve()
    return f"{path.name}-{_short(str(path))}"


def store_folder(work: Path, folder: Path, run: recipe.Recipe) -> Path:
    """Where the cases of `folder` are kept as this recipe decodes them (size, fit, classes).

    One folder for each way of decoding: in a common one, runs with two of them by turns would
    decode everything again each time, and two at once would change each other's pictures.
    """
    reader = store.reader_name(steps.family(run).reader(run))
    return work / "stores" / f"{folder_name(folder)}-{_short(reader)}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _folder(experiment: Experiment) -> Path:
    return Path(__file__).parents[2] / "experiments" / experiment.paper.recipe.paper
