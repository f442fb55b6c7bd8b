"""What one policy answered to every held-out prompt, and plain facts about it."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
import numpy as np

from po_jax.evaluation.intervals import Mean, mean_interval


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


def sequence_kl(samples: Samples) -> Mean | None:
    """KL(pi || mu) of whole completions: the mean of log pi(y) - log mu(y) over y drawn from pi.

    Unbiased, so it may be slightly negative near 0. None if the log-probabilities are unknown.

    Raises:
      ValueError: if a log-probability is not finite.
    """
    if samples.policy_logprob is None or samples.reference_logprob is None:
        return None
    return mean_interval(samples.policy_logprob - samples.reference_logprob)
