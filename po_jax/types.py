"""The records that travel between sampler, judges, losses and the training step."""

from collections.abc import Callable, Mapping
from typing import Any

import flax
from jaxtyping import Array, Float, Int

Params = Mapping[str, Any]
Coefficient = float | int | Float[Array, ""]
Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]  # of the updates so far
Leaf = Any  # an array, or, in a tree of shapes or shardings, what stands for one


@flax.struct.dataclass
class PreferenceBatch:
    """Pairs of completions of the same prompts, with what the losses ask of them.

    Token ids are integers, 0 is padding. A completion holds its EOS, then zeros.

    Attributes:
      prompt: [batch, prompt_length] token ids.
      completion: [batch, 2, completion_length] token ids.
      mask: [batch, 2, completion_length] bool, true on the completion's tokens, EOS included.
      preference: [batch] P(y1 > y2) in [0, 1]; a hard label is 0 or 1.
      reference_logprob: [batch, 2] log mu(y), natural log, summed over tokens.
      reward: [batch, 2] reward of each completion, for the losses that want one.
      step: [batch] updates before this one, all the same, for coefficients that change with it.
    """

    prompt: Leaf
    completion: Leaf
    mask: Leaf
    preference: Leaf
    reference_logprob: Leaf
    reward: Leaf | None = None
    step: Leaf | None = None


@flax.struct.dataclass
class Rollout:
    """K sampled completions of each prompt and their log-probabilities under three policies.

    Per-token log-probabilities are float32 natural logs, 0 outside the mask.

    Attributes:
      prompt: [batch, prompt_length] token ids.
      completion: [batch, K, length] token ids: EOS included, then padding.
      mask: [batch, K, length] bool, true on the completion's tokens, EOS included.
      policy_logprob: [batch, K, length] log pi of each token.
      partner_logprob: [batch, K, length] log-probability of each token under what the policy was
        mixed with, mu or a moving average; None if nothing was.
      behaviour_logprob: [batch, K, length] log-probability with which each token was drawn.
    """

    prompt: Leaf
    completion: Leaf
    mask: Leaf
    policy_logprob: Leaf
    partner_logprob: Leaf | None
    behaviour_logprob: Leaf
