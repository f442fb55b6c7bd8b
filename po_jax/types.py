"""The records that travel between sampler, annotators, losses and the training step."""

from collections.abc import Mapping
from typing import Any

import flax
from jaxtyping import Array, Float

Params = Mapping[str, Any]
Coefficient = float | int | Float[Array, ""]
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
    """

    prompt: Leaf
    completion: Leaf
    mask: Leaf
    preference: Leaf
    reference_logprob: Leaf
    reward: Leaf | None = None


@flax.struct.dataclass
class Rollout:
    """K sampled completions a prompt and their log-probabilities under three policies.

    Per-token log-probabilities are float32 natural logs, 0 outside the mask.

    Attributes:
      completion: [batch, K, length] token ids: EOS included, then 0.
      mask: [batch, K, length] bool, true on the completion's tokens, EOS included.
      policy_logprob: [batch, K, length] log pi of each token.
      reference_logprob: [batch, K, length] log mu of each token; None if mu was not run.
      behaviour_logprob: [batch, K, length] log-probability with which each token was drawn.
    """

    completion: Leaf
    mask: Leaf
    policy_logprob: Leaf
    reference_logprob: Leaf | None
    behaviour_logprob: Leaf
