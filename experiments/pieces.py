"""A long run in pieces, for a machine that is lent for minutes, such as one with a GPU.

    python -m experiments.pieces --minutes 8 --out RUN --keep KEPT \
        iacnn --data CVC-ClinicDB --profile paper --seeds 3 --work WORK

This is `python -m experiments iacnn ... --out RUN`, to which Ctrl-C is sent after so many minutes.
The same command goes on from the last epoch of RUN, on the same kind of processor with the bits of
an unbroken run. For that RUN, WORK (decoded cases) and the data must be at the same paths again,
and an epoch must fit into a piece.

A table comes last: epochs, time and a checksum of the weights of each network's newest checkpoint.
It is in KEPT too, as pieces.csv, beside copies of the small files of RUN (logs, scores, tables,
provenance).

Exit code: 75 if the run is not done and wants this command again, 1 if a piece was too short for an
epoch, otherwise that of the run.
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

from keras_medseg.errors import DataError
from keras_medseg.files import write_atomic
from keras_medseg.training import checkpoint

AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: try again later."""
INTERRUPTED = (130, -signal.SIGINT)
GRACE_SECONDS = 120
"""For a step or a case to end; then the run is killed, which costs an epoch at most."""
SMALL = 1_000_000
SMALL_KINDS = {".csv", ".json", ".md"}
COLUMNS = (
    "network",
    "epochs",
    "seconds_an_epoch",
    "loss",
    "val_loss",
    "weights_sha256",
    "finished",
)


def run_for(command: Sequence[str], minutes: float) -> int:
    """Exit code of a command, or AGAIN if its time was over: after `minutes`, or by SIGTERM."""
    received = []
    child = None

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        if child:
            child.send_signal(signal.SIGINT)

    # In a session of its own it gets Ctrl-C from here alone. A handler is set before it starts,
    # because a shell that starts us in the background has Ctrl-C ignored, for it as well.
    before = [
        (number, signal.signal(number, pass_on)) for number in (signal.SIGINT, signal.SIGTERM)
    ]
    try:
        child = subprocess.Popen(command, start_new_session=True)
        try:
            # What was received while it started has not reached it.
            code = _interrupt(child) if received else child.wait(timeout=60 * minutes)
        except subprocess.TimeoutExpired:
            received.append(signal.SIGALRM)
            code = _interrupt(child)
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    if received and received[0] != signal.SIGINT and code in (*INTERRUPTED, -signal.SIGKILL):
        return AGAIN
    return 128 - code if code < 0 else code


def _interrupt(child: subprocess.Popen) -> int:
    """Ctrl-C, again after a while: Python drops one that arrives inside a destructor."""
    for _ in range(4):
        child.send_signal(signal.SIGINT)
        try:
            return child.wait(timeout=GRACE_SECONDS / 4)
        except subprocess.TimeoutExpired:
            continue
    child.kill()
    return child.wait()


def made(run: Path) -> set[Path]:
    """What a run has written so far; a piece that adds nothing was too short."""
    return {path for path in run.rglob("*") if "tensorboard" not in path.parts}


def networks(run: Path) -> pd.DataFrame:
    """A row for each network of a run folder that has an epoch."""
    rows = []
    for path in sorted(run.rglob("training/*/log.csv")):
        log = pd.read_csv(path)
        row = (
            path.parent.relative_to(run).as_posix().replace("training/", ""),
            len(log),
            round(float(log["seconds"].median()), 1),
            round(float(log["loss"].iloc[-1]), 4),
            round(float(log["val_loss"].iloc[-1]), 4),
            weights_sha256(path.parent / "checkpoint"),
            (path.parent / "model.keras").exists(),
        )
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def weights_sha256(folder: Path) -> str:
    """Of all weights of the newest checkpoint, in their order; equal bits give equal text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the next piece says which checkpoint is damaged
        try:
            found = checkpoint.load_latest(folder)
        except DataError:
            return "damaged"
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
        prog="python -m experiments.pieces",
        description=__doc__.splitlines()[0],
        allow_abbrev=False,  # the other words are those of the run
    )
    parser.add_argument("--minutes", type=float, required=True, help="of this piece")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--keep", type=Path, help="folder of what is small, and of the table")
    arguments, words = parser.parse_known_args(argv)
    run, kept = arguments.out, arguments.keep
    if not arguments.minutes > 0:
        parser.error(f"--minutes: found {arguments.minutes:g}, expected more than 0.")
    if kept and kept.resolve().is_relative_to(run.resolve()):
        parser.error(f"--keep: found {kept}, expected a folder outside of {run}.")
    before = made(run)
    command = [sys.executable, "-m", "experiments", *words, "--out", str(run)]
    code = run_for(command, arguments.minutes)
    table = networks(run)
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
        keep_small(run, kept)
        write_atomic(kept / "pieces.csv", table.to_csv(index=False).encode())
    shown = table.assign(weights_sha256=table["weights_sha256"].str[:12])
    text = "No network has an epoch." if shown.empty else shown.to_string(index=False)
    sys.stdout.write(f"\n{text}\n")
    if code != AGAIN:
        return code
    if before and made(run) == before:
        sys.stderr.write(
            f"--minutes: found {arguments.minutes:g}, in which {run} got nothing new, expected "
            "enough for an epoch of the largest network, or for the report.\n"
        )
        return 1
    sys.stdout.write("Not done: the same command goes on from here.\n")
    return AGAIN


if __name__ == "__main__":
    sys.exit(main())
