"""Keys differ by step and by purpose, and are the same in every run."""

import itertools

import jax
import jax.numpy as jnp
import pytest

from po_jax.data.order import DataOrder
from po_jax.training.randomness import purpose_key, root_key


def test_every_step_and_purpose_has_its_own_key():
    root = jax.random.key(5)
    pairs = list(itertools.product((0, 1, 2), ("dropout", "sample")))
    keys = {jax.random.key_data(purpose_key(root, *pair)).tobytes() for pair in pairs}
    assert len(keys) == len(pairs)
    traced = jax.jit(purpose_key, static_argnums=2)(root, jnp.asarray(2), "sample")
    assert traced == purpose_key(root, 2, "sample")


@pytest.mark.parametrize("seed", [-1, 2**32, 10**20])
def test_a_seed_that_would_be_another_in_silence(seed):
    with pytest.raises(ValueError, match="expected a random seed in "):
        root_key(seed)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_of_the_order_out_of_its_range(seed):
    with pytest.raises(ValueError, match="expected a seed of the order in "):
        DataOrder([5], [1.0], seed)
