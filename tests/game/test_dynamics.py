import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.game import preferences
from po_jax.game.algorithms import ipo_md, nash_md_pg, rlhf
from po_jax.game.dynamics import euclidean, flow, measure, mirror, nash_md
from po_jax.game.equilibrium import (
    against_mixture,
    exploitability,
    kl,
    make_game,
    nash,
    stationary_point,
    total_variation,
    value,
)
from po_jax.game.gradients import expected_gradient

STARTS = [[0.7, 0.2, 0.1], [0.05, 0.05, 0.9], [0.01, 0.98, 0.01]]


def cyclic_game(tau=0.2):
    return make_game(preferences.cyclic(3, 0.8), STARTS[0], tau)


@pytest.mark.parametrize("geometry", [euclidean, mirror])
@pytest.mark.parametrize("start", STARTS)
def test_online_ipo_reaches_the_regularised_nash_of_a_cyclic_game(start, geometry):
    game = cyclic_game()
    path = flow(
        ipo_md(0.2, 0.0),
        game,
        jnp.log(jnp.array(start)),
        rate=0.02,
        steps=10_000,
        geometry=geometry,
    )
    assert exploitability(game, path[-1]) < 1e-6
    assert total_variation(path[-1], nash(game).log_policy) < 1e-3


def test_without_regularisation_self_play_never_gets_there():
    # tau -> 0 in the update only: the flow orbits the equilibrium of rock-paper-scissors.
    game = make_game(preferences.cyclic(3, 0.8), [1 / 3, 1 / 3, 1 / 3], 0.2)
    path = flow(
        nash_md_pg(0.0, 0.0),
        game,
        jnp.log(jnp.array(STARTS[1])),
        rate=0.02,
        steps=20_000,
        geometry=mirror,
    )
    assert measure(game, path)["exploitability"][-5000:].min() > 0.05


@pytest.mark.parametrize("algorithm", [ipo_md, nash_md_pg])
def test_both_mixture_algorithms_end_at_the_same_point_by_different_paths(algorithm):
    game, beta, tau = cyclic_game(), 0.5, 0.2
    # Nash-MD-PG's gradient is tau / 4 of the other's at beta = 0.
    rate = 0.02 if algorithm is ipo_md else 0.02 * 4 / tau
    path = flow(
        algorithm(tau, beta), game, game.log_reference, rate=rate, steps=5000, geometry=mirror
    )
    point = stationary_point(game, against_mixture(game, beta)).log_policy
    assert total_variation(path[-1], point) < 1e-8


def test_exact_nash_md_stops_where_ipo_md_with_beta_rate_tau_does(game, logits):
    rate = 0.5
    path = nash_md(game, logits, rate=rate, steps=300)
    point = stationary_point(game, against_mixture(game, rate * game.tau)).log_policy
    assert total_variation(path[-1], point) < 1e-14


@pytest.mark.parametrize("rate", [0.5, 0.1])
def test_exact_nash_md_is_within_its_bound_of_nash(game, logits, rate):
    # Munos et al. (2023), theorem 1: KL to it shrinks by 1 - rate tau a step, up to 2 rate^2.
    equilibrium = nash(game).log_policy
    path = nash_md(game, logits, rate=rate, steps=200)
    distance = np.array([kl(equilibrium, log_policy) for log_policy in path])
    bound = (1.0 - rate * game.tau) * distance[:-1] + 2.0 * rate**2
    assert (distance[1:] <= bound).all()


def test_rlhf_reaches_its_closed_form(game, logits):
    path = flow(rlhf(game.tau), game, logits, rate=0.5, steps=1000, geometry=mirror)
    solution = jax.nn.log_softmax(game.log_reference + game.reward / game.tau)
    assert total_variation(path[-1], solution) < 1e-10


def test_a_flow_starts_where_it_is_told_and_steps_along_the_gradient(game, logits):
    path = flow(ipo_md(game.tau, 0.0), game, logits, rate=0.01, steps=3)
    assert path.shape == (4, 5)
    np.testing.assert_allclose(path[0], jax.nn.log_softmax(logits), rtol=1e-14)
    step = -0.01 * expected_gradient(ipo_md(game.tau, 0.0), game, logits)
    np.testing.assert_allclose(path[1], jax.nn.log_softmax(logits + step), rtol=1e-14)


def test_measures_along_a_path(game, logits):
    path = flow(ipo_md(game.tau, 0.0), game, logits, rate=0.01, steps=2)
    measured = measure(game, path)
    np.testing.assert_allclose(measured["kl"][1], kl(path[1], game.log_reference))
    np.testing.assert_allclose(measured["exploitability"][2], exploitability(game, path[2]))
    np.testing.assert_allclose(
        measured["value"][0], value(game, path[0], game.log_reference), rtol=1e-13
    )
