import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.game import preferences
from po_jax.game.equilibrium import (
    against_mixture,
    best_response,
    exploitability,
    kl,
    make_game,
    mixture,
    nash,
    stationary_point,
    total_variation,
    value,
)

TAUS = (10.0, 0.3, 1e-2, 1e-4, 1e-6)


def test_kl_is_the_sum_and_keeps_its_precision_near_zero():
    p, q = jnp.array([0.5, 0.3, 0.2]), jnp.array([0.2, 0.7, 0.1])
    direct = 0.5 * np.log(0.5 / 0.2) + 0.3 * np.log(0.3 / 0.7) + 0.2 * np.log(2.0)
    np.testing.assert_allclose(kl(jnp.log(p), jnp.log(q)), direct, rtol=1e-14)
    # To second order KL is half the p-weighted sum of squares: here 1e-18 (0.5 + 0.3 + 0.2) / 2.
    step = 1e-9 * jnp.array([1.0, -1.0, -1.0])
    close = jax.nn.log_softmax(jnp.log(p) + step)
    np.testing.assert_allclose(kl(jnp.log(p), close), 0.5e-18, rtol=1e-6)


def test_kl_without_support():
    log_p = jnp.log(jnp.array([1.0, 0.0, 0.0]))
    log_q = jnp.log(jnp.array([0.25, 0.75, 0.0]))
    np.testing.assert_allclose(kl(log_p, log_q), np.log(4.0), rtol=1e-14)
    assert kl(log_q, log_p) == jnp.inf


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0])
def test_mixture_multiplies_powers(beta):
    policy, reference = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.0, 0.8])
    product = policy ** (1 - beta) * reference**beta
    with np.errstate(divide="ignore"):
        mixed = mixture(jnp.log(jnp.asarray(policy)), jnp.log(jnp.asarray(reference)), beta)
    np.testing.assert_allclose(np.exp(mixed), product / product.sum(), rtol=1e-14)


def test_no_policy_does_better_than_the_best_response(game, logits):
    opponent = jax.nn.log_softmax(logits)
    best = best_response(game, opponent)
    most = value(game, best, opponent)
    np.testing.assert_allclose(most - 0.5, exploitability(game, opponent), rtol=1e-12)
    rivals = np.log(np.random.default_rng(0).dirichlet(np.ones(5), size=200))
    for rival in jnp.asarray(rivals):
        # The shortfall is tau KL(rival || best response), so it is never negative.
        shortfall = most - value(game, rival, opponent)
        np.testing.assert_allclose(shortfall, game.tau * kl(rival, best), rtol=1e-9)


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize(
    "preference",
    [preferences.cyclic(3, 0.8), preferences.random(0, 7), preferences.bradley_terry([0, 2, 1])],
    ids=["cyclic", "random", "bradley_terry"],
)
def test_nash_is_a_fixed_point_at_every_tau(preference, tau):
    actions = len(preference)
    reference = np.arange(1, actions + 1) / (actions * (actions + 1) / 2)
    game = make_game(preference, reference, tau)
    solution = nash(game)
    assert solution.gap <= 2e-20 * tau
    # Independent of the solver: the equation itself, in probabilities.
    policy = np.exp(solution.log_policy)
    exponent = (preference @ policy) / tau
    response = reference * np.exp(exponent - exponent.max())
    np.testing.assert_allclose(policy, response / response.sum(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(value(game, solution.log_policy, solution.log_policy), 0.5)


def test_iterated_best_responses_oscillate_where_the_solver_does_not():
    game = make_game(preferences.cyclic(3, 0.8), [0.7, 0.2, 0.1], 0.05)
    log_policy = game.log_reference
    for _ in range(500):
        log_policy = best_response(game, log_policy)
    assert exploitability(game, log_policy) > 0.1
    assert nash(game).gap < 1e-21


def test_small_tau_approaches_the_equilibrium_of_the_game_itself():
    # Rock-paper-scissors where paper's win over rock counts twice. The equilibrium of the
    # antisymmetric matrix is its null vector: (1, 1, 2) / 4.
    preference = 0.5 + np.array([[0, -2, 1], [2, 0, -1], [-1, 1, 0]]) / 4
    game = make_game(preference, [0.2, 0.5, 0.3], 1e-6)
    np.testing.assert_allclose(np.exp(nash(game).log_policy), [0.25, 0.25, 0.5], atol=1e-5)


def test_without_a_cycle_the_solution_is_the_only_best_action():
    game = make_game(preferences.bradley_terry([0, 2, 1]), [0.6, 0.1, 0.3], 1e-3)
    np.testing.assert_allclose(np.exp(nash(game).log_policy), [0, 1, 0], atol=1e-12)


def test_two_actions_have_a_closed_form():
    # With two actions P(. > pi) differs by a constant, P(1 > 2) - 1/2, whatever pi is.
    game = make_game([[0.5, 0.8], [0.2, 0.5]], [0.4, 0.6], 0.2)
    odds = 0.4 / 0.6 * np.exp(0.3 / 0.2)
    np.testing.assert_allclose(np.exp(nash(game).log_policy)[0], odds / (1 + odds), rtol=1e-14)


def test_exploitability_bounds_the_distance_to_equilibrium(game):
    solution = nash(game)
    for seed in range(50):
        rival = jnp.log(jnp.asarray(np.random.default_rng(seed).dirichlet(np.ones(5))))
        assert exploitability(game, rival) >= game.tau * kl(rival, solution.log_policy)


@pytest.mark.parametrize("beta", [0.125, 0.5, 0.9])
def test_the_mixture_at_a_stationary_point_is_a_nash_of_a_larger_tau(game, beta):
    # With q = pi_beta: log q - log mu = (1 - beta) (log pi - log mu) = (1 - beta) P(. > q) / tau.
    solution = stationary_point(game, against_mixture(game, beta))
    mixed = mixture(solution.log_policy, game.log_reference, beta)
    weaker = nash(game.replace(tau=game.tau / (1.0 - beta)))
    assert total_variation(mixed, weaker.log_policy) < 1e-13


def test_with_beta_one_it_is_the_best_response_to_the_reference(game):
    solution = stationary_point(game, against_mixture(game, 1.0))
    assert total_variation(solution.log_policy, best_response(game, game.log_reference)) < 1e-14


def test_an_action_without_reference_mass_gets_none():
    game = make_game(preferences.cyclic(5, 1.0), [0.5, 0.3, 0.2, 0.0, 0.0], 0.1)
    policy = np.exp(nash(game).log_policy)
    np.testing.assert_array_equal(policy[3:], 0.0)
    smaller = make_game(preferences.cyclic(5, 1.0)[:3, :3], [0.5, 0.3, 0.2], 0.1)
    np.testing.assert_allclose(policy[:3], np.exp(nash(smaller).log_policy), rtol=1e-12)


def test_a_game_of_several_hundred_actions():
    game = make_game(preferences.random(2, 200), np.full(200, 1 / 200), 0.02)
    assert nash(game).gap < 1e-22


def test_games_that_are_none_are_refused():
    cycle = preferences.cyclic(3)
    with pytest.raises(ValueError, match="P \\+ P\\^T = 1"):
        make_game(cycle + 0.1, [0.5, 0.3, 0.2], 1.0)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        make_game(3 * cycle - 1.0, [0.5, 0.3, 0.2], 1.0)
    with pytest.raises(ValueError, match="over 3 actions"):
        make_game(cycle, [0.5, 0.5], 1.0)
    with pytest.raises(ValueError, match="sums to 1"):
        make_game(cycle, [0.5, 0.5, 0.5], 1.0)
    with pytest.raises(ValueError, match="tau > 0"):
        make_game(cycle, [0.5, 0.3, 0.2], 0.0)
    with jax.enable_x64(False), pytest.raises(ValueError, match="float64"):
        make_game(cycle, [0.5, 0.3, 0.2], 1.0)
