"""What is recorded of a run, and when: by a writer that keeps it in a list."""

import io

import jax.numpy as jnp
import pytest

from po_jax.metrics import Mean, Sum
from po_jax.reporting.clock import StageClock
from po_jax.reporting.progress import Progress
from po_jax.reporting.reporter import NonFiniteLoss, Reporter


class Recorded(list):
    """A writer."""

    def scalars(self, step, split, values):
        self.append((step, split, dict(values)))

    def text(self, step, name, text):
        self.append((step, name, text))


class Parts:
    """A reporter of ten steps with all that it needs."""

    def __init__(self, period, writers=1):
        self.console = io.StringIO()
        self.written = [Recorded() for _ in range(writers)]
        self.clock = StageClock(now=lambda: 0.0)
        progress = Progress("training", total=10, stream=self.console, every=0.0)
        self.reporter = Reporter(self.written, progress, self.clock, period)


def metrics(loss, judged=1.0):
    """A step's, of two examples; the win rate gives each the weight `judged`."""
    loss = jnp.float32(loss)
    return {
        "loss": Mean.of(jnp.stack([loss, loss])),
        "win_rate": Mean.of(jnp.ones(2), jnp.full(2, judged)),
        "gradient_norm": Mean.of(loss[None]),
        "non_finite": Sum(jnp.isnan(loss).astype(jnp.float32)),
    }


def losses(written):
    return [(step, values["loss"]) for step, _, values in written]


def test_a_record_is_the_mean_over_its_steps_and_the_end_records_the_rest():
    parts = Parts(period=3)
    with parts.reporter as reporter:
        for step in range(1, 6):
            reporter.step(step, metrics(step))
    assert losses(parts.written[0]) == [(3, 2.0), (5, 4.5)]
    assert "training 5/10  win_rate 1  loss 4.5" in parts.console.getvalue()


def test_a_run_of_whole_windows_has_nothing_to_add():
    parts = Parts(period=2)
    with parts.reporter as reporter:
        for step in range(1, 5):
            reporter.step(step, metrics(step))
        reporter.flush()
    assert losses(parts.written[0]) == [(2, 1.5), (4, 3.5)]


def test_a_resumed_run_counts_on():
    parts = Parts(period=4)
    with parts.reporter as reporter:
        for step in range(7, 10):
            reporter.step(step, metrics(step))
    assert losses(parts.written[0]) == [(8, 7.5), (9, 9.0)]


def test_a_metric_without_an_observation_is_absent():
    parts = Parts(period=1)
    with parts.reporter as reporter:
        reporter.step(1, metrics(0.5, judged=0.0))
        reporter.settle()
        reporter.evaluation(1, "held_out", {"kl": 2.0, "win_rate": float("nan")}, "")
    (_, _, train), held_out = parts.written[0]
    assert train == {"loss": 0.5, "gradient_norm": 0.5, "non_finite": 0.0}
    assert held_out == (1, "held_out", {"kl": 2.0})


def test_an_error_keeps_the_steps_that_ended_well_and_names_the_one_that_did_not():
    parts = Parts(period=10)
    with pytest.raises(NonFiniteLoss, match="step 3: the loss is nan"):
        with parts.reporter as reporter:
            for step, loss in enumerate((1.0, 2.0, float("nan"), 4.0), start=1):
                reporter.step(step, metrics(loss))
            reporter.settle()
    assert losses(parts.written[0]) == [(2, 1.5)]


def test_the_stages_times_are_of_the_steps_recorded_and_the_first_compiles():
    parts = Parts(period=4)
    with parts.reporter as reporter:
        for step in range(1, 4):
            parts.clock.queued("updating", 0.0, ())
            reporter.step(step, metrics(step))
            if step == 1:
                reporter.skip_times()
                parts.clock.queued("compiling", 0.0, ())
    ((_, _, values),) = parts.written[0]
    assert {"seconds_updating", "seconds_compiling", "seconds_idle"} <= values.keys()
    assert parts.clock.take(per="updating") == {}


def test_every_writer_gets_every_record_and_the_console_what_matters():
    parts = Parts(period=1, writers=2)
    with parts.reporter as reporter:
        reporter.step(1, {"loss": metrics(0.5)["loss"], "non_finite": Sum(jnp.float32(0.0))})
        reporter.settle()
        reporter.evaluation(1, "held_out", {"win_rate": 0.75, "length": 9.0}, "**policy**")
        reporter.step(2, {"loss": metrics(0.25)["loss"], "non_finite": Sum(jnp.float32(0.0))})
    assert parts.written[0] == parts.written[1]
    assert parts.written[0] == [
        (1, "train", {"loss": 0.5, "non_finite": 0.0}),
        (1, "held_out", {"win_rate": 0.75, "length": 9.0}),
        (1, "held_out", "**policy**"),
        (2, "train", {"loss": 0.25, "non_finite": 0.0}),
    ]
    lines = parts.console.getvalue().splitlines()
    assert lines[1] == "step 1, held_out:  win_rate 0.75  length 9"
    assert lines[2].startswith("training 2/10  win_rate 0.75  loss 0.25")
