"""Losses of supervised training: tokens (cross-entropy) and pairs (binary cross-entropy)."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from po_jax.logprobs import select_and_normalise


def cross_entropy(
    logits: Float[Array, "*shape vocab"],
    targets: Int[Array, "*shape"],
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """KL(smoothed target || softmax(logits)) + z_loss log(Z)^2, and that last term alone.

    The smoothed target has 1 - label_smoothing on the target and shares the rest equally among
    the other tokens. Its entropy is subtracted, as T5X does: a perfect prediction scores 0.

    Args:
      logits: any float dtype.
      targets: token ids.
      label_smoothing: in [0, 1).
      z_loss: coefficient of the squared log-normaliser, >= 0; T5 trains with 1e-4.

    Raises:
      ValueError: if `label_smoothing` or `z_loss` is out of range.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"cross_entropy: expected 0 <= label_smoothing < 1, got {label_smoothing}")
    if not z_loss >= 0.0:
        raise ValueError(f"cross_entropy: expected z_loss >= 0, got {z_loss}")
    selected, log_z = select_and_normalise(logits, targets)
    loss = log_z - selected
    if label_smoothing > 0.0:
        vocabulary = logits.shape[-1]
        share = label_smoothing / (vocabulary - 1)
        others = vocabulary * log_z - jnp.sum(logits.astype(jnp.float32), axis=-1) - loss
        negative_entropy = (1.0 - label_smoothing) * math.log1p(-label_smoothing)
        negative_entropy += label_smoothing * math.log(share)
        loss = (1.0 - label_smoothing) * loss + share * others + negative_entropy
    z_term = z_loss * jnp.square(log_z)
    return loss + z_term, z_term


def binary_cross_entropy(
    logit: Float[Array, " batch"], preference: Float[Array, " batch"]
) -> Float[Array, " batch"]:
    """-p log sigmoid(logit) - (1 - p) log sigmoid(-logit), with soft labels p in [0, 1]."""
    return preference * jax.nn.softplus(-logit) + (1.0 - preference) * jax.nn.softplus(logit)
