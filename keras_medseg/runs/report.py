"""The report of a run: tables and figures from its run folder and its store."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_medseg.data import store
from keras_medseg.errors import DataError
from keras_medseg.evaluation.scores import pick_cases
from keras_medseg.reporting.figures import charts, style
from keras_medseg.reporting.report import Declaration, ReportFigure, RunData, write_report
from keras_medseg.runs import steps
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.runs.steps import Cohort

if TYPE_CHECKING:
    from keras_medseg.runs.experiment import Experiment


def make(
    experiment: "Experiment",
    run: RunFolder,
    cohort: Cohort,
    verdicts: list[dict[str, Any]],
    orders: list[dict[str, Any]],
) -> Path:
    """Write table.csv, tests.csv, orders.csv, table.md, figures/ and report.html of a finished run.

    Args:
        experiment: the experiment that was run.
        run: its folder.
        cohort: its cases.
        verdicts: expectations with measured values, from `expectations.judge`.
        orders: the paper's orders with their tests, from `expectations.judge_orders`.

    Returns:
        The path of report.html.
    """
    facts = run.run
    notes = [*experiment.notes, *data_notes(cohort)]
    if facts["changes"] and experiment.expected:
        changes = ", ".join(f"{name}={value}" for name, value in facts["changes"].items())
        notes.append(f"Not held against its expectations, because --set was given: {changes}.")
    profile = experiment.profiles[facts["profile"]]
    trained = [name for name, variant in run.variants.items() if variant.trained_as == name]
    more = experiment.further_scores
    scores = steps.with_groups(run.scores(), cohort)
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
        RunData(run.recipe, run.provenance(), scores, run.logs()),
        declared,
        expected=verdicts,
        orders=orders,
        costs=steps.network_costs(run, trained),
        further_scores=more(run, cohort) if more else None,
        figures=[*common_figures(run, cohort), *experiment.figures(run, cohort)],
    )


def open_cohort(run: RunFolder) -> Cohort:
    """The cases of a finished run, from the store that it used.

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


def common_figures(run: RunFolder, cohort: Cohort) -> list[ReportFigure]:
    """Learning curves, box plots, and the best, median and worst case of the first variant."""
    scores = run.scores()
    variant = scores["variant"].iloc[0]
    task = run.variant(variant).task
    curves = style.save(charts.learning_curves(run.logs()), run.figure("learning_curves"))
    boxes = style.save(charts.score_boxes(scores), run.figure("dice"))
    figures = [
        ReportFigure("Learning curves", "Validation cases dashed.", curves),
        ReportFigure(f"Dice of every {cohort.scored_side} case", "One point per case.", boxes),
    ]
    for which, case_id in pick_cases(scores, variant).items():
        rows = scores[(scores["variant"] == variant) & (scores["case"] == case_id)]
        drawn, shown = task.overlay(
            run.prediction(variant, case_id),
            cohort.store.cases[case_id],
            title=f"{which} case: {case_id}",
            dice=dict(zip(rows["region"], rows["dice"])),
        )
        path = style.save(drawn, run.figure(f"case_{which}"))
        figures.append(ReportFigure(f"The {which} case", f"Variant {variant}; {shown}", path))
    return figures


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
