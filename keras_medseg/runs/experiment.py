"""Declaration of an experiment, and `run`, which executes it: data, training, scores, report."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from keras_medseg import cluster, phantoms, recipe
from keras_medseg.cluster import Cluster
from keras_medseg.data import split_files, store
from keras_medseg.files import locked
from keras_medseg.progress import progress_bar
from keras_medseg.recipe import Changes, Images, Recipe
from keras_medseg.reporting.report import ReportFigure
from keras_medseg.reporting.tables import Reference, TableSpec
from keras_medseg.runs import (
    answers,
    initial,
    papers,
    provenance,
    repetitions,
    report,
    spread_trainings,
    steps,
)
from keras_medseg.runs.expectations import Expected, ExpectedOrder, judge, judge_orders
from keras_medseg.runs.repetitions import Part
from keras_medseg.runs.run_folder import RunFolder, Variant, trained_as
from keras_medseg.runs.steps import Cohort
from keras_medseg.tasks import Task, task_of
from keras_medseg.training import devices
from keras_medseg.training.devices import Devices
from keras_medseg.training.events import Listener, nobody, to_all
from keras_medseg.training.hosts import Hosts

OWN_VARIANT = "main"
"""Name of the only variant when a single recipe is trained."""


PAPER_PROFILE = "paper"
"""The profile that is the paper's own recipe."""

PAPER_SEEDS = 3
"""Trainings of each variant under "paper" and "paper-compare", if the request does not say it."""


@dataclass(frozen=True)
class Profile:
    """The part of an experiment that is run.

    Attributes:
        changes: to the recipe, for all variants.
        variants: name -> further changes for that variant.
        comparisons: (baseline, variant) pairs for the paired tests.
        ensembles: name -> the variants whose probabilities are averaged; scored as a variant.
    """

    changes: Changes
    variants: Mapping[str, Changes]
    comparisons: tuple[tuple[str, str], ...] = ()
    ensembles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Phantom:
    """The synthetic data set of an experiment.

    Attributes:
        layout: one of `phantoms.layouts()`.
        cases: number of cases.
        size: voxels (x, y, z) or pixels (rows, columns); by default that of the layout.
        changes: to the recipe that the synthetic data need, such as the gray codes of their masks.
    """

    layout: str
    cases: int
    size: tuple[int, ...] | None = None
    changes: Changes = field(default_factory=dict)


def no_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """The figures of an experiment that has none of its own."""
    return []


@dataclass(frozen=True)
class Experiment:
    """One paper on one data set, or a recipe on a user's own data.

    Attributes:
        recipe: what is trained, without the changes of a profile.
        profiles: what is run. A paper has "paper" and "quick" and, if it has comparison methods,
            also "paper-compare" and "quick-compare".
        reference: the published experiment; None if there is no paper.
        folder: of published.csv and ledger.toml; None if there is no paper.
        tables: the paper's tables; without them, one table shows all variants.
        expected: what a run must reach.
        orders: sentences of the paper on which variant is better.
        notes: what a reader of the tables must know.
        phantom: its synthetic data; None if it needs real data.
        figures: makes the paper's own figures. In a `-compare` run the paper's ablations are not
            trained, so it must cope without them.
        further_scores: makes rows as in scores.csv, with scores that do not belong to single cases;
            only the tables show them.
    """

    recipe: Recipe
    profiles: Mapping[str, Profile]
    reference: Reference | None = None
    folder: Path | None = None
    tables: tuple[TableSpec, ...] = ()
    expected: tuple[Expected, ...] = ()
    orders: tuple[ExpectedOrder, ...] = ()
    notes: tuple[str, ...] = ()
    phantom: Phantom | None = None
    figures: Callable[[RunFolder, Cohort], list[ReportFigure]] = no_figures
    further_scores: Callable[[RunFolder, Cohort], pd.DataFrame] | None = None


@dataclass(frozen=True)
class Request:
    """What a user requests: the data, the output folder, and the options of a run.

    Attributes:
        out: the run folder.
        folder: cases on disk; None for the experiment's synthetic data set.
        store: folder of the decoded cases; by default in `work`, shared with other runs.
        work: folder of synthetic data and decoded stores, which later runs use again.
        profile: name of one of the experiment's profiles.
        changes: to the recipe, from the command line.
        command: the command line, for the provenance.
        experiment: (paper, data set), by which `papers.find` finds the experiment again; None for a
            single recipe.
        seeds: number of trainings of each variant, with the seeds `train.seed`, `train.seed` + 1,
            ...; None: PAPER_SEEDS under the paper's own recipe, otherwise 1.
        fold: "all", or the number of the fold to train; the report is about those that are
            finished.
        splits: file with the splits to use, see `data.split_files`.
        listeners: functions that are told of every epoch and of the finished run, see
            `training.events`.
        devices: of each training, a number or "all"; see `training.devices.choose`.
        hosts: the processes that train together.
        local_store: folder on a disk of this machine, into which the store is copied and from which
            it is then read; for stores on a slow file system.
        scheduler: of a cluster for cases and trainings, see `cluster.connected`.
    """

    out: Path
    folder: Path | None
    profile: str
    command: str
    store: Path | None = None
    work: Path = Path("runs")
    changes: Changes = field(default_factory=dict)
    experiment: tuple[str, str | None] | None = None
    seeds: int | None = None
    fold: str = "all"
    splits: Path | None = None
    listeners: Sequence[Listener] = ()
    devices: str = "1"
    scheduler: str | None = None
    hosts: Hosts | None = None
    local_store: Path | None = None

    def __post_init__(self) -> None:
        # Before anything is decoded.
        if self.seeds is not None and self.seeds < 1:
            raise ValueError(f"--seeds: found {self.seeds}, expected 1 or more.")
        if self.listeners and self.scheduler:
            raise ValueError(
                "--tracking: found it beside --scheduler, expected one of the two: trainings on a "
                "cluster tell nobody of their epochs."
            )
        if self.fold != "all" and not self.fold.isdecimal():
            raise ValueError(f"--fold: found {self.fold!r}, expected all or a number from 0.")


_OF_THE_RUN = {
    "data": ("validation", "test", "folds", "split_seed", "options"),
    "train": ("seed",),
}
"""What no variant has for itself: how cases are read and split, and the seed of a training."""


def of_recipe(chosen: Recipe) -> Experiment:
    """The experiment that trains a single recipe on a user's own data."""
    return Experiment(chosen, {"train": Profile({}, {OWN_VARIANT: {}})})


def run(experiment: Experiment, request: Request) -> bool:
    """Run an experiment: data, training, label maps, scores and report.

    An interrupted run continues where it stopped when it is requested again. With folds or seeds,
    each training has a folder of its own in the run folder (`repetitions`), so several processes
    may train different folds of one run at once.

    Returns:
        Whether all expectations are met, and no order is reversed that counts (`ExpectedOrder`).

    Raises:
        DataError: the data are invalid, or the run folder belongs to another run.
        ValueError: the recipe cannot be trained on these data.
    """
    profile = experiment.profiles[request.profile]
    base = _base_recipe(experiment, request)
    recipes = _recipes(profile, base)
    _refuse_other_data(base, recipes)
    _refuse_other_fold(request, base)
    with cluster.connected(request.scheduler) as tasks:
        return _run(experiment, request, base, recipes, tasks)


def _run(
    experiment: Experiment,
    request: Request,
    base: Recipe,
    recipes: Mapping[str, Recipe],
    tasks: Cluster | None,
) -> bool:
    """As `run`, after the checks that need no data."""
    # The workers of a cluster choose devices of their own.
    used = devices.ONE if tasks else devices.choose(request.devices, request.hosts)
    for chosen in recipes.values():
        used.check(chosen.train)
    task = task_of(base)
    with used.first_alone("cases"):
        folder = request.folder or make_phantom(experiment, request.work)
        request = replace(request, store=request.store or store_folder(request.work, folder, base))
        cohorts = _cohorts(request, folder, task, tasks)
    parts = repetitions.plan(cohorts, base.train.seed, _seeds(request), task.split_seed)
    asked = repetitions.of_fold(parts, request.fold)
    outcome = RunFolder(request.out)
    _check_recipes(recipes, cohorts[0].channels, begins=not outcome.exists)
    profile = experiment.profiles[request.profile]
    trainings = [_training(profile, base, part) for part in asked]
    if not used.first:
        return _follow(outcome, trainings, used)
    if len(parts) > 1:
        known = _facts(request, folder, steps.together(cohorts)) | repetitions.facts(parts)
        _create(outcome, base, profile, recipes, known, parts)
    begin = partial(_started, experiment, request, folder, used)
    if tasks is None:
        for training in trainings:
            with begin(training) as (part, _):
                _train_and_score(part, training.part.cohort, used, to_all(request.listeners))
    else:
        _train_on(tasks, [begin(training) for training in trainings], request.devices)
    with locked(outcome.path, "writes into this run folder"):
        verdicts, page = _report(experiment, outcome, cohorts[0].store)
    _tell_end(request, outcome)
    used.part()
    print(f"{(request.out / 'table.md').read_text()}\nreport: {page}")
    return all(verdict["passed"] for verdict in verdicts)


class _Training(NamedTuple):
    """A training that has passed all checks, with its recipe and its variants."""

    part: Part
    recipe: Recipe
    variants: dict[str, Variant]


def _base_recipe(experiment: Experiment, request: Request) -> Recipe:
    """The recipe that the variants change: of the profile, for the data, with --set."""
    profile = experiment.profiles[request.profile]
    of_data = experiment.phantom.changes if experiment.phantom and not request.folder else {}
    base = recipe.override(experiment.recipe, {**profile.changes, **of_data})
    base = recipe.override(base, request.changes)
    return steps.complete(base, request.folder) if request.folder else base


def _recipes(profile: Profile, base: Recipe) -> dict[str, Recipe]:
    """The recipe of each variant; one with a section of its own shares what is of the run."""
    recipes = {}
    for name, changes in profile.variants.items():
        shared = {
            f"{section}.{part}": getattr(getattr(base, section), part)
            for section, parts in _OF_THE_RUN.items()
            for part in parts
            if hasattr(changes.get(section), part)
        }
        recipes[name] = recipe.override(recipe.override(base, changes), shared)
    return recipes


def _check_recipes(recipes: Mapping[str, Recipe], channels: int, *, begins: bool) -> None:
    """Build all networks; a run that goes on needs the weights that it started from no more."""
    for chosen in recipes.values():
        steps.check_recipe(chosen, channels)
        if begins:
            initial.check_initial(chosen, channels)


def _training(profile: Profile, base: Recipe, part: Part) -> _Training:
    """Measure what the variants of a training need, and check their batches.

    Raises:
        ValueError: a variant does not fit the cases.
    """
    changed = recipe.override(base, part.changes)
    variants = steps.fit_variants(_recipes(profile, changed), part.cohort)
    for variant in variants.values():
        steps.check_batches(variant, part.cohort)
    return _Training(part, changed, _with_ensembles(profile, variants))


def _with_ensembles(profile: Profile, variants: Mapping[str, Variant]) -> dict[str, Variant]:
    """The variants, and behind them the ensembles of a profile.

    Raises:
        ValueError: the ensemble is of images, which are scored before they get their own size back.
    """
    for name, members in profile.ensembles.items():
        if isinstance(variants[members[0]].recipe.data, Images):
            raise ValueError(
                f"ensembles: found {name} of variants with images, expected volumes or slices."
            )
    return {
        **variants,
        **{
            name: replace(variants[members[0]], members=members)
            for name, members in profile.ensembles.items()
        },
    }


def _train_on(
    tasks: Cluster,
    trainings: Sequence[AbstractContextManager[spread_trainings.Begun]],
    asked: str,
) -> None:
    with ExitStack() as stack:
        begun = [stack.enter_context(training) for training in trainings]
        spread_trainings.train_and_score(tasks, begun, asked)


@contextmanager
def _started(
    experiment: Experiment, request: Request, folder: Path, used: Devices, training: _Training
) -> Iterator[spread_trainings.Begun]:
    """The folder of a training, created and locked, and this command's entry in provenance.json."""
    part, base, variants = training
    outcome = part.folder(RunFolder(request.out))
    with locked(outcome.path, "writes into this run folder"):
        outcome.create(base, variants, _facts(request, folder, part.cohort) | part.facts)
        split_files.write_splits(outcome.splits_file, repetitions.split_trees([part]))
        _announce(experiment, request.profile, part)
        with provenance.recorded(
            outcome,
            part.cohort,
            profile=request.profile,
            seed=base.train.seed,
            command=request.command,
            used=used.names,
        ) as entry:
            yield outcome, entry


def _tell_end(request: Request, outcome: RunFolder) -> None:
    if request.listeners:
        to_all(request.listeners)(answers.finished_event(outcome))


def remake_report(out: Path) -> Path:
    """Rebuild tables, figures and report of a finished run.

    Returns:
        The path of report.html.

    Raises:
        DataError: the run is not finished, or its store is missing.
        ValueError: its paper is not available.
    """
    outcome = RunFolder(out)
    facts = outcome.run
    paper = facts["experiment"]
    experiment = papers.find(*paper) if paper else of_recipe(outcome.recipe)
    decoded = report.open_store(outcome)
    with locked(out, "writes into this run folder"):
        return _report(experiment, outcome, decoded)[1]


def _report(
    experiment: Experiment, outcome: RunFolder, decoded: store.Store
) -> tuple[list[dict[str, Any]], Path]:
    """Judge a run and write its report: the verdicts on values and orders, and the page.

    A recipe that --set changed is not held against what the paper's recipe must reach.
    """
    profile, changed = outcome.run["profile"], bool(outcome.run["changes"])
    done = repetitions.finished(outcome, decoded, experiment.further_scores)
    cohort, scores = done.cohort, done.scores
    verdicts = judge(() if changed else experiment.expected, scores, cohort, profile)
    of_paper = experiment.reference is not None and experiment.reference.data in cohort.datasets
    binding = of_paper and not (cohort.phantom or changed) and _of_the_paper(profile)
    orders = judge_orders(experiment.orders, scores, binding=binding)
    page = report.make(experiment, outcome, done, verdicts, orders)
    return [*verdicts, *orders], page


def _of_the_paper(profile: str) -> bool:
    """Whether a profile trains by the paper's own recipe, its networks or its rivals."""
    return profile.removesuffix("-compare") == PAPER_PROFILE


def _facts(request: Request, folder: Path, cohort: Cohort) -> dict[str, Any]:
    """The contents of run.json except version and variants."""
    return {
        "experiment": list(request.experiment) if request.experiment else None,
        "profile": request.profile,
        "changes": {name: repr(value) for name, value in request.changes.items()},
        "data": cohort.name,
        "data_folder": str(folder.resolve()),
        "store": str((request.store or cohort.store.folder).resolve()),
        "fingerprint": cohort.store.fingerprint,
        "training": list(cohort.training),
        "validation": list(cohort.validation),
        **({"test": list(cohort.test)} if cohort.test else {}),
        "duplicates": dict(cohort.duplicates),
        "leaking_groups": list(cohort.leaking_groups),
        "datasets": list(cohort.datasets),
        "phantom": cohort.phantom,
    }


def _refuse_other_data(base: Recipe, recipes: Mapping[str, Recipe]) -> None:
    """Check that all variants share one store and one split, so that scores can be compared.

    Raises:
        ValueError: naming the variant and what it changes.
    """
    reader = store.reader_name(task_of(base).reader)
    for name, variant in recipes.items():
        if store.reader_name(task_of(variant).reader) != reader:
            raise ValueError(
                f"variant {name}: found data that are decoded in another way (data set, size, fit "
                "or classes) than the run's, expected the same for all variants. Change these for "
                "the whole run."
            )
        for part in ("validation", "test", "folds", "split_seed"):
            found, expected = getattr(variant.data, part), getattr(base.data, part)
            if found != expected:
                raise ValueError(
                    f"variant {name}: found data.{part} {found}, expected {expected}, that of the "
                    "run: all variants share one split."
                )


def _refuse_other_fold(request: Request, base: Recipe) -> None:
    """Check `request.fold` before anything is decoded.

    Raises:
        ValueError: there is no such fold.
        DataError: the file with the splits is missing or of another form.
    """
    folds = split_files.count(request.splits) if request.splits else base.data.folds
    repetitions.require_fold(request.fold, [*map(str, range(folds))] if folds > 1 else [])


def _seeds(request: Request) -> int:
    usual = PAPER_SEEDS if _of_the_paper(request.profile) else 1
    return usual if request.seeds is None else request.seeds


def _cohorts(
    request: Request, folder: Path, task: Task, tasks: Cluster | None
) -> tuple[Cohort, ...]:
    """The cases, in their store or in its copy."""
    assert request.store is not None
    cohorts = steps.load_cohorts(folder, request.store, task, request.splits, workers=tasks)
    if request.local_store is None:
        return cohorts
    copied = store.copy(cohorts[0].store, request.local_store)
    return tuple(replace(cohort, store=copied) for cohort in cohorts)


def _create(
    outcome: RunFolder,
    base: Recipe,
    profile: Profile,
    recipes: Mapping[str, Recipe],
    known: Mapping[str, Any],
    parts: Sequence[Part],
) -> None:
    """The folder of a run with several trainings, which itself has no networks."""
    unfitted = {
        name: Variant(recipes[name], source) for name, source in trained_as(recipes).items()
    }
    with locked(outcome.path, "writes into this run folder"):
        outcome.create(base, _with_ensembles(profile, unfitted), known)
        split_files.write_splits(outcome.splits_file, repetitions.split_trees(parts))


def _follow(outcome: RunFolder, trainings: Sequence[_Training], used: Devices) -> bool:
    """What the processes after the first do: train with it, while it does all else."""
    for training in trainings:
        _train_variants(training.part.folder(outcome), training.part.cohort, used)
    used.part()
    return True


def _train_variants(
    outcome: RunFolder, cohort: Cohort, used: Devices, listener: Listener = nobody
) -> None:
    used.meet("begun")
    for name, variant in outcome.variants.items():
        if variant.trained_as == name:
            steps.train_variant(outcome, name, cohort, listener, devices=used)


def _train_and_score(outcome: RunFolder, cohort: Cohort, used: Devices, listener: Listener) -> None:
    _train_variants(outcome, cohort, used, listener)
    outcome.gather_logs()
    steps.score_variants(outcome, cohort)


def with_comparison(
    profiles: Mapping[str, Profile], own: str, baselines: Mapping[str, Mapping[str, Changes]]
) -> dict[str, Profile]:
    """The profiles, and for some of them a `-compare` profile with the comparison methods.

    Args:
        profiles: name -> profile.
        own: variant of the paper's own network.
        baselines: profile -> comparison method -> its changes.
    """
    compared = {
        f"{name}-compare": Profile(
            profiles[name].changes,
            {own: profiles[name].variants[own], **others},
            tuple((baseline, own) for baseline in others),
        )
        for name, others in baselines.items()
    }
    return {**profiles, **compared}


def make_phantom(experiment: Experiment, work: Path) -> Path:
    """Write the synthetic data set of this experiment, or use that of an earlier run.

    Raises:
        ValueError: the experiment has no synthetic data.
    """
    phantom = experiment.phantom
    if phantom is None:
        raise ValueError(
            "data: found none, expected a folder of cases. This recipe has no phantom."
        )
    size = [str(phantom.size)] if phantom.size else []
    name = "-".join([phantom.layout, str(phantom.cases), *size]).replace(" ", "")
    folder = work / "phantoms" / name
    with progress_bar("synthetic cases") as shown:
        phantoms.write(
            folder,
            layout=phantom.layout,
            cases=phantom.cases,
            size=phantom.size,
            progress=shown,
        )
    return folder


def folder_name(folder: Path) -> str:
    """A name for files made from `folder`: its own name, and a part that makes it unique."""
    path = folder.resolve()
    return f"{path.name}-{_short(str(path))}"


def store_folder(work: Path, folder: Path, chosen: Recipe) -> Path:
    """The store of the cases of `folder`, decoded as this recipe says (size, fit, classes).

    Each way of decoding has its own store. In a common store, alternating runs would decode
    everything again each time, and simultaneous runs would overwrite each other's images.
    """
    reader = store.reader_name(task_of(chosen).reader)
    return work / "stores" / f"{folder_name(folder)}-{_short(reader)}"


def _announce(experiment: Experiment, profile: str, part: Part) -> None:
    title = experiment.reference.title if experiment.reference else experiment.recipe.name
    cohort = part.cohort
    tested = f" to steer the training, {len(cohort.test)} to score" if cohort.test else ""
    print(
        f"{title}\n"
        f"data: {cohort.name}, {len(cohort.training)} cases to train on, "
        f"{len(cohort.validation)} held out{tested}; profile: {profile}"
        + (f"; training {part.name}" if part.name else ""),
        flush=True,
    )
    for note in report.data_notes(cohort):
        print(note)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
