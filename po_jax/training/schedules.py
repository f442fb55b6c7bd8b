"""Learning rates as functions of the step, with the names and values of T5X."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from po_jax.types import Schedule


def at_step(value: float | int | Schedule, step: int) -> float:
    """A number, or a schedule's value at a step."""
    return float(value(jnp.int32(step)) if callable(value) else value)


def learning_rate_schedule(
    factors: str = "constant * linear_warmup * rsqrt_decay",
    base_learning_rate: float = 0.5,
    warmup_steps: int = 1000,
    decay_factor: float = 0.5,
    steps_per_decay: int = 20000,
    steps_per_cycle: int = 100000,
    step_offset: int = 0,
    min_learning_rate: float = 1e-8,
) -> Schedule:
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
      ValueError: if `factors` names anything else.
    """
    known = {
        "constant": lambda s: base_learning_rate,
        "linear_warmup": lambda s: jnp.minimum(1.0, s / warmup_steps),
        "linear_decay": lambda s: (
            base_learning_rate
            * jnp.minimum(s / warmup_steps, 1.0 + decay_factor * (warmup_steps - s))
        ),
        "rsqrt_decay": lambda s: 1.0 / jnp.sqrt(jnp.maximum(s, warmup_steps)),
        "rsqrt_normalized_decay": lambda s: jnp.sqrt(warmup_steps / jnp.maximum(s, warmup_steps)),
        "decay_every": lambda s: decay_factor ** (s // steps_per_decay),
        "cosine_decay": lambda s: (
            0.5 + 0.5 * jnp.cos(jnp.pi * (jnp.maximum(0.0, s - warmup_steps) / steps_per_cycle % 1))
        ),
    }
    names = [name.strip() for name in factors.split("*")]
    for name in names:
        if name not in known:
            raise ValueError(
                f"learning_rate_schedule: expected factors of {sorted(known)}, got {name!r}"
            )

    def schedule(step: Int[Array, ""]) -> Float[Array, ""]:
        relative = jnp.maximum(0, step - step_offset).astype(jnp.float32)
        rate = jnp.float32(1.0)
        for name in names:
            rate = rate * known[name](relative)
        return jnp.maximum(rate, min_learning_rate)

    return schedule
