"""Variance of the gradient from one pair: contrastive (IPO) and not (policy gradient), section 4.

Both estimate the ascent direction of P(pi > sg pi) - tau KL(pi || mu): the first is -tau/4 times
the slope of online IPO, the second minus that of self-play, Nash-MD-PG with beta = 0.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.game import preferences
from po_jax.game.algorithms import ipo_md, nash_md_pg
from po_jax.game.equilibrium import make_game, nash
from po_jax.game.gradients import expected_gradient, gradient_covariance


def covariances(game, log_policy):
    contrastive = (game.tau / 4.0) ** 2 * gradient_covariance(
        ipo_md(game.tau, 0.0), game, log_policy
    )
    return contrastive, gradient_covariance(nash_md_pg(game.tau, 0.0), game, log_policy)


def test_both_estimate_the_same_direction(game, logits):
    np.testing.assert_allclose(
        game.tau / 4.0 * expected_gradient(ipo_md(game.tau, 0.0), game, logits),
        expected_gradient(nash_md_pg(game.tau, 0.0), game, logits),
        rtol=1e-12,
    )


def two_action_variances(q, m, a, tau):
    """By hand, summing over the pairs (1,1), (1,2), (2,1), (2,2); pi = (q, 1-q), mu = (m, 1-m).

    All gradients are multiples of (1, -1): (1 - q) of it from action 1, -q from action 2.
    """
    d1, d2 = np.log(q / m), np.log((1 - q) / (1 - m))
    x = a - tau * (d1 - d2)
    mean = q * (1 - q) * x
    draws = np.array([q * q, q * (1 - q), (1 - q) * q, (1 - q) ** 2])
    contrastive = np.array([0.0, x / 2, x / 2, 0.0])
    single = np.array(
        [
            -(1 - q) * tau * d1,
            (1 - q) * (a - tau * d1),
            -q * (-a - tau * d2),
            q * tau * d2,
        ]
    )
    np.testing.assert_allclose([draws @ contrastive, draws @ single], mean)
    return [draws @ estimate**2 - mean**2 for estimate in (contrastive, single)]


@pytest.mark.parametrize(
    "q, m, contrastive_wins",
    [(0.65, 0.5, True), (0.3, 0.3, True), (0.4, 0.5, False), (0.1, 0.99, False)],
)
def test_two_actions_have_a_closed_form(q, m, contrastive_wins):
    a, tau = 0.3, 0.5
    game = make_game([[0.5, 0.5 + a], [0.5 - a, 0.5]], [m, 1 - m], tau)
    log_policy = jnp.log(jnp.array([q, 1 - q]))
    expected = two_action_variances(q, m, a, tau)
    for covariance, variance in zip(covariances(game, log_policy), expected, strict=True):
        # Twice: the direction (1, -1) has squared length 2.
        np.testing.assert_allclose(jnp.trace(covariance), 2.0 * variance, rtol=1e-12)
    assert (expected[0] < expected[1]) == contrastive_wins


@pytest.mark.parametrize("seed", range(5))
def test_at_the_reference_the_contrastive_one_is_never_worse_in_any_direction(seed):
    # There h = 0, and it is the average of the other over the two orders of the same pair.
    reference = np.random.default_rng(seed).dirichlet(np.ones(5))
    game = make_game(preferences.random(seed, 5), reference / reference.sum(), 0.7)
    contrastive, single = covariances(game, game.log_reference)
    assert jnp.linalg.eigvalsh(single - contrastive).min() > -1e-15
    assert jnp.trace(contrastive) < 0.9 * jnp.trace(single)


def test_in_a_cyclic_game_it_stays_lower_up_to_the_equilibrium():
    game = make_game(preferences.cyclic(3, 0.8), [0.7, 0.2, 0.1], 0.3)
    for log_policy in (game.log_reference, nash(game).log_policy):
        contrastive, single = covariances(game, log_policy)
        assert jnp.trace(contrastive) < 0.75 * jnp.trace(single)


def test_where_one_policy_explains_every_preference_it_vanishes():
    # With an additive preference the equilibrium has h = (p - 1/2) / tau on every single pair.
    game = make_game(preferences.additive([0.1, 0.3, -0.1]), [0.5, 0.3, 0.2], 0.3)
    contrastive, single = covariances(game, nash(game).log_policy)
    assert jnp.trace(contrastive) < 1e-28 < 1e-3 < jnp.trace(single)


def test_concentrated_where_the_reference_is_thin_it_is_several_times_higher():
    game = make_game(preferences.cyclic(3, 0.8), [0.98, 0.01, 0.01], 0.3)
    contrastive, single = covariances(game, jnp.log(jnp.array([0.05, 0.9, 0.05])))
    assert jnp.trace(contrastive) > 6.0 * jnp.trace(single)
