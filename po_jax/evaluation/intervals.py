"""Means over prompts with 95% confidence intervals.

The prompt is the unit of every figure: all policies answer the same prompts, a comparison is made
within a prompt, and prompts are independent draws.
"""

from dataclasses import dataclass
import math

from jaxtyping import Bool, Float, Int
import numpy as np

Z = 1.959963984540054  # 97.5% quantile of the standard normal distribution

Values = Float[np.ndarray, " prompts"] | Int[np.ndarray, " prompts"] | Bool[np.ndarray, " prompts"]


@dataclass(frozen=True)
class Mean:
    """A mean over `n` prompts, its standard error, and its 95% interval."""

    mean: float
    standard_error: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class WinRate:
    """Mean preference over `n` prompts, its 95% interval, and the share of exact ties."""

    mean: float
    low: float
    high: float
    n: int
    ties: float


def mean_interval(values: Values) -> Mean:
    """mean +- 1.96 s / sqrt(n), with s the sample standard deviation.

    Raises:
      ValueError: if there are fewer than two values, or one is not finite.
    """
    values = _checked(values)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return Mean(mean, error, mean - Z * error, mean + Z * error, len(values))


def win_rate(preference: Float[np.ndarray, " prompts"]) -> WinRate:
    """Mean of P(a > b) over prompts, with a Wilson interval widened or narrowed to its variance.

    The interval holds every rate w with (mean - w)^2 <= z^2 D w (1 - w) / n, where
    D = s^2 / (mean (1 - mean)) is the variance relative to that of win-or-lose labels. Labels of 0
    and 1 have D = 1: Wilson's own interval. Ties and soft preferences vary less and have D < 1.

    Args:
      preference: P(a > b) on each prompt in [0, 1], averaged over both orders.

    Raises:
      ValueError: if there are fewer than two values, or one is outside [0, 1].
    """
    values = _checked(preference)
    if values.min() < 0.0 or values.max() > 1.0:
        raise ValueError(
            f"win_rate: expected preferences in [0, 1], got {values.min()} to {values.max()}"
        )
    n = len(values)
    mean = float(values.mean())
    bernoulli = mean * (1.0 - mean)
    design = min(1.0, float(values.var(ddof=1)) / bernoulli) if bernoulli > 0.0 else 1.0
    weight = Z**2 * design / n
    centre = (mean + weight / 2) / (1 + weight)
    half = math.sqrt(weight * bernoulli + weight**2 / 4) / (1 + weight)
    return WinRate(
        mean=mean,
        low=max(0.0, centre - half),
        high=min(1.0, centre + half),
        n=n,
        ties=float(np.mean(values == 0.5)),
    )


def _checked(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 prompts, got {len(values)}")
    if not np.isfinite(values).all():
        first = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"expected finite values, got {values[first]} at prompt {first}")
    return values
