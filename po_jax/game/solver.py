"""Solves x = payoff(x) / tau for any tau > 0: a damped Newton method that follows tau down."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float
import numpy as np

Vector = Float[np.ndarray, " actions"]
Payoff = Callable[[Float[Array, " actions"]], Float[Array, " actions"]]

# How much tau shrinks between two stages, the Newton steps a stage may take, and the step
# lengths tried at each: 1, 1/2, 1/4 ...
_STAGE = 4.0
_MOST_STEPS = 100
_LENGTHS = 0.5 ** np.arange(30)


def follow(payoff: Payoff, tau: float, start: Vector) -> tuple[Vector, int]:
    """Returns the solution and how many Newton steps it took.

    At tau = 1 a few steps from anywhere suffice. From there the solution is a smooth path in tau
    wherever the Jacobian 1 - payoff'(x) / tau is regular; each stage steps along its tangent and
    is corrected by Newton steps until no length lowers the residual: down to rounding.

    Args:
      payoff: smooth and bounded; a pytree (a `jax.tree_util.Partial`), compiled once a shape.
      tau: > 0.
      start: where to begin, at tau = 1 or more.
    """
    now = max(tau, 1.0)
    x, steps = _newton(payoff, now, start)
    while now > tau:
        following = max(now / _STAGE, tau)
        value, jacobian = _linearise(payoff, now, x)
        tangent = np.linalg.solve(jacobian, value)  # dx / d(1 / tau) along the path
        x, more = _newton(payoff, following, x + tangent * (1.0 / following - 1.0 / now))
        now, steps = following, steps + more
    return x, steps


def _newton(payoff: Payoff, tau: float, x: Vector) -> tuple[Vector, int]:
    least = np.inf
    for step in range(_MOST_STEPS):
        value, jacobian = _linearise(payoff, tau, x)
        residual = x - value / tau
        least = min(least, float(np.linalg.norm(residual)))
        candidates = x - _LENGTHS[:, None] * np.linalg.solve(jacobian, residual)
        residuals = candidates - np.asarray(_each(payoff, candidates)) / tau
        errors = np.linalg.norm(residuals, axis=-1)
        if not errors.min() < least:
            return x, step
        x = candidates[errors.argmin()]
    return x, _MOST_STEPS


def _linearise(payoff: Payoff, tau: float, x: Vector) -> tuple[Vector, np.ndarray]:
    """payoff(x), and the Jacobian of x - payoff(x) / tau."""
    value, slope = _value_and_slope(payoff, x)
    return np.asarray(value), np.eye(len(x)) - np.asarray(slope) / tau


@jax.jit
def _value_and_slope(payoff: Payoff, x: Array) -> tuple[Array, Array]:
    return payoff(x), jax.jacfwd(payoff)(x)


@jax.jit
def _each(payoff: Payoff, candidates: Array) -> Array:
    return jax.lax.map(payoff, candidates)
