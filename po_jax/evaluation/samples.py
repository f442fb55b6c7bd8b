"""What one policy answers to every held-out prompt, and plain facts about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
from jaxtyping import Bool, Float, Int, PRNGKeyArray
import numpy as np

from po_jax.evaluation.intervals import Mean, mean_interval
from po_jax.partitioning import Partitioner
from po_jax.sampling import Strategy, sample
from po_jax.t5.language_model import T5LM
from po_jax.types import Params


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


def draw_samples(
    model: T5LM,
    strategy: Strategy,
    policy: Params,
    reference: Params | None,
    prompt: Int[np.ndarray, "prompts prompt_length"],
    key: PRNGKeyArray,
    *,
    decode: Callable[[Sequence[int]], str],
    batch_size: int,
    partitioner: Partitioner,
) -> Samples:
    """Draws one completion a prompt.

    Args:
      model: the language model of policy and reference.
      strategy: how tokens are drawn.
      policy: parameters of pi.
      reference: parameters of mu, for log mu of what pi wrote; None leaves it unknown.
      prompt: token ids, 0 is padding.
      key: randomness of all prompts. Policies that meet must be given different keys.
      decode: token ids, without padding and EOS, to text.
      batch_size: prompts at a time; the last batch is filled up, so that one program is compiled.
      partitioner: where batches go.

    Raises:
      ValueError: if the mesh cannot share out a batch.
    """
    count = len(prompt)
    beta = partitioner.distribute(np.zeros((batch_size, 1), np.float32))
    pending = []
    for index, start in enumerate(range(0, count, batch_size)):
        rows = np.arange(start, start + batch_size) % count
        own_key = jax.random.fold_in(key, index)
        with partitioner.activate():
            pending.append(
                sample(
                    model, strategy, policy, reference,
                    partitioner.distribute(prompt[rows]), beta, own_key,
                )
            )  # fmt: skip
    rollout = jax.tree.map(
        lambda *parts: np.concatenate(parts)[:count, 0], *(jax.device_get(x) for x in pending)
    )
    return Samples(
        completion=rollout.completion,
        mask=rollout.mask,
        text=tuple(decode([int(t) for t in row if t > 1]) for row in rollout.completion),
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
