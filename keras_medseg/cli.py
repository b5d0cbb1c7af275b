"""The command line. Imports that cost time stand inside the commands: --help stays instant."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from keras_medseg import __version__

REGIONS = ("WT", "TC", "ET")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 1 on a problem that the user can mend, 130 on Ctrl-C."""
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no device chatter
    try:
        return arguments.command(arguments) or 0
    except (ValueError, OSError, ImportError) as error:
        print(f"keras-medseg: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        resumes = arguments.command in (prepare, train, phantom)
        ending = "The same command goes on from here." if resumes else "Nothing is half-written."
        print(f"\nStopped. {ending}", file=sys.stderr)
        return 130


def models(arguments: argparse.Namespace) -> None:
    """List the networks, or describe one."""
    from keras_medseg import registry
    from keras_medseg.reporting import model_table

    if arguments.write:
        model_table.write_table(arguments.write)
    else:
        print(registry.describe(arguments.name) if arguments.name else model_table.table())


def check(arguments: argparse.Namespace) -> int:
    """List all problems of a folder of cases or pictures; exit code 1 where there are any."""
    from keras_medseg.progress import bar
    from keras_medseg.runs import steps
    from keras_medseg.tasks import images

    kind = steps.family_of(arguments.data)
    options = {"classes": _classes(arguments.classes)} if arguments.classes else {}
    if options and kind is not images:
        raise ValueError(f"--classes: found volumes in {arguments.data}, expected pictures.")
    with bar("checking") as progress:
        report = kind.check(arguments.data, progress=progress, **options)
    print(report.text)
    return 0 if report.ok else 1


def _classes(assignments: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """{"bone": (51, 102)} of ["bone=51,102"]."""
    classes = {}
    for assignment in assignments:
        name, _, codes = assignment.partition("=")
        try:
            classes[name] = tuple(int(code) for code in codes.split(","))
        except ValueError as error:
            expected = "NAME=CODE,CODE with grey values"
            raise ValueError(f"--classes: found {assignment!r}, expected {expected}.") from error
    return classes


def prepare(arguments: argparse.Namespace) -> None:
    """Decode a folder of cases or pictures once into a verified store."""
    from keras_medseg.data import store
    from keras_medseg.progress import bar
    from keras_medseg.runs import steps

    kind = steps.family_of(arguments.data)
    cases = kind.find_cases(arguments.data, labelled=not arguments.unlabelled)
    with bar("decoding cases") as progress:
        made = store.prepare(
            cases, kind.read_case, arguments.store, workers=arguments.workers, progress=progress
        )
    print(f"{arguments.store}: {len(made.cases)} cases, fingerprint {made.fingerprint[:12]}")


def phantom(arguments: argparse.Namespace) -> None:
    """Write a synthetic data set in a real layout."""
    from keras_medseg.phantoms import brats as phantom
    from keras_medseg.progress import bar

    with bar("synthetic cases") as progress:
        phantom.write_brats(
            arguments.folder,
            cases=arguments.cases,
            seed=arguments.seed,
            layout=arguments.layout,
            shape=tuple(arguments.shape),
            progress=progress,
        )
    print(f"{arguments.folder}: {arguments.cases} synthetic cases, layout {arguments.layout}")


def train(arguments: argparse.Namespace) -> None:
    """Train the networks of a recipe on your data, predict and score held-out cases."""
    from keras_medseg import recipe
    from keras_medseg.files import locked
    from keras_medseg.runs import run_folder, steps

    run = recipe.override(run_folder.read_recipe(arguments.recipe), arguments.set)
    data = steps.load_data(arguments.data, arguments.store or arguments.out / "store", run)
    run = steps.settle(run, data)
    steps.check_recipe(run, data.channels)
    steps.check_batches(run, data)
    with locked(arguments.out, "writes into this run folder"):
        steps.claim(arguments.out, run, data, {"main": run})
        steps.train_variant("main", run, data, arguments.out)
        steps.gather_logs(arguments.out)
        steps.score_variant("main", run, data, arguments.out)


def predict(arguments: argparse.Namespace) -> None:
    """Write label maps (NIfTI) for a folder of cases with a run's networks."""
    from keras_medseg.runs import steps

    print(steps.predict_folder(arguments.run, arguments.data, arguments.out, arguments.variant))


def score(arguments: argparse.Namespace) -> None:
    """Score a folder of predicted label maps against the cases' segmentations."""
    from keras_medseg.files import write_atomic
    from keras_medseg.runs import steps

    table = steps.score_folder(arguments.predictions, arguments.data, arguments.regions)
    write_atomic(arguments.out, table.to_csv(index=False).encode())
    print(f"{arguments.out}: {len(table)} rows")


def export(arguments: argparse.Namespace) -> None:
    """Export a trained network (model.keras) for use without this package."""
    from keras_medseg.inference import export

    print(export.export(arguments.model, arguments.out, arguments.format))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-medseg",
        description="Papers on medical image segmentation, reproduced. "
        "The experiments themselves: python -m experiments --help.",
    )
    parser.add_argument("--version", action="version", version=f"keras-medseg {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: Callable[[argparse.Namespace], int | None]) -> argparse.ArgumentParser:
        words = command.__doc__
        summary = words[0].lower() + words[1:-1]
        sub = commands.add_parser(command.__name__, help=summary, description=words)
        sub.set_defaults(command=command)
        return sub

    sub = add(models)
    sub.add_argument("name", nargs="?")
    sub.add_argument("--write", type=Path, metavar="PAGE", help="put the list into a Markdown page")

    sub = add(check)
    sub.add_argument("data", type=Path)
    sub.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME=CODE,CODE",
        help="grey values of each class in masks of several; those that do not matter: "
        "background=51,102",
    )

    sub = add(prepare)
    sub.add_argument("data", type=Path)
    sub.add_argument("store", type=Path)
    sub.add_argument("--workers", type=int, help="processes (default: one per core)")
    sub.add_argument("--unlabelled", action="store_true", help="cases have no segmentation")

    sub = add(train)
    sub.add_argument("data", type=Path)
    sub.add_argument("--recipe", type=Path, required=True, help="recipe.json of any run")
    sub.add_argument("--out", type=Path, required=True, help="run folder; a started run goes on")
    sub.add_argument("--store", type=Path, help="decoded cases (default: OUT/store)")
    sub.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")

    sub = add(predict)
    sub.add_argument("run", type=Path)
    sub.add_argument("data", type=Path)
    sub.add_argument("out", type=Path)
    sub.add_argument("--variant", help="which of the run's variants (default: the first)")

    sub = add(score)
    sub.add_argument("predictions", type=Path)
    sub.add_argument("data", type=Path)
    sub.add_argument("--out", type=Path, default=Path("scores.csv"))
    sub.add_argument("--regions", nargs="+", default=REGIONS, choices=REGIONS)

    sub = add(export)
    sub.add_argument("model", type=Path)
    sub.add_argument("out", type=Path)
    sub.add_argument("--format", choices=("savedmodel", "onnx"), default="savedmodel")

    sub = add(phantom)
    sub.add_argument("folder", type=Path)
    sub.add_argument("--cases", type=int, default=8)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--layout", default="BraTS2021")
    sub.add_argument("--shape", type=int, nargs=3, default=(240, 240, 155), metavar=("X", "Y", "Z"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
