"""What each algorithm does over time when its gradient is exact."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from po_jax.game.algorithms import Algorithm
from po_jax.game.equilibrium import (
    Game,
    LogPolicy,
    best_response,
    exploitability,
    kl,
    mixture,
    value,
)
from po_jax.game.gradients import expected_gradient

Path = Float[Array, "times actions"]
Gradient = Float[Array, " actions"]
Geometry = Callable[[Gradient, LogPolicy], Gradient]


def euclidean(gradient: Gradient, log_policy: LogPolicy) -> Gradient:
    """The gradient in the logits of a softmax, as a network would take it."""
    del log_policy
    return gradient


def mirror(gradient: Gradient, log_policy: LogPolicy) -> Gradient:
    """The natural gradient, in the simplex with KL: rare actions learn as fast as common ones."""
    return gradient / jnp.exp(log_policy)


@partial(jax.jit, static_argnames=("algorithm", "steps", "geometry"))
def flow(
    algorithm: Algorithm,
    game: Game,
    start: LogPolicy,
    *,
    rate: float | Array,
    steps: int,
    geometry: Geometry = euclidean,
) -> Path:
    """Descends the expected gradient from `start`; returns log pi at every time, start included.

    Args:
      algorithm: whose gradient to follow.
      game: where.
      start: log-probabilities of the first policy; -inf is not allowed.
      rate: step length, small: an Euler step of the gradient flow.
      steps: how many.
      geometry: what the gradient of the logits is made into before each step.
    """

    def step(log_policy: LogPolicy, _) -> tuple[LogPolicy, LogPolicy]:
        gradient = geometry(expected_gradient(algorithm, game, log_policy), log_policy)
        log_policy = jax.nn.log_softmax(log_policy - rate * gradient)
        return log_policy, log_policy

    start = jax.nn.log_softmax(start)
    _, path = jax.lax.scan(step, start, length=steps)
    return jnp.concatenate([start[None], path])


@partial(jax.jit, static_argnames="steps")
def nash_md(game: Game, start: LogPolicy, *, rate: float | Array, steps: int) -> Path:
    """Exact Nash-MD (Munos et al., 2023), one closed-form mirror step at a time.

    pi' = argmax of rate P(. > pi_beta) - KL(. || pi_beta), with beta = rate tau: its own step
    decides the mixture, and it stops where IPO-MD with that beta does.
    """

    def step(log_policy: LogPolicy, _) -> tuple[LogPolicy, LogPolicy]:
        mixed = mixture(log_policy, game.log_reference, rate * game.tau)
        proximal = game.replace(log_reference=mixed, tau=1.0 / jnp.asarray(rate, mixed.dtype))
        log_policy = best_response(proximal, mixed)
        return log_policy, log_policy

    start = jax.nn.log_softmax(start)
    _, path = jax.lax.scan(step, start, length=steps)
    return jnp.concatenate([start[None], path])


def measure(game: Game, path: Path) -> dict[str, Float[Array, " times"]]:
    """KL to the reference, regularised value against it, and exploitability, along a path."""
    reference = game.log_reference
    return {
        "kl": jax.vmap(lambda log_policy: kl(log_policy, reference))(path),
        "value": jax.vmap(lambda log_policy: value(game, log_policy, reference))(path),
        "exploitability": jax.vmap(lambda log_policy: exploitability(game, log_policy))(path),
    }
