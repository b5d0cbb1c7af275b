"""Commands about runs: reproduce and train make them, report makes their report anew."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_medseg.cli.arguments import add_scheduler
from keras_medseg.cli.output import Answer, add_output

if TYPE_CHECKING:
    from keras_medseg.recipe import Recipe
    from keras_medseg.training.events import Listener


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
        work=arguments.work,
        changes=recipe.parse_assignments(arguments.set),
        experiment=(arguments.paper, arguments.dataset),
        **_of_both(arguments, out),
    )
    passed = experiment.run(chosen, request)
    if not passed:
        print("The run is outside of what its recipe expects; see above.", file=sys.stderr)
    return Answer(lambda: answers.of_run(out), 0 if passed else 1)


def add_reproduce_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `reproduce`."""
    from keras_medseg.runs import papers

    sub.add_argument("paper", choices=papers.names())
    sub.add_argument("--data", type=Path, help="folder of cases (default: synthetic data)")
    sub.add_argument("--dataset", help="which of the paper's data sets (default: its first)")
    sub.add_argument("--out", type=Path, help="run folder (default: runs/PAPER-PROFILE-DATA)")
    sub.add_argument(
        "--profile",
        help="quick, paper or another of the recipe's; default: paper with --data, quick without",
    )
    _add_set(sub, "override the recipe")
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
    _add_tracking(sub)
    add_output(sub)


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
        store=arguments.store or arguments.out / "store",
        changes={
            **recipe.parse_assignments(arguments.set),
            **({"train.init": arguments.init} if arguments.init else {}),
        },
        **_of_both(arguments, arguments.out),
    )
    experiment.run(experiment.of_recipe(_recipe(arguments.recipe)), request)
    return Answer(lambda: answers.of_run(arguments.out))


def add_train_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `train`."""
    sub.add_argument("data", type=Path)
    sub.add_argument(
        "--recipe", required=True, metavar="FILE|PAPER", help="recipe.json of any run, or a paper"
    )
    sub.add_argument("--out", type=Path, required=True, help="run folder; a started run goes on")
    sub.add_argument("--store", type=Path, help="decoded cases (default: OUT/store)")
    _add_set(sub)
    sub.add_argument(
        "--init",
        metavar="WEIGHTS",
        help="start from these: installed weights by name, an archive, or a run folder "
        "(as --set train.init=WEIGHTS)",
    )
    _add_tracking(sub)
    _add_protocol(sub)
    add_output(sub)


def report(arguments: argparse.Namespace) -> None:
    """Rebuild the tables, figures and report of a finished run."""
    from keras_medseg.runs.experiment import remake_report

    print(f"report: {remake_report(arguments.run)}")


def add_report_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `report`."""
    sub.add_argument("run", type=Path)


def _of_both(arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Fields of `experiment.Request` that `reproduce` and `train` fill from the same arguments."""
    from keras_medseg.training import hosts

    return {
        "command": arguments.line,
        "seeds": arguments.seeds,
        "fold": arguments.fold,
        "splits": arguments.splits,
        "listeners": _listeners(arguments.tracking, out),
        "devices": arguments.devices,
        "scheduler": arguments.scheduler,
        "hosts": hosts.of_arguments(arguments.coordinator, arguments.processes, arguments.process),
        "local_store": arguments.local_store,
    }


def _listeners(trackers: Sequence[str], out: Path) -> list["Listener"]:
    """Those of --tracking, for a run in this folder."""
    from keras_medseg.runs.tracking import tracker

    return [tracker(name, out) for name in dict.fromkeys(trackers)]


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


def _add_set(sub: argparse.ArgumentParser, help: str | None = None) -> None:
    sub.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=help)


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
    _add_devices(sub)
    sub.add_argument(
        "--local-store",
        type=Path,
        metavar="DIR",
        help="copy the decoded cases into this folder of a local disk, and read them from there",
    )
    add_scheduler(sub)


def _add_devices(sub: argparse.ArgumentParser) -> None:
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


def _add_tracking(sub: argparse.ArgumentParser) -> None:
    """Add --tracking, of commands that train; see `_listeners`."""
    sub.add_argument(
        "--tracking",
        action="append",
        default=[],
        choices=("mlflow", "wandb"),
        help="also report parameters, epochs, scores and files to this tracker",
    )
