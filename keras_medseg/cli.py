"""The command line. Slow imports stand inside the commands, so that --help is instant."""

import argparse
import os
import re
import select
import shlex
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_medseg import __version__

if TYPE_CHECKING:
    from keras_medseg.data.datasets.base import Dataset
    from keras_medseg.recipe import Recipe
    from keras_medseg.training.events import Listener

_REMARKS_SHOWN = 12
_PREDICT_OPTIONS = "flips", "threshold", "overlap", "probabilities", "uncertainty", "precision"
_BEFORE_LOGGING = re.compile(r"WARNING: All log messages before absl|I0000 ")


class Answer(NamedTuple):
    """What a command has to say to programs.

    Attributes:
        facts: gives what --json prints; called for --json alone.
        code: the exit code.
    """

    facts: Callable[[], Mapping[str, Any]]
    code: int = 0


def main(argv: Sequence[str] | None = None, *, line: str = "") -> int:
    """Run one command. Exit code: 0 on success, 1 on an error that the user can fix, 130 on Ctrl-C.

    Args:
        argv: the arguments; by default those of the process.
        line: the command as the user gave it, for the provenance; by default keras-medseg ARGV.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(argv)
    arguments.line = line or shlex.join(["keras-medseg", *argv])
    usual, warnings.formatwarning = warnings.formatwarning, _one_line
    try:
        if arguments.command in _NETWORK_COMMANDS:
            import_frameworks()
        with _messages(arguments):
            answer = arguments.command(arguments)
        return _told(arguments, answer)
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 1
        print(f"keras-medseg: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the exit
        resumes = arguments.command in (prepare, reproduce, train, predict, evaluate, phantom)
        ending = "The same command goes on from here." if resumes else "Nothing is half-written."
        print(f"\nStopped. {ending}", file=sys.stderr)
        return 130
    finally:
        warnings.formatwarning = usual


def _nobody_reads() -> bool:
    """Whether stdout is a pipe whose reader has ended, such as `| head`; then it is closed."""
    if not hasattr(select, "poll"):
        return False
    state = select.poll()
    state.register(1, 0)
    gone = any(events & select.POLLERR for _, events in state.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return gone


def import_frameworks() -> None:
    """Import Keras, without what TensorFlow prints about devices before it reads its log level.

    A wrong version is named in one line, where the imports would say it in many. With
    another TF_CPP_MIN_LOG_LEVEL than 3, everything is printed.

    Raises:
        ImportError: a package is missing or too old.
    """
    from keras_medseg import registry

    registry.check_versions()
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "3":
        return
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            import keras  # noqa: F401
        finally:
            os.dup2(shown, 2)
            os.close(shown)
            caught.seek(0)
            lines = caught.read().decode(errors="replace").splitlines(keepends=True)
            sys.stderr.writelines(line for line in lines if not _BEFORE_LOGGING.match(line))


@contextmanager
def _messages(arguments: argparse.Namespace) -> Iterator[None]:
    """What a command prints: on stdout, with --json on stderr, with --quiet nowhere."""
    if getattr(arguments, "quiet", False):
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield
    elif getattr(arguments, "json", False):
        with redirect_stdout(sys.stderr):
            yield
    else:
        yield


def _told(arguments: argparse.Namespace, answer: Answer | int | None) -> int:
    """Print the answer of a command if --json asks for it; its exit code."""
    if not isinstance(answer, Answer):
        return answer or 0
    if arguments.json:
        import json

        print(json.dumps(answer.facts(), indent=1, allow_nan=False))
    return answer.code


def add_output(sub: argparse.ArgumentParser) -> None:
    """Add --json, of commands that return an Answer, and --quiet."""
    sub.add_argument(
        "--json", action="store_true", help="print the result as JSON, and messages on stderr"
    )
    sub.add_argument(
        "--quiet", action="store_true", help="print no messages but warnings and errors"
    )


def add_tracking(sub: argparse.ArgumentParser) -> None:
    """Add --tracking, of commands that train; see `_listeners`."""
    sub.add_argument(
        "--tracking",
        action="append",
        default=[],
        choices=("mlflow", "wandb"),
        help="also report parameters, epochs, scores and files to this tracker",
    )


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning as a user reads it, without the module that gave it and its source."""
    return f"keras-medseg: warning: {message}\n"


def models(arguments: argparse.Namespace) -> None:
    """List the networks, or describe one."""
    from keras_medseg import registry
    from keras_medseg.reporting import model_table

    if arguments.write:
        model_table.write_table(arguments.write)
    else:
        print(registry.describe(arguments.name) if arguments.name else model_table.table())


def check(arguments: argparse.Namespace) -> Answer:
    """List all problems of a folder of cases; exit code 1 if there are any."""
    from keras_medseg.progress import progress_bar

    dataset = _dataset(arguments)
    with progress_bar("checking") as progress:
        report = dataset.check(arguments.data, progress=progress)
    print(report.text)
    problems = [
        {"severity": problem.severity, "case": problem.case_id, "message": problem.message}
        for problem in report.problems
    ]
    cases = [case.id for case in report.cases]
    facts = {"folder": str(report.folder), "cases": cases, "ok": report.ok, "problems": problems}
    return Answer(lambda: facts, 0 if report.ok else 1)


def prepare(arguments: argparse.Namespace) -> Answer:
    """Decode a folder of cases once into a verified store."""
    from keras_medseg import cluster
    from keras_medseg.data import store
    from keras_medseg.progress import progress_bar

    if arguments.store.resolve() == arguments.data.resolve():
        raise ValueError(
            f"{arguments.store}: found the folder of the cases, expected one of its own for the "
            "store. Choose another one."
        )
    dataset = _dataset(arguments)
    cases = dataset.find(arguments.data, labelled=not arguments.unlabelled).cases
    if arguments.estimate:
        told = store.estimate(cases, dataset.read)
        print(f"{arguments.store}: {told}")
        return Answer(lambda: {"store": str(arguments.store), **asdict(told)})
    with (
        cluster.connected(arguments.scheduler) as tasks,
        progress_bar("decoding cases") as progress,
    ):
        made = store.prepare(
            cases,
            dataset.read,
            arguments.store,
            workers=tasks or arguments.workers,
            progress=progress,
        )
    print(f"{arguments.store}: {len(made.cases)} cases, fingerprint {made.fingerprint[:12]}")
    facts = {"store": str(arguments.store), "cases": list(made.cases)}
    return Answer(lambda: {**facts, "fingerprint": made.fingerprint})


def phantom(arguments: argparse.Namespace) -> None:
    """Write a synthetic data set in a real layout."""
    from keras_medseg import phantoms
    from keras_medseg.progress import progress_bar

    with progress_bar("synthetic cases") as progress:
        phantoms.write(
            arguments.folder,
            layout=arguments.layout,
            cases=arguments.cases,
            seed=arguments.seed,
            size=arguments.size and tuple(arguments.size),
            progress=progress,
        )
    print(f"{arguments.folder}: {arguments.cases} synthetic cases, layout {arguments.layout}")


def recipes(arguments: argparse.Namespace) -> None:
    """List the papers whose recipes are here, or print one with what its ledger says."""
    from keras_medseg.runs import papers

    if not arguments.name:
        if arguments.out:
            raise ValueError("--out: found no paper, expected the one whose recipe is written.")
        print(papers.listing())
        return
    import_frameworks()
    if arguments.out:
        from keras_medseg import recipe
        from keras_medseg.files import write_atomic

        chosen = papers.named(arguments.name).recipe
        write_atomic(arguments.out, recipe.to_json(chosen).encode())
        print(arguments.out)
    else:
        print(papers.describe(arguments.name))


def reproduce(arguments: argparse.Namespace) -> Answer:
    """Run a paper's experiment and print its tables, measured beside published numbers."""
    from keras_medseg import recipe
    from keras_medseg.runs import answers, experiment, papers
    from keras_medseg.training import hosts

    if arguments.coordinator and (code := hosts.supervise()) is not None:
        return Answer(dict, code)
    profile = arguments.profile or ("paper" if arguments.data else "quick")
    profile += "-compare" if arguments.compare else ""
    name = experiment.folder_name(arguments.data) if arguments.data else "phantom"
    parts = (arguments.paper, arguments.dataset, profile, name)
    chosen = papers.find(arguments.paper, arguments.dataset)
    if profile not in chosen.profiles:
        compare = " (--compare adds -compare)" if profile.endswith("-compare") else ""
        known = ", ".join(chosen.profiles)
        raise ValueError(f"--profile: found {profile!r}{compare}, expected one of: {known}.")
    out = arguments.out or arguments.work / "-".join(filter(None, parts))
    request = experiment.Request(
        out=out,
        folder=arguments.data,
        profile=profile,
        command=arguments.line,
        work=arguments.work,
        changes=recipe.parse_assignments(arguments.set),
        experiment=(arguments.paper, arguments.dataset),
        seeds=arguments.seeds,
        fold=arguments.fold,
        splits=arguments.splits,
        listeners=_listeners(arguments.tracking, out),
        **_where(arguments),
    )
    passed = experiment.run(chosen, request)
    if not passed:
        print("The run is outside of what its recipe expects; see above.", file=sys.stderr)
    return Answer(lambda: answers.of_run(out), 0 if passed else 1)


def train(arguments: argparse.Namespace) -> Answer:
    """Train the networks of a recipe on your data, score held-out cases, write a report."""
    from keras_medseg import recipe
    from keras_medseg.runs import answers, experiment
    from keras_medseg.training import hosts

    if arguments.coordinator and (code := hosts.supervise()) is not None:
        return Answer(dict, code)
    request = experiment.Request(
        out=arguments.out,
        folder=arguments.data,
        profile="train",
        command=arguments.line,
        store=arguments.store or arguments.out / "store",
        changes={
            **recipe.parse_assignments(arguments.set),
            **({"train.init": arguments.init} if arguments.init else {}),
        },
        seeds=arguments.seeds,
        fold=arguments.fold,
        splits=arguments.splits,
        listeners=_listeners(arguments.tracking, arguments.out),
        **_where(arguments),
    )
    experiment.run(experiment.of_recipe(_recipe(arguments.recipe)), request)
    return Answer(lambda: answers.of_run(arguments.out))


def _where(arguments: argparse.Namespace) -> dict[str, Any]:
    """Where the trainings of a run are done, as `experiment.Request` has it."""
    from keras_medseg.training import hosts

    return {
        "devices": arguments.devices,
        "scheduler": arguments.scheduler,
        "hosts": hosts.of_arguments(arguments.coordinator, arguments.processes, arguments.process),
        "local_store": arguments.local_store,
    }


def _listeners(trackers: Sequence[str], out: Path) -> list["Listener"]:
    """Those of --tracking, for a run in this folder."""
    from keras_medseg.runs.tracking import tracker

    return [tracker(name, out) for name in dict.fromkeys(trackers)]


def predict(arguments: argparse.Namespace) -> Answer:
    """Write label maps (NIfTI or PNG) for a folder of cases with the networks of runs."""
    from keras_medseg import cluster
    from keras_medseg.runs import answers, installed
    from keras_medseg.runs.members import members
    from keras_medseg.runs.predict_folder import WHOLE, Options, Part, predict_with

    options = {
        name: getattr(arguments, name)
        for name in _PREDICT_OPTIONS
        if getattr(arguments, name) is not None
    }
    with cluster.connected(arguments.scheduler) as tasks:
        told = predict_with(
            members([*map(installed.checked, arguments.run)], arguments.variant),
            arguments.data,
            arguments.out,
            Options(**options),
            part=Part.parse(arguments.part) if arguments.part else WHOLE,
            overwrite=arguments.overwrite,
            cluster=tasks,
        )
    print(told)
    return Answer(lambda: answers.of_predictions(arguments.out))


def evaluate(arguments: argparse.Namespace) -> Answer:
    """Score a run on other data sets, beside its own held-out cases, with the drops."""
    from keras_medseg.runs import answers
    from keras_medseg.runs import evaluate as evaluation

    sets = evaluation.parse_sets(arguments.datasets)
    page = evaluation.evaluate(arguments.run, sets, arguments.out, arguments.line)
    print(f"page: {page}")
    return Answer(lambda: answers.of_evaluation(arguments.out, page))


def score(arguments: argparse.Namespace) -> Answer:
    """Score folders of label maps, of any program, against the cases' annotations."""
    from keras_medseg import cluster
    from keras_medseg.data.checks import plural
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


def report(arguments: argparse.Namespace) -> None:
    """Rebuild the tables, figures and report of a finished run."""
    from keras_medseg.runs.experiment import remake_report

    print(f"report: {remake_report(arguments.run)}")


def export(arguments: argparse.Namespace) -> None:
    """Export a run or weights as one graph of scans, or one network (model.keras) alone."""
    source = Path(arguments.source)
    if source.suffix == ".keras":
        from keras_medseg.inference import export

        if arguments.cases:
            raise ValueError(
                "--cases: found one beside a network alone, expected a run or weights."
            )
        print(export.export(source, arguments.out, arguments.format))
        return
    from keras_medseg.runs.scan_export import export_scans

    exported = export_scans(arguments.source, arguments.out, arguments.format, arguments.cases)
    print("\n".join(exported))


def _recipe(text: str) -> "Recipe":
    """The recipe in a file, or that of PAPER or PAPER:DATASET.

    Raises:
        ValueError: neither a file nor a paper, or a file without a recipe.
    """
    from keras_medseg.runs import papers
    from keras_medseg.runs.run_folder import read_recipe

    path = Path(text)
    if not path.exists() and "/" not in text and path.suffix != ".json":
        return papers.named(text).recipe
    return read_recipe(path)


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
    classes = {"classes": _classes(arguments.classes)} if arguments.classes else {}
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


def pack(arguments: argparse.Namespace) -> None:
    """Write the networks of a run into one archive, with recipe, scores, card and checksums."""
    from keras_medseg.files import read_file
    from keras_medseg.runs import packing
    from keras_medseg.runs.run_folder import RunFolder

    card = read_file(arguments.card, str, "Name a text file.") if arguments.card else ""
    print(
        packing.pack(
            RunFolder(arguments.run),
            arguments.file,
            variant=arguments.variant,
            name=arguments.name,
            license=arguments.license,
            card=card,
        )
    )


def install(arguments: argparse.Namespace) -> None:
    """Install an archive of weights under its name, after all checks, or list what is there."""
    from keras_medseg.runs import installed

    if arguments.list:
        print(installed.listing())
    elif not arguments.source:
        raise ValueError("install: found no source, expected an archive, a folder, or --list.")
    else:
        print(
            installed.install(arguments.source, sha256=arguments.sha256, replace=arguments.replace)
        )


def doctor(arguments: argparse.Namespace) -> Answer:
    """Say what this machine has for a run and what is missing; exit code 1 if something is."""
    with suppress(ImportError):  # which the examination tells in its place
        import_frameworks()
    from keras_medseg.runs import doctor as examination

    facts = examination.examine()
    print(examination.text(facts))
    return Answer(lambda: facts, 1 if facts["missing"] else 0)


def completion(arguments: argparse.Namespace) -> None:
    """Print what completes commands, options, files and names in a shell."""
    import shtab

    from keras_medseg import phantoms, registry
    from keras_medseg.data import datasets

    names = {
        ("models", "name"): registry.list_models(),
        ("phantom", "layout"): phantoms.layouts(),
        ("check", "dataset"): datasets.names(),
        ("prepare", "dataset"): datasets.names(),
        ("score", "dataset"): datasets.names(),
    }
    parser = _parser()
    [commands] = [part for part in parser._actions if isinstance(part.choices, Mapping)]
    for command, sub in dict(commands.choices or {}).items():
        for action in sub._actions:
            action.choices = action.choices or names.get((command, action.dest))
            if action.type is Path or (command, action.dest) in _ALSO_FILES:
                action.complete = shtab.FILE
    print(shtab.complete(parser, arguments.shell))


_ALSO_FILES = {
    ("predict", "run"),
    ("evaluate", "run"),
    ("score", "folders"),
    ("install", "source"),
    ("train", "init"),
}
"""Arguments that may be a path or something else."""


def _dataset(arguments: argparse.Namespace) -> "Dataset":
    """The data set named by --dataset, otherwise the kind recognized in the folder."""
    from keras_medseg.data import datasets

    options: dict[str, Any] = {}
    if arguments.classes:
        options["classes"] = _classes(arguments.classes)
    if getattr(arguments, "spacing", None):
        options["spacing_mm"] = tuple(arguments.spacing)
    return datasets.of_folder(arguments.data, arguments.dataset or "", **options)


def _classes(assignments: Sequence[str]) -> dict[str, tuple[int | str, ...]]:
    """{"bone": (51, 102)} of ["bone=51,102"]; codes may be colors such as #ff0000."""
    classes: dict[str, tuple[int | str, ...]] = {}
    for assignment in assignments:
        name, _, codes = assignment.partition("=")
        try:
            listed = codes.split(",")
            classes[name] = tuple(code if code[:1] == "#" else int(code) for code in listed)
        except ValueError as error:
            expected = "NAME=CODE,CODE with gray values or colors"
            raise ValueError(f"--classes: found {assignment!r}, expected {expected}.") from error
    return classes


def _at_least_one(text: str) -> int:
    """A number of processes."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-medseg",
        description="Papers on medical image segmentation, reproduced.",
    )
    parser.add_argument("--version", action="version", version=f"keras-medseg {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sub = _add(commands, models)
    sub.add_argument("name", nargs="?")
    sub.add_argument("--write", type=Path, metavar="PAGE", help="put the list into a Markdown page")
    _add_papers(commands)
    _add_data_commands(commands)
    _add_run_commands(commands)
    add_output(_add(commands, doctor))
    sub = _add(commands, completion)
    sub.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return parser


def _add_papers(commands: argparse._SubParsersAction) -> None:
    from keras_medseg.runs import papers

    sub = _add(commands, recipes)
    sub.add_argument("name", nargs="?", metavar="PAPER[:DATASET]")
    sub.add_argument("--out", type=Path, metavar="FILE", help="write it as a recipe.json to edit")
    sub = _add(commands, reproduce)
    sub.add_argument("paper", choices=papers.names())
    sub.add_argument("--data", type=Path, help="folder of cases (default: synthetic data)")
    sub.add_argument("--dataset", help="which of the paper's data sets (default: its first)")
    sub.add_argument("--out", type=Path, help="run folder (default: runs/PAPER-PROFILE-DATA)")
    sub.add_argument(
        "--profile",
        help="quick, paper or another of the recipe's; default: paper with --data, quick without",
    )
    sub.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="override the recipe"
    )
    sub.add_argument(
        "--compare",
        action="store_true",
        help="train the networks that the paper compares itself with, under its recipe",
    )
    sub.add_argument(
        "--work",
        type=Path,
        default=Path("runs"),
        help="where synthetic data and decoded stores are kept (default: runs)",
    )
    _add_protocol(sub)
    add_tracking(sub)
    add_output(sub)


def _add(
    commands: argparse._SubParsersAction,
    command: Callable[[argparse.Namespace], Answer | int | None],
) -> argparse.ArgumentParser:
    words = command.__doc__ or ""
    sub = commands.add_parser(
        command.__name__, help=words[0].lower() + words[1:-1], description=words
    )
    sub.set_defaults(command=command)
    return sub


def _add_dataset(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--dataset",
        metavar="NAME",
        help="kind of data, such as brats, image_folders or volume_folders, or a release such as "
        "BraTS2024-GLI (default: as the folder is recognized)",
    )
    sub.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME=CODE,CODE",
        help="gray values of each class in masks of several, or colors (#ff0000); those that do "
        "not matter: background=51,102 (default: as classes.json in the folder says)",
    )


def _add_data_commands(commands: argparse._SubParsersAction) -> None:
    sub = _add(commands, check)
    sub.add_argument("data", type=Path)
    _add_dataset(sub)
    add_output(sub)
    sub = _add(commands, prepare)
    sub.add_argument("data", type=Path)
    sub.add_argument("store", type=Path)
    _add_dataset(sub)
    sub.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar="MM",
        help="voxel size X Y Z to which volumes are resampled (default: as they lie)",
    )
    sub.add_argument("--workers", type=_at_least_one, help="processes (default: one per core)")
    sub.add_argument("--unlabelled", action="store_true", help="cases have no annotation")
    add_output(sub)
    sub.add_argument(
        "--estimate", action="store_true", help="say how large the store will be; write nothing"
    )
    _add_scheduler(sub)
    sub = _add(commands, phantom)
    sub.add_argument("folder", type=Path)
    sub.add_argument("--cases", type=int, default=8)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument(
        "--layout",
        default="BraTS2021",
        metavar="NAME",
        help="BraTS2017 to BraTS2025-MET, Decathlon, nnUNet, cases.csv, CVC-ClinicDB, ISIC2018, "
        "knee and others; an unknown name lists all (default: BraTS2021)",
    )
    sub.add_argument(
        "--size",
        "--shape",
        type=int,
        nargs="+",
        metavar="N",
        help="voxels X Y Z, or pixels ROWS COLUMNS (default: that of the real data)",
    )


def _add_scheduler(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--scheduler",
        metavar="ADDRESS|local:N",
        help="of a Dask cluster (tcp://host:8786), each of whose tasks is one case or training; "
        "local:N: N processes of this machine",
    )


def _add_protocol(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="trainings of each network, each with its own seed (default: 1; 3 in the profile "
        "paper of reproduce)",
    )
    sub.add_argument(
        "--fold",
        default="all",
        metavar="K|all",
        help="train one fold of data.folds or of --splits (default: all, one after the other)",
    )
    sub.add_argument(
        "--splits", type=Path, metavar="FILE", help="splits_final.json of a run or of nnU-Net"
    )
    add_devices(sub)
    sub.add_argument(
        "--local-store",
        type=Path,
        metavar="DIR",
        help="copy the decoded cases into this folder of a local disk, and read them from there",
    )
    _add_scheduler(sub)


def add_devices(sub: argparse.ArgumentParser) -> None:
    """Add the options of a training on several devices."""
    sub.add_argument(
        "--devices",
        default="1",
        metavar="N|all",
        help="GPUs that share every batch of a training, or without a GPU parts of the processor; "
        "no number changes beyond rounding (default: 1)",
    )
    sub.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="of process 0 of several that train together, with KERAS_BACKEND=jax; all are given "
        "the same command but for --process",
    )
    sub.add_argument("--processes", type=int, metavar="N", help="their number")
    sub.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")


def _add_score(commands: argparse._SubParsersAction) -> None:
    sub = _add(commands, score)
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
    _add_dataset(sub)
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
    sub.add_argument("--workers", type=_at_least_one, help="processes (default: one per core)")
    add_output(sub)
    _add_scheduler(sub)


def _add_run_commands(commands: argparse._SubParsersAction) -> None:
    sub = _add(commands, train)
    sub.add_argument("data", type=Path)
    sub.add_argument(
        "--recipe", required=True, metavar="FILE|PAPER", help="recipe.json of any run, or a paper"
    )
    sub.add_argument("--out", type=Path, required=True, help="run folder; a started run goes on")
    sub.add_argument("--store", type=Path, help="decoded cases (default: OUT/store)")
    sub.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    sub.add_argument(
        "--init",
        metavar="WEIGHTS",
        help="start from these: installed weights by name, an archive, or a run folder "
        "(as --set train.init=WEIGHTS)",
    )
    add_tracking(sub)
    _add_protocol(sub)
    add_output(sub)
    _add_predict(commands)
    sub = _add(commands, evaluate)
    sub.add_argument("run", help="run folder, or RUN:VARIANT (default: its first variant)")
    sub.add_argument("datasets", nargs="+", metavar="NAME=DIR", help="folder of annotated cases")
    sub.add_argument("--out", type=Path, required=True, help="folder of the tables and the page")
    add_output(sub)
    _add_score(commands)
    sub = _add(commands, report)
    sub.add_argument("run", type=Path)
    sub = _add(commands, export)
    sub.add_argument(
        "source",
        metavar="RUN",
        help="run folder, RUN:VARIANT, archive or name of weights; or model.keras of one network",
    )
    sub.add_argument("out", type=Path, help="a new folder; of one network the folder or .onnx file")
    sub.add_argument("--format", choices=("savedmodel", "onnx"), default="savedmodel")
    sub.add_argument("--cases", type=Path, metavar="DIR", help="compare on these cases, too")
    _add_weights(commands)


def _add_weights(commands: argparse._SubParsersAction) -> None:
    sub = _add(commands, pack)
    sub.add_argument("run", type=Path, help="folder of a finished run")
    sub.add_argument("file", type=Path, help="the archive, such as weights.zip")
    sub.add_argument("--variant", help="which of the run's variants (default: the first)")
    sub.add_argument("--name", metavar="PAPER/DATA", help="by which the weights are loaded")
    sub.add_argument(
        "--license", "--licence", default="", metavar="TEXT", help="of the weights: CC-BY-4.0, ..."
    )
    sub.add_argument("--card", type=Path, metavar="FILE", help="Markdown to add to the card")
    sub = _add(commands, install)
    sub.add_argument("source", nargs="?", metavar="FILE|DIR|URL")
    sub.add_argument("--sha256", default="", metavar="HEX", help="of the archive; needed for URL")
    sub.add_argument("--replace", action="store_true", help="replace other weights of this name")
    sub.add_argument("--list", action="store_true", help="list the weights that are there")


def _add_predict(commands: argparse._SubParsersAction) -> None:
    sub = _add(commands, predict)
    sub.add_argument(
        "run",
        nargs="+",
        help="run folder, or RUN:VARIANT; the probabilities of several are averaged",
    )
    sub.add_argument("data", type=Path, help="folder of the cases")
    sub.add_argument("out", type=Path, help="folder of the label maps")
    sub.add_argument("--variant", help="which of a run's variants (default: the first)")
    sub.add_argument(
        "--flips",
        metavar="AXES",
        help="average over inputs mirrored along all sets of these axes: x, xy, xyz, ... (images: "
        "x are rows, y columns; default: as the recipe says)",
    )
    sub.add_argument(
        "--threshold", type=float, metavar="P", help="belongs to a region above it (default: 0.5)"
    )
    sub.add_argument(
        "--overlap", type=float, metavar="SHARE", help="of the sliding window (default: recipe)"
    )
    sub.add_argument(
        "--probabilities", action="store_true", help="write them to OUT/probabilities/REGION/"
    )
    sub.add_argument(
        "--uncertainty",
        action="store_true",
        help="write OUT/entropy/REGION/ and, of several runs, OUT/disagreement/REGION/",
    )
    sub.add_argument(
        "--precision",
        metavar="POLICY",
        help="mixed_bfloat16 or mixed_float16 is faster where the processor has it (default: as "
        "trained)",
    )
    sub.add_argument(
        "--part", metavar="K/N", help="the K-th of N parts of the cases, for jobs side by side"
    )
    sub.add_argument("--overwrite", action="store_true", help="predict again what is there")
    add_output(sub)
    _add_scheduler(sub)


# Commands that need Keras, whose version is checked first.
_NETWORK_COMMANDS = (models, reproduce, train, predict, evaluate, report, export, pack, install)


if __name__ == "__main__":
    sys.exit(main())
