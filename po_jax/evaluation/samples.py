"""What one policy answers to every prompt, and plain facts about it."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
import numpy as np

from po_jax.evaluation.intervals import Mean, mean_interval
from po_jax.logprobs import kl_k1
from po_jax.types import Rollout
from po_jax.vocabulary import Vocabulary, ended, to_text


@dataclass(frozen=True)
class Samples:
    """One completion of each prompt, drawn from a policy.

    Attributes:
      completion: token ids: EOS included, then padding.
      mask: true on the completion's tokens, EOS included.
      text: the completions as text.
      ended: whether each completion came to its EOS within the length limit.
      policy_logprob: log pi(y), natural log, summed over tokens; None if unknown.
      reference_logprob: log mu(y) of the same completions; None if unknown.
    """

    completion: Int[np.ndarray, "prompts length"]
    mask: Bool[np.ndarray, "prompts length"]
    text: tuple[str, ...]
    ended: Bool[np.ndarray, " prompts"]
    policy_logprob: Float[np.ndarray, " prompts"] | None = None
    reference_logprob: Float[np.ndarray, " prompts"] | None = None

    @classmethod
    def of(cls, rollout: Rollout, vocabulary: Vocabulary) -> "Samples":
        """The first completion of each prompt of a rollout in host memory, its partner mu."""
        tokens, mask = rollout.completion[:, 0], rollout.mask[:, 0]
        reference = rollout.partner_logprob
        return cls(
            completion=tokens,
            mask=mask,
            text=tuple(to_text(vocabulary, row) for row in tokens),
            ended=ended(tokens, mask, vocabulary.eos_id),
            policy_logprob=rollout.policy_logprob[:, 0].sum(axis=1),
            reference_logprob=None if reference is None else reference[:, 0].sum(axis=1),
        )

    def lengths(self) -> Int[np.ndarray, " prompts"]:
        """Tokens of each completion, EOS included."""
        return self.mask.sum(axis=1)


def sequence_kl(samples: Samples) -> Mean:
    """KL(pi || mu) of whole completions: the mean of log pi(y) - log mu(y) over y drawn from pi.

    Unbiased, so it may be slightly negative near 0. The completions must come from pi itself:
    temperature 1 and nothing truncated.

    Raises:
      ValueError: if a log-probability is unknown or not finite.
    """
    if samples.policy_logprob is None or samples.reference_logprob is None:
        raise ValueError("sequence_kl: expected samples with log pi and log mu, got one missing")
    return mean_interval(kl_k1(samples.policy_logprob, samples.reference_logprob))


def offline_regulariser(rollout: Rollout) -> Mean:
    """E[h^2] / 2 over pairs that mu drew: what offline losses regularise by, in place of the KL.

    It is half the variance of log pi(y) - log mu(y) over pairs, so for each prompt its variance
    under mu (arXiv 2402.05749, section 4).

    Args:
      rollout: two completions of each prompt, in host memory, both drawn from mu, its partner.

    Raises:
      ValueError: if log mu is unknown.
    """
    if rollout.partner_logprob is None:
        raise ValueError("offline_regulariser: expected a rollout with log mu, got none")
    log_ratio = (rollout.policy_logprob - rollout.partner_logprob).sum(axis=-1)
    return mean_interval(0.5 * np.square(log_ratio[:, 0] - log_ratio[:, 1]))
