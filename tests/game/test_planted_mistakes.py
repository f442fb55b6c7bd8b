"""Mistakes made on purpose: the lab's checks pass the right version and catch the wrong one.

The first is in two public libraries at the time of writing.
"""

from functools import partial

import jax
from jax.lax import stop_gradient
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.game import preferences
from po_jax.game.algorithms import Algorithm, Sampled, contrastive, ipo_md, nash_md_pg
from po_jax.game.autoregressive import all_completions, next_token_logprobs, softmax_policy
from po_jax.game.equilibrium import against_mixture, make_game, mixture, stationary_point, value
from po_jax.game.gradients import all_pairs, expected_gradient
from po_jax.losses import pairwise

TAU, BETA = 0.3, 0.125
RIGHT, WRONG = 1e-12, 0.05


def error(gradient, exact):
    """Distance from the exact gradient, relative to it."""
    return float(jnp.linalg.norm(gradient - exact) / jnp.linalg.norm(exact))


def value_gradient(game, logits, policy=jax.nn.log_softmax, beta=0.0):
    """Of P(pi > sg pi_beta) - tau KL(pi || mu), by differentiating the value itself."""

    def against_itself(logits):
        log_policy = policy(logits)
        opponent = stop_gradient(mixture(log_policy, game.log_reference, beta))
        return value(game, log_policy, opponent)

    return jax.grad(against_itself)(logits)


@pytest.fixture
def language_game():
    """Completions of up to three tokens out of three, one of them EOS; policies by prefix."""
    tree = all_completions(vocab_size=3, max_length=3)
    generator = np.random.default_rng(0)
    shape = (len(tree.parent), 3)
    reference, logits = (jnp.asarray(generator.normal(size=shape)) for _ in range(2))
    probabilities = np.exp(softmax_policy(tree, reference))
    game = make_game(
        preferences.random(0, len(tree.tokens)), probabilities / probabilities.sum(), TAU
    )
    return tree, game, logits


@pytest.mark.parametrize("scope", ["sequence", "token"])
def test_a_token_local_kl_is_caught(language_game, scope):
    """Each token's log-ratio with its own gradient only: drops what it does to later tokens."""
    tree, game, logits = language_game
    reference = next_token_logprobs(tree, game.log_reference)

    def surrogate(logits):
        log_policy = softmax_policy(tree, logits)
        if scope == "sequence":
            penalty = stop_gradient(log_policy - game.log_reference) * log_policy
        else:
            own = next_token_logprobs(tree, log_policy)
            local = stop_gradient(own - reference) * own
            penalty = jnp.sum(jnp.where(tree.below, local[:, None], 0.0), axis=0)
        drawn = stop_gradient(jnp.exp(log_policy))
        advantage = game.preference @ drawn - 0.5
        return drawn @ (-advantage * log_policy + TAU * penalty)

    exact = -value_gradient(game, logits, partial(softmax_policy, tree))
    actual = error(jax.grad(surrogate)(logits), exact)
    assert actual < RIGHT if scope == "sequence" else actual > WRONG


def test_the_loss_that_trains_has_the_sequence_kl(language_game):
    tree, game, logits = language_game
    policy = partial(softmax_policy, tree)
    gradient = expected_gradient(nash_md_pg(TAU, BETA), game, logits, policy)
    assert error(gradient, -value_gradient(game, logits, policy, BETA)) < RIGHT


def test_swapped_labels_are_caught(game, logits):
    right = ipo_md(TAU, 0.0)

    def swapped(policy, batch):
        return right.objective(policy, batch.replace(preference=1.0 - batch.preference))

    exact = -4.0 / TAU * value_gradient(game, logits)
    assert error(expected_gradient(right, game, logits), exact) < RIGHT
    wrong = Algorithm(right.plan, swapped)
    assert error(expected_gradient(wrong, game, logits), exact) > WRONG


@pytest.mark.parametrize("right", [ipo_md(TAU, BETA), nash_md_pg(TAU, BETA)])
def test_beta_on_the_wrong_model_is_caught(game, logits, right):
    point = stationary_point(game, against_mixture(game, BETA)).log_policy
    plan = Sampled(*(1.0 - b if b else 0.0 for b in (right.plan.beta1, right.plan.beta2)))
    wrong = Algorithm(plan, right.objective)
    assert jnp.abs(expected_gradient(right, game, point)).max() < RIGHT
    assert jnp.abs(expected_gradient(wrong, game, point)).max() > 1e-3
    exact = expected_gradient(right, game, logits)
    assert error(expected_gradient(wrong, game, logits), exact) > WRONG


def test_a_missing_stop_gradient_on_the_advantage_is_caught(game, logits):
    def leaking(policy, batch):
        log_ratio = policy[:, 0] - batch.reference_logprob[:, 0]
        return -policy[:, 0] * (batch.preference - 0.5 - TAU * log_ratio)

    exact = -value_gradient(game, logits)
    right = nash_md_pg(TAU, 0.0)
    assert error(expected_gradient(right, game, logits), exact) < RIGHT
    wrong = Algorithm(right.plan, leaking)
    assert error(expected_gradient(wrong, game, logits), exact) > WRONG


def test_differentiating_through_the_draws_is_caught(game, logits):
    """Also the other way round: an opponent without stop-gradient changes the value's slope."""
    right = contrastive(partial(pairwise.ipo, tau=TAU))

    def leaking(logits):
        log_policy = jax.nn.log_softmax(logits)
        batch = all_pairs(game)
        losses = right.objective(log_policy[batch.completion[:, :, 0]], batch)
        return right.plan(game, log_policy).ravel() @ losses

    exact = -4.0 / TAU * value_gradient(game, logits)
    assert error(expected_gradient(right, game, logits), exact) < RIGHT
    assert error(jax.grad(leaking)(logits), exact) > WRONG
