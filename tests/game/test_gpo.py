"""The six functions of GPO: what the paper says of their slopes, tails and minimisers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.game import preferences
from po_jax.game.algorithms import Sampled, contrastive
from po_jax.game.dynamics import flow
from po_jax.game.equilibrium import make_game
from po_jax.game.gradients import expected_loss
from po_jax.losses import pairwise
from po_jax.losses.pairwise import CONVEX_FUNCTIONS

NAMES = sorted(CONVEX_FUNCTIONS)
OFFLINE = Sampled(1.0, 1.0)

# f'(0) and f''(0), differentiated by hand; the ratio |f''(0) / f'(0)| is the strength with which
# a loss pulls back to the reference for each unit of preference it follows.
AT_ZERO = {
    "logistic": (-0.5, 0.25),
    "hinge": (-1.0, 0.0),
    "squared": (-2.0, 2.0),
    "exponential": (-1.0, 1.0),
    "truncated_quadratic": (-2.0, 2.0),
    "savage": (-0.25, 0.125),
}

# The z = tau h at which p f(z) + (1 - p) f(-z) is least, from setting its derivative to 0.
MINIMISER = {
    "logistic": lambda p: np.log(p / (1 - p)),
    "hinge": lambda p: np.sign(p - 0.5),
    "squared": lambda p: 2 * p - 1,
    "exponential": lambda p: 0.5 * np.log(p / (1 - p)),
    "truncated_quadratic": lambda p: 2 * p - 1,
    "savage": lambda p: np.log(p / (1 - p)),
}


def gpo(name, tau):
    return partial(pairwise.gpo, f=CONVEX_FUNCTIONS[name], tau=tau)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_expands_to_preference_plus_squared_margin(game, name):
    tau, direction = 0.7, jnp.array([1.0, -0.5, 0.3, 0.0, -1.0])
    slope, curvature = AT_ZERO[name]
    f0 = float(CONVEX_FUNCTIONS[name](jnp.float64(0.0)))
    algorithm = contrastive(gpo(name, tau), OFFLINE)
    gain = contrastive(lambda h, p: (2.0 * p - 1.0) * tau * h, OFFLINE)
    square = contrastive(lambda h, p: jnp.square(tau * h), OFFLINE)

    def remainder(distance):
        log_policy = jax.nn.log_softmax(game.log_reference + distance * direction)
        expected = partial(expected_loss, game=game, log_policy=log_policy)
        second_order = f0 + slope * expected(gain) + 0.5 * curvature * expected(square)
        return abs(expected(algorithm) - second_order)

    assert remainder(1e-2) < 1e-6
    # What is left is of third order: it falls by 8 or more when the distance halves.
    assert remainder(5e-3) < remainder(1e-2) / 7.9 + 1e-15


@pytest.mark.parametrize("preference", [0.01, 0.3, 0.49, 0.51, 0.8, 0.99])
@pytest.mark.parametrize("name", NAMES)
def test_the_optimal_margin_has_the_sign_of_the_preference(name, preference):
    tau = 0.5
    margins = jnp.linspace(-40.0, 40.0, 16_001)
    losses = gpo(name, tau)(margins, jnp.full(margins.shape, preference))
    least = float(margins[jnp.argmin(losses)])
    assert np.sign(least) == np.sign(preference - 0.5)
    np.testing.assert_allclose(least, MINIMISER[name](preference) / tau, atol=0.005)


FINITE = {"hinge": True, "squared": True, "truncated_quadratic": True}


@pytest.mark.parametrize("name", NAMES)
def test_with_a_certain_preference_only_some_margins_stay_finite(name):
    # One action always wins; tau h should end at 1 or, where f has no minimum, never end.
    tau = 0.5
    game = make_game([[0.5, 1.0], [0.0, 0.5]], [0.5, 0.5], tau)
    algorithm = contrastive(gpo(name, tau), OFFLINE)
    path = flow(algorithm, game, game.log_reference, rate=0.5, steps=8000)
    margin = path[:, 0] - path[:, 1]
    if FINITE.get(name, False):
        np.testing.assert_allclose(tau * margin[-1], 1.0, atol=0.05)
        assert margin[-1] - margin[4000] < 1e-6
    else:
        assert tau * margin[-1] > 3.0
        assert margin[-1] - margin[4000] > 0.2


def test_online_ipo_leaves_a_certain_preference_at_its_regularised_margin():
    game = make_game(preferences.bradley_terry([50.0, -50.0]), [0.5, 0.5], 0.2)
    path = flow(
        contrastive(partial(pairwise.ipo, tau=0.2)), game, game.log_reference, rate=0.1, steps=2000
    )
    # P(. > pi) differs by 1/2 between the actions, so h = 1 / (2 tau).
    np.testing.assert_allclose(path[-1, 0] - path[-1, 1], 2.5, rtol=1e-6)
