"""The lab computes in float64; the rest of the suite does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.game import preferences
from po_jax.game.equilibrium import make_game

ACTIONS, TAU = 5, 0.3


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def game():
    """Five actions, preferences that are not transitive, a reference far from uniform."""
    reference = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    return make_game(preferences.random(1, ACTIONS), reference, TAU, reward=[0.3, -1, 2, 0.5, 0])


@pytest.fixture
def logits():
    """A policy in general position, far from the reference and from every solution."""
    return jnp.asarray(np.random.default_rng(7).normal(size=ACTIONS))
