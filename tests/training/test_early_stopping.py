"""Runs that end when a metric of their evaluations no longer improves."""

import json

import pytest

from po_jax.checkpoints.manager import CheckpointManager
from po_jax.training.early_stopping import EarlyStopping
from tests.training import small_run

RATES = {0: 0.5, 2: 0.6, 4: 0.7, 6: 0.65, 8: 0.69, 10: 0.71, 12: 0.72}


def followed(stopping, values):
    """Where a run with these values ends, and what it was told before."""
    so_far = None
    for step, value in enumerate(values):
        so_far = stopping.follow(so_far, step, {} if value is None else {"m": float(value)})
        if stopping.ended(so_far):
            return step, so_far
    return None, so_far


@pytest.mark.parametrize(
    ("options", "values", "end"),
    [
        ({"patience": 2}, [1, 2, 3, 2, 3, 9], 4),  # 3 again is no improvement
        ({"patience": 2}, [1, 2, 1, 3, 1, 4], None),
        ({"patience": 1}, [1, 1], 1),
        ({"patience": 2, "largest": False}, [3, 2, 1, 2, 2], 4),
        ({"patience": 2, "least_gain": 0.5}, [1, 1.4, 1.5], 2),
        ({"patience": 2, "least_gain": 0.5}, [1, 1.4, 1.6, 1.7], None),
        ({"patience": 2}, [1, float("nan"), None, 5], 2),
        ({"patience": 3}, [float("nan"), float("nan"), 1, 0], None),
        ({"patience": 3, "least_gain": 0.0}, [float("inf"), float("inf"), float("inf")], 2),
    ],
)
def test_it_ends_after_so_many_evaluations_without_a_gain(options, values, end):
    stopping = EarlyStopping(metric="m", **options)
    where, so_far = followed(stopping, values)
    assert where == end
    assert json.loads(json.dumps(so_far)) == so_far  # it is kept in JSON


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ValueError, match="expected one of .*'held_out/kl'.*Nearest: held_out/kl"):
        EarlyStopping(metric="heldout/kl").follow(None, 0, {"held_out/kl": 1.0, "x": 2.0})
    for options in ({"patience": 0}, {"least_gain": -0.1}, {"least_gain": float("nan")}):
        with pytest.raises(ValueError, match="expected patience of 1 or more and least_gain"):
            EarlyStopping(metric="m", **options)
    with pytest.raises(ValueError, match="early_stopping: expected evaluations"):
        small_run.offline_ipo(tmp_path, 4, early_stopping=EarlyStopping(metric="m"))


def run(folder, steps, **options):
    """A run whose held-out win rates are `RATES`."""
    return small_run.offline_ipo(
        folder,
        steps,
        evaluations={
            "held_out": lambda run: lambda state: ({"win_rate": RATES[int(state.step)]}, "")
        },
        eval_period=2,
        save_period=3,
        early_stopping=EarlyStopping(metric="held_out/win_rate", patience=2),
        checkpoints=lambda folder: CheckpointManager(folder, keep=1, best="held_out/win_rate"),
        **options,
    )


def test_a_run_ends_saved_and_a_resumed_one_ends_where_it_would_have(tmp_path, capsys):
    assert int(run(tmp_path / "whole", 12).step) == 8
    why = "held_out/win_rate was best, 0.7, at step 4 and has not improved since"
    assert f"ended at step 8: {why}" in capsys.readouterr().err
    assert CheckpointManager(tmp_path / "whole").steps[-1] == 8
    records = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in records if '"held_out"' in line]
    assert steps == [0, 2, 4, 6, 8]

    assert int(run(tmp_path / "whole", 12).step) == 8
    assert f"already ended at step 8: {why}" in capsys.readouterr().err

    # What it waited for is kept with a checkpoint: 6 had been no improvement.
    run(tmp_path / "parts", 6)
    assert int(run(tmp_path / "parts", 12).step) == 8
    assert f"ended at step 8: {why}" in capsys.readouterr().err
