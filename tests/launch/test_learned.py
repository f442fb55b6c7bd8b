"""The algorithms of gin/algorithms/ differentiate what their objectives need, and no more."""

import gin
import jax
import jax.numpy as jnp
import pytest

from launch import GIN_FOLDER, gin_support
from po_jax.models import PolicyModel
from po_jax.types import PreferenceBatch

ALGORITHMS = sorted(path.stem for path in (GIN_FOLDER / "algorithms").glob("*.gin"))


@pytest.fixture(autouse=True)
def nothing_stays():
    yield
    gin.clear_config()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_completion_that_teaches_nothing_is_not_differentiated(algorithm):
    gin_support.configure([f"gin/algorithms/{algorithm}.gin"], [])
    bindings = gin.get_bindings(PolicyModel)
    policy = jnp.asarray([[-3.0, -4.0], [-2.0, -7.0], [-6.0, -1.0]])
    batch = PreferenceBatch(
        prompt=jnp.ones((3, 1), jnp.int32),
        completion=jnp.ones((3, 2, 1), jnp.int32),
        mask=jnp.ones((3, 2, 1), bool),
        preference=jnp.asarray([0.1, 0.5, 0.8]),
        reference_logprob=-jnp.ones((3, 2)),
        reward=jnp.asarray([[1.0, 2.0], [0.0, 1.0], [3.0, 1.0]]),
        step=jnp.zeros(3, jnp.int32),
    )
    slopes = jax.grad(lambda policy: jnp.sum(bindings["objective"](policy, batch)))(policy)
    assert slopes[:, 0].any()
    assert bindings.get("learned", 2) == (2 if slopes[:, 1].any() else 1)
