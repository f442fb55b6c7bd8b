"""Policy-gradient surrogates: values, stop-gradients, and exact gradients by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.losses.policy_gradient import nash_md_pg, policy_gradient

TAU = 0.3
POLICY = jnp.asarray([-1.0, -2.0, -0.5])
REFERENCE = jnp.asarray([-1.5, -1.0, -0.5])
PREFERENCE = jnp.asarray([0.9, 0.5, 0.1])


def test_nash_md_pg_value_is_minus_log_pi_times_the_advantage():
    """Advantages p - 1/2 - 0.3 (log pi - log mu) are 0.25, 0.3 and -0.4, by hand."""
    np.testing.assert_allclose(
        nash_md_pg(POLICY, REFERENCE, PREFERENCE, tau=TAU), [0.25, 0.6, -0.2], rtol=1e-5
    )


def test_nash_md_pg_gradient_is_minus_the_advantage_and_stops_there():
    total = lambda *arguments: jnp.sum(nash_md_pg(*arguments, tau=TAU))  # noqa: E731
    of_policy, of_reference, of_preference = jax.grad(total, argnums=(0, 1, 2))(
        POLICY, REFERENCE, PREFERENCE
    )
    np.testing.assert_allclose(of_policy, [-0.25, -0.3, 0.4], rtol=1e-5)
    np.testing.assert_array_equal(of_reference, 0.0)
    np.testing.assert_array_equal(of_preference, 0.0)


def test_nash_md_pg_expected_gradient_is_that_of_preference_minus_tau_kl():
    """Over 5 outcomes and y' from any fixed opponent, expectations are sums."""
    keys = jax.random.split(jax.random.key(0), 4)
    logits, reference, opponent = (jax.random.normal(key, (5,)) for key in keys[:3])
    preference = jax.nn.sigmoid(jax.random.normal(keys[3], (5, 5)))
    log_mu = jax.nn.log_softmax(reference)
    against = preference @ jax.nn.softmax(opponent)

    def objective(logits):
        log_pi = jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(log_pi) * (against - TAU * (log_pi - log_mu)))

    def surrogate(logits):
        log_pi = jax.nn.log_softmax(logits)
        sampling = jax.lax.stop_gradient(jnp.exp(log_pi))
        return jnp.sum(sampling * nash_md_pg(log_pi, log_mu, against, tau=TAU))

    np.testing.assert_allclose(jax.grad(surrogate)(logits), -jax.grad(objective)(logits), atol=1e-6)


def test_policy_gradient_value_and_gradient_by_hand():
    """Regularised rewards (1, 4, 1) less the mean of the others (2.5, 1, 2.5)."""
    policy = jnp.asarray([[-2.0, -1.0, -3.0], [-1.0, -1.0, -1.0]])
    reference = jnp.asarray([[-2.0, -3.0, -1.0], [-1.0, -1.0, -1.0]])
    reward = jnp.asarray([[1.0, 5.0, 0.0], [2.0, 2.0, 2.0]])
    loss = lambda *arguments: policy_gradient(*arguments, tau=0.5)  # noqa: E731
    np.testing.assert_allclose(
        loss(policy, reference, reward), [(2 * -1.5 + 1 * 3.0 + 3 * -1.5) / 3, 0.0], rtol=1e-6
    )
    of_policy, of_reference, of_reward = jax.grad(
        lambda *arguments: jnp.sum(loss(*arguments)), argnums=(0, 1, 2)
    )(policy, reference, reward)
    np.testing.assert_allclose(of_policy, [[0.5, -1.0, 0.5], [0.0, 0.0, 0.0]], atol=1e-6)
    np.testing.assert_array_equal(of_reference, 0.0)
    np.testing.assert_array_equal(of_reward, 0.0)


def test_policy_gradient_expected_gradient_is_that_of_reward_minus_tau_kl():
    """All 4 x 4 pairs of independent samples, weighted by their probability."""
    logits, reference, reward = jax.random.normal(jax.random.key(1), (3, 4))
    log_mu = jax.nn.log_softmax(reference)
    first, second = (x.ravel() for x in jnp.meshgrid(jnp.arange(4), jnp.arange(4)))
    pairs = jnp.stack([first, second], axis=1)

    def objective(logits):
        log_pi = jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(log_pi) * (reward - TAU * (log_pi - log_mu)))

    def surrogate(logits):
        log_pi = jax.nn.log_softmax(logits)
        sampling = jax.lax.stop_gradient(jnp.exp(jnp.sum(log_pi[pairs], axis=1)))
        losses = policy_gradient(log_pi[pairs], log_mu[pairs], reward[pairs], tau=TAU)
        return jnp.sum(sampling * losses)

    np.testing.assert_allclose(jax.grad(surrogate)(logits), -jax.grad(objective)(logits), atol=1e-6)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="expected tau >= 0, got -0.1"):
        nash_md_pg(POLICY, REFERENCE, PREFERENCE, tau=-0.1)
    one = jnp.zeros((3, 1))
    with pytest.raises(ValueError, match="at least 2 completions of each prompt, got 1"):
        policy_gradient(one, one, one, tau=0.1)
    two = jnp.zeros((3, 2))
    with pytest.raises(ValueError, match="expected tau >= 0"):
        policy_gradient(two, two, two, tau=-1)
