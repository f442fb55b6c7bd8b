"""Learning rates as functions of the step, with the names and values of T5X."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from po_jax.types import Schedule


def at_step(value: float | int | Schedule, step: int) -> float:
    """A number, or a schedule's value at a step."""
    return float(value(jnp.int32(step)) if callable(value) else value)


def check_rate(where: str, rate: float | int | Schedule) -> None:
    """Refuses a constant rate that is negative or not finite.

    Raises:
      ValueError: says where.
    """
    if not callable(rate) and not 0.0 <= rate < float("inf"):
        raise ValueError(f"{where}: expected a finite rate, 0 or more, got {rate}")


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """The product of the named factors, never less than `min_learning_rate`.

    With s = max(0, step - step_offset), w = `warmup_steps`, b = `base_learning_rate`:

    constant: b
    linear_warmup: min(1, s / w)
    linear_decay: b min(s / w, 1 + decay_factor (w - s)); holds its own constant and warm-up
    rsqrt_decay: 1 / sqrt(max(s, w))
    rsqrt_normalized_decay: sqrt(w / max(s, w))
    decay_every: decay_factor^floor(s / steps_per_decay)
    cosine_decay: (1 + cos(pi c)) / 2, c the fraction of max(0, s - w) / steps_per_cycle

    Raises:
      ValueError: if `factors` names anything else, or a value is out of its range.
    """

    factors: str = "constant * linear_warmup * rsqrt_decay"
    base_learning_rate: float = 0.5
    warmup_steps: int = 1000
    decay_factor: float = 0.5
    steps_per_decay: int = 20000
    steps_per_cycle: int = 100000
    step_offset: int = 0
    min_learning_rate: float = 1e-8

    def __post_init__(self):
        for name in self._names():
            if name not in _FACTORS:
                raise ValueError(
                    f"LearningRate: expected factors of {sorted(_FACTORS)}, got {name!r}"
                )
        check_rate("LearningRate.base_learning_rate", self.base_learning_rate)
        check_rate("LearningRate.min_learning_rate", self.min_learning_rate)
        warms_up = not _WARMING.isdisjoint(self._names())
        for name, least in (
            ("warmup_steps", int(warms_up)),
            ("steps_per_decay", 1),
            ("steps_per_cycle", 1),
        ):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"LearningRate.{name}: expected {least} or more, got {value}")

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The rate at a step."""
        since = jnp.maximum(0, step - self.step_offset).astype(jnp.float32)
        rate = jnp.float32(1.0)
        for name in self._names():
            rate = rate * _FACTORS[name](self, since)
        return jnp.maximum(rate, self.min_learning_rate)

    def _names(self) -> list[str]:
        return [name.strip() for name in self.factors.split("*")]


def _linear_decay(rate: LearningRate, s: Array) -> Array:
    falling = 1.0 + rate.decay_factor * (rate.warmup_steps - s)
    return rate.base_learning_rate * jnp.minimum(s / rate.warmup_steps, falling)


def _cosine_decay(rate: LearningRate, s: Array) -> Array:
    cycles = jnp.maximum(0.0, s - rate.warmup_steps) / rate.steps_per_cycle
    return 0.5 + 0.5 * jnp.cos(jnp.pi * (cycles % 1))


_WARMING = {"linear_warmup", "linear_decay", "rsqrt_decay", "rsqrt_normalized_decay"}
_FACTORS = {
    "constant": lambda rate, s: rate.base_learning_rate,
    "linear_warmup": lambda rate, s: jnp.minimum(1.0, s / rate.warmup_steps),
    "linear_decay": _linear_decay,
    "rsqrt_decay": lambda rate, s: 1.0 / jnp.sqrt(jnp.maximum(s, rate.warmup_steps)),
    "rsqrt_normalized_decay": lambda rate, s: jnp.sqrt(
        rate.warmup_steps / jnp.maximum(s, rate.warmup_steps)
    ),
    "decay_every": lambda rate, s: rate.decay_factor ** (s // rate.steps_per_decay),
    "cosine_decay": _cosine_decay,
}
