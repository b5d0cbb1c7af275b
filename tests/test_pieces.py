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


@pytest.mark.parametrize(
    ("program", "minutes", "code"),
    [
        ("raise SystemExit(3)", 5, 3),
        ("pass", 5, 0),
        ("import time; time.sleep(600)", 0.02, None),
    ],
)
def test_a_command_ends_itself_or_is_interrupted(program, minutes, code):
    assert pieces.run_for([sys.executable, "-c", program], minutes) == code


def test_a_command_that_ends_while_it_is_interrupted_is_done():
    program = "import time\ntry: time.sleep(600)\nexcept KeyboardInterrupt: raise SystemExit(0)"
    assert pieces.run_for([sys.executable, "-c", program], minutes=0.1) == 0


def test_an_interrupt_reaches_the_command_of_a_shell_in_the_background():
    """There Ctrl-C is ignored, and what is started would ignore it as well."""
    program = (
        "import sys; from experiments import pieces\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "raise SystemExit(7 if pieces.run_for(sleep, 0.1) is None else 8)"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = subprocess.run([sys.executable, "-c", program], check=False, timeout=300)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.returncode == 7


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


@pytest.mark.parametrize(("code", "expected"), [(None, 75), (0, 0), (1, 1)])
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
    assert ("Not done: the same command goes on from here." in printed) == (code is None)
    assert row["weights_sha256"][:12] in printed[-2 if code is None else -1]


def test_a_piece_without_an_epoch_is_told(tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    monkeypatch.setattr(pieces, "run_for", lambda *given: out.mkdir() or (out / "lock").touch())
    assert pieces.main(["--minutes", "1", "--out", str(out), "iacnn"]) == 75
    assert "No network has an epoch." in capsys.readouterr().out


def test_a_piece_that_is_too_short_for_an_epoch_ends_the_loop(run, capsys, monkeypatch):
    def start(*given):
        events = run / "fold0/training/main-WT/tensorboard"
        events.mkdir()
        (events / "events.1").touch()

    monkeypatch.setattr(pieces, "run_for", start)
    assert pieces.main(["--minutes", "1.5", "--out", str(run), "iacnn"]) == 1
    assert "--minutes: found 1.5, in which " in capsys.readouterr().out


def test_no_time_at_all_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        pieces.main(["--minutes", "0", "--out", str(tmp_path), "iacnn"])
    assert "--minutes: found 0, expected more than 0." in capsys.readouterr().err
