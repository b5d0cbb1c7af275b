"""The steps of a run, in order: folder -> store -> split -> networks -> label maps -> scores.

Every step finds what an earlier, interrupted run has finished, and continues from there.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from keras_medseg.cluster import Cluster
from keras_medseg.data import datasets, split_files, splits, store
from keras_medseg.data.cases import Case
from keras_medseg.data.datasets.base import Listing
from keras_medseg.data.formats.manifest import TEST, TRAINING, VALIDATION
from keras_medseg.errors import DataError
from keras_medseg.inference import complexity
from keras_medseg.phantoms.folder import is_phantom
from keras_medseg.progress import progress_bar
from keras_medseg.recipe import Images, Recipe, override
from keras_medseg.runs import initial
from keras_medseg.runs.run_folder import FURTHER, RunFolder, Variant, trained_as
from keras_medseg.tasks import Task, task_of
from keras_medseg.tasks.base import Scored
from keras_medseg.training import fit
from keras_medseg.training.devices import ONE, Devices
from keras_medseg.training.events import Listener, nobody


@dataclass(frozen=True)
class Cohort:
    """Decoded cases, split into a training and a validation set, and a test set if there is one.

    Attributes:
        name: of the data, as shown to users.
        store: all cases.
        training, validation: ids of the cases of these sides.
        test: ids of the cases that are scored; empty if the validation cases are.
        duplicates: {dropped case: the case with the same voxels that stays}.
        leaking_groups: patients or video sequences on several sides of the split.
        datasets: the values of `Case.dataset`, sorted.
        phantom: whether one of the cases is synthetic.
    """

    name: str
    store: store.Store
    training: tuple[str, ...]
    validation: tuple[str, ...]
    duplicates: Mapping[str, str]
    leaking_groups: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    phantom: bool = False
    test: tuple[str, ...] = ()

    @property
    def scored(self) -> tuple[str, ...]:
        """The cases that are scored: the test side, or the validation side if there is none."""
        return self.test or self.validation

    @property
    def scored_side(self) -> str:
        """What the scored cases are called: "test" or "validation"."""
        return "test" if self.test else "validation"

    @property
    def channels(self) -> int:
        """Image channels of every case."""
        return next(iter(self.store.cases.values())).image.shape[-1]


def complete(chosen: Recipe, folder: Path) -> Recipe:
    """The recipe with those options of its data set that the files in `folder` determine.

    Raises:
        DataError: the files leave an option open, or contradict each other.
        ValueError: the files are those of another kind of data set.
    """
    datasets.refuse_another_kind(chosen.data.dataset, folder)
    if isinstance(chosen.data, Images):
        classes = chosen.data.classes
        given = {"classes": classes} if any(classes.values()) else {}
        found = datasets.complete_options(chosen.data.dataset, given, folder)
        return override(chosen, {f"data.{name}": value for name, value in found.items()})
    options = datasets.complete_options(chosen.data.dataset, chosen.data.options, folder)
    return override(chosen, {"data.options": options})


def load_cohort(folder: Path, store_folder: Path, task: Task) -> Cohort:
    """As `load_cohorts`, of a recipe with a single split; of folds, the first."""
    return load_cohorts(folder, store_folder, task)[0]


def load_cohorts(
    folder: Path,
    store_folder: Path,
    task: Task,
    splits_file: Path | None = None,
    workers: Cluster | None = None,
) -> tuple[Cohort, ...]:
    """Find the cases of `folder`, decode them into `store_folder` once, and split them.

    Cases with identical voxels (one patient in the releases of several years) are used once, so
    that no case is on two sides: the one on the test side, then that on the validation side, if the
    data set has its own split, otherwise the first by name.

    Args:
        folder: of the cases.
        store_folder: of the decoded cases.
        task: of the recipe.
        splits_file: with splits that replace those of data set and recipe, see `data.split_files`.
        workers: that decode; by default processes of this machine.

    Returns:
        One cohort per fold, or the only one.

    Raises:
        DataError: the folder or some files are invalid; the message names them.
        ValueError: there are fewer than two cases.
    """
    listing = task.dataset.find(folder)
    if splits_file is not None:
        split_files.check_names(splits_file, listing.cases)  # before the cases are decoded
    read = task.reader
    with progress_bar("decoding cases") as shown:
        decoded = store.prepare(listing.cases, read, store_folder, workers=workers, progress=shown)
    check_channels(folder, {name: case.channels for name, case in decoded.cases.items()})
    first: dict[str, str] = {}
    duplicates = {}
    order = (TEST, VALIDATION, TRAINING, None)
    for name in sorted(decoded.cases, key=lambda id: (order.index(listing.sides.get(id)), id)):
        kept = first.setdefault(decoded.cases[name].voxels_sha256, name)
        if kept != name:
            duplicates[name] = kept
    unique = [case for case in listing.cases if case.id not in duplicates]
    found = _splits(task, listing, unique, splits_file, duplicates)
    datasets = tuple(sorted({case.dataset for case in unique}))
    phantom = any(is_phantom(case.images[0]) for case in unique)
    name = ("phantom in the layout of " if phantom else "") + ", ".join(datasets)
    return tuple(
        Cohort(
            name=name,
            store=decoded,
            training=tuple(case.id for case in sides.training),
            validation=tuple(case.id for case in sides.validation),
            test=tuple(case.id for case in sides.test),
            duplicates=duplicates,
            leaking_groups=tuple(splits.leaking_groups(*sides)),
            datasets=datasets,
            phantom=phantom,
        )
        for sides in found
    )


def _splits(
    task: Task,
    listing: Listing,
    cases: Sequence[Case],
    file: Path | None,
    dropped: Mapping[str, str],
) -> tuple[splits.Split, ...]:
    """The splits of `cases` by a file, otherwise by data set and recipe.

    If the recipe wants a test side and the file names none, the cases in `val` are the test side,
    and the validation side is drawn from those in `train`.
    """
    if file is None:
        return task.splits(listing, cases)
    data = task.recipe.data
    return tuple(
        splits.steered(split, data.validation, task.split_seed, task.split_way)
        if data.test and not split.test
        else split
        for split in split_files.read_splits(file, cases, dropped)
    )


def cohort_of(run: RunFolder, decoded: store.Store) -> Cohort:
    """The cases of a run folder, which are those of this store."""
    facts = run.run
    return Cohort(
        name=facts["data"],
        store=decoded,
        training=tuple(facts["training"]),
        validation=tuple(facts["validation"]),
        test=tuple(facts.get("test", ())),
        duplicates=facts["duplicates"],
        leaking_groups=tuple(facts["leaking_groups"]),
        datasets=tuple(facts["datasets"]),
        phantom=facts["phantom"],
    )


def together(cohorts: Sequence[Cohort]) -> Cohort:
    """The cohort of a cross-validation as a whole: on its scored side are those of all folds.

    The other sides are those of the first fold.
    """
    first = cohorts[0]
    if len(cohorts) == 1:
        return first
    scored = tuple(case for cohort in cohorts for case in cohort.scored)
    leaking = sorted({group for cohort in cohorts for group in cohort.leaking_groups})
    if first.test:
        return replace(first, test=scored, leaking_groups=tuple(leaking))
    return replace(first, validation=scored, leaking_groups=tuple(leaking))


def check_channels(folder: Path, channels: Mapping[str, int]) -> None:
    """Check that a network can see all cases: gray and color images do not go together.

    Args:
        folder: of the cases, for the message.
        channels: case id -> number of image channels.

    Raises:
        DataError: naming the cases that differ from most.
    """
    counts = Counter(channels.values())
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    others = [name for name, count in channels.items() if count != usual]
    names = {1: "gray (1 channel)", 3: "color (3 channels)"}
    odd = names.get(channels[others[0]], f"{channels[others[0]]} channels")
    raise DataError(
        folder,
        found=f"{len(others)} of the cases in {odd}, such as {others[0]}",
        expected=f"all in {names.get(usual, f'{usual} channels')}, as most are",
        remedy=f"Convert them; `keras-medseg check {folder}` names all.",
    )


def fit_variants(recipes: Mapping[str, Recipe], cohort: Cohort) -> dict[str, Variant]:
    """The variants of a run, each with the numbers measured on the training images for it."""
    sources = trained_as(recipes)
    fitted = {
        name: task_of(recipes[name]).fit(cohort.store, cohort.training).fitted
        for name in dict.fromkeys(sources.values())
    }
    return {
        name: Variant(recipes[name], source, fitted[source]) for name, source in sources.items()
    }


def check_recipe(recipe: Recipe, channels: int) -> None:
    """Build network, loss and optimizer, so that errors in the recipe are found before any writing.

    Args:
        recipe: to be checked.
        channels: image channels of the cases.

    Raises:
        ValueError: naming the field.
    """
    task = task_of(recipe)
    for targets in {len(names): names for names in recipe.model.targets}.values():
        network, model = fit.compile_network(
            recipe, targets, channels=task.channels(channels), wrap=task.wrap
        )
        fit.check_loss(recipe, network, model)
        complexity.multiply_adds(network)
        keras.utils.clear_session()


def check_batches(variant: Variant, cohort: Cohort) -> None:
    """Make the batches of both sides, which checks that the recipe fits the cases.

    Raises:
        ValueError: naming the field.
    """
    task = variant.task
    for targets in variant.recipe.model.targets:
        task.batches(cohort.store, cohort.training, targets, training=True)
        task.batches(cohort.store, cohort.validation, targets, training=False)


def train_variant(
    run: RunFolder,
    name: str,
    cohort: Cohort,
    listener: Listener = nobody,
    *,
    devices: Devices = ONE,
) -> None:
    """Train the networks of a variant one after the other, each on all `devices`.

    `listener` is told of every epoch.
    """
    variant = run.variant(name)
    task = variant.task
    count = len(variant.recipe.model.targets)
    for number, targets in enumerate(variant.recipe.model.targets, 1):
        finished = (run.training(name, targets) / "model.keras").exists()
        print(
            f"{'trained before:' if finished else 'training'} {name}, network {number} of {count}: "
            f"{variant.recipe.model.name} for {'+'.join(targets)}",
            flush=True,
        )
        fit.fit(
            variant.recipe,
            targets,
            task.batches(cohort.store, cohort.training, targets, training=True),
            task.batches(cohort.store, cohort.validation, targets, training=False),
            run.training(name, targets),
            channels=task.channels(cohort.channels),
            wrap=task.wrap,
            fitted=task.fitted,
            begin=initial.start(
                variant.recipe, targets, cohort.scored, run.training(name, targets)
            ),
            listener=listener,
            devices=devices,
        )
        keras.utils.clear_session()


def score_variants(run: RunFolder, cohort: Cohort) -> None:
    """Score all variants of a run, the members of an ensemble together with it."""
    variants = run.variants
    together = {name for variant in variants.values() for name in variant.members}
    for name, variant in variants.items():
        if variant.members:
            score_ensemble(run, name, cohort)
        elif name not in together:
            score_variant(run, name, cohort)


def score_variant(run: RunFolder, name: str, cohort: Cohort) -> pd.DataFrame:
    """Predict the cases of `cohort.scored`, write the label maps and score them, a row per region.

    Rows are added to `scores.csv` case by case; cases in it are not predicted again. Scores that do
    not follow from the label maps go to `further_scores.csv`.
    """
    task = run.variant(name).task
    left = _not_scored(run, name, cohort)
    networks = run.networks(name) if left else {}
    with progress_bar(f"predicting {name}") as progress:
        for number, case_id in enumerate(left, 1):
            case = cohort.store.cases[case_id]
            maps = task.probabilities(networks, case)
            _keep(run, cohort, case, {name: task.score_maps(maps, case)})
            progress(number, len(left), case_id)
    return _scores_of(run, name, cohort)


def score_ensemble(run: RunFolder, name: str, cohort: Cohort) -> pd.DataFrame:
    """As `score_variant`, for the mean of the probabilities of some variants, and for these.

    Each of them predicts a case once.
    """
    tasks = {member: run.variant(member).task for member in run.variant(name).members}
    left = _not_scored(run, name, cohort)
    networks = {member: run.networks(member) for member in tasks} if left else {}
    with progress_bar(f"predicting {name}") as progress:
        for number, case_id in enumerate(left, 1):
            case = cohort.store.cases[case_id]
            sums: dict[str, Any] = {}
            found = {}
            for member, task in tasks.items():
                maps = task.probabilities(networks[member], case)
                found[member] = task.score_maps(maps, case)
                for region, values in maps.items():
                    sums[region] = sums.get(region, 0) + values
            task = run.variant(name).task
            means = {region: total / np.float32(len(tasks)) for region, total in sums.items()}
            # As `members.pool`: bringing maps to another grid and averaging them commute.
            found[name] = task.score_maps(task.on_own_grid(means, case), case)
            _keep(run, cohort, case, found)
            progress(number, len(left), case_id)
    return _scores_of(run, name, cohort)


def _scores_of(run: RunFolder, name: str, cohort: Cohort) -> pd.DataFrame:
    scores = with_groups(run.scores(), cohort)
    return scores[scores["variant"] == name]


def _not_scored(run: RunFolder, name: str, cohort: Cohort) -> list[str]:
    """The cases that a variant has no scores of yet."""
    if not run.scores_file.exists():
        return list(cohort.scored)
    scores = run.scores()
    done = set(scores.loc[scores["variant"] == name, "case"])
    return [case for case in cohort.scored if case not in done]


def _keep(
    run: RunFolder, cohort: Cohort, case: store.StoredCase, found: Mapping[str, Scored]
) -> None:
    """Write the label maps of a case by some variants, and add their scores to the tables."""
    known = run.scores_file.exists()
    scores = run.scores() if known else pd.DataFrame(columns=["variant", "case", "group"])
    scores = with_groups(scores, cohort)
    for name, scored in found.items():
        run.predictions(name).mkdir(parents=True, exist_ok=True)
        run.variant(name).task.write(run.prediction(name, case.id), scored.prediction, case)
        named = {"variant": name, "case": case.id, "group": case.group}
        # Before scores.csv, whose rows say that a case is done.
        _add_further(run, named, scored.further)
        again = (scores["variant"] == name) & (scores["case"] == case.id)
        new = pd.DataFrame([{**named, **row} for row in scored.rows])
        kept = scores[~again]
        scores = pd.concat([kept, new], ignore_index=True) if len(kept) else new
    run.write_scores(scores)


def with_groups(scores: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """The scores with the column group, which run folders of earlier versions do not have."""
    if "group" in scores:
        return scores
    groups = scores["case"].map({name: case.group for name, case in cohort.store.cases.items()})
    scores = scores.copy()
    scores.insert(list(scores).index("case") + 1, "group", groups)
    return scores


def _add_further(
    run: RunFolder, named: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Add the further scores of a case, in the place of those that a killed run left.

    Args:
        run: their run folder.
        named: variant, case and group.
        rows: region and scores.
    """
    if not rows:
        return
    earlier = run.further_scores()
    if len(earlier):
        same = (earlier["variant"] == named["variant"]) & (earlier["case"] == named["case"])
        earlier = earlier[~same]
    new = pd.DataFrame([{**named, **row} for row in rows])
    table = pd.concat([earlier, new], ignore_index=True) if len(earlier) else new
    run.write_table(FURTHER, table)


def network_costs(run: RunFolder, names: Sequence[str]) -> pd.DataFrame:
    """What the networks of each variant cost, for `networks.csv`.

    Beside `complexity.costs`: training_seconds, which all epochs of all its networks took together,
    validation included, and training_epochs, their number.
    """
    rows = []
    for name in names:
        members = run.variant(name).members or (name,)
        networks = [network for one in members for network in run.networks(one).values()]
        logs = [
            run.log(one, part) for one in members for part in run.variant(one).recipe.model.targets
        ]
        rows.append(
            {
                "variant": name,
                **complexity.costs(networks),
                "training_epochs": sum(len(log) for log in logs),
                "training_seconds": float(sum(log["seconds"].sum() for log in logs)),
            }
        )
    table = pd.DataFrame(rows)
    run.write_table("networks", table)
    return table
