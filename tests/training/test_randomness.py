"""Keys differ by step and by purpose, and are the same in every run."""

import itertools

import jax
import jax.numpy as jnp

from po_jax.training.randomness import purpose_key


def test_every_step_and_purpose_has_its_own_key():
    root = jax.random.key(5)
    pairs = list(itertools.product((0, 1, 2), ("dropout", "sample")))
    keys = {jax.random.key_data(purpose_key(root, *pair)).tobytes() for pair in pairs}
    assert len(keys) == len(pairs)
    traced = jax.jit(purpose_key, static_argnums=2)(root, jnp.asarray(2), "sample")
    assert traced == purpose_key(root, 2, "sample")
