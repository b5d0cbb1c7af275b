"""Run the experiment of a paper: `python -m experiments PAPER`; `--help` lists the options."""

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_medseg.cli import add_protocol, import_frameworks

if TYPE_CHECKING:
    from keras_medseg.runs.experiment import Experiment

HERE = Path(__file__).parent
PAPERS = sorted(path.parent.name for path in HERE.glob("*/recipe.py"))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 if the run met its expectations, 1 if not or on an error, 130 on Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(argv)
    # Imported after the arguments are parsed, so that --help does not wait for TensorFlow.
    try:
        import_frameworks()
        from keras_medseg import recipe
        from keras_medseg.runs import experiment
    except ImportError as error:
        print(f"{arguments.paper}: {error}", file=sys.stderr)
        return 1
    profile = arguments.profile or ("paper" if arguments.data else "quick")
    profile += "-compare" if arguments.compare else ""
    name = experiment.folder_name(arguments.data) if arguments.data else "phantom"
    parts = (arguments.paper, arguments.dataset, profile, name)
    out = arguments.out or arguments.work / "-".join(filter(None, parts))
    try:
        chosen = experiment.find(arguments.paper, arguments.dataset)
        _check_profile(chosen, profile)
        request = experiment.Request(
            out=out,
            folder=arguments.data,
            profile=profile,
            command=shlex.join(["python", "-m", "experiments", *argv]),
            work=arguments.work,
            changes=recipe.parse_assignments(arguments.set),
            experiment=(arguments.paper, arguments.dataset),
            seeds=arguments.seeds,
            fold=arguments.fold,
            splits=arguments.splits,
        )
        passed = experiment.run(chosen, request)
    except (ValueError, OSError, ImportError) as error:
        print(f"{arguments.paper}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the exit
        print(f"\nStopped. The same command goes on from {out}.", file=sys.stderr)
        return 130
    if not passed:
        print("The run is outside of what its recipe expects; see above.", file=sys.stderr)
    return 0 if passed else 1


def _check_profile(chosen: "Experiment", profile: str) -> None:
    if profile not in chosen.profiles:
        compare = " (--compare adds -compare)" if profile.endswith("-compare") else ""
        known = ", ".join(chosen.profiles)
        raise ValueError(f"profile: found {profile!r}{compare}, expected one of: {known}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description=(__doc__ or "").partition(":")[0] + "."
    )
    parser.add_argument("paper", choices=PAPERS)
    parser.add_argument("--data", type=Path, help="folder of cases (default: synthetic data)")
    parser.add_argument("--dataset", help="which of the paper's data sets (default: its first)")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/PAPER-PROFILE-DATA)")
    parser.add_argument(
        "--profile",
        help="quick, paper or another of the recipe's; default: paper with --data, quick without",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="override the recipe"
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="train the networks that the paper compares itself with, under its recipe",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs"),
        help="where synthetic data and decoded stores are kept (default: runs)",
    )
    add_protocol(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
