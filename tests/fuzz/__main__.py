"""Damage files at random and see that the package reads them rightly or refuses them in one line.

    python -m tests.fuzz                          22,500 files, minutes on one core
    python -m tests.fuzz --kinds png tiff --files 500 --seed 7
    python -m tests.fuzz --kinds tiff --case 123 --seed 7 --keep folder    one of them, to look at

Case n of a kind and a seed is always the same file. Every kind runs in a process of its own with a
bound on its memory, and every file has a bound on its time; a process that dies or hangs is a
failure of the file that it was at. The exit code is 1 if there is any failure.
"""

import argparse
import sys
from pathlib import Path

from .run import SHARES, failures_of, one_case, run, table


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--kinds", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--files", type=int, help="of each kind (default: as in the published run)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="this one alone")
    parser.add_argument("--keep", type=Path, help="folder for the files of --case")
    parser.add_argument(
        "--worker", nargs=2, type=int, metavar=("FIRST", "END"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.worker:
        failures_of(arguments.kinds[0], arguments.seed, *arguments.worker)
        return 0
    if arguments.case is not None:
        print(one_case(arguments.kinds[0], arguments.seed, arguments.case, arguments.keep))
        return 0
    counts = {kind: arguments.files or SHARES[kind] for kind in arguments.kinds}
    results = run(counts, arguments.seed)
    print(table(results))
    for result in results:
        for failure in result.failures:
            print(f"{result.kind} {failure}")
    return 1 if any(result.failures for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
