"""`python -m experiments.pieces`: a run that is interrupted, goes on, and is told in a table."""

import hashlib
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from experiments import pieces
from keras_medseg.training import checkpoint

LOG = "epoch,loss,val_loss,seconds\n1,0.9,0.8,10\n2,0.7,0.61234,30\n3,0.5,0.51234,11\n"


SLEEP = "import time; time.sleep(600)"


@pytest.mark.parametrize(
    ("program", "minutes", "code"),
    [
        ("raise SystemExit(3)", 5, 3),
        ("pass", 5, 0),
        (SLEEP, 0.02, pieces.AGAIN),
        ("import os; os.kill(os.getpid(), 9)", 5, 128 + 9),
    ],
)
def test_a_command_ends_itself_or_its_time_is_over(program, minutes, code):
    assert pieces.run_for([sys.executable, "-c", program], minutes) == code


def test_a_command_that_ends_while_it_is_interrupted_is_done():
    program = "import time\ntry: time.sleep(600)\nexcept KeyboardInterrupt: raise SystemExit(0)"
    assert pieces.run_for([sys.executable, "-c", program], minutes=0.1) == 0


def test_a_command_that_does_not_hear_is_killed(monkeypatch):
    monkeypatch.setattr(pieces, "GRACE_SECONDS", 0.4)
    program = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {SLEEP}"
    assert pieces.run_for([sys.executable, "-c", program], minutes=0.1) == pieces.AGAIN


@pytest.mark.parametrize(
    ("sent", "ignored", "code"),
    [
        (signal.SIGTERM, False, pieces.AGAIN),
        (signal.SIGINT, False, 128 + signal.SIGINT),
        # What a shell does to commands in the background; they would start theirs in this way too.
        (None, True, pieces.AGAIN),
    ],
)
def test_signals_reach_the_command(sent, ignored, code):
    """SIGTERM is the end of the loan; Ctrl-C is the user's, and ends a loop of pieces."""
    child = f"print('started', flush=True); {SLEEP}"
    program = (
        "import sys; from experiments import pieces\n"
        f"sys.exit(pieces.run_for([sys.executable, '-c', {child!r}], {5 if sent else 0.1}))"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as started:
            assert started.stdout.readline() == b"started\n"
            if sent:
                started.send_signal(sent)
            assert started.wait(timeout=300) == code
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_before_the_command_has_started_ends_it(monkeypatch):
    start = subprocess.Popen

    def late(*given, **options):
        signal.raise_signal(signal.SIGTERM)
        return start(*given, **options)

    monkeypatch.setattr(subprocess, "Popen", late)
    monkeypatch.setattr(pieces, "GRACE_SECONDS", 40)
    assert pieces.run_for([sys.executable, "-c", SLEEP], 5) == pieces.AGAIN


@pytest.fixture
def run(tmp_path):
    """A run folder with two folds, the second without an epoch yet."""
    network = tmp_path / "run/fold0/training/main-WT"
    checkpoint.save(
        network / "checkpoint",
        3,
        {
            "weights/0001": np.array([2.0, 3.0], np.float32),
            "weights/0000": np.array([1.0], np.float32),
            "optimizer/0000": np.array([9.0], np.float32),
        },
        {"identity": {}, "log": []},
    )
    (network / "log.csv").write_text(LOG)
    (tmp_path / "run/fold1/training/main-WT").mkdir(parents=True)
    (tmp_path / "run/store").mkdir()
    (tmp_path / "run/store/manifest.json").write_text("{}")
    (tmp_path / "run/large.csv").write_text("x" * (pieces.SMALL + 1))
    (tmp_path / "run/fold0/scores.csv").write_text("case,dice\n")
    return tmp_path / "run"


def test_a_row_says_how_far_a_network_is_and_has_a_checksum_of_its_weights_alone(run):
    (row,) = pieces.networks(run).to_dict("records")
    weights = np.array([1, 2, 3], "<f4").tobytes()
    assert row == {
        "network": "fold0/main-WT",
        "epochs": 3,
        "seconds_an_epoch": 11.0,
        "loss": 0.5,
        "val_loss": 0.5123,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "finished": False,
    }
    (run / "fold0/training/main-WT/model.keras").touch()
    assert pieces.networks(run)["finished"].all()


@pytest.mark.parametrize(("code", "expected"), [(75, 75), (0, 0), (1, 1), (130, 130)])
def test_the_table_comes_last_and_small_files_are_kept(run, capsys, monkeypatch, code, expected):
    asked = []

    def train(*given):
        asked.append(given)
        (run / "fold0/training/main-WT/checkpoint/epoch_0004.npz").touch()
        return code

    monkeypatch.setattr(pieces, "run_for", train)
    kept = run.parent / "kept"
    words = ["--minutes", "8", "--out", str(run), "--keep", str(kept), "iacnn", "--seeds", "3"]
    assert pieces.main(words) == expected
    command = [sys.executable, "-m", "experiments", "iacnn", "--seeds", "3", "--out", str(run)]
    assert asked == [(command, 8.0)]
    found = {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()}
    assert found == {"pieces.csv", "fold0/scores.csv", "fold0/training/main-WT/log.csv"}
    (row,) = pd.read_csv(kept / "pieces.csv").to_dict("records")
    assert (row["network"], row["epochs"]) == ("fold0/main-WT", 3)
    printed = capsys.readouterr().out.splitlines()
    assert ("Not done: the same command goes on from here." in printed) == (code == 75)
    assert row["weights_sha256"][:12] in printed[-2 if code == 75 else -1]


def test_a_run_without_an_epoch_is_told_and_goes_on(tmp_path, capsys, monkeypatch):
    """While cases are decoded there is no run folder."""
    monkeypatch.setattr(pieces, "run_for", lambda *given: pieces.AGAIN)
    words = ["--minutes", "1", "--out", str(tmp_path / "run"), "--keep", str(tmp_path / "kept")]
    assert pieces.main([*words, "iacnn"]) == pieces.AGAIN
    assert "No network has an epoch." in capsys.readouterr().out
    assert tuple(pd.read_csv(tmp_path / "kept" / "pieces.csv").columns) == pieces.COLUMNS


def test_a_piece_that_is_too_short_for_an_epoch_ends_the_loop(run, capsys, monkeypatch):
    def start(*given):
        events = run / "fold0/training/main-WT/tensorboard"
        events.mkdir()
        (events / "events.1").touch()
        return pieces.AGAIN

    monkeypatch.setattr(pieces, "run_for", start)
    assert pieces.main(["--minutes", "1.5", "--out", str(run), "iacnn"]) == 1
    assert f"--minutes: found 1.5, in which {run} got nothing new" in capsys.readouterr().err


def test_damaged_checkpoints_cost_the_checksum_alone(run, monkeypatch):
    (archive,) = run.rglob("epoch_0003.npz")
    archive.write_bytes(archive.read_bytes()[:-9])
    monkeypatch.setattr(pieces, "run_for", lambda *given: 3)
    assert pieces.main(["--minutes", "1", "--out", str(run), "iacnn"]) == 3
    assert pieces.networks(run)["weights_sha256"].tolist() == ["damaged"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "0"], "--minutes: found 0, expected more than 0."),
        (["--minutes", "1", "--keep", "run/kept"], "--keep: found run/kept, expected a folder"),
        (
            ["--minutes", "1", "--keep", "run"],
            "--keep: found run, expected a folder outside of run.",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        pieces.main([*words, "--out", "run", "iacnn"])
    assert message in capsys.readouterr().err


def test_abbreviations_are_those_of_the_run(run, monkeypatch):
    asked = []
    monkeypatch.setattr(pieces, "run_for", lambda command, minutes: asked.append(command) or 0)
    pieces.main(["--minutes", "1", "--out", str(run), "iacnn", "--k", "3"])
    assert asked[0][3:6] == ["iacnn", "--k", "3"]
