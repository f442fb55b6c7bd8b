"""Exact expectations of losses and their gradients: every pair listed, every probability known.

The losses are those of `po_jax.losses`, called on a batch that holds all pairs of actions.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from po_jax.game.algorithms import Algorithm
from po_jax.game.equilibrium import Game, LogPolicy
from po_jax.types import Params, PreferenceBatch

Vector = Float[Array, " actions"]
Parameters = Array | Params
Policy = Callable[[Parameters], LogPolicy]


def all_pairs(game: Game) -> PreferenceBatch:
    """The batch of all ordered pairs: row i * actions + j holds y1 = i and y2 = j.

    An action stands for a completion of one token.
    """
    actions = jnp.arange(len(game.log_reference))
    first, second = (index.ravel() for index in jnp.meshgrid(actions, actions, indexing="ij"))
    pair = jnp.stack([first, second], axis=1)
    return PreferenceBatch(
        prompt=jnp.zeros((len(pair), 1), pair.dtype),
        completion=pair[:, :, None],
        mask=jnp.ones((*pair.shape, 1), bool),
        preference=game.preference.ravel(),
        reference_logprob=game.log_reference[pair],
        reward=None if game.reward is None else game.reward[pair],
    )


def pair_losses(
    algorithm: Algorithm, game: Game, log_policy: LogPolicy, drawn: Float[Array, "first second"]
) -> Float[Array, "first second"]:
    """The objective at every pair; 0 at pairs that are never drawn, where it may be infinite."""
    batch = all_pairs(game)
    possible = drawn.ravel() > 0.0
    policy = log_policy[batch.completion[:, :, 0]]
    batch = batch.replace(
        reference_logprob=jnp.where(possible[:, None], batch.reference_logprob, 0.0)
    )
    losses = algorithm.objective(jnp.where(possible[:, None], policy, 0.0), batch)
    return jnp.where(possible, losses, 0.0).reshape(drawn.shape)


def expected_loss(algorithm: Algorithm, game: Game, log_policy: LogPolicy) -> Float[Array, ""]:
    """E[loss of (y1, y2)], the pair drawn by the algorithm's plan.

    The draw is not differentiated, as a sampler's is not.
    """
    drawn = jax.lax.stop_gradient(algorithm.plan(game, log_policy))
    return jnp.sum(drawn * pair_losses(algorithm, game, log_policy, drawn))


@partial(jax.jit, static_argnames=("algorithm", "policy"))
def expected_gradient(
    algorithm: Algorithm, game: Game, params: Parameters, policy: Policy = jax.nn.log_softmax
) -> Parameters:
    """The gradient of the expected loss with respect to the parameters of a policy.

    Args:
      algorithm: what draws the pairs and what they meet.
      game: over the actions that the policy lists.
      params: parameters of the policy: logits, unless a policy is given.
      policy: maps parameters to log-probabilities of all actions.
    """
    return jax.grad(lambda params: expected_loss(algorithm, game, policy(params)))(params)


@partial(jax.jit, static_argnames="algorithm")
def gradient_covariance(
    algorithm: Algorithm, game: Game, logits: Vector
) -> Float[Array, "actions actions"]:
    """Covariance of the gradient that one sampled pair gives, for a softmax of logits."""
    drawn = jax.lax.stop_gradient(algorithm.plan(game, jax.nn.log_softmax(logits)))

    def losses(logits: Vector) -> Array:
        return pair_losses(algorithm, game, jax.nn.log_softmax(logits), drawn)

    gradients = jax.jacrev(losses)(logits).reshape(-1, len(logits))
    weights = drawn.ravel()
    centred = gradients - (weights @ gradients)[None, :]
    return (weights[:, None] * centred).T @ centred
