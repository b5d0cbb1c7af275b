"""python -m experiments PAPER [--data DIR] [--out DIR] [--profile quick|paper] [--set a.b=value]"""

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
PAPERS = sorted(path.parent.name for path in HERE.glob("*/recipe.py"))


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the run met its expectations, 1 when not or on a mistake, 130 on Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no device chatter
    # After the arguments: --help must not wait for TensorFlow.
    from experiments import experiment

    chosen = importlib.import_module(f"experiments.{arguments.paper}.recipe").EXPERIMENT
    profile = arguments.profile or ("paper" if arguments.data else "quick")
    name = experiment.store_name(arguments.data) if arguments.data else "phantom"
    out = arguments.out or arguments.work / f"{arguments.paper}-{profile}-{name}"
    try:
        passed = experiment.run(
            chosen,
            folder=arguments.data,
            out=out,
            work=arguments.work,
            profile=profile,
            assignments=arguments.set,
            command=shlex.join(["python", "-m", "experiments", *argv]),
        )
    except (ValueError, OSError, ImportError) as error:
        print(f"{arguments.paper}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nStopped. The same command goes on from {out}.", file=sys.stderr)
        return 130
    if not passed:
        print("The run is outside of what its recipe expects; see above.", file=sys.stderr)
    return 0 if passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("paper", choices=PAPERS)
    parser.add_argument("--data", type=Path, help="folder of cases (default: synthetic data)")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/PAPER-PROFILE-DATA)")
    parser.add_argument(
        "--profile",
        choices=("quick", "paper"),
        help="default: paper with --data, quick without",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="override the recipe"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs"),
        help="where synthetic data and decoded stores are kept (default: runs)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
