"""Preference matrices: P[i, j] = P(action i is preferred to action j), P + P^T = 1.

Plain numpy in float64: the inputs of a game, made once.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
import numpy as np

Numbers = Sequence[Any] | np.ndarray  # of floats or ints, nested for a matrix
Matrix = Float[np.ndarray, "actions actions"]


def bradley_terry(reward: Numbers, scale: float = 1.0) -> Matrix:
    """P = sigmoid((r_i - r_j) / scale): the preference of a reward, transitive.

    Args:
      reward: [actions] reward of each action.
      scale: > 0, in units of reward: the difference that wins with probability 0.73.
    """
    reward = np.asarray(reward, np.float64)
    return 1.0 / (1.0 + np.exp(-(reward[:, None] - reward[None, :]) / scale))


def additive(utility: Numbers) -> Matrix:
    """P = 1/2 + u_i - u_j: the preference whose win rates are a sum of two terms.

    Raises:
      ValueError: if utilities differ by more than 1/2, which no probability can express.
    """
    utility = np.asarray(utility, np.float64)
    if np.ptp(utility) > 0.5:
        raise ValueError(
            f"additive: expected utilities within 1/2 of each other, got a range of "
            f"{np.ptp(utility)}"
        )
    return 0.5 + utility[:, None] - utility[None, :]


def cyclic(actions: int = 3, strength: float = 1.0) -> Matrix:
    """Rock-paper-scissors: each action beats the (actions - 1) / 2 before it, in a circle.

    Args:
      actions: an odd number, at least 3.
      strength: in [0, 1]; a winner wins with probability (1 + strength) / 2.

    Raises:
      ValueError: if `actions` is not odd and at least 3, or `strength` is out of range.
    """
    if actions < 3 or actions % 2 == 0:
        raise ValueError(f"cyclic: expected an odd number of actions, at least 3, got {actions}")
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"cyclic: expected strength in [0, 1], got {strength}")
    lead = (np.arange(actions)[:, None] - np.arange(actions)[None, :]) % actions
    wins = (lead > 0) & (lead <= actions // 2)
    loses = lead > actions // 2
    return 0.5 + 0.5 * strength * (wins.astype(np.float64) - loses)


def random(seed: int, actions: int) -> Matrix:
    """Independent uniform win rates for each pair of actions: in general not transitive."""
    upper = np.triu(np.random.default_rng(seed).uniform(-0.5, 0.5, (actions, actions)), k=1)
    return 0.5 + upper - upper.T
