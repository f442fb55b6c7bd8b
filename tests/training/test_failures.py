"""What fails, or asks to stop, in the middle: no step is lost, and none is told twice."""

import json
import os
import signal
import time

import jax
import numpy as np
import pytest

from po_jax.checkpoints.manager import CheckpointError, CheckpointManager
from po_jax.interruption import Interrupted, Interruption, check
from po_jax.judges import CallableJudge, Calls, JudgeError
from po_jax.reporting.writers import JsonLines
from po_jax.training.held_out import PolicyEvaluation
from tests.training import small_run
from tests.vocabularies import Numbers

WORDS = Numbers()


def prefer_longer(prompt, first, second):
    return 1.0 / (1.0 + np.exp(len(second) - len(first)))


class Judge:
    """Prefers the longer; at one call it does something else first."""

    def __init__(self, at=None, then=lambda: None, seconds=0.0):
        self.calls, self._at, self._then, self._seconds = 0, at, then, seconds

    def __call__(self, *texts):
        self.calls += 1
        time.sleep(self._seconds)
        if self.calls == self._at:
            self._then()
        return prefer_longer(*texts)


def run(folder, judge=None, steps=5, **options):
    """Offline IPO with an evaluation by a Python judge after steps 3 and 5."""
    asked = CallableJudge(judge or Judge(), WORDS, calls=Calls(threads=1, retries=0))

    def held_out(run):
        return PolicyEvaluation(
            run,
            prompts=small_run.prompts(),
            strategy=small_run.STRATEGY,
            vocabulary=WORDS,
            judge=asked,
        )

    chosen = {"log_period": 2, "eval_period": 3, "evaluations": {"held_out": held_out}, **options}
    return small_run.offline_ipo(folder, steps, **chosen)


def lines(folder, name="metrics.jsonl"):
    """The records, to the letter, but for times."""
    return [json.dumps(record) for record in small_run.records(folder, name)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run that nothing happens to."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, run(folder)


def assert_the_same(folder, state, alone):
    for name in ("metrics.jsonl", "texts.jsonl"):
        assert lines(folder, name) == lines(alone[0], name)
    jax.tree.map(np.testing.assert_array_equal, state.params, alone[1].params)


def test_the_rest_of_a_window_is_written_at_the_end(alone):
    records = [json.loads(line) for line in lines(alone[0])]
    assert [(r["step"], r["split"]) for r in records] == [
        (0, "held_out"),
        (2, "train"),
        (3, "held_out"),
        (4, "train"),
        (5, "held_out"),
        (5, "train"),
    ]


def raise_timeout():
    raise TimeoutError("no answer")


def test_a_judge_that_fails_in_an_evaluation_loses_no_step(tmp_path, alone):
    class Dying(JsonLines):
        def scalars(self, step, split, values):
            super().scalars(step, split, values)
            if step == 5:
                raise KeyboardInterrupt  # as a second Ctrl-C does: nothing is saved

    with pytest.raises(JudgeError, match="no answer"):
        run(tmp_path, Judge(25, raise_timeout))
    assert CheckpointManager(tmp_path).steps == [3]
    # It fails again in the same place, and later dies where nothing could be saved.
    with pytest.raises(JudgeError, match="no answer"):
        run(tmp_path, Judge(1, raise_timeout))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, writers=(Dying,))
    assert CheckpointManager(tmp_path).steps == [3]
    assert_the_same(tmp_path, run(tmp_path), alone)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_in_an_evaluation_is_heard_within_a_call(tmp_path, alone, capsys):
    judge = Judge(10, terminate, seconds=0.02)
    state = run(tmp_path, judge)
    assert int(state.step) == 3
    assert judge.calls <= 13  # of 42 and more
    assert "SIGTERM: saved step 3; the same command resumes" in capsys.readouterr().err
    assert_the_same(tmp_path, run(tmp_path), alone)


def test_a_signal_before_an_evaluation_begins_none(tmp_path, alone):
    class Terminated(JsonLines):
        def scalars(self, step, split, values):
            super().scalars(step, split, values)
            if step == 2:
                terminate()  # while step 3 is under way

    judge = Judge()
    run(tmp_path, judge, writers=(Terminated,))
    assert judge.calls == 0 and CheckpointManager(tmp_path).steps == [3]
    assert_the_same(tmp_path, run(tmp_path), alone)


def test_a_signal_at_any_step_keeps_the_window(tmp_path, alone):
    run(tmp_path, started=terminate)
    assert CheckpointManager(tmp_path).steps == [1]
    assert_the_same(tmp_path, run(tmp_path), alone)


def test_a_writer_that_fails_is_the_error_and_the_state_is_saved(tmp_path):
    class Full(JsonLines):
        def scalars(self, step, split, values):
            if step:
                raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, writers=(Full,))
    assert len(CheckpointManager(tmp_path).steps) == 1


def test_a_save_that_fails_after_it_does_not_hide_the_first_error(tmp_path, capsys):
    class Full(CheckpointManager):
        def save(self, *_):
            raise CheckpointError("could not save: the disk is full")

        def wait(self):
            raise CheckpointError("could not wait either")

    with pytest.raises(JudgeError, match="no answer"):
        run(tmp_path, Judge(3, raise_timeout), checkpoints=Full)
    shown = capsys.readouterr().err
    assert "step 3 could not be saved: could not save: the disk is full" in shown


def test_a_signal_is_raised_at_safe_points_only_and_once_entered(tmp_path):
    check()
    with pytest.raises(Interrupted, match="SIGTERM"), Interruption():
        check()
        terminate()
        check()
    check()
