"""From logits and tokens to log-probabilities of tokens and sequences, and estimators of the KL.

Everything here is float32 and in natural logs, whatever the dtype of the logits.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

HostOrDevice = Array | np.ndarray


@jax.custom_vjp
def select_and_normalise(
    logits: Float[Array, "*shape vocab"], tokens: Int[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """The logit of each token and the log-normaliser log sum exp(logits), both float32.

    Differentiable in the logits. The backward pass keeps the logits as its only residual of the
    vocabulary's size and builds one cotangent of that size, in one elementwise pass: no scatter.
    """
    return _select_and_normalise_forward(logits, tokens)[0]


def _select_and_normalise_forward(logits, tokens):
    wide = logits.astype(jnp.float32)
    log_z = jax.nn.logsumexp(wide, axis=-1)
    selected = jnp.take_along_axis(wide, tokens[..., None], axis=-1)[..., 0]
    return (selected, log_z), (logits, tokens, log_z)


def _select_and_normalise_backward(residuals, cotangents):
    logits, tokens, log_z = residuals
    of_selected, of_log_z = (cotangent[..., None] for cotangent in cotangents)
    vocabulary = jax.lax.broadcasted_iota(tokens.dtype, logits.shape, logits.ndim - 1)
    probability = jnp.exp(logits.astype(jnp.float32) - log_z[..., None])
    cotangent = jnp.where(vocabulary == tokens[..., None], of_selected, 0.0)
    return (cotangent + of_log_z * probability).astype(logits.dtype), None


select_and_normalise.defvjp(_select_and_normalise_forward, _select_and_normalise_backward)


def token_logprobs(
    logits: Float[Array, "*shape vocab"], tokens: Int[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """log softmax(logits) at each token, without the rest of the softmax."""
    selected, log_z = select_and_normalise(logits, tokens)
    return selected - log_z


def chunked_token_logprobs(
    head: Callable[[Float[Array, "*batch chunk emb"]], Float[Array, "*batch chunk vocab"]],
    hidden: Float[Array, "*batch length emb"],
    tokens: Int[Array, "*batch length"],
    *,
    chunk: int,
) -> Float[Array, "*batch length"]:
    """`token_logprobs(head(hidden), tokens)`, holding the logits of only `chunk` positions a time.

    The backward pass computes each chunk's logits again. Chunks run along the length, so that
    the batch axes keep their sharding.

    Args:
      head: maps hidden states to logits, position by position; may close over parameters.
      hidden: last hidden states of the decoder.
      tokens: token ids to score.
      chunk: positions a chunk, at least 1; the length need not be a multiple of it.

    Raises:
      ValueError: if `chunk` is less than 1.
    """
    if chunk < 1:
        raise ValueError(f"chunked_token_logprobs: expected chunk >= 1, got {chunk}")
    length = tokens.shape[-1]
    count = -(-length // chunk)

    def split(x: Array, axis: int) -> Array:
        padding = [(0, 0)] * x.ndim
        padding[axis] = (0, count * chunk - length)
        x = jnp.pad(x, padding)
        x = x.reshape(*x.shape[:axis], count, chunk, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    @jax.checkpoint
    def score(_, piece):
        return None, token_logprobs(head(piece[0]), piece[1])

    axis = tokens.ndim - 1
    _, scores = jax.lax.scan(score, None, (split(hidden, axis), split(tokens, axis)))
    scores = jnp.moveaxis(scores, 0, axis)
    return scores.reshape(*tokens.shape[:-1], count * chunk)[..., :length]


def sequence_logprob(
    token_logprobs: Float[Array, "*shape length"],
    mask: Bool[Array, "*shape length"],
    reduce: Literal["sum", "mean"] = "sum",
) -> Float[Array, "*shape"]:
    """Sum (the papers' log pi(y|x)) or mean of the log-probabilities of the masked tokens.

    The mean of an empty completion is 0.

    Raises:
      ValueError: if `reduce` is neither "sum" nor "mean".
    """
    if reduce not in ("sum", "mean"):
        raise ValueError(f"sequence_logprob: expected reduce 'sum' or 'mean', got {reduce!r}")
    total = jnp.sum(token_logprobs, axis=-1, where=mask)
    if reduce == "sum":
        return total
    return total / jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(total.dtype)


def margin(
    policy: Float[Array, "*shape 2"], reference: Float[Array, "*shape 2"]
) -> Float[Array, "*shape"]:
    """h = [log pi(y1) - log mu(y1)] - [log pi(y2) - log mu(y2)]."""
    ratio = policy - reference
    return ratio[..., 0] - ratio[..., 1]


def kl_k1(
    policy: Float[HostOrDevice, "*shape"], reference: Float[HostOrDevice, "*shape"]
) -> Float[HostOrDevice, "*shape"]:
    """r = log pi(y) - log mu(y): with y drawn from pi, an unbiased estimate of KL(pi || mu).

    It may be negative; its variance is Var[r], about 2 KL near pi = mu.
    Differentiated with y held fixed, its expected gradient is 0: a metric, never a loss.
    """
    return policy - reference


def kl_k2(
    policy: Float[Array, "*shape"], reference: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """r^2 / 2 with r = log pi(y) - log mu(y): biased, never negative.

    With y drawn from pi its bias is E[r^2] / 2 - KL, third order in pi - mu; its variance is
    Var[r^2] / 4. Differentiated with y held fixed, its expected gradient is exactly that of
    KL(pi || mu).
    """
    return 0.5 * jnp.square(policy - reference)


def kl_k3(
    policy: Float[Array, "*shape"], reference: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """exp(-r) - 1 + r with r = log pi(y) - log mu(y): unbiased for KL(pi || mu), never negative.

    With y drawn from pi. Its variance, Var[exp(-r) + r], is the least of the three near pi = mu
    but grows with chi^2(mu || pi) and overflows float32 where mu(y) / pi(y) exceeds e^88.
    Differentiated with y held fixed, its expected gradient is that of KL(mu || pi).
    """
    ratio = policy - reference
    return jnp.expm1(-ratio) + ratio


def kl_exact(
    policy_logits: Float[Array, "*shape vocab"], reference_logits: Float[Array, "*shape vocab"]
) -> Float[Array, "*shape"]:
    """KL(pi || mu) of the next token, summed over the vocabulary: no variance.

    A sum of it over the positions of a y drawn from pi is an unbiased estimate of the sequence KL.
    Logits may hold -inf where pi is 0.
    """
    policy = jax.nn.log_softmax(policy_logits.astype(jnp.float32))
    reference = jax.nn.log_softmax(reference_logits.astype(jnp.float32))
    supported = policy > -jnp.inf
    difference = jnp.where(supported, policy, 0.0) - jnp.where(supported, reference, 0.0)
    return jnp.sum(jnp.exp(policy) * difference, axis=-1)
