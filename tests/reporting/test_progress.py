"""The progress line, on a terminal and in a log."""

import io

import pytest

from po_jax.reporting.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def seconds(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr("po_jax.reporting.progress.time.monotonic", lambda: now[0])

    def at(value):
        now[0] = value

    return at


def test_rates_leave_out_the_first_step_which_compiles(seconds):
    stream = io.StringIO()
    progress = Progress("training", total=100, stream=stream, every=10.0)
    seconds(30.0)
    progress.update(1)  # half a minute of compiling
    seconds(50.0)
    progress.update(41, {"loss": 0.123456, "length": 9.0})
    lines = stream.getvalue().splitlines()
    assert lines[0] == "training 1/100"
    assert lines[1] == "training 41/100  loss 0.1235  2.00 steps/s  0:50 so far, 0:29 left"


def test_what_matters_comes_first(seconds):
    stream = io.StringIO()
    progress = Progress("training", total=4, stream=stream, every=0.0)
    values = {"loss": 0.5, "tokens_per_second": 1200.0, "accuracy": 0.75, "margin": 0.25}
    progress.update(1, values)
    progress.note("step 1, held_out:", {"length": 9.0, "kl": 2.5, "win_rate": 0.625})
    seconds(1.0)
    progress.update(2, values)
    assert stream.getvalue().splitlines()[:2] == [
        "training 1/4  margin 0.25  accuracy 0.75  loss 0.5  tokens_per_second 1200",
        "step 1, held_out:  length 9  kl 2.5  win_rate 0.625",
    ]
    numbers = "win_rate 0.625  kl 2.5  loss 0.5  tokens_per_second 1200"
    assert stream.getvalue().splitlines()[2].startswith(f"training 2/4  {numbers}")


def test_a_log_gets_a_line_now_and_then_and_the_last_one(seconds):
    stream = io.StringIO()
    progress = Progress("training", total=50, stream=stream, every=10.0)
    for step in range(1, 51):
        seconds(float(step))
        progress.update(step)
    shown = [int(line.split()[1].split("/")[0]) for line in stream.getvalue().splitlines()]
    assert shown == [10, 20, 30, 40, 50]


def test_a_terminal_keeps_one_line_and_leaves_no_remains_of_a_longer_one(seconds):
    stream = Terminal()
    progress = Progress("training", total=3, stream=stream)
    seconds(1.0)
    progress.update(1, {"loss": 0.125})
    progress.note("saved")
    seconds(2.0)
    progress.update(2)
    progress.close()
    assert stream.getvalue().count("\n") == 2
    first, blank, note, second = (
        part for part in stream.getvalue().replace("\n", "\r").split("\r") if part
    )
    assert blank.strip() == ""
    assert len(blank) == len(first)
    assert note == "saved"
    assert second.startswith("training 2/3  loss 0.125  1.00 steps/s")


def test_durations():
    assert [duration(s) for s in (7, 727, 11527)] == ["0:07", "12:07", "3:12:07"]
