"""Commands that score: label maps of any program (score), a run on other data sets (evaluate)."""

import argparse
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_medseg.cli.arguments import add_dataset, add_scheduler, add_workers, parse_classes
from keras_medseg.cli.output import Answer, add_output

if TYPE_CHECKING:
    from keras_medseg.data.datasets.base import Dataset

_REMARKS_SHOWN = 12


def score(arguments: argparse.Namespace) -> Answer:
    """Score folders of label maps, of any program, against the cases' annotations."""
    from keras_medseg import cluster
    from keras_medseg.errors import plural
    from keras_medseg.evaluation import comparison, score_folder
    from keras_medseg.reporting import score_report

    _check_table(arguments.out, arguments.report)
    folders, truth = _scored_folders(arguments.folders, arguments.truth)
    dataset, regions = _annotations(arguments, truth)
    metrics, rank_by = _metrics(arguments, dataset)
    cases = dataset.find_annotations(truth).cases
    if arguments.groups:
        cases = score_folder.with_groups(cases, arguments.groups)
    with cluster.connected(arguments.scheduler) as tasks:
        scored = score_folder.score_folders(
            folders,
            cases,
            dataset,
            metrics=metrics,
            regions=regions,
            common=arguments.common,
            workers=tasks or arguments.workers or os.cpu_count() or 1,
        )
    _warn_of_each(scored.remarks)
    compared = comparison.compare_all(scored.table, metrics, rank_by)
    print(f"mean and 95 % interval over {plural(len(scored.cases), 'case')}:")
    print(score_folder.summary(scored.table, metrics))
    print(comparison.standings(compared), end="")
    made = score_report.ScoreReport(
        scored, compared, dataset, truth, folders, arguments.line, arguments.channel
    )
    files: list[Path] = []
    if arguments.report:
        _, *files = score_report.write_report(arguments.out, made)
    else:
        score_report.write_scores(arguments.out, scored)
        if arguments.out.with_suffix(".html").exists():
            warnings.warn(
                f"{arguments.out.with_suffix('.html')}: found an earlier report, expected one of "
                "these scores. Give --report to make it anew, or delete it.",
                stacklevel=1,
            )
    print("\n".join(map(str, [f"{arguments.out}: {len(scored.table)} rows", *files])))
    written = [str(path) for path in (arguments.out, *files)]
    return Answer(lambda: {"files": written, **score_report.content(made)})


def add_score_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `score`."""
    sub.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="of label maps, named after the cases; NAME=FOLDER names a method. Without --truth: "
        "one folder of label maps, then that of the cases",
    )
    sub.add_argument(
        "--truth",
        type=Path,
        metavar="DIR",
        help="the cases with their annotations, or the annotations alone",
    )
    sub.add_argument(
        "--report",
        action="store_true",
        help="write OUT.html (a self-contained page with a viewer), OUT.json and more CSV beside "
        "the scores",
    )
    sub.add_argument("--out", type=Path, default=Path("scores.csv"), help="(default: scores.csv)")
    add_dataset(sub)
    sub.add_argument(
        "--regions",
        nargs="+",
        default=(),
        metavar="NAME",
        help="such as WT TC ET (default: all of the data set's); of annotations alone with codes: "
        "WT=1,2,4 TC=1,4",
    )
    sub.add_argument(
        "--labels",
        nargs="+",
        default=(),
        metavar="CODE=NAME",
        help="what the codes of annotations alone mean: 1=necrosis,2=edema",
    )
    sub.add_argument(
        "--metrics", nargs="+", default=(), metavar="NAME", help="such as dice,hd95,iou"
    )
    sub.add_argument(
        "--rank-by", nargs="+", default=(), metavar="NAME", help="(default: dice,hd95)"
    )
    sub.add_argument(
        "--groups", type=Path, metavar="CSV", help="with the columns case and group (patient)"
    )
    sub.add_argument(
        "--common", action="store_true", help="leave out cases that a folder does not have"
    )
    sub.add_argument("--channel", default="", metavar="NAME", help="background of the pictures")
    add_workers(sub)
    add_output(sub)
    add_scheduler(sub)


def evaluate(arguments: argparse.Namespace) -> Answer:
    """Score a run on other data sets, beside its own held-out cases, with the drops."""
    from keras_medseg.runs import answers
    from keras_medseg.runs import evaluate as evaluation

    sets = evaluation.parse_sets(arguments.datasets)
    page = evaluation.evaluate(arguments.run, sets, arguments.out, arguments.line)
    print(f"page: {page}")
    return Answer(lambda: answers.of_evaluation(arguments.out, page))


def add_evaluate_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `evaluate`."""
    sub.add_argument("run", help="run folder, or RUN:VARIANT (default: its first variant)")
    sub.add_argument("datasets", nargs="+", metavar="NAME=DIR", help="folder of annotated cases")
    sub.add_argument("--out", type=Path, required=True, help="folder of the tables and the page")
    add_output(sub)


def _check_table(out: Path, report: bool) -> None:
    if report and out.suffix.lower() != ".csv":
        raise ValueError(f"--out: found {out}, expected a name that ends in .csv.")
    if out.is_dir():
        raise ValueError(f"--out: found the folder {out}, expected a file such as s.csv.")


def _warn_of_each(remarks: Sequence[str]) -> None:
    for remark in remarks[:_REMARKS_SHOWN]:
        warnings.warn(remark, stacklevel=1)
    if more := len(remarks[_REMARKS_SHOWN:]):
        warnings.warn(f"found {more} further remarks; --report lists all.", stacklevel=1)


def _scored_folders(named: Sequence[str], truth: Path | None) -> tuple[dict[str, Path], Path]:
    """Name -> folder of label maps, and the folder of the annotations.

    Raises:
        ValueError: no folder of annotations, or two methods of one name.
    """
    listed = list(named)
    if truth is None:
        if len(listed) != 2:
            raise ValueError(
                f"--truth: found none beside {len(listed)} folders, expected the folder of the "
                "annotations. Give it: keras-medseg score A B --truth DIR."
            )
        truth = Path(listed.pop())
    folders: dict[str, Path] = {}
    for text in listed:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = Path(text).resolve().name, text
        if not name or name in folders:
            raise ValueError(
                f"{text}: found {'a second' if name else 'no'} name {name!r}, expected one for "
                "each folder. Give names: NAME=DIR."
            )
        folders[name] = Path(path)
    return folders, truth


def _annotations(arguments: argparse.Namespace, truth: Path) -> tuple["Dataset", list[str]]:
    """The data set of the annotations, and the names of its regions to score, if any are given."""
    from keras_medseg.data import datasets
    from keras_medseg.errors import require_choice

    labels, defined, chosen = _labels_and_regions(arguments.labels, arguments.regions)
    classes = {"classes": parse_classes(arguments.classes)} if arguments.classes else {}
    dataset = datasets.annotations(
        truth, arguments.dataset or "", labels=labels, regions=defined, **classes
    )
    if arguments.channel:
        require_choice("--channel", arguments.channel, dataset.channels)
    return dataset, chosen


def _labels_and_regions(
    labels: Sequence[str], regions: Sequence[str]
) -> tuple[dict[int, str], dict[str, tuple[int, ...]], list[str]]:
    """{1: "core"} of ["1=core"], {"WT": (1, 2)} of ["WT=1,2"], and the regions without codes.

    Raises:
        ValueError: another form, or regions with and without codes.
    """
    names: dict[int, str] = {}
    for text in _split(labels):
        code, _, name = text.partition("=")
        if not code.isdecimal() or not 0 < int(code) < 256 or not name:
            raise ValueError(f"--labels: found {text!r}, expected CODE=NAME, codes from 1 to 255.")
        names[int(code)] = name
    defined: dict[str, tuple[int, ...]] = {}
    for text in (text for text in regions if "=" in text):
        name, _, codes = text.partition("=")
        listed = codes.split(",")
        if not name or not all(code.isdecimal() and 0 < int(code) < 256 for code in listed):
            raise ValueError(
                f"--regions: found {text!r}, expected NAME=CODE,CODE with codes from 1 to 255."
            )
        defined[name] = tuple(map(int, listed))
    chosen = [name for text in regions if "=" not in text for name in _split([text])]
    if defined and chosen:
        raise ValueError(
            f"--regions: found {' '.join(chosen)} beside {' '.join(defined)} with codes, expected "
            "all with codes or none."
        )
    return names, defined, chosen


def _metrics(
    arguments: argparse.Namespace, dataset: "Dataset"
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The metrics to score with, and those to rank by, if any are given."""
    from keras_medseg.errors import require_choice
    from keras_medseg.evaluation.metrics import METRICS
    from keras_medseg.evaluation.score_folder import metric_names

    metrics = metric_names(_split(arguments.metrics), dataset)
    by = _split(arguments.rank_by)
    rank_by = metric_names(by, dataset, "--rank-by") if by else ()
    directed = [name for name in metrics if METRICS[name].better != "neither"]
    for name in rank_by:
        require_choice("--rank-by", name, directed)
    if arguments.report and not directed:
        raise ValueError(
            f"--metrics: found {', '.join(metrics)}, expected one of which larger or smaller "
            "values are better, for a report. Add another metric, such as dice."
        )
    return metrics, rank_by


def _split(words: Sequence[str]) -> list[str]:
    """["dice", "hd95"] of ["dice, hd95"]."""
    return [part.strip() for word in words for part in word.split(",") if part.strip()]
