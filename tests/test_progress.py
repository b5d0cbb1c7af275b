"""What a loop shows: sparse lines in a log, a bar in place on a terminal."""

import io
import os
import re
import select
import signal
import sys

import pytest

from keras_medseg import progress

LOOP = (
    "import time\nfrom keras_medseg.progress import progress_bar\n"
    "with progress_bar('scoring') as shown:\n"
    "    for number in range(1, 1201):\n"  # a minute: no machine is too slow to interrupt it
    "        time.sleep(0.05)\n"
    "        shown(number, 1200, f'case{number:04}')\n"
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def loop(clock, seconds, cases=4):
    with progress.progress_bar("scoring") as shown:
        for number in range(1, cases + 1):
            clock[0] += seconds
            shown(number, cases, f"case{number}")


def in_terminal(monkeypatch, columns, **variables):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    for name, value in {"COLUMNS": str(columns), "TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    return terminal


def test_a_log_has_a_line_every_half_minute_and_one_at_the_end(clock, capsys):
    """Four cases of 20 s: 30 s have passed after the second, and not again before the last."""
    loop(clock, 20)
    assert capsys.readouterr().out.splitlines() == [
        "  scoring  2/4  case2  40 s left",
        "  scoring  4/4  case4  in 1 min 20 s",
    ]


def test_the_time_left_follows_from_the_share_of_the_work_where_it_is_known(clock, capsys):
    """A quarter of it takes 40 s: three quarters take 2 min, whatever the items say."""
    with progress.progress_bar("trainings") as shown:
        clock[0] += 40
        shown(3, 4, "31/40 epochs", 0.25)
        clock[0] += 40
        shown(3, 4, "31/40 epochs", 0.0)
    assert capsys.readouterr().out.splitlines() == [
        "  trainings  3/4  31/40 epochs  2 min 00 s left",
        "  trainings  3/4  31/40 epochs",
    ]


def test_a_terminal_has_a_bar_that_leaves_one_line(clock, monkeypatch):
    terminal = in_terminal(monkeypatch, 80)
    loop(clock, 20)
    written = terminal.getvalue()
    assert all(word in written for word in ("1/4", "2/4", "3/4", "1 min 00 s left", " GB"))
    assert "━" in written
    assert "\x1b[?25l" not in written  # the cursor stays, whoever kills the process
    assert "  scoring  4/4  case4  in 1 min 20 s\n" in written
    assert written.rpartition("case3")[2].count("\x1b[2K") == 2  # both lines of the bar go
    lines = re.split("[\r\n]+", re.sub("\x1b.*?[A-Za-z]", "", written))
    assert max(map(len, lines)) == 80


def test_a_narrow_terminal_has_no_bar_and_no_line_too_long(clock, monkeypatch):
    terminal = in_terminal(monkeypatch, 40)
    loop(clock, 20)
    lines = re.split("[\r\n]+", re.sub("\x1b.*?[A-Za-z]", "", terminal.getvalue()))
    assert "  40 s left  case2" in [line.rstrip() for line in lines]
    assert max(map(len, lines)) <= 40
    assert "━" not in terminal.getvalue()


def test_colors_are_left_out_where_they_are_not_wanted(clock, monkeypatch):
    colored = in_terminal(monkeypatch, 80)
    loop(clock, 20)
    plain = in_terminal(monkeypatch, 80, NO_COLOR="1")
    loop(clock, 20)
    color = re.compile("\x1b\\[[39][0-7]m")
    assert color.search(colored.getvalue())
    assert not color.search(plain.getvalue())


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_go_back_is_a_log(clock, monkeypatch, term):
    terminal = in_terminal(monkeypatch, 80, TERM=term)
    loop(clock, 20)
    assert terminal.getvalue().count("\n") == 2
    assert "\x1b" not in terminal.getvalue()


def test_a_pipe_stays_a_log_whatever_the_environment_says(clock, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    loop(clock, 20)
    assert "\x1b" not in capsys.readouterr().out


def test_an_interrupted_loop_leaves_its_last_status(clock, monkeypatch):
    terminal = in_terminal(monkeypatch, 80)

    def interrupted():
        with progress.progress_bar("scoring") as shown:
            clock[0] += 20
            shown(1, 4, "case1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.getvalue().endswith("  scoring  1/4  case1  1 min 00 s left\n")


def test_what_is_printed_in_a_loop_stands_above_the_bar(clock, monkeypatch):
    terminal = in_terminal(monkeypatch, 80)
    with progress.progress_bar("scoring") as shown:
        clock[0] += 20
        shown(1, 4, "case1")
        print("a message")
        clock[0] += 60
        shown(4, 4, "case4")
    message = terminal.getvalue().index("a message")
    assert "━" in terminal.getvalue()[message:]  # drawn again below it


def test_a_training_shows_its_epoch_losses_and_time(clock, monkeypatch):
    """Two epochs of two steps of 10 s. The first step is not timed, because it compiles: after the
    second one 10 s have passed for one step, and two steps are left."""
    terminal = in_terminal(monkeypatch, 80)
    from keras_medseg.training.callbacks import Progress

    shown = Progress("WT+TC", epochs=2)
    shown.set_params({"steps": 2})

    def written():
        text = re.sub("\x1b.*?[A-Za-z]", "", terminal.getvalue())
        terminal.seek(terminal.truncate(0))
        return text

    with shown.display:
        shown.on_train_begin()
        shown.on_epoch_begin(0)
        assert "compiling" in (start := written())
        assert "WT+TC  epoch 1/2  step 0/2" in start
        for batch in range(2):
            clock[0] += 10
            shown.on_train_batch_end(batch, {"loss": 0.5 - batch / 4, "dice_WT": 1.0})
        step = written()
        assert "epoch 1/2  step 2/2" in step
        assert "20 s left" in step
        assert step.endswith("\n  loss 0.25")
        assert "dice" not in step
        shown.on_test_begin()
        assert "validating" in written()
        shown.on_epoch_end(0, {"loss": 0.25, "val_loss": 0.125})
    line = "  WT+TC  epoch 1/2  step 2/2  loss 0.25  val_loss 0.125  20 s left\n"
    assert line in terminal.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_ctrl_c_in_a_real_terminal_leaves_its_last_line_and_the_cursor():
    import pty

    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm", COLUMNS="80")
        os.execv(sys.executable, [sys.executable, "-c", LOOP])
    shown = b""
    while b"case00" not in shown:
        assert select.select([terminal], [], [], 60)[0], shown
        shown += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    try:
        while part := os.read(terminal, 4096):
            shown += part
    except OSError:  # Linux: the other side was closed
        pass
    _, status = os.waitpid(process, 0)
    assert os.WTERMSIG(status) == signal.SIGINT
    assert b"\x1b[?25l" not in shown
    rest = shown.rpartition("━".encode())[2].decode()
    assert re.search(r"  scoring  (\d+)/1200  case0*\1  \d.* left\r\n", rest)
