"""A long run in pieces, on a machine that is lent for minutes: where there is a GPU, with JAX.

    KERAS_BACKEND=jax python -m experiments.pieces --minutes 8 --out RUN --keep KEPT \
        iacnn --data CVC-ClinicDB --profile paper --set data.split=group --seeds 3

This is `python -m experiments iacnn ... --out RUN`, to which Ctrl-C is sent after so many minutes.
The same command goes on from the last epoch of RUN and ends with the bits of an unbroken run, so
RUN must be there again for the next piece, and an epoch must fit into one.

A table comes last: epochs, time and a checksum of the weights of each network. It is in KEPT too,
as pieces.csv, beside copies of the small files of RUN (logs, scores, tables, provenance).

Exit code: 75 if the run is not done and wants this command again, 1 if a piece was too short for
anything new, otherwise that of the run.
"""

import argparse
import hashlib
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from keras_medseg.files import write_atomic
from keras_medseg.training import checkpoint

AGAIN = 75
"""EX_TEMPFAIL, what batch systems take for "try again"."""
INTERRUPTED = (130, -signal.SIGINT)
SMALL = 1_000_000
SMALL_KINDS = {".csv", ".json", ".md"}


def run_for(command: Sequence[str], minutes: float) -> int | None:
    """Exit code of a command; None if it was interrupted, because it took longer."""
    # A shell that starts us in the background has Ctrl-C ignored, and so would the command.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(command)
    try:
        return child.wait(timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        code = _interrupt(child)
    except KeyboardInterrupt:  # the terminal has sent it to both
        code = child.wait()
    return None if code in INTERRUPTED else code


def _interrupt(child: subprocess.Popen) -> int:
    """Ctrl-C, again after a while: Python drops one that arrives inside a destructor."""
    while True:
        child.send_signal(signal.SIGINT)
        try:
            return child.wait(timeout=60)
        except subprocess.TimeoutExpired:
            continue


def made(run: Path) -> set[Path]:
    """What a run has written so far; a piece that adds nothing was too short."""
    return {path for path in run.rglob("*") if "tensorboard" not in path.parts}


def networks(run: Path) -> pd.DataFrame:
    """A row for each network whose training has begun in a run folder."""
    rows = []
    for path in sorted(run.rglob("training/*/log.csv")):
        log = pd.read_csv(path)
        rows.append(
            {
                "network": path.parent.relative_to(run).as_posix().replace("training/", ""),
                "epochs": len(log),
                "seconds_an_epoch": round(float(log["seconds"].median()), 1),
                "loss": round(float(log["loss"].iloc[-1]), 4),
                "val_loss": round(float(log["val_loss"].iloc[-1]), 4),
                "weights_sha256": weights_sha256(path.parent / "checkpoint"),
                "finished": (path.parent / "model.keras").exists(),
            }
        )
    return pd.DataFrame(rows)


def weights_sha256(folder: Path) -> str:
    """Of all weights of the newest checkpoint, in their order; equal bits give equal text.

    Raises:
        DataError: all checkpoints are damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the next piece says which checkpoint is damaged
        found = checkpoint.load_latest(folder)
    digest = hashlib.sha256()
    for name, array in sorted(found[0].items() if found else ()):
        if name.startswith("weights/"):
            digest.update(array.tobytes())
    return digest.hexdigest()


def keep_small(run: Path, kept: Path) -> None:
    """Copy what says how a run went, under the same names; no weights, no label maps, no store."""
    for path in run.rglob("*"):
        inside = path.relative_to(run)
        if path.suffix not in SMALL_KINDS or inside.parts[0] == "store":
            continue
        if path.stat().st_size <= SMALL:
            (kept / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept / inside)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 75 if there is more to do, 1 if a piece was too short, otherwise the run's."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.pieces", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, required=True, help="of this piece")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--keep", type=Path, help="folder of what is small, and of the table")
    arguments, words = parser.parse_known_args(argv)
    if not arguments.minutes > 0:
        parser.error(f"--minutes: found {arguments.minutes:g}, expected more than 0.")
    command = [sys.executable, "-m", "experiments", *words, "--out", str(arguments.out)]
    before = made(arguments.out)
    code = run_for(command, arguments.minutes)
    table = networks(arguments.out)
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        keep_small(arguments.out, arguments.keep)
        write_atomic(arguments.keep / "pieces.csv", table.to_csv(index=False).encode())
    shown = table if table.empty else table.assign(weights_sha256=table["weights_sha256"].str[:12])
    text = "No network has an epoch." if shown.empty else shown.to_string(index=False)
    sys.stdout.write(f"\n{text}\n")
    if code is not None:
        return code
    if made(arguments.out) == before:
        sys.stdout.write(
            f"--minutes: found {arguments.minutes:g}, in which {arguments.out} got nothing new, "
            "expected enough for an epoch of the largest network. What was decoded is kept.\n"
        )
        return 1
    sys.stdout.write("Not done: the same command goes on from here.\n")
    return AGAIN


if __name__ == "__main__":
    sys.exit(main())
