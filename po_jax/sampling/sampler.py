"""Sampling as the rest of po_jax asks for it: any number of prompts, in batches, on a mesh."""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray
import numpy as np

from po_jax.language_model import LanguageModel, trained_part
from po_jax.like_lengths import reading_by_length
from po_jax.partitioning import Partitioner, collect, filled_batches
from po_jax.sampling.mixture import sample
from po_jax.sampling.strategy import Strategy
from po_jax.types import Params, Rollout


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Draws completions of prompts from the mixture of a policy and a partner.

    Attributes:
      language_model: of policy and partner.
      strategy: how tokens are drawn.
      partitioner: the mesh and its rules.
      batch_size: prompts at a time in `draw_all`, which fills up the last batch.
    """

    language_model: LanguageModel
    strategy: Strategy
    partitioner: Partitioner
    batch_size: int

    def draw(
        self,
        policy: Params,
        partner: Params | None,
        prompt: Int[np.ndarray, "batch prompt_length"],
        beta: Sequence[float],
        key: PRNGKeyArray,
    ) -> Rollout:
        """Queues the drawing for one batch of prompts, of any size, and returns at once.

        Args:
          policy: parameters of pi.
          partner: parameters of mu, for beta > 0 or log mu of what is drawn; or None. Frozen parts
            that are the policy's very own are read once for both.
          prompt: token ids.
          beta: weight of the partner in the mixture that each of a prompt's completions is from.
          key: randomness of all prompts.

        Returns:
          A rollout on the devices.

        Raises:
          ValueError: if the mesh cannot share out the batch, on prompts of another shape, or on a
            beta that is out of range or lacks a partner.
        """
        beta = tuple(beta)
        within = bool(beta) and all(0.0 <= weight <= 1.0 for weight in beta)
        if not within or (partner is None and any(beta)):
            raise ValueError(
                f"Sampler: expected beta in [0, 1], and a partner where it is not 0, got beta "
                f"{beta} and {'no' if partner is None else 'a'} partner"
            )
        prompt = np.asarray(prompt)
        if prompt.ndim != 2 or not prompt.size or prompt.dtype.kind not in "iu":
            raise ValueError(
                f"Sampler: expected prompts as token ids [batch, positions], got {prompt.dtype} "
                f"{list(prompt.shape)}"
            )
        weights = np.broadcast_to(np.asarray(beta, np.float32), (len(prompt), len(beta)))
        prompt, weights = self.partitioner.distribute((prompt, weights))
        if partner is not None and self._differ_in_the_trained_alone(policy, partner):
            partner = trained_part(self.language_model, partner)
        model = reading_by_length(self.language_model, self.partitioner.lengths)
        with self.partitioner.activate():
            return sample(model, self.strategy, policy, partner, prompt, weights, key)

    def _differ_in_the_trained_alone(self, policy: Params, partner: Params) -> bool:
        frozen = self.language_model.frozen
        return bool(frozen) and all(policy[name] is partner[name] for name in frozen)

    def draw_all(
        self,
        policy: Params,
        partner: Params | None,
        prompt: Int[np.ndarray, "prompts prompt_length"],
        beta: Sequence[float],
        key: PRNGKeyArray,
    ) -> Rollout:
        """`draw` for any number of prompts, batch by batch; the rollout is in host memory."""
        parts = []
        for index, (rows, _) in enumerate(filled_batches(len(prompt), self.batch_size)):
            drawn = self.draw(policy, partner, prompt[rows], beta, jax.random.fold_in(key, index))
            # Its prompts are as long as its own longest.
            parts.append(dataclasses.replace(drawn, prompt=None))
        whole = jax.tree.map(lambda *part: np.concatenate(part)[: len(prompt)], *collect(parts))
        return dataclasses.replace(whole, prompt=prompt)

    def fitted(self, rollout: Rollout) -> Rollout:
        """A rollout without the positions that none of its completions came to; waits for it."""
        longest = int(collect(_longest(rollout.mask)))
        limit = rollout.mask.shape[-1]
        length = self.partitioner.lengths.fitting({limit: longest})[limit]
        return rollout if length == limit else _first(rollout, length)


@jax.jit
def _longest(mask: Bool[Array, "batch samples length"]) -> Int[Array, ""]:
    return jnp.max(jnp.sum(mask, axis=-1))


@functools.partial(jax.jit, static_argnames="length")
def _first(rollout: Rollout, length: int) -> Rollout:
    """The first positions of the completions."""
    completions = dataclasses.replace(rollout, prompt=None)
    cut = jax.tree.map(lambda x: x[..., :length], completions)
    return dataclasses.replace(cut, prompt=rollout.prompt)
