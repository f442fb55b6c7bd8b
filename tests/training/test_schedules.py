"""Learning rates against T5X's."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.training.schedules import LearningRate


def test_schedules_agree_with_t5x(golden):
    schedules = json.loads((golden / "lr_schedules.json").read_text())
    assert len(schedules) == 8
    for name, case in schedules.items():
        schedule = jax.vmap(LearningRate(**case["kwargs"]))
        rates = schedule(jnp.asarray(case["steps"]))
        np.testing.assert_allclose(rates, case["lr"], rtol=1e-5, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_learning_rate": -0.1}, "base_learning_rate: expected a finite rate, 0 or more"),
        ({"base_learning_rate": float("nan")}, "base_learning_rate: expected a finite rate"),
        ({"min_learning_rate": -1.0}, "min_learning_rate: expected a finite rate, 0 or more"),
        ({"warmup_steps": -1, "factors": "constant"}, "warmup_steps: expected 0 or more, got -1"),
        ({"warmup_steps": 0}, "warmup_steps: expected 1 or more, got 0"),
        ({"warmup_steps": 0, "factors": "linear_decay"}, "warmup_steps: expected 1 or more"),
        ({"steps_per_decay": 0}, "steps_per_decay: expected 1 or more, got 0"),
        ({"steps_per_cycle": 0}, "steps_per_cycle: expected 1 or more, got 0"),
    ],
)
def test_a_schedule_out_of_range(settings, message):
    with pytest.raises(ValueError, match=f"LearningRate.{message}"):
        LearningRate(**settings)


def test_an_unknown_factor_is_named():
    with pytest.raises(ValueError, match="got 'warmth'"):
        LearningRate("constant * warmth")
