"""The jitted loop that draws from a policy, a partner, or their geometric mixture.

The mixture pi_beta(. | x) proportional to pi^(1 - beta) mu^beta is taken token by token
(arXiv 2403.08635, section 4.3): the next token's logits are (1 - beta) log pi + beta log mu. Every
row has its own beta, so one jitted program draws from pi (beta = 0), from mu (beta = 1) and from
anything between. Where no row needs mu, its decoder is not in the program. The partner is mu, or
for Nash-EMA a moving average of pi.
"""

import dataclasses
import functools
from typing import Any

import flax
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from po_jax.language_model import LanguageModel
from po_jax.partitioning import row_parts, shard, whole_parameters
from po_jax.sampling.decoders import Decoders, Logits, decoders
from po_jax.sampling.stages import Stage, fits, pack, stages
from po_jax.sampling.strategy import Strategy, choose
from po_jax.types import Params, Rollout


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
    model: LanguageModel,
    strategy: Strategy,
    policy: Params,
    partner: Params | None,
    prompt: Int[Array, "batch prompt"],
    beta: Float[Array, "batch samples"],
    key: PRNGKeyArray,
) -> Rollout:
    """Draws `samples` completions of each prompt, each from its own mixture.

    The encoders run once a prompt. Rows that have ended leave the loop when the others fit its next
    stage, and it ends when all have. A row's draws depend on the key, the row's index, its prompt
    and its beta alone.

    Args:
      model: of policy and partner, static.
      strategy: how tokens are drawn, static.
      policy: parameters of pi.
      partner: parameters of mu, or None, which leaves mu out: then every beta must be 0. Without
        the model's frozen parts it has the policy's, and a step reads them once for both.
      prompt: token ids.
      beta: weight of the partner in each completion's mixture, in [0, 1].
      key: randomness of all rows.

    Returns:
      Tokens and masks, and the log-probability of each token under pi, under mu (None without
      a partner) and under the distribution that it was drawn from.
    """
    batch, samples = beta.shape
    rows, length = batch * samples, strategy.max_length
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))
    uniform = jax.vmap(lambda row_key: jax.random.uniform(row_key, (length,)))(row_keys)
    loop = _Loop(
        model,
        strategy,
        decoders=decoders(model, policy, partner),
        beta=beta.reshape(rows, 1),
        uniform=shard(uniform, "batch", "length"),
    )
    written = loop.finish(loop.start(prompt, samples), stages(row_parts(), batch, samples))
    drawn = jax.tree.map(lambda x: x.reshape(batch, samples, length), written)
    return drawn.replace(prompt=prompt)


@dataclasses.dataclass(frozen=True)
class _Loop:
    """What does not change while tokens are drawn.

    Attributes:
      model, strategy: as of `sample`.
      decoders: the policy's and, where there is one, the partner's.
      beta: weight of the partner in each row.
      uniform: the random number of each row and position.
    """

    model: LanguageModel
    strategy: Strategy
    decoders: Decoders
    beta: Float[Array, "rows 1"]
    uniform: Float[Array, "rows length"]

    def start(self, prompt: Int[Array, "batch prompt"], samples: int) -> _State:
        """Nothing is drawn yet."""
        (rows, length), ids = self.uniform.shape, self.model.special_ids
        empty = jnp.zeros((rows, length), jnp.float32)
        return _State(
            step=jnp.zeros((), jnp.int32),
            token=jnp.full((rows,), ids.start, jnp.int32),
            running=jnp.ones((rows,), bool),
            caches=self.decoders.begin(prompt, samples, length),
            written=Rollout(
                prompt=None,
                completion=jnp.full((rows, length), ids.pad, jnp.int32),
                mask=jnp.zeros((rows, length), bool),
                policy_logprob=empty,
                partner_logprob=None if self.decoders.count == 1 else empty,
                behaviour_logprob=empty,
            ),
        )

    def finish(self, state: _State, ahead: list[Stage]) -> Rollout:
        """Draws until every row has ended: in the first stage ahead, then in those after it."""
        now, *later = ahead

        def goes_on(state):
            going = (state.step < self.uniform.shape[1]) & jnp.any(state.running)
            return going & ~fits(state.running, now, later[0]) if later else going

        state = lax.while_loop(goes_on, self.advance, state)
        if not later:
            return state.written
        packing = pack(state.running, now, later[0])
        smaller = dataclasses.replace(
            self, beta=packing.rows(self.beta), uniform=packing.rows(self.uniform)
        )
        rest = _State(
            step=state.step,
            token=packing.rows(state.token),
            running=packing.rows(state.running) & packing.taken.reshape(-1),
            caches=self.decoders.take(state.caches, packing.prompts, packing.rows),
            written=jax.tree.map(packing.rows, state.written),
        )
        return jax.tree.map(packing.back, state.written, smaller.finish(rest, later))

    def advance(self, state: _State) -> _State:
        """Draws a token for every row that has not ended."""
        ids = self.model.special_ids
        logits, caches = self.decoders.extend(state.caches, state.token)
        weights = self.strategy.weights(self._mixed(logits, state.step))
        token, total = choose(weights, self.uniform[:, state.step])
        token = jnp.where(state.running, token, ids.pad)

        def at_token(values):
            return jnp.take_along_axis(values, token[:, None], axis=-1)[:, 0]

        def write(column, values):
            return lax.dynamic_update_slice_in_dim(column, values[:, None], state.step, axis=1)

        def write_running(column, values):
            return write(column, jnp.where(state.running, values, 0.0))

        logprobs = [at_token(own) - jax.nn.logsumexp(own, axis=-1) for own in logits]
        behaviour = jnp.log(at_token(weights)) - jnp.log(total)
        written, partner = state.written, state.written.partner_logprob
        return _State(
            step=state.step + 1,
            token=token,
            running=state.running & (token != ids.eos),
            caches=caches,
            written=Rollout(
                prompt=None,
                completion=write(written.completion, token),
                mask=write(written.mask, state.running),
                policy_logprob=write_running(written.policy_logprob, logprobs[0]),
                partner_logprob=None if partner is None else write_running(partner, logprobs[1]),
                behaviour_logprob=write_running(written.behaviour_logprob, behaviour),
            ),
        )

    def _mixed(self, logits: Logits, step: Int[Array, ""]) -> Float[Array, "rows vocab"]:
        """The mixture's logits, without EOS where it is too early for it."""
        mixed = logits[0]
        if len(logits) == 2:
            # Unnormalised logits do: their normalisers only shift a row.
            mixed = (1.0 - self.beta) * logits[0] + self.beta * logits[1]
        if self.strategy.min_length:
            is_eos = jnp.arange(mixed.shape[-1]) == self.model.special_ids.eos
            too_early = is_eos & (step + 1 < self.strategy.min_length)
            mixed = jnp.where(too_early[None], -jnp.inf, mixed)
        return mixed
