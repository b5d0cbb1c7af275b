"""`python -m experiments PAPER`: the same as `keras-medseg reproduce PAPER`, in a checkout."""

import shlex
import sys
from collections.abc import Sequence

from keras_medseg import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 if the run met its expectations, 1 if not or on an error, 130 on Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    line = shlex.join(["python", "-m", "experiments", *argv])
    return cli.main(["reproduce", *argv], line=line)


if __name__ == "__main__":
    sys.exit(main())
