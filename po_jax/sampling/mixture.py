"""Sampling completions from a policy, a reference, or their geometric mixture.

The mixture pi_beta(. | x) proportional to pi^(1 - beta) mu^beta is taken token by token
(arXiv 2403.08635, section 4.3): the next token's logits are (1 - beta) log pi + beta log mu. Every
row has its own beta, so one jitted program draws from pi (beta = 0), from mu (beta = 1) and from
anything between. Where no row needs mu, its decoder is not in the program.
"""

import dataclasses
import functools
from typing import Any

import flax
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from po_jax.partitioning import shard, whole_parameters
from po_jax.types import Params, Rollout

BLOCKS = 128  # Of the vocabulary; a power of two, so that none lies on two shards of it.


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How a token is drawn from the mixture's logits.

    Temperature, then top-k, then top-p change the distribution that tokens are drawn from and
    `Rollout.behaviour_logprob`; they never change log pi and log mu.

    Attributes:
      max_length: tokens a completion, its EOS included; a completion cut off there has no EOS.
      min_length: tokens before which EOS is not drawn.
      temperature: divides the logits; 0 takes the most probable token.
      top_k: keeps the k most probable tokens (and ties with the k-th); 0 keeps all.
      top_p: keeps the fewest most probable tokens whose mass reaches p, in (0, 1].
      eos_id: ends a completion and is part of it.

    Raises:
      ValueError: on a value outside its range.
    """

    max_length: int
    min_length: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    eos_id: int = 1

    def __post_init__(self):
        for name, valid, expected in (
            ("max_length", self.max_length >= 1, "at least 1"),
            ("min_length", 0 <= self.min_length <= self.max_length, "in [0, max_length]"),
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "in (0, 1]"),
        ):
            if not valid:
                raise ValueError(f"Strategy.{name}: expected {expected}, got {getattr(self, name)}")

    def weights(self, logits: Float[Array, "rows vocab"]) -> Float[Array, "rows vocab"]:
        """The distribution that tokens are drawn from, unnormalised: 0 where truncated.

        The largest weight of a row is 1.
        """
        if self.temperature == 0.0:
            return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
        scaled = logits / self.temperature
        if self.top_k:
            k = min(self.top_k, logits.shape[-1])
            kth = lax.top_k(scaled, k)[0][:, -1:]
            scaled = jnp.where(scaled >= kth, scaled, -jnp.inf)
        weights = jnp.exp(scaled - jnp.max(scaled, axis=-1, keepdims=True))
        if self.top_p < 1.0:
            threshold = _nucleus_threshold(weights, self.top_p)
            weights = jnp.where(weights >= threshold[:, None], weights, 0.0)
        return weights


def _nucleus_threshold(weights, top_p):
    """The largest threshold that leaves at least a share `top_p` of each row's mass.

    Bisection over the bit patterns of the floats in [0, 1], which are ordered as the floats are:
    exact after 30 rounds, and no sort of the vocabulary.
    """
    wanted = top_p * jnp.sum(weights, axis=-1)

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low + 1) // 2
        threshold = lax.bitcast_convert_type(middle, jnp.float32)
        enough = jnp.sum(jnp.where(weights >= threshold[:, None], weights, 0.0), axis=-1) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle - 1)

    low = jnp.zeros(weights.shape[:1], jnp.int32)
    high = jnp.full_like(low, lax.bitcast_convert_type(jnp.float32(1), jnp.int32))
    low, _ = lax.fori_loop(0, 30, halve, (low, high))
    return lax.bitcast_convert_type(low, jnp.float32)


def choose(
    weights: Float[Array, "rows vocab"], uniform: Float[Array, "rows"]
) -> tuple[Int[Array, "rows"], Float[Array, "rows"]]:
    """Inverse-CDF draws: the token where a row's cumulative weight first exceeds uniform * total.

    One number in [0, 1) a row instead of one a token. Sums run over blocks of the vocabulary
    first, so that only one block a row is scanned token by token.

    Returns:
      The tokens and the rows' total weights.
    """
    rows, vocab = weights.shape
    blocks = jnp.pad(weights, ((0, 0), (0, -vocab % BLOCKS))).reshape(rows, BLOCKS, -1)
    # What follows is small: every device that has a part of a row's vocabulary does it whole.
    ends = jnp.cumsum(shard(jnp.sum(blocks, axis=-1), "batch", None), axis=-1)
    total = ends[:, -1]
    target = uniform * total
    block = jnp.sum(ends <= target[:, None], axis=-1)
    before = jnp.where(
        block > 0, jnp.take_along_axis(ends, jnp.maximum(block - 1, 0)[:, None], 1)[:, 0], 0.0
    )
    inside = jnp.cumsum(jnp.take_along_axis(blocks, block[:, None, None], 1)[:, 0], axis=-1)
    # A block's own cumulative sum may round below its share of `ends`; stay inside it.
    rest = jnp.minimum(target - before, jnp.nextafter(inside[:, -1], 0.0))
    token = block * blocks.shape[-1] + jnp.sum(inside <= rest[:, None], axis=-1)
    return token.astype(jnp.int32), total


@flax.struct.dataclass
class _State:
    """The loop's carry; `written` holds what a `Rollout` holds, with rows for [batch, samples]."""

    step: Int[Array, ""]
    token: Int[Array, "rows"]
    running: Any
    caches: Any
    written: Rollout


@functools.partial(jax.jit, static_argnames=("model", "strategy"))
@whole_parameters()
def sample(
    model,
    strategy: Strategy,
    policy: Params,
    reference: Params | None,
    prompt: Int[Array, "batch prompt"],
    beta: Float[Array, "batch samples"],
    key: PRNGKeyArray,
) -> Rollout:
    """Draws `samples` completions a prompt, each from its own mixture of policy and reference.

    The encoders run once a prompt. The loop ends when every row has ended. A row's draws depend
    on the key, the row's index, its prompt and its beta alone.

    Args:
      model: a language model (`for_sampling`, `encode`, `prefill`, `extend`), static.
      strategy: how tokens are drawn, static.
      policy: parameters of pi.
      reference: parameters of mu, or None, which leaves mu out: then every beta must be 0.
      prompt: token ids, 0 is padding.
      beta: weight of the reference in each completion's mixture, in [0, 1].
      key: randomness of all rows.

    Returns:
      Tokens and masks, and the log-probability of each token under pi, under mu (None without
      a reference) and under the distribution that it was drawn from.
    """
    batch, samples = beta.shape
    rows, length = batch * samples, strategy.max_length
    given = (policy,) if reference is None else (policy, reference)
    models = tuple(model.for_sampling(params) for params in given)
    beta = beta.reshape(rows, 1)
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))
    uniform = jax.vmap(lambda row_key: jax.random.uniform(row_key, (length,)))(row_keys)
    uniform = shard(uniform, "batch", "length")

    def advance(state):
        extended = [
            model.extend(params, cache, state.token)
            for params, cache in zip(models, state.caches, strict=True)
        ]
        logits = [own for own, _ in extended]
        mixed = logits[0]
        if reference is not None:
            # Unnormalised logits do: their normalisers only shift a row.
            mixed = (1.0 - beta) * logits[0] + beta * logits[1]
        if strategy.min_length:
            too_early = (jnp.arange(mixed.shape[-1]) == strategy.eos_id) & (
                state.step + 1 < strategy.min_length
            )
            mixed = jnp.where(too_early[None], -jnp.inf, mixed)
        weights = strategy.weights(mixed)
        token, total = choose(weights, uniform[:, state.step])
        token = jnp.where(state.running, token, 0)

        def at_token(values):
            return jnp.take_along_axis(values, token[:, None], axis=-1)[:, 0]

        def write(column, values):
            values = jnp.where(state.running, values, jnp.zeros((), values.dtype))
            return lax.dynamic_update_slice_in_dim(column, values[:, None], state.step, axis=1)

        logprobs = [at_token(own) - jax.nn.logsumexp(own, axis=-1) for own in logits]
        written = state.written
        return _State(
            step=state.step + 1,
            token=token,
            running=state.running & (token != strategy.eos_id),
            caches=tuple(cache for _, cache in extended),
            written=Rollout(
                completion=write(written.completion, token),
                mask=write(written.mask, state.running),
                policy_logprob=write(written.policy_logprob, logprobs[0]),
                reference_logprob=(
                    None if reference is None else write(written.reference_logprob, logprobs[1])
                ),
                behaviour_logprob=write(
                    written.behaviour_logprob, jnp.log(at_token(weights)) - jnp.log(total)
                ),
            ),
        )

    empty = jnp.zeros((rows, length), jnp.float32)
    state = _State(
        step=jnp.zeros((), jnp.int32),
        token=jnp.zeros((rows,), jnp.int32),
        running=jnp.ones((rows,), bool),
        caches=tuple(
            model.prefill(params, model.encode(params, prompt), samples, length)
            for params in models
        ),
        written=Rollout(
            completion=jnp.zeros((rows, length), jnp.int32),
            mask=jnp.zeros((rows, length), bool),
            policy_logprob=empty,
            reference_logprob=None if reference is None else empty,
            behaviour_logprob=empty,
        ),
    )
    state = lax.while_loop(
        lambda state: (state.step < length) & jnp.any(state.running), advance, state
    )
    return jax.tree.map(lambda x: x.reshape(batch, samples, length), state.written)
