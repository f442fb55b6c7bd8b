"""What one policy answers to every held-out prompt, and plain facts about it."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jaxtyping import Bool, Float, Int, PRNGKeyArray
import numpy as np

from po_jax.evaluation.intervals import Mean, mean_interval
from po_jax.partitioning import Partitioner
from po_jax.sampling import Strategy, sample
from po_jax.t5.language_model import T5LM
from po_jax.types import Params, Rollout
from po_jax.vocabulary import Vocabulary, to_text


@dataclass(frozen=True)
class Samples:
    """One completion a prompt, drawn from a policy.

    Attributes:
      completion: token ids: EOS included, then 0.
      mask: true on the completion's tokens, EOS included.
      text: the completions as text.
      policy_logprob: log pi(y), natural log, summed over tokens; None if unknown.
      reference_logprob: log mu(y) of the same completions; None if unknown.
    """

    completion: Int[np.ndarray, "prompts length"]
    mask: Bool[np.ndarray, "prompts length"]
    text: tuple[str, ...]
    policy_logprob: Float[np.ndarray, " prompts"] | None = None
    reference_logprob: Float[np.ndarray, " prompts"] | None = None

    def lengths(self) -> Int[np.ndarray, " prompts"]:
        """Tokens of each completion, EOS included."""
        return self.mask.sum(axis=1)

    def ended(self, eos_id: int = 1) -> Bool[np.ndarray, " prompts"]:
        """Whether each completion came to its EOS within the length limit."""
        return ((self.completion == eos_id) & self.mask).any(axis=1)


def draw(
    model: T5LM,
    strategy: Strategy,
    policy: Params,
    reference: Params | None,
    prompt: Int[np.ndarray, "prompts prompt_length"],
    beta: Sequence[float],
    key: PRNGKeyArray,
    *,
    batch_size: int,
    partitioner: Partitioner,
) -> Rollout:
    """`sampling.sample` over any number of prompts; what it returns is on the host.

    Args:
      model: the language model of policy and reference.
      strategy: how tokens are drawn.
      policy: parameters of pi.
      reference: parameters of mu, for log mu of what was drawn; None leaves it unknown.
      prompt: token ids, 0 is padding.
      beta: weight of the reference in the mixture that each of a prompt's completions is from.
      key: randomness of all prompts.
      batch_size: prompts at a time; the last batch is filled up, so that one program is compiled.
      partitioner: where batches go.

    Raises:
      ValueError: if the mesh cannot share out a batch.
    """
    count = len(prompt)
    weights = np.broadcast_to(np.float32(beta), (batch_size, len(beta)))
    pending = []
    with partitioner.activate():
        for index, start in enumerate(range(0, count, batch_size)):
            rows = np.arange(start, start + batch_size) % count
            batch, betas = partitioner.distribute((prompt[rows], weights))
            own_key = jax.random.fold_in(key, index)
            pending.append(sample(model, strategy, policy, reference, batch, betas, own_key))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *jax.device_get(pending))


def draw_samples(
    model: T5LM,
    strategy: Strategy,
    policy: Params,
    reference: Params | None,
    prompt: Int[np.ndarray, "prompts prompt_length"],
    key: PRNGKeyArray,
    *,
    vocabulary: Vocabulary,
    batch_size: int,
    partitioner: Partitioner,
) -> Samples:
    """One completion a prompt from the policy alone; arguments as of `draw`.

    Policies that meet must be given different keys, or their completions are not independent.
    """
    rollout = draw(
        model, strategy, policy, reference, prompt, (0.0,), key,
        batch_size=batch_size, partitioner=partitioner,
    )  # fmt: skip
    rollout = jax.tree.map(lambda x: x[:, 0], rollout)
    return Samples(
        completion=rollout.completion,
        mask=rollout.mask,
        text=tuple(to_text(vocabulary, tokens) for tokens in rollout.completion),
        policy_logprob=rollout.policy_logprob.sum(axis=1),
        reference_logprob=None if reference is None else rollout.reference_logprob.sum(axis=1),
    )


def sequence_kl(samples: Samples) -> Mean:
    """KL(pi || mu) of whole completions: the mean of log pi(y) - log mu(y) over y drawn from pi.

    Unbiased, so it may be slightly negative near 0. The completions must come from pi itself:
    temperature 1 and nothing truncated.

    Raises:
      ValueError: if a log-probability is unknown or not finite.
    """
    if samples.policy_logprob is None or samples.reference_logprob is None:
        raise ValueError("sequence_kl: expected samples with log pi and log mu, got one missing")
    return mean_interval(samples.policy_logprob - samples.reference_logprob)
