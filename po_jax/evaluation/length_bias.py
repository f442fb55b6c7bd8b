"""How much of a win rate is length: wins among answers of one length, wins at equal length.

Judges like long answers, and policies learn it. Neither figure proves a cause.
"""

from dataclasses import dataclass
import math

from jaxtyping import Float, Int
import numpy as np

from po_jax.evaluation.intervals import Values, WinRate, Z, win_rate

NEARLY = 0.1  # share of the longer answer by which nearly equal lengths differ at most

_STEPS = 50  # of Newton's method, which needs a handful where there is an answer
_FAR = 15.0  # log-odds of a rate that differs from 0 or 1 by less than 1e-6


@dataclass(frozen=True)
class ControlledRate:
    """A win rate at equal lengths, and its 95% interval."""

    mean: float
    low: float
    high: float


def nearly_equal(
    preference: Float[np.ndarray, " prompts"],
    length: Int[np.ndarray, " prompts"],
    other: Int[np.ndarray, " prompts"],
) -> WinRate | None:
    """The win rate on the prompts where both answers are nearly of one length (`NEARLY`).

    Args:
      preference: P(an answer > the other one) on each prompt, in [0, 1].
      length: of the answer.
      other: length of the other one.

    Returns:
      None where fewer than two prompts are left.
    """
    kept = np.abs(length - other) <= NEARLY * np.maximum(length, other)
    return win_rate(preference[kept]) if kept.sum() >= 2 else None


def length_controlled(
    preference: Float[np.ndarray, " prompts"], difference: Values
) -> ControlledRate | None:
    """The win rate that a logistic regression on the difference of lengths predicts at none.

    log-odds = a + b tanh(d / s), where s is the standard deviation of the differences d: the
    length-controlled win rate of Dubois et al. (2024), arXiv 2404.04475, for one pair of policies
    and without its term for the difficulty of a prompt. The interval is of the log-odds a, by the
    sandwich estimate of its variance, which holds for labels between 0 and 1 too.

    Args:
      preference: P(an answer > the other one) on each prompt, in [0, 1].
      difference: the answer's length less the other one's.

    Returns:
      None where lengths differ by the same everywhere, or the wins allow no finite estimate.
    """
    scale = difference.std()
    if scale == 0.0:
        return None
    x = np.stack([np.ones(len(difference)), np.tanh(difference / scale)], axis=1)
    fit = np.zeros(2)
    for _ in range(_STEPS):
        rate = 1.0 / (1.0 + np.exp(-x @ fit))
        weight = rate * (1.0 - rate)
        if np.abs(x @ fit).max() > _FAR:
            return None
        bread = np.linalg.inv(x.T @ (weight[:, None] * x))
        step = bread @ (x.T @ (preference - rate))
        fit += step
        if np.abs(step).max() < 1e-9:
            break
    else:
        return None
    residual = (preference - rate)[:, None] * x
    error = math.sqrt((bread @ (residual.T @ residual) @ bread)[0, 0])
    low, mean, high = (1.0 / (1.0 + math.exp(-(fit[0] + k * error))) for k in (-Z, 0.0, Z))
    return ControlledRate(mean, low, high)
