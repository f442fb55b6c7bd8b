"""The identities of both papers, at policies in general position."""

from functools import partial

import jax
from jax.lax import stop_gradient
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.game import algorithms
from po_jax.game.algorithms import Algorithm, Sampled, contrastive
from po_jax.game.equilibrium import kl, mixture, value
from po_jax.game.gradients import expected_gradient, expected_loss
from po_jax.logprobs import kl_k1, kl_k2, kl_k3
from po_jax.losses import objectives, pairwise

POLICIES = [np.random.default_rng(seed).normal(scale=2.0, size=5) for seed in range(4)]
ONLINE, OFFLINE = Sampled(0.0, 0.0), Sampled(1.0, 1.0)


def half_squared_margin(margin, preference):
    del preference
    return 0.5 * jnp.square(margin)


def kl_gradient(game, logits):
    return jax.grad(lambda logits: kl(jax.nn.log_softmax(logits), game.log_reference))(logits)


def relative_error(actual, expected):
    return jnp.linalg.norm(actual - expected) / jnp.linalg.norm(expected)


@pytest.mark.parametrize("tau", [0.03, 0.3, 3.0])
@pytest.mark.parametrize("logits", POLICIES)
def test_online_ipo_descends_minus_four_over_tau_times_the_regularised_value(game, logits, tau):
    game = game.replace(tau=tau)

    def regularised_value(logits):
        log_policy = jax.nn.log_softmax(logits)
        return value(game, log_policy, stop_gradient(log_policy))

    expected = -4.0 / tau * jax.grad(regularised_value)(logits)
    actual = expected_gradient(algorithms.ipo_md(tau, 0.0), game, logits)
    assert relative_error(actual, expected) < 1e-12


@pytest.mark.parametrize("logits", POLICIES)
def test_the_online_squared_margin_has_twice_the_gradient_of_kl(game, logits):
    actual = expected_gradient(contrastive(half_squared_margin, ONLINE), game, logits)
    assert relative_error(actual, 2.0 * kl_gradient(game, logits)) < 1e-12


@pytest.mark.parametrize("logits", POLICIES)
def test_the_offline_squared_margin_does_not(game, logits):
    actual = expected_gradient(contrastive(half_squared_margin, OFFLINE), game, logits)
    assert relative_error(actual, 2.0 * kl_gradient(game, logits)) > 0.2


def test_offline_and_online_regularisers_agree_only_to_first_order_around_the_reference(game):
    offline = contrastive(half_squared_margin, OFFLINE)

    def error(distance):
        logits = game.log_reference + distance * POLICIES[0]
        return relative_error(
            expected_gradient(offline, game, logits), 2.0 * kl_gradient(game, logits)
        )

    assert error(1e-3) < 0.01
    # The relative error is linear in the distance: the two differ at second order.
    np.testing.assert_allclose(error(1e-3) / error(5e-4), 2.0, rtol=0.01)


@pytest.mark.parametrize("beta", [0.0, 0.125, 0.5, 1.0])
def test_nash_md_pg_ascends_the_regularised_value_against_the_mixture(game, logits, beta):
    def regularised_value(logits):
        log_policy = jax.nn.log_softmax(logits)
        opponent = stop_gradient(mixture(log_policy, game.log_reference, beta))
        return value(game, log_policy, opponent)

    tau = game.tau
    actual = expected_gradient(algorithms.nash_md_pg(tau, beta), game, logits)
    assert relative_error(actual, -jax.grad(regularised_value)(logits)) < 1e-12


def test_rlhf_ascends_the_reward_minus_tau_kl(game, logits):
    def regularised_reward(logits):
        log_policy = jax.nn.log_softmax(logits)
        return jnp.exp(log_policy) @ game.reward - game.tau * kl(log_policy, game.log_reference)

    actual = expected_gradient(algorithms.rlhf(game.tau), game, logits)
    assert relative_error(actual, -jax.grad(regularised_reward)(logits)) < 1e-12


@pytest.mark.parametrize(
    "objective",
    [
        *(
            partial(objectives.contrastive, loss=partial(pairwise.gpo, f=f, tau=0.7))
            for f in pairwise.CONVEX_FUNCTIONS.values()
        ),
        partial(objectives.contrastive, loss=pairwise.ipo, tau=0.7),
        partial(objectives.nash_md, tau=0.7),
        partial(objectives.slic_hf, delta=1.0, sft_weight=0.1),
    ],
    ids=[*pairwise.CONVEX_FUNCTIONS, "ipo", "nash_md", "slic_hf"],
)
def test_soft_labels_and_sampled_labels_give_the_same_expected_gradient(game, logits, objective):
    def with_sampled_labels(policy, batch):
        wins = objective(policy, batch.replace(preference=jnp.ones_like(batch.preference)))
        loses = objective(policy, batch.replace(preference=jnp.zeros_like(batch.preference)))
        return batch.preference * wins + (1.0 - batch.preference) * loses

    soft = expected_gradient(Algorithm(ONLINE, objective), game, logits)
    sampled = expected_gradient(Algorithm(ONLINE, with_sampled_labels), game, logits)
    assert relative_error(sampled, soft) < 1e-13


def test_kl_estimators_have_the_means_and_the_slopes_they_promise(game, logits):
    def of_the_first(estimator):
        return Algorithm(
            ONLINE, lambda policy, batch: estimator(policy[:, 0], batch.reference_logprob[:, 0])
        )

    log_policy = jax.nn.log_softmax(logits)
    forward = kl(log_policy, game.log_reference)
    for estimator in (kl_k1, kl_k3):
        np.testing.assert_allclose(
            expected_loss(of_the_first(estimator), game, log_policy), forward, rtol=1e-13
        )
    assert abs(expected_loss(of_the_first(kl_k2), game, log_policy) - forward) > 0.01

    def reverse_kl(logits):
        return kl(game.log_reference, jax.nn.log_softmax(logits))

    slopes = [expected_gradient(of_the_first(k), game, logits) for k in (kl_k1, kl_k2, kl_k3)]
    np.testing.assert_allclose(slopes[0], 0.0, atol=1e-14)
    assert relative_error(slopes[1], kl_gradient(game, logits)) < 1e-13
    assert relative_error(slopes[2], jax.grad(reverse_kl)(logits)) < 1e-13


def test_exact_gradients_agree_with_finite_differences(game, logits):
    # With the draws held fixed: that is what a sampler does.
    algorithm = algorithms.ipo_md(game.tau, 0.125)
    drawn = algorithm.plan(game, jax.nn.log_softmax(logits))
    fixed = Algorithm(lambda game, log_policy: drawn, algorithm.objective)
    step = 1e-5
    for i, slope in enumerate(expected_gradient(algorithm, game, logits)):
        ahead, behind = (
            expected_loss(fixed, game, jax.nn.log_softmax(logits.at[i].add(sign * step)))
            for sign in (1.0, -1.0)
        )
        np.testing.assert_allclose((ahead - behind) / (2 * step), slope, rtol=1e-7)
