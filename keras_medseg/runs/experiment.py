"""What an experiment declares, and the one way every run goes: data, training, scores, report."""

import hashlib
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from keras_medseg import phantoms, recipe
from keras_medseg.data import store
from keras_medseg.errors import DataError, require_choice
from keras_medseg.files import locked
from keras_medseg.progress import progress_bar
from keras_medseg.recipe import Changes, Recipe
from keras_medseg.reporting.report import ReportFigure
from keras_medseg.reporting.tables import Reference, TableSpec
from keras_medseg.runs import provenance, report, steps
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort
from keras_medseg.tasks import task_of

OWN_VARIANT = "main"
"""Name of the one variant where a bare recipe is trained."""


@dataclass(frozen=True)
class Expected:
    """The mean of a metric over the validation cases that a run must reach; else it exits with 1.

    Attributes:
        data: "phantom", or the data set's name, e.g. "BraTS2017".
        profile, variant, region, metric: what is measured.
        minimum: of the mean.
        maximum: where the paper gives a range; above it is no reproduction either.
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
    """What of an experiment is run.

    Attributes:
        changes: of the recipe, for all variants.
        variants: name -> changes of that variant.
        comparisons: (baseline, variant) pairs for the paired tests.
    """

    changes: Changes
    variants: Mapping[str, Changes]
    comparisons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Phantom:
    """The synthetic data set of an experiment.

    Attributes:
        layout: one of `phantoms.layouts()`.
        cases: how many.
        size: voxels (x, y, z) or pixels (rows, columns); by default the layout's own.
        changes: of the recipe, that the synthetic data need, such as the gray codes of their masks.
    """

    layout: str
    cases: int
    size: tuple[int, ...] | None = None
    changes: Changes = field(default_factory=dict)


def no_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """Of an experiment that has no figures of its own."""
    return []


@dataclass(frozen=True)
class Experiment:
    """One paper on one data set, or a recipe on a user's own data.

    Attributes:
        recipe: what is trained, before a profile's changes.
        profiles: what is run: a paper has "paper" and "quick", and with networks to compare with
            also "paper-compare" and "quick-compare".
        reference: the published experiment; None where there is no paper.
        folder: of published.csv and ledger.toml; None where there is no paper.
        tables: the paper's tables; without them all variants and metrics are shown in one.
        expected: what a run must reach.
        notes: what a reader of the tables must know.
        phantom: its synthetic data; None: it needs real data.
        figures: makes the paper's own figures. In a comparison the paper's ablations are not
            trained, so it must cope without them.
        further_scores: makes rows as in scores.csv, of scores that are not those of single cases;
            for the tables alone.
    """

    recipe: Recipe
    profiles: Mapping[str, Profile]
    reference: Reference | None = None
    folder: Path | None = None
    tables: tuple[TableSpec, ...] = ()
    expected: tuple[Expected, ...] = ()
    notes: tuple[str, ...] = ()
    phantom: Phantom | None = None
    figures: Callable[[RunFolder, Cohort], list[ReportFigure]] = no_figures
    further_scores: Callable[[RunFolder, Cohort], pd.DataFrame] | None = None


@dataclass(frozen=True)
class Request:
    """What a user asks a run for.

    Attributes:
        out: the run folder.
        folder: cases on disk; None for the experiment's synthetic data set.
        store: where the decoded cases are kept; by default in `work`, shared with other runs.
        work: where synthetic data and decoded stores are kept for the next run.
        profile: one of the experiment's.
        changes: of the recipe, from the command line.
        command: the user's, for the provenance.
        experiment: how to find the experiment again, [paper, data set]; None for a bare recipe.
    """

    out: Path
    folder: Path | None
    profile: str
    command: str
    store: Path | None = None
    work: Path = Path("runs")
    changes: Changes = field(default_factory=dict)
    experiment: tuple[str, str | None] | None = None


def of_recipe(chosen: Recipe) -> Experiment:
    """The experiment that trains a bare recipe on a user's own data."""
    return Experiment(chosen, {"train": Profile({}, {OWN_VARIANT: {}})})


def run(experiment: Experiment, request: Request) -> bool:
    """Data, training, label maps, scores and report; True when all expectations are met.

    A run that was stopped goes on where it ended when the same is asked for again.

    Raises:
        DataError: for data that are not as they should be, or a run folder of another run.
        ValueError: for a recipe that cannot be trained on these data.
    """
    profile = experiment.profiles[request.profile]
    of_data = experiment.phantom.changes if experiment.phantom and not request.folder else {}
    base = recipe.override(experiment.recipe, {**profile.changes, **of_data})
    base = recipe.override(base, request.changes)
    recipes = {name: recipe.override(base, changes) for name, changes in profile.variants.items()}
    _refuse_other_data(base, recipes)
    folder = request.folder or make_phantom(experiment, request.work)
    stored = request.store or store_folder(request.work, folder, base)
    cohort = steps.load_cohort(folder, stored, task_of(base))
    variants = steps.fit_variants(recipes, cohort)
    for variant in variants.values():
        steps.check_recipe(variant.recipe, cohort.channels)
        steps.check_batches(variant, cohort)
    outcome = RunFolder(request.out)
    with locked(request.out, "writes into this run folder"):
        outcome.create(base, variants, _facts(request, folder, cohort))
        _announce(experiment, request.profile, cohort)
        with provenance.recorded(
            outcome, cohort, profile=request.profile, seed=base.train.seed, command=request.command
        ):
            scores = _train_and_score(outcome, cohort)
        verdicts = judge(_expected(experiment, request), scores, cohort, request.profile)
        page = report.make(experiment, outcome, cohort, verdicts)
    print((request.out / "table.md").read_text())
    print(f"report: {page}")
    return all(verdict["passed"] for verdict in verdicts)


def remake_report(out: Path) -> Path:
    """Make tables, figures and report of a finished run again, and say where the report is.

    Raises:
        DataError: for a run that did not end, whose store is gone, or whose paper is not here.
    """
    outcome = RunFolder(out)
    facts = outcome.run
    experiment = find(*facts["experiment"]) if facts["experiment"] else of_recipe(outcome.recipe)
    cohort = report.open_cohort(outcome)
    profile = facts["profile"]
    with locked(out, "writes into this run folder"):
        expected = () if facts["changes"] else experiment.expected
        verdicts = judge(expected, outcome.scores(), cohort, profile)
        return report.make(experiment, outcome, cohort, verdicts)


def find(paper: str, dataset: str | None = None) -> Experiment:
    """The experiment of a paper, of its first data set unless another one is named.

    Raises:
        DataError: where the papers' recipes are not at hand.
        ValueError: the paper has no such data set.
    """
    try:
        declared = importlib.import_module(f"experiments.{paper}.recipe").EXPERIMENTS
    except ModuleNotFoundError as error:
        raise DataError(
            f"experiments/{paper}",
            found=f"no such module ({error.name})",
            expected="the recipe of the paper",
            remedy="Give the command in the repository's folder.",
        ) from error
    chosen = dataset or next(iter(declared))
    require_choice("--dataset", chosen, declared)
    return declared[chosen]


def _expected(experiment: Experiment, request: Request) -> tuple[Expected, ...]:
    """With --set it is no longer the recipe that the expectations speak of."""
    return () if request.changes else experiment.expected


def _facts(request: Request, folder: Path, cohort: Cohort) -> dict[str, Any]:
    """What run.json says besides version and variants."""
    return {
        "experiment": list(request.experiment) if request.experiment else None,
        "profile": request.profile,
        "changes": {name: repr(value) for name, value in request.changes.items()},
        "data": cohort.name,
        "data_folder": str(folder.resolve()),
        "store": str(cohort.store.folder.resolve()),
        "fingerprint": cohort.store.fingerprint,
        "training": list(cohort.training),
        "validation": list(cohort.validation),
        "duplicates": dict(cohort.duplicates),
        "leaking_groups": list(cohort.leaking_groups),
        "datasets": list(cohort.datasets),
        "phantom": cohort.phantom,
    }


def _refuse_other_data(base: Recipe, recipes: Mapping[str, Recipe]) -> None:
    """All variants share one store and one split, so that their scores can be compared.

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
        if variant.data.validation != base.data.validation:
            raise ValueError(
                f"variant {name}: found data.validation {variant.data.validation}, expected "
                f"{base.data.validation}, that of the run: all variants share one split."
            )


def _train_and_score(outcome: RunFolder, cohort: Cohort) -> pd.DataFrame:
    for name, variant in outcome.variants.items():
        if variant.trained_as == name:
            steps.train_variant(outcome, name, cohort)
    outcome.gather_logs()
    return pd.concat([steps.score_variant(outcome, name, cohort) for name in outcome.variants])


def with_comparison(
    profiles: Mapping[str, Profile], own: str, baselines: Mapping[str, Mapping[str, Changes]]
) -> dict[str, Profile]:
    """The profiles, and for some of them one that also trains the networks to compare with.

    Args:
        profiles: name -> profile.
        own: variant of the paper's own network.
        baselines: profile -> variant -> its changes.
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
    """Write the synthetic data set of this experiment, or find it from the last run.

    Raises:
        ValueError: the experiment has none.
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


def judge(
    expected: Sequence[Expected], scores: pd.DataFrame, cohort: Cohort, profile: str
) -> list[dict[str, Any]]:
    """Those expectations that speak of this data and profile, with what was measured."""
    verdicts = []
    for entry in expected:
        names = ("phantom",) if cohort.phantom else cohort.datasets
        if entry.profile != profile or names != (entry.data,):
            continue
        rows = scores[(scores.variant == entry.variant) & (scores.region == entry.region)]
        measured = float(rows[entry.metric].mean()) if len(rows) else None
        highest = math.inf if entry.maximum is None else entry.maximum
        passed = measured is not None and entry.minimum <= measured <= highest
        verdicts.append({**asdict(entry), "measured": measured, "passed": passed})
    return verdicts


def folder_name(folder: Path) -> str:
    """A name for what is made from `folder`: its own, and a part that tells equal names apart."""
    path = folder.resolve()
    return f"{path.name}-{_short(str(path))}"


def store_folder(work: Path, folder: Path, chosen: Recipe) -> Path:
    """Where the cases of `folder` are kept as this recipe decodes them (size, fit, classes).

    One folder for each way of decoding: in a common one, runs with two of them by turns would
    decode everything again each time, and two at once would change each other's images.
    """
    reader = store.reader_name(task_of(chosen).reader)
    return work / "stores" / f"{folder_name(folder)}-{_short(reader)}"


def _announce(experiment: Experiment, profile: str, cohort: Cohort) -> None:
    title = experiment.reference.title if experiment.reference else experiment.recipe.name
    print(
        f"{title}\n"
        f"data: {cohort.name}, {len(cohort.training)} cases to train on, "
        f"{len(cohort.validation)} held out; profile: {profile}",
        flush=True,
    )
    for note in report.data_notes(cohort):
        print(note)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
