"""The report of a run: tables and figures from its run folder and its store."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_medseg.data import store
from keras_medseg.errors import DataError
from keras_medseg.evaluation import statistics
from keras_medseg.evaluation.scores import pick_cases
from keras_medseg.reporting.figures import charts, style
from keras_medseg.reporting.report import Declaration, ReportFigure, RunData, write_report
from keras_medseg.runs import provenance, shown_cases, steering, steps
from keras_medseg.runs.repetitions import Finished
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort

if TYPE_CHECKING:
    from keras_medseg.runs.experiment import Experiment


def make(
    experiment: "Experiment",
    run: RunFolder,
    done: Finished,
    verdicts: list[dict[str, Any]],
    orders: list[dict[str, Any]],
) -> Path:
    """Write table.csv, tests.csv, orders.csv, table.md, figures/ and report.html of a finished run.

    Args:
        experiment: the experiment that was run.
        run: its folder.
        done: what is finished of it.
        verdicts: expectations with measured values, from `expectations.judge`.
        orders: the paper's orders with their tests, from `expectations.judge_orders`.

    Returns:
        The path of report.html.
    """
    facts, part, cohort = run.run, done.parts[0], done.cohorts[0]
    notes = [*experiment.notes, *data_notes(done.cohort), *protocol_notes(run, done)]
    if facts["changes"] and experiment.expected:
        changes = ", ".join(f"{name}={value}" for name, value in facts["changes"].items())
        notes.append(f"Not held against its expectations, because --set was given: {changes}.")
    profile = experiment.profiles[facts["profile"]]
    trained = [
        name
        for name, variant in run.variants.items()
        if variant.trained_as == name or variant.members
    ]
    costs = steps.network_costs(part, trained)
    if part != run:
        run.write_table("networks", costs)
        run.gather_logs()
    declared = Declaration(
        reference=experiment.reference,
        tables=experiment.tables,
        published=experiment.folder and experiment.folder / "published.csv",
        ledger=experiment.folder and experiment.folder / "ledger.toml",
        comparisons=profile.comparisons,
        notes=tuple(notes),
    )
    return write_report(
        run.path,
        RunData(run.recipe, provenance.gather(run, done), done.scores, run.logs()),
        declared,
        expected=verdicts,
        orders=orders,
        costs=costs,
        further_scores=done.further,
        figures=[*common_figures(run, done), *experiment.figures(part, cohort)],
        shown=shown_cases.encode(done),
    )


def open_cohort(run: RunFolder) -> Cohort:
    """The cases of a finished run, from the store that it used.

    Raises:
        DataError: as `open_store`.
    """
    return steps.cohort_of(run, open_store(run))


def open_store(run: RunFolder) -> store.Store:
    """The store that a run used.

    Raises:
        DataError: the store is missing or damaged, or contains other cases.
    """
    facts = run.run
    decoded = store.open_store(facts["store"])
    if decoded.fingerprint != facts["fingerprint"]:
        raise DataError(
            facts["store"],
            found=f"cases with the fingerprint {decoded.fingerprint[:12]}",
            expected=f"{facts['fingerprint'][:12]}, those of {run.path}",
            remedy="Give the command of the run again; it decodes its cases and makes the report.",
        )
    return decoded


def common_figures(run: RunFolder, done: Finished) -> list[ReportFigure]:
    """Learning curves, box plots, and the best, median and worst case of the first variant.

    With several trainings, the curves are those of the first, a case is the mean over the seeds,
    and its picture is that of the first training that scored it.
    """
    scores, first = statistics.over_seeds(done.scores), done.parts[0]
    variant = scores["variant"].iloc[0]
    curves = style.save(charts.learning_curves(first.logs()), run.figure("learning_curves"))
    boxes = style.save(charts.score_boxes(scores), run.figure("dice"))
    of_seeds = ", mean over the seeds" if "seed" in done.scores else ""
    side = done.cohort.scored_side
    figures = [
        ReportFigure("Learning curves", f"Validation cases dashed{_of(run, first)}.", curves),
        ReportFigure(f"Dice of every {side} case", f"One point per case{of_seeds}.", boxes),
    ]
    for which, case_id in pick_cases(scores, variant).items():
        part = done.part_of(case_id)
        own = part.scores()
        rows = own[(own["variant"] == variant) & (own["case"] == case_id)]
        drawn, shown = part.variant(variant).task.overlay(
            part.prediction(variant, case_id),
            done.cohort.store.cases[case_id],
            title=f"{which} case: {case_id}",
            dice=dict(zip(rows["region"], rows["dice"])),
        )
        path = style.save(drawn, run.figure(f"case_{which}"))
        caption = f"Variant {variant}{_of(run, part)}; {shown}"
        figures.append(ReportFigure(f"The {which} case", caption, path))
    return figures


def _of(run: RunFolder, part: RunFolder) -> str:
    """Which training of a run a figure shows; nothing if there is only one."""
    return "" if part == run else f", training {part.path.name}"


def protocol_notes(run: RunFolder, done: Finished) -> list[str]:
    """What a reader must know about sides, folds and seeds."""
    notes = steering.notes(done)
    if done.folds:
        notes.append(
            f"Cross-validation in {done.folds + len(done.missing)} folds: every case was scored by "
            "networks that were trained without its fold. Trainings of different folds share "
            "cases, which no interval takes into account: there is no unbiased estimate of the "
            "variance of k-fold cross-validation (Bengio and Grandvalet, JMLR 5, 2004, 1089)."
        )
    if done.missing:
        numbers = ", ".join(map(str, done.missing))
        notes.append(f"Folds that are not trained yet, whose cases are not scored: {numbers}.")
    if "seed" in done.scores:
        seeds = ", ".join(map(str, done.seeds))
        notes.append(
            f"Every network was trained {len(done.seeds)} times on the same split, with the seeds "
            f"{seeds}. Means are over all of them; each training has its own folder, and its own "
            f"report by `keras-medseg report {run.path / done.parts[0].path.name}`."
        )
    return notes


def data_notes(cohort: Cohort) -> list[str]:
    """What a reader of the scores must know about these cases and their split."""
    notes = []
    if cohort.duplicates:
        pairs = ", ".join(f"{name} = {kept}" for name, kept in cohort.duplicates.items())
        notes.append(f"Cases left out because another one has the same voxels: {pairs}.")
    if cohort.leaking_groups:
        notes.append(
            f"The split leaks: {len(cohort.leaking_groups)} groups (patients, video sequences) "
            f"have cases on several sides, so the {cohort.scored_side} scores are too good."
        )
    scored = [cohort.store.cases[name] for name in cohort.scored]
    if empty := sum(case.labels is None or not case.labels.any() for case in scored):
        notes.append(
            f"{empty} of {len(scored)} {cohort.scored_side} cases have no object: there an empty "
            "answer has a Dice of 1, and any other 0. Read means of Dice beside this share."
        )
    return notes
