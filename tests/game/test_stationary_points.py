"""Where each algorithm stops: the points of the papers, and the conditions they need."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.game import preferences
from po_jax.game.algorithms import (
    Dataset,
    contrastive,
    ipo_md,
    nash_md_pg,
    online_dpo,
    rlhf,
)
from po_jax.game.dynamics import flow, mirror
from po_jax.game.equilibrium import (
    against_mixture,
    best_response,
    exploitability,
    kl,
    make_game,
    nash,
    stationary_point,
    total_variation,
)
from po_jax.game.gradients import expected_gradient, expected_loss
from po_jax.losses import pairwise

REFERENCE = [0.4, 0.3, 0.15, 0.1, 0.05]
BETAS = [0.0, 0.125, 0.5, 1.0]


def slope(algorithm, game, log_policy):
    return float(jnp.abs(expected_gradient(algorithm, game, log_policy)).max())


def moved(log_policy):
    return log_policy + jnp.array([0.1, -0.1, 0.0, 0.05, 0.0])


@pytest.mark.parametrize("beta", BETAS)
def test_ipo_md_and_nash_md_pg_share_their_stationary_point(game, beta):
    tau = game.tau
    point = stationary_point(game, against_mixture(game, beta)).log_policy
    for algorithm in (ipo_md(tau, beta), nash_md_pg(tau, beta)):
        assert slope(algorithm, game, point) < 1e-14
        assert slope(algorithm, game, moved(point)) > 1e-3


@pytest.mark.parametrize("beta", BETAS[1:])
def test_their_gradients_differ_on_the_way(game, logits, beta):
    first, second = (
        expected_gradient(algorithm(game.tau, beta), game, logits)
        for algorithm in (ipo_md, nash_md_pg)
    )
    cosine = first @ second / (jnp.linalg.norm(first) * jnp.linalg.norm(second))
    assert 1.0 - cosine > 2e-4


def test_without_a_mixture_their_gradients_are_proportional(game, logits):
    tau = game.tau
    ipo, self_play = (
        expected_gradient(algorithm(tau, 0.0), game, logits) for algorithm in (ipo_md, nash_md_pg)
    )
    np.testing.assert_allclose(ipo, 4.0 / tau * self_play, rtol=1e-12)


def test_the_mixture_moves_the_stationary_point_away_from_nash(game):
    equilibrium = nash(game).log_policy
    distances = [
        total_variation(stationary_point(game, against_mixture(game, beta)).log_policy, equilibrium)
        for beta in BETAS
    ]
    assert distances[0] == 0.0
    assert distances[1] > 1e-3 and distances == sorted(distances)


def bradley_terry_game(tau=0.5):
    reward = np.array([0.3, -1.0, 2.0, 0.5, 0.0])
    return make_game(preferences.bradley_terry(reward), REFERENCE, tau, reward=reward)


def rlhf_solution(game):
    return jax.nn.log_softmax(game.log_reference + game.reward / game.tau)


def test_under_bradley_terry_online_dpo_and_rlhf_stop_at_the_rlhf_solution():
    game = bradley_terry_game()
    solution = rlhf_solution(game)
    for algorithm in (online_dpo(0.5), rlhf(0.5)):
        assert slope(algorithm, game, solution) < 1e-15
        assert slope(algorithm, game, moved(solution)) > 1e-4


def test_the_rlhf_solution_is_no_equilibrium_of_the_preference():
    game = bradley_terry_game()
    assert exploitability(game, rlhf_solution(game)) > 0.1


def test_under_a_cyclic_preference_online_dpo_stops_away_from_nash():
    tau = 0.3
    game = make_game(preferences.cyclic(3, 0.8), [0.7, 0.2, 0.1], tau)
    assert slope(online_dpo(tau), game, nash(game).log_policy) > 0.01
    path = flow(online_dpo(tau), game, game.log_reference, rate=2.0, steps=3000, geometry=mirror)
    assert slope(online_dpo(tau), game, path[-1]) < 1e-12
    assert exploitability(game, path[-1]) > 0.03
    # No policy explains the preference: around a cycle, margins sum to 0 and its logits do not.
    logit = jnp.log(game.preference) - jnp.log1p(-game.preference)
    assert logit[1, 0] + logit[2, 1] + logit[0, 2] > 1.0


OTHERS = [(0.2, 0.2, 0.2, 0.2, 0.2), (0.05, 0.1, 0.15, 0.3, 0.4)]


def offline_ipo(tau, probabilities):
    return contrastive(partial(pairwise.ipo, tau=tau), Dataset(probabilities))


def offline_solution(game, probabilities):
    return best_response(game, jnp.log(jnp.asarray(probabilities)))


@pytest.mark.parametrize("probabilities", OTHERS)
def test_offline_ipo_best_responds_to_the_data(game, probabilities):
    point = offline_solution(game, probabilities)
    assert slope(offline_ipo(game.tau, probabilities), game, point) < 1e-14


def test_offline_ipo_depends_on_the_data_unless_the_preference_is_additive(game):
    first, second = (offline_solution(game, probabilities) for probabilities in OTHERS)
    assert total_variation(first, second) > 0.03
    utility = np.array([0.1, 0.3, -0.1, 0.0, 0.2])
    additive = make_game(preferences.additive(utility), REFERENCE, 0.3)
    point = jax.nn.log_softmax(additive.log_reference + utility / 0.3)
    for probabilities in OTHERS:
        assert slope(offline_ipo(0.3, probabilities), additive, point) < 1e-14


def moved_to_the_last(log_policy, mass):
    """Gives the last action this probability and leaves the ratios of the others alone."""
    others = jax.nn.log_softmax(log_policy[:-1]) + jnp.log1p(-mass)
    return jnp.append(others, jnp.log(mass))


@pytest.mark.parametrize("loss", [pairwise.ipo, pairwise.dpo])
def test_offline_losses_say_nothing_about_a_completion_that_is_never_drawn(loss):
    # The last action loses to all others, and the data never shows it.
    reward = np.array([0.3, -1.0, 2.0, 0.5, -5.0])
    game = make_game(preferences.bradley_terry(reward), REFERENCE, 0.5, reward=reward)
    offline = contrastive(partial(loss, tau=0.5), Dataset((0.4, 0.3, 0.2, 0.1, 0.0)))
    online = contrastive(partial(loss, tau=0.5))
    little, much = (moved_to_the_last(rlhf_solution(game), mass) for mass in (1e-6, 0.99))
    np.testing.assert_allclose(
        expected_loss(offline, game, little), expected_loss(offline, game, much), rtol=1e-12
    )
    assert abs(expected_gradient(offline, game, much)[-1]) < 1e-15
    # Drawn from the policy, it is seen, judged and pushed down.
    assert expected_gradient(online, game, much)[-1] > 0.005


def test_online_dpo_cures_what_offline_dpo_leaves():
    reward = np.array([0.3, -1.0, 2.0, 0.5, -5.0])
    game = make_game(preferences.bradley_terry(reward), REFERENCE, 0.5, reward=reward)
    offline = contrastive(partial(pairwise.dpo, tau=0.5), Dataset((0.4, 0.3, 0.2, 0.1, 0.0)))
    start = moved_to_the_last(game.log_reference, 0.9)
    solution = rlhf_solution(game)
    offline_end = flow(offline, game, start, rate=2.0, steps=20_000)[-1]
    assert slope(offline, game, offline_end) < 1e-12
    assert total_variation(offline_end, solution) > 0.3
    online_end = flow(online_dpo(0.5), game, start, rate=1.0, steps=4000, geometry=mirror)[-1]
    assert total_variation(online_end, solution) < 1e-6


def test_where_the_reference_has_no_mass_offline_ipo_is_blind_and_kl_infinite():
    game = make_game(preferences.cyclic(3, 0.8), [0.6, 0.4, 0.0], 0.5)
    little, much = (moved_to_the_last(jnp.log(jnp.array([0.6, 0.4, 0.0])), m) for m in (0.01, 0.9))
    offline = ipo_md(0.5, 1.0)
    np.testing.assert_allclose(
        expected_loss(offline, game, little), expected_loss(offline, game, much), rtol=1e-13
    )
    assert slope(offline, game, much) < jnp.inf
    assert kl(little, game.log_reference) == jnp.inf
