"""Surrogates whose gradients are policy gradients: their values mean nothing, only slopes do.

Nash-MD-PG: Munos et al., arXiv 2312.00886.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from po_jax.losses.ranges import check_not_negative
from po_jax.types import Coefficient


def nash_md_pg(
    policy: Float[Array, " batch"],
    reference: Float[Array, " batch"],
    preference: Float[Array, " batch"],
    *,
    tau: Coefficient,
) -> Float[Array, " batch"]:
    """-log pi(y) sg(p - 1/2 - tau (log pi(y) - log mu(y))), y ~ pi, against y' ~ the opponent.

    Both logs are of whole sequences: a token's log-ratio weighs every token's gradient, or the
    expectation would not be the gradient of the sequence KL.

    Args:
      policy: log pi(y), summed over tokens, of completions y drawn from pi.
      reference: log mu(y), summed over tokens.
      preference: p = P(y > y') in [0, 1], y' drawn from the mixture of pi and mu.
      tau: regularisation strength, >= 0.

    Raises:
      ValueError: if `tau` is negative.
    """
    check_not_negative("nash_md_pg", tau=tau)
    advantage = preference - 0.5 - tau * (policy - reference)
    return -policy * jax.lax.stop_gradient(advantage)


def policy_gradient(
    policy: Float[Array, "batch K"],
    reference: Float[Array, "batch K"],
    reward: Float[Array, "batch K"],
    *,
    tau: Coefficient,
) -> Float[Array, " batch"]:
    """REINFORCE for E[reward] - tau KL(pi || mu), with a leave-one-out baseline over K samples.

    Mean over k of -log pi(y_k) sg(R_k - mean of the other R), R = reward - tau (log pi - log mu):
    the baseline does not depend on y_k, so the gradient stays unbiased.

    Args:
      policy: log pi, summed over tokens, of K completions drawn from pi.
      reference: log mu, summed over tokens.
      reward: reward of each completion.
      tau: regularisation strength, >= 0, in units of reward / nat.

    Raises:
      ValueError: if `tau` is negative, or with fewer than two completions of each prompt.
    """
    check_not_negative("policy_gradient", tau=tau)
    samples = policy.shape[1]
    if samples < 2:
        raise ValueError(
            f"policy_gradient: expected at least 2 completions of each prompt, got {samples}"
        )
    regularised = reward - tau * (policy - reference)
    centred = regularised - jnp.mean(regularised, axis=1, keepdims=True)
    advantage = centred * (samples / (samples - 1))
    return -jnp.mean(policy * jax.lax.stop_gradient(advantage), axis=1)
