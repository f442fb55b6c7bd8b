"""A judge with another vocabulary than the policy's: through text, and back into its own ids."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from jaxtyping import Bool, Int
import numpy as np

from po_jax.judges.judge import Annotator, Judgement, Tokens
from po_jax.vocabulary import Vocabulary, to_text


@dataclass(frozen=True)
class TranslatedAnnotator:
    """Decodes prompt and completions, encodes them in the annotator's vocabulary, and asks it.

    Attributes:
      annotator: reads its own vocabulary's ids.
      vocabulary: of the policy.
      own_vocabulary: of the annotator.
      prompt_length: tokens kept of a prompt, in the annotator's vocabulary.
      completion_length: tokens kept of a completion, EOS included.
      eos_id: of the annotator's vocabulary.
    """

    annotator: Annotator
    vocabulary: Vocabulary
    own_vocabulary: Vocabulary
    prompt_length: int
    completion_length: int
    eos_id: int = 1

    def begin(
        self,
        prompt: Int[Tokens, "batch prompt_length"],
        completion: Int[Tokens, "batch 2 length"],
        mask: Bool[Tokens, "batch 2 length"],
    ) -> Callable[[], Judgement]:
        """Translates, once the tokens are there, and asks the annotator."""
        prompt, completion, mask = jax.device_get((prompt, completion, mask))
        prompts = self._translate(prompt, prompt > 0, self.prompt_length)
        answers = self._translate(
            completion.reshape(-1, completion.shape[-1]),
            mask.reshape(-1, mask.shape[-1]),
            self.completion_length,
        ).reshape(len(prompts), 2, self.completion_length)
        return self.annotator.begin(prompts, answers, answers > 0)

    def _translate(self, rows: np.ndarray, kept: np.ndarray, length: int) -> np.ndarray:
        out = np.zeros((len(rows), length), np.int32)
        for row, (tokens, keep) in enumerate(zip(rows, kept, strict=True)):
            text = to_text(self.vocabulary, tokens[keep])
            ids = [*self.own_vocabulary.encode(text)[: length - 1], self.eos_id]
            out[row, : len(ids)] = ids
        return out
