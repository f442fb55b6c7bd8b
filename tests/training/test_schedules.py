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


def test_an_unknown_factor_is_named():
    with pytest.raises(ValueError, match="got 'warmth'"):
        LearningRate("constant * warmth")
