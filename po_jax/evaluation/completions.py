"""Completions of any prompts by a trained policy, or by its mixture with a reference."""

from collections.abc import Sequence
import dataclasses
import functools
import logging

from jaxtyping import Int
import numpy as np

from po_jax.checkpoints.about import POLICIES
from po_jax.checkpoints.load import load_parameters
from po_jax.sampling import Sampler
from po_jax.training.randomness import root_key
from po_jax.vocabulary import Vocabulary, ended, to_text, to_tokens

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sampled text.

    Attributes:
      text: without EOS.
      logprob: under the policy, summed over its tokens.
      ended: whether it came to its EOS within the length limit.
    """

    text: str
    logprob: float
    ended: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completer:
    """Draws completions of prompts.

    Attributes:
      sampler: how they are drawn.
      vocabulary: of the policy.
      prompt_length: tokens kept of a prompt that is given as text.
      keep_end: of one that is too long, its end and not its beginning.
      checkpoint: of the policy, in any known format.
      samples: completions of each prompt, at least 1.
      reference_checkpoint: of the mixture's other side; needed only where beta > 0.
      beta: weight of the reference in the mixture pi^(1 - beta) mu^beta, in [0, 1].
      random_seed: of the sampling.

    Raises:
      ValueError: a value out of its range, or a mixture without its reference.
    """

    sampler: Sampler
    vocabulary: Vocabulary
    prompt_length: int
    checkpoint: str
    samples: int = 1
    reference_checkpoint: str | None = None
    beta: float = 0.0
    random_seed: int = 0
    keep_end: bool = False

    def __post_init__(self):
        if self.samples < 1:
            raise ValueError(f"Completer: expected at least 1 sample, got {self.samples}")
        missing = self.beta > 0.0 and self.reference_checkpoint is None
        if not 0.0 <= self.beta <= 1.0 or missing:
            raise ValueError(
                f"Completer: expected beta in [0, 1], and a reference where it is not 0, got beta "
                f"{self.beta} and reference {self.reference_checkpoint}"
            )

    def of_texts(self, texts: Sequence[str]) -> list[list[Completion]]:
        """Completions of prompts given as text; what is cut is logged.

        Raises:
          ValueError: if there is no text, or one is empty or no Unicode; and as `of_tokens` does.
        """
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError as error:  # half of a surrogate pair
                raise ValueError(f"expected prompts in Unicode, got {text!r:.200}") from error
        if not texts or not all(text.strip() for text in texts):
            raise ValueError(
                f"expected one or more prompts, none of them empty, got {list(texts)!r:.200}"
            )
        tokens, cut = to_tokens(self.vocabulary, texts, self.prompt_length, self.keep_end)
        if cut:
            logger.warning(
                "%d of %d prompts are longer than %d tokens: cut",
                *(cut, len(texts), self.prompt_length),
            )
        return self.of_tokens(tokens)

    def of_tokens(self, prompt: Int[np.ndarray, "prompts length"]) -> list[list[Completion]]:
        """Completions of tokenised prompts.

        Raises:
          ValueError: a checkpoint that is none or of another model, or a batch that the mesh cannot
            divide.
        """
        load = functools.partial(
            load_parameters,
            self.sampler.language_model,
            partitioner=self.sampler.partitioner,
            kinds=POLICIES,
        )
        rollout = self.sampler.draw_all(
            load(self.checkpoint),
            load(self.reference_checkpoint) if self.beta > 0.0 else None,
            prompt,
            (self.beta,) * self.samples,
            root_key(self.random_seed),
        )
        logprob = rollout.policy_logprob.sum(axis=-1)
        ends = ended(rollout.completion, rollout.mask, self.vocabulary.eos_id)
        return [
            [
                Completion(to_text(self.vocabulary, row), float(p), bool(end))
                for row, p, end in zip(*group, strict=True)
            ]
            for group in zip(rollout.completion, logprob, ends, strict=True)
        ]
