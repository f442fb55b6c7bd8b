"""Solves x = payoff(x) / tau for any tau > 0: a damped Newton method that follows tau down."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float
import numpy as np

Vector = Float[np.ndarray, " actions"]
Payoff = Callable[[Float[Array, " actions"]], Float[Array, " actions"]]

# How much tau shrinks between two stages; the relative residuals that end all stages but the last
# and that count as close; the Newton steps a stage may take, and the halvings of each.
_STAGE = 4.0
_ROUGHLY = 1e-3
_CLOSE = 1e-8
_MOST_STEPS = 100
_MOST_HALVINGS = 30


def follow(payoff: Payoff, tau: float, start: Vector) -> tuple[Vector, int]:
    """Returns the solution and how many Newton steps it took.

    At tau = 1 a few steps from anywhere suffice. From there the solution is a smooth path in tau
    wherever the Jacobian 1 - payoff'(x) / tau is regular. Each stage steps along its tangent and
    corrects with Newton steps; those of the last go on until none lowers the residual: down to
    rounding.

    Args:
      payoff: smooth and bounded; a pytree (a `jax.tree_util.Partial`), compiled once a shape.
      tau: > 0.
      start: where to begin, at tau = 1 or more.
    """
    now = max(tau, 1.0)
    x, steps = _newton(payoff, now, start, last=now == tau)
    while now > tau:
        following = max(now / _STAGE, tau)
        value, jacobian = _linearise(payoff, now, x)
        tangent = np.linalg.solve(jacobian, value)  # dx / d(1 / tau) along the path
        x = x + tangent * (1.0 / following - 1.0 / now)
        x, more = _newton(payoff, following, x, last=following == tau)
        now, steps = following, steps + more
    return x, steps


def _newton(payoff: Payoff, tau: float, x: Vector, last: bool) -> tuple[Vector, int]:
    for step in range(_MOST_STEPS):
        value, jacobian = _linearise(payoff, tau, x)
        residual = x - value / tau
        error = np.linalg.norm(residual)
        if not last and error < _ROUGHLY * np.linalg.norm(x):
            return x, step
        direction = np.linalg.solve(jacobian, residual)
        # Close by, Newton's steps square the error; one that cannot halve it meets rounding.
        enough = 0.5 * error if error < _CLOSE * np.linalg.norm(x) else error
        for halvings in range(_MOST_HALVINGS):
            candidate = x - 0.5**halvings * direction
            if np.linalg.norm(candidate - np.asarray(_call(payoff, candidate)) / tau) < enough:
                x = candidate
                break
        else:
            return x, step
    return x, _MOST_STEPS


def _linearise(payoff: Payoff, tau: float, x: Vector) -> tuple[Vector, np.ndarray]:
    """payoff(x), and the Jacobian of x - payoff(x) / tau."""
    value, slope = _value_and_slope(payoff, x)
    return np.asarray(value), np.eye(len(x)) - np.asarray(slope) / tau


@jax.jit
def _call(payoff: Payoff, x: Array) -> Array:
    return payoff(x)


@jax.jit
def _value_and_slope(payoff: Payoff, x: Array) -> tuple[Array, Array]:
    return payoff(x), jax.jacfwd(payoff)(x)
