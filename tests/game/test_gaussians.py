"""Offline regularisation is not KL: the mixture of Gaussians of the GPO paper, section 4."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.game import gaussians
from po_jax.game.gradients import expected_gradient

START = (1.0, 2.5)


def path_and_divergence(algorithm):
    game = gaussians.indifferent_game()
    path = gaussians.descend(algorithm, game, jnp.array(START), rate=0.02, steps=400)
    return path, np.asarray(jax.vmap(partial(gaussians.divergence, game))(path))


@pytest.mark.parametrize("means", [START, (0.5, 5.0), (-4.5, -1.0)])
def test_without_preferences_online_ipo_is_four_kl_in_any_parameters(means):
    # The slope of h^2 is twice that of h^2 / 2, which is 2 grad KL.
    game = gaussians.indifferent_game()
    means = jnp.array(means)
    actual = expected_gradient(gaussians.ONLINE, game, means, gaussians.mixture_policy)
    expected = 4.0 * jax.grad(partial(gaussians.divergence, game))(means)
    np.testing.assert_allclose(actual, expected, rtol=1e-11)


def test_online_the_kl_falls_all_the_way_to_a_local_minimum():
    path, divergence = path_and_divergence(gaussians.ONLINE)
    assert (np.diff(divergence) < 1e-12).all()
    # Both components on one of the two modes: KL log 2, were the modes far apart.
    np.testing.assert_allclose(divergence[-1], np.log(2.0), atol=0.01)
    assert (path[-1] > 1.5).all()


def test_offline_the_kl_rises_on_the_way_and_the_path_ends_elsewhere():
    path, divergence = path_and_divergence(gaussians.OFFLINE)
    assert divergence.max() > 1.25 * divergence[0]
    np.testing.assert_allclose(path[-1], gaussians.REFERENCE, atol=1e-3)
